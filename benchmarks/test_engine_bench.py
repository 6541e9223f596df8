"""Activations, atoms, formulas, clustering and the search, each checked against its oracle, then timed.

``python -m pytest benchmarks/test_engine_bench.py --benchmark-enable``. Checked on two samples, on which the oracle is
timed as well (``oracle_time_ratio``); timed on 500. ``extra_info`` also gives the bytes that the call must move,
GB/s, their share of the plain read bandwidth, and items a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ccx
from benchmarks import _work as work
from benchmarks._measure import check, measure
from benchmarks.synthetic import GRID, Synthetic, generate
from ccx import kernels
from ccx.clustering import unit_ranges
from ccx.kernels import Extensions
from ccx.search import SearchOptions, beam_search
from tests import reference
from tests.reference.kmeans import kmeans_1d as reference_kmeans_1d

N_SAMPLES, N_CHECKED, N_UNITS = 500, 2, 2
N_CELLS = GRID[0] * GRID[1]
SINGLES, THREES = 10, 5  # what a beam of 5 extends at the second and at the last level
THREADS = pytest.mark.parametrize("threads", [1, 2])


@dataclass(frozen=True)
class Case:
    """Synthetic samples, ranges of the first unit, and what most benchmarks need of them."""

    data: Synthetic
    ranges: NDArray[np.float64]

    @cached_property
    def labels(self) -> NDArray[np.int16]:
        """int16[N, 5, P]."""
        return self.data.labels.reshape(*self.data.labels.shape[:2], N_CELLS)

    @cached_property
    def concepts(self) -> ccx.Concepts:
        """The samples' concepts."""
        return self.data.concepts()

    @cached_property
    def maps(self) -> NDArray[np.float32]:
        """The first unit's activations, float32[N, 1, h, w]."""
        return np.ascontiguousarray(self.data.activations[:, :1])

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """int64[2, G]: all cells, and those in the unit's second range."""
        counts = kernels.range_histogram(self.maps, self.ranges, self.concepts.atoms)
        return np.stack([self.concepts.atoms.cells, counts[0, 1]])

    @cached_property
    def singles(self) -> Extensions:
        """The concepts that fit that range best, which a search extends first."""
        sizes, intersections = kernels.concept_counts(self.concepts.atoms, self.weights)
        every = np.ones(sizes.size, np.bool_)
        chosen = kernels.best_singles(intersections, sizes, int(self.weights[1].sum()), SINGLES, every)
        no_operators = np.zeros((chosen.size, 0), np.uint8)
        return Extensions(chosen[:, None], no_operators, intersections[chosen], sizes[chosen], 0)

    @cached_property
    def threes(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Formulas of three of those concepts: (a OR b) AND NOT c, (b OR c) AND NOT d, ..."""
        best = self.singles.concepts[:, 0]
        concepts = np.stack([best[np.arange(i, i + 3) % best.size] for i in range(THREES)])
        return concepts, np.tile(np.array([0, 2], np.uint8), (THREES, 1))

    @cached_property
    def sets(self) -> NDArray[np.object_]:
        """For the oracle: the concept set of each cell."""
        return reference.sets_of_labels(self.labels)

    @cached_property
    def atoms(self) -> list[frozenset[int]]:
        """For the oracle: the atoms."""
        return list(reference.atoms_of(self.sets))

    @cached_property
    def member(self) -> NDArray[np.bool_]:
        """For the oracle: which atom holds which concept, bool[C, G]."""
        return reference.membership(self.atoms, self.concepts.n_concepts)

    @cached_property
    def packed(self) -> NDArray[np.uint64]:
        """Bitmaps of the unit's ranges, uint64[5, N, n_words]."""
        return np.stack([kernels.upsample_pack(self.maps[:, 0], GRID, limits) for limits in self.ranges[0]])


@pytest.fixture(scope="module")
def large() -> Case:
    """Return the samples on which calls are timed."""
    data = generate(N_SAMPLES, N_UNITS)
    case = Case(data, unit_ranges(np.ascontiguousarray(data.activations[:, 0]))[None])
    case.concepts.atoms.cut(1)
    return case


@pytest.fixture(scope="module")
def small(large: Case) -> Case:
    """Return the few samples on which they are checked."""
    case = Case(generate(N_CHECKED, N_UNITS), large.ranges)
    case.concepts.atoms.cut(1)
    return case


def built(labels: NDArray[Any], threads: int) -> kernels.Atoms:
    """Build the atoms of label maps."""
    builder = kernels.AtomBuilder(GRID, 1200, threads=threads)
    builder.add_label_maps(labels)
    return builder.finish()


@THREADS
def test_atoms_of_label_maps(benchmark: Any, threads: int, large: Case, small: Case) -> None:
    """Five layers of labels."""
    ratio = check(
        lambda: built(small.labels, threads).cells,
        lambda: list(reference.atoms_of(reference.sets_of_labels(small.labels)).values()),
    )
    n_bytes = work.building_atoms(large.labels, large.concepts.atoms).n_bytes
    call = lambda: built(large.labels, threads)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=N_SAMPLES, threads=threads, unit="samples", oracle_ratio=ratio)


