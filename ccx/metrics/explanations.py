"""The metrics of explanations that were found: what a table of results reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ccx.checks import items, require_callable, require_kind
from ccx.concepts import Concepts
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import logical_and, pack, popcount, upsample_pack
from ccx.kernels.activations import as_maps
from ccx.kernels.conversion import as_array, describe
from ccx.kernels.rows import as_rows, check_padding, n_words
from ccx.keys import require_same_samples, require_samples_second
from ccx.metrics.overlap import Overlap
from ccx.results import Explanation
from ccx.typing import PackedRows


def measure(
    found: Iterable[Explanation],
    activations: Any,
    concepts: Concepts,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[dict[str, Any]]:
    """Return every metric of every explanation, one record each: ``pandas.DataFrame(records)`` is the table.

    The samples may be others than those that the formulas were found on, so that formulas can be tested
    on data held back.

    Parameters
    ----------
    found
        What `ccx.explain` or `ccx.explain_bitmaps` returned, or some of it.
    activations
        What they were given: activations float[N, U], [N, U, T] or [N, U, h, w]; or bitmaps
        bool[M, N, H, W] or packed uint64[M, N, n_words].
    concepts
        `Concepts` of the same N samples. Cells that are not valid count nowhere, and not in the size of a sample.
    threads
        Processors to use; None = all available. The result does not depend on it.
    progress
        Called with (explanations done, explanations in all).

    Returns
    -------
    list of dict
        ``unit``, ``range_index``, ``lower`` and ``upper`` (None without a range), ``formula`` (text; None without
        one, whose mask is empty), and the metrics by their names (`Overlap.to_dict`) as floats.

    Raises
    ------
    DTypeError, ShapeError, InputError
        If the arrays do not fit the concepts or the explanations, or the concepts lack a name.

    """
    require_kind("concepts", concepts, Concepts, "ccx.Concepts", "build them from masks or label maps")
    require_callable("progress", progress)
    explained, remedy = [], "pass what ccx.explain returned"
    for item in items("found", found, "explanations", remedy):
        require_kind("found", item, Explanation, "explanations", remedy)
        explained.append(item)
    valid = concepts.valid_rows(threads=threads)
    n_cells: Any = concepts.shape[0] * concepts.shape[1]
    n_cells = n_cells if valid is None else popcount(valid, threads=threads)
    bitmap_of = _bitmaps(activations, concepts, threads)
    records = []
    for done, item in enumerate(explained):
        bitmap = bitmap_of(item)
        bitmap = bitmap if valid is None else logical_and(bitmap, valid, threads=threads)
        if item.formula is None:
            mask = np.zeros_like(bitmap)
        else:
            mask = concepts.mask(item.formula, packed=True, threads=threads)
        overlap = Overlap.of(bitmap, mask, n_cells=n_cells, threads=threads)
        lower, upper = item.range or (None, None)
        record: dict[str, Any]
        formula = None if item.formula is None else str(item.formula)
        record = {"unit": item.unit, "range_index": item.range_index, "lower": lower, "upper": upper}
        record |= {"formula": formula, **{name: float(value) for name, value in overlap.to_dict().items()}}
        records.append(record)
        if progress is not None:
            progress(done + 1, len(explained))
    return records


def _bitmaps(activations: Any, concepts: Concepts, threads: int | None) -> Callable[[Explanation], PackedRows]:
    """Return what gives an explanation's bitmap, packed uint64[N, n_words]."""
    array = as_array(activations, "activations")
    n_samples, shape = concepts.n_samples, concepts.shape
    n_cells = shape[0] * shape[1]
    remedy = "give the samples of the concepts, in the same order"
    if array.dtype.kind == "f":
        require_same_samples("activations", activations, concepts)
        maps = as_maps(array, n_samples, shape)

        def activated(item: Explanation) -> PackedRows:
            _check_unit(item, maps.shape[1])
            if item.range is None and item.formula is not None:
                raise _of_another_kind(got="one of a bitmap", wanted="explanations of activations, with ranges")
            if item.range is None or not item.range[0] < item.range[1]:  # a cluster of one value holds no cell
                return np.zeros((n_samples, n_words(n_cells)), np.uint64)
            return upsample_pack(maps[:, item.unit], shape, item.range, threads=threads)

        return activated
    require_samples_second("activations", activations)
    if array.dtype.kind == "b":
        if array.ndim != 4 or array.shape[1:] != (n_samples, *shape):
            wanted = f"bool[M, {n_samples}, {shape[0]}, {shape[1]}]"
            raise ShapeError("activations", wanted=wanted, got=describe(array), remedy=remedy)
    elif array.dtype.kind == "u":
        array = as_rows(array, "activations", n_cells)
        if array.ndim != 3 or array.shape[1] != n_samples:
            wanted = f"uint64[M, {n_samples}, {array.shape[-1]}]"
            raise ShapeError("activations", wanted=wanted, got=describe(array), remedy=remedy)
        check_padding("activations", array, n_cells)
    else:
        wanted = "activations (floats) or bitmaps (bool or packed uint64)"
        raise DTypeError("activations", wanted=wanted, got=describe(array), remedy="convert them")

    def given(item: Explanation) -> PackedRows:
        _check_unit(item, array.shape[0])
        if item.range is not None:
            raise _of_another_kind(got="one with a range", wanted="explanations of bitmaps")
        bitmap: PackedRows = array[item.unit]
        return bitmap if array.dtype.kind == "u" else pack(bitmap.reshape(n_samples, n_cells), threads=threads)

    return given


def _check_unit(item: Explanation, n_units: int) -> None:
    if not 0 <= item.unit < n_units:
        remedy = "pass what was explained, all units of it"
        raise InputError("activations", wanted=f"unit {item.unit}", got=f"{n_units} units", remedy=remedy)


def _of_another_kind(wanted: str, got: str) -> InputError:
    return InputError("found", wanted=wanted, got=got, remedy="pass the activations or bitmaps that were explained")
