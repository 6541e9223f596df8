"""Chance: permutations, p-values, and null scores by hand."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ccx
from ccx import memory
from ccx.chance import Scored, chance, group_codes, permutations, search_chance
from ccx.errors import InputError, MemoryBudgetError, StoreError
from ccx.evidence import Chance
from ccx.kernels import bitmap_histogram, pack, unpack, upsample_pack
from ccx.scores import Custom, resolve
from ccx.search import Found, Objective, SearchOptions, SearchResult

N, GRID = 7, (5, 13)


def made_concepts(seed: int, n_samples: int = N, *, void: bool = True) -> ccx.Concepts:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (n_samples, 2, *GRID))
    return ccx.Concepts.from_label_maps(
        labels, list("abcd"), valid=rng.random((n_samples, *GRID)) < (0.8 if void else 1)
    )


def made_bitmaps(seed: int, m: int = 2, n_samples: int = N) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    bitmaps = rng.random((m, n_samples, *GRID)) < rng.choice([0.02, 0.3, 0.9], (m, n_samples, 1, 1))
    bitmaps[:, rng.random(n_samples) < 0.3] = False
    return bitmaps


CONCEPTS, BITMAPS = made_concepts(0), made_bitmaps(0)


# Permutations --------------------------------------------------------------------------------------------------------


@given(codes=st.lists(st.integers(0, 3), min_size=5, max_size=40), n=st.integers(0, 5), seed=st.integers(0, 2**70))
def test_permutations_exchange_samples_of_one_group(codes: list[int], n: int, seed: int) -> None:
    array = np.array(codes)
    orders = permutations(array, n, seed)
    assert orders.shape == (n, array.size)
    for order in orders:
        assert sorted(order.tolist()) == list(range(array.size))
        assert (array[order] == array).all()
    np.testing.assert_array_equal(permutations(array, n + 2, seed)[:n], orders)


def test_permutations_are_uniform_and_stable() -> None:
    orders = permutations(np.array([0, 1, 0, 0, 1]), 12_000, 5)
    counts = Counter(map(tuple, orders.tolist()))
    assert len(counts) == 12
    assert max(abs(count - 1_000) for count in counts.values()) < 5 * math.sqrt(1_000)
    assert orders[:4].tolist() == permutations(np.array([0, 1, 0, 0, 1]), 4, 5).tolist()
    assert permutations(np.zeros(8, np.int64), 2, 0).tolist() == [[3, 2, 1, 6, 0, 7, 4, 5], [7, 4, 5, 1, 6, 2, 0, 3]]
    assert (permutations(np.zeros(50, np.int64), 1, 0) != permutations(np.zeros(50, np.int64), 1, 1)).any()


@pytest.mark.parametrize(
    "groups", [["x", ("y", 1), "x", None], np.array([3, 1, 3, 9]), np.array(["u", "v", "u", "w"]), [1.5, 2, 1.5, "1.5"]]
)
def test_groups_are_any_hashable_labels(groups: Any) -> None:
    assert group_codes(groups, 4).tolist() == [0, 1, 0, 2]


# Statistics ----------------------------------------------------------------------------------------------------------


def test_chance_by_hand() -> None:
    observed = Scored(Fraction(1, 3), 1 / 3)
    null = [Scored(Fraction(k, 12), k / 12) for k in (4, 1, 2, 5)]
    found = chance(observed, null)
    scores = [one.score for one in null]
    assert (found.permutations, found.mean, found.maximum, found.p) == (4, 0.25, 5 / 12, 3 / 5)
    assert found.z == pytest.approx((1 / 3 - 0.25) / statistics.stdev(scores))
    assert found.resolution == 1 / 5
    assert chance(observed, null[:1]).z is None
    assert chance(observed, [Scored(Fraction(1, 10), 0.1)] * 3).z is None


def test_scores_are_compared_exactly() -> None:
    """Neighbouring fractions that round to one float are told apart."""
    above, below = Fraction(10**17 + 1, 10**18), Fraction(10**17, 10**18)
    assert float(above) == float(below)
    assert chance(Scored(above, 0.1), [Scored(below, 0.1)]).p == 1 / 2
    assert chance(Scored(below, 0.1), [Scored(above, 0.1)]).p == 1


# Null scores by hand -------------------------------------------------------------------------------------------------


def _jaccard_like(i: Any, f: Any, b: float, n: float) -> Any:
    return i / (b + 0.5 * f)


def by_hand(
    bitmap: NDArray[np.bool_], concepts: ccx.Concepts, orders: NDArray[np.int32], **options: Any
) -> list[tuple[float, Fraction]]:
    """Explain each permuted bitmap -> (score, exact rank) of each."""
    found = [ccx.explain_bitmaps(bitmap[order][None], concepts, threads=1, **options)[0] for order in orders]
    return [(one.score, rank_of(one, concepts, options.get("scoring", "iou"))) for one in found]


def rank_of(item: ccx.Explanation, concepts: ccx.Concepts, scoring: Any) -> Fraction:
    if item.formula is None:
        return Fraction(0)
    return resolve(scoring).rank(item.intersection, item.formula_cells, item.bitmap_cells, concepts.n_cells)


def check_chance(item: ccx.Explanation, exact: list[tuple[float, Fraction]], rank: Fraction) -> None:
    if item.formula is None:
        assert item.chance is None
        return
    scores = [score for score, _ in exact]
    assert item.chance is not None
    assert item.chance.permutations == len(exact)
    assert item.chance.mean == math.fsum(scores) / len(scores)
    assert item.chance.maximum == max(scores)
    reached = sum(other >= rank for _, other in exact)
    assert item.chance.p == (1 + reached) / (1 + len(exact))
    if item.chance.z is None:
        assert len(set(scores)) == 1
    else:
        assert item.chance.z == pytest.approx((item.score - item.chance.mean) / statistics.stdev(scores), rel=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    null=st.integers(1, 12),
    grouped=st.booleans(),
    void=st.booleans(),
    search=st.sampled_from(["beam", "optimal", "mmesh"]),
    scoring=st.sampled_from(["iou", "f1", "precision", "mcc", "cosine", Custom(_jaccard_like, monotone=True)]),
    threads=st.integers(1, 3),
)
@settings(max_examples=settings.default.max_examples // 5)  # two dozen searches each
def test_null_scores_are_those_of_bitmaps_permuted_by_hand(
    seed: int, null: int, grouped: bool, void: bool, search: Any, scoring: Any, threads: int
) -> None:
    concepts, bitmaps = made_concepts(seed, void=void), made_bitmaps(seed)
    groups = [n % 3 for n in range(N)] if grouped else None
    scoring = "iou" if search == "mmesh" else scoring  # it knows no other
    options = {"search": search, "length": 3 if search == "optimal" else 2, "beam": 2, "scoring": scoring}
    found = ccx.explain_bitmaps(
        bitmaps, concepts, permutations=null, groups=groups, seed=seed, threads=threads, **options
    )
    orders = permutations(group_codes(groups, N), null, seed)
    for item, bitmap in zip(found, bitmaps, strict=True):
        check_chance(item, by_hand(bitmap, concepts, orders, **options), rank_of(item, concepts, scoring))
    plain = ccx.explain_bitmaps(bitmaps, concepts, **options)
    assert [one.formula for one in found] == [one.formula for one in plain]
    assert all(one.chance is None for one in plain)


@pytest.mark.parametrize("clusters", [1, 4])
def test_units_are_permuted_alike(clusters: int) -> None:
    """The null of a unit's range is that of its bitmap; every unit gets the same permutations."""
    maps = np.maximum(np.random.default_rng(3).normal(size=(N, 3, 2, 4)), 0).astype(np.float32)
    maps[:, 1] = maps[:, 0]
    options = {"clusters": clusters, "quantile": 0.2, "length": 2}
    found = ccx.explain(maps, CONCEPTS, permutations=9, seed=4, **options)
    orders = permutations(np.zeros(N, np.int64), 9, 4)
    assert any(one.formula for one in found)
    for item in found.explained:
        rows = upsample_pack(maps[:, item.unit], GRID, item.range)
        bitmap = unpack(rows, math.prod(GRID)).reshape(N, *GRID)
        check_chance(item, by_hand(bitmap, CONCEPTS, orders, length=2), rank_of(item, CONCEPTS, "iou"))
    assert [one.chance for one in found.of_unit(0)] == [one.chance for one in found.of_unit(1)]
    assert found == ccx.explain(maps, CONCEPTS, permutations=9, seed=4, threads=1, **options)
    # What the permuted activations would have given, in the same ranges.
    ranges = np.array([[one.range for one in found.of_unit(unit)] for unit in found.units])
    ranges[ranges[..., 0] == ranges[..., 1]] = 1e30, np.inf  # of one value; nothing lies there
    permuted = [ccx.explain(maps[order], CONCEPTS, ranges=ranges, **options) for order in orders]
    for at, item in enumerate(found):
        if item.chance is not None:
            assert item.chance.maximum == max(one[at].score for one in permuted)


