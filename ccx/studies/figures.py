"""Figures: what they look like, and as files."""

from __future__ import annotations

import io
from typing import Any

from ccx.store import PathLike, write_bytes

# Okabe and Ito's, which the colour-blind tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
_RESOLUTION = 150  # dots an inch


def tidy(axes: Any, *, lines_of: str) -> None:
    """Leave of a Matplotlib plot what is read: lines of one axis' values ("x" or "y"), pale, and no box."""
    axes.spines[["top", "right", "left" if lines_of == "y" else "bottom"]].set_visible(False)
    axes.grid(axis=lines_of, color="#dfe3e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)


def write_figure(figure: Any, path: PathLike) -> None:
    """Write a Matplotlib figure as PNG, atomically; an older file stays if that fails (`StoreError`)."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_RESOLUTION)
    write_bytes(path, file.getvalue())
