"""COCO (Lin et al., ECCV 2014): instances, and the panoptic format of Kirillov et al. (CVPR 2019)."""

from __future__ import annotations

import json
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ccx.checks import choice
from ccx.datasets.dataset import Dataset, Layers, Size, Source, stat_of
from ccx.datasets.label_maps import Coding, label_map_size, read_rgb_numbers, require_size, sampled
from ccx.datasets.regions import Runs, check_region, coco_masks, decoded, runs_of
from ccx.datasets.tables import path_of, unique_names
from ccx.errors import FilesError, InputError, StoreError
from ccx.images import check_pixels, photograph_size, read_image
from ccx.store import PathLike
from ccx.store.files import read_bytes, store_error

Crowd: TypeAlias = Literal["label", "void", "skip"]
_SHORT = reprlib.Repr()  # of values that may be of any size and depth


class _Region(NamedTuple):
    """An instance or segment: its number in the file, its concept id, and where it is (instances)."""

    number: int
    concept: int
    is_crowd: bool
    segmentation: Any


class _Annotated(NamedTuple):
    image: str
    size: Size
    map: str  # the PNG of panoptic annotations
    regions: tuple[_Region, ...]


class _Coco(Dataset):
    """Shared by both formats: one JSON file with images, annotations and categories."""

    def __init__(self, images: PathLike, annotations: PathLike, crowd: Crowd) -> None:
        choice("crowd", crowd, get_args(Crowd), "leave it out for label")
        self._images = path_of("images", images, folder=True)
        self._file = path_of("annotations", annotations, folder=False)
        self._stat = stat_of(self._file)
        self._crowd = crowd
        content = _parsed(self._file)
        kinds = sorted(_fields(kind, self._file, "category", id=int, name=str) for kind in content["categories"])
        if repeated := _repeated(number for number, _ in kinds):
            raise store_error(self._file, f"two categories have the id {repeated[0]}", "repair it")
        self._concepts = {number: concept for concept, (number, _) in enumerate(kinds, start=1)}
        above = {kind["id"]: _text(kind.get("supercategory")) for kind in content["categories"]}
        groups = [above[number] for number, _ in kinds]
        names = unique_names([name for _, name in kinds], groups)
        names = unique_names(names, [f"category {number}" for number, _ in kinds])
        super().__init__([], names, groups if all(groups) else None)
        self._problems: list[str] = []
        self._content = content

    def _fill(self, maps: Mapping[int, str], regions: Mapping[int, Sequence[_Region]], unlabelled: bool) -> None:
        """Take the images of the file, in the order of their ids."""
        images = [
            _fields(image, self._file, "image", id=int, file_name=str, height=int, width=int)
            for image in self._content["images"]
        ]
        unknown = sorted(set(regions) - {number for number, *_ in images})
        self._problems += [f"{self._file}: annotations of image {number}, which is not there" for number in unknown]
        for what, values in (("id", (image[0] for image in images)), ("file_name", (image[1] for image in images))):
            self._problems += [f"{self._file}: two images have the {what} {value}" for value in _repeated(values)]
        for number, name, height, width in images:
            check_pixels(height, width, f"{self._file}: image {number} ({name})")
        if self._problems:
            raise FilesError(self._problems, "repair the annotations")
        self.samples = [
            _Annotated(name, (height, width), maps.get(number, ""), tuple(regions.get(number, ())))
            for number, name, height, width in sorted(images)
            if unlabelled or regions.get(number)
        ]
        del self._content, self._problems
        if not self.samples:
            got = f"{len(images)} images, none with annotations"
            raise InputError("annotations", wanted="annotated images", got=got, remedy="give the file of these images")

    def _region(self, found: Mapping[str, Any], number: int, image: int, category: int, what: str) -> _Region:
        """Return an annotation or a segment (`what`)."""
        where = f"{self._file}: {what} {number} of image {image}"
        concept = self._concepts.get(category, 0)
        if not concept:
            self._problems.append(f"{where} is of category {category}, which has no name")
        is_crowd = found.get("iscrowd", 0)
        if type(is_crowd) not in (int, bool) or is_crowd not in (0, 1):
            self._problems.append(f"{where} has iscrowd {_SHORT.repr(is_crowd)}, neither 0 nor 1")
        return _Region(number, concept, is_crowd == 1, found.get("segmentation"))

    def _name(self, sample: _Annotated) -> str:
        return sample.image

    def _pixels(self, sample: _Annotated) -> npt.NDArray[np.uint8]:
        return read_image(self._images / sample.image)

    def _inspect(self, sample: _Annotated) -> tuple[list[str], Size | None]:
        problems = []
        paths = self._paths(sample)
        for path in paths:
            try:
                found = photograph_size(path) if path == paths[0] else label_map_size(path, Coding.BYTES)
                require_size(path, found, sample.size, self._file)
            except StoreError as error:
                problems.append(str(error))
        return problems, sample.size

    def _paths(self, sample: _Annotated) -> list[Path]:
        return [self._images / sample.image]

    def _identity(self, sample: _Annotated, with_image: bool) -> object:
        paths = self._paths(sample)
        return [sample.size, [stat_of(path) for path in (paths if with_image else paths[1:])]]

    def _settings(self) -> Source:
        return {"crowd": self._crowd, "annotations": self._stat}


