"""CUDA kernels on the CPU: `RawModule` with CuPy's face, and a `Device` for the launch code of ccx.

A module is built with g++ at its first use and kept in a cache folder under the hash of what it is built from.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray

from ccx.kernels.backend import CUDA
from ccx.kernels.cuda.device import source_of

HERE = Path(__file__).parent
_COMMON = ["-std=c++17", "-g", "-fPIC", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas"]
# How kernels are compiled, and how the runtime, which must not be instrumented itself.
BUILDS = {
    "plain": (["-O1"], ["-O2"]),
    "asan": (
        ["-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        ["-O2", "-DEMULATOR_ASAN"],
    ),
    "tsan": (["-O1", "-fsanitize=thread"], ["-O2", "-DEMULATOR_TSAN"]),
}
_LAUNCHING = Lock()  # one kernel at a time, whatever thread asks for it
_KERNEL = re.compile(r"^KERNEL void (\w+)\(", re.MULTILINE)


class KernelError(RuntimeError):
    """What the emulator refuses: deadlocks, warp calls that do not match, launches that no GPU takes."""


class DeviceArray(np.ndarray):
    """Stands for memory of a GPU: NumPy's functions and operators refuse it, as host code must not compute on it."""

    device = SimpleNamespace(id=0)

    def __array_finalize__(self, base: Any) -> None:
        """Views of an array lie where it lies."""
        if type(base) is type(self):
            self.device = base.device

    def __array_ufunc__(self, ufunc: Any, *args: Any, **kwargs: Any) -> Any:
        msg = f"numpy.{ufunc.__name__} on an array of the device"
        raise TypeError(msg)

    def __array_function__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        msg = f"numpy.{function.__name__} on an array of the device"
        raise TypeError(msg)


class RawModule:
    """The face of ``cupy.RawModule``, for CUDA source `code`."""

    def __init__(self, code: str, build: str | None = None) -> None:
        build = build or os.environ.get("CCX_EMULATOR_BUILD", "plain")
        self._library = ctypes.CDLL(str(_built(code, build)))

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self._library, name)


