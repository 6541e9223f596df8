"""The options of `explain`, each declared once: its name, default, help and check.

`explain` and `explain_bitmaps`, the command line, `Experiment`, the settings of a run folder and docs/options.md take
them from here. What an option means beside the data (units, groups, samples) is checked where the data is known.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

from ccx.checks import choice, integer, is_between, require_flag, shown
from ccx.errors import InputError
from ccx.scores import SCORES, Score, resolve

SearchName: TypeAlias = Literal["beam", "optimal", "mmesh", "cfh", "areas", "none"]
Method: TypeAlias = Literal["optimal", "sklearn"]
Check: TypeAlias = Callable[[str, Any], Any]

MAX_LENGTH = 64
_MOST = 2**31 - 1  # formulas that a search keeps; kernels count them in 64 bits
_SEE = "see the documentation of explain"

RENAMED = {"null": "permutations", "fit": "fit_samples", "score": "test_samples"}
"""Old names of arguments, which warn for one release."""
_RENAMED_SETTINGS = {**RENAMED, "names": "only"}


def _option(default: Any, help: str, check: Check | None = None, *, flag: str = "", typed: Any = None) -> Any:
    """Declare an option; `flag` and `typed` are its name and type on the command line, where they are not its own."""
    return field(default=default, metadata={"help": help, "check": check, "flag": flag, "typed": typed})


def whole(least: int, most: int = _MOST, *, optional: bool = False, remedy: str = _SEE) -> Check:
    """Return what checks a whole number between two others, or None where that may be."""
    wanted = f"an integer >= {least}" if most >= _MOST else f"an integer from {least} to {most}"

    def check(argument: str, value: Any) -> int | None:
        return None if optional and value is None else integer(argument, value, least, most, remedy, wanted)

    return check


def _share(argument: str, value: Any, *, zero: bool) -> float:
    if not (is_between(value, 0, 1) or (isinstance(value, Real) and bool(value == 1 or (zero and value == 0)))):
        wanted = f"0 {'<=' if zero else '<'} {argument} <= 1"
        raise InputError(argument, wanted=wanted, got=shown(value), remedy=_SEE)
    return float(value)  # NumPy's numbers are no Fraction


def check_quantile(argument: str, value: Any) -> float:
    """Return the share of activations that lie above a range, or raise `InputError`."""
    if not is_between(value, 0, 1):
        remedy = "0.005 is Network Dissection's"
        raise InputError(argument, wanted="a number between 0 and 1", got=shown(value), remedy=remedy)
    return float(value)


def _seconds(argument: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) if isinstance(value, Real) else -1.0
    except OverflowError:  # a whole number beyond all floats
        seconds = float("inf")
    if not 0 <= seconds <= 1e300:
        remedy = "leave it out for a proof without a limit"
        raise InputError(argument, wanted="None or seconds >= 0", got=shown(value), remedy=remedy)
    return seconds


def one_of(kind: Any, remedy: str) -> Check:
    """Return what checks that a value is one of those of a `Literal`."""
    known = get_args(kind)
    wanted = " or ".join(f'"{one}"' for one in known)

    def check(argument: str, value: Any) -> Any:
        choice(argument, value, known, remedy, wanted)
        return value

    return check


def _flag(argument: str, value: Any) -> bool:
    require_flag(argument, value)
    return bool(value)


@dataclass(frozen=True)
class Options:
    """Options that check themselves: a default is taken as it is, and each other value is checked once."""

    panel: ClassVar[str]

    def __post_init__(self) -> None:
        for one in fields(self):
            value, check = getattr(self, one.name), one.metadata["check"]
            is_default = type(value) is type(one.default) and value == one.default
            if check is not None and not is_default:
                object.__setattr__(self, one.name, check(one.name, value))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the options among some arguments; the others are left alone."""
        return cls(**{one.name: given[one.name] for one in fields(cls) if one.name in given})

    @classmethod
    def declared(cls) -> tuple[Field[Any], ...]:
        """Return the declaration of each option, in order."""
        return fields(cls)


@dataclass(frozen=True)
class RangeOptions(Options):
    """Which units are explained, and on which ranges of their activations."""

    panel: ClassVar[str] = "Ranges"

    clusters: int = _option(
        5, "Ranges per unit: 1 = the activations above the top quantile, more = clusters.", whole(1, 2**62)
    )
    quantile: float = _option(
        0.005, "Share of the activations above the lower end of the range, with one range per unit.", check_quantile
    )
    clustering: Method = _option(
        "optimal",
        "How clusters are found: optimal, or sklearn (as published).",
        one_of(Method, "leave it out for the optimum"),
        typed=str,
    )
    ranges: Any = _option(
        None, "A range LOWER,UPPER instead of clusters; repeatable.", flag="range", typed=list[str] | None
    )
    units: Iterable[int] | None = _option(None, "Only these units, as in 0-9,14.", typed=str | None)


