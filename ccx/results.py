"""What ccx found: one `Explanation` a (unit, range), and `Explanations`, the table of them.

Both are immutable. `Explanations.save` writes one JSON file, a run folder holds the same records one per line
(`ccx.store.RowLog`); ``docs/results.md`` and ``results_schema.json`` describe them.
"""

from __future__ import annotations

import html
import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from ccx.checks import integer, require_kind
from ccx.comparison import Comparison, compare
from ccx.errors import InputError, require_library
from ccx.evidence import EVIDENCE_HEADINGS, SLACK, evidence_cells
from ccx.explanation import Candidate, Explanation, Status
from ccx.options import renamed_settings
from ccx.scores import SCORES
from ccx.store import PathLike, json_text, read_run, write_text
from ccx.store.files import as_path, read_sealed, sealed, store_error
from ccx.store.records import columns_of, schema_of

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

__all__ = ["FORMAT", "ROW_KEY", "ROW_KEYS", "RUN_FORMAT", "Candidate", "Explanation", "Explanations", "Status"]

FORMAT = "ccx.explanations/3"
_OLDER = ("ccx.explanations/2", "ccx.explanations/1")  # ranges counted from 0; 1 without checksum
RUN_FORMAT = "ccx.run/3"
ROW_KEY = ("unit", "range_index")  # of the rows of a run folder
ROW_KEYS = {RUN_FORMAT: ROW_KEY, "ccx.run/2": ("unit", "cluster"), "ccx.run/1": ("unit", "cluster")}
WIDE = 115  # columns of a terminal that has room for evidence and the ends of ranges beside formulas
_N_SHOWN, _N_SHOWN_HTML, _N_CLIPPED = 10, 100, 80
_IOU_STYLES = ((0.2, "bold green"), (0.1, "green"), (0.04, "yellow"))  # 0.04: Network Dissection's detector


