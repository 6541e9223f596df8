"""ccx: exact logical explanations of neurons over human concepts.

>>> import ccx
>>> found = ccx.explain(activations, concepts)  # doctest: +SKIP
>>> str(found[0].formula)  # doctest: +SKIP
'((sky OR tree) AND NOT road)'
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from ccx import heuristics, kernels, metrics, models, scores
from ccx._version import VERSION as __version__
from ccx.concepts import Concepts
from ccx.errors import CCXError
from ccx.formula import Formula, parse
from ccx.keys import Activations, align
from ccx.pipeline import explain, explain_bitmaps
from ccx.results import Explanation, Explanations, Status

if _TYPE_CHECKING:
    from ccx.probing import probe
    from ccx.report.plotting import plot

load = Explanations.load

__all__ = [
    "Activations",
    "CCXError",
    "Concepts",
    "Explanation",
    "Explanations",
    "Formula",
    "Status",
    "__version__",
    "align",
    "explain",
    "explain_bitmaps",
    "heuristics",
    "kernels",
    "load",
    "metrics",
    "models",
    "parse",
    "plot",
    "probe",
    "scores",
]

# Imported at first use, so that `import ccx` stays light.
_LAZY = {"plot": "ccx.report.plotting", "probe": "ccx.probing"}


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        msg = f"module 'ccx' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(_import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
