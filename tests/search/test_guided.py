"""The heuristic-guided searches: the same formulas as exact beam search, the published numbers of visited formulas."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ccx
from ccx.errors import InputError, MemoryBudgetError
from ccx.search import ConceptMasks, Found, SearchOptions, guided, guided_search
from tests import reference
from tests.reference.beam_oracle import Candidate, best
from tests.support.beam_cases import Case, cases, expected_of, found_of, planted
from tests.support.fuzzing import attempts
from tests.support.parity_cases import CASES_WITH_UNITS, load_case

GUIDED = ("mmesh", "cfh", "areas", "none")
ESTIMATES = GUIDED[:3]


def explained(case: Case, search: str, **options: Any) -> ccx.Explanation:
    (found,) = ccx.explain_bitmaps(case.bitmap[None], case.concepts(), search=search, threads=1, **options)
    return found


def check_searches_agree(case: Case, searches: tuple[str, ...] = GUIDED, **options: Any) -> None:
    """Compare formulas, counts and alternatives of the guided searches with those of exact beam search."""
    exact = explained(case, "beam", **options)
    for search in searches:
        found = explained(case, search, **options)
        for field in ("formula", "intersection", "union", "bitmap_cells", "formula_cells", "status", "alternatives"):
            assert getattr(found, field) == getattr(exact, field), (search, field)


@given(
    case=cases(),
    length=st.integers(1, 5),
    beam=st.integers(1, 5),
    candidates=st.sampled_from((None, None, None, 1, 4)),
    penalty=st.sampled_from((1.0, 1.0, 0.99, 0.5, 1e-80)),
    top=st.sampled_from((1, 1, 2, 8)),
    min_iou=st.sampled_from((0.0, 0.0, 0.1, 1 / 3, 0.4, 0.5)),
    data=st.data(),
)
def test_all_searches_find_the_same_formulas(
    case: Case,
    length: int,
    beam: int,
    candidates: int | None,
    penalty: float,
    top: int,
    min_iou: float,
    data: st.DataObject,
) -> None:
    concepts = range(len(case.masks))
    chosen = data.draw(
        st.one_of(st.none(), st.sets(st.sampled_from(concepts), min_size=1).map(sorted)), label="allowed"
    )
    names = None if chosen is None else [case.concepts().names[c] for c in chosen]
    options = {"length": length, "beam": beam, "candidates": candidates, "length_penalty": penalty, "top": top}
    check_searches_agree(case, only=names, min_iou=min_iou, **options)


def hard_problems(n: int) -> list[Case]:
    """Make problems of 6 to 8 concepts, scenes among them, of several samples."""
    rng = np.random.default_rng(8)
    kinds = ("random", "part", "block", "sparse", "union")
    problems = []
    for _ in range(n):
        case = planted(list(rng.choice(kinds, rng.integers(6, 9))), (4, 5, 13), "formula", 0.9, rng)
        case.masks[0] = (rng.random(4) < 0.5)[:, None, None]
        problems.append(case)
    return problems


@pytest.mark.parametrize("heuristic", ESTIMATES)
@pytest.mark.parametrize("operator", [0, 1, 2])
def test_an_error_in_one_estimate_is_found(heuristic: str, operator: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates of one operator that are too low: then the best formulas are missed, and the searches disagree."""
    estimate = guided.estimate_extensions

    def wrong(*arguments: Any, **options: Any) -> Any:
        numerators, denominators = estimate(*arguments, **options)
        numerators[..., operator] //= 8
        denominators[..., operator] = np.where(denominators[..., operator] > 0, denominators[..., operator], 10**6)
        return numerators, denominators

    def check_all() -> None:
        for case in problems:
            check_searches_agree(case, (heuristic,), beam=2)

    problems = hard_problems(attempts(nightly=30, quick=12))
    check_all()
    monkeypatch.setattr(guided, "estimate_extensions", wrong)
    with pytest.raises(AssertionError):
        check_all()


@given(case=cases(max_concepts=6), search=st.sampled_from(("beam", "optimal", *GUIDED)), data=st.data())
def test_all_concepts_as_candidates_change_nothing(case: Case, search: str, data: st.DataObject) -> None:
    """Those that share no cell with the bitmap are candidates, too: AND NOT takes cells away that are not in it."""
    names = case.concepts().names
    allowed = data.draw(st.none() | st.sets(st.sampled_from(names), min_size=1).map(sorted))
    options = {"length": 3, "beam": 2, "top": 3, "only": allowed}
    wanted = explained(case, search, **options)
    for candidates in {len(allowed or names), len(names), 10**9}:
        assert explained(case, search, candidates=candidates, **options) == wanted


