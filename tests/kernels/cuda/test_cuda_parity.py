"""The parity cases on the emulated GPU: every primitive gives what it gives on the CPU, bit for bit.

The tests of each primitive compare the CPU with the published system; `test_cuda_explain.py` runs whole explanations.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import ccx
from ccx.kernels import (
    bitmap_histogram,
    bounding_boxes,
    inscribed_rectangles,
    intersection_counts,
    pack,
    popcount,
    range_histogram,
    upsample_pack,
)
from ccx.kernels.estimates import concept_hits, concept_shapes, estimate_extensions, formula_shapes
from ccx.kernels.places import to_host
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator
from tests.support.cuda_emulator.gpu import emulated_cupy, use
from tests.support.estimate_cases import KINDS
from tests.support.parity_cases import CASES, CASES_WITH_UNITS, load_case

pytestmark = pytest.mark.needs("gxx")

# Sanitizers make the emulator several times slower: they see the case of odd sizes and full concepts alone.
SANITIZED = os.environ.get("CCX_EMULATOR_BUILD", "plain") != "plain"


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


@pytest.fixture
def gpu():
    return use(Emulator(96, 2))


def on(gpu, arrays):
    """Place the arrays of a named tuple."""
    return type(arrays)(*map(gpu.place, arrays))


def assert_same(got, wanted):
    for ours, theirs in zip(*(one if isinstance(one, tuple) else (one,) for one in (got, wanted)), strict=True):
        assert isinstance(ours, DeviceArray)
        np.testing.assert_array_equal(to_host(ours), theirs, strict=True)


@pytest.mark.parametrize("name", ["h3_odd"] if SANITIZED else CASES)
def test_masks(name, gpu):
    case = load_case(name)
    n_concepts, n_samples, height, width = case.masks.shape
    bits = case.masks.reshape(n_concepts, n_samples, height * width)
    rows = pack(bits)
    there = gpu.place(rows)
    assert_same(pack(gpu.place(bits)), rows)
    assert_same(popcount(there), popcount(rows))
    assert_same(bounding_boxes(there, case.grid), bounding_boxes(rows, case.grid))
    assert_same(inscribed_rectangles(there, case.grid), inscribed_rectangles(rows, case.grid))
    flat = rows.reshape(n_concepts, -1)
    assert_same(intersection_counts(gpu.place(flat), gpu.place(flat)), intersection_counts(flat, flat))


@pytest.mark.parametrize("name", ["h3_odd"] if SANITIZED else CASES_WITH_UNITS)
def test_activations(name, gpu):
    case = load_case(name)
    atoms = ccx.Concepts.from_masks(case.masks).atoms
    atoms_there = atoms.at(gpu)
    for unit in case.units:
        if not unit.n_ranges:  # the published system failed
            continue
        maps = np.ascontiguousarray(case.activations[:, unit.unit])
        bitmaps = np.stack([upsample_pack(maps, case.grid, limits) for limits in unit.ranges])
        for bitmap, limits in zip(bitmaps, unit.ranges, strict=True):
            assert_same(upsample_pack(gpu.place(maps), case.grid, limits), bitmap)
        counts = range_histogram(maps[:, None], unit.ranges[None], atoms)
        assert_same(range_histogram(gpu.place(maps[:, None]), unit.ranges[None], atoms_there), counts)
        assert_same(bitmap_histogram(gpu.place(bitmaps), atoms_there), counts[0])


@pytest.mark.parametrize("name", ["h3_odd"] if SANITIZED else CASES_WITH_UNITS)
def test_estimates(name, gpu):
    """Of all extensions of the published beams: concepts and formulas of two."""
    case = load_case(name)
    n_concepts, _, height, width = case.masks.shape
    occurring = ccx.Concepts.from_masks(case.masks).packed_rows()
    there = on(gpu, occurring)
    shapes = concept_shapes(occurring, case.grid, n_concepts)
    assert_same(concept_shapes(there, case.grid, n_concepts), shapes)
    n_bitmaps = 0
    for bitmap in case.bitmaps:
        if not bitmap.other.get("est.beam1", np.empty(0)).size:  # of the range of the highest values alone
            continue
        n_bitmaps += 1
        beam = [case.masks[c - 1] for c in bitmap.other["est.beam1"].ravel()]
        for a, operator, b in bitmap.other["est.beam2"].tolist():
            left, right = case.masks[a - 1], case.masks[b - 1]
            beam.append((left | right, left & right, left & ~right)[operator])
        rows, masks = (pack(cells.reshape(*cells.shape[:-2], -1)) for cells in (bitmap.cells, np.stack(beam)))
        areas, hits = popcount(rows).astype(np.int32), concept_hits(occurring, rows)
        formulas = formula_shapes(masks, rows, case.grid)
        assert_same(concept_hits(there, gpu.place(rows)), hits)
        assert_same(formula_shapes(gpu.place(masks), gpu.place(rows), case.grid), formulas)
        for kind in KINDS:
            wanted = estimate_extensions(formulas, shapes, hits[None], areas[None], height * width, kind)
            arrays = on(gpu, formulas), on(gpu, shapes), gpu.place(hits[None]), gpu.place(areas[None])
            assert_same(estimate_extensions(*arrays, height * width, kind), wanted)
    assert n_bitmaps
