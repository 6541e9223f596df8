"""A program for tests: probes in forked children, and kills them. Importing torch once is what takes the time.

``python -m tests.support.probe_killed FOLDER at-random|at-every-call`` prints JSON: the number of
kills, and of finished runs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import ccx
from ccx.probing import recording
from tests.support import probed_models

CALLS = ("open", "pwrite", "fsync", "ftruncate", "replace", "rename", "unlink", "mkdir")
N_RANDOM_KILLS = 20


N_SAMPLES = {"at-random": 60, "at-every-call": 9}


def probe(folder: Path) -> None:
    model = probed_models.net()
    images = probed_models.images(N_SAMPLES[sys.argv[2]])
    ccx.probe(model, images, ["layer1", "layer2.0"], batch_size=3, units=[0, 2], out=folder)


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def died_of(status: int) -> int:
    assert status == 0 or os.WIFSIGNALED(status), status
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def at_random(root: Path) -> tuple[int, int]:
    """Kill runs at random moments of their time until there were 20 kills and every run has ended."""
    started = time.perf_counter()
    os.waitpid(forked(lambda: probe(root / "timed")), 0)
    seconds = time.perf_counter() - started
    rng = random.Random(0)
    n_kills = n_finished = 0
    while n_kills < N_RANDOM_KILLS:
        folder = root / f"killed-{n_finished}"
        while True:
            pid = forked(lambda folder=folder: probe(folder))
            time.sleep(rng.uniform(0, seconds / 2))
            os.kill(pid, signal.SIGKILL)
            if not died_of(os.waitpid(pid, 0)[1]):
                break
            n_kills += 1
        check(root / "whole", folder)
        n_finished += 1
    return n_kills, n_finished


def at_every_call(root: Path) -> tuple[int, int]:
    """Kill a run at its n-th call of the operating system, for every n, and let another one go on."""
    n_calls = 0
    while True:
        folder = root / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        died = died_of(os.waitpid(forked(lambda n=n_calls, folder=folder: probe_until(folder, n)), 0)[1])
        if not died:
            return n_calls, 1
        assert died == signal.SIGKILL
        assert not died_of(os.waitpid(forked(lambda folder=folder: probe(folder)), 0)[1])
        check(root / "whole", folder)
        n_calls += 1


def probe_until(folder: Path, n_good: int) -> None:
    n_calls = 0

    def limited(function):
        def call(*args, **options):
            nonlocal n_calls
            n_calls += 1
            if n_calls > n_good:
                if function.__name__ == "pwrite":
                    function(args[0], args[1][: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    for name in CALLS:
        setattr(os, name, limited(getattr(os, name)))
    probe(folder)


def check(whole: Path, folder: Path) -> None:
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == names
    for name in names:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def main(root: Path, kind: str) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    recording.COMMIT_SECONDS = 0.0
    os.waitpid(forked(lambda: probe(root / "whole")), 0)
    assert np.load(root / "whole" / "layer1.npy").shape == (N_SAMPLES[kind], 2, 4, 5)
    n_kills, n_finished = {"at-random": at_random, "at-every-call": at_every_call}[kind](root)
    sys.stdout.write(json.dumps({"kills": n_kills, "finished": n_finished}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
