"""The one lock of ccx: what one process does at a time, as long as it lives."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

# What file systems say that have no locks of the system's.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})


@contextmanager
def lock(path: Path, *, held: Exception | None = None, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock file, which is there only meanwhile; one that a killed process left is free.

    Where another process holds it, `held` is raised; without `held`, `waiting` is called once, and we wait. Processes
    that are forked meanwhile do not hold it. On a disk without locks a file ``NAME.soft``, in which the process is
    named, stands for one. Raises `OSError` if the file system refuses the file.
    """
    owner = os.getpid()
    found = _acquired(path, held, waiting)
    try:
        yield
    finally:
        if os.getpid() == owner:
            if type(found).__name__ == "UnixFileLock":  # the others remove their files themselves
                # Before it is released: who opened the file meanwhile sees that it has no name, and opens another.
                with suppress(OSError):
                    path.unlink()
            found.release()


@cache
def _library() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of systems that have no locks of their own
        return import_module("filelock")  # here, as it takes long to import, and few need it


def _acquired(path: Path, held: Exception | None, waiting: Callable[[], object]) -> BaseFileLock:
    filelock = _library()
    native = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        return _acquire(native, held, waiting)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    with suppress(OSError):
        path.unlink()
    return _acquire(filelock.SoftFileLock(path.with_name(f"{path.name}.soft"), thread_local=False), held, waiting)


def _acquire(found: BaseFileLock, held: Exception | None, waiting: Callable[[], object]) -> BaseFileLock:
    try:
        found.acquire(blocking=False)
    except TimeoutError:
        if held is not None:
            raise held from None
        waiting()
        found.acquire()
    return found
