"""Activations on the CPU: bilinear upsampling fused with ranges and atom histograms or packing.

A value's class is the number of ascending thresholds that it reaches; range k is class 2k + 1. NaN
reaches none. `grid` is the `Grid` of ccx.kernels.activations, `atoms` its `Atoms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu import tiles
from ccx.kernels.cpu._jit import inline, jit, trailing_zeros64
from ccx.kernels.rows import n_words
from ccx.typing import Array, Float32Array

if TYPE_CHECKING:
    from ccx.kernels.activations import Grid
    from ccx.kernels.atoms import Atoms


def upsample(maps: Array, grid: Grid, threads: int | None) -> Array:
    out = np.empty((maps.shape[0], grid.rows.near.size, grid.cols.near.size), np.float32)
    if grid.identity:
        out[:] = maps
        return out
    parallel(lambda a, b: _upsample(maps[a:b], *grid.rows, *grid.cols, out[a:b]), maps.shape[0], threads)
    return out


def upsample_pack(maps: Array, grid: Grid, start: np.float32, stop: np.float32, threads: int | None) -> Array:
    n_cells = grid.rows.near.size * grid.cols.near.size
    out = np.zeros((maps.shape[0], n_words(n_cells)), np.uint64)

    def pack(a, b):
        _upsample_pack(maps[a:b], start, stop, grid.identity, grid.bands, *grid.rows, *grid.cols, out[a:b])

    parallel(pack, maps.shape[0], threads)
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
    counts = np.zeros((*lower.shape, atoms.n_atoms), np.int64)
    count = _by_row if atoms.tiles is None else _by_tile
    for unit in range(maps.shape[1]):
        for group in _disjoint_groups(lower[unit], upper[unit]):
            thresholds = np.stack([lower[unit, group], upper[unit, group]], axis=1).ravel()
            counts[unit, group] = count(maps[:, unit], thresholds, grid, atoms, threads)
    return counts if out is None else np.add(out, counts, out=out)


def _by_tile(maps, thresholds, grid, atoms, threads):
    """Count cells by range and atom, for one unit: float32[N, h, w], float32[2K] -> int64[K, G]."""
    return _added(tiles.range_histogram(maps, thresholds, grid, atoms, atoms.tiles, threads)).T


def _by_row(maps, thresholds, grid, atoms, threads):
    """Count the same a row of cells at a time, which is quicker for samples of few cells."""

    def count(a, b):
        out = np.zeros((thresholds.size // 2, atoms.n_atoms), np.int64)
        _range_histogram(
            maps[a:b], thresholds, grid.identity, grid.bands, *grid.rows, *grid.cols,
            atoms.cell_atoms[a:b], atoms.sample_starts[a : b + 1], atoms.sample_atoms, out,
        )  # fmt: skip
        return out

    return _added(parallel(count, maps.shape[0], threads))


def bitmap_histogram(rows: Array, atoms: Atoms, out: Array | None, threads: int | None) -> Array:
    counts = np.zeros((rows.shape[0], atoms.n_atoms), np.int64)
    for bitmap, count in zip(rows, counts, strict=True):
        count[:] = _counts_of_bitmap(bitmap, atoms, threads)
    return counts if out is None else np.add(out, counts, out=out)


def all_finite(values: Array) -> bool:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
        return bool(np.isfinite(values.astype(np.float32, copy=False)).all())


def copy_of_units(activations: Array, units: Sequence[int]) -> Array:
    taken = np.empty((activations.shape[0], len(units), *activations.shape[2:]), np.float32)
    for i, unit in enumerate(units):  # numpy.take copies everything where it is not in C order
        taken[:, i] = activations[:, unit]
    return taken


def _counts_of_bitmap(rows, atoms, threads):
    """Count the cells of one bitmap by atom: uint64[N, n_words] -> int64[G]."""

    def count(a, b):
        out = np.zeros(atoms.n_atoms, np.int64)
        _bitmap_histogram(rows[a:b], atoms.cell_atoms[a:b], atoms.sample_starts[a : b + 1], atoms.sample_atoms, out)
        return out

    return _added(parallel(count, rows.shape[0], threads))


def _disjoint_groups(lower, upper):
    """Split ranges into groups of at most 8 that are ascending and do not overlap (one group, if that may be)."""
    groups: list[list[int]] = []
    for k in np.argsort(lower, kind="stable"):
        for group in groups:
            if len(group) < tiles.LANES and upper[group[-1]] <= lower[k]:
                group.append(int(k))
                break
        else:
            groups.append([int(k)])
    return [np.array(group) for group in groups]


def _added(counts):
    """Add arrays up in the first of them: they are large, and often there is only one."""
    total, *others = counts
    for other in others:
        total += other
    return total


@jit
def _interpolate_columns(sample, left, right, w_left, w_right, out):
    """Horizontal step of one sample: float32[h, w] -> out float32[h, W]."""
    for i in range(sample.shape[0]):
        for x in range(out.shape[1]):
            near = sample[i, left[x]]
            between = near * w_left[x] + sample[i, right[x]] * w_right[x]
            out[i, x] = near if w_right[x] == 0 else between


@inline
def _copy(source, out):
    for x in range(out.size):
        out[x] = source[x]


@inline
def _interpolate_row(upper, lower, w_upper, w_lower, out):
    """Vertical step of one row of cells: two float32[W] -> out float32[W]."""
    if w_lower == 0:
        _copy(upper, out)
    else:
        for x in range(out.size):
            out[x] = upper[x] * w_upper + lower[x] * w_lower


@jit
def _upsample(maps, top, bottom, w_top, w_bottom, left, right, w_left, w_right, out):
    spread = np.empty((maps.shape[1], left.size), np.float32)
    for n in range(maps.shape[0]):
        _interpolate_columns(maps[n], left, right, w_left, w_right, spread)
        for y in range(top.size):
            _interpolate_row(spread[top[y]], spread[bottom[y]], w_top[y], w_bottom[y], out[n, y])


@jit
def _reached(thresholds, value):
    count = 0
    while count < thresholds.size and value >= thresholds[count]:
        count += 1
    return count


@jit
def _bounds(upper, lower):
    """Return bounds that no value interpolated between two source rows leaves.

    A weighted mean lies between its terms, but the rounding of its products and sums may leave that
    interval by a few units in the last place: 1e-6 is eight of them; denormal numbers need the 1e-37.
    Nothing overflows: the largest float32 is interpolated to itself. Where a value is not finite, the
    bounds are infinite.
    """
    low = np.float32(np.inf)
    high = np.float32(-np.inf)
    finite = True
    for j in range(upper.size):
        low = min(low, min(upper[j], lower[j]))
        high = max(high, max(upper[j], lower[j]))
        finite = finite and np.isfinite(upper[j]) and np.isfinite(lower[j])
    if not finite:
        return np.float32(-np.inf), np.float32(np.inf)
    margin = np.float32(1e-6) * max(abs(low), abs(high)) + np.float32(1e-37)
    return low - margin, high + margin


@jit
def _upsample_pack(maps, start, stop, identity, bands, top, bottom, w_top, w_bottom, left, right, w_left, w_right, out):
    width = left.size
    spread = np.empty((maps.shape[1], width), np.float32)
    row = np.empty(width, np.float32)
    inside = np.empty(width, np.uint8)
    for n in range(maps.shape[0]):
        sample = maps[n]
        spread_done = False
        for band in range(bands.size - 1):
            upper = top[bands[band]]
            lower = bottom[bands[band]]
            low, high = _bounds(sample[upper], sample[lower])
            if high < start or low >= stop:
                continue
            if not identity and not spread_done:
                _interpolate_columns(sample, left, right, w_left, w_right, spread)
                spread_done = True
            for y in range(bands[band], bands[band + 1]):
                if identity:
                    _copy(sample[y], row)
                else:
                    _interpolate_row(spread[upper], spread[lower], w_top[y], w_bottom[y], row)
                for x in range(width):
                    inside[x] = (row[x] >= start) & (row[x] < stop)
                _set_bits(inside, y * width, out[n])


@jit
def _set_bits(inside, first, words):
    """Write uint8[W] flags as bits first..first + W of a zeroed packed row."""
    word = first // 64
    bit = first % 64
    bits = np.uint64(0)
    for x in range(inside.size):
        bits |= np.uint64(inside[x]) << np.uint64(bit)
        bit += 1
        if bit == 64:
            words[word] |= bits
            word += 1
            bit = 0
            bits = np.uint64(0)
    if bit:
        words[word] |= bits


@jit
def _range_histogram(
    maps, thresholds, identity, bands, top, bottom, w_top, w_bottom, left, right, w_left, w_right,
    cell_atoms, sample_starts, sample_atoms, out,
):  # fmt: skip
    """Add to out int64[K, G]; each sample is counted in a small table of its own atoms first."""
    width = left.size
    n_thresholds = thresholds.size
    shift = 1
    while (1 << shift) <= n_thresholds:
        shift += 1
    most = 0
    for n in range(maps.shape[0]):
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    # Neighbouring cells often share a slot; two tables keep their increments from waiting for each other.
    even = np.zeros((most + 1) << shift, np.int32)
    odd = np.zeros((most + 1) << shift, np.int32)
    spread = np.empty((maps.shape[1], width), np.float32)
    row = np.empty(width, np.float32)
    slots = np.empty(width, np.int32)
    for n in range(maps.shape[0]):
        sample = maps[n]
        touched = False
        for band in range(bands.size - 1):
            upper = top[bands[band]]
            lower = bottom[bands[band]]
            low, high = _bounds(sample[upper], sample[lower])
            last = _reached(thresholds, high)
            first = _reached(thresholds, low)
            if last == 0 or (first == last and first % 2 == 0):
                continue  # no cell of these rows can lie in a range
            if not touched:
                touched = True
                if not identity:
                    _interpolate_columns(sample, left, right, w_left, w_right, spread)
            for y in range(bands[band], bands[band + 1]):
                if identity:
                    _copy(sample[y], row)
                else:
                    _interpolate_row(spread[upper], spread[lower], w_top[y], w_bottom[y], row)
                atoms = cell_atoms[n, y * width : (y + 1) * width]
                _count_row(row, atoms, thresholds, first, last, shift, slots, even, odd)
        if touched:
            start = sample_starts[n]
            n_local = sample_starts[n + 1] - start
            for local in range(n_local):
                atom = sample_atoms[start + local]
                for k in range(n_thresholds // 2):
                    slot = (local << shift) + 2 * k + 1
                    count = even[slot] + odd[slot]
                    if count:
                        out[k, atom] += count
            even[: (n_local + 1) << shift] = 0
            odd[: (n_local + 1) << shift] = 0


@inline
def _count_row(row, atoms, thresholds, first, last, shift, slots, even, odd):
    """Count one row of cells; only thresholds first..last lie within the row's bounds."""
    width = row.size
    for x in range(width):
        slots[x] = (np.int32(atoms[x]) << np.int32(shift)) + np.int32(first)
    for t in range(first, last):
        threshold = thresholds[t]
        for x in range(width):
            slots[x] += np.int32(1) if row[x] >= threshold else np.int32(0)
    for x in range(0, width - 1, 2):
        even[np.uint32(slots[x])] += 1
        odd[np.uint32(slots[x + 1])] += 1
    if width % 2:
        even[np.uint32(slots[width - 1])] += 1


@jit
def _bitmap_histogram(rows, cell_atoms, sample_starts, sample_atoms, out):
    most = 0
    for n in range(rows.shape[0]):
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    counts = np.zeros(most + 1, np.int64)
    for n in range(rows.shape[0]):
        for word in range(rows.shape[1]):
            bits = rows[n, word]
            while bits:
                counts[cell_atoms[n, word * 64 + np.int64(trailing_zeros64(bits))]] += 1
                bits &= bits - np.uint64(1)
        start = sample_starts[n]
        for local in range(sample_starts[n + 1] - start):
            if counts[local]:
                out[sample_atoms[start + local]] += counts[local]
        counts[: sample_starts[n + 1] - start + 1] = 0
