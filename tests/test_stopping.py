"""Jobs on threads end when nobody waits for them any more, however long they would still take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import pytest

import ccx
from ccx import chance, jobs
from ccx.jobs import in_threads, parallel
from ccx.kernels import completions as kernels
from ccx.kernels import heads as head_kernels
from ccx.kernels import pack
from ccx.search import Found, Objective, SearchOptions, optimal, optimal_search
from tests.support.histograms import histogram

GIVEN_UP = 60.0  # seconds after which a job that nothing stops fails, so that the test ends


def endless(started: threading.Event) -> None:
    started.set()
    gave_up = threading.Event()
    threading.Timer(GIVEN_UP, gave_up.set).start()
    while not gave_up.wait(0.001):
        jobs.check_stopped()
    pytest.fail("nothing stopped the job")


@pytest.mark.parametrize("how", ["closed", "fails", "interrupted"])
def test_jobs_that_have_begun_end(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[threading.Timer] = []
    ended: list[bool] = []
    begin = threading.Timer.start
    monkeypatch.setattr(threading.Timer, "start", lambda timer: (timers.append(timer), begin(timer)))
    started = threading.Event()

    def work(job: int) -> int:
        if job == 1:
            try:
                endless(started)
            except jobs.Stopped:
                ended.append(True)
                raise
        started.wait(GIVEN_UP)
        if job == 2 and how == "fails":
            raise ZeroDivisionError
        return job

    results = in_threads(work, list(range(9)), 2)
    assert next(results) == 0
    if how == "closed":
        results.close()
    else:
        wanted = ZeroDivisionError if how == "fails" else KeyboardInterrupt
        with suppress(wanted):
            results.throw(wanted)
    assert ended == [True]
    for timer in timers:
        timer.cancel()


class Slices:
    """Work on slices 1 and up that ends only where it is stopped; `ended` holds the slices that were."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.begun = threading.Semaphore(0)
        self.gave_up = threading.Event()

    def __call__(self, start: int, _stop: int) -> None:
        self.begun.release()
        while not self.gave_up.wait(0.001):
            try:
                jobs.check_stopped()
            except jobs.Stopped:
                self.ended.append(start)
                raise

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        timer = threading.Timer(GIVEN_UP, self.gave_up.set)
        timer.start()
        yield
        timer.cancel()


def test_a_job_that_fails_ends_those_beside_it() -> None:
    slices = Slices()

    def work(job: int) -> None:
        if job:
            slices(job, job + 1)
        assert slices.begun.acquire(timeout=GIVEN_UP)
        raise ZeroDivisionError

    with slices.giving_up(), pytest.raises(ZeroDivisionError):
        next(in_threads(work, [0, 1], 2))
    assert slices.ended == [1]


def test_a_slice_that_fails_ends_those_beside_it() -> None:
    slices = Slices()

    def work(start: int, stop: int) -> None:
        if start:
            slices(start, stop)
        for _ in range(2):
            assert slices.begun.acquire(timeout=GIVEN_UP)
        raise ZeroDivisionError

    with slices.giving_up(), pytest.raises(ZeroDivisionError):
        parallel(work, 3, 3)
    assert sorted(slices.ended) == [1, 2]


def test_a_job_that_ends_ends_its_slices() -> None:
    slices = Slices()
    results = in_threads(lambda job: job and parallel(slices, 2, 2), [0, 1], 2)
    with slices.giving_up():
        assert next(results) == 0
        for _ in range(2):
            assert slices.begun.acquire(timeout=GIVEN_UP)
        results.close()
    assert sorted(slices.ended) == [0, 1]


def test_the_signal_is_of_its_thread_alone() -> None:
    wanted, unwanted = threading.Event(), threading.Event()
    unwanted.set()

    def check(_: int) -> None:
        jobs.check_stopped()

    jobs.stoppable(check, wanted)(0)
    with pytest.raises(jobs.Stopped):
        jobs.stoppable(check, unwanted)(0)
    jobs.check_stopped()


