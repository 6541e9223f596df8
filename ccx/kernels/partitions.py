"""Atoms from label maps or packed masks, batch by batch: which sets of concepts there are, and where.

Work on a batch goes in two steps (`ccx.kernels.cpu.partitions`): the cells of each sample are compared by concept set,
on any number of threads or in other processes, and the sets of all samples become atoms, in the order of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.checks import integer
from ccx.errors import DTypeError, InputError, MemoryBudgetError, ShapeError
from ccx.jobs import check_threads, parallel
from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms, require_host_atoms
from ccx.kernels.conversion import as_array, describe, require_host
from ccx.kernels.rows import as_rows, check_padding, n_words
from ccx.kernels.shapes import check_grid
from ccx.memory import require_bytes
from ccx.typing import BoolArray, Int32Array, IntArray, PackedRows

MAX_CONCEPTS = 65_535
_BATCH_CELLS = 1 << 22  # cells per batch: 16 MB of codes
_BYTES_AHEAD = 1 << 26  # of cell maps between two looks at the memory that is left


class Partition(NamedTuple):
    """The cells of n samples, numbered by concept set in each sample: what `AtomBuilder.partition` makes.

    ``codes`` uint8|uint16|uint32[n, P]: the set of each cell among those of its sample; ``counts`` int64[n]: how many
    these are, which is also the code of cells that are not valid. The E sets of all samples, one sample after the
    other, have ``cells`` int32[E] cells, and the concepts ``set_ids[set_starts[e]:set_starts[e + 1]]`` (uint16,
    indices from 0, ascending).
    """

    codes: npt.NDArray[Any]
    counts: IntArray
    cells: Int32Array
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

    def add_label_maps(self, labels: npt.NDArray[Any], valid: BoolArray | None = None) -> None:
        """Add samples: labels int[n, L, P] with ids 0..C (0 = none), valid bool[n, P] or None.

        Raises
        ------
        InputError
            If an id is out of range: names the first such sample, its layer and cell.

        """
        self._add(self._label_sets, self._checked_labels(labels, valid), valid)

    def partition(self, labels: npt.NDArray[Any], valid: BoolArray | None = None) -> Partition:
        """Return the cells of some samples by concept set, without adding them.

        So another process may do this for `add_partition`. Arguments and errors are those of `add_label_maps`; samples
        are numbered from 0.
        """
        labels = self._checked_labels(labels, valid)
        codes, counts, [(_, _, sets)] = self._numbered(self._label_sets, labels, valid, 0, 1)
        if valid is not None:
            codes = np.where(codes == cpu.partitions.VOID, counts[:, None].astype(np.uint32), codes)
        most = counts.max(initial=0)
        dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32) if most <= np.iinfo(kind).max)
        return Partition(codes.astype(dtype), counts, *sets)

    def add_partition(self, partition: Partition) -> None:
        """Add the samples of `partition`, made by a builder of the same grid and number of concepts."""
        counts = partition.counts
        codes = partition.codes.astype(np.uint32)
        if partition.cells.sum() < codes.size:
            codes[codes == counts[:, None]] = cpu.partitions.VOID
        self._intern(codes, counts, [(0, counts.size, partition[2:])])

    def _checked_labels(self, labels: Any, valid: BoolArray | None) -> npt.NDArray[Any]:
        labels = as_array(labels, "labels")
        require_host(labels, "labels", "label maps")
        if labels.dtype.kind not in "iu":
            raise DTypeError(
                "labels", wanted="integer ids", got=describe(labels), remedy="convert: labels.astype(numpy.int32)"
            )
        self._check("labels", labels, valid)
        native: npt.NDArray[Any] = labels.astype(labels.dtype.newbyteorder("="), copy=False)
        return native

    def _label_sets(self, first_sample: int, batch: npt.NDArray[Any], *rest: Any) -> Any:
        """Count the cells of a batch of labels by their sets, or raise `InputError`."""
        cells, starts, ids, (sample, layer, cell) = cpu.partitions.label_sets(batch, *rest, self._n_concepts)
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

    def add_packed_masks(self, rows: PackedRows, valid: BoolArray | None = None) -> None:
        """Add samples: rows uint64[n, C, n_words], one packed mask per concept, any overlaps; valid bool[n, P]."""
        rows = as_rows(rows, "masks", self._n_cells)
        require_host(rows, "masks", "masks")
        self._check("masks", rows, valid)
        check_padding("masks", rows, self._n_cells)
        rows = rows.astype(np.uint64, copy=False)  # native byte order
        self._add(lambda _first_sample, *arrays: cpu.partitions.mask_sets(*arrays), rows, valid)

    def _check(self, argument: str, batch: npt.NDArray[Any], valid: npt.NDArray[Any] | None) -> None:
        layers = ("n", "layers") if argument == "labels" else ("n", self._n_concepts)
        last = self._n_cells if argument == "labels" else n_words(self._n_cells)
        fits = batch.ndim == 3 and batch.shape[2] == last and layers[1] in ("layers", batch.shape[1])
        if not fits:
            wanted = f"[{layers[0]}, {layers[1]}, {last}]"
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

    def add_atoms(self, atoms: Atoms, samples: IntArray, new_concepts: IntArray) -> None:
        """Add samples of other atoms.

        samples int64[n]: which; new_concepts int64[C']: the index here of each of their concepts, or
        -1 to leave it out. Indices that stay must ascend.
        """
        require_host_atoms(atoms)
        size = max(1, _BATCH_CELLS // max(self._n_cells, 1))
        for at in range(0, samples.size, size):
            part = samples[at : at + size]
            counts, cells, set_starts, set_ids = cpu.partitions.projected_sets(
                part, atoms.sample_starts, atoms.sample_atoms, atoms.sample_cells,
                atoms.atom_starts, atoms.atom_concepts, new_concepts,
            )  # fmt: skip
            codes = atoms.cell_atoms[part].astype(np.uint32)
            codes[codes == counts[:, None]] = cpu.partitions.VOID
            self._intern(codes, counts, [(0, part.size, (cells, set_starts, set_ids))])

    def _add(self, sets: Any, batch: npt.NDArray[Any], valid: BoolArray | None) -> None:
        size = max(1, _BATCH_CELLS // max(self._n_cells, 1))
        for start in range(0, batch.shape[0], size):
            part = slice(start, start + size)
            flags = None if valid is None else valid[part]
            self._intern(*self._numbered(sets, batch[part], flags, self._n_samples, self._threads))

    def _numbered(
        self,
        sets: Any,
        batch: npt.NDArray[Any],
        valid: BoolArray | None,
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
        n = codes.shape[0]
        local_parts, count_parts = [], []
        for start, stop, (cells, set_starts, set_ids) in slices:
            local, atoms, entry_cells, counts, *interned = cpu.partitions.intern_sets(
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
            cpu.partitions.localise(
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
