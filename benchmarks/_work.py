"""What the kernels of a layer must do, counted from their inputs; and whether they did it right.

A kernel's *bytes* are what it must move between memory and processor when no cache holds its arrays. Divided by the
plain read bandwidth they give the time below which no kernel of this plan can come. Its *operations* are
counted from the data by the rules that the kernel follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import ccx
from benchmarks.synthetic import Synthetic
from ccx.clustering import unit_ranges
from ccx.kernels import Atoms, conjunction_counts, range_histogram
from ccx.kernels.activations import thresholds
from ccx.results import Explanation
from ccx.search import beam
from tests import reference

_BATCH = 250  # samples of the checks at a time: a few hundred MB of booleans and float32


class Work(NamedTuple):
    """Bytes moved and operations done; `unit` says what an operation is."""

    n_bytes: int
    operations: int
    unit: str


def building_atoms(labels: NDArray[Any], atoms: Atoms) -> Work:
    """Read the labels, write and read 4-byte codes, write 2-byte cell maps of batches and join them."""
    n_cells = atoms.cell_atoms.size
    item = atoms.cell_atoms.dtype.itemsize
    n_bytes = labels.nbytes + 2 * 4 * n_cells + 3 * item * n_cells
    return Work(n_bytes, labels.size, "labels")


def counting_pairs(atoms: Atoms) -> Work:
    """Add each atom's weight to all pairs of its concepts."""
    lengths = np.diff(atoms.atom_starts)
    n_bytes = atoms.atom_starts.nbytes + atoms.atom_concepts.nbytes + atoms.cells.nbytes + 8 * atoms.n_concepts**2
    return Work(n_bytes, int((lengths**2).sum()), "pairs")


def clustering(values: NDArray[np.float32]) -> Work:
    """Read the values once to sort and once to sum; no sort in comparisons is cheaper than log2(n!)."""
    n = values.size
    return Work(3 * values.nbytes, int(n * np.log2(n) - n / np.log(2)), "comparisons")


def counting_ranges(maps: NDArray[np.float32], ranges: NDArray[np.float64], atoms: Atoms) -> Work:
    """Follow the kernel tile by tile: a step is one operation on the 64 cells of a tile.

    A tile with thresholds among its values is interpolated (three steps), and compared with each of those; each
    entry of a sample of which some cell may be in a range is counted once for all ranges.
    """
    tiles = atoms.tiles
    if tiles is None:
        msg = "counting_ranges follows the kernel for atoms that are cut into tiles"
        raise ValueError(msg)
    ends = np.stack(thresholds(ranges, "ranges"), axis=1).ravel()
    steps = n_entries = n_tile_entries = 0
    for n, sample in enumerate(maps):
        of_all, of_some = np.searchsorted(ends, [sample.min(), sample.max()], side="right")
        if of_all == of_some and of_some % 2 == 0:
            continue
        values = np.pad(
            reference.upsample(sample, atoms.shape),
            [(0, -n % m) for n, m in zip(atoms.shape, tiles.size, strict=True)],
            mode="edge",
        )
        values = values.reshape(tiles.shape[0], tiles.size[0], tiles.shape[1], tiles.size[1]).swapaxes(1, 2)
        values = values.reshape(-1, 64)
        among = np.searchsorted(ends, values.max(axis=1), "right") - np.searchsorted(ends, values.min(axis=1), "right")
        n_tile_entries += int(tiles.starts[n + 1] - tiles.starts[n])
        n_entries += int(atoms.sample_starts[n + 1] - atoms.sample_starts[n])
        steps += 3 * int((among > 0).sum()) + int(among.sum())
    # the entries of tiles, the maps, the entries, and a line of the result for each entry
    n_bytes = 12 * n_tile_entries + maps.nbytes + 4 * n_entries + 2 * 64 * n_entries
    return Work(n_bytes, steps + n_tile_entries, "tile steps")


