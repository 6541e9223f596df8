"""The proven optimum of formulas of four concepts and more: best-first branch and bound, anytime (docs/optimal.md)."""

from __future__ import annotations

import heapq
import time
from fractions import Fraction
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx import stopping
from ccx.formula import canonical_ids
from ccx.kernels import branching as kernels
from ccx.kernels.atoms import Atoms, concept_counts
from ccx.kernels.devices import MAIN_MEMORY, Place
from ccx.kernels.formulas import formula_counts
from ccx.kernels.optimal import pairs_of
from ccx.search.found import Found, Objective
from ccx.search.incumbents import Incumbents
from ccx.search.planes import Cover, Plane, Threshold

IntArray = npt.NDArray[np.int64]

_MAX_OPEN = 1 << 24  # extensions that wait, about 0.4 GB; with more, the longest formulas are finished first
_SETTLED = 32  # formulas expanded without another improvement before planes are drawn anew
_MANY = 2_000  # formulas expanded before a plane that can be split is
_BISECTIONS = 80  # down to neighbouring floats, so that the result does not depend on where they start
_NOTHING = -(1 << 62)
_NO_SCORE = 1 << 20  # above any score that a bound is sought for


class Limit:
    """How much a proof may take: evaluations, seconds from now on, or neither."""

    def __init__(self, evaluations: int | None, seconds: float | None) -> None:
        self.evaluations = 0
        self._most = evaluations
        self._end = None if seconds is None else time.monotonic() + seconds

    def reached(self) -> bool:
        """Return whether it is time to stop; raise `Stopped` if nobody waits for the proof."""
        stopping.check()
        late = self._end is not None and time.monotonic() >= self._end
        return late or (self._most is not None and self.evaluations >= self._most)


class Proof(NamedTuple):
    """What `prove_longer` found out.

    `counted` formulas reached a threshold's plane and were counted. Where not all are `proven`, none of the others has
    a rank (`Objective.rank`) above `upper_rank`; None where nothing can be said.
    """

    counted: int
    proven: bool
    upper_rank: Fraction | None


def prove_longer(
    atoms: Atoms,
    counts: IntArray,
    hits: IntArray,
    objective: Objective,
    best: Incumbents,
    longest: int,
    usable: npt.NDArray[np.bool_],
    limit: Limit,
    place: Place = MAIN_MEMORY,
) -> Proof:
    """Offer to `best` what precedes it among the formulas of 4 to `longest` concepts, until nothing does or at a limit.

    All shorter formulas have been offered before. The lengths are searched one after the other. Atoms, counts
    and `hits` (the `pair_counts` of these) lie in main memory; formulas are bounded at `place`, with the same results
    wherever that is.
    """
    search = _Search(atoms, counts, hits, objective, best, usable, limit, place)
    lengths = range(4, min(longest, int(usable.sum())) + 1)
    for length in lengths:
        search.begin(length)
    proven = all(search.prove(length) for length in lengths)
    unproven = search.upper_ranks.values()
    upper = None if None in unproven else max((one for one in unproven if one is not None), default=None)
    return Proof(search.counted, proven, upper)


