"""Options that several commands share, those of `ccx.options` among them, and what their texts mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
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


def option(help: str, panel: str | None = None, *flags: str, **more: Any) -> Any:
    """Return an option of these flags, or of its parameter's name."""
    return typer.Option(*flags, help=help, rich_help_panel=panel, **more)


def file(help: str, panel: str | None = None, **more: Any) -> Any:
    """Return an option that takes a file which is there."""
    return option(help, panel, exists=True, dir_okay=False, **more)


ActivationsFile = Annotated[
    Path, typer.Argument(help="float[N, U, h, w], [N, U, T] or [N, U]: .npy, .npz, .safetensors.", exists=True)
]
Labels = Annotated[Path | None, file("Label maps int[N, L, H, W], 0 = none.", _CONCEPTS)]
Masks = Annotated[Path | None, file("Masks bool[C, N, H, W].", _CONCEPTS)]
Names = Annotated[Path | None, file("Names of the concepts: .txt, .csv, .tsv or .json.", _CONCEPTS)]
Valid = Annotated[Path | None, file("bool[N, H, W], false where a cell counts nowhere.", _CONCEPTS)]
Exclude = Annotated[
    Path | None,
    file(r"bool[N, h, w] or \[h, w], of tokens [N, T] or [T]: positions that count nowhere.", _CONCEPTS),
]
Images = Annotated[
    str | None, option("Photographs for the report: an array file, a folder, or a data set as for 'ccx probe'.")
]
Threads = Annotated[int | None, option("Processors to use; all by default.")]
Device = Annotated[str, option("Where to count: cpu, cuda, cuda:1, or several GPUs, cuda:0,cuda:1.")]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where activations and concepts come from, and what brings them into one order."""

    key: Annotated[str | None, option("Which array of the activations' file.")] = None
    keys: Annotated[
        Path | None, file("Keys of the activations' samples: a .txt with one per line, or a .json list.")
    ] = None
    align: Annotated[
        str | None,
        option(
            "By keys: 'order' brings activations and images into the order of the concepts; 'shared' also leaves out "
            "what one of them lacks."
        ),
    ] = None
    labels: Labels = None
    masks: Masks = None
    concepts: Annotated[Path | None, file("A file of 'ccx concepts build'.", _CONCEPTS)] = None
    names: Names = None
    valid: Valid = None
    threads: Threads = None


def with_options(
    *kinds: type[Options], without: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the declared options of some kinds; it takes their values, parsed, as keywords.

    Of a parameter that is a dataclass, such as `Inputs`, the command has the fields. `defaults` are those that this
    command has of its own. It says where kernels are compiled.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        names = [one.name for kind in kinds for one in kind.declared() if one.name not in without]
        parameters: list[inspect.Parameter] = []
        bundles: dict[str, Any] = {}
        for own in inspect.signature(function, eval_str=True).parameters.values():
            if is_dataclass(own.annotation):
                bundles[own.name] = own.annotation
                parameters += _fields_of(own.annotation, defaults)
            elif own.name not in names and own.kind is not inspect.Parameter.VAR_KEYWORD:
                parameters.append(own.replace(kind=_KEYWORD))
        chosen = {name: parameter(name, default=defaults.get(name)) for name in names}
        old = {old: chosen[new] for old, new in RENAMED.items() if new in names}
        parameters += [*chosen.values(), *(_hidden(one, new) for one, new in old.items())]

        def command(**values: Any) -> None:
            for one, new in old.items():
                _rename(values, one, new)
            values |= {name: _PARSERS[name](values[name]) for name in names if name in _PARSERS}
            for name, kind in bundles.items():
                values[name] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
            with terminal.compile_notice():
                function(**values)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _fields_of(kind: Any, defaults: dict[str, Any]) -> list[inspect.Parameter]:
    """Return the fields of a dataclass of options as parameters that typer reads."""
    hints = get_type_hints(kind, include_extras=True)
    values = {one.name: defaults.get(one.name, one.default) for one in fields(kind)}
    return [inspect.Parameter(one, _KEYWORD, default=value, annotation=hints[one]) for one, value in values.items()]


def _declared(name: str) -> tuple[type[Options], Field[Any]]:
    return next((kind, one) for kind in KINDS for one in kind.declared() if one.name == name)


def declared(name: str, *flags: str) -> Any:
    """Return the option of `ccx.options` of this name, with more flags before its own."""
    kind, one = _declared(name)
    flag = f"--{one.metadata['flag'] or name.replace('_', '-')}"
    return option(one.metadata["help"], kind.panel, *flags, flag, exists=one.metadata["typed"] is Path)


def parameter(name: str, default: Any = None) -> inspect.Parameter:
    """Return the declared option of this name as a parameter that typer reads."""
    kind, one = _declared(name)
    typed = one.metadata["typed"] or get_type_hints(kind)[name]
    typed = Path | None if typed is Path else typed
    value = one.default if default is None else default
    value = value.name if isinstance(value, Score) else value
    return inspect.Parameter(name, _KEYWORD, default=value, annotation=Annotated[typed, declared(name)])


def _hidden(old: str, new: inspect.Parameter) -> inspect.Parameter:
    typed = new.annotation.__origin__
    option = typer.Option(f"--{old}", hidden=True)
    return inspect.Parameter(old, _KEYWORD, default=None, annotation=Annotated[typed | None, option])


def _rename(values: dict[str, Any], old: str, new: inspect.Parameter) -> None:
    """Take what was given under a flag of an older release, and say how it is called now."""
    value = values.pop(old)
    if value is None:
        return
    flag, old_flag = f"--{new.name.replace('_', '-')}", f"--{old}"
    if values[new.name] != new.default:
        raise InputError(old_flag, wanted=f"{flag} alone, its new name", got="both", remedy=f"leave {old_flag} out")
    terminal.notice(f"{old_flag} is now {flag}", "yellow")
    values[new.name] = value


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
