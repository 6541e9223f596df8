"""GPU kernels of branch and bound, with their launching code, against the CPU, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ccx
from ccx.kernels import branching as kernels
from ccx.kernels import cuda, pair_counts
from ccx.kernels._dispatch import on_gpu
from ccx.kernels.branching import Begun, Effort
from ccx.kernels.optimal import pairs_of
from ccx.search import SearchSettings, optimal_search
from tests.cuda_emulator.emulator import Emulator
from tests.cuda_emulator.gpu import emulated_cupy, gpus, use
from tests.optimal_oracle import problems
from tests.test_branching import EFFORTS, concepts_of, tuned
from tests.test_optimal import histogram

pytestmark = pytest.mark.needs("gxx")

SEEDS = st.integers(0, 2**32 - 1)
# Where what is left after sifting decides what follows.
MORE_EFFORTS = st.builds(
    Effort,
    few=st.sampled_from([0, 3]),
    many=st.sampled_from([3, 6, 1_024]),
    partners=st.sampled_from([1, 2, 32]),
    turns=st.sampled_from([1, 2, 4]),
    steps=st.sampled_from([0, 10, 40, 200]),
)


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy() as patch:
        patch.setattr(cuda.branching, "AT_A_TIME", 3)
        yield


class Case:
    """A problem, its space in main memory, and formulas of `n` concepts."""

    def __init__(self, seed, n_concepts, n_cells, n, effort, *, with_main=True):
        rng = np.random.default_rng(seed)
        masks, bitmap = problems(rng, n_concepts, n_cells)
        q, p = [(1, 1), (3, 1), (5, 2), (7, 5)][rng.integers(4)]
        concepts = concepts_of(masks)
        self.atoms, counts = concepts.atoms, histogram(bitmap, concepts)
        hits, usable = pair_counts(self.atoms, counts), rng.random(n_concepts) < 0.9
        usable[rng.permutation(n_concepts)[:2]] = True
        pairs = pairs_of(self.atoms, counts, self.atoms.pair_cells, hits, q, p, usable, 1)
        self.n = pairs.order.size
        self.values = pairs.values
        main = int(rng.integers(self.n)) if with_main else -1
        self.space = kernels.space_of(self.atoms, counts, pairs, q, p, main, effort)
        if rng.random() < 0.2 and main >= 0:
            self.space = kernels.without_main(self.space)
        self.begun = [self._formula(rng, min(n, self.n)) for _ in range(rng.integers(1, 6))]
        self._rng = rng

    def _formula(self, rng, n):
        concepts = tuple(rng.permutation(self.n)[:n].tolist())
        return Begun(
            concepts, tuple(rng.integers(0, 3, n - 1).tolist()), int(rng.choice([rng.integers(0, 200), 1 << 40]))
        )

    def known(self, length):
        """Return an increasing most value by length, and one that is no greater."""
        steps = self._rng.integers(0, 1 + np.abs(self.values).max(initial=1), length)
        steps[0] = 0
        most = np.cumsum(steps)
        return most, np.maximum(most - self._rng.integers(0, 3, length).cumsum(), 0)


def check(gpu, case, longer, least, known):
    """Expand on the GPU and on the CPU -> how many extensions and completions were found."""
    there = case.space.at(gpu)
    assert on_gpu(there.values)
    got = kernels.expand(there, None, case.begun, longer, least, *known)
    wanted = kernels.expand(case.space, kernels.room_for(case.atoms), case.begun, longer, least, *known)
    n_found = 0
    for ours, theirs in zip(got, wanted, strict=True):
        for one, other in zip(ours[:2], theirs[:2], strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
            n_found += len(other)
        assert ours[2] == theirs[2]
    return n_found


def edges(case, longer, known):
    """Return least values at which an extension or a completion is just found, or just not."""
    space, room = case.space, kernels.room_for(case.atoms)
    every = kernels.expand(space, room, case.begun, longer, -1_000, *known)
    bounds = [bound for children, _, _ in every for bound in children[:, 2].tolist()]
    low, high = -1_000, 1_000
    while not bounds and high - low > 1:  # the greatest value of a completion
        middle = (low + high) // 2
        found = any(len(found) for _, found, _ in kernels.expand(space, room, case.begun, longer, middle, *known))
        low, high = (middle, high) if found else (low, middle)
    return sorted({*bounds, low})


@given(
    gpu=gpus(),
    seed=SEEDS,
    n_concepts=st.integers(2, 12),
    n=st.integers(1, 3),
    longer=st.integers(2, 4),
    effort=EFFORTS | MORE_EFFORTS,
    budget=st.sampled_from([1 << 30, 0]),
    data=st.data(),
)
def test_expansions(gpu, seed, n_concepts, n, longer, effort, budget, data):
    case = Case(seed, n_concepts, 65, n, effort, with_main=seed % 3 > 0)
    known = case.known(len(case.begun[0].concepts) + longer)
    least = data.draw(st.sampled_from(edges(case, longer, known))) + data.draw(st.sampled_from([0, 0, 1, -20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "budget", budget)
        check(gpu, case, longer, least, known)


@pytest.mark.parametrize(
    ("longer", "effort"),
    [(2, Effort()), (3, Effort(few=0)), (3, Effort(steps=200)), (4, Effort(few=20, partners=4, turns=5))],
)
def test_more_concepts_than_a_warp_has_lanes(longer, effort):
    gpu = use(Emulator(96, 2), 12345)
    n_found = 0
    for seed in range(2):
        case = Case(seed, 45, 200, 1 + seed % 2, effort)
        for least in (100, 250, 500, 750):
            n_found += check(gpu, case, longer, least, case.known(len(case.begun[0].concepts) + longer))
    assert n_found > 100


@settings(max_examples=settings.default.max_examples // 4)
@given(
    gpu=gpus(), seed=SEEDS, n_concepts=st.integers(4, 6), top=st.sampled_from([1, 3]), effort=EFFORTS,
    limit=st.sampled_from([None, None, 0, 60, 600]), scoring=st.sampled_from(["iou", "mcc", "precision"]),
    min_iou=st.sampled_from([0.0, 0.0, 0.3, 0.6]),
)  # fmt: skip
def test_search_where_the_histogram_lies(gpu, seed, n_concepts, top, effort, limit, scoring, min_iou):
    masks, bitmap = problems(np.random.default_rng(seed), n_concepts, 40)
    concepts = concepts_of(masks)
    counts = histogram(bitmap, concepts)
    asked = SearchSettings(
        length=5, top=top, beam=1, evaluation_limit=limit, scoring=scoring, min_iou=min_iou, candidates=n_concepts
    )
    with tuned(effort):
        assert optimal_search(concepts, gpu.place(counts), asked) == optimal_search(concepts, counts, asked)


def test_explain_proves_where_the_bitmaps_lie():
    gpu = use(Emulator(64, 2))
    masks, bitmap = problems(np.random.default_rng(1), 6, 65)
    arrays = bitmap.reshape(1, 1, 5, 13), masks.reshape(6, 1, 5, 13)
    options = {"search": "optimal", "length": 5, "beam": 1}
    found = ccx.explain_bitmaps(gpu.place(arrays[0]), ccx.Concepts.from_masks(arrays[1]), **options)
    assert found == ccx.explain_bitmaps(*arrays, **options)
    assert all(one.optimal for one in found)
