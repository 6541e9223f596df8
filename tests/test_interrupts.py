"""A Ctrl-C is never lost: at random moments, with threads and with workers, in the library and in the command."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

# Works again and again, and is interrupted at random moments; a timer raises the signal wherever Python then is.
PROGRAM = """
    import random, shutil, signal, sys, time
    from pathlib import Path
    import numpy as np
    import PIL.Image
    import ccx
    from ccx.datasets import Folder

    kind, n_moments, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    random.seed(kind)
    rng = np.random.default_rng(0)
    masks = rng.random((12, 20, 8, 8)) < 0.4
    activations = rng.random((20, 8, 8, 8), np.float32)
    for name in ("images", "labels"):
        (folder / name).mkdir()
        for i in range(40):
            PIL.Image.fromarray(rng.integers(0, 3, (16, 16)).astype(np.uint8)).save(folder / name / f"{i}.png")
    if kind == "probe":
        import torch
        torch.set_num_threads(1)
        network, images = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)), torch.zeros(256, 1, 16, 16)

    def explain(**options):
        return ccx.explain(activations, masks, clusters=2, progress=False, out=folder / "out", **options).to_records()

    def concepts():
        data = Folder(folder / "images", folder / "labels", names=["a", "b"])
        return data.concepts(out=folder / "out.ccx", workers=2, progress=False).content_hash

    def probe():
        return ccx.probe(network, images, "0", out=folder / "out", progress=False).tobytes()

    work = {
        "threads=1": lambda: explain(threads=1),
        "threads=2": lambda: explain(threads=2),
        "optimal": lambda: explain(threads=2, search="optimal"),
        "workers": concepts,
        "probe": probe,
    }[kind]

    def clean():
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out.ccx").unlink(missing_ok=True)

    fired = []
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: (fired.append(1), signal.raise_signal(signal.SIGINT)))
    whole = work()
    clean()
    begun = time.perf_counter()
    assert work() == whole
    seconds = time.perf_counter() - begun
    clean()
    n_interrupted = n_lost = 0
    while n_interrupted < n_moments:
        fired.clear()
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, seconds))
            found = work()
            signal.setitimer(signal.ITIMER_REAL, 0)
            n_lost += bool(fired)
            assert found == whole
            clean()
        except KeyboardInterrupt:
            n_interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert work() == whole
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print(n_lost)
"""
COMMAND = """
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a pytest in the background ignores it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    install = signal.signal

    def installed(*arguments):  # what comes before, Python shows
        before = install(*arguments)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return before

    signal.signal = installed
    from ccx.__main__ import main
    os.write(2, b"ready\\n")
    main()
"""
MANY = pytest.param(200, marks=pytest.mark.nightly)
KINDS = ["threads=1", "threads=2", "optimal", "workers", pytest.param("probe", marks=pytest.mark.needs("torch"))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_moments", [20, MANY])
def test_the_library_hears_every_interrupt(kind: str, n_moments: int, tmp_path: Path) -> None:
    arguments = [kind, str(n_moments), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize("n_moments", [6, MANY])
def test_the_command_ends_with_130(n_moments: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "masks.npy", rng.random((12, 30, 8, 8)) < 0.4)
    np.save(tmp_path / "activations.npy", rng.random((30, 12, 8, 8), np.float32))
    command = [sys.executable, "-c", textwrap.dedent(COMMAND), "explain", "activations.npy", "--masks", "masks.npy"]

    def run(out: str, seconds: float | None = None) -> tuple[int, str, float]:
        process = subprocess.Popen(
            [*command, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        with process:
            assert process.stderr is not None
            assert process.stderr.readline() == "ready\n"
            begun = time.perf_counter()
            if seconds is not None:
                time.sleep(seconds)
                process.send_signal(signal.SIGINT)
            said = process.stderr.read()
        return process.returncode, said, time.perf_counter() - begun

    def rows_of(out: str) -> bytes:
        return (tmp_path / out / "rows.jsonl").read_bytes()

    status, _, whole = run("whole")
    assert status == 0
    random.seed(0)
    n_stopped = 0
    for i in range(n_moments):
        status, said, _ = run("out", 0.0 if i == 0 else random.uniform(0, whole))
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        # Each may have ended before. While Python ends, the system stops it, which a shell calls 130, too.
        assert status in (0, 130, -signal.SIGINT), said
        assert status != 130 or said.endswith("stopped\n")
        if status != 130:
            assert rows_of("out") == rows_of("whole")
            shutil.rmtree(tmp_path / "out")
        n_stopped += status == 130
    assert n_stopped > 0
    assert run("out")[0] == 0
    assert rows_of("out") == rows_of("whole")
