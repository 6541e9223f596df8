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
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ccx.errors import StoreError
from ccx.images import SUFFIXES

_DIGITS = re.compile(r"([0-9]+)")


class PictureFiles(list[Path]):
    """The pictures of a folder in order.

    Attributes
    ----------
    keys : tuple of str
        What each picture is called: its path below the folder.

    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        names = list(names)
        super().__init__(folder / name for name in names)
        self.keys = tuple(path_key(name) for name in names)


def picture_files(folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> PictureFiles:
    """Return the pictures of a folder and of all folders in it, in order (see `ccx.listing`).

    Raises
    ------
    StoreError
        If it cannot be read or has none, or a link in it leads in a circle.

    """
    files = PictureFiles(Path(folder), pictures_below(folder, suffixes))
    if not files:
        msg = f"{folder}: has no picture files; known are {', '.join(sorted(suffixes))}"
        raise StoreError(msg)
    return files


def pictures_below(folder: str | os.PathLike[str], suffixes: frozenset[str] = SUFFIXES) -> list[str]:
    """Return the paths of the pictures below a folder in order, none if it has none; raises as `picture_files`."""
    names = (name for name in _walk(os.fspath(folder)) if os.path.splitext(name)[1].lower() in suffixes)  # noqa: PTH122
    return sorted(names, key=natural_order)


def natural_order(path: str) -> list[tuple[list[str | int], str, str]]:
    """Return by what to sort paths below a folder (see `ccx.listing`)."""
    *folders, name = path.split("/")
    stem, dot, suffix = name.rpartition(".")
    last = (stem, dot + suffix) if stem else (name, "")
    parts = [*((folder, "") for folder in folders), last]
    return [(_pieces(text), _plain(end), text + end) for text, end in parts]


def path_key(path: str | os.PathLike[str]) -> str:
    """Return what a sample is called that is a file: its path with ``/`` between folders, accents as in NFC."""
    return unicodedata.normalize("NFC", PurePosixPath(path).as_posix())


def _pieces(text: str) -> list[str | int]:
    """Return a name as texts and numbers in turn, so that like meets like."""
    return [int(piece) if i % 2 else piece for i, piece in enumerate(_DIGITS.split(_plain(text)))]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


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
            inside = {**above, identity: place}
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = below + entry.name
                    if entry.is_dir():
                        waiting.append((f"{name}/", inside))
                    elif entry.is_file() or entry.is_symlink():
                        yield name
        except OSError as error:
            msg = f"{place}: cannot read this folder ({error.strerror or error}); check the path"
            raise StoreError(msg) from error


def relative_keys(paths: Iterable[Any]) -> tuple[str, ...] | None:
    """Return what listed files are called: their paths below the deepest folder that holds them all.

    None where one is no path, or some are absolute and others are not.
    """
    listed = list(paths)
    if not listed or not all(isinstance(path, (str, os.PathLike)) for path in listed):
        return None
    texts = [os.path.normpath(os.fspath(path)) for path in listed]
    try:
        common = os.path.commonpath([os.path.dirname(text) for text in texts])  # noqa: PTH120
    except ValueError:  # absolute and relative ones
        return None
    return tuple(path_key(text[len(common) :].lstrip("/")) for text in texts)
