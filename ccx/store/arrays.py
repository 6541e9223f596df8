"""Named arrays in one memory-mapped file, and content hashes."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ccx.errors import DTypeError, InputError
from ccx.store.files import (
    PathLike,
    as_path,
    check_format,
    json_text,
    open_regular,
    parse_json,
    reason,
    store_error,
    write_atomic,
)

Array: TypeAlias = NDArray[Any]
Layout: TypeAlias = dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]]

_DTYPES = {
    "BOOL": np.dtype("?"),
    **{f"{letter}{8 * size}": np.dtype(f"<{letter.lower()}{size}") for letter in "UI" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # set by the safetensors format
_ALIGNMENT = 64  # of the data within the file, in bytes: a cache line
_CHUNK_ITEMS = 1 << 20
_METADATA, _FORMAT, _CHECKSUM = "__metadata__", "ccx.format", "ccx.checksum"
_AGAIN = "copy or make it again"


def save_arrays(path: PathLike, arrays: Mapping[str, Array], metadata: Mapping[str, str], format: str) -> None:
    """Write named arrays and texts to one file in the safetensors format, atomically.

    Beyond what that format asks for, the metadata hold `format` and a checksum of the header. The data start at a
    multiple of 64 bytes and wider dtypes come first, so that every array is aligned to its item size (the format
    forbids gaps between arrays). Arrays in C order are written without a copy, others piece by piece.

    Parameters
    ----------
    path
        The file to create or replace.
    arrays
        Arrays of bool, (u)int8-64 or float16-64 in any shape and memory layout.
    metadata
        Texts to keep beside them; keys that begin with ``ccx.`` are reserved.
    format
        ``name/version``; `load_arrays` reads the file only under the same one.

    Raises
    ------
    DTypeError, InputError
        When an array or a text cannot be stored.
    StoreError
        When the file cannot be written; an older file at `path` stays as it was.

    """
    for key, text in metadata.items():
        if key.startswith("ccx.") or not isinstance(text, str):
            wanted, got = "texts under keys that do not begin with 'ccx.'", f"{key!r}: {text!r:.80}"
            raise InputError(argument="metadata", wanted=wanted, got=got, remedy="rename or convert it")
    if _METADATA in arrays:
        wanted = f"any name but {_METADATA!r}"
        raise InputError(argument="arrays", wanted=wanted, got="that name", remedy="rename the array")

    dtypes = {name: _stored_dtype(name, array) for name, array in arrays.items()}
    in_file = sorted(arrays, key=lambda name: -dtypes[name].itemsize)
    offsets, end = {}, 0
    for name in in_file:
        start, end = end, end + arrays[name].size * dtypes[name].itemsize
        offsets[name] = [start, end]
    header: dict[str, Any] = {_METADATA: {**metadata, _FORMAT: format}}
    for name, array in arrays.items():
        header[name] = {"dtype": _DTYPE_NAMES[dtypes[name]], "shape": list(array.shape), "data_offsets": offsets[name]}
    header[_METADATA][_CHECKSUM] = _header_checksum(header)

    encoded = json_text(header, "metadata").encode("ascii")
    encoded += b" " * (-(8 + len(encoded)) % _ALIGNMENT)
    if len(encoded) > _MAX_HEADER_BYTES:
        wanted, got = f"at most {_MAX_HEADER_BYTES} bytes", f"{len(encoded)}"
        raise InputError(argument="metadata", wanted=wanted, got=got, remedy="store less text")
    with write_atomic(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in in_file:
            for chunk in _chunks(arrays[name], dtypes[name]):
                file.write(chunk)


def load_arrays(path: PathLike, format: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a file of `save_arrays` -> (arrays, metadata), in the order in which they were saved.

    The arrays are read-only views of the memory-mapped file: nothing is copied, and pages are read when touched.

    Parameters
    ----------
    path
        The file.
    format
        The ``name/version`` under which it was saved.

    Raises
    ------
    StoreError
        When the file is missing, truncated, foreign, of another format or version, or when its header is damaged.
        The header is verified, the data are not: that would read them all.

    """
    try:
        descriptor, n_bytes = open_regular(as_path(path))
        with os.fdopen(descriptor, "rb") as file:
            header, start = _read_header(file, n_bytes, format, path)
            layout = _check_layout(header, n_bytes - start, path)
            data = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))[start:]
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error
    arrays = {name: data[begin:end].view(dtype).reshape(shape) for name, (dtype, shape, begin, end) in layout.items()}
    return arrays, {key: text for key, text in header[_METADATA].items() if not key.startswith("ccx.")}


