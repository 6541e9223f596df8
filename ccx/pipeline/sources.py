"""What is explained: dense or sparse activations, or bitmaps; their ranges, and what each holds of the samples."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.clustering import ranges_of
from ccx.concepts import Concepts
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import sparse
from ccx.kernels.activations import as_maps, grid_of, upsample_pack
from ccx.kernels.conversion import as_sparse, checked_sparse
from ccx.kernels.places import MAIN_MEMORY, Place
from ccx.options import RangeOptions
from ccx.pipeline import inputs
from ccx.pipeline.judging import Bitmap, Part
from ccx.pipeline.placement import Counter, Device, placed
from ccx.results import Status
from ccx.store import content_hash

Range: TypeAlias = tuple[float, float] | None
Times: TypeAlias = dict[str, float]
Pairs: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

_CHECK_VALUES = 1 << 22  # activations tested for NaN at a time


class Counted(NamedTuple):
    """One unit: why a range of it is empty, its ranges, by part of the samples their bitmaps, and seconds taken."""

    nothing: Status
    ranges: Sequence[Range]
    bitmaps: list[list[Bitmap]]
    times: Times


class Source(ABC):
    """What a run asks of that which it explains; bitmaps are units of one range, which has no ends.

    `concepts` are those of the cells that count, `units` the numbers of those to explain, ascending; `settings` is
    what a run folder keeps. `n_values` are those of a unit, of which workers make copies; `unit_bytes` it takes on a
    GPU; `n_ranges` it has at most; `places` are where it may be counted.
    """

    needs_cells = False  # of which ranges are made
    takes_tiles = False  # in main memory
    concepts: Concepts
    units: list[int]
    settings: dict[str, Any]
    n_values: int
    unit_bytes: int
    n_ranges: int
    places: list[Place]

    @abstractmethod
    def check_values(self) -> None:
        """Raise `InputError` if a value that counts is NaN or infinite."""

    @abstractmethod
    def count(
        self, positions: range, parts: Sequence[Part], counters: Sequence[Counter], threads: int
    ) -> list[Counted]:
        """Find the ranges of the units at some positions of the list, on the first part, and count them on each."""

    @abstractmethod
    def content_hash(self) -> str:
        """Return the hash of everything that was given."""


def units_of(
    activations: Any,
    options: RangeOptions,
    exclude: Any,
    published: bool,
    device: Device,
    threads: int | None,
    concepts: Concepts,
) -> Source:
    """Return activations as `explain` takes them, checked but for their values.

    Raises
    ------
    DTypeError, ShapeError, InputError
        If they are nothing of that, or do not fit the concepts, or the other arguments do not fit them.
    MissingExtraError, BackendError
        If `device` is a GPU that is not there.

    """
    height, width = concepts.shape
    matrix = as_sparse(activations, concepts.n_samples * height * width)
    source = DenseUnits(activations, concepts, device) if matrix is None else SparseUnits(matrix, concepts, device)
    source.choose(concepts, options, exclude, published, threads)
    return source


class _Units(Source):
    """Activations of units, on a grid of their own."""

    needs_cells = True
    n_units: int
    grid: tuple[int, int]

    def choose(
        self, concepts: Concepts, options: RangeOptions, exclude: Any, published: bool, threads: int | None
    ) -> None:
        """Note which units, ranges and positions count; ranges that are found as published come from all positions."""
        self.concepts, self.options = concepts, options
        if exclude is not None:
            self.concepts = inputs.without_positions(concepts, exclude, self.grid, published, threads)
        self.units = inputs.check_units(options.units, self.n_units)
        self.given: list[Pairs] | None = None
        if options.ranges is not None:
            self.given = inputs.check_given_ranges(options.ranges, self.units, self.n_units)
        self.n_ranges = options.clusters if self.given is None else max(map(len, self.given))
        self.unit_bytes = 8 * self.n_values
        self.counted: Flags | None = None if published else self.concepts.valid_positions(self.grid)
        self.settings = {
            "clusters": options.clusters,
            "quantile": options.quantile,
            "clustering": options.clustering,
            "ranges": None if self.given is None else [_json_ranges(pairs) for pairs in self.given],
            "units": self.units,
            **({} if exclude is None else {"exclude": concepts.n_cells - self.concepts.n_cells}),
        }

    def ranges_of(self, values: npt.NDArray[np.float32]) -> Pairs:
        """Return the ranges of a unit: float32[n] -> float64[K, 2]."""
        options = self.options
        return ranges_of(values.reshape(-1), options.clusters, options.quantile, options.clustering)


class DenseUnits(_Units):
    """Activations float[N, U, h, w], [N, U, T] or [N, U]."""

    takes_tiles = True

    def __init__(self, activations: Any, concepts: Concepts, device: Device) -> None:
        maps = as_maps(activations, concepts.n_samples, concepts.shape)
        self._activations, self._place, self.places = placed(maps, device)
        self._kernels = self._place.kernels.activations
        self.n_units, self.n_values, self.grid = maps.shape[1], maps[:, 0].size, maps.shape[2:]
        self._spread = grid_of(self.grid, concepts.shape)

    def check_values(self) -> None:
        """Serve `Source`; what is beyond float32 is infinite."""
        maps, all_finite = self._activations, self._kernels.all_finite
        size = max(1, _CHECK_VALUES // maps[0].size)
        starts = range(0, len(maps), size)
        if maps.dtype != np.float32 and maps[0].size > _CHECK_VALUES:  # a copy of one sample
            memory.require_bytes("activations", 4 * maps[0].size, "give fewer units at a time")
        if len(self.units) == self.n_units and all(all_finite(maps[start : start + size]) for start in starts):
            return
        wrong = []
        size = max(1, _CHECK_VALUES // maps[0, 0].size)
        for unit in self.units:
            for start in range(0, len(maps), size):
                part = slice(start, start + size)
                if all_finite(maps[part, unit]):
                    continue
                counted = None if self.counted is None else self._place.download(maps[part, unit])[self.counted[part]]
                if counted is None or not MAIN_MEMORY.kernels.activations.all_finite(counted):
                    wrong.append(unit)
                    break
        if wrong:
            raise inputs.not_finite(wrong)

    def content_hash(self) -> str:
        """Serve `Source`."""
        return content_hash({"activations": self._place.download(self._activations)})

    def count(
        self, positions: range, parts: Sequence[Part], counters: Sequence[Counter], threads: int
    ) -> list[Counted]:
        """Serve `Source`; the units of a job are counted in one pass."""
        started = time.perf_counter()
        activations = self._kernels.copy_of_units(self._activations, [self.units[position] for position in positions])
        on_host = self._place.download(activations)
        of_parts = [part.of(on_host) for part in parts]
        flags = None if self.counted is None else parts[0].of(self.counted)
        values = [unit if flags is None else unit[flags] for unit in of_parts[0].swapaxes(0, 1)]
        if self.given is None:
            ranges = [self.ranges_of(unit) for unit in values]
        else:
            ranges = [self.given[position] for position in positions]
        clustered = time.perf_counter()
        bitmaps = [
            self._bitmaps(counter.at_hand(activations if part.samples is None else own), ranges, counter, threads)
            for part, own, counter in zip(parts, of_parts, counters, strict=True)
        ]
        share = 1 / len(positions)
        times = {"ranges": (clustered - started) * share, "histogram": (time.perf_counter() - clustered) * share}
        return [
            Counted(_nothing(values[i]), _ends(ranges[i]), [of_part[i] for of_part in bitmaps], times)
            for i in range(len(positions))
        ]

    def _bitmaps(self, activations: Any, ranges: list[Pairs], counter: Counter, threads: int) -> list[list[Bitmap]]:
        """Return the bitmaps of all ranges of some units: float32[n, U, h, w], where they are counted."""
        shape = self.concepts.shape
        return [
            [
                Bitmap(*count, partial(upsample_pack, activations[:, i], shape, tuple(pair), threads=threads))
                for count, pair in zip(counts, pairs.tolist(), strict=True)
            ]
            for i, (counts, pairs) in enumerate(
                zip(counter.of_ranges(activations, ranges, self._spread, threads), ranges, strict=True)
            )
        ]


class SparseUnits(_Units):
    """A scipy sparse matrix [N * H * W, U]: of each unit the activations that are not 0, on the concepts' grid."""

    def __init__(self, matrix: Any, concepts: Concepts, device: Device) -> None:
        if matrix.dtype.kind != "f":
            remedy = "convert: activations.astype(numpy.float32)"
            raise DTypeError("activations", wanted="floating point", got=f"{matrix.dtype}", remedy=remedy)
        height, width = concepts.shape
        n_cells = concepts.n_samples * height * width
        if matrix.ndim != 2 or matrix.shape[0] != n_cells or matrix.shape[1] == 0:
            wanted = f"a sparse matrix [{concepts.n_samples}·{height}·{width}, U]"
            remedy = "let each row be a cell of the concepts' grid, sample after sample"
            raise ShapeError("activations", wanted=wanted, got=f"{list(matrix.shape)}", remedy=remedy)
        if device not in (None, "cpu"):
            remedy = "leave it out: the non-zero activations are counted in main memory"
            raise InputError("device", wanted="None or cpu for sparse activations", got=repr(device), remedy=remedy)
        memory.require_bytes("activations", 12 * matrix.nnz, "explain fewer units at a time")
        checked_sparse(matrix, "activations")
        with np.errstate(over="ignore"):  # float64 beyond float32
            columns = matrix.tocsc(copy=matrix.format == "csc").astype(np.float32)
        columns.sum_duplicates()
        columns.eliminate_zeros()
        self._columns = columns
        self.places = [MAIN_MEMORY]
        self.n_units, self.n_values, self.grid = int(matrix.shape[1]), 0, concepts.shape

    def check_values(self) -> None:
        """Serve `Source`."""
        wrong = []
        for unit in self.units:
            first, end = self._columns.indptr[unit : unit + 2]
            places = first + np.flatnonzero(~np.isfinite(self._columns.data[first:end]))
            if places.size and (self.counted is None or self.counted.reshape(-1)[self._columns.indices[places]].any()):
                wrong.append(unit)
        if wrong:
            raise inputs.not_finite(wrong)

    def content_hash(self) -> str:
        """Serve `Source`."""
        columns = self._columns
        indices, starts = columns.indices.astype(np.int64), columns.indptr.astype(np.int64)
        return content_hash({"values": columns.data, "cells": indices, "starts": starts, "rows": columns.shape[0]})

    def count(  # main memory needs no counters, and a unit no threads
        self,
        positions: range,
        parts: Sequence[Part],
        counters: Sequence[Counter],  # noqa: ARG002
        threads: int,  # noqa: ARG002
    ) -> list[Counted]:
        """Serve `Source`; only the activations that are not 0 are looked at, in main memory."""
        return [self._counted(position, parts) for position in positions]

    def _counted(self, position: int, parts: Sequence[Part]) -> Counted:
        started = time.perf_counter()
        of_parts = [self._within(self.units[position], part) for part in parts]
        cells, values = of_parts[0]
        n_cells = parts[0].concepts.n_samples * self.grid[0] * self.grid[1]
        flags: Flags | None = None
        if self.counted is not None:
            flags = parts[0].of(self.counted).reshape(-1)
            cells, values = cells[flags[cells]], values[flags[cells]]
            n_cells = parts[0].concepts.n_cells
        n_zeros = n_cells - len(values)
        ranges = self._ranges(cells, values, n_zeros, flags) if self.given is None else self.given[position]
        clustered = time.perf_counter()
        bitmaps = [self._bitmaps(*own, ranges, part) for own, part in zip(of_parts, parts, strict=True)]
        times = {"ranges": clustered - started, "histogram": time.perf_counter() - clustered}
        nothing = Status.SILENT if not len(values) else _nothing(values) if not n_zeros else Status.EMPTY
        return Counted(nothing, _ends(ranges), bitmaps, times)

    def _within(self, unit: int, part: Part) -> tuple[Any, Any]:
        """Return the cells of a unit that are not 0, numbered in a part of the samples, and their activations."""
        first, end = self._columns.indptr[unit : unit + 2]
        cells, values = self._columns.indices[first:end].astype(np.int64), self._columns.data[first:end]
        if part.samples is None:
            return cells, values
        n_cells = self.grid[0] * self.grid[1]
        sample, cell = np.divmod(cells, n_cells)
        place: Any = np.searchsorted(part.samples, sample)
        inside = place < len(part.samples)
        inside[inside] = part.samples[place[inside]] == sample[inside]
        return place[inside] * n_cells + cell[inside], values[inside]

    def _ranges(self, cells: Any, values: Any, n_zeros: int, flags: Flags | None) -> Pairs:
        if self.options.clusters == 1:
            return np.array([[sparse.sparse_quantile(values, n_zeros, self.options.quantile), np.inf]])
        if len(values) and values.min() < 0:  # then zeros are clustered, too
            dense = np.zeros(len(values) + n_zeros if flags is None else flags.size, np.float32)
            dense[cells] = values
            values = dense if flags is None else dense[flags]
        return self.ranges_of(values)

    def _bitmaps(self, cells: Any, values: Any, ranges: Pairs, part: Part) -> list[Bitmap]:
        atoms = part.concepts.atoms
        counts = sparse.sparse_histogram(cells, values, ranges, atoms)
        n_cells = self.grid[0] * self.grid[1]
        packed: list[Callable[[], Any]] = [
            partial(sparse.sparse_pack, cells, values, (lower, upper), atoms.n_samples, n_cells)
            for lower, upper in ranges.tolist()
        ]
        return [Bitmap(count, int(count.sum()), rows) for count, rows in zip(counts, packed, strict=True)]


