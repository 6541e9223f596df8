"""The stages of an explanation over a few sizes, so that a change of speed shows commit by commit."""

from __future__ import annotations

import numpy as np

import ccx
from benchmarks.synthetic import generate
from ccx.clustering import unit_ranges
from ccx.kernels import range_histogram, upsample_pack
from ccx.search import ConceptMasks, SearchOptions, beam_search, guided_search

N_UNITS = 4


class Layer:
    """Seconds of each stage, one thread, and the peak memory of everything."""

    params = ([100, 400],)
    param_names = ("samples",)
    timeout = 120

    def setup(self, n_samples: int) -> None:
        """Generate data and run every stage once, which also compiles it."""
        self.data = generate(n_samples, N_UNITS)
        self.concepts = self.data.concepts()
        self.concepts.atoms.cut(1)
        self.values = np.ascontiguousarray(self.data.activations[:, 0])
        self.ranges = unit_ranges(self.values)
        (self.counts,) = range_histogram(self.values[:, None], self.ranges[None], self.concepts.atoms)
        self.bitmap = upsample_pack(self.values, self.concepts.shape, tuple(self.ranges[1]))
        self.masks = ConceptMasks(self.concepts)
        self.settings = SearchOptions(length=3, beam=5)
        self.time_guided_search(n_samples)
        self.time_explain(n_samples)

    def time_atoms(self, _n_samples: int) -> None:
        """Build atoms from label maps of five layers."""
        self.data.concepts(threads=1)

    def time_ranges(self, _n_samples: int) -> None:
        """Cluster one unit's activations into five."""
        unit_ranges(self.values)

    def time_range_histogram(self, _n_samples: int) -> None:
        """Count the cells of one unit's five ranges by atom."""
        range_histogram(self.values[:, None], self.ranges[None], self.concepts.atoms, threads=1)

    def time_beam_search(self, _n_samples: int) -> None:
        """Search the second range."""
        beam_search(self.concepts, self.counts[1], self.settings, threads=1)

    def time_concept_masks(self, _n_samples: int) -> None:
        """Pack the masks of all concepts and measure boxes and rectangles."""
        ConceptMasks(self.concepts, threads=1)

    def time_guided_search(self, _n_samples: int) -> None:
        """Search the second range, guided by MMESH."""
        options = {"heuristic": "mmesh", "masks": self.masks, "bitmap": self.bitmap}
        guided_search(self.concepts, self.counts[1], self.settings, threads=1, **options)

    def time_explain(self, _n_samples: int) -> None:
        """Explain four units of five ranges."""
        ccx.explain(self.data.activations, self.concepts, threads=1, progress=False)

    def peakmem_explain(self, n_samples: int) -> None:
        """Peak memory of the process, inputs included."""
        self.time_explain(n_samples)
