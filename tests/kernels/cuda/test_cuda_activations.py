"""GPU kernels of activations, with their launching code, against the oracle, bit for bit, on the emulator."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx.kernels.cuda.activations
from ccx.errors import BackendError, InputError, ShapeError
from ccx.kernels import Atoms, activations
from ccx.kernels.rows import check_padding
from tests import reference
from tests.support.cuda_emulator.emulator import Emulator
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, gpus, use
from tests.support.strategies import GRIDS, activation_maps, limits_near

# float16 and float64 input may hold values beyond float32, which become infinite
pytestmark = [
    pytest.mark.needs("gxx"),
    pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning"),
]

SEEDS = st.integers(0, 2**32 - 1)
# Room for next to nothing, for one unit of a small one, for several, for all.
TABLE_SLOTS = st.sampled_from([1, 4, 30, 6000])


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


@given(gpu=gpus(), maps=activation_maps(), grid=GRIDS)
def test_upsample(gpu, maps, grid):
    assert_same(gpu, activations.upsample(gpu.place(maps), grid), reference.upsample(maps, grid))


@given(data=st.data(), gpu=gpus(), maps=activation_maps(), grid=GRIDS)
def test_upsample_pack(data, gpu, maps, grid):
    for limits in data.draw(limits_near(reference.upsample(maps, grid), 3)):
        wanted = reference.upsample_pack(maps, grid, limits)
        assert_same(gpu, activations.upsample_pack(gpu.place(maps), grid, limits), wanted)


@st.composite
def annotated(draw, n_samples):
    """Atoms with their arrays on the host, and the oracle's sets of the cells and list of the atoms."""
    grid = draw(GRIDS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_atoms = draw(st.sampled_from([0, 1, 3, 40, 40]))
    local = [rng.permutation(n_atoms)[: rng.integers(0, n_atoms + 1)] for _ in range(n_samples)]
    dtype = draw(st.sampled_from([np.uint16, np.uint32]))
    runs = draw(st.sampled_from([1, 5, 64]))  # neighbours often are in the same atom
    n_cells = grid[0] * grid[1]
    cell_atoms = np.empty((n_samples, n_cells), dtype)
    for sample, atoms_here in enumerate(local):  # the number of local atoms marks cells that are not valid
        cell_atoms[sample] = np.repeat(rng.integers(0, atoms_here.size + 1, n_cells), runs)[:n_cells]
    sets = np.full((n_samples, n_cells), None, object)
    for sample, atoms_here in enumerate(local):
        for cell, atom in enumerate(cell_atoms[sample]):
            if atom < atoms_here.size:
                sets[sample, cell] = frozenset({int(atoms_here[atom])})
    starts = np.cumsum([0, *map(len, local)]).astype(np.int64)
    entries = np.concatenate([np.empty(0, np.int32), *local]).astype(np.int32)
    rest = (np.zeros(0, np.int32), np.zeros(n_atoms + 1, np.int64), np.zeros(0, np.uint16), np.zeros(n_atoms, np.int64))
    atoms = Atoms(grid, 0, cell_atoms, starts, entries, *rest)
    return atoms, sets, [frozenset({atom}) for atom in range(n_atoms)]


@given(data=st.data(), gpu=gpus(), slots=TABLE_SLOTS, units_a_task=st.sampled_from([1, 2, 8]))
def test_range_histogram(data, gpu, slots, units_a_task):
    n_samples, n_units = data.draw(st.sampled_from([3, 2, 1, 0])), data.draw(st.sampled_from([3, 1, 0]))
    maps = data.draw(activation_maps(leading=st.just((n_samples, n_units))))
    atoms, sets, found = data.draw(annotated(n_samples))
    values = reference.upsample(maps, atoms.shape)
    n_ranges = data.draw(st.sampled_from([3, 2, 1, 0]))
    limits = np.zeros((n_units, n_ranges, 2))
    for unit in range(n_units):
        limits[unit] = data.draw(limits_near(values[:, unit], n_ranges))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.activations, "_TABLE_SLOTS", slots)
        patch.setattr(ccx.kernels.cuda.activations, "_UNITS_A_TASK", units_a_task)
        got = activations.range_histogram(gpu.place(maps), limits, atoms.at(gpu))
    assert_same(gpu, got, reference.range_histogram(maps, limits, atoms.shape, sets, found))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("slots", [1, 8, 6000])