def test_a_long_proof_is_given_up_and_nothing_is_lost(tmp_path, monkeypatch):
    """The first bitmap is easy, the second takes many expansions; the tool is interrupted when the first is done."""
    rng = np.random.default_rng(5)
    masks = rng.random((14, 1, 12, 12)) < 0.5
    bitmaps = np.concatenate([masks[:1], rng.random((3, 1, 12, 12)) < 0.5])
    options = {"search": "optimal", "length": 5, "threads": 2, "evaluation_limit": 300_000, "out": tmp_path / "run"}
    expand, begun = kernels.expand, threading.Event()
    stopped, calls_after = threading.Event(), []

    def watched(*args):
        begun.set()
        if stopped.is_set():
            calls_after.append(threading.get_ident())
        return expand(*args)

    def interrupt(done: int, total: int) -> None:
        assert total == 4
        if done == 1:
            assert begun.wait(GIVEN_UP)
            stopped.set()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(kernels, "expand", watched)
        with pytest.raises(KeyboardInterrupt):
            ccx.explain_bitmaps(bitmaps, masks, progress=interrupt, **options)
    assert len(calls_after) <= 100  # what was being done, of more than 2,000 that were left to do
    found = ccx.explain_bitmaps(bitmaps, masks, progress=False, **options)
    whole = ccx.explain_bitmaps(bitmaps, masks, progress=False, **options | {"out": tmp_path / "whole", "threads": 1})
    assert found == whole
    rows = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("run", "whole")]
    assert rows[0] == rows[1]
    assert max(one.evaluations for one in found) > 10_000


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C: for the main thread, also where pytest runs in the background and would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("n_bitmaps", [1, 2])
def test_an_interrupt_ends_the_searches_of_permuted_bitmaps(
    n_bitmaps: int, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one bitmap on 2 threads the main thread waits for searches, with two on 4 a job does."""
    rng = np.random.default_rng(5)
    masks = rng.random((14, 12, 12, 1)) < 0.5
    bitmaps = rng.random((n_bitmaps, 12, 12, 1)) < 0.5
    options = {"search": "optimal", "length": 5, "evaluation_limit": 100_000, "permutations": 40}
    options["threads"] = 2 * n_bitmaps
    searches: list[int] = []

    def searched(*args: Any, **keywords: Any) -> Any:
        searches.append(threading.get_ident())
        if len(searches) == n_bitmaps + 3:  # a permuted one
            interrupt()
        return optimal_search(*args, **keywords)

    monkeypatch.setattr(optimal, "optimal_search", searched)
    with pytest.raises(KeyboardInterrupt):
        ccx.explain_bitmaps(bitmaps, masks, progress=False, **options)
    assert n_bitmaps + 3 <= len(searches) <= n_bitmaps + 13  # of 41 * n_bitmaps


@pytest.mark.parametrize(
    ("last", "calls"),
    [
        ("open_formulas", ["open_formulas"]),
        ("counted", ["open_formulas", "counted"]),
    ],
)
def test_proofs_of_three_concepts_end_too(last: str, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between heads, and between what bounds the formulas of one and what counts those that are left."""
    rng = np.random.default_rng(5)
    concepts = ccx.Concepts.from_masks(rng.random((14, 1, 12, 12)) < 0.5)
    counts = histogram(rng.random(144) < 0.5, concepts)
    unwanted = threading.Event()
    made: list[str] = []

    def watched(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            made.append(name)
            if name == last:
                unwanted.set()
            return kernel(*args)

        return call

    for name in ("open_formulas", "counted"):
        monkeypatch.setattr(head_kernels, name, watched(name, getattr(head_kernels, name)))
    search = jobs.stoppable(lambda length: optimal_search(concepts, counts, SearchOptions(length)), unwanted)
    with pytest.raises(jobs.Stopped):
        search(3)
    assert made == calls


def test_the_null_of_samples_held_out_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search looks for the signal there: it is looked for between batches of histograms."""
    rng = np.random.default_rng(5)
    masks = rng.random((3, 12, 12, 1)) < 0.5
    concepts = ccx.Concepts.from_masks(masks)
    atoms, rows = concepts.atoms, pack(masks[0].reshape(12, -1))
    orders = chance.permutations(np.zeros(12, np.int64), 10, 0)
    unwanted, batches = threading.Event(), []
    permuted_histogram = chance.permuted_histogram

    def watched(*args: Any, **keywords: Any) -> Any:
        batches.append(args)
        unwanted.set()
        return permuted_histogram(*args, **keywords)

    monkeypatch.setattr(chance, "permuted_histogram", watched)
    monkeypatch.setattr(chance, "_BATCH_BYTES", 12 * atoms.n_atoms * 3)
    formula, inside = Found((0,), (), 1, 1, 2), np.zeros(atoms.n_atoms, np.bool_)

    def judged(n_cells: int) -> Any:
        objective = partial(Objective.of, SearchOptions(), total=concepts.n_cells)
        return chance.formula_chance(formula, inside, rows, atoms, orders, objective, n_cells, threads=1)

    with pytest.raises(jobs.Stopped):
        jobs.stoppable(judged, unwanted)(2)
    assert len(batches) == 1
