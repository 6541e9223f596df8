"""From the ids in label maps to those of concepts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.errors import InputError
from ccx.kernels.pictures import UNKNOWN, Ids, look_up
from ccx.store import PathLike
from ccx.store.files import store_error


class IdTable:
    """What the ids 0..65535 in label maps mean: a concept, none, or a cell that counts nowhere.

    Parameters
    ----------
    ids
        The id of each of C names; ascending.
    void, none
        Ids of cells that count nowhere, and of cells that carry no concept; None = 0, if it is free.

    """

    def __init__(self, ids: Sequence[int], void: int | Collection[int], none: int | Collection[int] | None) -> None:
        self._ids = tuple(ids)
        self._void = _checked("void", void)
        self._none = _checked("none", {0} - {*ids, *self._void} if none is None else none)
        for one, numbers in (("void", self._void), ("none", self._none)):
            if both := sorted({*numbers} & {*ids}):
                raise InputError(one, wanted="ids without a name", got=f"{both}", remedy="leave out the name or the id")
        if both := sorted({*self._void} & {*self._none}):
            raise InputError("none", wanted="ids that are not void", got=f"{both}", remedy="give them once")
        highest = max(*self._ids, *self._void, *self._none, 0)
        if highest >= UNKNOWN:
            remedy = "use ids of 16 bits"
            raise InputError("names", wanted=f"ids below {UNKNOWN}", got=str(highest), remedy=remedy)
        self._lookup = np.full(1 << 16, UNKNOWN, np.uint16)
        self._lookup[list(self._ids)] = np.arange(1, len(self._ids) + 1)
        self._lookup[list(self._none)] = 0
        self._lookup[list(self._void)] = 0
        self._counts = np.ones(1 << 16, np.uint16)
        self._counts[list(self._void)] = 0

    def concepts(
        self,
        ids: Ids,
        shape: tuple[int, int] | None,
        where: PathLike,
        out: npt.NDArray[np.uint16] | None = None,
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_] | None]:
        """Return concept ids uint16[H, W] and valid cells bool[H, W] or None, at the centres of cells.

        `out` uint16[H, W] is filled if given.

        Raises
        ------
        StoreError
            If an id has no name; `where` names the file.

        """
        found, is_known = look_up(ids, shape, self._lookup, out)
        if not is_known:
            unnamed = np.setdiff1d(ids.numbers(), [*self._ids, *self._none, *self._void])
            listed = ", ".join(map(str, unnamed[:5])) + (" ..." if unnamed.size > 5 else "")
            remedy = f"give them names, or say void={unnamed[0]} (counts nowhere) or none={unnamed[0]} (no concept)"
            raise store_error(where, f"holds ids without a name: {listed} ({len(self._ids)} names)", remedy)
        if not self._void:
            return found, None
        return found, look_up(ids, shape, self._counts)[0].astype(np.bool_)

    def concept(self, number: int) -> int:
        """Return the concept id of one id, `UNKNOWN` where it has no name."""
        return int(self._lookup[min(number, UNKNOWN)])

    def settings(self) -> list[list[int]]:
        """Return what the table was made from, as JSON."""
        return [list(self._ids), list(self._void), list(self._none)]


def _checked(argument: str, ids: int | Collection[int]) -> tuple[int, ...]:
    numbers: tuple[Any, ...] = (ids,) if isinstance(ids, int) else tuple(ids)
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        raise InputError(argument, wanted="ids of at least 0", got=f"{ids!r:.60}", remedy="write for instance 255")
    return tuple(sorted(set(numbers)))
