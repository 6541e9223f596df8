"""Text files: tables, lists, and names of concepts."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccx.checks import integer
from ccx.concepts.annotations import check_names, name_problem, names_by_id, whole_number
from ccx.errors import InputError, StoreError
from ccx.store import PathLike
from ccx.store.files import as_path, parse_json, read_bytes, store_error

_ID_COLUMNS = ("id", "idx", "index", "number")
_DELIMITERS = (",", ";", "\t")
_ENCODINGS = {  # the longer marks first: UTF-32's begins like UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NUMBERED = re.compile(r"\d+(\s*[:;,.)=]\s*|\s+)\S")  # a line of a list that holds more than a name


class Named(NamedTuple):
    """Names of concepts: the ids that stand for them in files, ascending, and their categories if known."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...] | None


class Table(NamedTuple):
    """A table with a head line."""

    path: Path
    columns: tuple[str, ...]  # as the head line has them, without white space around
    rows: tuple[tuple[int, tuple[str, ...]], ...]  # the line on which each begins, and its cells
    blank: tuple[int, ...]  # empty lines between rows

    def column(self, name: str) -> int:
        """Return where a column stands, whatever its case; raise `StoreError` where there is none, or several."""
        at = self.columns_called(name)
        if len(at) != 1:
            listed = ", ".join(self.columns)
            problem = f"several columns {name!r}: {listed:.200}" if at else f"no column {name!r}, only {listed:.200}"
            raise store_error(self.path, problem, "give it a head line that names each column once")
        return at[0]

    def columns_called(self, name: str) -> list[int]:
        """Return where columns of this name stand, whatever their case."""
        return [at for at, column in enumerate(self.columns) if column.casefold() == name]

    def texts(self, name: str) -> list[str]:
        """Return the cells of a column without white space around them."""
        at = self.column(name)
        return [row[at].strip() for _, row in self.rows]

    def numbers(self, name: str) -> Iterator[int]:
        """Yield the whole numbers of a column, or raise `StoreError` with the line."""
        at = self.column(name)
        for line, row in self.rows:
            digits = row[at]
            # Most are plain: a call a cell would cost a third of the time that a table takes.
            number = int(digits) if len(digits) < 10 and digits.isdecimal() else whole_number(digits)
            if number is None:
                problem = f"{name} is {row[at]!r:.40}, no whole number of at least 0"
                raise line_error(self.path, line, problem, "repair it")
            yield number


def read_table(path: Path, needs: Sequence[str] = ()) -> Table:
    """Read a table with a head line: RFC 4180, or with tabs or semicolons.

    Cells are separated by tabs in .tsv and .txt files, by commas in others; by what Excel's first line ``sep=;`` says;
    or by the first of comma, semicolon and tab under which the head line has the columns of `needs`. Text in quotes may
    hold all of these, and line breaks. Empty lines are no rows. Raises `StoreError` if the file cannot be read, a row
    has not as many cells as the head line, or a column of `needs` is missing.
    """
    text = read_text(path)
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r'"?sep=(.)"?\r?', first)
    n_before = 0
    if stated:
        text, n_before, delimiter = rest, 1, stated[1]
    else:
        delimiter = _delimiter(path, text, needs)
    records = list(_records(path, text, delimiter, n_before))
    while records and not any(cell.strip() for cell in records[-1][1]):
        records.pop()  # spreadsheets leave them
    blank = tuple(line for line, cells in records if not cells)
    rows = [record for record in records if record[1]]
    if not rows:
        raise store_error(path, "empty", "give a table with a head line")
    columns = tuple(cell.strip() for cell in rows[0][1])
    if mixed := [column for column in columns if any(mark in column for mark in _DELIMITERS if mark != delimiter)]:
        remedy = "separate all columns by commas"
        raise line_error(path, rows[0][0], f"columns separated in two ways: {mixed[0]!r:.80}", remedy)
    for line, cells in rows[1:]:
        if len(cells) != len(columns):
            problem = f"{len(cells)} cells under {len(columns)} columns"
            raise line_error(path, line, problem, "it is truncated or damaged, or text with a comma lacks its quotes")
    table = Table(path, columns, tuple(rows[1:]), blank)
    for name in needs:
        table.column(name)
    return table


def line_error(path: Path, line: int, problem: str, remedy: str) -> StoreError:
    """Return the error to raise about a line of a file."""
    return _error_at(path, f"line {line}", problem, remedy)


def _error_at(path: Path, place: str, problem: str, remedy: str) -> StoreError:
    return store_error(f"{path}, {place}", problem, remedy)