class RawKernel:
    """The face of ``cupy.RawKernel``; checks what CuPy cannot: that arguments are what the kernel declares."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._name = name
        self._launch = getattr(library, f"launch_{name}")
        self._launch.restype = ctypes.c_char_p
        parameter = getattr(library, f"parameter_{name}")
        self._parameters: list[int] = []
        while size := parameter(len(self._parameters)):
            self._parameters.append(size)

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        if len(args) != len(self._parameters):
            msg = f"{self._name} takes {len(self._parameters)} arguments, got {len(args)}"
            raise TypeError(msg)
        values = [self._value(i, arg) for i, arg in enumerate(args)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        with _LAUNCHING:
            failure = self._launch(_dimensions(grid), _dimensions(block), ctypes.c_size_t(shared_mem), pointers)
        if failure:
            msg = f"{self._name}: {failure.decode()}"
            raise KernelError(msg)

    def _value(self, i: int, arg: Any) -> Any:
        size = self._parameters[i]
        if size < 0 and isinstance(arg, DeviceArray):
            return ctypes.c_void_p(arg.ctypes.data)
        if isinstance(arg, np.generic) and arg.dtype.itemsize == size:
            return np.ctypeslib.as_ctypes_type(arg.dtype)(arg.item())
        wanted = "an array of the device" if size < 0 else f"a NumPy scalar of {size} bytes"
        msg = f"{self._name}: argument {i} must be {wanted}, got {type(arg).__name__}"
        raise TypeError(msg)


class Emulator:
    """A `ccx.kernels.cuda.device.Device` that runs the kernels of ccx on the CPU.

    A block is one warp and the GPU two multiprocessors, so that small inputs span several blocks, and more tasks
    than threads. `budget` is the memory that it says is free.
    """

    budget = 1 << 30
    kernels = CUDA

    def __init__(self, threads_per_block: int = 32, n_processors: int = 2, number: int = 0) -> None:
        self.threads_per_block = threads_per_block
        self.n_processors = n_processors
        self.name = f"cuda:{number}"
        self._device = SimpleNamespace(id=number)

    def kernel(self, family: str, name: str) -> RawKernel:
        return _module(family).get_function(name)

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        """Return memory of exactly this size, where a sanitizer sees its end, full of rubbish."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        memory = _aligned(n_bytes)
        memory[:] = 0xCD
        return self.place(memory.view(dtype).reshape(tuple(shape)))

    def zeros(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        array = self.empty(shape, dtype)
        array.view(np.ndarray)[...] = 0
        return array

    def upload(self, array: NDArray[Any]) -> DeviceArray:
        copy = self.empty(array.shape, array.dtype)
        copy.view(np.ndarray)[...] = array
        return copy

    def contiguous(self, array: DeviceArray, dtype: DTypeLike) -> DeviceArray:
        return self.place(np.ascontiguousarray(_converted(array, dtype)).reshape(array.shape))

    def broadcast(self, array: DeviceArray, shape: Sequence[int]) -> DeviceArray:
        return self.place(np.broadcast_to(array.view(np.ndarray), tuple(shape)))

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        target.view(np.ndarray)[...] = _converted(source, target.dtype)

    def extent(self, array: DeviceArray) -> tuple[int, int]:
        return np.lib.array_utils.byte_bounds(array.view(np.ndarray))

    def place(self, array: NDArray[Any]) -> DeviceArray:
        """Say that an array of the host lies on the device: the same memory, in any layout."""
        placed = array.view(DeviceArray)
        placed.device = self._device
        return placed

    def download(self, array: DeviceArray) -> NDArray[Any]:
        return array.view(np.ndarray).copy()

    def synchronize(self) -> None:
        """Do nothing: kernels end before their launch returns."""

    def free_bytes(self) -> int:
        return self.budget


def _converted(array: DeviceArray, dtype: DTypeLike) -> NDArray[Any]:
    """Return an array in a dtype, as CuPy's kernels convert it: a float32 that would be denormal becomes zero."""
    converted = np.asarray(array.view(np.ndarray), dtype)
    if converted.dtype == np.float32 and array.dtype.itemsize > 4 and array.dtype.kind == "f":
        converted = np.where(np.abs(converted) < np.finfo(np.float32).smallest_normal, 0 * converted, converted)
    return converted


@cache
def _module(family: str) -> RawModule:
    return RawModule(source_of(family))


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    """Return memory from a 16-byte boundary on, as a GPU gives; malloc does so, and NumPy asks malloc."""
    memory = np.empty(n_bytes, np.uint8)
    if n_bytes and memory.ctypes.data % 16:
        msg = "NumPy's memory is not aligned to 16 bytes"
        raise RuntimeError(msg)
    return memory


def _dimensions(lengths: Sequence[int]) -> Any:
    return (ctypes.c_uint * 3)(*(*lengths, 1, 1, 1)[:3])


def _built(code: str, build: str) -> Path:
    """Return the library of CUDA source `code`; compiled, unless the cache has it."""
    kernel_flags, runtime_flags = BUILDS[build]
    exports = "\n".join(f"EMULATOR_EXPORT({name})" for name in _KERNEL.findall(code))
    unit = f'#include "emulator.h"\n{code}\n#line 1 "exports"\n{exports}\n'
    inputs = [
        unit,
        *((HERE / name).read_text() for name in ("emulator.h", "emulator.cpp")),
        str((_COMMON, BUILDS[build])),
    ]
    version = _run(["g++", "--version"], "")
    key = hashlib.sha256("\0".join([version, *inputs]).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccx-cuda-emulator"
    library = folder / f"{build}-{key}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    # Of tests that run at the same time one builds, and the others wait.
    with FileLock(library.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=folder) as scratch:
        if library.exists():
            return library
        kernels, runtime, linked = (Path(scratch) / name for name in ("kernels.o", "runtime.o", "linked.so"))
        _run(["g++", *_COMMON, *kernel_flags, f"-I{HERE}", "-x", "c++", "-c", "-", "-o", str(kernels)], unit)
        _run(["g++", *_COMMON, *runtime_flags, "-c", str(HERE / "emulator.cpp"), "-o", str(runtime)], "")
        sanitize = [flag for flag in kernel_flags if flag.startswith("-fsanitize=")]
        _run(["g++", "-shared", *sanitize, str(kernels), str(runtime), "-o", str(linked)], "")
        linked.replace(library)  # at once: another process may look for it
    return library


def _run(command: list[str], stdin: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # g++ itself is clean
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        msg = f"{' '.join(command)}\n{done.stderr}"
        raise RuntimeError(msg)
    return done.stdout


def sanitized_environment(build: str) -> dict[str, str]:
    """Return the environment in which a Python process can load kernels of `build` ("asan" or "tsan")."""
    runtime = _run(["g++", f"-print-file-name=lib{build}.so"], "").strip()
    stdcxx = _run(["g++", "-print-file-name=libstdc++.so"], "").strip()
    return {
        **os.environ,
        "CCX_EMULATOR_BUILD": build,
        "LD_PRELOAD": f"{runtime} {stdcxx}",  # before all else; C++ exceptions must be there when it starts
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it likes
        "TSAN_OPTIONS": "exitcode=66",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