class SearchWork:
    """Counts what searches do, by watching their calls of `conjunction_counts`."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self._lengths = np.diff(atoms.atom_starts)
        self._entries = self._visits = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the searches of the block under ``with``; it slows them down."""
        with mock.patch.object(beam, "conjunction_counts", self._watch):
            yield

    def per_search(self, n_searches: int) -> Work:
        """Work of one search: all atoms once for the single concepts, then the atoms that satisfy formulas.

        An atom costs where it starts, its weight and its index; each of its concepts an addition.
        """
        atoms = self._atoms
        entries = self._entries // n_searches + atoms.atom_concepts.size
        n_bytes = 8 * atoms.n_atoms * 2 + 2 * entries + 20 * (self._visits // n_searches)
        return Work(n_bytes, entries, "additions")

    def _watch(self, atoms: Atoms, weights: Any, concepts: Any, operators: Any, **options: Any) -> Any:
        starts, posted = atoms.postings
        for sequence, connectives in zip(concepts, operators, strict=True):
            inside = np.zeros(atoms.n_atoms, np.bool_)
            inside[posted[starts[sequence[0]] : starts[sequence[0] + 1]]] = True
            for concept, connective in zip(sequence[1:], connectives, strict=True):
                other = np.zeros(atoms.n_atoms, np.bool_)
                other[posted[starts[concept] : starts[concept + 1]]] = True
                inside = (inside | other, inside & other, inside & ~other)[connective]
            for weight in weights:
                counted = inside & (weight != 0)
                self._visits += int(inside.sum())
                self._entries += int(self._lengths[counted].sum())
        return conjunction_counts(atoms, weights, concepts, operators, **options)


def _cells_of(labels: NDArray[Any], ids: dict[str, int], name: str) -> NDArray[np.bool_]:
    cells: NDArray[np.bool_] = (labels == ids[name]).any(axis=1)
    return cells


def check_kernels(data: Synthetic, n_checked: int, rng: np.random.Generator) -> str:
    """Compare atoms and a unit's histograms on random samples with the oracle's, which knows Python sets.

    Raises
    ------
    AssertionError
        If anything differs.

    """
    samples = np.sort(rng.choice(len(data.labels), min(n_checked, len(data.labels)), replace=False))
    unit = int(rng.integers(data.activations.shape[1]))
    labels, maps = data.labels[samples], np.ascontiguousarray(data.activations[samples, unit, None])
    atoms = ccx.Concepts.from_label_maps(labels, data.names).atoms
    sets = reference.sets_of_labels(labels.reshape(*labels.shape[:2], -1))
    wanted = reference.atoms_of(sets)
    np.testing.assert_array_equal(atoms.cells, list(wanted.values()))
    ranges = unit_ranges(maps)[None]
    np.testing.assert_array_equal(
        range_histogram(maps, ranges, atoms),
        reference.range_histogram(maps, ranges, atoms.shape, sets, list(wanted)),
    )
    return f"atoms and histograms of unit {unit} on {len(samples)} random samples equal the oracle's"


def check_explanations(data: Synthetic, explanations: Iterable[Explanation]) -> str:
    """Recount explanations on boolean masks of all samples, from the labels and the oracle's upsampling.

    Raises
    ------
    AssertionError
        If a count differs.

    """
    ids = {name: index + 1 for index, name in enumerate(data.names)}
    checked = list(explanations)
    counts = np.zeros((len(checked), 2), np.int64)  # cells of F and B, and of F or B
    for start in range(0, len(data.labels), _BATCH):
        batch = slice(start, start + _BATCH)
        labels = data.labels[batch]
        for found, count in zip(checked, counts, strict=True):
            if found.formula is None or found.range is None:
                continue  # nothing was found, so both counts are 0
            values = reference.upsample(data.activations[batch, found.unit], labels.shape[2:])
            bitmap = reference.inside(values, found.range)
            mask = found.formula.evaluate(partial(_cells_of, labels, ids))
            count += (mask & bitmap).sum(), (mask | bitmap).sum()
    np.testing.assert_array_equal([(found.intersection, found.union) for found in checked], counts)
    return f"{len(checked)} explanations recounted on boolean masks of all {len(data.labels)} samples"
