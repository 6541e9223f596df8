"""Label maps in picture files: undoing the filters of PNG, and ids to concepts."""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import inline, jit

_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4


@jit
def look_up(rows, pixel_bytes, low, high, weight, row_at, column_at, table, out):
    """Look up the ids of some pixels of a PNG in a table -> False where an entry is 65535.

    rows uint8[h, 1 + w * pixel_bytes]: the inflated bytes; the first of a row is its filter (0 to 4). A pixel's id is
    its byte number `low`, plus `weight` times its byte number `high`. row_at, column_at intp[H], [W], ascending: which
    pixels; table uint16[65536]; fills out uint16[H, W].

    Only those two of a pixel's bytes are unfiltered, as a filter looks at bytes of the same number alone; the last row
    is kept, above the first one are zeros.
    """
    lows = np.zeros(1 + (rows.shape[1] - 1) // pixel_bytes, np.uint8)  # a zero to the left
    highs = np.zeros_like(lows)
    n_unknown = 0
    i = 0
    y = 0
    while i < row_at.size:
        if weight and rows[y, 0] == _PAETH:
            _paeth_pair(rows[y, 1 + low :], rows[y, 1 + high :], pixel_bytes, lows, highs)
        else:
            _unfilter(rows[y, 0], rows[y, 1 + low :], pixel_bytes, lows)
            if weight:
                _unfilter(rows[y, 0], rows[y, 1 + high :], pixel_bytes, highs)
        while i < row_at.size and row_at[i] == y:
            n_unknown += _look_up(lows[1:], highs[1:], weight, column_at, table, out[i])
            i += 1
        y += 1
    return n_unknown == 0


@jit
def _unfilter(kind, stored, step, row):
    """Replace the row above by the one below: row uint8[1 + w], stored uint8, of which every step-th byte counts."""
    if kind == _SUB:
        for x in range(1, row.size):
            row[x] = np.uint8(stored[step * (x - 1)] + row[x - 1])
    elif kind == _UP:
        for x in range(1, row.size):
            row[x] = np.uint8(stored[step * (x - 1)] + row[x])
    elif kind == _AVERAGE:
        left = np.int64(0)
        for x in range(1, row.size):
            left = np.int64(np.uint8(stored[step * (x - 1)] + ((left + np.int64(row[x])) >> 1)))
            row[x] = left
    elif kind == _PAETH:
        left = np.int64(0)
        corner = np.int64(0)
        for x in range(1, row.size):
            up = np.int64(row[x])
            left = np.int64(np.uint8(stored[step * (x - 1)] + _nearest(left, up, corner)))
            corner = up
            row[x] = left
    else:
        for x in range(1, row.size):
            row[x] = stored[step * (x - 1)]


@jit
def _paeth_pair(stored_low, stored_high, step, lows, highs):
    """Do the same for both bytes and Paeth's filter; its steps wait for each other, so two at a time take half."""
    left_low, left_high = np.int64(0), np.int64(0)
    corner_low, corner_high = np.int64(0), np.int64(0)
    for x in range(1, lows.size):
        up_low, up_high = np.int64(lows[x]), np.int64(highs[x])
        at = step * (x - 1)
        left_low = np.int64(np.uint8(stored_low[at] + _nearest(left_low, up_low, corner_low)))
        left_high = np.int64(np.uint8(stored_high[at] + _nearest(left_high, up_high, corner_high)))
        corner_low, corner_high = up_low, up_high
        lows[x], highs[x] = left_low, left_high


@inline
def _nearest(left, up, corner):
    """Return which of the three is nearest to left + up - corner; of equals, the first."""
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearer = up if to_up <= to_corner else corner
    return left if to_left <= to_up and to_left <= to_corner else nearer


@jit
def _look_up(lows, highs, weight, column_at, table, out):
    n_unknown = 0
    for j in range(column_at.size):
        at = column_at[j]
        value = table[np.uint16(lows[at]) + weight * np.uint16(highs[at])]
        n_unknown += value == np.uint16(65535)
        out[j] = value
    return n_unknown
