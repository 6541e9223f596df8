"""GPU kernels of permuted histograms, with their launching code, against the oracle, bit for bit, on the emulator."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx.kernels.cuda.permutations
from ccx.errors import BackendError, ShapeError
from ccx.kernels import AtomBuilder, pack, permuted_histogram
from tests import reference
from tests.support.cuda_emulator.emulator import Emulator
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, gpus, use
from tests.support.strategies import annotated

pytestmark = pytest.mark.needs("gxx")


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


@given(
    gpu=gpus(),
    known=annotated(),
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    n_orders=st.sampled_from([0, 1, 31, 33, 100]),
    slots=st.sampled_from([96, 300, 9216]),
)
def test_permuted_histogram(gpu, known, seed, density, n_orders, slots):
    """With shared memory for one atom of a sample, for a few, for all."""
    rng = np.random.default_rng(seed)
    bitmap = rng.random(known.sets.shape) < density
    orders = np.array([rng.permutation(len(bitmap)) for _ in range(n_orders)], np.int32).reshape(n_orders, len(bitmap))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.permutations, "_TABLE_SLOTS", slots)
        got = permuted_histogram(gpu.place(pack(bitmap)), orders, known.atoms.at(gpu))
    assert_same(gpu, got, reference.permuted_histogram(bitmap, orders, known.sets, known.found))


@pytest.mark.parametrize(("order", "slots"), [(0, 9216), (12345, 64)])
def test_samples_of_several_tiles(order, slots, monkeypatch):
    monkeypatch.setattr(ccx.kernels.cuda.permutations, "_TABLE_SLOTS", slots)
    gpu = use(Emulator(64, 2), order)
    rng = np.random.default_rng(0)
    labels, valid = rng.integers(0, 4, (3, 2, 61 * 43)), rng.random((3, 61 * 43)) < 0.9
    builder = AtomBuilder((61, 43), 3)
    builder.add_label_maps(labels, valid)
    rows = pack(rng.random(valid.shape) < 0.5)
    orders = np.array([rng.permutation(3) for _ in range(70)])
    atoms = builder.finish()
    got = permuted_histogram(gpu.place(rows), orders, atoms.at(gpu))
    assert_same(gpu, got, permuted_histogram(rows, orders, atoms))


def test_cells_numbered_in_32_bits():
    gpu = use(Emulator(96, 2))
    cells = np.arange(257 * 256)
    builder = AtomBuilder((257, 256), 513)
    builder.add_label_maps(np.stack([1 + cells % 256, 257 + cells // 256])[None])
    atoms = builder.finish()
    rows = pack(np.random.default_rng(0).random((1, cells.size)) < 0.5)
    got = permuted_histogram(gpu.place(rows), np.zeros((2, 1), np.uint8), atoms.at(gpu))
    assert_same(gpu, got, permuted_histogram(rows, np.zeros((2, 1), np.uint8), atoms))


def test_orders_are_read_on_the_host():
    gpu = use(Emulator())
    builder = AtomBuilder((1, 2), 1)
    builder.add_label_maps(np.zeros((1, 1, 2), np.int32))
    rows = gpu.place(np.zeros((1, 1), np.uint64))
    with pytest.raises(BackendError, match="permutations are read in main memory"):
        permuted_histogram(rows, gpu.place(np.zeros((1, 1), np.int32)), builder.finish().at(gpu))


def test_more_cells_than_32_bits_count_are_refused():
    gpu = use(Emulator())
    rows = gpu.zeros((8, 1), np.uint64)
    cells = SimpleNamespace(cell_atoms=rows, sample_starts=rows, sample_atoms=rows, shape=(1 << 16, 1 << 13))
    with pytest.raises(ShapeError, match=r"atoms: expected fewer than 2\^32 cells .*, got 8 x 536870912"):
        ccx.kernels.cuda.permutations.permuted_histogram(rows, np.zeros((1, 8)), cells, None)