@pytest.mark.parametrize("asked", [{}, {"search": "mmesh"}, {"fit_samples": [0, 1, 2, 4, 6]}])
def test_batches_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]) -> None:
    whole = ccx.explain_bitmaps(BITMAPS, CONCEPTS, permutations=10, threads=1, **asked)
    monkeypatch.setattr("ccx.chance._BATCH_BYTES", 12 * CONCEPTS.atoms.n_atoms * 3)
    for threads in (1, 2, 5):
        assert ccx.explain_bitmaps(BITMAPS, CONCEPTS, permutations=10, threads=threads, **asked) == whole
    assert ccx.explain_bitmaps(BITMAPS, CONCEPTS, permutations=10, seed=1, **asked) != whole


def test_each_search_gets_a_bitmap_and_its_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, seen = CONCEPTS.atoms, []
    monkeypatch.setattr("ccx.chance._BATCH_BYTES", 12 * atoms.n_atoms * 3)
    rows = pack(BITMAPS[0].reshape(N, -1))
    orders = permutations(np.zeros(N, np.int64), 10, 0)

    def search(counts: NDArray[np.int64], bitmap: Callable[[], NDArray[np.uint64]]) -> SearchResult:
        np.testing.assert_array_equal(bitmap_histogram(bitmap()[None], atoms)[0], counts)
        seen.append(counts)
        return SearchResult([])

    objective = partial(Objective.of, SearchOptions(), total=CONCEPTS.n_cells)
    formula = Found((0,), (), intersection=1, size=1, union=2)
    found = search_chance(formula, rows, atoms, orders, search, objective, 2, threads=3)
    assert len(seen) == 10
    assert found == Chance(10, 0.0, 0.0, None, 1 / 11)