class CocoInstances(_Coco):
    """Images with the instances of COCO: polygons and run lengths (needs pycocotools, extra ``coco``).

    All instances of a category in an image are one concept. Where categories overlap, a cell carries both; such
    categories stand in different layers.

    Parameters
    ----------
    images
        The folder of images.
    annotations
        The JSON file, for instance ``instances_val2017.json``.
    crowd
        What a crowd region (``iscrowd``) is: its category (``label``), cells that count nowhere (``void``), or nothing
        (``skip``).
    unlabelled
        Keep images without annotations.

    Raises
    ------
    StoreError
        If the file cannot be read or is no such file.
    FilesError
        If annotations name categories or images that the file does not have, or two share an id or a file: all of them.
        Regions that cannot be drawn on their image are named by `check` and by what reads them: polygons whose numbers
        are odd in count, not finite or far outside, and run lengths that do not add up to the image.
    MissingExtraError
        If pycocotools is not installed.

    """

    kind: ClassVar[str] = "coco instances"

    def __init__(
        self, images: PathLike, annotations: PathLike, *, crowd: Crowd = "label", unlabelled: bool = False
    ) -> None:
        coco_masks()
        super().__init__(images, annotations, crowd)
        regions: dict[int, list[_Region]] = {}
        numbers = []
        for found in self._content["annotations"]:
            number, image, category = _fields(found, self._file, "annotation", id=int, image_id=int, category_id=int)
            if "segmentation" not in found:
                problem = f"annotation {number} has no segmentation"
                raise store_error(self._file, problem, "give a file of instances; panoptic ones go to CocoPanoptic")
            numbers.append(number)
            regions.setdefault(image, []).append(self._region(found, number, image, category, "annotation"))
        self._problems += [f"{self._file}: two annotations have the id {number}" for number in _repeated(numbers)]
        self._fill({}, regions, unlabelled)

    def _inspect(self, sample: _Annotated) -> tuple[list[str], Size | None]:
        problems, size = super()._inspect(sample)
        for region in sample.regions:
            try:
                check_region(region.segmentation, sample.size)
            except ValueError as error:
                problems.append(str(self._error(region, sample, error)))
        return problems, size

    def _layers(self, sample: _Annotated, shape: Size | None) -> Layers:
        grid = shape or sample.size
        by_concept: dict[int, list[Any]] = {}
        void: list[Any] = []
        for region in sample.regions:
            if region.is_crowd and self._crowd != "label":
                void += self._runs(region, sample) if self._crowd == "void" else []
            else:
                by_concept.setdefault(region.concept, []).extend(self._runs(region, sample))
        layers: list[npt.NDArray[np.uint16]] = [np.zeros(grid, np.uint16)]
        for concept in sorted(by_concept):
            cells = sampled(decoded(by_concept[concept], sample.size), shape)
            layer = next((layer for layer in layers if not layer[cells].any()), None)
            if layer is None:
                layers.append(layer := np.zeros(grid, np.uint16))
            layer[cells] = concept
        return np.stack(layers), ~sampled(decoded(void, sample.size), shape) if void else None

    def _runs(self, region: _Region, sample: _Annotated) -> list[Runs]:
        """Return the run lengths of an instance."""
        try:
            return runs_of(region.segmentation, sample.size)
        except ValueError as error:
            raise self._error(region, sample, error) from error

    def _error(self, region: _Region, sample: _Annotated, error: ValueError) -> StoreError:
        height, width = sample.size
        problem = f"annotation {region.number} cannot be drawn on image {sample.image} of {height}×{width} ({error})"
        return store_error(self._file, problem, "repair or remove it")


