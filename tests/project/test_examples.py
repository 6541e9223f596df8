"""The examples run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ccx
from tests.support.picture_files import png, write

FOLDER = Path(__file__).parents[2] / "examples"


def load(name: str) -> Any:
    path = FOLDER / f"{name}.py"
    if not path.exists():
        pytest.skip("the examples lie in the checkout, and these tests run without it")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.needs("torch")
def test_predictions_of_a_segmenter_become_concepts(tmp_path: Path) -> None:
    import torch

    pytest.importorskip("torchvision")
    example = load("segmenter_concepts")

    class Reddest(torch.nn.Module):
        """Class 1 where there is more red than green, class 2 the other way round, with little certainty in grey."""

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            difference = 4 * (x[:, 0] * example.STD[0] + example.MEAN[0] - x[:, 1] * example.STD[1] - example.MEAN[1])
            return {"out": torch.stack([-100 + 0 * difference, difference, -difference], dim=1)}

    red, green, grey = (255, 0, 0), (0, 255, 0), (120, 119, 118)
    for name, colors in (("b.png", [red, green]), ("a.png", [grey, red])):
        pixels = np.repeat(np.repeat(np.array([colors], np.uint8), 16, axis=0), 16, axis=1)
        write(tmp_path / name, png(pixels))
    names = ["__background__", "red", "green"]
    out = tmp_path / "c.ccx"
    concepts = example.segmenter_concepts(tmp_path, Reddest(), names, (4, 8), out, side=16, least=0.9)
    assert concepts.names == ("red", "green")
    left = np.tile(np.arange(8) < 4, (4, 1))
    np.testing.assert_array_equal(concepts.mask("red"), [~left, left])  # a.png, b.png; grey is background
    np.testing.assert_array_equal(concepts.mask("green"), [left & False, ~left])
    assert ccx.Concepts.load(out).content_hash == concepts.content_hash


@pytest.mark.needs("torch")
def test_a_segmenter_of_torchvision(tmp_path: Path) -> None:
    import torch

    torchvision = pytest.importorskip("torchvision")
    example = load("segmenter_concepts")
    torch.manual_seed(0)
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        write(tmp_path / name, png(rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)))
    names = [f"class {k}" for k in range(21)]
    concepts = example.segmenter_concepts(tmp_path, model, names, (5, 6), side=40)
    predictions = example.Predictions(tmp_path, model, side=40)
    for index in range(2):
        classes = predictions[index][1][4::8, 4::8]
        for number in range(1, 21):
            np.testing.assert_array_equal(concepts.mask(f'"class {number}"')[index], classes == number)
