"""Checks of arguments at the public edge: a value of the wrong type raises an error of ccx."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import Any

from ccx.errors import DTypeError, InputError

UNBOUNDED = 1 << 62
"""As the least, negated, or the most of `integer`: none."""


def require_kind(argument: str, value: Any, kind: type | tuple[type, ...], wanted: str, remedy: str) -> None:
    """Raise `DTypeError` unless `value` is of a kind."""
    if not isinstance(value, kind):
        raise DTypeError(argument, wanted=wanted, got=type(value).__name__, remedy=remedy)


def require_callable(argument: str, value: Any) -> None:
    """Raise `InputError` unless `value` is None or can be called."""
    if value is not None and not callable(value):
        remedy = "leave it out, or give a function"
        raise InputError(argument, wanted="None or a function", got=type(value).__name__, remedy=remedy)


def require_flag(argument: str, value: Any) -> None:
    """Raise `DTypeError` unless `value` is True or False."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise DTypeError(argument, wanted="True or False", got=type(value).__name__, remedy="leave it out")


def items(argument: str, values: Any, wanted: str, remedy: str = "give a list") -> Iterator[Any]:
    """Iterate over what a caller gave, or raise `InputError`; an array without axes only looks like an iterable."""
    try:
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise TypeError
        yield from values
    except TypeError as error:
        raise InputError(argument, wanted=wanted, got=shown(values), remedy=remedy) from error


def texts(argument: str, values: Any) -> list[str]:
    """Return a sequence of texts as a list of str, or raise `InputError` at the first that is not one."""
    found = []
    if isinstance(values, str):
        wanted, got = "a sequence of texts", f"the one text {values!r:.60}"
        raise InputError(argument, wanted=wanted, got=got, remedy=f"write [{values!r:.60}]")
    for text in items(argument, values, "a sequence of texts"):
        if not isinstance(text, str):
            got = f"{type(text).__name__} {shown(text)}"
            raise InputError(argument, wanted="texts", got=got, remedy="convert: str(name)")
        found.append(str(text))  # numpy.str_ -> str
    return found


def shown(value: Any) -> str:
    """Return how a message shows a value, at most 60 characters; NumPy cannot write out every array that it makes."""
    try:
        return f"{value!r:.60}"
    except Exception:
        return f"a {type(value).__name__}"


def integer(argument: str, value: Any, least: int, most: int, remedy: str, wanted: str = "") -> int:
    """Return a whole number between two others, or raise `InputError`; True and False are no numbers.

    `wanted` is what the error says instead of the two numbers.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):
        number = least - 1
    if not least <= number <= most:
        bounds = f"{least} to {most}" if most < UNBOUNDED else "an integer" + f" >= {least}" * (least > -UNBOUNDED)
        raise InputError(argument, wanted=wanted or bounds, got=shown(value), remedy=remedy)
    return number


def sides(argument: str, value: Any, remedy: str, wanted: str = "(H, W), two integers >= 1") -> tuple[int, int]:
    """Return the height and width of a grid or picture, both at least 1, or raise `InputError`."""
    try:
        height, width = (operator.index(side) for side in value)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise InputError(argument, wanted=wanted, got=shown(value), remedy=remedy)
    return height, width


def choice(argument: str, value: Any, options: Iterable[str], remedy: str, wanted: str = "") -> None:
    """Raise `InputError` unless a value is one of some texts; `wanted` is what the error says instead of these."""
    known = tuple(options)
    if not isinstance(value, str) or value not in known:
        raise InputError(argument, wanted=wanted or " or ".join(map(repr, known)), got=shown(value), remedy=remedy)


def is_between(value: Any, lower: float, upper: float) -> bool:
    """Tell whether a value is a number strictly between two others."""
    number: Any = value
    return isinstance(value, Real) and bool(lower < number < upper)
