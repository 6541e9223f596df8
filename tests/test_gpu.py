"""On a real GPU, by `nox -s gpu`: what the emulator cannot prove. Fails, and never skips, where there is none."""

from __future__ import annotations

import re
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx import kernels
from ccx.errors import BackendError, CCXError
from ccx.kernels.cuda import device
from ccx.kernels.devices import to_host

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[1]

if not (ROOT / "benchmarks" / "gpu.py").exists():
    pytest.skip("the cases lie in the checkout, among the benchmarks", allow_module_level=True)

sys.path.append(str(ROOT))  # behind everything else: ccx itself is installed, with its fatbins
try:
    from benchmarks import _gpu_cases
    from benchmarks.synthetic import generate
finally:
    sys.path.remove(str(ROOT))

FUNCTIONS = sorted(
    {name for name in kernels.__all__ if not isinstance(getattr(kernels, name), type)} - _gpu_cases.HOST_ONLY
)
FAMILIES = sorted(path.stem for path in device._SOURCES.glob("*.cuh") if path.stem != "common")


@pytest.fixture(scope="module")
def cupy():
    try:
        return device.require_cupy("pytest -m gpu")
    except CCXError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="module")
def data():
    """112 × 112 cells, so that blocks share samples, and more samples than a GPU has multiprocessors."""
    return generate(300, 9)


@pytest.fixture(scope="module")
def concepts(data):
    return data.concepts()


def masks(concepts, n_samples):
    """The packed masks of the concepts in the first samples: uint64[R, n_words]."""
    return kernels.concept_rows(concepts.atoms, np.arange(min(n_samples, concepts.atoms.n_samples))).rows


@pytest.fixture(scope="module", params=["nvcc", "nvrtc"])
def gpu(request, cupy):
    """GPU 0, with kernels from the fatbins or compiled now."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "nvrtc":
            patch.setattr(device, "fatbin_of", lambda _: None)
        new = device.CupyDevice(0)
        patch.setattr(device, "_cupy_device", lambda _: new)
        yield new


@pytest.mark.parametrize("function", FUNCTIONS)
def test_kernels_give_what_the_cpu_gives(function, gpu, data, concepts):
    found = [
        case
        for case in _gpu_cases.cases(data, concepts, min(100, concepts.atoms.n_samples))
        if case.name.partition(",")[0] == function
    ]
    assert found
    for case in found:
        assert not _gpu_cases.difference(case, case.at(gpu)())


def test_kernels_wait_for_the_stream_of_the_caller(cupy, concepts):
    """Arrays that another stream still writes: a kernel on the wrong stream would read zeros."""
    rows = masks(concepts, 100)
    with cupy.cuda.Stream(non_blocking=True):
        source, target = cupy.asarray(rows), cupy.zeros(rows.shape, np.uint64)
        for _ in range(20):
            target[...] = source
        counts = to_host(kernels.popcount(target))
    np.testing.assert_array_equal(counts, kernels.popcount(rows))


def test_arrays_of_any_layout_and_alignment(cupy, concepts):
    rows = masks(concepts, 10)
    there = cupy.asarray(rows)
    off_by_8_bytes = cupy.concatenate([there.ravel()[:1], there.ravel()])[1:].reshape(there.shape)
    for array in (there[::-1], there[:, ::2], cupy.asfortranarray(there), off_by_8_bytes):
        got = to_host(kernels.and_popcount(array, array))
        np.testing.assert_array_equal(got, kernels.popcount(cupy.asnumpy(array)))


@pytest.mark.parametrize("search", ["beam", "optimal", "mmesh", "cfh", "areas"])
def test_explain_gives_what_the_cpu_gives(search, cupy, data, concepts):
    options = {"search": search, "units": range(3), "progress": False}
    wanted = list(ccx.explain(data.activations, concepts, **options))
    assert list(ccx.explain(cupy.asarray(data.activations), concepts, **options)) == wanted, "it follows the array"
    assert list(ccx.explain(data.activations, concepts, device="cuda", **options)) == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fatbin_loads(family, cupy):
    fatbin = device.fatbin_of(family)
    assert fatbin is not None, "ccx was built without nvcc: CCX_CUDA=ON"
    (name, *_) = re.findall(r"^KERNEL void (\w+)", device.source_of(family), re.MULTILINE)
    too_old = cupy.cuda.runtime.driverGetVersion() < 13_000  # for an nvcc of CUDA 13: then NVRTC compiles
    with suppress(cupy.cuda.driver.CUDADriverError) if too_old else nullcontext():
        cupy.RawModule(path=str(fatbin)).get_function(name)


def test_threads_of_the_host_share_a_gpu(cupy, concepts):
    rows = masks(concepts, 100)
    there, wanted = cupy.asarray(rows), kernels.popcount(rows)
    wrong: list[int] = []

    def count() -> None:
        with cupy.cuda.Stream(non_blocking=True):
            wrong.extend(np.count_nonzero(to_host(kernels.popcount(there)) != wanted) for _ in range(50))

    cupy.cuda.get_current_stream().synchronize()
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 200


def test_several_gpus(cupy, data, concepts):
    """With one GPU, that a second one is refused; with more, that they share a run, and that arrays do not mix."""
    n_gpus = cupy.cuda.runtime.getDeviceCount()
    options = {"progress": False}
    if n_gpus == 1:
        with pytest.raises(BackendError, match="CuPy finds GPU 0 alone"):
            ccx.explain(data.activations, concepts, device="cuda:0,cuda:1", **options)
        return
    both = ccx.explain(data.activations, concepts, device="cuda:0,cuda:1", **options)
    assert list(both) == list(ccx.explain(data.activations, concepts, **options))
    rows = masks(concepts, 5)
    here, there = (device.device(number).upload(rows) for number in (0, 1))
    np.testing.assert_array_equal(to_host(kernels.popcount(there)), kernels.popcount(rows))
    with pytest.raises(BackendError, match="must all be on one GPU"):
        kernels.and_popcount(here, there)
