"""The kernels in plain NumPy and Python: what they mean, in few lines, slow. Tests compare the two.

One file a family, under the names of `ccx.kernels`. The oracle shares no code with the kernels.
"""

from tests.reference.activations import bitmap_histogram, inside, range_histogram, upsample, upsample_pack
from tests.reference.atoms import (
    atoms_of,
    concept_counts,
    concept_masks,
    membership,
    pair_counts,
    sets_of_labels,
    sets_of_masks,
)
from tests.reference.completions import completions
from tests.reference.estimates import estimate_extensions
from tests.reference.formulas import (
    best_extensions,
    best_placed,
    best_singles,
    canonical,
    conjunction_counts,
    formula_counts,
    satisfied,
    tie_key,
)
from tests.reference.kmeans import clustering_cost, kmeans_1d
from tests.reference.permutations import permuted_histogram
from tests.reference.rows import (
    and_popcount,
    formula_rows,
    intersection_counts,
    logical_and,
    logical_and_not,
    logical_or,
    pack,
    popcount,
    unpack,
)
from tests.reference.shapes import bounding_boxes, inscribed_rectangles

__all__ = [
    "and_popcount",
    "atoms_of",
    "best_extensions",
    "best_placed",
    "best_singles",
    "bitmap_histogram",
    "bounding_boxes",
    "canonical",
    "clustering_cost",
    "completions",
    "concept_counts",
    "concept_masks",
    "conjunction_counts",
    "estimate_extensions",
    "formula_counts",
    "formula_rows",
    "inscribed_rectangles",
    "inside",
    "intersection_counts",
    "kmeans_1d",
    "logical_and",
    "logical_and_not",
    "logical_or",
    "membership",
    "pack",
    "pair_counts",
    "permuted_histogram",
    "popcount",
    "range_histogram",
    "satisfied",
    "sets_of_labels",
    "sets_of_masks",
    "tie_key",
    "unpack",
    "upsample",
    "upsample_pack",
]
