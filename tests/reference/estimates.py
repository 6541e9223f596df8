"""The published estimates as they are defined (docs/heuristics.md), mask by mask and sample by sample.

Corners are inclusive here, as in the published code: an empty mask has the bounding box (0, 0, 0, 0), which counts one
cell, and the rectangle (0, 0, -1, -1), which counts none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.reference import rows, shapes

OR, AND, AND_NOT = 0, 1, 2
Masks = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Side(NamedTuple):
    """One side of an operator: areas, intersections, presence [N]; boxes and rectangles [N, 4]."""

    areas: IntArray
    intersections: IntArray
    present: Masks
    boxes: IntArray
    rectangles: IntArray


def side(mask: Masks, bitmap: Masks) -> Side:
    """Measure a mask ``bool[N, H, W]``."""
    n_samples, *shape = mask.shape
    packed = rows.pack(mask.reshape(n_samples, -1))
    last = np.array([0, 0, 1, 1])
    boxes = shapes.bounding_boxes(packed, (shape[0], shape[1])).astype(np.int64) - last
    rectangles = shapes.inscribed_rectangles(packed, (shape[0], shape[1])).astype(np.int64) - last
    areas = mask.sum(axis=(1, 2))
    return Side(areas, (mask & bitmap).sum(axis=(1, 2)), areas > 0, np.maximum(boxes, 0), rectangles)


def overlap(a: IntArray, b: IntArray) -> IntArray:
    """Count the cells that boxes share: ``[N, 4], [N, 4] -> [N]``."""
    heights = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1
    widths = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1
    shared: IntArray = np.maximum(heights, 0) * np.maximum(widths, 0)
    return shared


def estimate(left: Side, right: Side, operator: int, hits: IntArray, n_cells: int, kind: str) -> tuple[int, int]:
    """Estimate (left operator right), given the bitmap's cells in each sample [N] -> numerator, denominator."""
    if operator == AND_NOT:
        # The box stays that of the concept itself.
        areas = n_cells - right.areas
        right = right._replace(areas=areas, intersections=hits - right.intersections, present=right.areas < n_cells)
    (a_l, i_l), (a_r, i_r) = left[:2], right[:2]
    if kind == "areas":
        shared = np.minimum(hits, a_l + a_r) if operator == OR else np.minimum(a_l, a_r)
        return int(shared.sum()), int(hits.sum() - shared.sum())
    present = left.present | right.present if operator == OR else left.present & right.present
    i_l, i_r = i_l * present, i_r * present
    if any(np.isin(areas, (0, n_cells)).all() for areas in (a_l, a_r)):  # the scene rule
        size = np.maximum(a_l, a_r) if operator == OR else np.minimum(a_l, a_r)
        shared = np.where(size == n_cells, hits, i_l + i_r) if operator == OR else np.minimum(i_l, i_r)
    else:
        shared = np.minimum(hits, i_l + i_r) if operator == OR else np.minimum(i_l, i_r)
        box = overlap(left.boxes, right.boxes)
        if kind == "cfh":
            size = np.zeros_like(shared)
        elif operator == OR:
            size = np.maximum.reduce([a_l, a_r, a_l + a_r - box, shared])
        elif operator == AND:
            size = np.maximum(overlap(left.rectangles, right.rectangles), shared)
        else:
            size = np.maximum(a_l - box, shared)
    return int(shared.sum()), int(hits.sum() + size.sum() - shared.sum())


def estimate_extensions(formulas: Masks, concepts: Masks, bitmap: Masks, kind: str) -> tuple[IntArray, IntArray]:
    """``bool[F, N, H, W], bool[C, N, H, W], bool[N, H, W] -> int64[F, C, 3], int64[F, C, 3]``."""
    lefts, rights = ([side(mask, bitmap) for mask in masks] for masks in (formulas, concepts))
    hits, n_cells = bitmap.sum(axis=(1, 2)), bitmap[0].size
    pairs = [
        estimate(left, right, operator, hits, n_cells, kind)
        for left in lefts
        for right in rights
        for operator in (OR, AND, AND_NOT)
    ]
    shape = (len(lefts), len(rights), 3, 2)
    numerators, denominators = np.array(pairs, np.int64).reshape(shape).transpose(3, 0, 1, 2)
    return numerators, denominators
