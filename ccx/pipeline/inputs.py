"""What `explain` accepts, checked before long work starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.checks import integer, items, shown
from ccx.clustering import check_ranges
from ccx.concepts import Concepts
from ccx.concepts.exclusion import as_positions
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import rows
from ccx.kernels.conversion import as_array, describe, reordered, require_host
from ccx.keys import require_same_samples, require_samples_second

_MOST_UNITS = 1 << 31
_MANY_UNITS = 1 << 16  # whose list takes more than 4 MB


def as_concepts(concepts: Any, names: Any, threads: int | None, data: Any, argument: str) -> Concepts:
    """Return `concepts` as they are, or masks bool[C, N, H, W] wrapped, called `names`, or "1".."C".

    `data` is what they annotate, where its shape is known; the samples of "bitmaps" come second.
    """
    if isinstance(concepts, Concepts):
        if names is not None:
            wanted, got = "None beside Concepts, which have names", shown(names)
            remedy = "only= chooses the concepts that may occur in formulas"
            raise InputError("names", wanted=wanted, got=got, remedy=remedy)
        return concepts
    require_host(concepts, "concepts", "annotations")
    shapes: list[Any] = [getattr(value, "shape", None) for value in (concepts, data)]
    shape, theirs = (found if isinstance(found, tuple) else () for found in shapes)
    axis = 1 if argument == "bitmaps" else 0
    if len(shape) == 4 and len(theirs) > axis and shape[1] != theirs[axis] == shape[0]:
        remedy = "samples come second: numpy.swapaxes(concepts, 0, 1)"
        got, wanted = f"{list(shape)} beside {theirs[axis]} samples", "masks bool[C, N, H, W]"
        raise ShapeError("concepts", wanted=wanted, got=got, remedy=remedy)
    return Concepts.from_masks(concepts, names, threads=threads)


def check_units(units: Iterable[int] | None, n_units: int) -> list[int]:
    """Return the units to explain, ascending, each once; None = all."""
    if n_units > _MOST_UNITS:  # of a view that repeats one value
        remedy = "explain fewer at a time"
        raise InputError("activations", wanted=f"at most {_MOST_UNITS} units", got=str(n_units), remedy=remedy)
    if units is None:
        if n_units > _MANY_UNITS:
            memory.require_bytes("units", 64 * n_units, "choose some with units=")  # their list, and the jobs
        return list(range(n_units))
    if not isinstance(units, Iterable):
        raise InputError("units", wanted="a list of units", got=shown(units), remedy=f"write units=[{shown(units)}]")
    chosen = set()
    for unit in items("units", units, "a list of units"):
        wanted = f"integers from 0 to {n_units - 1}"
        chosen.add(integer("units", unit, 0, n_units - 1, "give indices of units", wanted))
    if not chosen:
        raise InputError("units", wanted="at least one unit", got="none", remedy="leave it out to explain all")
    return sorted(chosen)


def require_valid_cells(concepts: Concepts, argument: str) -> None:
    """Raise if no cell is valid, so that no activation counts; `argument` says which samples these are."""
    if not concepts.n_cells:
        remedy = "check valid, lengths and exclude"
        raise InputError(argument, wanted="at least one valid cell", got="none that counts", remedy=remedy)


def without_positions(
    concepts: Concepts, exclude: Any, grid: tuple[int, int], published: bool, threads: int | None
) -> Concepts:
    """Return concepts without the cells of positions of activations on a grid h×w.

    Raises
    ------
    DTypeError, ShapeError, InputError
        If these are no such positions, or ranges are found as published, which leaves nothing out.

    """
    if published:
        remedy = "leave one of the two out: published ranges come from all positions"
        raise InputError("exclude", wanted="None with published=True", got="positions", remedy=remedy)
    require_same_samples("exclude", exclude, concepts)
    flags = as_positions(exclude, concepts.n_samples, concepts.shape)
    if flags.shape[1:] != grid:
        wanted, got = f"positions of the activations' grid {grid}", f"{flags.shape[1:]}"
        raise ShapeError("exclude", wanted=wanted, got=got, remedy="give one flag for each position of the activations")
    return concepts.excluding(flags, threads=threads)


def not_finite(units: list[int]) -> InputError:
    """Return the error to raise where activations of these units are not finite."""
    shown = ", ".join(map(str, units[:10])) + (f" and {len(units) - 10} more" if len(units) > 10 else "")
    got = f"NaN, infinity or a value beyond float32 in unit{'s' if len(units) > 1 else ''} {shown}"
    remedy = "mend the model, or choose other units with units="
    return InputError("activations", wanted="finite values", got=got, remedy=remedy)


def check_given_ranges(ranges: Any, units: list[int], n_units: int) -> list[npt.NDArray[np.float64]]:
    """Return each chosen unit's ranges float64[K, 2], from [K, 2] for all units or [U, K, 2], one entry per unit.

    They are sorted, as clusters are numbered in ascending order.
    """
    given = as_array(ranges, "ranges")
    require_host(given, "ranges", "ranges")
    if given.ndim != 3:
        return [_ascending(check_ranges(given))] * len(units)
    if given.shape[0] not in (n_units, len(units)):
        remedy = "give [K, 2] for all units, or one entry per unit"
        raise ShapeError("ranges", wanted=f"numbers[{n_units}, K, 2]", got=describe(given), remedy=remedy)
    rows_of = units if given.shape[0] == n_units else range(len(units))
    return [_ascending(check_ranges(given[row])) for row in rows_of]


def _ascending(ranges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return ranges[np.lexsort((ranges[:, 1], ranges[:, 0]))]


def as_bitmaps(bitmaps: Any, concepts: Concepts, threads: int | None) -> npt.NDArray[np.uint64]:
    """Return bitmaps bool[M, N, H, W], or packed uint64[M, N, n_words], as packed rows.

    Raises
    ------
    DTypeError, ShapeError, InputError
        If they are of another kind, do not fit the concepts, or have ones in their padding.

    """
    require_samples_second("bitmaps", bitmaps)
    array = as_array(bitmaps, "bitmaps")
    n_samples, (height, width) = concepts.n_samples, concepts.shape
    n_words = rows.n_words(height * width)
    if array.dtype == np.bool_ and array.ndim == 4:
        memory.require_bytes("bitmaps", array.shape[0] * n_samples * n_words * 8, "explain fewer at a time")
    if array.dtype == np.bool_ and array.ndim == 4 and array.shape[1:] == (n_samples, height, width):
        packed: npt.NDArray[np.uint64] = rows.pack(
            array.reshape(array.shape[0], n_samples, height * width), threads=threads
        )
        return packed
    if array.dtype == np.uint64 and array.ndim == 3 and array.shape[1:] == (n_samples, n_words):
        rows.check_padding("bitmaps", array, height * width)
        given: npt.NDArray[np.uint64] = array
        return given
    wanted = f"bool[M, {n_samples}, {height}, {width}] or packed uint64[M, {n_samples}, {n_words}]"
    kind = ShapeError if array.dtype in (np.bool_, np.uint64) else DTypeError
    order = (None, n_samples, height, width) if array.ndim == 4 else (None, n_samples, n_words)
    remedy = reordered("bitmaps", array.shape, order) if kind is ShapeError else "compare first: bitmaps != 0"
    raise kind("bitmaps", wanted=wanted, got=describe(array), remedy=remedy or "bring them to the grid of the concepts")
