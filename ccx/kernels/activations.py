"""Activations: bilinear upsampling, open ranges, and what is counted or packed in the same pass.

The value of each cell is fixed to the last bit: float32, horizontal then vertical, ``a * l0 + b * l1``,
no fused multiply-add, and ``a`` itself where l1 is 0. So what has no weight for a cell has no influence
on it, not even NaN, and a cell on a sample, or on an axis of one sample, has exactly its value. Against
torch's ``interpolate(mode="bilinear", align_corners=False)`` cells may differ only where the value is
within 4 units in the last place of an end point (counted at the size of the summed terms, where they
cancel), as torch's own order varies with memory layout. Positions and weights are torch's to the bit
(half-pixel centres, clamped at 0).

A range (lower, upper) is open at both ends, as in the published system: a cell equal to an end point
belongs to no range. NaN and infinite values belong to no range, except -inf < x < inf for finite x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.jobs import check_threads
from ccx.kernels.atoms import Atoms, check_atoms
from ccx.kernels.backend import backend_for
from ccx.kernels.conversion import as_array, as_floats, describe, on_gpu, reordered, require_host
from ccx.kernels.ieee import ieee
from ccx.kernels.rows import as_rows, check_padding, n_words
from ccx.kernels.shapes import check_grid
from ccx.memory import require_bytes
from ccx.typing import Float32Array

__all__ = ["bitmap_histogram", "range_histogram", "upsample", "upsample_pack"]


class Axis(NamedTuple):
    """Where the cells of one axis lie between its samples: cell x = near * w_near + far * w_far, near if w_far is 0."""

    near: npt.NDArray[np.int64]
    far: npt.NDArray[np.int64]
    w_near: Float32Array
    w_far: Float32Array


class Grid(NamedTuple):
    """How h×w activations spread over H×W cells.

    `bands` cuts the H rows into runs between the same two source rows; `identity` says that the two
    grids are equal, so that nothing is interpolated.
    """

    rows: Axis
    cols: Axis
    bands: npt.NDArray[np.int64]
    identity: bool


_LARGE = 1 << 24  # bytes, below which memory is not looked at


def axis_positions(n_samples: int, n_cells: int) -> Axis:
    """Lay the cells of an axis between its samples: half-pixel centres, clamped at the first, to the bit as torch does.

    Its scale is a float32 and ``scale * (x + 0.5) - 0.5`` one fused multiply-add: rounded once, which
    float64, exact here, gives too.
    """
    scale = np.float32(n_samples) / np.float32(n_cells)
    exact = np.float64(scale) * (np.arange(n_cells) + 0.5) - 0.5
    centres = np.maximum(exact, 0).astype(np.float32)
    near = np.minimum(centres.astype(np.int64), n_samples - 1)
    far = np.minimum(near + 1, n_samples - 1)
    w_far = np.clip(centres - near.astype(np.float32), np.float32(0), np.float32(1))
    if n_samples == 1:
        w_far[:] = 0  # two weights of the one value would round it
    return Axis(near, far, np.float32(1) - w_far, w_far)


def grid_of(source: tuple[int, int], shape: tuple[int, int]) -> Grid:
    """Lay h×w activations over H×W cells."""
    if 64 * max(shape) > _LARGE:
        require_bytes("shape", 64 * sum(shape), "ask for a coarser grid")
    rows, cols = axis_positions(source[0], shape[0]), axis_positions(source[1], shape[1])
    changes = np.flatnonzero(np.diff(rows.near)) + 1  # far follows near
    identity = source == shape
    bands = np.arange(shape[0] + 1) if identity else np.concatenate(([0], changes, [shape[0]]))
    return Grid(rows, cols, bands.astype(np.int64), identity)


@ieee
def upsample(activations: Any, shape: tuple[int, int], *, threads: int | None = None) -> Float32Array:
    """Spread activations over the grid: float32[..., h, w] -> float32[..., H, W].

    Raises
    ------
    ShapeError, DTypeError
        If `activations` is not float[..., h, w] with h, w >= 1, or `shape` no pair of integers >= 1.

    """
    maps, leading = _maps(activations)
    shape = check_grid(shape, 1)
    grid = grid_of(maps.shape[1:], shape)
    n_bytes = 4 * len(maps) * shape[0] * shape[1]
    if n_bytes > _LARGE:
        require_bytes("activations", n_bytes, "give fewer units or samples at a time, or use upsample_pack")
    values: Float32Array = backend_for(maps).activations.upsample(maps, grid, check_threads(threads))
    return values.reshape(*leading, *values.shape[1:])


@ieee
def upsample_pack(
    activations: Any, shape: tuple[int, int], limits: tuple[float, float], *, threads: int | None = None
) -> npt.NDArray[np.uint64]:
    """Pack the cells whose upsampled activation lies inside an open range, in one pass.

    float32[..., h, w] -> uint64[..., n_words], one packed row of H·W bits per map.

    Raises
    ------
    ShapeError, DTypeError
        If `activations` is not float[..., h, w] with h, w >= 1, `shape` no pair of integers >= 1, or
        `limits` no pair of numbers.
    InputError
        If the range is not lower < upper.

    """
    maps, leading = _maps(activations)
    shape = check_grid(shape, 1)
    grid = grid_of(maps.shape[1:], shape)
    pair = _numbers(limits, "limits")
    if pair.shape != (2,):
        raise ShapeError("limits", wanted="(lower, upper)", got=describe(pair), remedy="pack one range a call")
    lower, upper = thresholds(pair[None], "limits")
    n_bytes = 8 * len(maps) * n_words(shape[0] * shape[1])
    if n_bytes > _LARGE:
        require_bytes("activations", n_bytes, "pack fewer at a time")
    rows: npt.NDArray[np.uint64] = backend_for(maps).activations.upsample_pack(
        maps, grid, lower[0], upper[0], check_threads(threads)
    )
    return rows.reshape(*leading, rows.shape[-1])


@ieee
def range_histogram(
    activations: Any,
    ranges: Any,
    atoms: Atoms,
    *,
    out: npt.NDArray[np.int64] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.int64]:
    """Count the cells of each atom in each range, for several units at once.

    float32[N, U, h, w], float64[U, K, 2] -> int64[U, K, G]. Ranges of a unit may come in any order and
    may overlap. Nothing of the size of the grid is stored: bilinear, ranges and histogram are one pass.
    With `out`, counts are added to those in it: for samples that come in batches.

    After `Atoms.cut` it goes by tiles of 64 cells, in main memory: a tile is interpolated and compared only where a
    threshold lies among its values; each of its atoms is counted once for all ranges.

    Raises
    ------
    ShapeError, DTypeError
        If the arrays do not fit each other or the atoms.
    InputError
        If a range is not lower < upper.

    """
    check_atoms(atoms)
    maps = _floats(activations)
    if maps.ndim != 4 or maps.shape[0] != atoms.n_samples or 0 in maps.shape[2:]:
        wanted = f"float32[{atoms.n_samples}, U, h, w], one row per sample of the concepts"
        raise ShapeError("activations", wanted=wanted, got=describe(maps), remedy="probe the same samples, in order")
    limits = _numbers(ranges, "ranges")
    if limits.ndim != 3 or limits.shape[0] != maps.shape[1] or limits.shape[2] != 2:
        wanted = f"float64[{maps.shape[1]}, K, 2]"
        raise ShapeError("ranges", wanted=wanted, got=describe(limits), remedy="give each unit K (lower, upper) pairs")
    lower, upper = thresholds(limits, "ranges")
    kernels = backend_for(maps, atoms.cell_atoms).activations
    grid = grid_of(maps.shape[2:], atoms.shape)
    _check_out(out, (*limits.shape[:2], atoms.n_atoms), maps)
    counts: npt.NDArray[np.int64] = kernels.range_histogram(
        maps, lower, upper, grid, atoms, out, check_threads(threads)
    )
    return counts


def bitmap_histogram(
    rows: Any, atoms: Atoms, *, out: npt.NDArray[np.int64] | None = None, threads: int | None = None
) -> npt.NDArray[np.int64]:
    """Count the cells of each atom in bitmaps: packed rows uint64[M, N, n_words] -> int64[M, G].

    With `out`, counts are added to those in it: for samples that come in batches.

    Raises
    ------
    ShapeError, DTypeError
        If `rows` does not fit the atoms.
    InputError
        If padding bits of a row are not zero.

    """
    check_atoms(atoms)
    n_cells = atoms.shape[0] * atoms.shape[1]
    rows = as_rows(rows, "bitmaps", n_cells)
    if rows.ndim != 3 or rows.shape[1] != atoms.n_samples:
        wanted = f"uint64[M, {atoms.n_samples}, {rows.shape[-1]}]"
        raise ShapeError(
            "bitmaps", wanted=wanted, got=describe(rows), remedy="pack bool[M, N, H * W] with kernels.pack"
        )
    check_padding("bitmaps", rows, n_cells)
    if not on_gpu(rows):
        rows = rows.astype(np.uint64, copy=False)  # native byte order
    kernels = backend_for(rows, atoms.cell_atoms).activations
    _check_out(out, (rows.shape[0], atoms.n_atoms), rows)
    counts: npt.NDArray[np.int64] = kernels.bitmap_histogram(rows, atoms, out, check_threads(threads))
    return counts


def _check_out(out: Any, shape: tuple[int, ...], beside: Any) -> None:
    """Raise unless histograms of this shape can be added to `out`, beside the array that they are counted of."""
    if out is None:
        return
    backend_for(out, beside)
    if out.dtype != np.int64 or out.shape != shape or not out.flags.c_contiguous:
        wanted, remedy = f"contiguous int64{list(shape)}", "pass what the first batch returned"
        raise ShapeError("out", wanted=wanted, got=describe(out), remedy=remedy)


def as_maps(activations: Any, n_samples: int, grid: tuple[int, int]) -> npt.NDArray[np.floating[Any]]:
    """Return activations [N, U], [N, U, T] or [N, U, h, w] as float[N, U, h, w], without copying.

    One value per sample fills the grid of the concepts. T tokens must be its cells, 1×T: patches of an image, or
    tokens of another layout, would be stretched over it without a word.

    Raises
    ------
    DTypeError, ShapeError
        If they are no floats, have another number of axes or of samples, or nothing in them.

    """
    array = as_floats(activations, "activations")
    if array.ndim not in (2, 3, 4):
        remedy = "arrange them by sample, then unit, then position"
        wanted = "float32[N, U], [N, U, T] or [N, U, h, w]"
        raise ShapeError("activations", wanted=wanted, got=describe(array), remedy=remedy)
    if array.shape[0] != n_samples:
        moved = reordered("activations", array.shape, (n_samples, *(None,) * (array.ndim - 1)))
        remedy = moved or "give one row for each sample of the concepts, in the same order"
        raise ShapeError("activations", wanted=f"{n_samples} samples", got=describe(array), remedy=remedy)
    if 0 in array.shape:
        remedy = "check the layer and the samples"
        raise ShapeError("activations", wanted="at least one unit and position", got=describe(array), remedy=remedy)
    if array.ndim == 3 and grid != (1, array.shape[2]):
        remedy = (
            "units come before tokens: activations.swapaxes(1, 2)"
            if grid == (1, array.shape[1])
            else (
                "lay patches on their grid (leave out class tokens): activations.reshape(N, U, h, w); "
                "to interpolate along one axis: activations[:, :, None]"
            )
        )
        wanted = f"[N, U, T] with one token per cell of the concepts' grid {grid}"
        raise ShapeError("activations", wanted=wanted, got=describe(array), remedy=remedy)
    if array.ndim == 4 and _has_channels_last(array.shape, grid):
        remedy = (
            "units come second: numpy.transpose(activations, (0, 3, 1, 2)); if they do, bring the maps to the "
            "concepts' grid first: ccx.kernels.upsample"
        )
        wanted = f"[N, U, h, w] of the proportions of the concepts' grid {grid}"
        raise ShapeError("activations", wanted=wanted, got=describe(array), remedy=remedy)
    missing = 4 - array.ndim
    maps: npt.NDArray[np.floating[Any]] = array.reshape(*array.shape[:2], *(1,) * missing, *array.shape[2:])
    return maps


def _has_channels_last(shape: tuple[int, ...], grid: tuple[int, int]) -> bool:
    """Tell whether [N, h, w, U] would have the proportions of the grid, and [N, U, h, w] would not."""
    first, second, third = shape[1:]
    are_maps = min(first, second) > 1 and first * grid[1] == second * grid[0]
    return are_maps and second * grid[1] != third * grid[0]


def _floats(activations: Any) -> Float32Array:
    maps = as_floats(activations, "activations")
    floats: Float32Array = maps
    if maps.dtype != np.float32 and 4 * maps.size > _LARGE:
        require_bytes("activations", 4 * maps.size, "give fewer units or samples at a time")
    if not on_gpu(maps):  # what launches a kernel converts them where they lie
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
            floats = maps.astype(np.float32, copy=False)
    return floats


def _maps(activations: Any) -> tuple[Float32Array, tuple[int, ...]]:
    maps = _floats(activations)
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        remedy = "give maps of at least one value"
        raise ShapeError("activations", wanted="float32[..., h, w]", got=describe(maps), remedy=remedy)
    return maps.reshape(-1, *maps.shape[-2:]), maps.shape[:-2]


def _numbers(values: Any, argument: str) -> npt.NDArray[np.float64]:
    numbers = as_array(values, argument)
    require_host(numbers, argument, "ranges")
    if numbers.dtype.kind not in "iuf":
        raise DTypeError(argument, wanted="numbers", got=describe(numbers), remedy="give (lower, upper) pairs")
    if 8 * numbers.size > _LARGE:
        require_bytes(argument, 8 * numbers.size, "give fewer ranges")
    exact: npt.NDArray[np.float64] = numbers.astype(np.float64, copy=False)
    return exact


def thresholds(ranges: npt.NDArray[np.float64], argument: str) -> tuple[Float32Array, Float32Array]:
    """Turn open float64 ranges into float32 thresholds: inside = at least the first, below the second.

    float64[..., 2] -> two float32[...]: the least float32 above `lower` and the least that is not below
    `upper`; equal where no float32 lies between.
    """
    lower, upper = ranges[..., 0], ranges[..., 1]
    if not (lower < upper).all():
        at = tuple(int(i) for i in np.argwhere(~(lower < upper))[0])
        got = f"({lower[at]}, {upper[at]})" + (f" at {list(at)}" if len(at) > 1 else "")
        raise InputError(argument, wanted="lower < upper", got=got, remedy="leave out empty ranges")
    infinity = np.float32(np.inf)
    with np.errstate(over="ignore"):  # ends beyond float32 become infinite, as they should
        start, stop = lower.astype(np.float32), upper.astype(np.float32)
        start = np.where(start.astype(np.float64) <= lower, np.nextafter(start, infinity), start)
        stop = np.where(stop.astype(np.float64) < upper, np.nextafter(stop, infinity), stop)
    return start, stop
