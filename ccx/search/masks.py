"""What the published estimates need of a data set: packed masks and shapes of its concepts and of formulas."""

from __future__ import annotations

from copy import copy
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.errors import MemoryBudgetError
from ccx.formula import Operator
from ccx.kernels.atoms import atom_rows
from ccx.kernels.estimates import FormulaShapes, concept_hits, concept_shapes, formula_shapes
from ccx.kernels.places import MAIN_MEMORY, Place, converted
from ccx.kernels.rows import ABSENT, and_popcount, formula_rows, logical_and, popcount
from ccx.typing import IntArray, PackedRows


class ConceptMasks:
    """The packed masks of all concepts in the samples where they occur, and their shapes; once per data set.

    Masks of formulas are made from these rows, and only in samples where a formula can hold: to gather them cell by
    cell from the atoms would take many times as long. Bitmaps lie where the masks lie.

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
        starts, self._row_of = self._occurring.starts, self._occurring.row_of  # these stay in main memory
        self._sample_of = np.repeat(np.arange(self.n_samples), np.diff(starts))
        self._by_concept = np.argsort(self._occurring.concepts, kind="stable")  # so samples ascend
        counts = np.bincount(self._occurring.concepts, minlength=concepts.n_concepts)
        self._starts = np.concatenate(([0], np.cumsum(counts)))
        self._nothing = np.zeros((self.n_samples, 4), np.int32)
        self._valid: PackedRows | None = None
        if concepts.n_cells < self.n_samples * self.n_cells:
            everything = np.ones(concepts.atoms.n_atoms, np.bool_)
            self._valid = atom_rows(concepts.atoms, everything, np.arange(self.n_samples), threads=threads)
        self._place: Place = MAIN_MEMORY
        self._copies: dict[str, ConceptMasks] = {MAIN_MEMORY.name: self}
        self._copying = Lock()

    def at(self, place: Place) -> ConceptMasks:
        """Return these masks and shapes in a place; a copy is made once, and kept as long as these are.

        Raises
        ------
        MemoryBudgetError
            If it would not fit there.

        """
        with self._copying:
            if place.name not in self._copies:
                valid = () if self._valid is None else (self._valid,)
                occurring: tuple[Any, ...] = self._occurring
                shapes: tuple[Any, ...] = self.shapes
                n_bytes = sum(array.nbytes for array in (*occurring, *shapes, self._nothing, *valid))
                free = place.free_bytes()
                if free is not None and n_bytes > free:
                    wanted = f"masks that fit into the {free / 1e9:.1f} GB free on {place.name}"
                    remedy = 'use search="beam", which needs no masks, or fewer samples'
                    raise MemoryBudgetError("device", wanted=wanted, got=f"{n_bytes / 1e9:.1f} GB", remedy=remedy)
                there = copy(self)
                there._place = place
                there._occurring = type(self._occurring)(*map(place.upload, occurring))
                there.shapes = type(self.shapes)(*map(place.upload, shapes))
                there._nothing = place.upload(self._nothing)
                there._valid = None if self._valid is None else place.upload(self._valid)
                place.synchronize()
                self._copies[place.name] = there
            return self._copies[place.name]

    def without_void(self, bitmap: PackedRows) -> PackedRows:
        """Return a bitmap uint64[N, n_words] without the cells that are not valid, as they count nowhere."""
        if self._valid is None:
            return bitmap
        valid: PackedRows = logical_and(bitmap, self._valid)
        return valid

    def hits(self, bitmap: PackedRows, *, threads: int | None = None) -> npt.NDArray[np.int32]:
        """Count the cells that each occurrence of a concept, in the order of `shapes`, shares with a bitmap."""
        return concept_hits(self._occurring, bitmap, threads=threads)

    def mask(
        self, concepts: tuple[int, ...], operators: tuple[int, ...], *, threads: int | None = None
    ) -> tuple[IntArray, PackedRows]:
        """Return the samples where a left-deep formula may hold, ascending, int64[k], and its masks there."""
        samples = self._samples_of(concepts, operators)
        operands = np.stack([self._rows_of(concept)[samples] for concept in concepts])
        connectives = np.array(operators, np.uint8)
        rows: PackedRows = formula_rows(self._occurring.rows, operands, connectives, self.n_cells, threads=threads)
        return samples, rows

    def formula_shapes(
        self,
        concepts: tuple[int, ...],
        operators: tuple[int, ...],
        bitmap: PackedRows,
        hits: npt.NDArray[np.int32],
        *,
        boxes: bool,
        threads: int | None = None,
    ) -> FormulaShapes:
        """Return the shapes of one formula; `hits` are those of the bitmap; boxes and rectangles only where wanted."""
        parts: tuple[npt.NDArray[np.int32], ...]
        if not operators and self._place is MAIN_MEMORY:
            entries = self._entries(concepts[0])
            samples = self._sample_of[entries]
            shapes = self.shapes
            parts = (shapes.areas[entries], hits[entries], shapes.boxes[entries], shapes.rectangles[entries])
        else:
            samples, rows = self.mask(concepts, operators, threads=threads)
            own = bitmap if samples.size == self.n_samples else bitmap[samples]
            if boxes:
                parts = tuple(part[0, 0] for part in formula_shapes(rows[None], own, self._grid, threads=threads))
            else:
                counts = popcount(rows, threads=threads), and_popcount(rows, own, threads=threads)
                nothing = self._nothing[: samples.size]
                parts = (*(converted(count, np.int32) for count in counts), nothing, nothing)
        return FormulaShapes(*(self._everywhere(samples, part) for part in parts))

    def _everywhere(self, samples: IntArray, part: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return int32[k, ...] of some samples as int32[1, 1, N, ...], zeros elsewhere."""
        if samples.size == self.n_samples:
            return part[None, None]
        spread = np.zeros((1, 1, self.n_samples, *part.shape[1:]), np.int32)
        spread[0, 0, samples] = part
        return spread

    def _samples_of(self, concepts: tuple[int, ...], operators: tuple[int, ...]) -> IntArray:
        """Return the samples where a formula may hold, ascending; on a GPU all, which need not be gathered."""
        if self._place is not MAIN_MEMORY:
            return np.arange(self.n_samples)
        samples = self._sample_of[self._entries(concepts[0])]
        for operator, concept in zip(operators, concepts[1:], strict=True):
            others = self._sample_of[self._entries(concept)]
            if operator == Operator.OR:
                samples = np.union1d(samples, others)
            elif operator == Operator.AND:
                samples = np.intersect1d(samples, others, assume_unique=True)
        return samples

    def _entries(self, concept: int) -> IntArray:
        return self._by_concept[self._starts[concept] : self._starts[concept + 1]]

    def _rows_of(self, concept: int) -> IntArray:
        """Return the number of a concept's row in each sample, `FULL` or `ABSENT` where it has none: int64[N]."""
        numbers = np.full(self.n_samples, ABSENT)
        entries = self._entries(concept)
        numbers[self._sample_of[entries]] = self._row_of[entries]
        return numbers
