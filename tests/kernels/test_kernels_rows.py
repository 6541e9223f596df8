from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.errors import BackendError, DTypeError, InputError, ShapeError
from ccx.kernels import backend, conversion, rows
from ccx.kernels.cpu import rows as cpu_rows
from tests import reference
from tests.support.parity_cases import CASES_WITH_UNITS, load_case
from tests.support.strategies import formula_operands

THREADS = st.sampled_from([1, 2, 3, None])
N_BITS = st.sampled_from([0, 1, 63, 64, 65, 127, 128, 1025])
SEEDS = st.integers(0, 2**32 - 1)
DENSITIES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
LEADS = st.sampled_from([(), (0,), (1,), (3,), (2, 3), (7, 0), (1, 2, 2)])
# Pairs of leading axes that broadcast.
LEAD_PAIRS = st.sampled_from(
    [
        ((), ()),
        ((3,), (3,)),
        ((3,), ()),
        ((), (4,)),
        ((2, 1), (1, 3)),
        ((5, 2), (2,)),
        ((1,), (6,)),
        ((0,), (1,)),
        ((2, 1, 3), (4, 1)),
    ]
)
LAYOUTS = {
    "plain": lambda rows: rows,
    "big-endian": lambda rows: rows.astype(">u8"),
    "Fortran": np.asfortranarray,
    "strided": lambda rows: np.repeat(rows, 2, axis=-1)[..., ::2],
    "backwards": lambda rows: rows[..., ::-1].copy()[..., ::-1],
}
OPERATIONS = ["logical_and", "logical_or", "logical_and_not"]


@pytest.fixture(autouse=True, scope="module")
def _threads_slices_and_tiles_for_tiny_inputs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_rows, "_WORDS_PER_THREAD", 1)
        patch.setattr(cpu_rows, "_SLICE_WORDS", 5)
        patch.setattr(cpu_rows, "_TILE_ROWS", 3)
        patch.setattr(cpu_rows, "_TILE_WORDS", 4)
        patch.setattr(cpu_rows, "_TILE_WORDS_OF_B", 20)
        yield


def some_bits(lead, n_bits, seed, density):
    return np.random.default_rng(seed).random((*lead, n_bits)) < density


@st.composite
def row_pairs(draw):
    """Two arrays of rows whose leading axes broadcast, in any memory layout."""
    n_bits, leads = draw(N_BITS), draw(LEAD_PAIRS)
    pair = (reference.pack(some_bits(lead, n_bits, draw(SEEDS), draw(DENSITIES))) for lead in leads)
    return tuple(LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](packed) for packed in pair)


def assert_same(got, wanted):
    np.testing.assert_array_equal(got, wanted, strict=True)
    assert got.dtype.isnative


@given(lead=LEADS, n_bits=N_BITS, seed=SEEDS, density=DENSITIES, threads=THREADS)
def test_pack_and_unpack_match_the_reference_and_undo_each_other(lead, n_bits, seed, density, threads):
    bits = some_bits(lead, n_bits, seed, density)
    packed = rows.pack(bits, threads=threads)
    assert_same(packed, reference.pack(bits))
    assert packed.shape[-1] == rows.n_words(n_bits)
    assert_same(rows.unpack(packed, n_bits, threads=threads), bits)
    assert_same(reference.unpack(packed, n_bits), bits)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pack_and_unpack_any_memory_layout(layout):
    bits = some_bits((4, 5), 130, 1, 0.5)
    packed = reference.pack(bits)
    assert_same(rows.unpack(LAYOUTS[layout](packed), 130), bits)
    if layout != "big-endian":
        assert_same(rows.pack(LAYOUTS[layout](bits)), packed)


def test_pack_takes_any_byte_but_zero_for_true():
    odd = np.array([0, 1, 2, 128, 255, 0], dtype=np.uint8).view(np.bool_)
    assert_same(rows.pack(odd), np.array([0b011110], dtype=np.uint64))


def test_layout_of_a_row():
    bits = np.zeros(130, dtype=np.bool_)
    bits[[0, 63, 64, 129]] = True
    assert_same(rows.pack(bits), np.array([1 | 1 << 63, 1, 2], dtype=np.uint64))


