"""A folder of images and a folder of label maps, as ADE20K, Pascal VOC, Cityscapes and many others have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.datasets.dataset import Dataset, Layers, Size, Source, stat_of
from ccx.datasets.ids import IdTable
from ccx.datasets.label_maps import NPY, Coding, label_map_size, read_colors, read_ids, sampled
from ccx.datasets.palettes import palette_of
from ccx.datasets.tables import named, path_of, read_lines
from ccx.errors import InputError, StoreError
from ccx.images import SUFFIXES, photograph_size, read_image
from ccx.listing import natural_order, pictures_below
from ccx.store import PathLike
from ccx.store.files import store_error


class _Pair(NamedTuple):
    image: Path
    labels: Path


class Folder(Dataset):
    """Images and label maps in two folders, matched by their names.

    An image and a label map belong together if their paths below their folders are the same up to the suffixes.

    Parameters
    ----------
    images, labels
        The two folders (searched with all folders in them). Label maps have one id per pixel: palette or grey pictures
        of 1 to 16 bits, whole numbers [h, w] in .npy files; or colours, with a `palette`. Lossy kinds are refused.
    names
        Names of the ids: a list or a .txt file, whose first name belongs to id `first_id`; or ids and names: a mapping,
        a .json, .csv or .tsv file (`ccx.datasets.tables.named`).
    categories
        The category of each name, in the order of ids.
    first_id
        The id of the first name of a list.
    void
        Ids of cells that shall count nowhere: neither for nor against a concept. In .npy files they may be negative.
    none
        Ids of cells that count but carry no concept. By default 0, unless it has a name or is void.
    palette
        What the colours of label maps mean: a mapping from names or ids to (R, G, B), the colours of all names in
        their order, a .csv file with the columns name (or id), r, g, b, or ``"ade20k"`` for ids R // 10 * 256 + G.
    image_suffix, label_suffix
        What follows the common part of the names, for instance ``_leftImg8bit.png`` and ``_gtFine_labelIds.png``;
        None = any picture suffix.
    only
        Only these images: their paths without suffix, in this order; or a text file with one per line, as VOC has them.

    Attributes
    ----------
    without_labels
        Images that have no label map, and so are left out.

    Raises
    ------
    InputError
        If a folder is missing, no pair is found, or ids contradict each other.
    FilesError
        See `concepts`. A label map without an image, or a name of `only` without files, is such a problem.

    """

    kind: ClassVar[str] = "folder"

    def __init__(  # noqa: PLR0913 - public keywords
        self,
        images: PathLike,
        labels: PathLike,
        names: Any,
        *,
        categories: Sequence[str] | None = None,
        first_id: int = 1,
        void: int | Collection[int] = (),
        none: int | Collection[int] | None = None,
        palette: Any = None,
        image_suffix: str | None = None,
        label_suffix: str | None = None,
        only: str | Path | Iterable[str] | None = None,
    ) -> None:
        self._images = path_of("images", images, folder=True)
        self._labels = path_of("labels", labels, folder=True)
        known = named(names, first_id)
        super().__init__([], known.names, categories if categories is not None else known.categories)
        self._table = IdTable(known.ids, void, none)
        self._palette = None if palette is None else palette_of(palette, known)
        pictures = _by_stem(self._images, image_suffix, "image_suffix")
        maps = _by_stem(self._labels, label_suffix, "label_suffix", SUFFIXES | {NPY})
        # Files that are missing are named like the others; they are reported when all are looked at.
        suffixes = image_suffix or _suffix(pictures, ".jpg"), label_suffix or _suffix(maps, ".png")
        if only is None:  # in the order of the images' full names, as whatever lists the images alone has them
            stems = sorted(maps, key=lambda stem: natural_order(pictures.get(stem, stem + suffixes[0])))
        else:
            stems = _chosen(only)
        self.samples = [
            _Pair(
                self._images / pictures.get(stem, stem + suffixes[0]),
                self._labels / maps.get(stem, stem + suffixes[1]),
            )
            for stem in stems
        ]
        self.without_labels = tuple(stem for stem in pictures if stem not in maps)
        for argument, folder, there, suffix in (
            ("images", self._images, pictures, image_suffix),
            ("labels", self._labels, maps, label_suffix),
        ):
            if not there:
                kinds = f"files that end in {suffix}" if suffix is not None else ", ".join(sorted(SUFFIXES))
                remedy = "check the folder" if suffix is None else f"check the folder and {argument[:-1]}_suffix"
                raise InputError(argument, wanted=f"pictures ({kinds})", got=f"none in {folder}", remedy=remedy)
        if not any(stem in pictures and stem in maps for stem in stems):
            got = (
                f"{len(pictures)} images, such as {next(iter(pictures))}, and {len(maps)} label maps, such as "
                f"{next(iter(maps))}"
            )
            remedy = "give image_suffix and label_suffix, what follows the common part of the names"
            raise InputError("labels", wanted="label maps named like the images", got=got, remedy=remedy)

    def _name(self, sample: _Pair) -> str:
        return sample.image.relative_to(self._images).as_posix()

    def _pixels(self, sample: _Pair) -> npt.NDArray[np.uint8]:
        return read_image(sample.image)

    def _layers(self, sample: _Pair, shape: Size | None) -> Layers:
        path = sample.labels
        if self._palette is None or path.suffix.lower() == NPY:
            labels, valid = self._table.concepts(read_ids(path), shape, path)
        else:
            ids = self._palette.ids(sampled(read_colors(path), shape), path)
            labels, valid = self._table.concepts(ids, None, path)
        return labels[None], valid

    def _inspect(self, sample: _Pair) -> tuple[list[str], Size | None]:
        problems = []
        sizes: dict[Path, Size] = {}
        coding = Coding.IDS if self._palette is None else Coding.COLORS
        for path in (sample.image, sample.labels):
            try:
                sizes[path] = photograph_size(path) if path is sample.image else label_map_size(path, coding)
            except StoreError as error:
                problems.append(str(error))
        if len(set(sizes.values())) > 1:
            (height, width), (image_height, image_width) = sizes[sample.labels], sizes[sample.image]
            problem = f"{height}×{width} pixels, its image {sample.image} has {image_height}×{image_width}"
            problems.append(str(store_error(sample.labels, problem, "give the files that belong together")))
        return problems, sizes.get(sample.labels)

    def _identity(self, sample: _Pair, with_image: bool) -> object:
        return [stat_of(sample.labels), stat_of(sample.image) if with_image else None]

    def _settings(self) -> Source:
        settings: Source = {"ids": self._table.settings()}
        return settings if self._palette is None else {**settings, "palette": self._palette.settings()}


def _by_stem(folder: Path, suffix: str | None, argument: str, suffixes: frozenset[str] = SUFFIXES) -> dict[str, str]:
    """Return the pictures below a folder by their paths without suffix, in order."""
    found: dict[str, str] = {}
    for name in pictures_below(folder, suffixes):
        if suffix is not None and not name.endswith(suffix):
            continue
        stem = name.removesuffix(suffix) if suffix is not None else name.rpartition(".")[0]
        if stem in found:
            got = f"{folder / found[stem]} and {folder / name}"
            raise InputError(argument, wanted="one file per name", got=got, remedy=f"give {argument}")
        found[stem] = name
    return found


def _suffix(found: dict[str, str], otherwise: str) -> str:
    return next((Path(name).suffix for name in found.values()), otherwise)


def _chosen(only: str | Path | Iterable[str]) -> list[str]:
    if isinstance(only, Set):
        remedy = "give a list: images come in its order"
        raise InputError("only", wanted="names in an order", got=f"a {type(only).__name__}", remedy=remedy)
    stems = read_lines(Path(only)) if isinstance(only, (str, Path)) else [str(stem) for stem in only]
    if len(set(stems)) < len(stems):
        repeated = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError("only", wanted="each image once", got=f"{repeated} twice", remedy="remove it")
    return stems
