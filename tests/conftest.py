"""Hypothesis profiles, optional libraries and the parity cases, for all tests."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.support import cuda_compilers
from tests.support.servers import server  # noqa: F401 - a fixture of several tests

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("push", max_examples=100, derandomize=True, **_COMMON)
settings.register_profile("quick", max_examples=20, derandomize=True, **_COMMON)
settings.register_profile("nightly", max_examples=10_000, **_COMMON)
settings.load_profile(os.environ.get("CCX_HYPOTHESIS", "push"))

_IMPORT_NAMES = {
    "coco": "pycocotools",
    "h5py": "h5py",
    "logic": "pyeda",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "pyarrow": "pyarrow",
    "selenium": "selenium",
    "sklearn": "sklearn",
    "torch": "torch",
    "torchvision": "torchvision",
    "kmeans1d": "kmeans1d",
    "versus": "compositional_explanations",
    "zarr": "zarr",
}
# What is no library: g++ builds the CUDA emulator, which switches its fibers in x86-64 assembly; nvcc and NVRTC come
# from the dependency group cuda-compilers, not from the machine.
_TOOLS = {
    "gxx": platform.machine() == "x86_64" and shutil.which("g++") is not None,
    "chromium": shutil.which("chromedriver") is not None,
    "nvcc": cuda_compilers.BIN is not None,
    "nvrtc": cuda_compilers.has_nvrtc(),
    "fatbins": cuda_compilers.has_fatbins(),  # the kernels as nvcc compiles them: of a build with CCX_CUDA=ON
}
_REQUIRED = set(filter(None, os.environ.get("CCX_REQUIRE", "").split(",")))


def _is_there(name: str) -> bool:
    return _TOOLS[name] if name in _TOOLS else importlib.util.find_spec(_IMPORT_NAMES[name]) is not None


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background: its children would ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    unknown = _REQUIRED - {*_IMPORT_NAMES, *_TOOLS}
    if unknown:
        raise pytest.UsageError(f"CCX_REQUIRE names unknown libraries or tools: {sorted(unknown)}")
    missing = sorted(name for name in _REQUIRED if not _is_there(name))
    if missing:
        raise pytest.UsageError(f"CCX_REQUIRE asks for libraries or tools that are not installed: {missing}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("needs"):
            (name,) = mark.args
            if not _is_there(name):
                item.add_marker(pytest.mark.skip(reason=f"{name} is not installed"))
        if item.get_closest_marker("nightly") and os.environ.get("CCX_HYPOTHESIS") != "nightly":
            item.add_marker(pytest.mark.skip(reason="long profile: nox -s nightly"))
