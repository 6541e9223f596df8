"""GPU kernels of the published estimates, with their launching code, against the oracle, bit for bit, on the emulator.

Occurrences are packed on the CPU and placed on the emulated GPU; all else happens there.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ccx
from ccx.errors import ShapeError
from ccx.kernels import estimates, rows
from tests import reference
from tests.support.cuda_emulator.emulator import Emulator
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, gpus, use
from tests.support.estimate_cases import CORNERS, KINDS, Problem, masks_of, problems

pytestmark = pytest.mark.needs("gxx")

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


def packed(masks):
    return reference.pack(masks.reshape(*masks.shape[:-2], masks.shape[-2] * masks.shape[-1]))


def occurrences(gpu, concepts):
    """Return the packed rows of the concepts bool[C, N, H, W] on the GPU."""
    found = ccx.Concepts.from_masks(concepts).packed_rows()
    return type(found)(*map(gpu.place, found))


def measured(gpu, problem):
    """Return shapes of formulas and concepts, hits and areas of the bitmap, all measured on the GPU."""
    grid = problem.bitmap.shape[1:]
    bitmap, masks = (gpu.place(packed(cells)) for cells in (problem.bitmap, problem.formulas))
    occurring = occurrences(gpu, problem.concepts)
    return (
        estimates.formula_shapes(masks, bitmap, grid),
        estimates.concept_shapes(occurring, grid, len(problem.concepts)),
        estimates.concept_hits(occurring, bitmap),
        gpu.place(gpu.download(rows.popcount(bitmap)).astype(np.int32)),
    )


@given(gpu=gpus(), problem=problems(), kind=st.sampled_from(KINDS))
@example(Emulator(), Problem(CORNERS, np.zeros_like(CORNERS), CORNERS[0]), "mmesh")  # an empty box counts cell (0, 0)
@example(Emulator(), Problem(CORNERS, ~np.zeros_like(CORNERS), CORNERS[0]), "cfh")  # concepts that are full everywhere
def test_estimates(gpu, problem, kind):
    use(gpu)
    formulas, concepts, hits, areas = measured(gpu, problem)
    got = estimates.estimate_extensions(formulas, concepts, hits[None], areas[None], problem.bitmap[0].size, kind)
    for ours, wanted in zip(got, reference.estimate_extensions(*problem, kind), strict=True):
        assert_same(gpu, ours, wanted[None])


def place(gpu, shapes_of_some):
    return type(shapes_of_some)(*map(gpu.place, shapes_of_some))


def off_by_4_bytes(array):
    return np.concatenate([np.zeros(1, array.dtype), array.ravel()])[1:].reshape(array.shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("gpu", "order"), [(Emulator(96, 2), 0), (Emulator(32, 3), 12345)], ids=["wide", "narrow"])
@pytest.mark.parametrize(("n_samples", "n_concepts", "n_formulas"), [(1100, 3, 2), (3, 70, 3), (2, 3, 0), (0, 2, 1)])
def test_estimates_for_several_bitmaps(kind, gpu, order, n_samples, n_concepts, n_formulas):
    """Against the CPU: more samples than a warp sums at a time, more concepts in a sample than a warp has lanes."""
    use(gpu, order)
    rng = np.random.default_rng(n_samples)
    grid, n_units = (2, 3), 2
    occurring = ccx.Concepts.from_masks(masks_of(rng, n_concepts, max(n_samples, 1), grid)).packed_rows()
    if n_samples == 0:
        occurring = type(occurring)(np.zeros(1, np.int64), *(part[:0] for part in occurring[1:]))
    bitmaps, masks = (packed(masks_of(rng, n, n_samples, grid)) for n in (n_units, n_formulas))
    formulas = [estimates.formula_shapes(masks, bitmap, grid) for bitmap in bitmaps]
    formulas = estimates.FormulaShapes(*map(np.concatenate, zip(*formulas, strict=True)))
    concepts = estimates.concept_shapes(occurring, grid, n_concepts)
    hits = np.stack([estimates.concept_hits(occurring, bitmap) for bitmap in bitmaps])
    areas = rows.popcount(bitmaps).astype(np.int32)
    wanted = estimates.estimate_extensions(formulas, concepts, hits, areas, 6, kind)
    formulas = formulas._replace(boxes=off_by_4_bytes(formulas.boxes))
    concepts = concepts._replace(rectangles=off_by_4_bytes(concepts.rectangles))
    arrays = place(gpu, formulas), place(gpu, concepts), gpu.place(hits), gpu.place(areas)
    for ours, theirs in zip(estimates.estimate_extensions(*arrays, 6, kind), wanted, strict=True):
        assert_same(gpu, ours, theirs)


@given(
    gpu=gpus(),
    grid=st.sampled_from([(1, 1), (9, 7), (8, 8), (5, 13), (70, 65)]),
    n_samples=st.integers(1, 5),
    seed=SEEDS,
)
def test_hits_and_shapes_of_occurrences(gpu, grid, n_samples, seed):
    """Against the CPU, with samples in which nothing occurs."""
    rng = np.random.default_rng(seed)
    masks = masks_of(rng, 4, n_samples, grid) & (rng.random((4, n_samples, 1, 1)) < 0.5)
    bitmap = packed(masks_of(rng, 1, n_samples, grid)[0])
    occurring = ccx.Concepts.from_masks(masks).packed_rows()
    on_gpu = place(gpu, occurring)
    assert_same(gpu, estimates.concept_hits(on_gpu, gpu.place(bitmap)), estimates.concept_hits(occurring, bitmap))
    got, wanted = (estimates.concept_shapes(one, grid, 4) for one in (on_gpu, occurring))
    for ours, theirs in zip(got, wanted, strict=True):
        assert_same(gpu, ours, theirs)


def test_occurrences_on_another_grid_are_refused():
    gpu = use(Emulator())
    with pytest.raises(ShapeError, match=r"occurring.rows: expected uint64\[..., 2\], got uint64\[.*, 1\]"):
        estimates.concept_shapes(occurrences(gpu, CORNERS), (9, 9), 2)
