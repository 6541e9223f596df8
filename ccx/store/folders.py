"""Folders that appear, or are replaced, as a whole."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ccx.store.files import PathLike, reason, store_error, sync_folder
from ccx.store.locks import lock

_LOCK = "lock"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, Linux


def make_folder(folder: PathLike) -> Path:
    """Make a folder and those above it, where they are missing, so that they survive a power cut.

    Raises `StoreError` if the file system refuses it.
    """
    try:
        made(Path(folder))
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise store_error(folder, f"cannot make this folder ({why})", "choose another place") from error
    return Path(folder)


def made(folder: Path) -> None:
    """Do what `make_folder` does, for those who word the `OSError` themselves."""
    missing, path = [], folder
    while not path.exists():
        missing.append(path)
        path = path.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def locked_folder(
    folder: PathLike, *, held: Exception | None = None, waiting: Callable[[Path], object] | None = None
) -> Iterator[Path]:
    """Make a folder that several processes share, and hold its lock (see `lock`).

    Where another process has it, `held` is raised; without `held`, `waiting` is called once with the folder, and we
    wait. Raises `StoreError` if the folder cannot be made or written.
    """
    path = make_folder(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path / ".lock", held=held, waiting=lambda: waiting and waiting(path)))
        except OSError as error:
            problem, remedy = f"cannot be used ({reason(error)})", "choose a folder that can be written"
            raise store_error(path, problem, remedy) from error
        yield path


@contextmanager
def new_folder(target: PathLike) -> Iterator[Path]:
    """Give an empty folder that takes the place of `target` when the block ends well, and is gone otherwise.

    It is made beside `target`, in a hidden folder ``.NAME.XXXXXXXX.ccx``; one that a killed process left is removed by
    the next call. Nobody sees `target` half written. A folder that is replaced goes in the same step where Linux can
    exchange two names; elsewhere there is a moment in which `target` is missing.

    Raises
    ------
    StoreError
        If the file system refuses anything; a folder that is there stays. Other errors of the block pass unchanged.

    """
    target = Path(target)
    try:
        with _work_folder(target) as work:
            folder = work / "new"
            folder.mkdir()
            yield folder
            if target.exists():
                _exchange(folder, target)
            else:
                folder.rename(target)
            sync_folder(target.parent)
    except OSError as error:
        remedy = "check the path and the free space"
        raise store_error(target, f"cannot be written ({reason(error)})", remedy) from error


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """Make a hidden folder beside `target`, and remove it in the end; and those that killed processes left."""
    prefix = f".{target.name}."
    with ExitStack() as stack:
        work = _locked_folder(prefix, target.parent, stack)
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        for left in target.parent.glob(f"{glob.escape(prefix)}????????.ccx"):
            # Nobody holds the lock of what a process left that is gone; else it is in use, or gone by now.
            with suppress(OSError), lock(left / _LOCK, held=BlockingIOError()):
                shutil.rmtree(left, ignore_errors=True)
        yield work


def _locked_folder(prefix: str, place: Path, stack: ExitStack) -> Path:
    while True:
        work = Path(tempfile.mkdtemp(prefix=prefix, suffix=".ccx", dir=place))
        # Before it is locked, another process may take it for a left one.
        with suppress(BlockingIOError, FileNotFoundError):
            stack.enter_context(lock(work / _LOCK, held=BlockingIOError()))
            return work


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders, in one step where the system can."""
    if _exchanged_at_once(one, other):
        return
    aside = one.with_name(f"{one.name}.aside")
    other.rename(aside)
    try:
        one.rename(other)
    except BaseException:
        aside.rename(other)
        raise
    aside.rename(one)


def _exchanged_at_once(one: Path, other: Path) -> bool:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    if rename(_HERE, os.fsencode(one.absolute()), _HERE, os.fsencode(other.absolute()), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number))