@pytest.mark.parametrize("search", ["beam", "optimal", "none"])
def test_permuted_searches_obey_the_least_iou(search: str) -> None:
    """What a permuted search finds below it is nothing, and ranks lowest."""
    orders = permutations(np.zeros(N, np.int64), 9, 0)
    permuted = ccx.explain_bitmaps(BITMAPS[0][orders], CONCEPTS, search=search)
    for least in (0.0, *sorted(one.iou for one in permuted)):
        (found,) = ccx.explain_bitmaps(BITMAPS[:1], CONCEPTS, search=search, permutations=9, min_iou=least)
        scores = [one.iou if one.iou >= least else 0.0 for one in permuted]
        if found.chance is not None:
            assert found.chance.p == (1 + sum(score >= found.iou for score in scores)) / 10
            assert (found.chance.mean, found.chance.maximum) == (pytest.approx(sum(scores) / 9), max(scores))


@pytest.mark.parametrize("scoring", ["iou", "precision", "mcc"])
@pytest.mark.parametrize("repetitions", [60, pytest.param(1_000, marks=pytest.mark.nightly)])
def test_p_holds_under_a_least_iou(scoring: str, repetitions: int) -> None:
    """Among a bitmap and its permutations each is as likely as the others: so are the ranks of what is found."""
    rng, ps = np.random.default_rng(3), []
    for seed in range(repetitions):
        concepts, (bitmap, _) = made_concepts(seed, n_samples=12), made_bitmaps(seed, n_samples=12)
        options = {"scoring": scoring, "length": 2, "permutations": 9, "min_iou": 0.2, "seed": seed}
        (found,) = ccx.explain_bitmaps(bitmap[None, rng.permutation(12)], concepts, threads=1, **options)
        ps.append(1.0 if found.chance is None else found.chance.p)
    for alpha in (0.1, 0.2, 0.5):
        share = np.mean(np.array(ps) <= alpha)
        assert share <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repetitions)


