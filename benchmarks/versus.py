"""Race ccx against the published package, and against NumPy without atoms: the same problems, in one run.

    python benchmarks/versus.py [--scale small|medium|both] [--bitmaps 5] [--time-limit 120]
                                [--systems "ccx beam,peer beam"] [--json FILE] [--markdown FILE]

What is and what is not included is printed with the tables and explained in docs/benchmarks.md. The published package
comes with ``pip install "ccx[versus]"``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ccx
from benchmarks import _peers
from benchmarks._machine import machine
from benchmarks._peers import BEAM, LENGTH, SYSTEMS
from benchmarks._problem import SCALES, cells_of, draw
from benchmarks.synthetic import Synthetic

PACKAGES = ["compositional-explanations", "torch"]
REMARKS = [
    f"Formulas of at most {LENGTH} concepts; beams are {BEAM} wide. One thread each; every system in a process of its "
    "own, one after the other.",
    "CPU seconds are user and system seconds of that process, the share of the latter is under system. Starting it, "
    "importing, compiling (numba) and reading the masks and bitmaps are not included.",
    "Preparation, once a data set: for ccx from boolean masks to atoms, pair counts and content hash; for the peer the "
    "counts that it caches (which concepts are disjoint is given to it); for NumPy packing the masks.",
    "A bitmap: everything from bool[N, H, W] to the formula. For ccx that is packing, the histogram over atoms, the "
    "search and naming; upsampling activations is nobody's task here. Each bitmap is a call of its own, in which ccx "
    "mmesh, cfh and areas measure boxes and rectangles of all masks anew.",
    "Memory: peaks beyond what was resident when the step began (before preparation: all boolean masks); in all = "
    "beyond the process without a problem, with all that the system keeps (the peer: all masks; ccx: its atoms). All "
    "run with MALLOC_MMAP_THRESHOLD_ set, without which the peer's process grows to four times this and is slower.",
    "The formulas of all systems are recounted on boolean masks from the label maps; IoUs are compared as fractions.",
    "≥: a time-out counts with the CPU seconds that it was given. The seconds of a crash count nowhere.",
]


TIME_OUT = "time-out"


@dataclass
class Outcome:
    """What a step took and, of a bitmap, what came out: its exact IoU, recounted, or a failure."""

    user: float = 0.0
    system: float = 0.0
    peak: int = 0
    peak_in_all: int = 0
    formula: str | None = None
    claimed: float | None = None  # the IoU that the system says it has
    failure: str | None = None
    intersection: int = 0
    union: int = 1

    @property
    def cpu(self) -> float:
        """CPU seconds; of a time-out at least these."""
        return self.user + self.system

    @property
    def iou(self) -> Fraction:
        """The exact IoU."""
        return Fraction(self.intersection, self.union)

    @property
    def crashed(self) -> bool:
        """Whether the time says nothing."""
        return self.failure not in {None, TIME_OUT}


@dataclass
class Run:
    """What a system did at one scale."""

    name: str
    preparation: Outcome = field(default_factory=Outcome)
    bitmaps: list[Outcome] = field(default_factory=list)

    def most(self, attribute: str) -> int | None:
        """Return the largest of an attribute of the bitmaps that were finished."""
        return max((getattr(one, attribute) for one in self.bitmaps if not one.failure), default=None)

    def texts(self) -> list[str]:
        """Return the cells of its row under `RUN_COLUMNS`."""
        failures = [one.failure for one in self.bitmaps if one.failure]
        at_least = "≥ " if TIME_OUT in failures else ""
        seconds = [one.cpu for one in self.bitmaps if not one.crashed]
        answered = [one for one in self.bitmaps if not one.failure]
        return [
            self.name,
            _seconds(self.preparation.cpu),
            at_least + _seconds(median(seconds)) if seconds else "–",
            at_least + _seconds(max(seconds)) if seconds else "–",
            f"{sum(one.system for one in answered) / sum(one.cpu for one in answered):.0%}" if answered else "–",
            _megabytes(self.preparation.peak),
            _megabytes(self.most("peak")),
            _megabytes(self.most("peak_in_all")),
            "; ".join(
                [
                    f"{len(self.bitmaps) - len(failures)} of {len(self.bitmaps)}",
                    *(f"{failures.count(text)} × {text}" for text in dict.fromkeys(failures)),
                ]
            ),
        ]

    def against(self, ours: Run) -> list[str]:
        """Return the cells of its row under `RATIO_COLUMNS`: how many times more it takes than `ours`."""
        timed = [pair for pair in zip(self.bitmaps, ours.bitmaps, strict=True) if not any(one.crashed for one in pair)]
        judged = [pair for pair in zip(self.bitmaps, ours.bitmaps, strict=True) if not any(one.failure for one in pair)]
        ratios = [theirs.cpu / mine.cpu for theirs, mine in timed]
        at_least = "≥ " if any(theirs.failure for theirs, _ in timed) else ""
        users = [theirs.user / mine.user for theirs, mine in judged if mine.user]
        memory = [run.most("peak_in_all") for run in (self, ours)]
        signs = [(mine.iou > theirs.iou) - (mine.iou < theirs.iou) for theirs, mine in judged]
        return [
            f"{self.name} : {ours.name}",
            f"{at_least}{median(ratios):,.0f} ({min(ratios):,.0f} to {max(ratios):,.0f})" if ratios else "–",
            f"{median(users):,.0f}" if users else "–",
            f"{memory[0] / memory[1]:.1f}" if memory[0] and memory[1] else "–",
            *(str(signs.count(sign)) for sign in (1, 0, -1)),
            str(len(self.bitmaps) - len(judged)),
        ]


RUN_COLUMNS = [
    "",
    "preparation",
    "a bitmap: median",
    "slowest",
    "system",
    "peak: preparation",
    "a bitmap",
    "in all",
    "finished",
]
RATIO_COLUMNS = [
    "",
    "CPU seconds a bitmap",
    "user seconds",
    "memory in all",
    "our IoU better",
    "equal",
    "worse",
    "not finished",
]


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{value * 1e3:.3g} ms"


def _megabytes(n_bytes: int | None) -> str:
    return "–" if n_bytes is None else f"{n_bytes / 1e6:,.0f} MB"


@dataclass
class Race:
    """All systems at one scale."""

    scale: str
    facts: str
    runs: list[Run]

    def tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield (title, column names, rows)."""
        yield f"{self.scale}: CPU seconds and peak memory", RUN_COLUMNS, [run.texts() for run in self.runs]
        ours = {run.name: run for run in self.runs if run.name.startswith("ccx ")}
        rows = []
        for rival in self.runs:
            mine = ours.get(f"ccx {rival.name.split()[-1]}", ours.get("ccx beam"))
            if rival.name not in ours and mine:
                rows.append(rival.against(mine))
        if rows:
            yield f"{self.scale}: how many times more than ccx", RATIO_COLUMNS, rows

    def agreement(self) -> str:
        """Say how often the exact searches that must return the same formula did."""
        same = [run for run in self.runs if run.name.startswith(("ccx", "NumPy")) and run.name != "ccx optimal"]
        answers = list(zip(*([one.formula for one in run.bitmaps] for run in same), strict=True))
        n_equal = sum(len(set(formulas)) == 1 for formulas in answers)
        return f"{self.scale}: {', '.join(run.name for run in same)}: the same formula for {n_equal} of {len(answers)}."


