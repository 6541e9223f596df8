"""Positions of activations that are to be left out, and annotations without the cells that they have a weight for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.errors import DTypeError, ShapeError
from ccx.kernels.atoms import Atoms
from ccx.kernels.conversion import as_array, describe, require_host
from ccx.kernels.positions import cells_of
from ccx.typing import BoolArray

_BATCH_LABELS = 1 << 22


def as_positions(positions: Any, n_samples: int, grid: tuple[int, int]) -> BoolArray:
    """Return positions to leave out as bool[N, h, w], a view: from [N, h, w], [h, w], [T], or, on a grid 1×T, [N, T].

    Raises `DTypeError` or `ShapeError` if they are of another kind, or of other samples.
    """
    array = as_array(positions, "exclude")
    require_host(array, "exclude", "positions to leave out")
    if array.dtype != np.bool_:
        remedy = "True leaves a position out; of an attention mask, where 1 keeps, write attention_mask == 0"
        raise DTypeError("exclude", wanted="bool", got=describe(array), remedy=remedy)
    are_tokens = grid[0] == 1
    wanted = f"bool[{n_samples}, h, w] or [h, w]"
    if are_tokens:
        wanted = f"bool[{n_samples}, {grid[1]}] or [{grid[1]}], one flag per token"
    flags = array
    if array.ndim == 1:
        flags = array[None, None]
    elif array.ndim == 2:
        flags = array[:, None] if are_tokens else array[None]
    if flags.ndim != 3 or flags.shape[0] not in (1, n_samples) or 0 in flags.shape:
        remedy = "give one flag for each position of the activations, as in activations[:, 0]"
        raise ShapeError("exclude", wanted=wanted, got=describe(array), remedy=remedy)
    return np.broadcast_to(flags, (n_samples, *flags.shape[1:]))


def batches_without(atoms: Atoms, positions: BoolArray) -> Iterator[tuple[npt.NDArray[np.uint16], BoolArray]]:
    """Yield the annotations as label maps int[n, L, P] and valid cells bool[n, P], a batch of samples at a time.

    Cells for which any of the positions bool[N, h, w] has a weight are not valid.
    """
    sizes = np.diff(atoms.atom_starts)
    n_layers = int(sizes.max(initial=0))
    ids = np.zeros((atoms.n_atoms + 1, n_layers), np.uint16)  # the last row is of cells that are not valid
    ids[:-1][np.arange(n_layers) < sizes[:, None]] = np.asarray(atoms.atom_concepts) + 1
    n_cells = atoms.shape[0] * atoms.shape[1]
    size = max(1, _BATCH_LABELS // (n_cells * max(1, n_layers)))
    counts = np.diff(atoms.sample_starts)
    for start in range(0, atoms.n_samples, size):
        stop = min(start + size, atoms.n_samples)
        local = atoms.cell_atoms[start:stop].astype(np.int64)
        known = local < counts[start:stop, None]
        entries = np.where(known, local + atoms.sample_starts[start:stop, None], 0)
        of_cells = np.where(known, np.append(atoms.sample_atoms, -1)[entries], -1)
        left_out = cells_of(positions[start:stop], atoms.shape).reshape(local.shape)
        yield np.moveaxis(ids[of_cells], 2, 1), known & ~left_out
