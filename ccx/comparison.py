"""Two searches of the same bitmaps, row by row: how often, and how far, one falls short of the other."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from ccx.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

_DECIDING = {"scoring": "iou", "length_penalty": 1.0}  # settings that must agree, and what they are by default


@dataclass(frozen=True, slots=True)
class Compared:
    """One bitmap as both searches explain it.

    Attributes
    ----------
    unit, range_index
        Of both explanations.
    score, formula
        Of the reference; 0.0 and None without a formula.
    other_score, other_formula
        Of the search that is compared with it.

    """

    unit: int
    range_index: int
    score: float
    other_score: float
    formula: Any
    other_formula: Any

    @property
    def shortfall(self) -> float:
        """How much lower the other's score is, as a share of the higher of both: negative where it is higher, > -1."""
        higher = max(self.score, self.other_score)
        return (self.score - self.other_score) / higher if higher else 0.0

    def to_record(self) -> dict[str, Any]:
        """Return plain values, formulas as texts."""
        numbers = {name: getattr(self, name) for name in ("unit", "range_index", "score", "other_score", "shortfall")}
        formulas = {"formula": self.formula, "other_formula": self.other_formula}
        return numbers | {name: None if one is None else str(one) for name, one in formulas.items()}


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Sequence[Compared]):
    """What `Explanations.compare` returns: one `Compared` per (unit, range_index) that both have.

    Scores are equal where the floats are, which is where the exact scores are, but for those that no float tells apart.

    Attributes
    ----------
    items
        All of them.
    unmatched
        Number of rows that only one of both has.

    """

    items: tuple[Compared, ...]
    unmatched: int = 0

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Compared]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Compared: ...

    @overload
    def __getitem__(self, index: slice) -> Comparison: ...

    def __getitem__(self, index: int | slice) -> Compared | Comparison:
        return Comparison(self.items[index]) if isinstance(index, slice) else self.items[index]

    def summary(self) -> dict[str, Any]:
        """Return the numbers that describe the whole.

        Returns
        -------
        summary
            ``rows``; in how many of them the other's score is ``worse``, ``equal`` or ``better``, and in how many its
            formula is another (``other_formula``); ``worse_share`` of the rows; ``mean_shortfall``,
            ``median_shortfall`` and ``worst_shortfall`` over the worse ones, ``mean_excess`` and ``most_excess`` over
            the better ones, None without any.

        """
        short = [one.shortfall for one in self if one.other_score < one.score]
        over = [-one.shortfall for one in self if one.other_score > one.score]
        return {
            "rows": len(self),
            "worse": len(short),
            "equal": len(self) - len(short) - len(over),
            "better": len(over),
            "other_formula": sum(one.formula != one.other_formula for one in self),
            "worse_share": len(short) / len(self) if len(self) else None,
            "mean_shortfall": statistics.fmean(short) if short else None,
            "median_shortfall": statistics.median(short) if short else None,
            "worst_shortfall": max(short, default=None),
            "mean_excess": statistics.fmean(over) if over else None,
            "most_excess": max(over, default=None),
        }

    def to_records(self) -> list[dict[str, Any]]:
        """Return one record of plain values per row."""
        return [one.to_record() for one in self]

    def table(self, max_rows: int | None = None) -> Table:
        """Return a `rich.table.Table` of the rows whose scores differ, the largest shortfall first (None: all)."""
        from rich.table import Table  # noqa: PLC0415 - slow to import, and only needed here
        from rich.text import Text  # noqa: PLC0415

        differing = sorted((one for one in self if one.score != one.other_score), key=lambda one: -one.shortfall)
        n_more = 0 if max_rows is None else max(0, len(differing) - max_rows)
        table = Table(
            caption=f"... and {n_more} more" if n_more else None, box=None, header_style="dim", pad_edge=False
        )
        for heading in ("unit", "range", "score", "other", "shortfall"):
            table.add_column(heading, justify="right", no_wrap=True)
        for heading in ("formula", "other formula"):
            table.add_column(heading, overflow="fold")
        for one in differing[:max_rows]:
            numbers = f"{one.score:.4f}", f"{one.other_score:.4f}", f"{100 * one.shortfall:.2f} %"
            texts = (str(one.unit), str(one.range_index), *numbers, str(one.formula), str(one.other_formula))
            table.add_row(*(Text(text) for text in texts))
        return table

    def text(self) -> str:
        """Return one line that says how often, and how far, the other falls short."""
        numbers = self.summary()
        text = f"worse in {numbers['worse']} of {len(self)} rows"
        if numbers["worse"]:
            shares = numbers["worse_share"], numbers["mean_shortfall"], numbers["worst_shortfall"]
            text += " ({:.1%}; by {:.2%} on average, {:.2%} at worst)".format(*shares)
        text += f", equal in {numbers['equal']}, better in {numbers['better']}"
        return text + (f"; {self.unmatched} rows without a match" if self.unmatched else "")

    def __repr__(self) -> str:
        return f"Comparison: the other's score is {self.text()}"


def compare(reference: Any, other: Any) -> Comparison:
    """Match rows by unit and range_index (see `ccx.Explanations.compare`)."""
    facts = [
        {"concepts": one.concepts_hash[:12]} | {key: one.settings.get(key, value) for key, value in _DECIDING.items()}
        for one in (reference, other)
    ]
    for name, ours in facts[0].items():
        if facts[1][name] != ours:
            remedy = "compare searches that maximise the same over the same concepts"
            raise InputError("other", wanted=f"{name} {ours}", got=f"{name} {facts[1][name]}", remedy=remedy)
    rows = {(one.unit, one.range_index): one for one in reference}
    others = {(one.unit, one.range_index): one for one in other}
    matched = [key for key in rows if key in others]
    if not matched:
        raise InputError("other", wanted="rows of the same units", got="none", remedy="explain the same units")
    for unit, number in matched:
        one, two = rows[unit, number], others[unit, number]
        if (one.range, one.bitmap_cells) != (two.range, two.bitmap_cells):
            got = f"{two.bitmap_cells} cells of {two.range} for unit {unit}, range {number}"
            wanted = f"the same bitmaps, {one.bitmap_cells} cells of {one.range}"
            raise InputError("other", wanted=wanted, got=got, remedy="explain the same activations and ranges")
    pairs = ((key, rows[key], others[key]) for key in matched)
    items = tuple(Compared(*key, one.score, two.score, one.formula, two.formula) for key, one, two in pairs)
    return Comparison(items, unmatched=len(rows) + len(others) - 2 * len(matched))
