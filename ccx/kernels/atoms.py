"""Atoms: the partition of all cells by the set of concepts that they carry (docs/atoms.md).

Every cell carries exactly one set of concepts, the empty set included; the sets that occur are the
atoms. The number of cells of each atom, altogether and inside a bitmap, is all that any formula's
counts need: |F| and |F and B| are sums over the atoms that satisfy F.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.checks import integer, require_kind
from ccx.errors import DTypeError, InputError, MemoryBudgetError, ShapeError
from ccx.jobs import check_threads, parallel
from ccx.kernels._dispatch import as_array, backend_for, describe
from ccx.kernels.devices import Place, parse_places, place_of
from ccx.kernels.rows import as_rows, check_padding
from ccx.kernels.shapes import check_grid
from ccx.memory import require_bytes

MAX_CONCEPTS = 65_535
DENSE_PAIRS = 4_096
"""Up to this many concepts, `pair_counts` is a dense matrix (134 MB at the limit)."""

_BATCH_CELLS = 1 << 22  # cells a batch: 16 MB of codes
_BYTES_AHEAD = 1 << 26  # of cell maps between two looks at the memory that is left

IntArray = npt.NDArray[np.int64]

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

    @property
    def n_samples(self) -> int:
        """N."""
        return int(self.cell_atoms.shape[0])

    @property
    def n_atoms(self) -> int:
        """G."""
        return int(self.cells.size)

    @cached_property
    def postings(self) -> tuple[Any, Any]:
        """``(int64[C + 1], int32[S])``: where each concept's atoms start, and those atoms, ascending.

        Of atoms on a GPU, where they start is known in main memory, which shares out the work.
        """
        found: tuple[Any, Any] = backend_for(self.cells).atoms.concept_postings(
            self.atom_starts, self.atom_concepts, self.n_concepts
        )
        return found

    @cached_property
    def pair_cells(self) -> Any:
        """int64[C, C], dense or (above 4,096 concepts) scipy CSR: cells that carry both of two concepts."""
        shared = pair_counts(self, self.cells)
        place_of(self.cells).synchronize()
        return shared

    def to(self, device: str) -> Atoms:
        """Return these atoms with all arrays on a device: "cpu", "cuda" or "cuda:1".

        A copy is made once a device, and kept for as long as these atoms are.

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


class Partition(NamedTuple):
    """The cells of n samples, numbered by concept set in each sample: what `AtomBuilder.partition` makes.

    ``codes`` uint8|uint16|uint32[n, P]: the set of each cell among those of its sample; ``counts`` int64[n]: how many
    these are, which is also the code of cells that are not valid. The E sets of all samples, one sample after the
    other, have ``cells`` int32[E] cells, and the concepts ``set_ids[set_starts[e]:set_starts[e + 1]]`` (uint16,
    indices from 0, ascending).
    """

    codes: npt.NDArray[Any]
    counts: IntArray
    cells: npt.NDArray[np.int32]
    set_starts: IntArray
    set_ids: npt.NDArray[np.uint16]

    @classmethod
    def joined(cls, parts: Sequence[Partition]) -> Partition:
        """Return the samples of several partitions of one grid as one."""
        dtype = np.result_type(*(part.codes.dtype for part in parts))
        offsets = np.cumsum([0, *(part.set_ids.size for part in parts)])
        starts = [part.set_starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
        return cls(
            np.concatenate([part.codes.astype(dtype, copy=False) for part in parts]),
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.cells for part in parts]),
            np.concatenate([*starts, offsets[-1:]]),
            np.concatenate([part.set_ids for part in parts]),
        )


