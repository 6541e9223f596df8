"""One layer explained by this state of ccx and by that of an earlier commit, by turns, on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).resolve().parents[1]
# An editable installation leads every import of ccx to this checkout, by a finder of its own.
_START = """
import runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
sys.path.insert(0, sys.argv[1])
import ccx
assert ccx.__file__.startswith(sys.argv[1]), f"{ccx.__file__} is imported, where {sys.argv[1]} is to be measured"
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def compare(commit: str, options: Sequence[str], rounds: int) -> None:
    """Run ``layer.py`` of a commit, and this one, and print each figure of both with its ratio; medians of the rounds.

    Ratios are those of each round, so that they hold where the speed of the machine drifts.

    Raises
    ------
    subprocess.CalledProcessError
        If there is no such commit, or a run fails.

    """
    there: list[dict[str, float]] = []
    here: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        worktree = Path(folder) / "worktree"
        git = ["git", "-C", str(_ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(worktree), commit], check=True)
        try:
            for number in range(rounds):
                for root, found in ((worktree, there), (_ROOT, here)):
                    found.append(_figures(root, options, Path(folder) / f"{number}.json"))
        finally:
            subprocess.run([*git, "remove", "--force", str(worktree)], check=True)
    table = Table("", commit[:12], "here", f"{commit[:12]} / here", title=f"{rounds} round(s) by turns, medians")
    for name in here[0]:
        if all(name in figures for figures in there):
            old, new = ([figures[name] for figures in found] for found in (there, here))
            ratio = median(a / b for a, b in zip(old, new, strict=True) if b)
            table.add_row(name, f"{median(old):.3g}", f"{median(new):.3g}", f"{ratio:.2f} ×")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _figures(root: Path, options: Sequence[str], file: Path) -> dict[str, float]:
    """Run the benchmark of a checkout in a process of its own -> its figures by name and unit."""
    script = root / "benchmarks" / "layer.py"
    command = [sys.executable, "-c", _START, str(root), str(script), *options, "--json", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=root)
    found = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return {f"{figure['name']} ({figure['unit']})": figure["value"] for figure in found["figures"]}
