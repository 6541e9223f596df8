"""Broden, the broadly and densely labeled data set of Network Dissection (Bau et al., CVPR 2017)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.concepts.annotations import name_problem
from ccx.datasets.dataset import Dataset, Layers, Size, Source, stat_of
from ccx.datasets.ids import IdTable
from ccx.datasets.label_maps import Coding, label_map_size, read_broden_ids, require_size
from ccx.datasets.tables import Table, line_error, path_of, read_table, unique_names
from ccx.errors import InputError, StoreError
from ccx.images import photograph_size, read_image
from ccx.kernels.png import UNKNOWN
from ccx.store import PathLike
from ccx.store.files import store_error

_NUMBER = re.compile(r"-?[0-9]{1,18}")  # of a label of a whole image; all else is a path
_FIXED = ("image", "split", "ih", "iw", "sh", "sw")


class _Row(NamedTuple):
    image: str
    image_size: Size
    label_size: Size
    layers: tuple[int | str, ...]  # a label of the whole image, or the path of a PNG


class Broden(Dataset):
    """Images and labels in the layout of Broden, of any subset and size.

    Parameters
    ----------
    root
        The folder that holds ``index.csv``, ``label.csv``, ``c_*.csv`` and ``images/``.
    subset
        Only images whose path contains this text, for instance ``ade20k`` or ``pascal``; "" = all.
    split
        Only this split, for instance ``train``.
    categories
        Only the layers of these categories, columns of ``index.csv``. Names stay.
    unlabelled
        Keep images for which the index lists no label.

    Raises
    ------
    InputError
        If no image is left, or a category is unknown.
    StoreError
        If a table is missing or damaged.

    Notes
    -----
    Names come from ``label.csv``, in the order of their numbers. A label's category is the one in which its coverage
    (``c_*.csv``) is greatest; of equals, the first in ``index.csv``.

    """

    kind: ClassVar[str] = "broden"

    def __init__(
        self,
        root: PathLike,
        subset: str = "",
        *,
        split: str | None = None,
        categories: Sequence[str] | None = None,
        unlabelled: bool = False,
    ) -> None:
        self._root = path_of("root", root, folder=True)
        index = read_table(self._root / "index.csv")
        for column in _FIXED:
            index.column(column)
        kinds = [column for column in index.columns if column not in _FIXED]
        chosen = kinds if categories is None else list(categories)
        if unknown := [kind for kind in chosen if kind not in kinds]:
            remedy = f"choose from the columns of {index.path}"
            raise InputError("categories", wanted=f"some of {kinds}", got=f"{unknown}", remedy=remedy)
        self._images = f"{self._root / 'images'}{os.sep}"  # paths are joined as texts, which is ten times as fast
        numbers, names, primary = _labels(self._root, kinds)
        rows = _rows(index, subset, split, chosen)
        samples = [row for row in rows if row.layers or unlabelled]
        if not samples:
            got = f"none of the {len(index.rows)} of {index.path}" if not rows else f"{len(rows)}, none with labels"
            wanted = f"images with {subset!r} in their path" + ("" if split is None else f" in split {split!r}")
            raise InputError("subset", wanted=wanted, got=got, remedy="choose another subset or split")
        super().__init__(samples, names, primary)
        self._table = IdTable(numbers, (), 0)

    def _name(self, sample: _Row) -> str:
        return sample.image

    def _path(self, name: str) -> str:
        return self._images + name

    def _pixels(self, sample: _Row) -> npt.NDArray[np.uint8]:
        return read_image(self._path(sample.image))

    def _layers(self, sample: _Row, shape: Size | None) -> Layers:
        layers = np.empty((len(sample.layers), *(shape or sample.label_size)), np.uint16)
        for layer, given in zip(layers, sample.layers, strict=True):
            if isinstance(given, int):
                layer[:] = self._concept(given, sample)
                continue
            path = self._path(given)
            ids = read_broden_ids(path)
            require_size(path, ids.shape, sample.label_size, "index.csv")
            self._table.concepts(ids, shape, path, layer)
        return layers, None

    def _concept(self, number: int, sample: _Row) -> int:
        """Return the concept of a label of a whole image, or raise `StoreError`."""
        concept = self._table.concept(number)
        if concept == UNKNOWN:
            where = f"{self._root / 'index.csv'}, image {sample.image}"
            raise store_error(where, f"label {number} is not in label.csv", "give its label.csv")
        return concept

    def _inspect(self, sample: _Row) -> tuple[list[str], Size | None]:
        problems = []
        for given in (None, *sample.layers):
            try:
                if given is None:
                    path = self._path(sample.image)
                    require_size(path, photograph_size(path), sample.image_size, "index.csv")
                elif isinstance(given, int):
                    self._concept(given, sample)
                else:
                    path = self._path(given)
                    require_size(path, label_map_size(path, Coding.BYTES), sample.label_size, "index.csv")
            except StoreError as error:
                problems.append(str(error))
        return problems, sample.label_size

    def _identity(self, sample: _Row, with_image: bool) -> object:
        files = [(given, stat_of(self._path(given)) if isinstance(given, str) else None) for given in sample.layers]
        return [sample.label_size, files, stat_of(self._path(sample.image)) if with_image else None]

    def _settings(self) -> Source:
        return {}


def _rows(index: Table, subset: str, split: str | None, categories: Sequence[str]) -> list[_Row]:
    image, part = index.column("image"), index.column("split")
    columns = [index.column(category) for category in categories]
    sizes = list(zip(*(index.numbers(name) for name in ("ih", "iw", "sh", "sw")), strict=True))
    rows = []
    for (_, cells), (ih, iw, sh, sw) in zip(index.rows, sizes, strict=True):
        if subset not in cells[image] or split not in (None, cells[part]):
            continue
        given = [text.strip() for column in columns for text in cells[column].split(";")]
        layers = tuple(int(text) if _NUMBER.fullmatch(text) else text for text in given if text)
        rows.append(_Row(cells[image], (ih, iw), (sh, sw), layers))
    return rows


def _labels(root: Path, kinds: Sequence[str]) -> tuple[list[int], list[str], list[str]]:
    """Read label.csv and c_*.csv -> (numbers in order, their names, their primary categories)."""
    table = read_table(root / "label.csv")
    found = {
        number: (name, line)
        for number, name, (line, _) in zip(table.numbers("number"), table.texts("name"), table.rows, strict=True)
        if number != 0
    }
    for name, line in found.values():
        if problem := name_problem(name):
            raise line_error(table.path, line, f"the name is {problem}", "repair it")
    if len(found) + any(number == 0 for number in table.numbers("number")) < len(table.rows):
        raise store_error(table.path, "a number occurs twice", "give the file as published")
    coverage: dict[int, dict[str, float]] = {number: {} for number in found}
    for kind in kinds:
        path = root / f"c_{kind}.csv"
        codes = read_table(path)
        column = codes.column("coverage")
        for number, (line, cells) in zip(codes.numbers("number"), codes.rows, strict=True):
            if number in coverage:
                try:
                    coverage[number][kind] = float(cells[column])
                except ValueError:
                    coverage[number][kind] = math.nan
                if not math.isfinite(coverage[number][kind]):
                    raise line_error(path, line, f"coverage is {cells[column]!r:.40}, no number", "repair it")
    numbers = sorted(found)
    primary = []
    for number in numbers:
        of_kind = coverage[number]
        if not of_kind:
            problem = f"label {number} ({found[number][0]}) stands in no c_*.csv of {', '.join(kinds)}"
            raise store_error(table.path, problem, "give the files that belong together")
        primary.append(max(of_kind, key=lambda kind: of_kind[kind]))
    texts = [found[number][0] for number in numbers]
    return numbers, unique_names(unique_names(texts, primary), [f"label {n}" for n in numbers]), primary
