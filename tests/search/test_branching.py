"""Formulas of four concepts and more: the proven optimum equals brute force, and no bound ever lies."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import event

import ccx
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.formula import canonical_ids
from ccx.kernels import completions as kernels
from ccx.kernels import cpu
from ccx.kernels import heads as kernels_heads
from ccx.kernels.concept_pairs import pairs_of
from ccx.search import SearchOptions, beam_search, branching, limits, optimal_search
from ccx.search.found import Objective
from ccx.search.limits import Limit
from tests import reference
from tests.reference import scores_oracle
from tests.reference.optimal_oracle import Best, best_formulas, every_formula, problems
from tests.support.fuzzing import attempts
from tests.support.histograms import expanded, histogram, is_sorted

SEEDS = st.integers(0, 2**32 - 1)
HARD = 1  # a problem of which the beam of one falls short
EFFORTS = st.sampled_from([
    kernels.EFFORT,
    kernels.Effort(few=0),
    kernels.Effort(few=0, partners=1, turns=1),
    kernels.Effort(few=0, partners=2, turns=3, steps=0),
    kernels.Effort(few=0, many=0),
    kernels.Effort(steps=20),
])  # fmt: skip


def concepts_of(masks):
    return Concepts.from_masks(masks.reshape(len(masks), 1, 1, -1))


def proof(masks, bitmap, allowed=None, **options):
    concepts = concepts_of(masks)
    return optimal_search(concepts, histogram(bitmap, concepts), SearchOptions(**options), allowed, threads=1)


def found_by(result):
    return [Best(one.concepts, one.operators, one.intersection, one.union) for one in result.found]


def a_problem(seed, n_concepts, n_cells=None):
    rng = np.random.default_rng(seed)
    return problems(rng, n_concepts, n_cells or int(rng.choice([1, 5, 20, 40, 63, 64, 65])))


@contextmanager
def tuned(effort):
    """Make searches refine their bounds differently than usual."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernels.space_of, "__defaults__", (effort,))
        yield


@given(
    seed=SEEDS,
    n_concepts=st.integers(1, 5),
    length=st.integers(4, 6),
    top=st.sampled_from([1, 1, 2, 5]),
    penalty=st.sampled_from([1.0, 1.0, 0.95, 0.5]),
    beam=st.integers(1, 4),
)
def test_it_equals_brute_force(seed, n_concepts, length, top, penalty, beam):
    masks, bitmap = a_problem(seed, n_concepts)
    result = proof(masks, bitmap, length=length, top=top, length_penalty=penalty, beam=beam)
    assert found_by(result) == best_formulas(every_formula(masks, bitmap, length), top, penalty)
    assert result.optimal


@given(seed=SEEDS, length=st.sampled_from([4, 4, 4, 5]), beam=st.integers(1, 3))
def test_six_concepts(seed, length, beam):
    masks, bitmap = a_problem(seed, 6)
    result = proof(masks, bitmap, length=length, beam=beam)
    assert found_by(result) == best_formulas(every_formula(masks, bitmap, length), 1)


@given(seed=SEEDS, n_concepts=st.integers(4, 6), effort=EFFORTS, beam=st.integers(1, 2), top=st.sampled_from([1, 3]))
def test_however_far_bounds_are_refined(seed, n_concepts, effort, beam, top):
    masks, bitmap = a_problem(seed, n_concepts)
    length = 4 if n_concepts == 6 else 5
    with tuned(effort):
        result = proof(masks, bitmap, length=length, beam=beam, top=top)
    assert found_by(result) == best_formulas(every_formula(masks, bitmap, length), top)


# Formulas that reach all of the bitmap, as no shorter one does, and atoms: cells, in the bitmap or not, concepts.
# Concept 0 is the best. Each finds a bound at fault that forgets where it, or what an AND cuts, may come.
LATE = [
    (
        ((1, 2, 3, 0), (0, 0, 1)),
        [(6, 0, {0}), *((5, 1, {0, k}) for k in (1, 2, 3)), *((20, 0, {k}) for k in (1, 2, 3))],
    ),
    (
        ((1, 2, 3, 0), (0, 1, 0)),
        [(30, 1, {0}), *((5, 1, {k, 3}) for k in (1, 2)), *((20, 0, {k}) for k in (1, 2, 3))],
    ),
    (
        ((1, 2, 3, 4, 0), (0, 0, 1, 0)),
        [(30, 1, {0}), *((5, 1, {k, 4}) for k in (1, 2, 3)), *((20, 0, {k}) for k in (1, 2, 3, 4))],
    ),
]


