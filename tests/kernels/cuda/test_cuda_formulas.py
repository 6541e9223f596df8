"""GPU kernels that count over atoms, with their launching code, against the oracle, bit for bit, on the emulator."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx.kernels.cuda.formulas
from ccx.errors import BackendError
from ccx.kernels import AtomBuilder, concept_counts, conjunction_counts, formula_counts, pair_counts
from ccx.kernels.atoms import ATOM_ARRAYS, total_counts, with_sizes
from ccx.kernels.places import to_host
from tests import reference
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, gpus, use

pytestmark = pytest.mark.needs("gxx")

SEEDS = st.integers(0, 2**32 - 1)
N_CONCEPTS = st.sampled_from([0, 1, 2, 7, 40])
# Numbers that a block has room for: none of any count, one count of few concepts, several, all.
TABLE_SLOTS = st.sampled_from([1, 3, 50, 6144])


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy() as patch:
        patch.setattr(ccx.kernels.cuda.formulas, "_LEAST_SLICE_ATOMS", 1)
        yield


@st.composite
def concept_sets(draw):
    """Atoms in main memory, of concepts that are absent, full, and anything between; and who holds what."""
    n_concepts, n_cells = draw(N_CONCEPTS), draw(st.sampled_from([0, 1, 33, 200]))
    rng = np.random.default_rng(draw(SEEDS))
    densities = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0], n_concepts)
    masks = rng.random((n_concepts, n_cells)) < densities[:, None]
    builder = AtomBuilder((1, max(n_cells, 1)), n_concepts)
    if n_cells:
        builder.add_packed_masks(reference.pack(masks)[None])
    atoms = builder.finish()
    found = list(reference.atoms_of(reference.sets_of_masks(masks[None]))) if n_cells else []
    return atoms, reference.membership(found, n_concepts)


def some_weights(seed, *shape):
    """Zeros, small counts, counts of more than 32 bits, and negative ones, as differences may be."""
    rng = np.random.default_rng(seed)
    ends = rng.choice([3, 2**31, 2**33, 2**50], shape)
    return rng.integers(-ends, ends) * (rng.random(shape) < 0.7)


def some_formulas(seed, n_concepts, n_formulas, length):
    rng = np.random.default_rng(seed)
    concepts = rng.integers(0, n_concepts, (n_formulas, length)).astype(np.int32)
    return concepts, rng.integers(0, 3, (n_formulas, length - 1)).astype(np.uint8)


@given(
    gpu=gpus(),
    case=concept_sets(),
    seed=SEEDS,
    n_rows=st.sampled_from([0, 1, 2, 3]),
    n_formulas=st.sampled_from([0, 1, 5]),
    length=st.sampled_from([1, 2, 3, 7]),
    slots=TABLE_SLOTS,
)
def test_counts_of_formulas(gpu, case, seed, n_rows, n_formulas, length, slots):
    atoms, member = case
    weights = some_weights(seed, n_rows, atoms.n_atoms)
    formulas = some_formulas(seed, max(atoms.n_concepts, 1), n_formulas if atoms.n_concepts else 0, length)
    there = atoms.at(gpu)
    placed = gpu.place(weights)
    assert_same(gpu, formula_counts(there, placed, *formulas), reference.formula_counts(member, weights, *formulas))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.formulas, "_TABLE_SLOTS", slots)
        got = conjunction_counts(there, placed, *formulas)
    assert_same(gpu, got, reference.conjunction_counts(member, weights, *formulas))


@given(gpu=gpus(), case=concept_sets(), seed=SEEDS, lead=st.sampled_from([(), (0,), (1,), (2, 3)]), slots=TABLE_SLOTS)
def test_counts_of_concepts_and_pairs(gpu, case, seed, lead, slots):
    atoms, member = case
    weights = some_weights(seed, *lead, atoms.n_atoms)
    there = atoms.at(gpu)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.formulas, "_TABLE_SLOTS", slots)
        got = concept_counts(there, gpu.place(weights))
    assert_same(gpu, got, reference.concept_counts(member, weights))
    assert_same(gpu, total_counts(there, gpu.place(weights)), np.asarray(weights.sum(axis=-1)))
    if not lead:
        assert_same(gpu, pair_counts(there, gpu.place(weights)), reference.pair_counts(member, weights))
        assert_same(gpu, with_sizes(there, gpu.place(weights)), np.stack([atoms.cells, weights]))


@pytest.mark.parametrize("order", [0, 9])
@pytest.mark.parametrize("slots", [1, 70, 6144])
def test_counts_carry_beyond_32_bits(slots, order, monkeypatch):
    """Many blocks and threads add near 2^32 to the same counts; their slices end behind the last atom."""
    monkeypatch.setattr(ccx.kernels.cuda.formulas, "_TABLE_SLOTS", slots)
    gpu = use(Emulator(96, 3), order)
    builder = AtomBuilder((1, 301), 20)
    masks = np.random.default_rng(0).random((20, 301)) < 0.5
    masks[3] = True
    builder.add_packed_masks(reference.pack(masks)[None])
    atoms = builder.finish()
    member = reference.membership(list(reference.atoms_of(reference.sets_of_masks(masks[None]))), 20)
    weights = np.random.default_rng(1).integers(2**32 - 3, 2**32 + 3, (2, atoms.n_atoms))
    formulas = np.array([[3, 1], [0, 1], [3, 3]], np.int32), np.array([[0], [2], [1]], np.uint8)
    got = conjunction_counts(atoms.at(gpu), gpu.place(weights), *formulas)
    assert_same(gpu, got, reference.conjunction_counts(member, weights, *formulas))
    got = formula_counts(atoms.at(gpu), gpu.place(weights), *formulas)
    assert_same(gpu, got, reference.formula_counts(member, weights, *formulas))


def test_more_atoms_than_a_warp_takes_at_a_time():
    gpu = use(Emulator(32, 2), 4)
    n = 3 * 4096 + 5
    builder = AtomBuilder((1, n), 14)
    builder.add_packed_masks(reference.pack((np.arange(n) >> np.arange(14)[:, None]) % 2 == 1)[None])
    atoms = builder.finish()
    assert atoms.n_atoms == n
    weights = np.arange(2 * n).reshape(2, n) - n
    formulas = some_formulas(5, 14, 3, 3)
    wanted = formula_counts(atoms, weights, *formulas)
    assert_same(gpu, formula_counts(atoms.at(gpu), gpu.place(weights), *formulas), wanted)
    assert_same(gpu, total_counts(atoms.at(gpu), gpu.place(weights)), weights.sum(axis=1))


# ---------------------------------------------------------------------------------------------- moving atoms


def some_atoms():
    builder = AtomBuilder((3, 5), 4)
    builder.add_label_maps(
        np.random.default_rng(0).integers(0, 5, (6, 2, 15)), np.random.default_rng(1).random((6, 15)) < 0.9
    )
    return builder.finish()


def test_atoms_move_once_a_device_and_come_back():
    use(Emulator())
    atoms = some_atoms()
    there = atoms.to("cuda")
    assert atoms.to("cuda:0") is there
    assert there.to("cuda:0") is there
    assert atoms.to("cpu") is atoms
    other = atoms.to("cuda:1")
    assert (other.cells.device.id, there.cells.device.id) == (1, 0)
    for one in (there.to("cpu"), other.to("cuda:0").to("cpu")):
        for name in ATOM_ARRAYS:
            assert isinstance(getattr(there, name), DeviceArray)
            assert not isinstance(getattr(one, name), DeviceArray)
            np.testing.assert_array_equal(getattr(one, name), getattr(atoms, name), strict=True)


@pytest.mark.parametrize("cuts", [[0, 6], [0, 1, 2, 6], [0, 0, 3, 6]])
def test_samples_move_in_batches(cuts):
    gpu = use(Emulator())
    atoms = some_atoms()
    bitmaps = reference.pack(np.random.default_rng(2).random((3, 6, 15)) < 0.5)
    values = np.random.default_rng(3).random((6, 2, 2, 2), np.float32)
    ranges = np.array([[[0.0, 0.5], [0.2, 0.9]]] * 2)
    wanted = ccx.kernels.bitmap_histogram(bitmaps, atoms), ccx.kernels.range_histogram(values, ranges, atoms)
    for place in (gpu, None):
        got = [None, None]
        for start, stop in pairwise(cuts):
            part = atoms.samples_at(start, stop, gpu)
            arrays = bitmaps[:, start:stop], values[start:stop]
            if place is None:
                part = part.to("cpu")
            else:
                arrays = tuple(map(gpu.upload, arrays))
            got[0] = ccx.kernels.bitmap_histogram(arrays[0], part, out=got[0])
            got[1] = ccx.kernels.range_histogram(arrays[1], ranges, part, out=got[1])
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(to_host(one), other, strict=True)


def test_atoms_and_weights_in_different_places_are_refused():
    gpu = use(Emulator())
    atoms = some_atoms()
    for function in (concept_counts, pair_counts, total_counts, with_sizes):
        with pytest.raises(BackendError, match="must all be NumPy or all be CuPy"):
            function(atoms.at(gpu), atoms.cells)
        with pytest.raises(BackendError, match="must all be NumPy or all be CuPy"):
            function(atoms, gpu.place(atoms.cells))
        with pytest.raises(BackendError, match=r"must all be on one GPU, got devices \[0, 1\]"):
            function(atoms.to("cuda:1"), gpu.place(atoms.cells))


def test_what_the_gpu_does_not_do_with_atoms_is_refused():
    gpu = use(Emulator())
    there = some_atoms().at(gpu)
    with pytest.raises(BackendError, match=r"labels: label maps are read in main memory, .* cupy.asnumpy"):
        AtomBuilder((1, 2), 1).add_label_maps(gpu.place(np.zeros((1, 1, 2), np.int32)))
    with pytest.raises(BackendError, match=r"masks: masks are read in main memory, .* cupy.asnumpy"):
        AtomBuilder((1, 2), 1).add_packed_masks(gpu.place(np.zeros((1, 1, 1), np.uint64)))
    with pytest.raises(BackendError, match=r'atoms: they are read in main memory, .*to\("cpu"\)'):
        AtomBuilder(there.shape, 1).add_atoms(there, np.zeros(1, np.int64), np.zeros(there.n_concepts, np.int64))
    with pytest.raises(BackendError, match=r'atoms: they are read in main memory, .*to\("cpu"\)'):
        replace(there).postings  # noqa: B018
    with pytest.raises(BackendError, match=r'pass atoms.to\("cpu"\)'):
        ccx.kernels.atom_rows(there, np.ones(there.n_atoms, np.bool_), [0])
