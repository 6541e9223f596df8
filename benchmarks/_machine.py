"""What a figure was measured on and with: the machine, clocks, peak memory, fresh processes."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

import ccx
from ccx.jobs import available_threads

_ROOT = Path(__file__).resolve().parents[1]


def machine() -> dict[str, Any]:
    """Describe the machine and the software: what a reader needs to judge or to repeat a figure."""
    features = set(_first(Path("/proc/cpuinfo"), "flags").split())
    return {
        "cpu": _first(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "vectors": [name for name in ("avx2", "avx512f", "asimd") if name in features],
        "cores": available_threads(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "ccx": ccx.__version__,
        "commit": _commit(),
    }


def _first(path: Path, key: str) -> str:
    """Return the first value of `key` in a file of ``key: value`` lines, or an empty text."""
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "ccx", "benchmarks")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@dataclass
class Clock:
    """Measure the block under ``with``: CPU seconds of this process, wall seconds, and how busy others were.

    `others` is the mean number of processors that other processes kept busy meanwhile (NaN where the
    system does not tell). CPU times suffer from them only through shared caches and memory.
    """

    cpu: float = 0.0
    wall: float = 0.0
    others: float = float("nan")

    def __enter__(self) -> Clock:
        self._began = (time.process_time(), time.perf_counter(), _busy_seconds())
        return self

    def __exit__(self, *_: object) -> None:
        cpu, wall, busy = self._began
        self.cpu = time.process_time() - cpu
        self.wall = time.perf_counter() - wall
        self.others = max(0.0, (_busy_seconds() - busy - self.cpu) / self.wall)

    def starved(self, threads: int) -> float:
        """Processors that others took from a block of so many threads; wall times mean little where it is not 0."""
        return max(0.0, self.others - max(0, available_threads() - threads))


def _busy_seconds() -> float:
    """Seconds that all processors together have worked since the system started."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return float("nan")
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields[:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


class PeakMemory:
    """The most resident memory since `reset`, beyond what was resident then, by Linux's own high-water mark.

    The kernel keeps it (VmHWM in ``/proc/self/status``) and ``/proc/self/clear_refs`` resets it, so no
    allocation between two samples is missed.
    """

    def reset(self) -> None:
        """Begin anew: everything that is resident now counts as there before."""
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status_bytes("VmRSS")

    def beyond(self) -> int:
        """Bytes beyond what was resident at `reset`."""
        return max(0, _status_bytes("VmHWM") - self._before)


def _status_bytes(key: str) -> int:
    return int(_first(Path("/proc/self/status"), key).split()[0]) * 1024


# Arrays of the types that a user passes first, tiny: what is timed is importing, compiling or loading from the cache.
_FIRST_CALL = """
import numpy as np
import ccx
rng = np.random.default_rng(0)
concepts = ccx.Concepts.from_label_maps(rng.integers(0, 7, (4, 2, 16, 16), np.int16), list("abcdef"))
found = ccx.explain(rng.random((4, 2, 4, 4), np.float32), concepts, threads=1)
assert len(found) == 10, found
"""


def fresh_process() -> dict[str, dict[str, float]]:
    """Seconds of a fresh process that imports ccx, builds concepts and explains; with an empty and a populated cache.

    Interpreter start included. The best of three with the populated cache, which one run before has filled.
    """
    with tempfile.TemporaryDirectory() as cache:
        empty = _timed_process(cache)
        return {"empty cache": empty, "populated cache": min((_timed_process(cache) for _ in range(3)), key=_cpu_of)}


def _cpu_of(seconds: dict[str, float]) -> float:
    return seconds["cpu"]


def _timed_process(cache: str) -> dict[str, float]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(_ROOT)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", _FIRST_CALL], env=environment, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, "wall": wall}
