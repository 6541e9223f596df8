"""The forms in which annotations may come, checked and cut into batches."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.checks import sides, texts
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import rows
from ccx.kernels.conversion import as_array, checked_sparse, describe

Flags = npt.NDArray[np.bool_]

_MASK_BATCH_BYTES = 1 << 26
_MOST_LAYERS = 6  # that are believed whatever the names: Broden has as many
_LAYERS_SECOND = "put the layers second: numpy.moveaxis(labels, 3, 1)"


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises `InputError` if there are none, one of them cannot be a name (`name_problem`), or they are not distinct.
    """
    checked = _check_named("names", names)
    if not checked:
        raise InputError("names", wanted="at least one name", got="none", remedy="give one name per concept")
    if len(set(checked)) < len(checked):
        repeated = sorted(name for name, count in Counter(checked).items() if count > 1)
        remedy = "make them unique, for instance with their category"
        raise InputError("names", wanted="distinct names", got=f"repeated: {', '.join(repeated[:5])}", remedy=remedy)
    return checked


def name_problem(name: object) -> str | None:
    """Say what keeps a value from being the name of a concept or category: None = nothing.

    A name is a text that is not blank, has no white space around it, and is not how a missing value reads: who sees
    "nan" in a file cannot tell which of both it was.
    """
    if not isinstance(name, str):
        is_missing = name is None or (isinstance(name, float) and math.isnan(name))
        return "missing" if is_missing else f"{name!r:.40} ({type(name).__name__}), no text"
    if not name.strip():
        return "blank"
    if name.casefold() in _MISSING:
        return f"{name!r}, which is how a missing value reads"
    return f"{name!r:.60}, with white space around it" if name != name.strip() else None


_MISSING = frozenset({"nan", "<na>"})  # str() of NumPy's and pandas' missing values


