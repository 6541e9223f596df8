"""Positions and cells that have a weight for each other, against the oracle and upsampling itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ccx.kernels import AtomBuilder, positions, upsample
from tests.reference import positions as oracle
from tests.support.strategies import GRIDS, SOURCES

SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])
SIDES = st.tuples(st.integers(1, 17), st.integers(1, 17))  # odd ones, and sources finer than the cells, too


def flags(seed, share, shape):
    return np.random.default_rng(seed).random((3, *shape)) < share


def assert_same(got, wanted):
    np.testing.assert_array_equal(got, wanted, strict=True)


@given(seed=SEEDS, share=SHARES, source=st.one_of(SOURCES, SIDES), grid=st.one_of(GRIDS, SIDES))
def test_positions_and_cells_are_those_of_the_oracle(seed, share, source, grid):
    cells = flags(seed, share, grid)
    assert_same(positions.positions_of(cells, source), oracle.positions_of(cells, source))
    chosen = flags(seed, share, source)
    assert_same(positions.cells_of(chosen, grid), oracle.cells_of(chosen, grid))


@given(seed=SEEDS, source=SIDES, grid=SIDES)
def test_cells_are_those_that_a_position_changes(seed, source, grid):
    """NaN shows where a position reaches: it has a weight there and nowhere else."""
    chosen = flags(seed, 0.3, source)
    maps = np.where(chosen, np.float32(np.nan), np.float32(1))
    assert_same(positions.cells_of(chosen, grid), np.isnan(upsample(maps, grid)))


@given(seed=SEEDS, share=SHARES, whole=st.booleans(), source=st.one_of(SOURCES, SIDES), grid=st.one_of(GRIDS, SIDES))
def test_valid_positions_are_those_of_the_oracle(seed, share, whole, source, grid):
    valid = flags(seed, share, grid)
    valid[1] |= whole
    builder = AtomBuilder(grid, 2)
    labels = np.random.default_rng(seed).integers(0, 3, (3, 2, valid[0].size))
    builder.add_label_maps(labels, valid.reshape(3, -1))
    got, wanted = positions.valid_positions(builder.finish(), source), oracle.valid_positions(valid, source)
    assert_same(np.ones_like(wanted) if got is None else got, wanted)
    assert (got is None) == wanted.all()


def test_a_batch_of_samples_is_as_good_as_all(monkeypatch):
    valid = flags(0, 0.1, (5, 7))
    builder = AtomBuilder((5, 7), 0)
    builder.add_label_maps(np.zeros((3, 0, 35), np.uint16), valid.reshape(3, -1))
    monkeypatch.setattr(positions, "_BATCH_CELLS", 36)
    assert_same(positions.valid_positions(builder.finish(), (3, 4)), oracle.valid_positions(valid, (3, 4)))
