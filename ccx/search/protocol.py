"""What `explain` asks of every search: one class each, made from the options, prepared once, called per bitmap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.checks import shown
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.options import SearchOptions
from ccx.search.found import SearchResult

IntArray = npt.NDArray[np.int64]
Usable = npt.NDArray[np.bool_]


class Search(ABC):
    """A search; `prepare` makes what all bitmaps share, a call searches one bitmap on one thread.

    `was_published` says that it can do as the published code does, `can_be_stopped` that it knows limits,
    `measures_masks` that it keeps masks of the concepts beside the atoms; `nothing` is what it finds in a bitmap
    without cells.
    """

    was_published = False
    can_be_stopped = False
    measures_masks = False
    nothing = SearchResult([])

    def __init__(self, options: SearchOptions, permutations: int = 0) -> None:
        """Take the options; raise `InputError` unless the search can be run so, and repeated so many times."""
        self.options = options
        self.check(permutations)

    def check(self, permutations: int) -> None:  # noqa: ARG002 (what can be stopped looks at it)
        """Raise `InputError` where the options do not fit this search."""
        given = f"search={self.options.search!r}"
        if self.options.published and not self.was_published:
            wanted = "True only with one of the published searches, mmesh, cfh, areas, none"
            raise InputError("published", wanted=wanted, got=f"True with {given}", remedy="leave it out")
        for name in () if self.can_be_stopped else ("time_limit", "evaluation_limit"):
            limit = getattr(self.options, name)
            if limit is not None:
                remedy = 'leave it out: only search="optimal" can be stopped'
                raise InputError(name, wanted=f"None with {given}", got=shown(limit), remedy=remedy)

    def memory(self, n_concepts: int) -> int:  # noqa: ARG002 (what keeps tables looks at it)
        """Return the bytes of a table of what each two concepts share, where the search keeps some per worker."""
        return 0

    def prepare(self, concepts: Concepts, allowed: Usable, threads: int) -> None:  # noqa: ARG002 (what measures takes them)
        """Make what all bitmaps share, on so many threads; `allowed` bool[C] marks the concepts that may occur."""
        self.concepts, self.allowed = concepts, allowed

    @abstractmethod
    def __call__(self, counts: IntArray, bitmap: Callable[[], Any]) -> SearchResult:
        """Search a bitmap, given int64[G], its cells by atom, and what makes its packed rows uint64[N, n_words].

        It counts where the histogram lies, and estimates where the bitmap does.
        """
