"""Every score: its values and ranks, and the searches that maximise it against brute force on unpacked booleans."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ccx
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.kernels import bitmap_histogram, pack
from ccx.scores import SCORES, SLACK, Custom, resolve
from ccx.search import Objective, SearchOptions, beam_search, optimal_search
from ccx.search.planes import Cover, Threshold
from tests.reference import beam_oracle
from tests.reference.optimal_oracle import Best, every_formula, problems
from tests.reference.scores_oracle import CUSTOM, EVERY, MEASURES, best_by, measure_of, rank, score_of, scoring_of

SEEDS = st.integers(0, 2**32 - 1)
PENALTIES = st.sampled_from([1.0, 1.0, 0.95, 0.5])
FEWER = settings(max_examples=settings.default.max_examples // 4)  # of each of 11 scores


@st.composite
def hard_problems(draw, max_concepts=6):
    """Masks bool[C, P] and a bitmap bool[P]: disjoint, overlapping, nested, copied, empty, full, planted formulas."""
    rng = np.random.default_rng(draw(SEEDS))
    n_concepts = draw(st.integers(1, max_concepts))
    n_cells = draw(st.sampled_from([1, 4, 5, 20, 63, 64, 65, 200]))
    masks, bitmap = problems(rng, n_concepts, n_cells)
    special = draw(st.sampled_from(["none"] * 6 + ["empty", "full", "bitmap", "everything", "nothing", "few cells"]))
    if special == "empty":
        masks[0] = False
    elif special == "full":
        masks[0] = True
    elif special == "bitmap":
        masks[0] = bitmap
    elif special == "everything":
        bitmap[:] = True
    elif special == "nothing":
        bitmap[:] = False
    elif special == "few cells":
        bitmap = rng.random(n_cells) < 1.5 / n_cells
    return masks, bitmap


def search_of(masks, bitmap, search, **options):
    concepts = Concepts.from_masks(masks.reshape(len(masks), 1, 1, -1))
    (counts,) = bitmap_histogram(pack(bitmap.reshape(1, 1, -1)), concepts.atoms)
    result = search(concepts, counts, SearchOptions(**options), threads=1)
    return [Best(one.concepts, one.operators, one.intersection, one.union) for one in result.found]


@FEWER
@pytest.mark.parametrize("name", EVERY)
@given(
    problem=hard_problems(),
    length=st.integers(1, 3),
    top=st.sampled_from([1, 1, 2, 7]),
    penalty=PENALTIES,
    beam=st.integers(1, 4),
)
def test_the_optimum_equals_brute_force(name, problem, length, top, penalty, beam):
    masks, bitmap = problem
    wanted = best_by(every_formula(masks, bitmap, length), name, int(bitmap.sum()), bitmap.size, top, penalty)
    options = {"scoring": scoring_of(name), "length": length, "top": top, "length_penalty": penalty, "beam": beam}
    assert search_of(masks, bitmap, optimal_search, **options) == wanted


@FEWER
@pytest.mark.parametrize("name", EVERY)
@given(problem=hard_problems(), length=st.integers(1, 2), top=st.sampled_from([1, 3, 50]), penalty=PENALTIES)
def test_the_beam_at_full_width_equals_brute_force(name, problem, length, top, penalty):
    """A formula of two concepts is met if one of its parents has a score above 0."""
    masks, bitmap = problem
    b, n = int(bitmap.sum()), bitmap.size
    every = every_formula(masks, bitmap, length)
    known = {(one.concepts, one.operators): rank(one, name, b, n) for one in every}
    met = [
        one
        for one in every
        if len(one.concepts) == 1
        or known.get(((one.concepts[0],), ()), 0) > 0
        or (one.operators[0] != 2 and known.get(((one.concepts[1],), ()), 0) > 0)
    ]
    wanted = best_by(met, name, b, n, top, penalty)
    options = {"scoring": scoring_of(name), "length": length, "top": top, "length_penalty": penalty}
    assert search_of(masks, bitmap, beam_search, beam=10_000, **options) == wanted


@FEWER
@pytest.mark.parametrize("name", EVERY)
@given(
    problem=hard_problems(),
    length=st.integers(2, 4),
    beam=st.integers(1, 4),
    top=st.sampled_from([1, 3, 20]),
    penalty=PENALTIES,
)
def test_the_beam_agrees_with_the_search_as_written(name, problem, length, beam, top, penalty):
    masks, bitmap = problem
    measure = measure_of(name)
    written = beam_oracle.Problem(masks, bitmap, penalty, measure)
    wanted = [
        Best(*one.canonical, one.intersection, one.union)
        for one in beam_oracle.beam_search(written, length=length, beam=beam, top=top)
    ]
    options = {"scoring": scoring_of(name), "length": length, "top": top, "length_penalty": penalty}
    assert search_of(masks, bitmap, beam_search, beam=beam, **options) == wanted


COUNTS = st.sampled_from([2, 3, 30, 10**3, 10**9, 3 * 10**9, 2**40])


@st.composite
def counts(draw):
    """(i, f, b, n) of a formula that meets a bitmap."""
    n = draw(COUNTS)
    b = draw(st.integers(1, n))
    i = draw(st.integers(1, b))
    return i, i + draw(st.integers(0, n - b)), b, n


@pytest.mark.parametrize("name", MEASURES)
@given(one=counts(), data=st.data())
def test_values_ranks_and_approximations(name, one, data):
    """Also at sizes where products of counts leave int64."""
    i, f, b, n = one
    score, measure = SCORES[name], measure_of(name)
    wanted = measure(i, f - i, b - i, n - f - b + i)
    exact = score.rank(i, f, b, n)
    assert (exact if score.power == 2 else exact * abs(exact)) == wanted
    assert score(i, f, b, n) == pytest.approx(math.copysign(math.sqrt(abs(wanted)), wanted), rel=1e-14)
    (near,) = score.approximate(np.array([i]), np.array([f]), b, n)
    assert (near > 0) == (exact > 0)
    assert abs(Fraction(float(near)) - exact) <= abs(exact) * Fraction(SLACK)
    # Places are those of sorted fractions, for neighbours that floats cannot tell apart, too.
    others = [(i, f), (i, f), (max(i - 1, 1), f), (i, min(f + 1, n - b + i)), (1, 1), (b, n)]
    others += [(k * i, k * f) for k in (2, 3) if k * i <= b and k * f <= n - b + k * i]
    hits, cells = (np.array(column, np.int64) for column in zip(*others, strict=True))
    fractions = [score.rank(x, y, b, n) for x, y in others]
    order = sorted(set(fractions), reverse=True)
    assert score.places(hits, cells, b, n).tolist() == [order.index(one) for one in fractions]


@pytest.mark.parametrize("name", [name for name in EVERY if name != "small_and_pure"])
@given(one=counts(), strict=st.booleans(), data=st.data())
@settings(max_examples=min(settings.default.max_examples // 5, 1000))  # counts beyond int64 are slow
def test_planes_hold_whatever_reaches_the_threshold(name, one, strict, data):
    """For every threshold that a formula sets, any other formula that reaches it lies beyond one of the planes."""
    i, f, b, n = one
    if name in CUSTOM and n > 10**6:
        return  # its own rounding would have to be known
    score = resolve(scoring_of(name))
    reached = score.rank(i, f, b, n)
    if reached <= 0:
        return
    cover = Cover(Objective(score, Fraction(1), b, n))
    threshold = Threshold(reached, strict)
    planes = cover.planes(threshold, data.draw(st.sampled_from([None, i, 1, b])))
    planes += [half for plane in planes for half in cover.split(plane, threshold)]
    higher = Threshold(reached * Fraction(data.draw(st.sampled_from([1, 1.001, 1.1]))), strict)
    for x in {i, min(i + 1, b), b, 1, data.draw(st.integers(1, b))}:
        for e in {0, f - i, max(f - i - 1, 0), n - b, data.draw(st.integers(0, n - b))}:
            for wanted in (threshold, higher):
                its = score.rank(x, x + e, b, n)
                if its > wanted.rank or (its == wanted.rank and not strict):
                    values = [(plane.q * x - plane.p * e, plane) for plane in planes if plane.first <= x <= plane.last]
                    assert values, (x, e)
                    assert all(value >= cover.least(plane, wanted) for value, plane in values), (x, e)
    for plane in planes:
        assert plane.q >= 0
        assert plane.p >= 0
        assert max(plane.q * b, plane.p * (n - b)) <= 2**60


@pytest.mark.parametrize("name", ["mcc", "cosine", "lift", "kappa", "tenths"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_planes_hold_the_most_cells_outside_at_every_step(name, share):
    """Long segments have steps of many cells: for every |F and B|, the most cells outside that reach the threshold."""
    b, n = 4000, 12_000
    score = resolve(scoring_of(name))
    cover = Cover(Objective(score, Fraction(1), b, n))
    (top,) = score.approximate(np.array([b]), np.array([b]), b, n)
    threshold = Threshold(Fraction(float(top) * share), strict=False)
    first, last = cover.planes(threshold, None), cover.planes(threshold, 1000)
    i, e = np.arange(1, b + 1), np.full(b, -1)
    for middle in 2 ** np.arange(13)[::-1]:  # bisection, written another way
        larger = np.minimum(e + middle, n - b)
        reached = score.approximate(i, i + larger, b, n) >= float(threshold.rank) * (1 + 1e-12)
        e = np.where(reached, larger, e)
    assert (e >= 0).any()
    assert (np.diff(e) >= 0).all()
    for planes in (first, last, [half for plane in last for half in cover.split(plane, threshold)]):
        for plane in planes:
            least = cover.least(plane, threshold)
            spoken_of = (plane.first <= i) & (i <= plane.last) & (e >= 0)
            assert (plane.q * i - plane.p * e)[spoken_of].min(initial=2**62) >= least
    for planes in (first, last):
        spans = sorted((plane.first, plane.last) for plane in planes)
        assert spans[0][0] <= i[e >= 0][0]
        assert spans[-1][1] == b
        assert all(after == before for (_, before), (after, _) in pairwise(spans))


def test_a_plateau_of_thousands_is_settled_by_the_tie_order():
    """All ANDs of the first concept with others are pure: precision 1, many times over, with many different counts."""
    rng = np.random.default_rng(0)
    masks = rng.random((300, 2000)) < 0.3
    bitmap = masks[0] | (rng.random(2000) < 0.1)
    options = {"scoring": "precision", "length": 2, "beam": 3, "top": 4}
    found = search_of(masks, bitmap, beam_search, **options)
    assert [(one.concepts, one.operators) for one in found] == [((0,), ()), *(((0, c), (1,)) for c in (1, 2, 3))]
    assert search_of(masks, bitmap, optimal_search, **options) == found


def test_a_formula_that_tells_nothing_is_no_explanation():
    """MCC of 0 or less never enters; balanced accuracy demands a cell in common."""
    masks = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]], bool)
    bitmap = np.array([1, 1, 0, 0], bool)
    for search in (beam_search, optimal_search):
        assert search_of(masks[:2], bitmap, search, scoring="mcc", top=9) == []
        (first, *_) = search_of(masks, bitmap, search, scoring="balanced_accuracy", top=9)
        assert first.intersection > 0
    # (1 AND NOT 3) is better than chance though 1 is not: beam search does not get there, the optimum does.
    assert search_of(masks, bitmap, beam_search, scoring="mcc") == []
    assert search_of(masks, bitmap, optimal_search, scoring="mcc")[0] == Best((1, 2), (2,), 2, 2)
    assert search_of(masks[[0, 1]], np.ones(4, bool), optimal_search, scoring="mcc") == []


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("search", ["beam", "optimal"])
def test_explain_says_what_was_maximised(name, search, tmp_path):
    rng = np.random.default_rng(5)
    masks, bitmaps, valid = rng.random((5, 3, 4, 5)) < 0.4, rng.random((2, 3, 4, 5)) < 0.4, rng.random((3, 4, 5)) < 0.9
    concepts = Concepts.from_masks(masks, valid=valid)
    found = ccx.explain_bitmaps(bitmaps, concepts, scoring=scoring_of(name), search=search, length_penalty=0.9)
    assert found.settings["scoring"] == name
    title = SCORES[name].title if name in SCORES else name
    assert found.score_title == title
    for one, bitmap in zip(found, bitmaps, strict=True):
        assert one.formula is not None
        mask, cells = concepts.mask(one.formula) & valid, bitmap & valid
        best = Best(tuple(range(one.formula.length)), (), int((mask & cells).sum()), int((mask | cells).sum()))
        score = score_of(best, name, int(cells.sum()), int(valid.sum()), 0.9)
        assert one.score == pytest.approx(score, rel=1e-12)
        assert one.optimal == (search == "optimal")
        if one.optimal:
            assert (one.upper_bound, one.gap) == (one.score, 0)
    found.save(tmp_path / "found.json")
    assert ccx.load(tmp_path / "found.json") == found
    shown = "" if title == "IoU" else title
    assert shown in repr(found).splitlines()[1]
    assert shown in found._repr_html_()
    assert [column.header for column in found.table().columns].count(title) == 1


def test_scores_that_do_not_fit_are_refused():
    masks, bitmaps = np.ones((2, 1, 2, 2), bool), np.ones((1, 1, 2, 2), bool)
    with pytest.raises(InputError, match=r'scoring: expected "iou" or "f1" or .* or a ccx.scores.Custom, got .dice.'):
        ccx.explain_bitmaps(bitmaps, masks, scoring="dice")
    for search in ("mmesh", "cfh", "areas", "none"):
        with pytest.raises(InputError, match='scoring: expected "iou", which the published searches estimate, got'):
            ccx.explain_bitmaps(bitmaps, masks, scoring="f1", search=search)
    many = np.zeros((201, 1, 2, 2), bool)
    with pytest.raises(InputError, match="concepts: expected at most 200 for a score that is not declared monotone"):
        ccx.explain_bitmaps(bitmaps, many, scoring=CUSTOM["small_and_pure"], search="optimal")
    for function, name in ((lambda *counts: counts[0], ""), (max, "f1"), (3, "three")):
        with pytest.raises(InputError, match=r"(function|name): expected"):
            Custom(function, name)
    for wrong, got in (
        (lambda *counts: counts[0] / 0.0, "not finite"),
        (lambda *_: 1.0, r"float64\[\]"),
        (lambda *counts: counts[0][:0], r"float64\[0\]"),
        (lambda *counts: counts[0].astype(str), "<U"),
    ):
        with np.errstate(divide="ignore"), pytest.raises(InputError, match=rf"scoring: expected finite .* got .*{got}"):
            ccx.explain_bitmaps(bitmaps, masks, scoring=Custom(wrong, "wrong"))


def test_a_false_declaration_is_found_out():
    larger_is_better = Custom(lambda *counts: counts[1] / counts[3], "size", monotone=True)
    fewer_hits = Custom(lambda *counts: 1 / counts[0], "misses", monotone=True)
    masks = np.array([[1, 0, 1, 0], [1, 1, 0, 1]], bool)
    for score, text in ((larger_is_better, "outside the bitmap raises"), (fewer_hits, "in the bitmap lowers")):
        with pytest.raises(InputError, match=f"scoring: expected a monotone score, got .*: one more cell {text} it"):
            search_of(masks, np.array([1, 1, 0, 0], bool), optimal_search, scoring=score)
        search_of(masks, np.array([1, 1, 0, 0], bool), beam_search, scoring=score)


@pytest.mark.nightly
def test_thousands_of_optima():
    """A fixed number of problems, every score: counted, so that a report can say how many."""
    rng = np.random.default_rng(2024)
    compared = 0
    for _ in range(800):
        masks, bitmap = problems(rng, int(rng.integers(1, 8)), int(rng.choice([5, 20, 64, 150])))
        length, top, penalty = int(rng.integers(1, 4)), int(rng.choice([1, 1, 3])), float(rng.choice([1, 1, 0.9]))
        every = every_formula(masks, bitmap, length)
        for name in EVERY:
            options = {"scoring": scoring_of(name), "length": length, "top": top, "length_penalty": penalty}
            wanted = best_by(every, name, int(bitmap.sum()), bitmap.size, top, penalty)
            assert search_of(masks, bitmap, optimal_search, **options) == wanted, (name, compared)
            compared += 1
    assert compared == 800 * len(EVERY)
