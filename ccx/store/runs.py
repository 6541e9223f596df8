"""Run folders: rows appended in order, which a killed run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self, TypeAlias

from ccx.errors import InputError, StoreError
from ccx.jobs import check_stopped
from ccx.store.files import (
    CHECKSUM,
    PathLike,
    as_path,
    json_text,
    open_kept,
    parse_json,
    read_bytes,
    read_sealed,
    seal_of,
    sealed,
    store_error,
    storing,
    write_at,
    write_text,
)
from ccx.store.folders import made
from ccx.store.locks import lock

Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[int, ...]

_FORMATS = ("ccx.run/2", "ccx.run/1")  # the older one without checksums; such a run goes on without
_RUN, _ROWS, _TIMINGS = "run.json", "rows.jsonl", "timings.jsonl"
_OTHER_FOLDER = "choose another folder, or delete this one"


class RowLog:
    """A run folder to which rows are appended in order, and which a killed run resumes.

    ``run.json`` says what the run is, ``rows.jsonl`` holds one JSON object per line, ``timings.jsonl`` what may
    differ between two runs of the same thing. The bytes of the first two depend only on version, settings, inputs and
    rows. Opening a folder of the same run keeps its complete rows and drops a torn last line. One `RowLog` at a time
    may hold a folder; the lock dies with its process.

    ``run.json`` and each row end with a checksum, a row's covers that of the row before it, and the first one's that of
    ``run.json``: what was changed, moved or left out in between is refused.

    Parameters
    ----------
    folder
        The run folder; created where it is missing.
    key
        The integer fields by which rows strictly ascend, for example ``("unit", "range_index")``.
    settings
        JSON-able settings of the run.
    hashes
        Content hashes of its inputs, for example ``{"concepts": ..., "activations": ...}``.
    version
        The version of ccx.
    format
        ``ccx.run/VERSION``, where rows have a format of their own: a folder of another one is refused.
    batch_rows
        Rows are written and flushed to the disk when so many are pending, and by `flush` and `close`.
    remedy
        What the message advises where the folder belongs to another run.

    Raises
    ------
    StoreError
        When the folder cannot be used, is held by another process, belongs to a run with other settings, inputs or
        version (the message says which), or when its rows are damaged.

    Attributes
    ----------
    rows
        The rows that were there on opening, a tuple of dicts.

    """

    def __init__(
        self,
        folder: PathLike,
        *,
        key: Sequence[str],
        settings: Mapping[str, Any],
        hashes: Mapping[str, str],
        version: str,
        format: str | None = None,
        batch_rows: int = 64,
        remedy: str = _OTHER_FOLDER,
    ) -> None:
        self.folder = as_path(folder, "out")
        self._key = tuple(key)
        self._batch_rows = batch_rows
        self._n_pending = 0
        self._formats = _FORMATS if format is None else (format,)
        run = {"format": self._formats[0], "version": version, "hashes": hashes, "settings": settings}
        run_text = json_text(run, argument="settings")
        with ExitStack() as files, storing(self.folder, "rows"):
            made(self.folder)
            files.enter_context(locked_run(self.folder))
            self._rows = files.enter_context(_Lines(self.folder / _ROWS))
            seal = self._claim(run_text, remedy)
            self.rows, complete, self._seal = _parse_rows(self._rows.path, self._key, seal)
            self._rows.cut(complete)
            self._timings = files.enter_context(_Lines(self.folder / _TIMINGS))
            self._timings.cut(read_bytes(self._timings.path).rfind(b"\n") + 1)
            self._files = files.pop_all()
        self._keys = {self._key_of(row) for row in self.rows}
        self._last = max(self._keys, default=None)

    def _claim(self, run_text: str, remedy: str) -> str | None:
        """Write ``run.json``, or check that the one there describes the same run -> its checksum, if it has one."""
        path = self.folder / _RUN
        if path.exists():
            there, seal = read_sealed(path, self._formats)
            _check_same_run(there, json.loads(run_text), self.folder, remedy)
            return seal
        if self._rows.end:
            raise store_error(self.folder, f"has {_ROWS} but no {_RUN}", _OTHER_FOLDER)
        text, seal = sealed(run_text)
        check_stopped()  # as in `append`
        write_text(path, text + "\n")
        return seal

    def __contains__(self, key: Key) -> bool:
        """Tell whether the row with this key is there, pending ones included."""
        return key in self._keys

    def __len__(self) -> int:
        """Return the number of rows, pending ones included."""
        return len(self._keys)

    def append(self, row: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> None:
        """Add the next row and, beside it, what is to be known about its time.

        Raises
        ------
        InputError
            When the row is not JSON-able, or its key does not come after that of the row before.
        StoreError
            When a full batch cannot be written; its rows stay pending, so that `flush` can be tried again.

        """
        check_stopped()  # what was computed while a Ctrl-C was lost is not believed
        key = self._key_of(row)
        if self._last is not None and key <= self._last:
            wanted = f"{self._key} after {self._last}"
            raise InputError(argument="row", wanted=wanted, got=str(key), remedy="append rows in order, each once")
        if CHECKSUM in row:
            raise InputError("row", wanted=f"no field {CHECKSUM!r}", got="one", remedy="rename it")
        line = json_text(row, "row")
        if timing is not None:
            self._timings.add(json_text(timing, "timing"))
        if self._seal is not None:
            line, self._seal = sealed(line, self._seal)
        self._rows.add(line)
        self._keys.add(key)
        self._last = key
        self._n_pending += 1
        if self._n_pending >= self._batch_rows:
            self.flush()

    def flush(self) -> None:
        """Write the pending rows and flush them to the disk, then their timings."""
        with storing(self.folder, "rows"):
            self._rows.write()
            self._n_pending = 0
            self._timings.write()

    def close(self) -> None:
        """Flush, and let go of the folder."""
        with self._files:
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _key_of(self, row: Mapping[str, Any]) -> Key:
        key = _row_key(row, self._key)
        if key is None:
            got = f"{dict(row)!r:.200}"
            raise InputError(argument="row", wanted=f"integers {self._key}", got=got, remedy="add or convert them")
        return key


def read_run(
    folder: PathLike, key: Sequence[str] | Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Read a run folder, also while its run goes on -> (the object in ``run.json``, complete rows).

    `key` is as for `RowLog`, or the key of each format that may be read, the newest first.

    Raises `StoreError` when the folder is none of a run or is damaged.
    """
    path = Path(folder) / _RUN
    keys = key if isinstance(key, Mapping) else dict.fromkeys(_FORMATS, key)
    run, seal = read_sealed(path, tuple(keys))
    for name, kind in (("version", str), ("hashes", dict), ("settings", dict)):
        if not isinstance(run.get(name), kind):
            raise store_error(path, f"damaged: no {name}", "delete the folder and run again")
    return run, _parse_rows(Path(folder) / _ROWS, tuple(keys[run["format"]]), seal)[0]


