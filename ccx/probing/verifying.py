"""Compare activations that were computed again with the stored ones: equal up to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The most that numbers may differ, in parts of the largest value of their unit. Another device, number of threads or
# size of batches changes the order of sums, and GPUs may multiply float32 with ten bits (TF32).
_TOLERANCES = {"float32": 2e-3, "float16": 1e-2, "bfloat16": 5e-2}
_SMALL_UNIT = 0.1  # of the layer: a unit of smaller values is rounded like one of these


def differs(stored: Array, computed: Array, precision: str) -> str | None:
    """Say where two arrays [n, U, ...] of one layer differ by more than rounding; None = nowhere."""
    if stored.shape != computed.shape:
        return f"the shape of a sample, {list(stored.shape[1:])} there, {list(computed.shape[1:])} here"
    if np.array_equal(stored, computed):  # the usual case, and quick
        return None
    there, here = (array.astype(np.float64).reshape(*array.shape[:2], -1) for array in (stored, computed))
    sizes = np.abs(np.where(np.isfinite(there), there, 0)).max(axis=(0, 2), initial=0)
    allowed = _TOLERANCES[precision] * np.maximum(sizes, _SMALL_UNIT * sizes.max(initial=0))
    with np.errstate(invalid="ignore"):
        distance = np.where((there == here) | (np.isnan(there) & np.isnan(here)), 0, np.abs(there - here))
    wrong = ~(distance <= allowed[:, None])  # NaN where one of them is
    if not wrong.any():
        return None
    sample, unit, place = (int(index) for index in np.argwhere(wrong)[0])
    old, new = there[sample, unit, place], here[sample, unit, place]
    return f"sample {sample}, unit {unit}: {old:.6g} there, {new:.6g} now"
