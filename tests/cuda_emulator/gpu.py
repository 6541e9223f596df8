"""For tests of GPU kernels: `arrays_belong_to_the_emulator` once a module, and `gpus` in its properties."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import ccx.kernels.cuda
from ccx.kernels.cuda import device
from tests.cuda_emulator.emulator import DeviceArray, Emulator

# One to three warps a block and few blocks: small inputs need several of each, and each several tasks.
_EMULATORS = st.sampled_from([Emulator(32, 1), Emulator(32, 3), Emulator(96, 2)])
_THREAD_ORDERS = st.sampled_from([0, 1, 12345])
_chosen = [Emulator()]


@contextmanager
def arrays_belong_to_the_emulator(*families: ModuleType) -> Iterator[pytest.MonkeyPatch]:
    """Let public `families` of kernels take their arrays for arrays of the GPU, and launch small grids."""
    with pytest.MonkeyPatch.context() as patch:
        for family in families:
            launching = getattr(ccx.kernels.cuda, family.__name__.rpartition(".")[2])
            patch.setattr(family, "backend_for", lambda *_: ccx.kernels.cuda)
            patch.setattr(launching, "device_of", lambda *_: _chosen[0])
        patch.setattr(device, "_BLOCKS_PER_PROCESSOR", 1)
        patch.setenv("EMU_SEED", "0")
        yield patch


def use(gpu: Emulator, thread_order: int = 0) -> Emulator:
    """Launch on `gpu` from now on."""
    _chosen[0] = gpu
    os.environ["EMU_SEED"] = str(thread_order)
    return gpu


def gpus() -> st.SearchStrategy[Emulator]:
    """Draw a size of the emulated GPU and an order of its threads, and use them."""
    return st.builds(use, _EMULATORS, _THREAD_ORDERS)


def assert_same(gpu: Emulator, got: DeviceArray, wanted: Any) -> None:
    assert isinstance(got, DeviceArray)
    np.testing.assert_array_equal(gpu.download(got), wanted, strict=True)
