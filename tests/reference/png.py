"""Label maps in picture files, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def unfilter(rows: npt.NDArray[np.uint8], pixel_bytes: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a picture: filtered rows uint8[h, 1 + n] -> uint8[h, n].

    A byte is what is stored, plus a prediction from the bytes to the left, above and above left (PNG, section 9).
    """
    height, n = rows.shape[0], rows.shape[1] - 1
    found = np.zeros((height + 1, n + pixel_bytes), np.int64)  # zeros above and to the left
    for y, (kind, *stored) in enumerate(rows.tolist(), start=1):
        for i, value in enumerate(stored, start=pixel_bytes):
            left, up, corner = found[y, i - pixel_bytes], found[y - 1, i], found[y - 1, i - pixel_bytes]
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda one: abs(guess - one))
            found[y, i] = (value + [0, left, up, (left + up) // 2, paeth][kind]) % 256
    return found[1:, pixel_bytes:].astype(np.uint8)


def look_up(ids: npt.NDArray[Any], shape: tuple[int, int], table: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the table's entries at the centre of each cell: int[h, w] -> uint16[H, W]."""
    (height, width), (n_rows, n_columns) = ids.shape, shape
    out = np.empty(shape, np.uint16)
    for i in range(n_rows):
        for j in range(n_columns):
            # Cell i reaches from i/H to (i + 1)/H of the height, and pixel y from y/h to (y + 1)/h.
            y, x = (2 * i + 1) * height // (2 * n_rows), (2 * j + 1) * width // (2 * n_columns)
            out[i, j] = table[ids[y, x]]
    return out
