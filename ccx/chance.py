"""Whether a score beats chance: what is scored when samples of the bitmap are exchanged (docs/chance.md).

The null hypothesis is that, within each group, any sample might as well carry any row of the bitmap. Then the bitmap
and its permutations are equally likely, and the rank of its score among theirs gives a p-value that holds for any
search, any score and any dependence between the cells of a sample (Fisher 1935; Phipson and Smyth 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx import jobs
from ccx.errors import InputError
from ccx.evidence import Chance
from ccx.jobs import parallel
from ccx.kernels.atoms import Atoms, total_counts
from ccx.kernels.permutations import histogram_bytes, permuted_histogram
from ccx.kernels.places import to_host
from ccx.kernels.rows import formula_rows
from ccx.memory import require_bytes
from ccx.search import Found, Objective, SearchResult
from ccx.typing import Int32Array, IntArray, PackedRows

Search = Callable[[IntArray, Callable[[], PackedRows]], SearchResult]
"""Searches a bitmap, given int64[G] and what makes its packed rows."""
ObjectiveOf = Callable[[int], Objective]
"""Returns the objective for bitmaps with that number of cells."""

_BATCH_BYTES = 1 << 29


class Scored(NamedTuple):
    """A score, and the exact rank by which it is compared."""

    rank: Fraction
    score: float


NOTHING = Scored(Fraction(0), 0.0)


def group_codes(groups: Any, n_samples: int) -> IntArray:
    """Return a number for each sample's group, from 0 as they occur: N hashable labels, or None -> int64[N]."""
    if groups is None:
        return np.zeros(n_samples, np.int64)
    remedy = "give one label per sample, such as the number of its video or patient"
    n_given = len(groups) if isinstance(groups, range) else getattr(groups, "size", 0)
    if isinstance(n_given, int) and n_given > n_samples:  # before it is written out, which no memory might hold
        raise InputError("groups", wanted=f"{n_samples} labels", got=str(n_given), remedy=remedy)
    try:
        labels: list[Hashable] = np.asarray(groups).tolist() if hasattr(groups, "__array__") else list(groups)
        code_of = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    except TypeError as error:
        wanted, got = f"{n_samples} hashable labels", f"{groups!r:.60}"
        raise InputError("groups", wanted=wanted, got=got, remedy=remedy) from error
    if any(isinstance(label, float) and math.isnan(label) for label in labels):
        raise InputError(
            "groups", wanted="labels", got="NaN", remedy="give a sample of unknown group a label of its own"
        )
    if len(labels) != n_samples:
        raise InputError("groups", wanted=f"{n_samples} labels", got=str(len(labels)), remedy=remedy)
    return np.array([code_of[label] for label in labels], np.int64)


def permutations(codes: IntArray, n: int, seed: int) -> Int32Array:
    """Draw permutations that exchange samples of equal codes only: int64[N] -> int32[n, N], uniform and independent.

    Permutation j depends on `seed` and j alone, so that the first 100 of 1,000 are those of 100. NumPy guarantees the
    stream of numbers for all versions. Raises `InputError` if no two samples have the same code, so that there is
    nothing to exchange; `MemoryBudgetError` if they would not fit into memory.
    """
    if np.unique(codes).size == codes.size:
        wanted, got = "two samples of one group at least, to exchange", f"{codes.size} samples, each a group of its own"
        raise InputError("permutations", wanted=wanted, got=got, remedy="leave them out, or give larger groups")
    require_bytes("permutations", 4 * n * codes.size, "use fewer permutations")
    orders = np.empty((n, codes.size), np.int32)
    slots = np.argsort(codes, kind="stable")
    for j, order in enumerate(orders):
        keys = np.random.PCG64([seed, j]).random_raw(codes.size)
        order[slots] = np.lexsort((keys, codes))
    return orders


