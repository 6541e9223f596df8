"""What no formula exceeds whose length is not proven yet."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ccx.kernels import concept_pairs as kernels
from ccx.kernels.atoms import Atoms
from ccx.search.incumbents import Incumbents
from ccx.search.planes import Cover, Plane
from ccx.typing import IntArray


class Bounds:
    """Upper bounds of the lengths that are open."""

    def __init__(
        self, atoms: Atoms, counts: IntArray, usable: npt.NDArray[np.bool_], cover: Cover, best: Incumbents
    ) -> None:
        self._atoms, self._counts, self._usable = atoms, counts, usable
        self._cover, self._best = cover, best
        self._ranks: dict[int, Fraction | None] = {}
        self._gains: dict[tuple[int, int], list[int]] = {}

    def begin(self, lengths: Iterable[int]) -> None:
        """Bound lengths by the gains of single concepts alone."""
        for length in lengths:
            planes = self._cover.planes(self._best.threshold(length))
            if planes:
                self._ranks.setdefault(length, None)
                self.lower(length, {plane: self.gain_of_most(plane, length) for plane in planes})
            else:
                self.close(length)

    def lower(self, length: int, open_: dict[Plane, int]) -> None:
        """Note that what is open of a length has at most so much value in each of its planes."""
        threshold = self._best.threshold(length)
        ranks = [self._cover.most(plane, value, threshold) for plane, value in open_.items()]
        if ranks and None not in ranks:
            upper = max(one for one in ranks if one is not None) * self._best.objective.factor(length)
            before = self._ranks.get(length)
            self._ranks[length] = upper if before is None else min(before, upper)

    def close(self, length: int) -> None:
        """Note that no formula of a length is open."""
        self._ranks.pop(length, None)

    def gain_of_most(self, plane: Plane, length: int) -> int:
        """Return what formulas of a length gain at most: the sum of their concepts."""
        key = plane.q, plane.p
        if key not in self._gains:
            gains = kernels.gains_of(self._atoms, self._counts, *key)[1][self._usable]
            self._gains = {key: np.sort(gains)[::-1].tolist()}  # of the last plane: each has many lengths
        return sum(self._gains[key][:length])

    @property
    def upper_rank(self) -> Fraction | None:
        """What no rank (`Objective.rank`) of an open formula exceeds; None where nothing can be said."""
        ranks = self._ranks.values()
        return None if None in ranks else max((one for one in ranks if one is not None), default=Fraction(0))
