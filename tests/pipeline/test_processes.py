"""Forked workers: results in order, errors, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ccx.errors import CCXError, InputError
from ccx.jobs import check_workers, in_processes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("n_jobs", [0, 1, 7])
def test_results_come_in_order(n_workers: int, n_jobs: int) -> None:
    def work(job: int) -> tuple[int, np.ndarray]:
        time.sleep(0.01 * (job % 3))
        return job, np.full(100_000, job)

    found = list(in_processes(work, range(10, 10 + n_jobs), n_workers))
    assert [job for job, _ in found] == list(range(10, 10 + n_jobs))
    assert all((array == job).all() for job, array in found)
    assert not multiprocessing.active_children()


def test_work_happens_in_other_processes() -> None:
    pids = set(in_processes(lambda _: (time.sleep(0.02), os.getpid())[1], range(6), 2))
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_few_results_wait() -> None:
    started = multiprocessing.get_context("fork").Value("i", 0)

    def work(job: int) -> int:
        with started.get_lock():
            started.value += 1
        return job

    results = in_processes(work, range(100), 2)
    assert next(results) == 0
    time.sleep(0.2)
    assert started.value <= 1 + 2 * 3
    results.close()
    assert not multiprocessing.active_children()


def test_errors_carry_the_traceback() -> None:
    def work(job: int) -> int:
        if job == 3:
            raise KeyError("the fourth")
        return job

    results = in_processes(work, range(6), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match=r"in a worker process:[\s\S]*the fourth"):
        next(results)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_told() -> None:
    def work(job: int) -> int:
        if job == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    with pytest.raises(CCXError, match=r"a worker process ended with status -9 .* fewer workers"):
        list(in_processes(work, range(6), 2))
    assert not multiprocessing.active_children()


def test_inside_a_worker_there_are_no_more(tmp_path: Path) -> None:
    found = list(in_processes(lambda job: list(in_processes(lambda k: k * job, range(3), 2)), range(4), 2))
    assert found == [[0, job, 2 * job] for job in range(4)]


PROGRAM = """
import os, sys, time
from ccx.jobs import in_processes
def work(job):
    open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
    time.sleep(0.05)
    return job
for job in in_processes(work, range(1000), 3):
    pass
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + textwrap.dedent(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 3
    process.send_signal(number)
    process.wait(30)
    stderr = process.stderr.read().decode()
    process.stderr.close()
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, workers))
    if number is signal.SIGINT:
        assert stderr.count("Traceback") == 1  # that of the caller, none of workers
        assert "KeyboardInterrupt" in stderr


def test_numbers_of_workers() -> None:
    assert check_workers(None) == len(os.sched_getaffinity(0))
    assert check_workers(3) == 3
    for workers in (0, -1, 1.5, True, "2"):
        with pytest.raises(InputError, match="workers: expected None or an integer >= 1"):
            check_workers(workers)
