"""Exact beam search over atoms (docs/search.md).

The semantics are those of the published beam search (Mu and Andreas 2020, La Rosa et al. 2023), with
exact counts in place of estimates and a total order in place of chance: the best 2 * beam single
concepts are extended, the best `beam` formulas of any length hold places, and every level extends the
formulas in the beam by every concept and operator.

Formulas that stay in the beam are not extended again: their extensions have been compared with a beam
that has only become better since. So all candidates of a level have the same length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx import jobs
from ccx.concepts import Concepts
from ccx.formula import Operator
from ccx.kernels.atoms import concept_counts, pair_counts, total_counts, with_sizes
from ccx.kernels.formulas import Extensions, conjunction_counts
from ccx.kernels.places import place_of, to_host
from ccx.options import SearchOptions
from ccx.scores import SCORES
from ccx.search.choosing import best_extenders, best_extensions, best_singles
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.protocol import Search
from ccx.typing import IntArray


def beam_search(
    concepts: Concepts,
    counts: IntArray,
    options: SearchOptions,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
    joint_counts: JointCounts | None = None,
) -> SearchResult:
    """Find the formulas that describe a bitmap best.

    Parameters
    ----------
    concepts
        The annotated data set.
    counts
        int64[G]: the bitmap's cells in each atom (`kernels.range_histogram`, `kernels.bitmap_histogram`). Where
        they lie, candidates are counted; which are best is decided in main memory.
    options
        Length, beam and so on. Formulas below `min_iou` hold places in the beam and are extended, as published; what
        is returned are the best of all that were evaluated and are not below it.
    allowed
        bool[C]: the concepts that may occur in formulas; None = all.
    threads
        Processors to use; the result does not depend on it.
    joint_counts
        Those of these concepts and counts, where others use them, too.

    """
    jobs.check_stopped()
    atoms = concepts.atoms.sets_at(place_of(counts))
    bitmap_cells = int(to_host(total_counts(atoms, counts)))
    objective = Objective.of(options, bitmap_cells, concepts.n_cells)
    usable = np.ones(concepts.n_concepts, np.bool_) if allowed is None else allowed
    joint_counts = joint_counts or JointCounts(concepts, counts, threads)
    intersections, sizes = joint_counts.intersections, concepts.sizes

    n_starts = 2 * options.beam
    singles = best_singles(objective, intersections, sizes, max(n_starts, options.top), usable)
    firsts = found_of(as_extensions(singles, intersections, sizes), bitmap_cells)
    if not firsts:
        return SearchResult([])
    best = firsts[: options.top]
    if options.min_iou:
        admitted = usable & (intersections > 0) & objective.admits(intersections, sizes)
        chosen = best_singles(objective, intersections, sizes, options.top, admitted)
        best = found_of(as_extensions(chosen, intersections, sizes), bitmap_cells)
    beam = firsts[: options.beam]
    visited = expanded = 0
    if options.candidates is not None:
        usable = best_extenders(objective, intersections, sizes, options.candidates, usable)
    parents = as_extensions(singles[:n_starts], intersections, sizes)
    for length in range(2, options.length + 1):
        expanded += len(parents.concepts)
        joint_sizes, joint = joint_counts(parents)
        choose = partial(best_extensions, objective, parents, intersections, sizes, joint, joint_sizes)
        extensions = choose(max(options.beam, options.top), usable)
        visited += extensions.evaluated
        new = good = found_of(extensions, bitmap_cells)
        if options.min_iou:
            if objective.scoring is not SCORES["iou"]:
                good = found_of(choose(options.top, usable, admitted=True), bitmap_cells)
            good = [one for one in good if objective.admits(one.intersection, one.size)]
        best = sorted([*best, *good], key=objective.precedence)[: options.top]
        beam = sorted([*beam, *new], key=objective.precedence)[: options.beam]
        added = [one for one in beam if len(one.concepts) == length]
        if not added:
            break
        parents = extensions_of(added)
    return SearchResult(best, visited, expanded, met=True)


class BeamSearch(Search):
    """`beam_search`, as `explain` runs it."""

    def __call__(self, counts: IntArray, bitmap: Callable[[], Any]) -> SearchResult:  # noqa: ARG002 (counts are enough)
        """Search one bitmap."""
        return beam_search(self.concepts, counts, self.options, self.allowed, threads=1)


class JointCounts:
    """Counts |F and c| and |F and c and B| of formulas F of one length and every concept c, where `counts` lie.

    Those of two concepts follow by inclusion and exclusion from the counts of single concepts and from the
    atoms that hold both of their concepts, which are few where those that hold either are many.
    """

    def __init__(self, concepts: Concepts, counts: IntArray, threads: int | None) -> None:
        self._concepts = concepts
        self._atoms = concepts.atoms.sets_at(place_of(counts))
        self.counts = counts
        self._threads = threads
        self._rows: dict[int, IntArray] = {}  # |a and c and B| of each single concept a so far

    @cached_property
    def intersections(self) -> IntArray:
        """int64[C]: |c and B| of each concept."""
        counts: IntArray = to_host(concept_counts(self._atoms, self.counts))
        return counts

    def __call__(self, formulas: Extensions) -> tuple[IntArray, IntArray]:
        """Return int64[F, C] twice."""
        length = formulas.concepts.shape[1]
        if length == 1:
            return self.of_singles(formulas.concepts[:, 0])
        operators = formulas.operators if length > 2 else np.full_like(formulas.operators, Operator.AND)
        weights = with_sizes(self._atoms, self.counts)
        sizes, joint = to_host(
            conjunction_counts(self._atoms, weights, formulas.concepts, operators, threads=self._threads)
        )
        if length > 2:
            return sizes, joint
        first_sizes, first = self.of_singles(formulas.concepts[:, 0])
        second_sizes, second = self.of_singles(formulas.concepts[:, 1])
        cases = [formulas.operators == Operator.OR, formulas.operators == Operator.AND]
        return (
            np.select(cases, [first_sizes + second_sizes - sizes, sizes], first_sizes - sizes),
            np.select(cases, [first + second - joint, joint], first - joint),
        )

    def prepare_singles(self) -> None:
        """Count what up to 4,096 concepts share at once, which takes less time than many of them one by one."""
        if len(self._rows) < self._atoms.n_concepts:
            shared = pair_counts(self._atoms, self.counts, threads=self._threads)
            self._rows = dict(enumerate(shared))

    def of_singles(self, chosen: npt.NDArray[np.integer]) -> tuple[IntArray, IntArray]:
        """Return the same of single concepts int[k]: |a and c| and |a and c and B|, int64[k, C] each."""
        new = np.array([c for c in dict.fromkeys(chosen.tolist()) if c not in self._rows], np.int32)
        if new.size:
            no_operators = np.zeros((new.size, 0), np.uint8)
            (rows,) = to_host(
                conjunction_counts(self._atoms, self.counts[None], new[:, None], no_operators, threads=self._threads)
            )
            self._rows.update(zip(new.tolist(), rows, strict=True))
        picked = self._concepts.pair_sizes[chosen]
        sizes: IntArray = picked if isinstance(picked, np.ndarray) else picked.toarray()
        return sizes, np.stack([self._rows[c] for c in chosen.tolist()])


def as_extensions(singles: npt.NDArray[np.int32], intersections: IntArray, sizes: IntArray) -> Extensions:
    """Return single concepts int32[k] as formulas of length 1."""
    no_operators = np.zeros((singles.size, 0), np.uint8)
    return Extensions(singles[:, None], no_operators, intersections[singles], sizes[singles], 0)


def extensions_of(formulas: Sequence[Found]) -> Extensions:
    """Return formulas of one length as arrays."""
    return Extensions(
        np.array([one.concepts for one in formulas], np.int32),
        np.array([one.operators for one in formulas], np.uint8),
        np.array([one.intersection for one in formulas], np.int64),
        np.array([one.size for one in formulas], np.int64),
        0,
    )


def found_of(extensions: Extensions, bitmap_cells: int) -> list[Found]:
    """Undo `extensions_of`."""
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
