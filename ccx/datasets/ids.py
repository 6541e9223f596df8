"""From the ids in label maps to those of concepts."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.checks import integer, items
from ccx.datasets.label_maps import sampled
from ccx.errors import InputError, StoreError
from ccx.kernels.png import UNKNOWN, Ids, look_up
from ccx.store import PathLike
from ccx.store.files import store_error

_N_IDS = 1 << 16
_MOST = 1 << 20  # ids in a list


class IdTable:
    """What the ids in label maps mean: a concept, none, or a cell that counts nowhere.

    `ids`, ascending, are those of C names, within 0..65535. `void` are ids of cells that count nowhere, `none` those of
    cells that carry no concept (None = 0, if it is free): any whole numbers, such as -1.
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
        if wrong := [number for number in self._ids if not 0 <= number < _N_IDS]:
            remedy = "use ids of 16 bits"
            raise InputError("names", wanted=f"ids from 0 to {_N_IDS - 1}", got=str(wrong[-1]), remedy=remedy)
        self._lookup = np.full(_N_IDS, UNKNOWN, np.uint16)
        self._lookup[list(self._ids)] = np.arange(1, len(self._ids) + 1)
        self._counts = np.ones(_N_IDS, np.uint16)
        for number in (*self._none, *self._void):
            if 0 <= number < _N_IDS:
                self._lookup[number] = 0
                self._counts[number] = number not in self._void

    def concepts(
        self,
        ids: Ids | npt.NDArray[Any],
        shape: tuple[int, int] | None,
        where: PathLike,
        out: npt.NDArray[np.uint16] | None = None,
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_] | None]:
        """Return concept ids uint16[H, W] and valid cells bool[H, W] or None, at the centres of cells.

        `ids` are those of a PNG, or whole numbers [h, w]. `out` uint16[H, W] is filled if given. Raises `StoreError` if
        an id has no name; `where` names the file.
        """
        if not isinstance(ids, Ids):
            return self._of_numbers(ids, shape, where, out)
        found, is_known = look_up(ids, shape, self._lookup, out)
        if not is_known:
            raise self._unnamed(ids.numbers(), where)
        if not self._void:
            return found, None
        return found, look_up(ids, shape, self._counts)[0].astype(np.bool_)

    def _of_numbers(
        self, ids: npt.NDArray[Any], shape: tuple[int, int] | None, where: PathLike, out: npt.NDArray[np.uint16] | None
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_] | None]:
        numbers = sampled(ids, shape)
        is_small = (numbers >= 0) & (numbers < _N_IDS)
        at = np.where(is_small, numbers, 0).astype(np.intp)
        found = self._lookup[at]
        valid = self._counts[at].astype(np.bool_)
        if not is_small.all():
            outside, at = np.unique(numbers[~is_small], return_inverse=True)
            meant = {*self._void, *self._none}
            found[~is_small] = np.array([0 if n in meant else UNKNOWN for n in outside.tolist()], np.uint16)[at]
            valid[~is_small] = np.array([n not in self._void for n in outside.tolist()])[at]
        if (found == UNKNOWN).any():
            raise self._unnamed(ids, where)
        if out is not None:
            out[:] = found
        return found, valid if self._void else None

    def _unnamed(self, numbers: npt.NDArray[Any], where: PathLike) -> StoreError:
        known = {*self._ids, *self._none, *self._void}
        unnamed = [number for number in np.unique(numbers).tolist() if number not in known]
        listed = ", ".join(map(str, unnamed[:5])) + (" ..." if len(unnamed) > 5 else "")
        remedy = f"give them names, or say void={unnamed[0]} (counts nowhere) or none={unnamed[0]} (no concept)"
        return store_error(where, f"holds ids without a name: {listed} ({len(self._ids)} names)", remedy)

    def concept(self, number: int) -> int:
        """Return the concept id of one id, `UNKNOWN` where it has no name."""
        return int(self._lookup[number]) if 0 <= number < _N_IDS else UNKNOWN

    def settings(self) -> list[list[int]]:
        """Return what the table was made from, as JSON."""
        return [list(self._ids), list(self._void), list(self._none)]


def _checked(argument: str, ids: int | Collection[int]) -> tuple[int, ...]:
    try:
        numbers: tuple[Any, ...] = (operator.index(ids),)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        numbers = tuple(islice(items(argument, ids, "whole numbers", "write for instance 255"), _MOST + 1))
    if len(numbers) > _MOST or any(isinstance(number, (bool, np.bool_)) for number in (ids, *numbers)):
        raise InputError(argument, wanted="whole numbers", got=f"{ids!r:.60}", remedy="write for instance 255")
    return tuple(sorted({integer(argument, one, -(1 << 63), 1 << 63, "write for instance 255") for one in numbers}))
