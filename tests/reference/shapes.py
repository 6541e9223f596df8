"""Bounding boxes and largest inscribed rectangles, cell by cell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tests.reference.rows import unpack


def bounding_boxes(rows: NDArray[np.uint64], shape: tuple[int, int]) -> NDArray[np.int32]:
    """``uint64[..., n_words] -> int32[..., 4]``: the box around the ones of each mask of `shape`."""
    masks = _masks(rows, shape)
    boxes = np.zeros((len(masks), 4), dtype=np.int32)
    for box, mask in zip(boxes, masks, strict=True):
        if mask.any():
            cells = np.argwhere(mask)
            box[:] = *cells.min(axis=0), *(cells.max(axis=0) + 1)
    return boxes.reshape(*rows.shape[:-1], 4)


def inscribed_rectangles(rows: NDArray[np.uint64], shape: tuple[int, int]) -> NDArray[np.int32]:
    """``uint64[..., n_words] -> int32[..., 4]``: the first largest of the rectangles that cells propose."""
    masks = _masks(rows, shape)
    rectangles = np.zeros((len(masks), 4), dtype=np.int32)
    for rectangle, mask in zip(rectangles, masks, strict=True):
        largest = 0
        for row, col in np.argwhere(mask):  # row by row, in each from the left
            top, left, right = row, col, col + 1
            while top > 0 and mask[top - 1, col]:
                top -= 1
            while left > 0 and mask[top : row + 1, left - 1].all():
                left -= 1
            while right < shape[1] and mask[top : row + 1, right].all():
                right += 1
            area = (row + 1 - top) * (right - left)
            if area > largest:
                largest = area
                rectangle[:] = top, left, row + 1, right
    return rectangles.reshape(*rows.shape[:-1], 4)


def _masks(rows: NDArray[np.uint64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """``uint64[..., n_words] -> bool[n_masks, H, W]``."""
    return unpack(rows, math.prod(shape)).reshape(math.prod(rows.shape[:-1]), *shape)
