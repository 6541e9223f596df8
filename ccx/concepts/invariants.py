"""What must hold of atoms, for `Concepts.validate`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ccx.kernels.atoms import Atoms


def invariants(atoms: Atoms) -> dict[str, Callable[[], bool]]:
    """Return what must hold of atoms, in an order in which each check may rely on those before it."""
    starts, sets = atoms.atom_starts, atoms.atom_concepts
    n_local = np.diff(atoms.sample_starts)

    def ascending_sets() -> bool:
        rises = np.diff(sets.astype(np.int64)) > 0
        rises[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < sets.size)] - 1] = True  # between two sets
        return bool(rises.all())

    def distinct_sets() -> bool:
        return len({sets[a:b].tobytes() for a, b in pairwise(starts.tolist())}) == atoms.n_atoms

    def cells_add_up() -> bool:
        totals = np.zeros(atoms.n_atoms, np.int64)
        np.add.at(totals, atoms.sample_atoms, atoms.sample_cells)
        return bool((totals == atoms.cells).all())

    def cell_map_adds_up() -> bool:
        for n in range(atoms.n_samples):
            found = np.bincount(atoms.cell_atoms[n], minlength=n_local[n] + 1)
            first = atoms.sample_starts[n]
            if found.size != n_local[n] + 1 or (found[:-1] != atoms.sample_cells[first : first + n_local[n]]).any():
                return False
        return True

    n_cells = atoms.shape[0] * atoms.shape[1]
    return {
        f"a cell map of [N, {n_cells}]": lambda: atoms.cell_atoms.ndim == 2 and atoms.cell_atoms.shape[1] == n_cells,
        "one run of entries a sample, in order": lambda: (
            atoms.sample_starts.shape == (atoms.n_samples + 1,)
            and atoms.sample_starts[0] == 0
            and bool((n_local >= 0).all())
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
        "concepts that ascend within each atom": ascending_sets,
        "atoms of distinct concept sets": distinct_sets,
        "entries' cells that add up to the atoms'": cells_add_up,
        "a cell map that agrees with the entries": cell_map_adds_up,
    }
