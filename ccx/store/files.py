"""Atomic writing, strict JSON, and the errors of both."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ccx.checks import require_kind, shown
from ccx.errors import CCXError, InputError, StoreError
from ccx.memory import require_bytes

PathLike: TypeAlias = str | os.PathLike[str]

CHECKSUM = "checksum"
_SEAL = re.compile(rb',"checksum":"([0-9a-f]{16})"\}\Z')
_OPEN_FILES = Path("/proc/self/fd")
# What not every system has. Python lets no descriptor pass to other programs.
_BINARY, _FOLDER = getattr(os, "O_BINARY", 0), getattr(os, "O_DIRECTORY", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def store_error(where: PathLike, problem: str, remedy: str) -> StoreError:
    """Return the error to raise: where, what is wrong, what to do."""
    return StoreError(f"{where}: {problem}; {remedy}")


def reason(error: OSError) -> str:
    """Return the operating system's words for an error, without the path."""
    return error.strerror or str(error)


def as_path(path: Any, argument: str = "path") -> Path:
    """Return what a caller named as a path.

    Raises `DTypeError` if it is neither text nor path; `StoreError` if no file can have that name.
    """
    remedy = "give a text or a pathlib.Path"
    require_kind(argument, path, (str, os.PathLike), "a path", remedy)
    name = os.fspath(path)
    require_kind(argument, name, str, "a path that is text", remedy)
    try:
        is_possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise store_error(shown(name), "no path of a file", "choose another place")
    return Path(name)


def as_target(path: Any, argument: str = "path") -> Path:
    """Return what a caller named as a place to write to; raises as `as_path`, and where there is no name in it."""
    target = as_path(path, argument)
    problem = "" if target.name else "it names none"
    try:
        target.exists()
    except OSError as error:  # its name is too long, or a folder above may not be read
        problem = reason(error)
    if problem:
        raise store_error(shown(os.fspath(path)), f"no path of a file ({problem})", "choose another place")
    return target


def read_bytes(path: PathLike) -> bytes:
    """Return the content of a regular file that fits into memory; raises as `open_regular`, and MemoryBudgetError."""
    return read_regular(as_path(path))


def open_regular(path: PathLike) -> tuple[int, int]:
    """Open a regular file for reading -> its descriptor and its number of bytes; never waits, as a pipe would.

    Raises `StoreError` if it is missing, cannot be opened, or is a folder, a pipe or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _BINARY | _AT_ONCE)
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error
    except ValueError as error:  # characters that no path has
        raise store_error(repr(path), f"cannot read it ({error})", "check the path") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise store_error(path, "cannot read it (no regular file)", "check the path")
    return descriptor, found.st_size


def read_regular(path: PathLike, most: int | None = None) -> bytes:
    """Return the content of a regular file of at most so many bytes; raises as `open_regular`."""
    descriptor, n_bytes = open_regular(path)
    try:
        require_bytes(str(path), n_bytes, "give a smaller file")
        if most is not None and n_bytes > most:
            raise store_error(path, f"has {n_bytes} bytes, more than {most}", "give a smaller file")
        content = os.read(descriptor, n_bytes)
        while len(content) < n_bytes and (more := os.read(descriptor, n_bytes - len(content))):
            content += more
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the disk") from error
    finally:
        os.close(descriptor)
    return content


@contextmanager
def write_atomic(path: PathLike) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` when the block ends well, and never otherwise.

    The bytes go to a file without a name in the same folder, so that nothing is left of a process that is killed; at
    the end they are flushed to the disk, the file is named over `path`, and the folder is flushed. Where the file
    system knows no files without a name, it is called ``.NAME.XXXXXXXX.tmp`` meanwhile. After an error the old file
    stays. Of several writers the last to end counts. A file that is replaced hands on its permissions.

    Raises
    ------
    StoreError
        When the file system refuses anything, or `path` is there and no regular file (a device, a pipe). Other errors
        of the block pass unchanged.

    """
    target = _target(path)
    temp = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        mode = _mode_of(target)
        descriptor, is_named = _open_temp(temp)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if mode is not None and hasattr(os, "fchmod"):
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
                if not is_named:
                    _link(descriptor, temp)
                    is_named = True
            temp.replace(target)  # closed, as Windows renames no open file
        except BaseException:
            if is_named:
                temp.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        remedy = "make room or choose another place, and write it again"
        raise store_error(path, f"cannot write it ({reason(error)})", remedy) from error


def _target(path: PathLike) -> Path:
    """Return the file that a path names in the end: a symbolic link stays one."""
    try:
        return as_target(as_target(path).resolve())
    except CCXError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, zero bytes
        raise store_error(path, f"no path of a file ({error})", "choose another place") from error


def _mode_of(target: Path) -> int | None:
    """Return the permissions of a file that is there, None where there is none; raise if it is of another kind."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        problem = "it is no regular file (a device, a pipe or a socket), and would be replaced by one"
        raise store_error(target, problem, "write to a file, and copy that")
    return stat.S_IMODE(found.st_mode) & 0o777


def _open_temp(temp: Path) -> tuple[int, bool]:
    """Open a new file beside `temp` -> file descriptor, and whether it is called so already."""
    unnamed = getattr(os, "O_TMPFILE", None)
    if unnamed is not None and _OPEN_FILES.is_dir():
        try:
            return os.open(temp.parent, unnamed | os.O_WRONLY, 0o666), False
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    return os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666), True


def _link(descriptor: int, path: Path) -> None:
    """Give a file without a name its first one."""
    folder = os.open(path.parent, os.O_RDONLY | _FOLDER)
    try:
        # With a folder's descriptor Python follows the link in /proc to the file itself.
        os.link(_OPEN_FILES / str(descriptor), path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def open_kept(path: Path) -> int:
    """Open a file to read and write it anywhere, and make it where it is missing -> its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)


