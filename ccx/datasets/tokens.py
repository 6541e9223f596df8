"""Texts: concepts over positions."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.concepts.sources import check_names
from ccx.datasets.tables import read_table
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.pipeline.running import Progress, progress_reporter

_COLUMNS = ("sample", "position", "concept")


def token_concepts(
    table: Any,
    names: Sequence[str] | None = None,
    *,
    categories: Sequence[str] | None = None,
    lengths: Any = None,
    n_samples: int | None = None,
    n_positions: int | None = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
) -> Concepts:
    """Build the concepts of N texts of T positions, on a grid of 1×T cells.

    Parameters
    ----------
    table
        One row for each concept of a token: (sample, position, concept), with samples and positions from 0. A .csv or
        .tsv file or a data frame with these columns; a mapping from these names to arrays, or three arrays in this
        order. Or bool[N, T, C].
    names
        C names. Concepts of a table may be names, or ids 1..C where these are given; by default the names in the order
        in which the table first has them.
    categories
        The category of each name.
    lengths
        int[N]: the number of tokens of each text; positions behind them are padding, which counts nowhere.
    n_samples, n_positions
        N and T; by default those of `lengths` and of the highest row.
    threads, progress
        As for `Concepts.from_masks`; `progress` may be a bool, too.

    Raises
    ------
    InputError, ShapeError, DTypeError
        If a row lies outside the texts or on padding, or names a concept that is not there: says which row.
    StoreError
        If the file cannot be read.

    """
    masks: Any
    if getattr(table, "ndim", 0) == 3:
        masks, names = _dense(table, names)
        n, n_cells = masks.shape[1], masks.shape[3]
    else:
        samples, positions, concepts = _columns(table)
        chosen, ids = _named(concepts, names)
        counts = None if lengths is None else _integers(lengths, "lengths")
        n = _extent("n_samples", n_samples, samples, 0 if counts is None else counts.size)
        n_cells = _extent("n_positions", n_positions, positions, 0 if counts is None else int(counts.max(initial=0)))
        masks, names = _sparse(samples, positions, ids, (len(chosen), n, n_cells)), chosen
    valid = None
    if lengths is not None:
        counts = _integers(lengths, "lengths")
        if counts.shape != (n,) or counts.min() < 0 or counts.max() > n_cells:
            got = f"{counts.size} of {counts.min(initial=0)} to {counts.max(initial=0)}"
            remedy = "give the number of tokens of each text"
            raise InputError("lengths", wanted=f"{n} numbers from 0 to {n_cells}", got=got, remedy=remedy)
        valid = (np.arange(n_cells) < counts[:, None])[:, None, :]
        _check_padding(masks, valid)
    with progress_reporter(progress, "building concepts") as report:
        return Concepts.from_masks(
            masks, names, (1, n_cells), categories=categories, valid=valid, threads=threads, progress=report
        )


def _dense(table: Any, names: Sequence[str] | None) -> tuple[npt.NDArray[np.bool_], list[str] | None]:
    array = np.asarray(table)
    if array.dtype != np.bool_:
        remedy = "write table.astype(bool)"
        raise DTypeError("table", wanted="bool[N, T, C]", got=f"{array.dtype}{list(array.shape)}", remedy=remedy)
    if 0 in array.shape:
        remedy = "give at least one text, position and concept"
        raise ShapeError("table", wanted="bool[N, T, C]", got=f"bool{list(array.shape)}", remedy=remedy)
    return np.ascontiguousarray(np.moveaxis(array, 2, 0)[:, :, None, :]), None if names is None else list(names)


def _columns(table: Any) -> list[npt.NDArray[Any]]:
    """Return sample, position and concept of each row."""
    if isinstance(table, (str, Path)):
        path = Path(table)
        found = read_table(path, "\t" if path.suffix.lower() == ".tsv" else ",")
        concepts = [cells[found.column("concept")] for _, cells in found.rows]
        columns: list[Any] = [*(list(found.numbers(name)) for name in _COLUMNS[:2]), concepts]
    elif isinstance(table, Mapping) or hasattr(table, "columns"):
        if missing := [name for name in _COLUMNS if name not in table]:
            got = f"no {', '.join(missing)}"
            raise InputError("table", wanted=f"the columns {', '.join(_COLUMNS)}", got=got, remedy="rename them")
        columns = [table[name] for name in _COLUMNS]
    else:
        columns = list(table) if isinstance(table, (list, tuple)) else []
        if len(columns) != 3:
            wanted = "a file, a data frame, three arrays, or bool[N, T, C]"
            remedy = "give one row a concept of a token"
            raise InputError("table", wanted=wanted, got=type(table).__name__, remedy=remedy)
    arrays = [_integers(columns[0], "sample"), _integers(columns[1], "position"), np.asarray(columns[2])]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        got = ", ".join(str(list(array.shape)) for array in arrays)
        raise ShapeError("table", wanted="three columns of one length", got=got, remedy="give one row a concept")
    return arrays


def _integers(values: Any, argument: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise DTypeError(argument, wanted="integers", got=str(array.dtype), remedy="convert with astype(int)")
    return array.astype(np.int64)


def _named(concepts: npt.NDArray[Any], names: Sequence[str] | None) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the names, and the index of each row's concept."""
    if concepts.size and concepts.dtype.kind in "iu":
        if names is None:
            raise InputError("names", wanted="names beside ids", got="none", remedy="give the name of each id 1..C")
        known = check_names(names)
        wrong = np.flatnonzero((concepts < 1) | (concepts > len(known)))
        if wrong.size:
            raise _row_error(
                int(wrong[0]), f"ids 1..{len(known)}", f"id {concepts[wrong[0]]}", "give a name to every id"
            )
        return known, concepts.astype(np.int64) - 1
    texts = [str(concept) for concept in concepts]
    known = check_names(list(dict.fromkeys(texts)) if names is None else names)
    index = {name: number for number, name in enumerate(known)}
    for row, text in enumerate(texts):
        if text not in index:
            raise _row_error(row, "one of the names", repr(text), "add it to names")
    return known, np.array([index[text] for text in texts], np.int64)


