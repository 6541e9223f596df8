"""Search: from the histogram of a bitmap over atoms to the formulas that describe it best."""

from ccx.search.beam import beam_search
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.guided import Heuristic, guided_search
from ccx.search.masks import ConceptMasks
from ccx.search.optimal import check_provable, optimal_search
from ccx.search.settings import SearchSettings

__all__ = [
    "ConceptMasks",
    "Found",
    "Heuristic",
    "Objective",
    "SearchResult",
    "SearchSettings",
    "beam_search",
    "check_provable",
    "guided_search",
    "optimal_search",
]
