"""Running many jobs on forked processes: results in order, nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Self, TypeVar, cast

from ccx.errors import CCXError, InputError

T = TypeVar("T")
_AHEAD = 3  # jobs a worker that may be done before the next result is asked for


def check_workers(workers: Any) -> int:
    """Return a number of worker processes; None = one a processor that this process may use."""
    if workers is None:
        return len(os.sched_getaffinity(0))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        remedy = "leave it out to use every available processor"
        raise InputError("workers", wanted="None or an integer >= 1", got=repr(workers), remedy=remedy)
    return int(workers)


def in_processes(work: Callable[[int], T], jobs: Sequence[int], n_workers: int) -> Generator[T, None, None]:
    """Yield ``work(job)`` of every job in order; few results wait in memory.

    Workers are forked, so that `work` may be any function on any data: nothing but jobs and results is sent, and a
    script needs no ``__main__`` guard. They ignore Ctrl-C, which the caller gets, and end with the iterator, with the
    caller, or when the caller is killed. With one worker, or inside a worker of someone else, all is done here.

    Raises
    ------
    CCXError
        If a worker dies.
    RuntimeError
        If `work` raises; holds the traceback.

    """
    n_workers = min(n_workers, len(jobs))
    if n_workers <= 1 or multiprocessing.current_process().daemon:
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
        context = multiprocessing.get_context("fork")
        try:
            for _ in range(self._n_workers):
                ours, theirs = context.Pipe()
                # A worker must hold no end of ours: then it reads the end of the file when we are gone.
                arguments = (self._work, theirs, (*self._processes, ours))
                process = context.Process(target=_serve, args=arguments, daemon=True)
                with warnings.catch_warnings():
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
        idle = list(self._processes)
        busy: dict[Connection, int] = {}
        ready: dict[int, tuple[bool, Any]] = {}  # whether it went well, and the result or a traceback
        n_sent = 0
        for at in range(len(jobs)):
            while at not in ready:
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


def _serve(work: Callable[[int], Any], connection: Connection, others: Sequence[Connection]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