def run_system(folder: Path, name: str, n_bitmaps: int, time_limit: float) -> Run:
    """Let a system explain all bitmaps, in a new process after each one that ended early."""
    run, log = Run(name), folder / "records.jsonl"
    while len(run.bitmaps) < n_bitmaps:
        log.unlink(missing_ok=True)
        first = len(run.bitmaps)
        ending = _spawn(folder, name, first, time_limit, n_bitmaps - first)
        records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        for record in records:
            step = record.pop("step")
            outcome = Outcome(**record)
            if step == "explain":
                run.bitmaps.append(outcome)
            elif first == 0:
                run.preparation = outcome
        missing = n_bitmaps - len(run.bitmaps)
        if not records:
            run.bitmaps += [Outcome(failure=f"{ending} in preparation")] * missing
        elif missing:
            run.bitmaps.append(Outcome(user=time_limit, failure=ending))
    return run


def _spawn(folder: Path, name: str, first: int, time_limit: float, n_bitmaps: int) -> str:
    """Run the process of a system -> how it ended."""
    settings = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
    settings |= {"MALLOC_MMAP_THRESHOLD_": "8000000", "MALLOC_TRIM_THRESHOLD_": "64000000"}  # for what REMARKS says
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, _peers.__file__, str(folder), name, str(first), str(time_limit)],
            env={**os.environ, **settings},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            code = process.wait(timeout=600 + 10 * time_limit * n_bitmaps)  # wall time, others may keep it waiting
        except subprocess.TimeoutExpired:
            return "no end, and no CPU time used"
        finally:
            process.kill()
            process.wait()
    if code == -signal.SIGPROF:
        return TIME_OUT
    if code < 0:
        return f"crash: {signal.Signals(-code).name}"
    return f"crash: {(errors.read_text().strip().splitlines() or [f'exit status {code}'])[-1]}"


