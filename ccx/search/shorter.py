"""The proven optimum of formulas of two and three concepts, from those that can be their heads (docs/optimal.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.formula import Operator
from ccx.kernels import concept_pairs, heads
from ccx.kernels.atoms import DENSE_PAIRS, pair_counts
from ccx.kernels.formulas import Extensions, conjunction_counts
from ccx.search.beam import JointCounts, found_of
from ccx.search.choosing import best_of
from ccx.search.incumbents import Incumbents
from ccx.search.limits import Limit
from ccx.search.planes import Cover, Plane
from ccx.typing import BoolArray, Int32Array, IntArray

SHORT = 3  # so long formulas are decided by what others share with one of their concepts
_MANY = 20_000  # formulas, to count which takes longer than to bound them again in tighter planes
_FEW = 2_000  # formulas, below which a second condition spares less than it costs
_ROWS = 32  # heads, beyond which what each two concepts share is counted at once
_GROUP = 256  # concepts whose triples with a head are counted at a time


class Shorter:
    """The search of formulas of two and three concepts; `counted` is how many were counted exactly."""

    def __init__(
        self, concepts: Concepts, joint: JointCounts, usable: BoolArray, cover: Cover, best: Incumbents, limit: Limit
    ) -> None:
        self._atoms, self._counts, self._joint = concepts.atoms, joint.counts, joint
        self._usable, self._cover, self._best, self._limit = usable, cover, best, limit
        self._singles = np.stack([concepts.sizes, joint.intersections])
        self._least = cache(cover.least)
        self._gains: dict[Plane, _Gains] = {}
        self.counted = 0

    def prove(self, length: int) -> bool:
        """Offer what precedes the best among the formulas of a length; return whether that came to an end.

        All shorter formulas have been offered before.
        """
        planes: list[Plane] | None = self._planes(length)
        while planes:
            if self._limit.reached():
                return False
            planes = self._search(planes.pop(), length, planes)
        return planes is not None

    def most_value(self, plane: Plane, length: int, known: int) -> int:
        """Return the most value in a plane of formulas of a length up to three, or `known` if that is more.

        At a limit, what none exceeds.
        """
        if length == 1:
            return max(known, int(self._values(plane, self._singles)[self._usable].max()))
        for head, later, most in self._heads(plane, length, lambda: known + 1):  # noqa: B023 - the latest is meant
            if self._limit.reached():
                return max(known, most)
            if length == 2:
                *_, hits, cells = self._pairs(plane, known + 1, head, later).T
                known = max(known, int(self._values(plane, (cells, hits)).max(initial=known)))
                continue
            formulas = self._open(plane, known + 1, head, later)
            for group, row_of in self._groups(formulas):
                if self._limit.reached():
                    return max(known, most)
                found = self._counted(plane, known + 1, head, group, row_of)
                known = max(known, int(self._values(plane, found.T[[6, 5]]).max(initial=known)))
        return known

    def _search(self, plane: Plane, length: int, others: list[Plane]) -> list[Plane] | None:
        """Search a plane -> what is left then: the other planes, or those that were drawn anew; None at a limit."""
        threshold = self._best.threshold(length)
        n_open = 0
        found: list[IntArray] = []  # pairs that are not offered yet
        for head, later, _ in self._heads(plane, length, lambda: self._least(plane, self._best.threshold(length))):
            if (now := self._best.threshold(length)) != threshold:
                threshold = now
                if plane.of_condition and plane not in (redrawn := self._planes(length)):
                    self._offer_pairs(found)
                    return redrawn
            if self._limit.reached():
                self._offer_pairs(found)
                return None
            least = self._least(plane, threshold)
            if length == 2:
                found.append(self._pairs(plane, least, head, later))
                if sum(map(len, found)) > _FEW:
                    self._offer_pairs(found)
                continue
            formulas = self._admitted(plane, self._open(plane, least, head, later), head)
            n_open += len(formulas)
            if n_open > _MANY and (tighter := self._cover.split(plane, threshold)):
                return others + tighter
            for group, row_of in self._groups(formulas):
                if self._limit.reached():
                    return None
                least = self._least(plane, self._best.threshold(length))
                self._offer_triples(self._counted(plane, least, head, group, row_of))
        self._offer_pairs(found)
        return others

    def _heads(self, plane: Plane, length: int, least: Callable[[], int]) -> Iterator[tuple[int, BoolArray, int]]:
        """Yield each concept that can be the head of a formula of the `least` value.

        Beside it which others can be positive, and what no formula exceeds that has this head or a later one.
        """
        gains, values = self._gains_of(plane).of_concepts, self._values(plane, self._singles)
        chosen = np.flatnonzero(self._usable)
        order = chosen[np.argsort(-gains[chosen], kind="stable")]
        # All else that is not negated gains no more: either all of it is added to the head, or one is less.
        gained = np.concatenate([gains[order], np.zeros(length, np.int64)])
        others = [gained[k : k + order.size] for k in range(1, length)]
        most = sum(others, gains[order])
        reached = np.maximum(most - gains[order] + values[order], most - others[-1])
        if (reached >= least()).sum() > max(_ROWS, order.size // 16) and self._usable.size <= DENSE_PAIRS:
            self._joint.prepare_singles()
            if length == SHORT and (known := self._gains_of(plane)).rows is None:
                self._gains[plane] = known._replace(rows=pair_counts(self._atoms, known.of_atoms, threads=1))
        later = self._usable.copy()
        for head, bound, own in zip(order.tolist(), most.tolist(), reached.tolist(), strict=True):
            later[head] = False
            if bound < least():
                return
            if own >= least():
                yield head, later, bound

    def _pairs(self, plane: Plane, least: int, head: int, later: BoolArray) -> IntArray:
        """Return the formulas of a head and another concept that reach the plane (`heads.good_pairs`)."""
        self._limit.evaluations += 3 * self._usable.size
        reached = plane.q, plane.p, least
        return heads.good_pairs(head, self._singles, self._shared(head), self._usable, later, reached)

    def _offer_pairs(self, found: list[IntArray]) -> None:
        """Offer what `_pairs` found, and empty the list."""
        if found:
            heads_, concepts, operators, hits, cells = np.concatenate(found).T
            no_operators = np.zeros((concepts.size, 0), np.uint8)
            self._offer(heads_[:, None].astype(np.int32), no_operators, operators, concepts, hits, cells)
            found.clear()

    def _open(self, plane: Plane, least: int, head: int, later: BoolArray) -> Int32Array:
        """Return the formulas of a head and two other concepts that may reach the plane."""
        free = self._usable.copy()
        free[head] = False
        found, n_bounds = heads.open_formulas(self._split(plane, head), free, later, least)
        self._limit.evaluations += n_bounds
        return found

    def _admitted(self, plane: Plane, formulas: Int32Array, head: int) -> Int32Array:
        """Drop formulas that cannot have the least IoU, where there are many."""
        condition = self._cover.condition
        if condition is None or plane.of_condition or len(formulas) <= _FEW:
            return formulas
        least = self._least(condition, self._best.threshold(3))
        return formulas[heads.still_open(self._split(condition, head), formulas, least)]

    @staticmethod
    def _groups(formulas: Int32Array) -> Iterator[tuple[Int32Array, Int32Array]]:
        """Yield formulas with a few concepts, of which each holds one, as a or b: the one that occurs more often."""
        if not len(formulas):
            return
        _, a, b = formulas.T
        times = np.bincount(formulas[:, 1:].ravel())
        row_of = np.where(times[a] >= times[b], a, b)
        distinct = np.unique(row_of)
        for start in range(0, distinct.size, _GROUP):
            wanted = distinct[start : start + _GROUP]
            yield formulas[np.isin(row_of, wanted)], wanted

    def _counted(self, plane: Plane, least: int, head: int, formulas: Int32Array, wanted: Int32Array) -> IntArray:
        """Count formulas of a head and two other concepts, and return those that reach the plane (`heads.counted`)."""
        self._limit.evaluations += len(formulas)
        rows = np.stack(self._joint.of_singles(wanted))
        reached = plane.q, plane.p, least
        return heads.counted(
            self._atoms, self._counts, head, formulas, self._singles, self._shared(head), wanted, rows, reached
        )

    def _offer_triples(self, found: IntArray) -> None:
        a, first, b, second, c, hits, cells = found.T
        pair = np.stack([a, b], axis=1).astype(np.int32)
        commutes = first != Operator.AND_NOT
        pair[commutes] = np.sort(pair[commutes], axis=1)  # canonical
        self._offer(pair, first[:, None].astype(np.uint8), second, c, hits, cells)

    def _offer(
        self,
        parents: Int32Array,
        parent_operators: npt.NDArray[np.uint8],
        operators: IntArray,
        concepts: IntArray,
        hits: IntArray,
        cells: IntArray,
    ) -> None:
        best, n_concepts = self._best, self._usable.size
        if hits.size == 0:
            return
        self.counted += hits.size
        met = np.flatnonzero(hits > 0)
        best.see(hits[met], cells[met])
        met = met[best.objective.admits(hits[met], cells[met])]
        if met.size == 0:
            return
        extended = Extensions(parents[met], parent_operators[met], hits[met], cells[met], 0)
        numbers = (np.arange(met.size) * n_concepts + concepts[met]) * len(Operator) + operators[met]
        chosen = best_of(best.objective, extended, numbers, hits[met], cells[met], n_concepts, best.top)
        best.offer(found_of(chosen, best.objective.bitmap_cells))

    def _shared(self, head: int) -> IntArray:
        """Return what each concept shares with one, int64[2, C]: cells, and those in the bitmap."""
        return np.concatenate(self._joint.of_singles(np.array([head])))

    def gains_of(self, plane: Plane) -> tuple[IntArray, IntArray]:
        """Return the gain and the loss of each concept in a plane: int64[C] each."""
        gains = self._gains_of(plane).of_concepts
        return gains, gains - self._values(plane, self._singles)

    def _split(self, plane: Plane, head: int) -> heads.Split:
        gains = self._gains_of(plane)
        if gains.rows is None:
            one, no_operators = np.array([[head]], np.int32), np.zeros((1, 0), np.uint8)
            shared = conjunction_counts(self._atoms, gains.of_atoms[None], one, no_operators, threads=1)[0, 0]
        else:
            shared = gains.rows[head]
        values, shared_values = (self._values(plane, counts) for counts in (self._singles, self._shared(head)))
        return heads.split_of(head, values, gains.of_concepts, shared_values, shared)

    @staticmethod
    def _values(plane: Plane, counts: IntArray | tuple[IntArray, IntArray]) -> IntArray:
        """Return the values of sets of cells, given |F| and |F and B|: int64[2, ...]."""
        cells, hits = counts
        values: IntArray = (plane.q + plane.p) * hits - plane.p * cells
        return values

    def _gains_of(self, plane: Plane) -> _Gains:
        if plane not in self._gains:
            kept = {one: gains for one, gains in self._gains.items() if one == self._cover.condition}
            self._gains = kept | {plane: _Gains(*concept_pairs.gains_of(self._atoms, self._counts, plane.q, plane.p))}
        return self._gains[plane]

    def _planes(self, length: int) -> list[Plane]:
        near = self._best.found[-1].intersection if self._best.found and length > 2 else None
        return self._cover.planes(self._best.threshold(length), near)


class _Gains(NamedTuple):
    """The gains of atoms and of concepts in a plane, int64[G] and int64[C], and of each two where many are needed."""

    of_atoms: IntArray
    of_concepts: IntArray
    rows: IntArray | None = None
