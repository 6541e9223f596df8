"""`explain` and `explain_bitmaps`: the whole way, for many units at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ccx._version import VERSION
from ccx.clustering import Method, unit_ranges
from ccx.concepts import Concepts
from ccx.errors import InputError, StoreError
from ccx.formula import left_deep
from ccx.jobs import Progress, available_threads, check_progress, check_threads, in_threads, progress_reporter
from ccx.kernels.devices import to_host
from ccx.kernels.ieee import ieee
from ccx.keys import Keys, keys_hash, require_same_samples
from ccx.pipeline import inputs
from ccx.pipeline.devices import Device, Plan, Site, bring, places_for, share_out
from ccx.pipeline.judging import Bitmap, Evidence, Judge, Part
from ccx.pipeline.searching import Search, check_search, needs_masks, nothing_found, searcher
from ccx.pipeline.units import Counted, Counting, Ranges, as_units
from ccx.results import ROW_KEY, RUN_FORMAT, Candidate, Explanation, Explanations, Status
from ccx.scores import Score, resolve
from ccx.search import Objective, SearchResult, SearchSettings
from ccx.store import PathLike, RowLog, content_hash

_FLUSH_SECONDS = 1.0  # a run that is killed loses the rows of about so long

Range: TypeAlias = tuple[float, float] | None
Limits: TypeAlias = npt.NDArray[np.float64]
Times: TypeAlias = dict[str, float]
Rows: TypeAlias = list[tuple[Explanation, Times]]


@ieee
def explain(
    activations: Any,
    concepts: Any,
    *,
    clusters: int = 5,
    length: int = 3,
    beam: int = 5,
    search: Search = "beam",
    published: bool = False,
    scoring: str | Score = "iou",
    quantile: float = 0.005,
    clustering: Method = "optimal",
    ranges: Any = None,
    units: Iterable[int] | None = None,
    exclude: Any = None,
    names: Iterable[str] | None = None,
    categories: Iterable[str] | None = None,
    candidates: int | None = None,
    length_penalty: float = 1.0,
    top: int = 1,
    min_iou: float = 0.0,
    time_limit: float | None = None,
    evaluation_limit: int | None = None,
    null: int = 0,
    groups: Any = None,
    seed: int = 0,
    fit: Any = None,
    score: Any = None,
    keys: Sequence[str] | None = None,
    device: Device = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
    out: PathLike | None = None,
) -> Explanations:
    """Explain units: for each unit and range of activation, the formula that fits best where it fires.

    ``length=1, clusters=1`` is Network Dissection (Bau et al. 2017), ``length=3, clusters=1``
    Compositional Explanations (Mu and Andreas 2020), ``length=3, clusters=5`` Clustered
    Compositional Explanations (La Rosa et al. 2023).

    Parameters
    ----------
    activations
        float[N, U, h, w]; or [N, U] (one value a sample); or [N, U, T], tokens that are the cells of the
        concepts' grid 1×T; NumPy, CuPy or torch.
        Values are compared as float32 after bilinear upsampling to the grid of the concepts; the same
        grid means no interpolation. Or a scipy sparse matrix float[N·H·W, U], whose rows are the cells of the
        concepts' grid, sample after sample; only what is not 0 is looked at (docs/activations.md).
    concepts
        `Concepts` of the same N samples, or masks bool[C, N, H, W] (then named "1".."C").
    clusters
        Ranges a unit: 1 = the activations above their top quantile, k > 1 = k clusters of the
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
    names, categories
        Only these concepts, or concepts of these categories, may occur in formulas.
    candidates, length_penalty, top, min_iou
        See `ccx.search.SearchSettings`.
    time_limit, evaluation_limit
        With ``search="optimal"``: seconds, or formulas bounded or counted, a bitmap, after which the best formula so
        far is returned with a proven `upper_bound`; None = until it is proven, 0 = the beam's answer, with a bound.
        Both count from the beginning of the bitmap's search. `time_limit` goes with no `null`.
    null
        Number r of permutations that each score is compared with (`Explanation.chance`): the search is repeated
        with the bitmap's samples exchanged, r times for each row. 0 = no comparison.
    groups
        N hashable labels of the samples (video, patient): only samples of one group are exchanged. See
        docs/chance.md for what this tests.
    seed
        Of the permutations, which are the same for all units and ranges.
    fit, score
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
    threads = check_threads(threads) or available_threads()
    check_progress(progress)
    options = SearchSettings(
        length, beam, candidates, length_penalty, top, min_iou, resolve(scoring), time_limit, evaluation_limit
    )
    check_search(search, published, options, null)
    inputs.check_quantile(quantile)
    unit_ranges(np.zeros(2, np.float32), clusters=clusters, quantile=quantile, method=clustering)  # checks them
    annotated = inputs.as_concepts(concepts, threads, activations)
    known = require_same_samples("activations", activations, annotated, keys=keys)
    source = as_units(activations, annotated, device)
    n_cells = annotated.n_cells
    if exclude is not None:
        annotated = inputs.without_positions(annotated, exclude, source.grid, published, threads)
    chosen = inputs.check_units(units, source.n_units)
    evidence = Evidence.of(annotated, null, groups, seed, fit, score, threads)
    fitted, parts = evidence.fit.concepts, evidence.parts
    inputs.require_valid_cells(fitted, "concepts" if evidence.held_out is None else "fit")
    allowed = annotated.selected(names, categories)
    given = None if ranges is None else inputs.check_given_ranges(ranges, chosen, source.n_units)
    n_ranges = clusters if given is None else max(len(one) for one in given)
    atoms = [part.concepts.atoms for part in parts]
    plan = share_out(
        source.places,
        atoms,
        len(chosen),
        8 * source.n_values,
        n_ranges,
        threads,
        masks=needs_masks(search),
        extra=evidence.worker_bytes,
    )
    inputs.require_memory(fitted.atoms, source.n_values, n_ranges, plan.n_workers, proof=search == "optimal")
    evidence.require_memory(plan.n_workers)
    counted = None if published else annotated.valid_positions(source.grid)
    source.check_finite(chosen, counted)
    fitted.prepare(threads=threads)
    find = searcher(search, published, fitted, options, allowed, threads)
    inner = max(1, threads // plan.n_workers)
    judge = Judge(evidence, find, nothing_found(search), options, inner)
    sites = plan.sites(atoms)
    own = None if counted is None else evidence.fit.of(counted)
    how = Counting(Ranges(given, clusters, quantile, clustering), own, parts, plan, sites, inner)

    def rows_of(positions: range) -> list[Rows]:
        counted = source.count(chosen, positions, how)
        return [rows_of_unit(chosen[at], one) for at, one in zip(positions, counted, strict=True)]

    def rows_of_unit(unit: int, counted: Counted) -> Rows:
        """Explain one unit, given its ranges and their bitmaps on each part of the samples."""
        nothing, limits, bitmaps, times = counted
        if not len(limits):
            return [(_explanation(fitted, unit, 1, None, judge.nothing, 0, options, nothing), times)]
        rows: Rows = []
        for number, ((lower, upper), *both) in enumerate(zip(limits, *bitmaps, strict=True), start=1):
            why = Status.SINGLE_VALUE if lower == upper and nothing is Status.EMPTY else nothing
            ends = float(lower), float(upper)
            rows.append(_searched(judge, unit, number, ends, why, times, *both))
        return rows

    settings = {
        **_settings(options, search, published, annotated, allowed, evidence),
        "clusters": int(clusters),
        "quantile": float(quantile),
        "clustering": clustering,
        "ranges": None if given is None else [_json_ranges(one) for one in given],
        "units": chosen,
        **({} if exclude is None else {"exclude": n_cells - annotated.n_cells}),
    }
    hashes = {} if out is None else {"activations": source.content_hash(), **evidence.hashes}
    return _run(rows_of, chosen, plan, annotated, settings, hashes | _samples_hash(known), progress, out)


def explain_bitmaps(
    bitmaps: Any,
    concepts: Any,
    *,
    length: int = 3,
    beam: int = 5,
    search: Search = "beam",
    published: bool = False,
    scoring: str | Score = "iou",
    names: Iterable[str] | None = None,
    categories: Iterable[str] | None = None,
    candidates: int | None = None,
    length_penalty: float = 1.0,
    top: int = 1,
    min_iou: float = 0.0,
    time_limit: float | None = None,
    evaluation_limit: int | None = None,
    null: int = 0,
    groups: Any = None,
    seed: int = 0,
    fit: Any = None,
    score: Any = None,
    keys: Sequence[str] | None = None,
    device: Device = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
    out: PathLike | None = None,
) -> Explanations:
    """Explain bitmaps that you made yourself: for each the formula that fits best.

    Parameters
    ----------
    bitmaps
        bool[M, N, H, W], or packed uint64[M, N, n_words] (`ccx.kernels.pack`); NumPy, CuPy or torch.
    concepts, length, beam, search, published, scoring, names, categories, candidates, length_penalty, top, min_iou
        As for `explain`.
    time_limit, evaluation_limit
        As for `explain`.
    null, groups, seed, fit, score, keys
        As for `explain`.
    device, threads, progress, out
        As for `explain`.

    Returns
    -------
    Explanations
        One row a bitmap: `unit` is its index, `range_index` 1, `range` None.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`, `MemoryBudgetError`) if something does not fit, before work starts.
    MissingExtraError, BackendError
        If `device` is a GPU and CuPy, or the GPU, is not there.
    StoreError
        If `out` cannot be written or belongs to another run.

    """
    threads = check_threads(threads) or available_threads()
    check_progress(progress)
    options = SearchSettings(
        length, beam, candidates, length_penalty, top, min_iou, resolve(scoring), time_limit, evaluation_limit
    )
    check_search(search, published, options, null)
    annotated = inputs.as_concepts(concepts, threads, bitmaps, axis=1)
    known = require_same_samples("bitmaps", None, annotated, keys=keys)
    packed = inputs.as_bitmaps(bitmaps, annotated, threads)
    places = places_for(device, packed)
    packed = bring(packed, places)
    evidence = Evidence.of(annotated, null, groups, seed, fit, score, threads)
    fitted, parts = evidence.fit.concepts, evidence.parts
    allowed = annotated.selected(names, categories)
    atoms = [part.concepts.atoms for part in parts]
    n_bytes = 8 * annotated.n_samples * packed.shape[-1]
    masks = needs_masks(search)
    plan = share_out(places, atoms, len(packed), n_bytes, 1, threads, masks=masks, extra=evidence.worker_bytes)
    inputs.require_memory(fitted.atoms, 0, 1, plan.n_workers, proof=search == "optimal")
    evidence.require_memory(plan.n_workers)
    fitted.prepare(threads=threads)
    find = searcher(search, published, fitted, options, allowed, threads)
    inner = max(1, threads // plan.n_workers)
    judge = Judge(evidence, find, nothing_found(search), options, inner)
    sites = plan.sites(atoms)

    def counted(rows: Any, part: Part, site: Site) -> list[Bitmap]:
        """Return bitmaps uint64[M, N, n_words] on some of the samples."""
        own = rows if part.samples is None else np.stack([part.of(row) for row in to_host(rows)])
        there = site.brought(own)
        return [Bitmap(*count, partial(there.__getitem__, i)) for i, count in enumerate(site.of_bitmaps(there, inner))]

    def rows_of(positions: range) -> list[Rows]:
        started = time.perf_counter()
        rows = packed[positions.start : positions.stop]
        here = zip(parts, plan.of_job(sites, positions), strict=True)
        bitmaps = zip(*(counted(rows, part, site) for part, site in here), strict=True)
        times = {"histogram": (time.perf_counter() - started) / len(positions)}
        return [
            [_searched(judge, index, 1, None, Status.EMPTY, times, *both)]
            for index, both in zip(positions, bitmaps, strict=True)
        ]

    settings = _settings(options, search, published, annotated, allowed, evidence)
    hashes = {} if out is None else {"bitmaps": content_hash({"bitmaps": to_host(packed)}), **evidence.hashes}
    hashes |= _samples_hash(known)
    return _run(rows_of, list(range(len(packed))), plan, annotated, settings, hashes, progress, out)


def _settings(
    options: SearchSettings,
    search: str,
    published: bool,
    concepts: Concepts,
    allowed: npt.NDArray[np.bool_],
    evidence: Evidence,
) -> dict[str, Any]:
    names = None if allowed.all() else [concepts.names[c] for c in np.flatnonzero(allowed)]
    return {
        "search": search,
        "published": bool(published),
        "scoring": options.scoring.name,
        "length": int(options.length),
        "beam": int(options.beam),
        "candidates": None if options.candidates is None else int(options.candidates),
        "length_penalty": float(options.length_penalty),
        "top": int(options.top),
        "min_iou": float(options.min_iou),
        **options.limits,
        "names": names,
        **evidence.settings,
    }


def _samples_hash(keys: Keys | None) -> dict[str, str]:
    """Return what a run folder keeps of the samples' keys: annotations of other samples may be equal."""
    return {} if keys is None else {"samples": keys_hash(keys)}


def _json_ranges(ranges: npt.NDArray[np.float64]) -> list[list[float | str]]:
    return [[float(end) if np.isfinite(end) else str(float(end)) for end in pair] for pair in ranges]


def _searched(
    judge: Judge,
    unit: int,
    range_index: int,
    limits: Range,
    nothing: Status,
    times: Times,
    bitmap: Bitmap,
    held_out: Bitmap | None = None,
) -> tuple[Explanation, Times]:
    """Search one bitmap, given it on the samples held out, too; `nothing` is the status of one without cells."""
    started = time.perf_counter()
    result = judge.find(bitmap.counts, bitmap.rows) if bitmap.n_cells else judge.nothing
    searched = time.perf_counter()
    concepts = judge.evidence.fit.concepts
    item = _explanation(concepts, unit, range_index, limits, result, bitmap.n_cells, judge.options, nothing)
    item = judge(item, result, bitmap, held_out)
    times = {**times, "search": searched - started, "evidence": time.perf_counter() - searched}
    return item, times


def _explanation(
    concepts: Concepts,
    unit: int,
    range_index: int,
    limits: Range,
    result: SearchResult,
    bitmap_cells: int,
    options: SearchSettings,
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
        range=limits,
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


def _run(
    rows_of: Callable[[range], list[Rows]],
    units: list[int],
    plan: Plan,
    concepts: Concepts,
    settings: dict[str, Any],
    hashes: dict[str, str],
    progress: Progress | bool | None,
    out: PathLike | None,
) -> Explanations:
    """Compute the rows of all units in order; with `out`, append them there and keep those that it has."""
    items: list[Explanation] = []
    with ExitStack() as stack:
        report = stack.enter_context(progress_reporter(progress, "explaining units"))
        log = None
        if out is not None:
            hashes = {"concepts": concepts.content_hash, **hashes}
            log = stack.enter_context(
                RowLog(out, key=ROW_KEY, format=RUN_FORMAT, settings=settings, hashes=hashes, version=VERSION)
            )
            items = _stored(log)
        # The last unit of a killed run may lack ranges: it is computed again, its rows are not written twice.
        last = items[-1].unit if items else -1
        done = sum(unit < last for unit in units)
        flushed = time.monotonic()
        report(done, len(units))
        jobs = [range(start, min(start + plan.batch, len(units))) for start in range(done, len(units), plan.batch)]
        for rows in chain.from_iterable(in_threads(rows_of, jobs, plan.n_workers)):
            for explanation, seconds in rows:
                if log is not None:
                    if (explanation.unit, explanation.range_index) in log:
                        continue
                    times = {"unit": explanation.unit, "range_index": explanation.range_index, "seconds": seconds}
                    log.append(explanation.to_record(), times)
                items.append(explanation)
            if log is not None and time.monotonic() - flushed >= _FLUSH_SECONDS:
                log.flush()
                flushed = time.monotonic()
            done += 1
            report(done, len(units))
    return Explanations(items, settings=settings, concepts_hash=concepts.content_hash, version=VERSION)


def _stored(log: RowLog) -> list[Explanation]:
    try:
        return [Explanation.from_record(row) for row in log.rows]
    except InputError as error:
        msg = f"{log.folder}: its rows are damaged ({error}); delete the folder and run again"
        raise StoreError(msg) from error
