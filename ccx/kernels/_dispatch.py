"""From arrays to the backend that owns them; `_converting.py` says what may be given for an array."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from ccx.errors import BackendError
from ccx.kernels._converting import (
    as_array,
    as_floats,
    as_sparse,
    check_out,
    checked_sparse,
    describe,
    on_gpu,
    reordered,
)

__all__ = [
    "as_array",
    "as_floats",
    "as_sparse",
    "backend_for",
    "check_out",
    "checked_sparse",
    "describe",
    "on_gpu",
    "reordered",
    "require_host",
]


def backend_for(*arrays: Any) -> ModuleType:
    """Return the backend package that owns all `arrays`; data never moves.

    The GPU's raises `BackendError` where it is asked for a family that it has no kernels for.

    Raises
    ------
    BackendError
        If the arrays live in different places.

    """
    if all(map(on_gpu, arrays)):
        return importlib.import_module("ccx.kernels.cuda")
    if all(isinstance(array, np.ndarray) and not on_gpu(array) for array in arrays):
        return importlib.import_module("ccx.kernels.cpu")
    kinds = sorted({f"{type(array).__module__}.{type(array).__name__}" for array in arrays})
    msg = f"arrays must all be NumPy or all be CuPy, got {kinds}; move them to one place first"
    raise BackendError(msg)


def require_host(array: Any, argument: str, what: str) -> None:
    """Raise `BackendError` if what is read in main memory lies on a GPU: it is not moved unasked."""
    if on_gpu(array):
        msg = (
            f"{argument}: {what} are read in main memory, got {describe(array)} on a GPU; pass cupy.asnumpy({argument})"
        )
        raise BackendError(msg)
