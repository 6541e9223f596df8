"""Boxes of packed masks on the GPU; `ccx.kernels.shapes` documents and validates, `shapes.cuh` computes."""

from __future__ import annotations

import math

import numpy as np

from ccx.errors import BackendError
from ccx.kernels.cuda.device import Array, device_of, launch


def bounding_boxes(rows: Array, shape: tuple[int, int], threads: int | None) -> Array:  # noqa: ARG001
    """Serve `ccx.kernels.shapes.bounding_boxes`; `threads` changes nothing here."""
    device = device_of(rows)
    lead = rows.shape[:-1]
    n_masks = math.prod(lead)
    boxes = device.empty((*lead, 4), np.int32)
    args = (device.contiguous(rows, np.uint64), boxes, *map(np.int64, (n_masks, *shape)))
    launch(device, "shapes", "bounding_boxes", 32 * n_masks, args)
    return boxes


def inscribed_rectangles(rows: Array, shape: tuple[int, int], threads: int | None) -> Array:  # noqa: ARG001
    """Refuse: there is no such kernel yet."""
    msg = (
        "ccx.kernels.inscribed_rectangles has no GPU kernel in this version of ccx; "
        "pass NumPy arrays: cupy.asnumpy(array)"
    )
    raise BackendError(msg)
