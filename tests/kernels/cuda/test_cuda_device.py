"""What ccx asks of CuPy, with the emulator's `RawModule` in CuPy's place: the calls, and on which GPU they happen."""

from __future__ import annotations

import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ccx.kernels.cuda.rows
from ccx.errors import BackendError, MemoryBudgetError
from ccx.kernels.cuda import device
from tests import reference
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator, RawModule

pytestmark = pytest.mark.needs("gxx")


class FakeGPU:
    """``cupy.cuda.Device``: a context in which its GPU is the current one."""

    current = 0
    n_waits = 0
    attributes = {"MultiProcessorCount": 3}  # noqa: RUF012
    mem_info = (700, 1000)

    def __init__(self, number):
        self._number, self._before = number, []

    def __enter__(self):
        self._before.append(FakeGPU.current)
        FakeGPU.current = self._number

    def __exit__(self, *_):
        FakeGPU.current = self._before.pop()


class FakePool:
    """``cupy.cuda.MemoryPool`` of the current GPU."""

    limit = 0

    def free_bytes(self):
        assert FakeGPU.current == 1
        return 30

    def used_bytes(self):
        return 50

    def get_limit(self):
        return FakePool.limit


def current_stream():
    assert FakeGPU.current == 1
    return SimpleNamespace(synchronize=lambda: setattr(FakeGPU, "n_waits", FakeGPU.n_waits + 1))


class OnGPU(DeviceArray):
    """An array of GPU 1."""

    device = SimpleNamespace(id=1)


class FakeDriverError(RuntimeError):
    """``cupy.cuda.driver.CUDADriverError``."""


