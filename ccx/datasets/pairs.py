"""Any sequence of (image, label map) pairs: a torchvision segmentation data set, or a segmenter's output."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ccx import memory
from ccx.datasets.dataset import Dataset, Layers, Size, Source, stat_of
from ccx.datasets.ids import IdTable
from ccx.datasets.label_maps import check_label_picture
from ccx.datasets.tables import named
from ccx.errors import InputError, StoreError
from ccx.images import SUFFIXES, read_head, rgb
from ccx.keys import check_keys
from ccx.listing import data_keys
from ccx.store.files import store_error

_HASHED = 16  # samples whose content tells one data set from another


class Pairs(Dataset):
    """Any sequence of (image, label map) pairs, such as a segmentation data set of torchvision.

    Images may be pictures of Pillow, arrays [h, w, 3] or tensors [3, h, w], of uint8 or of float in [0, 1]. Label maps
    may be pictures, arrays or tensors of whole numbers [h, w], or [L, h, w] of several layers, of the size of their
    image. Transforms must treat both alike and change nothing from time to time: a pair that is something else when it
    is asked for again (random augmentation) is refused. Normalisation belongs to the model. Pairs that a network makes
    are best built with ``workers=1``: it uses all processors by itself.

    Parameters
    ----------
    pairs
        An object with ``len`` and indices 0..N-1.
    names
        Names of the ids, as for `Folder`.
    categories, first_id, void, none
        As for `Folder`. A cell that is void in one layer counts nowhere.
    keys
        Who the samples are: N distinct texts (`ccx.keys`). By default, of files that the object lists as ``images``,
        their paths below the deepest folder that holds them all.

    Raises
    ------
    InputError
        If `pairs` is no such object, or names and ids contradict each other.

    Notes
    -----
    Where the object lists its files (``images``, ``masks``, ``targets``, as those of torchvision do), these are looked
    at first, and 16 samples, evenly spread, are drawn twice. Image and labels of a sample come from one call. Each call
    is compared with earlier ones of the same sample, in this process and those that it forked. Whether a file of
    `concepts` is still that of this data set, sizes and times of files tell, and the content of the 16 samples.

    """

    kind: ClassVar[str] = "pairs"

    def __init__(
        self,
        pairs: Any,
        names: Any,
        *,
        categories: Sequence[str] | None = None,
        first_id: int = 1,
        void: int | Collection[int] = (),
        none: int | Collection[int] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        try:
            n_samples = len(pairs)
        except TypeError:
            n_samples = -1
        if n_samples < 0 or not hasattr(pairs, "__getitem__"):
            remedy = "give a data set object, or a list of pairs"
            raise InputError("pairs", wanted="a sequence of (image, labels)", got=type(pairs).__name__, remedy=remedy)
        memory.require_bytes("pairs", 8 * n_samples, "give fewer")
        known = named(names, first_id)
        super().__init__(range(len(pairs)), known.names, categories if categories is not None else known.categories)
        self._pairs = pairs
        self._table = IdTable(known.ids, void, none)
        self._n_names = len(known.names)
        self._step = max(1, len(pairs) // _HASHED)
        self._last: tuple[int, tuple[Any, Any]] | None = None
        # A hash of each sample that was drawn, 0 = none yet, in memory that forked workers share.
        self._seen = np.frombuffer(mmap.mmap(-1, 8 * max(1, len(pairs))), np.uint64)
        lists = (getattr(pairs, name, None) for name in ("images", "masks", "targets"))
        self._files = [found for found in lists if isinstance(found, (list, tuple)) and len(found) == len(pairs)]

        self._keys = data_keys(pairs) if keys is None else check_keys("keys", keys, len(pairs))

    def _key(self, sample: int) -> str | None:
        return None if self._keys is None else self._keys[sample]

    def _name(self, sample: int) -> str:
        paths = self._paths(sample)
        return str(paths[0]) if paths else f"sample {sample}"

    def _paths(self, sample: int) -> list[Path]:
        listed: list[Any] = []
        for files in self._files:
            entry = files[sample]
            listed += entry if isinstance(entry, (list, tuple)) else [entry]
        paths = [Path(entry) for entry in listed if isinstance(entry, (str, Path))]
        return list(dict.fromkeys(path for path in paths if path.suffix.lower() in SUFFIXES))

    def _pair(self, sample: int) -> tuple[Any, Any]:
        where = self._name(sample)
        try:
            found = self._pairs[sample]
        except Exception as error:  # a data set raises what it sees fit
            raise store_error(where, f"cannot be read ({type(error).__name__}: {error})", "see the data set") from error
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise store_error(where, f"is a {type(found).__name__}, no pair", "let the data set yield (image, labels)")
        return found[0], found[1]

    def _drawn(self, sample: int, *, anew: bool = False) -> tuple[Any, npt.NDArray[Any]]:
        """Return the image, as it came, and the label maps int[L, h, w] of one call, checked against earlier ones."""
        kept = self._last
        if kept is not None and kept[0] == sample and not anew:
            return kept[1]
        image, target = self._pair(sample)
        where = self._name(sample)
        maps = _label_maps(target, where, _size(image, where), self._n_names)
        found = _digest(image, maps)
        if self._seen[sample] not in (0, found):
            remedy = "switch off what is random in the data set (augmentation)"
            raise store_error(where, "gives something else each time", remedy)
        self._seen[sample] = found
        self._last = sample, (image, maps)
        return image, maps

    def _pixels(self, sample: int) -> npt.NDArray[np.uint8]:
        return _image(self._drawn(sample)[0], self._name(sample))

    def _layers(self, sample: int, shape: Size | None) -> Layers:
        where = self._name(sample)
        maps = self._drawn(sample)[1]
        layers, valid = zip(*(self._table.concepts(ids, shape, where) for ids in maps), strict=True)
        flags = [found for found in valid if found is not None]
        return np.stack(layers), np.logical_and.reduce(flags) if flags else None

    def _inspect(self, sample: int) -> tuple[list[str], Size | None]:
        problems = []
        for path in self._paths(sample):
            try:
                read_head(path)
            except StoreError as error:
                problems.append(str(error))
        if not problems and sample % self._step == 0:
            try:
                for _ in range(2):
                    self._drawn(sample, anew=True)
            except StoreError as error:
                problems.append(str(error))
        return problems, None

    def _identity(self, sample: int, with_image: bool) -> object:  # noqa: ARG002 - one object yields both
        return [stat_of(path) for path in self._paths(sample)]

    def _settings(self) -> Source:
        return {"ids": self._table.settings(), "content": self._content}

    @cached_property
    def _content(self) -> str:
        """A hash of the content of some samples."""
        hashed = hashlib.blake2b(digest_size=16)
        for sample in range(0, len(self._pairs), self._step):
            hashed.update(_digest(*self._drawn(sample)).to_bytes(8, "little"))
        return hashed.hexdigest()


def _digest(image: Any, maps: npt.NDArray[Any]) -> int:
    """Return 64 bits of a hash of a pair, never 0."""
    hashed = hashlib.blake2b(digest_size=8)
    for array in (_array(image), maps):
        hashed.update(f"{array.shape} {array.dtype.str}".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return int.from_bytes(hashed.digest(), "little") or 1


def _array(value: Any) -> npt.NDArray[Any]:
    """Return a picture, a tensor or an array as an array; of several bands the last axis has them in pictures."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def _size(image: Any, where: str) -> Size:
    """Return the size (h, w) of an image."""
    if hasattr(image, "convert"):
        shape = _image(image, where).shape
    else:
        shape = np.shape(_array(image))
        is_tensor = hasattr(image, "detach")
        if len(shape) == 3 and is_tensor:
            shape = (*shape[1:], shape[0])
        if len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,)):
            _image(image, where)  # raises
    return shape[0], shape[1]


