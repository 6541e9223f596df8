"""What `explain` reports beside a score: chance, and samples that the explanation was not found on (docs/chance.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.chance import (
    formula_chance,
    group_codes,
    permutations,
    search_chance,
    working_bytes,
)
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.evidence import HeldOut
from ccx.formula import Formula
from ccx.kernels.atoms import Atoms
from ccx.kernels.conversion import as_array
from ccx.kernels.places import place_of, to_host
from ccx.kernels.rows import n_words
from ccx.options import EvidenceOptions
from ccx.results import Explanation, Explanations
from ccx.search import Found, Objective, Search, SearchResult
from ccx.store import content_hash
from ccx.typing import Int32Array, IntArray


class Bitmap(NamedTuple):
    """A bitmap on some samples: int64[G], its cells by atom, their sum, and what makes its rows uint64[n, n_words].

    Both lie where they were counted.
    """

    counts: Any
    n_cells: int
    rows: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples: their annotations, which of all samples they are (None = all), and permutations of them."""

    concepts: Concepts
    samples: IntArray | None
    orders: Int32Array | None

    def of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what an array [N, ...] has for these samples."""
        return array if self.samples is None else array[self.samples]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was asked for, checked: the samples to explain, those held out, and permutations of both.

    `settings` and `hashes` are what a run folder keeps of it.
    """

    fit: Part
    held_out: Part | None
    settings: dict[str, Any]
    hashes: dict[str, str]

    @classmethod
    def of(cls, concepts: Concepts, options: EvidenceOptions, threads: int | None) -> Evidence:
        """Split the annotations, and draw the permutations.

        Raises
        ------
        InputError
            (`MemoryBudgetError`) if they do not fit the concepts and each other.

        """
        n_orders = options.permutations
        codes = None if options.groups is None else group_codes(options.groups, concepts.n_samples)
        chosen = check_split(options.fit_samples, options.test_samples, concepts.n_samples)

        def part(samples: IntArray | None) -> Part:
            within = concepts if samples is None else concepts.subset(samples=samples, threads=threads)
            part = Part(within, samples, None)
            if not n_orders:
                return part
            own = np.zeros(within.n_samples, np.int64) if codes is None else part.of(codes)
            return replace(part, orders=permutations(own, n_orders, options.seed))

        if n_orders:  # drawing many takes a while: what does not fit is refused before
            n_bytes = 4 * n_orders * concepts.n_samples + working_bytes(concepts.atoms, n_orders)
            memory.require_bytes("permutations", n_bytes, "use fewer permutations or samples")
        if chosen is not None:  # annotations are copied, each with the batches that it is made of
            n_bytes = 2 * concepts.atoms.cell_atoms.nbytes
            memory.require_bytes("fit_samples", n_bytes, "use fewer samples or a coarser grid")
        parts = [part(samples) for samples in chosen or (None,)]
        settings = {
            "permutations": n_orders,
            "seed": options.seed,
            "groups": None if codes is None else int(codes.max()) + 1,
            "fit_samples": None if chosen is None else chosen[0].tolist(),
            "test_samples": None if chosen is None else chosen[1].tolist(),
        }
        hashes = {} if codes is None else {"groups": content_hash({"groups": codes})}
        return cls(parts[0], parts[1] if chosen else None, settings, hashes)

    @cached_property
    def parts(self) -> list[Part]:
        """The samples to explain, and then those held out, where there are."""
        return [self.fit] if self.held_out is None else [self.fit, self.held_out]

    @cached_property
    def worker_bytes(self) -> int:
        """What the permuted histograms of a unit take at a time."""
        return max((_working_bytes(part) for part in self.parts if part.orders is not None), default=0)


def with_evidence(
    item: Explanation, result: SearchResult, bitmaps: Sequence[Bitmap], evidence: Evidence, search: Search, threads: int
) -> Explanation:
    """Return an explanation with its chance and its score on the samples held out; without formula as it is.

    `result` is what the search found, `bitmaps` what is explained, one on the samples of each part of the evidence.
    """
    formula = item.formula
    if formula is None:
        return item
    found, fit = result.found[0], evidence.fit
    if fit.orders is not None:
        rows, atoms = _beside(bitmaps[0].rows(), fit.concepts.atoms)
        objectives = _objectives(search, fit.concepts)
        chance = search_chance(found, rows, atoms, fit.orders, search, objectives, item.bitmap_cells, threads)
        item = replace(item, chance=chance)
    if evidence.held_out is None:
        return item
    return replace(item, held_out=_held_out(formula, found, bitmaps[1], evidence.held_out, search, threads))


