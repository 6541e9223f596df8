"""Every kernel and whole explanations, on the emulator and, by `nox -s gpu`, on a real GPU.

On a GPU these tests fail, and never skip, where there is none.
"""

from __future__ import annotations

import re
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx import kernels
from ccx.errors import BackendError, CCXError
from ccx.kernels.cuda import device
from ccx.kernels.places import to_host
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator
from tests.support.cuda_emulator.gpu import emulated_cupy, use
from tests.support.denormals import RANGES, some_maps

ROOT = Path(__file__).parents[3]

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
FAMILIES = device.FAMILIES


EMULATED = pytest.param("emulated", marks=pytest.mark.needs("gxx"))
REAL = [
    pytest.param("nvcc", marks=[pytest.mark.gpu, pytest.mark.needs("fatbins")]),
    pytest.param("nvrtc", marks=pytest.mark.gpu),
]
on_a_gpu = pytest.mark.parametrize("compiled", REAL, indirect=True)


@pytest.fixture(scope="module", params=[EMULATED, *REAL])
def compiled(request):
    """Name what compiles the kernels: g++ for the emulator, nvcc when ccx was built, or NVRTC now."""
    return request.param


@pytest.fixture(scope="module")
def gpu(compiled):
    """Use GPU 0, or the emulator in its place."""
    if compiled == "emulated":
        with emulated_cupy():
            yield use(Emulator(64, 2))
        return
    try:
        device.require_cupy("pytest -m gpu")
    except CCXError as error:
        pytest.exit(str(error), returncode=1)
    with pytest.MonkeyPatch.context() as patch:
        if compiled == "nvrtc":
            patch.setattr(device, "fatbin_of", lambda _: None)
        new = device.CupyDevice(0)
        patch.setattr(device, "_cupy_device", lambda _: new)
        yield new


@pytest.fixture(scope="module")
def cupy(compiled, gpu):
    """Return CuPy, or what these tests need of it on the emulator."""
    if compiled != "emulated":
        return device.require_cupy("pytest -m gpu")
    fake = sys.modules["cupy"]
    fake.asarray = gpu.upload
    fake.asfortranarray = lambda array: np.asfortranarray(array.view(np.ndarray)).view(DeviceArray)
    fake.asnumpy = gpu.download
    fake.concatenate = lambda arrays: np.concatenate([array.view(np.ndarray) for array in arrays]).view(DeviceArray)
    fake.zeros = gpu.zeros
    fake.cuda.Stream = lambda **_: nullcontext()
    return fake


@pytest.fixture(scope="module")
def data(compiled):
    """112 × 112 cells, so that blocks share samples, and more samples than a GPU has multiprocessors."""
    return generate(12, 6).reduced(40, 8) if compiled == "emulated" else generate(300, 9)


@pytest.fixture(scope="module")
def concepts(data):
    return data.concepts()


@pytest.fixture(scope="module")
def cases(data, concepts):
    return list(_gpu_cases.cases(data, concepts, min(100, concepts.atoms.n_samples)))


def masks(concepts, n_samples):
    """The packed masks of the concepts in the first samples: uint64[R, n_words]."""
    return kernels.concept_rows(concepts.atoms, np.arange(min(n_samples, concepts.atoms.n_samples))).rows


@pytest.fixture(scope="module")
def small(compiled, data):
    """Data of which whole explanations are soon found on the CPU, too; and its concepts."""
    if compiled == "emulated":
        return np.ascontiguousarray(data.activations[:, :3]), data.concepts()
    less = generate(160, 4).reduced(200, 2)
    return less.activations, less.concepts()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_kernels_give_what_the_cpu_gives(function, gpu, cases):
    found = [case for case in cases if case.name.partition(",")[0] == function]
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


