"""What must hold of atoms, for `Concepts.validate`."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from ccx.kernels.atoms import Atoms

_DTYPES = {
    "cell_atoms": ("uint16", "uint32"),
    "sample_starts": ("int64",),
    "sample_atoms": ("int32",),
    "sample_cells": ("int32",),
    "atom_starts": ("int64",),
    "atom_concepts": ("uint16",),
    "cells": ("int64",),
}


Invariants: TypeAlias = dict[str, Callable[[], bool]]


def bounds(atoms: Atoms) -> Invariants:
    """Return what kernels rely on to stay inside the arrays; quick enough to check whenever a file is loaded.

    The checks come in an order in which each may rely on those before it.
    """
    starts, sets = atoms.atom_starts, atoms.atom_concepts
    n_cells = math.prod(atoms.shape)

    def documented_dtypes() -> bool:
        return all(
            getattr(atoms, name).dtype.name in names and getattr(atoms, name).ndim == (2 if name == "cell_atoms" else 1)
            for name, names in _DTYPES.items()
        )

    def ascending_sets() -> bool:
        rises = sets[1:] > sets[:-1]
        between = starts[1:-1]  # two atoms
        rises[between[(between > 0) & (between < sets.size)] - 1] = True
        return bool(rises.all())

    return {
        "arrays of the documented dtypes and axes": documented_dtypes,
        f"a cell map of [N, {n_cells}]": lambda: atoms.n_samples > 0 and atoms.cell_atoms.shape[1] == n_cells,
        "one run of entries per sample, in order": lambda: (
            atoms.sample_atoms.size == atoms.sample_cells.size
            and _are_runs(atoms.sample_starts, atoms.n_samples, atoms.sample_atoms.size)
        ),
        "one run of concepts per atom, in order": lambda: _are_runs(starts, atoms.n_atoms, sets.size),
        f"concepts below {atoms.n_concepts}": lambda: _lie_within(sets, 0, atoms.n_concepts - 1),
        "concepts that ascend within each atom": ascending_sets,
        "entries of existing atoms": lambda: _lie_within(atoms.sample_atoms, 0, atoms.n_atoms - 1),
        f"entries of 1 to {n_cells} cells": lambda: _lie_within(atoms.sample_cells, 1, n_cells),
        "atoms of as many cells as there are": lambda: _lie_within(atoms.cells, 1, atoms.n_samples * n_cells),
        "cells of atoms that their sample has": lambda: bool(
            (atoms.cell_atoms.max(axis=1, initial=0) <= np.diff(atoms.sample_starts)).all()
        ),
    }


def _are_runs(starts: Any, n_runs: int, size: int) -> bool:
    """Tell whether run k of n covers ``starts[k]:starts[k + 1]`` of so many items; differences would wrap around."""
    return bool(
        starts.shape == (n_runs + 1,) and starts[0] == 0 and starts[-1] == size and (starts[1:] >= starts[:-1]).all()
    )


def _lie_within(numbers: Any, least: int, most: int) -> bool:
    return numbers.size == 0 or bool(numbers.min() >= least and numbers.max() <= most)


def invariants(atoms: Atoms) -> Invariants:
    """Return what must hold of atoms, in an order in which each check may rely on those before it."""
    starts, sets = atoms.atom_starts, atoms.atom_concepts

    def distinct_sets() -> bool:
        return len({sets[a:b].tobytes() for a, b in pairwise(starts.tolist())}) == atoms.n_atoms

    def distinct_entries() -> bool:
        samples = np.repeat(np.arange(atoms.n_samples), np.diff(atoms.sample_starts))
        return np.unique(samples * atoms.n_atoms + atoms.sample_atoms).size == samples.size

    def cells_add_up() -> bool:
        totals = np.zeros(atoms.n_atoms, np.int64)
        np.add.at(totals, atoms.sample_atoms, atoms.sample_cells)
        return bool((totals == atoms.cells).all())

    def cell_map_adds_up() -> bool:
        for n, (first, last) in enumerate(pairwise(atoms.sample_starts.tolist())):
            local = atoms.cell_atoms[n]
            void = last - first
            if local.max() > void or not _numbered_as_met(local[local < void], void):
                return False
            if (np.bincount(local, minlength=void + 1)[:void] != atoms.sample_cells[first:last]).any():
                return False
        return True

    return bounds(atoms) | {
        "entries of distinct atoms in each sample": distinct_entries,
        "atoms numbered in the order in which samples meet them": lambda: _numbered_as_met(
            atoms.sample_atoms, atoms.n_atoms
        ),
        "atoms of distinct concept sets": distinct_sets,
        "entries' cells that add up to the atoms'": cells_add_up,
        "a cell map that agrees with the entries": cell_map_adds_up,
    }


def _numbered_as_met(numbers: Any, n_numbers: int) -> bool:
    """Tell whether 0..n_numbers - 1 all occur, each first met after all smaller ones."""
    highest = np.maximum.accumulate(np.concatenate(([-1], numbers.astype(np.int64))))
    return bool(highest[-1] == n_numbers - 1 and (np.diff(highest) <= 1).all())
