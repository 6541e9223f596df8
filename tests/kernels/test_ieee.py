"""Threads that take denormals for zeros: results are what they are elsewhere, and the thread is left as it was."""

from __future__ import annotations

import ctypes
import platform
import sys

import numpy as np
import pytest
import scipy.sparse

import ccx
from ccx import clustering, kernels
from ccx.errors import BackendError, InputError
from ccx.kernels import ieee, sparse

pytestmark = pytest.mark.skipif(
    (platform.machine(), sys.platform) != ("x86_64", "linux"), reason="the tests flush as x86-64 does on Linux"
)

FLUSH_TO_ZERO, DENORMALS_ARE_ZEROS = 0x8000, 0x40  # bits of MXCSR, the last word of a fenv_t
LEAST = float(np.float32(2**-149))
RNG = np.random.default_rng(0)
CONCEPTS = ccx.Concepts.from_masks(RNG.random((5, 8, 7, 9)) < 0.4)
MAPS = RNG.choice(np.array([0, 0, 0, LEAST, 1e-40, 1.2e-38, 0.5, 1.0, 2.0], np.float32), (8, 3, 7, 9))


FEW, ASCENDING = np.float32([LEAST, 0.5, 1e-40]), np.sort(MAPS, axis=None)
LIBRARY = ctypes.CDLL(None)


def flush(bits):
    environment = ctypes.create_string_buffer(32)
    LIBRARY.fegetenv(environment)
    word = ctypes.c_uint32.from_buffer(environment, 28)
    word.value = word.value & ~(FLUSH_TO_ZERO | DENORMALS_ARE_ZEROS) | bits
    LIBRARY.fesetenv(environment)


@pytest.fixture(params=[FLUSH_TO_ZERO, DENORMALS_ARE_ZEROS, FLUSH_TO_ZERO | DENORMALS_ARE_ZEROS])
def flushed(request):
    """Call a function in a thread that flushes -> what it returns."""

    def call(function, *args, **options):
        flush(request.param)
        try:
            assert ieee._flushes()
            result = function(*args, **options)
            assert ieee._flushes(), "left as it was"
            return result
        finally:
            flush(0)

    return call


CALLS = {
    "upsample": lambda: kernels.upsample(MAPS, (9, 11)),
    "upsample_pack": lambda: kernels.upsample_pack(MAPS, (7, 9), (0.0, np.inf)),
    "range_histogram": lambda: kernels.range_histogram(MAPS, [[(0.0, 1e-40), (-1.0, 0.3)]] * 3, CONCEPTS.atoms),
    "sparse_pack": lambda: sparse.sparse_pack(np.arange(3), FEW, (0.0, 0.4), 1, 63),
    "kmeans_1d": lambda: kernels.kmeans_1d(ASCENDING, 4),
    "unit_ranges": lambda: clustering.unit_ranges(MAPS[:, 0], clusters=4),
    "top_quantile": lambda: clustering.top_quantile(MAPS[:, 0], 0.6),
}


@pytest.mark.parametrize("call", CALLS)
def test_kernels_and_ranges(call, flushed):
    np.testing.assert_array_equal(flushed(CALLS[call]), CALLS[call](), strict=True)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", [{"ranges": [(0.0, np.inf), (LEAST, 1e-39)]}, {"clusters": 3}, {"clusters": 1}])
def test_explanations(options, threads, flushed):
    options = {**options, "threads": threads, "quantile": 0.6}
    wanted = ccx.explain(MAPS, CONCEPTS, **options)
    assert flushed(ccx.explain, MAPS, CONCEPTS, **options) == wanted
    matrix = scipy.sparse.csc_matrix(MAPS.transpose(0, 2, 3, 1).reshape(-1, 3))
    wanted = ccx.explain(matrix, CONCEPTS, **options)
    assert flushed(ccx.explain, matrix, CONCEPTS, **options) == wanted


def test_an_error_leaves_the_thread_as_it_was(flushed):
    def refused():
        with pytest.raises(InputError, match="quantile"):
            ccx.explain(MAPS, CONCEPTS, quantile=2)

    flushed(refused)


@pytest.mark.needs("torch")
@pytest.mark.states(
    "Activations", "torch.set_flush_denormal(True)", "accepted", "ccx computes with denormals all the same"
)
def test_torch_flushes():
    import torch

    wanted = ccx.explain(MAPS, CONCEPTS, ranges=[(0.0, np.inf)])
    torch.set_flush_denormal(True)
    try:
        assert ccx.explain(torch.from_numpy(MAPS), CONCEPTS, ranges=[(0.0, np.inf)]) == wanted
    finally:
        torch.set_flush_denormal(False)


def test_where_it_cannot_be_set_that_is_said(flushed, monkeypatch):
    class Library:
        def fegetenv(self, _):
            return 0

        def fesetenv(self, _):
            return 1

    monkeypatch.setattr(ieee.ctypes, "CDLL", lambda _: Library())

    def refused():
        with pytest.raises(BackendError, match=r"takes denormal numbers for zeros.*torch\.set_flush_denormal\(False\)"):
            kernels.upsample(MAPS, (9, 11))

    flushed(refused)
