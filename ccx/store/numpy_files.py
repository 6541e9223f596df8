"""Arrays in files of NumPy: .npy files are mapped, those in .npz archives are measured before they are inflated."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccx.errors import CCXError
from ccx.memory import require_bytes
from ccx.store.files import PathLike, as_path, open_regular, reason, store_error

Array = NDArray[Any]

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000  # what NumPy itself parses of a file that nobody vouches for
_MOST_INFLATED = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # bytes that come out of one, by kind
_CHUNK = 1 << 20
_REMEDY = "save plain numbers with numpy.save, numpy.savez or safetensors"


class Header(NamedTuple):
    """What the head of a .npy file announces, and where the numbers begin."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    start: int

    @property
    def n_bytes(self) -> int:
        """How large the file must be."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """Read the head of a .npy file, or of such a file in an archive.

    Raises `ValueError` if it is damaged, or announces something else than plain numbers or texts.
    """
    head = file.read(10)
    if not head.startswith(_MAGIC) or len(head) < 10:
        raise ValueError("it does not begin like a .npy file")
    is_first = head[6] == 1
    head += b"" if is_first else file.read(2)
    length = int.from_bytes(head[8:], "little")
    if length > _MOST_HEADER:
        raise ValueError("its header is damaged: it would be long")
    text = io.BytesIO(head + file.read(length))
    try:
        np.lib.format.read_magic(text)
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(text)
    except Exception as error:  # it is parsed as Python text is
        raise ValueError("its header is damaged or of an unknown version") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    if not dtype.itemsize or dtype.subdtype or any(number < 0 for number in shape):
        raise ValueError("its header is damaged: items without a size")
    return Header(shape, "F" if is_fortran else "C", dtype, text.tell())


def map_npy(path: PathLike, remedy: str = _REMEDY) -> Array:
    """Return the array in a .npy file, memory-mapped and read-only.

    Raises `StoreError` if the file cannot be read, is damaged or truncated, or holds Python objects.
    """
    with _reading(path, remedy) as (file, n_bytes):
        header = read_header(file)
        if n_bytes < header.n_bytes:
            msg = f"truncated: {n_bytes} bytes, its header announces {header.n_bytes}"
            raise ValueError(msg)
        # A plain view of the mapped file: kernels know no subclasses of arrays.
        return np.asarray(np.memmap(file, header.dtype, "r", header.start, header.shape, header.order))


class Npz:
    """The arrays in an open .npz archive, each read when it is asked for; `names` are in the archive's order."""

    def __init__(self, path: PathLike, archive: zipfile.ZipFile, n_bytes: int) -> None:
        self._path, self._archive, self._n_bytes = path, archive, n_bytes
        self._members = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }
        self.names = list(self._members)

    def header(self, name: str) -> Header:
        """Return what an array announces of itself; the numbers stay packed."""
        with self._archive.open(self._members[name]) as stream:
            return read_header(stream)

    def read(self, name: str) -> Array:
        """Return an array.

        Raises `ValueError` if what it announces is not what is packed; `MemoryBudgetError` if it does not fit into the
        memory available.
        """
        member = self._members[name]
        packed = min(member.compress_size, self._n_bytes)
        if member.file_size > packed * _MOST_INFLATED.get(member.compress_type, 0):
            msg = f"{name} cannot have the {member.file_size} bytes that it announces"
            raise ValueError(msg)
        with self._archive.open(member) as stream:
            header = read_header(stream)
            if header.n_bytes != member.file_size:
                msg = f"{name} has {member.file_size} bytes, its header announces {header.n_bytes}"
                raise ValueError(msg)
            require_bytes(f"{self._path}: {name}", header.n_bytes, "save it with numpy.save: such a file is mapped")
            numbers = read_exactly(stream, header.n_bytes - header.start)
        return np.ndarray(header.shape, header.dtype, numbers, order=header.order)


@contextmanager
def open_npz(path: PathLike) -> Iterator[Npz]:
    """Open a .npz archive.

    Raises `StoreError` if it cannot be read, is none, or is damaged; also from inside the block, if an array in it is.
    """
    with _reading(path) as (file, n_bytes):
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz archive, or truncated")
        with zipfile.ZipFile(file) as archive:
            yield Npz(path, archive, n_bytes)


def read_exactly(stream: IO[bytes], n_bytes: int) -> bytearray:
    """Read so many bytes from a member of a zip archive, which compares checksums at its end.

    Raises `EOFError` if there are fewer.
    """
    found = bytearray(n_bytes)
    view = memoryview(found)
    while view:
        n_read = stream.readinto(view[:_CHUNK])  # type: ignore[attr-defined]  # by pieces: it makes a copy of each
        if not n_read:
            raise EOFError("truncated")
        view = view[n_read:]
    return found


@contextmanager
def _reading(path: PathLike, remedy: str = _REMEDY) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file -> it, and its size; whatever is wrong with its content becomes a `StoreError`."""
    descriptor, n_bytes = open_regular(as_path(path))
    try:
        with os.fdopen(descriptor, "rb") as file:
            yield file, n_bytes
    except CCXError:
        raise
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error
    except Exception as error:  # damaged archives raise what zipfile, zlib and NumPy see fit
        raise store_error(path, f"cannot be read as an array ({error})", remedy) from error
