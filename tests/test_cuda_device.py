"""What ccx asks of CuPy, with the emulator's `RawModule` in CuPy's place: the calls, and on which GPU they happen."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ccx.kernels.cuda
from ccx.errors import BackendError
from ccx.kernels import reference
from ccx.kernels.cuda import device
from tests.cuda_emulator.emulator import DeviceArray, Emulator, RawModule

pytestmark = pytest.mark.needs("gxx")


class FakeGPU:
    """``cupy.cuda.Device``: a context in which its GPU is the current one."""

    current = 0
    attributes = {"MultiProcessorCount": 3}  # noqa: RUF012

    def __init__(self, number):
        self._number, self._before = number, []

    def __enter__(self):
        self._before.append(FakeGPU.current)
        FakeGPU.current = self._number

    def __exit__(self, *_):
        FakeGPU.current = self._before.pop()


class OnGPU(DeviceArray):
    """An array of GPU 1."""

    device = SimpleNamespace(id=1)


class FakeModule:
    """``cupy.RawModule`` that is loaded on one GPU."""

    n_made = 0

    def __init__(self, *, code, options):
        assert FakeGPU.current == 1
        assert options == ("-std=c++17",)
        FakeModule.n_made += 1
        self._module = RawModule(code)

    def get_function(self, name):
        kernel = self._module.get_function(name)

        def launch(grid, block, args, *, shared_mem=0):
            assert FakeGPU.current == 1
            assert all(isinstance(value, tuple) for value in (grid, block, args))
            kernel(grid, block, args, shared_mem=shared_mem)

        return launch


@pytest.fixture
def place(monkeypatch):
    """CuPy is installed, and GPU 0 the current one: what ccx does on its own account is not done there."""
    memory = Emulator()

    def on_gpu(function):
        def call(*args):
            assert FakeGPU.current == 1
            return function(*args).view(OnGPU)

        return call

    fake = SimpleNamespace(
        RawModule=FakeModule,
        asarray=on_gpu(memory.upload),
        ascontiguousarray=on_gpu(memory.contiguous),
        broadcast_to=lambda array, shape: memory.broadcast(array, shape).view(OnGPU),
        byte_bounds=memory.extent,
        cuda=SimpleNamespace(Device=FakeGPU),
        empty=on_gpu(memory.empty),
        zeros=on_gpu(memory.zeros),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(FakeModule, "n_made", 0)
    device._cupy_device.cache_clear()
    yield lambda array: memory.upload(array).view(OnGPU)
    device._cupy_device.cache_clear()


def test_launches_allocations_and_copies_happen_on_the_gpu_of_the_arrays(place):
    bits = np.random.default_rng(0).random((5, 300)) < 0.5
    rows = ccx.kernels.cuda.rows
    packed = rows.pack(place(bits), None)
    assert isinstance(packed, OnGPU)
    np.testing.assert_array_equal(packed.view(np.ndarray), reference.pack(bits))
    counts = rows.intersection_counts(packed, packed, None)
    np.testing.assert_array_equal(counts.view(np.ndarray), bits.astype(int) @ bits.T)
    grown = rows.logical_or(packed, packed[0], packed[:, ::-1], None)  # into a view: copied
    np.testing.assert_array_equal(grown.view(np.ndarray), reference.pack(bits | bits[0]))
    assert FakeModule.n_made == 1, "one module a family"
    assert FakeGPU.current == 0


def test_arrays_on_two_gpus_are_refused(place):
    there = place(np.zeros((1, 1), np.uint64))
    here = there.view(type("Elsewhere", (OnGPU,), {"device": SimpleNamespace(id=0)}))
    with pytest.raises(BackendError, match=r"must all be on one GPU, got devices \[0, 1\]"):
        ccx.kernels.cuda.rows.and_popcount(here, there, None)


def test_sources_include_nothing():
    for path in device._SOURCES.glob("*.cuh"):
        assert "#include" not in path.read_text(), path.name
