"""`Concepts`: an annotated data set, reduced to what exact explanations need."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.checks import require_callable, require_flag, require_kind, shown, texts
from ccx.concepts.annotations import (
    MaskSource,
    check_categories,
    check_layer_count,
    check_layers,
    check_names,
    check_valid,
    concept_ids,
    label_batches,
    names_by_id,
    require_memory,
    split_batch,
)  # fmt: skip
from ccx.concepts.exclusion import as_positions, batches_without
from ccx.concepts.invariants import bounds, invariants
from ccx.errors import DTypeError, InputError, ShapeError, StoreError
from ccx.formula import Formula, parse
from ccx.kernels import logical_and, rows, upsample_pack
from ccx.kernels.atoms import Atoms, ConceptRows, atom_rows, concept_counts, concept_rows, pair_counts
from ccx.kernels.conversion import as_array, describe
from ccx.kernels.partitions import AtomBuilder
from ccx.kernels.positions import valid_positions
from ccx.kernels.shapes import check_grid
from ccx.keys import check_keys, require_same_samples
from ccx.networks import check_count, check_order
from ccx.options import renamed_arguments
from ccx.store import PathLike, content_hash, load_arrays, save_arrays

FILE_FORMAT = "ccx-concepts/1"
_MOST_CHOSEN = 1 << 32  # samples of a subset
_ATOM_ARRAYS = (
    "cell_atoms", "sample_starts", "sample_atoms", "sample_cells", "atom_starts", "atom_concepts", "cells",
)  # fmt: skip

Progress = Callable[[int, int], object]
"""Called with (samples done, samples in all; 0 where unknown)."""


class Concepts:
    """N samples of H×W cells annotated with C concepts, as atoms (docs/atoms.md).

    Build it with `from_label_maps` or `from_masks`; it never changes afterwards. Concept ids are 1..C
    in label maps (0 = none), and ``names[0]`` is the name of id 1. Cells that are not valid (void
    pixels, padding) belong to no atom and count nowhere.

    Attributes
    ----------
    names : tuple of str
        C distinct names.
    categories : tuple of str or None
        The category of each concept, if given.
    keys : tuple of str or None
        Who the samples are (`ccx.keys`), if known: no part of the content, and so of no content hash.
    atoms : ccx.kernels.atoms.Atoms
        The partition of all valid cells by concept set.
    n_concepts, n_samples : int
        C and N.
    shape : (int, int)
        The grid (H, W).

    """

    def __init__(
        self,
        atoms: Atoms,
        names: Sequence[str],
        categories: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        self.names = check_names(names)
        self.categories = check_categories(categories, len(self.names))
        # A sample that is there twice has its key twice.
        self.keys = None if keys is None else check_keys("keys", keys, atoms.n_samples, distinct=False)
        self.atoms, self.shape = atoms, atoms.shape
        self.n_concepts, self.n_samples = len(self.names), atoms.n_samples
        if atoms.n_concepts != len(self.names):
            remedy = "give one name per concept"
            raise InputError("names", wanted=f"{atoms.n_concepts} names", got=str(len(self.names)), remedy=remedy)
        self._index = {name: index for index, name in enumerate(self.names)}
        self._positions: dict[tuple[int, int], npt.NDArray[np.bool_] | None] = {}

    @classmethod
    def from_label_maps(
        cls,
        labels: Any,
        names: Sequence[str] | Mapping[int, str],
        *,
        categories: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        valid: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Concepts:
        """Build from label maps, one layer per kind of annotation.

        Parameters
        ----------
        labels
            int[N, L, H, W] or int[N, H, W] (one layer), ids 0..C, 0 = none; or an iterable of such
            batches, or of (batch, valid) pairs, which is never held in memory at once (a torch
            DataLoader must not shuffle). A concept that
            stands in several layers of one cell counts once.
        names
            C names; ``names[0]`` belongs to id 1. Or a mapping from the ids in `labels` to names, in whose
            order the concepts come; 0 = none, unless it has a name.
        categories
            The category of each concept, in the order of ids.
        keys
            Who the samples are: N distinct texts, such as the paths of their images (`ccx.keys`). What is paired with
            these concepts and knows its keys, too, must then have the same in the same order.
        valid
            bool[N, H, W], False where a cell shall count nowhere; only with an array of labels.
        threads
            Processors to use; None = all available. The result does not depend on it.
        progress
            Called after each batch with (samples done, samples in all or 0).

        Raises
        ------
        ShapeError, DTypeError, InputError
            If shapes, dtypes, names or ids do not fit each other.
        MemoryBudgetError
            If the result would not fit into memory.

        """
        require_callable("progress", progress)
        ids, announced = None, None
        if isinstance(names, Mapping):
            numbers, names = names_by_id(names)
            ids = None if numbers == tuple(range(1, len(names) + 1)) else np.array(numbers)
        names = check_names(names)
        if hasattr(labels, "shape"):
            layers, flags = check_layers(labels, valid)
            n_samples, batches = layers.shape[0], label_batches(layers, flags)
        elif valid is not None:
            remedy = "let the iterable yield (labels, valid) pairs"
            raise InputError("valid", wanted="an array of labels beside it", got="batches of labels", remedy=remedy)
        elif isinstance(labels, Iterable):
            announced = check_order(labels, "labels")
            n_samples, batches = announced or 0, (check_layers(*split_batch(batch)) for batch in labels)
        else:
            remedy = "convert with numpy.asarray first"
            raise DTypeError("labels", wanted="integer ids", got=type(labels).__name__, remedy=remedy)
        keys = None if keys is None else check_keys("keys", keys, n_samples or None)
        builder: AtomBuilder | None = None
        shape, done = (0, 0), 0
        for layers, flags in batches:
            maps = layers if ids is None else concept_ids(layers, ids)
            if builder is None:
                check_layer_count(layers, len(names))
                shape = layers.shape[2:]
                if n_samples:
                    require_memory("labels", n_samples, shape)
                builder = AtomBuilder(shape, len(names), threads=threads)
            elif layers.shape[2:] != shape:
                remedy = "bring all batches to one grid"
                raise ShapeError("labels", wanted=f"a grid of {shape}", got=describe(layers), remedy=remedy)
            n, n_layers, n_cells = *layers.shape[:2], shape[0] * shape[1]
            valid_cells = None if flags is None else flags.reshape(n, n_cells)
            builder.add_label_maps(maps.reshape(n, n_layers, n_cells), valid_cells)
            done += n
            if progress is not None:
                progress(done, n_samples)
        check_count(done, announced, "labels")
        return cls(_finished(builder, done, "labels"), names, categories, keys)

    @classmethod
    def from_masks(
        cls,
        masks: Any,
        names: Sequence[str] | None = None,
        shape: tuple[int, int] | None = None,
        *,
        categories: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        valid: Any = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Concepts:
        """Build from one mask per concept and sample; masks may overlap in any way.

        Parameters
        ----------
        masks
            bool[C, N, H, W], or packed uint64[C, N, n_words] with `shape`, or a list of C
            `scipy.sparse` arrays [N, H * W] with `shape`.
        names
            C names; by default "1".."C".
        shape
            Grid (H, W) of packed or sparse masks.
        categories, keys, valid, threads, progress
            As for `from_label_maps`.

        Raises
        ------
        ShapeError, DTypeError, InputError
            If shapes, dtypes or names do not fit each other; integer arrays are refused, as they are
            label maps.
        MemoryBudgetError
            If the result would not fit into memory.

        """
        require_callable("progress", progress)
        source = MaskSource(masks, shape)
        keys = None if keys is None else check_keys("keys", keys, source.n_samples)
        names = [str(c + 1) for c in range(source.n_concepts)] if names is None else check_names(names)
        if len(names) != source.n_concepts:
            swapped = "masks are [C, N, H, W]: numpy.swapaxes(masks, 0, 1)"
            remedy = swapped if len(names) == source.n_samples else "give one name per concept"
            raise InputError("names", wanted=f"{source.n_concepts} names", got=str(len(names)), remedy=remedy)
        flags = None if valid is None else check_valid(as_array(valid, "valid"), source.n_samples, source.shape)
        require_memory("masks", source.n_samples, source.shape)
        builder = AtomBuilder(source.shape, source.n_concepts, threads=threads)
        for start, packed in source.batches(threads):
            part = None if flags is None else flags[start : start + packed.shape[0]].reshape(packed.shape[0], -1)
            builder.add_packed_masks(packed, part)
            if progress is not None:
                progress(start + packed.shape[0], source.n_samples)
        return cls(_finished(builder, source.n_samples, "masks"), names, categories, keys)

    @cached_property
    def n_cells(self) -> int:
        """Number of valid cells of all samples."""
        return int(self.atoms.cells.sum())

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """int64[C]: number of cells of each concept."""
        return concept_counts(self.atoms, np.asarray(self.atoms.cells))

    @property
    def pair_sizes(self) -> Any:
        """int64[C, C], dense or (above 4,096 concepts) scipy CSR: cells that carry both concepts."""
        return self.atoms.pair_cells

    def prepare(self, *, threads: int | None = None) -> None:
        """Compute now what all searches share and keep: `sizes`, `pair_sizes` and the atoms of each concept."""
        _ = self.sizes, self.atoms.postings
        if "pair_cells" not in self.atoms.__dict__:  # a property takes no `threads`
            self.atoms.__dict__["pair_cells"] = pair_counts(self.atoms, self.atoms.cells, threads=threads)

    @cached_property
    def content_hash(self) -> str:
        """Hash of names, categories, grid and all annotations, not of keys; equal content has equal hashes."""
        return content_hash(self._content())

    def _content(self) -> dict[str, object]:
        arrays = {name: getattr(self.atoms, name) for name in _ATOM_ARRAYS}
        categories = list(self.categories) if self.categories is not None else None
        return {**arrays, "names": list(self.names), "categories": categories, "shape": list(self.shape)}

    def __len__(self) -> int:
        """Return C."""
        return self.n_concepts

    def __repr__(self) -> str:
        kinds = f" in {len(set(self.categories))} categories" if self.categories is not None else ""
        height, width = self.shape
        return (
            f"<Concepts: {self.n_concepts} concepts{kinds}, {self.n_samples} samples of {height}×{width} cells, "
            f"{self.atoms.n_atoms} atoms>"
        )

    def index(self, name: str) -> int:
        """Return the index (id - 1) of a concept.

        Raises
        ------
        InputError
            If no concept has that name; the message suggests close ones.

        """
        require_kind("concept", name, str, "the name of a concept", "see concepts.names")
        found = self._index.get(name)
        if found is None:
            import difflib  # noqa: PLC0415 - only to word the error

            close = difflib.get_close_matches(name, self.names, n=3)
            remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else "see concepts.names"
            raise InputError("concept", wanted=f"one of {self.n_concepts} names", got=repr(name), remedy=remedy)
        return found

    def mask(
        self, formula: Formula | str, *, packed: bool = False, samples: Any = None, threads: int | None = None
    ) -> npt.NDArray[Any]:
        """Return the cells that satisfy a formula: bool[n, H, W], or packed uint64[n, n_words].

        Cells that are not valid satisfy nothing, not even a negation. `samples` (indices, a slice, a
        boolean mask) restricts the result to some samples.

        Raises
        ------
        InputError
            If the formula cannot be parsed or names a concept that is not here, or a sample is not here.

        """
        require_flag("packed", packed)
        inside = self.atoms_satisfying(formula)
        found = atom_rows(self.atoms, inside, self._sample_indices(samples), threads=threads)
        if packed:
            return found
        cells: npt.NDArray[np.bool_] = rows.unpack(found, self.shape[0] * self.shape[1], threads=threads)
        return cells.reshape(-1, *self.shape)

    def count(self, formula: Formula | str) -> int:
        """Return the number of cells that satisfy a formula; raises what `mask` raises."""
        return int(self.atoms.cells[self.atoms_satisfying(formula)].sum())

    def packed_rows(self, samples: Any = None, *, threads: int | None = None) -> ConceptRows:
        """Return the packed masks of all concepts in some samples (all by default)."""
        return concept_rows(self.atoms, self._sample_indices(samples), threads=threads)

    def atoms_satisfying(self, formula: Formula | str) -> npt.NDArray[np.bool_]:
        """Return whether each atom satisfies a formula: bool[G]; raises what `mask` raises."""
        tree = parse(formula) if isinstance(formula, str) else formula
        if not isinstance(tree, Formula):
            raise InputError("formula", wanted="a Formula or its text", got=f"{formula!r:.40}", remedy="see ccx.parse")
        return tree.evaluate(self._atoms_of)

    def _atoms_of(self, name: str) -> npt.NDArray[np.bool_]:
        starts, posted = self.atoms.postings
        inside = np.zeros(self.atoms.n_atoms, np.bool_)
        concept = self.index(name)
        inside[posted[starts[concept] : starts[concept + 1]]] = True
        return inside

    def _sample_indices(self, samples: Any) -> npt.NDArray[np.int64]:
        everything = np.arange(self.n_samples, dtype=np.int64)
        if samples is None:
            return everything
        error = None
        try:
            if not isinstance(samples, slice) and np.size(samples) > _MOST_CHOSEN:
                raise IndexError(samples)
            chosen = np.atleast_1d(everything[list(samples) if isinstance(samples, tuple) else samples])
        except (IndexError, ValueError, TypeError, OverflowError, MemoryError) as refused:
            error = refused
        if error is not None or chosen.ndim != 1:
            remedy = "give indices, a slice or one bool per sample"
            got = shown(samples)
            raise InputError("samples", wanted=f"samples 0..{self.n_samples - 1}", got=got, remedy=remedy) from error
        return chosen

    def subset(
        self,
        only: Iterable[str] | None = None,
        *,
        categories: Iterable[str] | None = None,
        samples: Any = None,
        threads: int | None = None,
        **renamed: Any,
    ) -> Concepts:
        """Return the concepts of these names and categories (both, where both are given) in these samples.

        Concepts keep their order, samples come in the order given. Cells of concepts that are left out
        stay, as cells without them.

        Raises
        ------
        InputError
            If a name, a category or a sample is unknown, or nothing is left.

        """
        only = renamed_arguments({"only": only}, renamed, {"names": "only"}, stacklevel=3)["only"]
        keep = self.selected(only, categories)
        chosen = self._sample_indices(samples)
        if not chosen.size:
            raise InputError("samples", wanted="at least one sample", got="none", remedy="choose more samples")
        new_index = np.where(keep, np.cumsum(keep) - 1, -1)
        builder = AtomBuilder(self.shape, int(keep.sum()), threads=threads)
        builder.add_atoms(self.atoms, chosen, new_index)
        kept = np.flatnonzero(keep)
        kinds = None if self.categories is None else [self.categories[c] for c in kept]
        keys = None if self.keys is None else [self.keys[i] for i in chosen]
        return Concepts(builder.finish(), [self.names[c] for c in kept], kinds, keys)

    def excluding(self, positions: Any, *, threads: int | None = None) -> Concepts:
        """Return these concepts without some positions of activations: their cells are not valid, and count nowhere.

        That is what `ccx.explain` looks at with ``exclude=positions``; give it to whatever is asked about the result.

        Parameters
        ----------
        positions
            True where to leave out (tokens that begin a text, class tokens, borders): bool[N, h, w], or [h, w] for
            all samples, on the grid of the activations; of tokens also bool[N, T] or [T]. On another grid than that of
            the concepts, every cell goes for which one of them has a weight in upsampling.
        threads
            Processors to use; None = all available. The result does not depend on it.

        Raises
        ------
        DTypeError, ShapeError, InputError
            If they are no such flags, or of other samples.
        MemoryBudgetError
            If the result would not fit into memory.

        """
        require_same_samples("exclude", positions, self)
        flags = as_positions(positions, self.n_samples, self.shape)
        require_memory("exclude", self.n_samples, self.shape)
        builder = AtomBuilder(self.shape, self.n_concepts, threads=threads)
        for labels, valid in batches_without(self.atoms, flags):
            builder.add_label_maps(labels, valid)
        return Concepts(builder.finish(), self.names, self.categories, self.keys)

    def valid_positions(self, grid: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
        """Return which positions of activations on a grid h×w count: bool[N, h, w]; None = all.

        A position counts if it has a weight for a valid cell, where activations are upsampled to the grid of the
        concepts, or if all cells of its sample are valid. Computed once a grid.
        """
        if grid not in self._positions:
            self._positions[grid] = None
            if self.n_cells < self.n_samples * self.shape[0] * self.shape[1]:
                self._positions[grid] = valid_positions(self.atoms, grid)
        return self._positions[grid]

    def valid_rows(self, samples: Any = None, *, threads: int | None = None) -> npt.NDArray[np.uint64] | None:
        """Return the valid cells of some samples (all by default), packed uint64[n, n_words]; None = all cells."""
        if self.n_cells == self.n_samples * self.shape[0] * self.shape[1]:
            return None
        everything = np.ones(self.atoms.n_atoms, np.bool_)
        return atom_rows(self.atoms, everything, self._sample_indices(samples), threads=threads)

    def bitmap(
        self, maps: Any, limits: tuple[float, float], samples: Any = None, *, threads: int | None = None
    ) -> npt.NDArray[np.uint64]:
        """Return the valid cells whose activation lies in a range, packed uint64[n, n_words].

        `maps` are activations float32[n, h, w] of some samples (all by default), before upsampling.
        """
        bitmap: npt.NDArray[np.uint64] = upsample_pack(maps, self.shape, limits, threads=threads)
        valid = self.valid_rows(samples, threads=threads)
        return bitmap if valid is None else logical_and(bitmap, valid, threads=threads)

    def selected(
        self, only: Iterable[str] | None = None, categories: Iterable[str] | None = None, **renamed: Any
    ) -> npt.NDArray[np.bool_]:
        """Return bool[C]: the concepts of these names and categories; None = no restriction.

        Raises
        ------
        InputError
            If a name or a category is unknown, or no concept is left.

        """
        if renamed:
            only = renamed_arguments({"only": only}, renamed, {"names": "only"}, stacklevel=3)["only"]
        keep = np.ones(self.n_concepts, np.bool_)
        if only is not None:
            keep[:] = False
            keep[[self.index(name) for name in texts("only", only)]] = True
        if categories is not None:
            wanted = set(texts("categories", categories))
            known = set(self.categories or ())
            if not wanted <= known:
                remedy = "see concepts.categories" if known else "give categories when the concepts are built"
                got = ", ".join(sorted(wanted - known))
                raise InputError("categories", wanted=f"some of {sorted(known)}", got=got, remedy=remedy)
            keep &= np.array([kind in wanted for kind in self.categories or ("",) * len(keep)], np.bool_)
        if not keep.any():
            remedy = "choose more concepts or categories"
            raise InputError("only", wanted="at least one concept", got="none", remedy=remedy)
        return keep

    def validate(self) -> None:
        """Check every invariant of the stored annotations, and the stored content hash.

        Raises
        ------
        InputError
            Says which invariant fails, and where.

        """
        for invariant, holds in invariants(self.atoms).items():
            if not holds():
                remedy = "rebuild the concepts from their labels"
                raise InputError("concepts", wanted=invariant, got="the contrary", remedy=remedy)
        actual = content_hash(self._content())
        if actual != self.content_hash:
            got, remedy = f"{actual}, stored was {self.content_hash}", "restore the file or rebuild the concepts"
            raise InputError("concepts", wanted="the stored content hash", got=got, remedy=remedy)

    def save(self, path: PathLike, *, source: str | None = None) -> None:
        """Write everything to one file (safetensors, no pickle), atomically.

        Parameters
        ----------
        path
            The file.
        source
            A text to keep in its header that says what it was built from; not part of the content.

        Raises
        ------
        StoreError
            If the file cannot be written; an older file of that name is left as it was.

        """
        metadata = {
            "names": json.dumps(self.names),
            "categories": json.dumps(self.categories),
            "shape": json.dumps(self.shape),
            "content_hash": self.content_hash,
        }
        if self.keys is not None:
            metadata["keys"] = json.dumps(self.keys)
        if source is not None:
            metadata["source"] = source
        save_arrays(path, {name: getattr(self.atoms, name) for name in _ATOM_ARRAYS}, metadata, FILE_FORMAT)

    @classmethod
    def load(cls, path: PathLike, *, verify: bool = True) -> Concepts:
        """Read a file of `save`; arrays are memory-mapped.

        Parameters
        ----------
        path
            The file.
        verify
            Check the content hash, which reads the file once (1.4 GB/s). Without it, only what keeps kernels
            inside the arrays is checked.

        Raises
        ------
        StoreError
            If the file is missing, truncated, damaged or not of this kind.

        """
        require_flag("verify", verify)
        arrays, metadata = load_arrays(path, FILE_FORMAT)
        try:
            names: list[str] = json.loads(metadata["names"])
            categories: list[str] | None = json.loads(metadata["categories"])
            height, width = check_grid(json.loads(metadata["shape"]), 1)
            parts: Mapping[str, Any] = {name: arrays[name] for name in _ATOM_ARRAYS}
            keys: list[str] | None = json.loads(metadata.get("keys", "null"))  # files had none before ccx knew them
            concepts = cls(Atoms((height, width), len(names), **parts), names, categories, keys)
            concepts.__dict__["content_hash"] = metadata["content_hash"]  # fills the cached property
        except (KeyError, ValueError, TypeError, RecursionError, InputError) as error:
            msg = f"{path}: its header does not describe concepts ({error}); save them again"
            raise StoreError(msg) from error
        for invariant, holds in bounds(concepts.atoms).items():
            if not holds():
                msg = f"{path}: damaged: it should hold {invariant}; save it again"
                raise StoreError(msg)
        if verify and content_hash(concepts._content()) != metadata["content_hash"]:
            msg = f"{path}: damaged: its content is not what was saved; copy or save it again"
            raise StoreError(msg)
        return concepts


def _finished(builder: AtomBuilder | None, n_samples: int, argument: str) -> Atoms:
    if builder is None or n_samples == 0:
        raise InputError(argument, wanted="at least one sample", got="none", remedy="check where the data come from")
    return builder.finish()
