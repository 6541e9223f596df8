"""What speaks for an explanation beside its score: chance, and samples that it was not found on (docs/chance.md)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from ccx.store.records import Field, Record, documented

EVIDENCE_HEADINGS = ("null mean", "null max", "z", "p", "held out", "held out p")


@documented
@dataclass(frozen=True, slots=True)
class Chance(Record):
    """A score beside the scores that permuted bitmaps reached."""

    permutations: Annotated[int, Field(least=1)]
    """Their number r."""
    mean: float
    """Mean of their scores."""
    maximum: float
    """Largest of their scores."""
    z: float | None
    """``(score - mean) / sd``, sd the standard deviation of their scores (n − 1 degrees of freedom); None where that is
    0 or r is 1."""
    p: Annotated[float, Field(least=0, most=1)]
    """Permutation p-value, ``(1 + number of permuted scores >= score) / (1 + r)`` (Phipson and Smyth 2010); scores are
    compared exactly."""

    @property
    def resolution(self) -> float:
        """The smallest p-value that so many permutations can give, and the step between two: ``1 / (1 + r)``."""
        return 1 / (1 + self.permutations)

    @property
    def null(self) -> int:
        """Deprecated: `permutations`."""
        warnings.warn("null is called permutations now", DeprecationWarning, stacklevel=2)
        return self.permutations

    def contradictions(self, score: float) -> Iterator[tuple[str, str, object]]:
        """Yield (field, what it should be, what it is) of each that the others, and the score, exclude."""
        if self.permutations < 1:
            yield "chance", "at least one permutation", self.permutations
            return
        n_reached = round(self.p * (1 + self.permutations)) - 1
        if not 0 <= n_reached <= self.permutations or self.p != (1 + n_reached) / (1 + self.permutations):
            yield "chance", f"a p-value of {self.permutations} permutations", self.p
        slack = SLACK * max(1.0, abs(self.maximum), abs(score))
        if self.mean > self.maximum + slack:
            yield "chance", f"a mean of at most the maximum {self.maximum}", self.mean
        if n_reached > 0 and self.maximum < score - slack:
            yield "chance", f"{n_reached} scores that reach {score}", f"their maximum {self.maximum}"
        if self.z is not None and (self.permutations == 1 or self.z * (score - self.mean) < -slack):
            yield "chance", f"a z of the score {score} beside the mean {self.mean}", self.z


@documented
@dataclass(frozen=True, slots=True)
class HeldOut(Record):
    """A formula that was found on some samples, scored on others: all fields are of the samples held out."""

    score: float
    """As in `ccx.Explanation`."""
    iou: Annotated[float, Field(least=0, most=1)]
    """``intersection / union``."""
    intersection: Annotated[int, Field(least=0)]
    """|F ∧ B| in cells."""
    union: Annotated[int, Field(least=0)]
    """|F ∨ B| in cells."""
    bitmap_cells: Annotated[int, Field(least=0)]
    """|B| in cells."""
    formula_cells: Annotated[int, Field(least=0)]
    """|F| in cells."""
    chance: Chance | None = None
    """The formula's score there beside its scores with the bitmap's samples permuted; None without these."""

    def contradictions(self) -> Iterator[tuple[str, str, object]]:
        """Yield (field, what it should be, what it is) of each that the others exclude."""
        for _, wanted, got in contradictions_of_counts(self):
            yield "held_out", wanted, got
        if self.chance is not None:
            for _, wanted, got in self.chance.contradictions(self.score):
                yield "held_out", wanted, got


SLACK = 1e-12  # between sums and products in floating point that are equal in exact arithmetic


def contradictions_of_counts(item: Any) -> Iterator[tuple[str, str, object]]:
    """Yield (field, what it should be, what it is) of counts, and their IoU, that exclude each other."""
    if not 0 <= item.intersection <= min(item.bitmap_cells, item.formula_cells):
        most = min(item.bitmap_cells, item.formula_cells)
        yield "intersection", f"cells within the {most} of bitmap or formula", item.intersection
    union = item.bitmap_cells + item.formula_cells - item.intersection
    if item.union != union:
        yield "union", f"the cells of bitmap and formula, {union}", item.union
    if not is_iou(item.iou, item.intersection, item.union):
        yield "iou", f"intersection / union, {item.intersection} / {item.union}", item.iou


def is_iou(iou: float, intersection: int, union: int) -> bool:
    """Tell whether a float is the IoU of these counts; 0 where the union is empty."""
    return math.isclose(iou, intersection / union if union else 0.0, rel_tol=SLACK)


def evidence_cells(chance: Chance | None, held_out: HeldOut | None) -> dict[str, str]:
    """Return what tables show under `EVIDENCE_HEADINGS`, as far as it is there; held out is the IoU."""
    cells = {}
    if chance is not None:
        cells = {"null mean": f"{chance.mean:.3f}", "null max": f"{chance.maximum:.3f}", "p": f"{chance.p:.3g}"}
        if chance.z is not None:
            cells["z"] = f"{chance.z:.1f}"
    if held_out is not None:
        cells["held out"] = f"{held_out.iou:.3f}"
        if held_out.chance is not None:
            cells["held out p"] = f"{held_out.chance.p:.3g}"
    return cells
