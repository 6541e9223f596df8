"""Boxes and rectangles of packed masks on the GPU; `ccx.kernels.shapes` documents, `shapes.cuh` computes."""

from __future__ import annotations

import math

import numpy as np

from ccx.errors import ShapeError
from ccx.kernels.cuda.device import device_of, launch
from ccx.typing import Array

# Columns of which a block can keep the tops in shared memory, all its warps together: 48 KiB.
_SLOTS = 12_288


def bounding_boxes(rows: Array, shape: tuple[int, int], threads: int | None) -> Array:
    device = device_of(rows)
    lead = rows.shape[:-1]
    n_masks = math.prod(lead)
    boxes = device.empty((*lead, 4), np.int32)
    args = (device.contiguous(rows, np.uint64), boxes, *map(np.int64, (n_masks, *shape)))
    launch(device, "shapes", "bounding_boxes", 32 * n_masks, args)
    return boxes


def inscribed_rectangles(rows: Array, shape: tuple[int, int], threads: int | None) -> Array:
    device = device_of(rows)
    *lead, _ = rows.shape
    _, width = shape
    if width > _SLOTS:
        remedy = "use a coarser grid"
        raise ShapeError("shape", wanted=f"at most {_SLOTS} columns on the GPU", got=str(width), remedy=remedy)
    if 0 in shape:
        return device.zeros((*lead, 4), np.int32)
    n_masks, n_warps = math.prod(lead), device.threads_per_block // 32
    rectangles = device.empty((*lead, 4), np.int32)
    n_slots = min(n_warps * width, _SLOTS)
    n_blocks = -(-n_masks // min(n_warps, n_slots // width))
    args = (device.contiguous(rows, np.uint64), rectangles, np.int64(n_masks), *map(np.int32, (*shape, n_slots)))
    launch(device, "shapes", "inscribed_rectangles", n_blocks * device.threads_per_block, args, 4 * n_slots)
    return rectangles
