"""Errors of a model's own forward pass, explained where its input is the cause."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ccx.errors import CCXError, DTypeError, InputError, ShapeError
from ccx.networks.outputs import tensor_text

if TYPE_CHECKING:
    import torch

_DTYPES = re.compile(r"dtype|type|Half|BFloat16|Double|Float")
_SHAPES = re.compile(
    r"cannot be multiplied|[Ss]izes? of|size mismatch|to have \d+ channels|must match|[Ee]xpected.*(?:input|dim|D )"
    r"|invalid for input of size|normalized_shape|[Kk]ernel size can't be|broadcast|[Oo]utput size is too small"
)


def called(model: torch.nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Run a model on a batch and return its output.

    Raises `InputError` (`DTypeError`, `ShapeError`) if the batch is of another dtype, shape, device or number of inputs
    than the model takes; the model's own error is its cause. Other errors of the model pass as they are.
    """
    try:
        return model(*inputs, **keywords)
    except CCXError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        explained = _explained(error, model, inputs, keywords)
        if explained is None:
            raise
        raise explained from error


def _explained(
    error: Exception, model: torch.nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any]
) -> InputError | None:
    import torch

    said = str(error).strip().partition("\n")[0]
    tensors = [one for one in (*inputs, *keywords.values()) if isinstance(one, torch.Tensor)]
    got = ", ".join([*map(tensor_text, inputs), *(f"{name}={tensor_text(one)}" for name, one in keywords.items())])
    if isinstance(error, TypeError) and not _fits(model, inputs, keywords):
        wanted = f"the arguments of {type(model).__name__}.forward ({said:.150})"
        remedy = "a mapping gives arguments by their names, inputs=2 those of a tuple in their order"
        return InputError("loader", wanted=wanted, got=got, remedy=remedy)
    if isinstance(error, torch.OutOfMemoryError):
        return InputError("batch_size", wanted="batches that fit into memory", got=got, remedy="give fewer at a time")
    if isinstance(error, RuntimeError) and "same device" in said:
        remedy = "let the model move its own tensors: make buffers of those in plain attributes"
        return InputError("model", wanted="one on a single device", got=f"{said:.150}", remedy=remedy)
    floats = {one.dtype for one in tensors if one.is_floating_point()}
    weights = {one.dtype for one in model.parameters() if one.is_floating_point()}
    if isinstance(error, RuntimeError) and floats and weights and not floats <= weights and _DTYPES.search(said):
        names = " or ".join(sorted(str(dtype).removeprefix("torch.") for dtype in weights))
        remedy = "convert the batches with .to(dtype), or the model with .float()"
        return DTypeError("loader", wanted=f"inputs of {names}, as the model's weights are", got=got, remedy=remedy)
    if isinstance(error, IndexError) and "out of range" in said and not floats:
        remedy = "read them with the model's own tokenizer"
        return InputError("loader", wanted="tokens that the model knows", got=f"{got} ({said:.150})", remedy=remedy)
    if isinstance(error, (RuntimeError, ValueError)) and _SHAPES.search(said):
        remedy = "check its sizes and the order of its axes"
        return ShapeError("loader", wanted="a batch that the model takes", got=f"{got} ({said:.200})", remedy=remedy)
    return None


def _fits(model: torch.nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*inputs, **keywords)
    except TypeError:
        return False
    except ValueError:  # a function that does not tell
        return True
    return True


def takes_several(model: Any) -> bool:
    """Tell whether a model's forward has a place for a second input."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (AttributeError, TypeError, ValueError):
        return False
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1
