"""How well a formula describes a unit, beyond the IoU: the metrics of the published system.

Each takes a bitmap and a mask (where the unit fires, where the formula holds) as boolean arrays, packed
rows or torch tensors, one or many at once; counts are exact integers, results float64. A share of nothing is 0,
never NaN. `Overlap` holds the counts that they all derive from; `measure` gives all of them for explanations
that were found. ``docs/metrics.md`` has the definitions and the comparison with the published code.
"""

from ccx.metrics.explanations import measure
from ccx.metrics.masking import cosine_concept_masking_score, get_concept_masking
from ccx.metrics.overlap import (
    METRICS,
    Overlap,
    activations_coverage,
    avg_mask_size,
    avg_overlapping,
    avg_overlapping_bitmap_size,
    detection_accuracy,
    explanation_coverage,
    iou,
    sample_iou,
    samples_coverage,
)

__all__ = [
    "METRICS",
    "Overlap",
    "activations_coverage",
    "avg_mask_size",
    "avg_overlapping",
    "avg_overlapping_bitmap_size",
    "cosine_concept_masking_score",
    "detection_accuracy",
    "explanation_coverage",
    "get_concept_masking",
    "iou",
    "measure",
    "sample_iou",
    "samples_coverage",
]