class _Search:
    """The search of one bitmap; `upper_ranks` holds, for each length that is not proven, what no formula exceeds."""

    def __init__(
        self,
        atoms: Atoms,
        counts: IntArray,
        hits: IntArray,
        objective: Objective,
        best: Incumbents,
        usable: npt.NDArray[np.bool_],
        limit: Limit,
        place: Place,
    ) -> None:
        self._atoms, self._counts, self._objective, self._best = atoms, counts, objective, best
        self._usable, self._limit, self._place = usable, limit, place
        self._cover = Cover(objective)
        self._hits = hits
        self._room = kernels.room_for(atoms)
        self._weights = np.stack([atoms.cells, counts])
        self.upper_ranks: dict[int, Fraction | None] = {}
        self.counted = 0

    def begin(self, length: int) -> None:
        """Bound a length by the gains of single concepts alone."""
        planes = self._cover.planes(self._best.threshold(length))
        if planes:
            self.upper_ranks[length] = None
            self._lower(length, {plane: self._gain_of_most(plane, length) for plane in planes})

    def prove(self, length: int) -> bool:
        """Search all formulas of a length; return whether that came to an end."""
        threshold = self._best.threshold(length)
        planes = self._planes(threshold)
        while planes:
            plane = planes.pop()
            frontier, order = self._draw(plane, length)
            settled, improved, tighter = False, None, list[Plane]()
            while frontier.upper() >= (least := self._cover.least(plane, self._best.threshold(length))):
                settled = improved is not None and frontier.expanded - improved >= _SETTLED
                if settled or self._limit.reached():
                    break
                if frontier.expanded >= _MANY and (tighter := self._cover.split(plane, threshold)):
                    break
                concepts, operators = frontier.expand_next(least)
                if self._offer(order[concepts], operators):
                    improved = frontier.expanded
            else:
                self._lower(length, {one: self._gain_of_most(one, length) for one in planes})
                continue
            # Noted before the plane is split: what its parts leave open is no more than what it did.
            open_ = {one: self._gain_of_most(one, length) for one in planes}
            self._lower(length, {**open_, plane: min(frontier.upper(), self._gain_of_most(plane, length))})
            planes += tighter
            if self._limit.reached():
                return False
            if settled:
                threshold = self._best.threshold(length)
                planes = self._planes(threshold)
        self.upper_ranks.pop(length, None)
        return True

    def _planes(self, threshold: Threshold) -> list[Plane]:
        near = self._best.found[-1].intersection if self._best.found else None
        return self._cover.planes(threshold, near)

    def _draw(self, plane: Plane, length: int) -> tuple[_Frontier, npt.NDArray[np.int32]]:
        """Return all formulas of a length, none expanded yet, and the concepts by rank.

        First the most value of shorter formulas is found, each length with the help of the shorter ones.
        """
        pairs = pairs_of(
            self._atoms, self._counts, self._atoms.pair_cells, self._hits, plane.q, plane.p, self._usable, 1
        )
        main = int(np.argmax(pairs.values.diagonal()))
        space = kernels.space_of(self._atoms, self._counts, pairs, plane.q, plane.p, main)
        beside = kernels.without_main(space)
        most, most_beside = np.zeros(length, np.int64), np.zeros(length, np.int64)
        for one, of in ((most, space), (most_beside, beside)):
            one[1] = max(0, int(pairs.values.diagonal()[of.usable].max()))
            one[2] = kernels.best_pair_value(pairs, of.usable)
        least = self._cover.least(plane, self._best.threshold(length))
        # Beside the main concept no more need be known than that too little is left.
        enough = least - 1 - int(np.delete(pairs.gains[main], main).max())
        known = self._values_of_parts(space, length)
        for shorter in range(3, length):
            start = max(int(most[shorter - 1]), known.get(shorter, 0))
            most[shorter] = self._most_value(space, shorter, start, most, most_beside, pairs.order)
            start = max(int(most_beside[shorter - 1]), enough)
            most_beside[shorter] = most[shorter]
            if shorter < length - 1 and start < most[shorter]:
                most_beside[shorter] = self._most_value(beside, shorter, start, most_beside, most_beside, pairs.order)
        return _Frontier(space, self._place, self._room, length, most, most_beside, self._limit), pairs.order

    def _most_value(
        self,
        space: kernels.Space,
        length: int,
        known: int,
        most: IntArray,
        most_beside: IntArray,
        order: npt.NDArray[np.int32],
    ) -> int:
        """Return the most value of formulas of up to `length` concepts, or `known` if that is more."""
        frontier = _Frontier(space, self._place, self._room, length, most, most_beside, self._limit)
        while frontier.upper() > known and not self._limit.reached():
            concepts, operators = frontier.expand_next(known + 1)
            if len(concepts):
                known = int(self._values(space, order[concepts], operators).max())
        return max(known, frontier.upper())

    def _values(
        self, space: kernels.Space, concepts: npt.NDArray[np.int32], operators: npt.NDArray[np.uint8]
    ) -> IntArray:
        values: IntArray = formula_counts(self._atoms, space.atom_values[None], concepts, operators, threads=1)[0]
        return values

    def _values_of_parts(self, space: kernels.Space, length: int) -> dict[int, int]:
        """Return values of shorter formulas: what is left of the best one without one concept, then another ..."""
        if not self._best.found:
            return {}
        part = self._best.found[0].concepts, self._best.found[0].operators
        values = {}
        for n in range(len(part[0]) - 1, 2, -1):
            parts = [_without(*part, j) for j in range(n + 1)]
            concepts, operators = (np.array(arrays) for arrays in zip(*parts, strict=True))
            of_parts = self._values(space, concepts.astype(np.int32), operators.astype(np.uint8))
            part = parts[int(np.argmax(of_parts))]
            if n < length:
                values[n] = int(of_parts.max())
        return values

    def _offer(self, concepts: npt.NDArray[np.int32], operators: npt.NDArray[np.uint8]) -> bool:
        """Count formulas and let in what is better; return whether that changed what others must reach."""
        if not len(concepts):
            return False
        self.counted += len(concepts)
        before = self._best.threshold(concepts.shape[1])
        sizes, hits = formula_counts(self._atoms, self._weights, concepts, operators, threads=1)
        cells = self._objective.bitmap_cells
        found = []
        for ids, ops, size, hit in zip(
            concepts.tolist(), operators.tolist(), sizes.tolist(), hits.tolist(), strict=True
        ):
            canonical = canonical_ids(ids, ops)
            one = Found(canonical[0], tuple(map(int, canonical[1])), hit, size, cells + size - hit)
            if hit and self._objective.rank(one) > 0:
                found.append(one)
        self._best.offer(found)
        return self._best.threshold(concepts.shape[1]) != before

    def _gain_of_most(self, plane: Plane, length: int) -> int:
        """Return what formulas of a length gain at most: the sum of their concepts."""
        values = plane.q * self._counts - plane.p * (self._atoms.cells - self._counts)
        gains = concept_counts(self._atoms, np.maximum(values, 0))[self._usable]
        return int(np.sort(gains)[-length:].sum())

    def _lower(self, length: int, open_: dict[Plane, int]) -> None:
        """Note that what is open of a length has at most so much value in each of its planes."""
        ranks = [self._upper_rank(length, plane, value) for plane, value in open_.items()]
        if ranks and None not in ranks:
            upper = max(one for one in ranks if one is not None) * self._objective.factor(length)
            before = self.upper_ranks[length]
            self.upper_ranks[length] = upper if before is None else min(before, upper)

    def _upper_rank(self, length: int, plane: Plane, value: int) -> Fraction | None:
        """Return a rank, without penalty, that no formula of at most that value exceeds; None if there is none."""

        def is_beyond(rank: Fraction) -> bool:
            above = Threshold(rank, strict=True)
            return not self._cover.planes(above) or self._cover.least(plane, above) > value

        low = self._best.threshold(length).rank
        if is_beyond(low):
            return low
        high = max(Fraction(1), 2 * low)
        while not is_beyond(high):
            if high > _NO_SCORE:
                return None
            high *= 2
        for _ in range(_BISECTIONS):
            middle = Fraction(float(low + high) / 2)
            if not low < middle < high:
                break
            low, high = (low, middle) if is_beyond(middle) else (middle, high)
        return high


