"""ccx: exact logical explanations of neurons over human concepts.

>>> import ccx
>>> found = ccx.explain(activations, concepts)  # doctest: +SKIP
>>> str(found[0].formula)  # doctest: +SKIP
'((sky OR tree) AND NOT road)'
"""

from ccx import heuristics, kernels, metrics
from ccx._version import VERSION as __version__
from ccx.concepts import Concepts
from ccx.errors import CCXError
from ccx.formula import Formula, parse
from ccx.pipeline import explain, explain_bitmaps
from ccx.results import Explanation, Explanations, Status

load = Explanations.load

__all__ = [
    "CCXError",
    "Concepts",
    "Explanation",
    "Explanations",
    "Formula",
    "Status",
    "__version__",
    "explain",
    "explain_bitmaps",
    "heuristics",
    "kernels",
    "load",
    "metrics",
    "parse",
]