@pytest.mark.parametrize(("wanted", "atoms"), LATE)
def test_the_main_concept_may_come_late(wanted, atoms):
    length = len(wanted[0])
    cells = [(inside, concepts) for n, inside, concepts in atoms for _ in range(n)]
    bitmap = np.array([inside for inside, _ in cells], bool)
    masks = np.array([[c in concepts for _, concepts in cells] for c in range(length)])
    result = proof(masks, bitmap, length=length, beam=1)
    assert found_by(result) == best_formulas(every_formula(masks, bitmap, length), 1)
    assert (result.found[0].concepts, result.found[0].operators) == wanted
    assert result.found[0].iou == 1 > proof(masks, bitmap, length=length - 1).found[0].iou


@given(seed=SEEDS, top=st.sampled_from([1, 5]))
def test_many_ties(seed, top):
    """A few cells and concepts that look alike: most formulas tie with others."""
    rng = np.random.default_rng(seed)
    masks, bitmap = rng.random((5, 4)) < 0.5, rng.random(4) < 0.5
    result = proof(masks, bitmap, length=4, top=top)
    assert found_by(result) == best_formulas(every_formula(masks, bitmap, 4), top)


@given(seed=SEEDS)
def test_only_allowed_concepts_occur(seed):
    rng = np.random.default_rng(seed)
    masks, bitmap = problems(rng, 7, 40)
    allowed = rng.random(7) < 0.7
    result = proof(masks, bitmap, allowed, length=4, beam=1)
    assert found_by(result) == best_formulas(every_formula(masks, bitmap, 4, np.flatnonzero(allowed).tolist()), 1)


@given(seed=SEEDS, name=st.sampled_from(["f1", "precision", "recall", "mcc", "cosine", "balanced_accuracy"]))
def test_other_scores(seed, name):
    masks, bitmap = a_problem(seed, 5, 40)
    result = proof(masks, bitmap, length=4, beam=1, scoring=name)
    brute = every_formula(masks, bitmap, 4)
    assert result.optimal
    if not result.found:
        assert max((score_of(name, one, masks, bitmap) for one in brute), default=0) <= 0
        return
    best = score_of(name, found_by(result)[0], masks, bitmap)
    assert best == max(score_of(name, one, masks, bitmap) for one in brute)


def score_of(name, one, masks, bitmap):
    """The squared score, by the oracle."""
    cells, size = int(bitmap.sum()), one.union - int(bitmap.sum()) + one.intersection
    tp, fp = one.intersection, size - one.intersection
    return getattr(scores_oracle, name)(tp, fp, cells - tp, bitmap.size - cells - fp)