def judge(run: Run, data: Synthetic, bitmaps: NDArray[np.bool_]) -> None:
    """Recount every formula on boolean masks.

    Raises
    ------
    RuntimeError
        If a system of ours says another IoU than it has.

    """
    for outcome, bitmap in zip(run.bitmaps, bitmaps, strict=True):
        if outcome.formula is not None:
            mask = ccx.parse(outcome.formula).evaluate(lambda name: cells_of(data, name))
            outcome.intersection, outcome.union = int((mask & bitmap).sum()), int((mask | bitmap).sum())
        if outcome.claimed is not None and outcome.claimed != float(outcome.iou):
            msg = f"{run.name} says IoU {outcome.claimed} of {outcome.formula}, which has {float(outcome.iou)}"
            raise RuntimeError(msg)


def race(scale: str, names: list[str], n_bitmaps: int, time_limit: float) -> Race:
    """Give the same problem to all systems, one after the other."""
    data, problem, facts = draw(SCALES[scale], n_bitmaps)
    bitmaps = problem.bitmaps
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        problem.save(Path(folder))
        del problem  # only the systems need its masks
        for name in names:
            print(f"{scale}: {name} ...", file=sys.stderr, flush=True)
            runs.append(run_system(Path(folder), name, n_bitmaps, time_limit))
            judge(runs[-1], data, bitmaps)
    return Race(scale, facts, runs)


def systems() -> tuple[list[str], list[str]]:
    """Return the systems that can take part, and a remark on each one that cannot."""
    masks = np.eye(3, dtype=np.bool_)[:, None]
    names, remarks = [], []
    search: Any
    for name in SYSTEMS:
        program, search = name.split()
        if program == "ccx":
            try:
                ccx.explain_bitmaps(masks[:1, None], masks[:, None], search=search, threads=1, progress=False)
            except ccx.CCXError:
                remarks.append(f'{name} did not take part: this version has no search="{search}".')
                continue
        if program == "peer" and importlib.util.find_spec("compositional_explanations") is None:
            remarks.append(f'{name} did not take part: pip install "ccx[versus]".')
            continue
        names.append(name)
    return names, remarks


def main() -> None:
    """Read the command line, race, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", choices=[*SCALES, "both"], default="both", help="both = small and medium")
    parser.add_argument("--bitmaps", type=int, default=5, help="how many, each of a unit (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=120, help="CPU seconds a bitmap (default: %(default)s)")
    parser.add_argument("--systems", help=f"some of: {', '.join(SYSTEMS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    options = parser.parse_args()
    names, remarks = systems()
    if options.systems:
        wanted = [name.strip() for name in options.systems.split(",")]
        missing = [name for name in wanted if name not in names]
        if missing:
            parser.error(f"not here: {', '.join(missing)}; there are {', '.join(names)}. {' '.join(remarks)}")
        names, remarks = wanted, []
    scales = ["small", "medium"] if options.scale == "both" else [options.scale]
    races = [race(scale, names, options.bitmaps, options.time_limit) for scale in scales]
    versions = machine() | {name: version(name) for name in PACKAGES if any(one.startswith("peer") for one in names)}
    limit = f"A bitmap has {options.time_limit:g} CPU seconds."
    remarks = [*(one.agreement() for one in races), *remarks, limit, *REMARKS]
    text = markdown(versions, races, remarks)
    show(versions, races, remarks)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        everything = {"machine": versions, "remarks": remarks, "races": [asdict(one) for one in races]}
        options.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def markdown(versions: dict[str, Any], races: list[Race], remarks: list[str]) -> str:
    """Return everything, to paste into a page."""
    lines = [_sentence(versions), ""]
    for one in races:
        lines += [f"{one.scale.capitalize()}: {one.facts}.", ""]
        for _title, columns, rows in one.tables():
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join(lines + [f"- {text}" for text in remarks] + [""])


def show(versions: dict[str, Any], races: list[Race], remarks: list[str]) -> None:
    """Print everything to the terminal."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(_sentence(versions), highlight=False)
    for one in races:
        console.print(f"\n{one.scale}: {one.facts}", highlight=False)
        for title, columns, rows in one.tables():
            table = Table(*columns, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    console.print(*remarks, sep="\n", highlight=False)


def _sentence(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {' + '.join(value) if isinstance(value, list) else value}" for key, value in facts.items())


if __name__ == "__main__":
    main()
