"""Exact beam search against the published search as it is written, and against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ccx
from ccx.errors import InputError
from ccx.search import SearchOptions, SearchResult, beam_search
from tests.reference import beam_oracle
from tests.reference.beam_oracle import Candidate
from tests.support.beam_cases import GRIDS, Case, cases, expected_of, found_of, planted

FULL_WIDTH = 20_000  # more than there are formulas of 3 of 6 concepts


def check_agreement(
    case: Case, allowed: list[int] | None = None, penalty: float = 1.0, **options: Any
) -> Candidate | None:
    """Compare every field of the explanation with the search as written -> its best formula."""
    concepts = case.concepts()
    problem = case.problem(penalty)
    expected = beam_oracle.beam_search(problem, allowed=allowed, **options)
    names = None if allowed is None else [concepts.names[c] for c in allowed]
    (found,) = ccx.explain_bitmaps(
        case.bitmap[None], concepts, length_penalty=penalty, only=names, threads=1, **options
    )
    assert found_of(found, concepts) == expected_of(expected)
    assert found.bitmap_cells == case.bitmap[case.valid].sum()
    assert found.formula_cells == (expected[0].size if expected else 0)
    assert found.score == pytest.approx(float(-expected[0].key[0]) if expected else 0.0, rel=1e-12)
    assert found.visited == len(problem.extended)
    nothing = "below_min_iou" if any(one.intersection for one in problem.known) else "no_overlap"
    assert found.status == ("explained" if expected else nothing if found.bitmap_cells else "empty")
    assert not found.optimal
    return expected[0] if expected else None


@given(
    case=cases(),
    length=st.integers(1, 6),
    beam=st.integers(1, 6),
    candidates=st.sampled_from((None, None, 1, 2, 5, 8)),
    penalty=st.sampled_from((1.0, 1.0, 0.99, 0.9, 0.3)),
    top=st.sampled_from((1, 3, 40)),
    min_iou=st.sampled_from((0.0, 0.0, 0.1, 1 / 3, 0.4, 0.5, 1.0)),
    data=st.data(),
)
def test_agrees_with_the_search_as_written(
    case: Case,
    length: int,
    beam: int,
    candidates: int | None,
    penalty: float,
    top: int,
    min_iou: float,
    data: st.DataObject,
) -> None:
    chosen = st.one_of(st.none(), st.sets(st.integers(0, len(case.masks) - 1), min_size=1).map(sorted))
    allowed = data.draw(chosen, label="allowed")
    options = {"length": length, "beam": beam, "candidates": candidates, "top": top, "min_iou": min_iou}
    check_agreement(case, allowed, penalty, **options)


def test_agrees_with_the_search_as_written_on_hard_problems() -> None:
    """Hypothesis prefers small problems; these have 6 to 8 concepts, long formulas, and ties."""
    rng = np.random.default_rng(2)
    lengths = []
    for _ in range(250):
        kinds = rng.choice(("random", "random", "random", "part", "block", "copy", "sparse"), rng.integers(6, 9))
        shape = (2, *GRIDS[rng.integers(1, len(GRIDS))])
        case = planted(list(kinds), shape, rng.choice(("random", "formula")), 0.9, rng)
        length, beam, top = (int(number) for number in rng.integers((2, 1, 1), (7, 7, 9)))
        penalty, candidates = rng.choice((1.0, 0.99)), rng.choice((None, None, 4))
        best = check_agreement(case, None, penalty, length=length, beam=beam, candidates=candidates, top=top)
        lengths.append(len(best.concepts) if best else 0)
    assert np.bincount(lengths, minlength=7)[2:6].min() > 2


@given(case=cases(max_concepts=6), length=st.integers(1, 3), penalty=st.sampled_from((1.0, 0.9)))
@settings(max_examples=40)
def test_full_width_is_the_optimum(case: Case, length: int, penalty: float) -> None:
    concepts = case.concepts()
    (found,) = ccx.explain_bitmaps(
        case.bitmap[None], concepts, length=length, beam=FULL_WIDTH, length_penalty=penalty, top=20, threads=1
    )
    listed = found_of(found, concepts)
    problem = case.problem(penalty)
    assert listed[:1] == expected_of(beam_oracle.best_of_all(problem, length))
    # No beam holds a formula of score 0, so none of its extensions is met; they never are the best.
    assert listed == expected_of(beam_oracle.best_of_all(problem, length, top=20, reachable=True))


@given(case=cases(), length=st.integers(2, 5), beam=st.integers(1, 4))
@example(planted(["random"] * 8, (3, 8, 8), "formula", 0.8, np.random.default_rng(0)), 4, 2)
@settings(max_examples=30)
def test_threads_batches_and_packing_change_nothing(case: Case, length: int, beam: int) -> None:
    options = {"length": length, "beam": beam, "top": 4}
    bitmaps = np.stack([case.bitmap, ~case.bitmap, case.masks[0]])
    packed = ccx.kernels.pack(bitmaps.reshape(3, case.bitmap.shape[0], -1))
    whole = ccx.explain_bitmaps(bitmaps, case.concepts(threads=1), threads=1, **options)
    for threads in (2, 3, None):
        assert ccx.explain_bitmaps(bitmaps, case.concepts(threads=threads), threads=threads, **options) == whole
    assert ccx.explain_bitmaps(packed, case.concepts(), threads=2, **options) == whole
    alone = [ccx.explain_bitmaps(bitmaps[m : m + 1], case.concepts(), **options)[0].formula for m in range(3)]
    assert alone == [one.formula for one in whole]


@given(case=cases(), length=st.integers(1, 6), beam=st.integers(1, 3))
@settings(max_examples=30)
def test_counts_are_those_of_the_masks(case: Case, length: int, beam: int) -> None:
    concepts = case.concepts()
    (found,) = ccx.explain_bitmaps(case.bitmap[None], concepts, length=length, beam=beam, top=5)
    bitmap = case.bitmap & case.valid
    for one in (found, *found.alternatives):
        if one.formula is not None:
            mask = concepts.mask(one.formula)
            assert (one.intersection, one.union) == ((mask & bitmap).sum(), (mask | bitmap).sum())
            assert concepts.count(one.formula) == mask.sum()


def test_long_formulas() -> None:
    """A union of 20 disjoint concepts is found at length 20, and no longer one at 64."""
    cells = np.arange(30 * 7) // 7
    masks = (cells[None, :] == np.arange(30)[:, None]).reshape(30, 1, 15, 14)
    for length, n_parts in ((20, 20), (64, 22)):
        bitmap = masks[:22].any(axis=0)
        (found,) = ccx.explain_bitmaps(bitmap[None], masks, length=length, beam=2)
        assert found.formula is not None
        assert found.formula.concepts == tuple(str(c + 1) for c in range(n_parts))
        assert (found.intersection, found.union) == (7 * n_parts, 7 * 22)


def test_sparse_pair_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 4,096 concepts the pair counts are sparse; the search is the same."""
    case = planted(
        ["random", "part", "union", "block", "rest", "copy"], (3, 8, 8), "formula", 0.8, np.random.default_rng(5)
    )
    dense = ccx.explain_bitmaps(case.bitmap[None], case.concepts(), top=10)
    monkeypatch.setattr("ccx.kernels.atoms.DENSE_PAIRS", 3)
    concepts = case.concepts()
    assert ccx.explain_bitmaps(case.bitmap[None], concepts, top=10) == dense
    assert not isinstance(concepts.pair_sizes, np.ndarray)


