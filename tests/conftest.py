"""Hypothesis profiles, optional libraries and the parity cases, for all tests."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("push", max_examples=100, derandomize=True, **_COMMON)
settings.register_profile("quick", max_examples=20, derandomize=True, **_COMMON)
settings.register_profile("nightly", max_examples=10_000, **_COMMON)
settings.load_profile(os.environ.get("CCX_HYPOTHESIS", "push"))

_IMPORT_NAMES = {
    "logic": "pyeda",
    "pandas": "pandas",
    "sklearn": "sklearn",
    "torch": "torch",
    "kmeans1d": "kmeans1d",
    "versus": "compositional_explanations",
}
_REQUIRED = set(filter(None, os.environ.get("CCX_REQUIRE", "").split(",")))


def pytest_configure(config: pytest.Config) -> None:
    unknown = _REQUIRED - set(_IMPORT_NAMES)
    if unknown:
        raise pytest.UsageError(f"CCX_REQUIRE names unknown libraries: {sorted(unknown)}")
    missing = sorted(name for name in _REQUIRED if importlib.util.find_spec(_IMPORT_NAMES[name]) is None)
    if missing:
        raise pytest.UsageError(f"CCX_REQUIRE asks for libraries that are not installed: {missing}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("needs"):
            (name,) = mark.args
            if importlib.util.find_spec(_IMPORT_NAMES[name]) is None:
                item.add_marker(pytest.mark.skip(reason=f"{name} is not installed"))
        if item.get_closest_marker("nightly") and os.environ.get("CCX_HYPOTHESIS") != "nightly":
            item.add_marker(pytest.mark.skip(reason="long profile: nox -s nightly"))
