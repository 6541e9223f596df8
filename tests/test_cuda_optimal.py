"""GPU kernels of the proven optimum, with their launching code, against the CPU and the oracle, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.errors import MemoryBudgetError
from ccx.kernels import bitmap_histogram, optimal, pack, pair_counts
from ccx.kernels.devices import to_host
from ccx.kernels.reference import optimal as reference
from ccx.pipeline.devices import share_out
from ccx.search import SearchSettings, beam_search, optimal_search
from tests.cuda_emulator.emulator import DeviceArray, Emulator
from tests.cuda_emulator.gpu import emulated_cupy, gpus, use
from tests.optimal_oracle import problems
from tests.parity_cases import load_case
from tests.test_kernels_optimal import CASES, as_lists, case_of, pairs_of, some_candidates, thresholds

pytestmark = pytest.mark.needs("gxx")


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


def pairs_on(gpu, case):
    """Return the pairs on the GPU, from atoms and a histogram there; and those of the CPU."""
    atoms, counts = case.atoms.sets_at(gpu), gpu.place(case.counts)
    hits = pair_counts(atoms, counts)
    pairs = optimal.pairs_of(atoms, counts, atoms.pair_cells, hits, case.q, case.p, case.usable, None)
    return pairs, pairs_of(case)


@given(gpu=gpus(), case=CASES)
def test_pairs(gpu, case):
    got, wanted = pairs_on(gpu, case)
    np.testing.assert_array_equal(got.order, wanted.order, strict=True)
    for ours, theirs in zip(got[1:], wanted[1:], strict=True):
        assert isinstance(ours, DeviceArray)
        np.testing.assert_array_equal(to_host(ours), theirs, strict=True)
    for least in thresholds(wanted):
        good = optimal.good_pairs(got, least)
        np.testing.assert_array_equal(good, optimal.good_pairs(wanted, least), strict=True)
        assert good.tolist() == as_lists(reference.good_pairs(wanted.values, least))
        found, n_bounds = optimal.promising_pairs(got, least)
        promising, n_tried = reference.promising_pairs(wanted.values, wanted.gains, least)
        assert (found.tolist(), n_bounds) == (as_lists(promising), n_tried)
        assert (found.dtype, found.shape) == (np.int32, (len(promising), 3))
        middle = wanted.order.size // 3
        parts = [optimal.promising_pairs(got, least, *ends) for ends in ((0, middle), (middle, wanted.order.size))]
        assert np.concatenate([rows for rows, _ in parts]).tolist() == found.tolist()
        assert sum(n for _, n in parts) == n_bounds


@given(gpu=gpus(), case=CASES, data=st.data())
def test_good_extensions(gpu, case, data):
    pairs, on_cpu = pairs_on(gpu, case)
    n = pairs.order.size
    if n < 2:
        return
    least = data.draw(st.sampled_from(thresholds(on_cpu)))
    head, candidates = some_candidates(n, data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, 99)))
    check_extensions(gpu, case, pairs, on_cpu, head, candidates, least)


def check_extensions(gpu, case, pairs, on_cpu, head, candidates, least):
    starts, posted = case.atoms.postings
    concept = pairs.order[head]
    head_atoms = posted[starts[concept] : starts[concept + 1]]
    rest = (head, candidates, case.q, case.p, least)
    atoms, counts = case.atoms.sets_at(gpu), gpu.place(case.counts)
    found, n_counted = optimal.good_extensions(atoms, head_atoms, counts, pairs, *rest)
    wanted, n_wanted = optimal.good_extensions(case.atoms, head_atoms, case.counts, on_cpu, *rest)
    np.testing.assert_array_equal(found, wanted, strict=True)
    assert n_counted == n_wanted
    return found


@pytest.mark.parametrize(("gpu", "order"), [(Emulator(96, 2), 0), (Emulator(32, 3), 12345)], ids=["wide", "narrow"])
def test_more_concepts_than_a_warp_has_lanes(gpu, order):
    use(gpu, order)
    case = case_of(8, 70, 300)._replace(usable=np.ones(70, np.bool_), q=3, p=2)
    pairs, on_cpu = pairs_on(gpu, case)
    least = int(np.quantile(on_cpu.values, 0.95))
    good = optimal.good_pairs(pairs, least)
    np.testing.assert_array_equal(good, optimal.good_pairs(on_cpu, least), strict=True)
    n_least = int(np.quantile(on_cpu.gains.diagonal(), 0.8))
    got, wanted = (optimal.promising_pairs(one, n_least) for one in (pairs, on_cpu))
    np.testing.assert_array_equal(got[0], wanted[0], strict=True)
    assert got[1] == wanted[1]
    head, candidates = some_candidates(70, 40, 0)
    found = check_extensions(gpu, case, pairs, on_cpu, head, candidates, least)
    sizes = len(good), len(got[0]), got[1], len(found)
    assert min(sizes) > 100, sizes


@pytest.mark.parametrize("scoring", ["iou", "mcc", "precision", "recall"])
@given(
    gpu=gpus(), seed=st.integers(0, 2**32 - 1), n_concepts=st.integers(1, 6), top=st.sampled_from([1, 4]),
    min_iou=st.sampled_from([0.0, 0.2, 0.5, 1.0]), limit=st.sampled_from([None, None, 0, 20, 200]),
)  # fmt: skip
def test_search_where_the_histogram_lies(scoring, gpu, seed, n_concepts, top, min_iou, limit):
    masks, bitmap = problems(np.random.default_rng(seed), n_concepts, 40)
    concepts = ccx.Concepts.from_masks(masks.reshape(n_concepts, 1, 1, -1))
    (counts,) = bitmap_histogram(pack(bitmap.reshape(1, 1, -1)), concepts.atoms)
    settings = SearchSettings(3, 1, top=top, scoring=scoring, min_iou=min_iou, evaluation_limit=limit)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ccx.search.optimal._FEW", 0)  # pairs are held against the least IoU, too
        patched.setattr("ccx.search.optimal._STEP", 1)
        assert optimal_search(concepts, gpu.place(counts), settings) == optimal_search(concepts, counts, settings)
    allowed = np.arange(n_concepts) % 3 < 2
    for beam in (replace(settings, evaluation_limit=None, candidates=c) for c in (None, n_concepts, 99)):
        wanted = beam_search(concepts, counts, replace(beam, candidates=None), allowed)
        assert beam_search(concepts, gpu.place(counts), beam, allowed) == wanted


def test_explain_proves_where_the_bitmaps_lie():
    gpu = use(Emulator(64, 2))
    case = load_case("h1_tiny")
    concepts = ccx.Concepts.from_masks(case.masks)
    bitmaps = np.stack([bitmap.cells for bitmap in case.bitmaps[:3]])
    found = ccx.explain_bitmaps(gpu.place(bitmaps), concepts, search="optimal")
    assert found == ccx.explain_bitmaps(bitmaps, concepts, search="optimal")
    assert all(one.optimal for one in found)


@pytest.mark.parametrize("budget", [1 << 30, 300_000, 150_000])
def test_workers_find_room_for_what_two_concepts_share(budget, monkeypatch):
    """40 concepts share 12,800 bytes: once for all workers, and seven times for each."""
    gpu = use(Emulator())
    atoms = case_of(0, 40, 65).atoms

    def n_workers(budget, proof):
        monkeypatch.setattr(gpu, "budget", budget)
        return share_out([gpu], [atoms], 8, 1_000, 1, 4, masks=False, proof=proof).n_workers

    assert n_workers(budget, proof=False) == 4
    found = n_workers(budget, proof=True)
    assert (1 + 7 * found) * 12_800 < budget
    assert found == 4 or (1 + 7 * (found + 2)) * 12_800 > budget  # two more would not fit: the atoms take room, too
    with pytest.raises(MemoryBudgetError, match="work that fits into"):
        n_workers(90_000, proof=True)
