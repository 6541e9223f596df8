"""The studies around the algorithm, each one function on any model and data set: tables, figures.

They are those of the published system (La Rosa et al. 2023); ``ccx run``, ``compare-heuristics`` and so on are
their commands. ``docs/studies.md`` says what each does, and where it differs.
"""

from ccx.studies.experiment import Experiment, run
from ccx.studies.figures import write_figure
from ccx.studies.importance import RangesImportance, ranges_importance, unit_ranges
from ccx.studies.measuring import Metrics, concept_masking, metrics
from ccx.studies.picturing import images
from ccx.studies.searches import SEARCHES, HeuristicComparison, compare_heuristics
from ccx.studies.specialization import Specialization, analyze_activations
from ccx.studies.table import Table
from ccx.studies.thresholds import QUANTILES, Thresholds, compare_thresholds

__all__ = [
    "QUANTILES",
    "SEARCHES",
    "Experiment",
    "HeuristicComparison",
    "Metrics",
    "RangesImportance",
    "Specialization",
    "Table",
    "Thresholds",
    "analyze_activations",
    "compare_heuristics",
    "compare_thresholds",
    "concept_masking",
    "images",
    "metrics",
    "ranges_importance",
    "run",
    "unit_ranges",
    "write_figure",
]
