"""The CPU backend: numba kernels, one module per family, imported when first used."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(family: str) -> ModuleType:
    """Import ``ccx.kernels.cpu.<family>`` on first access, so that no kernel loads that nobody calls."""
    qualified = f"{__name__}.{family}"
    try:
        return importlib.import_module(qualified)
    except ModuleNotFoundError as error:
        if error.name != qualified:
            raise
        msg = f"module {__name__!r} has no attribute {family!r}"
        raise AttributeError(msg) from error