def _image(image: Any, where: str) -> npt.NDArray[np.uint8]:
    """Return an image as uint8[h, w, 3]."""
    if hasattr(image, "convert"):  # a picture of Pillow
        try:
            return np.asarray(rgb(image, "the image"))
        except InputError as error:
            raise store_error(where, f"the image is {error.got}", error.remedy) from error
    is_tensor = hasattr(image, "detach")
    array = np.asarray(image.detach().cpu().numpy() if is_tensor else image)
    if is_tensor and array.ndim == 3:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = np.stack([array] * 3, axis=2)
    described = f"{array.dtype}{list(array.shape)}"
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        wanted = "tensors [3, h, w]" if is_tensor else "arrays [h, w, 3]"
        raise store_error(where, f"the image is {described}", f"give pictures of Pillow, or {wanted}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            remedy = "leave normalisation to the model"
            raise store_error(where, f"the image has values from {array.min():.3g} to {array.max():.3g}", remedy)
        array = np.rint(array * 255)
    elif array.dtype != np.uint8:
        raise store_error(where, f"the image is {described}", "give uint8, or float in [0, 1]")
    return array.astype(np.uint8)


def _label_maps(target: Any, where: str, size: Size, n_names: int) -> npt.NDArray[Any]:
    """Return label maps as int[L, h, w], of the size of their image."""
    kind = type(target).__name__
    if isinstance(target, (dict, list, tuple)):
        remedy = "let the data set yield one label map (of torchvision's, ask for one target type)"
        raise store_error(where, f"the target is a {kind}, no label map", remedy)
    if hasattr(target, "convert"):
        check_label_picture(target, where)
    array = _array(target)
    described = f"{array.dtype}{list(array.shape)}"
    is_bool = array.dtype == np.bool_
    if is_bool:
        array = array.astype(np.uint8)
    if array.ndim == 2:
        array = array[None]
    elif array.shape == (*size, 1):
        array = np.moveaxis(array, 2, 0)
    if array.dtype.kind not in "iu" or array.ndim != 3 or 0 in array.shape:
        remedy = "let the data set yield one label map of whole numbers [h, w]"
        raise store_error(where, f"the target is {kind} {described}, no label map", remedy)
    if array.shape[1:] != size:
        problem = f"the image is {size[0]}×{size[1]} and the label map {described}"
        raise store_error(where, problem, _remedy(array.shape, size))
    if len(array) > 1 and (is_bool or _is_one_hot(array, n_names)):
        remedy = "make ids of it: labels.argmax(axis=0), plus 1 where no layer is the background"
        raise store_error(where, f"the target {described} looks one-hot, with one layer per concept", remedy)
    return array


def _is_one_hot(layers: npt.NDArray[Any], n_names: int) -> bool:
    """Tell whether layers have one 1 per cell, and one layer per name: as ids they would all be the first concept."""
    if len(layers) not in (n_names, n_names + 1) or layers.max() != 1 or not layers[1:].any():
        return False
    return bool((layers.sum(axis=0) == 1).all())


def _remedy(shape: tuple[int, ...], size: Size) -> str:
    """Return what to do where label maps [L, h, w] are not of the size of their image."""
    if shape[:2] == size:
        return (
            "layers go first: numpy.moveaxis(labels, 2, 0); of one-hot maps take labels.argmax(axis=2), "
            "of coloured ones the ids of their colours"
        )
    if shape[1:] == size[::-1]:
        return "transpose it: labels.swapaxes(-1, -2)"
    return "let transforms treat both alike; enlarge label maps without mixing ids (nearest)"
