"""Counts by concept and by pair on the GPU; `ccx.kernels.atoms` documents and validates, `atoms.cuh` computes.

The arrays of the atoms, and weights, lie on the GPU. Atoms are built on the CPU, and moved: `ccx.kernels.Atoms.to`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccx.kernels.cuda.device import device_of, launch
from ccx.kernels.cuda.formulas import conjunction_counts, formula_counts
from ccx.typing import Array

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

ALWAYS = np.empty((1, 0), np.int32), np.empty((1, 0), np.uint8)
"""A formula that always holds."""


def concept_counts(atoms: Atoms, weights: Array) -> Array:
    counts = conjunction_counts(atoms, weights, *ALWAYS, None)
    return counts.reshape(weights.shape[0], atoms.n_concepts)


def total_counts(atoms: Atoms, weights: Array) -> Array:
    return formula_counts(atoms, weights, *ALWAYS, None).reshape(weights.shape[0])


def pair_counts(atoms: Atoms, weights: Array, threads: int | None) -> Array:
    device = device_of(weights, atoms.atom_starts, atoms.atom_concepts)
    counts = device.zeros((atoms.n_concepts, atoms.n_concepts), np.int64)
    arrays = (
        device.contiguous(atoms.atom_starts, np.int64),
        device.contiguous(atoms.atom_concepts, np.uint16),
        device.contiguous(weights, np.int64),
    )
    sizes = map(np.int64, (atoms.n_atoms, atoms.n_concepts))
    launch(device, "atoms", "pair_counts", 32 * atoms.n_atoms, (*arrays, counts, *sizes))
    return counts


def with_sizes(atoms: Atoms, weights: Array) -> Array:
    device = device_of(weights, atoms.cells)
    both = device.empty((2, atoms.n_atoms), np.int64)
    device.copy(atoms.cells, both[0])
    device.copy(weights, both[1])
    return both
