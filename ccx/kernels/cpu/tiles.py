"""Tiles on the CPU: cutting cells into tiles, and counting those of ranges by tile.

Values that lie between ascending thresholds are told by bits: those that reach threshold t are a subset of those that
reach t - 1. So the cells of range k in a tile are the exclusive or of two words of 64 bits, and of a tile whose values
lie between the same two thresholds, which its bounds tell, all 64 bits are known without its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu._jit import inline, jit, trailing_zeros64
from ccx.kernels.cpu._vectors import (
    add_popcounts,
    at_least,
    ranges_of_whole,
    reached_between,
    values_of_band,
    values_of_row,
    values_of_rows,
)
from ccx.typing import Array

if TYPE_CHECKING:
    from ccx.kernels.activations import Axis, Grid
    from ccx.kernels.atoms import Atoms
    from ccx.kernels.tiles import Tiles

LANES = 8
"""Ranges that are counted at a time."""
_TILES = 16  # whose bounds are compared at a time


@jit
def cut(
    start, stop, cell_atoms, sample_starts, grid, most, seen, size, shape, starts, tiles, atoms, masks, crowded_starts,
    crowded,
):  # fmt: skip
    """Cut samples start..stop into tiles; where there is no room for them, write how many each sample has in `starts`.

    `seen` int64 has room for all atoms of a sample.
    """
    counting = tiles.size + crowded.size == 0
    own_atoms, own_masks = np.empty(65, np.int64), np.empty(65, np.uint64)
    for n in range(start, stop):
        n_local = sample_starts[n + 1] - sample_starts[n]
        for local in range(n_local + 1):
            seen[local] = -1
        entry = np.int64(0) if counting else starts[n]
        at = np.int64(0) if counting else crowded_starts[n]
        for tile in range(shape[0] * shape[1]):
            n_atoms = where = np.int64(0)
            before, run = np.int64(-1), np.uint64(0)  # the cells in a row of one atom
            row0, row1, column0, column1 = _cells_of(tile, grid, size, shape)
            for row in range(row0, row1):
                bit = np.uint64(1) << np.uint64((row - row0) * size[1])
                for cell in range(row * grid[1] + column0, row * grid[1] + column1):
                    atom = np.int64(cell_atoms[n, cell])
                    if atom != before:
                        own_masks[where] |= run
                        run, before = np.uint64(0), atom
                        where = seen[atom] - (tile << 7)
                        if where < 0:
                            where = n_atoms if atom != n_local else np.int64(64)
                            seen[atom] = (tile << 7) + where
                            own_atoms[where], own_masks[where] = atom, np.uint64(0)
                            n_atoms += np.int64(atom != n_local)
                    run |= bit
                    bit <<= np.uint64(1)
            own_masks[where] |= run
            if n_atoms > most:
                if not counting:
                    crowded[at] = tile
                at += 1
                continue
            if not counting:
                for i in range(n_atoms):
                    tiles[entry + i], atoms[entry + i], masks[entry + i] = tile, own_atoms[i], own_masks[i]
            entry += n_atoms
        if counting:
            starts[n], crowded_starts[n] = entry, at


@jit
def _cells_of(tile, grid, size, shape):
    """Return the rows and columns of the grid that a tile covers, half-open."""
    row, column = tile // shape[1] * size[0], tile % shape[1] * size[1]
    return row, min(row + size[0], grid[0]), column, min(column + size[1], grid[1])


def range_histogram(
    maps: Array, thresholds: Array, grid: Grid, atoms: Atoms, tiles: Tiles, threads: int | None
) -> list[Array]:
    """Count cells by range and atom, for one unit: float32[N, h, w], float32[2K] -> int64[G, K] of each thread.

    There are 1 to 8 ranges, ascending, none of which overlap.
    """
    rows, columns = tiles.size
    top, bottom, w_top, w_bottom = _whole_tiles(grid.rows, rows)
    axes = (top, bottom, w_top, w_bottom, np.repeat(w_top, columns), np.repeat(w_bottom, columns))
    across = _whole_tiles(grid.cols, columns)

    most = int(np.diff(atoms.sample_starts).max(initial=0))
    stride = tiles.shape[1] + -tiles.shape[1] % _TILES
    n_tiles = tiles.shape[0] * tiles.shape[1]

    def run(a: int, b: int) -> Array:
        out = np.zeros((atoms.n_atoms, thresholds.size // 2), np.int64)
        cells = (atoms.cell_atoms, atoms.sample_starts, atoms.sample_atoms, atoms.shape)
        room = (
            np.empty(maps.shape[2], np.float32),
            np.empty(maps.shape[1] * across[0].size, np.float32),
            np.empty(64, np.float32),
            np.zeros(((maps.shape[1] + 1) * stride, 2), np.float32).T.copy(),
            np.zeros((2, n_tiles + _TILES), np.int32),
            np.empty((3, n_tiles + 1), np.int32),
            _aligned(n_tiles * LANES),
            np.zeros((most + 1) * LANES, np.int32),
        )
        _range_histogram(a, b, maps, thresholds, axes, across, *tiles, *cells, *room, out)
        return out

    return parallel(run, maps.shape[0], threads)


def _aligned(n: int) -> Array:
    """Make room for words that begins where a line of the cache does, as vectors that cross lines are slow."""
    room = np.zeros(n + LANES, np.uint64)
    skipped = -room.ctypes.data % 64 // 8
    return room[skipped : skipped + n]


def _whole_tiles(axis: Axis, size: int) -> tuple[Any, ...]:
    """Return the positions of the cells of an axis, filled up with its last one to a multiple of a tile's cells."""
    near, far, w_near, w_far = (np.pad(part, (0, -part.size % size), mode="edge") for part in axis)
    return near.astype(np.uint32), far.astype(np.uint32), w_near, w_far


