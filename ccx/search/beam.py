"""Exact beam search over atoms (docs/search.md).

The semantics are those of the published beam search (Mu and Andreas 2020, La Rosa et al. 2023), with
exact counts in place of estimates and a total order in place of chance: the best 2 * beam single
concepts are extended, the best `beam` formulas of any length hold places, and every level extends the
formulas in the beam by every concept and operator.

Formulas that stay in the beam are not extended again: their extensions have been compared with a beam
that has only become better since. So all candidates of a level have the same length.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.formula import Operator
from ccx.kernels.atoms import concept_counts
from ccx.kernels.formulas import Extensions, best_extensions, best_singles, conjunction_counts
from ccx.search.settings import SearchSettings

IntArray = npt.NDArray[np.int64]


class Found(NamedTuple):
    """A formula in canonical form with its exact counts.

    `concepts` are indices from 0, `operators` one less; `intersection` is |F and B|, `size` |F|,
    `union` |F or B|.
    """

    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    intersection: int
    size: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union, rounded to the nearest float; 0 where both are 0."""
        return self.intersection / self.union if self.union else 0.0

    def precedence(self, penalty: Fraction) -> tuple[Fraction, int, int, tuple[int, ...], tuple[int, ...]]:
        """Return a key that sorts formulas in tie order, best first, by exact arithmetic."""
        n_nots = self.operators.count(Operator.AND_NOT)
        score = Fraction(self.intersection, max(self.union, 1)) * penalty ** (len(self.concepts) - 1)
        return -score, len(self.concepts), n_nots, self.concepts, self.operators


class SearchResult(NamedTuple):
    """The best formulas found, best first, and how many formulas longer than 1 were counted for it."""

    found: list[Found]
    visited: int


def beam_search(
    concepts: Concepts,
    counts: IntArray,
    settings: SearchSettings,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
) -> SearchResult:
    """Find the formulas that describe a bitmap best.

    Parameters
    ----------
    concepts
        The annotated data set.
    counts
        int64[G]: the bitmap's cells in each atom (`kernels.range_histogram`, `kernels.bitmap_histogram`).
    settings
        Length, beam and so on; `min_iou` is left to the caller.
    allowed
        bool[C]: the concepts that may occur in formulas; None = all.
    threads
        Processors to use; the result does not depend on it.

    """
    atoms = concepts.atoms
    bitmap_cells = int(counts.sum())
    usable = np.ones(concepts.n_concepts, np.bool_) if allowed is None else allowed
    intersections = concept_counts(atoms, counts)
    sizes = concepts.sizes
    penalty = Fraction(settings.length_penalty)

    def ranked(found: Iterable[Found]) -> list[Found]:
        return sorted(found, key=lambda one: one.precedence(penalty))

    n_starts = 2 * settings.beam
    singles = best_singles(intersections, sizes, bitmap_cells, max(n_starts, settings.top), usable)
    firsts = _found(_as_extensions(singles, intersections, sizes), bitmap_cells)
    best = firsts[: settings.top]
    beam = firsts[: settings.beam]
    visited = 0
    if settings.length == 1 or not firsts:
        return SearchResult(best, visited)

    if settings.candidates is not None:
        chosen = best_singles(intersections, sizes, bitmap_cells, settings.candidates, usable)
        usable = np.zeros_like(usable)
        usable[chosen] = True
    # An atom's two weights lie side by side in memory, as the kernel wants them.
    both = np.stack([atoms.cells, counts], axis=1).T
    parents = _as_extensions(singles[:n_starts], intersections, sizes)
    for length in range(2, settings.length + 1):
        if length == 2:
            joint_sizes = _pair_rows(concepts, singles[:n_starts])
            (joint,) = conjunction_counts(atoms, both[1:], parents.concepts, parents.operators, threads=threads)
        else:
            joint_sizes, joint = conjunction_counts(atoms, both, parents.concepts, parents.operators, threads=threads)
        keep = max(settings.beam, settings.top)
        extensions = best_extensions(parents, intersections, sizes, joint, joint_sizes, bitmap_cells, keep, usable)
        visited += extensions.evaluated
        new = _found(extensions, bitmap_cells)
        best = ranked([*best, *new])[: settings.top]
        beam = ranked([*beam, *new])[: settings.beam]
        added = [one for one in beam if len(one.concepts) == length]
        if not added:
            break
        parents = Extensions(
            np.array([one.concepts for one in added], np.int32),
            np.array([one.operators for one in added], np.uint8),
            np.array([one.intersection for one in added], np.int64),
            np.array([one.size for one in added], np.int64),
            0,
        )
    return SearchResult(best, visited)


def _pair_rows(concepts: Concepts, rows: npt.NDArray[np.int32]) -> IntArray:
    picked = concepts.pair_sizes[rows]
    dense: IntArray = picked if isinstance(picked, np.ndarray) else picked.toarray()
    return dense


def _as_extensions(singles: npt.NDArray[np.int32], intersections: IntArray, sizes: IntArray) -> Extensions:
    no_operators = np.zeros((singles.size, 0), np.uint8)
    return Extensions(singles[:, None], no_operators, intersections[singles], sizes[singles], 0)


def _found(extensions: Extensions, bitmap_cells: int) -> list[Found]:
    return [
        Found(tuple(concepts), tuple(operators), intersection, size, bitmap_cells + size - intersection)
        for concepts, operators, intersection, size in zip(
            extensions.concepts.tolist(),
            extensions.operators.tolist(),
            extensions.intersections.tolist(),
            extensions.sizes.tolist(),
            strict=True,
        )
    ]
