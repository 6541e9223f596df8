"""What may be given for an array, and how it becomes one: converted where it has one meaning, refused where it has two.

CuPy and torch are looked up among the modules that are imported: where one is not, no array of its kind exists. All
others are known by what they offer, so that the answer never depends on what else was imported.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.errors import BackendError, DTypeError, InputError, ShapeError

_KINDS = "biuf"  # of dtypes that hold numbers and booleans
_EXTENDED = ("bfloat16", "float8", "float6", "float4")  # names of dtypes beside NumPy's; float32 holds them exactly
_MOST_AXES = 32
_NUMBERS = (bool, int, float, np.bool_, np.number)
_CONVERT = "convert it with numpy.asarray first"
_REMEDIES = {
    "c": "take its .real, or numpy.abs of it",
    "O": "say what it holds: numpy.asarray(..., dtype=numpy.float32)",
    "V": "take one of its fields",
}


def on_gpu(array: Any) -> bool:
    """Return whether this is an array of CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def describe(array: Any) -> str:
    """Return dtype and shape of `array` in the notation of the messages: ``uint64[3, 196]``."""
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def require_host(array: Any, argument: str, what: str) -> None:
    """Raise `BackendError` if what is read in main memory lies on a GPU: it is not moved unasked."""
    if on_gpu(array):
        msg = (
            f"{argument}: {what} are read in main memory, got {describe(array)} on a GPU; pass cupy.asnumpy({argument})"
        )
        raise BackendError(msg)


def as_array(value: Any, argument: str) -> Any:
    """Return `value` as an array of numbers or booleans, without copying what is one already.

    - NumPy and CuPy arrays pass through; subclasses (``numpy.matrix``, memory maps) as plain views, masked arrays if
      nothing is masked, other byte orders as copies in that of the machine.
    - Tensors of torch become views, detached from their graph: of NumPy in main memory, of CuPy on a GPU (by DLPack).
      What NumPy has no dtype or layout for is converted first: bfloat16 and narrower to float32, sparse ones to dense,
      quantised ones to the numbers that they stand for.
    - Data frames and series, and what is an array elsewhere (h5py, zarr, xarray, JAX: a shape, a dtype, and
      ``__array__`` or indices) are read whole.
    - Lists, tuples and ranges of numbers, or of arrays of one shape, become arrays.

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
    InputError
        If entries are masked, or the labels of a data frame give another order than its rows.
    BackendError
        If `value` is a torch tensor on a device that is neither the CPU nor a CUDA GPU.
    MissingExtraError
        If it is on a GPU and CuPy is not installed.
    MemoryBudgetError
        If it lies elsewhere (a file), or takes less room there, and would not fit into memory.

    """
    if on_gpu(value):
        return value
    if isinstance(value, np.ndarray):
        is_plain = type(value) is np.ndarray and value.dtype.kind in _KINDS and value.dtype.isnative
        return value if is_plain else _plain(value, argument)
    if _is_tensor(value):
        return _plain(_of_tensor(value, argument), argument)
    if isinstance(value, (list, tuple, range)):
        return _of_list(value, argument)
    return _of_array_like(value, argument)


def as_floats(value: Any, argument: str) -> Any:
    """Return `value` as an array of floating point; whole numbers and booleans are refused.

    They may be something else: bitmaps, packed rows, labels, or quantised activations without their scale.

    Raises
    ------
    DTypeError
        If it has another dtype; and what `as_array` raises.

    """
    array = as_array(value, argument)
    if array.dtype.kind != "f":
        remedy = f"convert: {argument}.astype(numpy.float32)"
        raise DTypeError(argument, wanted="floating point", got=describe(array), remedy=remedy)
    return array


def reordered(argument: str, shape: Sequence[int], wanted: Sequence[int | None]) -> str | None:
    """Return how to reorder the axes of an array so that it has the wanted sizes (None = any), or None if no way does.

    Of several ways that which moves the fewest past each other.
    """
    if len(shape) != len(wanted) or len(shape) > 5:
        return None
    orders = sorted(permutations(range(len(shape))), key=_crossings)
    for order in orders:
        if all(size in (None, shape[axis]) for axis, size in zip(order, wanted, strict=True)):
            return f"reorder its axes: numpy.transpose({argument}, {order})"
    return None


def check_out(given: Any, array: Any) -> None:
    """Raise unless `array`, made of what was given as ``out``, is the memory that the caller will look at."""
    is_theirs = array is given or not isinstance(array, np.ndarray) or hasattr(given, "data_ptr")
    if not is_theirs and not (isinstance(given, np.ndarray) and np.may_share_memory(given, array)):
        remedy = "pass numpy.empty(..., dtype)"
        raise InputError("out", wanted="an array to write to", got=f"a {type(given).__name__} to copy", remedy=remedy)


