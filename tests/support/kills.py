"""A program for tests: does work in forked children, and kills them. Importing torch once is what takes the time.

``python -m tests.support.kills FOLDER WORK at-random|at-every-call N`` prints JSON: the number of kills (N of them at
random moments), and of runs that ended well. WORK is what leaves files that a later run goes on with.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import ccx
from ccx.datasets import Pairs
from ccx.errors import StoreError
from ccx.pipeline import explaining
from ccx.studies import Experiment

CALLS = ("open", "pwrite", "fsync", "ftruncate", "replace", "rename", "unlink", "mkdir")
UNLIKE = {"timings.jsonl"}  # what no two runs have in common
N_PICTURES = 24


def explain(folder: Path) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 30, 4, 4)).astype(np.float32)
    concepts = ccx.Concepts.from_label_maps(rng.integers(0, 6, (4, 2, 8, 8)), [f"concept {c}" for c in range(5)])
    ccx.explain(maps, concepts, clusters=3, length=2, top=2, out=folder, progress=False)


def pictures() -> Pairs:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (N_PICTURES, 24, 24, 3), np.uint8)
    return Pairs(list(zip(images, rng.integers(0, 5, (N_PICTURES, 24, 24)), strict=True)), list("abcd"))


def concepts(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    while True:
        try:
            pictures().concepts((12, 12), workers=2, progress=False, out=folder / "c.ccx")
            return
        except StoreError as error:
            if "another process builds here" not in str(error):  # workers of the killed one, about to end
                raise
            time.sleep(0.01)


def probe(folder: Path, n_samples: int = 60) -> None:
    from tests.support import probed_models

    images = probed_models.images(n_samples)
    ccx.probe(probed_models.net(), images, ["layer1", "layer2.0"], batch_size=3, units=[0, 2], out=folder)


def run(folder: Path) -> None:
    """Do what ``ccx run`` does: concepts, activations, explanations, report."""
    from tests.support import probed_models

    preprocessing = ccx.models.Preprocessing(size=(24, 24))
    network = ccx.models.NamedModel("net", "none", probed_models.net(), ("layer1",), preprocessing)
    folders = {name: folder / name for name in ("segmentations", "activations", "results")}
    study = Experiment(pictures(), network, name="d", clusters=2, length=2, progress=False, batch_size=4, **folders)
    study.found("layer1")
    study.report("layer1")


WORKS: dict[str, Callable[[Path], None]] = {one.__name__: one for one in (explain, concepts, probe, run)}


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # shown, as the process ends here
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def died_of(pid: int) -> int:
    status = os.waitpid(pid, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), status
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def at_random(root: Path, work: Callable[[Path], None], n: int) -> tuple[int, int]:
    """Kill runs at random moments of their time until there were `n` kills and every run has ended."""
    started = time.perf_counter()
    assert not died_of(forked(partial(work, root / "timed")))
    seconds = time.perf_counter() - started
    rng = random.Random(0)
    n_kills = n_finished = 0
    while n_kills < n:
        folder = root / f"killed-{n_finished}"
        while True:
            pid = forked(partial(work, folder))
            time.sleep(rng.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
            if not died_of(pid):
                seconds *= 0.8  # the machine is less busy than it was
                break
            n_kills += 1
            seconds *= 1.02
        check(root / "whole", folder)
        shutil.rmtree(folder)
        n_finished += 1
    return n_kills, n_finished


def at_every_call(root: Path, work: Callable[[Path], None]) -> tuple[int, int]:
    """Kill a run at its n-th call of the operating system, for every n, and let another one go on."""
    n_calls = 0
    while True:
        folder = root / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        died = died_of(forked(partial(work_until, work, folder, n_calls)))
        if not died:
            return n_calls, 1
        assert died == signal.SIGKILL
        assert not died_of(forked(partial(work, folder)))
        check(root / "whole", folder)
        n_calls += 1


def work_until(work: Callable[[Path], None], folder: Path, n_good: int) -> None:
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
    work(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder that are no private matter of ccx."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name not in UNLIKE]
    return {str(path): (folder / path).read_bytes() for path in paths if not any(part[0] == "." for part in path.parts)}


def check(whole: Path, folder: Path) -> None:
    wanted, found = contents(whole), contents(folder)
    unlike = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    assert not unlike, unlike


def main(root: Path, name: str, moments: str, n: int) -> None:
    work = WORKS[name]
    explaining._FLUSH_SECONDS = 0.0
    if name in ("probe", "run"):
        import torch

        from ccx.probing import recording

        torch.set_num_threads(1)  # threads do not survive a fork
        recording.COMMIT_SECONDS = 0.0
    if moments == "at-every-call":
        work = partial(probe, n_samples=9)
    work(root / "whole")  # here: what the children need is compiled then
    assert contents(root / "whole")
    n_kills, n_finished = at_random(root, work, n) if moments == "at-random" else at_every_call(root, work)
    sys.stdout.write(json.dumps({"kills": n_kills, "finished": n_finished}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