def write_at(descriptor: int, content: bytes | bytearray | memoryview, offset: int) -> int:
    """Write all of `content` from byte `offset` on -> how many bytes it has."""
    done, view = 0, memoryview(content)
    while done < len(view):
        if hasattr(os, "pwrite"):
            done += os.pwrite(descriptor, view[done:], offset + done)
        else:
            os.lseek(descriptor, offset + done, os.SEEK_SET)
            done += os.write(descriptor, view[done:])
    return done


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write `content` to `path` atomically (see `write_atomic`)."""
    with write_atomic(path) as file:
        file.write(content)


def write_text(path: PathLike, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically (see `write_atomic`)."""
    write_bytes(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives a power cut."""
    if not _FOLDER:
        return  # Windows opens no folders
    descriptor = os.open(folder, os.O_RDONLY | _FOLDER)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush folders
            raise
    finally:
        os.close(descriptor)


def json_text(value: object, argument: str = "value", *, sort_keys: bool = False) -> str:
    """Return `value` as one line of ASCII JSON, keys in the order given unless `sort_keys`.

    Raises `InputError` when `value` is not made of str, bool, int, finite float, None, lists, tuples and mappings;
    `argument` is the name that the error gives it.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, sort_keys=sort_keys, default=_as_dict)
    except (TypeError, ValueError, RecursionError) as error:
        wanted = "JSON (text, finite numbers, booleans, None, lists, mappings)"
        raise InputError(argument, wanted=wanted, got=str(error), remedy="convert it to these types") from error


def _as_dict(value: object) -> dict[Any, Any]:
    """Let `json` write mappings that are no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    msg = f"{type(value).__name__} {value!r:.200}"
    raise TypeError(msg)


def parse_json(text: bytes, where: PathLike, *, finite: bool = True) -> Any:
    """Parse strict JSON (UTF-8, no duplicate keys, NaN only where `finite` is false).

    `where` begins the message of the `StoreError`.
    """
    constant = _refuse_constant if finite else float
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        remedy = "it is truncated, damaged or no file of ccx: copy or make it again"
        raise store_error(where, f"not valid JSON ({error})", remedy) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse_constant(text: str) -> None:
    msg = f"{text} is no number of JSON"
    raise ValueError(msg)


@contextmanager
def storing(folder: Path, kept: str) -> Iterator[None]:
    """Make what the system says in the block a `StoreError`; `kept` says what stays where the disk is full."""
    try:
        yield
    except OSError as error:
        remedy = "check the path and its permissions"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = f"the {kept} stored before are kept: make room, and run again"
        raise store_error(folder, f"cannot write to it ({reason(error)})", remedy) from error


def read_json(path: PathLike, file_format: str) -> dict[str, Any]:
    """Return the JSON object of a file whose ``format`` entry is `file_format`, for example ``ccx.run/1``."""
    found = parse_json(read_bytes(path), path)
    check_format(found.get("format") if isinstance(found, dict) else None, file_format, path)
    return dict(found)


def sealed(text: str, before: str = "") -> tuple[str, str]:
    """Return the text of a JSON object with an entry ``checksum`` behind its others, and this -> (text, checksum).

    It is a BLAKE2b hash of `before`, the checksum of what precedes the object in a chain, and of the text.
    """
    body = text[:-1]
    seal = _digest(body.encode(), before)
    return f'{body},"{CHECKSUM}":"{seal}"}}', seal


def seal_of(content: bytes, before: str = "") -> str | None:
    """Return the checksum in the text of an object, if it is that of the text (see `sealed`), else None."""
    found = _SEAL.search(content)
    if found is None or found[1].decode() != _digest(content[: found.start()], before):
        return None
    return found[1].decode()


def _digest(body: bytes, before: str) -> str:
    return hashlib.blake2b(body, digest_size=8, key=before.encode()).hexdigest()


def read_sealed(path: PathLike, formats: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Return the JSON object of a file of `sealed` text and a line break, without its checksum, and this.

    `formats` are those that may be read, the newest first. Files of version 1 had no checksum: None.
    """
    content = read_bytes(path)
    found = parse_json(content, path)
    written = found.get("format") if isinstance(found, dict) else None
    if written not in formats:
        check_format(written, formats[0], path)
    if str(written).endswith("/1") and CHECKSUM not in found:
        return dict(found), None
    seal = seal_of(content[:-1]) if content.endswith(b"\n") else None
    if seal is None:
        raise store_error(path, "damaged: its content does not fit its checksum", "copy or make it again")
    del found[CHECKSUM]
    return dict(found), seal


def check_format(found: object, wanted: str, path: PathLike) -> None:
    """Raise `StoreError` unless a file's ``name/version`` is the one that this ccx reads."""
    if found == wanted:
        return
    name, _, version = wanted.partition("/")
    if isinstance(found, str) and found.startswith(f"{name}/"):
        problem = f"version {found.removeprefix(name)[1:]:.40} of {name}, and this ccx reads version {version}"
        raise store_error(path, problem, "read it with the ccx that wrote it, or make it again with this one")
    described = "no format of ccx" if found is None else f"format {found!r:.80}"
    raise store_error(path, f"wanted a file of format {wanted}, it has {described}", "check the path")
