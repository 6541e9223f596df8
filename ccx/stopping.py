"""Stopping work on threads that nobody waits for any more: its results are not wanted, so it need not end.

Who starts threads gives each job a signal (`stoppable`); long work looks for it now and then (`check`). The signal
belongs to the thread, not to an argument, because what a search is called through knows nothing of threads. A job that
starts threads itself hands its own signals on to them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from threading import Event
from typing import TypeVar

J = TypeVar("J")
T = TypeVar("T")

_signals: ContextVar[tuple[Event, ...]] = ContextVar("ccx_stop_signals", default=())


class Stopped(Exception):
    """Raised in a job that is no longer wanted."""


def stoppable(work: Callable[[J], T], signal: Event) -> Callable[[J], T]:
    """Return `work` as a job for a thread, which ends with `Stopped` at its next `check` once the signal is set.

    It does so, too, where the job that this is called in is no longer wanted.
    """
    signals = (*_signals.get(), signal)

    def job(argument: J) -> T:
        before = _signals.set(signals)
        try:
            return work(argument)
        finally:
            _signals.reset(before)

    return job


def check() -> None:
    """Raise `Stopped` if the job that this is part of is no longer wanted."""
    if any(signal.is_set() for signal in _signals.get()):
        raise Stopped
