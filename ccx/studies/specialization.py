"""Which explanations say something about training: those that an untrained network has not.

The published study of unspecialized and weakly specialized activations (La Rosa et al. 2023), over all units.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ccx.errors import InputError
from ccx.formula import And, Formula, Or
from ccx.results import Explanations
from ccx.studies.table import Table

UNSPECIALIZED, WEAKLY_SPECIALIZED, SPECIALIZED = "unspecialized", "weakly specialized", "specialized"
_KINDS = (UNSPECIALIZED, WEAKLY_SPECIALIZED, SPECIALIZED)


@dataclass(frozen=True, slots=True)
class Specialization:
    """What `analyze_activations` found.

    Attributes
    ----------
    shares
        By range, and for all ranges: the number of explanations and the share of each kind.
    units
        Every explanation of the trained network with its kind.
    defaults
        The default formulas and left parts of the untrained network, with how often they occur.

    """

    shares: Table
    units: Table
    defaults: Table


def analyze_activations(trained: Explanations, untrained: Explanations, *, share: float = 0.2) -> Specialization:
    """Compare a trained network's formulas with those of the same network before training.

    The k = ceil(share * units) most frequent formulas of the untrained network, over units and ranges, are its
    *default formulas*; the first k different left parts, by frequency of the formulas that occur more than once, its
    *default left parts*. A formula is *unspecialized* if it is a default formula, *weakly specialized* if its left
    part, its formula without the last concept, is a default left part, and else *specialized*. Formulas that occur
    equally often are ordered by their text.

    Parameters
    ----------
    trained, untrained
        Explanations of the same layer, with the same concepts and settings.
    share
        Of the untrained network's units.

    Raises
    ------
    InputError
        If the two were found with different concepts or settings, or `share` is not between 0 and 1.

    """
    if trained.concepts_hash != untrained.concepts_hash:
        remedy = "explain both networks with the same concepts"
        raise InputError("untrained", wanted="the same concepts", got="others", remedy=remedy)
    differ = [
        f"{name}={untrained.settings.get(name)!r}, not {value!r}"
        for name, value in trained.settings.items()
        if name != "units" and value != untrained.settings.get(name)
    ]
    if differ:
        remedy = "explain both networks in the same way"
        raise InputError("untrained", wanted="the same settings", got="; ".join(differ), remedy=remedy)
    if not 0 < share <= 1:
        raise InputError("share", wanted="0 < share <= 1", got=repr(share), remedy="0.2 is the published one")
    formulas, lefts = _defaults(untrained, math.ceil(share * len(untrained.units)))
    kinds = [(item, _kind(item.formula, formulas, lefts)) for item in trained if item.formula is not None]
    numbers = sorted({item.range_index for item, _ in kinds})
    groups = [(str(k), [kind for item, kind in kinds if item.range_index == k]) for k in numbers]
    groups.append(("all", [kind for _, kind in kinds]))
    columns = ("range", "explanations", *_KINDS)
    rows = tuple(
        (name, len(group), *(group.count(kind) / len(group) if group else None for kind in _KINDS))
        for name, group in groups
    )
    defaults = [("formula", str(formula), n) for formula, n in formulas.items()]
    defaults += [("left part", str(formula), n) for formula, n in lefts.items()]
    return Specialization(
        Table("share of explanations, by range", columns, rows),
        Table(
            "explanations of the trained network",
            ("unit", "range", "formula", "iou", "kind"),
            tuple((one.unit, one.range_index, str(one.formula), one.iou, kind) for one, kind in kinds),
        ),
        Table("defaults of the untrained network", ("what", "formula", "times"), tuple(defaults)),
    )


def _defaults(untrained: Explanations, k: int) -> tuple[dict[Formula, int], dict[Formula, int]]:
    counts = Counter(item.formula for item in untrained if item.formula is not None)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    lefts: dict[Formula, int] = {}
    for formula, n in ranked:
        left = left_part(formula)
        if n > 1 and left is not None and (left in lefts or len(lefts) < k):
            lefts[left] = lefts.get(left, 0) + n
    return dict(ranked[:k]), lefts


def _kind(formula: Formula, formulas: dict[Formula, int], lefts: dict[Formula, int]) -> str:
    if formula in formulas:
        return UNSPECIALIZED
    return WEAKLY_SPECIALIZED if left_part(formula) in lefts else SPECIALIZED


def left_part(formula: Formula) -> Formula | None:
    """Return a left-deep formula without its last concept; None of a single concept."""
    match formula:
        case And(left, _) | Or(left, _):
            return left
    return None