@pytest.mark.parametrize("search", ["beam", "optimal", *GUIDED, "published mmesh", "published none"])
@pytest.mark.parametrize("candidates", [None, 2, 5])
def test_a_candidate_that_meets_nothing_may_help(search: str, candidates: int | None) -> None:
    """1 holds in the bitmap and beside it, 2 only there: (1 AND NOT 2) is exact."""
    masks = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]], bool).reshape(2, 1, 2, 3)
    bitmap = masks[:1] & ~masks[1:]
    options = {"search": search.rsplit(maxsplit=1)[-1], "published": "published" in search, "candidates": candidates}
    (found,) = ccx.explain_bitmaps(bitmap, masks, length=2, **options)
    assert (str(found.formula), found.iou) == ("(1 AND NOT 2)", 1.0)


# The numbers of visited formulas --------------------------------------------------------------------------------------


def admitted(candidates: list[Candidate], min_iou: float) -> list[Candidate]:
    return [one for one in candidates if one.union and one.intersection / one.union >= min_iou]


def search_as_written(
    case: Case, heuristic: str, length: int, beam: int, top: int, min_iou: float
) -> tuple[list[Candidate], Counter[str]]:
    """One candidate after the other, estimates of whole masks as fractions, equal formulas by their truth tables."""
    problem = case.problem()
    masks, bitmap = case.masks & case.valid, case.bitmap & case.valid
    counts: Counter[str] = Counter(visited=0, expanded=0, estimated=0)

    def mask_of(one: Candidate) -> Any:
        return reference.satisfied(masks, one.concepts, one.operators)

    def bound(parent: Candidate, concept: int, operator: int) -> Fraction | float:
        if heuristic == "none":
            return np.inf
        shape = (len(bitmap), *bitmap.shape[1:])
        numerators, denominators = reference.estimate_extensions(
            mask_of(parent).reshape(1, *shape), masks[concept][None], bitmap, heuristic
        )
        numerator, denominator = int(numerators[0, 0, operator]), int(denominators[0, 0, operator])
        return Fraction(numerator, denominator) if denominator > 0 else np.inf

    singles = best([problem.candidate((c,), ()) for c in range(len(masks))], len(masks))
    answers, kept, extended = admitted(singles, min_iou)[:top], singles[:beam], singles[: 2 * beam]
    for level in range(2, length + 1 if singles else 0):
        candidates: dict[int, tuple[Fraction | float, Candidate]] = {}
        for parent in extended:
            for concept in range(len(masks)):
                for operator in range(3):
                    if concept not in parent.concepts:
                        one = problem.candidate((*parent.concepts, concept), (*parent.operators, operator))
                        if one.table not in candidates:
                            candidates[one.table] = bound(parent, concept, operator), one
        counts["expanded"] += len(extended)
        counts["estimated"] += len(candidates) if heuristic != "none" else 0
        for estimate, one in sorted(candidates.values(), key=lambda pair: -pair[0]):
            hopeless = [float(estimate) < min_iou or (len(answers) == top and estimate < -answers[-1].key[0])]
            if level < length:
                hopeless.append(len(kept) == beam and estimate < -kept[-1].key[0])
            if all(hopeless):
                break
            counts["visited"] += 1
            answers = best([*answers, *admitted([one], min_iou)], top)
            kept = best([*kept, one], beam) if level < length else kept
        extended = kept
    return answers, counts


@given(
    case=cases(max_concepts=6),
    heuristic=st.sampled_from(GUIDED),
    length=st.integers(1, 4),
    beam=st.integers(1, 4),
    top=st.sampled_from((1, 1, 3)),
    min_iou=st.sampled_from((0.0, 0.0, 0.1, 0.4)),
)
@settings(max_examples=60)
def test_visits_what_a_search_one_by_one_visits(
    case: Case, heuristic: str, length: int, beam: int, top: int, min_iou: float
) -> None:
    found = explained(case, heuristic, length=length, beam=beam, top=top, min_iou=min_iou)
    expected, counts = search_as_written(case, heuristic, length, beam, top, min_iou)
    assert found_of(found, case.concepts()) == expected_of(expected)
    assert {name: getattr(found, name) for name in counts} == counts


