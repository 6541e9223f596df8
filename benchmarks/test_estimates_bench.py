"""The published heuristics: shapes, estimates alone, and inside the search, each checked before it is timed.

``python -m pytest benchmarks/test_estimates_bench.py --benchmark-enable``. Checked on one sample against the
definition mask by mask (so the ``oracle_time_ratio`` of estimates includes measuring the masks), or against exact
beam search; timed on 500. The bytes of a search are those of the concepts' masks, which it reads once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ccx
from benchmarks._measure import check, measure
from benchmarks.synthetic import GRID, generate
from ccx import kernels
from ccx.clustering import unit_ranges
from ccx.search import ConceptMasks, SearchOptions, beam_search, guided_search
from tests import reference

N_SAMPLES, N_CHECKED = 500, 1
N_CELLS = GRID[0] * GRID[1]
N_FORMULAS = 5  # a beam
N_CHECKED_CONCEPTS = 4  # of 1,200: the oracle measures every mask anew for each estimate
KINDS = pytest.mark.parametrize("kind", ["mmesh", "cfh", "areas"])
THREADS = pytest.mark.parametrize("threads", [1, 2])


@dataclass(frozen=True)
class Case:
    """Synthetic samples and a bitmap: the second of five ranges of a unit."""

    concepts: ccx.Concepts
    values: NDArray[np.float32]
    limits: tuple[float, float]

    @cached_property
    def bitmap(self) -> NDArray[np.uint64]:
        """The bitmap, uint64[N, n_words]."""
        return kernels.upsample_pack(self.values, GRID, self.limits)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Its cells in each atom, int64[G]."""
        return kernels.bitmap_histogram(self.bitmap[None], self.concepts.atoms)[0]

    @cached_property
    def occurring(self) -> kernels.ConceptRows:
        """The masks of all concepts."""
        return self.concepts.packed_rows()

    @cached_property
    def formulas(self) -> NDArray[np.uint64]:
        """Masks of a beam: the most frequent concept and five others, uint64[F, N, n_words]."""
        names = [self.concepts.names[c] for c in np.argsort(-self.concepts.sizes)]
        texts = [f"({names[0]} AND NOT {other})" for other in names[1 : N_FORMULAS + 1]]
        return np.stack([self.concepts.mask(text, packed=True) for text in texts])

    @cached_property
    def arguments(self) -> tuple[Any, ...]:
        """What `estimate_extensions` takes, without the kind."""
        return (
            kernels.formula_shapes(self.formulas, self.bitmap, GRID),
            kernels.concept_shapes(self.occurring, GRID, self.concepts.n_concepts),
            kernels.concept_hits(self.occurring, self.bitmap)[None],
            kernels.popcount(self.bitmap)[None].astype(np.int32),
            N_CELLS,
        )


@pytest.fixture(scope="module")
def large() -> Case:
    """Return the samples on which calls are timed."""
    return case_of(N_SAMPLES)


@pytest.fixture(scope="module")
def small() -> Case:
    """Return the few samples on which they are checked."""
    return case_of(N_CHECKED)


def case_of(n_samples: int) -> Case:
    """Draw samples and the bitmap."""
    data = generate(n_samples, 1)
    values = np.ascontiguousarray(data.activations[:, 0])
    lower, upper = unit_ranges(values)[1]
    return Case(data.concepts(), values, (float(lower), float(upper)))


@THREADS
def test_concept_shapes(benchmark: Any, threads: int, large: Case, small: Case) -> None:
    """Boxes and rectangles of all concepts in all samples; the target is 100,000 rows a second and core."""

    def shapes(case: Case) -> kernels.ConceptShapes:
        return kernels.concept_shapes(case.occurring, GRID, case.concepts.n_concepts, threads=threads)

    partial = small.occurring.row_of >= 0
    ratio = check(
        lambda: np.stack([shapes(small).boxes[partial], shapes(small).rectangles[partial]]),
        lambda: np.stack([
            reference.bounding_boxes(small.occurring.rows, GRID),
            reference.inscribed_rectangles(small.occurring.rows, GRID),
        ]),
    )  # fmt: skip
    rows = large.occurring.rows
    call = lambda: shapes(large)  # noqa: E731
    measure(benchmark, call, n_bytes=2 * rows.nbytes, n_items=len(rows), threads=threads, oracle_ratio=ratio)


@KINDS
def test_estimate_extensions(benchmark: Any, kind: Any, large: Case, small: Case) -> None:
    """All candidates of a level, a beam of 5 by 1,200 concepts by 3 operators."""
    some = np.argsort(-small.concepts.sizes)[:N_CHECKED_CONCEPTS]

    def by_definition() -> NDArray[np.int64]:
        masks = [small.concepts.mask(ccx.formula.Concept(small.concepts.names[c])) for c in some]
        formulas = kernels.unpack(small.formulas, N_CELLS).reshape(N_FORMULAS, N_CHECKED, *GRID)
        bitmap = kernels.unpack(small.bitmap, N_CELLS).reshape(N_CHECKED, *GRID)
        return np.stack(reference.estimate_extensions(formulas, np.stack(masks), bitmap, kind))

    def estimate(case: Case) -> NDArray[np.int64]:
        return np.stack(kernels.estimate_extensions(*case.arguments, kind, threads=1))[:, 0]

    ratio = check(lambda: estimate(small)[:, :, some], by_definition)
    formulas, concepts, hits, areas, _ = large.arguments
    n_bytes = sum(part.nbytes for part in (*formulas, *concepts, hits, areas))
    n_candidates = N_FORMULAS * concepts.full_only.size * 3
    call = lambda: estimate(large)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=n_candidates, unit="candidates", oracle_ratio=ratio)


@pytest.mark.parametrize("heuristic", ["mmesh", "cfh", "areas", "none"])
def test_guided_search(benchmark: Any, heuristic: Any, large: Case) -> None:
    """A formula of up to three concepts, the one of exact beam search; masks and shapes of concepts exist already."""
    masks, settings = ConceptMasks(large.concepts), SearchOptions(length=3, beam=5)
    exact = beam_search(large.concepts, large.counts, settings, threads=1)

    def search() -> Any:
        return guided_search(
            large.concepts, large.counts, settings, heuristic=heuristic, masks=masks, bitmap=large.bitmap, threads=1
        )

    result = search()
    assert result.found == exact.found
    n_bytes = large.occurring.rows.nbytes if heuristic != "none" else large.counts.nbytes
    measure(benchmark, search, n_bytes=n_bytes, n_items=result.visited, unit="visited")
    benchmark.extra_info.update(visited=result.visited, estimated=result.estimated)