class CocoPanoptic(_Coco):
    """Images with COCO's panoptic annotations: one PNG per image, whose R + 256 G + 65536 B is a segment's id.

    Parameters
    ----------
    images, maps
        The folders of images and of PNG files.
    annotations
        The JSON file, for instance ``panoptic_val2017.json``.
    crowd
        What a crowd segment is: its category (``label``), cells that count nowhere (``void``), or nothing (``skip``).
    unlabelled_is_void
        Cells without a segment (id 0) count nowhere, as in the panoptic metric. False: they count, without a concept.
    unlabelled
        Keep images without segments.

    Raises
    ------
    StoreError, FilesError
        As for `CocoInstances`.

    """

    kind: ClassVar[str] = "coco panoptic"

    def __init__(
        self,
        images: PathLike,
        maps: PathLike,
        annotations: PathLike,
        *,
        crowd: Crowd = "label",
        unlabelled_is_void: bool = True,
        unlabelled: bool = False,
    ) -> None:
        super().__init__(images, annotations, crowd)
        self._folder = path_of("maps", maps, folder=True)
        self._is_void = unlabelled_is_void
        regions: dict[int, list[_Region]] = {}
        names: dict[int, str] = {}
        for found in self._content["annotations"]:
            if "segments_info" not in found:
                problem = "its annotations have no segments_info"
                raise store_error(self._file, problem, "give a panoptic file; instances go to CocoInstances")
            image, name = _fields(found, self._file, "annotation", image_id=int, file_name=str)
            if image in names:
                self._problems.append(f"{self._file}: image {image} has two annotations, {names[image]} and {name}")
            names[image] = name
            segments = _objects(found["segments_info"], self._file, f"segments_info of image {image}")
            regions[image] = [self._segment(segment, image) for segment in segments]
            repeated = _repeated(region.number for region in regions[image])
            self._problems += [f"{self._file}: image {image} has two segments with the id {one}" for one in repeated]
        self._fill(names, {image: found for image, found in regions.items() if found or unlabelled}, unlabelled)

    def _segment(self, segment: Mapping[str, Any], image: int) -> _Region:
        number, category = _fields(segment, self._file, "segment", id=int, category_id=int)
        if not 0 < number < 1 << 24:
            problem = f"segment {number} of image {image} does not fit into a PNG, which holds 1 to {(1 << 24) - 1}"
            self._problems.append(f"{self._file}: {problem}")
        return self._region(segment, number, image, category, "segment")

    def _paths(self, sample: _Annotated) -> list[Path]:
        return [self._images / sample.image, *([self._folder / sample.map] if sample.map else [])]

    def _layers(self, sample: _Annotated, shape: Size | None) -> Layers:
        if not sample.map:
            empty = np.zeros((1, *(shape or sample.size)), np.uint16)
            return empty, np.zeros(empty.shape[1:], np.bool_) if self._is_void else None
        path = self._folder / sample.map
        numbers = read_rgb_numbers(path)
        require_size(path, numbers.shape, sample.size, self._file)
        ids = sampled(numbers, shape)
        regions = sorted(sample.regions)
        concepts = [0 if region.is_crowd and self._crowd != "label" else region.concept for region in regions]
        known = np.array([0, *(region.number for region in regions)])
        at = np.searchsorted(known, ids).clip(max=known.size - 1)
        if (wrong := known[at] != ids).any():
            listed = ", ".join(map(str, np.unique(ids[wrong])[:5]))
            raise store_error(
                path, f"holds segments that {self._file} does not: {listed}", "give files that belong together"
            )
        void = [self._is_void, *(region.is_crowd and self._crowd == "void" for region in regions)]
        valid = ~np.array(void)[at] if any(void) else None
        return np.array([0, *concepts], np.uint16)[at][None], valid

    def _settings(self) -> Source:
        return {**super()._settings(), "unlabelled_is_void": self._is_void}


def _parsed(path: Path) -> dict[str, Any]:
    """Read a JSON file of COCO."""
    try:
        found = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise store_error(path, f"not valid JSON ({error})", "it is truncated or damaged: copy it again") from error
    content = found if isinstance(found, dict) else {}
    return {key: _objects(content.get(key), path, key) for key in ("images", "annotations", "categories")}


def _objects(found: Any, path: Path, what: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise store_error(path, f"no list of {what}", "give an annotation file of COCO")
    return found


def _fields(found: Mapping[str, Any], path: Path, what: str, **kinds: type) -> tuple[Any, ...]:
    """Return entries of an object, of these very types: True is no number."""
    for key, kind in kinds.items():
        value = found.get(key)
        if type(value) is not kind or (key == "file_name" and not _is_path(value)):
            wanted = kind.__name__ if type(value) is not kind else "the name of a file"
            problem = f"{what} {_SHORT.repr(found.get('id', ''))} has {key} {_SHORT.repr(value)}, not {wanted}"
            raise store_error(path, problem, "give an annotation file of COCO")
    return tuple(found[key] for key in kinds)


def _is_path(name: Any) -> bool:
    try:
        return bool(name) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _repeated(values: Iterable[Any]) -> list[Any]:
    """Return what occurs more than once, in order."""
    return sorted(value for value, count in Counter(values).items() if count > 1)