def _without(concepts: tuple[int, ...], operators: tuple[int, ...], j: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a formula without its concept number j and the operator before it, or behind the first."""
    at = max(j - 1, 0)
    return concepts[:j] + concepts[j + 1 :], operators[:at] + operators[at + 1 :]


class _Frontier:
    """All formulas of one length in one plane: those expanded, and the bounds of all others."""

    def __init__(
        self,
        space: kernels.Space,
        place: Place,
        room: kernels.Room,
        length: int,
        most: IntArray,
        most_beside: IntArray,
        limit: Limit,
    ) -> None:
        self._space, self._room, self._length, self._limit = space.at(place), room, length, limit
        self._at_a_time = kernels.at_a_time(self._space)
        self._ahead: dict[kernels.Begun, tuple[IntArray, IntArray, int]] = {}
        self._least = _NOTHING  # that those were expanded for
        self._most, self._most_beside = most, most_beside
        self._heaps: list[list[_Siblings]] = [[] for _ in range(length)]
        self._numbers = count()
        self._n_open = 0
        self.expanded = 0
        singles = np.flatnonzero(space.usable)
        bounds = space.gains.diagonal()[singles] + most[length - 1]
        self._push((), (), np.stack([singles, np.zeros_like(singles), bounds], axis=1))

    def upper(self) -> int:
        """Return the most value of any completion of what is not expanded; no value is as low if nothing is."""
        return max((-heap[0].key for heap in self._heaps if heap), default=_NOTHING)

    def expand_next(self, least: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Expand the formula of the greatest bound; return formulas of the full length that reach `least`.

        int32[f, length] of concepts, by rank, and uint8[f, length - 1] of operators.
        """
        heap = self._next_heap()
        siblings = heap[0]
        begun = siblings.begun(siblings.next)
        children, found, evaluations = self._expand(heap, begun, least)
        self._n_open -= 1
        if siblings.next + 1 < len(siblings.children):
            heapq.heapreplace(heap, siblings.after())
        else:
            heapq.heappop(heap)
        concepts, operators, _ = begun
        self.expanded += 1
        self._limit.evaluations += evaluations
        self._push(concepts, operators, children)
        n_found = len(found)
        return (
            np.hstack([np.tile(np.array(concepts, np.int32), (n_found, 1)), found[:, 0::2].astype(np.int32)]),
            np.hstack([np.tile(np.array(operators, np.uint8), (n_found, 1)), found[:, 1::2].astype(np.uint8)]),
        )

    def _expand(self, heap: list[_Siblings], begun: kernels.Begun, least: int) -> tuple[IntArray, IntArray, int]:
        """Expand a formula, and where that pays others of its length which are likely to follow."""
        if least != self._least:
            self._ahead.clear()
            self._least = least
        if begun not in self._ahead:
            batch = [begun, *self._likely(heap, begun, least)]
            longer = self._length - len(begun.concepts)
            results = kernels.expand(self._space, self._room, batch, longer, least, self._most, self._most_beside)
            self._ahead.update(zip(batch, results, strict=True))
        return self._ahead.pop(begun)

    def _likely(self, heap: list[_Siblings], begun: kernels.Begun, least: int) -> list[kernels.Begun]:
        """Return those of the greatest bounds that are not expanded yet, besides `begun`: it takes what is at hand."""
        n = self._at_a_time - 1
        waiting = (
            siblings.begun(i)
            for siblings in heapq.nsmallest(n, heap)
            for i in range(siblings.next, min(siblings.next + n + 1, len(siblings.children)))
        )
        fresh = (one for one in waiting if one.bound >= least and one != begun and one not in self._ahead)
        return heapq.nlargest(n, fresh, key=lambda one: one.bound)

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

    def begun(self, i: int) -> kernels.Begun:
        """Return the formula that extension number i makes."""
        concept, operator, bound = self.children[i].tolist()
        operators = (*self.operators, operator) if self.concepts else ()
        return kernels.Begun((*self.concepts, concept), operators, bound)

    def after(self) -> _Siblings:
        """Return what is left without the first."""
        return self._replace(key=-int(self.children[self.next + 1, 2]), next=self.next + 1)
