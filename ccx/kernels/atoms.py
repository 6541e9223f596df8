"""Atoms: the partition of all cells by the set of concepts that they carry (docs/atoms.md).

Every cell carries exactly one set of concepts, the empty set included; the sets that occur are the
atoms. The number of cells of each atom, altogether and inside a bitmap, is all that any formula's
counts need: |F| and |F and B| are sums over the atoms that satisfy F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.checks import require_kind
from ccx.errors import BackendError, DTypeError, InputError, ShapeError
from ccx.jobs import check_threads, parallel
from ccx.kernels import cpu
from ccx.kernels.backend import backend_for
from ccx.kernels.conversion import as_array, describe, on_gpu, require_host
from ccx.kernels.places import Place, parse_places, place_of
from ccx.kernels.rows import n_words
from ccx.kernels.tiles import Tiles, tiles_of
from ccx.memory import require_bytes
from ccx.typing import IntArray

DENSE_PAIRS = 4_096
"""Up to this many concepts, `pair_counts` is a dense matrix (134 MB at the limit)."""


ATOM_ARRAYS = ("cell_atoms", "sample_starts", "sample_atoms", "sample_cells", "atom_starts", "atom_concepts", "cells")
# What atoms of no sample keep of their arrays; all, where not said.
_LENGTHS_OF_NONE = {"cell_atoms": 0, "sample_starts": 1, "sample_atoms": 0, "sample_cells": 0}


@dataclass(frozen=True, eq=False)
class Atoms:
    """The atoms of N samples of H×W cells, and which cells belong to which.

    A sample numbers its own atoms from 0 (*local* atoms); its entries map them to the G atoms of the
    whole. Atoms are numbered in the order in which samples and cells first meet them.

    Attributes
    ----------
    shape : (H, W)
    n_concepts : C
    cell_atoms : uint16[N, P] or uint32[N, P]
        Local atom of each cell; cells that are not valid have the sample's number of local atoms.
    sample_starts : int64[N + 1]
        The entries of sample n are ``sample_starts[n]:sample_starts[n + 1]``.
    sample_atoms, sample_cells : int32[E]
        Each entry's atom and its number of cells in that sample.
    atom_starts : int64[G + 1]
        The concepts of atom g are ``atom_concepts[atom_starts[g]:atom_starts[g + 1]]``.
    atom_concepts : uint16[S]
        Concept indices from 0, ascending within each atom.
    cells : int64[G]
        Number of cells of each atom.

    """

    shape: tuple[int, int]
    n_concepts: int
    cell_atoms: Any
    sample_starts: Any
    sample_atoms: Any
    sample_cells: Any
    atom_starts: Any
    atom_concepts: Any
    cells: Any

    tiles: ClassVar[Tiles | None] = None

    @cached_property
    def n_samples(self) -> int:
        """N."""
        return int(self.cell_atoms.shape[0])

    @cached_property
    def n_atoms(self) -> int:
        """G."""
        return int(self.cells.size)

    @cached_property
    def postings(self) -> tuple[Any, Any]:
        """``(int64[C + 1], int32[S])``: where each concept's atoms start, and those atoms, ascending.

        Of atoms on a GPU, where they start is known in main memory, which shares out the work.
        """
        require_host_atoms(self)
        found: tuple[Any, Any] = cpu.atoms.concept_postings(self.atom_starts, self.atom_concepts, self.n_concepts)
        return found

    @cached_property
    def pair_cells(self) -> Any:
        """int64[C, C], dense or (above 4,096 concepts) scipy CSR: cells that carry both of two concepts."""
        shared = pair_counts(self, self.cells)
        place_of(self.cells).synchronize()
        return shared

    def cut(self, threads: int) -> None:
        """Cut the cells in main memory into tiles of 64, on so many threads, once; ranges are then counted by those.

        That takes as long as they spare on about eight units, and nothing is done for samples of few cells.

        Raises
        ------
        MemoryBudgetError
            If they would not fit into memory.

        """
        require_host_atoms(self)
        if self.tiles is None:
            self.__dict__["tiles"] = tiles_of(self, threads=threads)  # of these atoms, which are frozen

    def to(self, device: str) -> Atoms:
        """Return these atoms with all arrays on a device: "cpu", "cuda" or "cuda:1".

        A copy is made once per device, and kept for as long as these atoms are.

        Raises
        ------
        InputError, MissingExtraError, BackendError
            If there is no such device.

        """
        (place,) = parse_places([device])
        return self.at(place)

    def at(self, place: Place) -> Atoms:
        """Return these atoms with all arrays in a place; kept, as by `to`."""
        if place_of(self.cells).name == place.name:
            return self
        if not self.is_kept_at(place):
            self._copies[place.name] = self.samples_at(0, self.n_samples, place)
        return self._copies[place.name]

    def is_kept_at(self, place: Place) -> bool:
        """Return whether `at` makes no new copy."""
        return place.name in self._copies or place_of(self.cells).name == place.name

    def sets_at(self, place: Place) -> Atoms:
        """Return these atoms in a place, of no sample, which is all that counting formulas takes; kept, too.

        `cells` are those of all samples.
        """
        here = place_of(self.cells)
        if here.name == place.name:
            return self
        if place.name not in self._sets:
            parts = {name: getattr(self, name)[: _LENGTHS_OF_NONE.get(name)] for name in ATOM_ARRAYS}
            moved = replace(self, **{name: place.upload(here.download(part)) for name, part in parts.items()})
            starts, posted = self.postings
            moved.__dict__["postings"] = starts, place.upload(here.download(posted))  # fills the cached property
            place.synchronize()
            self._sets[place.name] = moved
        return self._sets[place.name]

    def samples_at(self, start: int, stop: int, place: Place) -> Atoms:
        """Return samples ``start:stop`` of these atoms in a place, for histograms that are added up; a new copy.

        `cells` are those of all samples.
        """
        here = place_of(self.cells)
        starts = here.download(self.sample_starts)[start : stop + 1]
        entries = slice(starts[0], starts[-1])
        parts = {
            "cell_atoms": here.download(self.cell_atoms[start:stop]),
            "sample_starts": starts - starts[0],
            "sample_atoms": here.download(self.sample_atoms[entries]),
            "sample_cells": here.download(self.sample_cells[entries]),
        }
        moved = {name: place.upload(part) for name, part in parts.items()}
        place.synchronize()
        sets = self.sets_at(place)
        copy = replace(sets, **moved)
        copy.__dict__["postings"] = sets.postings
        return copy

    @cached_property
    def _copies(self) -> dict[str, Atoms]:
        return {}

    @cached_property
    def _sets(self) -> dict[str, Atoms]:
        return {}


class ConceptRows(NamedTuple):
    """The packed masks of the concepts that occur in each of n samples.

    The concepts of sample k are ``concepts[starts[k]:starts[k + 1]]`` (int32, indices from 0,
    ascending), with their numbers of cells `areas` int32[R]. ``row_of`` int64[R] points into
    ``rows`` uint64[n_rows, n_words]; it is -1 where the concept covers the whole sample (*full*), as
    such a mask needs no row. A concept that does not occur has no entry at all.
    """

    starts: IntArray
    concepts: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int32]
    row_of: IntArray
    rows: npt.NDArray[np.uint64]


def concept_rows(atoms: Atoms, samples: npt.NDArray[np.int64], *, threads: int | None = None) -> ConceptRows:
    """Build the packed masks of all concepts in some samples: int64[n] -> `ConceptRows`.

    Raises
    ------
    InputError
        If a sample is not there.
    MemoryBudgetError
        If the masks would not fit into memory.

    """
    samples = _checked_samples(atoms, samples)
    n_cells = atoms.shape[0] * atoms.shape[1]
    table = (atoms.sample_starts, atoms.sample_atoms)
    sets = (atoms.atom_starts, atoms.atom_concepts)
    starts, concepts, areas = cpu.atoms.present_concepts(samples, *table, atoms.sample_cells, *sets, atoms.n_concepts)
    has_row = areas < n_cells
    row_of = np.where(has_row, np.cumsum(has_row) - 1, -1)
    size = int(has_row.sum()), n_words(n_cells)
    require_bytes("samples", 8 * size[0] * size[1], "use fewer samples or a coarser grid")
    rows = np.zeros(size, np.uint64)

    def fill(a: int, b: int) -> None:
        cpu.atoms.concept_rows(samples[a:b], starts[a : b + 1], concepts, row_of, atoms.cell_atoms, *table, *sets, rows)

    parallel(fill, samples.size, check_threads(threads))
    return ConceptRows(starts, concepts, areas, row_of, rows)


def atom_rows(
    atoms: Atoms, inside: npt.NDArray[np.bool_], samples: npt.NDArray[np.int64], *, threads: int | None = None
) -> npt.NDArray[np.uint64]:
    """Pack the cells whose atom is marked: inside bool[G], samples int64[n] -> uint64[n, n_words]."""
    samples = _checked_samples(atoms, samples)
    inside = as_array(inside, "inside")
    if inside.dtype != np.bool_ or inside.shape != (atoms.n_atoms,):
        remedy = "mark the atoms wanted"
        raise ShapeError("inside", wanted=f"bool[{atoms.n_atoms}]", got=describe(inside), remedy=remedy)
    n_cells = atoms.shape[0] * atoms.shape[1]
    rows = np.empty((samples.size, n_words(n_cells)), np.uint64)
    marks = inside.astype(np.uint8)

    def fill(a: int, b: int) -> None:
        cpu.atoms.atom_rows(marks, samples[a:b], atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms, rows[a:b])

    parallel(fill, samples.size, check_threads(threads))
    return rows


def concept_counts(atoms: Atoms, weights: npt.NDArray[np.int64]) -> IntArray:
    """Weight of the atoms that hold each concept: weights int64[..., G] -> int64[..., C].

    With ``weights=atoms.cells`` these are the concepts' sizes |c|, with a bitmap's histogram |c and B|.
    """
    rows, lead = _weight_rows(atoms, weights)
    counts: IntArray = backend_for(atoms.cells, rows).atoms.concept_counts(atoms, rows)
    return counts.reshape(*lead, atoms.n_concepts)


def total_counts(atoms: Atoms, weights: npt.NDArray[np.int64]) -> IntArray:
    """Weight of all atoms together: weights int64[..., G] -> int64[...]; of a bitmap's histogram, |B|."""
    rows, lead = _weight_rows(atoms, weights)
    counts: IntArray = backend_for(atoms.cells, rows).atoms.total_counts(atoms, rows)
    return counts.reshape(lead)


