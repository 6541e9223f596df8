"""Cells in tiles, and ranges counted by them, against the cells themselves and the definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.errors import MemoryBudgetError
from ccx.kernels import range_histogram
from ccx.kernels import tiles as tiles_module
from ccx.kernels.tiles import tiles_of
from tests import reference

GRIDS = [(16, 8), (13, 11), (1, 128), (1, 200), (200, 1), (3, 50), (50, 3), (24, 24), (17, 31)]
RNGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3.4e38, -3.4e38, 1.0, 1.5], np.float32)


def some_labels(rng, n_samples, grid, noise):
    """Return label maps uint8[n, 2, H, W]: blocks of labels, and cells here and there with one of their own."""
    height, width = grid
    blocks = rng.integers(0, 6, (n_samples, 2, -(-height // 5), -(-width // 5)))
    labels = blocks.repeat(5, axis=2).repeat(5, axis=3)[:, :, :height, :width]
    alone = rng.random(labels.shape) < noise
    return np.where(alone, rng.integers(0, 40, labels.shape), labels).astype(np.uint8)


def concepts_of(rng, n_samples, grid, noise, share):
    labels = some_labels(rng, n_samples, grid, noise)
    valid = None if share == 1 else rng.random((n_samples, *grid)) < share
    return ccx.Concepts.from_label_maps(labels, [f"c{number}" for number in range(40)], valid=valid)


def some_ranges(rng, n_units, n_ranges):
    ends = np.sort(rng.choice(np.r_[-np.inf, np.inf, np.arange(-12, 13) / 8], (n_units, n_ranges, 2)), axis=2)
    ends[ends[..., 0] == ends[..., 1]] = (0.0, 0.125)
    return ends


def histogram_by_row(maps, ranges, atoms):
    """Count with the kernel for samples of few cells, which is a different one."""
    uncut = replace(atoms)
    assert uncut.tiles is None
    return range_histogram(maps, ranges, uncut)


@given(
    rng=RNGS, n_samples=st.integers(1, 4), grid=st.sampled_from(GRIDS), noise=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    share=st.sampled_from([1, 0.7, 0.0]), threads=st.sampled_from([1, 2]),
)  # fmt: skip
def test_tiles_hold_every_valid_cell_once(rng, n_samples, grid, noise, share, threads):
    atoms = concepts_of(rng, n_samples, grid, noise, share).atoms
    tiles = tiles_of(atoms, threads=threads)
    rows, columns = tiles.size
    padded = tiles.shape[0] * rows, tiles.shape[1] * columns
    for n in range(n_samples):
        n_local = int(atoms.sample_starts[n + 1] - atoms.sample_starts[n])
        cells = np.full(padded, n_local)
        cells[: grid[0], : grid[1]] = atoms.cell_atoms[n].reshape(grid)
        wanted = cells.reshape(tiles.shape[0], rows, tiles.shape[1], columns).swapaxes(1, 2).reshape(-1, 64)
        crowded = [tile for tile, own in enumerate(wanted) if np.unique(own[own < n_local]).size > 16]
        assert tiles.crowded[slice(*tiles.crowded_starts[n : n + 2])].tolist() == crowded
        found = np.full_like(wanted, n_local)
        for at in range(*tiles.starts[n : n + 2]):
            inside = (tiles.masks[at] >> np.arange(64, dtype=np.uint64)) & np.uint64(1) == 1
            assert inside.any()
            assert (found[tiles.tiles[at], inside] == n_local).all()
            found[tiles.tiles[at], inside] = tiles.atoms[at]
        wanted[crowded] = n_local
        np.testing.assert_array_equal(found, wanted)


@given(
    rng=RNGS, n_samples=st.integers(1, 3), grid=st.sampled_from(GRIDS), n_ranges=st.sampled_from([1, 2, 5, 8, 9, 20]),
    source=st.sampled_from([(1, 1), (7, 7), (14, 9), (2, 40), (30, 30), None]),
    special=st.sampled_from([0.0, 0.0, 0.02, 0.5]), noise=st.sampled_from([0.0, 0.05, 1.0]),
    share=st.sampled_from([1, 1, 0.7, 0.0]), threads=st.sampled_from([1, 2]),
)  # fmt: skip
def test_histograms_by_tile(rng, n_samples, grid, n_ranges, source, special, noise, share, threads):
    atoms = concepts_of(rng, n_samples, grid, noise, share).atoms
    maps = rng.normal(size=(n_samples, 2, *(source or grid))).astype(np.float32)
    maps[:, 1] = np.round(maps[:, 1] * 8) / 8  # many values at ends
    chosen = rng.random(maps.shape) < special
    maps[chosen] = rng.choice(SPECIAL, int(chosen.sum()))
    ranges = some_ranges(rng, 2, n_ranges)
    atoms.cut(threads)
    counts = range_histogram(maps, ranges, atoms, threads=threads)
    values = reference.upsample(maps, grid).reshape(n_samples, 2, -1)
    for unit, k in np.ndindex(2, n_ranges):
        inside = reference.inside(values[:, unit], ranges[unit, k])
        wanted = np.zeros(atoms.n_atoms, np.int64)
        for n in range(n_samples):
            own = atoms.cell_atoms[n][inside[n]].astype(int)
            start, stop = atoms.sample_starts[n : n + 2]
            np.add.at(wanted, atoms.sample_atoms[start + own[own < stop - start]], 1)
        np.testing.assert_array_equal(counts[unit, k], wanted)
    np.testing.assert_array_equal(counts, histogram_by_row(maps, ranges, atoms))


@pytest.mark.parametrize("scale", [1e-38, 1.0, 1e30])
@pytest.mark.parametrize("spread", [0.0, 1e-6, 2.0])
def test_rounding_leaves_no_tile_out(scale, spread):
    """Means of equal values differ in their last bits, so that a cell may lie beyond the ends of its tile."""
    rng = np.random.default_rng(3)
    concepts = concepts_of(rng, 60, (48, 48), 0.1, 1)
    values = rng.normal(size=(60, 1, 1, 1)) + spread * rng.normal(size=(60, 1, 3, 3))
    maps = (values * scale).astype(np.float32)
    cells = reference.upsample(maps, (48, 48)).reshape(60, -1)
    ends = [np.unique(own)[[0, -2]] if np.unique(own).size > 1 else own[[0, 0]] for own in cells]
    lower = np.unique(np.concatenate(ends).astype(np.float64))
    ranges = np.stack([lower, np.full(lower.size, np.inf)], axis=1)[None]
    concepts.atoms.cut(1)
    counts = range_histogram(maps, ranges, concepts.atoms).sum(axis=2)
    np.testing.assert_array_equal(counts[0], [(cells > end).sum() for end in lower])


@pytest.mark.parametrize(("n_cells", "are_cut"), [(127, False), (128, True)])
def test_samples_of_few_cells_are_not_cut(n_cells, are_cut):
    atoms = concepts_of(np.random.default_rng(0), 2, (1, n_cells), 0.1, 1).atoms
    atoms.cut(1)
    assert (atoms.tiles is not None) == are_cut


@pytest.mark.parametrize(("n_units", "are_cut"), [(7, False), (8, True)])
def test_explain_cuts_for_many_units(n_units, are_cut):
    rng = np.random.default_rng(1)
    concepts = concepts_of(rng, 3, (16, 16), 0.1, 0.9)
    maps = rng.normal(size=(3, n_units, 4, 4)).astype(np.float32)
    found = ccx.explain(maps, concepts, length=2, progress=False)
    assert (concepts.atoms.tiles is not None) == are_cut
    alone = ccx.explain(
        maps, concepts_of(np.random.default_rng(1), 3, (16, 16), 0.1, 0.9), units=[2], length=2, progress=False
    )
    assert [row for row in found if row.unit == 2] == list(alone)


def test_tiles_without_memory_are_refused_by_name(monkeypatch):
    atoms = concepts_of(np.random.default_rng(2), 3, (24, 24), 0.1, 1).atoms
    monkeypatch.setattr(tiles_module, "_LARGE", 0)
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 100)
    with pytest.raises(MemoryBudgetError, match=r"concepts: expected work that fits .*; use fewer samples"):
        atoms.cut(1)
    assert atoms.tiles is None
