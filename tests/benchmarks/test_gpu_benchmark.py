"""The benchmark and the tests for a real GPU, run on the emulator, so that they do not rot while there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ccx import kernels
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator
from tests.support.cuda_emulator.gpu import HostClock, emulated_cupy, use

ROOT = Path(__file__).parents[2]

if not (ROOT / "benchmarks" / "gpu.py").exists():
    pytest.skip("the benchmarks lie in the checkout, and these tests run without it", allow_module_level=True)

sys.path.append(str(ROOT))  # behind everything else: ccx itself may be installed
try:
    from benchmarks import _gpu_cases, gpu, gpu_roofline
    from benchmarks.synthetic import generate
finally:
    sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def data():
    return generate(12, 6).reduced(40, 8)


@pytest.fixture
def emulator():
    with emulated_cupy():
        yield use(Emulator(64, 2))


def test_every_public_function_has_a_case_or_runs_on_the_host(data):
    functions = {name for name in kernels.__all__ if not isinstance(getattr(kernels, name), type)}
    timed = {case.name.partition(",")[0] for case in _gpu_cases.cases(data, data.concepts(), 5)}
    assert timed == functions - _gpu_cases.HOST_ONLY


@pytest.mark.needs("gxx")
def test_the_report_has_every_kernel_and_the_layer(data, emulator, monkeypatch):
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    monkeypatch.setattr(gpu, "MASK_SAMPLES", 5)
    *_, report = gpu.measure(data, emulator, HostClock(), {"GPU": "none, an emulator"}, copy_bytes=1 << 16)
    assert not report.failed
    assert [one.case.name for one in report.kernels] == [
        case.name for case in _gpu_cases.cases(data, data.concepts(), 5)
    ]
    assert all(0 < one.least <= one.median and one.copied > 0 for one in report.kernels)
    assert {"range_histogram_u16", "conjunction_counts"} <= set(report.layer.launches)
    assert 0 < report.layer.kernels <= report.layer.wall
    page = report.markdown()
    assert "- GPU: none, an emulator" in page
    assert "A layer of 6 units × 5 ranges" in page
    assert all(f"| `{one.case.name}` |" in page for one in report.kernels)
    assert "kernel" not in vars(emulator), "the marks are gone"


@pytest.mark.needs("gxx")
def test_a_wrong_kernel_is_not_timed(data, emulator):
    case = next(case for case in _gpu_cases.cases(data, data.concepts(), 5) if case.name == "popcount")
    wrong = case._replace(function=popcount_plus_one)
    with pytest.raises(RuntimeError, match=r"popcount_plus_one: .* differ from the CPU's"):
        gpu.time_case(wrong, emulator, HostClock(), 1 << 16)


@pytest.mark.needs("gxx")
def test_a_wrong_kernel_does_not_cost_the_rest(data, emulator, monkeypatch):
    right = next(case for case in _gpu_cases.cases(data, data.concepts(), 5) if case.name == "popcount")
    monkeypatch.setattr(gpu, "cases", lambda *_: [right._replace(function=popcount_plus_one), right])
    monkeypatch.setattr(gpu, "time_layer", lambda *_: 1 / 0)
    *_, report = gpu.measure(data, emulator, HostClock(), {}, copy_bytes=1 << 12)
    page = report.markdown()
    assert report.failed
    assert "| `popcount_plus_one` | **FAILED** RuntimeError: popcount_plus_one: " in page
    assert "| `popcount` | " in page
    assert "The layer **failed**: division by zero" in page


def popcount_plus_one(rows):
    """Count right on the CPU alone."""
    counts = kernels.popcount(rows)
    if isinstance(counts, DeviceArray):
        counts.view(np.ndarray)[...] += 1
    return counts


def test_without_a_gpu_the_benchmark_fails_and_says_why():
    script = [sys.executable, "-c", "import sys; sys.modules['cupy'] = None; import runpy; sys.argv = ['gpu.py']; "]
    script[-1] += f"runpy.run_path({str(ROOT / 'benchmarks' / 'gpu.py')!r}, run_name='__main__')"
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "benchmarks/gpu.py needs CuPy" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_shows_what_the_roofline_reckons():
    assert gpu_roofline.table() in (ROOT / "docs" / "gpu.md").read_text()
