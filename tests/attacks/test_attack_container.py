"""In a container of 1.6 GB: what is too large ends in the memory error before work starts; nothing is ever killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx.errors import MemoryBudgetError

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
N_BYTES = 1_600_000_000
_GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def members() -> Iterator[Path]:
    """Return the file that takes the processes of a group with so much memory."""
    v1 = _GROUPS / "memory"
    group = (v1 if v1.is_dir() else _GROUPS) / f"ccx-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")
    try:
        group.mkdir()
        if not limit.exists():
            pytest.skip("groups here do not count memory")
        limit.write_text(str(N_BYTES))
        yield group / "cgroup.procs"
    except OSError as error:
        pytest.skip(f"no group of limited memory may be made ({error})")
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def labels(n: int) -> np.ndarray:
    """Return label maps whose rectangles differ from sample to sample, uint8[n, 112, 112]."""
    rng, made = np.random.default_rng(0), np.zeros((n, 112, 112), np.uint8)
    for image, (top, left, height, width, label) in zip(made, rng.integers(1, 60, (n, 5)), strict=True):
        image[top : top + height, left : left + width] = label % 20 + 1
    return made


def concepts(n: int) -> ccx.Concepts:
    return ccx.Concepts.from_label_maps(labels(n), [f"c{number}" for number in range(20)])


def build(n: int) -> None:
    concepts(n)


def explain(n: int, permutations: int = 0) -> None:
    maps = np.random.default_rng(1).standard_normal((n, 4, 7, 7), np.float32)
    ccx.explain(maps, concepts(n), clusters=1, length=2, permutations=permutations, progress=False)


def probe(n: int, out: str = "") -> None:
    import torch

    images = np.broadcast_to(np.random.default_rng(2).integers(0, 255, (1, 64, 64, 3), np.uint8), (n, 64, 64, 3))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3))
    network = ccx.models.NamedModel("net", "none", net, ("0",), ccx.models.Preprocessing(size=(64, 64)))
    found = ccx.probe(network, images, "0", out=out or None, progress=False)
    assert found.shape == (n, 32, 62, 62)


@pytest.mark.parametrize(
    ("call", "ends"),
    [
        ("build(10_000)", "done"),
        ("build(60_000)", "refused"),
        ("explain(4_000)", "done"),
        ("explain(1_000, 5)", "done"),
        ("explain(1_000, 2_000_000)", "refused"),
        ("explain(60_000)", "refused"),
        pytest.param("probe(5_000)", "refused", marks=pytest.mark.needs("torch")),
        pytest.param("probe(5_000, {out!r})", "done", marks=pytest.mark.needs("torch")),
    ],
)
def test_in_a_container(members: Path, tmp_path: Path, call: str, ends: str) -> None:
    words = [sys.executable, "-m", "tests.attacks.test_attack_container", call.format(out=str(tmp_path / "probe"))]
    inside = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(members), *words]
    done = subprocess.run(inside, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout.split()[-1:] == [ends], done.stdout


if __name__ == "__main__":
    try:
        eval(sys.argv[1])  # one of the calls above
        sys.stdout.write("done")
    except MemoryBudgetError as error:
        sys.stdout.write(f"{error}\nrefused")
