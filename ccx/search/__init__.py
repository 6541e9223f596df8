"""Search: from the histogram of a bitmap over atoms to the formulas that describe it best."""

import warnings
from typing import Any

from ccx.options import SearchOptions
from ccx.search.beam import BeamSearch, beam_search
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.guided import GuidedSearch, Heuristic, guided_search
from ccx.search.masks import ConceptMasks
from ccx.search.optimal import OptimalSearch, optimal_search
from ccx.search.protocol import Search

__all__ = [
    "SEARCHES",
    "ConceptMasks",
    "Found",
    "Heuristic",
    "Objective",
    "Search",
    "SearchOptions",
    "SearchResult",
    "beam_search",
    "guided_search",
    "optimal_search",
]

SEARCHES: dict[str, type[Search]] = {
    "beam": BeamSearch,
    "optimal": OptimalSearch,
    **dict.fromkeys(("mmesh", "cfh", "areas", "none"), GuidedSearch),
}
"""The class of each search, by the name that the option `search` gives it."""


def __getattr__(name: str) -> Any:
    if name != "SearchSettings":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    warnings.warn("ccx.search.SearchSettings is now ccx.search.SearchOptions", DeprecationWarning, stacklevel=2)
    return SearchOptions
