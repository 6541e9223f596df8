"""The interface of every annotated data set of images."""

from __future__ import annotations

import copy
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ccx.concepts import Concepts
from ccx.concepts.annotations import check_categories, check_names
from ccx.datasets import building, colors
from ccx.datasets.label_maps import sampled
from ccx.errors import InputError
from ccx.jobs import Progress
from ccx.listing import path_key
from ccx.store import PathLike

Size = tuple[int, int]
Layers = tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_] | None]
Source = dict[str, Any]

MAX_NAMES = 65_534


class Dataset(ABC):
    """N annotated images: pixels for a model and label maps for `Concepts`, read when they are asked for.

    Images that the data set leaves out (those without labels, as a rule) have no index, so that image i, its labels,
    and sample i of `concepts()` are always the same.

    Attributes
    ----------
    names
        C names; ``names[0]`` is id 1 in label maps.
    categories
        The category of each name, or None.
    samples
        What the kind of data set knows of each image.

    """

    kind: ClassVar[str]

    def __init__(self, samples: Sequence[Any], names: Sequence[str], categories: Sequence[str] | None) -> None:
        self.samples = samples
        self.names = check_names(names)
        self.categories = check_categories(categories, len(self.names))
        self._first_color: int | None = None
        if len(self.names) > MAX_NAMES:
            remedy = "leave out names that do not occur"
            raise InputError("names", wanted=f"at most {MAX_NAMES}", got=str(len(self.names)), remedy=remedy)

    # What a kind of data set says of one sample

    @abstractmethod
    def _name(self, sample: Any) -> str:
        """Return what messages call it."""

    def _key(self, sample: Any) -> str | None:
        """Return the key of a sample (`ccx.keys`); None if it has none."""
        return path_key(self._name(sample))

    @abstractmethod
    def _pixels(self, sample: Any) -> npt.NDArray[np.uint8]:
        """Return the image, uint8[h, w, 3], or raise `StoreError`."""

    @abstractmethod
    def _layers(self, sample: Any, shape: Size | None) -> Layers:
        """Return its label maps uint16[L, H, W] and valid cells bool[H, W], or raise `StoreError`."""

    @abstractmethod
    def _inspect(self, sample: Any) -> tuple[list[str], Size | None]:
        """Return what a quick look finds wrong, and the size of the label maps, None where unknown."""

    @abstractmethod
    def _identity(self, sample: Any, with_image: bool) -> object:
        """Return JSON that changes when the labels (or the image) do: names, sizes and times of files."""

    @abstractmethod
    def _settings(self) -> Source:
        """Return the JSON settings under which the samples are read."""

    # What users call

    def __len__(self) -> int:
        """Return N."""
        return len(self.samples)

    @cached_property
    def image_names(self) -> tuple[str, ...]:
        """The name of each image: its path within the data set, where it is a file."""
        return tuple(self._name(sample) for sample in self.samples)

    @cached_property
    def keys(self) -> tuple[str, ...] | None:
        """Who the samples are (`ccx.keys`): the path of each image below the folder of images; None without files.

        `concepts`, and what `ccx.probe` returns for this data set, carry them.
        """
        keys = [self._key(sample) for sample in self.samples]
        return None if None in keys else tuple(key for key in keys if key is not None)

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Return an image, uint8[h, w, 3] in RGB.

        Raises
        ------
        InputError
            If there is no such image.
        StoreError
            If it cannot be read.

        """
        return self._pixels(self._sample(index))

    @property
    def images(self) -> Images:
        """All images as a sequence that reads each when it is indexed, for instance for a report."""
        return Images(self)

    def labels(self, index: int, shape: Size | None = None) -> npt.NDArray[np.int32]:
        """Return the label maps of an image, int32[L, H, W]: ids 1..C, 0 = none.

        L differs from image to image where the annotations do. `shape` (H, W) takes the label at the centre of each
        cell (docs/datasets.md); None leaves the label maps as they are stored.

        Raises
        ------
        InputError
            If there is no such image.
        StoreError
            If the files cannot be read or hold ids without a name.

        """
        return self.annotation(self._sample(index), shape)[0].astype(np.int32)

    def valid(self, index: int, shape: Size | None = None) -> npt.NDArray[np.bool_]:
        """Return which cells count, bool[H, W]; arguments and errors as for `labels`."""
        labels, valid = self.annotation(self._sample(index), shape)
        return np.ones(labels.shape[1:], np.bool_) if valid is None else valid

    def present(self, index: int) -> tuple[str, ...]:
        """Return the names of the concepts in an image, in the order of `names`; errors as for `labels`."""
        labels, valid = self.annotation(self._sample(index), None)
        ids = np.unique(labels if valid is None else labels[:, valid])
        return tuple(self.names[c - 1] for c in ids if c)

    def take(self, samples: Any) -> Self:
        """Return the data set with only these images, in this order: indices, a slice, or one bool per image.

        Raises
        ------
        InputError
            If an index is not there.

        """
        try:
            chosen = np.atleast_1d(np.arange(len(self))[samples])
        except (IndexError, ValueError) as error:
            remedy = "give indices, a slice or one bool per image"
            got = f"{samples!r:.60}"
            raise InputError("samples", wanted=f"images 0..{len(self) - 1}", got=got, remedy=remedy) from error
        taken = self._copied()
        taken.samples = [self.samples[i] for i in chosen]
        return taken

    def with_colors(self) -> Self:
        """Return the data set with one more layer: the basic colour name of each cell (`ccx.datasets.colors`).

        The eleven names follow the others, in the category ``color``; one that is taken becomes ``orange color``.
        """
        if self._first_color is not None:
            raise InputError("with_colors", wanted="a data set without colors", got="colors", remedy="call it once")
        colored = self._copied()
        names = [name if name not in self.names else f"{name} color" for name in colors.BASIC_COLORS]
        kinds = None if self.categories is None else [*self.categories, *["color"] * len(names)]
        Dataset.__init__(colored, self.samples, [*self.names, *names], kinds)
        colored._first_color = len(self.names) + 1
        return colored

    def check(self, *, workers: int | None = None, progress: Progress | bool | None = None) -> tuple[str, ...]:
        """Return everything that a quick look at all files finds wrong, each with its file; nothing = ().

        Looks at existence, kind, size and ends of files; damage inside shows when they are decoded.
        """
        return building.inspected(self, workers, progress)[0]

    def concepts(
        self,
        shape: Size | None = None,
        *,
        workers: int | None = None,
        progress: Progress | bool | None = None,
        out: PathLike | None = None,
    ) -> Concepts:
        """Build the concepts of all images; the result is that of `Concepts.from_label_maps`.

        All files are looked at first (see `check`). Then workers read and reduce the label maps, of which few are in
        memory at a time.

        Parameters
        ----------
        shape
            The grid (H, W), on which each cell takes the label at its centre; None = that of the label maps, if
            they all have the same.
        workers
            Processes; None = one per processor, and one in all where the system cannot fork. The result does not depend
            on it.
        progress
            None: a bar where the standard error is a terminal; True: always; False: never; or what is called with
            (images done, images in all).
        out
            A file to write. Work is kept beside it, in ``.NAME.parts``, until it is done: a run that was killed goes
            on. A file that is already there is returned if it was made from this very data set: the same settings, and
            files of the same names, sizes and times.

        Raises
        ------
        FilesError
            If files are missing, damaged, of different sizes, or hold ids without a name: names all of them. With
            `out`, finished work is kept.
        InputError
            If there are no images, or no common grid and no `shape`.
        StoreError
            If `out` was made from something else or cannot be written.
        MemoryBudgetError
            If the result would not fit into memory.

        """
        return building.build(self, shape, workers, progress, out)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} images, {len(self.names)} names>"

    # What building needs

    def annotation(self, sample: Any, shape: Size | None) -> Layers:
        """Return label maps uint16[L, H, W] and valid cells of one sample, colours included."""
        labels, valid = self._layers(sample, shape)
        if self._first_color is None:
            return labels, valid
        grid = labels.shape[1:]
        named = colors.color_indices(sampled(self._pixels(sample), (grid[0], grid[1])))
        return np.concatenate([labels, named[None].astype(np.uint16) + np.uint16(self._first_color)]), valid

    def source(self, indices: range) -> Source:
        """Return what the concepts of some images are built from, as JSON: settings, names, identities of files."""
        has_colors = self._first_color is not None
        samples = self.samples[indices.start : indices.stop]
        return {
            "kind": self.kind,
            **self._settings(),
            "names": building.digest([(self.names, self.categories)]),
            "colors": has_colors,
            "images": len(indices),
            "files": building.digest((self._name(sample), self._identity(sample, has_colors)) for sample in samples),
        }

    def inspect(self, sample: Any) -> tuple[list[str], Size | None]:
        """Return what a quick look at one sample finds wrong, and the size of its label maps."""
        return self._inspect(sample)

    def _sample(self, index: int) -> Any:
        try:
            return self.samples[operator.index(index)]
        except (IndexError, TypeError, ValueError) as error:
            remedy = "see len() of the data set"
            raise InputError("index", wanted=f"0..{len(self) - 1}", got=repr(index), remedy=remedy) from error

    def _copied(self) -> Self:
        copied = copy.copy(self)
        for name in ("image_names", "keys"):
            copied.__dict__.pop(name, None)
        return copied


class Images(Sequence[Any]):
    """The images of a data set, each read when it is indexed."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def keys(self) -> tuple[str, ...] | None:
        """Those of the data set."""
        return self._dataset.keys

    def take(self, samples: Any) -> Images:
        """Return only these images, as `Dataset.take`."""
        return Images(self._dataset.take(samples))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        return self._dataset.image(index)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return (self._dataset.image(i) for i in range(len(self)))


def stat_of(path: PathLike) -> list[int] | None:
    """Return size and time of a file, None where it is missing."""
    try:
        found = os.stat(path)  # noqa: PTH116 - for texts as well
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
