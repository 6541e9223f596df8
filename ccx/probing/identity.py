"""The identity of a network or a preprocessing: hashes of all that can be seen of it, the same in every process."""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import re
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ccx.errors import InputError
from ccx.models import Preprocessing
from ccx.networks import evaluating, unwrapped

if TYPE_CHECKING:
    import torch

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")  # in the texts of objects without a text of their own
_MOST_OBJECTS = 200_000  # beyond the weights; what comes later is not seen
_LONGEST_TEXT = 500
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), np.generic)
_UNSEEN = frozenset(
    {  # of a module's attributes: listed elsewhere, of training, or of torch's own bookkeeping
        *("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_version", "call_super_init"),
        *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks"),
        *("_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
        *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
        *("_compiled_call_impl", "_is_torch_compile", "_c", "_concrete_type", "_initializing"),
    }
)


def model_hashes(model: torch.nn.Module) -> dict[str, str]:
    """Return hashes of a network in evaluation mode -> ``{"weights": ..., "architecture": ..., "state": ...}``.

    The first covers names, dtypes, shapes and bytes of all parameters and buffers, the second the text of the module,
    in which strides, paddings and kinds of layers stand. The third covers what else can be seen: packed weights, extra
    states, other attributes (tensors, arrays, numbers, texts, and objects that hold them), forward hooks and replaced
    functions with what is bound to them. What is not seen: changed code of a class, and what a function reads from
    elsewhere. Raises `InputError` if a weight has no numbers (a model on the device "meta"), or none in plain memory.
    """
    plain = unwrapped(model)
    with evaluating(plain):
        walk = _Walk()
        weights = [*plain.named_parameters(), *plain.named_buffers()]
        hashes = {"weights": walk.hash(chain.from_iterable(weights))}
        text = f"{type(plain).__module__}.{type(plain).__qualname__}\n{_ADDRESS.sub('', repr(plain))}"
        hashes["architecture"] = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]
        hashes["state"] = walk.hash([plain])
    return hashes


def check_weights(model: torch.nn.Module) -> None:
    """Raise `InputError` if a weight has no numbers yet: it is on the device "meta", or its layer has not run."""
    import torch

    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta or torch.nn.parameter.is_lazy(tensor):
            where = "without a shape yet" if torch.nn.parameter.is_lazy(tensor) else "on the device meta"
            remedy = "load the model's weights first"
            raise InputError("model", wanted="weights that can be read", got=f"{name} {where}", remedy=remedy)


def described(preprocessing: Any) -> Any:
    """Return a preprocessing as JSON: its settings, or its text beside a hash of all that can be seen of it."""
    if preprocessing is None or isinstance(preprocessing, Preprocessing):
        return None if preprocessing is None else preprocessing.to_dict()
    text = _ADDRESS.sub("", repr(preprocessing))[:_LONGEST_TEXT]
    return {"text": text, "hash": _Walk().hash([preprocessing])}


