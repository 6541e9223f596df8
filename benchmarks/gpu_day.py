"""The steps of gpu_day.sh; each is a process of its own, which prints what it finds.

    python benchmarks/gpu_day.py STEP

Between steps data lie in the folder $DATA. Sizes: CCX_DAY_SAMPLES and CCX_DAY_UNITS (22,000 and 512). With
CCX_DAY_EMULATED=1 the tests' emulator stands in for the GPU, so that this file is tried where there is none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script

import ccx
from benchmarks import _gpu_cases
from benchmarks import gpu as bench
from benchmarks.synthetic import Synthetic, generate
from ccx import kernels
from ccx.kernels.cuda import device
from ccx.kernels.places import to_host

EMULATED = os.environ.get("CCX_DAY_EMULATED") == "1"
N = int(os.environ.get("CCX_DAY_SAMPLES", "22000"))
U = int(os.environ.get("CCX_DAY_UNITS", "512"))
DATA = Path(os.environ.get("DATA", Path(tempfile.gettempdir()) / "ccx-gpu-day"))
LAYER: dict[str, Any] = {"clusters": bench.CLUSTERS, "length": bench.LENGTH, "beam": bench.BEAM, "progress": False}
BEGAN = time.perf_counter()


def log(*what: Any) -> None:
    """Print with the seconds since this process began."""
    print(f"[{time.perf_counter() - BEGAN:6.1f} s]", *what, flush=True)


def guarded(name: str, call: Callable[[], Any]) -> None:
    """Run a check; print what it returns or raises, and go on: one failure must not cost the rest."""
    began = time.perf_counter()
    try:
        said = call()
    except Exception as error:
        log(f"FAILED {name}: {type(error).__name__}: {error}")
        traceback.print_exc(limit=-3, file=sys.stdout)
        return
    log(f"ok {name} ({time.perf_counter() - began:.2f} s){'' if said is None else f': {said}'}")


def gpu_and_clock() -> tuple[Any, Any, Any]:
    """Return CuPy, GPU 0, and a clock."""
    if EMULATED:
        from tests.support.cuda_emulator.emulator import Emulator
        from tests.support.cuda_emulator.gpu import HostClock, emulated_cupy, use

        EMULATION.append(emulated_cupy())
        EMULATION[0].__enter__()  # for as long as this process lives
        return sys.modules["cupy"], use(Emulator(64, 2)), HostClock()
    cupy = device.require_cupy("benchmarks/gpu_day.py")
    return cupy, device.device(0), bench.Events(cupy)


EMULATION: list[Any] = []


# ---- Beside the GPU --------------------------------------------------------------------------------------------------


def fatbins() -> None:
    """Compile all families by nvcc for this machine's GPU alone, where ccx looks for them."""

    def compiled(family: str) -> str:
        target = device.fatbin_path(family)
        began = time.perf_counter()
        command = ["nvcc", "-fatbin", "-O3", "-std=c++17", "-arch=native", "-lineinfo", "-x", "cu"]
        command += ["-include", str(target.with_name("common.cuh")), str(target.with_name(f"{family}.cuh"))]
        done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=False)
        return f"{family}: rc={done.returncode}, {time.perf_counter() - began:.1f} s {done.stderr[-300:]}"

    with ThreadPoolExecutor(4) as pool:
        for said in pool.map(compiled, device.FAMILIES):
            log("nvcc", said)


def warm() -> None:
    """Have numba compile what the CPU's results come from, into the cache that all steps share."""
    data = generate(6, 3).reduced(30, 4)
    concepts = data.concepts()
    for case in _gpu_cases.cases(data, concepts, 4):
        case.function(**case.arrays)
    log("cases")
    for search in ("beam", "optimal", "mmesh", "cfh", "areas"):
        options = {"search": search, "clusters": 2, "units": [0], "progress": False}
        ccx.explain(data.activations, concepts, **options)
        log(search)
    ccx.explain(
        data.activations, concepts, permutations=3, fit_samples=[0, 1, 2], units=[0], clusters=2, progress=False
    )


def prepare() -> None:
    """Draw the layer, build its concepts, and keep both."""
    DATA.mkdir(parents=True, exist_ok=True)
    if (DATA / "ready").exists():
        return
    data = generate(N, U)
    log("generated", data.activations.shape)
    concepts = data.concepts()
    log(f"concepts: {concepts.atoms.n_atoms:,} atoms")
    concepts.save(DATA / "concepts.safetensors")
    np.save(DATA / "activations.npy", data.activations)
    (DATA / "ready").touch()
    log("kept")


def prepared(*, whole: bool = False) -> tuple[Synthetic, ccx.Concepts]:
    """Return the layer (without its labels, and read as it is used, or at once) and its concepts."""
    maps = np.load(DATA / "activations.npy", mmap_mode=None if whole else "r")
    concepts = ccx.Concepts.load(DATA / "concepts.safetensors", verify=False)
    concepts.prepare()
    log("loaded", maps.shape)
    return Synthetic(np.empty((0, 5, 112, 112), np.int16), maps, [], []), concepts