def test_the_best_formula_meets_min_iou() -> None:
    masks = np.zeros((2, 1, 2, 5), np.bool_)
    masks[0, 0, 0, :2] = True
    masks[1, 0, 1, :1] = True
    bitmap = np.zeros((1, 1, 2, 5), np.bool_)
    bitmap[0, 0, 0] = True
    for min_iou, status in ((0.4, "explained"), (0.4000001, "below_min_iou")):
        (found,) = ccx.explain_bitmaps(bitmap, masks, min_iou=min_iou, top=3)
        assert found.status == status
        assert str(found.formula) == ("1" if status == "explained" else "None")
        assert found.bitmap_cells == 5
        assert found.visited > 0
    (found,) = ccx.explain_bitmaps(bitmap, masks, min_iou=0.35, top=3)
    assert [str(one.formula) for one in found.alternatives] == ["(1 AND NOT 2)"]
    (found,) = ccx.explain_bitmaps(bitmap, masks, min_iou=0.33, top=9)
    assert [str(one.formula) for one in found.alternatives] == ["(1 AND NOT 2)", "(1 OR 2)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length: expected an integer from 1 to 64, got 0"),
        ({"length": 65}, "length: expected an integer from 1 to 64, got 65"),
        ({"length": 2.0}, "length: expected an integer from 1 to 64, got 2.0"),
        ({"beam": 0}, "beam: expected an integer >= 1, got 0"),
        ({"beam": "5"}, "beam: expected an integer >= 1, got '5'"),
        ({"top": -1}, "top: expected an integer >= 1, got -1"),
        ({"candidates": 0}, "candidates: expected an integer >= 1, got 0"),
        ({"length_penalty": 0.0}, "length_penalty: expected 0 < length_penalty <= 1, got 0.0"),
        ({"length_penalty": 1.5}, "length_penalty: expected 0 < length_penalty <= 1, got 1.5"),
        ({"length_penalty": float("nan")}, "length_penalty: expected 0 < length_penalty <= 1, got nan"),
        ({"min_iou": -0.1}, "min_iou: expected 0 <= min_iou <= 1, got -0.1"),
        ({"min_iou": None}, "min_iou: expected 0 <= min_iou <= 1, got None"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        SearchOptions(**options)
    assert str(error.value).startswith(message)


def test_search_without_any_overlap() -> None:
    masks = np.zeros((3, 1, 2, 2), np.bool_)
    masks[0, 0, 0] = True
    concepts = ccx.Concepts.from_masks(masks)
    counts = np.where(np.diff(concepts.atoms.atom_starts) == 0, concepts.atoms.cells, 0)  # all cells without concepts
    assert beam_search(concepts, counts, SearchOptions()) == SearchResult([])
