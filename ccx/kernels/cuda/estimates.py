"""The published estimates on the GPU; `ccx.kernels.estimates` documents and validates, `estimates.cuh` computes.

`threads` counts processors of the host and changes nothing here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ccx.kernels.cuda.device import device_of, launch
from ccx.kernels.cuda.shapes import bounding_boxes, inscribed_rectangles
from ccx.typing import Array

if TYPE_CHECKING:
    from ccx.kernels.atoms import ConceptRows
    from ccx.kernels.estimates import ConceptShapes, Estimate, FormulaShapes

_CHUNK_SAMPLES = 1024  # as in estimates.cuh
_KINDS = {"mmesh": 0, "cfh": 1, "areas": 2}


def concept_shapes(
    occurring: ConceptRows, shape: tuple[int, int], n_concepts: int, threads: int | None
) -> tuple[Array, Array, Array]:
    device = device_of(*occurring)
    n_occurrences = occurring.concepts.size
    boxes, rectangles = (device.empty((n_occurrences, 4), np.int32) for _ in range(2))
    full_only = device.upload(np.ones(n_concepts, np.int32))
    args = (
        *(measure(occurring.rows, shape, threads) for measure in (bounding_boxes, inscribed_rectangles)),
        device.contiguous(occurring.row_of, np.int64),
        device.contiguous(occurring.concepts, np.int32),
        boxes,
        rectangles,
        full_only,
        np.int64(n_occurrences),
        *map(np.int32, shape),
    )
    launch(device, "estimates", "occurrence_shapes", n_occurrences, args)
    return boxes, rectangles, device.contiguous(full_only, np.bool_)


def concept_hits(occurring: ConceptRows, bitmap: Array, threads: int | None) -> Array:
    device = device_of(occurring.rows, occurring.starts, occurring.row_of, bitmap)
    n_samples, n_words = bitmap.shape
    n_occurrences = occurring.concepts.size
    hits = device.empty((n_occurrences,), np.int32)
    args = (
        device.contiguous(occurring.rows, np.uint64),
        device.contiguous(bitmap, np.uint64),
        device.contiguous(occurring.starts, np.int64),
        device.contiguous(occurring.row_of, np.int64),
        hits,
        *map(np.int64, (n_occurrences, n_samples, n_words)),
    )
    launch(device, "estimates", "concept_hits", 32 * n_occurrences, args)
    return hits


def estimate_extensions(
    formulas: FormulaShapes,
    concepts: ConceptShapes,
    concept_intersections: Array,
    bitmap_areas: Array,
    n_cells: int,
    kind: Estimate,
    threads: int | None,
) -> tuple[Array, Array]:
    device = device_of(*formulas, *concepts, concept_intersections, bitmap_areas)
    n_units, n_formulas, n_samples = formulas.areas.shape
    n_concepts = concepts.full_only.size
    areas, hits, boxes, rectangles = (device.contiguous(part, np.int32) for part in formulas)
    full_only = device.contiguous(concepts.full_only, np.bool_)
    bitmap_areas = device.contiguous(bitmap_areas, np.int32)
    totals = device.zeros((n_units, n_formulas, 6), np.int64)
    intersections, sizes = (device.zeros((n_units, n_formulas, n_concepts, 3), np.int64) for _ in range(2))
    sizes_of_all = tuple(map(np.int64, (n_units, n_formulas, n_samples)))
    which = np.int32(_KINDS[kind])

    n_threads = 32 * n_units * n_formulas * -(-n_samples // _CHUNK_SAMPLES)
    args: tuple[Any, ...] = (areas, hits, boxes, bitmap_areas, totals, *sizes_of_all, np.int64(n_cells), which)
    launch(device, "estimates", "estimate_totals", n_threads, args)

    args = (
        *(areas, hits, boxes, rectangles),
        device.contiguous(concepts.starts, np.int64),
        *(device.contiguous(part, np.int32) for part in concepts[1:5]),
        full_only,
        device.contiguous(concept_intersections, np.int32),
        *(bitmap_areas, totals, intersections, sizes),
        *(*sizes_of_all, *map(np.int64, (n_concepts, concepts.concepts.size, n_cells)), which),
    )
    launch(device, "estimates", "estimate_occurrences", 32 * n_units * n_samples, args)

    args = (totals, full_only, intersections, sizes, np.int64(n_units * n_formulas), np.int64(n_concepts), which)
    launch(device, "estimates", "estimate_quotients", math.prod(sizes.shape), args)
    return intersections, sizes
