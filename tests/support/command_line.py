"""The command line in this process, on little data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import ccx
from ccx.cli import app

NAMES = ["sky", "tree", "road [1]", "[red]car[/red]"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def data(tmp_path):
    """Write activations, label maps, masks, names and images of 6 samples of 8×8 cells."""
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 2, 8, 8), np.int32)
    labels[:, 0] = rng.integers(0, 3, (6, 8, 8))
    labels[:, 1] = np.where(rng.random((6, 8, 8)) < 0.5, 3, 4)
    masks = np.stack([(labels == c + 1).any(axis=1) for c in range(4)])
    activations = rng.standard_normal((6, 3, 8, 8), np.float32)
    activations[:, 2] = 0
    activations[:, 1] = np.where(masks[0] & ~masks[3], 5 + rng.random((6, 8, 8)), rng.random((6, 8, 8)))
    np.save(tmp_path / "activations.npy", activations)
    np.savez(tmp_path / "arrays.npz", activations=activations, other=activations[:, :1])
    save_file({"layer4": activations}, tmp_path / "activations.safetensors")
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "masks.npy", masks)
    np.save(tmp_path / "images.npy", rng.integers(0, 255, (6, 16, 16, 3)).astype(np.uint8))
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    (tmp_path / "names.json").write_text(json.dumps({"names": NAMES, "categories": list("aabb")}))
    (tmp_path / "names.csv").write_text("name,category\n" + "".join(f"{name},c\n" for name in NAMES))
    return tmp_path


def expected(data, **settings):
    labels, activations = np.load(data / "labels.npy"), np.load(data / "activations.npy")
    concepts = ccx.Concepts.from_label_maps(labels, NAMES)
    return ccx.explain(activations, concepts, progress=False, **settings)
