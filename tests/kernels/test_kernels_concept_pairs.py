"""Bounds and counts of the proven optimum against their definition, formula by formula."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ccx.kernels import AtomBuilder, Atoms, pair_counts
from ccx.kernels import concept_pairs as kernels
from ccx.kernels.cpu import concept_pairs as cpu_kernels
from tests.reference import concept_pairs as reference
from tests.reference import pack
from tests.reference.optimal_oracle import problems

IntArray = NDArray[np.int64]


class Case(NamedTuple):
    """Atoms and a bitmap's histogram; member bool[G, C]."""

    atoms: Atoms
    counts: IntArray
    member: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    q: int
    p: int


def case_of(seed: int, n_concepts: int, n_cells: int) -> Case:
    """Return one random problem, and the numbers of a plane."""
    rng = np.random.default_rng(seed)
    masks, bitmap = problems(rng, n_concepts, n_cells)
    builder = AtomBuilder((1, n_cells), n_concepts)
    builder.add_packed_masks(pack(masks)[None])
    atoms = builder.finish()
    of_cell = atoms.sample_atoms[atoms.cell_atoms[0]]
    member = np.zeros((atoms.n_atoms, n_concepts), np.bool_)
    member[of_cell] = masks.T
    counts = np.bincount(of_cell[bitmap], minlength=atoms.n_atoms).astype(np.int64)
    q = int(rng.choice([1, 7, 10**12]))
    usable = rng.random(n_concepts) < rng.choice([0.5, 1.0])
    return Case(atoms, counts, member, usable, q, int(rng.integers(0, q + 1)))


CASES = st.builds(case_of, st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 5, 9]), st.sampled_from([1, 20, 65]))


def pairs_of(case: Case) -> kernels.Pairs:
    hits = pair_counts(case.atoms, case.counts)
    return kernels.pairs_of(case.atoms, case.counts, hits, case.q, case.p, case.usable, 1)


def thresholds(pairs: kernels.Pairs) -> list[int]:
    """Values of formulas, where >= and > differ, and what nothing and everything reaches."""
    n = pairs.order.size
    values = [reference.of_pair(pairs.values, *pair) for pair in reference.pairs(n)]
    values += np.diagonal(pairs.gains).tolist()
    return (
        [0, *np.quantile(values, [0.0, 0.5, 0.9, 1.0], method="nearest").tolist(), max(values) + 1] if values else [0]
    )


@given(case=CASES)
def test_pairs(case: Case) -> None:
    order, *got, q, p = pairs_of(case)
    assert (q, p) == (case.q, case.p)
    value = case.q * case.counts - case.p * (case.atoms.cells - case.counts)
    gain = np.maximum(value, 0)
    gains = np.diagonal(reference.shared(case.member, gain))
    assert order.tolist() == sorted(np.flatnonzero(case.usable).tolist(), key=lambda c: (-gains[c], c))
    for ours, weights in zip(got, (case.atoms.cells, case.counts, value, gain), strict=True):
        np.testing.assert_array_equal(ours, reference.shared(case.member[:, order], weights), strict=True)


@given(case=CASES)
def test_good_and_promising_pairs(case: Case) -> None:
    pairs = pairs_of(case)
    for least in thresholds(pairs):
        assert kernels.good_pairs(pairs, least).tolist() == as_lists(reference.good_pairs(pairs.values, least))
        found, n_bounds = kernels.promising_pairs(pairs, least)
        wanted, n_tried = reference.promising_pairs(pairs.values, pairs.gains, least)
        rows = [kernels.promising_pairs(pairs, least, a, a + 1) for a in range(pairs.order.size)]
        assert [row for part, _ in rows for row in part.tolist()] == found.tolist()
        assert sum(n for _, n in rows) == n_bounds
        assert found.tolist() == as_lists(wanted)
        assert n_bounds == n_tried


@given(case=CASES, data=st.data())
def test_good_extensions(case: Case, data: Any) -> None:
    pairs = pairs_of(case)
    n = pairs.order.size
    if n < 2:
        return
    least = data.draw(st.sampled_from(thresholds(pairs)))
    head, candidates = some_candidates(n, data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, 99)))
    got, n_counted = kernels.good_extensions(case.atoms, case.counts, pairs, head, candidates, least)
    member = case.member[:, pairs.order]
    wanted = reference.extensions(member, case.atoms.cells, case.counts, candidates.tolist(), case.q, case.p, least)
    assert got.tolist() == as_lists(wanted)
    assert n_counted == 3 * len(candidates) * (n - 2)


def some_candidates(n: int, head: int, seed: int) -> tuple[int, NDArray[np.int32]]:
    """Return a concept, and pairs that hold it."""
    of_head = np.array([pair for pair in reference.pairs(n) if head in (pair[0], pair[2])], np.int32)
    return head, of_head[np.random.default_rng(seed).random(len(of_head)) < 0.5]


def as_lists(rows: Any) -> list[list[int]]:
    return [list(row) for row in rows]


@pytest.mark.parametrize("room", [0, 1, 5])
def test_lists_longer_than_thought(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(3, 9, 65)
    pairs = pairs_of(case)
    wanted = kernels.good_pairs(pairs, 0), kernels.promising_pairs(pairs, 0)
    monkeypatch.setattr(cpu_kernels, "_ROOM", room)
    np.testing.assert_array_equal(kernels.good_pairs(pairs, 0), wanted[0], strict=True)
    found, n_bounds = kernels.promising_pairs(pairs, 0)
    np.testing.assert_array_equal(found, wanted[1][0], strict=True)
    assert len(found) > room
    assert n_bounds == wanted[1][1]