def with_sizes(atoms: Atoms, weights: npt.NDArray[np.int64]) -> IntArray:
    """Return ``atoms.cells`` and other weights int64[G] as int64[2, G], to be counted in one pass."""
    weights = check_weights(atoms, weights, 1)
    both: IntArray = backend_for(atoms.cells, weights).atoms.with_sizes(atoms, weights)
    return both


def pair_counts(atoms: Atoms, weights: npt.NDArray[np.int64], *, threads: int | None = None) -> Any:
    """Weight of the atoms that hold both of two concepts: weights int64[G] -> int64[C, C], symmetric.

    Dense up to 4,096 concepts; above, a `scipy.sparse.csr_array` of the pairs that occur, in main memory alone.
    """
    weights = check_weights(atoms, weights, 1)
    threads = check_threads(threads)
    if atoms.n_concepts > DENSE_PAIRS:
        require_host(weights, "weights", f"those of more than {DENSE_PAIRS} concepts")
        return cpu.atoms.sparse_pair_counts(*atoms.postings, weights)
    return backend_for(atoms.cells, weights).atoms.pair_counts(atoms, weights, threads)


def _weight_rows(atoms: Atoms, weights: Any) -> tuple[IntArray, tuple[int, ...]]:
    """Return weights int64[..., G] as int64[M, G], and their leading axes."""
    weights = check_weights(atoms, weights)
    lead = weights.shape[:-1]
    return weights.reshape(math.prod(lead), atoms.n_atoms), lead  # no -1: there may be no atom