class Explanations(Sequence[Explanation]):
    """What `ccx.explain` returns: explanations in the order of unit and range, and how they came about.

    Immutable; indexing gives an `Explanation`, slicing `Explanations`.

    Parameters
    ----------
    items
        The explanations.
    settings
        JSON-able settings of the search; kept as JSON keeps them (tuples become lists).
    concepts_hash
        Content hash of the concepts.
    version
        The version of ccx that found them.

    Raises
    ------
    InputError
        When `settings` are not JSON-able.

    """

    __slots__ = ("_concepts_hash", "_items", "_settings", "_version")

    def __init__(
        self, items: Iterable[Explanation], *, settings: Mapping[str, Any], concepts_hash: str, version: str
    ) -> None:
        self._items = tuple(items)
        self._settings = json_text(settings, argument="settings")  # text, so that nobody can change it from outside
        self._concepts_hash = concepts_hash
        self._version = version

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the search, a copy."""
        return dict(json.loads(self._settings))

    @property
    def concepts_hash(self) -> str:
        """Content hash of the concepts."""
        return self._concepts_hash

    @property
    def version(self) -> str:
        """The version of ccx that found them."""
        return self._version

    @property
    def units(self) -> tuple[int, ...]:
        """The units that occur, each once, in order."""
        return tuple(dict.fromkeys(item.unit for item in self))

    @property
    def explained(self) -> Explanations:
        """Only those that have a formula."""
        return self._with(item for item in self if item.formula is not None)

    @property
    def score_title(self) -> str:
        """What tables call the score that was maximised: "IoU", "MCC", or the name of a custom one."""
        name = str(json.loads(self._settings).get("scoring", "iou"))
        return SCORES[name].title if name in SCORES else name

    def best(self) -> Explanations:
        """Return the best row per unit: that of the largest `iou_gain`, and of equal ones the highest range.

        Units with the largest gain come first, of equal ones the lowest index; those without a formula come last.
        Results that an older ccx stored have no `iou_gain`, and are ordered by IoU.
        """

        def rank(item: Explanation) -> tuple[bool, float]:
            return item.formula is not None, item.iou if item.iou_gain is None else item.iou_gain

        chosen: dict[int, Explanation] = {}
        for item in self:
            kept = chosen.setdefault(item.unit, item)
            if (*rank(item), item.range_index) > (*rank(kept), kept.range_index):
                chosen[item.unit] = item
        ascending = sorted(chosen.values(), key=lambda item: item.unit)
        return self._with(sorted(ascending, key=rank, reverse=True))

    def of_unit(self, unit: int) -> Explanations:
        """Return the explanations of one unit.

        Raises
        ------
        InputError
            When there are none.

        """
        number = integer("unit", unit, -(1 << 62), 1 << 62, "choose one of found.units")
        found = self._with(item for item in self if item.unit == number)
        if not found:
            units = ", ".join(map(str, self.units[:_N_SHOWN])) + ", ..." * (len(self.units) > _N_SHOWN)
            raise InputError(
                argument="unit", wanted=f"one of {units or 'none'}", got=f"{unit}", remedy="choose one of found.units"
            )
        return found

    def _with(self, items: Iterable[Explanation]) -> Explanations:
        return Explanations(items, settings=self.settings, concepts_hash=self.concepts_hash, version=self.version)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...

    @overload
    def __getitem__(self, index: slice) -> Explanations: ...

    def __getitem__(self, index: int | slice) -> Explanation | Explanations:
        return self._with(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanations):
            return NotImplemented
        return (
            self._items == other._items
            and self.settings == other.settings
            and self.concepts_hash == other.concepts_hash
            and self.version == other.version
        )

    def __hash__(self) -> int:
        return hash((self._items, self.concepts_hash, self.version))

    def compare(self, other: Explanations) -> Comparison:
        """Compare with what another search found for the same bitmaps, row by row, matched by unit and range.

        ``optimal.compare(beam)`` says how often, and how far, the beam falls short.

        Raises
        ------
        InputError
            If both have other concepts, scores or length penalties, no row in common, or rows of other bitmaps.

        """
        require_kind("other", other, Explanations, "explanations", "pass what ccx.explain returned")
        return compare(self, other)

    def summary(self) -> dict[str, Any]:
        """Return the numbers that describe the whole.

        Returns
        -------
        summary
            ``explanations`` and ``units`` count them, ``statuses`` counts each status that occurs; ``mean_iou``,
            ``median_iou``, ``max_iou`` and ``mean_length`` are over the explained ones, None without any.

        """
        explained = self.explained
        ious = [item.iou for item in explained]
        lengths = [item.formula.length for item in explained if item.formula is not None]
        counts = Counter(item.status for item in self)
        return {
            "explanations": len(self),
            "units": len(self.units),
            "statuses": {str(status): counts[status] for status in Status if counts[status]},
            "mean_iou": statistics.fmean(ious) if ious else None,
            "median_iou": statistics.median(ious) if ious else None,
            "max_iou": max(ious, default=None),
            "mean_length": statistics.fmean(lengths) if lengths else None,
        }

    def to_records(self) -> list[dict[str, Any]]:
        """Return one JSON-able record per explanation (``docs/results.md``)."""
        return [item.to_record() for item in self]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with one row per explanation.

        The columns are the fields of `Explanation`, with ``lower`` and ``upper`` for its range (NaN when there is
        none), formulas as text (None when there is none), ``length`` (the number of concepts, 0 without formula),
        ``alternatives`` (their texts), and the numbers of `chance` and `held_out` (NaN where they are None).

        Raises
        ------
        MissingExtraError
            When pandas is not installed.

        """
        require_library("pandas", "pandas", "to_pandas()")
        import pandas as pd  # noqa: PLC0415  # an optional library

        # Typed series: pandas would infer other dtypes where values are missing or the table is empty.
        columns = columns_of(list(self), Explanation)
        return pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, (values, dtype) in columns.items()})

    def __repr__(self) -> str:
        numbers = self.summary()
        median = "" if numbers["median_iou"] is None else f", median IoU {numbers['median_iou']:.3f}"
        n_explained = numbers["statuses"].get(Status.EXPLAINED, 0)
        head = f"Explanations: {len(self)} of {numbers['units']} units, {n_explained} explained{median}"
        headings = self._headings()
        cells = [headings, *(_cells(item, headings, self.score_title) for item in self._items[:_N_SHOWN])]
        widths = [max(len(row[column]) for row in cells) for column in range(len(headings) - 1)]
        lines = [
            "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), _clip(row[-1])])
            for row in cells
        ]
        more = [f"... and {len(self) - _N_SHOWN} more"] if len(self) > _N_SHOWN else []
        return "\n".join([head, *lines, *more] if self else [head])

    def _repr_html_(self) -> str:
        headings = self._headings()
        head = "".join(f"<th>{heading}</th>" for heading in headings)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(item, headings, self.score_title))
            + "</tr>"
            for item in self._items[:_N_SHOWN_HTML]
        )
        n_more = len(self) - _N_SHOWN_HTML
        more = f"<p>... and {n_more} more</p>" if n_more > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"

    def table(self, max_rows: int | None = None, width: int = WIDE) -> Table:
        """Return a `rich.table.Table` of the first `max_rows` explanations (None: all), coloured by IoU.

        On a terminal of less `width` than 115 columns it leaves out the numbers of the null, but for p.
        """
        from rich.table import Table  # noqa: PLC0415  # slow to import, and only needed here
        from rich.text import Text  # noqa: PLC0415

        if max_rows is not None:
            max_rows = integer("max_rows", max_rows, 0, 1 << 62, "leave it out for all")
        n_more = 0 if max_rows is None else max(0, len(self) - max_rows)
        table = Table(caption=f"... and {n_more} more" if n_more else None)
        headings = [one for one in self._headings() if width >= WIDE or one not in ("null mean", "null max", "z")]
        for heading in headings[:-1]:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(headings[-1], overflow="fold")
        for item in self._items[:max_rows]:
            styles = {
                _IOU: next((style for least, style in _IOU_STYLES if item.iou >= least), "dim"),
                "formula": "" if item.formula is not None else "dim italic",
            }
            cells = zip(headings, _cells(item, headings, self.score_title), strict=True)
            # Text, not str: a name may look like markup.
            table.add_row(*(Text(cell, style=styles.get(heading, "")) for heading, cell in cells))
        return table

    @property
    def evidence_headings(self) -> list[str]:
        """The columns of tables that say something of chance and samples held out, of any explanation."""
        there: set[str] = set()
        for item in self._items:
            there |= evidence_cells(item.chance, item.held_out).keys()
        return [heading for heading in EVIDENCE_HEADINGS if heading in there]

    def _headings(self) -> list[str]:
        """Return the columns of the tables."""
        title = self.score_title
        score = [] if title == _IOU else [title]
        return ["unit", "range", "gain", _IOU, *score, *self.evidence_headings, "formula"]

    def save(self, path: PathLike) -> None:
        """Write everything to one JSON file, atomically (``docs/results.md``).

        Raises
        ------
        InputError
            When an explanation contradicts itself (`Explanation.check`), or two are of one unit and range.
        StoreError
            When the file cannot be written; an older one stays.

        """
        self._check()
        head = {
            "format": FORMAT,
            "version": self.version,
            "concepts_hash": self.concepts_hash,
            "settings": self.settings,
        }
        rows = ",\n".join(json_text(record, "explanation") for record in self.to_records())
        text, _ = sealed(f'{json_text(head)[:-1]},"explanations":[\n{rows}\n]}}')
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: PathLike) -> Explanations:
        """Read a file of `save`, or a run folder; of a run that goes on, the explanations that are there by now.

        A run folder is a `ccx.store.RowLog` of `RUN_FORMAT` with the key `ROW_KEY`, rows of `Explanation.to_record`,
        and the hash of the concepts as ``concepts``. Older formats are read, too: their ranges counted from 0, as
        ``cluster``, and they have no `iou_gain`. Checksums are compared, and each explanation is checked against
        itself.

        Raises
        ------
        StoreError
            When it is missing, truncated, damaged, foreign or of another schema version.

        """
        if os.path.isdir(as_path(path)):  # noqa: PTH112 - False where the system refuses to look
            found, rows = read_run(path, ROW_KEYS)
            found |= {"concepts_hash": found["hashes"].get("concepts"), "explanations": list(rows)}
        else:
            found, _ = read_sealed(path, (FORMAT, *_OLDER))
        for name, kind in (("version", str), ("concepts_hash", str), ("settings", dict), ("explanations", list)):
            if not isinstance(found.get(name), kind):
                raise store_error(path, f"damaged: no {name}", _AGAIN)
        is_older = found["format"] not in (FORMAT, RUN_FORMAT)
        items = []
        for index, record in enumerate(found["explanations"]):
            try:
                items.append(Explanation.from_record(_migrated(record) if is_older else record))
            except InputError as error:
                raise store_error(path, f"damaged: explanation {index}: {error}", _AGAIN) from error
        settings = renamed_settings(found["settings"])
        table = cls(items, settings=settings, concepts_hash=found["concepts_hash"], version=found["version"])
        try:
            table._check_together()
        except InputError as error:
            raise store_error(path, f"damaged: {error}", _AGAIN) from error
        return table

    def _check(self) -> None:
        """Raise `InputError` for what `load` would refuse."""
        for item in self._items:
            item.check()
        self._check_together()

    def _check_together(self) -> None:
        """Raise `InputError` where two rows are of one unit and range, or scores are not what settings say."""
        keys = Counter((item.unit, item.range_index) for item in self._items)
        if repeated := next((key for key, count in keys.items() if count > 1), None):
            got, remedy = f"unit {repeated[0]}, range {repeated[1]} twice", "keep one of them"
            raise InputError("explanations", wanted="one per unit and range", got=got, remedy=remedy)
        settings = self.settings
        penalty = settings.get("length_penalty")
        if settings.get("scoring") != "iou" or not isinstance(penalty, (int, float)):
            return
        for item in self._items:
            score = 0.0 if item.formula is None else item.iou * float(penalty) ** (item.formula.length - 1)
            if not math.isclose(score, item.score, rel_tol=SLACK):
                got, remedy = f"{item.score} of unit {item.unit}, range {item.range_index}", "find it again"
                raise InputError("score", wanted=f"IoU times length penalty, {score}", got=got, remedy=remedy)


