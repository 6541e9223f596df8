"""The proven optimum equals brute force over every formula."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.search import SearchOptions, beam_search, shorter
from ccx.search.beam import JointCounts
from ccx.search.found import Objective
from ccx.search.optimal import optimal_search
from ccx.search.planes import Cover, Threshold
from tests.reference.optimal_oracle import Best, best_formulas, every_formula, problems
from tests.reference.scores_oracle import best_by, scoring_of
from tests.support.histograms import histogram
from tests.support.parity_cases import CASES_WITH_UNITS, load_case


def search(masks, bitmap, allowed=None, **options):
    concepts = Concepts.from_masks(masks.reshape(len(masks), 1, 1, -1))
    result = optimal_search(concepts, histogram(bitmap, concepts), SearchOptions(**options), allowed, threads=1)
    return [Best(one.concepts, one.operators, one.intersection, one.union) for one in result.found]


@given(
    seed=st.integers(0, 2**32 - 1),
    n_concepts=st.integers(1, 7),
    n_cells=st.sampled_from([1, 5, 20, 63, 64, 65]),
    length=st.integers(1, 3),
    top=st.sampled_from([1, 1, 2, 7]),
    penalty=st.sampled_from([1.0, 1.0, 0.95, 0.5]),
    beam=st.integers(1, 4),
)
def test_it_equals_brute_force(seed, n_concepts, n_cells, length, top, penalty, beam):
    masks, bitmap = problems(np.random.default_rng(seed), n_concepts, n_cells)
    wanted = best_formulas(every_formula(masks, bitmap, length), top, penalty)
    assert search(masks, bitmap, length=length, top=top, length_penalty=penalty, beam=beam) == wanted


@given(seed=st.integers(0, 2**32 - 1), n_concepts=st.integers(2, 6))
def test_only_allowed_concepts_occur(seed, n_concepts):
    rng = np.random.default_rng(seed)
    masks, bitmap = problems(rng, n_concepts, 40)
    allowed = rng.random(n_concepts) < 0.6
    wanted = best_formulas(every_formula(masks, bitmap, 3, np.flatnonzero(allowed).tolist()), 1)
    assert search(masks, bitmap, allowed, length=3) == wanted


@given(seed=st.integers(0, 2**32 - 1))
def test_many_ties(seed):
    """A few cells and many concepts that look alike: most formulas tie with others."""
    rng = np.random.default_rng(seed)
    masks, bitmap = rng.random((6, 4)) < 0.5, rng.random(4) < 0.5
    wanted = best_formulas(every_formula(masks, bitmap, 3), 5)
    assert search(masks, bitmap, length=3, top=5) == wanted


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["small_and_pure", "precision"]), top=st.integers(1, 40))
def test_every_concept_is_a_head_where_nothing_need_be_gained(seed, name, top):
    """A plane that says nothing, and planes through the origin."""
    masks, bitmap = problems(np.random.default_rng(seed), 5, 40)
    b, n = int(bitmap.sum()), bitmap.size
    wanted = best_by(every_formula(masks, bitmap, 3), name, b, n, top) if b else []
    for one_by_one in (True, False):  # or the rows of all concepts at once
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(shorter, "_ROWS", 99 if one_by_one else 0)
            assert search(masks, bitmap, length=3, top=top, scoring=scoring_of(name)) == wanted


@given(seed=st.integers(0, 2**32 - 1), top=st.sampled_from([1, 3, 9]))
def test_heads_that_tie(seed, top):
    """Concepts of equal gain, some of them equal, of which any may be the head: none is lost or comes twice."""
    rng = np.random.default_rng(seed)
    bitmap = np.repeat([True, False], [36, 12])
    masks = np.zeros((6, 48), bool)
    for c in range(6):
        masks[c, (12 * rng.integers(3) + np.arange(12 + rng.integers(3))) % 48] = True
    wanted = best_formulas(every_formula(masks, bitmap, 3), top)
    assert search(masks, bitmap, length=3, top=top, beam=1) == wanted


def test_rows_are_asked_for_where_bounds_do_not_decide(monkeypatch):
    """One at a time, and few: most concepts share too little with any head."""
    monkeypatch.setattr(shorter, "_GROUP", 1)
    asked = []
    of_singles = JointCounts.of_singles

    def watched(counts, chosen):
        asked.extend(chosen.tolist())
        return of_singles(counts, chosen)

    monkeypatch.setattr(JointCounts, "of_singles", watched)
    rng = np.random.default_rng(7)
    masks = rng.random((40, 600)) < 0.02
    masks[0, :150], masks[1, 130:300], masks[2, 100:140] = True, True, True
    bitmap = (masks[0] | masks[1]) & ~masks[2] ^ (rng.random(600) < 0.05)
    (best,) = search(masks, bitmap, length=3, beam=1)
    assert (best.concepts, best.operators) == ((0, 1, 2), (0, 2))
    assert {0, 1} <= set(asked)
    assert len(set(asked)) < 10


def test_it_beats_a_narrow_beam_where_that_falls_short():
    rng = np.random.default_rng(11)
    short = 0
    for _ in range(200):
        masks, bitmap = problems(rng, 6, 60)
        concepts = Concepts.from_masks(masks.reshape(6, 1, 1, -1))
        counts, settings = histogram(bitmap, concepts), SearchOptions(beam=1)
        beam = beam_search(concepts, counts, settings, threads=1).found
        best = optimal_search(concepts, counts, settings, threads=1).found
        if beam:
            precedence = Objective.of(settings, int(counts.sum()), 60).precedence
            assert precedence(best[0]) <= precedence(beam[0])
            short += best[0].iou > beam[0].iou
    assert short > 5  # else this test compares nothing


@given(
    iou=st.fractions(0, 1, max_denominator=10**6),
    n_cells=st.sampled_from([10, 10**6, 10**12, 10**18]),
    data=st.data(),
    strict=st.booleans(),
)
def test_a_plane_keeps_every_formula_that_reaches_the_threshold(iou, n_cells, data, strict):
    i = data.draw(st.integers(0, n_cells))
    e = data.draw(st.integers(0, n_cells - i))
    b = i + data.draw(st.integers(0, n_cells - i - e))
    if b == 0:
        return
    cover = Cover(Objective.of(SearchOptions(), b, n_cells))
    threshold = Threshold(iou, strict)
    planes = cover.planes(threshold)
    reached = Fraction(i, b + e)
    if reached > iou or (reached == iou and not strict):
        (plane,) = planes
        assert plane.p >= 0
        assert max(plane.q, plane.p) * n_cells <= 2**60
        assert plane.q * i - plane.p * e >= cover.least(plane, threshold)


@pytest.mark.parametrize(
    ("options", "argument"),
    [({"candidates": 1}, "candidates")],
)
def test_what_cannot_be_proven_is_refused(options, argument):
    with pytest.raises(InputError, match=f"{argument}: expected .* for a proof"):
        search(np.ones((2, 4), bool), np.ones(4, bool), **options)
    one_allowed = np.array([False, True])
    assert search(np.ones((2, 4), bool), np.ones(4, bool), one_allowed, **options) == [Best((1,), (), 4, 4)]


@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 3), penalty=st.sampled_from([1.0, 0.9]))
def test_explain_certifies_what_it_returns(seed, length, penalty):
    rng = np.random.default_rng(seed)
    masks, bitmap = problems(rng, 5, 48)
    options = {"length": length, "length_penalty": penalty, "threads": 1}
    arrays = bitmap.reshape(1, 4, 3, 4), masks.reshape(5, 4, 3, 4)
    (proven,) = ccx.explain_bitmaps(*arrays, search="optimal", **options)
    (beam,) = ccx.explain_bitmaps(*arrays, search="beam", **options)
    best = best_formulas(every_formula(masks, bitmap, length), 1, penalty)
    assert (beam.optimal, beam.upper_bound, beam.gap, beam.evaluations) == (False, None, None, 0)
    if not bitmap.any():
        assert (proven.status, proven.optimal, proven.upper_bound, proven.gap) == ("empty", True, 0.0, 0.0)
        return
    assert proven.optimal
    assert proven.gap == 0
    assert beam.score <= proven.score == proven.upper_bound
    if best:
        assert (proven.intersection, proven.union) == (best[0].intersection, best[0].union)
        assert proven.evaluations >= proven.visited > 0 or length == 1
    else:
        assert (proven.status, proven.score) == ("no_overlap", 0.0)


@pytest.mark.parametrize("case", CASES_WITH_UNITS)
def test_parity_optima_are_met_exactly(case):
    parity = load_case(case)
    concepts = Concepts.from_masks(parity.masks)
    compared = 0
    for bitmap in (one for unit in parity.units for one in unit.bitmaps):
        for best in bitmap.exhaustive:
            options = {"length": best.length, "search": "optimal", "threads": 1}
            (found,) = ccx.explain_bitmaps(bitmap.cells[None], concepts, **options)
            if best.intersection:
                assert (found.intersection, found.union, found.optimal) == (best.intersection, best.union, True)
                compared += 1
            else:
                assert found.formula is None
    assert compared > 10


def test_a_proof_of_nothing_says_so_wherever_there_is_nothing():
    """A bitmap without cells, for whichever reason, and one that no concept meets: no formula, and that is proven."""
    masks = np.zeros((2, 3, 2, 4), bool)
    masks[0, :, 0] = True
    maps = np.zeros((3, 5, 2, 4), np.float32)
    maps[:, 1] = 2.5  # constant
    maps[:, 2, 1] = maps[:, 3, 1, ::2] = 1.0  # two values; where no concept is
    maps[:, 4] = np.arange(8).reshape(2, 4)
    for search in ("optimal", "beam", "none"):
        for limits in ({}, {"time_limit": 0}, {"evaluation_limit": 0}) if search == "optimal" else ({},):
            options = {"search": search, "progress": False, **limits}
            found = [*ccx.explain(maps, masks, clusters=2, **options)]
            found += ccx.explain(maps, masks, units=[3, 4], ranges=[(0.5, np.inf), (50.0, 60.0)], **options)
            found += ccx.explain_bitmaps(np.zeros((1, 3, 2, 4), bool), masks, **options)
            nothing = [one for one in found if one.formula is None]
            assert {str(one.status) for one in nothing} == {"silent", "constant", "single_value", "empty", "no_overlap"}
            for one in nothing:
                proven = (True, 0.0, 0.0, 0) if search == "optimal" else (False, None, None, 0)
                assert (one.optimal, one.upper_bound, one.gap, one.evaluations) == proven