def as_sparse(value: Any, n_rows: int) -> Any:
    """Return a sparse matrix of scipy, or of torch [n_rows, ...], as one of scipy; None if `value` is neither."""
    if hasattr(value, "tocsc") and hasattr(value, "nnz"):
        return value
    is_sparse = _is_tensor(value) and str(value.layout).startswith("torch.sparse") and value.device.type == "cpu"
    if not is_sparse or value.ndim != 2 or value.shape[0] != n_rows:
        return None
    from scipy.sparse import coo_array  # noqa: PLC0415 - slow to import, and seldom needed

    entries = value.detach().to_sparse_coo().coalesce()
    values = as_array(entries.values(), "activations")
    return coo_array((values, tuple(entries.indices().numpy())), shape=tuple(value.shape))


def checked_sparse(matrix: Any, argument: str) -> Any:
    """Return a sparse matrix of scipy, or of a library whose matrices become one, if its indices lie within it.

    Raises
    ------
    InputError
        If one does not: native code would look at it beyond its memory.

    """
    try:
        if hasattr(matrix, "check_format"):  # rows, columns, blocks
            matrix.check_format(full_check=True)
        elif not hasattr(matrix, "nnz"):
            raise ValueError
        for axis, places in enumerate(getattr(matrix, "coords", ())):
            if len(places) and not (places.min() >= 0 and places.max() < matrix.shape[axis]):
                raise ValueError(f"axis {axis} index out of range")  # noqa: EM102
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        remedy = "build it again, from scipy.sparse.coo_array((values, (rows, columns)), shape)"
        raise InputError(argument, wanted="a sparse matrix in order", got=f"{error}", remedy=remedy) from error
    return matrix


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def _crossings(order: Sequence[int]) -> int:
    return sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])


def _plain(array: Any, argument: str) -> Any:
    """Return an array of NumPy as one of the base class, of numbers, in the machine's byte order."""
    if on_gpu(array):
        return array
    if isinstance(array, np.ma.MaskedArray):
        n_masked = int(np.count_nonzero(np.ma.getmaskarray(array)))
        if n_masked:
            remedy = "fill them: .filled(value), and leave such cells out with valid= when concepts are built"
            got = f"{n_masked} masked of {array.size}"
            raise InputError(argument, wanted="no masked entries", got=got, remedy=remedy)
    plain = np.asarray(array)
    if plain.dtype.kind not in _KINDS and plain.dtype.name.startswith(_EXTENDED):
        plain = plain.astype(np.float32)
    if plain.dtype.kind not in _KINDS:
        remedy = _REMEDIES.get(plain.dtype.kind, "give numbers")
        raise DTypeError(argument, wanted="numbers or booleans", got=describe(plain), remedy=remedy)
    return plain if plain.dtype.isnative else plain.astype(plain.dtype.newbyteorder("="))


def _of_tensor(tensor: Any, argument: str) -> Any:
    if tensor.device.type == "meta":
        msg = f"{argument}: got a torch tensor on meta, which has no numbers; load the weights, and run the model"
        raise BackendError(msg)
    if tensor.device.type not in ("cpu", "cuda"):
        msg = f"{argument}: got a torch tensor on {tensor.device}; pass {argument}.cpu()"
        raise BackendError(msg)
    view = _viewer(tensor, argument)
    try:
        return view(tensor.detach())
    except (TypeError, RuntimeError, BufferError, ValueError) as error:  # bfloat16, sparse, quantised, lazily negated
        if tensor.device.type == "cuda" and type(error).__name__ == "CUDARuntimeError":  # the GPU's fault
            msg = f"{argument}: CuPy cannot take over the torch tensor on {tensor.device}: {error}"
            raise BackendError(msg) from error
    try:
        return view(_dense(tensor.detach(), argument))
    except (TypeError, RuntimeError, BufferError, ValueError, AttributeError) as error:
        got = f"a torch tensor of {tensor.dtype}, {tensor.layout}"
        wanted = f"a tensor that {'NumPy' if tensor.device.type == 'cpu' else 'CuPy'} can view"
        remedy = f"convert it: {argument}.to_dense().resolve_conj().float()"
        if getattr(tensor, "is_nested", False):
            got, remedy = "a nested tensor", "pad it: torch.nested.to_padded_tensor, and leave padding out with valid="
        raise DTypeError(argument, wanted=wanted, got=got, remedy=remedy) from error


