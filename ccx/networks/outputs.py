"""Find one tensor in the output of a layer: the output itself, or an entry of a tuple, a mapping or an object."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ccx.errors import InputError

if TYPE_CHECKING:
    import torch

Output: TypeAlias = int | str | None
_N_LISTED = 6


class NoTensorError(Exception):
    """A layer put out several things, or none; the advice needs another pass of the model."""

    def __init__(self, layer: str, output: Any) -> None:
        self.layer, self.output = layer, output
        super().__init__(layer)


def check_output(output: Any) -> Output:
    """Return the argument `output` if it is valid.

    Raises
    ------
    InputError
        If it is neither None, an integer nor a text.

    """
    if output is None or (isinstance(output, int) and not isinstance(output, bool)) or (output and type(output) is str):
        return output
    remedy = 'write output=0, output="last_hidden_state" or output="states.0"'
    raise InputError("output", wanted="None, a number or a name", got=repr(output), remedy=remedy)


def find(value: Any, output: Output, layer: str) -> tuple[Any, ...]:
    """Return the steps from what a layer put out to one tensor: none if it is one.

    Without `output`, it is the only tensor where all other entries are None. Names lead to entries of mappings and to
    attributes, numbers to entries of sequences; dots lead further inside. Raises `NoTensorError` if `output` is None,
    and there are several tensors or none; `InputError` if `output` leads to no tensor.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return ()
    if output is None:
        filled = [step for step, entry in _entries(value).items() if entry is not None]
        if len(filled) == 1 and isinstance(_step(value, filled[0]), torch.Tensor):
            return (filled[0],)
        raise NoTensorError(layer, value)
    steps: tuple[Any, ...] = ()
    rest, inside = str(output), value
    while rest:
        whole, (head, _, behind) = rest in _entries(inside), rest.partition(".")
        name, rest = (rest, "") if whole else (head, behind)
        step = _named(inside, name)
        if step is None:
            wanted = f"an entry of what {layer!r} puts out"
            raise InputError("output", wanted=wanted, got=repr(output), remedy=f"there are {described(value)}")
        steps, inside = (*steps, step), _step(inside, step)
    if not isinstance(inside, torch.Tensor):
        got = f"a {type(inside).__name__} from {layer!r}"
        raise InputError("output", wanted="one that leads to a tensor", got=got, remedy=f"there are {described(value)}")
    return steps


def get(value: Any, steps: Sequence[Any]) -> torch.Tensor:
    """Return the tensor at the end of some steps; numbers of quantised ones, and ragged ones filled up with NaN."""
    for step in steps:
        value = _step(value, step)
    tensor: torch.Tensor = value
    if tensor.is_quantized:
        return tensor.dequantize()
    # NaN: where there is no activation, none may count in silence.
    return tensor.to_padded_tensor(float("nan")) if tensor.is_nested else tensor


def replaced(value: Any, steps: Sequence[Any], tensor: torch.Tensor) -> Any:
    """Return a copy of what a layer put out, with another tensor at the end of the steps."""
    if not steps:
        return tensor
    inner = replaced(_step(value, steps[0]), steps[1:], tensor)
    if isinstance(value, tuple):
        entries = [*value[: steps[0]], inner, *value[steps[0] + 1 :]]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    changed = copy.copy(value)
    if isinstance(value, (Mapping, list)):
        changed[steps[0]] = inner
    else:
        setattr(changed, steps[0], inner)
    return changed


def described(value: Any) -> str:
    """Say which entries there are, as the argument `output` names them."""
    import torch

    found = []
    for step, entry in _entries(value).items():
        if isinstance(entry, torch.Tensor):
            found.append(f"output={step!r} ({tensor_text(entry)})")
        elif entry is not None and _entries(entry):
            found.append(f"output={str(step)!r} (a {type(entry).__name__}, which {f'{step}.0'!r} leads into)")
    more = ", ..." if len(found) > _N_LISTED else ""
    return ", ".join(found[:_N_LISTED]) + more if found else "none"


def tensor_text(tensor: torch.Tensor) -> str:
    """Return dtype and shape, such as ``float32[3, 224, 224]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{[] if tensor.is_nested else list(tensor.shape)}"


def _entries(value: Any) -> dict[Any, Any]:
    import torch

    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, (torch.Tensor, str)):
        return {}
    return {name: entry for name, entry in getattr(value, "__dict__", {}).items() if not name.startswith("_")}


def _step(value: Any, step: Any) -> Any:
    return value[step] if isinstance(value, (Mapping, list, tuple)) else getattr(value, step)


def _named(value: Any, name: str) -> Any:
    """Return the step that a name means; None = there is no such entry."""
    entries, fields = _entries(value), getattr(value, "_fields", ())
    if name in entries:
        return name
    if name in fields:
        return fields.index(name)
    if not isinstance(value, (Mapping, list, tuple)):
        return name if hasattr(value, name) else None
    try:
        return list(entries)[int(name)]
    except (ValueError, IndexError):
        return None
