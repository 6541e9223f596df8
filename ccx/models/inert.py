"""Whole pickled models, read as data: a pickle's instructions are interpreted, and nothing that they name is run.

A pickle is a program for a small stack machine. Instructions that build numbers, texts, lists and mappings are carried
out; those that would import, call, or set the state of something only note its name, its arguments and its state. Names
that are on no list are refused all the same, so that a file which tries to run code is told from one with weights.

Two containers are read: the zip archive that ``torch.save`` writes, and the stream of pickles and storages that it
wrote before torch 1.6 (now ``_use_new_zipfile_serialization=False``). In the latter, whole models refer to their
classes in a way that ``torch.load(weights_only=True)`` does not read, whatever it is allowed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ccx.store import PathLike

if TYPE_CHECKING:
    import torch

_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAX_DEPTH = 50  # of modules within modules
_DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.LongStorage": "int64",
}
_MODULES = {
    "torch.nn.modules": (
        "activation.ReLU",
        "batchnorm.BatchNorm2d",
        "container.Sequential",
        "conv.Conv2d",
        "dropout.Dropout",
        "linear.Linear",
        "pooling.AdaptiveAvgPool2d",
        "pooling.AvgPool2d",
        "pooling.MaxPool2d",
    ),
    "torch.nn.parallel": ("data_parallel.DataParallel",),
    "torchvision.models": (
        "alexnet.AlexNet",
        "densenet.DenseNet",
        "densenet._DenseBlock",
        "densenet._DenseLayer",
        "densenet._Transition",
        "resnet.BasicBlock",
        "resnet.Bottleneck",
        "resnet.ResNet",
        "vgg.VGG",
    ),
}
_MODULE_NAMES = frozenset(f"{package}.{name}" for package, names in _MODULES.items() for name in names)
_REBUILT = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
_PARAMETERS = frozenset({"torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"})
_OTHERS = frozenset(
    {
        "__builtin__.set",
        "builtins.set",
        "collections.OrderedDict",
        "torch.nn.backends.thnn._get_thnn_function_backend",  # every module had one, before torch 1.2
    }
)
_ALLOWED = _MODULE_NAMES | _REBUILT | _PARAMETERS | _OTHERS | _DTYPES.keys()
_CONSTANTS = frozenset(
    {
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
        *("SHORT_BINBYTES", "BINBYTES", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "LONG4"),
    }
)


class NotAllowedError(ValueError):
    """A name that no checkpoint has need of."""


@dataclass(eq=False)
class _Name:
    """What a pickle would import."""

    path: str


@dataclass(eq=False)
class _Made:
    """What a pickle would make: of which name, from what, and in which state."""

    path: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class _Storage:
    """A reference to numbers outside the pickle."""

    kind: str
    key: str
    n_items: int


@dataclass
class _Machine:
    """The stack machine between two instructions."""

    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, _Storage] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items


def read_whole_model(path: PathLike) -> dict[str, torch.Tensor]:
    """Read the parameters and buffers of a whole pickled model -> name -> tensor.

    Raises
    ------
    NotAllowedError
        If the file names anything that is not on the list.
    ValueError, OSError
        If the file is damaged, or none of a model.

    """
    damage = (
        *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError),
        zipfile.BadZipFile,
    )
    with Path(path).open("rb") as file:
        try:
            root, storages = (_read_archive if zipfile.is_zipfile(file) else _read_stream)(file)
            if not isinstance(root, _Made) or root.path not in _MODULE_NAMES:
                raise ValueError("it holds no model")
            return dict(_tensors(root, "", storages, 0))
        except damage as error:
            msg = f"damaged: {error!r:.200}"
            raise ValueError(msg) from error


def _read_archive(file: IO[bytes]) -> tuple[Any, dict[str, torch.Tensor]]:
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as stream:
            root, storages = _interpret(stream)
        folder = name.removesuffix("data.pkl")
        return root, {one.key: _numbers(one, archive.read(f"{folder}data/{one.key}")) for one in storages.values()}


def _read_stream(file: IO[bytes]) -> tuple[Any, dict[str, torch.Tensor]]:
    file.seek(0)
    if _interpret(file)[0] != _LEGACY_MAGIC or _interpret(file)[0] != _LEGACY_VERSION:
        raise ValueError("no file of torch.save")
    _interpret(file)  # of the machine that wrote it: its sizes and order of bytes
    root, storages = _interpret(file)
    numbers = {}
    for key in _interpret(file)[0]:
        n_items = int.from_bytes(file.read(8), "little")
        if n_items != storages[key].n_items:
            raise ValueError("the size of a storage is not the one announced")
        numbers[key] = _numbers(storages[key], file.read(n_items * _dtype(storages[key].kind).itemsize))
    return root, numbers


def _numbers(storage: _Storage, content: bytes) -> torch.Tensor:
    import torch

    dtype = _dtype(storage.kind)
    if len(content) != storage.n_items * dtype.itemsize:
        raise ValueError("truncated")
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _dtype(kind: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, _DTYPES[kind])
    return dtype


def _tensors(
    module: Any, prefix: str, storages: Mapping[str, torch.Tensor], depth: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors of a module and those inside it."""
    if depth > _MAX_DEPTH:
        raise ValueError("modules within modules without end")
    if not isinstance(module, _Made) or module.path not in _MODULE_NAMES:
        raise ValueError("what should be a module is none")
    for kind in ("_parameters", "_buffers"):
        for name, value in module.state.get(kind, {}).items():
            if value is not None:
                yield prefix + name, _tensor(value, storages)
    for name, child in module.state.get("_modules", {}).items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.", storages, depth + 1)


