from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import rows, shapes
from ccx.kernels.cpu import shapes as cpu_shapes
from tests import reference
from tests.support.parity_cases import CASES_WITH_UNITS, load_case

THREADS = st.sampled_from([1, 2, 3, None])
# One row or column, a word exactly, two, across words, more rows than columns and less.
GRIDS = [
    (1, 1),
    (1, 64),
    (1, 130),
    (130, 1),
    (3, 64),
    (4, 65),
    (5, 63),
    (3, 128),
    (2, 200),
    (20, 21),
    (9, 112),
    (0, 5),
    (5, 0),
]


@pytest.fixture(autouse=True, scope="module")
def _threads_for_tiny_inputs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_shapes, "_CELLS_PER_THREAD", 1)
        yield


@st.composite
def mask_batches(draw):
    """bool[n, H, W]: noise, and unions of rectangles, which have many rectangles of one size."""
    height, width = draw(st.sampled_from(GRIDS))
    n_masks = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        return rng.random((n_masks, height, width)) < draw(st.sampled_from([0.0, 0.05, 0.5, 0.9, 0.98, 1.0]))
    masks = np.zeros((n_masks, height, width), dtype=np.bool_)
    for mask in masks:
        for _ in range(rng.integers(0, 5)):
            row, col = rng.integers(0, height + 1, 2), rng.integers(0, width + 1, 2)
            mask[row.min() : row.max(), col.min() : col.max()] ^= True
    return masks


def measure(function, masks, **options):
    *lead, height, width = masks.shape
    return function(rows.pack(masks.reshape(*lead, height * width)), (height, width), **options)


def area(rectangle):
    row0, col0, row1, col1 = map(int, rectangle)
    return (row1 - row0) * (col1 - col0)


@given(masks=mask_batches(), threads=THREADS)
def test_boxes_match_the_reference(masks, threads):
    got = measure(shapes.bounding_boxes, masks, threads=threads)
    np.testing.assert_array_equal(got, measure(reference.bounding_boxes, masks), strict=True)


@given(masks=mask_batches(), threads=THREADS)
def test_rectangles_match_the_reference(masks, threads):
    got = measure(shapes.inscribed_rectangles, masks, threads=threads)
    np.testing.assert_array_equal(got, measure(reference.inscribed_rectangles, masks), strict=True)


@given(mask=npst.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))))
@example(mask=np.array([[1, 0], [0, 1]], bool))
@example(mask=np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]], bool))
def test_rectangle_is_the_first_largest_of_all_rectangles_of_ones(mask):
    """Against all rectangles there are: one that cannot grow is proposed by its first cell of full column height."""
    height, width = mask.shape
    ones = [
        (row0, col0, row1, col1)
        for row0 in range(height)
        for row1 in range(row0 + 1, height + 1)
        for col0 in range(width)
        for col1 in range(col0 + 1, width + 1)
        if mask[row0:row1, col0:col1].all()
    ]
    got = tuple(map(int, measure(shapes.inscribed_rectangles, mask)))
    if not ones:
        assert got == (0, 0, 0, 0)
        return
    largest = max(map(area, ones))

    def proposal(rectangle):
        row0, col0, row1, col1 = rectangle
        return row1, min(col for col in range(col0, col1) if row0 == 0 or not mask[row0 - 1, col])

    assert got == min((found for found in ones if area(found) == largest), key=proposal)


@pytest.mark.parametrize("grid", [(112, 112), (113, 113), (7, 300)])
def test_full_size_masks_match_the_reference_boxes_and_hold_a_rectangle_as_large_as_any(grid):
    rng = np.random.default_rng(5)
    row, col = np.ogrid[: grid[0], : grid[1]]
    centres = rng.random((40, 2, 1, 1)) * np.array(grid).reshape(2, 1, 1)
    masks = np.hypot(row - centres[:, 0], (col - centres[:, 1]) / 2) < rng.random((40, 1, 1)) * 40
    masks &= rng.random(masks.shape) < 0.97
    np.testing.assert_array_equal(
        measure(shapes.bounding_boxes, masks), measure(reference.bounding_boxes, masks), strict=True
    )
    for mask, rectangle in zip(masks, measure(shapes.inscribed_rectangles, masks), strict=True):
        row0, col0, row1, col1 = rectangle
        assert mask[row0:row1, col0:col1].all()
        assert area(rectangle) == _largest_area(mask)


def _largest_area(mask):
    """Erode the mask by every height at once: ones of height h in a row form runs, the longest one counts."""
    largest, eroded = 0, mask
    for height in range(1, mask.shape[0] + 1):
        flips = np.diff(np.pad(eroded, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        starts, stops = np.argwhere(flips == 1)[:, 1], np.argwhere(flips == -1)[:, 1]
        largest = max(largest, height * int(np.max(stops - starts, initial=0)))
        eroded = eroded[1:] & mask[: mask.shape[0] - height]
    return largest


@pytest.mark.parametrize("case", CASES_WITH_UNITS)
@pytest.mark.parametrize("threads", [1, 3])
def test_parity_rectangles_and_boxes(case, threads):
    known = load_case(case)
    empty = ~known.masks.any(axis=(-2, -1))

    rectangles = measure(shapes.inscribed_rectangles, known.masks, threads=threads)
    inclusive = rectangles.reshape(*rectangles.shape[:-1], 2, 2) - np.array([[0, 0], [1, 1]])
    np.testing.assert_array_equal(inclusive, known.inscribed)

    boxes = measure(shapes.bounding_boxes, known.masks, threads=threads)
    x_first = boxes.reshape(*boxes.shape[:-1], 2, 2)[..., ::-1] - np.array([[0, 0], [1, 1]])
    np.testing.assert_array_equal(np.where(empty[..., None, None], 0, x_first), known.boxes)


def test_any_memory_layout_and_byte_order():
    masks = np.random.default_rng(0).random((6, 2, 13, 17)) < 0.8
    packed = rows.pack(masks.reshape(6, 2, -1))
    wanted = shapes.inscribed_rectangles(packed, (13, 17))
    frozen = packed.copy()
    frozen.flags.writeable = False
    for same in (packed.astype(">u8"), np.asfortranarray(packed), np.repeat(packed, 2, axis=2)[:, :, ::2], frozen):
        np.testing.assert_array_equal(shapes.inscribed_rectangles(same, (13, 17)), wanted, strict=True)
    np.testing.assert_array_equal(shapes.inscribed_rectangles(packed[::-2, 1], (13, 17)), wanted[::-2, 1], strict=True)


@pytest.mark.parametrize("function", [shapes.bounding_boxes, shapes.inscribed_rectangles])
def test_bad_arguments(function):
    packed = np.zeros((3, 4), dtype=np.uint64)
    with pytest.raises(ShapeError, match=r"rows: expected uint64\[..., 2\], got uint64\[3, 4\]"):
        function(packed, (9, 9))
    with pytest.raises(DTypeError, match=r"rows: expected uint64\[..., 4\], got int64\[3, 4\]"):
        function(packed.view(np.int64), (16, 16))
    for shape in [(16,), (16, -16), (16.0, 16.0), 16, (4, 4, 16)]:
        with pytest.raises(ShapeError, match=r"shape: expected \(H, W\)"):
            function(packed, shape)
    for threads in (0, -1, 1.5, "2"):
        with pytest.raises(InputError, match="threads: expected None or an integer >= 1"):
            function(packed, (16, 16), threads=threads)