def _viewer(tensor: Any, argument: str) -> Any:
    if tensor.device.type == "cpu":
        return lambda tensor: tensor.numpy()
    backend = importlib.import_module("ccx.kernels.cuda.device")
    return backend.require_cupy(f"{argument}, a torch tensor on {tensor.device},").from_dlpack


def _dense(tensor: Any, argument: str) -> Any:
    """Return the same numbers in a dtype and layout that others know."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if not str(tensor.layout).endswith("strided"):
        memory.require_bytes(argument, 4 * tensor.numel(), "give fewer units or samples at a time")
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg()
    is_known = str(tensor.dtype) in ("torch.float16", "torch.float32", "torch.float64")
    return tensor.float() if tensor.is_floating_point() and not is_known else tensor


def _of_list(value: Sequence[Any], argument: str) -> Any:
    refused = DTypeError(
        argument,
        wanted="an array (NumPy, CuPy, torch) or nested lists of numbers",
        got=f"a {type(value).__name__} that is no regular table of numbers",
        remedy=_CONVERT,
    )
    try:
        if isinstance(value, range):
            memory.require_bytes(argument, 8 * len(value), "give fewer")
            return _plain(np.arange(value.start, value.stop, value.step), argument)
        leaves = _leaves(value)
        if all(issubclass(kind, _NUMBERS) for kind in leaves):
            return _plain(np.asarray(value), argument)
        if all(hasattr(kind, "shape") and not issubclass(kind, np.generic) for kind in leaves):
            return _plain(np.stack([as_array(entry, argument) for entry in value]), argument)
    except (DTypeError, ValueError, OverflowError, TypeError) as error:  # rows of different lengths, 10**400
        if isinstance(error, InputError) and not isinstance(error, DTypeError):
            raise  # masked, or too large
        raise refused from error
    raise refused


def _leaves(value: Sequence[Any], depth: int = 0) -> set[type]:
    """Return the types of what nested lists hold."""
    kinds = set(map(type, value))
    inner = [entry for entry in value if isinstance(entry, (list, tuple))] if kinds & {list, tuple} else []
    if inner and depth > _MOST_AXES:
        raise ValueError(depth)  # a list in itself
    return (kinds - {list, tuple}).union(*(_leaves(entry, depth + 1) for entry in inner))


def _of_array_like(value: Any, argument: str) -> Any:
    kind = type(value)
    wanted = "an array (NumPy, CuPy, torch) or nested lists of numbers"
    if _offers(value, "toarray"):  # a scipy sparse matrix, of which numpy.asarray makes no numbers
        remedy = "only ccx.explain takes sparse matrices; write out the units that you need, float[N, U, H, W]"
        raise DTypeError(argument, wanted=wanted, got=kind.__name__, remedy=remedy)
    is_table = _offers(value, "to_numpy")
    is_array = all(_offers(value, name) for name in ("shape", "dtype", "__getitem__"))
    if isinstance(value, (type, np.generic)) or not (is_table or is_array):
        raise DTypeError(argument, wanted=wanted, got=kind.__name__, remedy=_CONVERT)
    try:
        if is_table:
            for labels in ("index", "columns"):
                _check_labels(argument, labels, getattr(value, labels, None))
            array = value.to_numpy()
        else:
            memory.require_bytes(argument, math.prod(value.shape) * np.dtype(value.dtype).itemsize, "give fewer units")
            array = np.asarray(value if hasattr(kind, "__array__") else value[...])
            if array.shape != tuple(value.shape):
                raise ShapeError(argument, wanted=f"{list(value.shape)}", got=describe(array), remedy=_CONVERT)
    except InputError:
        raise
    except Exception as error:  # whatever another library raises
        got = f"a {kind.__name__} that cannot be read ({type(error).__name__}: {error})"
        raise DTypeError(argument, wanted=wanted, got=got, remedy=_CONVERT) from error
    return _plain(array, argument)


def _offers(value: Any, name: str) -> bool:
    """Tell whether an object has an attribute, without asking for it: that of a closed file would raise."""
    return hasattr(type(value), name) or name in getattr(value, "__dict__", ())


def _check_labels(argument: str, axis: str, labels: Any) -> None:
    """Raise where the labels of a data frame number its rows or columns in another order than they stand in."""
    numbers: npt.NDArray[Any] = np.asarray(() if labels is None or callable(labels) else labels)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers[:-1] <= numbers[1:]).all():
        return
    if np.array_equal(np.sort(numbers), np.arange(len(numbers))):
        name = "row" if axis == "index" else "column"
        remedy = f"sort them (sort_index(axis={axis!r})), or take .to_numpy() to keep the order"
        got, wanted = f"{name} {numbers[0]} first", f"{name}s in the order of their labels"
        raise InputError(argument, wanted=wanted, got=got, remedy=remedy)
