"""Checkpoint files as the Places365 project published them, and hostile ones. Imports torch: inside tests."""

from __future__ import annotations

import io
import os
import pickle
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, ResNet


def small_resnet(n_classes: int = 5) -> ResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=n_classes)


def small_densenet() -> DenseNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DenseNet(4, (2, 2), 8, num_classes=5)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return model


def training_state(model: torch.nn.Module, arch: str = "resnet18") -> dict[str, Any]:
    """Return what the training script saved: a state dict of a model in a DataParallel, and more."""
    prefixed = OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items())
    return {"epoch": 90, "arch": arch, "state_dict": prefixed, "best_prec1": torch.tensor(54.2)}


def rename_as_of_old(model: DenseNet) -> DenseNet:
    """Give a densenet's layers the names that they had when names could hold dots."""
    for module in list(model.modules()):
        if type(module).__name__ == "_DenseLayer":
            for name in ("norm1", "relu1", "conv1", "norm2", "relu2", "conv2"):
                module._modules[f"{name[:-1]}.{name[-1]}"] = module._modules.pop(name)
    return model


class _Python2Pickler(pickle._Pickler):
    """Writes texts as Python 2 did: as strings of bytes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, text: str) -> None:
        content = text.encode("latin-1")
        assert len(content) < 256
        self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        self.memoize(text)

    dispatch[str] = save_str


def python2_pickle() -> types.ModuleType:
    """Return a stand-in for the module ``pickle`` that writes as Python 2 did."""
    module = types.ModuleType("pickle_of_python_2")
    module.Pickler = _Python2Pickler

    def dump(value: Any, file: Any, protocol: int) -> None:
        _Python2Pickler(file, protocol=protocol).dump(value)

    module.dump = dump
    return module


def save(value: Any, path: Path, kind: str) -> None:
    """Write a file as torch does now ("zip"), did before 1.6 ("legacy"), or did under Python 2 ("python2")."""
    options: dict[str, Any] = {"_use_new_zipfile_serialization": kind == "zip"}
    if kind == "python2":
        options["pickle_module"] = python2_pickle()
    torch.save(value, path, **options)


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class SetsState:
    """Pickles to an object whose state a pickle would set."""

    def __init__(self, path: str) -> None:
        self.path = path


def hostile_values(marker: Path) -> dict[str, Any]:
    """Return values whose pickles leave a mark when they are run."""
    command = f"touch {marker}"
    return {
        "system": Calls(os.system, command),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "in a state dict": {"state_dict": {"module.weight": Calls(os.system, command)}},
        "beside a state dict": {"state_dict": small_resnet().state_dict(), "arch": Calls(os.system, command)},
        "as an attribute of a model": _with_attribute(Calls(os.system, command)),
        "import": Calls(__import__, "antigravity"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
    }


def _with_attribute(value: Any) -> DenseNet:
    model = small_densenet()
    model.note = value
    return model


def repack(path: Path, program: bytes) -> None:
    """Put another pickle into a zip archive of torch."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)
    path.write_bytes(buffer.getvalue())
