"""From what a caller passed to arrays, and from arrays to the backend that owns them.

CuPy and torch are looked up among the modules that are already imported: where one is not, no array
of its kind exists, and importing ccx stays light.
"""

from __future__ import annotations

import importlib
import operator
import sys
from types import ModuleType
from typing import Any

import numpy as np

from ccx.errors import BackendError, DTypeError, InputError


def backend_for(*arrays: Any) -> ModuleType:
    """Return the backend package that owns all `arrays`; data never moves.

    The GPU's raises `BackendError` where it is asked for a family that it has no kernels for.

    Raises
    ------
    BackendError
        If the arrays live in different places.

    """
    if all(isinstance(array, np.ndarray) for array in arrays):
        return importlib.import_module("ccx.kernels.cpu")
    cupy = sys.modules.get("cupy")
    if cupy is not None and all(isinstance(array, cupy.ndarray) for array in arrays):
        return importlib.import_module("ccx.kernels.cuda")
    kinds = sorted({f"{type(array).__module__}.{type(array).__name__}" for array in arrays})
    msg = f"arrays must all be NumPy or all be CuPy, got {kinds}; move them to one place first"
    raise BackendError(msg)


def as_array(value: Any, argument: str) -> Any:
    """Return `value` as an array of its own library, without copying what is an array already.

    NumPy and CuPy arrays pass through, torch tensors in main memory become NumPy views (detached from
    their graph), lists and tuples of numbers become NumPy arrays.

    Parameters
    ----------
    value
        What the caller passed.
    argument
        The name of the argument, for messages.

    Raises
    ------
    DTypeError
        If `value` is nothing of these, or holds something else than numbers and booleans.
    BackendError
        If `value` is a torch tensor on another device than the CPU.

    """
    if isinstance(value, np.ndarray):
        return value
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(value, cupy.ndarray):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _view_of_tensor(value, argument)
    if isinstance(value, (list, tuple)):
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            array = np.empty(0, dtype=object)
        if array.dtype.kind in "biuf":
            return array
        got = f"a {type(value).__name__} that is no regular table of numbers"
    else:
        got = type(value).__name__
    wanted = "an array (NumPy, CuPy, torch) or nested lists of numbers"
    raise DTypeError(argument, wanted=wanted, got=got, remedy="convert it with numpy.asarray first")


def _view_of_tensor(tensor: Any, argument: str) -> np.ndarray:
    if tensor.device.type != "cpu":
        msg = f"{argument}: got a torch tensor on {tensor.device}; pass {argument}.cpu()"
        raise BackendError(msg)
    try:
        view: np.ndarray = tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # bfloat16, sparse, lazily conjugated
        got = f"a torch tensor of {tensor.dtype}, {tensor.layout}"
        remedy = f"convert it: {argument}.to_dense().resolve_conj().float()"
        raise DTypeError(argument, wanted="a tensor that NumPy can view", got=got, remedy=remedy) from error
    return view


def check_threads(threads: int | None) -> int | None:
    """Return `threads` if it is None (every available processor) or a whole number of at least 1."""
    if threads is None:
        return None
    try:
        n_threads = operator.index(threads)
    except TypeError:
        n_threads = 0
    if n_threads < 1:
        remedy = "leave it out to use every available processor"
        raise InputError(argument="threads", wanted="None or an integer >= 1", got=repr(threads), remedy=remedy)
    return n_threads


def describe(array: Any) -> str:
    """Return dtype and shape of `array` in the notation of the messages: ``uint64[3, 196]``."""
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"