_AGAIN = "copy or make it again"
_IOU = SCORES["iou"].title


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file that `Explanations.save` writes."""
    properties = {
        "format": {"const": FORMAT},
        "version": {"type": "string"},
        "concepts_hash": {"type": "string"},
        "settings": {"type": "object"},
        "explanations": {"type": "array", "items": schema_of(Explanation)},
        "checksum": {"type": "string"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Explanations that ccx saved",
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _cells(item: Explanation, headings: Sequence[str], score_title: str) -> list[str]:
    """Return what the tables show of an explanation in these columns."""
    cells = {
        "unit": str(item.unit),
        "range": range_text(item),
        "gain": "" if item.iou_gain is None else f"{item.iou_gain:.3f}",
        score_title: f"{item.score:.3f}",
        _IOU: f"{item.iou:.3f}",
        "formula": f"[{item.status}]" if item.formula is None else str(item.formula),
        **evidence_cells(item.chance, item.held_out),
    }
    return [cells.get(heading, "") for heading in headings]


def range_text(item: Explanation, n_ranges: int | None = None, *, has_ends: bool = True) -> str:
    """Return a range as tables show it: "2 (0.5, 1.5)", its number and its ends; "2/5 (0.5, 1.5)" of five ranges."""
    number = f"{item.range_index}" if n_ranges is None else f"{item.range_index}/{n_ranges}"
    ends = item.range if has_ends else None
    return number if ends is None else f"{number} ({ends[0]:.3g}, {ends[1]:.3g})"


def _migrated(record: Any) -> Any:
    """Return a record of an older format with today's fields, if it has its own."""
    if not isinstance(record, Mapping) or type(record.get("cluster")) is not int:
        return record
    kept = {
        name: _with_permutations(value) if name in ("chance", "held_out") else value
        for name, value in record.items()
        if name != "cluster"
    }
    return {"range_index": record["cluster"] + 1, "iou_gain": None, **kept}


def _with_permutations(record: Any) -> Any:
    """Return the record of a chance, or of a score on samples held out with its own, under today's names."""
    if not isinstance(record, Mapping):
        return record
    return {
        "permutations" if name == "null" else name: _with_permutations(value) if name == "chance" else value
        for name, value in record.items()
    }


def _clip(text: str) -> str:
    return text if len(text) <= _N_CLIPPED else text[: _N_CLIPPED - 3] + "..."
