"""Time every kernel and a whole layer on a GPU, each after a check against the CPU, and write a report of one page.

    python benchmarks/gpu.py [--samples 22000] [--units 512] [--markdown gpu-report.md]

Kernels are timed by the GPU's own events, and beside each a plain copy on the device, which is the yardstick of its
bandwidth. Without a GPU it fails. docs/gpu.md says what is expected.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script

import ccx
from benchmarks._gpu_cases import BEAM, CLUSTERS, Case, cases, difference
from benchmarks._machine import machine
from benchmarks.synthetic import Synthetic, generate
from ccx.errors import CCXError
from ccx.kernels.cuda.device import device, fatbin_of, require_cupy

LENGTH = 3
CASE_UNITS = 32  # units of the case of range_histogram
MASK_SAMPLES = 4000  # whose concepts' masks are more than a GPU's cache holds
CHECKED_UNITS = 4
ROUNDS, WARM_UP = 20, 3


class Events:
    """The clock of a GPU: marks in its stream."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def mark(self) -> Any:
        """Put a mark behind what was asked for so far."""
        event = self._cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the time between two marks that the GPU has passed."""
        return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1e3


@dataclass
class Timed:
    """A kernel's seconds, median and least, and those of a copy of as many bytes a second as the device reaches."""

    case: Case
    median: float
    least: float
    copied: float  # bytes a second, read and written

    def texts(self) -> list[str]:
        """Return a row of the table."""
        rate = self.case.n_bytes / self.median
        return [
            f"`{self.case.name}`",
            f"{self.median * 1e3:.3f} ms",
            f"{self.least * 1e3:.3f} ms",
            f"{self.case.n_bytes / 1e6:,.1f} MB",
            f"{rate / 1e9:,.0f} GB/s",
            f"{rate / self.copied:.0%}",
            f"{self.case.operations / 1e6:,.1f} M {self.case.unit}",
            f"{self.case.operations / self.median / 1e9:,.1f} G/s",
        ]


@dataclass
class Failed:
    """A kernel that raised, or whose result is not the CPU's."""

    case: Case
    error: Exception

    def texts(self) -> list[str]:
        """Return a row of the table."""
        reason = " ".join(f"{type(self.error).__name__}: {self.error}".split())
        return [f"`{self.case.name}`", f"**FAILED** {reason}", *[""] * 6]


@dataclass
class Layer:
    """A whole layer by `ccx.explain`: seconds of the wall clock, and for each kernel its launches and seconds.

    The launches are those of a second run, as marks in the stream take time.
    """

    n_units: int
    wall: float
    launches: dict[str, list[float]]

    @property
    def kernels(self) -> float:
        """Seconds of all kernels together."""
        return sum(map(sum, self.launches.values()))

    def markdown(self) -> str:
        """Return its part of the page."""
        lines = [f"A layer of {self.n_units} units × {CLUSTERS} ranges: **{self.wall:.3f} s** by the wall clock,"]
        lines += [
            f"and **{self.kernels:.3f} s** in these kernels:",
            "",
            "| kernel | launches | seconds |",
            "|---|---|---|",
        ]
        by_time = sorted(self.launches.items(), key=lambda item: -sum(item[1]))
        lines += [f"| `{name}` | {len(seconds):,} | {sum(seconds):.4f} |" for name, seconds in by_time]
        return "\n".join([*lines, ""])


