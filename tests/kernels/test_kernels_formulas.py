from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.formula import canonical_ids, tie_key
from ccx.kernels import (
    AtomBuilder,
    Extensions,
    best_extensions,
    best_placed,
    best_singles,
    conjunction_counts,
    formula_counts,
    pack,
)
from ccx.kernels.cpu import formulas as cpu_formulas
from tests import reference
from tests.support.strategies import THREADS

SEEDS = st.integers(0, 2**32 - 1)
MOST = 2**63 - 1


def assert_same(got, wanted):
    np.testing.assert_array_equal(got, wanted, strict=True)


@st.composite
def concept_sets(draw, n_concepts=None):
    """Atoms of few or many concepts: absent, full, copies and complements of others, so that scores tie."""
    n_concepts = draw(st.integers(1, 7)) if n_concepts is None else n_concepts
    rng = np.random.default_rng(draw(SEEDS))
    n_cells = draw(st.sampled_from([1, 5, 63, 64, 65, 200]))
    masks = rng.random((n_concepts, n_cells)) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    for c in range(n_concepts):
        other = draw(st.integers(0, n_concepts - 1))
        kind = draw(st.sampled_from(["as is", "as is", "absent", "full", "copy", "complement"]))
        if kind != "as is":
            masks[c] = {"absent": False, "full": True, "copy": masks[other], "complement": ~masks[other]}[kind]
    builder = AtomBuilder((1, n_cells), n_concepts)
    builder.add_packed_masks(pack(masks)[None])
    atoms = builder.finish()
    found = list(reference.atoms_of(reference.sets_of_masks(masks[None])))
    return atoms, reference.membership(found, n_concepts)


@st.composite
def left_deep(draw, n_concepts, n_formulas=None, distinct=False):
    """Concepts int[F, length] and operators int[F, length - 1]; repeated concepts unless `distinct`."""
    n = draw(st.integers(0, 4)) if n_formulas is None else n_formulas
    length = draw(st.integers(1, min(n_concepts, 6) if distinct else 6))
    rng = np.random.default_rng(draw(SEEDS))
    concepts = np.array([rng.permutation(n_concepts)[:length] for _ in range(n)]) if distinct else None
    if not distinct or not n:
        concepts = rng.integers(0, n_concepts, (n, length))
    dtype = draw(st.sampled_from([np.int32, np.int64, np.uint8]))
    return concepts.astype(dtype), rng.integers(0, 3, (n, length - 1)).astype(dtype)


