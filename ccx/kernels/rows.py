"""Packed bit rows: 64 cells per word.

Bit j of a row is bit ``j % 64`` of word ``j // 64`` (least significant first); the bits of the last word
beyond the row, its padding, are zero. Rows stand in the last axis: ``uint64[..., n_words]``. Functions take
NumPy arrays of any memory layout and byte order, and torch tensors in main memory; they return NumPy arrays.
`threads` is the number of threads (None: every available processor); results do not depend on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.checks import UNBOUNDED, integer
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.jobs import check_threads
from ccx.kernels.backend import Backend, backend_for
from ccx.kernels.conversion import as_array, check_out, describe, on_gpu
from ccx.kernels.places import place_of, to_host
from ccx.memory import require_bytes

__all__ = [
    "and_popcount",
    "intersection_counts",
    "logical_and",
    "logical_and_not",
    "logical_or",
    "n_words",
    "pack",
    "popcount",
    "unpack",
]

_LARGE = 1 << 27  # bits, below which memory is not looked at


def n_words(n_bits: int) -> int:
    """Return the number of 64-bit words that a row of `n_bits` bits takes.

    Examples
    --------
    >>> n_words(64), n_words(65)
    (1, 2)

    """
    return -(-integer("n_bits", n_bits, 0, UNBOUNDED, "pass the length of a row in bits") // 64)


def pack(bits: Any, *, threads: int | None = None) -> Any:
    """Pack booleans into bit rows: ``bool[..., n_bits] -> uint64[..., n_words]``.

    Raises
    ------
    DTypeError
        If `bits` is not boolean.
    ShapeError
        If `bits` has no axis.

    Examples
    --------
    >>> pack(np.array([True, False, True]))
    array([5], dtype=uint64)

    """
    bits = as_array(bits, "bits")
    if bits.dtype.kind != "b":
        raise DTypeError(
            argument="bits", wanted="bool[..., n_bits]", got=describe(bits), remedy="compare first: bits != 0"
        )
    if bits.ndim == 0:
        raise ShapeError(argument="bits", wanted="bool[..., n_bits]", got="a scalar", remedy="pass at least one axis")
    if bits.size > _LARGE:
        require_bytes("bits", bits.size // 8, "pack fewer at a time")
    return backend_for(bits).rows.pack(bits, check_threads(threads))


def unpack(rows: Any, n_bits: int, *, threads: int | None = None) -> Any:
    """Undo `pack`: ``uint64[..., n_words] -> bool[..., n_bits]``.

    Raises
    ------
    DTypeError
        If `rows` is not uint64.
    ShapeError
        If rows of `n_bits` bits do not take `n_words` words.

    """
    n_bits = integer("n_bits", n_bits, 0, 1 << 62, "give the number of bits that was packed")
    rows = as_rows(rows, "rows", n_bits)
    return backend_for(rows).rows.unpack(rows, int(n_bits), check_threads(threads))


def logical_and(a: Any, b: Any, out: Any = None, *, threads: int | None = None) -> Any:
    """Intersect rows: ``a & b``.

    Parameters
    ----------
    a, b
        ``uint64[..., n_words]`` with the same `n_words`; the leading axes broadcast.
    out
        ``uint64[..., n_words]`` of the broadcast shape to write into; may be `a` or `b`. None: a new array.
    threads
        Number of threads.

    Returns
    -------
    uint64[..., n_words]
        `out`, or a new array.

    Raises
    ------
    DTypeError
        If an array is not uint64.
    ShapeError
        If the shapes do not fit together.

    """
    backend, operands = _operands(a, b, out)
    return backend.rows.logical_and(*operands, check_threads(threads))


def logical_or(a: Any, b: Any, out: Any = None, *, threads: int | None = None) -> Any:
    """Unite rows: ``a | b``; arguments, result and errors as in `logical_and`."""
    backend, operands = _operands(a, b, out)
    return backend.rows.logical_or(*operands, check_threads(threads))


def logical_and_not(a: Any, b: Any, out: Any = None, *, threads: int | None = None) -> Any:
    """Subtract rows: ``a & ~b``, padding stays zero; arguments, result and errors as in `logical_and`."""
    backend, operands = _operands(a, b, out)
    return backend.rows.logical_and_not(*operands, check_threads(threads))


def popcount(rows: Any, *, threads: int | None = None) -> Any:
    """Count the ones of each row: ``uint64[..., n_words] -> int64[...]``.

    Raises
    ------
    DTypeError
        If `rows` is not uint64.
    ShapeError
        If `rows` has no axis.

    """
    rows = as_rows(rows, "rows")
    return backend_for(rows).rows.popcount(rows, check_threads(threads))


def and_popcount(a: Any, b: Any, *, threads: int | None = None) -> Any:
    """Count the ones that rows share: ``popcount(a & b)`` in one pass, nothing is stored between.

    Parameters
    ----------
    a, b
        ``uint64[..., n_words]`` with the same `n_words`; the leading axes broadcast.
    threads
        Number of threads.

    Returns
    -------
    int64[...]
        One count for each pair of rows, in the broadcast leading shape.

    Raises
    ------
    DTypeError
        If an array is not uint64.
    ShapeError
        If the shapes do not fit together.

    """
    a, b = as_rows(a, "a"), as_rows(b, "b")
    _broadcast_shape(a, b)
    return backend_for(a, b).rows.and_popcount(a, b, check_threads(threads))


def intersection_counts(a: Any, b: Any, *, threads: int | None = None) -> Any:
    """Count the ones that every row of `a` shares with every row of `b`.

    Parameters
    ----------
    a, b
        ``uint64[n, n_words]`` and ``uint64[m, n_words]``.
    threads
        Number of threads.

    Returns
    -------
    int64[n, m]
        ``counts[i, j] = popcount(a[i] & b[j])``.

    Raises
    ------
    DTypeError
        If an array is not uint64.
    ShapeError
        If an array is not two-dimensional, or the rows differ in length.

    """
    a, b = as_rows(a, "a"), as_rows(b, "b")
    for argument, array in (("a", a), ("b", b)):
        if array.ndim != 2:
            remedy = f"{argument}.reshape(-1, {array.shape[-1]}) makes a table of rows"
            raise ShapeError(argument, wanted="uint64[n, n_words]", got=describe(array), remedy=remedy)
    _check_same_words(a, b)
    return backend_for(a, b).rows.intersection_counts(a, b, check_threads(threads))


FULL, ABSENT = -1, -2
"""Operands of `formula_rows` that are no row of the table: all ones, and all zeros."""


def formula_rows(
    rows: Any, operands: npt.NDArray[np.int64], operators: npt.NDArray[np.uint8], n_bits: int, *, threads: int | None
) -> Any:
    """Combine rows by a left-deep formula: uint64[R, n_words] -> uint64[k, n_words], where `rows` lie.

    Row i is ((operand 0 op operand 1) op operand 2) ..., its operands int64[length, k] being numbers of rows, `FULL` or
    `ABSENT`, its operators uint8[length - 1] 0 OR, 1 AND, 2 AND NOT; both in main memory, and trusted.
    """
    last_word = np.uint64(2**64 - 1) >> np.uint64(-n_bits % 64)
    return backend_for(rows).rows.formula_rows(rows, operands, operators, last_word, check_threads(threads))


def as_rows(value: Any, argument: str, n_bits: int | None = None) -> Any:
    """Return `value` as an array of packed rows, ``uint64[..., n_words]``; of `n_bits` bits each, if given."""
    rows = as_array(value, argument)
    wanted = "uint64[..., n_words]" if n_bits is None else f"uint64[..., {n_words(n_bits)}]"
    if (rows.dtype.kind, rows.dtype.itemsize) != ("u", 8):
        raise DTypeError(argument, wanted=wanted, got=describe(rows), remedy="make rows with ccx.kernels.pack")
    if rows.ndim == 0:
        raise ShapeError(argument, wanted=wanted, got="a scalar", remedy="pass at least one axis")
    if n_bits is not None and rows.shape[-1] != n_words(n_bits):
        remedy = f"pass rows of {n_bits} bits, or the number of bits that was packed"
        raise ShapeError(argument, wanted=wanted, got=describe(rows), remedy=remedy)
    return rows


def _operands(a: Any, b: Any, out: Any) -> tuple[Backend, tuple[Any, Any, Any]]:
    """Return the backend and the checked operands of a bitwise operation."""
    a, b = as_rows(a, "a"), as_rows(b, "b")
    shape = _broadcast_shape(a, b)
    if out is None:
        return backend_for(a, b), (a, b, None)
    given, out = out, as_rows(out, "out")
    check_out(given, out)
    if out.shape != shape:
        wanted = f"uint64[{', '.join(map(str, shape))}]"
        raise ShapeError(
            argument="out", wanted=wanted, got=describe(out), remedy="pass an array of the broadcast shape"
        )
    if not getattr(out.flags, "writeable", True):  # CuPy arrays are always writeable and have no such flag
        raise InputError(argument="out", wanted="a writeable array", got="a read-only one", remedy="pass a copy")
    return backend_for(a, b, out), (a, b, out)


def _broadcast_shape(a: Any, b: Any) -> tuple[int, ...]:
    _check_same_words(a, b)
    try:
        lead = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    except ValueError as error:
        wanted = f"leading axes that broadcast with {describe(a)}"
        remedy = "insert axes of length 1 where rows repeat"
        raise ShapeError(argument="b", wanted=wanted, got=describe(b), remedy=remedy) from error
    return (*lead, a.shape[-1])


def _check_same_words(a: Any, b: Any) -> None:
    if a.shape[-1] != b.shape[-1]:
        remedy = "pack rows of the same number of bits"
        raise ShapeError(argument="b", wanted=f"uint64[..., {a.shape[-1]}]", got=describe(b), remedy=remedy)


def check_padding(argument: str, rows: Any, n_bits: int) -> None:
    """Raise `InputError` if a bit behind the first `n_bits` of any row is one."""
    if not n_bits % 64:
        return
    last, used = rows[..., -1:], np.uint64(n_bits % 64)
    if on_gpu(rows):
        behind = place_of(rows).upload(np.array([np.uint64(2**64 - 1) << used]))
        n_ones = to_host(and_popcount(last, behind))
    else:
        n_ones = last >> used
    if n_ones.any():
        remedy = "pack with ccx.kernels.pack, which clears them"
        raise InputError(argument, wanted=f"zeros in the bits behind bit {n_bits - 1}", got="ones", remedy=remedy)