def test_evidence_is_of_the_formula_shown() -> None:
    """Where `min_iou` refuses the best formula, the next one has the chance, and is scored on the others."""
    options = {"scoring": "precision", "top": 5, "permutations": 7, "length_penalty": 0.9}
    for seed in range(20):
        concepts, (bitmap, _) = made_concepts(seed, n_samples=12), made_bitmaps(seed, n_samples=12)
        fit = np.arange(12) < 8
        (best,) = ccx.explain_bitmaps(bitmap[None], concepts, fit_samples=fit, **options)
        longer = [one for one in best.alternatives if one.iou > best.iou and one.formula.length < best.formula.length]
        if longer:
            break
    (item,) = ccx.explain_bitmaps(bitmap[None], concepts, fit_samples=fit, min_iou=longer[0].iou, **options)
    assert item.formula == longer[0].formula
    assert item.chance.mean <= best.chance.mean  # permuted searches obey it, too
    mask, valid = concepts.mask(item.formula)[~fit], concepts.mask("a OR NOT a")[~fit]
    precision = (mask & bitmap[~fit] & valid).sum() / mask.sum()
    assert item.held_out.score == pytest.approx(precision * 0.9 ** (item.formula.length - 1))


def test_a_planted_formula_is_beyond_chance_and_a_shuffled_one_is_not() -> None:
    concepts = made_concepts(1, n_samples=40, void=False)
    planted = concepts.mask("(a AND NOT b)")
    (found,) = ccx.explain_bitmaps(planted[None], concepts, permutations=99)
    assert found.chance is not None
    assert found.chance.p == 0.01
    assert found.chance.z is not None
    assert found.chance.z > 10
    (same,) = ccx.explain_bitmaps(np.broadcast_to(planted[:1], planted.shape)[None], concepts, permutations=99)
    assert same.chance is not None
    assert (same.chance.p, same.chance.z, same.chance.mean) == (1, None, same.score)  # nothing to exchange


def test_groups_keep_apart_what_differs_between_them() -> None:
    """A unit that only tells groups apart beats chance over all samples, but not within groups."""
    rng = np.random.default_rng(0)
    first = np.arange(40) < 20
    scene = np.where(first[:, None, None], 1, 2) * np.ones((40, *GRID), np.int64)
    noise = rng.integers(0, 3, (40, *GRID))
    concepts = ccx.Concepts.from_label_maps(np.stack([scene, np.where(noise, noise + 2, 0)], 1), list("abcd"))
    bitmap = (rng.random((40, *GRID)) < 0.5) & first[:, None, None]
    (free,) = ccx.explain_bitmaps(bitmap[None], concepts, permutations=99, length=1)
    (within,) = ccx.explain_bitmaps(bitmap[None], concepts, permutations=99, length=1, groups=first)
    assert free.chance is not None
    assert within.chance is not None
    assert (free.chance.p, within.chance.p) == (0.01, 1)


# P(p <= alpha) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("repetitions", [200, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_p_values_of_permuted_activations_are_valid(grouped: bool, repetitions: int) -> None:
    """Under the null hypothesis P(p <= alpha) <= alpha, up to three standard errors, over independent problems."""
    null = 19
    rng = np.random.default_rng(2024)
    values = []
    for repetition in range(repetitions):
        n_samples = 8
        labels = rng.integers(0, 4, (n_samples, 1, 3, 3))
        concepts = ccx.Concepts.from_label_maps(labels, list("abc"), threads=1)
        groups = rng.integers(0, 2, n_samples) if grouped else None
        codes = group_codes(groups, n_samples)
        # A unit that knows the labels, then permuted: within groups, and left different between them.
        maps = (labels == 1) + rng.normal(size=(n_samples, 1, 3, 3)) + 2.0 * codes[:, None, None, None]
        order = np.arange(n_samples)
        for code in np.unique(codes):
            order[codes == code] = rng.permutation(np.flatnonzero(codes == code))
        (found,) = ccx.explain(
            maps[order].astype(np.float32), concepts, clusters=1, quantile=0.3, length=2, beam=2,
            permutations=null, groups=groups, seed=repetition, threads=1, progress=False,
        )  # fmt: skip
        values.append(1.0 if found.chance is None else found.chance.p)
    for alpha in (0.05, 0.1, 0.5):
        share = sum(p <= alpha for p in values) / repetitions
        assert share <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / repetitions)
    assert min(values) == 1 / (1 + null)
    assert sum(p <= 0.5 for p in values) > 0.3 * repetitions  # the test is no test that never fires