# ---- Sanity ----------------------------------------------------------------------------------------------------------


def sanity() -> None:
    """Check floats against the CPU's, and time compiling and each call of CuPy."""
    cupy, gpu, clock = gpu_and_clock()
    log("cupy", getattr(cupy, "__version__", "-"), "numpy", np.__version__, "python", sys.version.split()[0])
    for compiler in ("NVRTC", "nvcc"):
        if not EMULATED:
            gpu = device.CupyDevice(0)
            device._cupy_device = lambda _number, gpu=gpu: gpu
        with patched(device, "fatbin_of", (lambda _family: None) if compiler == "NVRTC" else device.fatbin_of):
            guarded(f"all families by {compiler}", partial(compiled_all, gpu))
            for limits in ((0.0, np.inf), (-1.0, 0.0), (1e-40, 1e-3), (0.2, 0.4)):
                guarded(f"cells in {limits} by {compiler}", partial(cells_alike, gpu, limits))

    n = 3 if EMULATED else 3000
    few, there, big = (
        np.arange(10),
        gpu.zeros((1200,), np.int64),
        np.zeros((1 << 10 if EMULATED else 1 << 25), np.float32),
    )
    args, big_there = (there, gpu.zeros((1,), np.int64), np.int64(1), np.int64(1)), gpu.upload(big)
    rate = partial(bench.copy_rate, gpu, clock, 1 << (12 if EMULATED else 31))
    guarded("launch of a small kernel", lambda: each(gpu, lambda: gpu.kernel("rows", "popcount")((1,), (32,), args), n))
    guarded("upload of 80 bytes", lambda: each(gpu, lambda: gpu.upload(few), n))
    guarded("zeros of 9.6 kB", lambda: each(gpu, lambda: gpu.zeros((1200,), np.int64), n))
    guarded("download of 9.6 kB, with its wait", lambda: each(gpu, lambda: gpu.download(there), n))
    guarded(f"upload of {big.nbytes:,} bytes", lambda: each(gpu, lambda: gpu.upload(big), 3))
    guarded(f"download of {big.nbytes:,} bytes", lambda: each(gpu, lambda: gpu.download(big_there), 3))
    guarded("copy on the device", lambda: f"{rate() / 1e12:.2f} TB/s read and written")


@contextmanager
def patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def compiled_all(gpu: Any) -> str:
    """Return the seconds that each family takes."""
    said = []
    for family in device.FAMILIES:
        (name, *_) = re.findall(r"^KERNEL void (\w+)", device.source_of(family), re.MULTILINE)
        began = time.perf_counter()
        gpu.kernel(family, name)
        said.append(f"{family} {time.perf_counter() - began:.2f}")
    return ", ".join(said)


def cells_alike(gpu: Any, limits: tuple[float, float]) -> None:
    """Raise unless the cells in a range, of values of all magnitudes, are the CPU's."""
    rng, shape, grid = np.random.default_rng(0), (2 if EMULATED else 64, 7, 7), (112, 112)
    values = rng.random(shape) * rng.choice([1, 1e-39, 1e-44], shape)
    maps = np.where(rng.random(shape) < 0.7, 0, values).astype(np.float32)
    got = to_host(kernels.upsample_pack(gpu.upload(maps), grid, limits))
    wrong = int(np.bitwise_count(got ^ kernels.upsample_pack(maps, grid, limits)).sum())
    if wrong:
        msg = f"{wrong} of {shape[0] * 112 * 112} cells differ"
        raise AssertionError(msg)


def each(gpu: Any, call: Callable[[], Any], n: int) -> str:
    """Call `n` times -> what a call takes."""
    call()
    gpu.synchronize()
    began = time.perf_counter()
    for _ in range(n):
        call()
    gpu.synchronize()
    return f"{(time.perf_counter() - began) / n * 1e6:.1f} us a call"


# ---- Memory and races ------------------------------------------------------------------------------------------------


def small() -> None:
    """Run every kernel once or so, on little data: for compute-sanitizer. Each array is an allocation of its own."""
    cupy, gpu, _ = gpu_and_clock()
    if not EMULATED:
        cupy.cuda.set_allocator(None)
    data = generate(6, 3).reduced(30, 4)
    concepts = data.concepts()

    def check(case: _gpu_cases.Case) -> None:
        wrong = _gpu_cases.difference(case, case.at(gpu)())
        if wrong:
            raise AssertionError(wrong)

    for case in _gpu_cases.cases(data, concepts, 4):
        guarded(case.name, partial(check, case))
    there = gpu.upload(data.activations)
    for search in ("beam", "optimal", "mmesh"):
        options = {"search": search, "clusters": 2, "units": [0], "progress": False, "threads": 1}
        guarded(search, lambda options=options: f"{len(ccx.explain(there, concepts, **options))} rows")
    wide = replace(concepts.atoms, cell_atoms=concepts.atoms.cell_atoms.astype(np.uint32))
    for case in _gpu_cases._of_activations(data, wide):
        if "histogram" in case.name:
            guarded(f"{case.name}, atoms in 32 bits", partial(check, case))


