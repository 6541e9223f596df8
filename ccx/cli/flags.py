"""Options that several commands share, those of `ccx.options` among them, and what their texts mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ccx.checks import shown
from ccx.cli import terminal
from ccx.errors import InputError
from ccx.memory import require_bytes
from ccx.options import KINDS, RENAMED, Options
from ccx.scores import Score

_CONCEPTS = "Concepts"
_NUMBER_BYTES = 40  # of a number in a list
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


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
    Path | None, _file("--keys", "Keys of the activations' samples: a .txt with one per line, or a .json list.")
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


def with_options(
    *kinds: type[Options], without: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the declared options of some kinds; it takes their values, parsed, as keywords.

    `defaults` are those that this command has of its own.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        names = [one.name for kind in kinds for one in kind.declared() if one.name not in without]
        own = [one for one in inspect.signature(function, eval_str=True).parameters.values() if one.name not in names]
        own = [one.replace(kind=_KEYWORD) for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
        declared = [parameter(name, default=defaults.get(name)) for name in names]
        old = {old: new for old, new in RENAMED.items() if new in names}
        hidden = [_hidden(old, one) for one in declared for old, new in RENAMED.items() if new == one.name]

        def command(**values: Any) -> None:
            for one, new in old.items():
                _rename(values, one, new, next(p.default for p in declared if p.name == new))
            function(**parsed(values, names))

        return as_command(command, function, [*own, *declared, *hidden])

    return decorate


def as_command(
    command: Callable[..., None], function: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """Give a command the name and text of a function, and parameters that typer reads."""
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def parameter(name: str, *flags: str, default: Any = None) -> inspect.Parameter:
    """Return the declared option of this name as a parameter that typer reads, with more flags before its own."""
    kind, one = next((kind, one) for kind in KINDS for one in kind.declared() if one.name == name)
    typed, is_file = one.metadata["typed"] or get_type_hints(kind)[name], one.metadata["typed"] is Path
    typed = Path | None if is_file else typed
    flag = f"--{one.metadata['flag'] or name.replace('_', '-')}"
    option = typer.Option(*flags, flag, help=one.metadata["help"], rich_help_panel=kind.panel, exists=is_file)
    value = one.default if default is None else default
    value = value.name if isinstance(value, Score) else value
    return inspect.Parameter(name, _KEYWORD, default=value, annotation=Annotated[typed, option])


def _hidden(old: str, new: inspect.Parameter) -> inspect.Parameter:
    typed = new.annotation.__origin__
    option = typer.Option(f"--{old}", hidden=True)
    return inspect.Parameter(old, _KEYWORD, default=None, annotation=Annotated[typed | None, option])


def _rename(values: dict[str, Any], old: str, new: str, default: Any) -> None:
    """Take what was given under a flag of an older release, and say how it is called now."""
    value = values.pop(old)
    if value is None:
        return
    flag, old_flag = f"--{new.replace('_', '-')}", f"--{old}"
    if values[new] != default:
        remedy = f"leave {old_flag} out"
        raise InputError(old_flag, wanted=f"{flag} alone, its new name", got="both", remedy=remedy)
    terminal.errors().print(f"{old_flag} is now {flag}", style="yellow")
    values[new] = value


def parsed(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return values of the command line with those of the declared options as `ccx.explain` takes them."""
    return values | {name: _PARSERS[name](values[name]) for name in names if name in _PARSERS}


def parse_units(text: str | None, flag: str = "--units") -> list[int] | None:
    """Return the units, or samples, of a text like ``0-9,14``; None = all; raises `InputError` if the text is none."""
    if text is None:
        return None
    units: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not all(number.isdecimal() and len(number) < 19 for number in (first, last if dash else "0")):
            raise InputError(flag, wanted="numbers and ranges", got=shown(part), remedy="write them like 0-9,14")
        more = range(int(first), int(last if dash else first) + 1)
        require_bytes(flag, _NUMBER_BYTES * max(0, more.stop - more.start), "name those that are there")
        units += more
    return units


def parse_size(text: str, flag: str) -> tuple[int, int]:
    """Return (height, width) of a text like ``112`` or ``112x64``.

    Raises `InputError` if the text is none; `flag` is the option that it came with.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        wanted = "a number, or two with an x between"
        raise InputError(flag, wanted=wanted, got=repr(text), remedy="write it like 112 or 112x64")
    return int(parts[0]), int(parts[-1])


def parse_ranges(texts: list[str] | None) -> list[tuple[float, float]] | None:
    """Return the ranges of texts like ``3,inf``; None where there are none.

    Raises `InputError` if a text is no pair of numbers.
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


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "ranges": parse_ranges,
    "units": parse_units,
    "scoring": lambda text: text.replace("-", "_"),
    "only": lambda names: names or None,
    "categories": lambda names: names or None,
}