# Splits --------------------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    null=st.sampled_from([0, 5]),
    grouped=st.booleans(),
    threads=st.integers(1, 2),
)
@settings(max_examples=40)
def test_held_out_scores_by_hand(seed: int, null: int, grouped: bool, threads: int) -> None:
    rng = np.random.default_rng(seed)
    concepts, bitmaps = made_concepts(seed, n_samples=12), made_bitmaps(seed, n_samples=12)
    parts = rng.permutation(12)
    fit, score = np.sort(parts[:6]), np.sort(parts[6:11])
    groups = rng.integers(0, 2, 12).tolist() if grouped else None
    options = {"length": 2, "length_penalty": 0.9}
    found = ccx.explain_bitmaps(
        bitmaps,
        concepts,
        fit_samples=fit,
        test_samples=score,
        permutations=null,
        groups=groups,
        threads=threads,
        **options,
    )
    own = None if groups is None else [groups[n] for n in fit]
    alone = ccx.explain_bitmaps(bitmaps[:, fit], concepts.subset(samples=fit), permutations=null, groups=own, **options)
    valid = concepts.mask("a OR NOT a")
    codes = np.zeros(5, np.int64) if groups is None else np.array(groups)[score]
    for item, one, bitmap in zip(found, alone, bitmaps, strict=True):
        assert item.to_record() | {"held_out": None} == one.to_record()
        held_out = item.held_out
        if item.formula is None:
            assert held_out is None
            continue
        mask, fires = concepts.mask(item.formula)[score], bitmap[score]

        def scores(fires: NDArray[np.bool_], mask: NDArray[np.bool_] = mask) -> tuple[int, int, int]:
            fires = fires & valid[score]
            return int((fires & mask).sum()), int((fires | mask).sum()), int(fires.sum())

        hits, union, cells = scores(fires)
        assert held_out is not None
        assert (held_out.intersection, held_out.union, held_out.bitmap_cells) == (hits, union, cells)
        assert held_out.formula_cells == mask.sum()
        assert held_out.iou == (hits / union if union else 0)
        assert held_out.score == pytest.approx(held_out.iou * 0.9 ** (item.formula.length - 1))
        if not null:
            assert held_out.chance is None
            continue
        assert held_out.chance is not None
        nulls = [scores(fires[order]) for order in permutations(codes, null, 0)]
        exact = [Fraction(i, max(u, 1)) for i, u, _ in nulls]
        assert held_out.chance.p == (1 + sum(x >= Fraction(hits, max(union, 1)) for x in exact)) / (1 + null)
        factor = 0.9 ** (item.formula.length - 1)
        assert held_out.chance.maximum == pytest.approx(factor * float(max(exact)))
        assert held_out.chance.mean == pytest.approx(factor * float(sum(exact) / null))


def test_activations_are_split_too() -> None:
    maps = np.maximum(np.random.default_rng(3).normal(size=(N, 3, 2, 4)), 0).astype(np.float32)
    fit = np.arange(N) % 2 == 0
    found = ccx.explain(maps, CONCEPTS, fit_samples=fit, clusters=3, length=2, permutations=3)
    assert found == ccx.explain(
        maps, CONCEPTS, fit_samples=np.flatnonzero(fit)[::-1], test_samples=~fit, clusters=3, length=2, permutations=3
    )
    assert found == ccx.explain(maps, CONCEPTS, test_samples=~fit, clusters=3, length=2, permutations=3, threads=1)
    alone = ccx.explain(maps[fit], CONCEPTS.subset(samples=fit), clusters=3, length=2, permutations=3)
    assert [one.to_record() | {"held_out": None} for one in found] == alone.to_records()
    assert found.concepts_hash == CONCEPTS.content_hash
    for item in found.explained:
        rows = upsample_pack(maps[~fit, item.unit], GRID, item.range)
        bitmap = unpack(rows, math.prod(GRID)).reshape(-1, *GRID) & CONCEPTS.mask("a OR NOT a")[~fit]
        assert item.held_out is not None
        assert item.held_out.intersection == (bitmap & CONCEPTS.mask(item.formula)[~fit]).sum()
    assert (found.settings["fit_samples"], found.settings["test_samples"]) == ([0, 2, 4, 6], [1, 3, 5])


# What is stored ------------------------------------------------------------------------------------------------------


