"""What tests of the searches share: histograms of bitmaps, and orders of formulas."""

from __future__ import annotations

from ccx.kernels import bitmap_histogram, pack
from ccx.kernels import completions as kernels


def expanded(space, atoms, concepts, operators, *rest):
    return kernels.expand(space, kernels.workspace_for(atoms), kernels.Prefix(concepts, operators, 1 << 50), *rest)


def is_sorted(ids, operators, begun):
    """Whether each run of a connective is in order from operand `begun` on, as `expand` wants it."""
    for j in range(begun, len(ids)):
        before = operators[j - 2] if j > 1 else None
        if operators[j - 1] == 0:
            good = ids[j] > ids[j - 1] or before not in (None, 0)
        elif operators[j - 1] == 1:
            good = before != 2 and (ids[j] > ids[j - 1] or before not in (None, 1))
        else:
            good = ids[j] > ids[j - 1] or before != 2
        if not good:
            return False
    return True


def histogram(bitmap, concepts):
    (counts,) = bitmap_histogram(pack(bitmap.reshape(1, 1, -1)), concepts.atoms)
    return counts
