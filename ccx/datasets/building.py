"""From a data set to `Concepts`: a quick look at all files, then workers, and parts that survive a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccx._version import VERSION
from ccx.checks import sides
from ccx.concepts import FILE_FORMAT, Concepts
from ccx.concepts.annotations import require_memory
from ccx.errors import FilesError, InputError, StoreError
from ccx.jobs import Progress, check_progress, check_workers, in_processes, interruptible, progress_reporter
from ccx.kernels.partitions import AtomBuilder, Partition
from ccx.store import PathLike, content_hash, json_text, load_arrays, locked_folder, save_arrays
from ccx.store.files import as_target, parse_json, store_error

if TYPE_CHECKING:
    from ccx.datasets.dataset import Dataset

Size = tuple[int, int]
Inspected = tuple[tuple[str, ...], set[Size]]
Layers = tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_] | None]
_LOOK = 256  # images that a worker looks at in one job
_MOST_IMAGES, _LEAST_PARTS = 256, 64
_BATCH = 16  # images whose label maps are in memory at a time: few, so that their memory stays in the cache
_PART_FORMAT = "ccx-part/1"


def digest(parts: Iterable[object]) -> str:
    """Return a hash of JSON-able parts."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(json.dumps(part).encode() + b"\n")
    return hashed.hexdigest()


def inspected(dataset: Dataset, workers: int | None, progress: Progress | bool | None) -> Inspected:
    """Look at all files of a data set -> what is wrong, and the sizes of the label maps."""
    check_progress(progress)
    n_images = len(dataset)

    def look(first: int) -> list[tuple[list[str], Size | None]]:
        return [dataset.inspect(sample) for sample in dataset.samples[first : first + _LOOK]]

    problems: dict[str, None] = {}  # once each, in order: several images may share a file
    sizes: set[Size] = set()
    done = 0
    with progress_reporter(progress, "checking files") as report:
        for found in in_processes(look, range(0, n_images, _LOOK), check_workers(workers)):
            for texts, size in found:
                problems |= dict.fromkeys(texts)
                if size is not None:
                    sizes.add(size)
            done += len(found)
            report(done, n_images)
    return tuple(problems), sizes


@interruptible()
def build(
    dataset: Dataset,
    shape: Size | None,
    workers: int | None,
    progress: Progress | bool | None,
    out: PathLike | None,
) -> Concepts:
    """Build what `Dataset.concepts` returns."""
    n_workers = check_workers(workers)
    check_progress(progress)
    if not len(dataset):
        raise InputError("dataset", wanted="at least one image", got="none", remedy="check path and subset")
    shape = None if shape is None else sides("shape", shape, "write for instance (112, 112)")
    if out is None:
        return _Building(dataset, _grid(dataset, shape, workers, progress), n_workers, None).run(progress)
    target = as_target(out, "out")
    folder = target.with_name(f".{target.name}.parts")
    source = {**dataset.source(range(len(dataset))), "shape": shape}
    if target.exists():
        concepts = _stored(target, source, dataset.keys)
    else:
        held = store_error(folder, "another process builds here", "wait for it, or choose another file")
        with locked_folder(folder, held=held):
            grid = _grid(dataset, shape, workers, progress)
            concepts = _Building(dataset, grid, n_workers, folder).run(progress)
            concepts.save(target, source=json_text(source, "dataset"))
    shutil.rmtree(folder, ignore_errors=True)
    return concepts


def _stored(path: Path, source: Mapping[str, Any], keys: tuple[str, ...] | None) -> Concepts:
    """Return the concepts in a file, if they were built from `source`, with the keys of the samples."""
    there = parse_json(load_arrays(path, FILE_FORMAT)[1].get("source", "{}").encode(), path)
    here = json.loads(json_text(source, "dataset"))
    if there != here:
        names = [name for name in here if there.get(name) != here[name]]
        what = ", ".join(f"{name} ({there.get(name, 'unknown')} there, {here[name]} here)" for name in names)
        raise store_error(path, f"was made from something else: {what}", "delete it, or choose another name")
    concepts = Concepts.load(path)
    if keys is not None and concepts.keys not in (None, keys):
        raise store_error(path, "was made from samples with other keys", "delete it, or choose another name")
    # The names of all samples are part of `source`: a file of an older ccx, which has no keys, is of these, too.
    concepts.keys = keys or concepts.keys
    return concepts


