"""The units to explain, dense or sparse: their ranges, and the bitmap of each range on each part of the samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.clustering import Method, unit_ranges
from ccx.concepts import Concepts
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import sparse
from ccx.kernels.activations import as_maps, upsample_pack
from ccx.kernels.conversion import as_sparse, checked_sparse
from ccx.kernels.devices import MAIN_MEMORY, Place, copy_of_units, to_host
from ccx.pipeline import inputs
from ccx.pipeline.devices import Device, Plan, Site, bring, places_for
from ccx.pipeline.judging import Bitmap, Part
from ccx.results import Status
from ccx.store import content_hash

Limits: TypeAlias = npt.NDArray[np.float64]


class Ranges(NamedTuple):
    """How ranges are found: given ones, one entry a position; or clusters."""

    given: list[Limits] | None
    clusters: int
    quantile: float
    method: Method


class Counting(NamedTuple):
    """How a run counts: its ranges, on which parts of the samples, and by which sites, each on so many threads.

    Ranges come from the positions of the first part that count: bool[n, h, w], None = all.
    """

    ranges: Ranges
    counted: npt.NDArray[np.bool_] | None
    parts: Sequence[Part]
    plan: Plan
    sites: list[list[Site]]
    threads: int


class Counted(NamedTuple):
    """One unit: why a range of it is empty, its ranges, by part of the samples their bitmaps, and seconds taken."""

    nothing: Status
    limits: Limits
    bitmaps: list[list[Bitmap]]
    times: dict[str, float]


class Units(Protocol):
    """What a run asks of activations."""

    n_units: int
    n_values: int  # of a unit
    grid: tuple[int, int]  # of the activations
    places: list[Place]

    def check_finite(self, units: list[int], counted: npt.NDArray[np.bool_] | None) -> None:
        """Raise `InputError` if an activation of these units is NaN or infinite, where one counts: bool[N, h, w]."""

    def count(self, units: list[int], positions: range, how: Counting) -> list[Counted]:
        """Find ranges and count the cells of each, of the units at some positions of the list."""

    def content_hash(self) -> str:
        """Return the hash of all activations."""


def as_units(activations: Any, concepts: Concepts, device: Device) -> Units:
    """Return activations as `explain` takes them.

    Raises
    ------
    DTypeError, ShapeError, InputError
        If they are nothing of that, or do not fit the concepts.
    MissingExtraError, BackendError
        If `device` is a GPU that is not there.

    """
    height, width = concepts.shape
    matrix = as_sparse(activations, concepts.n_samples * height * width)
    if matrix is not None:
        return SparseUnits(matrix, concepts, device)
    return DenseUnits(activations, concepts, device)


class DenseUnits:
    """Activations float[N, U, h, w], [N, U, T] or [N, U]."""

    def __init__(self, activations: Any, concepts: Concepts, device: Device) -> None:
        maps = as_maps(activations, concepts.n_samples, concepts.shape)
        self.places = places_for(device, maps)
        self._maps, self._shape = bring(maps, self.places), concepts.shape
        self.n_units, self.n_values, self.grid = maps.shape[1], maps[:, 0].size, maps.shape[2:]

    def check_finite(self, units: list[int], counted: npt.NDArray[np.bool_] | None) -> None:
        """Serve `Units`."""
        inputs.check_finite(self._maps, units, counted)

    def content_hash(self) -> str:
        """Serve `Units`."""
        return content_hash({"activations": to_host(self._maps)})

    def count(self, units: list[int], positions: range, how: Counting) -> list[Counted]:
        """Serve `Units`; the units of a job are counted in one pass."""
        ranges, counted, parts, plan, sites, threads = how
        started = time.perf_counter()
        at_hand = copy_of_units(self._maps, [units[position] for position in positions])
        everything = to_host(at_hand)
        values = [part.of(everything) for part in parts]
        heard = [values[0][:, i] if counted is None else values[0][:, i][counted] for i in range(len(positions))]
        if ranges.given is None:
            limits = [
                unit_ranges(one, clusters=ranges.clusters, quantile=ranges.quantile, method=ranges.method)
                for one in heard
            ]
        else:
            limits = [ranges.given[position] for position in positions]
        clustered = time.perf_counter()
        bitmaps = [
            self._bitmaps(site.brought(at_hand if own is everything else own), limits, site, threads)
            for own, site in zip(values, plan.of_job(sites, positions), strict=True)
        ]
        share = 1 / len(positions)
        times = {"ranges": (clustered - started) * share, "histogram": (time.perf_counter() - clustered) * share}
        return [
            Counted(_nothing(heard[i]), limits[i], [of_part[i] for of_part in bitmaps], times)
            for i in range(len(positions))
        ]

    def _bitmaps(self, values: Any, limits: list[Limits], site: Site, threads: int) -> list[list[Bitmap]]:
        """Return the bitmaps of all ranges of some units: float32[n, U, h, w]."""
        there = site.brought(values)
        return [
            [
                Bitmap(*count, partial(upsample_pack, there[:, i], self._shape, tuple(pair), threads=threads))
                for count, pair in zip(counts, pairs.tolist(), strict=True)
            ]
            for i, (counts, pairs) in enumerate(zip(site.of_ranges(there, limits, threads), limits, strict=True))
        ]


class SparseUnits:
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
        self._columns, self._shape, self._n_samples = columns, concepts.shape, concepts.n_samples
        self.places: list[Place] = [MAIN_MEMORY]
        self.n_units, self.n_values, self.grid = int(matrix.shape[1]), 0, concepts.shape

    def check_finite(self, units: list[int], counted: npt.NDArray[np.bool_] | None) -> None:
        """Serve `Units`."""
        wrong = []
        for unit in units:
            first, end = self._columns.indptr[unit : unit + 2]
            places = first + np.flatnonzero(~np.isfinite(self._columns.data[first:end]))
            if places.size and (counted is None or counted.reshape(-1)[self._columns.indices[places]].any()):
                wrong.append(unit)
        if wrong:
            raise inputs.not_finite(wrong)

    def content_hash(self) -> str:
        """Serve `Units`."""
        columns = self._columns
        indices, starts = columns.indices.astype(np.int64), columns.indptr.astype(np.int64)
        return content_hash({"values": columns.data, "cells": indices, "starts": starts, "rows": columns.shape[0]})

    def count(self, units: list[int], positions: range, how: Counting) -> list[Counted]:
        """Serve `Units`; only the activations that are not 0 are looked at."""
        return [self._counted(units[position], position, how) for position in positions]

    def _counted(self, unit: int, position: int, how: Counting) -> Counted:
        started = time.perf_counter()
        ranges, counted, parts, *_ = how
        everything = self._column(unit)
        of_parts = [self._within(*everything, part) for part in parts]
        cells, values = of_parts[0]
        if counted is not None:
            counts = counted.reshape(-1)[cells]
            cells, values = cells[counts], values[counts]
        n_zeros = (self._n_of(parts[0]) if counted is None else parts[0].concepts.n_cells) - len(values)
        if ranges.given is None:
            limits = self._ranges(cells, values, n_zeros, ranges, counted)
        else:
            limits = ranges.given[position]
        clustered = time.perf_counter()
        bitmaps = [self._bitmaps(*own, limits, part) for own, part in zip(of_parts, parts, strict=True)]
        times = {"ranges": clustered - started, "histogram": time.perf_counter() - clustered}
        nothing = Status.SILENT if not len(values) else _nothing(values) if not n_zeros else Status.EMPTY
        return Counted(nothing, limits, bitmaps, times)

    def _column(self, unit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the cells of a unit that are not 0, and their activations."""
        first, end = self._columns.indptr[unit : unit + 2]
        return self._columns.indices[first:end].astype(np.int64), self._columns.data[first:end]

    def _n_of(self, part: Part) -> int:
        """Return the number of cells of a part, the activations of a unit."""
        n_samples = self._n_samples if part.samples is None else len(part.samples)
        return n_samples * self._shape[0] * self._shape[1]

    def _within(self, cells: npt.NDArray[np.int64], values: Any, part: Part) -> tuple[Any, Any]:
        """Return the cells in a part of the samples, numbered there, and their activations."""
        if part.samples is None:
            return cells, values
        n_cells = self._shape[0] * self._shape[1]
        sample, cell = np.divmod(cells, n_cells)
        place: npt.NDArray[np.int64] = np.searchsorted(part.samples, sample)
        inside = place < len(part.samples)
        inside[inside] = part.samples[place[inside]] == sample[inside]
        return place[inside] * n_cells + cell[inside], values[inside]

    def _ranges(
        self, cells: Any, values: Any, n_zeros: int, ranges: Ranges, counted: npt.NDArray[np.bool_] | None
    ) -> Limits:
        if ranges.clusters == 1:
            return np.array([[sparse.sparse_quantile(values, n_zeros, ranges.quantile), np.inf]])
        everything = values
        if len(values) and values.min() < 0:  # then zeros are clustered, too
            everything = np.zeros(len(values) + n_zeros if counted is None else counted.size, np.float32)
            everything[cells] = values
            everything = everything if counted is None else everything[counted.reshape(-1)]
        return unit_ranges(everything, clusters=ranges.clusters, quantile=ranges.quantile, method=ranges.method)

    def _bitmaps(self, cells: Any, values: Any, limits: Limits, part: Part) -> list[Bitmap]:
        atoms = part.concepts.atoms
        counts = sparse.sparse_histogram(cells, values, limits, atoms)
        n_cells = self._shape[0] * self._shape[1]
        packed: list[Callable[[], Any]] = [
            partial(sparse.sparse_pack, cells, values, (lower, upper), atoms.n_samples, n_cells)
            for lower, upper in limits.tolist()
        ]
        return [Bitmap(count, int(count.sum()), rows) for count, rows in zip(counts, packed, strict=True)]


def _nothing(values: npt.NDArray[np.float32]) -> Status:
    """Return why a range of a unit is empty: it is silent, all its activations are equal, or no cell lies in it."""
    if values.min() == values.max():
        return Status.CONSTANT if values.flat[0] else Status.SILENT
    return Status.EMPTY