@pytest.mark.parametrize("operation", OPERATIONS)
@given(pair=row_pairs(), threads=THREADS)
def test_operations_match_the_reference(operation, pair, threads):
    a, b = pair
    wanted = getattr(reference, operation)(*(np.asarray(operand, dtype=np.uint64) for operand in pair))
    assert_same(getattr(rows, operation)(a, b, threads=threads), wanted)
    out = np.full(wanted.shape[::-1], 7, dtype=np.uint64).T
    assert getattr(rows, operation)(a, b, out, threads=threads) is out
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_operations_may_write_over_their_operands(operation, threads):
    memory = np.random.default_rng(0).integers(0, 2**64, (12, 7), dtype=np.uint64)
    places = [slice(0, 10), slice(1, 11), slice(2, 12), slice(9, None, -1)]
    for place_a in places:
        for place_b in places:
            for place_out in places:
                fresh = memory.copy()
                wanted = getattr(reference, operation)(memory[place_a], memory[place_b])
                getattr(rows, operation)(fresh[place_a], fresh[place_b], out=fresh[place_out], threads=threads)
                np.testing.assert_array_equal(fresh[place_out], wanted)


@given(pair=row_pairs(), threads=THREADS)
def test_counts_match_the_reference(pair, threads):
    a, b = pair
    wanted_a, wanted_b = (np.asarray(operand, dtype=np.uint64) for operand in pair)
    assert_same(rows.popcount(a, threads=threads), np.asarray(reference.popcount(wanted_a)))
    assert_same(rows.and_popcount(a, b, threads=threads), np.asarray(reference.and_popcount(wanted_a, wanted_b)))


@st.composite
def row_tables(draw):
    """Two tables of rows of one length."""
    n_bits = draw(N_BITS)
    n, m = draw(st.sampled_from([0, 1, 2, 3, 5, 9])), draw(st.sampled_from([0, 1, 4, 6, 11]))
    bits = some_bits((n + m,), n_bits, draw(SEEDS), draw(DENSITIES))
    return rows.pack(bits[:n]), rows.pack(bits[n:])


@given(tables=row_tables(), threads=THREADS)
def test_intersection_counts_match_the_reference(tables, threads):
    assert_same(rows.intersection_counts(*tables, threads=threads), reference.intersection_counts(*tables))


def test_intersection_counts_with_the_tiles_of_production(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cpu_rows, "_TILE_ROWS", 64)
        patch.setattr(cpu_rows, "_TILE_WORDS", 512)
        patch.setattr(cpu_rows, "_TILE_WORDS_OF_B", 4096)
        packed = np.random.default_rng(3).integers(0, 2**64, (90, 1030), dtype=np.uint64)
        got = rows.intersection_counts(packed[:70], packed[60:])
    assert_same(got, reference.intersection_counts(packed[:70], packed[60:]))


@pytest.mark.parametrize("case", CASES_WITH_UNITS)
def test_parity_areas_and_unary_iou(case):
    known = load_case(case)
    n_concepts, n_samples = known.masks.shape[:2]
    packed = rows.pack(known.masks.reshape(n_concepts, n_samples, -1))
    np.testing.assert_array_equal(rows.popcount(packed), known.areas)

    whole = rows.pack(known.masks.reshape(n_concepts, -1))
    cells = rows.pack(np.stack([bitmap.cells.ravel() for bitmap in known.bitmaps]))
    shared = rows.intersection_counts(cells, whole)
    union = rows.popcount(cells)[:, None] + rows.popcount(whole) - shared
    iou = np.divide(shared, union, out=np.zeros(union.shape), where=union > 0).astype(np.float32)
    np.testing.assert_array_equal(iou, np.stack([bitmap.unary_iou for bitmap in known.bitmaps]))


@pytest.mark.parametrize("n_bits", [-1, 1.5, "64", None])
def test_n_words_refuses(n_bits):
    with pytest.raises(InputError, match="n_bits: expected an integer >= 0"):
        rows.n_words(n_bits)


