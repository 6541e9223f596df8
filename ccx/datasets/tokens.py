"""Texts: concepts over positions."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.concepts import Concepts
from ccx.concepts.annotations import check_names, name_problem, whole_number
from ccx.datasets.tables import Named, line_error, named, read_table
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.jobs import Progress, progress_reporter
from ccx.keys import Keys, as_key, check_keys
from ccx.store.files import store_error

_COLUMNS = ("sample", "position", "concept")


def token_concepts(  # noqa: PLR0913 - public keywords
    table: Any,
    names: Any = None,
    *,
    categories: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
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
        C names: a list, a mapping from ids, or a file (`ccx.datasets.tables.named`). Concepts of a table may be names,
        or ids where these are given (1..C of a list); by default the names in the order in which the table first has
        them.
    categories
        The category of each name; by default those of the file of names.
    keys
        Who the texts are: N distinct keys (`ccx.keys`). The samples of a table may then be keys, too.
    lengths
        int[N]: the number of tokens of each text; positions behind them are padding, which counts nowhere.
    n_samples, n_positions
        N and T; by default those of `keys`, of `lengths`, and of the highest row.
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
    known = None if names is None else named(names)
    texts = None if known is None else known.names
    if categories is None and known is not None:
        categories = known.categories
    checked = None if keys is None else check_keys("keys", keys, n_samples)
    if getattr(table, "ndim", 0) == 3:
        masks = _dense(table)
        n, n_cells = masks.shape[1], masks.shape[3]
    else:
        samples, positions, concepts = _columns(table, checked)
        texts, ids = _named(concepts, known)
        counts = None if lengths is None else _integers(lengths, "lengths")
        n_samples = n_samples if checked is None else len(checked)
        n = _extent("n_samples", n_samples, samples, 0 if counts is None else counts.size)
        n_cells = _extent("n_positions", n_positions, positions, 0 if counts is None else int(counts.max(initial=0)))
        # Where each concept's texts begin, and the cell map.
        remedy = "check the numbers of samples and positions, or use fewer"
        memory.require_bytes("n_samples", 8 * len(texts) * n + 2 * n * n_cells, remedy)
        masks = _sparse(samples, positions, ids, (len(texts), n, n_cells))
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
            masks,
            texts,
            (1, n_cells),
            categories=categories,
            keys=checked,
            valid=valid,
            threads=threads,
            progress=report,
        )


def _dense(table: Any) -> npt.NDArray[np.bool_]:
    array = np.asarray(table)
    if array.dtype != np.bool_:
        remedy = "write table.astype(bool)"
        raise DTypeError("table", wanted="bool[N, T, C]", got=f"{array.dtype}{list(array.shape)}", remedy=remedy)
    if 0 in array.shape:
        remedy = "give at least one text, position and concept"
        raise ShapeError("table", wanted="bool[N, T, C]", got=f"bool{list(array.shape)}", remedy=remedy)
    return np.ascontiguousarray(np.moveaxis(array, 2, 0)[:, :, None, :])


def _columns(table: Any, keys: Keys | None) -> list[npt.NDArray[Any]]:
    """Return sample, position and concept of each row."""
    if isinstance(table, (str, Path)):
        columns: list[Any] = _read_columns(Path(table), keys)
    elif isinstance(table, Mapping) or hasattr(table, "columns"):
        if missing := [name for name in _COLUMNS if name not in table]:
            got = f"no {', '.join(missing)}"
            raise InputError("table", wanted=f"the columns {', '.join(_COLUMNS)}", got=got, remedy="rename them")
        columns = [table[name] for name in _COLUMNS]
    else:
        columns = list(table) if isinstance(table, (list, tuple)) else []
        if len(columns) != 3:
            wanted = "a file, a data frame, three arrays, or bool[N, T, C]"
            remedy = "give one row per concept of a token"
            raise InputError("table", wanted=wanted, got=type(table).__name__, remedy=remedy)
    arrays = [_numbered(columns[0], keys), _integers(columns[1], "position"), _concepts(columns[2])]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        got = ", ".join(str(list(array.shape)) for array in arrays)
        raise ShapeError("table", wanted="three columns of one length", got=got, remedy="give one row per concept")
    return arrays


def _read_columns(path: Path, keys: Keys | None) -> list[Any]:
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        remedy = "give .csv or .tsv, or a data frame, as of pandas.read_parquet"
        raise store_error(path, f"{path.suffix or 'no suffix'} is no known kind", remedy)
    found = read_table(path, _COLUMNS)
    at = found.column("concept")
    for line, cells in found.rows:
        if problem := name_problem(cells[at]):
            raise line_error(path, line, f"the concept is {problem}", "name it, or delete the row")
    samples: Sequence[Any] = [cells[found.column("sample")] for _, cells in found.rows]
    if not set(map(as_key, samples)) <= set(keys or ()):
        samples = list(found.numbers("sample"))
    return [samples, list(found.numbers("position")), [cells[at] for _, cells in found.rows]]


def _numbered(samples: Any, keys: Keys | None) -> npt.NDArray[np.int64]:
    """Return the number of each row's sample, which may be given by its key."""
    texts = np.asarray(samples)
    if keys is None or not texts.size or texts.dtype.kind in "iu":
        return _integers(samples, "sample")
    places = {key: place for place, key in enumerate(keys)}
    named_by = [as_key(str(text)) for text in texts.tolist()]
    for row, text in enumerate(named_by):
        if text not in places:
            raise _row_error(row, "samples that are keys", repr(text), "add it to keys, or give numbers from 0")
    found = np.array([places[text] for text in named_by], np.int64)
    as_numbers = [int(text) if text.isdecimal() else -1 for text in named_by]
    if found.tolist() != as_numbers and 0 <= min(as_numbers) <= max(as_numbers) < len(keys):
        remedy = "give the samples as integers, or keys that are no numbers"
        raise InputError("table", wanted="samples that are keys or numbers", got="both at once", remedy=remedy)
    return found


