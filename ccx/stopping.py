"""Stopping work on threads that nobody waits for any more: its results are not wanted, so it need not end.

Who starts threads gives each job a signal (`stoppable`); long work looks for it now and then (`check`). The signal
belongs to the thread, not to an argument, because what a search is called through knows nothing of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from threading import Event
from typing import TypeVar

J = TypeVar("J")
T = TypeVar("T")

_signal: ContextVar[Event | None] = ContextVar("ccx_stop_signal", default=None)


class Stopped(Exception):
    """Raised in a job that is no longer wanted."""


def stoppable(work: Callable[[J], T], signal: Event) -> Callable[[J], T]:
    """Return `work` as a job for a thread, which ends with `Stopped` at its next `check` once the signal is set."""

    def job(argument: J) -> T:
        before = _signal.set(signal)
        try:
            return work(argument)
        finally:
            _signal.reset(before)

    return job


def check() -> None:
    """Raise `Stopped` if the job that this is part of is no longer wanted."""
    signal = _signal.get()
    if signal is not None and signal.is_set():
        raise Stopped
