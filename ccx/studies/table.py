"""The tables that studies return."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccx.errors import InputError, require_library, visible
from ccx.store import PathLike, write_bytes, write_text
from ccx.store.files import as_target

if TYPE_CHECKING:
    import pandas
    from rich.table import Table as RichTable

_FORMATS = (".csv", ".jsonl", ".parquet")
_ACTING = ("=", "+", "-", "@", "\t", "\r")  # at the beginning of a cell


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of named values: texts, numbers, booleans, or None where there is no value.

    Parameters
    ----------
    title
        What the rows are.
    columns
        Their names.
    rows
        One tuple per row, in the order of the columns.

    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, title: str, records: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Table:
        """Build a table of records with the same keys; `columns` are those to keep, needed where no record is."""
        rows = list(records)
        names = tuple(columns if columns is not None else rows[0] if rows else ())
        return cls(title, names, tuple(tuple(row[name] for name in names) for row in rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_records())

    def column(self, name: str) -> list[Any]:
        """Return the values of one column.

        Raises
        ------
        InputError
            If there is no such column.

        """
        if name not in self.columns:
            remedy = "choose one of them"
            raise InputError("column", wanted=f"one of {', '.join(self.columns)}", got=repr(name), remedy=remedy)
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dict per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.

        """
        require_library("pandas", "pandas", "to_pandas()")
        import pandas as pd  # noqa: PLC0415 - an optional library

        return pd.DataFrame(list(self.rows), columns=list(self.columns))

    def write(self, path: PathLike) -> None:
        """Write ``.csv``, ``.jsonl`` (one JSON object per line) or ``.parquet``, atomically.

        Raises
        ------
        InputError
            If the name ends otherwise.
        MissingExtraError
            For Parquet, if pandas or pyarrow is not installed.
        StoreError
            If the file cannot be written; an older one stays.

        """
        kind = check_format(path)
        if kind == ".parquet":
            require_library("pyarrow", "parquet", "writing Parquet")
            write_bytes(path, bytes(self.to_pandas().to_parquet(index=False)))
        elif kind == ".csv":
            write_text(path, self._csv())
        else:
            records = self.to_records()
            write_text(path, "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records))

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(_cell, self.columns))
        writer.writerows(map(_cell, row) for row in self.rows)
        return text.getvalue()

    def to_rich(self) -> RichTable:
        """Return the table for a terminal, without its title: numbers to four digits, right-aligned."""
        from rich.table import Table as RichTable  # noqa: PLC0415 - only where it is shown
        from rich.text import Text  # noqa: PLC0415

        table = RichTable(box=None, header_style="dim", pad_edge=False)
        for place, name in enumerate(self.columns):
            is_text = any(isinstance(row[place], str) for row in self.rows)
            table.add_column(Text(name), justify="left" if is_text else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(_shown(value)) for value in row))
        return table


def check_format(path: PathLike) -> str:
    """Return the suffix of a file that `Table.write` can write; raise `InputError` for others."""
    kind = as_target(path).suffix.lower()
    if kind not in _FORMATS:
        wanted = f"a name that ends in {' or '.join(_FORMATS)}"
        raise InputError("path", wanted=wanted, got=str(path), remedy="choose a format by the name")
    return kind


def mean_and_deviation(values: Iterable[float]) -> tuple[float | None, float | None]:
    """Return mean and population standard deviation; None of nothing."""
    numbers = [float(value) for value in values]
    if not numbers:
        return None, None
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))


def finite(end: float | None) -> float | None:
    """Return an end of a range; None for infinity, which JSON has not."""
    return None if end is None or math.isinf(end) else end


def _cell(value: Any) -> Any:
    """Return a cell of a .csv file: a text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_ACTING) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))
