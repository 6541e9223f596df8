"""Benchmarks that asv runs: ``asv run --quick --python=same``; docs/benchmarks.md says more."""

import sys
from pathlib import Path

# asv puts the folder above this one on the path; the data and the yardsticks are imported from the root.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
