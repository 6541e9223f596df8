"""The one place where work is spread: threads, forked processes, progress, and the end of work nobody waits for.

Who starts threads gives each job a signal (`stoppable`); long work looks for it now and then (`check_stopped`). The
signal belongs to the thread, not to an argument, because what a search is called through knows nothing of threads. A
job that starts threads itself hands its own signals on to them.

Python may lose a Ctrl-C: where its exception is raised in a callback of NumPy, numba or the garbage collector, it is
dropped, or turns into another one. So what may work for long is `interruptible`, which remembers it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from ccx.checks import UNBOUNDED, integer, shown
from ccx.errors import CCXError, InputError, visible
from ccx.stopping import stop_at_once

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

J = TypeVar("J")
T = TypeVar("T")
Progress = Callable[[int, int], object]
_AHEAD = 3  # jobs per worker that may be done before the next result is asked for
_signals: ContextVar[tuple[Event, ...]] = ContextVar("ccx_stop_signals", default=())


class _CtrlC:
    """Whether a Ctrl-C came while something `interruptible` runs; plain names, in whose assignment none can come."""

    is_awaited = False
    came = False

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        """Serve `signal.signal`."""
        self.came = True
        if self.is_awaited and not _is_finalizing(frame):
            raise KeyboardInterrupt


def _is_finalizing(frame: FrameType | None) -> bool:
    """Tell whether a finalizer or a weak reference is at work, where Python shows an exception and goes on."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in ("weakref", "_weakrefset"):
            return True
        frame = frame.f_back
    return False


_ctrl_c = _CtrlC()


class Stopped(Exception):
    """Raised in a job that is no longer wanted."""


def stoppable(work: Callable[[J], T], stop: Event) -> Callable[[J], T]:
    """Return `work` as a job for a thread; once `stop` is set, it ends with `Stopped` at its next `check_stopped`.

    It does so, too, where the job that this is called in is no longer wanted.
    """
    signals = (*_signals.get(), stop)

    def job(argument: J) -> T:
        before = _signals.set(signals)
        try:
            return work(argument)
        finally:
            _signals.reset(before)

    return job


def check_stopped() -> None:
    """Raise `Stopped` if the job that this is part of is no longer wanted, `KeyboardInterrupt` after a Ctrl-C."""
    if _ctrl_c.is_awaited and _ctrl_c.came:
        raise KeyboardInterrupt
    if any(stop.is_set() for stop in _signals.get()):
        raise Stopped


