"""How long kernels of the CPU have been compiled, which is no part of what a search takes."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

from numba.core import event


class _Clock(event.Listener):
    """Runs while any thread compiles a kernel, loads one from the cache, or waits for another thread to do so."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_begun = 0
        self._begun = 0.0
        self._seconds = 0.0

    def on_start(self, event: Any) -> None:  # noqa: ARG002
        with self._lock:
            if not self._n_begun:
                self._begun = time.monotonic()
            self._n_begun += 1

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        with self._lock:
            if self._n_begun == 1:
                self._seconds += time.monotonic() - self._begun
            self._n_begun = max(0, self._n_begun - 1)  # 0 where it began before this clock was there

    def read(self) -> float:
        with self._lock:
            return self._seconds + (time.monotonic() - self._begun if self._n_begun else 0.0)


_clock = _Clock()
event.register("numba:compiler_lock", _clock)  # type: ignore[no-untyped-call]


def compiled_seconds() -> float:
    """Return how long kernels have been compiled or loaded since ccx was imported, by any thread."""
    return _clock.read()
