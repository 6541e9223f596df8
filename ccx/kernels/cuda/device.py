"""What the launching code asks of a GPU, and CuPy as the one that gives it.

The tests implement `Device` a second time, by an emulator on the CPU, so that launching code and kernels are run
where there is no GPU. That is why launching code computes nothing with arrays itself: it asks a `Device`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from ccx.errors import BackendError, MemoryBudgetError, MissingExtraError
from ccx.kernels.backend import CUDA, Backend

_SOURCES = Path(__file__).parent.parent / "src"
FAMILIES = sorted(path.stem for path in _SOURCES.glob("*.cuh") if path.stem != "common")
# Enough for every multiprocessor to hold 2048 threads twice over; kernels share out what is left.
_BLOCKS_PER_PROCESSOR = 16
NVRTC_OPTIONS = ("-std=c++17",)  # CuPy appends others: see tests/support/cuda_compilers.py
Array = Any


class Kernel(Protocol):
    """A compiled kernel; sizes are passed as NumPy scalars of the width that the source declares."""

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        """Launch on the current stream."""


class Device(Protocol):
    """A GPU: its memory, its kernels, its size. Everything happens on the current stream, in order."""

    @property
    def name(self) -> str:
        """What users call it: "cuda:0"."""

    @property
    def kernels(self) -> Backend:
        """Those of this package."""

    @property
    def threads_per_block(self) -> int:
        """How many threads a block gets, a multiple of 32."""

    @property
    def n_processors(self) -> int:
        """Number of multiprocessors."""

    def kernel(self, family: str, name: str) -> Kernel:
        """Return a kernel of ``ccx/kernels/src/<family>.cuh``, compiled at the first call."""

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Allocate an array, contiguous, from 16-byte boundaries on."""

    def zeros(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Allocate an array of zeros."""

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy an array of the host to the device, contiguous."""

    def download(self, array: Array) -> NDArray[Any]:
        """Copy an array of the device, of any memory layout, to the host, and wait for it."""

    def synchronize(self) -> None:
        """Wait for what was asked for so far, so that other threads and streams find it done."""

    def free_bytes(self) -> int:
        """Return how much memory is left to allocate."""

    def contiguous(self, array: Array, dtype: DTypeLike) -> Array:
        """Return `array` contiguous, in native byte order; a copy only where it is not so.

        A float64 that becomes a float32 may lose denormals: `ccx.kernels.cuda.activations.floats_of` keeps them.
        """

    def broadcast(self, array: Array, shape: Sequence[int]) -> Array:
        """Return a view of `array` in a larger shape."""

    def copy(self, source: Array, target: Array) -> None:
        """Copy between arrays of one shape, of any memory layout, converting to the dtype of `target`."""

    def extent(self, array: Array) -> tuple[int, int]:
        """Return the address of the first byte of `array`, which is not empty, and of the byte after its last."""


class _Memory:
    """Makes a GPU the current one, and says so where its memory is full."""

    def __init__(self, device: Any, name: str) -> None:
        self._device = device
        self._name = name

    def __enter__(self) -> None:
        self._device.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._device.__exit__(kind, error, trace)
        if isinstance(error, MemoryError):  # CuPy's OutOfMemoryError is one
            wanted, remedy = f"work that fits into the memory of {self._name}", "free some there, or use fewer threads"
            raise MemoryBudgetError("device", wanted=wanted, got=str(error), remedy=remedy) from error


class CupyDevice:
    """A GPU through CuPy: its memory pool, its current stream, its cache of compiled kernels."""

    kernels = CUDA
    threads_per_block = 256

    def __init__(self, number: int) -> None:
        self._cupy = importlib.import_module("cupy")
        self._device = self._cupy.cuda.Device(number)
        self.name = f"cuda:{number}"
        self._memory = _Memory(self._device, self.name)
        self.n_processors: int = self._device.attributes["MultiProcessorCount"]
        self._modules: dict[str, Any] = {}
        self._kernels: dict[str, Kernel] = {}  # by name, which is one kernel's alone
        self._compiling = Lock()  # workers that want the same family at once wait for one of them

    def kernel(self, family: str, name: str) -> Kernel:
        """Take it from the family's fatbin, or compile with NVRTC; CuPy keeps on disk what that compiled."""
        if name not in self._kernels:
            with self._compiling:
                if name not in self._kernels:
                    self._kernels[name] = self._kernel(family, name)
        return self._kernels[name]

    def _kernel(self, family: str, name: str) -> Kernel:
        try:
            with self._device:
                if family not in self._modules:
                    self._modules[family] = self._module(family, name)
                function: Kernel = self._modules[family].get_function(name)  # CuPy compiles it now
        except Exception as error:  # of CuPy, NVRTC or the driver, which share no base class
            msg = (
                f"{self.name}: CuPy cannot compile or load the kernel {name}: {error}; "
                "install NVRTC of the driver's CUDA version (the extras cupy-cuda12x and cupy-cuda13x ask for it)"
            )
            raise BackendError(msg) from error

        def launch(grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
            with self._device:
                function(tuple(grid), tuple(block), tuple(args), shared_mem=shared_mem)

        return launch

    def _module(self, family: str, name: str) -> Any:
        """Load the family that holds kernel `name`."""
        fatbin = fatbin_of(family)
        if fatbin is not None:
            module = self._cupy.RawModule(path=str(fatbin))
            try:
                module.get_function(name)  # CuPy loads it now
            except self._cupy.cuda.driver.CUDADriverError:
                pass  # made by an nvcc that is newer than the driver: NVRTC makes the same kernels
            else:
                return module
        return self._cupy.RawModule(code=source_of(family), options=NVRTC_OPTIONS)

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Take memory from CuPy's pool."""
        with self._memory:
            return self._cupy.empty(tuple(shape), dtype)

    def zeros(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Take memory from CuPy's pool and clear it."""
        with self._memory:
            return self._cupy.zeros(tuple(shape), dtype)

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy over the bus, in order with what the stream does."""
        with self._memory:
            return self._cupy.asarray(array, order="C")

    def download(self, array: Array) -> NDArray[Any]:
        """Copy over the bus, in order with what the stream does."""
        with self._device:
            host: NDArray[Any] = self._cupy.asnumpy(array)
            return host

    def synchronize(self) -> None:
        """Wait for the current stream."""
        with self._device:
            self._cupy.cuda.get_current_stream().synchronize()

    def free_bytes(self) -> int:
        """Return what is free on the GPU and in CuPy's pool, and no more than the limit of the pool leaves."""
        with self._device:
            pool = self._cupy.get_default_memory_pool()
            free = self._device.mem_info[0] + pool.free_bytes()
            limit = pool.get_limit()
            return int(min(free, limit - pool.used_bytes()) if limit else free)

    def contiguous(self, array: Array, dtype: DTypeLike) -> Array:
        """Copy on the device, if at all."""
        with self._memory:
            return self._cupy.ascontiguousarray(array, dtype)

    def broadcast(self, array: Array, shape: Sequence[int]) -> Array:
        """Repeat axes of length 1 with a stride of 0."""
        return self._cupy.broadcast_to(array, tuple(shape))

    def copy(self, source: Array, target: Array) -> None:
        """Copy on the device."""
        with self._memory:
            target[...] = source

    def extent(self, array: Array) -> tuple[int, int]:
        """Ask CuPy, as strides may be negative."""
        low, high = self._cupy.byte_bounds(array)
        return int(low), int(high)


@cache
def _cupy_device(number: int) -> CupyDevice:
    return CupyDevice(number)


def device(number: int) -> Device:
    """Return a GPU by its number."""
    return _cupy_device(number)


def device_of(*arrays: Array) -> Device:
    """Return the GPU on which CuPy `arrays` lie.

    Raises
    ------
    BackendError
        If they lie on several.

    """
    numbers = {array.device.id for array in arrays}
    if len(numbers) > 1:
        msg = f"arrays must all be on one GPU, got devices {sorted(numbers)}; move them to one first"
        raise BackendError(msg)
    return device(numbers.pop())


def require_cupy(purpose: str) -> ModuleType:
    """Return CuPy, with at least one GPU that it can use.

    Parameters
    ----------
    purpose
        What the caller asked for, to begin the message with: ``'device="cuda"'``.

    Raises
    ------
    MissingExtraError
        If CuPy is not installed.
    BackendError
        If it cannot be imported, or finds no GPU or no driver.

    """
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        library = "CuPy (the extra cupy-cuda12x or cupy-cuda13x, after the CUDA version that nvidia-smi names)"
        raise MissingExtraError(library, "cupy-cuda13x", purpose) from error
    except ImportError as error:
        msg = f"{purpose} needs CuPy, which cannot be imported here: {error}"
        raise BackendError(msg) from error
    try:
        n_gpus = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        msg = f"{purpose} needs an NVIDIA GPU and its driver, and CuPy finds none: {error}"
        raise BackendError(msg) from error
    if n_gpus == 0 or getattr(cupy.cuda.runtime, "is_hip", False):  # those of AMD have warps of another size
        msg = f"{purpose} needs an NVIDIA GPU, and CuPy finds none"
        raise BackendError(msg)
    return cupy


def fatbin_of(family: str) -> Path | None:
    """Return what nvcc made of a family's sources, just these, when ccx was built; None where it did not."""
    path = fatbin_path(family)
    return path if path.exists() else None


def fatbin_path(family: str) -> Path:
    """Return where that lies: as CMakeLists.txt names it, after its sources."""
    text = b"".join((_SOURCES / f"{name}.cuh").read_bytes() for name in ("common", family))
    return _SOURCES / f"{family}-{hashlib.sha256(text).hexdigest()[:16]}.fatbin"


@cache
def source_of(family: str) -> str:
    """Return the CUDA source of a family of kernels, as NVRTC takes it: one text that includes nothing."""
    texts = []
    for name in ("common", family):
        path = _SOURCES / f"{name}.cuh"
        texts.append(f'#line 1 "{path.name}"\n{path.read_text(encoding="utf-8")}')  # for the compiler's messages
    return "".join(texts)


def launch(device: Device, family: str, name: str, n_threads: int, args: Sequence[Any], shared_mem: int = 0) -> None:
    """Launch a kernel that could use `n_threads` threads, in as many blocks as the device can have use for."""
    n_blocks = min(-(-n_threads // device.threads_per_block), device.n_processors * _BLOCKS_PER_PROCESSOR)
    if n_blocks:
        device.kernel(family, name)((n_blocks,), (device.threads_per_block,), args, shared_mem=shared_mem)
