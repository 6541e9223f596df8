"""Label maps in picture files: undoing the filters of PNG, and ids to concepts."""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import jit

_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4


@jit
def unfilter(rows, pixel_bytes):
    """Undo each row's filter in place: rows uint8[h, 1 + n] -> False where a filter is none of PNG's five."""
    n = rows.shape[1]
    for y in range(rows.shape[0]):
        row = rows[y]
        kind = row[0]
        if kind > _PAETH:
            return False
        if y == 0:  # nothing above: as if it were zeros
            if kind == _UP:
                kind = 0
            elif kind == _PAETH:
                kind = _SUB
            elif kind == _AVERAGE:
                for i in range(1 + pixel_bytes, n):
                    row[i] = np.uint8(row[i] + (row[i - pixel_bytes] >> 1))
                continue
        above = rows[y - 1]
        if kind == _SUB:
            for i in range(1 + pixel_bytes, n):
                row[i] = np.uint8(row[i] + row[i - pixel_bytes])
        elif kind == _UP:
            for i in range(1, n):
                row[i] = np.uint8(row[i] + above[i])
        elif kind == _AVERAGE:
            for i in range(1, min(1 + pixel_bytes, n)):
                row[i] = np.uint8(row[i] + (above[i] >> 1))
            for i in range(1 + pixel_bytes, n):
                row[i] = np.uint8(row[i] + ((np.int64(row[i - pixel_bytes]) + np.int64(above[i])) >> 1))
        elif kind == _PAETH:
            for i in range(1, min(1 + pixel_bytes, n)):
                row[i] = np.uint8(row[i] + above[i])
            for i in range(1 + pixel_bytes, n):
                left, up, corner = np.int64(row[i - pixel_bytes]), np.int64(above[i]), np.int64(above[i - pixel_bytes])
                to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                nearer = up if to_up <= to_corner else corner
                row[i] = np.uint8(row[i] + (left if to_left <= to_up and to_left <= to_corner else nearer))
    return True


@jit
def look_up(rows, low, high, weight, step, row_at, column_at, table, out):
    """Look up the ids of some pixels in a table: out uint16[H, W] -> False where an entry is 65535.

    rows uint8[h, n]: the id of the pixel in row y and column x is ``rows[y, low + step * x] + weight * rows[y, high +
    step * x]``; row_at intp[H], column_at intp[W]: which pixels; table uint16[65536].
    """
    n_unknown = 0
    for i in range(row_at.size):
        row = rows[row_at[i]]
        for j in range(column_at.size):
            at = step * column_at[j]
            value = table[np.uint16(row[low + at]) + weight * np.uint16(row[high + at])]
            n_unknown += value == np.uint16(65535)
            out[i, j] = value
    return n_unknown == 0
