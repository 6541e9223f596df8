"""GPU kernels of boxes and rectangles, with their launching code, against the oracle, bit for bit, on the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ccx.kernels.cuda.shapes
from ccx.errors import ShapeError
from ccx.kernels import shapes
from tests import reference
from tests.support.cuda_emulator.emulator import Emulator
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, gpus, use

pytestmark = pytest.mark.needs("gxx")

SEEDS = st.integers(0, 2**32 - 1)
LEADS = st.sampled_from([(), (0,), (1,), (3,), (2, 3), (7, 0), (1, 2, 2)])
GRIDS = [(0, 0), (0, 3), (1, 1), (1, 65), (63, 1), (7, 9), (8, 8), (5, 13), (2, 63), (3, 65), (3, 200), (40, 33)]


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


@given(gpu=gpus(), shape=st.sampled_from(GRIDS), lead=LEADS, seed=SEEDS, n_ones=st.sampled_from([0, 1, 2, 3, 50]))
def test_bounding_boxes(gpu, shape, lead, seed, n_ones):
    rng = np.random.default_rng(seed)
    n_cells = shape[0] * shape[1]
    bits = np.zeros((*lead, n_cells), np.bool_)
    for mask in bits.reshape(int(np.prod(lead)), n_cells) if n_cells else ():
        mask[rng.integers(0, n_cells, n_ones)] = True
    packed = reference.pack(bits)
    assert_same(gpu, shapes.bounding_boxes(gpu.place(packed), shape), reference.bounding_boxes(packed, shape))


@st.composite
def masks_with_rectangles(draw):
    """bool[..., H, W]: noise, stairs, and unions of rectangles, in which several are often the largest."""
    lead, (height, width) = draw(LEADS), draw(st.sampled_from(GRIDS))
    rng = np.random.default_rng(draw(SEEDS))
    masks = np.zeros((*lead, height, width), np.bool_)
    for mask in masks.reshape(int(np.prod(lead)), height, width) if masks.size else ():
        kind = rng.integers(4)
        if kind == 0:
            mask[:] = rng.random((height, width)) < rng.choice([0.0, 0.5, 0.9, 0.98, 1.0])
        elif kind == 1:  # under a histogram, standing or hanging
            mask[:] = np.arange(height)[:, None] < rng.integers(0, height + 1, width)
            mask[:] = mask[:: rng.choice([-1, 1])]
        else:
            for _ in range(rng.integers(1, 5)):
                row, col = rng.integers(0, height + 1, 2), rng.integers(0, width + 1, 2)
                mask[row.min() : row.max(), col.min() : col.max()] ^= True
    return masks


TIES = np.array([[[0, 1, 1], [1, 1, 1], [1, 1, 0]], [[1, 0, 1], [0, 1, 0], [1, 0, 1]]], np.bool_)


@given(gpu=gpus(), masks=masks_with_rectangles(), slots=st.sampled_from([1, 2, 100]))
@example(Emulator(96, 1), TIES, 1)
def test_inscribed_rectangles(gpu, masks, slots):
    """With shared memory for the columns of one mask, of two, of as many as a block has warps."""
    *lead, height, width = masks.shape
    packed = reference.pack(masks.reshape(*lead, height * width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.shapes, "_SLOTS", slots * max(width, 1))
        got = shapes.inscribed_rectangles(gpu.place(packed), (height, width))
    assert_same(gpu, got, reference.inscribed_rectangles(packed, (height, width)))


def test_the_largest_rectangle_of_a_disc_and_of_everything():
    gpu = use(Emulator(64, 2))
    row, col = np.ogrid[:50, :70]
    masks = np.stack([np.hypot(row - 25, col - 30) < 20, np.ones((50, 70), np.bool_), np.zeros((50, 70), np.bool_)])
    packed = reference.pack(masks.reshape(3, -1))
    got = shapes.inscribed_rectangles(gpu.place(packed), (50, 70))
    assert_same(gpu, got, reference.inscribed_rectangles(packed, (50, 70)))


def test_grids_too_wide_for_shared_memory_are_refused():
    gpu = use(Emulator())
    packed = gpu.place(np.zeros((1, 193), np.uint64))
    with pytest.raises(ShapeError, match=r"shape: expected at most 12288 columns on the GPU, got 12289"):
        shapes.inscribed_rectangles(packed, (1, 12289))
