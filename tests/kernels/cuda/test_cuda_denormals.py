"""Denormal activations on the GPU, where CuPy has all C++ take them for zeros: results are the CPU's all the same."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import ccx.kernels.cuda.activations
from ccx.kernels import activations
from ccx.kernels.cuda import device
from tests import reference
from tests.support.cuda_emulator.emulator import Emulator, RawModule
from tests.support.cuda_emulator.gpu import assert_same, emulated_cupy, use
from tests.support.denormals import LEAST, NORMAL, RANGES, VALUES, some_maps
from tests.support.strategies import SPECIAL

pytestmark = pytest.mark.needs("gxx")

GRIDS = [(3, 4), (7, 9), (1, 1)]
FLUSHED = pytest.mark.parametrize("flush", [True, False], ids=["as CuPy compiles", "as nvcc compiles"])


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy():
        yield


@FLUSHED
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("grid", GRIDS)
def test_cells(grid, dtype, flush):
    gpu = use(Emulator(), flush=flush)
    maps = some_maps(20, 3, 4, dtype=dtype)
    assert_same(gpu, activations.upsample(gpu.place(maps), grid), reference.upsample(maps, grid))
    for limits in RANGES:
        wanted = reference.upsample_pack(maps, grid, limits)
        assert_same(gpu, activations.upsample_pack(gpu.place(maps), grid, limits), wanted)


@FLUSHED
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_explanations(dtype, flush):
    gpu = use(Emulator(64, 2), flush=flush)
    rng = np.random.default_rng(3)
    concepts = ccx.Concepts.from_masks(rng.random((5, 8, 7, 9)) < 0.4)
    maps = some_maps(8, 3, 3, 4, dtype=dtype)
    for options in ({"ranges": RANGES}, {"clusters": 3}, {"clusters": 1, "quantile": 0.3}):
        got = ccx.explain(gpu.place(maps), concepts, **options)
        assert got == ccx.explain(maps, concepts, **options)
        assert "ranges" not in options or any(row.bitmap_cells for row in got)


@FLUSHED
def test_denormals_are_finite(flush):
    gpu = use(Emulator(), flush=flush)
    for dtype in (np.float16, np.float32, np.float64):
        assert ccx.kernels.cuda.activations.all_finite(gpu.place(some_maps(40, dtype=dtype)))


def test_ranges_between_special_values():
    """Infinite activations and NaN, which `explain` refuses, lie in none."""
    gpu = use(Emulator())
    values = np.array([*SPECIAL, *VALUES, np.nan, -np.nan], np.float32).reshape(1, -1)
    there = gpu.place(values)
    for start, stop in product(SPECIAL, SPECIAL):
        if start < stop:
            wanted = reference.upsample_pack(values, values.shape, (start, stop))
            assert_same(gpu, activations.upsample_pack(there, values.shape, (start, stop)), wanted)


# What a kernel may not do, and what the emulator must then see: C++ where it should compute with ieee_* or keys.
PLANTS = {
    "a comparison": ("inside = range.contains(key_of(value))", "inside = 0.0f < value", (3, 4)),
    "a product": ("ieee_mul(a, weight_a)", "a * weight_a", (7, 9)),
    "a sum": (
        "ieee_add(ieee_mul(a, weight_a), ieee_mul(b, weight_b))",
        "ieee_mul(a, weight_a) + ieee_mul(b, weight_b)",
        (7, 9),
    ),
    "a conversion": ("ieee_float(values[i])", "static_cast<float>(values[i])", (3, 4)),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_flushing_is_seen(plant, monkeypatch):
    right, wrong, grid = PLANTS[plant]
    code = device.source_of("activations")
    assert right in code
    module = RawModule(code.replace(right, wrong))
    monkeypatch.setattr(Emulator, "kernel", lambda _gpu, _family, name: module.get_function(name))
    maps = some_maps(20, 3, 4, dtype=np.float64)
    wanted = reference.upsample_pack(maps, grid, (0.0, np.inf))
    for flush in (True, False):
        gpu = use(Emulator(), flush=flush)
        got = gpu.download(activations.upsample_pack(gpu.place(maps), grid, (0.0, np.inf)))
        assert (got == wanted).all() == (not flush)


def test_the_emulator_converts_as_cupy_does():
    """So launching code that leaves a conversion to CuPy is seen."""
    gpu = use(Emulator())
    values = gpu.place(np.array([LEAST, 1e-40, -1e-40, NORMAL, 0.5]))
    np.testing.assert_array_equal(gpu.download(gpu.contiguous(values, np.float32)), np.float32([0, 0, 0, NORMAL, 0.5]))
    out = gpu.zeros((5,), np.float32)
    gpu.copy(values, out)
    np.testing.assert_array_equal(gpu.download(out), np.float32([0, 0, 0, NORMAL, 0.5]))
    as_they_are = gpu.place(np.array([LEAST, -0.0, 1e-40], np.float32))
    np.testing.assert_array_equal(
        gpu.download(gpu.contiguous(as_they_are[::-1], np.float32)), as_they_are.view(np.ndarray)[::-1]
    )
