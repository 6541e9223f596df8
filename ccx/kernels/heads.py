"""What formulas of three concepts may be worth of which one, the head, is known (docs/optimal.md).

They are the host's work on every device. A formula holds each of its other two concepts, a and b, in one of eleven
ways, its *form*; what it adds up to takes, beside what each shares with the head, a single number: what a and b share
inside the head, or outside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms
from ccx.typing import BoolArray, Int32Array, IntArray


class Split(NamedTuple):
    """What each of C concepts adds up to inside a head and outside, in one plane.

    `head` is a concept, `own` the head's value, `table` int64[9, C] a row for each of the addends of forms
    (`ccx.kernels.cpu.heads`).
    """

    head: int
    own: int
    table: IntArray


def split_of(head: int, values: IntArray, gains: IntArray, shared_values: IntArray, shared_gains: IntArray) -> Split:
    """Build a `Split`: the concepts' values and gains int64[C], and what they share with the head."""
    value_out, gain_out = values - shared_values, gains - shared_gains
    rows = [
        *_addends(values, shared_values),
        shared_gains,
        shared_gains - shared_values,
        gain_out,
        gain_out - value_out,
    ]
    return Split(head, int(values[head]), np.stack(rows))


def good_pairs(
    head: int,
    singles: IntArray,
    shared: IntArray,
    usable: BoolArray,
    later: BoolArray,
    least: tuple[int, int, int],
) -> IntArray:
    """Return the formulas of a head and one other concept that reach a plane's least value.

    Arguments as for `counted` and `open_formulas`. Returns int64[m, 5] of head, concept, op, |F and B|, |F|.
    """
    found: IntArray = cpu.heads.good_pairs(head, singles, shared, usable, later, *least)
    return found


def open_formulas(split: Split, free: BoolArray, later: BoolArray, least: int) -> tuple[Int32Array, int]:
    """Return the formulas of the head and two `free` concepts that may reach `least`, and how many were bounded.

    int32[k, 3] of form, a, b. Of a formula's concepts that are not negated all but the head are among those `later`
    bool[C], so that it comes with one head alone. free: bool[C], without the head.
    """
    found, n_bounds = cpu.heads.open_formulas(split.table, split.own, free, later, least)
    return found, int(n_bounds)


def still_open(split: Split, formulas: Int32Array, least: int) -> BoolArray:
    """Return which formulas int32[k, 3] may also reach `least` in another plane, that of `split`."""
    form, a, b = formulas.T
    base, first, second, shared = cpu.heads.FORMS[form, :4].T
    table = split.table
    bound = base * split.own + table[first, a] + table[second, b] + np.minimum(table[shared, a], table[shared, b])
    open_: BoolArray = bound >= least
    return open_


def counted(  # noqa: PLR0913, PLR0917 - those of the kernel
    atoms: Atoms,
    counts: IntArray,
    head: int,
    formulas: Int32Array,
    singles: IntArray,
    shared: IntArray,
    wanted: Int32Array,
    rows: IntArray,
    least: tuple[int, int, int],
) -> IntArray:
    """Count formulas int32[n, 3] of form, a, b exactly, and return those that reach a plane's least value.

    counts: the bitmap's histogram int64[G]; singles int64[2, C]: |c| and |c and B|; shared int64[2, C]: the same of
    what each shares with the head, rows int64[2, k, C] with the `wanted` concepts int32[k], of which each formula
    holds one, as a or b; least: q, p and the least value. Returns int64[m, 7] of a, op, b, op, c, |F and B|, |F|.
    """
    sets = atoms.atom_starts, atoms.atom_concepts
    triples = cpu.heads.triple_counts(head, wanted, *atoms.postings, *sets, atoms.cells, counts)
    tables = np.stack([np.stack(_addends(one, both)) for one, both in zip(singles, shared, strict=True)])
    own = np.ascontiguousarray(singles[:, head])
    found: IntArray = cpu.heads.counted(formulas, head, wanted, triples, rows, tables, own, *least)
    return found


def _addends(values: IntArray, shared: IntArray) -> list[IntArray]:
    return [np.zeros_like(values), shared, -shared, values - shared, values]
