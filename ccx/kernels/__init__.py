"""Arrays in, arrays out: the primitives that ccx is built on, public for other tools.

The array chooses the backend: NumPy arrays and torch tensors in main memory run on the CPU. Every
primitive has a plain NumPy twin under `tests.reference`, against which it is tested.
"""

from ccx.kernels.activations import bitmap_histogram, range_histogram, upsample, upsample_pack
from ccx.kernels.atoms import Atoms, ConceptRows, atom_rows, concept_counts, concept_rows, pair_counts
from ccx.kernels.estimates import (
    ConceptShapes,
    FormulaShapes,
    concept_hits,
    concept_shapes,
    estimate_extensions,
    formula_shapes,
)
from ccx.kernels.formulas import (
    Extensions,
    best_extensions,
    best_placed,
    best_singles,
    conjunction_counts,
    formula_counts,
)
from ccx.kernels.kmeans import kmeans_1d
from ccx.kernels.partitions import AtomBuilder
from ccx.kernels.permutations import permuted_histogram
from ccx.kernels.rows import (
    and_popcount,
    intersection_counts,
    logical_and,
    logical_and_not,
    logical_or,
    n_words,
    pack,
    popcount,
    unpack,
)
from ccx.kernels.shapes import bounding_boxes, inscribed_rectangles

__all__ = [
    "AtomBuilder",
    "Atoms",
    "ConceptRows",
    "ConceptShapes",
    "Extensions",
    "FormulaShapes",
    "and_popcount",
    "atom_rows",
    "best_extensions",
    "best_placed",
    "best_singles",
    "bitmap_histogram",
    "bounding_boxes",
    "concept_counts",
    "concept_hits",
    "concept_rows",
    "concept_shapes",
    "conjunction_counts",
    "estimate_extensions",
    "formula_counts",
    "formula_shapes",
    "inscribed_rectangles",
    "intersection_counts",
    "kmeans_1d",
    "logical_and",
    "logical_and_not",
    "logical_or",
    "n_words",
    "pack",
    "pair_counts",
    "permuted_histogram",
    "popcount",
    "range_histogram",
    "unpack",
    "upsample",
    "upsample_pack",
]
