"""For tests of GPU kernels: `emulated_cupy` once a module, and `gpus` in its properties."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from ccx.kernels.cuda import device
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator

# One to three warps a block and few blocks: small inputs need several of each, and each several tasks.
_EMULATORS = st.sampled_from([Emulator(32, 1), Emulator(32, 3), Emulator(96, 2)])
_THREAD_ORDERS = st.sampled_from([0, 1, 12345])
_chosen = [Emulator()]


def use(gpu: Emulator, thread_order: int = 0, *, flush: bool = True) -> Emulator:
    """Launch on `gpu` from now on, with denormals flushed by all that C++ computes, as CuPy compiles it."""
    _chosen[0] = gpu
    os.environ["EMU_SEED"] = str(thread_order)
    os.environ["EMU_FLUSH"] = str(int(flush))
    return gpu


def gpus() -> st.SearchStrategy[Emulator]:
    """Draw a size of the emulated GPU and an order of its threads, and use them."""
    return st.builds(use, _EMULATORS, _THREAD_ORDERS)


@contextmanager
def emulated_cupy() -> Iterator[pytest.MonkeyPatch]:
    """Stand in for an installed CuPy: arrays of the emulator are its arrays, and choose the backend themselves.

    GPU 0 is the one last `use`d; GPU 1 and so on are small.
    """

    def count() -> int:
        return 3

    def from_dlpack(tensor: Any) -> DeviceArray:
        return _chosen[0].place(tensor.__dlpack__())

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=RuntimeError)
    fake = SimpleNamespace(ndarray=DeviceArray, from_dlpack=from_dlpack, cuda=SimpleNamespace(runtime=runtime))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", fake)
        others = [Emulator(32, 1, number) for number in range(count())]
        patch.setattr(device, "_cupy_device", lambda number: others[number] if number else _chosen[0])
        patch.setattr(device, "_BLOCKS_PER_PROCESSOR", 1)
        patch.setenv("EMU_SEED", "0")
        patch.setenv("EMU_FLUSH", "1")
        yield patch


def assert_same(gpu: Emulator, got: DeviceArray, wanted: Any) -> None:
    assert isinstance(got, DeviceArray)
    np.testing.assert_array_equal(gpu.download(got), wanted, strict=True)


class HostClock:
    """What `gpu.Events` is for a GPU; the emulator is done when a launch returns."""

    def mark(self):
        return time.perf_counter()

    def seconds(self, begin, end):
        return end - begin
