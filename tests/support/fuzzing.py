"""Attacks: many inputs in subprocesses, of which none may crash, hang, eat memory or raise what is no error of ccx.

An attack is a function ``attempt(rng, folder)``: it makes one input from a random generator, in a folder that is empty
for each, hands it to ccx and returns a word for what became of it. An error of ccx counts as "refused".

>>> attack(attempt, attempts(nightly=10_000, quick=100)).check("read", "refused")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import event

from ccx.errors import CCXError

_ROOT = Path(__file__).parents[2]
_SECONDS = 10.0  # that one input may take, compiling aside
_COMPILING_SECONDS = 600.0
_GIB = 6  # of address space, most of which numba and OpenBLAS reserve and never touch


def attempts(*, nightly: int, quick: int) -> int:
    """Return how many inputs to try: all of them by night, a few on every push."""
    return nightly if os.environ.get("CCX_HYPOTHESIS") == "nightly" else quick


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, cut out or put in a few bytes, often in the directory at the end that archives have."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        if not changed:
            break
        at = int(rng.integers(len(changed)))
        match rng.integers(5):
            case 0:
                changed[at] = rng.integers(256)
            case 1:
                changed[at : at + 4] = bytes(rng.choice([0, 255], 4).astype(np.uint8))
            case 2:
                del changed[at : at + int(rng.integers(1, 50))]
            case 3:
                changed[at:at] = rng.bytes(int(rng.integers(1, 50)))
            case _:  # a field of a zip archive's directory
                at = max(0, len(changed) - int(rng.integers(1, 120)))
                changed[at : at + 2] = rng.bytes(2)
    return bytes(changed)


@dataclass
class Report:
    """What became of the inputs: how many met each end, and those that no input may meet, with their numbers."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def check(self, *ends: str) -> None:
        """Raise `AssertionError` if an input failed, or if an end that this attack should meet never came."""
        shown = "\n".join(self.failures[:5])
        assert not self.failures, f"{len(self.failures)} of {self.counts.total()} inputs failed, such as\n{shown}"
        assert all(self.counts[end] for end in ends), f"wanted some of each of {ends}, got {dict(self.counts)}"


def attack(
    attempt: Callable[[np.random.Generator, Path], str],
    n: int,
    *,
    seed: int = 0,
    seconds: float = _SECONDS,
    gib: float = _GIB,
    env: Mapping[str, str] | None = None,
) -> Report:
    """Try inputs 0..n-1 in a subprocess, and in another behind each one that ends it; `env` adds to its environment."""
    report, first = Report(), 0
    while first < n:
        with tempfile.TemporaryFile() as noise:
            command = [sys.executable, "-m", "tests.support.fuzzing", attempt.__module__, attempt.__qualname__]
            numbers = map(str, (seed, first, n, seconds, gib))
            found = subprocess.run(
                [*command, *numbers],
                stdout=subprocess.PIPE,
                stderr=noise,
                cwd=_ROOT,
                env={**os.environ, **(env or {})},
                check=False,
            )
            noise.seek(0)
            said = noise.read().decode(errors="replace")
        lines = [json.loads(line) for line in found.stdout.decode().splitlines()]
        assert lines or found.returncode == 0, f"the attack did not begin:\n{said[-2000:]}"
        last = first - 1
        for number, end, text in lines:
            if end == "begun":
                last = number
                continue
            report.counts[end] += 1
            if end == "foreign":
                report.failures.append(f"input {number} (seed {seed}): {text}")
            first = number + 1
        if found.returncode:
            end = "hang" if "Timeout (" in said else "crash"
            report.counts[end] += 1
            report.failures.append(f"input {last} (seed {seed}): {end}, exit {found.returncode}\n{said[-2000:]}")
            first = last + 1
    print(f"{attempt.__module__}: {dict(report.counts)}")  # noqa: T201 - shown by pytest -s, for the record
    return report


class _Watch(event.Listener):
    """Ends the process when an input takes longer than it may; compiling, of which the first inputs have most, is free.

    So an input that only waits for kernels does not look like one that hangs, on a machine that has none in its cache.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._n_compiling = 0
        event.register("numba:compiler_lock", self)

    def begin(self) -> None:
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()

    def on_start(self, event: Any) -> None:  # noqa: ARG002 - the name that numba gives it
        self._n_compiling += 1
        faulthandler.dump_traceback_later(_COMPILING_SECONDS, exit=True, file=2)

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        self._n_compiling -= 1
        if self._n_compiling == 0:
            self.begin()


def _serve(module: str, name: str, seed: str, first: str, stop: str, seconds: str, gib: str) -> None:
    attempt = getattr(importlib.import_module(module), name)
    limit = int(float(gib) * (1 << 30))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("ignore")
    watch = _Watch(float(seconds))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the attack prints is noise
    folder = Path(tempfile.mkdtemp())
    try:
        for number in range(int(first), int(stop)):
            print(json.dumps([number, "begun", ""]), file=out, flush=True)
            watch.begin()
            rng = np.random.default_rng([int(seed), number])
            try:
                end, text = attempt(rng, folder), ""
            except CCXError:
                end, text = "refused", ""
            except Exception:  # each is what the attack looks for
                end, text = "foreign", traceback.format_exc()[-2000:]
            watch.end()
            print(json.dumps([number, end, text]), file=out, flush=True)
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
