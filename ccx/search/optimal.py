"""The proven optimum over all left-deep formulas (docs/optimal.md)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ccx import stopping
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.formula import Operator
from ccx.kernels import optimal as kernels
from ccx.kernels.atoms import concept_counts, pair_counts, total_counts
from ccx.kernels.devices import MAIN_MEMORY, place_of, to_host
from ccx.kernels.formulas import Extensions
from ccx.search.beam import beam_search, found_of
from ccx.search.branching import Limit, Proof, prove_longer
from ccx.search.choosing import best_of, of_operators
from ccx.search.found import Found, Objective, SearchResult
from ccx.search.incumbents import Incumbents
from ccx.search.planes import Cover
from ccx.search.settings import SearchSettings

IntArray = npt.NDArray[np.int64]

PROVEN_LENGTH = 3  # so long formulas are always decided
MAX_CONCEPTS = 4_096
MAX_CONCEPTS_COUNTED = 200  # where no bound spares a formula: 34 million pairs and one more, about a minute
MAX_CONCEPTS_LONGER = 8  # the same for formulas of four and more
_ROUNDED_UP = 1 + 1e-14
_MANY = 20_000  # pairs, to count whose extensions takes longer than to bound them again
_GROUP = 256  # pairs whose extensions are counted at a time


def optimal_search(
    concepts: Concepts,
    counts: IntArray,
    settings: SearchSettings,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
) -> SearchResult:
    """Find the best formulas of all left-deep ones of distinct concepts, with proof.

    Parameters and raises as for `beam_search`; the result precedes every other formula in the tie order.

    The beam's answer is the first incumbent. Bounds from what each two concepts share leave a few pairs (a op b)
    of which an extension may still reach it; those extensions are counted exactly. Formulas of four concepts and more
    follow by branch and bound (`prove_longer`), to which alone the limits of `settings` apply: where one is reached,
    `optimal` is False and `upper_bound` is what is proven of all formulas.

    Raises
    ------
    InputError
        If `candidates` is given, or more concepts may occur than a proof can deal with.

    """
    check_provable(settings, concepts.n_concepts if allowed is None else int(allowed.sum()))
    limit = Limit(settings.evaluation_limit, settings.time_limit)
    atoms = concepts.atoms.sets_at(place_of(counts))
    starts, posted = concepts.atoms.postings
    objective = Objective.of(settings, int(to_host(total_counts(atoms, counts))), concepts.n_cells)
    usable = np.ones(concepts.n_concepts, np.bool_) if allowed is None else allowed
    start = beam_search(concepts, counts, settings, usable, threads=threads)
    best = Incumbents(start.found, objective, settings.top)
    cover = Cover(objective)
    visited, bounds = start.visited, 0
    hits, pairs, made_for = None, None, None
    meets = bool((to_host(concept_counts(atoms, counts))[usable] > 0).any())
    for length in range(2, min(settings.length, PROVEN_LENGTH) + 1) if meets else ():
        near = best.found[-1].intersection if best.found and length == PROVEN_LENGTH else None
        planes = cover.planes(best.threshold(length), near)
        while planes:
            stopping.check()
            plane = planes.pop()
            if pairs is None or (plane.q, plane.p) != made_for:
                made_for = plane.q, plane.p
                hits = pair_counts(atoms, counts, threads=threads) if hits is None else hits
                pairs = kernels.pairs_of(atoms, counts, atoms.pair_cells, hits, *made_for, usable, threads)
            threshold = best.threshold(length)
            least = cover.least(plane, threshold)
            if length == 2:
                rows = kernels.good_pairs(pairs, least)
                visited += len(rows)
                best.offer(_best_pairs(objective, rows, pairs, concepts.n_concepts, settings.top))
                continue
            candidates, n_bounds = kernels.promising_pairs(pairs, least)
            bounds += n_bounds
            if len(candidates) > _MANY and (tighter := cover.split(plane, threshold)):
                planes += tighter
                continue
            for head, group in _by_head(candidates, starts, pairs.order):
                stopping.check()
                if best.threshold(length) != threshold:
                    threshold = best.threshold(length)
                    least = cover.least(plane, threshold)
                concept = pairs.order[head]
                head_atoms = posted[starts[concept] : starts[concept + 1]]
                extended, n_counted = kernels.good_extensions(
                    atoms, head_atoms, counts, pairs, head, group, *made_for, least
                )
                visited += n_counted
                best.offer(_best_triples(objective, extended, pairs.order, concepts.n_concepts, settings.top))
    proof = Proof(0, True, None)
    limit.evaluations += bounds + visited
    if settings.length > PROVEN_LENGTH and meets:
        hits = to_host(pair_counts(atoms, counts, threads=threads) if hits is None else hits)
        pairs = None  # their room is needed
        here, on_host = concepts.atoms.sets_at(MAIN_MEMORY), to_host(counts)
        proof = prove_longer(here, on_host, hits, objective, best, settings.length, usable, limit, place_of(counts))
    return SearchResult(
        best.found,
        visited + proof.counted,
        start.expanded,
        evaluations=limit.evaluations + proof.counted,
        upper_bound=_upper_bound(objective, best.found, proof),
        optimal=proof.proven,
    )


def _upper_bound(objective: Objective, found: list[Found], proof: Proof) -> float | None:
    """Return what no penalised score exceeds, in floating point; None where nothing can be said."""
    score = objective.score(found[0]) if found else 0.0
    if proof.proven:
        return score
    if proof.upper_rank is None:
        return None
    bound: float = float(proof.upper_rank) ** (1 / objective.scoring.power)
    return max(score, bound * _ROUNDED_UP)


def check_provable(settings: SearchSettings, n_concepts: int) -> None:
    """Raise `InputError` where `optimal_search` could not prove what it is asked for."""
    if settings.candidates is not None:
        remedy = "leave it out, or restrict names"
        raise InputError("candidates", wanted="None for a proof", got=str(settings.candidates), remedy=remedy)
    if not settings.scoring.monotone and n_concepts > MAX_CONCEPTS_COUNTED and settings.length == PROVEN_LENGTH:
        wanted = f"at most {MAX_CONCEPTS_COUNTED} for a score that is not declared monotone"
        remedy = "declare it, restrict names or categories, or use length=2"
        raise InputError("concepts", wanted=wanted, got=str(n_concepts), remedy=remedy)
    if not settings.scoring.monotone and n_concepts > MAX_CONCEPTS_LONGER and settings.length > PROVEN_LENGTH:
        wanted = f"at most {MAX_CONCEPTS_LONGER} for a score that is not declared monotone and length > {PROVEN_LENGTH}"
        remedy = f"declare it, restrict names or categories, or use length={PROVEN_LENGTH}"
        raise InputError("concepts", wanted=wanted, got=str(n_concepts), remedy=remedy)
    if n_concepts > MAX_CONCEPTS:
        remedy = "restrict them with names or categories"
        raise InputError("concepts", wanted=f"at most {MAX_CONCEPTS} for a proof", got=str(n_concepts), remedy=remedy)


def _by_head(
    candidates: npt.NDArray[np.int32], starts: IntArray, order: npt.NDArray[np.int32]
) -> Iterable[tuple[int, npt.NDArray[np.int32]]]:
    """Group pairs by the one of their two concepts that fewer atoms hold: those atoms are visited once a group."""
    n_atoms = np.diff(starts)[order]
    first, second = candidates[:, 0], candidates[:, 2]
    heads = np.where(n_atoms[first] <= n_atoms[second], first, second)
    for head in np.unique(heads):
        group = candidates[heads == head]
        for start in range(0, len(group), _GROUP):
            yield int(head), group[start : start + _GROUP]


def _best_pairs(
    objective: Objective, rows: npt.NDArray[np.int32], pairs: kernels.Pairs, n_concepts: int, top: int
) -> list[Found]:
    """Choose the best of pairs (a op b), int32[k, 3], by rank."""
    a, operators, b = rows.T
    hits, cells = (
        np.choose(operators, of_operators(shared[a, a], shared[b, b], shared[a, b]).T)
        for shared in map(to_host, (pairs.hits, pairs.sizes))
    )
    no_operators = np.zeros((len(rows), 0), np.uint8)
    return _best(
        objective, pairs.order[a][:, None], no_operators, operators, pairs.order[b], hits, cells, n_concepts, top
    )


def _best_triples(
    objective: Objective, rows: IntArray, order: npt.NDArray[np.int32], n_concepts: int, top: int
) -> list[Found]:
    """Choose the best of extensions int64[k, 7] of a, op, b, op, c, |F and B|, |F|, concepts by rank."""
    a, first, b, second, c, hits, cells = rows.T
    pair = order[np.stack([a, b], axis=1)]
    pair[first != Operator.AND_NOT] = np.sort(pair[first != Operator.AND_NOT], axis=1)  # canonical
    return _best(objective, pair, first[:, None].astype(np.uint8), second, order[c], hits, cells, n_concepts, top)


def _best(
    objective: Objective,
    parents: npt.NDArray[np.int32],
    parent_operators: npt.NDArray[np.uint8],
    operators: IntArray,
    concepts: npt.NDArray[np.int32],
    hits: IntArray,
    cells: IntArray,
    n_concepts: int,
    top: int,
) -> list[Found]:
    met = np.flatnonzero(hits > 0)
    extended = Extensions(parents[met], parent_operators[met], hits[met], cells[met], 0)
    numbers = (np.arange(met.size) * n_concepts + concepts[met]) * len(Operator) + operators[met]
    chosen = best_of(objective, extended, numbers, hits[met], cells[met], n_concepts, top)
    return found_of(chosen, objective.bitmap_cells)