def _stored_dtype(name: str, array: Array) -> np.dtype[Any]:
    """Return the little-endian dtype under which an array is stored and hashed."""
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _DTYPE_NAMES:
        wanted = "bool, (u)int8-64 or float16-64"
        raise DTypeError(name, wanted=wanted, got=str(array.dtype), remedy="convert it with astype")
    return dtype


def _chunks(array: Array, dtype: np.dtype[Any]) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order: the array's own memory where its layout allows, else pieces of a copy."""
    if array.size == 0:
        return
    if array.flags.c_contiguous and array.dtype == dtype:
        yield array.reshape(-1).view(np.uint8).data
        return
    pieces = np.nditer(  # type: ignore[call-overload]  # NumPy's stubs do not know "contig"
        array,
        flags=["external_loop", "buffered"],
        op_flags=[["readonly", "contig"]],
        op_dtypes=[dtype],
        order="C",
        casting="equiv",
        buffersize=_CHUNK_ITEMS,
    )
    for piece in pieces:
        yield piece.view(np.uint8).data


def _header_checksum(header: Mapping[str, Any]) -> str:
    """Hash what a header says, its own checksum and white space aside."""
    metadata = {key: text for key, text in header[_METADATA].items() if key != _CHECKSUM}
    canonical = json_text({**header, _METADATA: metadata}, sort_keys=True)
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=16).hexdigest()


def _read_header(file: BinaryIO, n_bytes: int, file_format: str, path: PathLike) -> tuple[dict[str, Any], int]:
    """Read and verify the header -> (header, offset of the data)."""
    n_header = int.from_bytes(file.read(8), "little")
    if n_bytes < 8 or n_header > _MAX_HEADER_BYTES:
        raise store_error(path, "does not begin like a safetensors file", "check the path")
    if 8 + n_header > n_bytes:
        raise store_error(path, f"truncated: {n_bytes} bytes, its header alone needs {8 + n_header}", _AGAIN)
    header = parse_json(file.read(n_header), path)
    metadata = header.get(_METADATA) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        metadata = {}
    check_format(metadata.get(_FORMAT), file_format, path)
    if metadata.get(_CHECKSUM) != _header_checksum(header):
        raise store_error(path, "damaged: its header does not fit the checksum in it", _AGAIN)
    return header, 8 + n_header


def _check_layout(header: Mapping[str, Any], n_data_bytes: int, path: PathLike) -> Layout:
    """Check that the arrays tile the data without gap or overlap -> name: (dtype, shape, begin, end)."""
    layout: Layout = {}
    for name, entry in header.items():
        if name == _METADATA:
            continue
        try:
            dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            if any(type(number) is not int for number in (*shape, begin, end)):
                raise TypeError
            if min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
                raise store_error(path, f"damaged: the offsets of {name!r} do not fit its shape", _AGAIN)
            np.broadcast_shapes(shape)  # refuses more or larger dimensions than NumPy has
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise store_error(path, f"damaged: its entry for {name!r} cannot be read", _AGAIN) from error
        layout[name] = dtype, shape, begin, end
    expected = 0
    for name, (_, _, begin, end) in sorted(layout.items(), key=lambda item: item[1][2:]):
        if begin != expected:
            raise store_error(path, f"damaged: {name!r} begins at byte {begin} of the data, not {expected}", _AGAIN)
        expected = end
    if n_data_bytes != expected:
        kind = "truncated" if n_data_bytes < expected else "damaged"
        raise store_error(path, f"{kind}: {n_data_bytes} bytes of data, its header announces {expected}", _AGAIN)
    return layout


def content_hash(parts: Mapping[str, object]) -> str:
    """Return a hash of named arrays and settings: BLAKE2b, 32 hexadecimal digits.

    It covers names, dtypes, shapes and bytes of the arrays, and the canonical JSON of everything else. It depends
    neither on the order of the names nor on an array's memory layout, byte order or being memory-mapped.

    Parameters
    ----------
    parts
        Name -> array of bool, (u)int8-64 or float16-64, or a JSON-able value.

    Raises
    ------
    DTypeError, InputError
        When a part is neither.

    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(parts):
        part = parts[name]
        if isinstance(part, np.ndarray):
            dtype = _stored_dtype(name, part)
            label: list[object] = [name, "array", _DTYPE_NAMES[dtype], part.shape]
            chunks = _chunks(part, dtype)
        else:
            label, chunks = [name, "json", part], iter(())
        # JSON text holds no zero byte, and a label gives the length of the data behind it: no two inputs look alike.
        digest.update(json_text(label, name, sort_keys=True).encode("ascii") + b"\0")
        for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()
