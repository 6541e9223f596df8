"""Packed bit rows on the CPU; `ccx.kernels.rows` documents and validates.

Every function here takes the arguments of its namesake there, checked, as NumPy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccx.jobs import available_threads, parallel
from ccx.kernels.cpu._jit import inline, jit, popcount64
from ccx.kernels.rows import FULL, n_words
from ccx.operators import AND, AND_NOT, OR
from ccx.typing import Array, IntArray, UInt8Array

# To start a thread costs about as much as to read this many words from memory.
_WORDS_PER_THREAD = 1 << 17
# A tile of `intersection_counts`: so many rows of a meet so many rows of b that their words (32 KB) stay in the
# first cache; the rows of a (256 KB at most) stay in the second while all of b passes.
_TILE_ROWS = 64
_TILE_WORDS = 512
_TILE_WORDS_OF_B = 4096
# What NumPy computes on the way to a result is computed in slices of so many words, which stay in the second cache.
_SLICE_WORDS = 1 << 15


def pack(bits: Array, threads: int | None) -> Array:
    *lead, n_bits = bits.shape
    table = bits.reshape(math.prod(lead), n_bits)
    rows = np.zeros((table.shape[0], n_words(n_bits)), dtype="<u8")
    row_bytes = rows.view(np.uint8)

    def work(start: int, stop: int) -> None:
        for piece in _slices(start, stop, _SLICE_WORDS // max(1, rows.shape[1])):
            packed = np.packbits(table[piece], axis=-1, bitorder="little")
            row_bytes[piece, : packed.shape[1]] = packed

    parallel(work, table.shape[0], _threads(threads, rows.size))
    return rows.astype(np.uint64, copy=False).reshape(*lead, rows.shape[1])


def unpack(rows: Array, n_bits: int, threads: int | None) -> Array:
    row_bytes = _table(rows).astype("<u8", copy=False).view(np.uint8)
    bits = np.empty((row_bytes.shape[0], n_bits), dtype=np.bool_)

    def work(start: int, stop: int) -> None:
        for piece in _slices(start, stop, _SLICE_WORDS // max(1, n_bits // 8)):
            bits[piece] = np.unpackbits(row_bytes[piece], axis=-1, count=n_bits, bitorder="little")

    parallel(work, bits.shape[0], _threads(threads, rows.size))
    return bits.reshape(*rows.shape[:-1], n_bits)


def logical_and(a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
    return _elementwise(lambda x, y, result: np.bitwise_and(x, y, out=result), a, b, out, threads)


def logical_or(a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
    return _elementwise(lambda x, y, result: np.bitwise_or(x, y, out=result), a, b, out, threads)


def logical_and_not(a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
    return _elementwise(lambda x, y, result: np.bitwise_and(x, ~y, out=result), a, b, out, threads)


def popcount(rows: Array, threads: int | None) -> Array:
    table = _table(rows)
    n_rows, n_words = table.shape
    counts = _count_rows(lambda *piece: _popcount(table, *piece), n_rows, n_words, threads)
    return counts.reshape(rows.shape[:-1])


def and_popcount(a: Array, b: Array, threads: int | None) -> Array:
    lead = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    table_a, table_b = _table(a), _table(b)
    rows_a, rows_b = _row_numbers(a.shape[:-1], lead), _row_numbers(b.shape[:-1], lead)
    counts = _count_rows(
        lambda *piece: _and_popcount(table_a, table_b, rows_a, rows_b, *piece), rows_a.size, a.shape[-1], threads
    )
    return counts.reshape(lead)


def intersection_counts(a: Array, b: Array, threads: int | None) -> Array:
    if a.shape[0] < b.shape[0]:  # threads share out the rows of the longer table
        return np.ascontiguousarray(intersection_counts(b, a, threads).T)
    a, b = _table(a), _table(b)
    counts = np.zeros((a.shape[0], b.shape[0]), dtype=np.int64)
    parallel(
        lambda i, j: _intersection_counts(a[i:j], b, _TILE_ROWS, _TILE_WORDS, _TILE_WORDS_OF_B, counts[i:j]),
        a.shape[0],
        _threads(threads, counts.size * a.shape[1]),
    )
    return counts


def formula_rows(
    rows: Array, operands: IntArray, operators: UInt8Array, last_word: np.uint64, threads: int | None
) -> Array:
    out = np.empty((operands.shape[1], rows.shape[1]), np.uint64)
    table = _table(rows)
    parallel(
        lambda i, j: _formula_rows(table, operands[:, i:j], operators, last_word, out[i:j]),
        out.shape[0],
        _threads(threads, out.size * operands.shape[0]),
    )
    return out


@inline
def _fill(out, ones, last_word):
    for w in range(out.size):
        out[w] = ~np.uint64(0) if ones else np.uint64(0)
    if ones and out.size:
        out[out.size - 1] = last_word


@jit
def _formula_rows(rows, operands, operators, last_word, out):
    for k in range(out.shape[0]):
        row = out[k]
        if operands[0, k] >= 0:
            for w in range(row.size):
                row[w] = rows[operands[0, k], w]
        else:
            _fill(row, operands[0, k] == FULL, last_word)
        for j in range(1, operands.shape[0]):
            operand, operator = operands[j, k], operators[j - 1]
            if operand < 0:
                ones = operand == FULL
                if operator == (OR if ones else AND):
                    _fill(row, ones, last_word)
                elif ones and operator == AND_NOT:
                    _fill(row, False, last_word)
            elif operator == OR:
                for w in range(row.size):
                    row[w] |= rows[operand, w]
            elif operator == AND:
                for w in range(row.size):
                    row[w] &= rows[operand, w]
            else:
                for w in range(row.size):
                    row[w] &= ~rows[operand, w]


def _threads(threads: int | None, n_words: int) -> int:
    """Return how many threads are worth starting for work on `n_words` words."""
    return max(1, min(threads or available_threads(), n_words // _WORDS_PER_THREAD))


def _table(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return `rows` as ``uint64[n_rows, n_words]``, contiguous, native; a copy only where they are not."""
    lead = rows.shape[:-1]
    return np.ascontiguousarray(rows, dtype=np.uint64).reshape(math.prod(lead), rows.shape[-1])