@dataclass
class Report:
    """What one run found out."""

    facts: dict[str, str]
    kernels: list[Timed | Failed]
    layer: Layer | Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether something was wrong."""
        return isinstance(self.layer, Exception) or any(isinstance(one, Failed) for one in self.kernels)

    def markdown(self) -> str:
        """Return the page, of what is known so far."""
        lines = ["# ccx on a GPU", "", *(f"- {name}: {value}" for name, value in self.facts.items())]
        lines += ["", f"Kernels, {ROUNDS} rounds each, checked against the CPU before:", "", *TABLE]
        lines += [row_of(one) for one in self.kernels]
        lines += ["", "A copy's rate counts what it reads and what it writes.", ""]
        if isinstance(self.layer, Exception):
            lines += [f"The layer **failed**: {self.layer}", ""]
        elif self.layer is not None:
            lines += [self.layer.markdown()]
        return "\n".join(lines)


TABLE = [
    "| kernel | median | least | bytes | rate | of a copy | operations | rate |",
    "|---|---|---|---|---|---|---|---|",
]


def row_of(one: Timed | Failed) -> str:
    """Return a row of the table of kernels."""
    return "| " + " | ".join(one.texts()) + " |"


def timed(call: Callable[[], Any], gpu: Any, clock: Any) -> list[float]:
    """Call several times -> seconds of each."""
    for _ in range(WARM_UP):
        call()
    marks = []
    for _ in range(ROUNDS):
        begin = clock.mark()
        call()
        marks.append((begin, clock.mark()))
    gpu.synchronize()
    return [clock.seconds(*pair) for pair in marks]


def copy_rate(gpu: Any, clock: Any, n_bytes: int) -> float:
    """Copy on the device -> bytes a second, read and written."""
    source, target = (gpu.zeros((n_bytes // 8,), np.uint64) for _ in range(2))
    return 2 * n_bytes / statistics.median(timed(lambda: gpu.copy(source, target), gpu, clock))


def time_case(case: Case, gpu: Any, clock: Any, copy_bytes: int) -> Timed:
    """Check a kernel, then time it.

    Raises
    ------
    RuntimeError
        If its result is not the CPU's.

    """
    call = case.at(gpu)
    wrong = difference(case, call())
    if wrong:
        raise RuntimeError(wrong)
    copied = copy_rate(gpu, clock, copy_bytes)
    seconds = timed(call, gpu, clock)
    return Timed(case, statistics.median(seconds), min(seconds), copied)


def time_cases(some: Iterable[Case], gpu: Any, clock: Any, copy_bytes: int = 1 << 30) -> Iterator[Timed | Failed]:
    """Check and time kernels, one after the other: one that is wrong does not cost the rest."""
    for case in some:
        try:
            yield time_case(case, gpu, clock, copy_bytes)
        except Exception as error:
            yield Failed(case, error)


@contextmanager
def launches(gpu: Any, clock: Any) -> Iterator[dict[str, list[float]]]:
    """Time every launch on a GPU under ``with``; the seconds are there after it."""
    marks: list[tuple[str, Any, Any]] = []
    seconds: dict[str, list[float]] = defaultdict(list)
    kernel, alone = gpu.kernel, threading.Lock()  # what another thread asks for must not come between two marks

    def marked(family: str, name: str) -> Callable[..., None]:
        launch = kernel(family, name)

        def between_marks(*arguments: Any, **options: Any) -> None:
            with alone:
                begin = clock.mark()
                launch(*arguments, **options)
                marks.append((name, begin, clock.mark()))

        return between_marks

    gpu.kernel = marked
    try:
        yield seconds
    finally:
        del gpu.kernel
    gpu.synchronize()
    for name, begin, end in marks:
        seconds[name].append(clock.seconds(begin, end))


def time_layer(data: Synthetic, concepts: ccx.Concepts, gpu: Any, clock: Any) -> Layer:
    """Explain all units on the GPU; some are checked before against the CPU.

    Raises
    ------
    RuntimeError
        If their rows differ.

    """
    options: dict[str, Any] = {"clusters": CLUSTERS, "length": LENGTH, "beam": BEAM, "progress": False}
    there, some = gpu.upload(data.activations), range(min(CHECKED_UNITS, data.activations.shape[1]))
    found = ccx.explain(there, concepts, units=some, **options)  # compiles, and moves the atoms
    if list(found) != list(ccx.explain(data.activations, concepts, units=some, **options)):
        msg = "explain gave other rows on the GPU than on the CPU"
        raise RuntimeError(msg)
    gpu.synchronize()
    began = time.perf_counter()
    ccx.explain(there, concepts, **options)
    gpu.synchronize()
    wall = time.perf_counter() - began
    with launches(gpu, clock) as seconds:
        ccx.explain(there, concepts, **options)
    return Layer(data.activations.shape[1], wall, dict(seconds))


def measure(
    data: Synthetic, gpu: Any, clock: Any, facts: dict[str, str], copy_bytes: int = 1 << 30
) -> Iterator[Report]:
    """Check and time everything on a device (or the tests' emulator of one) -> one report, after each step."""
    concepts = data.concepts()
    n_samples, n_units = data.activations.shape[:2]
    few = Synthetic(data.labels, np.ascontiguousarray(data.activations[:, :CASE_UNITS]), data.names, data.categories)
    atoms = concepts.atoms
    size = f"{n_samples:,} samples, {'×'.join(map(str, atoms.shape))} cells, {atoms.n_concepts:,} concepts"
    facts = {**facts, "problem": f"{size}, {atoms.n_atoms:,} atoms, {n_units} units (kernels: {CASE_UNITS} at most)"}
    report = Report(facts, [])
    for one in time_cases(cases(few, concepts, min(n_samples, MASK_SAMPLES)), gpu, clock, copy_bytes):
        report.kernels.append(one)
        yield report
    try:
        report.layer = time_layer(data, concepts, gpu, clock)
    except Exception as error:
        report.layer = error
    yield report


def facts_of(cupy: Any) -> dict[str, str]:
    """Describe the GPU and the software."""
    properties, runtime = cupy.cuda.runtime.getDeviceProperties(0), cupy.cuda.runtime
    version = f"CUDA {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}, CuPy {cupy.__version__}"
    compiled = "nvcc, in fatbins" if fatbin_of("rows") else "NVRTC"
    host = machine()
    return {
        "GPU": f"{properties['name'].decode()}, {properties['multiProcessorCount']} multiprocessors",
        "software": f"{version}, kernels compiled by {compiled}",
        "host": f"{host['cpu']}, {host['cores']} cores, Python {host['python']}, NumPy {host['numpy']}",
        "ccx": f"{host['ccx']}, commit {host['commit']}",
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=22_000)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--markdown", type=Path, default=Path("gpu-report.md"), metavar="FILE")
    options = parser.parse_args()
    try:
        cupy = require_cupy("benchmarks/gpu.py")
    except CCXError as error:
        sys.exit(str(error))
    for report in measure(generate(options.samples, options.units), device(0), Events(cupy), facts_of(cupy)):
        options.markdown.write_text(report.markdown(), encoding="utf-8")  # what comes later may hang, or be ended
    print(report.markdown())
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