class AtomBuilder:
    """Builds `Atoms` from batches of samples, so that label maps never need to be in memory at once.

    Parameters
    ----------
    shape
        Grid (H, W).
    n_concepts
        C, at most 65,535.
    threads
        Processors to use; None = all available. The result does not depend on it.

    Examples
    --------
    >>> builder = AtomBuilder((1, 3), n_concepts=2)
    >>> builder.add_label_maps(np.array([[[1, 1, 2]]]))
    >>> builder.finish().cells
    array([2, 1])

    """

    def __init__(self, shape: tuple[int, int], n_concepts: int, *, threads: int | None = None) -> None:
        remedy = "leave out concepts that do not occur"
        n_concepts = integer("n_concepts", n_concepts, 0, MAX_CONCEPTS, remedy)
        self._shape = check_grid(shape, 1)
        self._n_cells = self._shape[0] * self._shape[1]
        self._n_concepts = n_concepts
        self._threads = check_threads(threads)
        self._n_samples = 0
        self._bytes_ahead = 0  # that were found to fit
        self._cell_atoms: list[npt.NDArray[Any]] = []
        self._entries: list[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]] = []
        # atom_starts, atom_concepts, n_atoms, hash table, last sample that holds the atom, its local atom there
        self._interned: tuple[Any, ...] = (
            np.zeros(1_025, np.int64), np.empty(4_096, np.uint16), 0,
            np.full(1_024, -1, np.int32), np.empty(1_024, np.int32), np.empty(1_024, np.int32),
        )  # fmt: skip

    def add_label_maps(self, labels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> None:
        """Add samples: labels int[n, L, P] with ids 0..C (0 = none), valid bool[n, P] or None.

        Raises
        ------
        InputError
            If an id is out of range: names the first such sample, its layer and cell.

        """
        labels = self._checked_labels(labels, valid)
        self._add(self._label_sets(labels), labels, valid)

    def partition(self, labels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> Partition:
        """Return the cells of some samples by concept set, without adding them.

        So another process may do this for `add_partition`. Arguments and errors are those of `add_label_maps`; samples
        are numbered from 0.
        """
        labels = self._checked_labels(labels, valid)
        codes, counts, [(_, _, sets)] = self._numbered(self._label_sets(labels), labels, valid, 0, 1)
        kernels = backend_for(labels).atoms
        if valid is not None:
            codes = np.where(codes == kernels.VOID, counts[:, None].astype(np.uint32), codes)
        most = counts.max(initial=0)
        dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32) if most <= np.iinfo(kind).max)
        return Partition(codes.astype(dtype), counts, *sets)

    def add_partition(self, partition: Partition) -> None:
        """Add the samples of `partition`, made by a builder of the same grid and number of concepts."""
        counts = partition.counts
        codes = partition.codes.astype(np.uint32)
        if partition.cells.sum() < codes.size:
            codes[codes == counts[:, None]] = backend_for(codes).atoms.VOID
        self._intern(codes, counts, [(0, counts.size, partition[2:])])

    def _checked_labels(self, labels: Any, valid: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
        labels = as_array(labels, "labels")
        if labels.dtype.kind not in "iu":
            raise DTypeError(
                "labels", wanted="integer ids", got=describe(labels), remedy="convert: labels.astype(numpy.int32)"
            )
        self._check("labels", labels, valid)
        native: npt.NDArray[Any] = labels.astype(labels.dtype.newbyteorder("="), copy=False)
        return native

    def _label_sets(self, labels: npt.NDArray[Any]) -> Any:
        """Return what numbers a batch of labels by their sets, or raises `InputError`."""
        kernels = backend_for(labels).atoms

        def sets(first_sample: int, batch: npt.NDArray[Any], *rest: Any) -> Any:
            cells, starts, ids, (sample, layer, cell) = kernels.label_sets(batch, *rest, self._n_concepts)
            if sample >= 0:
                row, col = divmod(int(cell), self._shape[1])
                where = f"sample {first_sample + sample}, layer {layer}, row {row}, column {col}"
                raise InputError(
                    "labels",
                    wanted=f"ids from 0 (none) to {self._n_concepts}, the number of names",
                    got=f"{batch[sample, layer, cell]} in {where}",
                    remedy="give a name to every id, or set such cells to 0",
                )
            return cells, starts, ids

        return sets

    def add_packed_masks(self, rows: npt.NDArray[np.uint64], valid: npt.NDArray[np.bool_] | None = None) -> None:
        """Add samples: rows uint64[n, C, n_words], one packed mask a concept, any overlaps; valid bool[n, P]."""
        rows = as_rows(rows, "masks", self._n_cells)
        self._check("masks", rows, valid)
        check_padding("masks", rows, self._n_cells)
        rows = rows.astype(np.uint64, copy=False)  # native byte order
        kernel = backend_for(rows).atoms.mask_sets
        self._add(lambda _first_sample, *arrays: kernel(*arrays), rows, valid)

    def _check(self, argument: str, batch: npt.NDArray[Any], valid: npt.NDArray[Any] | None) -> None:
        n_words = -(-self._n_cells // 64)
        wanted = f"[n, layers, {self._n_cells}]" if argument == "labels" else f"[n, {self._n_concepts}, {n_words}]"
        good = batch.ndim == 3 and (
            batch.shape[2] == self._n_cells if argument == "labels" else batch.shape[1:] == (self._n_concepts, n_words)
        )
        if not good:
            raise ShapeError(
                argument, wanted=wanted, got=describe(batch), remedy="bring it to the grid of the concepts"
            )
        if valid is not None and (valid.dtype != np.bool_ or valid.shape != (batch.shape[0], self._n_cells)):
            raise ShapeError(
                "valid",
                wanted=f"bool[{batch.shape[0]}, {self._n_cells}]",
                got=describe(valid),
                remedy="give one bool for each cell",
            )

    def add_atoms(self, atoms: Atoms, samples: npt.NDArray[np.int64], new_concepts: npt.NDArray[np.int64]) -> None:
        """Add samples of other atoms.

        samples int64[n]: which; new_concepts int64[C']: the index here of each of their concepts, or
        -1 to leave it out. Indices that stay must ascend.
        """
        kernels = backend_for(atoms.cells).atoms
        size = max(1, _BATCH_CELLS // max(self._n_cells, 1))
        for at in range(0, samples.size, size):
            part = samples[at : at + size]
            counts, cells, set_starts, set_ids = kernels.projected_sets(
                part, atoms.sample_starts, atoms.sample_atoms, atoms.sample_cells,
                atoms.atom_starts, atoms.atom_concepts, new_concepts,
            )  # fmt: skip
            codes = atoms.cell_atoms[part].astype(np.uint32)
            codes[codes == counts[:, None]] = kernels.VOID
            self._intern(codes, counts, [(0, part.size, (cells, set_starts, set_ids))])

    def _add(self, sets: Any, batch: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None) -> None:
        size = max(1, _BATCH_CELLS // max(self._n_cells, 1))
        for start in range(0, batch.shape[0], size):
            self._add_slice(sets, batch[start : start + size], None if valid is None else valid[start : start + size])

    def _add_slice(self, sets: Any, batch: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None) -> None:
        self._intern(*self._numbered(sets, batch, valid, self._n_samples, self._threads))

    def _numbered(
        self,
        sets: Any,
        batch: npt.NDArray[Any],
        valid: npt.NDArray[np.bool_] | None,
        first_sample: int,
        threads: int | None,
    ) -> tuple[npt.NDArray[np.uint32], IntArray, list[tuple[int, int, Any]]]:
        """Compare the cells of each sample by concept set -> codes, their counts, and (start, stop, sets) of slices."""
        n = batch.shape[0]
        codes = np.empty((n, self._n_cells), np.uint32)
        code_counts = np.zeros(n, np.int64)
        has_valid = valid is not None
        flags = valid if valid is not None else np.ones((1, 1), np.bool_)

        def numbered(start: int, stop: int) -> tuple[int, int, Any]:
            part = flags[start:stop] if has_valid else flags
            arrays = (batch[start:stop], part, has_valid, codes[start:stop], code_counts[start:stop])
            return start, stop, sets(first_sample + start, *arrays)

        return codes, code_counts, parallel(numbered, n, threads)

    def _intern(self, codes: npt.NDArray[np.uint32], code_counts: IntArray, slices: list[tuple[int, int, Any]]) -> None:
        """Append samples whose cells are numbered by concept set; `slices` = (start, stop, sets) in order."""
        kernels = backend_for(codes).atoms
        n = codes.shape[0]
        local_parts, count_parts = [], []
        for start, stop, (cells, set_starts, set_ids) in slices:
            local, atoms, entry_cells, counts, *interned = kernels.intern_sets(
                code_counts[start:stop], cells, set_starts, set_ids, *self._interned, self._n_samples + start
            )
            self._interned = tuple(interned)
            self._entries.append((atoms, entry_cells, counts))
            local_parts.append(local)
            count_parts.append(counts)
        local = np.concatenate(local_parts)
        counts = np.concatenate(count_parts)
        code_starts = np.concatenate(([0], np.cumsum(code_counts)))
        # One number more than there are local atoms stands for cells that are not valid.
        dtype = np.uint16 if counts.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32
        self._require(n * self._n_cells * np.dtype(dtype).itemsize)
        cell_atoms = np.empty((n, self._n_cells), dtype)

        def localised(start: int, stop: int) -> None:
            kernels.localise(
                codes[start:stop], code_starts[start:stop], local, counts[start:stop], cell_atoms[start:stop]
            )

        parallel(localised, n, self._threads)
        self._cell_atoms.append(cell_atoms)
        self._n_samples += n

    def _require(self, n_bytes: int) -> None:
        """Raise `MemoryBudgetError` if so many bytes more do not fit: nobody knows how many samples are to come."""
        self._bytes_ahead -= n_bytes
        if self._bytes_ahead < 0:
            require_bytes("samples", n_bytes + _BYTES_AHEAD, "use fewer samples or a coarser grid")
            self._bytes_ahead = _BYTES_AHEAD

    def finish(self) -> Atoms:
        """Return the atoms of all samples added.

        Raises
        ------
        MemoryBudgetError
            If they cannot be joined in memory.

        """
        atom_starts, atom_concepts, n_atoms, *_ = self._interned
        dtype = np.result_type(np.uint16, *(part.dtype for part in self._cell_atoms))
        try:
            cell_atoms = np.empty((self._n_samples, self._n_cells), dtype)
        except MemoryError as error:  # a limit of the address space: else pages are taken as parts are given back
            got = f"{self._n_samples} samples of {self._n_cells} cells"
            remedy = "use fewer samples or a coarser grid, or raise the limit (ulimit -v)"
            raise MemoryBudgetError("samples", wanted="a cell map that fits", got=got, remedy=remedy) from error
        at = 0
        while self._cell_atoms:  # freed one by one: no second copy of everything
            part = self._cell_atoms.pop(0)
            cell_atoms[at : at + part.shape[0]] = part
            at += part.shape[0]
        self._cell_atoms.append(cell_atoms)
        empty = np.empty(0, np.int32)
        counts = np.concatenate([np.empty(0, np.int64), *(entry[2] for entry in self._entries)])
        sample_atoms = np.concatenate([empty, *(entry[0] for entry in self._entries)])
        sample_cells = np.concatenate([empty, *(entry[1] for entry in self._entries)])
        cells = np.zeros(n_atoms, np.int64)
        np.add.at(cells, sample_atoms, sample_cells)
        return Atoms(
            shape=self._shape,
            n_concepts=self._n_concepts,
            cell_atoms=_read_only(cell_atoms),
            sample_starts=_read_only(np.concatenate(([0], np.cumsum(counts)))),
            sample_atoms=_read_only(sample_atoms),
            sample_cells=_read_only(sample_cells),
            atom_starts=_read_only(atom_starts[: n_atoms + 1].copy()),
            atom_concepts=_read_only(atom_concepts[: atom_starts[n_atoms]].copy()),
            cells=_read_only(cells),
        )


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view: atoms never change, and numba compiles once for built and for memory-mapped ones."""
    view = array.view()
    view.flags.writeable = False
    return view


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
    kernels = backend_for(atoms.cells).atoms
    n_cells = atoms.shape[0] * atoms.shape[1]
    table = (atoms.sample_starts, atoms.sample_atoms)
    sets = (atoms.atom_starts, atoms.atom_concepts)
    starts, concepts, areas = kernels.present_concepts(samples, *table, atoms.sample_cells, *sets, atoms.n_concepts)
    has_row = areas < n_cells
    row_of = np.where(has_row, np.cumsum(has_row) - 1, -1)
    n_rows, n_words = int(has_row.sum()), -(-n_cells // 64)
    require_bytes("samples", 8 * n_rows * n_words, "use fewer samples or a coarser grid")
    rows = np.zeros((n_rows, n_words), np.uint64)

    def fill(a: int, b: int) -> None:
        kernels.concept_rows(samples[a:b], starts[a : b + 1], concepts, row_of, atoms.cell_atoms, *table, *sets, rows)

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
    rows = np.empty((samples.size, -(-n_cells // 64)), np.uint64)
    kernel = backend_for(atoms.cells).atoms.atom_rows
    marks = inside.astype(np.uint8)

    def fill(a: int, b: int) -> None:
        kernel(marks, samples[a:b], atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms, rows[a:b])

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
    kernels = backend_for(atoms.cells, weights).atoms
    if atoms.n_concepts > DENSE_PAIRS:
        return kernels.sparse_pair_counts(*atoms.postings, weights)
    return kernels.pair_counts(atoms, weights, threads)


def _weight_rows(atoms: Atoms, weights: Any) -> tuple[IntArray, tuple[int, ...]]:
    """Return weights int64[..., G] as int64[M, G], and their leading axes."""
    weights = check_weights(atoms, weights)
    lead = weights.shape[:-1]
    return weights.reshape(math.prod(lead), atoms.n_atoms), lead  # no -1: there may be no atom


def check_atoms(atoms: Any) -> None:
    """Raise `DTypeError` unless these are atoms."""
    require_kind("atoms", atoms, Atoms, "the atoms of concepts", "pass concepts.atoms")


def _checked_samples(atoms: Atoms, samples: Any) -> IntArray:
    check_atoms(atoms)
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
    wanted = f"int64[{leading}{atoms.n_atoms}], one weight an atom"
    remedy = "use atoms.cells or a histogram of the same atoms"
    if weights.dtype != np.int64:
        raise DTypeError("weights", wanted=wanted, got=describe(weights), remedy=remedy)
    if weights.ndim < 1 or weights.ndim != (n_axes or weights.ndim) or weights.shape[-1] != atoms.n_atoms:
        raise ShapeError("weights", wanted=wanted, got=describe(weights), remedy=remedy)
    checked: IntArray = weights
    return checked
