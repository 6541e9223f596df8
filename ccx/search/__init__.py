"""Search: from the histogram of a bitmap over atoms to the formulas that describe it best."""

from ccx.search.beam import Found, SearchResult, beam_search
from ccx.search.settings import SearchSettings

__all__ = ["Found", "SearchResult", "SearchSettings", "beam_search"]
