"""What the report draws: outlines of bitmaps as SVG paths, photographs as small JPEGs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccx.errors import CCXError, DTypeError, InputError, ShapeError
from ccx.images import open_image, rgb
from ccx.kernels.conversion import as_array, describe

if TYPE_CHECKING:
    import PIL.Image

_JPEG_QUALITY = 80


def drawable(bitmaps: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.bool_]:
    """Thin bool[n, H, W] to at most so many cells a side: every k-th row and column, the same k for both.

    Finer outlines would not be seen in a thumbnail, and cost bytes.
    """
    step = -(-max(bitmaps.shape[1:]) // most)
    rows, columns = (min(step // 2, n_cells - 1) for n_cells in bitmaps.shape[1:])
    return bitmaps[:, rows::step, columns::step]


def outline(bitmap: npt.NDArray[np.bool_]) -> str:
    """Return the boundary of bool[H, W] as closed SVG paths, to fill with the even-odd rule; "" of an empty one."""
    pieces = []
    for corners in loops(bitmap):
        x, y = corners[0]
        pieces.append(f"M{x} {y}")
        for number, (next_x, next_y) in enumerate(corners[1:]):
            pieces.append(f"v{next_y - y}" if number % 2 else f"h{next_x - x}")
            x, y = next_x, next_y
        pieces.append("z")
    return "".join(pieces)


def loops(bitmap: npt.NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the corners (x, y) of each closed line of the boundary of bool[H, W], from a horizontal edge on.

    The corners of the boundary pair up along each row of lattice points, first with second, third with fourth, ...,
    as these are the ends of its horizontal edges; along columns likewise. Following the two pairings in turn walks
    around. Where two regions touch at a point there are two corners, so that the pairings stay whole.
    """
    padded = np.pad(bitmap, 1)
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    turns = above_left ^ above_right ^ below_left ^ below_right
    touches = (above_left == below_right) & (above_right == below_left) & (above_left != above_right)
    n_corners = (turns + 2 * touches).ravel()
    corners = np.repeat(np.arange(n_corners.size), n_corners)
    rows, columns = np.divmod(corners, bitmap.shape[1] + 1)
    by_column = np.lexsort((rows, columns))
    partner = np.empty_like(by_column)
    partner[by_column[0::2]], partner[by_column[1::2]] = by_column[1::2], by_column[0::2]

    x, y, vertical = columns.tolist(), rows.tolist(), partner.tolist()
    seen = [False] * len(x)
    found = []
    for start in range(len(x)):
        if seen[start]:
            continue
        line = []
        here = start
        while True:
            across = here ^ 1  # corners stand in row order, so partners along a row are neighbours
            seen[here] = seen[across] = True
            line += [(x[here], y[here]), (x[across], y[across])]
            here = vertical[across]
            if here == start:
                break
        found.append(line)
    return found


@dataclass(frozen=True, slots=True)
class Photo:
    """A small photograph: a JPEG file, and width divided by height of the original."""

    jpeg: bytes
    aspect: float


def photo(image: Any, n_pixels: int, argument: str) -> Photo:
    """Return a photograph as a JPEG of at most `n_pixels` a side.

    `image` is uint8[H, W], [H, W, 3] or [H, W, 4], or float in [0, 1] of these shapes; a path; or the bytes of a file.
    `argument` names it in errors. Raises `DTypeError`, `ShapeError` or `InputError` if it is an array of another kind,
    or no image; `StoreError` if a file cannot be read.
    """
    from PIL import Image  # noqa: PLC0415 - only pictures need it; it comes with scikit-image

    picture = _picture(image, argument)
    aspect = picture.width / picture.height
    picture.thumbnail((n_pixels, n_pixels), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Photo(file.getvalue(), aspect)


def pixels_of(image: Any, argument: str) -> npt.NDArray[np.uint8]:
    """Return an image of `photo` as uint8[H, W, 3], in its own size; raises as `photo`."""
    return np.asarray(_picture(image, argument))


def check_photo(image: Any, argument: str) -> None:
    """Raise what `photo` would raise for an image; it is decoded only as finely as that takes."""
    _picture(image, argument, is_draft=True)


def _picture(image: Any, argument: str, is_draft: bool = False) -> PIL.Image.Image:
    """Decode an image of `photo`; as a draft, JPEGs of an eighth of their size."""
    from PIL import Image  # noqa: PLC0415 - only pictures need it; it comes with scikit-image

    if isinstance(image, (str, Path, bytes)):
        return open_image(image, argument if isinstance(image, bytes) else None, is_draft=is_draft)
    return rgb(Image.fromarray(_pixels(image, argument)), argument)


def _pixels(image: Any, argument: str) -> npt.NDArray[np.uint8]:
    """Return an array image as uint8[H, W] or [H, W, 3 or 4]."""
    try:
        array = as_array(image, argument)
    except CCXError as error:
        remedy = "give arrays uint8[H, W, 3], paths or bytes"
        raise InputError(argument, wanted="an image", got=type(image).__name__, remedy=remedy) from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ShapeError(argument, wanted="[H, W] or [H, W, 3]", got=describe(array), remedy="put the channels last")
    if array.dtype.kind == "f":
        array = np.clip(np.nan_to_num(array), 0, 1) * 255 + 0.5
    elif array.dtype != np.uint8:
        remedy = "scale the values to 0..255: image.astype(numpy.uint8)"
        raise DTypeError(argument, wanted="uint8, or float in [0, 1]", got=describe(array), remedy=remedy)
    pixels: npt.NDArray[np.uint8] = array.astype(np.uint8)
    return pixels
