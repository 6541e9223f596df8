"""Masks on small grids, for the published estimates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

KINDS = ("mmesh", "cfh", "areas")


GRIDS = [(1, 1), (1, 63), (8, 8), (5, 13), (13, 5), (3, 4)]


# What a concept or a formula looks like in a sample; "corner" is the cell that an empty box counts.
LOOKS = ("empty", "full", "noise", "blob", "corner", "all but the corner")


SCENES = ("empty", "full")


class Problem(NamedTuple):
    formulas: NDArray[np.bool_]  # bool[F, N, H, W]
    concepts: NDArray[np.bool_]  # bool[C, N, H, W]
    bitmap: NDArray[np.bool_]  # bool[N, H, W]


def masks_of(rng: np.random.Generator, n: int, n_samples: int, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Every mask has looks of its own: a scene, one look in all samples, or any."""
    masks = np.zeros((n, n_samples, *grid), np.bool_)
    for mask in masks:
        looks = (SCENES, rng.choice(LOOKS, 1), LOOKS)[rng.integers(3)]
        for cells in mask:
            look = rng.choice(looks)
            if look == "noise":
                cells[:] = rng.random(grid) < rng.random()
            elif look == "blob":
                row, col = rng.integers(0, grid[0] + 1, 2), rng.integers(0, grid[1] + 1, 2)
                cells[row.min() : row.max() + 1, col.min() : col.max() + 1] = True
            else:
                cells[:] = look in ("full", "all but the corner")
                cells[0, 0] = look in ("full", "corner")
    return masks


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid, n_samples = draw(st.sampled_from(GRIDS)), draw(st.integers(1, 4))
    formulas = masks_of(rng, draw(st.integers(1, 3)), n_samples, grid)
    concepts = masks_of(rng, draw(st.integers(1, 5)), n_samples, grid)
    return Problem(formulas, concepts, masks_of(rng, 1, n_samples, grid)[0])


CORNERS = np.array([[[[1, 0], [0, 0]]], [[[0, 1], [1, 1]]]], np.bool_)
