"""Branch and bound over left-deep formulas of any length (docs/optimal.md), which is the host's work on every device.

Concepts are numbered as in `ccx.kernels.concept_pairs.Pairs`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.kernels import cpu
from ccx.kernels.atoms import Atoms
from ccx.kernels.concept_pairs import Pairs
from ccx.typing import IntArray


class Effort(NamedTuple):
    """How far bounds are refined. It decides how fast they are and how close, not whether they hold.

    With more than `few` items those are sifted first, by the largest overlaps of each with `partners` others and by up
    to `turns` that are tried as the best of a set. More than `many` are not paired: their table would take over 8 MB.
    The search of sets is refined for so many `steps`.
    """

    few: int = 64
    many: int = 1_024
    partners: int = 32
    turns: int = 24
    steps: int = 300_000


EFFORT = Effort()


class Space(NamedTuple):
    """Everything that bounds a formula's extensions in one plane; n concepts by rank, G atoms, S of their concepts.

    `starts`, `stops` int64[n] and `posted` int32[S] list each concept's atoms; ``atom_ranks[atom_starts[g]:]`` int32[S]
    the concepts of atom g, n for those that may not occur. `atom_values` int64[G]: q * hits - p * (cells - hits).
    `values`, `gains` int64[n, n] are those of `Pairs`. `partners` int32[n, k] are the concepts that overlap most with
    each, by gain plus loss; `masses` int64[n, k + 1] these sums, and the next one. `usable` bool[n] may occur.
    `main` is the concept that is treated apart, or -1; `in_main` uint8[G] are its atoms. `most_shared` int64[n] is the
    most gain that any other concept shares with each, `most_beside` the same for cells outside the main concept.
    """

    starts: IntArray
    stops: IntArray
    posted: npt.NDArray[np.int32]
    atom_starts: IntArray
    atom_ranks: npt.NDArray[np.int32]
    atom_values: IntArray
    values: IntArray
    gains: IntArray
    partners: npt.NDArray[np.int32]
    masses: IntArray
    usable: npt.NDArray[np.bool_]
    main: int
    in_main: npt.NDArray[np.uint8]
    most_shared: IntArray
    most_beside: IntArray
    effort: Effort


class Prefix(NamedTuple):
    """A formula that others begin with: concepts, by rank, operators between them, and what bounds its completions."""

    concepts: tuple[int, ...]
    operators: tuple[int, ...]
    bound: int


class Workspace(NamedTuple):
    """Working space of `expand`: uint8[G], all zeros, and int32[G]."""

    inside: npt.NDArray[np.uint8]
    listed: npt.NDArray[np.int32]


def workspace_for(atoms: Atoms) -> Workspace:
    """Return working space for one thread."""
    return Workspace(np.zeros(atoms.n_atoms, np.uint8), np.empty(atoms.n_atoms, np.int32))


def space_of(atoms: Atoms, counts: IntArray, pairs: Pairs, main: int, effort: Effort = EFFORT) -> Space:
    """Build the `Space` of a bitmap's histogram int64[G]; `main` is a rank, or -1."""
    n = pairs.order.size
    starts, posted = atoms.postings
    ranks = np.full(atoms.n_concepts, n, np.int32)
    ranks[pairs.order] = np.arange(n, dtype=np.int32)
    in_main = np.zeros(atoms.n_atoms, np.uint8)
    own = pairs.gains.diagonal()
    shared = pairs.gains.copy()
    np.fill_diagonal(shared, 0)
    most_shared = shared.max(axis=1)
    if main >= 0:
        concept = pairs.order[main]
        in_main[posted[starts[concept] : starts[concept + 1]]] = 1
        beside = own - pairs.gains[main]
        shared[:, main] = 0
        np.minimum(shared, beside, out=shared)
        np.minimum(shared, beside[:, None], out=shared)
    masses = 2 * pairs.gains - pairs.values
    np.fill_diagonal(masses, -1)
    k = min(effort.partners, n - 1)
    partners = np.argpartition(-masses, k, axis=1)[:, : k + 1]
    partners = np.take_along_axis(
        partners, np.argsort(-np.take_along_axis(masses, partners, 1), axis=1, kind="stable"), 1
    )
    return Space(
        starts[pairs.order],
        starts[pairs.order + 1],
        posted,
        atoms.atom_starts,
        ranks[atoms.atom_concepts],
        pairs.q * counts - pairs.p * (atoms.cells - counts),
        pairs.values,
        pairs.gains,
        partners[:, :k].astype(np.int32),
        np.maximum(np.take_along_axis(masses, partners, 1), 0),
        np.ones(n, np.bool_),
        main,
        in_main,
        most_shared,
        shared.max(axis=1),
        effort,
    )


def without_main(space: Space) -> Space:
    """Return the space of the formulas that do without the main concept."""
    usable = space.usable.copy()
    usable[space.main] = False
    return space._replace(usable=usable, main=-1)


def expand(
    space: Space, workspace: Workspace, prefix: Prefix, longer: int, least: int, most: IntArray, most_beside: IntArray
) -> tuple[IntArray, IntArray, int]:
    """Bound the completions of all extensions of a formula by `longer` >= 2 concepts.

    least: the least value that is wanted of formulas of that full length; most, most_beside int64[length]: the most
    value of formulas of up to so many concepts, the index; without the main concept.

    Returns
    -------
    children int64[k, 3] of concept, operator, bound
        Where more than two concepts follow: extensions of which a completion may reach `least`.
    found int64[f, 4] of concept, operator, concept, operator
        Where two follow: the completions that reach it.
    evaluations

    Formulas that differ in the order of operands in a run of one connective come once.

    """
    formula = np.array(prefix.concepts, np.int32), np.array(prefix.operators, np.uint8)
    try:
        children, found, evaluations = cpu.completions.expand(
            space, *formula, longer, prefix.bound, least, most, most_beside, *workspace
        )
    except SystemError as error:
        # Numba unpickles types while it reads the arguments, and reports an interrupt there as this error.
        cause: BaseException | None = error
        while isinstance(cause, SystemError):
            cause = cause.__cause__
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        raise
    return children, found, int(evaluations)


def best_pair_value(pairs: Pairs, usable: npt.NDArray[np.bool_]) -> int:
    """Return the most value of any formula of one or two concepts, at least 0."""
    values = pairs.values[np.ix_(usable, usable)]
    own = values.diagonal()
    best = max(0, int(own.max()))
    two = ~np.eye(own.size, dtype=np.bool_)
    for formulas in (own[:, None] + own - values, values, own[:, None] - values):
        best = max(best, int(formulas[two].max(initial=0)))
    return best
