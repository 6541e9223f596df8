"""Where the histograms of a run are counted: in main memory, or on GPUs, in batches that fit there.

What is counted, and what is searched with it, is the same everywhere. `docs/gpu.md` lists what is copied between main
memory and a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.errors import MemoryBudgetError
from ccx.kernels.activations import Grid, thresholds
from ccx.kernels.atoms import ATOM_ARRAYS, DENSE_PAIRS, Atoms
from ccx.kernels.places import MAIN_MEMORY, Place, parse_places, place_of, to_host
from ccx.search import Search

if TYPE_CHECKING:
    from ccx.pipeline.sources import Source

Device: TypeAlias = str | Sequence[str] | None
_MOST_UNITS = 8  # that a GPU counts in one pass over the cells
_LARGE = 1 << 24  # bytes, below which memory is not looked at
_SET_ARRAYS = ("atom_starts", "atom_concepts", "cells")
_SAMPLE_ARRAYS = tuple(name for name in ATOM_ARRAYS if name not in _SET_ARRAYS)
_NO_CELL = (float(np.finfo(np.float32).max), np.inf)  # a range in which no activation lies


class Counter:
    """A place that counts the cells of atoms, so many samples at a time; it asks its kernels without further checks."""

    def __init__(self, place: Place, atoms: Atoms, n_samples: int) -> None:
        self.place = place
        self._atoms = atoms
        cuts = [*range(0, atoms.n_samples, n_samples), atoms.n_samples]
        self._parts = [slice(*ends) for ends in pairwise(cuts)]
        self._sets = atoms.at(place) if len(self._parts) == 1 else atoms.sets_at(place)

    def of_ranges(
        self, values: Any, limits: Sequence[npt.NDArray[np.float64]], grid: Grid, threads: int
    ) -> list[list[tuple[Any, int]]]:
        """Count the cells of each range of several units: float32[N, U, h, w] on a grid, float64[K, 2] per unit.

        Returns for each range of each unit int64[G], where this counter counts, and their sum. Ranges may be closed
        (lower = upper), and then hold nothing.
        """
        n_units, n_ranges = len(limits), max(map(len, limits), default=0)
        padded = np.full((n_units, n_ranges, 2), _NO_CELL)
        for pairs, own in zip(padded, limits, strict=True):
            open_ = own[:, 0] < own[:, 1]
            pairs[: len(own)][open_] = own[open_]
        if (padded == _NO_CELL).all():
            return [[(np.zeros(self._atoms.n_atoms, np.int64), 0)] * len(own) for own in limits]
        count, ends = self.place.kernels.activations.range_histogram, thresholds(padded, "ranges")
        counts, totals = self._added(lambda part, atoms, out: count(values[part], *ends, grid, atoms, out, threads))
        return [[(counts[u, k], int(totals[u, k])) for k in range(len(own))] for u, own in enumerate(limits)]

    def of_bitmaps(self, rows: Any, threads: int) -> list[tuple[Any, int]]:
        """Count the cells of bitmaps: packed rows uint64[M, N, n_words] -> for each int64[G], and its sum."""
        count = self.place.kernels.activations.bitmap_histogram
        counts, totals = self._added(lambda part, atoms, out: count(rows[:, part], atoms, out, threads))
        return [(counts[m], int(totals[m])) for m in range(len(totals))]

    def _added(self, count: Callable[[slice, Atoms, Any], Any]) -> tuple[Any, npt.NDArray[np.int64]]:
        """Add up the counts of all samples: what counts some, given earlier counts -> int64[..., G], and their sums."""
        counts: Any = None
        are_kept = len(self._parts) == 1
        for part in self._parts:
            atoms = self._sets if are_kept else self._atoms.samples_at(part.start, part.stop, self.place)
            counts = count(part, atoms, counts)
        lead = counts.shape[:-1]
        rows = counts.reshape(math.prod(lead), counts.shape[-1])  # no -1: there may be no atom
        return counts, self.place.download(self.place.kernels.atoms.total_counts(self._sets, rows)).reshape(lead)

    def at_hand(self, array: Any) -> Any:
        """Return an array at this place; from another GPU, by way of main memory."""
        return array if place_of(array).name == self.place.name else self.place.upload(to_host(array))


def placed(array: Any, device: Any) -> tuple[Any, Place, list[Place]]:
    """Return an array, where it lies, and the places that `device` names, where it is used; None = where it lies.

    It comes in main memory, where it is used there; a GPU takes batches of it, from where it lies. Workers are threads
    of their own, and see another current stream than the caller, so the array is complete.

    Raises
    ------
    InputError, MissingExtraError, BackendError
        If there is no such device.

    """
    here = place_of(array)
    places = [here] if device is None else parse_places(device)
    here.synchronize()
    return (here.download(array), MAIN_MEMORY, places) if places == [MAIN_MEMORY] else (array, here, places)


@dataclass(frozen=True)
class Plan:
    """How a run is shared out: places, workers at a time, units or bitmaps per job, samples of the cells at a time."""

    places: list[Place]
    n_workers: int
    batch: int
    n_samples: int

    @classmethod
    def of(cls, source: Source, parts: Sequence[Atoms], threads: int, search: Search, extra: int) -> Plan:
        """Plan the counting of atoms, in `parts` of the samples, for some units or bitmaps.

        On GPUs each takes its values, and a histogram per range and part. Atoms take half of the free memory at most;
        where that is too little, the cells of a few samples at a time share with the items what their sets leave. So do
        the masks of the concepts, if the search is to make some. `extra` bytes are taken by each worker, too.

        Raises
        ------
        MemoryBudgetError
            If not even one item fits on a GPU.

        """
        places, n_items = source.places, len(source.units)
        everything = max(atoms.n_samples for atoms in parts)
        if places == [MAIN_MEMORY]:
            return cls(places, max(1, min(threads, n_items)), 1, everything)
        n_histograms = source.n_ranges + 2  # 2: what a search weighs
        item_bytes = source.unit_bytes + sum(atoms.n_atoms for atoms in parts) * 8 * n_histograms
        free = min(place.free_bytes() or 0 for place in places)
        new = [atoms for atoms in parts if not all(atoms.is_kept_at(place) for place in places)]
        whole = sum(_bytes_of(atoms, ATOM_ARRAYS) for atoms in new)
        fits = whole <= free // 2
        left = max(0, free - (whole if fits else sum(_bytes_of(atoms, _SET_ARRAYS) for atoms in new)))
        share = left // (1 + (not fits) + search.measures_masks)
        # Ranges are found by the processors, so that each should have a unit.
        batch = max(1, min(_MOST_UNITS, -(-n_items // threads)))
        a_place = -(-min(threads, -(-n_items // batch)) // len(places))
        if a_place * (extra + batch * item_bytes) > share:
            batch = max(1, (share // max(a_place, 1) - extra) // item_bytes)
            a_place = min(a_place, share // (extra + batch * item_bytes))
        if n_items and not a_place:
            wanted, got = (
                f"work that fits into the {free / 1e9:.1f} GB free there",
                f"{(extra + item_bytes) / 1e9:.1f} GB for one unit",
            )
            remedy = "free memory of the GPU, or use fewer ranges or samples"
            raise MemoryBudgetError("device", wanted=wanted, got=got, remedy=remedy)
        n_workers = max(1, a_place * len(places))
        if fits:
            return cls(places, n_workers, batch, everything)
        a_sample = max(_bytes_of(atoms, _SAMPLE_ARRAYS) // max(atoms.n_samples, 1) for atoms in parts)
        return cls(places, n_workers, batch, max(1, share // (a_place * max(a_sample, 1))))

    def require_memory(self, source: Source, atoms: Atoms, search: Search, extra: int) -> None:
        """Raise `MemoryBudgetError` if the workers, with a unit each, or `extra` each, would not fit in main memory."""
        # Histograms of every range; then the weights of two counts by atom and marks, in the search.
        each = atoms.n_atoms * (8 * source.n_ranges + 16 + 16)
        each += source.n_values * (4 + 4 + 1)  # the activations, sorted, and which of them fire
        each += 6 * search.memory(atoms.n_concepts)  # hits and gains of pairs; sizes, hits, values and gains by rank
        pairs = 8 * min(atoms.n_concepts, DENSE_PAIRS) ** 2
        n_bytes = self.n_workers * each + pairs
        if n_bytes > _LARGE:
            memory.require_bytes("threads", n_bytes, "use fewer threads, ranges or samples")
        if extra:
            memory.require_bytes("permutations", self.n_workers * extra, "use fewer threads or samples")

    def counters(self, parts: Sequence[Atoms]) -> list[list[Counter]]:
        """Return for each place what counts the atoms of each part there."""
        return [[Counter(place, atoms, self.n_samples) for atoms in parts] for place in self.places]

    def jobs(self, first: int, n_units: int) -> list[range]:
        """Return the positions of the units of each job, from the first one on."""
        return [range(start, min(start + self.batch, n_units)) for start in range(first, n_units, self.batch)]

    def of_job(self, counters: list[list[Counter]], positions: range) -> list[Counter]:
        """Return the counters of the place that these units or bitmaps fall to."""
        return counters[positions.start // self.batch % len(counters)]


def _bytes_of(atoms: Atoms, names: Sequence[str]) -> int:
    """Return the bytes of some arrays; with the sets come the atoms of each concept, which take twice as much."""
    n_bytes: int = sum(getattr(atoms, name).nbytes for name in names)
    return n_bytes + 2 * int(atoms.atom_concepts.nbytes) * ("atom_concepts" in names)