def explained_alike(given, maps, concepts, **options):
    """Explain where activations lie, or `device` says, and in main memory."""
    options = {"units": range(3), "clusters": 3, "progress": False, **options}
    wanted = list(ccx.explain(maps, concepts, **{**options, "device": None}))
    return wanted and list(ccx.explain(given, concepts, **options)) == wanted


@pytest.mark.parametrize("finer", [1, 28])
def test_denormal_cells(finer, gpu, compiled):
    """CuPy has all C++ take them for zeros."""
    finer = min(finer, 3) if compiled == "emulated" else finer
    grid = 3 * finer, 4 * finer
    for dtype in (np.float16, np.float32, np.float64):
        maps = some_maps(50, 3, 4, dtype=dtype)
        there = gpu.upload(maps)
        cells = to_host(kernels.upsample(there, grid))
        np.testing.assert_array_equal(cells.view(np.int32), kernels.upsample(maps, grid).view(np.int32))
        for limits in RANGES:
            wanted = kernels.upsample_pack(maps, grid, limits)
            np.testing.assert_array_equal(to_host(kernels.upsample_pack(there, grid, limits)), wanted)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 1e-41])
def test_explain_in_each_precision(dtype, scale, gpu, small):
    maps, concepts = small
    maps = (maps * scale).astype(dtype)
    assert explained_alike(gpu.upload(maps), maps, concepts)
    assert explained_alike(gpu.upload(maps), maps, concepts, ranges=[(0.0, np.inf), (-np.inf, 0.0), (0.0, scale / 2)])


OPTIONS = {
    "units that seldom fire": {"clusters": 1, "quantile": 1e-4},
    "permutations": {"permutations": 5, "units": [0]},
    "samples to fit": {"fit_samples": range(0, 12, 2), "permutations": 3, "units": [0]},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_explain_with_other_options(options, gpu, small):
    maps, concepts = small
    assert explained_alike(gpu.upload(maps), maps, concepts, **OPTIONS[options])


def test_atoms_numbered_in_32_bits(gpu, data, concepts):
    """Only samples of more than 65,535 atoms have such."""
    wide = replace(concepts.atoms, cell_atoms=concepts.atoms.cell_atoms.astype(np.uint32))
    for case in _gpu_cases._of_activations(data, wide):
        if "histogram" in case.name:
            assert not _gpu_cases.difference(case, case.at(gpu)())


@on_a_gpu
def test_cells_that_do_not_fit_on_the_gpu(cupy, small):
    maps, concepts = small
    fresh = ccx.Concepts(replace(concepts.atoms), concepts.names)  # of which nothing is there yet
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + int(1.5 * fresh.atoms.cell_atoms.nbytes))
    try:
        assert explained_alike(maps, maps, fresh, device="cuda", threads=2)
    finally:
        pool.set_limit(size=0)


@on_a_gpu
@pytest.mark.needs("torch")
def test_tensors_of_torch(cupy, small):
    import torch

    maps, concepts = small
    tensor = torch.from_numpy(np.ascontiguousarray(maps)).cuda()
    for given in (tensor, tensor.clone().requires_grad_(), tensor.transpose(0, 1).contiguous().transpose(0, 1)):
        assert explained_alike(given, maps, concepts, units=[0])
    with torch.cuda.stream(torch.cuda.Stream()):
        late = torch.zeros_like(tensor)
        for _ in range(200):
            late.copy_(tensor)
        assert explained_alike(late, maps, concepts, units=[0])


@on_a_gpu
@pytest.mark.needs("fatbins")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_fatbin_loads(family, cupy):
    fatbin = device.fatbin_of(family)
    (name, *_) = re.findall(r"^KERNEL void (\w+)", device.source_of(family), re.MULTILINE)
    too_old = cupy.cuda.runtime.driverGetVersion() < 13_000  # for an nvcc of CUDA 13: then NVRTC compiles
    with suppress(cupy.cuda.driver.CUDADriverError) if too_old else nullcontext():
        cupy.RawModule(path=str(fatbin)).get_function(name)


@on_a_gpu
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