def _grid(dataset: Dataset, shape: Size | None, workers: int | None, progress: Progress | bool | None) -> Size:
    """Look at all files -> the grid to build on."""
    problems, found = inspected(dataset, workers, progress)
    if problems:
        raise FilesError(problems, "repair or leave out what is listed; nothing was read yet")
    if shape is not None:
        return shape
    if len(found) != 1:
        sizes = [f"{height}×{width}" for height, width in sorted(found)]
        got = ", ".join(sizes[:5]) + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else "") or "unknown sizes"
        raise InputError(
            "shape", wanted="label maps of one size", got=got, remedy="pass shape, for instance (112, 112)"
        )
    return next(iter(found))


class _Building:
    """A data set in parts of consecutive images.

    Each part is kept in `folder` under a name that depends on everything it is made from, so that what is found there
    under this name is the part, whoever made it.
    """

    def __init__(self, dataset: Dataset, grid: Size, n_workers: int, folder: Path | None) -> None:
        n_images = len(dataset)
        require_memory("dataset", n_images, grid)
        self._dataset = dataset
        self._grid = grid
        self._builder = AtomBuilder(grid, len(dataset.names), threads=n_workers)
        self._n_workers = n_workers
        self._folder = folder
        self._paths: dict[int, Path] = {}
        self._n_part = min(_MOST_IMAGES, max(1, n_images // _LEAST_PARTS))

    def run(self, progress: Progress | bool | None) -> Concepts:
        """Make what is not there, and add all parts up in order."""
        dataset = self._dataset
        n_images = len(dataset)
        parts = range(0, n_images, self._n_part)
        missing = [first for first in parts if self._folder is None or not self._path(first).exists()]
        problems: list[str] = []
        self._partition([(np.zeros((1, *self._grid), np.uint16), None)])  # compiled here, so that no worker has to
        # Workers are forked at the first part, before the bar's thread begins.
        made = in_processes(self._make, missing, self._n_workers)
        ready = deque([next(made)] if missing else [])
        are_missing = set(missing)
        with closing(made), progress_reporter(progress, "building concepts") as report:
            for first in parts:
                part = None if first in are_missing else self._load(first)
                if part is None:
                    if first not in are_missing:  # damaged
                        part, found = self._make(first)
                    else:
                        part, found = ready.pop() if ready else next(made)
                    problems += found
                    if part is not None and self._folder is not None:
                        arrays = part._asdict()
                        save_arrays(self._path(first), arrays, {"content_hash": content_hash(arrays)}, _PART_FORMAT)
                if part is not None and not problems:
                    self._builder.add_partition(part)
                report(min(first + self._n_part, n_images), n_images)
        if problems:
            kept = "" if self._folder is None else "; what was built is kept"
            raise FilesError(problems, f"repair or leave out what is listed{kept}")
        return Concepts(self._builder.finish(), dataset.names, dataset.categories, dataset.keys)

    def _make(self, first: int) -> tuple[Partition | None, list[str]]:
        """Read and reduce one part, in a worker -> the part, and what cannot be read."""
        made: list[Partition] = []
        problems: list[str] = []
        last = min(first + self._n_part, len(self._dataset))
        for start in range(first, last, _BATCH):
            annotations = []
            for sample in self._dataset.samples[start : min(start + _BATCH, last)]:
                try:
                    annotations.append(self._dataset.annotation(sample, self._grid))
                except StoreError as error:
                    problems.append(str(error))
            if not problems:
                made.append(self._partition(annotations))
        return (None if problems else Partition.joined(made)), problems

    def _partition(self, annotations: Sequence[Layers]) -> Partition:
        n, n_cells = len(annotations), self._grid[0] * self._grid[1]
        layers = np.zeros((n, max(labels.shape[0] for labels, _ in annotations), n_cells), np.uint16)
        flags = None
        for k, (labels, valid) in enumerate(annotations):
            layers[k, : labels.shape[0]] = labels.reshape(-1, n_cells)
            if valid is not None:
                flags = np.ones((n, n_cells), np.bool_) if flags is None else flags
                flags[k] = valid.reshape(n_cells)
        return self._builder.partition(layers, flags)

    def _path(self, first: int) -> Path:
        """Return where a part is kept; what its files were before they were read decides."""
        if first not in self._paths:
            samples = range(first, min(first + self._n_part, len(self._dataset)))
            source = {**self._dataset.source(samples), "grid": self._grid, "version": VERSION}
            self._paths[first] = Path(self._folder or "") / f"{first:08d}-{digest([source])}.part"
        return self._paths[first]

    def _load(self, first: int) -> Partition | None:
        """Return a part that is there; None = damaged."""
        try:
            arrays, metadata = load_arrays(self._path(first), _PART_FORMAT)
        except StoreError:
            return None
        if content_hash(arrays) != metadata.get("content_hash"):
            return None
        return Partition(**{name: array.copy() for name, array in arrays.items()})