def _check_named(argument: str, values: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(values, (Mapping, Set)) or hasattr(values, "columns"):  # whose order says nothing
        remedy = "give a list in the order of ids"
        raise InputError(argument, wanted="a sequence of texts", got=f"a {type(values).__name__}", remedy=remedy)
    checked = tuple(texts(argument, values))
    for index, name in enumerate(checked):
        if problem := name_problem(name):
            remedy = "give each concept a readable one, for instance '␣the' for ' the'"
            raise InputError(argument, wanted="names", got=f"at index {index} one that is {problem}", remedy=remedy)
    return checked


def check_categories(categories: Sequence[str] | None, n_concepts: int) -> tuple[str, ...] | None:
    """Return one category per concept, or None; they are named like concepts."""
    if categories is None:
        return None
    checked = _check_named("categories", categories)
    if len(checked) != n_concepts:
        remedy = "give one category per concept"
        raise InputError("categories", wanted=f"{n_concepts} categories", got=str(len(checked)), remedy=remedy)
    return checked


def names_by_id(names: Mapping[Any, str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids, ascending, and the names of a mapping from ids to names.

    Raises `InputError` if a key is no whole number of at least 0, or occurs twice, or for what `check_names` refuses.
    """
    found: dict[int, str] = {}
    for key, name in names.items():
        number = whole_number(key)
        if number is None:
            remedy = "write {1: 'sky', ...}"
            raise InputError("names", wanted="ids of at least 0 as keys", got=f"{key!r:.40}", remedy=remedy)
        if number in found:
            raise InputError("names", wanted="distinct ids", got=f"{number} twice", remedy="give each name one id")
        found[number] = name
    ids = sorted(found)
    return tuple(ids), check_names([found[number] for number in ids])


def whole_number(value: object) -> int | None:
    """Return an id, an integer or its decimal text, as int; None where it is below 0, too long or something else."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isdecimal() and len(digits) <= _MOST_DIGITS else None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    number = operator.index(value)
    return number if 0 <= number < 10**_MOST_DIGITS else None


_MOST_DIGITS = 18  # of ids, which are int64


def concept_ids(labels: npt.NDArray[Any], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return label maps in which the ascending `ids` became 1..C; 0 stays, unless it is one of them.

    Raises `InputError` if other ids occur.
    """
    at = np.minimum(np.searchsorted(ids, labels), ids.size - 1)
    is_known = ids[at] == labels
    unknown = labels[~is_known & (labels != 0)]
    if unknown.size:
        listed = ", ".join(map(str, np.unique(unknown)[:5].tolist()))
        remedy = "give them names, or set them to 0, which is no concept"
        raise InputError("labels", wanted=f"ids that have one of the {ids.size} names", got=listed, remedy=remedy)
    return np.where(is_known, at + 1, 0).astype(np.int32)


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Return one item of an iterable of batches as (labels, valid), valid None where there is none.

    Nested lists are refused, as a list of label maps of one sample each looks like a list of batches.
    """
    if hasattr(batch, "shape"):
        return batch, None
    is_pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if not is_pair or not hasattr(batch[0], "shape") or not (batch[1] is None or hasattr(batch[1], "shape")):
        wanted, remedy = "arrays int[n, L, H, W], or pairs of (labels, valid)", "convert with numpy.asarray first"
        raise InputError("labels", wanted=wanted, got=f"a batch of type {type(batch).__name__}", remedy=remedy)
    return batch[0], batch[1]


def check_layers(labels: Any, valid: Any) -> tuple[npt.NDArray[Any], Flags | None]:
    """Check one batch: int[n, L, H, W] or int[n, H, W], bool[n, H, W] or None -> int[n, L, H, W]."""
    array = as_array(labels, "labels")
    if array.dtype.kind not in "iu":
        remedy = "masks, one bool per concept, go to Concepts.from_masks; ids must be integers"
        raise DTypeError("labels", wanted="integer ids", got=describe(array), remedy=remedy)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape[1:]:
        remedy = "give one id per layer and cell"
        raise ShapeError("labels", wanted="int[N, L, H, W] or int[N, H, W]", got=describe(array), remedy=remedy)
    if valid is None:
        return array, None
    flags = as_array(valid, "valid")
    if flags.shape == array.shape[:3] and array.shape[2:] != array.shape[1:3]:
        wanted, got = "labels [N, L, H, W] on the grid of valid", f"{describe(array)} beside {describe(flags)}"
        raise ShapeError("labels", wanted=wanted, got=got, remedy=_LAYERS_SECOND)
    return array, check_valid(flags, array.shape[0], array.shape[2:])


def check_layer_count(layers: npt.NDArray[Any], n_names: int) -> None:
    """Raise where [n, L, H, W] has more layers than names, and looks like [n, H, W, L]."""
    if layers.shape[3] <= n_names and layers.shape[1] > max(n_names, _MOST_LAYERS):
        wanted = f"labels [N, L, H, W] of at most {n_names} layers, the number of names"
        raise ShapeError("labels", wanted=wanted, got=describe(layers), remedy=_LAYERS_SECOND)


def check_valid(valid: npt.NDArray[Any], n_samples: int, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return `valid` if it is bool[n_samples, H, W], else raise `ShapeError`."""
    wanted = (n_samples, *shape)
    if valid.dtype != np.bool_ or valid.shape != wanted:
        remedy = "give one bool per cell, False where it shall not count"
        raise ShapeError("valid", wanted=f"bool{list(wanted)}", got=describe(valid), remedy=remedy)
    return valid


def label_batches(layers: npt.NDArray[Any], flags: Flags | None) -> Iterator[tuple[npt.NDArray[Any], Flags | None]]:
    """Cut what `check_layers` returned into batches of about 4 million cells."""
    size = max(1, (1 << 22) // (layers.shape[2] * layers.shape[3]))
    for start in range(0, layers.shape[0], size):
        stop = start + size
        yield layers[start:stop], None if flags is None else flags[start:stop]


def require_memory(argument: str, n_samples: int, shape: tuple[int, int]) -> None:
    """Raise `MemoryBudgetError` unless the atoms of `n_samples` fit into memory."""
    # The cell map (2 bytes per cell), its parts before they are joined, and a fifth for entries and atoms.
    need = int(n_samples * shape[0] * shape[1] * 2 * 2.2)
    memory.require_bytes(argument, need, "use fewer samples or a coarser grid")


class MaskSource:
    """Masks of any accepted kind, read as packed batches uint64[n, C, n_words]."""

    def __init__(self, masks: Any, shape: tuple[int, int] | None) -> None:
        self._sparse = isinstance(masks, (list, tuple)) and bool(masks) and all(hasattr(m, "tocsr") for m in masks)
        if self._sparse:
            self._masks: Any = [_checked_sparse(mask) for mask in masks]
            self.n_samples = self._masks[0].shape[0]
            self.shape = sides("shape", shape, "pass the grid of the masks")
            wanted = (self.n_samples, self.shape[0] * self.shape[1])
            for mask in self._masks:
                if mask.shape != wanted:
                    remedy = "one row per sample, one column per cell"
                    raise ShapeError("masks", wanted=f"sparse {list(wanted)}", got=str(list(mask.shape)), remedy=remedy)
            self.n_concepts = len(self._masks)
            return
        self._masks = array = as_array(masks, "masks")
        if array.dtype == np.bool_:
            if array.ndim != 4:
                remedy = "one mask per concept and sample; for sets of other grids use H = 1"
                raise ShapeError("masks", wanted="bool[C, N, H, W]", got=describe(array), remedy=remedy)
            self.shape = array.shape[2:]
            if shape is not None and sides("shape", shape, "leave shape out: dense masks have their own") != self.shape:
                remedy = "leave shape out: dense masks have their own"
                raise ShapeError("masks", wanted=f"a grid of {shape}", got=describe(array), remedy=remedy)
        elif array.dtype == np.uint64 and shape is not None:
            self.shape = sides("shape", shape, "pass the grid of the masks")
            n_words = rows.n_words(self.shape[0] * self.shape[1])
            if array.ndim != 3 or array.shape[2] != n_words:
                remedy = "pack bool[C, N, H * W] with ccx.kernels.pack"
                raise ShapeError("masks", wanted=f"uint64[C, N, {n_words}]", got=describe(array), remedy=remedy)
        else:
            remedy = (
                "write masks.astype(bool) for masks of 0 and 1; label maps go to "
                "Concepts.from_label_maps(labels, names); packed masks need shape=(H, W)"
            )
            raise DTypeError("masks", wanted="bool[C, N, H, W]", got=describe(array), remedy=remedy)
        self.n_concepts, self.n_samples = array.shape[:2]
        if 0 in (self.n_concepts, *self.shape):
            remedy = "check where the masks come from"
            raise ShapeError("masks", wanted="at least one concept and cell", got=describe(array), remedy=remedy)

    def batches(self, threads: int | None) -> Iterable[tuple[int, npt.NDArray[np.uint64]]]:
        """Yield (first sample, uint64[n, C, n_words]) of about 64 MB of cells each."""
        n_cells = self.shape[0] * self.shape[1]
        size = max(1, _MASK_BATCH_BYTES // max(1, self.n_concepts * n_cells))
        for start in range(0, self.n_samples, size):
            stop = min(start + size, self.n_samples)
            if self._sparse:
                dense = np.stack([mask[start:stop].toarray() != 0 for mask in self._masks], axis=1)
                packed = rows.pack(dense, threads=threads)
            elif self._masks.dtype == np.bool_:
                part = np.moveaxis(self._masks[:, start:stop], 0, 1)
                packed = rows.pack(part.reshape(stop - start, self.n_concepts, n_cells), threads=threads)
            else:
                packed = np.ascontiguousarray(np.moveaxis(self._masks[:, start:stop], 0, 1))
                rows.check_padding("masks", packed, n_cells)
            yield start, packed


def _checked_sparse(mask: Any) -> Any:
    """Return a sparse mask in rows; raise unless its entries are 0 and 1, where they say to be."""
    rows_of = checked_sparse(mask, "masks").tocsr()
    if rows_of.dtype.kind not in "biuf" or not np.isin(rows_of.data, (0, 1)).all():
        remedy = "compare first: mask != 0; label maps go to Concepts.from_label_maps(labels, names)"
        raise DTypeError("masks", wanted="sparse masks of 0 and 1", got=f"{rows_of.dtype}", remedy=remedy)
    return rows_of