@jit
def _range_histogram(
    start, stop, maps, thresholds, rows, columns, size, shape, starts, tiles, atoms, masks, crowded_starts, crowded,
    cell_atoms, sample_starts, sample_atoms, grid, row, spread, values, bounds, reached, lists, inside, counts, out,
):  # fmt: skip
    """Add samples start..stop to out int64[G, K]; each is counted in a small table of its own atoms first.

    From `row` to `counts` there is room: for a row of the sample, and (`spread`) all of them over the columns of cells,
    for the values of a tile, for bounds of the values (``low`` and ``high``, float32[(h + 1) * stride]), the thresholds
    that those reach, lists of tiles, the cells of each tile in each range, and the sample's counts.
    """
    for n in range(start, stop):
        sample = maps[n]
        margin, some, every = _reach(sample, thresholds)
        if some == every and some % 2 == 0:
            continue  # no cell can lie in a range
        _spread(sample, columns, row, spread)
        if margin < np.inf:
            _bound_tiles(sample, spread, columns, size[1], margin, bounds[0], bounds[1])
            _place_tiles(bounds[0], bounds[1], rows, size[0], shape, thresholds, reached[0], reached[1])
        else:
            for tile in range(shape[0] * shape[1]):
                reached[0, tile], reached[1, tile] = 0, thresholds.size
        _mark(spread, columns[0].size, rows, size, shape, thresholds, reached[0], reached[1], lists, values, inside)
        for entry in range(starts[n], starts[n + 1]):
            add_popcounts(counts, atoms[entry], inside, tiles[entry], masks[entry])
        for at in range(crowded_starts[n], crowded_starts[n + 1]):
            _count_cells(np.int64(crowded[at]), inside, cell_atoms[n], grid, size, shape, out.shape[1], counts)
        n_local = sample_starts[n + 1] - sample_starts[n]
        for local in range(n_local):
            atom = sample_atoms[sample_starts[n] + local]
            for k in range(out.shape[1]):
                out[atom, k] += counts[LANES * local + k]
        for slot in range(LANES * (n_local + 1)):
            counts[slot] = 0


@inline
def _reach(sample, thresholds):
    """Return a margin, and how many thresholds the least and the greatest value of a sample reach.

    A weighted mean lies between its terms, but the rounding of its products and sums may leave that interval by a few
    units in the last place of the greatest: 1e-6 is eight of them; denormal numbers need the 1e-37. Where a value is
    not finite, or sums might be infinite, the margin is infinite, and no bound is known.
    """
    low, high = np.float32(np.inf), np.float32(-np.inf)
    known = True
    for i in range(sample.shape[0]):
        for j in range(sample.shape[1]):
            value = sample[i, j]
            low, high = min(low, value), max(high, value)
            known = known and abs(value) < np.float32(1e38)
    if not known:
        return np.float32(np.inf), 0, thresholds.size
    margin = np.float32(1e-6) * max(abs(low), abs(high)) + np.float32(1e-37)
    some = every = 0
    for threshold in thresholds:
        some += low - margin >= threshold
        every += high + margin >= threshold
    return margin, some, every


