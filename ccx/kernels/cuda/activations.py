"""Activations on the GPU; `ccx.kernels.activations` documents and validates, `activations.cuh` computes.

Maps and atoms lie on the GPU; `grid`, `lower` and `upper` lie on the host and are copied over: 16 bytes per row and
column of cells, 8 per range. `threads` counts processors of the host and changes nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ccx.errors import ShapeError
from ccx.kernels.cuda.device import Device, device_of, launch
from ccx.kernels.rows import n_words
from ccx.typing import Array, Float32Array

if TYPE_CHECKING:
    from ccx.kernels.activations import Grid
    from ccx.kernels.atoms import Atoms

_UNITS_A_TASK = 8
# The counts of a block in shared memory: room for 200 atoms in 30 ranges, and for nine blocks on a multiprocessor.
_TABLE_SLOTS = 6000


def upsample(maps: Array, grid: Grid, threads: int | None) -> Array:
    device = device_of(maps)
    height, width = _shape(grid)
    out = device.empty((maps.shape[0], height, width), np.float32)
    args = (floats_of(maps), out, *_axes(device, grid), *_sizes(maps, grid))
    launch(device, "activations", "upsample", 32 * maps.shape[0] * height, args)
    return out


def upsample_pack(maps: Array, grid: Grid, start: np.float32, stop: np.float32, threads: int | None) -> Array:
    device = device_of(maps)
    out = device.empty((maps.shape[0], n_words(math.prod(_shape(grid)))), np.uint64)
    first, n_keys = _keys_of(start, stop)
    args = (floats_of(maps), out, *_axes(device, grid), *_sizes(maps, grid), first.view(np.int32), n_keys)
    launch(device, "activations", "upsample_pack", 32 * out.size, args)
    return out


def range_histogram(
    maps: Array,
    lower: Float32Array,
    upper: Float32Array,
    grid: Grid,
    atoms: Atoms,
    out: Array | None,
    threads: int | None,
) -> Array:
    device = device_of(maps, atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms)
    n_samples, n_units = maps.shape[:2]
    n_ranges = lower.shape[1]
    counts = device.zeros((n_units, n_ranges, atoms.n_atoms), np.int64) if out is None else out
    if 0 in (n_samples, *counts.shape):
        return counts
    cell_atoms, *entries = atom_arrays(device, atoms)
    args = (
        floats_of(maps),
        device.upload(_keys_of(lower, upper)),
        cell_atoms,
        *entries,
        counts,
        *_axes(device, grid),
        *map(np.int64, (n_samples, n_units, n_ranges, atoms.n_atoms, _UNITS_A_TASK, _TABLE_SLOTS)),
        *_sizes(maps, grid)[1:],
    )
    n_blocks = n_samples * -(-n_units // _UNITS_A_TASK)
    name = f"range_histogram_u{8 * cell_atoms.dtype.itemsize}"
    launch(device, "activations", name, n_blocks * device.threads_per_block, args, 4 * _TABLE_SLOTS)
    return counts


def bitmap_histogram(rows: Array, atoms: Atoms, out: Array | None, threads: int | None) -> Array:
    device = device_of(rows, atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms)
    n_bitmaps, n_samples = rows.shape[:2]
    counts = device.zeros((n_bitmaps, atoms.n_atoms), np.int64) if out is None else out
    cell_atoms, *entries = atom_arrays(device, atoms)
    sizes = map(np.int64, (n_bitmaps, n_samples, math.prod(atoms.shape), atoms.n_atoms, _TABLE_SLOTS))
    args = (device.contiguous(rows, np.uint64), cell_atoms, *entries, counts, *sizes)
    name = f"bitmap_histogram_u{8 * cell_atoms.dtype.itemsize}"
    n_threads = n_bitmaps * n_samples * device.threads_per_block
    launch(device, "activations", name, n_threads, args, 4 * _TABLE_SLOTS)
    return counts


def all_finite(values: Array) -> bool:
    device = device_of(values)
    any_other = device.zeros((1,), np.uint32)
    n_values = math.prod(values.shape)
    args = (floats_of(values), any_other, np.int64(n_values))
    launch(device, "activations", "find_not_finite", n_values, args)
    return not device.download(any_other)[0]


def floats_of(values: Array) -> Array:
    """Return activations float[...] as contiguous float32, rounded to the nearest: CuPy would flush denormals."""
    device = device_of(values)
    if values.dtype.itemsize < 8:
        return device.contiguous(values, np.float32)  # a float16 is never a float32 that is denormal
    out, n_values = device.empty(values.shape, np.float32), math.prod(values.shape)
    args = (device.contiguous(values, np.float64), out, np.int64(n_values))
    launch(device, "activations", "round_to_float32", n_values, args)
    return out


def copy_of_units(activations: Array, units: Sequence[int]) -> Array:
    device = device_of(activations)
    dtype = np.float64 if activations.dtype.itemsize == 8 else np.float32
    copy = device.empty((activations.shape[0], len(units), *activations.shape[2:]), dtype)
    for i, unit in enumerate(units):
        device.copy(activations[:, unit], copy[:, i])
    return floats_of(copy)


def atom_arrays(device: Device, atoms: Any) -> tuple[Array, Array, Array]:
    """Return cells' atoms (uint16 or uint32), samples' starts and atoms of `atoms` as the kernels take them."""
    return (
        device.contiguous(atoms.cell_atoms, atoms.cell_atoms.dtype.newbyteorder("=")),
        device.contiguous(atoms.sample_starts, np.int64),
        device.contiguous(atoms.sample_atoms, np.int32),
    )


def _keys_of(start: Any, stop: Any) -> NDArray[np.uint32]:
    """Return float32 thresholds [...] as `Range` of activations.cuh: uint32[..., 2]."""
    bits = np.stack([start, stop], axis=-1).view(np.int32)
    keys = np.where(bits == 0, -1, bits ^ (bits >> 31 & 0x7FFFFFFF)).view(np.uint32)  # `key_of`, of -0 for both zeros
    keys[..., 1] -= keys[..., 0]
    return keys


def _shape(grid: Any) -> tuple[int, int]:
    """Return (H, W)."""
    shape = grid.rows.near.size, grid.cols.near.size
    _check_size("shape", shape, "upsample to a coarser grid")
    return shape


def _check_size(argument: str, shape: tuple[int, int], remedy: str) -> None:
    """Refuse maps and grids that the kernels cannot number in 31 bits."""
    height, width = shape
    if height * width >= 1 << 31:
        got = f"{height} x {width}"
        raise ShapeError(argument, wanted="fewer than 2^31 cells on the GPU", got=got, remedy=remedy)


def _axes(device: Device, grid: Any) -> tuple[Array, Array]:
    """Return the positions int32[2, H + W] and weights float32[2, H + W] of cell rows, then cell columns.

    A cell on a sample gets its value, even an infinite one, without a branch: the far sample is the near one, and
    a · 1 + a · 2^-149 is a, rounded.
    """
    near, far, w_near, w_far = (np.concatenate(pair) for pair in zip(grid.rows, grid.cols, strict=True))
    on_sample = w_far == 0
    far, w_far = np.where(on_sample, near, far), np.where(on_sample, np.float32(2**-149), w_far)
    return device.upload(np.array([near, far], np.int32)), device.upload(np.array([w_near, w_far], np.float32))


def _sizes(maps: Array, grid: Any) -> tuple[np.generic, ...]:
    """Return number of maps (of samples), their height and width, and those of the cells."""
    _check_size("activations", maps.shape[-2:], "take coarser activations")
    return np.int64(maps.shape[0]), *map(np.int32, (*maps.shape[-2:], *_shape(grid)))
