"""`explain` and `explain_bitmaps`: the whole way, for many units at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from ccx._version import VERSION
from ccx.concepts import Concepts
from ccx.errors import InputError, StoreError
from ccx.formula import left_deep
from ccx.jobs import (
    Progress,
    available_threads,
    check_progress,
    check_threads,
    in_threads,
    interruptible,
    progress_reporter,
)
from ccx.kernels.ieee import ieee
from ccx.kernels.places import MAIN_MEMORY
from ccx.keys import keys_hash, require_same_samples
from ccx.options import (
    EvidenceOptions,
    Method,
    RangeOptions,
    SearchName,
    SearchOptions,
    renamed_arguments,
)
from ccx.pipeline import inputs
from ccx.pipeline.judging import Evidence, with_evidence
from ccx.pipeline.placement import Counter, Device, Plan
from ccx.pipeline.sources import Bitmaps, Counted, Range, Source, Times, units_of
from ccx.results import ROW_KEY, RUN_FORMAT, Candidate, Explanation, Explanations, Status
from ccx.scores import Score
from ccx.search import SEARCHES, Objective, Search, SearchResult
from ccx.store import PathLike, RowLog

_MANY_UNITS = 8  # whose histograms are spared as much as it takes to cut the cells into tiles
_FLUSH_SECONDS = 1.0  # a run that is killed loses the rows of about so long

Rows: TypeAlias = list[tuple[Explanation, Times]]


@interruptible()
@ieee
def explain(  # noqa: PLR0913 - public keywords
    activations: Any,
    concepts: Any,
    *,
    names: Sequence[str] | None = None,
    clusters: int = 5,
    length: int = 3,
    beam: int = 5,
    search: SearchName = "beam",
    published: bool = False,
    scoring: str | Score = "iou",
    quantile: float = 0.005,
    clustering: Method = "optimal",
    ranges: Any = None,
    units: Iterable[int] | None = None,
    exclude: Any = None,
    only: Iterable[str] | None = None,
    categories: Iterable[str] | None = None,
    candidates: int | None = None,
    length_penalty: float = 1.0,
    top: int = 1,
    min_iou: float = 0.0,
    time_limit: float | None = None,
    evaluation_limit: int | None = None,
    permutations: int = 0,
    groups: Any = None,
    seed: int = 0,
    fit_samples: Any = None,
    test_samples: Any = None,
    keys: Sequence[str] | None = None,
    device: Device = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
    out: PathLike | None = None,
    **renamed: Any,
) -> Explanations:
    """Explain units: for each unit and range of activation, the formula that fits best where it fires.

    ``length=1, clusters=1`` is Network Dissection (Bau et al. 2017), ``length=3, clusters=1``
    Compositional Explanations (Mu and Andreas 2020), ``length=3, clusters=5`` Clustered
    Compositional Explanations (La Rosa et al. 2023).

    Parameters
    ----------
    activations
        float[N, U, h, w]; or [N, U] (one value per sample); or [N, U, T], tokens that are the cells of the
        concepts' grid 1×T; NumPy, CuPy or torch.
        Values are compared as float32 after bilinear upsampling to the grid of the concepts; the same
        grid means no interpolation. Or a scipy sparse matrix float[N·H·W, U], whose rows are the cells of the
        concepts' grid, sample after sample; only what is not 0 is looked at (docs/activations.md).
    concepts
        `Concepts` of the same N samples, or masks bool[C, N, H, W].
    names
        What raw masks are called; None = "1".."C". (`Concepts` have names; `only` chooses among them.)
    clusters
        Ranges per unit: 1 = the activations above their top quantile, k > 1 = k clusters of the
        activations (zeros dropped where none is negative).
    length, beam
        Longest formula in concepts, and width of the beam.
    search
        "beam": exact beam search. "optimal": the best of all left-deep formulas, with proof
        (`Explanation.optimal`, `upper_bound`; docs/optimal.md). "mmesh", "cfh", "areas": the
        published heuristic-guided beam searches, which find the formulas of "beam", with their numbers of
        visited formulas; "none": theirs without a heuristic.
    published
        With one of the latter four: do as the published code does, its rounding of estimates, its ties and ranges
        from activations without a valid cell included, for comparison (docs/parity.md).
    scoring
        What is maximised: "iou", "f1", "precision", "recall", "mcc", "cosine", "balanced_accuracy", or a function of
        your own in a `ccx.scores.Custom` (docs/scores.md). The published searches know IoU only.
    quantile
        Share of activations above the lower end, for ``clusters=1``.
    clustering
        "optimal" (globally optimal k-means) or "sklearn" (as published; extra ``sklearn``).
    ranges
        Open ranges instead of clusters: [K, 2] for all units, or [U, K, 2].
    units
        Indices of the units to explain; None = all.
    exclude
        Positions to leave out of everything, True where (tokens that begin a text, class tokens, borders): bool[N, h,
        w], or [h, w] for all samples, on the grid of the activations; of tokens also bool[N, T] or [T]. The concepts
        are then those of `Concepts.excluding`: give them to whatever is asked about the result.
    only, categories
        Only these concepts, or concepts of these categories, may occur in formulas.
    candidates, length_penalty, top, min_iou
        See `ccx.search.SearchOptions`.
    time_limit, evaluation_limit
        With ``search="optimal"``: seconds, or formulas bounded or counted, per bitmap, after which the best formula so
        far is returned with a proven `upper_bound`; None = until it is proven, 0 = the beam's answer, with a bound.
        Both count from the beginning of the bitmap's search. `time_limit` goes with no `permutations`.
    permutations
        Number r of permutations that each score is compared with (`Explanation.chance`): the search is repeated
        with the bitmap's samples exchanged, r times for each row. 0 = no comparison.
    groups
        N hashable labels of the samples (video, patient): only samples of one group are exchanged. See
        docs/chance.md for what this tests.
    seed
        Of the permutations, which are the same for all units and ranges.
    fit_samples, test_samples
        Samples that ranges and formulas are found on, and samples held out, on which the formulas found are
        scored (`Explanation.held_out`): bool[N] or indices. Of one alone, the other is all that it leaves.
    keys
        Who the samples of the activations are, N distinct texts, where these do not carry them as those of `ccx.probe`
        do. Keys that `concepts` have, too, must be the same in the same order (`ccx.align`).
    device
        Where cells and formulas are counted: "cpu", "cuda", "cuda:1", or GPUs that share the units, "cuda:0,cuda:1";
        None = where the activations lie. Results do not depend on it. docs/gpu.md says what is copied then.
    threads
        Processors to use; None = all available. Results do not depend on it.
    progress
        None = a bar if the standard error is a terminal; True, False; or a function that is called
        with (units done, units in all).
    out
        A run folder: rows are appended as they are found, and a run that was killed goes on where it
        stopped. It refuses inputs or settings other than those that it was begun with.
    renamed
        Options under a name that they had in an older release, which warns (docs/migration.md).

    Returns
    -------
    Explanations
        One row for each (unit, range), in this order. A unit or range without an explanation is a row
        whose `status` says why.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`, `MemoryBudgetError`) if something does not fit, before work starts.
    MissingExtraError
        If ``clustering="sklearn"`` and scikit-learn is not installed, or `device` is a GPU and CuPy is not.
    BackendError
        If there is no such GPU.
    StoreError
        If `out` cannot be written or belongs to another run.

    """
    given = renamed_arguments(locals(), renamed)
    source_of = partial(units_of, activations, RangeOptions.of(given), exclude, published, device, threads)
    return _explained(source_of, "activations", activations, given)


@interruptible()
@ieee
def explain_bitmaps(  # noqa: PLR0913 - public keywords
    bitmaps: Any,
    concepts: Any,
    *,
    names: Sequence[str] | None = None,
    length: int = 3,
    beam: int = 5,
    search: SearchName = "beam",
    published: bool = False,
    scoring: str | Score = "iou",
    only: Iterable[str] | None = None,
    categories: Iterable[str] | None = None,
    candidates: int | None = None,
    length_penalty: float = 1.0,
    top: int = 1,
    min_iou: float = 0.0,
    time_limit: float | None = None,
    evaluation_limit: int | None = None,
    permutations: int = 0,
    groups: Any = None,
    seed: int = 0,
    fit_samples: Any = None,
    test_samples: Any = None,
    keys: Sequence[str] | None = None,
    device: Device = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
    out: PathLike | None = None,
    **renamed: Any,
) -> Explanations:
    """Explain bitmaps that you made yourself: for each the formula that fits best.

    Parameters
    ----------
    bitmaps
        bool[M, N, H, W], or packed uint64[M, N, n_words] (`ccx.kernels.pack`); NumPy, CuPy or torch.
    concepts, names, length, beam, search, published, scoring, only, categories
        As for `explain`.
    candidates, length_penalty, top, min_iou
        As for `explain`.
    time_limit, evaluation_limit
        As for `explain`.
    permutations, groups, seed, fit_samples, test_samples, keys
        As for `explain`.
    device, threads, progress, out, renamed
        As for `explain`.

    Returns
    -------
    Explanations
        One row per bitmap: `unit` is its index, `range_index` 1, `range` None.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`, `MemoryBudgetError`) if something does not fit, before work starts.
    MissingExtraError, BackendError
        If `device` is a GPU and CuPy, or the GPU, is not there.
    StoreError
        If `out` cannot be written or belongs to another run.

    """
    given = renamed_arguments(locals(), renamed)
    return _explained(lambda concepts: Bitmaps(bitmaps, concepts, device, threads), "bitmaps", bitmaps, given)


def _explained(
    source_of: Callable[[Concepts], Source], argument: str, data: Any, given: Mapping[str, Any]
) -> Explanations:
    """Explain what a source has, by the arguments of `explain` that all sources share."""
    threads = check_threads(given["threads"]) or available_threads()
    check_progress(given["progress"])
    options, asked = SearchOptions.of(given), EvidenceOptions.of(given)
    search = SEARCHES[options.search](options, asked.permutations)
    annotated = inputs.as_concepts(given["concepts"], given["names"], threads, data, argument)
    keys = require_same_samples(argument, data if argument == "activations" else None, annotated, keys=given["keys"])
    source = source_of(annotated)
    concepts = source.concepts
    evidence = Evidence.of(concepts, asked, threads)
    fitted = evidence.fit.concepts
    if source.needs_cells:
        inputs.require_valid_cells(fitted, "concepts" if evidence.held_out is None else "fit_samples")
    allowed = concepts.selected(options.only, options.categories)
    atoms = [part.concepts.atoms for part in evidence.parts]
    plan = Plan.of(source, atoms, threads, search, evidence.worker_bytes)
    if source.takes_tiles and MAIN_MEMORY in plan.places and len(source.units) >= _MANY_UNITS:
        for part in atoms:  # now, so that what they take counts before work starts
            part.cut(threads)
    plan.require_memory(source, fitted.atoms, search, evidence.worker_bytes)
    source.check_values()
    fitted.prepare(threads=threads)
    search.prepare(fitted, allowed, threads)
    run = _Run(source, evidence, search, plan, plan.counters(atoms), max(1, threads // plan.n_workers))
    only = None if allowed.all() else [concepts.names[c] for c in np.flatnonzero(allowed)]
    settings = {**options.record(only), **evidence.settings, **source.settings}
    log = None
    if given["out"] is not None:
        hashes = {"concepts": concepts.content_hash, argument: source.content_hash(), **evidence.hashes}
        hashes |= {} if keys is None else {"samples": keys_hash(keys)}  # annotations of other samples may be equal
        log = RowLog(given["out"], key=ROW_KEY, format=RUN_FORMAT, settings=settings, hashes=hashes, version=VERSION)
    items = run.explanations(log, given["progress"])
    return Explanations(items, settings=settings, concepts_hash=concepts.content_hash, version=VERSION)


@dataclass(frozen=True, eq=False)
class _Run:
    """What explains one unit, or bitmap, after the other."""

    source: Source
    evidence: Evidence
    search: Search
    plan: Plan
    counters: list[list[Counter]]
    threads: int  # per worker

    def explanations(self, log: RowLog | None, progress: Progress | bool | None) -> list[Explanation]:
        """Compute the rows of all units in order; append them to the log and keep those that it has."""
        items: list[Explanation] = []
        units = self.source.units
        with ExitStack() as stack:
            if log is not None:
                items = _stored(stack.enter_context(log))
            report = stack.enter_context(progress_reporter(progress, "explaining units"))
            # The last unit of a killed run may lack ranges: it is computed again, its rows are not written twice.
            last = items[-1].unit if items else -1
            done = sum(unit < last for unit in units)
            flushed = time.monotonic()
            report(done, len(units))
            for rows in chain.from_iterable(
                in_threads(self.rows, self.plan.jobs(done, len(units)), self.plan.n_workers)
            ):
                for explanation, seconds in rows:
                    if log is None or _appended(log, explanation, seconds):
                        items.append(explanation)
                if log is not None and time.monotonic() - flushed >= _FLUSH_SECONDS:
                    log.flush()
                    flushed = time.monotonic()
                done += 1
                report(done, len(units))
        return items

    def rows(self, positions: range) -> list[Rows]:
        """Explain the units at some positions of the list."""
        counters = self.plan.of_job(self.counters, positions)
        counted = self.source.count(positions, self.evidence.parts, counters, self.threads)
        return [self._of_unit(self.source.units[at], one) for at, one in zip(positions, counted, strict=True)]

    def _of_unit(self, unit: int, counted: Counted) -> Rows:
        nothing, ranges, bitmaps, times = counted
        evidence, search = self.evidence, self.search
        concepts, options = evidence.fit.concepts, search.options
        if not ranges:
            return [(_explanation(concepts, unit, 1, None, search.nothing, 0, options, nothing), times)]
        rows: Rows = []
        for number, (ends, *of_parts) in enumerate(zip(ranges, *bitmaps, strict=True), start=1):
            bitmap = of_parts[0]
            is_closed = ends is not None and ends[0] == ends[1]
            why = Status.SINGLE_VALUE if is_closed and nothing is Status.EMPTY else nothing
            started = time.perf_counter()
            result = search(bitmap.counts, bitmap.rows) if bitmap.n_cells else search.nothing
            searched = time.perf_counter()
            item = _explanation(concepts, unit, number, ends, result, bitmap.n_cells, options, why)
            item = with_evidence(item, result, of_parts, evidence, search, self.threads)
            seconds = {"search": searched - started, "evidence": time.perf_counter() - searched}
            rows.append((item, {**times, **seconds}))
        return rows


def _explanation(
    concepts: Concepts,
    unit: int,
    range_index: int,
    ends: Range,
    result: SearchResult,
    bitmap_cells: int,
    options: SearchOptions,
    nothing: Status,
) -> Explanation:
    if result.found:
        status = Status.EXPLAINED
    elif bitmap_cells == 0:
        status = nothing
    else:
        status = Status.BELOW_MIN_IOU if result.met else Status.NO_OVERLAP
    named = [
        Candidate(
            formula=left_deep([concepts.names[c] for c in one.concepts], one.operators),
            iou=one.iou,
            intersection=one.intersection,
            union=one.union,
        )
        for one in result.found
    ]
    best = named[0] if named else None
    return Explanation(
        unit=unit,
        range_index=range_index,
        range=ends,
        formula=best.formula if best else None,
        iou=best.iou if best else 0.0,
        iou_gain=best.iou - bitmap_cells / concepts.n_cells if best else None,
        intersection=best.intersection if best else 0,
        union=best.union if best else 0,
        bitmap_cells=bitmap_cells,
        formula_cells=result.found[0].size if best else 0,
        status=status,
        visited=result.visited,
        expanded=result.expanded,
        estimated=result.estimated,
        optimal=result.optimal,
        upper_bound=result.upper_bound,
        evaluations=result.evaluations,
        alternatives=tuple(named[1:]),
        score=Objective.of(options, bitmap_cells, concepts.n_cells).score(result.found[0]) if best else 0.0,
    )


def _appended(log: RowLog, explanation: Explanation, seconds: dict[str, float]) -> bool:
    """Append a row to the log and return True, unless the log has it already."""
    place = {"unit": explanation.unit, "range_index": explanation.range_index}
    if tuple(place.values()) in log:
        return False
    log.append(explanation.to_record(), {**place, "seconds": seconds})
    return True


def _stored(log: RowLog) -> list[Explanation]:
    try:
        return [Explanation.from_record(row) for row in log.rows]
    except InputError as error:
        msg = f"{log.folder}: its rows are damaged ({error}); delete the folder and run again"
        raise StoreError(msg) from error
