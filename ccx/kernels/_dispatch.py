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
from ccx.keys import Activations


def backend_for(*arrays: Any) -> ModuleType:
    """Return the backend package that owns all `arrays`; data never moves.

    The GPU's raises `BackendError` where it is asked for a family that it has no kernels for.

    Raises
    ------
    BackendError
        If the arrays live in different places.

    """
    if all(map(on_gpu, arrays)):
        return importlib.import_module("ccx.kernels.cuda")
    if all(isinstance(array, np.ndarray) and not on_gpu(array) for array in arrays):
        return importlib.import_module("ccx.kernels.cpu")
    kinds = sorted({f"{type(array).__module__}.{type(array).__name__}" for array in arrays})
    msg = f"arrays must all be NumPy or all be CuPy, got {kinds}; move them to one place first"
    raise BackendError(msg)


def on_gpu(array: Any) -> bool:
    """Return whether this is an array of CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def require_host(array: Any, argument: str, what: str) -> None:
    """Raise `BackendError` if what is read in main memory lies on a GPU: it is not moved unasked."""
    if on_gpu(array):
        msg = (
            f"{argument}: {what} are read in main memory, got {describe(array)} on a GPU; pass cupy.asnumpy({argument})"
        )
        raise BackendError(msg)


def as_array(value: Any, argument: str) -> Any:
    """Return `value` as an array of its own library, without copying what is an array already.

    NumPy and CuPy arrays pass through, torch tensors become views, detached from their graph: of NumPy in main
    memory, of CuPy on a GPU (by DLPack). Lists and tuples of numbers become NumPy arrays.

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
        If `value` is a torch tensor on a device that is neither the CPU nor a CUDA GPU.
    MissingExtraError
        If it is on a GPU and CuPy is not installed.

    """
    if isinstance(value, Activations):
        return value.view(np.ndarray)  # kernels know no subclasses of arrays
    if isinstance(value, np.ndarray) or on_gpu(value):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _view_of_tensor(value, argument)
    if isinstance(value, (list, tuple, range)):
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            array = np.empty(0, dtype=object)
        if array.dtype.kind in "biuf":
            return array
        got = f"a {type(value).__name__} that is no regular table of numbers"
    else:
        got = type(value).__name__
    wanted, remedy = "an array (NumPy, CuPy, torch) or nested lists of numbers", "convert it with numpy.asarray first"
    if hasattr(value, "toarray"):  # a scipy sparse matrix, of which numpy.asarray makes no numbers
        remedy = "only ccx.explain takes sparse matrices; write out the units that you need, float[N, U, H, W]"
    raise DTypeError(argument, wanted=wanted, got=got, remedy=remedy)


def _view_of_tensor(tensor: Any, argument: str) -> Any:
    if tensor.device.type not in ("cpu", "cuda"):
        msg = f"{argument}: got a torch tensor on {tensor.device}; pass {argument}.cpu()"
        raise BackendError(msg)
    cupy = None
    if tensor.device.type == "cuda":
        backend = importlib.import_module("ccx.kernels.cuda.device")
        cupy = backend.require_cupy(f"{argument}, a torch tensor on {tensor.device},")
    try:
        return tensor.detach().numpy() if cupy is None else cupy.from_dlpack(tensor.detach())
    except (TypeError, RuntimeError, BufferError, ValueError) as error:  # bfloat16, sparse, lazily conjugated
        if cupy is not None and isinstance(
            error, cupy.cuda.runtime.CUDARuntimeError
        ):  # the GPU's fault, not its dtype's
            msg = f"{argument}: CuPy cannot take over the torch tensor on {tensor.device}: {error}"
            raise BackendError(msg) from error
        got = f"a torch tensor of {tensor.dtype}, {tensor.layout}"
        wanted = f"a tensor that {'NumPy' if cupy is None else 'CuPy'} can view"
        remedy = f"convert it: {argument}.to_dense().resolve_conj().float()"
        raise DTypeError(argument, wanted=wanted, got=got, remedy=remedy) from error


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
