"""Boxes and rectangles of packed masks on the CPU; `ccx.kernels.shapes` documents and validates.

An image row is read 64 columns at a time into a word, wherever in the packed row it begins, so work on whole rows
costs an operation for 64 cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccx.jobs import available_threads, parallel
from ccx.kernels.cpu._jit import inline, jit, popcount64, trailing_zeros64
from ccx.typing import Array

# To start a thread costs about as much as to measure a blob on a grid of this many cells.
_CELLS_PER_THREAD = 1 << 18


def bounding_boxes(rows: Array, shape: tuple[int, int], threads: int | None) -> Array:
    width = shape[1]
    return _measure(lambda masks, boxes: _bounding_boxes(masks, width, boxes), rows, shape, threads)


def inscribed_rectangles(rows: Array, shape: tuple[int, int], threads: int | None) -> Array:
    return _measure(lambda masks, boxes: _inscribed_rectangles(masks, *shape, boxes), rows, shape, threads)


def _measure(
    kernel: Callable[..., Any], rows: NDArray[np.uint64], shape: tuple[int, int], threads: int | None
) -> NDArray[np.int32]:
    """Run ``kernel(masks, boxes)`` over slices of the masks; `boxes` start as zeros."""
    *lead, n_words = rows.shape
    masks = np.ascontiguousarray(rows, dtype=np.uint64).reshape(math.prod(lead), n_words)
    boxes = np.zeros((masks.shape[0], 4), dtype=np.int32)
    worthwhile = max(1, masks.shape[0] * math.prod(shape) // _CELLS_PER_THREAD)
    parallel(
        lambda start, stop: kernel(masks[start:stop], boxes[start:stop]),
        masks.shape[0],
        min(threads or available_threads(), worthwhile),
    )
    return boxes.reshape(*lead, 4)


@jit
def _bounding_boxes(masks: NDArray[np.uint64], width: int, boxes: NDArray[np.int32]) -> None:
    for i in range(masks.shape[0]):
        mask = masks[i]
        row0, row1 = _row_span(mask, width)
        if row0 == row1:
            continue
        col0: Any = width
        col1: Any = 0
        for first in range(0, width, 64):
            n_bits = min(64, width - first)
            columns = np.uint64(0)
            for row in range(row0, row1):
                columns |= _read(mask, row * width + first, n_bits)
            if columns != 0:
                col0 = min(col0, first + np.int64(trailing_zeros64(columns)))
                col1 = first + _highest_bit(columns) + 1
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = row0, col0, row1, col1


@jit
def _inscribed_rectangles(masks: NDArray[np.uint64], height: int, width: int, rectangles: NDArray[np.int32]) -> None:
    # The largest rectangle under a histogram, row by row (`_largest_under`), with three short cuts that cannot change
    # the result:
    # - A column of ones is noted where it begins; nothing is updated while it goes on.
    # - A rectangle that goes on in the next row is smaller than its continuation, so only one that contains an end, a
    #   cell above a zero, can be the largest. The inside of a mask costs an operation for 64 cells.
    # - A rectangle is no wider than its run of ones, and no higher than the columns of the ends in it.
    n_words = (width + 63) // 64
    lines = np.zeros((height + 2, n_words), dtype=np.uint64)  # line r + 1 is image row r from bit 0 on
    ends = np.empty((1, n_words), dtype=np.uint64)
    tops = np.empty(width, dtype=np.int64)  # the row where the column of ones begins
    bars = np.empty((3, width + 1), dtype=np.int64)
    for i in range(masks.shape[0]):
        mask = masks[i]
        row0, row1 = _row_span(mask, width)
        for word in range(n_words):
            first = 64 * word
            n_bits = min(64, width - first)
            lines[row0, word] = 0
            for row in range(row0, row1):
                lines[row + 1, word] = _read(mask, row * width + first, n_bits)
            lines[row1 + 1, word] = 0
        largest = 0
        for row in range(row0, row1):
            any_end = np.uint64(0)
            for word in range(n_words):
                ones = lines[row + 1, word]
                begun = ones & ~lines[row, word]
                while begun != 0:
                    tops[64 * word + np.int64(trailing_zeros64(begun))] = row
                    begun &= begun - np.uint64(1)
                ends[0, word] = ones & ~lines[row + 2, word]
                any_end |= ends[0, word]
            if any_end == 0:
                continue
            start = _next_one(lines, row + 1, 0, width)
            while start < width:
                stop = _next_zero(lines, row + 1, start, width)
                top = row + 1
                end = _next_one(ends, 0, start, width)
                while end < stop:
                    top = min(top, tops[end])
                    end = _next_one(ends, 0, end + 1, width)
                if (row + 1 - top) * (stop - start) > largest:
                    area, top, left, right = _largest_under(tops, row + 1, start, stop, largest, bars)
                    if area > largest:
                        largest = area
                        rectangles[i, 0], rectangles[i, 1] = top, left
                        rectangles[i, 2], rectangles[i, 3] = row + 1, right
                start = _next_one(lines, row + 1, stop, width)


@inline
def _largest_under(
    tops: NDArray[np.int64], bottom: int, start: int, stop: int, at_least: int, bars: NDArray[np.int64]
) -> tuple[int, int, int, int]:
    """Return area, top, left, right of the first largest rectangle above `at_least` that stands on row `bottom`.

    Columns ``start .. stop - 1`` are ones from ``tops`` down to `bottom`. The classical stack of bars, from low to
    high: a bar lasts while columns are as high as it is, and its rectangle is known when a lower one comes. A bar
    also keeps the first column of just its height, which is the cell that proposes its rectangle.
    """
    bar_tops, bar_lefts, bar_cells = bars[0], bars[1], bars[2]
    bar_tops[0] = bottom  # height 0: never ends
    depth = 0
    largest, largest_cell = at_least, -1
    largest_top, largest_left, largest_right = bottom, start, start
    for col in range(start, stop + 1):
        top = tops[col] if col < stop else bottom
        left = col
        while bar_tops[depth] < top:
            left = bar_lefts[depth]
            area = (bottom - bar_tops[depth]) * (col - left)
            if area > largest or (area == largest and bar_cells[depth] < largest_cell):
                largest, largest_cell = area, bar_cells[depth]
                largest_top, largest_left, largest_right = bar_tops[depth], left, col
            depth -= 1
        if bar_tops[depth] > top:
            depth += 1
            bar_tops[depth], bar_lefts[depth], bar_cells[depth] = top, left, col
    return largest, largest_top, largest_left, largest_right


@inline
def _row_span(mask: NDArray[np.uint64], width: int) -> tuple[Any, Any]:
    """Return the first image row with a one and the row after the last: (0, 0) if there is none."""
    first, last = 0, mask.size - 1
    while first <= last and mask[first] == 0:
        first += 1
    if first > last:
        return 0, 0
    while mask[last] == 0:
        last -= 1
    row0 = (64 * first + np.int64(trailing_zeros64(mask[first]))) // width
    row1 = (64 * last + _highest_bit(mask[last])) // width + 1
    return row0, row1


@inline
def _read(mask: NDArray[np.uint64], bit: int, n_bits: int) -> Any:
    """Return `n_bits` (1 to 64) bits of `mask` from `bit` on, as the low bits of a word.

    Free of branches, which could not be predicted: where the bits lie in one word, that word is read twice and
    what it adds is masked away.
    """
    shift = np.uint64(bit & 63)
    low, high = mask[bit >> 6], mask[(bit + n_bits - 1) >> 6]
    bits = (low >> shift) | (high << np.uint64(1) << (np.uint64(63) - shift))
    return bits & (~np.uint64(0) >> np.uint64(64 - n_bits))


@inline
def _highest_bit(word: Any) -> Any:
    """Return the number of the highest one of a word that is not 0."""
    for shift in (1, 2, 4, 8, 16, 32):
        word |= word >> np.uint64(shift)
    return np.int64(popcount64(word)) - 1


@inline
def _next_one(lines: NDArray[np.uint64], line: int, col: int, width: int) -> Any:
    """Return the first column from `col` on that is 1 in a line, `width` if there is none."""
    word = col >> 6
    if col < width:
        ones = lines[line, word] >> np.uint64(col & 63)
        if ones != 0:
            return col + np.int64(trailing_zeros64(ones))
        for later in range(word + 1, lines.shape[1]):
            if lines[line, later] != 0:
                return 64 * later + np.int64(trailing_zeros64(lines[line, later]))
    return width


@inline
def _next_zero(lines: NDArray[np.uint64], line: int, col: int, width: int) -> Any:
    """Return the first column from `col` on that is 0 in a line, `width` if there is none."""
    word = col >> 6
    zeros = ~lines[line, word] >> np.uint64(col & 63)
    if zeros != 0:
        return min(width, col + np.int64(trailing_zeros64(zeros)))
    for later in range(word + 1, lines.shape[1]):
        if ~lines[line, later] != 0:
            return min(width, 64 * later + np.int64(trailing_zeros64(~lines[line, later])))
    return width
