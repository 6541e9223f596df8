"""Both backends satisfy the Protocol: the same functions, by the same signatures."""

from __future__ import annotations

import importlib
import inspect
from typing import get_args

import pytest

from ccx.kernels import backend

FAMILIES = {
    name: get_args(family.__orig_class__)[0]
    for name, family in vars(backend.Backend).items()
    if hasattr(family, "__orig_class__")
}


def functions_of(protocol: type) -> dict[str, inspect.Signature]:
    found = {name: inspect.signature(value) for name, value in vars(protocol).items() if inspect.isfunction(value)}
    without_self = {
        name: signature.replace(parameters=list(signature.parameters.values())[1:]) for name, signature in found.items()
    }
    return {name: signature for name, signature in without_self.items() if not name.startswith("_")}


@pytest.mark.parametrize("package", ["cpu", "cuda"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_satisfies_the_protocol(family, package):
    wanted = functions_of(FAMILIES[family])
    module = importlib.import_module(f"ccx.kernels.{package}.{family}")
    got = {name: inspect.signature(getattr(module, name)) for name in wanted if hasattr(module, name)}
    assert wanted
    assert got == wanted


def test_the_families_are_known():
    assert set(FAMILIES) == {"rows", "shapes", "activations", "atoms", "formulas", "estimates", "permutations"}
    for name in FAMILIES:
        assert getattr(backend.CPU, name) is importlib.import_module(f"ccx.kernels.cpu.{name}")
        assert getattr(backend.CUDA, name) is importlib.import_module(f"ccx.kernels.cuda.{name}")
    with pytest.raises(AttributeError, match="nonsense"):
        backend.CPU.nonsense  # noqa: B018
