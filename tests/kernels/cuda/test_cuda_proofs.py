"""Proofs where bitmaps lie on a GPU: the beam's and the proven answers are those of the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.kernels import bitmap_histogram, pack
from ccx.search import SearchOptions, beam_search, optimal_search
from tests.reference.optimal_oracle import problems
from tests.support.cuda_emulator.emulator import Emulator, RawKernel
from tests.support.cuda_emulator.gpu import emulated_cupy, gpus, use
from tests.support.parity_cases import load_case

pytestmark = pytest.mark.needs("gxx")


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


@pytest.mark.parametrize("scoring", ["iou", "mcc", "precision", "recall"])
@given(
    gpu=gpus(), seed=st.integers(0, 2**32 - 1), n_concepts=st.integers(1, 6), length=st.integers(1, 5),
    top=st.sampled_from([1, 4]), min_iou=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    limit=st.sampled_from([None, None, 0, 20, 200]),
)  # fmt: skip
def test_searches_of_a_histogram_on_a_gpu(scoring, gpu, seed, n_concepts, length, top, min_iou, limit):
    masks, bitmap = problems(np.random.default_rng(seed), n_concepts, 40)
    concepts = ccx.Concepts.from_masks(masks.reshape(n_concepts, 1, 1, -1))
    (counts,) = bitmap_histogram(pack(bitmap.reshape(1, 1, -1)), concepts.atoms)
    asked = SearchOptions(length, 1, top=top, scoring=scoring, min_iou=min_iou, evaluation_limit=limit)
    assert optimal_search(concepts, gpu.place(counts), asked) == optimal_search(concepts, counts, asked)
    allowed = np.arange(n_concepts) % 3 < 2
    for beam in (replace(asked, evaluation_limit=None, candidates=c) for c in (None, n_concepts, 99)):
        wanted = beam_search(concepts, counts, replace(beam, candidates=None), allowed)
        assert beam_search(concepts, gpu.place(counts), beam, allowed) == wanted


def test_a_histogram_is_brought_down_once_for_a_proof(monkeypatch):
    gpu = use(Emulator(64, 2))
    masks, bitmap = problems(np.random.default_rng(1), 6, 65)
    concepts = ccx.Concepts.from_masks(masks.reshape(6, 1, 5, 13))
    (counts,) = bitmap_histogram(pack(bitmap.reshape(1, 1, 65)), concepts.atoms)
    there, downloaded, launched = gpu.place(counts), [], []
    download = Emulator.download
    monkeypatch.setattr(Emulator, "download", lambda gpu, array: downloaded.append(array) or download(gpu, array))
    monkeypatch.setattr(RawKernel, "__call__", lambda *args, **_: launched.append(args))
    found = optimal_search(concepts, there, SearchOptions(5, 1))
    assert found.optimal
    assert [array is there for array in downloaded] == [True]
    assert not launched


def test_explain_proves_what_lies_on_a_gpu():
    gpu = use(Emulator(64, 2))
    case = load_case("h1_tiny")
    concepts = ccx.Concepts.from_masks(case.masks)
    bitmaps = np.stack([bitmap.cells for bitmap in case.bitmaps[:3]])
    found = ccx.explain_bitmaps(gpu.place(bitmaps), concepts, search="optimal")
    assert found == ccx.explain_bitmaps(bitmaps, concepts, search="optimal")
    assert all(one.optimal for one in found)
