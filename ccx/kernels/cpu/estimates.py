"""The published estimates on the CPU: sums over samples for all extensions of some formulas at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu._jit import inline, jit, popcount64
from ccx.kernels.cpu.shapes import bounding_boxes, inscribed_rectangles
from ccx.operators import AND, AND_NOT, OR
from ccx.typing import Array

if TYPE_CHECKING:
    from ccx.kernels.atoms import ConceptRows
    from ccx.kernels.estimates import ConceptShapes, Estimate, FormulaShapes


def estimate_extensions(
    formulas: FormulaShapes,
    concepts: ConceptShapes,
    concept_intersections: Array,
    bitmap_areas: Array,
    n_cells: int,
    kind: Estimate,
    threads: int | None,
) -> tuple[Array, Array]:
    n_units, n_formulas = formulas.areas.shape[:2]
    out = np.zeros((n_units, n_formulas, concepts.full_only.size, 3, 2), np.int64)  # sums of (intersection, size)
    where = (concepts.starts, concepts.concepts, concepts.areas)

    def estimate(a, b):
        for unit, formula in pairs[a:b]:
            areas, hits, boxes, rectangles = (part[unit, formula] for part in formulas)
            bitmap = (concepts.full_only, bitmap_areas[unit], n_cells)
            if kind == "areas":
                _areas(areas, *where, *bitmap, out[unit, formula])
            else:
                shapes = (concepts.boxes, concepts.rectangles, concept_intersections[unit])
                _overlaps(areas, hits, boxes, rectangles, *where, *shapes, *bitmap, kind == "mmesh", out[unit, formula])

    pairs = [(unit, formula) for unit in range(n_units) for formula in range(n_formulas)]
    parallel(estimate, len(pairs), threads)
    totals = bitmap_areas.sum(axis=1, dtype=np.int64)[:, None, None, None]
    return out[..., 0], totals + out[..., 1] - out[..., 0]


def concept_shapes(
    occurring: ConceptRows, shape: tuple[int, int], n_concepts: int, threads: int | None
) -> tuple[Array, Array, Array]:
    boxes = np.broadcast_to(np.array([0, 0, *shape], np.int32), (occurring.concepts.size, 4)).copy()
    rectangles = boxes.copy()
    partial = occurring.row_of >= 0
    boxes[partial] = bounding_boxes(occurring.rows, shape, threads)
    rectangles[partial] = inscribed_rectangles(occurring.rows, shape, threads)
    full_only = np.ones(n_concepts, np.bool_)
    full_only[occurring.concepts[partial]] = False
    return boxes, rectangles, full_only


def concept_hits(occurring: ConceptRows, bitmap: Array, threads: int | None) -> Array:
    hits = np.empty(occurring.concepts.size, np.int32)
    bitmap = np.ascontiguousarray(bitmap, np.uint64)

    def count(a, b):
        _concept_hits(occurring.starts[a : b + 1], occurring.row_of, occurring.rows, bitmap[a:b], hits)

    parallel(count, bitmap.shape[0], threads)
    return hits


@jit
def _concept_hits(starts, row_of, rows, bitmap, hits):
    for n in range(starts.size - 1):
        cells = bitmap[n]
        for e in range(starts[n], starts[n + 1]):
            ones = np.uint64(0)
            if row_of[e] < 0:  # the concept covers the sample
                for w in range(cells.size):
                    ones += popcount64(cells[w])
            else:
                row = rows[row_of[e]]
                for w in range(cells.size):
                    ones += popcount64(row[w] & cells[w])
            hits[e] = np.int32(ones)


@inline
def _shared(a, b):
    """Return the area of the intersection of two half-open boxes."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    return height * width if height > 0 and width > 0 else 0


@inline
def _shared_boxes(a, b):
    """Return the same for bounding boxes; an empty one counts the cell (0, 0), as in the published code."""
    height = min(max(a[2], 1), max(b[2], 1)) - max(a[0], b[0])
    width = min(max(a[3], 1), max(b[3], 1)) - max(a[1], b[1])
    return height * width if height > 0 and width > 0 else 0


@jit
def _overlaps(
    areas, hits, boxes, rectangles, starts, concepts, c_areas, c_boxes, c_rectangles, c_hits, full_only,
    bitmap_areas, n_cells, with_sizes, out,
):  # fmt: skip
    """MMESH (with_sizes) or CFH of one formula: out int64[C, 3, 2] = sums of (intersection, size), zeroed before.

    Most concepts are absent from most samples. What an absent concept contributes depends on the formula
    alone; it is summed once, and each occurrence adds the difference to that.
    """
    empty = np.zeros(4, np.int32)
    left_full_only = True
    for n in range(areas.size):
        left_full_only = left_full_only and (areas[n] == 0 or areas[n] == n_cells)
    either_i = either_m = without_i = without_m = full_without_m = np.int64(0)
    for n in range(areas.size):
        area = np.int64(areas[n])
        hit = np.int64(hits[n])
        missing_m = max(area - _shared_boxes(boxes[n], empty), hit)
        either_i += hit
        either_m += area
        without_i += hit
        without_m += missing_m
        full_without_m += area
        inside = np.int64(bitmap_areas[n])
        for e in range(starts[n], starts[n + 1]):
            c = concepts[e]
            c_area = np.int64(c_areas[e])
            c_hit = np.int64(c_hits[e])
            if left_full_only or full_only[c]:
                union = max(area, c_area)
                out[c, OR, 0] += (inside if union == n_cells else hit + c_hit) - hit
                out[c, OR, 1] += union - area
                out[c, AND, 0] += min(hit, c_hit)
                out[c, AND, 1] += min(area, c_area)
                out[c, AND_NOT, 0] += min(hit, inside - c_hit) - hit
                out[c, AND_NOT, 1] += min(area, n_cells - c_area) - area
                continue
            i = min(inside, hit + c_hit)
            out[c, OR, 0] += i - hit
            both = min(hit, c_hit)
            out[c, AND, 0] += both
            rest = min(hit, inside - c_hit)
            out[c, AND_NOT, 0] += rest - hit
            if with_sizes:
                box = _shared_boxes(boxes[n], c_boxes[e])
                out[c, OR, 1] += max(max(area, c_area), max(area + c_area - box, i)) - area
                out[c, AND, 1] += max(_shared(rectangles[n], c_rectangles[e]), both)
                out[c, AND_NOT, 1] += max(area - box, rest) - missing_m
    for c in range(full_only.size):
        scene = left_full_only or full_only[c]
        out[c, OR, 0] += either_i
        out[c, AND_NOT, 0] += without_i
        if scene:
            out[c, OR, 1] += either_m
            out[c, AND_NOT, 1] += full_without_m
        elif with_sizes:
            out[c, OR, 1] += either_m
            out[c, AND_NOT, 1] += without_m


@jit
def _areas(areas, starts, concepts, c_areas, full_only, bitmap_areas, n_cells, out):
    """Areas alone, of one formula: out int64[C, 3, 2] = sums of (intersection, 0), zeroed before."""
    either = without = np.int64(0)
    for n in range(areas.size):
        area = np.int64(areas[n])
        inside = np.int64(bitmap_areas[n])
        alone = min(inside, area)
        either += alone
        without += area
        for e in range(starts[n], starts[n + 1]):
            c = concepts[e]
            c_area = np.int64(c_areas[e])
            out[c, OR, 0] += min(inside, area + c_area) - alone
            out[c, AND, 0] += min(area, c_area)
            out[c, AND_NOT, 0] += min(area, n_cells - c_area) - area
    for c in range(full_only.size):
        out[c, OR, 0] += either
        out[c, AND_NOT, 0] += without