def test_atoms_of_masks(benchmark: Any, small: Case) -> None:
    """Build from the packed masks of 100 concepts that overlap as colours, objects and parts do."""

    def masks(case: Case) -> NDArray[np.bool_]:
        present = np.unique(case.labels)[-100:]
        return np.stack([(case.labels == label).any(axis=1) for label in present], axis=1)

    def build(rows: NDArray[np.uint64]) -> kernels.Atoms:
        builder = kernels.AtomBuilder(GRID, rows.shape[1], threads=1)
        builder.add_packed_masks(rows)
        return builder.finish()

    few = masks(small)
    rows = kernels.pack(few)
    ratio = check(lambda: build(rows).cells, lambda: list(reference.atoms_of(reference.sets_of_masks(few)).values()))
    rows = kernels.pack(masks(Case(generate(100, 1), small.ranges)))
    n_bytes = rows.nbytes + 10 * len(rows) * N_CELLS
    measure(benchmark, lambda: build(rows), n_bytes=n_bytes, n_items=len(rows), unit="samples", oracle_ratio=ratio)


def test_concept_counts(benchmark: Any, large: Case, small: Case) -> None:
    """Two weights an atom."""
    ratio = check(
        lambda: kernels.concept_counts(small.concepts.atoms, small.weights),
        lambda: reference.concept_counts(small.member, small.weights),
    )
    atoms = large.concepts.atoms
    n_bytes = 2 * (atoms.atom_starts.nbytes + atoms.atom_concepts.nbytes) + large.weights.nbytes
    call = lambda: kernels.concept_counts(atoms, large.weights)  # noqa: E731
    measure(
        benchmark, call, n_bytes=n_bytes, n_items=2 * atoms.atom_concepts.size, unit="additions", oracle_ratio=ratio
    )


def test_pair_counts(benchmark: Any, large: Case, small: Case) -> None:
    """All pairs of 1,200 concepts, dense."""
    ratio = check(
        lambda: kernels.pair_counts(small.concepts.atoms, small.weights[0], threads=1),
        lambda: reference.pair_counts(small.member, small.weights[0]),
    )
    atoms = large.concepts.atoms
    todo = work.counting_pairs(atoms)
    call = lambda: kernels.pair_counts(atoms, large.weights[0], threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=todo.n_bytes, n_items=todo.operations, unit="pairs", oracle_ratio=ratio)


def test_concept_rows(benchmark: Any, large: Case, small: Case) -> None:
    """Rows of the concepts that do not cover their whole sample; the oracle packs all masks."""

    def rows_of(case: Case) -> NDArray[np.uint64]:
        return kernels.concept_rows(case.concepts.atoms, np.arange(len(case.labels)), threads=1).rows

    def oracle() -> NDArray[np.uint64]:
        masks = reference.concept_masks(small.sets, small.concepts.n_concepts)
        partly = masks.any(axis=2) & ~masks.all(axis=2)
        return reference.pack(masks[partly])

    ratio = check(lambda: rows_of(small), oracle)
    rows = rows_of(large)
    n_bytes = large.concepts.atoms.cell_atoms.nbytes + rows.nbytes
    measure(benchmark, lambda: rows_of(large), n_bytes=n_bytes, n_items=len(rows), oracle_ratio=ratio)