class FakeModule:
    """``cupy.RawModule`` that is loaded on one GPU; a "fatbin" is the source, or anything else that no GPU loads."""

    made = []  # noqa: RUF012

    def __init__(self, *, code=None, path=None, options=()):
        assert FakeGPU.current == 1
        assert (code is None) != (path is None)
        assert options == (() if code is None else ("-std=c++17",))
        FakeModule.made.append("NVRTC" if path is None else Path(path).name)
        self._code = code or Path(path).read_text()

    def get_function(self, name):
        if "KERNEL" not in self._code:
            raise FakeDriverError
        kernel = RawModule(self._code).get_function(name)

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
        def call(*args, **options):
            assert FakeGPU.current == 1
            return function(*args, **options).view(OnGPU)

        return call

    fake = SimpleNamespace(
        RawModule=FakeModule,
        asnumpy=memory.download,
        asarray=on_gpu(lambda array, **_: memory.upload(array)),
        ascontiguousarray=on_gpu(memory.contiguous),
        broadcast_to=lambda array, shape: memory.broadcast(array, shape).view(OnGPU),
        byte_bounds=memory.extent,
        cuda=SimpleNamespace(
            Device=FakeGPU,
            driver=SimpleNamespace(CUDADriverError=FakeDriverError),
            get_current_stream=current_stream,
        ),
        get_default_memory_pool=FakePool,
        empty=on_gpu(memory.empty),
        zeros=on_gpu(memory.zeros),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(FakeModule, "made", [])
    monkeypatch.setattr(FakeGPU, "n_waits", 0)
    monkeypatch.setattr(FakePool, "limit", 0)
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
    assert len(FakeModule.made) == 1, "one module a family"
    assert FakeGPU.current == 0


def test_downloads_wait_and_the_budget_is_that_of_the_gpu(place):
    gpu = device.device(1)
    assert gpu.name == "cuda:1"
    array = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(gpu.download(gpu.upload(array)), array)
    assert FakeGPU.n_waits == 0
    gpu.synchronize()
    assert FakeGPU.n_waits == 1
    assert gpu.free_bytes() == 700 + 30
    FakePool.limit = 100
    assert gpu.free_bytes() == 100 - 50


def test_workers_wait_for_one_that_compiles(place, monkeypatch):
    get_function = FakeModule.get_function

    def slowly(module, name):
        time.sleep(0.05)
        return get_function(module, name)

    monkeypatch.setattr(FakeModule, "get_function", slowly)
    monkeypatch.setattr(device, "fatbin_of", lambda _: None)
    gpu = device.device(1)
    with ThreadPoolExecutor(8) as workers:
        kernels = list(workers.map(gpu.kernel, ["rows"] * 16, ["pack", "unpack"] * 8))
    assert len(set(kernels)) == 2
    assert FakeModule.made == ["NVRTC"]


def test_what_cannot_be_compiled_is_said(place, monkeypatch):
    def missing(_module, _name):
        raise ImportError("libnvrtc.so.13: cannot open shared object file")

    monkeypatch.setattr(FakeModule, "get_function", missing)
    monkeypatch.setattr(device, "fatbin_of", lambda _: None)
    with pytest.raises(BackendError, match=r"cuda:1: CuPy cannot compile or load the kernel pack: libnvrtc.* install"):
        pack_some(place)


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``."""


@pytest.mark.parametrize("name", ["empty", "zeros", "asarray", "ascontiguousarray"])
def test_a_gpu_whose_memory_is_full(place, monkeypatch, name):
    def full(*_args, **_options):
        assert FakeGPU.current == 1
        raise OutOfMemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")

    gpu, there = device.device(1), place(np.zeros((2, 1), np.uint64))
    monkeypatch.setattr(sys.modules["cupy"], name, full)
    calls = {
        "empty": lambda: gpu.empty((1,), np.int64),
        "zeros": lambda: gpu.zeros((1,), np.int64),
        "asarray": lambda: gpu.upload(np.zeros(1)),
        "ascontiguousarray": lambda: ccx.kernels.cuda.rows.popcount(there, None),
    }
    with pytest.raises(
        MemoryBudgetError, match=r"device: expected work that fits into the memory of cuda:1, got Out of"
    ):
        calls[name]()
    assert FakeGPU.current == 0


def test_gpus_of_amd_are_refused(place):
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=FakeDriverError, is_hip=True)
    sys.modules["cupy"].cuda.runtime = runtime
    with pytest.raises(BackendError, match="here needs an NVIDIA GPU, and CuPy finds none"):
        device.require_cupy("here")


def test_arrays_on_two_gpus_are_refused(place):
    there = place(np.zeros((1, 1), np.uint64))
    here = there.view(type("Elsewhere", (OnGPU,), {"device": SimpleNamespace(id=0)}))
    with pytest.raises(BackendError, match=r"must all be on one GPU, got devices \[0, 1\]"):
        ccx.kernels.cuda.rows.and_popcount(here, there, None)


def test_sources_include_nothing():
    for path in device._SOURCES.glob("*.cuh"):
        assert "#include" not in path.read_text(), path.name


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the sources, for fatbins beside them."""
    for path in device._SOURCES.glob("*.cuh"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(device, "_SOURCES", tmp_path)
    return tmp_path


def fatbin_of_rows(sources):
    text = (sources / "common.cuh").read_bytes() + (sources / "rows.cuh").read_bytes()
    return sources / f"rows-{hashlib.sha256(text).hexdigest()[:16]}.fatbin"


def pack_some(place):
    bits = np.random.default_rng(0).random((2, 70)) < 0.5
    packed = ccx.kernels.cuda.rows.pack(place(bits), None)
    np.testing.assert_array_equal(packed.view(np.ndarray), reference.pack(bits))


def test_the_fatbin_is_loaded_where_there_is_one(place, sources):
    fatbin_of_rows(sources).write_text(device.source_of("rows"))
    pack_some(place)
    pack_some(place)
    assert FakeModule.made == [fatbin_of_rows(sources).name]


def test_a_fatbin_of_other_sources_is_not_loaded(place, sources):
    fatbin_of_rows(sources).write_text("older kernels")
    with (sources / "rows.cuh").open("a") as file:
        file.write("// newer\n")
    pack_some(place)
    assert FakeModule.made == ["NVRTC"]


def test_nvrtc_compiles_where_the_driver_cannot_load_the_fatbin(place, sources):
    fatbin_of_rows(sources).write_text("for another driver")
    pack_some(place)
    pack_some(place)
    assert FakeModule.made == [fatbin_of_rows(sources).name, "NVRTC"]
