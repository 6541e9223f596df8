"""The parity cases, unpacked: inputs and what the published system answered (``parity/README.md``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "parity"
CASES = ("h1_tiny", "h3_odd", "h5_ties", "h7_rounding")
CASES_WITH_UNITS = CASES[:3]  # h7_rounding is one bitmap and its length-2 searches: see `ParityCase.other`


@dataclass(frozen=True, eq=False)
class Run:
    """One search of the published system."""

    heuristic: str  # "none", "mmesh", "cfh", "areas"
    length: int  # 1, 2, 3
    label: str  # "((1 OR 2) AND (NOT 3))", concepts numbered from 1; "" when it failed
    iou: np.float32
    visited: int
    error: str  # "" when it succeeded
    metrics: Mapping[str, float]  # of the formula found; NaN: not defined


@dataclass(frozen=True, eq=False)
class Exhaustive:
    """The best formulas of at most `length` distinct concepts, from a brute-force search."""

    length: int
    intersection: int
    union: int
    ties: int  # how many formulas reach it
    formulas: tuple[str, ...]  # up to ten of them


@dataclass(frozen=True, eq=False)
class Bitmap:
    """The cells of one range of one unit, and all that was found for it."""

    unit: int
    n_ranges: int
    range_index: int
    cells: NDArray[np.bool_]  # bool[N, H, W]
    unary_iou: NDArray[np.float32]  # float32[C]
    runs: tuple[Run, ...]  # empty for some ranges of n_ranges=5
    exhaustive: tuple[Exhaustive, ...]  # lengths 1, 2, 3; likewise
    other: Mapping[str, NDArray[Any]]  # "peer.*", "est.*"


@dataclass(frozen=True, eq=False)
class UnitRanges:
    """The ranges of one unit for one number of clusters."""

    unit: int
    ranges: NDArray[np.float64]  # float64[K, 2], ascending; empty when the published system failed
    error: str
    bitmaps: tuple[Bitmap, ...]

    @property
    def n_ranges(self) -> int:
        """1 (top quantile) or 5 (k-means)."""
        return len(self.ranges)


@dataclass(frozen=True, eq=False)
class ParityCase:
    """One case: what went in, what came out. Row c of the concept axis is concept c + 1."""

    name: str
    meta: Mapping[str, Any]
    masks: NDArray[np.bool_]  # bool[C, N, H, W]
    areas: NDArray[np.int32] | None  # int32[C, N]
    inscribed: (
        NDArray[np.int16] | None
    )  # int16[C, N, 2, 2], [[row0, col0], [row1, col1]] inclusive; empty: 0, 0, -1, -1
    boxes: NDArray[np.int16] | None  # int16[C, N, 2, 2], [[x0, y0], [x1, y1]] inclusive; empty: all zeros
    activations: NDArray[np.float32] | None  # float32[N, U, h, w]
    activations_after: NDArray[np.float32] | None  # float32[N, U, h, w], for the cosine metric
    units: tuple[UnitRanges, ...]
    other: Mapping[str, NDArray[Any]]  # keys that belong to this case alone

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.masks.shape[2], self.masks.shape[3]

    @property
    def bitmaps(self) -> tuple[Bitmap, ...]:
        """The bitmaps of all units, for all numbers of clusters."""
        return tuple(bitmap for ranges in self.units for bitmap in ranges.bitmaps)


@cache
def load_case(name: str) -> ParityCase:
    """Load one of `CASES`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta.json")))
    n_concepts, n_samples, height, width = map(int, arrays.pop("in.shape"))
    cells = _unpack(arrays.pop("in.masks_packed"), height, width)
    units = tuple(
        _unit_ranges(_pop(arrays, f"u{unit}.k{n_ranges}."), unit, meta, (height, width))
        for unit in range(meta.get("units", 0))
        for n_ranges in (1, 5)
    )
    return ParityCase(
        name=name,
        meta=MappingProxyType(meta),
        masks=cells.reshape(n_concepts, n_samples, height, width),
        areas=arrays.pop("ref.areas", None),
        inscribed=arrays.pop("ref.inscribed", None),
        boxes=arrays.pop("ref.bbox", None),
        activations=_samples_first(arrays.pop("in.act", None)),
        activations_after=_samples_first(arrays.pop("in.act_after", None)),
        units=units,
        other=MappingProxyType(arrays),
    )


def _unit_ranges(
    arrays: dict[str, NDArray[Any]], unit: int, meta: Mapping[str, Any], grid: tuple[int, int]
) -> UnitRanges:
    ranges = arrays.pop("ranges")
    bitmaps = tuple(
        _bitmap(_pop(arrays, f"c{index}."), (unit, len(ranges), index), meta, grid) for index in range(len(ranges))
    )
    return UnitRanges(unit, ranges, str(arrays.pop("error")), bitmaps)


def _bitmap(
    arrays: dict[str, NDArray[Any]], where: tuple[int, int, int], meta: Mapping[str, Any], grid: tuple[int, int]
) -> Bitmap:
    cells = _unpack(arrays.pop("bitmap_packed"), *grid)
    found = _pop(arrays, "runs.")
    runs = tuple(
        Run(
            heuristic=meta["heuristics"][row // 3],
            length=row % 3 + 1,
            label=str(found["label"][row]),
            iou=found["iou"][row],
            visited=int(found["visited"][row]),
            error=str(found["error"][row]),
            metrics=MappingProxyType(dict(zip(meta["metrics"], map(float, found["metrics"][row]), strict=True))),
        )
        for row in range(len(found.get("label", ())))
    )
    best = _pop(arrays, "exh.")
    exhaustive = tuple(
        Exhaustive(row + 1, int(cut), int(union), int(best["ties"][row]), tuple(str(best["formulas"][row]).split("; ")))
        for row, (cut, union) in enumerate(best.get("IU", ()))
    )
    return Bitmap(*where, cells, arrays.pop("unary_iou"), runs, exhaustive, MappingProxyType(arrays))


def _pop(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Move the arrays whose names begin with `prefix` into a dict of their own, without the prefix."""
    return {key.removeprefix(prefix): arrays.pop(key) for key in list(arrays) if key.startswith(prefix)}


def _unpack(packed: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    bits = np.unpackbits(packed, axis=-1, count=height * width, bitorder="little")
    return bits.view(np.bool_).reshape(*packed.shape[:-1], height, width)


def _samples_first(activations: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    return None if activations is None else np.ascontiguousarray(activations.swapaxes(0, 1))