def test_a_run_folder_keeps_evidence_and_refuses_another(tmp_path: Path) -> None:
    maps = np.maximum(np.random.default_rng(3).normal(size=(N, 3, 2, 4)), 0).astype(np.float32)
    asked = {
        "clusters": 2,
        "length": 2,
        "permutations": 4,
        "seed": 2,
        "groups": list("xxxxyyy"),
        "fit_samples": [0, 1, 4, 5],
    }
    found = ccx.explain(maps, CONCEPTS, out=tmp_path, **asked)
    assert ccx.load(tmp_path) == found
    assert any(one.chance and one.held_out and one.held_out.chance for one in found)
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    assert ccx.explain(maps, CONCEPTS, out=tmp_path, **asked) == found
    assert rows.read_bytes() == whole
    for other in (
        {"permutations": 5},
        {"seed": 3},
        {"groups": None},
        {"groups": list("xxxyyyy")},
        {"fit_samples": [0, 2, 4, 5]},
    ):
        with pytest.raises(StoreError, match="differs in"):
            ccx.explain(maps, CONCEPTS, out=tmp_path, **asked | other)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"permutations": -1}, "permutations: expected an integer >= 0, got -1"),
        ({"permutations": 1.5}, "permutations: expected an integer >= 0"),
        ({"permutations": True}, "permutations: expected an integer >= 0"),
        ({"permutations": 1, "seed": -1}, "seed: expected an integer >= 0"),
        ({"groups": "xy"}, "groups: expected 7 labels, got 2"),
        ({"groups": [1.0, np.nan] * 4}, "groups: expected labels, got NaN"),
        ({"groups": 5}, "groups: expected 7 hashable labels"),
        ({"groups": [[1]] * N}, "groups: expected 7 hashable labels"),
        ({"permutations": 1, "groups": range(N)}, "permutations: expected two samples of one group"),
        (
            {"fit_samples": [0, 1], "test_samples": [1, 2]},
            r"test_samples: expected samples that fit_samples has not, got 1 of both, first 1",
        ),
        ({"fit_samples": range(N)}, "test_samples: expected at least one sample, got none"),
        ({"fit_samples": "0-4"}, "fit_samples: expected an array"),
        ({"fit_samples": list(range(N))}, "test_samples: expected at least one sample, got none"),
        ({"test_samples": list(range(N))}, "fit_samples: expected at least one sample, got none"),
        ({"fit_samples": np.zeros(N, np.bool_)}, "fit_samples: expected at least one sample"),
        ({"fit_samples": [0, 0]}, "fit_samples: .* each once, got repeated ones"),
        ({"fit_samples": [-1]}, "fit_samples: .* got values from -1 to -1"),
        ({"test_samples": [N]}, "test_samples: .* got values from 7 to 7"),
        ({"fit_samples": [True, False]}, r"fit_samples: expected bool\[7\] or indices"),
        ({"fit_samples": [0.5]}, r"fit_samples: expected bool\[7\] or indices"),
        (
            {"permutations": 1, "fit_samples": [0, 1], "test_samples": [2]},
            "permutations: expected two samples of one group",
        ),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ccx.explain_bitmaps(BITMAPS, CONCEPTS, **asked)
    with pytest.raises(InputError, match=words):
        ccx.explain(np.ones((N, 1), np.float32), CONCEPTS, **asked)


def test_memory_is_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    CONCEPTS.prepare()
    monkeypatch.setattr(memory, "available_bytes", lambda: 50_000)
    with pytest.raises(MemoryBudgetError, match="permutations"):
        ccx.explain_bitmaps(BITMAPS, CONCEPTS, permutations=1_000, threads=1)


def test_memory_is_asked_for_before_permutations_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    CONCEPTS.prepare()
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * 1_000 * N + 1_000)  # enough for the permutations alone

    def draw(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ccx.pipeline.judging.permutations", draw)
    with pytest.raises(MemoryBudgetError, match=r"permutations: .*; use fewer permutations or samples"):
        ccx.explain_bitmaps(BITMAPS, CONCEPTS, permutations=1_000, threads=1)


def test_packed_bitmaps() -> None:
    packed = pack(BITMAPS.reshape(2, N, -1))
    for asked in ({"permutations": 5}, {"permutations": 5, "fit_samples": [0, 1, 2, 3]}):
        assert ccx.explain_bitmaps(packed, CONCEPTS, **asked) == ccx.explain_bitmaps(BITMAPS, CONCEPTS, **asked)
