"""Running many jobs on threads: results in order, progress, run folders."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

from ccx.checks import shown
from ccx.errors import InputError, visible
from ccx.stopping import stoppable

J = TypeVar("J")
T = TypeVar("T")
Progress = Callable[[int, int], object]


def in_order(work: Callable[[J], T], jobs: Sequence[J], n_workers: int) -> Iterator[T]:
    """Yield ``work(job)`` of every job in order, `n_workers` at a time; few results wait in memory.

    When the consumer stops or is interrupted, or a job fails, jobs that have not begun are dropped, and those that have
    end at their next `ccx.stopping.check`.
    """
    if n_workers == 1:
        yield from map(work, jobs)
        return
    stop = Event()
    job_of = stoppable(work, stop)
    with ThreadPoolExecutor(n_workers, thread_name_prefix="ccx") as pool:
        pending: deque[Future[T]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(job_of, job))
                if len(pending) > 2 * n_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stop.set()
            for future in pending:
                future.cancel()


def check_progress(progress: Any) -> None:
    """Raise unless `progress` is what `progress_reporter` takes."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        remedy = "a function is called with (units done, units in all)"
        raise InputError("progress", wanted="None, a bool or a function", got=shown(progress), remedy=remedy)


@contextmanager
def progress_reporter(progress: Progress | bool | None, label: str) -> Iterator[Progress]:
    """Give what is called with (done, in all): the caller's function, a bar, or nothing.

    None shows a bar when the standard error is a terminal, True always, False never.
    """
    if callable(progress):
        yield progress
    elif progress is True or (progress is None and sys.stderr.isatty()):
        with _bar(label) as update:
            yield update
    else:
        yield lambda _done, _total: None


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich import progress as rich_progress  # noqa: PLC0415 - only where a bar is shown
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # On a terminal the bar goes away at the end; in a file only its end can be seen.
    with rich_progress.Progress(*columns, console=console, transient=console.is_terminal) as bar:
        task = bar.add_task(visible(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