class Bitmaps(Source):
    """Bitmaps bool[M, N, H, W], or packed uint64[M, N, n_words]."""

    def __init__(self, bitmaps: Any, concepts: Concepts, device: Device, threads: int | None) -> None:
        packed = inputs.as_bitmaps(bitmaps, concepts, threads)
        self._bitmaps, self._place, self.places = placed(packed, device)
        self.concepts, self.units, self.settings = concepts, list(range(len(packed))), {}
        self.n_values, self.unit_bytes, self.n_ranges = 0, 8 * concepts.n_samples * packed.shape[-1], 1

    def check_values(self) -> None:
        """Serve `Source`; bits are bits."""

    def content_hash(self) -> str:
        """Serve `Source`."""
        return content_hash({"bitmaps": self._place.download(self._bitmaps)})

    def count(
        self, positions: range, parts: Sequence[Part], counters: Sequence[Counter], threads: int
    ) -> list[Counted]:
        """Serve `Source`; the bitmaps of a job are counted in one pass."""
        started = time.perf_counter()
        bitmaps = self._bitmaps[positions.start : positions.stop]
        of_parts = [self._within(bitmaps, part, at, threads) for part, at in zip(parts, counters, strict=True)]
        times = {"histogram": (time.perf_counter() - started) / len(positions)}
        return [
            Counted(Status.EMPTY, [None], [[of_part[i]] for of_part in of_parts], times) for i in range(len(positions))
        ]

    def _within(self, bitmaps: Any, part: Part, counter: Counter, threads: int) -> list[Bitmap]:
        own = bitmaps if part.samples is None else np.stack([part.of(rows) for rows in self._place.download(bitmaps)])
        own = counter.at_hand(own)
        counts = counter.of_bitmaps(own, threads)
        return [Bitmap(*count, partial(own.__getitem__, i)) for i, count in enumerate(counts)]


def _nothing(values: npt.NDArray[np.float32]) -> Status:
    """Return why a range of a unit is empty: it is silent, all its activations are equal, or no cell lies in it."""
    if values.min() == values.max():
        return Status.CONSTANT if values.flat[0] else Status.SILENT
    return Status.EMPTY


def _ends(ranges: Pairs) -> list[Range]:
    return [(lower, upper) for lower, upper in ranges.tolist()]


def _json_ranges(ranges: Pairs) -> list[list[float | str]]:
    return [[float(end) if np.isfinite(end) else str(float(end)) for end in pair] for pair in ranges]
