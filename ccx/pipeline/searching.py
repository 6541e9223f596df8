"""Which search `explain` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ccx.chance import check_count
from ccx.checks import shown
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.scores import SCORES
from ccx.search import (
    ConceptMasks,
    Heuristic,
    SearchResult,
    SearchSettings,
    beam_search,
    check_provable,
    guided_search,
    optimal_search,
)

Search: TypeAlias = Literal["beam", "optimal", "mmesh", "cfh", "areas", "none"]
Searcher: TypeAlias = Callable[[npt.NDArray[np.int64], Callable[[], npt.NDArray[np.uint64]]], SearchResult]
"""Searches a bitmap, given int64[G], its cells by atom, and what makes its packed rows uint64[N, n_words]."""


def check_search(search: Any, published: Any, settings: SearchSettings, null: int = 0) -> None:
    """Raise `InputError` unless there is such a search, and it can be run as asked, `null` times once more."""
    if not isinstance(search, str) or search not in get_args(Search):
        wanted = " or ".join(f'"{one}"' for one in get_args(Search))
        raise InputError("search", wanted=wanted, got=shown(search), remedy="see the documentation of explain")
    if not isinstance(published, (bool, np.bool_)) or (published and search not in get_args(Heuristic)):
        wanted = "True only with one of the published searches, mmesh, cfh, areas, none"
        got = f"{published!r} with search={search!r}"
        raise InputError("published", wanted=wanted, got=got, remedy="leave it out")
    if search == "optimal":
        check_provable(settings, n_concepts=0)  # how many may occur is known later
    for name in ("time_limit", "evaluation_limit"):
        if search != "optimal" and getattr(settings, name) is not None:
            remedy = 'leave it out: only search="optimal" can be stopped'
            raise InputError(
                name, wanted=f"None with search={search!r}", got=shown(getattr(settings, name)), remedy=remedy
            )
    if check_count(null) and settings.time_limit is not None:
        # Exchanged samples would get other seconds than the true ones, and p would mean nothing.
        remedy = "use evaluation_limit, which is the same for every search"
        raise InputError("time_limit", wanted="None beside null", got=shown(settings.time_limit), remedy=remedy)
    if search in get_args(Heuristic) and settings.scoring is not SCORES["iou"]:
        wanted, remedy = '"iou", which the published searches estimate', 'use search="beam" or "optimal"'
        raise InputError("scoring", wanted=wanted, got=shown(settings.scoring.name), remedy=remedy)
    if published and settings.length_penalty != 1:
        remedy = "the published searches have none"
        raise InputError("length_penalty", wanted="1", got=shown(settings.length_penalty), remedy=remedy)


def nothing_found(search: Search) -> SearchResult:
    """Return what a search says of a bitmap without cells: by "optimal" a proof that there is no formula."""
    proven = search == "optimal"
    return SearchResult([], upper_bound=0.0 if proven else None, optimal=proven)


def needs_masks(search: Search) -> bool:
    """Return whether a search measures masks."""
    return search in ("mmesh", "cfh", "areas")


def searcher(
    search: Search,
    published: bool,
    concepts: Concepts,
    settings: SearchSettings,
    allowed: npt.NDArray[np.bool_],
    threads: int,
) -> Searcher:
    """Prepare what all bitmaps share, with so many threads, and return the search of one, which uses one thread.

    Each counts where the histogram lies, and estimates where the bitmap does.
    """
    if search == "beam":
        return lambda counts, _bitmap: beam_search(concepts, counts, settings, allowed, threads=1)
    if search == "optimal":
        check_provable(settings, int(allowed.sum()))
        return lambda counts, _bitmap: optimal_search(concepts, counts, settings, allowed, threads=1)
    heuristic: Heuristic = search
    masks = ConceptMasks(concepts, threads=threads) if needs_masks(search) else None

    def guided(counts: npt.NDArray[np.int64], bitmap: Callable[[], npt.NDArray[np.uint64]]) -> SearchResult:
        rows = None if masks is None else bitmap()
        return guided_search(
            concepts, counts, settings, allowed, heuristic=heuristic, masks=masks, bitmap=rows, published=published
        )

    return guided