def test_blocks_add_to_the_same_counts(slots, order, monkeypatch):
    monkeypatch.setattr(ccx.kernels.cuda.activations, "_TABLE_SLOTS", slots)
    monkeypatch.setattr(ccx.kernels.cuda.activations, "_UNITS_A_TASK", 2)
    gpu = use(Emulator(32 + 64 * order, 4), order)
    n_samples, n_units, grid = 6, 3, (9, 23)
    maps = np.random.default_rng(order).random((n_samples, n_units, 2, 3), np.float32)
    local = np.random.default_rng(7).integers(0, 3, (n_samples, 207)).astype(np.uint16)
    entries = np.tile(np.int32([1, 0, 2]), n_samples)  # each sample has all three atoms
    starts = np.arange(0, 3 * n_samples + 1, 3)
    rest = (np.zeros(0, np.int32), np.zeros(4, np.int64), np.zeros(0, np.uint16), np.zeros(3, np.int64))
    atoms = Atoms(grid, 0, local, starts, entries, *rest)
    limits = np.tile([[0.0, 0.5], [0.25, 1.0]], (n_units, 1, 1))
    got = activations.range_histogram(gpu.place(maps), limits, atoms.at(gpu))
    inside = np.stack([reference.inside(reference.upsample(maps, grid), pair) for pair in limits[0]])
    of_atom = np.array([1, 0, 2])[local].reshape(n_samples, 1, *grid) == np.arange(3).reshape(3, 1, 1, 1, 1)
    wanted = np.einsum(
        "knuhw,gnuhw->ukg", inside, np.broadcast_to(of_atom, (3, *maps.shape[:2], *grid)), dtype=np.int64
    )
    assert_same(gpu, got, wanted)
    for unit in range(n_units):  # the ranges of a unit as bitmaps
        bitmaps = reference.pack(inside[:, :, unit].reshape(2, n_samples, 207))
        assert_same(gpu, activations.bitmap_histogram(gpu.place(bitmaps), atoms.at(gpu)), wanted[unit])


@given(data=st.data(), gpu=gpus(), slots=TABLE_SLOTS, density=st.sampled_from([0.0, 0.1, 1.0]))
def test_bitmap_histogram(data, gpu, slots, density):
    n_samples, n_bitmaps = data.draw(st.sampled_from([3, 2, 1, 0])), data.draw(st.sampled_from([2, 1, 0]))
    atoms, sets, found = data.draw(annotated(n_samples))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bitmaps = rng.random((n_bitmaps, *sets.shape)) < density
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.activations, "_TABLE_SLOTS", slots)
        got = activations.bitmap_histogram(gpu.place(reference.pack(bitmaps)), atoms.at(gpu))
    assert_same(gpu, got, reference.bitmap_histogram(bitmaps, sets, found))


@given(gpu=gpus(), n_cells=st.sampled_from([1, 63, 64, 65, 130]), lead=st.sampled_from([(0, 3), (2, 3)]), seed=SEEDS)
def test_ones_in_the_padding_are_refused(gpu, n_cells, lead, seed):
    packed = reference.pack(np.random.default_rng(seed).random((*lead, n_cells)) < 0.5)
    check_padding("bitmaps", gpu.place(packed), n_cells)
    if packed.size and n_cells % 64:
        packed[1, 1, -1] |= np.uint64(1) << np.uint64(n_cells % 64)
        with pytest.raises(InputError, match=f"bitmaps: expected zeros in the bits behind bit {n_cells - 1}"):
            check_padding("bitmaps", gpu.place(packed), n_cells)


@given(gpu=gpus(), maps=activation_maps())
def test_all_finite(gpu, maps):
    assert ccx.kernels.cuda.activations.all_finite(gpu.place(maps)) == np.isfinite(maps.astype(np.float32)).all()


@pytest.mark.parametrize("at", [0, 31, 32, 94])
@pytest.mark.parametrize("other", [np.nan, np.inf, -np.inf, 1e39, -1e39])
def test_one_that_is_not_finite(at, other):
    gpu = use(Emulator(32, 2))
    values = np.full(95, np.finfo(np.float32).max, np.float64)
    assert ccx.kernels.cuda.activations.all_finite(gpu.place(-values))
    values[at] = other
    assert not ccx.kernels.cuda.activations.all_finite(gpu.place(values))


def test_maps_beyond_31_bits_are_refused():
    maps = SimpleNamespace(shape=(1, 1, 65536, 32768))
    with pytest.raises(ShapeError, match=r"activations: expected fewer than 2\^31 cells on the GPU, got 65536 x 32768"):
        ccx.kernels.cuda.activations._sizes(maps, activations.grid_of((2, 2), (2, 2)))


def test_grids_beyond_31_bits_are_refused():
    gpu = use(Emulator())
    grid = SimpleNamespace(rows=SimpleNamespace(near=np.empty(1 << 16)), cols=SimpleNamespace(near=np.empty(1 << 15)))
    with pytest.raises(ShapeError, match=r"fewer than 2\^31 cells on the GPU, got 65536 x 32768"):
        ccx.kernels.cuda.activations.upsample(gpu.zeros((1, 1, 1), np.float32), grid, None)


def test_ranges_are_read_on_the_host(monkeypatch):
    device_array = type("ndarray", (), {"dtype": "float64", "shape": (2,)})
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(ndarray=device_array))
    with pytest.raises(BackendError, match=r"limits: ranges are read in main memory, .* pass cupy.asnumpy\(limits\)"):
        activations.upsample_pack(np.zeros((2, 2), np.float32), (2, 2), device_array())
