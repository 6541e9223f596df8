"""ccx inside another tool: called from its threads, with its callback; nothing printed, no global state touched."""

from __future__ import annotations

import locale
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import ccx

N, GRID = 5, (6, 9)


def layer(seed: int, n_units: int = 6) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(N, n_units, 3, 3)).astype(np.float32)
    values[:, 1] = 0  # a silent unit: divisions by zero and empty slices would show up as warnings
    return np.maximum(values, 0)


def made_concepts() -> ccx.Concepts:
    return ccx.Concepts.from_label_maps(np.random.default_rng(0).integers(0, 5, (N, 2, *GRID)), list("abcd"))


def global_state() -> dict[str, Any]:
    state = {
        "numba threads": numba.get_num_threads(),
        "warning filters": list(warnings.filters),
        "floating point errors": np.geterr(),
        "NumPy's random numbers": [str(part) for part in np.random.get_state()],  # noqa: NPY002 - what others may use
        "Python's random numbers": random.getstate(),
        "print options": np.get_printoptions(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "loggers": (logging.root.level, list(logging.root.handlers)),
        "recursion": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr, threading.excepthook),
    }
    if "torch" in sys.modules:
        import torch

        state["torch"] = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_rng_state().tolist())
    return state


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever runs inside leaves the global state as it was, and starts no thread that stays (others may end)."""
    before, threads = global_state(), set(threading.enumerate())
    yield
    assert global_state() == before
    assert set(threading.enumerate()) <= threads


def test_several_threads_of_another_tool(capfd: pytest.CaptureFixture[str]) -> None:
    """The loop of a tool that explains layers in parallel and shows its own progress."""
    concepts = made_concepts()  # shared, its caches still empty
    layers = [layer(seed) for seed in range(8)]
    calls: dict[int, list[tuple[int, int]]] = {index: [] for index in range(8)}
    callers: dict[int, set[int]] = {index: set() for index in range(8)}
    started = threading.Barrier(4)

    def explain(index: int) -> ccx.Explanations:
        if index < 4:
            started.wait(timeout=60)

        def show(done: int, total: int) -> None:
            calls[index].append((done, total))
            callers[index].add(threading.get_ident())

        found = ccx.explain(layers[index], concepts, clusters=2, threads=1, progress=show)
        assert callers[index] == {threading.get_ident()}  # called back on the thread of the caller
        return found

    with untouched(), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(explain, range(8)))
    assert capfd.readouterr() == ("", "")
    for index in range(8):
        assert calls[index] == [(done, 6) for done in range(7)]
        assert found[index] == ccx.explain(layers[index], made_concepts(), clusters=2, threads=1)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_global_state_is_touched(threads: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    concepts = made_concepts()
    with untouched():
        with np.errstate(all="raise"):
            inside = np.geterr()
            found = ccx.explain(layer(0), concepts, threads=threads, out=tmp_path / "run", top=3)
            assert np.geterr() == inside
        repr(found)
        found.save(tmp_path / "found.json")
        concepts.save(tmp_path / "concepts")
        concepts.validate()
        concepts.subset(["a", "b"]).mask("(a AND NOT b)")
    assert capfd.readouterr() == ("", "")


def test_inputs_are_not_changed() -> None:
    activations, labels = layer(0), np.random.default_rng(0).integers(0, 5, (N, 2, *GRID))
    copies = activations.copy(), labels.copy()
    for array in (activations, labels):
        array.flags.writeable = False
    concepts = ccx.Concepts.from_label_maps(labels, list("abcd"))
    content = concepts.content_hash
    ccx.explain(activations, concepts)
    np.testing.assert_array_equal(activations, copies[0])
    np.testing.assert_array_equal(labels, copies[1])
    concepts.validate()
    assert ccx.Concepts(concepts.atoms, concepts.names).content_hash == content


def test_threads_of_a_call_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``threads=1`` no other thread is started at all; with 2, never more than 2 work at a time."""
    started: list[str] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    concepts = ccx.Concepts.from_label_maps(
        np.random.default_rng(0).integers(0, 5, (N, 2, *GRID)), list("abcd"), threads=1
    )
    ccx.explain(layer(0), concepts, threads=1)
    ccx.explain_bitmaps(concepts.mask("a", threads=1)[None], concepts, threads=1)
    concepts.subset(["a", "b"], samples=[0, 2], threads=1).packed_rows(threads=1)
    assert started == []
    ccx.explain(layer(0), concepts, threads=2)
    assert len(started) <= 2


def test_after_fork() -> None:
    """A tool that forks workers (as data loaders do) can call ccx in them."""
    concepts, activations = made_concepts(), layer(0)
    expected = ccx.explain(activations, concepts, threads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads behind
        child = os.fork()
    if child == 0:
        os._exit(0 if ccx.explain(activations, concepts, threads=2) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fresh_process_prints_nothing(tmp_path: Path) -> None:
    """No banner, no warning, no bar: also with all warnings on and output that is no terminal."""
    program = """
        import numpy as np, ccx
        masks = np.random.default_rng(0).random((3, 4, 5, 6)) < 0.5
        found = ccx.explain(np.random.default_rng(1).random((4, 2, 5, 6), np.float32), masks)
        assert len(found) == 10
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(ccx.__file__).parents[1])},
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("torch")
def test_in_a_loop_with_torch(capfd: pytest.CaptureFixture[str]) -> None:
    """Activations straight from a model under training, on the thread that trains it."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 6, 3)
    images = torch.rand(N, 3, 8, 11)
    concepts = made_concepts()
    output = model(images)
    with untouched():
        found = ccx.explain(output, concepts, threads=1)
    assert output.requires_grad
    output.sum().backward()  # the graph is still there
    assert model.weight.grad is not None
    assert found == ccx.explain(output.detach().numpy(), concepts)
    assert capfd.readouterr() == ("", "")
