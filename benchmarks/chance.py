"""Time chance and held-out scores at Broden/ADE20K scale: one unit of five ranges, beam search, one thread.

    python benchmarks/chance.py [--samples 22000] [--permutations 100]

First the null scores of some permutations are checked against bitmaps that are permuted by hand. docs/benchmarks.md
describes the data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script

import ccx
from benchmarks._machine import Clock, PeakMemory
from benchmarks.synthetic import Synthetic, generate
from ccx.chance import permutations
from ccx.kernels import bitmap_histogram, permuted_histogram, upsample_pack

CLUSTERS, TARGET, N_CHECKED = 5, 60.0, 3


def check(data: Synthetic, concepts: ccx.Concepts) -> None:
    """Compare with permuted bitmaps.

    Raises
    ------
    RuntimeError
        If a histogram, a maximum or a p-value differs.

    """
    found = ccx.explain(data.activations, concepts, units=[0], permutations=N_CHECKED, threads=1, progress=False)
    orders = permutations(np.zeros(concepts.n_samples, np.int64), N_CHECKED, seed=0)
    maps = np.ascontiguousarray(data.activations[:, 0])
    for item in found.explained:
        rows = upsample_pack(maps, concepts.shape, item.range)
        permuted = np.stack([rows[order] for order in orders])
        if not np.array_equal(
            permuted_histogram(rows, orders, concepts.atoms), bitmap_histogram(permuted, concepts.atoms)
        ):
            raise RuntimeError("histograms differ from those of permuted bitmaps")
        scores = [one.score for one in ccx.explain_bitmaps(permuted, concepts, threads=1, progress=False)]
        p = (1 + sum(score >= item.score for score in scores)) / (1 + N_CHECKED)
        if item.chance is None or (item.chance.maximum, item.chance.p) != (max(scores), p):
            msg = f"{item.chance} differs from the scores of permuted bitmaps, {scores}"
            raise RuntimeError(msg)


def main() -> None:
    """Read the command line, check, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--samples", type=int, default=22_000, help="N (default: %(default)s)")
    parser.add_argument("--permutations", type=int, default=100, help="(default: %(default)s)")
    options = parser.parse_args()
    data = generate(options.samples, 1)
    concepts = data.concepts()
    check(data, concepts)
    asked = {"clusters": CLUSTERS, "threads": 1, "progress": False}
    with Clock() as plain:
        ccx.explain(data.activations, concepts, **asked)
    memory = PeakMemory()
    memory.reset()
    with Clock() as null:
        found = ccx.explain(data.activations, concepts, permutations=options.permutations, **asked)
    peak = memory.beyond()
    half = np.arange(options.samples) % 2 == 0
    with Clock() as split:
        ccx.explain(data.activations, concepts, fit_samples=half, **asked)
    print(f"{concepts!r}; one unit of {len(found)} ranges, one thread, CPU seconds")
    print(f"explain: {plain.cpu:.2f}")
    goal = f"goal {TARGET:g} at 22,000 samples, permutations=100"
    print(f"explain, permutations={options.permutations}: {null.cpu:.2f} ({goal})")
    print(f"explain, fit_samples=half of the samples: {split.cpu:.2f}, splitting the annotations included")
    print(f"peak memory of the null: {peak / 1e9:.2f} GB")
    for item in found:
        print(item.range_index, f"{item.bitmap_cells / concepts.n_cells:.3f}", f"{item.iou:.4f}", item.chance)


if __name__ == "__main__":
    main()
