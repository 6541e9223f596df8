"""Bilinear upsampling, open ranges and histograms, whole arrays at a time.

The definition of every value is float32 arithmetic in one order: the horizontal step, then the vertical
one, ``a * w_near + b * w_far`` with half-pixel centres (torch's ``align_corners=False``); ``a`` where ``w_far`` is 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.rows import pack


def _axis(n_samples: int, n_cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the two samples between which each cell lies, and the weight of the second."""
    scale = float(np.float32(n_samples) / np.float32(n_cells))
    centres = np.array([max(scale * (x + 0.5) - 0.5, 0.0) for x in range(n_cells)], np.float32)  # rounded once
    near = np.minimum(np.floor(centres).astype(np.int64), n_samples - 1)
    far = np.minimum(near + 1, n_samples - 1)
    return near, far, np.minimum(centres - near.astype(np.float32), np.float32(n_samples > 1))


def axis_weights(n_samples: int, n_cells: int) -> NDArray[np.float32]:
    """Return the weight of each sample of an axis for each of its cells: ``float32[n_cells, n_samples]``."""
    weights = np.zeros((n_cells, n_samples), np.float32)
    for cell, (near, far, weight) in enumerate(zip(*_axis(n_samples, n_cells), strict=True)):
        weights[cell, near] += np.float32(1) - weight
        weights[cell, far] += weight
    return weights


def _between(a: NDArray[np.float32], b: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = np.where(weight == 0, a, a * (np.float32(1) - weight) + b * weight)
    return mean


def upsample(activations: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """``float[..., h, w] -> float32[..., H, W]``; equal grids are copied, as no interpolation is asked for."""
    maps = activations.astype(np.float32)
    if maps.shape[-2:] == shape:
        return maps
    with np.errstate(invalid="ignore", over="ignore"):  # NaN, infinity and overflow are input like any other
        near, far, weight = _axis(maps.shape[-1], shape[1])
        wide = _between(maps[..., near], maps[..., far], weight)
        near, far, weight = _axis(maps.shape[-2], shape[0])
        return _between(wide[..., near, :], wide[..., far, :], weight[:, None])


def inside(values: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.bool_]:
    """Compare in float64, where both a float32 value and the end points are exact; NaN is in no range."""
    exact = values.astype(np.float64)
    return (exact > limits[0]) & (exact < limits[1])


def upsample_pack(activations: NDArray[Any], shape: tuple[int, int], limits: tuple[float, float]) -> NDArray[np.uint64]:
    """``float[..., h, w] -> uint64[..., n_words]``."""
    cells = inside(upsample(activations, shape), limits)
    return pack(cells.reshape(*cells.shape[:-2], shape[0] * shape[1]))


def bitmap_histogram(
    bitmaps: NDArray[np.bool_], sets: NDArray[np.object_], atoms: Sequence[frozenset[int]]
) -> NDArray[np.int64]:
    """Count the cells of each atom: ``bool[..., N, P]``, sets of the cells ``[N, P] -> int64[..., G]``."""
    flat = bitmaps.reshape(math.prod(bitmaps.shape[:-2]), sets.size)
    counts = np.zeros((len(flat), len(atoms)), np.int64)
    for row, bitmap in zip(counts, flat, strict=True):
        found = Counter(sets.ravel()[bitmap])
        row[:] = [found[atom] for atom in atoms]
    return counts.reshape(*bitmaps.shape[:-2], len(atoms))


def range_histogram(
    activations: NDArray[Any],
    ranges: NDArray[np.float64],
    shape: tuple[int, int],
    sets: NDArray[np.object_],
    atoms: Sequence[frozenset[int]],
) -> NDArray[np.int64]:
    """``float[N, U, h, w], float64[U, K, 2] -> int64[U, K, G]``."""
    n_units, n_ranges = ranges.shape[:2]
    values = upsample(activations, shape).reshape(len(activations), n_units, shape[0] * shape[1])
    counts = np.zeros((n_units, n_ranges, len(atoms)), np.int64)
    for unit, limits in enumerate(ranges):
        for k, pair in enumerate(limits):
            counts[unit, k] = bitmap_histogram(inside(values[:, unit], pair), sets, atoms)
    return counts
