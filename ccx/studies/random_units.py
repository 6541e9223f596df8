"""Random choices of units, the same for the same seed."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np

from ccx.errors import InputError


def random_units(units: Iterable[int] | None, n_all: int, n_units: int, rng: np.random.Generator) -> list[int]:
    """Return given units, or `n_units` random ones of `n_all` (0 = all), ascending.

    Raises `InputError` if a unit does not exist, or `n_units` is negative.
    """
    if units is not None:
        chosen = sorted({operator.index(unit) for unit in units})
        wrong = [unit for unit in chosen if not 0 <= unit < n_all]
        if wrong or not chosen:
            wanted = f"integers from 0 to {n_all - 1}"
            raise InputError("units", wanted=wanted, got=repr(wrong or chosen), remedy="give indices of units")
        return chosen
    if n_units < 0:
        raise InputError("n_units", wanted="an integer >= 0", got=repr(n_units), remedy="0 = all units")
    if n_units == 0 or n_units >= n_all:
        return list(range(n_all))
    return sorted(int(unit) for unit in rng.choice(n_all, n_units, replace=False))