def test_atom_rows(benchmark: Any, large: Case, small: Case) -> None:
    """The packed mask of a formula, once its atoms are known."""

    def mask(case: Case) -> NDArray[np.uint64]:
        atoms = case.concepts.atoms
        return kernels.atom_rows(atoms, np.arange(atoms.n_atoms) % 3 == 0, np.arange(len(case.labels)), threads=1)

    def oracle() -> NDArray[np.uint64]:
        marked = set(small.atoms[::3])
        return reference.pack(np.array([[one in marked for one in sample] for sample in small.sets]))

    ratio = check(lambda: mask(small), oracle)
    n_bytes = large.concepts.atoms.cell_atoms.nbytes + mask(large).nbytes
    measure(benchmark, lambda: mask(large), n_bytes=n_bytes, n_items=N_SAMPLES, unit="samples", oracle_ratio=ratio)


def test_upsample(benchmark: Any, large: Case, small: Case) -> None:
    """7×7 to 112×112."""
    ratio = check(lambda: kernels.upsample(small.maps, GRID, threads=1), lambda: reference.upsample(small.maps, GRID))
    n_bytes = large.maps.nbytes + 4 * N_SAMPLES * N_CELLS
    call = lambda: kernels.upsample(large.maps, GRID, threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=N_SAMPLES, unit="maps", oracle_ratio=ratio)


def test_upsample_pack(benchmark: Any, large: Case, small: Case) -> None:
    """7×7 to 112×112, one range."""
    limits = tuple(large.ranges[0, 1])
    ratio = check(
        lambda: kernels.upsample_pack(small.maps, GRID, limits, threads=1),
        lambda: reference.upsample_pack(small.maps, GRID, limits),
    )
    n_bytes = large.maps.nbytes + large.packed[0].nbytes
    call = lambda: kernels.upsample_pack(large.maps, GRID, limits, threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=N_SAMPLES, unit="maps", oracle_ratio=ratio)


@THREADS
def test_range_histogram(benchmark: Any, threads: int, large: Case, small: Case) -> None:
    """One unit, five ranges."""
    ratio = check(
        lambda: kernels.range_histogram(small.maps, small.ranges, small.concepts.atoms, threads=threads),
        lambda: reference.range_histogram(small.maps, small.ranges, GRID, small.sets, small.atoms),
    )
    todo = work.counting_ranges(large.maps[:, 0], large.ranges[0], large.concepts.atoms)
    call = lambda: kernels.range_histogram(large.maps, large.ranges, large.concepts.atoms, threads=threads)  # noqa: E731
    options: dict[str, Any] = {"threads": threads, "unit": "steps", "oracle_ratio": ratio}
    measure(benchmark, call, n_bytes=todo.n_bytes, n_items=todo.operations, **options)


def test_bitmap_histogram(benchmark: Any, large: Case, small: Case) -> None:
    """Five bitmaps."""
    bitmaps = reference.unpack(small.packed, N_CELLS)
    ratio = check(
        lambda: kernels.bitmap_histogram(small.packed, small.concepts.atoms, threads=1),
        lambda: reference.bitmap_histogram(bitmaps, small.sets, small.atoms),
    )
    n_bytes = large.packed.nbytes + 5 * large.concepts.atoms.cell_atoms.nbytes
    call = lambda: kernels.bitmap_histogram(large.packed, large.concepts.atoms, threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=5 * N_SAMPLES * N_CELLS, unit="cells", oracle_ratio=ratio)


def test_formula_counts(benchmark: Any, large: Case, small: Case) -> None:
    """Five formulas of three concepts, two weights an atom."""
    ratio = check(
        lambda: kernels.formula_counts(small.concepts.atoms, small.weights, *small.threes, threads=1),
        lambda: reference.formula_counts(small.member, small.weights, *small.threes),
    )
    n_bytes = THREES * (large.weights.nbytes + 2 * large.concepts.atoms.n_atoms)
    call = lambda: kernels.formula_counts(large.concepts.atoms, large.weights, *large.threes, threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=THREES, unit="formulas", oracle_ratio=ratio)


def test_conjunction_counts(benchmark: Any, large: Case, small: Case) -> None:
    """Five formulas of three concepts and each of 1,200, two weights an atom."""
    ratio = check(
        lambda: kernels.conjunction_counts(small.concepts.atoms, small.weights, *small.threes, threads=1),
        lambda: reference.conjunction_counts(small.member, small.weights, *small.threes),
    )
    atoms = large.concepts.atoms
    inside = kernels.formula_counts(atoms, np.ones((1, atoms.n_atoms), np.int64), *large.threes)
    n_entries = int(inside.sum() * atoms.atom_concepts.size / atoms.n_atoms)
    n_bytes = 2 * n_entries * 2 + int(inside.sum()) * 28
    call = lambda: kernels.conjunction_counts(atoms, large.weights, *large.threes, threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=2 * n_entries, unit="additions", oracle_ratio=ratio)


