"""Formulas on the GPU; `ccx.kernels.formulas` documents and validates, `formulas.cuh` computes.

Weights and atoms lie on the GPU; formulas lie on the host and are copied over: 5 bytes a concept. `threads` counts
processors of the host and changes nothing here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccx.kernels.cuda.device import Array, Device, device_of, launch

# The counts of a block in shared memory: 48 KiB, so that a multiprocessor has room for four blocks.
_TABLE_SLOTS = 6144
_BLOCKS_PER_PROCESSOR = 4
_LEAST_SLICE_ATOMS = 256

_NO_CONCEPT, _NO_OPERATOR = np.empty((1, 0), np.int32), np.empty((1, 0), np.uint8)


def formula_counts(
    atoms: Any,
    weights: Array,
    concepts: NDArray[np.int32],
    operators: NDArray[np.uint8],
    threads: int | None,  # noqa: ARG001
) -> Array:
    """Serve `ccx.kernels.formulas.formula_counts`; the arrays of `atoms` lie on the GPU too."""
    device = device_of(weights, atoms.atom_starts, atoms.atom_concepts)
    n_rows, n_atoms = weights.shape
    n_formulas, length = concepts.shape
    counts = device.zeros((n_rows, n_formulas), np.int64)
    arrays = _arrays(device, atoms, weights, concepts, operators)
    sizes = map(np.int64, (n_atoms, n_rows, n_formulas, length))
    launch(device, "formulas", "formula_counts", n_rows * n_formulas * n_atoms, (*arrays, counts, *sizes))
    return counts


def conjunction_counts(
    atoms: Any,
    weights: Array,
    concepts: NDArray[np.int32],
    operators: NDArray[np.uint8],
    threads: int | None,  # noqa: ARG001
) -> Array:
    """Serve `ccx.kernels.formulas.conjunction_counts`; the arrays of `atoms` lie on the GPU too."""
    device = device_of(weights, atoms.atom_starts, atoms.atom_concepts)
    n_rows, n_atoms = weights.shape
    n_formulas, length = concepts.shape
    n_concepts = atoms.n_concepts
    counts = device.zeros((n_rows, n_formulas, n_concepts), np.int64)
    if 0 in (*counts.shape, n_atoms):
        return counts
    counts_a_group = min(max(1, _TABLE_SLOTS // n_concepts), n_rows * n_formulas)
    n_groups = -(-n_rows * n_formulas // counts_a_group)
    n_slices = max(1, device.n_processors * _BLOCKS_PER_PROCESSOR // n_groups)
    slice_atoms = max(-(-n_atoms // n_slices), _LEAST_SLICE_ATOMS)
    n_blocks = n_groups * -(-n_atoms // slice_atoms)
    arrays = _arrays(device, atoms, weights, concepts, operators)
    sizes = map(np.int64, (n_atoms, n_rows, n_formulas, length, n_concepts, slice_atoms, _TABLE_SLOTS))
    n_threads = n_blocks * device.threads_per_block
    launch(device, "formulas", "conjunction_counts", n_threads, (*arrays, counts, *sizes), 8 * _TABLE_SLOTS)
    return counts


def concept_counts(atoms: Any, weights: Array) -> Array:
    """Serve `ccx.kernels.atoms.concept_counts`: those of every concept AND a formula that always holds."""
    counts = conjunction_counts(atoms, weights, _NO_CONCEPT, _NO_OPERATOR, None)
    return counts.reshape(weights.shape[0], atoms.n_concepts)


def total_counts(atoms: Any, weights: Array) -> Array:
    """Serve `ccx.kernels.atoms.total_counts`: those of a formula that always holds."""
    return formula_counts(atoms, weights, _NO_CONCEPT, _NO_OPERATOR, None).reshape(weights.shape[0])


def _arrays(device: Device, atoms: Any, weights: Array, *formulas: NDArray[Any]) -> tuple[Array, ...]:
    """Return the arrays of the atoms, the weights, and formulas on the GPU, as the kernels take them."""
    return (
        device.contiguous(atoms.atom_starts, np.int64),
        device.contiguous(atoms.atom_concepts, np.uint16),
        device.contiguous(weights, np.int64),
        *map(device.upload, formulas),
    )
