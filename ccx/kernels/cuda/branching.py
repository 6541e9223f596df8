"""Bounds of formulas and their extensions on the GPU; `ccx.kernels.branching` documents them.

`branching.cuh` and `sets.cuh` compute. What a space holds lies on the GPU; formulas are copied over, and the bounds of
their extensions back, 24 bytes for each formula and concept. How many items there are to pair, and how many completions
reach the goal, decides how much memory the next kernels take, and is copied back in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccx.kernels.cuda.device import Array, Device, device_of, int64s, launch
from ccx.kernels.cuda.tables import listed

IntArray = NDArray[np.int64]

AT_A_TIME = 64  # formulas that are bounded together: a warp each at the least
_NEVER = -(1 << 62)
_LARGEST_SHARE = 4  # tables take a quarter of the free memory, as other workers take some too


class _Batch(NamedTuple):
    """Formulas on the GPU, and what `branching.cuh` found of each."""

    n: int
    n_formulas: int
    concepts: Array
    operators: Array
    inside: Array
    totals: Array
    sums: Array


def expand(
    space: Any,
    concepts: NDArray[np.int32],
    operators: NDArray[np.uint8],
    m: int,
    limits: IntArray,
    least: int,
    most: IntArray,
    most_beside: IntArray,
) -> list[tuple[IntArray, IntArray, int]]:
    """Serve `ccx.kernels.branching.expand`: concepts int32[B, n], operators uint8[B, n - 1], limits int64[B]."""
    device = device_of(space.values)
    batch = _begun(device, space, concepts, operators)
    n_formulas, n = concepts.shape
    n_concepts = space.usable.shape[0]
    worthwhile = least - int(most[n + m - 1])
    known = (device.upload(most), device.upload(most_beside), space.most_shared, space.most_beside)
    best = _best_by_items(device, space, batch, m, least, worthwhile)
    best_ands = device.empty((n_formulas, 2), np.int64)
    evaluations = device.zeros((n_formulas,), np.int64)
    bounds = device.empty((n_formulas, n_concepts, 3), np.int64)
    scope, sizes = _scope(space, batch), (n_formulas, n, n_concepts)
    warps = 32 * n_formulas
    launch(device, "branching", "bound_ands", warps, (*scope, *known, best_ands, *int64s(*sizes, space.main, m - 1)))
    args: tuple[Any, ...] = (*scope, *known, best_ands, best, evaluations, *int64s(*sizes, space.main, m - 1, least))
    launch(device, "branching", "raise_for_ands", warps * n_concepts, args)
    ends = (best, batch.operators, device.upload(limits), bounds, evaluations)
    args = (*scope, *known, *ends, *int64s(*sizes, space.main, m, least, worthwhile))
    launch(device, "branching", "bound_extensions", n_formulas * n_concepts, args)
    extended, n_evaluated = device.download(bounds), device.download(evaluations)
    rows = np.argwhere(extended != _NEVER)
    starts = np.searchsorted(rows[:, 0], np.arange(n_formulas + 1))
    nothing = np.empty((0, 4), np.int64)
    if m > 2:
        children = np.column_stack([rows[:, 1:], extended[tuple(rows.T)]])
        return [(children[starts[f] : starts[f + 1]], nothing, int(n_evaluated[f])) for f in range(n_formulas)]
    found = _completions(device, space, batch, rows.astype(np.int32), least)
    completions = np.column_stack([rows[found[:, 0], 1:], found[:, 1:]])
    of_formula = np.searchsorted(found[:, 0], starts)
    n_evaluated += 3 * n_concepts * np.diff(starts)
    return [
        (nothing[:, :3], completions[of_formula[f] : of_formula[f + 1]], int(n_evaluated[f])) for f in range(n_formulas)
    ]


def _begun(device: Device, space: Any, concepts: NDArray[np.int32], operators: NDArray[np.uint8]) -> _Batch:
    """Mark the atoms of each formula, and add up what it shares with each concept."""
    n_formulas, n = concepts.shape
    n_atoms, n_concepts = space.atom_values.shape[0], space.usable.shape[0]
    batch = _Batch(
        n,
        n_formulas,
        device.upload(concepts),
        device.upload(operators),
        device.empty((n_formulas, n_atoms), np.uint8),
        device.zeros((n_formulas, 3), np.int64),
        device.zeros((n_formulas, 3, n_concepts + 1), np.int64),
    )
    sizes = int64s(n_formulas, n, n_atoms, n_concepts)
    args = (space.atom_starts, space.atom_ranks, space.atom_values, space.in_main, *batch[2:], *sizes)
    launch(device, "branching", "begin_formulas", n_formulas * n_atoms, args)
    return batch


def _scope(space: Any, batch: _Batch) -> tuple[Array, ...]:
    return space.values, space.gains, space.usable, batch.totals, batch.sums, batch.concepts


def _best_by_items(device: Device, space: Any, batch: _Batch, m: int, least: int, worthwhile: int) -> Array:
    """Return int64[B, 2 C], the most of completions by operations without an AND, for each that is among them."""
    n_formulas, n_concepts = batch.n_formulas, space.usable.shape[0]
    effort = space.effort
    table = (n_formulas, 2 * n_concepts)
    scope, sizes = _scope(space, batch), (n_formulas, batch.n, n_concepts)
    bounds = device.empty((n_formulas,), np.int64)
    items, n_items = device.empty(table, np.int32), device.empty((n_formulas,), np.int32)
    own, best = device.empty(table, np.int64), device.empty(table, np.int64)
    args = (*scope, bounds, items, n_items, own, best, *int64s(*sizes, m, least, worthwhile))
    launch(device, "branching", "gather_items", 32 * n_formulas, args)
    most, tops = device.empty((2, *table), np.int64), device.empty((2, m - 1, *table), np.int64)
    args = (*scope, space.partners, space.masses, items, n_items, own, most, tops)
    args += int64s(*sizes, space.partners.shape[1], m, effort.few)
    launch(device, "branching", "bound_items", n_formulas * 2 * n_concepts, args)
    marks, beside = device.empty(table, np.uint8), device.empty(table, np.int64)
    place = device.zeros((n_formulas, n_concepts + 1), np.int32)
    args = (*scope, bounds, own, most, items, n_items, best, marks, beside, place)
    args += int64s(*sizes, m, least, effort.few, effort.many, effort.turns)
    launch(device, "branching", "sift_items", 32 * n_formulas, args)
    counts = device.download(n_items).astype(np.int64)
    for chosen in _fitting(counts, m, device.free_bytes() // _LARGEST_SHARE):
        _search_sets(device, space, batch, (own, items, n_items, bounds, place), best, chosen, counts[chosen], m, least)
    return best


def _fitting(n_items: IntArray, m: int, budget: int) -> Iterator[IntArray]:
    """Yield groups of the formulas that have items, whose tables fit: one at least, whatever the budget."""
    group: list[int] = []
    n_bytes = 0
    for formula in np.flatnonzero(n_items).tolist():
        more = 8 * int(n_items[formula]) * (4 * int(n_items[formula]) + 8 * m)
        if group and n_bytes + more > budget:
            yield np.array(group)
            group, n_bytes = [], 0
        group.append(formula)
        n_bytes += more
    if group:
        yield np.array(group)


def _search_sets(
    device: Device,
    space: Any,
    batch: _Batch,
    of_items: tuple[Array, ...],
    best: Array,
    chosen: IntArray,
    n_chosen_items: IntArray,
    m: int,
    least: int,
) -> None:
    """Raise `best` by the sets of some formulas' items."""
    own, items, n_items, bounds, place = of_items
    n_atoms, n_concepts = space.atom_values.shape[0], space.usable.shape[0]
    n_chosen, width = chosen.size, int(n_chosen_items.max())
    n_cells = int((n_chosen_items**2).sum())
    formulas = device.upload(chosen.astype(np.int32))
    offsets = device.upload(np.cumsum(n_chosen_items**2) - n_chosen_items**2)
    values, gains = device.zeros((n_cells,), np.int64), device.zeros((n_cells,), np.int64)
    sets = (formulas, n_items, offsets)
    args: tuple[Any, ...] = (space.atom_starts, space.atom_ranks, space.atom_values, batch.inside, place, *sets)
    args += (values, gains, *int64s(n_chosen, n_atoms, n_concepts))
    launch(device, "sets", "count_within", n_chosen * n_atoms, args)
    ordered = device.empty((n_chosen, width), np.int32)
    worth, overlaps = device.empty((n_chosen, m, width), np.int64), device.zeros((n_chosen, m, width), np.int64)
    args = (own, items, formulas, n_items, ordered, worth, *int64s(n_chosen, n_concepts, m, width))
    launch(device, "sets", "order_items", n_chosen * width, args)
    pairs, triples = device.empty((n_cells,), np.int64), device.empty((n_cells if m > 2 else 1,), np.int64)
    partners = device.empty((n_chosen, 2, m, width), np.int64)
    tops = device.empty((2, m - 1, n_chosen, width), np.int64)
    args = (space.values, space.gains, values, gains, place, *sets, ordered, pairs, triples, partners, tops)
    launch(device, "sets", "pair_items", n_chosen * width, (*args, *int64s(n_chosen, n_concepts, m, width)))
    stack = device.empty((n_chosen, 4, m), np.int64)
    args = (batch.totals, bounds, *sets, ordered, pairs, triples, partners, worth, overlaps, stack, best)
    args += int64s(n_chosen, n_concepts, m, width, least, space.effort.steps)
    launch(device, "sets", "search_sets", 32 * n_chosen, args)