def _tensor(value: Any, storages: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if isinstance(value, _Made) and value.path in _PARAMETERS:
        value = value.arguments[0]
    if not isinstance(value, _Made) or value.path not in _REBUILT:
        raise ValueError("what should be a tensor is none")
    storage, offset, size, stride = value.arguments[:4]
    numbers = storages[storage.key]
    tensor = numbers.as_strided(size, stride, offset)  # refuses to reach beyond the storage
    if tensor.numel() > numbers.numel():
        raise ValueError("a tensor has more numbers than its storage")
    return tensor.clone()


def _interpret(file: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    """Interpret the next pickle of a file -> (what it describes, the storages that it refers to)."""
    import pickletools  # its list of instructions and arguments; it runs none

    machine = _Machine()
    argument: Any
    for opcode, argument, _position in pickletools.genops(file):
        stack = machine.stack
        match opcode.name:
            case "STOP":
                (root,) = stack
                return root, machine.storages
            case "PROTO" | "FRAME":
                pass
            case "GLOBAL":
                stack.append(_allowed(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_allowed(f"{module}.{name}"))
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                machine.marks.append(stack)
                machine.stack = []
            case "TUPLE":
                items = machine.since_mark()
                machine.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n_items = int(opcode.name[-1])
                stack[-n_items:] = [tuple(stack[-n_items:])]
            case "APPEND":
                item = stack.pop()
                _of_type(stack[-1], list).append(item)
            case "APPENDS":
                items = machine.since_mark()
                _of_type(machine.stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of_type(stack[-1], dict)[key] = value
            case "SETITEMS":
                items = machine.since_mark()
                _of_type(machine.stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
            case "REDUCE" | "NEWOBJ":
                arguments, name = stack.pop(), _of_type(stack.pop(), _Name)
                stack.append(_made(name.path, _of_type(arguments, tuple)))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Made):  # others, such as ordered dicts, have nothing that matters
                    stack[-1].state = state
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                machine.memo[argument] = stack[-1]
            case "MEMOIZE":
                machine.memo[len(machine.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(machine.memo[argument])
            case "BINPERSID":
                stack.append(_referred(stack.pop(), machine))
            case _ if opcode.name in _CONSTANTS:
                stack.append(argument)
            case _:
                msg = f"the instruction {opcode.name}, which no checkpoint has need of"
                raise NotAllowedError(msg)
    raise EOFError


def _allowed(path: str) -> _Name:
    if path not in _ALLOWED:
        raise NotAllowedError(path)
    return _Name(path)


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        msg = f"a {kind.__name__} was expected, not a {type(value).__name__}"
        raise TypeError(msg)
    return value


def _made(path: str, arguments: tuple[Any, ...]) -> Any:
    if path == "collections.OrderedDict":  # Python 2 gave the items as an argument
        return dict(*arguments)
    return _Made(path, arguments)


def _referred(reference: Any, machine: _Machine) -> Any:
    """Return what a pickle refers to outside itself: a module's class, or a storage."""
    kind, what, *more = _of_type(reference, tuple)
    if kind == "module":
        return _of_type(what, _Name)  # more are the file and text of its source
    key, _device, n_items, *view = more
    if kind != "storage" or any(part is not None for part in view):
        raise ValueError("an unknown kind of reference")
    storage = _Storage(_of_type(what, _Name).path, _of_type(key, str), _of_type(n_items, int))
    machine.storages[storage.key] = storage
    return storage