def test_errors_name_argument_got_and_wanted():
    two, three = np.zeros((5, 2), np.uint64), np.zeros((5, 3), np.uint64)
    with pytest.raises(DTypeError, match=r"bits: expected bool\[..., n_bits\], got uint8\[4\]; compare first"):
        rows.pack(np.zeros(4, np.uint8))
    with pytest.raises(ShapeError, match=r"bits: .* got a scalar"):
        rows.pack(np.array(True))
    with pytest.raises(ShapeError, match=r"rows: expected uint64\[..., 3\], got uint64\[5, 2\]"):
        rows.unpack(two, 129)
    with pytest.raises(DTypeError, match=r"rows: .* got float64\[2\]"):
        rows.popcount([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"rows: .* got a scalar"):
        rows.popcount(np.array(1, np.uint64))
    for function in (
        rows.logical_and,
        rows.logical_or,
        rows.logical_and_not,
        rows.and_popcount,
        rows.intersection_counts,
    ):
        with pytest.raises(ShapeError, match=r"b: expected uint64\[..., 2\], got uint64\[5, 3\]"):
            function(two, three)
        with pytest.raises(DTypeError, match="a: "):
            function(two.view(np.int64), two)
        with pytest.raises(InputError, match="threads: expected None or an integer >= 1, got 0"):
            function(two, two, threads=0)
    for function in (rows.logical_and, rows.and_popcount):
        with pytest.raises(ShapeError, match=r"b: expected leading axes that broadcast with uint64\[5, 2\]"):
            function(two, two[:4])
    with pytest.raises(ShapeError, match=r"b: expected uint64\[n, n_words\], got uint64\[2\]"):
        rows.intersection_counts(two, two[0])
    with pytest.raises(ShapeError, match=r"out: expected uint64\[5, 2\], got uint64\[5, 3\]"):
        rows.logical_or(two, two, three)
    with pytest.raises(InputError, match="out: expected a writeable array"):
        rows.logical_or(two, two, np.broadcast_to(np.uint64(0), (5, 2)))


@given(data=st.data(), n_bits=N_BITS.filter(bool), seed=SEEDS, density=DENSITIES, threads=THREADS)
def test_rows_of_formulas(data, n_bits, seed, density, threads):
    packed, operands, operators = formula_operands(data, n_bits, seed, density)
    got = rows.formula_rows(packed, operands, operators, n_bits, threads=threads)
    np.testing.assert_array_equal(got, reference.formula_rows(packed, operands, operators, n_bits), strict=True)


def test_backend_for():
    array = np.zeros(3)
    assert backend.backend_for(array, array) is backend.CPU
    with pytest.raises(BackendError, match="must all be NumPy or all be CuPy"):
        backend.backend_for(array, [1, 2])


def test_gpu_arrays_go_to_the_gpu_or_are_refused_with_a_reason(monkeypatch):
    device_array = type("ndarray", (), {"__module__": "cupy"})
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(ndarray=device_array))
    array = device_array()
    assert conversion.as_array(array, "rows") is array
    assert backend.backend_for(array) is backend.CUDA
    with pytest.raises(BackendError, match=r"got \['cupy.ndarray', 'numpy.ndarray'\]"):
        backend.backend_for(array, np.zeros(3))


def test_as_array():
    array = np.arange(3, dtype=np.int16)
    assert conversion.as_array(array, "a") is array
    assert_same(conversion.as_array([[1, 2], [3, 4]], "a"), np.array([[1, 2], [3, 4]]))
    assert_same(conversion.as_array((True, False), "a"), np.array([True, False]))
    for value in ([[1, 2], [3]], ["1"], [None], "12", None, 3, {1: 2}):
        with pytest.raises(DTypeError, match="a: expected an array"):
            conversion.as_array(value, "a")


@pytest.mark.needs("torch")
def test_torch_tensors_become_views():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3).requires_grad_()
    view = conversion.as_array(tensor, "activations")
    assert np.shares_memory(view, tensor.detach().numpy())
    assert_same(rows.pack(torch.tensor([True, False, True])), np.array([5], dtype=np.uint64))
    assert_same(conversion.as_array(torch.ones(3, dtype=torch.bfloat16), "activations"), np.ones(3, np.float32))
    with pytest.raises(BackendError, match=r"activations: got a torch tensor on meta, which has no numbers"):
        conversion.as_array(torch.zeros(3, device="meta"), "activations")


def test_torch_is_not_imported_for_other_arrays():
    if "torch" not in sys.modules:
        conversion.as_array([1, 2], "a")
        assert "torch" not in sys.modules