@dataclass(frozen=True)
class SearchOptions(Options):
    """How formulas are searched.

    Attributes
    ----------
    length
        Longest formula, in concepts (1 = Network Dissection, 3 = Compositional Explanations).
    beam
        Formulas that are kept and extended at each level; the first level extends 2 * beam concepts.
    search, published
        Which search: see `ccx.explain`. The functions of one search leave them alone.
    scoring
        A score of `ccx.scores`, or its name.
    only, categories
        The concepts, and the categories of concepts, that may occur in formulas; None = all. The functions of one
        search take bool[C] in their place.
    candidates
        Only so many concepts, the best by themselves, are used to extend formulas; None = all. Those without
        a score come last, in their order. (The first published system calls this ``BEAM_SEARCH_LIMIT``.)
    length_penalty
        What is maximised is score * length_penalty ** (length - 1). (``FORMULA_COMPLEXITY_PENALTY``
        there.) Formulas are compared with the exact rational value of this float.
    top
        How many of the best formulas to return.
    min_iou
        Only formulas whose IoU, as `Found.iou` rounds it, is at least this are found, whatever the score: the best of
        these. (A beam is extended as if there were no such condition.)
    time_limit, evaluation_limit
        Seconds per bitmap, or formulas bounded or counted, after which `optimal_search` gives up a proof and returns
        the best it has, with an upper bound; None = never, 0 = at once: the beam's answer. Both count from the
        beginning of the search, the beam included, which always ends; compiling kernels is no part of it. The search
        looks at them between two steps, which no limit cuts short. Results under an `evaluation_limit` are the same in
        every run.

    Raises
    ------
    InputError
        If an option is out of its range.

    """

    panel: ClassVar[str] = "Search"

    length: int = _option(3, "Longest formula, in concepts.", whole(1, MAX_LENGTH))
    beam: int = _option(5, "Width of the beam.", whole(1))
    search: SearchName = _option(
        "beam", "beam (exact), optimal (proven), or as published: mmesh, cfh, areas, none.", one_of(SearchName, _SEE),
        typed=str,
    )  # fmt: skip
    published: bool = _option(False, "With a published search: its rounding and ties, too.", _flag)
    scoring: Score = _option(
        SCORES["iou"],
        "What is maximised: iou, f1, precision, recall, mcc, cosine, balanced-accuracy.",
        lambda _argument, value: resolve(value),
        typed=str,
    )
    only: Iterable[str] | None = _option(None, "Only this concept; repeatable.", typed=list[str] | None)
    categories: Iterable[str] | None = _option(
        None, "Only this category of concepts; repeatable.", flag="category", typed=list[str] | None
    )
    candidates: int | None = _option(
        None, "So many concepts, the best by themselves, extend formulas.", whole(1, optional=True)
    )
    length_penalty: float = _option(
        1.0, "Factor on the score for each further concept.", lambda name, value: _share(name, value, zero=False)
    )
    top: int = _option(1, "So many of the best formulas per range.", whole(1))
    min_iou: float = _option(0.0, "Least IoU of what is found.", lambda name, value: _share(name, value, zero=True))
    time_limit: float | None = _option(None, "Seconds per range for a proof.", _seconds)
    evaluation_limit: int | None = _option(
        None, "Formulas bounded or counted per range for a proof.", whole(0, 2**62, optional=True)
    )

    def record(self, allowed: list[str] | None) -> dict[str, Any]:
        """Return JSON-able values, limits where set; `allowed` names the concepts that may occur, None = all."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        limits = {name: values.pop(name) for name in ("time_limit", "evaluation_limit")}
        del values["categories"]
        given = {name: limit for name, limit in limits.items() if limit is not None}
        return {**values, **given, "scoring": self.scoring.name, "only": allowed}


@dataclass(frozen=True)
class EvidenceOptions(Options):
    """What stands beside a score (docs/chance.md)."""

    panel: ClassVar[str] = "Evidence"

    permutations: int = _option(
        0,
        "Repeat each search with the samples exchanged, so many times.",
        whole(0, 2**62, remedy="0 reports no chance, 99 a p-value of 0.01 at the least"),
    )
    groups: Any = _option(
        None, "A label per sample (.txt or an array): exchange samples within these only.", typed=Path
    )
    seed: int = _option(0, "Of the exchanges.", whole(0, 2**128, remedy="the default is 0"))
    fit_samples: Any = _option(
        None, "Find formulas on these samples, as in 0-99,105, or an array file.", typed=str | None
    )
    test_samples: Any = _option(
        None, "Score the formulas on these samples; by default on all others.", typed=str | None
    )


KINDS: tuple[type[Options], ...] = (RangeOptions, SearchOptions, EvidenceOptions)


def renamed_arguments(
    given: dict[str, Any], old: Mapping[str, Any], names: Mapping[str, str] = RENAMED, stacklevel: int = 5
) -> dict[str, Any]:
    """Return the arguments of a call with those under an old name in their place, and warn of each.

    Raises
    ------
    TypeError
        As Python does, if a name is none of the old ones; says which argument is written almost so.
    InputError
        If an argument is given under both names.

    """
    for name, value in old.items():
        if name not in names:
            import difflib  # noqa: PLC0415 - only to word the error

            close = difflib.get_close_matches(name, given, n=1)
            remedy = f"; did you mean {close[0]}=?" if close else ""
            msg = f"got an unexpected keyword argument {name!r}{remedy}"
            raise TypeError(msg)
        new = names[name]
        if not any(given[new] is unset for unset in (None, 0)):
            raise InputError(name, wanted=f"{new} alone, its new name", got="both", remedy=f"leave {name} out")
        warnings.warn(f"{name}= is now {new}=", DeprecationWarning, stacklevel=stacklevel)
        given = {**given, new: value}
    return given


def renamed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run folder or file, those of an older release under their new names."""
    return {_RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}
