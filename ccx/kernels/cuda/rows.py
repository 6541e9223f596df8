"""Packed bit rows on the GPU; `ccx.kernels.rows` documents and validates, `ccx/kernels/src/rows.cuh` computes.

Every function takes the arguments of its namesake in `ccx.kernels.cpu.rows`, as arrays of the GPU. `threads` counts
processors of the host and changes nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ccx.kernels.cuda.device import Device, device_of, launch
from ccx.kernels.rows import n_words
from ccx.typing import Array, IntArray, UInt8Array

_CHUNK_WORDS = 4096  # as in rows.cuh
_TILE_WORDS, _TILE_PITCH, _TILE_COLUMNS = 16, 18, 64
_MOST_SLICE_WORDS = 1 << 20
# A block starts to pay when it reads so much of each row, and no multiprocessor can hold more blocks than this.
_LEAST_SLICE_WORDS = 256
_TILES_PER_PROCESSOR = 8
_ALL_ONES = np.uint64(2**64 - 1)
_ZERO = np.uint64(0)


def pack(bits: Array, threads: int | None) -> Array:
    device = device_of(bits)
    *lead, n_bits = bits.shape
    n_rows = math.prod(lead)
    out = device.empty((*lead, n_words(n_bits)), np.uint64)
    n_threads = 32 * n_rows * -(-n_words(n_bits) // 4)
    launch(device, "rows", "pack", n_threads, (device.contiguous(bits, np.bool_), out, _i64(n_rows), _i64(n_bits)))
    return out


def unpack(rows: Array, n_bits: int, threads: int | None) -> Array:
    device = device_of(rows)
    *lead, _ = rows.shape
    n_rows = math.prod(lead)
    out = device.empty((*lead, n_bits), np.bool_)
    n_threads = -(-n_rows * n_bits // 16)
    launch(device, "rows", "unpack", n_threads, (device.contiguous(rows, np.uint64), out, _i64(n_rows), _i64(n_bits)))
    return out


def logical_and(a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
    return _combine(a, b, out, flips=(_ZERO, _ZERO, _ZERO))


def logical_or(a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
    return _combine(a, b, out, flips=(_ALL_ONES, _ALL_ONES, _ALL_ONES))


def logical_and_not(a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
    return _combine(a, b, out, flips=(_ZERO, _ALL_ONES, _ZERO))


def popcount(rows: Array, threads: int | None) -> Array:
    device = device_of(rows)
    *lead, n_words = rows.shape
    n_rows = math.prod(lead)
    counts = device.zeros(lead, np.int64)
    args = (device.contiguous(rows, np.uint64), counts, _i64(n_rows), _i64(n_words))
    launch(device, "rows", "popcount", _row_threads(n_rows, n_words), args)
    return counts


def and_popcount(a: Array, b: Array, threads: int | None) -> Array:
    device = device_of(a, b)
    lead = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    n_rows, n_words = math.prod(lead), a.shape[-1]
    a, b, placing = _broadcast(device, a, b, lead)
    counts = device.zeros(lead, np.int64)
    args = (a, b, counts, _i64(n_rows), _i64(n_words), *placing)
    launch(device, "rows", "and_popcount", _row_threads(n_rows, n_words), args)
    return counts


def intersection_counts(a: Array, b: Array, threads: int | None) -> Array:
    device = device_of(a, b)
    (n, n_words), m = a.shape, b.shape[0]
    counts = device.zeros((n, m), np.int64)
    tile_rows = device.threads_per_block // 4
    n_tiles = -(-n // tile_rows) * -(-m // _TILE_COLUMNS)
    if n_tiles == 0 or n_words == 0:
        return counts
    n_slices = max(1, device.n_processors * _TILES_PER_PROCESSOR // n_tiles)
    slice_words = min(max(-(-n_words // n_slices), _LEAST_SLICE_WORDS), _MOST_SLICE_WORDS)
    slice_words = -(-slice_words // _TILE_WORDS) * _TILE_WORDS
    n_blocks = n_tiles * -(-n_words // slice_words)
    a, b = device.contiguous(a, np.uint64), device.contiguous(b, np.uint64)
    args = (a, b, counts, _i64(n), _i64(m), _i64(n_words), _i64(slice_words))
    shared_mem = (tile_rows + _TILE_COLUMNS) * _TILE_PITCH * 8
    launch(device, "rows", "intersection_counts", n_blocks * device.threads_per_block, args, shared_mem)
    return counts


def formula_rows(
    rows: Array, operands: IntArray, operators: UInt8Array, last_word: np.uint64, threads: int | None
) -> Array:
    device = device_of(rows)
    length, n_out = operands.shape
    n_words = rows.shape[1]
    out = device.empty((n_out, n_words), np.uint64)
    arrays = device.contiguous(rows, np.uint64), device.upload(operands), device.upload(operators), out
    args = (*arrays, _i64(n_out), _i64(n_words), _i64(length), last_word)
    launch(device, "rows", "formula_rows", _row_threads(n_out, n_words), args)
    return out


def _i64(value: int) -> np.int64:
    return np.int64(value)


def _row_threads(n_rows: int, n_words: int) -> int:
    """Return the threads that have work where a warp takes a chunk of a row."""
    return 32 * n_rows * -(-n_words // _CHUNK_WORDS)


def _combine(a: Array, b: Array, out: Array | None, flips: tuple[np.uint64, np.uint64, np.uint64]) -> Array:
    """Compute ``((a ^ flips[0]) & (b ^ flips[1])) ^ flips[2]``."""
    device = device_of(*(array for array in (a, b, out) if array is not None))
    shape = np.broadcast_shapes(a.shape, b.shape)
    lead, n_words = shape[:-1], shape[-1]
    if 0 in shape:
        return device.empty(shape, np.uint64) if out is None else out
    in_place = out is not None and _writable_in_place(device, out, a, b)
    result = out if in_place else device.empty(shape, np.uint64)
    a, b, placing = _broadcast(device, a, b, lead)
    n_rows = math.prod(lead)
    if a.shape == b.shape == shape:  # one long row: no short ones that leave lanes idle
        n_rows, n_words = 1, n_rows * n_words
        placing = _ONE_ROW
    args = (a, b, result, _i64(n_rows), _i64(n_words), *flips, *placing)
    launch(device, "rows", "combine", _row_threads(n_rows, n_words), args)
    if out is None or in_place:
        return result
    device.copy(result, out)
    return out


def _writable_in_place(device: Device, out: Array, a: Array, b: Array) -> bool:
    """Return whether the kernel may write to `out` while it reads `a` and `b`."""
    if not out.flags.c_contiguous or not out.dtype.isnative:
        return False
    low, high = device.extent(out)
    for operand in (a, b):
        operand_low, operand_high = device.extent(operand)
        same = operand.flags.c_contiguous and operand.shape == out.shape and operand_low == low
        if not same and operand_low < high and low < operand_high:
            return False
    return True


_ONE_ROW = tuple(_i64(value) for value in (1, 1, 0, 0, 0, 0, 0, 0))


def _broadcast(device: Device, a: Array, b: Array, lead: tuple[int, ...]) -> tuple[Array, Array, tuple[np.int64, ...]]:
    """Return `a` and `b` contiguous, and where their rows meet: the arguments of `Broadcast` in rows.cuh.

    Axes along which both step, or repeat, alike are one. Where more than three are left, rows are written out.
    """
    axes = _merged_axes(lead, _row_steps(a.shape[:-1], lead), _row_steps(b.shape[:-1], lead))
    if len(axes) > 3:
        shape = (*lead, a.shape[-1])
        a, b = device.broadcast(a, shape), device.broadcast(b, shape)
        axes = [(math.prod(lead), 1, 1)]
    axes = [(1, 0, 0)] * (3 - len(axes)) + axes
    (_, *lengths), steps_a, steps_b = zip(*axes, strict=True)
    placing = tuple(_i64(value) for value in (*lengths, *steps_a, *steps_b))
    return device.contiguous(a, np.uint64), device.contiguous(b, np.uint64), placing


def _row_steps(shape: Sequence[int], lead: Sequence[int]) -> list[int]:
    """Return by how many rows of a contiguous table of leading axes `shape` each axis of `lead` steps."""
    padded = (1,) * (len(lead) - len(shape)) + tuple(shape)
    return [0 if padded[axis] == 1 else math.prod(padded[axis + 1 :]) for axis in range(len(lead))]


def _merged_axes(lead: Sequence[int], steps_a: Sequence[int], steps_b: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (length, step in a, step in b), outermost first, with neighbours that step as one merged."""
    axes: list[tuple[int, int, int]] = []
    for length, step_a, step_b in zip(lead, steps_a, steps_b, strict=True):
        if length == 1:
            continue
        if axes and axes[-1][1:] == (length * step_a, length * step_b):
            axes[-1] = (axes[-1][0] * length, step_a, step_b)
        else:
            axes.append((length, step_a, step_b))
    return axes