def test_best_singles(benchmark: Any, large: Case) -> None:
    """The ten best of 1,200 concepts."""
    sizes, intersections = kernels.concept_counts(large.concepts.atoms, large.weights)
    every = np.ones(sizes.size, np.bool_)
    arguments = intersections, sizes, int(large.weights[1].sum()), SINGLES, every
    ratio = check(lambda: kernels.best_singles(*arguments), lambda: reference.best_singles(*arguments))
    n_bytes = sizes.nbytes + intersections.nbytes + every.nbytes
    call = lambda: kernels.best_singles(*arguments)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=sizes.size, unit="candidates", oracle_ratio=ratio)


def test_best_extensions(benchmark: Any, large: Case, small: Case) -> None:
    """The five best of all extensions of ten concepts."""

    def arguments(case: Case, allowed: NDArray[np.bool_]) -> tuple[Any, ...]:
        parents = case.singles
        sizes, intersections = kernels.concept_counts(case.concepts.atoms, case.weights)
        joint_sizes, joint = kernels.conjunction_counts(
            case.concepts.atoms, case.weights, parents.concepts, parents.operators
        )
        return parents, intersections, sizes, joint, joint_sizes, int(case.weights[1].sum()), THREES, allowed

    few = np.isin(np.arange(1200), small.singles.concepts)  # the oracle sorts all candidates, with exact fractions
    parents = [(tuple(concepts), ()) for concepts in small.singles.concepts.tolist()]
    given = arguments(small, few)
    ratio = check(
        lambda: kernels.best_extensions(*given).concepts,
        lambda: [
            one.parts[0]
            for one in reference.best_extensions(
                small.member, small.weights[0], small.weights[1], parents, THREES, few
            )[0]
        ],
    )
    many = arguments(large, np.ones(1200, np.bool_))
    n_candidates = kernels.best_extensions(*many).evaluated
    call = lambda: kernels.best_extensions(*many)  # noqa: E731
    n_bytes = many[3].nbytes + many[4].nbytes
    measure(benchmark, call, n_bytes=n_bytes, n_items=n_candidates, unit="candidates", oracle_ratio=ratio)


def test_kmeans_1d(benchmark: Any, large: Case) -> None:
    """24,500 sorted values, five clusters."""
    values = np.sort(large.maps, axis=None)
    ratio = check(lambda: kernels.kmeans_1d(values[::400], 5), lambda: reference_kmeans_1d(values[::400], 5))
    call = lambda: kernels.kmeans_1d(values, 5)  # noqa: E731
    measure(benchmark, call, n_bytes=2 * values.nbytes, n_items=values.size, unit="values", oracle_ratio=ratio)


def test_beam_search(benchmark: Any, large: Case) -> None:
    """A formula of up to three concepts; its counts are checked on boolean masks of all samples."""
    settings = SearchOptions(length=3, beam=5)
    watcher = work.SearchWork(large.concepts.atoms)
    with watcher.watched():
        (found,) = beam_search(large.concepts, large.weights[1], settings, threads=1).found
    masks = [(large.labels == concept + 1).any(axis=1) for concept in found.concepts]
    mask = reference.satisfied(np.stack(masks), range(len(masks)), found.operators)
    bitmap = reference.inside(reference.upsample(large.maps[:, 0], GRID), large.ranges[0, 1]).reshape(mask.shape)
    assert (found.intersection, found.union) == ((mask & bitmap).sum(), (mask | bitmap).sum())
    todo = watcher.per_search(1)
    call = lambda: beam_search(large.concepts, large.weights[1], settings, threads=1)  # noqa: E731
    measure(benchmark, call, n_bytes=todo.n_bytes, n_items=todo.operations, unit="additions")


@THREADS
def test_explain(benchmark: Any, threads: int, large: Case) -> None:
    """Two units, five ranges each, from activations to rows."""
    activations = large.data.activations
    found = ccx.explain(activations, large.concepts, threads=threads, progress=False)
    work.check_explanations(large.data, found)
    n_bytes = N_UNITS * work.counting_ranges(large.maps[:, 0], large.ranges[0], large.concepts.atoms).n_bytes
    call = lambda: ccx.explain(activations, large.concepts, threads=threads, progress=False)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=len(found), threads=threads, unit="explanations")
