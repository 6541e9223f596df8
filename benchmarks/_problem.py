"""What `versus.py` gives to every system: masks, bitmaps, and their way to another process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import ccx
from benchmarks.synthetic import Synthetic, generate
from ccx.clustering import unit_ranges

CLUSTERS = 5

Masks = NDArray[np.bool_]


class Scale(NamedTuple):
    """The size of a problem; `step` thins out the 112×112 cells."""

    n_samples: int
    n_concepts: int
    step: int


SCALES = {"tiny": Scale(12, 10, 8), "small": Scale(200, 60, 2), "medium": Scale(1000, 150, 1)}


class Problem(NamedTuple):
    """What every system is given; only the peer uses `disjoint`."""

    masks: Masks  # bool[C, N, H, W]
    names: list[str]  # of the concepts
    disjoint: Masks  # bool[C, C]: concepts that share no cell, and the diagonal, as the peer's page has it
    bitmaps: Masks  # bool[K, N, H, W]

    def save(self, folder: Path) -> None:
        """Write bits, which are an eighth of the booleans."""
        arrays = {"masks": self.masks, "disjoint": self.disjoint, "bitmaps": self.bitmaps}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", np.packbits(array))
        (folder / "problem.json").write_text(
            json.dumps({"names": self.names, "shapes": {name: array.shape for name, array in arrays.items()}})
        )

    @classmethod
    def load(cls, folder: Path) -> Problem:
        """Read what `save` wrote."""
        facts = json.loads((folder / "problem.json").read_text())
        arrays = {
            name: np.unpackbits(np.load(folder / f"{name}.npy"), count=math.prod(shape)).view(np.bool_).reshape(shape)
            for name, shape in facts["shapes"].items()
        }
        return cls(names=facts["names"], **arrays)


def draw(scale: Scale, n_bitmaps: int) -> tuple[Synthetic, Problem, str]:
    """Make a problem; the bitmap of a unit holds the cells of the top cluster of its upsampled activations."""
    data = generate(scale.n_samples, n_bitmaps).reduced(scale.n_concepts, scale.step)
    grid = data.labels.shape[2:]
    masks = np.stack([cells_of(data, name) for name in data.names])
    bitmaps = np.empty((n_bitmaps, *masks.shape[1:]), np.bool_)
    for unit, bitmap in enumerate(bitmaps):
        maps = np.ascontiguousarray(data.activations[:, unit])
        packed = ccx.kernels.upsample_pack(maps, grid, unit_ranges(maps, clusters=CLUSTERS)[-1])
        bitmap[:] = ccx.kernels.unpack(packed, grid[0] * grid[1]).reshape(bitmap.shape)
    concepts = data.concepts()
    disjoint = (concepts.pair_sizes == 0) | np.eye(len(masks), dtype=np.bool_)
    shares = bitmaps.mean(axis=(1, 2, 3))
    facts = (
        f"{scale.n_samples:,} samples of {grid[0]}×{grid[1]} cells, {len(masks)} concepts, "
        f"{masks.any(axis=(2, 3)).sum() / scale.n_samples:.0f} of them a sample, {concepts.atoms.n_atoms:,} atoms; "
        f"{n_bitmaps} bitmaps of {shares.min():.1%} to {shares.max():.1%} of the cells"
    )
    return data, Problem(masks, data.names, disjoint, bitmaps), facts


def cells_of(data: Synthetic, name: str) -> Masks:
    """Return the cells of a concept from the label maps: bool[N, H, W]."""
    cells: Masks = (data.labels == data.names.index(name) + 1).any(axis=1)
    return cells
