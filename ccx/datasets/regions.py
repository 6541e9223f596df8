"""Regions of COCO: polygons and run lengths, checked before native code sees their numbers."""

from __future__ import annotations

import warnings
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ccx.errors import require_library

Size = tuple[int, int]
Runs = dict[str, Any]  # run lengths as pycocotools has them

_MOST_STEPS = 1 << 20  # pixels along the border of one polygon
_MOST_CHARACTERS = 7  # of a compressed run length: 35 bits


def coco_masks() -> Any:
    """Return the module of pycocotools that draws, or raise `MissingExtraError`."""
    require_library("pycocotools", "coco", "reading COCO instances")
    from pycocotools import mask  # noqa: PLC0415 - optional

    return mask


def check_region(segmentation: Any, size: Size) -> None:
    """Raise what `runs_of` would, without drawing."""
    _checked(segmentation, size)


def runs_of(segmentation: Any, size: Size) -> list[Runs]:
    """Return the run lengths of a segmentation on an image of `size` (h, w).

    A polygon of less than three points has no inside and gives nothing. Raises `ValueError`, which says what is
    wrong, if it is nothing that can be drawn there.
    """
    polygons, counts = _checked(segmentation, size)
    masks = coco_masks()
    if counts is not None:
        return [masks.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)]
    found: list[Runs] = masks.frPyObjects([polygon.tolist() for polygon in polygons], *size) if polygons else []
    return found


def decoded(runs: list[Runs], size: Size) -> npt.NDArray[np.bool_]:
    """Return the pixels that lie in any of the regions, bool[h, w]."""
    if not runs:
        return np.zeros(size, np.bool_)
    masks = coco_masks()
    with warnings.catch_warnings():
        # pycocotools 2.0.11 hands its pixels to NumPy 2 in a way that NumPy warns of, and that works.
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        pixels: npt.NDArray[np.bool_] = masks.decode(masks.merge(runs)).astype(np.bool_)
    return pixels


def _checked(segmentation: Any, size: Size) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.int64] | None]:
    """Return polygons float64[2n] of three points or more, or run lengths int64[m]."""
    if isinstance(segmentation, list):
        return [found for found in (_polygon(one, size) for one in segmentation) if found.size >= 6], None
    if not isinstance(segmentation, dict):
        _refuse(f"its segmentation is a {type(segmentation).__name__}, neither polygons nor run lengths")
    if segmentation.get("size") != list(size):
        _refuse(f"its size is {segmentation.get('size')!r:.60}")
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        runs = _uncompressed(counts)
    elif isinstance(counts, list) and all(type(count) is int and 0 <= count < 1 << 32 for count in counts):
        runs = np.array(counts, np.int64)
    else:
        _refuse("its run lengths are no whole numbers of at least 0")
    n_pixels = size[0] * size[1]
    if runs.size and int(runs.min()) < 0:
        _refuse(f"has a run of {runs.min()} pixels")
    if (total := int(runs.sum())) != n_pixels:
        _refuse(f"its runs cover {total} of {n_pixels} pixels")
    return [], _canonical(runs)


def _polygon(given: Any, size: Size) -> npt.NDArray[np.float64]:
    if not isinstance(given, list) or not all(type(number) in (int, float) for number in given):
        _refuse("has a polygon that is no list of numbers [x, y, x, y, ...]")
    if len(given) % 2:
        _refuse(f"has a polygon of {len(given)} numbers, an odd count")
    try:
        points = np.array(given, np.float64).reshape(-1, 2)
    except OverflowError:
        points = np.full((1, 2), np.inf)
    far, (height, width) = max(size), size
    is_near = (points >= -far) & (points <= (width + far, height + far))
    if not is_near.all():  # nor are NaN and infinity
        x, y = points[np.argmin(is_near.all(axis=1))]
        _refuse(f"has a point ({x:g}, {y:g}), far outside")
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() if points.size else 0
    if steps > _MOST_STEPS:
        _refuse(f"has a polygon with a border of {steps:.3g} pixels, more than {_MOST_STEPS}")
    return points.ravel()


def _uncompressed(text: str) -> npt.NDArray[np.int64]:
    """Read the run lengths in COCO's text: 5 bits a character, those of the third run on as differences."""
    codes = np.frombuffer(text.encode("ascii", "backslashreplace"), np.uint8).astype(np.int64) - 48
    if not text.isascii() or (codes.size and (codes.min() < 0 or codes.max() > 63)):
        _refuse("its compressed run lengths hold a character that these never have")
    is_last = codes < 32  # the sixth bit says that more follow
    ends = np.flatnonzero(is_last)
    if codes.size and not is_last[-1]:
        _refuse("its compressed run lengths end within a number")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    n_characters = ends - starts + 1
    if codes.size == 0:
        return np.zeros(0, np.int64)
    if n_characters.max() > _MOST_CHARACTERS:
        _refuse("its compressed run lengths hold a number of more than 32 bits")
    place = np.arange(codes.size) - np.repeat(starts, n_characters)
    runs: npt.NDArray[np.int64] = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << (5 * n_characters), 0)  # the sign of the last character
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _canonical(runs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the same runs without empty ones, save the first: of those, pycocotools has no room for any number."""
    kept = np.flatnonzero(runs)
    colors = kept % 2
    starts = np.flatnonzero(np.concatenate([[True], colors[1:] != colors[:-1]]))
    merged: npt.NDArray[np.int64] = np.add.reduceat(runs[kept], starts)
    return merged if colors[0] == 0 else np.concatenate([[0], merged])


def _refuse(problem: str) -> NoReturn:
    raise ValueError(problem)
