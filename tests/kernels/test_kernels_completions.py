"""What `expand` says of a formula's completions, against all of them, where each term of its bounds is needed.

Problems are given by their atoms, {concepts: value}; a letter is a concept. Values are exact, and the least that is
wanted is the best that there is, so that a bound that lacks a term cuts it off.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from ccx.concepts import Concepts
from ccx.kernels import completions as kernels
from ccx.kernels.completions import Effort
from ccx.kernels.concept_pairs import pairs_of
from tests.support.histograms import expanded, histogram, is_sorted

OR, AND, AND_NOT = 0, 1, 2
SETS = Effort()  # sets of operations are searched
SIFTED = Effort(few=0)  # operations are sifted before, each in turn as the best of a set
SIFTED_ONCE = Effort(few=0, turns=1)  # each by its own largest overlaps
EFFORTS = [
    SETS,
    SIFTED,
    SIFTED_ONCE,
    Effort(steps=0),
    Effort(steps=12),
    Effort(many=0),
    Effort(few=0, turns=2),
    Effort(few=0, partners=1),
    Effort(few=0, partners=1, turns=1),
    Effort(few=0, partners=2, turns=3),
]


class Formulas(NamedTuple):
    """int[F, n] concepts by rank, as many operators, an OR before the first; bool[F, G] atoms that satisfy each."""

    concepts: np.ndarray
    operators: np.ndarray
    inside: np.ndarray

    def extended(self, member, concepts, operators=(OR, AND, AND_NOT)):
        """Return all extensions of all formulas by one of the concepts that they do not hold."""
        parts = []
        for c in concepts:
            ids, ops, inside = (array[~(self.concepts == c).any(axis=1)] for array in self)
            for op in operators if ids.shape[1] else [OR]:
                after = (inside | member[c], inside & member[c], inside & ~member[c])[op]
                parts.append((np.insert(ids, ids.shape[1], c, axis=1), np.insert(ops, ops.shape[1], op, axis=1), after))
        return Formulas(*map(np.concatenate, zip(*parts, strict=True)))


class Problem:
    """The completions of a formula by `longer` concepts; letters and operators of the formula are given."""

    def __init__(self, atoms, letters, operators, longer):
        names = sorted(set("".join(atoms)))
        cells = [(concepts, value > 0) for concepts, value in atoms.items() for _ in range(abs(value))]
        masks = np.array([[name in concepts for concepts, _ in cells] for name in names])
        concepts = Concepts.from_masks(masks.reshape(len(names), 1, 1, -1))
        self.atoms, self.counts = concepts.atoms, histogram(np.array([inside for _, inside in cells]), concepts)
        every = np.ones(len(names), bool)
        self.pairs = pairs_of(self.atoms, self.counts, 1, 1, every)
        self.names = "".join(names[c] for c in self.pairs.order)
        self.begun, self.longer = (tuple(map(self.names.index, letters)), operators), longer
        values, ranks = np.array(list(atoms.values())), range(len(names))
        member = np.array([[name in concepts for concepts in atoms] for name in self.names])
        nothing = Formulas(np.zeros((1, 0), int), np.zeros((1, 0), int), np.zeros((1, len(atoms)), bool))

        self.shorter = []  # for each length: concepts, values
        formulas = nothing
        for _ in range(1, len(letters) + longer):
            formulas = formulas.extended(member, ranks)
            self.shorter.append((formulas.concepts, formulas.inside @ values))

        formulas = nothing
        for c, op in zip(self.begun[0], (OR, *operators), strict=True):
            formulas = formulas.extended(member, [c], [op])
        for _ in range(longer):
            formulas = formulas.extended(member, ranks)
        lists = formulas.concepts.tolist(), formulas.operators[:, 1:].tolist(), (formulas.inside @ values).tolist()
        self.completions = list(zip(*lists, strict=True))

    def most(self, main):
        """int64[length]: the most value of formulas of up to so many concepts, and the same without the main one."""
        most = np.zeros((2, 1 + len(self.shorter)), np.int64)
        for k, (concepts, values) in enumerate(self.shorter, 1):
            beside = values[~(concepts == main).any(axis=1)]
            most[:, k] = np.maximum(most[:, k - 1], [values.max(initial=0), beside.max(initial=0)])
        return most

    def check(self, least, effort, main):
        """See that no completion which reaches `least` is above its bound, or left out where all are counted."""
        main = self.names.index(main) if main else -1
        space = kernels.space_of(self.atoms, self.counts, self.pairs, main, effort)
        children, found, _ = expanded(space, self.atoms, *self.begun, self.longer, least, *self.most(main))
        bounds = {(c, op): bound for c, op, bound in children.tolist()}
        n, wanted = len(self.begun[0]), set()
        for concepts, operators, value in self.completions:
            if value >= least and is_sorted(concepts, operators, n):
                more = concepts[n:], operators[n - 1 :]
                wanted.add((more[0][0], more[1][0], more[0][1], more[1][1]))
                if self.longer > 2:
                    assert bounds.get((more[0][0], more[1][0]), -1) >= value, (self.names, concepts, operators, effort)
        if self.longer == 2:
            assert set(map(tuple, found.tolist())) == wanted


# Three concepts beside s. Alone they add 5, 4 and 3. Each two add 1 more than that: the 3 that both lose counts once,
# as does the 2 that both gain. All three add 2 more than their pairs say, which take away that gain once too often.
THREE = {"s": 50, "c": 9, "d": 8, "e": 7, "cd": -3, "ce": -3, "de": -3, "cde": 2}
# Each two lose 3 outside s, and gain as much inside: their overlap is worth nothing.
LEVEL = {"scd": 3, "sce": 3, "sde": 3, "cd": -3, "ce": -3, "de": -3}


def taken_away(atoms):
    """The same inside s, with signs exchanged: what OR adds there, AND NOT adds here."""
    return {"s": 50, **{f"s{name}": -value for name, value in atoms.items() if name != "s"}}


PLANTED = [
    # What three concepts share: gains outside s, losses inside.
    (THREE, "scde", (OR, OR, OR), 67),
    (taken_away(THREE), "scde", (AND_NOT, AND_NOT, AND_NOT), 50),
    # Beside the best operation, which has nothing to do with the other three.
    ({**THREE, "b": 20}, "sbcde", (OR, OR, OR, OR), 87),
    (taken_away({**THREE, "b": 20}), "scdeb", (AND_NOT, AND_NOT, AND_NOT, AND_NOT), 50),
    # OR adds what two lose outside, AND NOT what they gain inside.
    ({"s": 50, "c": 9, "d": 8, "e": 7, **LEVEL}, "scde", (OR, OR, OR), 74),
    ({"s": 50, "sc": -9, "sd": -8, "se": -7, **LEVEL}, "scde", (AND_NOT, AND_NOT, AND_NOT), 50),
    # AND NOT d takes from c what c loses; OR c brings back of d what gains.
    ({"s": 50, "c": 9, "sd": -4, "cd": -5, "e": 3}, "sced", (OR, OR, AND_NOT), 62),
    ({"s": 50, "c": 4, "sd": -9, "scd": 5, "se": -3}, "sdec", (AND_NOT, AND_NOT, OR), 59),
    # Of the partners of c, those that overlap most, x and y, only gain with it; what it loses is shared with z.
    (
        {"s": 50, "z": 9, "w": 8, "c": -7, "cx": 5, "cy": 5, "cz": -3, "x": -20, "y": -20},
        "sczw",
        (OR, OR, OR),
        67,
    ),
]


@pytest.mark.parametrize("effort", [SETS, SIFTED, SIFTED_ONCE], ids=["sets", "sifted", "sifted-once"])
@pytest.mark.parametrize(("atoms", "letters", "operators", "value"), PLANTED)
def test_what_operations_share_is_not_forgotten(atoms, letters, operators, value, effort):
    problem = Problem(atoms, "s", (), len(operators))
    best = [problem.names.index(letter) for letter in letters], list(operators), value
    assert best in problem.completions
    assert value == max(value for *_, value in problem.completions)
    problem.check(value, effort, "s")


def is_inside(concepts, letters, operators):
    """Whether a formula holds on an atom."""
    inside = letters[0] in concepts
    for letter, op in zip(letters[1:], operators, strict=True):
        inside = (inside or letter in concepts, inside and letter in concepts, inside and letter not in concepts)[op]
    return inside


def random_atoms(rng, letters, operators, others):
    """Atoms inside a formula or outside, or both; other concepts gain or lose at random, the more the fewer overlap."""
    placed = {True: [], False: []}
    for chosen in product([False, True], repeat=len(letters)):
        part = "".join(letter for letter, is_chosen in zip(letters, chosen, strict=True) if is_chosen)
        placed[is_inside(part, letters, operators)].append(part)
    atoms = {rng.choice(placed[True]): int(rng.choice([1, 20, 50]))}
    places = [(True,), (False,), (True, False)][rng.integers(3)]
    for k in range(1, len(others) + 1):
        for some, inside in product(combinations(others, k), places):
            # The more often signs alternate, the more often is an overlap of three needed.
            sign = (-1) ** (k + inside + (rng.random() < 0.7))
            value = sign * int(rng.integers(0, 10 if k == 1 else 5)) * (rng.random() < (1, 0.9, 0.7, 0.3)[k - 1])
            if value:
                atoms[rng.choice(placed[inside]) + "".join(some)] = value
    missing = set(letters + others) - set("".join(atoms))
    return {**atoms, **dict.fromkeys(sorted(missing), -1)}


# How many concepts begin, how many follow, and of how many others: problems an example, the fewer the longer they take.
SHAPES = {
    (1, 3, 3): 6,
    (1, 3, 4): 4,
    (1, 4, 4): 2,
    (2, 2, 3): 3,
    (2, 3, 3): 4,
    (2, 4, 4): 1,
    (3, 2, 2): 3,
    (3, 3, 3): 1,
}


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from(list(SHAPES)),
    operators=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_no_completion_is_cut_off(seed, shape, operators):
    """Random signed atoms, formulas that begin with any operators, bounds refined more or less."""
    rng = np.random.default_rng(seed)
    n, longer, n_others = shape
    letters, operators = "stu"[:n], operators[: n - 1]
    for _ in range(SHAPES[shape]):
        atoms = random_atoms(rng, letters, operators, "cdef"[:n_others])
        note(repr(atoms))
        problem = Problem(atoms, letters, operators, longer)
        values = [value for *_, value in problem.completions]
        for main, effort in product([None, "s"], EFFORTS):
            for least in (max(values), int(np.quantile(values, 0.9))):
                problem.check(least, effort, main)