def _row_numbers(shape: tuple[int, ...], lead: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return which row of a table with leading axes `shape` stands at each place of `lead`."""
    numbers = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return np.broadcast_to(numbers, lead).reshape(-1)


def _elementwise(
    operation: Callable[..., Any],
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    out: NDArray[np.uint64] | None,
    threads: int | None,
) -> NDArray[np.uint64]:
    """Run ``operation(a, b, out)`` over cache-sized slices of the longest axis, some on each thread."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    if out is not None and not all(_slices_apart(out, operand) for operand in (a, b)):
        out[...] = _elementwise(operation, a, b, None, threads)
        return out
    if out is None:
        out = np.empty(shape, dtype=np.uint64)
    a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    axis = int(np.argmax(shape))
    before = (slice(None),) * axis

    def work(start: int, stop: int) -> None:
        for piece in _slices(start, stop, _SLICE_WORDS * shape[axis] // max(1, out.size)):
            operation(a[*before, piece], b[*before, piece], out[*before, piece])

    parallel(work, shape[axis], _threads(threads, out.size))
    return out


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    step = max(1, step)
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def _slices_apart(out: NDArray[np.uint64], operand: NDArray[np.uint64]) -> bool:
    """Return whether writing a slice of `out` leaves the other slices of `operand` as they are."""
    if not np.may_share_memory(out, operand):
        return True
    same_place = out.__array_interface__["data"] == operand.__array_interface__["data"]
    return same_place and (out.shape, out.strides) == (operand.shape, operand.strides)


def _count_rows(count: Callable[..., Any], n_rows: int, n_words: int, threads: int | None) -> NDArray[np.int64]:
    """Call ``count(row0, row1, word0, word1, counts)`` over pieces; long rows are cut where there are few."""

    def piece(row0: int, row1: int, word0: int, word1: int) -> NDArray[np.int64]:
        counts = np.empty(row1 - row0, dtype=np.int64)
        count(row0, row1, word0, word1, counts)
        return counts

    n_threads = _threads(threads, n_rows * n_words)
    if n_rows >= n_threads:
        return np.concatenate(parallel(lambda start, stop: piece(start, stop, 0, n_words), n_rows, n_threads))
    parts = parallel(lambda start, stop: piece(0, n_rows, start, stop), n_words, n_threads)
    counts: NDArray[np.int64] = np.stack(parts).sum(axis=0, dtype=np.int64)
    return counts


@jit
def _popcount(
    rows: NDArray[np.uint64], row0: int, row1: int, word0: int, word1: int, counts: NDArray[np.int64]
) -> None:
    for i in range(row0, row1):
        row = rows[i, word0:word1]
        ones = np.uint64(0)
        for w in range(row.size):
            ones += popcount64(row[w])
        counts[i - row0] = np.int64(ones)


@jit
def _and_popcount(
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    rows_a: NDArray[np.uint64],
    rows_b: NDArray[np.uint64],
    row0: int,
    row1: int,
    word0: int,
    word1: int,
    counts: NDArray[np.int64],
) -> None:
    for i in range(row0, row1):
        counts[i - row0] = _shared_ones(a[rows_a[i], word0:word1], b[rows_b[i], word0:word1])


@jit
def _intersection_counts(
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    tile_rows: int,
    tile_words: int,
    tile_words_of_b: int,
    counts: NDArray[np.int64],
) -> None:
    n, n_words = a.shape
    m = b.shape[0]
    for i0 in range(0, n, tile_rows):
        i1 = min(i0 + tile_rows, n)
        for w0 in range(0, n_words, tile_words):
            w1 = min(w0 + tile_words, n_words)
            tile_rows_of_b = max(4, tile_words_of_b // (w1 - w0))
            for j0 in range(0, m, tile_rows_of_b):
                j1 = min(j0 + tile_rows_of_b, m)
                for i in range(i0, i1):
                    row = a[i, w0:w1]
                    j = j0
                    while j + 4 <= j1:  # four at a time: a word of `row` is loaded once for four
                        ones0, ones1, ones2, ones3 = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
                        row0, row1, row2, row3 = b[j, w0:w1], b[j + 1, w0:w1], b[j + 2, w0:w1], b[j + 3, w0:w1]
                        for w in range(row.size):
                            word = row[w]
                            ones0 += popcount64(word & row0[w])
                            ones1 += popcount64(word & row1[w])
                            ones2 += popcount64(word & row2[w])
                            ones3 += popcount64(word & row3[w])
                        counts[i, j] += np.int64(ones0)
                        counts[i, j + 1] += np.int64(ones1)
                        counts[i, j + 2] += np.int64(ones2)
                        counts[i, j + 3] += np.int64(ones3)
                        j += 4
                    while j < j1:
                        counts[i, j] += _shared_ones(row, b[j, w0:w1])
                        j += 1


@inline
def _shared_ones(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> np.int64:
    ones = np.uint64(0)
    for w in range(a.size):
        ones += popcount64(a[w] & b[w])
    return np.int64(ones)