def _extent(argument: str, given: int | None, values: npt.NDArray[np.int64], least: int) -> int:
    """Return N or T, after a check that all rows lie within."""
    extent = max(int(values.max(initial=-1)) + 1, least) if given is None else operator.index(given)
    wrong = np.flatnonzero((values < 0) | (values >= extent))
    if wrong.size:
        what = argument.removeprefix("n_").removesuffix("s")
        row = int(wrong[0])
        raise _row_error(row, f"a {what} from 0 to {extent - 1}", str(values[row]), f"count from 0, or give {argument}")
    if extent < 1:
        raise InputError("table", wanted="at least one row", got="none", remedy=f"give rows, or {argument}")
    return extent


def _row_error(row: int, wanted: str, got: str, remedy: str) -> InputError:
    return InputError("table", wanted=wanted, got=f"{got} in row {row} (from 0)", remedy=remedy)


def _sparse(
    samples: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
    shape: tuple[int, int, int],
) -> list[Any]:
    """Return one sparse mask [N, T] a concept."""
    from scipy import sparse  # noqa: PLC0415 - only for tables

    n_concepts, *grid = shape
    order = np.argsort(ids, kind="stable")
    starts = np.searchsorted(ids[order], np.arange(n_concepts + 1))
    masks = []
    for concept in range(n_concepts):
        rows = order[starts[concept] : starts[concept + 1]]
        ones = np.ones(rows.size, np.int32)
        masks.append(sparse.coo_array((ones, (samples[rows], positions[rows])), shape=tuple(grid)).tocsr())
    return masks


def _check_padding(masks: Any, valid: npt.NDArray[np.bool_]) -> None:
    """Raise if a concept stands on padding."""
    for concept, mask in enumerate(masks):
        coordinates = mask.nonzero() if hasattr(mask, "tocsr") else np.nonzero(mask[:, 0])
        wrong = ~valid[:, 0][coordinates]
        if wrong.any():
            sample, position = (int(axis[wrong][0]) for axis in coordinates)
            got = f"concept {concept + 1} at position {position} of text {sample}, which is padding"
            raise InputError("lengths", wanted="concepts on tokens only", got=got, remedy="correct lengths or table")
