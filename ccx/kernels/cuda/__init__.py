"""The GPU backend: launches the CUDA kernels of ``ccx/kernels/src``, one module a family, imported when first used."""

from __future__ import annotations

import importlib
from types import ModuleType

from ccx.errors import BackendError

_WITHOUT_KERNELS = frozenset({"kmeans", "sparse"})


def __getattr__(family: str) -> ModuleType:
    """Import ``ccx.kernels.cuda.<family>`` on first access, or refuse a family that has no kernels for the GPU."""
    if family in _WITHOUT_KERNELS:
        msg = (
            f"GPU kernels for ccx.kernels.{family} are not part of this version of ccx; "
            "pass NumPy arrays: cupy.asnumpy(array)"
        )
        raise BackendError(msg)
    qualified = f"{__name__}.{family}"
    try:
        return importlib.import_module(qualified)
    except ModuleNotFoundError as error:
        if error.name != qualified:
            raise
        msg = f"module {__name__!r} has no attribute {family!r}"
        raise AttributeError(msg) from error
