"""Pickles read as data: their instructions are interpreted, and nothing that they name is run.

A pickle is a program for a small stack machine. Instructions that build numbers, texts, lists and mappings are carried
out; those that would import, call, or set the state of something only note its name, its arguments and its state. Names
that are on no list are refused all the same, so that a file which tries to run code is told from one with weights.

What a pickle can cost is bounded: its bytes, its instructions, the places of its memo; only texts become keys of
mappings, as others could be made to collide, or be nested deeper than the machine's stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

_MOST_BYTES = 1 << 26  # of one pickle: weights stand outside it
_MOST_INSTRUCTIONS = 1_500_000  # about 40 per tensor

MODULES = frozenset(
    f"{package}.{name}"
    for package, names in {
        "torch.nn.modules": (
            *("activation.ReLU", "batchnorm.BatchNorm2d", "container.Sequential", "conv.Conv2d", "dropout.Dropout"),
            *("linear.Linear", "pooling.AdaptiveAvgPool2d", "pooling.AvgPool2d", "pooling.MaxPool2d"),
        ),
        "torch.nn.parallel": ("data_parallel.DataParallel",),
        "torchvision.models": (
            *("alexnet.AlexNet", "densenet.DenseNet", "densenet._DenseBlock", "densenet._DenseLayer"),
            *("densenet._Transition", "resnet.BasicBlock", "resnet.Bottleneck", "resnet.ResNet", "vgg.VGG"),
        ),
    }.items()
    for name in names
)
"""Classes of whole models, those of the architectures that the Places365 project published."""
TENSORS = frozenset({f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")})
PARAMETERS = frozenset({"torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"})
STORAGES = {
    **{
        f"torch.{kind}Storage": kind.lower() for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short")
    },
    **{"torch.CharStorage": "int8", "torch.ByteStorage": "uint8", "torch.BoolStorage": "bool"},
    **{"torch.storage.UntypedStorage": "uint8", "torch.ComplexFloatStorage": "complex64"},
}
_DTYPES = (
    *("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool", "complex64"),
    *("float8_e4m3fn", "float8_e5m2", "half", "float", "double", "short", "int", "long"),
)
_MAPPINGS = frozenset(
    {
        *("collections.OrderedDict", "collections.defaultdict", "collections.Counter"),
        *("easydict.EasyDict", "yacs.config.CfgNode", "pytorch_lightning.utilities.parsing.AttributeDict"),
        *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
    }
)
_BESIDE_WEIGHTS = frozenset(  # also in checkpoints: settings, counters, paths, states of random numbers
    {
        *("argparse.Namespace", "types.SimpleNamespace", "_codecs.encode", "typing.Any", "collections.deque"),
        *(f"{module}._reconstructor" for module in ("copyreg", "copy_reg")),
        *(f"datetime.{kind}" for kind in ("date", "datetime", "timedelta", "timezone")),
        *(f"pathlib{part}.{kind}" for part in ("", "._local") for kind in ("Path", "PosixPath", "WindowsPath")),
        *(f"pathlib{part}.Pure{kind}Path" for part in ("", "._local") for kind in ("", "Posix", "Windows")),
        *(f"numpy.{core}.multiarray.{kind}" for core in ("core", "_core") for kind in ("scalar", "_reconstruct")),
        *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer", "numpy.dtype", "numpy.ndarray"),
        *("torch.Size", "torch.device", "torch.nn.backends.thnn._get_thnn_function_backend"),  # in modules before 1.2
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.Metadata"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.nodes.AnyNode", "omegaconf.nodes.StringNode"),
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        *(
            f"{module}.{kind}"
            for module in ("builtins", "__builtin__")
            for kind in ("set", "frozenset", "list", "dict", "tuple", "int", "float", "bool", "str", "bytes", "object")
        ),
    }
)
_ALLOWED = (
    MODULES | TENSORS | PARAMETERS | STORAGES.keys() | _MAPPINGS | _BESIDE_WEIGHTS | {f"torch.{d}" for d in _DTYPES}
)
_CONSTANTS = frozenset(
    {
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
        *("SHORT_BINBYTES", "BINBYTES", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "LONG4"),
    }
)


_SIMPLE: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": lambda: Made("builtins.set", ())},
}


class NotAllowedError(ValueError):
    """A name or an instruction that no checkpoint needs."""


@dataclass(eq=False)
class Name:
    """What a pickle would import."""

    path: str


@dataclass(eq=False)
class Made:
    """What a pickle would make: of which name, from what, and in which state. Its entries do not matter."""

    path: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Storage:
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

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._remember(argument)
            case "MEMOIZE":
                self._remember(len(self.memo))
            case "BINGET" | "LONG_BINGET" | "GET":
                self.stack.append(self.memo[argument])
            case "MARK":
                self.marks.append(self.stack)
                self.stack = []
            case "SETITEM":
                _set(self.stack[-3], self._last(2))
            case "SETITEMS":
                items = self._since_mark()
                _set(self.stack[-1], items)
            case "APPEND":
                _extend(self.stack[-2], self._last(1))
            case "APPENDS" | "ADDITEMS":
                items = self._since_mark()
                _extend(self.stack[-1], items)
            case "BUILD":
                state = self.stack.pop()
                if isinstance(self.stack[-1], Made):  # others, such as ordered dicts, have nothing that matters
                    self.stack[-1].state = state
            case _:
                value = self._value(name, argument)  # before the stack is looked up: marks change it
                self.stack.append(value)

    def _value(self, name: str, argument: Any) -> Any:
        """Return what an instruction puts on the stack."""
        match name:
            case _ if name in _CONSTANTS:
                return argument
            case _ if name in _SIMPLE:
                return _SIMPLE[name]()
            case "TUPLE":
                return tuple(self._since_mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._last(int(name[-1])))
            case "FROZENSET":
                self._since_mark()
                return Made("builtins.frozenset", ())
            case "BINPERSID":
                return _referred(self.stack.pop())
            case "REDUCE" | "NEWOBJ":
                arguments, kind = self.stack.pop(), _of_type(self.stack.pop(), Name)
                return _made(kind.path, _of_type(arguments, tuple))
            case "GLOBAL":
                return _allowed(argument.replace(" ", ".", 1))
            case "STACK_GLOBAL":
                own, module = _of_type(self.stack.pop(), str), _of_type(self.stack.pop(), str)
                return _allowed(f"{module:.200}.{own:.200}")
            case _:
                msg = f"the instruction {name}"
                raise NotAllowedError(msg)

    def _last(self, n_items: int) -> list[Any]:
        """Take the last values off the stack."""
        if len(self.stack) < n_items:
            raise IndexError("too few values")
        items = self.stack[-n_items:]
        del self.stack[-n_items:]
        return items

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _remember(self, place: int) -> None:
        if not 0 <= place <= len(self.memo) + 1:
            raise ValueError("a place of the memo that is out of order")
        self.memo[place] = self.stack[-1]


class _Bounded:
    """A stream with a limit: a damaged pickle may ask for any number of bytes."""

    def __init__(self, stream: IO[bytes], n_left: int) -> None:
        self._stream, self._n_left = stream, n_left

    def read(self, n_bytes: int) -> bytes:
        content = self._stream.read(min(n_bytes, self._n_left))
        self._n_left -= len(content)
        return content

    def readline(self) -> bytes:
        line = self._stream.readline(min(1 << 12, self._n_left))
        self._n_left -= len(line)
        return line


def interpret(stream: IO[bytes], n_bytes: int) -> Any:
    """Interpret the next pickle of a stream that has `n_bytes` left, and return what it describes.

    Raises `NotAllowedError` if it names anything that is not on the list; `ValueError`, `ArithmeticError`,
    `AttributeError`, `EOFError`, `LookupError`, `MemoryError` or `TypeError` if it is damaged, or exceeds the bounds.
    """
    import pickletools  # its list of instructions and arguments; it runs none

    machine = _Machine()
    instructions = pickletools.genops(_Bounded(stream, min(n_bytes, _MOST_BYTES)))  # type: ignore[arg-type]
    for number, (opcode, argument, _position) in enumerate(instructions):
        if number >= _MOST_INSTRUCTIONS:
            raise ValueError("more instructions than a checkpoint needs")
        if opcode.name == "STOP":
            (root,) = machine.stack
            return root
        machine.step(opcode.name, argument)
    raise EOFError


def _allowed(path: str) -> Name:
    if path not in _ALLOWED:
        raise NotAllowedError(path)
    return Name(path)


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        msg = f"a {kind.__name__} was expected, not a {type(value).__name__}"
        raise TypeError(msg)
    return value


def _set(target: Any, items: list[Any]) -> None:
    """Put keys and values, in turn, into a mapping; keys that are no texts are told apart and forgotten."""
    if isinstance(target, Made):
        return
    _of_type(target, dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[key if type(key) is str else object()] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, Made):
        _of_type(target, list).extend(items)


def _made(path: str, arguments: tuple[Any, ...]) -> Any:
    if path not in _MAPPINGS:
        return Made(path, arguments)
    found: dict[Any, Any] = {}
    if path == "collections.OrderedDict" and arguments:  # Python 2 gave the items as an argument
        for pair in _of_type(arguments[0], list):
            _set(found, list(pair))
    return found


def _referred(reference: Any) -> Any:
    """Return what a pickle refers to outside itself: a module's class, or a storage."""
    kind, what, *more = _of_type(reference, tuple)
    if kind == "module":
        return _of_type(what, Name)  # more are the file and text of its source
    key, _device, n_items, *view = more
    if kind != "storage" or any(part is not None for part in view):
        raise ValueError("an unknown kind of reference")
    path = _of_type(what, Name).path
    if path not in STORAGES or _of_type(n_items, int) < 0:
        raise ValueError("an unknown kind of storage")
    return Storage(STORAGES[path], _of_type(key, str), n_items)
