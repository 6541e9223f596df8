"""The eleven basic colour names, given to pixels in CIELAB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BASIC_COLORS = {
    "black": (20, 20, 20),
    "blue": (50, 75, 130),
    "brown": (110, 70, 40),
    "gray": (128, 128, 128),
    "green": (90, 115, 60),
    "orange": (230, 130, 40),
    "pink": (235, 150, 175),
    "purple": (120, 60, 140),
    "red": (190, 40, 40),
    "white": (240, 240, 240),
    "yellow": (230, 215, 70),
}
"""One sRGB colour for each basic colour term of English.

The terms are those of Berlin and Kay (Basic Color Terms: Their Universality and Evolution, 1969); one point for each is
our coarse choice, set by eye on photographs.
"""


def nearest(lab: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the index in `BASIC_COLORS` of the colour nearest in CIELAB (CIE76): float[..., 3] -> intp[...]."""
    from skimage.color import rgb2lab  # noqa: PLC0415 - slow to import

    anchors = rgb2lab(np.array(list(BASIC_COLORS.values()), np.uint8))
    found: npt.NDArray[np.intp] = np.linalg.norm(lab[..., None, :] - anchors, axis=-1).argmin(axis=-1)
    return found


def color_indices(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Return the index in `BASIC_COLORS` of each pixel's name: uint8[H, W, 3] in sRGB -> intp[H, W]."""
    from skimage.color import rgb2lab  # noqa: PLC0415 - slow to import

    return nearest(rgb2lab(pixels))
