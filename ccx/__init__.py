"""ccx: exact logical explanations of neurons over human concepts.

>>> import ccx
>>> found = ccx.explain(activations, concepts)  # doctest: +SKIP
>>> str(found[0].formula)  # doctest: +SKIP
'((sky OR tree) AND NOT road)'
"""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from ccx._version import VERSION as __version__

if _TYPE_CHECKING:
    from ccx import heuristics, kernels, metrics, models, scores
    from ccx.concepts import Concepts
    from ccx.errors import CCXError
    from ccx.formula import Formula, parse
    from ccx.keys import Activations, align
    from ccx.pipeline import explain, explain_bitmaps
    from ccx.probing import probe
    from ccx.report.plotting import plot
    from ccx.results import Explanation, Explanations, Status

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

# Each is imported at first use: the command `ccx` must hear a Ctrl-C before it begins to import for a second.
_PLACES = {
    "Activations": "keys",
    "CCXError": "errors",
    "Concepts": "concepts",
    "Explanation": "results",
    "Explanations": "results",
    "Formula": "formula",
    "Status": "results",
    "align": "keys",
    "explain": "pipeline",
    "explain_bitmaps": "pipeline",
    "parse": "formula",
    "plot": "report.plotting",
    "probe": "probing",
}


def __getattr__(name: str) -> _Any:
    if name == "load":
        return _import_module("ccx.results").Explanations.load
    if name in _PLACES:
        found = getattr(_import_module(f"ccx.{_PLACES[name]}"), name)
    elif not name.startswith("_") and _find_spec(f"ccx.{name}"):  # ccx.errors, say, needs no import of its own
        found = _import_module(f"ccx.{name}")
    else:
        msg = f"module 'ccx' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