def search_chance(
    found: Found,
    rows: PackedRows,
    atoms: Atoms,
    orders: Int32Array,
    search: Search,
    objective_of: ObjectiveOf,
    bitmap_cells: int,
    threads: int,
) -> Chance:
    """Set the score of a formula that was found beside the best ones that the search finds on permuted bitmaps.

    Parameters
    ----------
    found
        The formula, with its counts for the bitmap.
    rows
        uint64[N, n_words]: the bitmap.
    atoms
        Of the concepts, where the bitmap lies; there histograms are counted, and searches count.
    orders
        int32[r, N]: permutation j is the bitmap ``rows[orders[j]]``; its cells that are not valid count nowhere.
    search
        The search that found it.
    objective_of
        What orders formulas.
    bitmap_cells
        |B|.
    threads
        Searches at a time; the result does not depend on it.

    """
    nothing, n_bits = np.empty(0, np.uint8), atoms.shape[0] * atoms.shape[1]

    def best_scores(first: int, batch: IntArray) -> list[Scored]:
        totals = to_host(total_counts(atoms, batch)).tolist()

        def best(j: int) -> Scored:
            if not totals[j]:
                return NOTHING
            order = orders[None, first + j].astype(np.int64)
            of_search = search(batch[j], lambda: formula_rows(rows, order, nothing, n_bits, threads=1)).found
            return _scored(of_search[0], objective_of(totals[j])) if of_search else NOTHING

        parts = parallel(lambda a, b: [best(j) for j in range(a, b)], len(batch), threads)
        return [one for part in parts for one in part]

    batches = _histograms(rows, atoms, orders, threads)
    null = [one for first, batch in batches for one in best_scores(first, batch)]
    return chance(_scored(found, objective_of(bitmap_cells)), null)


def formula_chance(
    formula: Found,
    inside: npt.NDArray[np.bool_],
    rows: PackedRows,
    atoms: Atoms,
    orders: Int32Array,
    objective_of: ObjectiveOf,
    bitmap_cells: int,
    threads: int,
) -> Chance:
    """Set the score of one formula beside its scores for the permuted bitmaps: no search is repeated.

    `formula` has its counts for the bitmap `rows`, `inside` bool[G] marks the atoms that satisfy it; the others as for
    `search_chance`.
    """
    null: list[Scored] = []
    for _, batch in _histograms(rows, atoms, orders, threads):
        for counts in to_host(batch):
            hits, n_cells = int(counts[inside].sum()), int(counts.sum())
            permuted = formula._replace(intersection=hits, union=n_cells + formula.size - hits)
            null.append(_scored(permuted, objective_of(n_cells)))
    return chance(_scored(formula, objective_of(bitmap_cells)), null)


def chance(observed: Scored, null: list[Scored]) -> Chance:
    """Compare a score with those of r >= 1 permutations: ranks exactly, mean and deviation in floating point."""
    scores = [one.score for one in null]
    mean = math.fsum(scores) / len(scores)
    z = None
    if min(scores) < max(scores):
        deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
        z = (observed.score - mean) / deviation if deviation else None
    reached = sum(one.rank >= observed.rank for one in null)
    return Chance(len(null), mean, max(scores), z, (1 + reached) / (1 + len(null)))


def working_bytes(atoms: Atoms, n: int) -> int:
    """Return how many bytes the histograms of a batch of `n` permutations take at most."""
    return histogram_bytes(atoms, min(n, _batch_size(atoms)))


def _batch_size(atoms: Atoms) -> int:
    return max(1, _BATCH_BYTES // max(1, histogram_bytes(atoms, 1)))


def _histograms(rows: PackedRows, atoms: Atoms, orders: Int32Array, threads: int) -> Iterator[tuple[int, IntArray]]:
    """Yield (first permutation, int64[n, G]) in batches of about one size."""
    n_batches = -(-len(orders) // _batch_size(atoms))
    start = 0
    for part in np.array_split(orders, n_batches):
        jobs.check_stopped()
        yield start, permuted_histogram(rows, part, atoms, threads=threads)
        start += len(part)


def _scored(one: Found, objective: Objective) -> Scored:
    return Scored(objective.rank(one), objective.score(one))
