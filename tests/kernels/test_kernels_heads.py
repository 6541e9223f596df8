"""Bounds and counts of formulas with a known head against their definition, formula by formula."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.kernels import heads as kernels
from ccx.kernels.cpu import heads as cpu_kernels
from ccx.typing import BoolArray, Int32Array, IntArray
from tests.reference import heads as reference
from tests.support.planes import CASES, Case, case_of


class Problem:
    """One head of a case, what all concepts share with it, and which others may be positive."""

    def __init__(self, case: Case, head: int, later: BoolArray) -> None:
        self.case, self.head, self.later = case, head, later
        self.free = case.usable.copy()
        self.free[head] = False
        member = case.member.astype(np.int64)
        self.singles = np.stack([case.atoms.cells, case.counts]) @ member
        with_all = [member.T * weights @ member for weights in (case.atoms.cells, case.counts)]
        self.rows = np.stack(with_all)  # of all concepts
        inside = member[:, head]
        self.split = kernels.split_of(
            head,
            case.values @ member,
            case.gains @ member,
            (case.values * inside) @ member,
            (case.gains * inside) @ member,
        )

    def open(self, least: int) -> tuple[Int32Array, int]:
        return kernels.open_formulas(self.split, self.free, self.later, least)

    def counted(self, formulas: Int32Array, least: int, by_second: bool = False) -> IntArray:
        """Count formulas, with rows of the one or the other of the two concepts beside the head."""
        case = self.case
        wanted = np.unique(formulas[:, 2 if by_second else 1])
        rows = np.ascontiguousarray(self.rows[:, wanted])
        return kernels.counted(
            case.atoms, case.counts, self.head, formulas, self.singles, self.rows[:, self.head], wanted, rows,
            (case.q, case.p, least),
        )  # fmt: skip

    def every(self) -> list[reference.Triple]:
        return reference.formulas_of(self.head, self.free, self.later)

    def bound(self, formula: reference.Triple) -> int:
        return reference.bound(self.case.member, self.case.values, self.head, formula)

    def value(self, formula: reference.Triple) -> int:
        return int(self.case.values[reference.satisfying(self.case.member, formula)].sum())


def problem_of(case: Case, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    later = case.usable & (rng.random(case.usable.size) < rng.choice([0.6, 1.0]))
    return Problem(case, int(rng.integers(case.usable.size)), later)


PROBLEMS = st.builds(problem_of, CASES, st.integers(0, 2**32 - 1))


def formulas_of(rows: IntArray) -> list[reference.Triple]:
    return [reference.canonical(row) for row in rows[:, :5].tolist()]


@given(problem=PROBLEMS, quantile=st.sampled_from([0.0, 0.5, 0.9, 1.0]), above=st.sampled_from([0, 1]))
def test_open_formulas_are_those_whose_bound_reaches(problem: Problem, quantile: float, above: int) -> None:
    """No formula is lost, none comes twice, and no bound is looser than its definition; ties are kept."""
    every = problem.every()
    bounds = [problem.bound(formula) for formula in every]
    assert all(bound >= problem.value(formula) for bound, formula in zip(bounds, every, strict=True))
    least = int(np.quantile(bounds, quantile, method="nearest")) + above if bounds else 0
    found, n_bounds = problem.open(least)
    lowest = -(10**18)
    triples = formulas_of(problem.counted(found, lowest)) if len(found) else []
    wanted = [formula for formula, bound in zip(every, bounds, strict=True) if bound >= least]
    assert Counter(triples) == Counter(wanted)
    assert n_bounds >= len(found)
    np.testing.assert_array_equal(kernels.still_open(problem.split, found, least), True)
    higher = least + 1
    still = kernels.still_open(problem.split, found, higher)
    assert still.sum() == sum(bound >= higher for bound in bounds)


@given(problem=PROBLEMS, above=st.sampled_from([0, 1]))
def test_pairs_with_a_head(problem: Problem, above: int) -> None:
    """Ties are kept, and AND NOT takes any usable concept."""
    case, head = problem.case, problem.head
    every = []
    for c, operator in product(np.flatnonzero(problem.free).tolist(), range(3)):
        if operator == reference.AND_NOT or problem.later[c]:
            inside = reference.apply(case.member[:, head], operator, case.member[:, c])
            hits, size = int(case.counts[inside].sum()), int(case.atoms.cells[inside].sum())
            every.append(([head, c, operator, hits, size], case.q * hits - case.p * (size - hits)))
    least = int(np.median([value for _, value in every])) + above if every else 0
    shared = problem.rows[:, head]
    got = kernels.good_pairs(head, problem.singles, shared, case.usable, problem.later, (case.q, case.p, least))
    assert got.tolist() == [row for row, value in every if value >= least]


@given(problem=PROBLEMS, data=st.data(), by_second=st.booleans())
def test_counts(problem: Problem, data: Any, by_second: bool) -> None:
    case = problem.case
    everything, _ = problem.open(-(10**18))
    if not len(everything):
        return
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    formulas = everything[rng.random(len(everything)) < rng.choice([0.1, 1.0])]
    if not len(formulas):
        return
    rows = problem.counted(formulas, -(10**18), by_second)
    assert len(rows) == len(formulas)
    for formula, (hits, size) in zip(formulas_of(rows), rows[:, 5:].tolist(), strict=True):
        inside = reference.satisfying(case.member, formula)
        assert (hits, size) == (case.counts[inside].sum(), case.atoms.cells[inside].sum())
    values = case.q * rows[:, 5] - case.p * (rows[:, 6] - rows[:, 5])
    least = int(data.draw(st.sampled_from(sorted(values.tolist()))))
    np.testing.assert_array_equal(problem.counted(formulas, least, by_second), rows[values >= least])


@pytest.mark.parametrize("room", [1, 5])
def test_lists_longer_than_thought(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "_ROOM", room)
    problem = problem_of(case_of(3, 9, 65), 1)
    py_open, py_counted = (
        getattr(kernel, "py_func", kernel) for kernel in (cpu_kernels.open_formulas, cpu_kernels.counted)
    )
    wanted, n_bounds = problem.open(0)
    counts = problem.counted(wanted, -(10**18))
    monkeypatch.setattr(cpu_kernels, "open_formulas", py_open)
    monkeypatch.setattr(cpu_kernels, "counted", py_counted)
    found = problem.open(0)
    assert len(wanted) > room
    np.testing.assert_array_equal(found[0], wanted, strict=True)
    assert found[1] == n_bounds
    np.testing.assert_array_equal(problem.counted(wanted, -(10**18)), counts, strict=True)
