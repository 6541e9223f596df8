"""Small problems in a plane: the atoms of some concepts, a bitmap, and what a cell inside and outside is worth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from ccx.kernels import AtomBuilder, Atoms
from ccx.typing import BoolArray, IntArray
from tests.reference import pack
from tests.reference.optimal_oracle import problems


class Case(NamedTuple):
    """Atoms and a bitmap's histogram; member bool[G, C]; what each atom is worth, int64[G], q and p by cell."""

    atoms: Atoms
    counts: IntArray
    member: BoolArray
    usable: BoolArray
    q: int
    p: int

    @property
    def values(self) -> IntArray:
        """int64[G]."""
        values: IntArray = self.q * self.counts - self.p * (self.atoms.cells - self.counts)
        return values

    @property
    def gains(self) -> IntArray:
        """int64[G]: the positive part of values."""
        return np.maximum(self.values, 0)


def case_of(seed: int, n_concepts: int, n_cells: int) -> Case:
    """Return one random problem, and the numbers of a plane."""
    rng = np.random.default_rng(seed)
    masks, bitmap = problems(rng, n_concepts, n_cells)
    builder = AtomBuilder((1, n_cells), n_concepts)
    builder.add_packed_masks(pack(masks)[None])
    atoms = builder.finish()
    of_cell = atoms.sample_atoms[atoms.cell_atoms[0]]
    member = np.zeros((atoms.n_atoms, n_concepts), np.bool_)
    member[of_cell] = masks.T
    counts = np.bincount(of_cell[bitmap], minlength=atoms.n_atoms).astype(np.int64)
    q = int(rng.choice([1, 7, 10**12]))
    usable = rng.random(n_concepts) < rng.choice([0.5, 1.0])
    return Case(atoms, counts, member, usable, q, int(rng.integers(0, q + 1)))


CASES = st.builds(case_of, st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 5, 9]), st.sampled_from([1, 20, 65]))