@settings(max_examples=settings.default.max_examples // 4)  # a dozen proofs each
@given(
    seed=SEEDS,
    length=st.sampled_from([4, 5]),
    penalty=st.sampled_from([1.0, 0.9]),
    name=st.sampled_from(["iou", "mcc"]),
)
def test_bounds_never_lie_wherever_the_search_stops(seed, length, penalty, name):
    masks, bitmap = a_problem(seed, 5, 40)
    options = {"length": length, "length_penalty": penalty, "beam": 1, "scoring": name}
    whole = proof(masks, bitmap, **options)
    if not whole.found:
        return
    assert whole.optimal
    optimum = whole.upper_bound
    previous = math.inf
    limits = np.random.default_rng(seed).integers(1, whole.evaluations, 4, endpoint=True)
    for limit in sorted({1, *limits.tolist(), whole.evaluations}):
        stopped = proof(masks, bitmap, evaluation_limit=limit, **options)
        again = proof(masks, bitmap, evaluation_limit=limit, **options)
        assert stopped == again
        best = score(stopped, masks, bitmap, **options)
        assert best <= optimum <= stopped.upper_bound <= previous
        assert not stopped.optimal or stopped.found == whole.found
        assert stopped.optimal or limit <= stopped.evaluations <= whole.evaluations
        assert stopped.evaluations >= stopped.visited  # what is counted is part of it
        previous = stopped.upper_bound
    assert proof(masks, bitmap, evaluation_limit=whole.evaluations + 1, **options) == whole


def score(result, masks, bitmap, length_penalty, scoring, **_):
    (one, *_) = result.found
    asked = SearchOptions(length_penalty=length_penalty, scoring=scoring)
    return Objective.of(asked, int(bitmap.sum()), bitmap.size).score(one)


def test_a_bound_that_is_reached_is_no_lie():
    """Stopped just before the optimum is found, the greatest open value is the optimum's own."""
    masks = np.array([[1, 0, 1, 1, 1], [0, 0, 0, 1, 1], [1, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]], bool)
    bitmap = np.array([0, 1, 1, 0, 1], bool)
    whole = proof(masks, bitmap, length=4, beam=1)
    for limit in range(1, whole.evaluations):
        assert proof(masks, bitmap, length=4, beam=1, evaluation_limit=limit).upper_bound >= whole.found[0].iou


def test_what_scores_nothing_is_not_found():
    """Half of every atom lies in the bitmap, so that MCC is 0, which the planes of many cells do not tell from more."""
    half = np.random.default_rng(HARD).random((4, 200)) < 0.5
    result = proof(np.tile(half, 2), np.arange(400) < 200, length=4, scoring="mcc")
    assert result.found == []
    assert result.optimal


def test_a_limit_is_reached_where_it_is_met():
    limit = Limit(5, None)
    for done, reached in ((4, False), (5, True), (6, True)):
        limit.evaluations = done
        assert limit.reached() == reached


def test_limits_are_of_proofs_alone():
    masks = np.zeros((2, 3, 2, 2), bool)
    masks[0, :, 0] = masks[1, 1:] = True
    bitmaps = masks[:1]
    for options in ({"time_limit": 1.0}, {"evaluation_limit": 9}, {"evaluation_limit": 9, "search": "mmesh"}):
        with pytest.raises(InputError, match=r"_limit: expected None with search"):
            ccx.explain_bitmaps(bitmaps, masks, **options)
    with pytest.raises(InputError, match="time_limit: expected None beside permutations"):
        ccx.explain_bitmaps(bitmaps, masks, search="optimal", time_limit=1.0, permutations=3)
    found = ccx.explain_bitmaps(bitmaps, masks, search="optimal", evaluation_limit=9, permutations=3, progress=False)
    assert found[0].chance is not None


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("name", scores_oracle.EVERY)
def test_a_limit_of_nothing_gives_the_beam_and_a_bound(length, name):
    """Both kinds of limit alike, at every length and by every score."""
    masks, bitmap = a_problem(HARD, 6, 65)
    options = {"length": length, "beam": 1, "scoring": scores_oracle.scoring_of(name)}
    concepts = concepts_of(masks)
    beam = beam_search(concepts, histogram(bitmap, concepts), SearchOptions(**options), threads=1)
    optimum = proof(masks, bitmap, **options).upper_bound
    for limit in ({"time_limit": 0.0}, {"evaluation_limit": 0}, {"time_limit": 0}):
        stopped = proof(masks, bitmap, **options, **limit)
        assert (stopped.found, stopped.visited) == (beam.found, beam.visited)
        assert stopped.optimal == (name == "recall")  # of 1, beyond which there is nothing to prove
        if name == "small_and_pure":  # nothing bounds it
            assert stopped.upper_bound is None
        else:
            assert stopped.upper_bound >= optimum


def test_a_limit_of_nothing_leaves_what_takes_no_proof_proven():
    """Single concepts are all looked at, and a bitmap that no concept meets has no formula."""
    masks, bitmap = a_problem(HARD, 6, 65)
    assert proof(masks, bitmap, length=1, evaluation_limit=0).optimal
    nothing = proof(masks, bitmap & ~masks.any(axis=0), length=3, time_limit=0)
    assert (nothing.found, nothing.optimal, nothing.upper_bound, nothing.evaluations) == ([], True, 0.0, 0)


@pytest.mark.parametrize("name", ["iou", "precision", "mcc", "cosine", "tenths"])
def test_a_limit_is_looked_at_between_any_two_steps(name, monkeypatch):
    """Wherever the limit is reached, no step follows."""
    masks, bitmap = a_problem(HARD, 6, 65)
    options = {"length": 4, "beam": 1, "scoring": scores_oracle.scoring_of(name), "top": 3, "time_limit": 1e9}
    looks, steps = [], []

    def reached(limit):
        looks.append(limit)
        return len(looks) >= stop

    def watched(step):
        def taken(*args):
            assert len(looks) < stop
            steps.append(step)
            return step(*args)

        return taken

    monkeypatch.setattr(limits.Limit, "reached", reached)
    for module, step in (
        (kernels, "expand"), (kernels_heads, "open_formulas"), (kernels_heads, "counted"), (kernels_heads, "good_pairs")
    ):  # fmt: skip
        monkeypatch.setattr(module, step, watched(getattr(module, step)))
    stop = 10**9
    whole = proof(masks, bitmap, **options)
    n_looks, n_steps = len(looks), len(steps)
    assert whole.optimal
    assert n_steps <= n_looks
    assert n_steps > 10
    for stop in {*range(1, 20), *range(20, n_looks, attempts(nightly=7, quick=23))}:  # noqa: B007 - `reached` looks at it
        looks.clear()
        result = proof(masks, bitmap, **options)
        assert result.upper_bound >= whole.upper_bound
        assert result.found == whole.found or not result.optimal


def test_compiling_kernels_is_no_part_of_a_search(monkeypatch):
    """A kernel that takes a minute to compile, by numba's own event, on a clock of ours."""
    now = [0.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    limit = Limit(None, 1.0)
    with event.trigger_event("numba:compiler_lock"):
        now[0] += 50
        with event.trigger_event("numba:compiler_lock"):  # of a kernel that it calls
            now[0] += 10
        assert not limit.reached()
    assert not limit.reached()
    now[0] += 0.9
    assert not limit.reached()
    now[0] += 0.1
    assert limit.reached()


def test_what_waits_is_finished_depth_first_where_it_is_too_much(monkeypatch):
    masks, bitmap = a_problem(HARD, 6, 65)
    wanted = proof(masks, bitmap, length=5, beam=1)
    monkeypatch.setattr(branching, "_MAX_OPEN", 3)
    assert proof(masks, bitmap, length=5, beam=1).found == wanted.found


def test_an_interrupted_search_can_be_begun_again(monkeypatch):
    masks, bitmap = a_problem(HARD, 6, 65)
    wanted = proof(masks, bitmap, length=5, beam=1)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kernels, "expand", interrupted)
        with pytest.raises(KeyboardInterrupt):
            proof(masks, bitmap, length=5, beam=1)
    assert proof(masks, bitmap, length=5, beam=1) == wanted


def test_an_interrupt_that_numba_reports_as_an_error_of_its_own_is_one(monkeypatch):
    """As seen where a signal came while arguments were read: two errors deep."""

    def interrupted(*_):
        try:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as one:
                raise SystemError("unpickle") from one
        except SystemError as two:
            raise SystemError("dispatcher") from two

    masks, bitmap = a_problem(HARD, 6, 65)
    monkeypatch.setattr(cpu.completions, "expand", interrupted)
    with pytest.raises(KeyboardInterrupt):
        proof(masks, bitmap, length=5, beam=1)


@settings(max_examples=settings.default.max_examples // 2)  # thousands of formulas each
@given(seed=SEEDS, effort=EFFORTS, data=st.data())
def test_no_completion_exceeds_the_bound_of_its_beginning(seed, effort, data):
    """`expand` against all completions: none that reaches `least` is lost, and no bound is too low."""
    rng = np.random.default_rng(seed)
    masks, bitmap = problems(rng, 6, 40)
    q, p = data.draw(st.sampled_from([(1, 1), (3, 1), (5, 2), (7, 5)]))
    concepts = concepts_of(masks)
    atoms, counts = concepts.atoms, histogram(bitmap, concepts)
    pairs = pairs_of(atoms, counts, q, p, np.ones(6, bool))
    members, values = masks[pairs.order], np.where(bitmap, q, -p)
    main = data.draw(st.sampled_from([-1, 0, 1, int(np.argmax(pairs.values.diagonal()))]))
    space = kernels.space_of(atoms, counts, pairs, main, effort)
    n = data.draw(st.integers(1, 3))
    longer = data.draw(st.integers(2, 4 if n == 1 else 5 - n if n == 2 else 2))
    begun = tuple(rng.permutation(6)[:n].tolist()), tuple(rng.integers(0, 3, n - 1).tolist())
    every = [
        (parts, value)
        for first in range(6)
        for length in range(n + longer)
        for parts, value in reference.completions(members, values, (first,), (), length).items()
    ] if n + longer <= 4 else None  # fmt: skip
    most = np.full(n + longer, 1 << 40, np.int64)
    most_beside = most.copy()
    if every:
        for length in range(n + longer):
            most[length] = max([0, *(v for (ids, _), v in every if len(ids) <= length)])
            most_beside[length] = max([0, *(v for (ids, _), v in every if len(ids) <= length and main not in ids)])
    full = reference.completions(members, values, *begun, longer)
    least = int(np.quantile(list(full.values()), data.draw(st.sampled_from([0.5, 0.9, 0.99, 1.0]))))
    children, found, _ = expanded(space, atoms, *begun, longer, least, most, most_beside)
    reached = {canonical(*parts): value for parts, value in full.items() if value >= least and is_sorted(*parts, n)}
    if longer == 2:
        listed = {canonical((*begun[0], c, d), (*begun[1], op, second)) for c, op, d, second in found.tolist()}
        assert listed == set(reached)
        return
    bounds = {(c, op): bound for c, op, bound in children.tolist()}
    for parts, value in full.items():
        if value >= least and is_sorted(*parts, n):
            assert bounds[parts[0][n], parts[1][n - 1]] >= value


def canonical(ids, operators):
    concepts, ops = canonical_ids(ids, operators)
    return concepts, tuple(map(int, ops))


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"time_limit": -1.0}, "time_limit"),
        ({"time_limit": "1"}, "time_limit"),
        ({"time_limit": math.inf}, "time_limit"),
        ({"time_limit": math.nan}, "time_limit"),
        ({"evaluation_limit": -1}, "evaluation_limit"),
        ({"evaluation_limit": 1.0}, "evaluation_limit"),
    ],
)
def test_limits_are_checked(options, argument):
    with pytest.raises(InputError, match=argument):
        SearchOptions(**options)