def check_atoms(atoms: Any) -> None:
    """Raise `DTypeError` unless these are atoms."""
    require_kind("atoms", atoms, Atoms, "the atoms of concepts", "pass concepts.atoms")


def require_host_atoms(atoms: Atoms) -> None:
    """Raise `BackendError` if atoms lie on a GPU."""
    if on_gpu(atoms.cells):
        msg = 'atoms: they are read in main memory, got some on a GPU; pass atoms.to("cpu")'
        raise BackendError(msg)


def _checked_samples(atoms: Atoms, samples: Any) -> IntArray:
    check_atoms(atoms)
    require_host_atoms(atoms)
    samples = as_array(samples, "samples")
    if samples.ndim != 1 or (samples.size and samples.dtype.kind not in "iu"):
        raise DTypeError("samples", wanted="int64[n]", got=describe(samples), remedy="give indices of samples")
    if samples.size and not (samples.min() >= 0 and samples.max() < atoms.n_samples):
        got = f"values from {samples.min()} to {samples.max()}"
        raise InputError("samples", wanted=f"0 to {atoms.n_samples - 1}", got=got, remedy="indices start at 0")
    indices: IntArray = samples.astype(np.int64, copy=False)
    return indices


def check_weights(atoms: Atoms, weights: Any, n_axes: int | None = None) -> IntArray:
    """Return `weights` if they are int64[..., G], of `n_axes` axes, or raise the error that says why not."""
    check_atoms(atoms)
    weights = as_array(weights, "weights")
    leading = {1: "", 2: "M, "}.get(n_axes or 0, "..., ")
    wanted = f"int64[{leading}{atoms.n_atoms}], one weight per atom"
    remedy = "use atoms.cells or a histogram of the same atoms"
    if weights.dtype != np.int64:
        raise DTypeError("weights", wanted=wanted, got=describe(weights), remedy=remedy)
    if weights.ndim < 1 or weights.ndim != (n_axes or weights.ndim) or weights.shape[-1] != atoms.n_atoms:
        raise ShapeError("weights", wanted=wanted, got=describe(weights), remedy=remedy)
    checked: IntArray = weights
    return checked
