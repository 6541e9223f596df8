"""Kernels of label maps in picture files against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.errors import ShapeError
from ccx.kernels.png import UNKNOWN, Ids, cell_indices, look_up
from tests.reference import png as reference


@given(
    pixels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    cells=st.none() | st.tuples(st.integers(1, 12), st.integers(1, 12)),
    pixel_bytes=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_look_up_matches_the_reference(
    pixels: tuple[int, int], cells: tuple[int, int] | None, pixel_bytes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (pixels[0], 1 + pixels[1] * pixel_bytes)).astype(np.uint8)
    if seed % 3 == 0:
        rows[:, 1:] //= 64  # ties in the prediction of Paeth
    rows[:, 0] = rng.integers(0, 5, pixels[0])
    low, high = rng.integers(0, pixel_bytes, 2)
    weight = int(rng.choice([0, 256]))
    ids = Ids(rows, pixel_bytes, int(low), int(high), weight)
    found = reference.unfilter(rows, pixel_bytes).reshape(*pixels, pixel_bytes).astype(int)
    numbers = found[..., low] + weight * found[..., high]
    np.testing.assert_array_equal(ids.numbers(), numbers)
    assert ids.shape == pixels
    table = rng.choice([0, 1, 7, UNKNOWN], 1 << 16, p=[0.4, 0.3, 0.29, 0.01]).astype(np.uint16)
    wanted = reference.look_up(numbers, cells or pixels, table)
    out = np.empty(cells or pixels, np.uint16)
    for place in (None, out):
        entries, is_known = look_up(ids, cells, table, place)
        np.testing.assert_array_equal(entries, wanted)
        assert entries.dtype == np.uint16
        assert is_known == (UNKNOWN not in wanted)
        assert place is None or entries is out


@pytest.mark.parametrize("rows", [np.zeros((2, 4)), np.zeros(4, np.uint8), np.zeros((2, 3), np.uint8)])
def test_rows_and_tables_that_are_none_are_refused(rows: np.ndarray) -> None:
    table = np.zeros(1 << 16, np.uint16)
    with pytest.raises(ShapeError, match=r"ids: expected uint8\[h, 1 \+ w \* 3\]"):
        look_up(Ids(rows, 3, 0, 1, 256), None, table)
    for wrong in (table[:-1], table.astype(int)):
        with pytest.raises(ShapeError, match=r"table: expected uint16\[65536\]"):
            look_up(Ids(np.zeros((2, 4), np.uint8), 3, 0, 1, 256), None, wrong)


def test_cells_take_the_pixel_at_their_centre() -> None:
    # Centres of 3 cells on 5 pixels: 5/6, 15/6, 25/6. Of 2 on 2: 1/2, 3/2. Of 2 on 4: exactly 1 and 3, borders.
    assert cell_indices(5, 3).tolist() == [0, 2, 4]
    assert cell_indices(2, 2).tolist() == [0, 1]
    assert cell_indices(4, 2).tolist() == [1, 3]
    assert cell_indices(2, 5).tolist() == [0, 0, 1, 1, 1]
    assert cell_indices(1, 3).tolist() == [0, 0, 0]


@given(n_pixels=st.integers(1, 500), n_cells=st.integers(1, 500))
def test_cell_indices_are_exact(n_pixels: int, n_cells: int) -> None:
    from fractions import Fraction

    wanted = [int(Fraction(2 * i + 1, 2 * n_cells) * n_pixels) for i in range(n_cells)]
    assert cell_indices(n_pixels, n_cells).tolist() == wanted
