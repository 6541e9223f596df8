"""The proven optimum of formulas of four concepts and more: best-first branch and bound, anytime (docs/optimal.md)."""

from __future__ import annotations

import heapq
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.formula import canonical_ids
from ccx.kernels import completions as kernels
from ccx.kernels.atoms import Atoms
from ccx.kernels.concept_pairs import Pairs, pairs_of
from ccx.kernels.formulas import formula_counts
from ccx.search.bounds import Bounds
from ccx.search.found import Found
from ccx.search.incumbents import Incumbents
from ccx.search.limits import Limit
from ccx.search.planes import Cover, Plane, Threshold
from ccx.search.shorter import SHORT, Shorter
from ccx.typing import IntArray

_MAX_OPEN = 1 << 24  # extensions that wait, about 0.4 GB; with more, the longest formulas are finished first
_SETTLED = 32  # formulas expanded without another improvement before planes are drawn anew
_MANY = 2_000  # formulas expanded before a plane that can be split is
_NOTHING = -(1 << 62)


class Longer:
    """The search of formulas of four concepts and more; `counted` of them reached a threshold's plane and were counted.

    What is left open at a limit is noted in `bounds`.
    """

    def __init__(
        self,
        atoms: Atoms,
        counts: IntArray,
        shorter: Shorter,
        cover: Cover,
        best: Incumbents,
        bounds: Bounds,
        usable: npt.NDArray[np.bool_],
        limit: Limit,
    ) -> None:
        self._atoms, self._counts, self._shorter = atoms, counts, shorter
        self._cover, self._best, self._bounds = cover, best, bounds
        self._usable, self._limit = usable, limit
        self._workspace = kernels.workspace_for(atoms)
        self._weights = np.stack([atoms.cells, counts])
        self._made: tuple[tuple[int, int, bytes], Pairs, kernels.Space] | None = None
        self.counted = 0

    def prove(self, length: int) -> bool:
        """Offer what precedes the best among the formulas of a length; return whether that came to an end.

        All shorter formulas have been offered before.
        """
        threshold = self._best.threshold(length)
        planes = self._planes(threshold)
        while planes:
            if self._limit.reached():
                self._leave(length, planes)
                return False
            plane = planes.pop()
            frontier = self._draw(plane, length)
            settled, improved, tighter = False, None, list[Plane]()
            while frontier.upper() >= (least := self._cover.least(plane, self._best.threshold(length))):
                settled = improved is not None and frontier.expanded - improved >= _SETTLED
                if settled or self._limit.reached():
                    break
                if frontier.expanded >= _MANY and (tighter := self._cover.split(plane, threshold)):
                    break
                concepts, operators = frontier.expand_next(least)
                if self._offer(concepts, operators):
                    improved = frontier.expanded
            else:
                self._leave(length, planes)
                continue
            # Noted before the plane is split: what its parts leave open is no more than what it did.
            self._leave(length, planes, {plane: min(frontier.upper(), self._bounds.gain_of_most(plane, length))})
            planes += tighter
            if self._limit.reached():
                return False
            if settled:
                threshold = self._best.threshold(length)
                planes = self._planes(threshold)
        return True

    def _leave(self, length: int, planes: list[Plane], begun: dict[Plane, int] | None = None) -> None:
        """Note what is open where a search may be stopped: planes, and those begun with the most value that is left."""
        if self._limit.is_given:
            open_ = {one: self._bounds.gain_of_most(one, length) for one in planes}
            self._bounds.lower(length, open_ | (begun or {}))

    def _planes(self, threshold: Threshold) -> list[Plane]:
        near = self._best.found[-1].intersection if self._best.found else None
        return self._cover.planes(threshold, near)

    def _draw(self, plane: Plane, length: int) -> _Frontier:
        """Return all formulas of a length that may enter, none expanded yet.

        First the most value of shorter formulas is found, each length with the help of the shorter ones.
        """
        atom_values = plane.q * self._counts - plane.p * (self._atoms.cells - self._counts)
        most = np.zeros(length, np.int64)
        known = self._values_of_parts(atom_values, length)
        for shorter in range(1, length):
            start = max(int(most[shorter - 1]), known.get(shorter, 0))
            if shorter <= SHORT:
                most[shorter] = self._shorter.most_value(plane, shorter, start)
            else:
                most[shorter] = self._most_value(self._frontier(plane, shorter, start + 1, most), start)
        return self._frontier(plane, length, self._cover.least(plane, self._best.threshold(length)), most)

    def _frontier(self, plane: Plane, length: int, least: int, most: IntArray) -> _Frontier:
        """Return all formulas of a length that may have the `least` value, none expanded yet."""
        # Without any one of its concepts a formula is shorter, and differs by no more than the gain or loss of that.
        worthwhile = least - int(most[length - 1])
        gains, losses = self._shorter.gains_of(plane)
        live = self._usable & ((gains >= worthwhile) | (losses >= worthwhile))
        live[np.argsort(np.where(self._usable, gains, -1), kind="stable")[-length:]] = True  # enough for a formula
        pairs, space = self._space(plane, live)
        beside = kernels.without_main(space)
        most_beside = np.zeros(length, np.int64)
        most_beside[1] = max(0, int(pairs.values.diagonal()[beside.usable].max()))
        most_beside[2] = kernels.best_pair_value(pairs, beside.usable)
        # Beside the main concept no more need be known than that too little is left.
        enough = least - 1 - int(np.delete(pairs.gains[space.main], space.main).max())
        for shorter in range(3, length):
            start = max(int(most_beside[shorter - 1]), enough)
            most_beside[shorter] = most[shorter]
            if shorter < length - 1 and start < most[shorter]:
                without = _Frontier(
                    beside, pairs.order, self._workspace, shorter, most_beside, most_beside, self._limit
                )
                most_beside[shorter] = self._most_value(without, start)
        return _Frontier(space, pairs.order, self._workspace, length, most, most_beside, self._limit)

    def _space(self, plane: Plane, live: npt.NDArray[np.bool_]) -> tuple[Pairs, kernels.Space]:
        """Return what each two of some concepts share, and what bounds formulas of them; the last ones are kept."""
        key = plane.q, plane.p, live.tobytes()
        if self._made is None or self._made[0] != key:
            self._made = None  # its room is needed
            pairs = pairs_of(self._atoms, self._counts, plane.q, plane.p, live)
            main = int(np.argmax(pairs.values.diagonal()))
            self._made = key, pairs, kernels.space_of(self._atoms, self._counts, pairs, main)
        return self._made[1:]

    def _most_value(self, frontier: _Frontier, known: int) -> int:
        """Return the most value of formulas of the length of a frontier, or `known` if that is more."""
        while frontier.upper() > known and not self._limit.reached():
            concepts, operators = frontier.expand_next(known + 1)
            if len(concepts):
                known = max(known, int(self._values(frontier.atom_values, concepts, operators).max()))
        return max(known, frontier.upper())

    def _values(
        self, atom_values: IntArray, concepts: npt.NDArray[np.int32], operators: npt.NDArray[np.uint8]
    ) -> IntArray:
        values: IntArray = formula_counts(self._atoms, atom_values[None], concepts, operators, threads=1)[0]
        return values

    def _values_of_parts(self, atom_values: IntArray, length: int) -> dict[int, int]:
        """Return values of shorter formulas: what is left of the best one without one concept, then another ..."""
        if not self._best.found:
            return {}
        part = self._best.found[0].concepts, self._best.found[0].operators
        values = {}
        for n in range(len(part[0]) - 1, 2, -1):
            parts = [_without(*part, j) for j in range(n + 1)]
            concepts, operators = (np.array(arrays) for arrays in zip(*parts, strict=True))
            of_parts = self._values(atom_values, concepts.astype(np.int32), operators.astype(np.uint8))
            part = parts[int(np.argmax(of_parts))]
            if n < length:
                values[n] = int(of_parts.max())
        return values

    def _offer(self, concepts: npt.NDArray[np.int32], operators: npt.NDArray[np.uint8]) -> bool:
        """Count formulas and let in what is better; return whether that changed what others must reach."""
        if not len(concepts):
            return False
        self.counted += len(concepts)
        self._limit.evaluations += len(concepts)
        objective = self._best.objective
        before = self._best.threshold(concepts.shape[1])
        sizes, hits = formula_counts(self._atoms, self._weights, concepts, operators, threads=1)
        self._best.see(hits[hits > 0], sizes[hits > 0])
        cells = objective.bitmap_cells
        found = []
        for ids, ops, size, hit in zip(
            concepts.tolist(), operators.tolist(), sizes.tolist(), hits.tolist(), strict=True
        ):
            canonical = canonical_ids(ids, ops)
            one = Found(canonical[0], tuple(map(int, canonical[1])), hit, size, cells + size - hit)
            if hit and objective.rank(one) > 0 and objective.admits(hit, size):
                found.append(one)
        self._best.offer(found)
        return self._best.threshold(concepts.shape[1]) != before