def locked_run(folder: Path) -> AbstractContextManager[None]:
    """Hold a run folder, or raise `StoreError` if another process does."""
    held = store_error(folder, "another process writes to it", "wait for it, or choose another folder")
    return lock(folder / ".rows.lock", held=held)


class _Lines:
    """A file to which whole lines are appended.

    `end` is where the lines end that are safely on the disk. Each write starts there, so that one that failed
    halfway is overwritten when it is tried again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = bytearray()
        self._file = os.fdopen(open_kept(path), "r+b", buffering=0)
        self.end = os.fstat(self._file.fileno()).st_size

    def cut(self, end: int) -> None:
        """Drop what follows `end`."""
        os.ftruncate(self._file.fileno(), end)
        self.end = end

    def add(self, line: str) -> None:
        self._pending += line.encode("ascii") + b"\n"

    def write(self) -> None:
        if not self._pending:
            return
        done = write_at(self._file.fileno(), self._pending, self.end)
        os.fsync(self._file.fileno())
        self.end += done
        self._pending = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _row_key(row: Mapping[str, Any], fields: tuple[str, ...]) -> Key | None:
    """Return the integers under `fields`, or None where they are not all there."""
    values = [row.get(field) for field in fields]
    key = tuple(value for value in values if type(value) is int)  # no bool, which is an int as well
    return key if len(key) == len(fields) else None


def _parse_rows(path: Path, fields: tuple[str, ...], seal: str | None) -> tuple[tuple[Row, ...], int, str | None]:
    """Read complete lines -> (rows, bytes that they fill, checksum of the last); what follows is torn.

    `seal` is the checksum of what precedes the first row; None where there are no checksums.
    """
    content = read_bytes(path)
    end = content.rfind(b"\n") + 1
    rows: list[Row] = []
    last: Key | None = None
    remedy = "delete the lines from there on, or the folder, and run again"
    for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
        where = f"{path}, line {number}"
        try:
            row = parse_json(line, where)
        except StoreError as error:
            raise store_error(where, "damaged: not valid JSON", remedy) from error
        key = _row_key(row, fields) if isinstance(row, dict) else None
        if key is None:
            raise store_error(where, f"damaged: no integers {fields}", remedy)
        if last is not None and key <= last:
            raise store_error(where, f"damaged: row {key} follows row {last}", remedy)
        if seal is not None:
            seal = seal_of(line, seal)
            if seal is None:
                raise store_error(where, "damaged: it does not fit its checksum, or that of the row before", remedy)
            del row[CHECKSUM]
        rows.append(row)
        last = key
    if seal is not None and seal_of(content[end:-1], seal) is not None:
        # A torn line never goes on behind a whole row.
        where = f"{path}, line {len(rows) + 1}"
        raise store_error(where, "damaged: no line break behind it", remedy)
    return tuple(rows), end, seal


def _check_same_run(there: Mapping[str, Any], here: Mapping[str, Any], folder: Path, remedy: str) -> None:
    """Raise a `StoreError` that names everything in which a stored run differs from the one to be resumed."""
    old, new = _flat(there), _flat(here)
    differences = [
        f"{name} ({old.get(name, 'nothing')} there, {new.get(name, 'nothing')} here)"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise store_error(folder, f"holds a run that differs in {', '.join(differences)}", remedy)


def _flat(run: Mapping[str, Any]) -> dict[str, str]:
    """Return what identifies a run as name -> JSON text."""
    named = {"version of ccx": run.get("version")}
    for group, prefix in (("settings", ""), ("hashes", "content of ")):
        entries = run.get(group)
        named |= {prefix + name: value for name, value in entries.items()} if isinstance(entries, dict) else {}
    return {name: json.dumps(value, sort_keys=True) for name, value in named.items()}
