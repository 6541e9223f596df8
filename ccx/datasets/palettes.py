"""Label maps in colours: what a colour stands for."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.datasets.tables import Named, read_table
from ccx.errors import InputError
from ccx.store import PathLike
from ccx.store.files import store_error

ADE20K = "ade20k"
_WEIGHTS = np.array([1 << 16, 1 << 8, 1], np.int64)
_WANTED = f"colours (R, G, B) of names or ids, a .csv file with name, r, g, b, or {ADE20K!r}"


class _Ade20k:
    """The coding of the full ADE20K: R // 10 * 256 + G; B tells instances apart."""

    def ids(self, colors: npt.NDArray[np.uint8], where: PathLike) -> npt.NDArray[np.int64]:  # noqa: ARG002 - each has one
        wide = colors.astype(np.int64)
        return wide[..., 0] // 10 * 256 + wide[..., 1]

    def settings(self) -> str:
        return ADE20K


class _Colors:
    """One colour per id.

    `ids` turns colours uint8[h, w, 3] into ids int64[h, w], or raises `StoreError`, which names the file `where`.
    """

    def __init__(self, codes: Mapping[int, int]) -> None:
        self._codes = np.array(sorted(codes), np.int64)
        self._ids = np.array([codes[code] for code in self._codes.tolist()], np.int64)

    def ids(self, colors: npt.NDArray[np.uint8], where: PathLike) -> npt.NDArray[np.int64]:
        codes = colors.astype(np.int64) @ _WEIGHTS
        at = np.searchsorted(self._codes, codes).clip(max=self._codes.size - 1)
        if (wrong := self._codes[at] != codes).any():
            unknown = np.unique(codes[wrong]).tolist()
            listed = ", ".join(map(str, map(_color_of, unknown[:5]))) + (" ..." if len(unknown) > 5 else "")
            remedy = "give them names or ids in the palette; scaling and JPEG mix colours at borders"
            raise store_error(where, f"holds colours that the palette does not: {listed}", remedy)
        found: npt.NDArray[np.int64] = self._ids[at]
        return found

    def settings(self) -> list[list[int]]:
        return [self._codes.tolist(), self._ids.tolist()]


def palette_of(palette: Any, known: Named) -> _Ade20k | _Colors:
    """Return the palette that the argument `palette` of `ccx.datasets.Folder` describes.

    Raises `InputError` if it is of another kind, has an unknown name, lacks a name, or gives one colour to two ids;
    `StoreError` if the file cannot be read.
    """
    if isinstance(palette, str) and palette == ADE20K:
        return _Ade20k()
    if isinstance(palette, (str, Path)):
        palette = _read(Path(palette))
    if isinstance(palette, Mapping):
        pairs = [(_id_of(key, known), _code_of(color)) for key, color in palette.items()]
    elif isinstance(palette, (Sequence, np.ndarray)) and len(palette) == len(known.ids):
        pairs = list(zip(known.ids, map(_code_of, palette), strict=True))
    else:
        got = f"{len(palette)} colours of {len(known.ids)} names" if hasattr(palette, "__len__") else f"{palette!r:.60}"
        raise InputError("palette", wanted=_WANTED, got=got, remedy="write for instance {'sky': (70, 130, 180)}")
    codes: dict[int, int] = {}
    for number, code in pairs:
        if codes.setdefault(code, number) != number:
            got = f"{_color_of(code)} for {codes[code]} and {number}"
            raise InputError("palette", wanted="one id per colour", got=got, remedy="give each colour once")
    if missing := [name for number, name in zip(known.ids, known.names, strict=True) if number not in codes.values()]:
        remedy = "give them colours, or leave out their names"
        raise InputError("palette", wanted="a colour for each name", got=f"none for {missing[:5]}", remedy=remedy)
    return _Colors(codes)


def _read(path: Path) -> dict[Any, Any]:
    table = read_table(path)
    lower = table._replace(columns=tuple(column.lower() for column in table.columns))
    channels = list(zip(*(lower.numbers(column) for column in "rgb"), strict=True))
    keys: list[Any] = (
        list(lower.numbers("id")) if "id" in lower.columns else [row[lower.column("name")] for _, row in lower.rows]
    )
    if len(set(keys)) < len(keys):
        raise store_error(path, "a name or id occurs twice", "give each once")
    return dict(zip(keys, channels, strict=True))


def _id_of(key: Any, known: Named) -> int:
    if isinstance(key, str):
        if key not in known.names:
            remedy = "write it as in names, or give its id"
            raise InputError("palette", wanted="names that are known", got=repr(key), remedy=remedy)
        return known.ids[known.names.index(key)]
    try:
        return operator.index(key)
    except TypeError as error:
        raise InputError("palette", wanted="names or ids as keys", got=f"{key!r:.60}", remedy=_WANTED) from error


def _code_of(color: Any) -> int:
    try:
        red, green, blue = (operator.index(channel) for channel in color)
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        remedy = "write for instance (70, 130, 180)"
        raise InputError("palette", wanted="colours (R, G, B) from 0 to 255", got=f"{color!r:.60}", remedy=remedy)
    return red << 16 | green << 8 | blue


def _color_of(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255
