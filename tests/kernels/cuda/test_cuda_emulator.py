"""The emulator sees what it must: every mistake of plants.cuh, under the build that looks for its kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.cuda_emulator.emulator import Emulator, KernelError, RawModule, sanitized_environment

pytestmark = pytest.mark.needs("gxx")

ROOT = Path(__file__).parents[3]
PLANTS = ROOT / "tests" / "support" / "cuda_emulator" / "plants.cuh"
OVERFLOW, RACE = "AddressSanitizer: heap-buffer-overflow", "ThreadSanitizer: data race"
SANITIZED = [
    ("asan", "global_out_of_bounds", OVERFLOW),
    ("asan", "static_shared_out_of_bounds", "runtime error: index 64 out of bounds"),
    ("asan", "dynamic_shared_out_of_bounds", OVERFLOW),
    ("asan", "misaligned_load", "to misaligned address"),
    ("tsan", "missing_barrier", RACE),
    ("tsan", "missing_second_barrier", RACE),
    ("tsan", "missing_warp_barrier", RACE),
    ("tsan", "blocks_add_without_atomics", RACE),
]
REFUSED = [
    ("divergent_barrier", "deadlock: thread"),
    ("mismatched_warp_calls", "waits in __"),
    ("mask_without_the_caller", "without itself"),
    ("different_masks", "masks differ"),
    ("too_much_shared", "49152 bytes of static and 256 of dynamic shared memory"),
]


def run(build, kernel, *args, seed=0):
    environment = {**os.environ, "CCX_EMULATOR_BUILD": "plain"} if build == "plain" else sanitized_environment(build)
    return subprocess.run(
        [sys.executable, "-m", "tests.support.cuda_emulator.run_plant", kernel, *args],
        env=environment | {"EMU_SEED": str(seed)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def line_of_the_bug(kernel):
    lines = PLANTS.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if f"void {kernel}(" in line)
    return next(i for i in range(start, len(lines)) if lines[i].endswith("// bug")) + 1


@pytest.mark.parametrize(("build", "kernel", "report"), SANITIZED)
def test_sanitizers_name_the_line(build, kernel, report):
    done = run(build, kernel)
    assert done.returncode != 0
    assert report in done.stderr
    assert f"plants.cuh:{line_of_the_bug(kernel)}" in done.stderr


@pytest.mark.parametrize(("kernel", "message"), REFUSED)
@pytest.mark.parametrize("seed", [0, 3])
def test_the_emulator_refuses(kernel, message, seed):
    done = run("plain", kernel, seed=seed)
    assert done.returncode == 1
    assert f"KernelError: {kernel}: " in done.stderr
    assert message in done.stderr
    assert "[block " in done.stderr


def test_uninitialised_shared_memory_is_rubbish():
    assert run("plain", "uninitialised_shared").stdout.startswith(f"wrote [{0xCDCDCDCD}, 0, 0,")


@pytest.mark.parametrize("build", ["plain", "asan", "tsan"])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_sound_kernel_passes(build, seed):
    done = run(build, "sound", seed=seed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote [256, 0,")


@pytest.mark.parametrize("seed", [0, 7])
def test_warp_calls(seed):
    expected = [11] * 4 + [10] * 12 + [9] * 16
    assert run("plain", "warp_calls", seed=seed).stdout == f"wrote {[*expected, 11]}\n"


@pytest.fixture(scope="module")
def increment():
    body = "atomicAdd(out + blockIdx.y * blockDim.y + threadIdx.y, int(by));"
    code = f"KERNEL void increment(int* out, long long by) {{ {body} }}"
    return RawModule(code, "plain").get_function("increment")


def test_launches_in_several_dimensions(increment):
    out = Emulator().zeros((6,), np.int32)
    increment((5, 2), (4, 3), (out, np.int64(2)))
    assert out.tolist() == [40] * 6


def test_arguments_are_checked(increment):
    out = Emulator().zeros((1,), np.int32)
    with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
        increment((1,), (1,), (out,))
    with pytest.raises(TypeError, match="argument 0 must be an array of the device, got ndarray"):
        increment((1,), (1,), (np.zeros(1, np.int32), np.int64(1)))
    with pytest.raises(TypeError, match="argument 1 must be a NumPy scalar of 8 bytes, got int32"):
        increment((1,), (1,), (out, np.int32(1)))
    with pytest.raises(TypeError, match="argument 1 must be a NumPy scalar of 8 bytes, got int"):
        increment((1,), (1,), (out, 1))


@pytest.mark.parametrize(
    ("grid", "block", "shared_mem"),
    [((0,), (32,), 0), ((1, 65536), (32,), 0), ((1,), (0,), 0), ((1,), (1056,), 0), ((1,), (32,), 48 * 1024 + 1)],
)
def test_launches_that_no_gpu_takes_are_refused(increment, grid, block, shared_mem):
    with pytest.raises(KernelError, match="no GPU takes"):
        increment(grid, block, (Emulator().zeros((1,), np.int32), np.int64(1)), shared_mem=shared_mem)


def test_host_code_cannot_compute_on_arrays_of_the_device():
    array = Emulator().zeros((3,), np.int64)
    with pytest.raises(TypeError, match=r"numpy\.add on an array of the device"):
        array + 1
    with pytest.raises(TypeError, match=r"numpy\.sort on an array of the device"):
        np.sort(array)


def test_a_kernel_that_does_not_compile_is_reported():
    with pytest.raises(RuntimeError, match=r"plant:1:.*error"):
        RawModule('#line 1 "plant"\nKERNEL void broken(int* out) { nonsense; }', "plain")


@pytest.mark.nightly  # half of what all other tests take together
@pytest.mark.parametrize("build", ["asan", "tsan"])
def test_the_kernels_of_ccx_are_clean(build):
    """Run their tests once more, on kernels built with the sanitizers."""
    others = {Path(__file__).name, "test_cuda_compile.py"}
    files = [str(path) for path in sorted(Path(__file__).parent.glob("test_cuda_*.py")) if path.name not in others]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        env=sanitized_environment(build) | {"CCX_HYPOTHESIS": "quick"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "skipped" not in done.stdout
