"""Every public kernel that runs on a GPU, on arrays of a layer, with the bytes and operations that it cannot avoid.

The tests check them on small problems, `gpu.py` times them on large ones; both compare with the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

import ccx
from benchmarks.synthetic import Synthetic
from ccx import kernels
from ccx.clustering import unit_ranges
from ccx.kernels import Atoms
from ccx.kernels.estimates import Estimate
from ccx.kernels.places import Place, to_host

CLUSTERS = 5
BEAM = 5
ORDERS = 100  # of the samples, for what chance would reach
UNITS_A_PASS = 8  # that one reading of the cells serves, in range_histogram
# Public functions that run on the host alone: choices among counts, and what a data set does once.
HOST_ONLY = {"atom_rows", "best_extensions", "best_placed", "best_singles", "concept_rows", "kmeans_1d", "n_words"}


class Case(NamedTuple):
    """A public function and the arrays it is given; `n_bytes` must cross the memory bus, `operations` are done."""

    function: Callable[..., Any]
    arrays: dict[str, Any]  # by the names of its arguments
    n_bytes: int
    operations: int
    unit: str
    kind: str = ""

    @property
    def name(self) -> str:
        """The function, and which kind of it."""
        function = self.function.func if isinstance(self.function, partial) else self.function
        return f"{function.__name__}, {self.kind}" if self.kind else function.__name__

    def at(self, place: Place) -> Callable[[], Any]:
        """Move the arrays to a place -> the call."""
        return partial(self.function, **{name: _moved(value, place) for name, value in self.arrays.items()})


def _moved(value: Any, place: Place) -> Any:
    if isinstance(value, Atoms):
        return value.at(place)
    if isinstance(value, tuple):  # arrays with names
        return type(value)(*(_moved(part, place) for part in value))
    return place.upload(value)


def arrays_of(result: Any) -> list[NDArray[Any]]:
    """Return the arrays of a result, in main memory."""
    return [np.asarray(to_host(array)) for array in (result if isinstance(result, tuple) else (result,))]


def difference(case: Case, result: Any) -> str:
    """Say how a result differs from what the CPU gives, dtypes included; nothing where it does not."""
    got, wanted = arrays_of(result), arrays_of(case.function(**case.arrays))
    kinds, wanted_kinds = ([(array.dtype.str, array.shape) for array in arrays] for arrays in (got, wanted))
    if kinds != wanted_kinds:
        return f"{case.name}: expected {wanted_kinds}, got {kinds}"
    wrong = [int(np.count_nonzero(ours != theirs)) for ours, theirs in zip(got, wanted, strict=True)]
    return f"{case.name}: {wrong} numbers differ from the CPU's" if any(wrong) else ""


def cases(data: Synthetic, concepts: ccx.Concepts, n_mask_samples: int) -> Iterator[Case]:
    """Yield all cases; those of masks take the concepts' masks in the first `n_mask_samples` samples."""
    yield from _of_rows(concepts.atoms, n_mask_samples)
    yield from _of_activations(data, concepts.atoms)
    yield from _of_atoms(data, concepts.atoms)
    yield from _of_estimates(data, concepts.atoms, n_mask_samples)


def _of_rows(atoms: Atoms, n_samples: int) -> Iterator[Case]:
    n_cells = atoms.shape[0] * atoms.shape[1]
    rows = kernels.concept_rows(atoms, np.arange(n_samples)).rows
    half = len(rows) // 2
    a, b = rows[:half], rows[half : 2 * half]
    bits = kernels.unpack(rows, n_cells)
    both = bits.nbytes + rows.nbytes
    yield Case(kernels.pack, {"bits": bits}, both, bits.size, "cells")
    yield Case(partial(kernels.unpack, n_bits=n_cells), {"rows": rows}, both, bits.size, "cells")
    for function in (kernels.logical_and, kernels.logical_or, kernels.logical_and_not):
        yield Case(function, {"a": a, "b": b}, 3 * a.nbytes, a.size, "words")
    yield Case(kernels.popcount, {"rows": rows}, rows.nbytes, rows.size, "words")
    yield Case(kernels.and_popcount, {"a": a, "b": b}, 2 * a.nbytes, a.size, "pairs of words")
    a, b = a[:2048], b[:2048]
    n_bytes = a.nbytes + b.nbytes + 8 * len(a) * len(b)
    yield Case(kernels.intersection_counts, {"a": a, "b": b}, n_bytes, len(a) * b.size, "pairs of words")
    for function in (kernels.bounding_boxes, kernels.inscribed_rectangles):
        call = partial(function, shape=atoms.shape)
        yield Case(call, {"rows": rows}, rows.nbytes + 16 * len(rows), len(rows), "masks")