@contextmanager
def interruptible() -> Iterator[None]:
    """Have a Ctrl-C end the block with `KeyboardInterrupt`, wherever it comes; may decorate a function.

    The exception is raised at once and, where it is lost, at the next `check_stopped` or at the end of the block. So it
    is in the main thread, where Ctrl-C does what it does by default, or at the start of the command; a block within
    another one leaves it to that.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or before not in (signal.default_int_handler, stop_at_once):
        yield
        return
    _ctrl_c.came = False
    try:
        _ctrl_c.is_awaited = True
        signal.signal(signal.SIGINT, _ctrl_c)
        yield
    except BaseException as error:
        if _ctrl_c.came and not isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            raise KeyboardInterrupt from error
        raise
    finally:
        _ctrl_c.is_awaited = False  # from here on it does not raise, so that all is as it was
        signal.signal(signal.SIGINT, before)
    if _ctrl_c.came:
        raise KeyboardInterrupt


def available_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_threads(threads: Any) -> int | None:
    """Return `threads` if it is None (every available processor) or a whole number of at least 1."""
    return None if threads is None else _checked_number("threads", threads)


def check_workers(workers: Any) -> int:
    """Return a number of worker processes; None = one per processor that this process may use.

    Where processes cannot be forked it is 1: the work is done in this one. Who asks for more is told so.
    """
    n_workers = available_threads() if workers is None else _checked_number("workers", workers)
    if n_workers == 1 or _can_fork():
        return n_workers
    if workers is not None:
        warnings.warn("workers: this system cannot fork, so this process does their work", stacklevel=3)
    return 1


def _can_fork() -> bool:
    return hasattr(os, "fork") and sys.platform != "darwin"  # whose libraries start threads, which a fork has not


_REMEDY = "leave it out to use every available processor"
_checked_number = partial(integer, least=1, most=UNBOUNDED, remedy=_REMEDY, wanted="None or an integer >= 1")


def in_threads(work: Callable[[J], T], jobs: Sequence[J], n_workers: int) -> Iterator[T]:
    """Yield ``work(job)`` of every job in order, `n_workers` at a time; few results wait in memory.

    When the consumer stops or is interrupted, or a job fails, jobs that have not begun are dropped, and those that have
    end at their next `check_stopped`.
    """
    if n_workers == 1:
        for job in jobs:
            check_stopped()
            yield work(job)
        return
    stop = Event()
    job_of = stoppable(work, stop)
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="ccx")
    pending: deque[Future[T]] = deque()
    done: SimpleQueue[Future[T]] = SimpleQueue()  # all that is waited for: it keeps no lock where a Ctrl-C ends that

    def begin(job: J) -> None:
        future = pool.submit(job_of, job)
        pending.append(future)
        future.add_done_callback(done.put)

    def first() -> T:
        while not _undisturbed(pending[0].done):
            check_stopped()
            done.get()
        return _undisturbed(pending.popleft().result)

    def end() -> None:
        stop.set()
        for future in pending:
            future.cancel()
        pool.shutdown()

    try:
        for job in jobs:
            _undisturbed(partial(begin, job))
            check_stopped()
            if len(pending) > 2 * n_workers:
                yield first()
        while pending:
            yield first()
    finally:
        _undisturbed(end)


def _undisturbed(call: Callable[[], T]) -> T:
    """Return what `call` does; a Ctrl-C meanwhile counts at the next `check_stopped`.

    Its exception could leave a lock of Python's thread pools held, for which others would wait for ever.
    """
    if not _ctrl_c.is_awaited or threading.current_thread() is not threading.main_thread():
        return call()
    _ctrl_c.is_awaited = False
    try:
        return call()
    finally:
        _ctrl_c.is_awaited = True


def parallel(work: Callable[[int, int], Any], n_items: int, threads: int | None = None) -> list[Any]:
    """Call ``work(start, stop)`` over contiguous slices of ``range(n_items)``, one per thread.

    `threads=None` uses every available processor. Results come back in the order of the slices; an
    error in any slice is raised here. Then, or where this is interrupted, the others end at their next
    `check_stopped`, if they make any.
    """
    n_slices = max(1, min(threads or available_threads(), n_items))
    bounds = [n_items * i // n_slices for i in range(n_slices + 1)]
    if n_slices == 1:
        return [work(*bounds)]
    return list(in_threads(lambda piece: work(*piece), list(pairwise(bounds)), n_slices))


def in_processes(work: Callable[[int], T], jobs: Sequence[int], n_workers: int) -> Generator[T, None, None]:
    """Yield ``work(job)`` of every job in order; few results wait in memory.

    Workers are forked, so that `work` may be any function on any data: nothing but jobs and results is sent, and a
    script needs no ``__main__`` guard. They ignore Ctrl-C, which the caller gets, and end with the iterator, with the
    caller, or when the caller is killed. With one worker, inside a worker of someone else, or where processes cannot be
    forked, all is done here.

    Raises
    ------
    CCXError
        If a worker dies.
    RuntimeError
        If `work` raises; holds the traceback.

    """
    import multiprocessing  # noqa: PLC0415 - takes longer to import than small work takes

    n_workers = min(n_workers, len(jobs))
    if n_workers <= 1 or not _can_fork() or multiprocessing.current_process().daemon:
        yield from map(work, jobs)
        return
    with _Workers(work, n_workers) as workers:
        yield from workers.results(jobs)


class _Workers:
    """Forked processes, each at the other end of a pipe."""

    def __init__(self, work: Callable[[int], Any], n_workers: int) -> None:
        self._work = work
        self._n_workers = n_workers
        self._processes: dict[Connection, Any] = {}

    def __enter__(self) -> Self:
        import multiprocessing  # noqa: PLC0415 - as above

        context = multiprocessing.get_context("fork")
        try:
            for _ in range(self._n_workers):
                ours, theirs = context.Pipe()
                # A worker must hold no end of ours: then it reads the end of the file when we are gone.
                arguments = (self._work, theirs, (*self._processes, ours))
                process = context.Process(target=_serve, args=arguments, daemon=True)
                # No Ctrl-C reaches a worker before it ignores it.
                with _without_ctrl_c(), warnings.catch_warnings():
                    # Python 3.12 warns of forks beside threads. Workers use no lock that such a thread may hold.
                    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
                    process.start()
                theirs.close()
                self._processes[ours] = process
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.terminate()
        for process in self._processes.values():
            process.join()
            process.close()

    def results(self, jobs: Sequence[int]) -> Iterator[Any]:
        from multiprocessing.connection import wait  # noqa: PLC0415 - as above

        idle = list(self._processes)
        busy: dict[Connection, int] = {}
        ready: dict[int, tuple[bool, Any]] = {}  # whether it went well, and the result or a traceback
        n_sent = 0
        for at in range(len(jobs)):
            while at not in ready:
                check_stopped()
                while idle and n_sent < min(len(jobs), at + _AHEAD * self._n_workers):
                    connection = idle.pop()
                    self._send(connection, jobs[n_sent])
                    busy[connection] = n_sent
                    n_sent += 1
                for found in wait(list(busy)):
                    connection = cast("Connection", found)
                    ready[busy.pop(connection)] = self._receive(connection)
                    idle.append(connection)
            is_good, result = ready.pop(at)
            if not is_good:
                msg = f"in a worker process:\n{result}"
                raise RuntimeError(msg)
            yield result

    def _send(self, connection: Connection, job: int) -> None:
        try:
            connection.send(job)
        except OSError as error:
            raise self._death(connection) from error

    def _receive(self, connection: Any) -> Any:
        try:
            return connection.recv()
        except (EOFError, OSError) as error:
            raise self._death(connection) from error

    def _death(self, connection: Connection) -> CCXError:
        process = self._processes[connection]
        process.join()
        return CCXError(
            f"a worker process ended with status {process.exitcode} (-9 is often a want of memory); "
            "run it again, with fewer workers if need be: what was stored is kept"
        )


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(work: Callable[[int], Any], connection: Connection, others: Sequence[Connection]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # its threads do not live on in a fork, and it would wait for them
    for other in others:
        other.close()
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = True, work(job)
        except Exception:
            result = False, traceback.format_exc()
        try:
            connection.send(result)
        except OSError:
            return


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