def _completions(
    device: Device, space: Any, batch: _Batch, extensions: NDArray[np.int32], least: int
) -> NDArray[np.int32]:
    """Count what follows extensions int32[k, 3] of formula, c, op -> int32[f, 3] of extension, d, op, in order."""
    n_atoms, n_concepts = space.atom_values.shape[0], space.usable.shape[0]
    fits = max(1, device.free_bytes() // _LARGEST_SHARE // (8 * (n_concepts + 3)))
    found = [np.empty((0, 3), np.int32)]
    for start in range(0, len(extensions), fits):
        part = np.ascontiguousarray(extensions[start : start + fits])
        rows = device.upload(part)
        joint, changes = device.zeros((len(part), n_concepts + 1), np.int64), device.empty((len(part),), np.int64)
        args: tuple[Any, ...] = (space.starts, space.stops, space.posted, space.atom_starts, space.atom_ranks)
        args += (space.atom_values, batch.inside, rows, joint, changes, *int64s(len(part), n_atoms, n_concepts))
        launch(device, "branching", "joint_values", 32 * len(part), args)
        arrays = (*_scope(space, batch), rows, joint, changes)
        sizes = (len(part), batch.n, n_concepts, least)
        table = listed(device, "branching", "completions", arrays, len(part), sizes, (3, np.int32))
        found.append(device.download(table) + np.array([start, 0, 0], np.int32))
    return np.concatenate(found)