def _open(ranges: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Leave out those of a cluster of one value."""
    return [(float(start), float(stop)) for start, stop in ranges if start < stop]


def _of_activations(data: Synthetic, atoms: Atoms) -> Iterator[Case]:
    maps = data.activations
    n_samples, n_units = maps.shape[:2]
    n_cells = n_samples * atoms.shape[0] * atoms.shape[1]
    ranges = np.stack([unit_ranges(np.ascontiguousarray(maps[:, unit]), clusters=CLUSTERS) for unit in range(n_units)])
    one = np.ascontiguousarray(maps[:, 0])
    first = _open(ranges[0])
    call = partial(kernels.upsample, shape=atoms.shape)
    yield Case(call, {"activations": one}, one.nbytes + 4 * n_cells, n_cells, "cells")
    call = partial(kernels.upsample_pack, shape=atoms.shape, limits=first[-1])
    yield Case(call, {"activations": one}, one.nbytes + n_cells // 8, n_cells, "cells")

    passes, counts = -(-n_units // UNITS_A_PASS), 8 * ranges[..., 0].size * atoms.n_atoms
    n_bytes = maps.nbytes + passes * atoms.cell_atoms.nbytes + counts
    arrays = {"activations": maps, "atoms": atoms}
    yield Case(partial(kernels.range_histogram, ranges=ranges), arrays, n_bytes, n_units * n_cells, "cells")

    bitmaps = np.stack([kernels.upsample_pack(one, atoms.shape, limits) for limits in first])
    n_bytes = bitmaps.nbytes + atoms.cell_atoms.nbytes + 8 * len(bitmaps) * atoms.n_atoms
    arrays = {"rows": bitmaps, "atoms": atoms}
    yield Case(kernels.bitmap_histogram, arrays, n_bytes, len(bitmaps) * n_cells, "cells")

    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(n_samples) for _ in range(ORDERS)])
    rows = bitmaps[-1]
    n_bytes = ORDERS * (rows.nbytes + 4 * n_samples + 8 * atoms.n_atoms) + atoms.cell_atoms.nbytes
    call = partial(kernels.permuted_histogram, permutations=orders)
    yield Case(call, {"rows": rows, "atoms": atoms}, n_bytes, ORDERS * n_cells, "cells")


def _of_atoms(data: Synthetic, atoms: Atoms) -> Iterator[Case]:
    maps = np.ascontiguousarray(data.activations[:, :1])
    ranges = unit_ranges(maps[:, 0], clusters=CLUSTERS)
    weights = np.stack([atoms.cells, kernels.range_histogram(maps, ranges[None], atoms)[0, -1]])
    sets, n_entries = atoms.atom_starts.nbytes + atoms.atom_concepts.nbytes, atoms.atom_concepts.size
    arrays = {"atoms": atoms, "weights": weights}
    yield Case(kernels.concept_counts, arrays, sets + weights.nbytes, 2 * n_entries, "additions")
    n_bytes, n_pairs = sets + atoms.cells.nbytes + 8 * atoms.n_concepts**2, int((np.diff(atoms.atom_starts) ** 2).sum())
    yield Case(kernels.pair_counts, {"atoms": atoms, "weights": atoms.cells}, n_bytes, n_pairs, "additions")

    heads = np.argsort(-kernels.concept_counts(atoms, weights)[1], kind="stable")[:BEAM].astype(np.int32)
    formulas = np.stack([heads, np.roll(heads, 1)], axis=1)
    operators = (np.arange(len(heads)) % 3).astype(np.uint8)[:, None]
    for function in (kernels.formula_counts, kernels.conjunction_counts):
        call = partial(function, concepts=formulas, operators=operators)
        yield Case(call, arrays, sets + weights.nbytes, len(heads) * weights.size, "atoms judged")


def _of_estimates(data: Synthetic, atoms: Atoms, n_samples: int) -> Iterator[Case]:
    shape, n_concepts = atoms.shape, atoms.n_concepts
    maps = np.ascontiguousarray(data.activations[:n_samples, 0])
    ranges = _open(unit_ranges(maps, clusters=CLUSTERS))
    masks = np.stack([kernels.upsample_pack(maps, shape, limits) for limits in ranges])  # as good as formulas'
    bitmap = masks[-1]
    occurring = kernels.concept_rows(atoms, np.arange(n_samples))
    rows, n_entries = occurring.rows, occurring.concepts.size
    n_bytes = rows.nbytes + bitmap.nbytes + 12 * n_entries
    arrays = {"occurring": occurring, "bitmap": bitmap}
    yield Case(kernels.concept_hits, arrays, n_bytes, rows.size, "pairs of words")
    call = partial(kernels.concept_shapes, shape=shape, n_concepts=n_concepts)
    yield Case(call, {"occurring": occurring}, 2 * rows.nbytes + 44 * n_entries, len(rows), "masks")
    n_masks = masks.shape[0] * masks.shape[1]
    n_bytes = 4 * masks.nbytes + bitmap.nbytes + 40 * n_masks
    arrays = {"masks": masks, "bitmap": bitmap}
    yield Case(partial(kernels.formula_shapes, shape=shape), arrays, n_bytes, n_masks, "masks")

    arrays = {
        "formulas": kernels.formula_shapes(masks, bitmap, shape),
        "concepts": kernels.concept_shapes(occurring, shape, n_concepts),
        "concept_intersections": kernels.concept_hits(occurring, bitmap)[None],
        "bitmap_areas": kernels.popcount(bitmap).astype(np.int32)[None],
    }
    parts = [*arrays["formulas"], *arrays["concepts"], arrays["concept_intersections"], arrays["bitmap_areas"]]
    n_bytes, n_estimates = sum(part.nbytes for part in parts), 3 * len(masks) * n_entries
    for kind in get_args(Estimate):
        call = partial(kernels.estimate_extensions, n_cells=shape[0] * shape[1], kind=kind)
        yield Case(call, arrays, n_bytes, n_estimates, "estimates", kind)
