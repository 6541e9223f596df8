"""What happens without CuPy, or without a GPU: the CPU does its work, and asking for the GPU says what is missing."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from ccx.errors import BackendError, MissingExtraError
from ccx.kernels.cuda.device import require_cupy

_WITHOUT_CUPY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cupy", "cupyx", "cupy_backends", "cuda", "numba_cuda"):
            raise AssertionError(f"{name} was asked for")

sys.meta_path.insert(0, Blocked())
import numpy as np
import ccx
labels = np.arange(2 * 1 * 4 * 4, dtype=np.int16).reshape(2, 1, 4, 4) % 3
activations = np.arange(2 * 1 * 2 * 2, dtype=np.float32).reshape(2, 1, 2, 2)
concepts = ccx.Concepts.from_label_maps(labels, ["a", "b"])
assert len(ccx.explain(activations, concepts, clusters=2, progress=False)) == 2
"""


def test_the_cpu_path_asks_for_neither_cupy_nor_cuda():
    done = subprocess.run([sys.executable, "-c", _WITHOUT_CUPY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_cupy_both_extras_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    wanted = r'device="cuda" needs CuPy .*cupy-cuda12x.* pip install "ccx\[cupy-cuda13x\]"'
    with pytest.raises(MissingExtraError, match=wanted):
        require_cupy('device="cuda"')


class CUDARuntimeError(RuntimeError):
    """``cupy.cuda.runtime.CUDARuntimeError``."""


def a_cupy_that_counts(count):
    runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=count)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def count():
        msg = "cudaErrorInsufficientDriver"
        raise CUDARuntimeError(msg)

    monkeypatch.setitem(sys.modules, "cupy", a_cupy_that_counts(count))
    with pytest.raises(
        BackendError, match=r"nox -s gpu needs an NVIDIA GPU and its driver.*cudaErrorInsufficientDriver"
    ):
        require_cupy("nox -s gpu")


def test_a_driver_without_gpus_has_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", a_cupy_that_counts(lambda: 0))
    with pytest.raises(BackendError, match="needs an NVIDIA GPU, and CuPy finds none"):
        require_cupy("nox -s gpu")


def test_cupy_is_returned_where_there_is_a_gpu(monkeypatch):
    cupy = a_cupy_that_counts(lambda: 2)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert require_cupy("nox -s gpu") is cupy