def test_exact_beam_search_counts_what_it_extends() -> None:
    found = explained(hard_problems(1)[0], "beam", length=2, beam=3)
    assert (found.expanded, found.estimated) == (6, 0)


# As published ---------------------------------------------------------------------------------------------------------

# (case, unit, ranges, range, search): visited formulas there and here; length 3 always. docs/parity.md says why.
DIFFERENCES = {
    ("h1_tiny", 1, 5, 0, "none"): (752, 750),
    ("h1_tiny", 1, 5, 0, "cfh"): (224, 223),
    ("h1_tiny", 1, 5, 0, "areas"): (377, 375),
    ("h1_tiny", 1, 1, 0, "areas"): (173, 171),
    ("h1_tiny", 2, 1, 0, "areas"): (225, 221),
    ("h1_tiny", 1, 5, 3, "none"): (768, 763),
    ("h1_tiny", 1, 5, 2, "areas"): (346, 347),
    ("h1_tiny", 1, 5, 4, "areas"): (310, 309),
    ("h3_odd", 0, 5, 0, "none"): (98, 96),
    ("h3_odd", 0, 5, 1, "mmesh"): (35, 34),
    ("h3_odd", 0, 5, 1, "cfh"): (43, 42),
    ("h3_odd", 0, 5, 0, "areas"): (25, 24),
    ("h3_odd", 0, 5, 1, "areas"): (25, 24),
    ("h3_odd", 1, 5, 0, "areas"): (35, 34),
}


def test_published_searches_visit_what_the_published_code_visits() -> None:
    differences, n_runs = {}, 0
    for name in CASES_WITH_UNITS:
        case = load_case(name)
        concepts = ccx.Concepts.from_masks(case.masks)
        cells = np.stack([bitmap.cells for bitmap in case.bitmaps])
        for search in GUIDED:
            for length in (1, 2, 3):
                found = ccx.explain_bitmaps(cells, concepts, length=length, search=search, published=True)
                for bitmap, one in zip(case.bitmaps, found, strict=True):
                    for run in bitmap.runs:
                        if (run.heuristic, run.length) != (search, length):
                            continue
                        n_runs += 1
                        if one.visited != run.visited:
                            where = (name, bitmap.unit, bitmap.n_ranges, bitmap.range_index, search)
                            differences[where] = run.visited, one.visited
                            assert length == 3
                        if not run.error:
                            assert np.float32(one.intersection) / np.float32(max(one.union, 1)) == run.iou
    assert (n_runs, differences) == (432, DIFFERENCES)


def test_published_candidates_are_those_of_the_published_code() -> None:
    """Which formulas are generated and which are merged, in all lists of candidates that the parity cases hold."""
    n_lists = n_formulas = 0
    for name in CASES_WITH_UNITS:
        case = load_case(name)
        everything = np.ones(len(case.masks), np.bool_)
        for bitmap in case.bitmaps:
            for level, beam in (("L2", "beam1"), ("L3", "beam2")):
                if f"est.{level}.formulas" not in bitmap.other:
                    continue
                lefts = bitmap.other[f"est.{beam}"].reshape(-1, 1 if level == "L2" else 3).tolist()
                parents = [Found(tuple(c - 1 for c in left[::2]), tuple(left[1::2]), 1, 1, 1) for left in lefts]
                chosen = np.argwhere(guided._candidates(parents, everything, guided._Published()))
                ours = {(*lefts[f], operator, c + 1) for f, c, operator in chosen.tolist()}
                theirs = bitmap.other[f"est.{level}.formulas"].tolist()
                assert ours == set(map(tuple, theirs))
                assert len(ours) == len(theirs)
                n_lists, n_formulas = n_lists + 1, n_formulas + len(theirs)
    assert (n_lists, n_formulas) == (24, 4_945)


@pytest.mark.parametrize("search", ["mmesh", "cfh"])
def test_rounded_estimates_lose_the_best_formula(search: str) -> None:
    """Two estimates are equal to 4 decimals; the IoU of the formula that comes first is above that number."""
    case = load_case("h7_rounding")
    cells = np.unpackbits(case.other["bitmap_packed"], axis=1, bitorder="little").view(np.bool_)
    bitmaps = cells.reshape(1, *case.masks.shape[1:])
    masks = case.masks[[0, 1, 5, 3, 4, 2, 6, 7, 8, 9]]  # the worse of both first, as there
    for published, label in ((True, "(4 OR 3)"), (False, "(4 OR 6)")):
        (found,) = ccx.explain_bitmaps(bitmaps, masks, length=2, search=search, published=published)
        assert str(found.formula.canonical()) == str(ccx.parse(label).canonical())
        assert np.float32(found.iou) == case.other["best_exact"][int(published)].astype(np.float32)
        assert found.visited == 1


