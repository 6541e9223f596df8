"""GPU kernels of packed rows, with their launching code, against the oracle, bit for bit, on the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx.kernels.cuda.rows
from ccx.kernels import rows
from tests import reference
from tests.support.cuda_emulator.emulator import Emulator
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, gpus, use
from tests.support.strategies import formula_operands

pytestmark = pytest.mark.needs("gxx")

SEEDS = st.integers(0, 2**32 - 1)
DENSITIES = st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0])
N_BITS = st.sampled_from([0, 1, 63, 64, 65, 127, 128, 191, 257, 1025])
LEADS = st.sampled_from([(), (0,), (1,), (3,), (2, 3), (7, 0), (1, 2, 2)])
LEAD_PAIRS = st.sampled_from(
    [
        ((), ()),
        ((3,), (3,)),
        ((3,), ()),
        ((), (4,)),
        ((2, 1), (1, 3)),
        ((5, 2), (2,)),
        ((0,), (1,)),
        ((2, 1, 3), (4, 1)),
        ((2, 2, 3), (2, 1, 3)),
        ((2, 1, 2, 1), (1, 3, 1, 2)),  # four axes that step differently
        ((3, 1, 2), (3, 2, 2)),
    ]
)
LAYOUTS = {
    "plain": lambda array: array,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "Fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "8 bytes off": lambda array: np.concatenate([array.ravel()[:1], array.ravel()])[1:].reshape(array.shape),
}
OPERATIONS = ["logical_and", "logical_or", "logical_and_not"]


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy() as patch:
        patch.setattr(ccx.kernels.cuda.rows, "_LEAST_SLICE_WORDS", 1)
        yield


def some_bits(lead, n_bits, seed, density):
    return np.random.default_rng(seed).random((*lead, n_bits)) < density


@st.composite
def row_pairs(draw):
    """Two arrays of rows whose leading axes broadcast, and both as they lie on the device."""
    gpu, n_bits, leads = draw(gpus()), draw(N_BITS), draw(LEAD_PAIRS)
    a, b = (reference.pack(some_bits(lead, n_bits, draw(SEEDS), draw(DENSITIES))) for lead in leads)
    layouts = [LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))] if array.size else LAYOUTS["plain"] for array in (a, b)]
    return gpu, a, b, gpu.place(layouts[0](a)), gpu.place(layouts[1](b))


@given(gpu=gpus(), lead=LEADS, n_bits=N_BITS, seed=SEEDS, density=DENSITIES)
def test_pack_and_unpack(gpu, lead, n_bits, seed, density):
    bits = some_bits(lead, n_bits, seed, density)
    packed = rows.pack(gpu.place(bits))
    assert_same(gpu, packed, reference.pack(bits))
    assert_same(gpu, rows.unpack(packed, n_bits), bits)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@given(gpu=gpus())
def test_pack_and_unpack_any_memory_layout(layout, gpu):
    bits = some_bits((4, 5), 130, 1, 0.5)
    packed = reference.pack(bits)
    assert_same(gpu, rows.unpack(gpu.place(LAYOUTS[layout](packed)), 130), bits)
    assert_same(gpu, rows.pack(gpu.place(LAYOUTS[layout](bits))), packed)


@given(gpu=gpus())
def test_pack_takes_any_byte_but_zero_for_true(gpu):
    odd = np.array([0, 1, 2, 128, 255, 0], dtype=np.uint8).view(np.bool_)
    assert_same(gpu, rows.pack(gpu.place(odd)), np.array([0b011110], dtype=np.uint64))


@pytest.mark.parametrize("operation", OPERATIONS)
@given(pair=row_pairs())
def test_operations(operation, pair):
    gpu, a, b, device_a, device_b = pair
    wanted = getattr(reference, operation)(a, b)
    assert_same(gpu, getattr(rows, operation)(device_a, device_b), wanted)
    out = gpu.place(np.full(wanted.shape[::-1], 7, dtype=np.uint64).T)
    assert getattr(rows, operation)(device_a, device_b, out) is out
    assert_same(gpu, out, wanted)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(gpu=gpus())
def test_operations_may_write_over_their_operands(operation, gpu):
    memory = np.random.default_rng(0).integers(0, 2**64, (12, 7), dtype=np.uint64)
    places = [slice(0, 10), slice(1, 11), slice(2, 12), slice(9, None, -1), slice(0, 10)]
    for place_a in places:
        for place_b in places:
            for place_out in places:
                fresh = gpu.place(memory.copy())
                wanted = getattr(reference, operation)(memory[place_a], memory[place_b])
                getattr(rows, operation)(fresh[place_a], fresh[place_b], out=fresh[place_out])
                assert_same(gpu, fresh[place_out], wanted)


def test_an_operation_in_place_takes_no_memory(monkeypatch):
    gpu = use(Emulator())
    a, b = (gpu.place(np.full((3, 5), value, np.uint64)) for value in (6, 3))
    monkeypatch.setattr(gpu, "empty", None)
    rows.logical_and(a, b, out=a)
    assert_same(gpu, a, np.full((3, 5), 2, np.uint64))


@given(pair=row_pairs())
def test_counts(pair):
    gpu, a, b, device_a, device_b = pair
    assert_same(gpu, rows.popcount(device_a), np.asarray(reference.popcount(a)))
    assert_same(gpu, rows.and_popcount(device_a, device_b), np.asarray(reference.and_popcount(a, b)))


@pytest.mark.parametrize("order", [0, 5])
def test_rows_longer_than_a_chunk(order):
    gpu = use(Emulator(), order)
    packed = np.random.default_rng(order).integers(0, 2**64, (3, 2 * 4096 + 3), dtype=np.uint64)
    a, b = gpu.place(packed), gpu.place(packed[1])
    assert_same(gpu, rows.popcount(a), reference.popcount(packed))
    assert_same(gpu, rows.and_popcount(a, b), reference.and_popcount(packed, packed[1]))
    assert_same(gpu, rows.logical_or(a, b), packed | packed[1])


@given(
    gpu=gpus(),
    n=st.sampled_from([0, 1, 2, 7, 8, 9, 25]),
    m=st.sampled_from([0, 1, 63, 64, 65, 130]),
    n_bits=N_BITS,
    seed=SEEDS,
    density=DENSITIES,
)
def test_intersection_counts(gpu, n, m, n_bits, seed, density):
    packed = reference.pack(some_bits((n + m,), n_bits, seed, density))
    a, b = packed[:n], packed[n:]
    got = rows.intersection_counts(gpu.place(a), gpu.place(b))
    assert_same(gpu, got, reference.intersection_counts(a, b))


@pytest.mark.parametrize("gpu", [Emulator(256, 1), Emulator(64, 3)], ids=["one block", "three blocks"])
def test_intersection_counts_of_full_rows_in_every_tile_and_slice(gpu):
    use(gpu)
    packed = np.full((70, 40), 2**64 - 1, dtype=np.uint64)
    assert_same(gpu, rows.intersection_counts(gpu.place(packed), gpu.place(packed)), np.full((70, 70), 2560))


@given(data=st.data(), gpu=gpus(), n_bits=N_BITS.filter(bool), seed=SEEDS, density=DENSITIES)
def test_rows_of_formulas(data, gpu, n_bits, seed, density):
    packed, operands, operators = formula_operands(data, n_bits, seed, density)
    got = rows.formula_rows(gpu.place(packed), operands, operators, n_bits, threads=1)
    assert_same(gpu, got, reference.formula_rows(packed, operands, operators, n_bits))
