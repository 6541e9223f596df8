"""Folders that several runs share: one works in them at a time, the others wait."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ccx.store import PathLike, make_folder
from ccx.store.files import reason, store_error

_LOCK = ".lock"


@contextmanager
def alone_in(folder: PathLike, waiting: Callable[[Path], object]) -> Iterator[Path]:
    """Make a folder and hold its lock; call `waiting` with it once if another process has it, and wait.

    The lock goes with the process, also when it is killed.

    Raises
    ------
    StoreError
        If the folder cannot be made or written.

    """
    path = Path(folder)
    try:
        make_folder(path)
        descriptor = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise store_error(path, f"cannot be used ({reason(error)})", "choose a folder that can be written") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(descriptor)