@inline
def _spread(sample, columns, row, out):
    """Lay source rows over the columns of cells: float32[h, w] -> out float32[h * W]."""
    left, right, w_left, w_right = columns
    for i in range(sample.shape[0]):
        for j in range(row.size):
            row[j] = sample[i, j]
        begin = i * left.size
        for x in range(left.size):
            near = row[left[x]]
            between = near * w_left[x] + row[right[x]] * w_right[x]
            out[begin + x] = near if w_right[x] == 0 else between


@inline
def _bound_tiles(sample, spread, columns, width, margin, low, high):
    """Bound what source rows are in each column of tiles, by the ends of a tile, and the samples between them."""
    left = columns[0]
    n_tiles = left.size // width
    stride = n_tiles + -n_tiles % _TILES
    for i in range(sample.shape[0]):
        for tile in range(n_tiles):
            x0, x1 = tile * width, (tile + 1) * width - 1
            a, b = spread[i * left.size + x0], spread[i * left.size + x1]
            least, most = min(a, b), max(a, b)
            for j in range(left[x0] + 1, left[x1] + 1):
                least, most = min(least, sample[i, j]), max(most, sample[i, j])
            low[i * stride + tile], high[i * stride + tile] = least - margin, most + margin


@inline
def _place_tiles(low, high, rows, height, shape, thresholds, first, last):
    """Count the thresholds that all and that some of the values of each tile may reach: -> first, last int32[T]."""
    top, bottom, w_top, w_bottom = rows[:4]
    stride = shape[1] + -shape[1] % _TILES
    spare = low.size - stride
    for ty in range(shape[0]):
        y0, y1 = ty * height, (ty + 1) * height - 1
        upper, lower = np.int64(top[y0]) * stride, np.int64(bottom[y1]) * stride
        first_near, first_far, last_near, last_far = w_top[y0], w_bottom[y0], w_top[y1], w_bottom[y1]
        if top[y1] != top[y0]:
            first_near = last_near = np.float32(1)
            first_far = last_far = np.float32(0)
            for x in range(stride):
                least, most = low[upper + x], high[upper + x]
                for at in range(upper + stride + x, lower + stride, stride):
                    least, most = min(least, low[at]), max(most, high[at])
                low[spare + x], high[spare + x] = least, most
            upper = lower = spare
        for x in range(0, shape[1], _TILES):
            reached_between(
                low, high, upper + x, lower + x, first_near, first_far, last_near, last_far,
                thresholds, thresholds.size, first, last, ty * shape[1] + x,
            )  # fmt: skip


@inline
def _mark(spread, width, rows, size, shape, thresholds, first, last, lists, values, inside):
    """Write the cells of each tile in each range: -> inside uint64[T * 8].

    Tiles are sorted by how many thresholds lie among their values, so that processors guess the loops' ends right.
    """
    n_one = n_two = n_many = np.uint64(0)
    for tile in range(shape[0] * shape[1]):
        ranges_of_whole(first[tile], inside, tile)
        n = last[tile] - first[tile]
        lists[0, n_one] = lists[1, n_two] = lists[2, n_many] = tile
        n_one += np.uint64(n == 1)
        n_two += np.uint64(n == 2)
        n_many += np.uint64(n > 2)
    top, bottom, _, _, near, far = rows
    for kind in range(3):
        for i in range((n_one, n_two, n_many)[kind]):
            marked = np.int64(lists[kind, i])
            ty = marked // shape[1]
            y, x = ty * size[0], (marked - ty * shape[1]) * size[1]
            if size[0] == 1:
                values_of_row(spread, width, x, top, bottom, y, near, far, 64 * ty, values)
            elif top[y] == top[y + 7]:
                values_of_band(spread, width, x, top, bottom, y, near, far, 64 * ty, values)
            else:
                values_of_rows(spread, width, x, top, bottom, y, near, far, 64 * ty, values)
            for threshold in range(first[marked], last[marked]):  # which begins a range, or ends one
                inside[np.uint64(LANES * marked + threshold // 2)] ^= at_least(values, thresholds[threshold])


@inline
def _count_cells(tile, inside, cell_atoms, grid, size, shape, n_ranges, counts):
    """Count a crowded tile cell by cell."""
    row0, row1, column0, column1 = _cells_of(tile, grid, size, shape)
    for k in range(n_ranges):
        bits = inside[LANES * tile + k]
        while bits:
            bit = np.int64(trailing_zeros64(bits))
            bits &= bits - np.uint64(1)
            row, column = row0 + bit // size[1], column0 + bit % size[1]
            if row < row1 and column < column1:
                counts[LANES * np.int64(cell_atoms[row * grid[1] + column]) + k] += 1