# ---- Speed -----------------------------------------------------------------------------------------------------------


def table() -> None:
    """Print the table of benchmarks/gpu.py, a row at a time."""
    _, gpu, clock = gpu_and_clock()
    data, concepts = prepared()
    few = Synthetic(data.labels, np.ascontiguousarray(data.activations[:, : bench.CASE_UNITS]), [], [])
    bench.ROUNDS = 2 if EMULATED else 10
    print(*bench.TABLE, sep="\n", flush=True)
    some = _gpu_cases.cases(few, concepts, min(N, bench.MASK_SAMPLES))
    for one in bench.time_cases(some, gpu, clock, 1 << (14 if EMULATED else 30)):
        print(bench.row_of(one), flush=True)


def layer() -> None:
    """Time a layer by the number of threads, after a check against the CPU; its kernels; and Python's functions."""
    import cProfile
    import pstats

    _, gpu, clock = gpu_and_clock()
    data, concepts = prepared(whole=True)
    there = brought(gpu, data)
    some = range(min(bench.CHECKED_UNITS, U))
    began = time.perf_counter()
    found = list(ccx.explain(there, concepts, units=some, **LAYER))
    log(f"{len(some)} units, with atoms and modules: {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    wanted = list(ccx.explain(data.activations, concepts, units=some, **LAYER))
    log(
        f"{len(some)} units on the CPU: {time.perf_counter() - began:.2f} s, {'equal' if found == wanted else 'FAILED'}"
    )
    for threads in (None, 4, 1):
        wall_clock(there, concepts, threads, range(U if threads != 1 else min(64, U)))
    with bench.launches(gpu, clock) as seconds:
        ccx.explain(there, concepts, **LAYER)
    print(bench.Layer(U, 0.0, dict(seconds)).markdown().partition("\n")[2])
    profiler = cProfile.Profile(time.thread_time)
    profiler.runcall(ccx.explain, there, concepts, threads=1, units=range(min(24, U)), **LAYER)
    pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(28)


def streams() -> None:
    """Time a layer alone: for CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1, by which threads do not share a stream."""
    _, gpu, _ = gpu_and_clock()
    data, concepts = prepared(whole=True)
    there = brought(gpu, data)
    ccx.explain(there, concepts, units=range(min(16, U)), **LAYER)
    wall_clock(there, concepts, None, range(U))


def brought(gpu: Any, data: Synthetic) -> Any:
    """Return the activations on the GPU."""
    began = time.perf_counter()
    there = gpu.upload(data.activations)
    gpu.synchronize()
    log(f"activations brought over in {time.perf_counter() - began:.2f} s")
    return there


def wall_clock(there: Any, concepts: ccx.Concepts, threads: int | None, units: range) -> None:
    """Explain units without marks in the stream, and print the time."""
    began, cpu = time.perf_counter(), time.process_time()
    ccx.explain(there, concepts, threads=threads, units=units, **LAYER)
    wall, busy = time.perf_counter() - began, time.process_time() - cpu
    log(f"WALL {len(units)} units, threads={threads}: {wall:.2f} s, processors busy {busy:.2f} s")


def profile() -> None:
    """Run the kernels that cost most, each once, at full size: under ncu."""
    _, gpu, _ = gpu_and_clock()
    data, concepts = prepared()
    few = np.ascontiguousarray(data.activations[:, :8])
    ranges = np.stack([ccx.clustering.unit_ranges(few[:, i], clusters=5) for i in range(few.shape[1])])
    atoms = concepts.atoms.at(gpu)
    counts = kernels.range_histogram(gpu.upload(few), ranges, atoms)
    one = counts[0, 4]
    kernels.formula_counts(atoms, one[None], np.zeros((1, 1), np.int32), np.zeros((1, 0), np.uint8))
    heads = np.argsort(-concepts.sizes)[:10].astype(np.int32)
    kernels.conjunction_counts(atoms, one[None], heads[:, None], np.zeros((10, 0), np.uint8))
    formulas = np.stack([heads[:5], heads[5:]], axis=1)
    both = gpu.empty((2, atoms.n_atoms), np.int64)
    gpu.copy(atoms.cells, both[0])
    gpu.copy(one, both[1])
    kernels.conjunction_counts(atoms, both, formulas, np.ones((5, 1), np.uint8))
    rows = kernels.concept_rows(concepts.atoms, np.arange(min(N, 2000))).rows
    there = gpu.upload(rows)
    kernels.inscribed_rectangles(there, concepts.shape)
    kernels.intersection_counts(there[:2048], there[2048:4096])
    gpu.synchronize()


STEPS = (fatbins, warm, prepare, sanity, small, table, layer, streams, profile)

if __name__ == "__main__":
    {step.__name__: step for step in STEPS}[sys.argv[1]]()
