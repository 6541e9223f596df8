"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccx.errors import InputError

_CONCEPTS, _RANGES, _SEARCH, _EVIDENCE = "Concepts", "Ranges", "Search", "Evidence"


def _file(flag: str, help: str, panel: str | None = None, *, dir_okay: bool = False) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        flag, help=help, exists=True, dir_okay=dir_okay, rich_help_panel=panel
    )
    return option


Labels = Annotated[Path | None, _file("--labels", "Label maps int[N, L, H, W], 0 = none.", _CONCEPTS)]
Masks = Annotated[Path | None, _file("--masks", "Masks bool[C, N, H, W].", _CONCEPTS)]
ConceptsFile = Annotated[Path | None, _file("--concepts", "A file of 'ccx concepts build'.", _CONCEPTS)]
Names = Annotated[Path | None, _file("--names", "Names of the concepts: .txt, .csv, .tsv or .json.", _CONCEPTS)]
Valid = Annotated[Path | None, _file("--valid", "bool[N, H, W], false where a cell counts nowhere.", _CONCEPTS)]
Exclude = Annotated[
    Path | None,
    _file("--exclude", "bool[N, h, w] or [h, w], of tokens [N, T] or [T]: positions that count nowhere.", _CONCEPTS),
]
Images = Annotated[
    str | None,
    typer.Option(
        "--images", help="Photographs for the report: an array file, a folder, or a data set as for 'ccx probe'."
    ),
]
Key = Annotated[str | None, typer.Option("--key", help="Which array of the activations' file.")]
Keys = Annotated[
    Path | None, _file("--keys", "Keys of the activations' samples: a .txt with one a line, or a .json list.")
]
Align = Annotated[
    str | None,
    typer.Option(
        "--align",
        help="By keys: 'order' brings activations and images into the order of the concepts; 'shared' also leaves out "
        "what one of them lacks.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", help="Processors to use; all by default.")]
Device = Annotated[
    str, typer.Option("--device", help="Where to count: cpu, cuda, cuda:1, or several GPUs, cuda:0,cuda:1.")
]

Clusters = Annotated[
    int, typer.Option("--clusters", help="Ranges a unit; 1 = the top quantile.", rich_help_panel=_RANGES)
]
Quantile = Annotated[
    float, typer.Option("--quantile", help="Share above it, for one cluster.", rich_help_panel=_RANGES)
]
Clustering = Annotated[str, typer.Option("--clustering", help="optimal or sklearn.", rich_help_panel=_RANGES)]
Ranges = Annotated[
    list[str] | None,
    typer.Option("--range", help="A range LOWER,UPPER instead of clusters; repeatable.", rich_help_panel=_RANGES),
]
Units = Annotated[str | None, typer.Option("--units", help="Only these units, as in 0-9,14.", rich_help_panel=_RANGES)]

Length = Annotated[int, typer.Option("--length", help="Longest formula, in concepts.", rich_help_panel=_SEARCH)]
Beam = Annotated[int, typer.Option("--beam", help="Width of the beam.", rich_help_panel=_SEARCH)]
Search = Annotated[
    str,
    typer.Option(
        "--search",
        help="beam (exact), optimal (proven), or as published: mmesh, cfh, areas, none.",
        rich_help_panel=_SEARCH,
    ),
]
Published = Annotated[
    bool,
    typer.Option("--published", help="With a published search: its rounding and ties, too.", rich_help_panel=_SEARCH),
]
Scoring = Annotated[
    str,
    typer.Option(
        "--scoring",
        help="What is maximised: iou, f1, precision, recall, mcc, cosine, balanced-accuracy.",
        rich_help_panel=_SEARCH,
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Only this concept; repeatable.", rich_help_panel=_SEARCH)
]
Categories = Annotated[
    list[str] | None, typer.Option("--category", help="Only this category; repeatable.", rich_help_panel=_SEARCH)
]
Candidates = Annotated[
    int | None, typer.Option("--candidates", help="Most new concepts a step.", rich_help_panel=_SEARCH)
]
LengthPenalty = Annotated[
    float,
    typer.Option("--length-penalty", help="Factor on the score for each further concept.", rich_help_panel=_SEARCH),
]
Top = Annotated[int, typer.Option("--top", help="So many best formulas a range.", rich_help_panel=_SEARCH)]
MinIou = Annotated[float, typer.Option("--min-iou", help="Least IoU of what is found.", rich_help_panel=_SEARCH)]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", help="Seconds a range for a proof.", rich_help_panel=_SEARCH),
]
EvaluationLimit = Annotated[
    int | None,
    typer.Option("--evaluation-limit", help="The same in formulas bounded or counted.", rich_help_panel=_SEARCH),
]

Null = Annotated[
    int,
    typer.Option(
        "--null", help="Repeat each search with the samples exchanged, so many times.", rich_help_panel=_EVIDENCE
    ),
]
Groups = Annotated[
    Path | None, _file("--groups", "A label a sample (.txt or an array): exchange within these only.", _EVIDENCE)
]
Seed = Annotated[int, typer.Option("--seed", help="Of the exchanges.", rich_help_panel=_EVIDENCE)]
Fit = Annotated[
    str | None,
    typer.Option(
        "--fit", help="Find formulas on these samples, as in 0-99,105, or an array file.", rich_help_panel=_EVIDENCE
    ),
]
Score = Annotated[
    str | None,
    typer.Option("--score", help="Score them on these; by default on all others.", rich_help_panel=_EVIDENCE),
]


def parse_units(text: str | None, flag: str = "--units") -> list[int] | None:
    """Return the units, or samples, of a text like ``0-9,14``; None = all.

    Raises
    ------
    InputError
        If the text is none.

    """
    if text is None:
        return None
    units: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(flag, wanted="numbers and ranges", got=repr(part), remedy="write them like 0-9,14")
        units += range(int(first), int(last if dash else first) + 1)
    return units


def parse_size(text: str, flag: str) -> tuple[int, int]:
    """Return (height, width) of a text like ``112`` or ``112x64``.

    Raises
    ------
    InputError
        If the text is none; `flag` is the option that it came with.

    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        wanted = "a number, or two with an x between"
        raise InputError(flag, wanted=wanted, got=repr(text), remedy="write it like 112 or 112x64")
    return int(parts[0]), int(parts[-1])


def parse_ranges(texts: list[str] | None) -> list[tuple[float, float]] | None:
    """Return the ranges of texts like ``3,inf``; None where there are none.

    Raises
    ------
    InputError
        If a text is no pair of numbers.

    """
    pairs: list[tuple[float, float]] = []
    for text in texts or ():
        try:
            lower, upper = map(float, text.split(","))
        except ValueError as error:
            remedy = "write it like 3,inf (and --range=-1,0 for a negative end)"
            raise InputError("--range", wanted="LOWER,UPPER", got=repr(text), remedy=remedy) from error
        pairs.append((lower, upper))
    return pairs or None