def _held_out(formula: Formula, found: Found, bitmap: Bitmap, part: Part, search: Search, threads: int) -> HeldOut:
    """Score a formula that was found on the samples of another part."""
    inside = part.concepts.atoms_satisfying(formula)
    atoms, objectives = part.concepts.atoms, _objectives(search, part.concepts)
    hits, size = int(to_host(bitmap.counts)[inside].sum()), int(atoms.cells[inside].sum())
    bitmap_cells = bitmap.n_cells
    there = found._replace(intersection=hits, size=size, union=bitmap_cells + size - hits)
    chance = None
    if part.orders is not None:
        rows, atoms = _beside(bitmap.rows(), atoms)
        chance = formula_chance(there, inside, rows, atoms, part.orders, objectives, bitmap_cells, threads)
    return HeldOut(objectives(bitmap_cells).score(there), there.iou, hits, there.union, bitmap_cells, size, chance)


def _objectives(search: Search, concepts: Concepts) -> Callable[[int], Objective]:
    return lambda bitmap_cells: Objective.of(search.options, bitmap_cells, concepts.n_cells)


def _beside(rows: Any, atoms: Atoms) -> tuple[Any, Atoms]:
    """Return a bitmap and atoms where the bitmap lies, if the atoms were brought there; else in main memory."""
    place = place_of(rows)
    return (rows, atoms.at(place)) if atoms.is_kept_at(place) else (to_host(rows), atoms)


def check_split(fit_samples: Any, test_samples: Any, n_samples: int) -> tuple[IntArray, IntArray] | None:
    """Return the samples to explain and those held out, ascending; where one is None, all that are not the other's.

    Raises
    ------
    InputError
        If one names a sample twice or none, or a sample that is not there, or both share a sample.

    """
    if fit_samples is None and test_samples is None:
        return None
    if test_samples is None:
        fitted = _samples("fit_samples", fit_samples, n_samples)
        tested = np.setdiff1d(np.arange(n_samples), fitted)
    else:
        tested = _samples("test_samples", test_samples, n_samples)
        rest = np.setdiff1d(np.arange(n_samples), tested)
        fitted = rest if fit_samples is None else _samples("fit_samples", fit_samples, n_samples)
    shared = np.intersect1d(fitted, tested)
    if shared.size:
        wanted, got = "samples that fit_samples has not", f"{shared.size} of both, first {shared[0]}"
        remedy = "a formula must not be scored where it was found"
        raise InputError("test_samples", wanted=wanted, got=got, remedy=remedy)
    for argument, samples in (("fit_samples", fitted), ("test_samples", tested)):
        if not samples.size:
            raise InputError(argument, wanted="at least one sample", got="none", remedy="leave some to each of the two")
    return fitted, tested


def _samples(argument: str, chosen: Any, n_samples: int) -> IntArray:
    array = as_array(chosen, argument)
    wanted, remedy = f"bool[{n_samples}] or indices 0..{n_samples - 1}, each once", "see the documentation of explain"
    if array.dtype == np.bool_ and array.shape == (n_samples,):
        return np.flatnonzero(array)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(argument, wanted=wanted, got=f"{array.dtype}{list(array.shape)}", remedy=remedy)
    if array.size and not (array.min() >= 0 and array.max() < n_samples):
        got = f"values from {array.min()} to {array.max()}"
        raise InputError(argument, wanted=wanted, got=got, remedy=remedy)
    ascending: IntArray = np.unique(array).astype(np.int64)
    if ascending.size < array.size:
        raise InputError(argument, wanted=wanted, got="repeated ones", remedy=remedy)
    return ascending


def _working_bytes(part: Part) -> int:
    """Return what a permuted search takes: a batch of histograms, the rows of the bitmap and of one permuted."""
    atoms = part.concepts.atoms
    row_bytes = 8 * n_words(atoms.shape[0] * atoms.shape[1])
    return working_bytes(atoms, len(part.orders) if part.orders is not None else 0) + 2 * atoms.n_samples * row_bytes


def explained_samples(found: Explanations, concepts: Concepts) -> IntArray:
    """Return the samples that explanations were found on, ascending."""
    fit = found.settings.get("fit_samples")
    return np.arange(concepts.n_samples) if fit is None else np.array(fit, np.int64)


def explained_cells(found: Explanations, concepts: Concepts) -> int:
    """Return the number of valid cells of these samples."""
    samples, atoms = explained_samples(found, concepts), concepts.atoms
    ends = np.concatenate(([0], np.cumsum(atoms.sample_cells, dtype=np.int64)))[atoms.sample_starts]
    return int((ends[samples + 1] - ends[samples]).sum())
