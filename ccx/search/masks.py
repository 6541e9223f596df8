"""What the published estimates need of a data set: packed masks and shapes of its concepts and of formulas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.formula import Operator
from ccx.kernels.atoms import atom_rows
from ccx.kernels.estimates import FormulaShapes, concept_hits, concept_shapes, formula_shapes
from ccx.kernels.rows import and_popcount, pack, popcount

Rows = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]


class ConceptMasks:
    """The packed masks of all concepts in the samples where they occur, and their shapes; once a data set.

    Masks of formulas are made from these rows, and only in samples where a formula can hold: to gather them cell by
    cell from the atoms would take many times as long.

    Attributes
    ----------
    shapes : ccx.kernels.ConceptShapes
    n_samples : N
    n_cells : H·W

    Raises
    ------
    MemoryBudgetError
        If the rows would not fit into memory.

    """

    def __init__(self, concepts: Concepts, *, threads: int | None = None) -> None:
        self._grid = concepts.shape
        self.n_samples = concepts.n_samples
        self.n_cells = concepts.shape[0] * concepts.shape[1]
        self._occurring = concepts.packed_rows(threads=threads)
        self.shapes = concept_shapes(self._occurring, self._grid, concepts.n_concepts, threads=threads)
        starts = self._occurring.starts
        self._sample_of = np.repeat(np.arange(self.n_samples), np.diff(starts))
        self._by_concept = np.argsort(self._occurring.concepts, kind="stable")  # so samples ascend
        counts = np.bincount(self._occurring.concepts, minlength=concepts.n_concepts)
        self._starts = np.concatenate(([0], np.cumsum(counts)))
        self._full_row: Rows = pack(np.ones(self.n_cells, np.bool_))
        self._valid: Rows | None = None
        if concepts.n_cells < self.n_samples * self.n_cells:
            everything = np.ones(concepts.atoms.n_atoms, np.bool_)
            self._valid = atom_rows(concepts.atoms, everything, np.arange(self.n_samples), threads=threads)

    def without_void(self, bitmap: Rows) -> Rows:
        """Return a bitmap uint64[N, n_words] without the cells that are not valid, as they count nowhere."""
        return bitmap if self._valid is None else bitmap & self._valid

    def hits(self, bitmap: Rows, *, threads: int | None = None) -> npt.NDArray[np.int32]:
        """Count the cells that each occurrence of a concept, in the order of `shapes`, shares with a bitmap."""
        return concept_hits(self._occurring, bitmap, threads=threads)

    def mask(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> tuple[IntArray, Rows]:
        """Return the samples where a left-deep formula may hold, ascending, int64[k], and its masks there."""
        first = self._entries(concepts[0])
        samples, rows = self._sample_of[first], self._rows(first)
        for operator, concept in zip(operators, concepts[1:], strict=True):
            entries = self._entries(concept)
            others = self._sample_of[entries]
            if operator == Operator.OR:
                union = np.union1d(samples, others)
                merged = np.zeros((union.size, rows.shape[1]), np.uint64)
                merged[np.searchsorted(union, samples)] = rows
                merged[np.searchsorted(union, others)] |= self._rows(entries)
                samples, rows = union, merged
                continue
            common, mine, theirs = np.intersect1d(samples, others, assume_unique=True, return_indices=True)
            if operator == Operator.AND:
                samples, rows = common, rows[mine] & self._rows(entries[theirs])
            else:
                rows[mine] &= ~self._rows(entries[theirs])
        return samples, rows

    def formula_shapes(
        self,
        concepts: tuple[int, ...],
        operators: tuple[int, ...],
        bitmap: Rows,
        hits: npt.NDArray[np.int32],
        *,
        boxes: bool,
        threads: int | None = None,
    ) -> FormulaShapes:
        """Return the shapes of one formula; `hits` are those of the bitmap; boxes and rectangles only where wanted."""
        if not operators:
            entries = self._entries(concepts[0])
            samples = self._sample_of[entries]
            shapes = self.shapes
            parts = (shapes.areas[entries], hits[entries], shapes.boxes[entries], shapes.rectangles[entries])
        else:
            samples, rows = self.mask(concepts, operators)
            if boxes:
                parts = tuple(
                    part[0, 0] for part in formula_shapes(rows[None], bitmap[samples], self._grid, threads=threads)
                )
            else:
                nothing = np.zeros((samples.size, 4), np.int32)
                counts = popcount(rows, threads=threads), and_popcount(rows, bitmap[samples], threads=threads)
                parts = (*(count.astype(np.int32) for count in counts), nothing, nothing)
        return FormulaShapes(*(self._everywhere(samples, part) for part in parts))

    def _everywhere(self, samples: IntArray, part: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return int32[k, ...] of some samples as int32[1, 1, N, ...], zeros elsewhere."""
        spread = np.zeros((1, 1, self.n_samples, *part.shape[1:]), np.int32)
        spread[0, 0, samples] = part
        return spread

    def _entries(self, concept: int) -> IntArray:
        return self._by_concept[self._starts[concept] : self._starts[concept + 1]]

    def _rows(self, entries: IntArray) -> Rows:
        """Return the masks of some occurrences, a new array."""
        row_of = self._occurring.row_of[entries]
        partial = row_of >= 0
        rows = np.empty((entries.size, self._full_row.size), np.uint64)
        rows[partial] = self._occurring.rows[row_of[partial]]
        rows[~partial] = self._full_row
        return rows
