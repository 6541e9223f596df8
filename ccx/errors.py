"""The errors that ccx raises on purpose: all derive from `CCXError`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

_MOST_LISTED = 1_000  # problems in one message
# Control characters but tab and new line, marks that change the direction of text, line separators, lone surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)


def visible(text: str) -> str:
    r"""Return a text as a terminal or a page may have it: what would act, or hide, is written as ``\u{1b}``.

    Names come from files that somebody else made, and an escape sequence in one could rewrite what stands on a
    terminal. Formulas write such characters in the same way.
    """
    return _UNSEEN.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)


class CCXError(Exception):
    """Base class of every error that ccx raises on purpose; its text holds nothing that acts on a terminal."""

    def __str__(self) -> str:
        return visible(super().__str__())


class InputError(CCXError, ValueError):
    """An argument that ccx cannot use: which, what was wanted, what came, what to do.

    Parameters
    ----------
    argument
        Name of the argument, as the caller wrote it.
    wanted, got
        What ccx expected and what it received, in the notation ``dtype[shape]`` where it fits.
    remedy
        What the caller can do about it.

    """

    def __init__(self, argument: str, *, wanted: str, got: str, remedy: str) -> None:
        self.argument = argument
        self.wanted = wanted
        self.got = got
        self.remedy = remedy
        super().__init__(f"{argument}: expected {wanted}, got {got}; {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(type(self), wanted=self.wanted, got=self.got, remedy=self.remedy)
        return made, (self.argument,)  # as it comes from a worker process


class ShapeError(InputError):
    """An array of the wrong shape."""


class DTypeError(InputError, TypeError):
    """An array of the wrong dtype, or a value of the wrong type."""


class MemoryBudgetError(InputError, MemoryError):
    """Work that would need more memory than there is; raised before anything is allocated."""


class BackendError(CCXError):
    """Arrays that no backend of ccx owns, or that belong to different backends."""


class MissingExtraError(CCXError, ImportError):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {library}: install it with  pip install "ccx[{extra}]"')


def require_library(library: str, extra: str, purpose: str) -> None:
    """Raise `MissingExtraError` unless an optional library is installed; to import it may take seconds."""
    if find_spec({"scikit-learn": "sklearn"}.get(library, library)) is None:
        raise MissingExtraError(library, extra, purpose)


class StoreError(CCXError):
    """A file or folder that ccx cannot read or write; nothing was lost."""


class FilesError(StoreError):
    """Files of a data set that cannot be used, all of them.

    Parameters
    ----------
    problems
        One text per problem, each with the name of the file; kept as the attribute `problems`.
    remedy
        What the caller can do.

    """

    def __init__(self, problems: Sequence[str], remedy: str) -> None:
        self.problems = tuple(problems)
        n_more = len(self.problems) - _MOST_LISTED
        more = [f"... and {n_more} more: see error.problems"] if n_more > 0 else []
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        head = f"{count} with the files of the data set; {remedy}:"
        super().__init__("\n  ".join([head, *self.problems[:_MOST_LISTED], *more]))
