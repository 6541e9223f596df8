"""Positions of activations and cells, pair by pair: whether the position has a weight for the cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.reference.activations import axis_weights

Flags = NDArray[np.bool_]
Shape = tuple[int, int]


def has_weight(source: Shape, shape: Shape) -> Flags:
    """Return ``bool[H, W, h, w]``: whether a position, the last two axes, has a weight for a cell, the first two."""
    rows, cols = axis_weights(source[0], shape[0]) != 0, axis_weights(source[1], shape[1]) != 0
    weighs: Flags = rows[:, None, :, None] & cols[None, :, None, :]
    return weighs


def cells_of(positions: Flags, shape: Shape) -> Flags:
    """``bool[N, h, w] -> bool[N, H, W]``."""
    weighs = has_weight(positions.shape[1:], shape)
    return np.array([(weighs & sample).any(axis=(2, 3)) for sample in positions], np.bool_).reshape(-1, *shape)


def positions_of(cells: Flags, source: Shape) -> Flags:
    """``bool[N, H, W] -> bool[N, h, w]``."""
    weighs = has_weight(source, cells.shape[1:])
    return np.array([weighs[sample].any(axis=0) for sample in cells], np.bool_).reshape(-1, *source)


def valid_positions(valid: Flags, source: Shape) -> Flags:
    """``bool[N, H, W] -> bool[N, h, w]``: of valid cells; of a sample that has no others, all positions."""
    counted = positions_of(valid, source)
    counted[[sample.all() for sample in valid]] = True
    return counted
