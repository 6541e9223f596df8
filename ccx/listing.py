"""The one order of the pictures in a folder, and what each is called.

Whatever lists a folder (`ccx.probe`, `ccx.datasets.Folder`, ``--images``, reports) lists it here, so that sample i is
the same picture everywhere.

- Numbers in names count as numbers: 2 comes before 10. Cameras, simulators and `enumerate` number files so, with or
  without leading zeros, and so do file browsers show them.
- Paths are compared folder by folder: a folder's pictures stay together, at the place of the folder's name.
- Letters are compared without regard to case, and accents however they are written (NFC). Names that are then equal,
  as 01 and 1 or A and a, are ordered by their exact text, so that the order never depends on the file system.
- A suffix counts last: ``a.png`` comes before ``a1.png``, and pictures and label maps of one name have one order.
- Hidden files and folders (``._1.png``, ``.DS_Store``, ``.thumbnails/``) are left out.
- Links count as what they lead to, under their own names; one that leads back to a folder that it lies in is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ccx.errors import StoreError
from ccx.images import SUFFIXES
from ccx.keys import Keyed, Keys, as_key, keys_of

Part: TypeAlias = tuple[list[str | int], str, str]
_DIGITS = re.compile(r"([0-9]+)")


def picture_files(folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> Keyed[Path]:
    """Return the pictures of a folder and of all folders in it, in order (see `ccx.listing`).

    What is returned carries the key of each, its path below the folder (`ccx.keys`).

    Raises
    ------
    StoreError
        If it cannot be read or has none, or a link in it leads in a circle.

    """
    names = pictures_below(folder, suffixes)
    if not names:
        msg = f"{folder}: has no picture files; known are {', '.join(sorted(suffixes))}"
        raise StoreError(msg)
    return Keyed([Path(folder) / name for name in names], map(path_key, names))


def pictures_below(folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> list[str]:
    """Return the paths of the pictures below a folder in order, none if it has none; raises as `picture_files`."""
    names = (name for name in _walk(os.fspath(folder)) if os.path.splitext(name)[1].lower() in suffixes)  # noqa: PTH122
    return sorted(names, key=natural_order)


def natural_order(path: str) -> list[Part]:
    """Return by what to sort paths below a folder (see `ccx.listing`)."""
    folders, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return [*_folders_order(folders), _part(stem, dot + suffix) if stem else _part(name, "")]


@lru_cache(maxsize=1024)
def _folders_order(folders: str) -> list[Part]:
    return [_part(folder, "") for folder in folders.split("/")] if folders else []


def _part(text: str, suffix: str) -> Part:
    """Return by what to sort one part of a path: texts and numbers in turn, so that like meets like."""
    pieces: list[str | int] = list(_DIGITS.split(_plain(text)))
    pieces[1::2] = map(int, pieces[1::2])
    return pieces, _plain(suffix), text + suffix


def _plain(text: str) -> str:
    return text.lower() if text.isascii() else as_key(as_key(text).casefold())


def path_key(path: str | os.PathLike[str]) -> str:
    """Return what a sample is called that is a file: its path with ``/`` between folders, accents as in NFC."""
    text = os.fspath(path)
    return as_key(PurePosixPath(text).as_posix() if "/." in text or "//" in text or text[:1] == "." else text)


def _walk(root: str) -> Iterator[str]:
    """Yield the paths of all files below a folder, links to nothing included: who reads them says what is wrong."""
    waiting: list[tuple[str, dict[tuple[int, int], str]]] = [("", {})]
    while waiting:
        below, above = waiting.pop()
        place = os.path.join(root, below) if below else root  # noqa: PTH118 - thousands of files
        try:
            found = os.stat(place)  # noqa: PTH116
            identity = (found.st_dev, found.st_ino)
            if identity in above:
                msg = f"{place}: is a link that leads back to {above[identity]}, in which it lies; remove it"
                raise StoreError(msg)
            with os.scandir(place) as entries:
                seen = [entry for entry in entries if not entry.name.startswith(".")]
            inside = {**above, identity: place}
            waiting += [(f"{below}{entry.name}/", inside) for entry in seen if entry.is_dir()]
            yield from (below + entry.name for entry in seen if not entry.is_dir() and _is_file(entry))
        except OSError as error:
            msg = f"{place}: cannot read this folder ({error.strerror or error}); check the path"
            raise StoreError(msg) from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() or entry.is_symlink()


def data_keys(data: Any) -> Keys | None:
    """Return the keys of the samples of a data set with an index, as far as it tells; None if it does not.

    Its attribute `keys`; of a list of paths, or of what lists its files as data sets of torchvision do (``samples``
    with a ``root``, ``images``), their paths below their common folder; of a subset (torch's) those of the whole.
    """
    if isinstance(data, (list, tuple)) and keys_of(data) is None:
        return relative_keys(data)
    if not hasattr(data, "__len__"):
        return None
    indices, whole = getattr(data, "indices", None), getattr(data, "dataset", None)
    if whole is not None and indices is not None and hasattr(indices, "__len__"):
        keys = data_keys(whole)
        return None if keys is None else tuple(keys[i] for i in indices)
    found = keys_of(data)
    samples, root = getattr(data, "samples", None), getattr(data, "root", None)
    if found is None and isinstance(samples, list) and all(isinstance(one, tuple) for one in samples):
        found = relative_keys([one[0] for one in samples], root)
    images = getattr(data, "images", None)
    if found is None and isinstance(images, (list, tuple)):
        found = keys_of(images) or relative_keys(images)
    return found if found is not None and len(found) == len(data) else None


def relative_keys(paths: Iterable[Any], root: Any = None) -> Keys | None:
    """Return what listed files are called: their paths below `root`, or the deepest folder that holds them all.

    None where one is no path, or some are absolute and others are not.
    """
    listed = list(paths)
    if not listed or not all(isinstance(path, (str, os.PathLike)) for path in listed):
        return None
    texts = [os.path.normpath(os.fspath(path)) for path in listed]
    try:
        common = os.path.commonpath({os.path.dirname(text) for text in texts})  # noqa: PTH120
        if isinstance(root, (str, os.PathLike)):
            above = os.path.normpath(os.fspath(root))
            common = above if os.path.commonpath([above, common]) == above else common
    except ValueError:  # absolute and relative ones
        return None
    return tuple(path_key(text[len(common) :].lstrip("/")) for text in texts)