@pytest.mark.parametrize(("published", "n_candidates"), [(False, (12, 9, 6)), (True, (13, 11, 15))])
def test_candidates_of_formulas_of_one_two_and_three(published: bool, n_candidates: tuple[int, ...]) -> None:
    """As published, a formula is extended by AND NOT of its own concepts, and one of three concepts by all of them."""
    rules = guided._Published() if published else guided._Exact(1.0)
    everything = np.ones(5, np.bool_)
    for length, wanted in enumerate(n_candidates, 1):
        parent = Found(tuple(range(length)), (0,) * (length - 1), 1, 1, 1)
        assert guided._candidates([parent], everything, rules).sum() == wanted


@given(case=cases(max_concepts=4), search=st.sampled_from(GUIDED), length=st.integers(3, 6), top=st.integers(1, 3))
@settings(max_examples=40)
def test_published_formulas_may_repeat_concepts(case: Case, search: str, length: int, top: int) -> None:
    concepts = case.concepts()
    found = explained(case, search, length=length, beam=3, top=top, published=True)
    bitmap = case.bitmap & case.valid
    for one in (found, *found.alternatives):
        if one.formula is not None:
            mask = concepts.mask(one.formula)
            assert (one.intersection, one.union) == ((mask & bitmap).sum(), (mask | bitmap).sum())


# From activations, masks, errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", GUIDED)
def test_explain(search: str) -> None:
    rng = np.random.default_rng(0)
    concepts = ccx.Concepts.from_masks(rng.random((6, 9, 5, 13)) < 0.4, valid=rng.random((9, 5, 13)) < 0.9)
    activations = rng.random((9, 3, 2, 4), np.float32)
    exact = ccx.explain(activations, concepts, clusters=3)
    found = [ccx.explain(activations, concepts, clusters=3, search=search, threads=threads) for threads in (1, 2)]
    assert found[0] == found[1]
    assert found[0].settings == exact.settings | {"search": search}
    for ours, theirs in zip(found[0], exact, strict=True):
        assert (ours.formula, ours.iou, ours.range) == (theirs.formula, theirs.iou, theirs.range)
        assert ours.visited <= ours.estimated or search == "none"


@given(case=cases(), data=st.data())
@example(planted(["full", "empty", "random"], (2, 1, 63), "random", 1.0, np.random.default_rng(1)), None)
@settings(max_examples=60)
def test_masks_of_formulas(case: Case, data: st.DataObject | None) -> None:
    concepts = case.concepts()
    n = len(case.masks)
    order = list(range(n)) if data is None else data.draw(st.permutations(range(n)))
    operators = (
        [2] * (n - 1) if data is None else data.draw(st.lists(st.integers(0, 2), min_size=n - 1, max_size=n - 1))
    )
    samples, rows = ConceptMasks(concepts).mask(tuple(order), tuple(operators))
    formula = ccx.formula.left_deep([concepts.names[c] for c in order], operators)
    expected = concepts.mask(formula, packed=True)
    assert (np.diff(samples) > 0).all()
    np.testing.assert_array_equal(rows, expected[samples])
    assert not np.delete(expected, samples, axis=0).any()


def test_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    case = hard_problems(1)[0]
    with pytest.raises(InputError, match='search: expected "beam" or '):
        explained(case, "best")
    for search, published in (("beam", True), ("mmesh", "yes")):
        with pytest.raises(InputError, match="published: expected True"):
            explained(case, search, published=published)
    with pytest.raises(InputError, match=r"length_penalty: expected 1, got 0\.9"):
        explained(case, "mmesh", published=True, length_penalty=0.9)
    concepts = case.concepts()
    with pytest.raises(InputError, match="masks: expected what mmesh measures"):
        guided_search(concepts, concepts.atoms.cells, SearchOptions(), heuristic="mmesh")
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 10)
    with pytest.raises(MemoryBudgetError, match="samples: expected work that fits"):
        ConceptMasks(concepts)
