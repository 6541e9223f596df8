"""Atoms on the CPU: their sums by concept and pair, and the masks that they make up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu._jit import jit
from ccx.kernels.cpu.partitions import grown
from ccx.typing import Array

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms


@jit
def concept_postings(atom_starts, atom_ids, n_concepts):
    """Transpose atoms -> concepts: (posting_starts int64[C + 1], posting_atoms int32[S]), atoms ascending."""
    starts = np.zeros(n_concepts + 1, np.int64)
    for i in range(atom_ids.size):
        starts[np.int64(atom_ids[i]) + 1] += 1
    for c in range(n_concepts):
        starts[c + 1] += starts[c]
    atoms = np.empty(atom_ids.size, np.int32)
    fill = starts[:-1].copy()
    for atom in range(atom_starts.size - 1):
        for i in range(atom_starts[atom], atom_starts[atom + 1]):
            concept = atom_ids[i]
            atoms[fill[concept]] = atom
            fill[concept] += 1
    return starts, atoms


def concept_counts(atoms: Atoms, weights: Array) -> Array:
    counts = np.empty((weights.shape[0], atoms.n_concepts), np.int64)
    for row, count in zip(weights, counts, strict=True):
        count[:] = _concept_counts(atoms.atom_starts, atoms.atom_concepts, row, atoms.n_concepts)
    return counts


def total_counts(atoms: Atoms, weights: Array) -> Array:
    return weights.sum(axis=1)


def with_sizes(atoms: Atoms, weights: Array) -> Array:
    return np.stack([atoms.cells, weights])


@jit
def _concept_counts(atom_starts, atom_ids, weights, n_concepts):
    """Sum by concept: weights int64[G] -> int64[C]: total weight of the atoms that hold each concept."""
    counts = np.zeros(n_concepts, np.int64)
    for atom in range(atom_starts.size - 1):
        weight = weights[atom]
        if weight:
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                counts[atom_ids[i]] += weight
    return counts


def pair_counts(atoms: Atoms, weights: Array, threads: int | None) -> Array:
    n, sets = atoms.n_concepts, (atoms.atom_starts, atoms.atom_concepts)
    counts = np.zeros((n, n), np.int64)
    parallel(lambda a, b: _pair_rows(*sets, weights, a, counts[a:b]), n, threads)
    return counts


def sparse_pair_counts(posting_starts, posting_atoms, weights):
    """Sum by pair of concepts: weights int64[G] -> csr_array int64[C, C] of the pairs that occur."""
    from scipy import sparse  # noqa: PLC0415 - half a second to import; only data sets of many concepts need it

    shape = (posting_starts.size - 1, weights.size)
    held = sparse.csr_array((np.ones(posting_atoms.size, np.int64), posting_atoms, posting_starts), shape)
    weighted = sparse.csr_array((weights[posting_atoms], posting_atoms, posting_starts), shape)
    pairs = (weighted @ held.T).tocsr()
    pairs.eliminate_zeros()
    pairs.sort_indices()
    return pairs


@jit
def _pair_rows(atom_starts, atom_ids, weights, first_row, counts):
    for atom in range(atom_starts.size - 1):
        weight = weights[atom]
        if weight == 0:
            continue
        for i in range(atom_starts[atom], atom_starts[atom + 1]):
            row = np.int64(atom_ids[i]) - first_row
            if 0 <= row < counts.shape[0]:
                for j in range(atom_starts[atom], atom_starts[atom + 1]):
                    counts[row, atom_ids[j]] += weight


@jit
def atom_rows(inside, samples, cell_atoms, sample_starts, sample_atoms, out):
    """Packed masks of the cells whose atom is marked: inside uint8[G], samples int64[n] -> out uint64[n, n_words]."""
    most = 0
    for n in samples:
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    marked = np.zeros(most + 1, np.uint64)  # the last slot, of cells that are not valid, stays 0
    for k in range(samples.size):
        n = samples[k]
        start = sample_starts[n]
        n_local = sample_starts[n + 1] - start
        for local in range(n_local):
            marked[local] = np.uint64(inside[sample_atoms[start + local]])
        marked[n_local] = np.uint64(0)
        for word in range(out.shape[1]):
            bits = np.uint64(0)
            for bit in range(min(64, cell_atoms.shape[1] - 64 * word)):
                bits |= marked[cell_atoms[n, 64 * word + bit]] << np.uint64(bit)
            out[k, word] = bits


@jit
def present_concepts(samples, sample_starts, sample_atoms, sample_cells, atom_starts, atom_ids, n_concepts):
    """Concepts that occur in each sample, ascending, and their numbers of cells there.

    samples int64[n] -> (starts int64[n + 1], concepts int32[R], areas int32[R]).
    """
    starts = np.zeros(samples.size + 1, np.int64)
    areas_of = np.zeros(n_concepts, np.int32)
    concepts = np.empty(64, np.int32)
    areas = np.empty(64, np.int32)
    for k in range(samples.size):
        at = starts[k]
        for entry in range(sample_starts[samples[k]], sample_starts[samples[k] + 1]):
            atom = sample_atoms[entry]
            concepts = grown(concepts, at + atom_starts[atom + 1] - atom_starts[atom])
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                concept = atom_ids[i]
                if areas_of[concept] == 0:
                    concepts[at] = concept
                    at += 1
                areas_of[concept] += sample_cells[entry]
        starts[k + 1] = at
        concepts[starts[k] : at].sort()
        areas = grown(areas, at)
        for j in range(starts[k], at):
            areas[j] = areas_of[concepts[j]]
            areas_of[concepts[j]] = 0
    return starts, concepts[: starts[-1]].copy(), areas[: starts[-1]].copy()


@jit
def concept_rows(
    samples, starts, concepts, row_of, cell_atoms, sample_starts, sample_atoms, atom_starts, atom_ids, rows
):
    """Packed masks of the concepts that `present_concepts` found: row_of int64[R], -1 = none wanted.

    Fills rows uint64[n_rows, n_words], which must be zeros.
    """
    n_words = rows.shape[1]
    most = 0
    for n in samples:
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    bits = np.zeros((most + 1, n_words), np.uint64)
    for k in range(samples.size):
        n = samples[k]
        start = sample_starts[n]
        n_local = sample_starts[n + 1] - start
        bits[:n_local] = 0  # nothing reads the last slot, of cells that are not valid
        for p in range(cell_atoms.shape[1]):
            bits[cell_atoms[n, p], p >> 6] |= np.uint64(1) << np.uint64(p & 63)
        present = concepts[starts[k] : starts[k + 1]]
        for local in range(n_local):
            atom = sample_atoms[start + local]
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                row = row_of[starts[k] + np.searchsorted(present, np.int32(atom_ids[i]))]
                if row >= 0:
                    for word in range(n_words):
                        rows[row, word] |= bits[local, word]
