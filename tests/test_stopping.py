"""Jobs on threads end when nobody waits for them any more, however long they would still take."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np
import pytest

import ccx
from ccx import stopping
from ccx.kernels import branching as kernels
from ccx.pipeline.running import in_order

GIVEN_UP = 60.0  # seconds after which a job that nothing stops fails, so that the test ends


def endless(started: threading.Event) -> None:
    started.set()
    gave_up = threading.Event()
    threading.Timer(GIVEN_UP, gave_up.set).start()
    while not gave_up.wait(0.001):
        stopping.check()
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
            except stopping.Stopped:
                ended.append(True)
                raise
        started.wait(GIVEN_UP)
        if job == 2 and how == "fails":
            raise ZeroDivisionError
        return job

    results = in_order(work, list(range(9)), 2)
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


def test_the_signal_is_of_its_thread_alone() -> None:
    signal = threading.Event()
    signal.set()
    stopping.check()
    with pytest.raises(stopping.Stopped):
        stopping.stoppable(lambda _: stopping.check(), signal)(0)
    stopping.check()


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
    assert len(calls_after) <= 4  # what was being done, not what was left to do
    found = ccx.explain_bitmaps(bitmaps, masks, progress=False, **options)
    whole = ccx.explain_bitmaps(bitmaps, masks, progress=False, **options | {"out": tmp_path / "whole", "threads": 1})
    assert found == whole
    rows = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("run", "whole")]
    assert rows[0] == rows[1]
    assert max(one.evaluations for one in found) > 10_000
