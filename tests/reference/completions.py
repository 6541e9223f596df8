"""What the bounds of branch and bound must not fall below: the most value of a formula's completions, by trying all."""

from __future__ import annotations

from collections.abc import Sequence

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
    level = {(tuple(concepts), tuple(operators)): satisfied(member, concepts, operators)}
    for _ in range(longer):
        level = {
            ((*ids, c), (*ops, op)): (holds | member[c], holds & member[c], holds & ~member[c])[op]
            for (ids, ops), holds in level.items()
            for c in range(len(member))
            if c not in ids
            for op in range(3)
        }
    return dict(zip(level, (np.array(list(level.values())) @ values).tolist(), strict=True)) if level else {}
