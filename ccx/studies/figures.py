"""Figures as files."""

from __future__ import annotations

import io
from typing import Any

from ccx.store import PathLike, write_bytes

_RESOLUTION = 120  # dots an inch


def write_figure(figure: Any, path: PathLike) -> None:
    """Write a Matplotlib figure as PNG, atomically; an older file stays if that fails (`StoreError`)."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_RESOLUTION)
    write_bytes(path, file.getvalue())