def _integers(values: Any, argument: str) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        remedy = "give one number each"
        raise DTypeError(argument, wanted="integers", got=type(values).__name__, remedy=remedy) from error
    if array.size and array.dtype.kind not in "iu":
        raise DTypeError(argument, wanted="integers", got=str(array.dtype), remedy="convert with astype(int)")
    return array.astype(np.int64)


def _concepts(values: Any) -> npt.NDArray[Any]:
    """Return an array of ids, or of texts as objects."""
    # NumPy makes texts of what stands beside texts in a list: of 1, None and NaN as well.
    array = np.asarray(values, dtype=object if isinstance(values, (list, tuple)) else None)
    if array.dtype.kind == "O" and array.ndim == 1 and all(whole_number(value) is not None for value in array):
        is_text = any(isinstance(value, str) for value in array)
        return array if is_text else array.astype(np.int64)
    return array if array.dtype.kind in "iu" else array.astype(object)


def _named(concepts: npt.NDArray[Any], known: Named | None) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the names, and the index of each row's concept."""
    if concepts.size and concepts.dtype.kind in "iu":
        if known is None:
            raise InputError("names", wanted="names beside ids", got="none", remedy="give the name of each id 1..C")
        ids = np.array(known.ids)
        at = np.minimum(np.searchsorted(ids, concepts), ids.size - 1)
        wrong = np.flatnonzero(ids[at] != concepts)
        if wrong.size:
            wanted = f"ids 1..{ids.size}" if known.ids == tuple(range(1, ids.size + 1)) else f"one of {ids.size} ids"
            raise _row_error(int(wrong[0]), wanted, f"id {concepts[wrong[0]]}", "give a name to every id")
        return known.names, at.astype(np.int64)
    rows: dict[str, int] = {}  # the first of each text
    for row, concept in enumerate(concepts):
        if not isinstance(concept, str):
            remedy = "leave out rows without a concept; convert others to texts, or all to integer ids"
            raise _row_error(row, "names", f"{name_problem(concept)}", remedy)
        rows.setdefault(str(concept), row)
    for text, row in rows.items():
        if name_problem(text):
            raise _row_error(row, "a name", f"one that is {name_problem(text)}", "name it, or leave out the row")
    names = check_names(list(rows)) if known is None else known.names
    index = {name: number for number, name in enumerate(names)}
    for text, row in rows.items():
        if text not in index:
            raise _row_error(row, "one of the names", repr(text), "add it to names")
    return names, np.array([index[text] for text in concepts], np.int64)


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
    """Return one sparse mask [N, T] per concept."""
    from scipy import sparse  # noqa: PLC0415 - only for tables

    n_concepts, *grid = shape
    order = np.argsort(ids, kind="stable")
    starts = np.searchsorted(ids[order], np.arange(n_concepts + 1))
    masks = []
    for concept in range(n_concepts):
        rows = order[starts[concept] : starts[concept + 1]]
        ones = np.ones(rows.size, np.int32)
        counts = sparse.coo_array((ones, (samples[rows], positions[rows])), shape=tuple(grid)).tocsr()
        masks.append(counts.astype(np.bool_))  # a token may be named twice
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