class _Walk:
    """Hashes objects and what they hold. An object that was met before counts by its number, which also ends cycles."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # or another object could get the address of one that is gone

    def hash(self, values: Iterable[Any]) -> str:
        """Return 128 bits of SHA-256 of some values, in their order."""
        digest = hashlib.sha256()
        stack = list(values)[::-1]
        while stack and len(self._kept) < _MOST_OBJECTS:
            value = stack.pop()
            if isinstance(value, _PLAIN) and not isinstance(value, enum.Enum):
                _update(digest, f"{type(value).__name__} {value!r}")
            elif id(value) in self._numbers:
                _update(digest, f"number {self._numbers[id(value)]}")
            else:
                self._numbers[id(value)] = len(self._kept)
                self._kept.append(value)
                label, content, parts = _seen(value)
                _update(digest, f"{label} {len(parts)}")
                digest.update(content)
                stack += parts[::-1]
        return digest.hexdigest()[:32]


def _update(digest: Any, text: str) -> None:
    digest.update(text.encode(errors="backslashreplace") + b"\0")


Seen = tuple[str, Any, list[Any]]  # what an object is, its bytes, and the objects that it holds


def _seen(value: Any) -> Seen:
    import torch

    ways: tuple[tuple[Any, Callable[[Any], Seen]], ...] = (
        (torch.Tensor, _tensor),
        (torch.nn.Module, _module),
        (np.ndarray, _array),
        ((torch.dtype, torch.layout, torch.memory_format, torch.qscheme), lambda one: (repr(one), b"", [])),
        # On another device it is the same model; a generator's numbers are drawn anew, and a reference is no content.
        ((torch.device, torch.Generator, weakref.ReferenceType), lambda one: (type(one).__name__, b"", [])),
        (torch.ScriptObject, _packed),
        (types.FunctionType, _function),
        (types.CodeType, lambda code: ("code", code.co_code, [*code.co_consts, *code.co_names])),
        (types.MethodType, lambda one: ("method", b"", [one.__func__, one.__self__])),
        (types.CellType, lambda cell: ("cell", b"", _content(cell))),
        (types.BuiltinFunctionType, lambda one: (f"builtin {one.__qualname__}", b"", [one.__self__])),
        (functools.partial, lambda one: ("partial", b"", [one.func, *one.args, one.keywords])),
        (types.ModuleType, lambda one: (f"import {one.__name__}", b"", [])),
        (type, lambda one: (f"class {_name(one)}", b"", [])),
        (enum.Enum, lambda one: (f"{_name(type(one))}.{one.name}", b"", [])),
        (os.PathLike, lambda one: (f"path {os.fspath(one)!r}", b"", [])),
        ((set, frozenset), _set),
    )
    see = next((see for kind, see in ways if isinstance(value, kind)), _object)
    return see(value)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _object(value: Any) -> Seen:
    """See an object by its class, its items and its attributes; by its text if it has neither."""
    kind = type(value)
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts += chain.from_iterable(value.items())
    elif isinstance(value, (list, tuple)):
        parts += value
    attributes = dict(getattr(value, "__dict__", {}))
    for one in kind.__mro__:
        slots = one.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and not name.startswith("__"):
                attributes[name] = getattr(value, name)
    for name in sorted(attributes, key=str):
        if not isinstance(getattr(kind, str(name), None), functools.cached_property):  # a result, there or not yet
            parts += [name, attributes[name]]
    is_open = bool(parts) or isinstance(value, (Mapping, list, tuple)) or hasattr(value, "__dict__")
    return (_name(kind) if is_open else f"{_name(kind)} {_ADDRESS.sub('', repr(value))}"), b"", parts


def _set(value: Any) -> Seen:
    """See a set, whose order may differ from process to process."""
    return "set", "".join(sorted(_Walk().hash([one]) for one in value)).encode(), []


def _array(array: Any) -> Seen:
    label = f"array {array.dtype} {array.shape}"
    if array.dtype.hasobject:
        return label, b"", list(array.flat)
    return label, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, []


def _function(function: types.FunctionType) -> Seen:
    """See a function's code, what is bound to it, and the global values and functions of its own file that it names."""
    used = [name for name in function.__code__.co_names if name in function.__globals__]
    named: list[Any] = []
    for name in used:
        value = function.__globals__[name]
        is_own = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
        if is_own or isinstance(value, (*_PLAIN, tuple, np.ndarray)) or _is_tensor(value):
            named += [name, value]
    parts = [function.__code__, function.__defaults__, function.__kwdefaults__, *(function.__closure__ or ())]
    return "function", b"", [*parts, *named]


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _content(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # nothing was put into it yet
        return []


def _packed(value: Any) -> Seen:
    """See what torch packs into objects of its own, such as quantised weights."""
    try:
        return "packed", b"", [value.__getstate__()]
    except (AttributeError, RuntimeError, TypeError):
        return f"packed {_ADDRESS.sub('', repr(value))}", b"", []


def _module(module: torch.nn.Module) -> Seen:
    import torch

    parts: list[Any] = []
    for listed in (module._parameters, module._buffers, module._modules):
        parts += chain.from_iterable(listed.items())
    for hooks, with_keywords in (
        (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
        (module._forward_hooks, module._forward_hooks_with_kwargs),
    ):
        # By their order; their numbers depend on the hooks that other modules had.
        parts += chain.from_iterable((number in with_keywords, hook) for number, hook in hooks.items())
    if isinstance(module, torch.jit.ScriptModule):
        parts += _script(module)
    else:
        attributes = {name: value for name, value in module.__dict__.items() if name not in _UNSEEN}
        parts += chain.from_iterable(sorted(attributes.items()))
    if type(module).get_extra_state is not torch.nn.Module.get_extra_state:
        parts.append(module.get_extra_state())
    return f"module {_name(type(module))}", b"", parts


def _script(module: Any) -> list[Any]:
    try:
        code, constants = module.code_with_constants
    except (AttributeError, RuntimeError):  # none of its own
        return []
    return [code, constants.const_mapping]


def _tensor(tensor: torch.Tensor) -> Seen:
    """See a tensor: by its bytes, or by the tensors that it is made of."""
    import torch

    label = f"tensor {tensor.dtype} {list(tensor.shape)}"
    try:
        parts = _inner(tensor.detach())
        if parts is not None:
            return f"{label} {_name(type(tensor))}", b"", parts
        plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        return label, plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b"", []
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        got = f"one of {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)} on {tensor.device}"
        remedy = "load the model's weights first"
        raise InputError("model", wanted="weights that can be read", got=got, remedy=remedy) from error


def _inner(tensor: torch.Tensor) -> list[Any] | None:
    """Return what a tensor is made of; None = plain numbers."""
    import torch

    flatten: Callable[[], tuple[list[str], Any]] | None = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        names, context = flatten()
        return [context, *(getattr(tensor, name) for name in names)]
    if tensor.is_quantized:
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            return [tensor.int_repr(), tensor.q_scale(), tensor.q_zero_point()]
        scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
        return [tensor.int_repr(), scales, zeros, tensor.q_per_channel_axis()]
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return None if tensor.layout == torch.strided else [tensor.to_dense()]