def some_weights(rng, n_rows, n_atoms):
    """Any counts, small ones or shares of half of int64."""
    most = rng.choice([3, 2**62 // max(n_atoms, 1)])
    return rng.integers(0, most, (n_rows, n_atoms)) * (rng.random((n_rows, n_atoms)) < 0.7)


# ---------------------------------------------------------------------------------------------- counts


@given(data=st.data(), case=concept_sets(), threads=THREADS, n_rows=st.sampled_from([0, 1, 2, 3]), seed=SEEDS)
def test_counts_match_the_reference(data, case, threads, n_rows, seed):
    atoms, member = case
    weights = some_weights(np.random.default_rng(seed), n_rows, atoms.n_atoms)
    formulas = data.draw(left_deep(atoms.n_concepts))
    assert_same(
        formula_counts(atoms, weights, *formulas, threads=threads),
        reference.formula_counts(member, weights, *formulas),
    )
    assert_same(
        conjunction_counts(atoms, weights, *formulas, threads=threads),
        reference.conjunction_counts(member, weights, *formulas),
    )


def test_counts_take_lists():
    builder = AtomBuilder((1, 4), 2)
    builder.add_label_maps(np.array([[[1, 2, 0, 1], [0, 1, 0, 2]]]))
    atoms = builder.finish()
    assert formula_counts(atoms, [atoms.cells.tolist()], [[0], [1]], [[], []]).tolist() == [[3, 2]]
    assert formula_counts(atoms, atoms.cells[None], [[0, 1], [0, 1], [0, 1]], [[0], [1], [2]]).tolist() == [[3, 2, 1]]
    assert conjunction_counts(atoms, atoms.cells[None], [[0, 1]], [[2]]).tolist() == [[[1, 0]]]


# ---------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_the_canonical_form_is_that_of_formulas(length):
    """Of every formula of distinct concepts; extended concept by concept as the search does."""
    for concepts in permutations(range(length)):
        for operators in product(range(3), repeat=length - 1):
            wanted = reference.canonical(concepts, operators)
            assert wanted == canonical_ids(concepts, operators)
            assert reference.tie_key((concepts, operators)) == tie_key(concepts, operators)
            ids, ops = np.array(concepts[:1], np.int32), np.empty(0, np.uint8)
            for concept, operator in zip(concepts[1:], operators, strict=True):
                longer = np.empty(ids.size + 1, np.int32), np.empty(ids.size, np.uint8)
                cpu_formulas.extend_canonical(ids, ops, concept, operator, *longer)
                ids, ops = longer
            assert (tuple(ids.tolist()), tuple(ops.tolist())) == wanted


@given(data=st.data())
def test_long_formulas_extend_to_their_canonical_form(data):
    length = data.draw(st.integers(1, 64))
    concepts = data.draw(st.permutations(range(length + 3)))[: length + 1]
    operators = data.draw(st.lists(st.integers(0, 2), min_size=length, max_size=length))
    ids, ops = reference.canonical(concepts[:-1], operators[:-1])
    new_ids, new_ops = np.empty(length + 1, np.int32), np.empty(length, np.uint8)
    cpu_formulas.extend_canonical(
        np.array(ids, np.int32), np.array(ops, np.uint8), concepts[-1], operators[-1], new_ids, new_ops
    )
    assert (tuple(new_ids.tolist()), tuple(new_ops.tolist())) == reference.canonical(concepts, operators)


COUNTS = st.one_of(st.integers(0, 5), st.integers(0, MOST), st.integers(MOST - 3, MOST), st.just(2**32), st.just(2**53))


def fraction(i, u):
    return Fraction(i, u) if u else Fraction(0)


@given(i1=COUNTS, u1=COUNTS, i2=COUNTS, u2=COUNTS)
def test_fractions_compare_exactly(i1, u1, i2, u2):
    one, two = fraction(i1, u1), fraction(i2, u2)
    assert cpu_formulas.compare_fractions(i1, u1, i2, u2) == (one > two) - (one < two)


@given(i=st.integers(1, 2**31), u=st.integers(1, 2**31), factor=st.integers(1, 2**31), off=st.integers(-1, 1))
def test_fractions_that_floats_confuse(i, u, factor, off):
    """Equal ones in other terms, and their nearest neighbours."""
    one, two = Fraction(i, u), fraction(max(i * factor + off, 0), u * factor)
    wanted = (one > two) - (one < two)
    assert cpu_formulas.compare_fractions(i, u, max(i * factor + off, 0), u * factor) == wanted


@given(a=st.integers(0, 2**64 - 1), b=st.integers(0, 2**64 - 1))
def test_products_have_128_bits(a, b):
    high, low = cpu_formulas._product(np.uint64(a), np.uint64(b))
    assert (int(high) << 64) + int(low) == a * b


# ---------------------------------------------------------------------------------------------- choice


@given(data=st.data(), n_concepts=st.integers(0, 12), keep=st.sampled_from([1, 2, 3, 20]), large=st.booleans())
def test_best_singles_match_the_reference(data, n_concepts, keep, large):
    """Small counts tie often; large ones, up to 2**62, differ by less than floats can tell."""
    rng = np.random.default_rng(data.draw(SEEDS))
    base = 2**61 if large else 0
    sizes = base + rng.integers(0, 6, n_concepts)
    intersections = np.maximum(sizes - base // 2 - rng.integers(0, 6, n_concepts), 0) * (rng.random(n_concepts) < 0.8)
    bitmap_cells = int(base + rng.integers(5, 9))
    allowed = rng.random(n_concepts) < data.draw(st.sampled_from([0.0, 0.7, 1.0]))
    arguments = (intersections, sizes, bitmap_cells, keep, allowed)
    assert_same(best_singles(*arguments), np.array(reference.best_singles(*arguments), np.int32))


@given(data=st.data(), keep=st.sampled_from([1, 2, 3, 5, 1000]), seed=SEEDS, threads=THREADS)
def test_best_extensions_match_the_reference(data, keep, seed, threads):
    """Logically equal candidates of several parents, ties, absent and full concepts, bitmaps of no cell and of all."""
    atoms, member = data.draw(concept_sets())
    rng = np.random.default_rng(seed)
    cells = atoms.cells if data.draw(st.booleans()) else some_weights(rng, 1, atoms.n_atoms)[0]
    share = data.draw(st.sampled_from(["none", "all", "some", "atoms"]))
    bitmap = {
        "none": np.zeros_like(cells),
        "all": cells,
        "some": (cells * rng.random(cells.size)).astype(np.int64).clip(0, cells),
        "atoms": cells * (rng.random(cells.size) < 0.5),
    }[share]
    concepts, operators = data.draw(left_deep(atoms.n_concepts, distinct=True))
    parents = [reference.canonical(*map(tuple, one)) for one in zip(concepts.tolist(), operators.tolist(), strict=True)]
    parents = list(dict.fromkeys(parents))
    allowed = rng.random(atoms.n_concepts) < data.draw(st.sampled_from([0.5, 1.0, 1.0]))

    length = concepts.shape[1]
    ids = np.array([one for one, _ in parents], np.int32).reshape(len(parents), length)
    ops = np.array([one for _, one in parents], np.uint8).reshape(len(parents), length - 1)
    weights = np.stack([bitmap, cells])
    intersections, sizes = formula_counts(atoms, weights, ids, ops)
    singles = formula_counts(atoms, weights, np.arange(atoms.n_concepts)[:, None], np.zeros((atoms.n_concepts, 0), int))
    joint = conjunction_counts(atoms, weights, ids, ops, threads=threads)
    known = Extensions(ids, ops, intersections, sizes, 0)
    got = best_extensions(known, *singles, *joint, int(bitmap.sum()), keep, allowed)

    wanted, n_counted = reference.best_extensions(member, cells, bitmap, parents, keep, allowed)
    assert got.evaluated == n_counted
    assert_same(got.concepts, np.array([one.parts[0] for one in wanted], np.int32).reshape(len(wanted), length + 1))
    assert_same(got.operators, np.array([one.parts[1] for one in wanted], np.uint8).reshape(len(wanted), length))
    assert_same(got.intersections, np.array([one.intersection for one in wanted], np.int64))
    assert_same(got.sizes, np.array([one.size for one in wanted], np.int64))


@given(data=st.data(), keep=st.sampled_from([1, 2, 5, 1000]), seed=SEEDS, n_places=st.sampled_from([1, 2, 50]))
def test_best_placed_match_the_reference(data, keep, seed, n_places):
    """Few places, so that the tie order decides; the same formula, extended from several parents, has one place."""
    rng = np.random.default_rng(seed)
    n_concepts, length = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    length = min(length, n_concepts)
    parents = [
        reference.canonical(tuple(rng.permutation(n_concepts)[:length].tolist()), tuple(rng.integers(0, 3, length - 1)))
        for _ in range(data.draw(st.integers(0, 5)))
    ]
    parents = list(dict.fromkeys((ids, tuple(map(int, ops))) for ids, ops in parents))
    numbers = [
        (f * n_concepts + c) * 3 + operator
        for f, (ids, _) in enumerate(parents)
        for c in range(n_concepts)
        for operator in range(3)
        if c not in ids
    ]
    candidates = np.array(sorted(n for n in numbers if rng.random() < 0.8), np.int64)
    place_of = {}
    for number in candidates.tolist():
        pair, operator = divmod(number, 3)
        ids, ops = parents[pair // n_concepts]
        place_of.setdefault(
            reference.canonical((*ids, pair % n_concepts), (*ops, operator)), int(rng.integers(n_places))
        )
    places = np.array(
        [
            place_of[reference.canonical((*parents[n // 3 // n_concepts][0], n // 3 % n_concepts),
                                         (*parents[n // 3 // n_concepts][1], n % 3))]
            for n in candidates.tolist()
        ],
        np.int64,
    )  # fmt: skip
    known = Extensions(
        np.array([one for one, _ in parents], np.int32).reshape(len(parents), length),
        np.array([one for _, one in parents], np.uint8).reshape(len(parents), length - 1),
        np.zeros(len(parents), np.int64), np.zeros(len(parents), np.int64), 0,
    )  # fmt: skip
    chosen, concepts, operators = best_placed(known, candidates, places, n_concepts, keep)
    wanted = reference.best_placed(parents, candidates, places, n_concepts, keep)
    assert chosen.tolist() == [m for m, _ in wanted]
    assert concepts.tolist() == [list(ids) for _, (ids, _) in wanted]
    assert operators.tolist() == [list(ops) for _, (_, ops) in wanted]


def test_best_placed_refuses_what_is_no_list_of_candidates():
    parents = Extensions(np.zeros((1, 1), np.int32), np.zeros((1, 0), np.uint8), *np.ones((2, 1), np.int64), 0)
    good, places = np.array([3, 5]), np.zeros(2, np.int64)
    best_placed(parents, good, places, 2, 1)
    with pytest.raises(InputError, match="keep: expected an integer >= 1, got 0"):
        best_placed(parents, good, places, 2, 0)
    with pytest.raises(InputError, match="candidates: expected values from 0 to 5, got values from 3 to 6"):
        best_placed(parents, good + np.array([0, 1]), places, 2, 1)
    with pytest.raises(ShapeError, match=r"places: expected int64\[2\], got int64\[1\]"):
        best_placed(parents, good, places[:1], 2, 1)
    with pytest.raises(DTypeError, match=r"candidates: expected int64\[2\], got int32\[2\]"):
        best_placed(parents, good.astype(np.int32), places, 2, 1)


def test_a_tie_that_floats_put_below_the_worst_place_is_kept():
    """i / u = ki / ku, but in floats ki < (i / u) * ku: the one place must still go to the smaller ids."""
    rng = np.random.default_rng(0)
    while True:
        i, u, k = (int(n) for n in rng.integers(2**18, 2**20, 3))
        if i < u and float(k * i) < (i / u) * float(k * u):
            break
    joint = np.array([[i, 0, 0], [k * i, 0, 0]])  # of (2 AND 0) and (1 AND 0); no other candidate meets the bitmap
    joint_sizes = np.array([[u + i, 0, 0], [k * (u + i), 0, 0]])
    ids, zeros = np.array([[2], [1]], np.int32), np.zeros(3, np.int64)
    parents = Extensions(ids, np.zeros((2, 0), np.uint8), joint[:, 0], joint_sizes[:, 0], 0)
    best = best_extensions(parents, zeros, zeros, joint, joint_sizes, 0, 1, np.array([True, False, False]))
    assert (best.concepts.tolist(), best.intersections.tolist()) == ([[0, 1]], [k * i])


# ---------------------------------------------------------------------------------------------- errors


def test_errors_name_argument_got_and_wanted():
    builder = AtomBuilder((1, 3), 2)
    builder.add_label_maps(np.array([[[1, 2, 0]]]))
    atoms = builder.finish()
    weights, concepts, operators = atoms.cells[None], np.array([[0, 1]]), np.array([[1]])
    for function in (formula_counts, conjunction_counts):
        with pytest.raises(
            DTypeError, match=r"weights: expected int64\[M, 3\], one weight per atom, got float64\[1, 3\]"
        ):
            function(atoms, weights * 1.0, concepts, operators)
        for wrong in (weights[0], weights[:, :2]):
            with pytest.raises(ShapeError, match=r"weights: expected int64\[M, 3\], one weight per atom, got int64\["):
                function(atoms, wrong, concepts, operators)
        for wrong in (concepts[0], concepts[:, :0]):
            with pytest.raises(ShapeError, match=r"concepts: expected int32\[F, length >= 1\], got int64\["):
                function(atoms, weights, wrong, operators)
        with pytest.raises(ShapeError, match=r"operators: expected uint8\[1, 1\], got int64\[1, 2\]"):
            function(atoms, weights, concepts, np.array([[1, 1]]))
        with pytest.raises(DTypeError, match=r"concepts: expected integers, got float64\[1, 2\]"):
            function(atoms, weights, concepts * 1.0, operators)
        with pytest.raises(DTypeError, match=r"operators: expected integers, got bool\[1, 1\]"):
            function(atoms, weights, concepts, operators > 0)
        for wrong, got in [([[0, 2]], "0 to 2"), ([[-1, 0]], "-1 to 0")]:
            with pytest.raises(InputError, match=rf"concepts: expected values from 0 to 1, got values from {got}"):
                function(atoms, weights, wrong, operators)
        with pytest.raises(InputError, match="operators: expected values from 0 to 2, got values from 3 to 3"):
            function(atoms, weights, concepts, [[3]])
        with pytest.raises(InputError, match="threads: expected None or an integer >= 1, got 0"):
            function(atoms, weights, concepts, operators, threads=0)

    counts, joint, allowed = np.ones(2, np.int64), np.ones((1, 2), np.int64), np.ones(2, np.bool_)
    parents = Extensions(np.zeros((1, 1), np.int32), np.zeros((1, 0), np.uint8), counts[:1], counts[:1], 0)
    singles = {"intersections": counts, "sizes": counts, "bitmap_cells": 3, "keep": 2, "allowed": allowed}
    extensions = singles | {"parents": parents, "joint_intersections": joint, "joint_sizes": joint}
    for function, good in ((best_singles, singles), (best_extensions, extensions)):
        function(**good)
        with pytest.raises(InputError, match="keep: expected an integer >= 1, got 0"):
            function(**good | {"keep": 0})
        with pytest.raises(DTypeError, match=r"allowed: expected bool\[C\], got int64\[2\]"):
            function(**good | {"allowed": counts})
        for argument in ("intersections", "sizes"):
            with pytest.raises(ShapeError, match=rf"{argument}: expected int64\[2\], got int64\[1\]"):
                function(**good | {argument: counts[:1]})
            with pytest.raises(DTypeError, match=rf"{argument}: expected int64\[2\], got int32\[2\]"):
                function(**good | {argument: counts.astype(np.int32)})
    for argument in ("joint_intersections", "joint_sizes"):
        with pytest.raises(ShapeError, match=rf"{argument}: expected int64\[1, 2\], got int64\[2\]"):
            best_extensions(**extensions | {argument: counts})
