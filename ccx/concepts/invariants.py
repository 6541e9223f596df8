"""What must hold of atoms, for `Concepts.validate`."""

from __future__ import annotations

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
    """Return what kernels rely on to stay inside the arrays; quick enough to check whenever a file is loaded."""
    starts, sets = atoms.atom_starts, atoms.atom_concepts
    n_cells = atoms.shape[0] * atoms.shape[1]

    def documented_dtypes() -> bool:
        return all(getattr(atoms, name).dtype.name in names for name, names in _DTYPES.items())

    return {
        "arrays of the documented dtypes": documented_dtypes,
        f"a cell map of [N, {n_cells}]": lambda: atoms.cell_atoms.ndim == 2 and atoms.cell_atoms.shape[1] == n_cells,
        "one run of entries a sample, in order": lambda: (
            atoms.sample_starts.shape == (atoms.n_samples + 1,)
            and atoms.sample_starts[0] == 0
            and bool((np.diff(atoms.sample_starts) >= 0).all())
            and atoms.sample_starts[-1] == atoms.sample_atoms.size == atoms.sample_cells.size
        ),
        "one run of concepts an atom, in order": lambda: (
            starts.shape == (atoms.n_atoms + 1,)
            and starts[0] == 0
            and bool((np.diff(starts) >= 0).all())
            and starts[-1] == sets.size
        ),
        f"concepts below {atoms.n_concepts}": lambda: sets.size == 0 or int(sets.max()) < atoms.n_concepts,
        "entries of existing atoms": lambda: (
            atoms.sample_atoms.size == 0
            or bool(atoms.sample_atoms.min() >= 0 and atoms.sample_atoms.max() < atoms.n_atoms)
        ),
        "cells of atoms that their sample has": lambda: bool(
            (atoms.cell_atoms.max(axis=1, initial=0) <= np.diff(atoms.sample_starts)).all()
        ),
    }


def invariants(atoms: Atoms) -> Invariants:
    """Return what must hold of atoms, in an order in which each check may rely on those before it."""
    starts, sets = atoms.atom_starts, atoms.atom_concepts

    def ascending_sets() -> bool:
        rises = np.diff(sets.astype(np.int64)) > 0
        rises[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < sets.size)] - 1] = True  # between two sets
        return bool(rises.all())

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
        "concepts that ascend within each atom": ascending_sets,
        "atoms of distinct concept sets": distinct_sets,
        "entries' cells that add up to the atoms'": cells_add_up,
        "a cell map that agrees with the entries": cell_map_adds_up,
    }


def _numbered_as_met(numbers: Any, n_numbers: int) -> bool:
    """Tell whether 0..n_numbers - 1 all occur, each first met after all smaller ones."""
    highest = np.maximum.accumulate(np.concatenate(([-1], numbers.astype(np.int64))))
    return bool(highest[-1] == n_numbers - 1 and (np.diff(highest) <= 1).all())
