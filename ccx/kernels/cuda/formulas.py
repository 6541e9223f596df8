"""Formulas on the GPU; `ccx.kernels.formulas` documents and validates, `formulas.cuh` computes.

Weights and atoms lie on the GPU; formulas lie on the host and are copied over: 5 bytes per concept, and 48 for each
concept whose atoms are visited. `threads` counts processors of the host and changes nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccx.kernels.cuda.device import Device, device_of, launch
from ccx.operators import AND, OR
from ccx.typing import Array, Int32Array, UInt8Array

if TYPE_CHECKING:
    from ccx.kernels.atoms import Atoms

_TABLE_SLOTS = 6144  # of 8 bytes: the counts of a block in shared memory, 48 KiB at most
_BLOCKS_PER_PROCESSOR = 8
_LEAST_SLICE_ATOMS = 1024  # fewer would not pay for clearing and adding up a table


def formula_counts(
    atoms: Atoms, weights: Array, concepts: Int32Array, operators: UInt8Array, threads: int | None
) -> Array:
    device = device_of(weights, atoms.atom_starts, atoms.atom_concepts)
    n_rows, n_atoms = weights.shape
    n_formulas, length = concepts.shape
    counts = device.zeros((n_rows, n_formulas), np.int64)
    arrays = _arrays(device, atoms, weights, concepts, operators)
    sizes = map(np.int64, (n_atoms, n_rows, n_formulas, length))
    launch(device, "formulas", "formula_counts", n_rows * n_formulas * n_atoms, (*arrays, counts, *sizes))
    return counts


def conjunction_counts(
    atoms: Atoms, weights: Array, concepts: Int32Array, operators: UInt8Array, threads: int | None
) -> Array:
    starts, posted = atoms.postings if concepts.shape[1] else (None, atoms.sample_atoms)  # which is not read then
    device = device_of(weights, atoms.atom_starts, atoms.atom_concepts, posted)
    n_rows, n_atoms = weights.shape
    n_formulas, length = concepts.shape
    n_concepts = atoms.n_concepts
    counts = device.zeros((n_rows, n_formulas, n_concepts), np.int64)
    if 0 in (*counts.shape, n_atoms):
        return counts
    pieces = _pieces(starts, n_atoms, concepts, operators)
    n_here = pieces[:, 4] - pieces[:, 3]
    slice_atoms = max(-(-int(n_here.sum()) // (device.n_processors * _BLOCKS_PER_PROCESSOR)), _LEAST_SLICE_ATOMS)
    n_slices = -(-n_here // slice_atoms)
    pieces[:, 5] = np.cumsum(n_slices) - n_slices
    n_slots = max(1, min(_TABLE_SLOTS // n_concepts, n_rows)) * n_concepts
    n_slots = n_slots if n_slots <= _TABLE_SLOTS else 1  # not even one row fits
    n_blocks = int(n_slices.sum()) * -(-n_rows // max(n_slots // n_concepts, 1))
    args = (
        device.contiguous(atoms.atom_starts, np.int64),
        device.contiguous(atoms.atom_concepts, np.uint16),
        device.contiguous(posted, np.int32),
        device.contiguous(weights, np.int64),
        *(device.upload(part) for part in (concepts, operators, pieces)),
        counts,
        *map(np.int64, (n_atoms, n_rows, n_formulas, length, n_concepts)),
        *map(np.int64, (len(pieces), n_slices.sum(), slice_atoms, n_slots)),
    )
    n_threads = n_blocks * device.threads_per_block
    launch(device, "formulas", "conjunction_counts", n_threads, args, 8 * n_slots)
    return counts


def _pieces(
    starts: NDArray[np.int64] | None, n_atoms: int, concepts: NDArray[np.int32], operators: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the pieces of formulas.cuh, but for their first tasks: int64[n_pieces, 6], none of them empty."""
    if starts is None:
        return np.array([[0, 0, 0, 0, n_atoms, 0]])
    pieces = []
    for f, (own, connectives) in enumerate(zip(concepts.tolist(), operators.tolist(), strict=True)):
        sources = _sources(own, connectives, starts)
        pieces += [(f, c, before, starts[c], starts[c + 1], 0) for before, c in enumerate(sources)]
    return np.array(pieces, np.int64).reshape(len(pieces), 6)


def _sources(concepts: list[int], operators: list[int], starts: NDArray[np.int64]) -> list[int]:
    """Return concepts of which every atom that satisfies a formula holds one, all with atoms.

    An atom that satisfies it holds the last concept behind an AND, or one behind an OR that follows; without an AND,
    the first concept or one behind an OR. Without an OR it holds every concept that is not negated.
    """
    if OR not in operators:
        positive = [concepts[0], *(c for c, operator in zip(concepts[1:], operators, strict=True) if operator == AND)]
        sources = [min(positive, key=lambda c: int(starts[c + 1] - starts[c]))]
    else:
        at = max((j + 1 for j, operator in enumerate(operators) if operator == AND), default=0)
        later = zip(concepts[at + 1 :], operators[at:], strict=True)
        sources = [concepts[at], *(c for c, operator in later if operator == OR)]
    return [c for c in sources if starts[c] < starts[c + 1]]


def _arrays(device: Device, atoms: Any, weights: Array, *formulas: NDArray[Any]) -> tuple[Array, ...]:
    """Return the arrays of the atoms, the weights, and formulas on the GPU, as the kernels take them."""
    return (
        device.contiguous(atoms.atom_starts, np.int64),
        device.contiguous(atoms.atom_concepts, np.uint16),
        device.contiguous(weights, np.int64),
        *map(device.upload, formulas),
    )