def test_explain_passes_limits_on_and_says_what_is_proven():
    masks, bitmap = a_problem(HARD, 6, 65)
    arrays = bitmap.reshape(1, 1, 5, 13), masks.reshape(6, 1, 5, 13)
    options = {"search": "optimal", "length": 4, "beam": 1, "threads": 1}
    (proven,) = ccx.explain_bitmaps(*arrays, **options)
    stopped = ccx.explain_bitmaps(*arrays, **options, evaluation_limit=1)
    assert (proven.optimal, proven.gap) == (True, 0)
    assert not stopped[0].optimal
    assert stopped[0].score <= proven.score <= stopped[0].upper_bound
    assert stopped.settings["evaluation_limit"] == 1


def test_no_bound_cuts_off_the_best_formula():
    """The tightest `least` there is: the best value of all formulas of four concepts."""
    tight = 0
    for seed in range(attempts(nightly=100, quick=50)):
        masks, bitmap = a_problem(seed, 5, 40)
        concepts = concepts_of(masks)
        atoms, counts = concepts.atoms, histogram(bitmap, concepts)
        pairs = pairs_of(atoms, counts, 3, 1, np.ones(5, bool))
        members, values = masks[pairs.order], np.where(bitmap, 3, -1)
        main = seed % 5  # bounds hold whichever it is
        space = kernels.space_of(atoms, counts, pairs, main)
        every = [reference.completions(members, values, (c,), (), k) for c in range(5) for k in range(4)]
        valued = [one for some in every for one in some.items()]
        most, most_beside = np.zeros((2, 4), np.int64)
        for k in range(1, 4):
            most[k] = max(0, *(v for (ids, _), v in valued if len(ids) <= k))
            most_beside[k] = max(0, *(v for (ids, _), v in valued if len(ids) <= k and main not in ids))
        best = max(v for (ids, _), v in valued if len(ids) == 4)
        tight += best > most[3]
        for (ids, operators), value in valued:
            if len(ids) == 4 and value == best and is_sorted(ids, operators, 1):
                arguments = best, most, most_beside
                children, _, _ = expanded(space, atoms, ids[:1], (), 3, *arguments)
                bounds = {(c, op): bound for c, op, bound in children.tolist()}
                assert bounds[ids[1], operators[0]] >= best
                _, found, _ = expanded(space, atoms, ids[:2], operators[:1], 2, *arguments)
                assert [ids[2], operators[1], ids[3], operators[2]] in found.tolist()
    assert tight > 5  # else a fourth concept adds nothing
