"""Tables and names in text files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccx.errors import InputError
from ccx.store import PathLike
from ccx.store.files import parse_json, read_bytes, store_error

_ID_COLUMNS = ("id", "idx", "index", "number")


class Named(NamedTuple):
    """Names of concepts: the ids that stand for them in files, and their categories if known."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...] | None


class Table(NamedTuple):
    """A table with a head line: its columns, and its rows with their line numbers."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, name: str) -> int:
        """Return where a column stands, or raise `StoreError`."""
        if name not in self.columns:
            problem = f"no column {name!r}, only {', '.join(self.columns)}"
            raise store_error(self.path, problem, "give the file as published, with its head line")
        return self.columns.index(name)

    def numbers(self, name: str) -> Iterator[int]:
        """Yield the whole numbers of a column, or raise `StoreError` with the line."""
        at = self.column(name)
        for line, row in self.rows:
            if not row[at].strip().isdecimal():
                where, problem = f"{self.path}, line {line}", f"{name} is {row[at]!r:.40}, no number"
                raise store_error(where, problem, "repair it")
            yield int(row[at])


def read_table(path: Path, delimiter: str = ",") -> Table:
    """Read a table with a head line.

    Raises
    ------
    StoreError
        If the file cannot be read, or a row has not as many cells as the head line.

    """
    lines = _text(path).splitlines()
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        rows = [(reader.line_num, tuple(row)) for row in reader if row]
    except csv.Error as error:
        raise store_error(path, f"no table ({error})", "give a text file of comma-separated values") from error
    if not rows:
        raise store_error(path, "empty", "give a table with a head line")
    columns = tuple(cell.strip() for cell in rows[0][1])
    for line, row in rows[1:]:
        if len(row) != len(columns):
            where, problem = f"{path}, line {line}", f"{len(row)} cells under {len(columns)} columns"
            raise store_error(where, problem, "it is truncated or damaged: copy it again")
    return Table(path, columns, tuple(rows[1:]))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without white space around them; empty ones are left out."""
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def named(names: Any, first_id: int = 1) -> Named:
    """Return what `names` says: of whatever kind a user may have it.

    Parameters
    ----------
    names
        A list of names, whose first belongs to `first_id`; a mapping from ids to names; or a file: .txt, one name a
        line; .csv, or with tabs .tsv or .txt, with a head line and the columns name, and perhaps id (or idx, index,
        number) and category; .json, a list, a mapping, or an object with ``names`` and perhaps ``categories``.
    first_id
        The id of the first name where there are no ids beside the names.

    Raises
    ------
    InputError
        If names or ids are missing or occur twice.
    StoreError
        If the file cannot be read.

    """
    ids: list[int] | None = None
    categories: Sequence[str] | None = None
    if isinstance(names, (str, Path)):
        names, ids, categories = _read_names(Path(names))
    if isinstance(names, Mapping):
        try:
            ids = [int(number) for number in names]
        except (TypeError, ValueError) as error:
            got = f"{list(names)[:3]!r:.60}"
            raise InputError("names", wanted="ids as keys", got=got, remedy="write {1: 'sky', ...}") from error
        names = names.values()
    texts = list(names)
    if ids is None:
        ids = list(range(first_id, first_id + len(texts)))
    if min(ids, default=0) < 0 or len(set(ids)) < len(ids):
        remedy = "give each name one id of at least 0"
        raise InputError("names", wanted="distinct ids", got=f"{sorted(ids)[:8]}", remedy=remedy)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    kinds = None if categories is None else tuple(categories[k] for k in order)
    return Named(tuple(ids[k] for k in order), tuple(texts[k] for k in order), kinds)


def unique_names(names: Sequence[str], qualifiers: Sequence[str]) -> list[str]:
    """Return the names, with ``(qualifier)`` behind those that occur more than once."""
    repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [
        f"{name} ({qualifier})" if name in repeated else name for name, qualifier in zip(names, qualifiers, strict=True)
    ]


def _read_names(path: Path) -> tuple[Any, list[int] | None, Sequence[str] | None]:
    """Read a file of names -> (names, or a mapping from ids; ids beside them; categories)."""
    match path.suffix.lower():
        case ".txt" | ".csv" | ".tsv" as suffix:
            head = _text(path).partition("\n")[0]
            if suffix == ".txt" and "\t" not in head:
                return read_lines(path), None, None
            return _names_of_table(read_table(path, "," if suffix == ".csv" else "\t"))
        case ".json":
            found = parse_json(read_bytes(path), path)
            if isinstance(found, dict) and "names" in found:
                return found["names"], None, found.get("categories")
            if isinstance(found, (list, dict)):
                return found, None, None
            raise store_error(path, "no list or mapping of names", 'write ["sky", ...] or {"1": "sky", ...}')
    raise store_error(path, f"{path.suffix or 'no suffix'} is no known kind", "give .txt, .csv, .tsv or .json")


def _names_of_table(table: Table) -> tuple[list[str], list[int] | None, list[str] | None]:
    lower = Table(table.path, tuple(column.lower() for column in table.columns), table.rows)
    at = lower.column("name")
    texts = [row[at] for _, row in lower.rows]
    kinds = [row[lower.column("category")] for _, row in lower.rows] if "category" in lower.columns else None
    column = next((column for column in _ID_COLUMNS if column in lower.columns), None)
    return texts, None if column is None else list(lower.numbers(column)), kinds


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise store_error(path, f"no UTF-8 text ({error.reason})", "save it as UTF-8") from error


def path_of(argument: str, path: PathLike, *, folder: bool) -> Path:
    """Return a path that is there, or raise `InputError`."""
    found = Path(path)
    if not (found.is_dir() if folder else found.is_file()):
        got = f"{found}, which is {'no folder' if folder else 'no file'}" if found.exists() else f"nothing at {found}"
        wanted = "a folder" if folder else "a file"
        raise InputError(argument, wanted=wanted, got=got, remedy="check the path")
    return found
