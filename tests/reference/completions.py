"""What the bounds of branch and bound must not fall below: the most value of a formula's completions, by trying all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from tests.reference.formulas import satisfied


def completions(
    member: NDArray[np.bool_],
    values: NDArray[np.int64],
    concepts: Sequence[int],
    operators: Sequence[int],
    longer: int,
) -> dict[tuple[tuple[int, ...], tuple[int, ...]], int]:
    """Return the value of every formula that continues one by `longer` more concepts; member bool[C, G], int64[G]."""
    free = [c for c in range(len(member)) if c not in concepts]
    found = {}
    for more in permutations(free, longer):
        for further in product(range(3), repeat=longer):
            parts = (*concepts, *more), (*operators, *further)
            found[parts] = int(values[satisfied(member, *parts)].sum())
    return found