def _without(concepts: tuple[int, ...], operators: tuple[int, ...], j: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a formula without its concept number j and the operator before it, or behind the first."""
    at = max(j - 1, 0)
    return concepts[:j] + concepts[j + 1 :], operators[:at] + operators[at + 1 :]


class _Frontier:
    """All formulas of one length in one plane: those expanded, and the bounds of all others."""

    def __init__(
        self,
        space: kernels.Space,
        order: npt.NDArray[np.int32],
        workspace: kernels.Workspace,
        length: int,
        most: IntArray,
        most_beside: IntArray,
        limit: Limit,
    ) -> None:
        self._space, self._order, self._workspace = space, order, workspace
        self._length, self._limit = length, limit
        self._most, self._most_beside = most, most_beside
        self._heaps: list[list[_Siblings]] = [[] for _ in range(length)]
        self._numbers = count()
        self._n_open = 0
        self.expanded = 0
        singles = np.flatnonzero(space.usable)
        bounds = space.gains.diagonal()[singles] + most[length - 1]
        self._push((), (), np.stack([singles, np.zeros_like(singles), bounds], axis=1))

    @property
    def atom_values(self) -> IntArray:
        """int64[G]: what atoms are worth."""
        return self._space.atom_values

    def upper(self) -> int:
        """Return the most value of any completion of what is not expanded; no value is as low if nothing is."""
        return max((-heap[0].key for heap in self._heaps if heap), default=_NOTHING)

    def expand_next(self, least: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Expand the formula of the greatest bound; return formulas of the full length that reach `least`.

        int32[f, length] of concepts, and uint8[f, length - 1] of operators.
        """
        heap = self._next_heap()
        siblings = heap[0]
        prefix = siblings.prefix()
        longer = self._length - len(prefix.concepts)
        children, found, evaluations = kernels.expand(
            self._space, self._workspace, prefix, longer, least, self._most, self._most_beside
        )
        self._n_open -= 1
        if siblings.next + 1 < len(siblings.children):
            heapq.heapreplace(heap, siblings.after())
        else:
            heapq.heappop(heap)
        concepts, operators, _ = prefix
        self.expanded += 1
        self._limit.evaluations += evaluations
        self._push(concepts, operators, children)
        n_found = len(found)
        ranks = np.hstack([np.tile(np.array(concepts, np.int32), (n_found, 1)), found[:, 0::2].astype(np.int32)])
        return (
            self._order[ranks],
            np.hstack([np.tile(np.array(operators, np.uint8), (n_found, 1)), found[:, 1::2].astype(np.uint8)]),
        )

    def _push(self, concepts: tuple[int, ...], operators: tuple[int, ...], children: IntArray) -> None:
        if len(children):
            ordered = children[np.argsort(-children[:, 2], kind="stable")]
            siblings = _Siblings(-int(ordered[0, 2]), next(self._numbers), concepts, operators, ordered, 0)
            heapq.heappush(self._heaps[len(concepts)], siblings)
            self._n_open += len(children)

    def _next_heap(self) -> list[_Siblings]:
        filled = [heap for heap in self._heaps if heap]
        return filled[-1] if self._n_open > _MAX_OPEN else min(filled, key=lambda heap: heap[0][:2])


class _Siblings(NamedTuple):
    """Extensions of one formula that wait, int64[k, 3] of concept, operator, bound, the greatest bound first.

    Compared by `key`, the negative of the bound of the `next`, and by a number of their own.
    """

    key: int
    number: int
    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    children: IntArray
    next: int

    def prefix(self) -> kernels.Prefix:
        """Return the formula that the first of them makes."""
        concept, operator, bound = self.children[self.next].tolist()
        operators = (*self.operators, operator) if self.concepts else ()
        return kernels.Prefix((*self.concepts, concept), operators, bound)

    def after(self) -> _Siblings:
        """Return what is left without the first."""
        return self._replace(key=-int(self.children[self.next + 1, 2]), next=self.next + 1)
