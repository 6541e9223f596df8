"""Counts by concept and by pair on the GPU; `ccx.kernels.atoms` documents and validates, `atoms.cuh` computes.

The arrays of the atoms, and weights, lie on the GPU. Atoms are built on the CPU, and moved: `ccx.kernels.Atoms.to`.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from ccx.errors import BackendError
from ccx.kernels.cuda.device import Array, device_of, launch
from ccx.kernels.cuda.formulas import concept_counts, total_counts

__all__ = ["concept_counts", "pair_counts", "total_counts", "with_sizes"]


def pair_counts(atoms: Any, weights: Array, threads: int | None) -> Array:  # noqa: ARG001
    """Serve `ccx.kernels.atoms.pair_counts`, dense."""
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


def with_sizes(atoms: Any, weights: Array) -> Array:
    """Serve `ccx.kernels.atoms.with_sizes`."""
    device = device_of(weights, atoms.cells)
    both = device.empty((2, atoms.n_atoms), np.int64)
    device.copy(atoms.cells, both[0])
    device.copy(weights, both[1])
    return both


def __getattr__(name: str) -> NoReturn:
    """Refuse what builds or unpacks atoms, which runs on the CPU alone."""
    if name.startswith("__"):
        raise AttributeError(name)
    msg = (
        f"ccx.kernels.atoms.{name} has no GPU kernel in this version of ccx; "
        'pass NumPy arrays (cupy.asnumpy(array)) and atoms in main memory (atoms.to("cpu"))'
    )
    raise BackendError(msg)
