"""Lists of what passes a test in a table, made on the GPU by two kernels: ``count_<table>`` and ``list_<table>``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from ccx.kernels.cuda.device import Array, Device, int64s, launch


def listed(
    device: Device,
    family: str,
    table: str,
    arrays: Sequence[Array],
    n_rows: int,
    sizes: Sequence[int],
    entry: tuple[int, DTypeLike],
) -> Array:
    """Return the entries of a table, row after row: count them, say where each row's go, write them."""
    counts = device.empty((n_rows,), np.int64)
    numbers = int64s(*sizes)
    launch(device, family, f"count_{table}", 32 * n_rows, (*arrays, counts, *numbers))
    n_found = device.download(counts)
    ends = n_found.cumsum()
    found = device.empty((int(n_found.sum()), entry[0]), entry[1])
    if found.size:
        launch(device, family, f"list_{table}", 32 * n_rows, (*arrays, device.upload(ends - n_found), found, *numbers))
    return found