def _delimiter(path: Path, text: str, needs: Sequence[str]) -> str:
    usual = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","
    for delimiter in (usual, *_DELIMITERS):
        head = next((cells for _, cells in _records(path, text, delimiter, 0) if cells), ())
        if {cell.strip().casefold() for cell in head}.issuperset(needs):
            return delimiter
    return usual


def _records(path: Path, text: str, delimiter: str, n_before: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line on which each record begins, and its cells."""
    # The reader finds line breaks by itself: in quotes they are text, and U+2028 or a form feed is none.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begun = n_before
    try:
        for cells in reader:
            yield begun + 1, tuple(cells)
            begun = n_before + reader.line_num
    except csv.Error as error:
        remedy = "repair its quotes: text in quotes ends with one, and holds them doubled"
        raise line_error(path, begun + 1, f"no table ({error})", remedy) from error


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises `StoreError` if the file cannot be read, or is no such text.
    """
    content = read_bytes(path)
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        where = f"{path}, line {line}" if encoding.startswith("utf-8") else path
        problem = f"no {encoding.removesuffix('-sig').upper()} text ({error.reason})"
        raise store_error(where, problem, "save it as UTF-8") from error
    if "\0" in text:
        raise store_error(path, "no text, or UTF-16 without a byte order mark: it holds zeros", "save it as UTF-8")
    return text


def text_lines(path: Path) -> list[str]:
    """Return the lines of a text file without white space around them, up to the last that is not blank."""
    lines = [line.strip() for line in re.split("\r\n|\r|\n", read_text(path))]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without white space around them; blank ones are left out."""
    return [line for line in text_lines(path) if line]


def named(names: Any, first_id: int = 1) -> Named:
    """Return the names and ids that `names` gives, in any of the forms that users have.

    Parameters
    ----------
    names
        A list of names, whose first belongs to `first_id`; a mapping from ids to names; or a file:

        - .txt: one name per line. A blank line is an id without a name, so that all other names keep their ids.
        - .csv, or with tabs .tsv or .txt: a head line with the columns name, and perhaps id (else idx, index or number)
          and category; see `read_table`.
        - .json: a list, a mapping from ids, or an object with ``names`` (either) and perhaps ``categories`` of the same
          kind.
    first_id
        The id of the first name where there are no ids beside the names.

    Raises
    ------
    InputError
        If names or ids are missing or occur twice.
    StoreError
        The same of a file, with the line (of .json, the entry).

    """
    if isinstance(names, (str, Path)):
        return _sorted(_read_names(Path(names), first_id))
    if isinstance(names, Mapping):
        return Named(*names_by_id(names), None)
    texts = check_names(names)
    first_id = integer("first_id", first_id, 0, 1 << 40, "leave it out")
    return Named(tuple(range(first_id, first_id + len(texts))), texts, None)


def _sorted(known: Named) -> Named:
    order = sorted(range(len(known.ids)), key=known.ids.__getitem__)
    kinds = None if known.categories is None else tuple(known.categories[k] for k in order)
    return Named(tuple(known.ids[k] for k in order), tuple(known.names[k] for k in order), kinds)


def unique_names(names: Sequence[str], qualifiers: Sequence[str]) -> list[str]:
    """Return the names, with ``(qualifier)`` behind those that occur more than once."""
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [
        f"{name} ({qualifier})" if name in repeated else name for name, qualifier in zip(names, qualifiers, strict=True)
    ]


# Files of names ------------------------------------------------------------------------------------------------------


def _read_names(path: Path, first_id: int) -> Named:
    match path.suffix.lower():
        case ".txt":
            lines = text_lines(path)
            if not (lines and "\t" in lines[0]):
                return _names_of_lines(path, lines, first_id)
            return _names_of_table(read_table(path, ["name"]), first_id)
        case ".csv" | ".tsv":
            return _names_of_table(read_table(path, ["name"]), first_id)
        case ".json":
            return _names_of_json(path, first_id)
    raise store_error(path, f"{path.suffix or 'no suffix'} is no known kind", "give .txt, .csv, .tsv or .json")


def _names_of_lines(path: Path, lines: Sequence[str], first_id: int) -> Named:
    at = [k for k, line in enumerate(lines) if line]
    wrong = next((k for k in at if "\t" in lines[k]), None)
    if wrong is not None:
        remedy = "write one name per line, or a table with a head line: id, name"
        raise line_error(path, wrong + 1, "holds a tab within its name", remedy)
    if at and "name" in re.split(r"\s*[,;]\s*", lines[at[0]].casefold()):
        problem = f"{lines[at[0]]!r:.40} looks like the head line of a table"
        raise line_error(path, at[0] + 1, problem, "call the file .csv")
    if at and all(_NUMBERED.match(lines[k]) for k in at):
        problem = f"each line begins with a number, as {lines[at[0]]!r:.40}"
        raise store_error(path, problem, "write names alone, or a .csv with the columns id and name")
    ids, names = [first_id + k for k in at], [lines[k] for k in at]
    return _checked(path, ids, names, None, lambda k: f"line {at[k] + 1}")


def _names_of_table(table: Table, first_id: int) -> Named:
    names = table.texts("name")
    kinds = table.texts("category") if table.columns_called("category") else None
    columns = [name for name in _ID_COLUMNS if table.columns_called(name)]
    if "id" in columns:
        columns = ["id"]
    found = [list(table.numbers(name)) for name in columns]
    if any(other != found[0] for other in found[1:]):
        problem = f"the columns {' and '.join(columns)} differ"
        raise store_error(table.path, problem, "call the one with the ids in label maps id")
    if not found:
        _check_no_ids(table)
    ids = found[0] if found else list(range(first_id, first_id + len(names)))
    return _checked(table.path, ids, names, kinds, lambda k: f"line {table.rows[k][0]}")


def _check_no_ids(table: Table) -> None:
    """Raise if rows without an id column could have other ids than their order says."""
    if table.blank:
        problem = "is blank, which may be a name that is missing"
        raise line_error(table.path, table.blank[0], problem, "delete it, or add a column id")
    for at, column in enumerate(table.columns):
        numbers = [whole_number(row[at]) for _, row in table.rows]
        if numbers and None not in numbers and len(set(numbers)) == len(numbers):
            problem = f"no column id, but the column {column!r:.40} has another whole number in each row"
            raise store_error(table.path, problem, "call it id if label maps hold these numbers, else leave it out")


def _names_of_json(path: Path, first_id: int) -> Named:
    found = parse_json(read_text(path).encode(), path, finite=False)  # a name that is NaN is told with its place
    parts = found if isinstance(found, dict) and "names" in found else {"names": found}
    remedy = 'write ["sky", ...], {"1": "sky", ...} or {"names": ..., "categories": ...}'
    if unknown := parts.keys() - {"names", "categories"}:
        raise store_error(path, f"{sorted(unknown)[0]!r:.40} beside names", remedy)
    names, kinds = parts["names"], parts.get("categories")
    if not isinstance(names, (list, dict)):
        raise store_error(path, "no list or mapping of names", remedy)
    ids = list(range(first_id, first_id + len(names)))
    if isinstance(names, dict):
        if isinstance(kinds, dict) and kinds.keys() == names.keys():
            kinds = [kinds[key] for key in names]
        elif kinds is not None:
            kinds = ()  # the order of a mapping says nothing
        for k, key in enumerate(names):
            number = whole_number(key)
            if number is None:
                raise _error_at(path, f"entry {k + 1}", f"{key!r:.40} is no id, a whole number of at least 0", remedy)
            ids[k] = number
        names = list(names.values())
    if kinds is not None and not (isinstance(kinds, list) and len(kinds) == len(names)):
        problem = "its categories do not fit its names"
        raise store_error(path, problem, "give one category per name, both as lists or both by id")
    return _checked(path, ids, names, kinds, lambda k: f"entry {k + 1}")


def _checked(
    path: Path,
    ids: Sequence[int],
    names: Sequence[Any],
    categories: Sequence[Any] | None,
    place: Callable[[int], str],
) -> Named:
    """Return names of a file after a check of each, and of ids and categories; `place` says where each stands."""
    if not names:
        raise store_error(path, "holds no name", "give one name per concept")
    columns = [("name", names)] if categories is None else [("name", names), ("category", categories)]
    for k in range(len(names)):
        for what, values in columns:
            if problem := name_problem(values[k]):
                remedy = "write a name" if what == "name" else "give each name a category, or none"
                raise _error_at(path, place(k), f"the {what} is {problem}", remedy)
    for what, found in (("name", names), ("id", ids)):
        first: dict[Any, int] = {}
        for k, value in enumerate(found):
            if (earlier := first.setdefault(value, k)) != k:
                problem = f"the {what} {value!r:.60} stands in {place(earlier)}, too"
                raise _error_at(path, place(k), problem, f"give each {what} once")
    return Named(tuple(ids), tuple(names), None if categories is None else tuple(categories))


def path_of(argument: str, path: PathLike, *, folder: bool) -> Path:
    """Return a path that is there, or raise `InputError`."""
    found = as_path(path, argument)
    if not (os.path.isdir(found) if folder else os.path.isfile(found)):  # noqa: PTH112, PTH113 - never raise
        there = f"{found}, which is {'no folder' if folder else 'no file'}"
        got = there if os.path.exists(found) else f"nothing at {found}"  # noqa: PTH110
        raise InputError(argument, wanted="a folder" if folder else "a file", got=got, remedy="check the path")
    return found
