"""Concepts from a segmenter's predictions, where nobody has annotated the images.

Runs a semantic segmentation model of torchvision over a folder of pictures and writes what it sees as concepts, which
`ccx.explain` takes like any others:

    python examples/segmenter_concepts.py photos/ concepts.ccx --grid 112

Any model that gives one class per pixel can stand in its place, an open-vocabulary one too: write a `__getitem__` that
returns the picture and its map of class numbers. What such a model cannot see, no explanation will name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from ccx.concepts import Concepts
from ccx.datasets import Pairs
from ccx.images import read_image
from ccx.listing import picture_files

BACKGROUND = 0
SIDE = 520  # the shorter side of pictures, as the published weights were evaluated
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Predictions:
    """Pictures of a folder, each with the class that a model gives to its pixels.

    Pixels whose class is less probable than `least` are background.
    """

    def __init__(self, folder: Path, model: torch.nn.Module, *, side: int = SIDE, least: float = 0.0) -> None:
        self.images = picture_files(folder)
        self._model = model.eval()
        self._side = side
        self._least = least

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read_image(self.images[index])
        scale = self._side / min(pixels.shape[:2])
        size = tuple(round(length * scale) for length in pixels.shape[1::-1])
        resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        batch = torch.from_numpy((resized / 255 - MEAN) / STD).permute(2, 0, 1).float()[None]
        with torch.inference_mode():
            best = self._model(batch)["out"][0].softmax(dim=0).max(dim=0)
        classes = torch.where(best.values >= self._least, best.indices, BACKGROUND)
        return resized, classes.numpy()


def segmenter_concepts(
    folder: Path,
    model: torch.nn.Module,
    names: list[str],
    grid: tuple[int, int],
    out: Path | None = None,
    **options: Any,
) -> Concepts:
    """Return the concepts that a model sees in a folder of pictures; ``names[0]`` is the background, which is none."""
    pairs = Predictions(folder, model, **options)
    dataset = Pairs(pairs, dict(enumerate(names[1:], start=1)), none=BACKGROUND)
    # One worker: the network uses all processors by itself.
    return dataset.concepts(grid, workers=1, out=out)


def main() -> None:
    """Run a model with published weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="deeplabv3_resnet50")
    parser.add_argument("--grid", type=int, default=112, help="cells a side")
    parser.add_argument("--least", type=float, default=0.0, help="least probability of a class")
    arguments = parser.parse_args()
    weights = torchvision.models.get_model_weights(arguments.model).DEFAULT
    model = torchvision.models.get_model(arguments.model, weights=weights)
    grid = (arguments.grid, arguments.grid)
    categories = weights.meta["categories"]
    print(segmenter_concepts(arguments.folder, model, categories, grid, arguments.out, least=arguments.least))


if __name__ == "__main__":
    main()
