"""The embedded demo: mosaics of photographs, exact labels, units of a real network and a planted unit.

`docs/demo.md` defines the labels, `LICENSES.md` beside this file names every source, and `tools/demo.py` rebuilds the
packaged arrays to the hash below.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.errors import StoreError
from ccx.images import open_image

DATA_FILE = "demo.npz"
CONTENT_SHA256 = "361693da638c8e13b67ce31e15337780ce0ee8e6d989d4c5bef41fb8fc7143c4"

LAYER = "EfficientNet-Lite0, expansion of block 11"
PLANTED_FORMULA = "((cat OR coffee) AND NOT black)"
PLANTED_RANGE = (3.0, float("inf"))


@dataclass(frozen=True, eq=False, repr=False)
class Demo:
    """The embedded demo data: N mosaics, U units of a network, one planted unit and C concepts in three layers.

    Attributes
    ----------
    jpegs
        The mosaics as JPEG files, N of them.
    activations
        float32[N, U, 16, 16], after ReLU6, so in [0, 6]; rounded to float16 when they were packed.
    unit_ids
        int32[U]: the index of each unit in the layer.
    layer
        The network and the layer that the activations come from.
    labels
        int32[N, 3, 64, 64]: concept ids 1..C of the layers photo, color and texture; every cell has one of each.
    names, categories
        Of the C concepts; ``names[0]`` is id 1.
    planted_activations
        float32[N, 1, 64, 64]: a unit that nobody trained. It lies in `planted_range` exactly on the cells that
        satisfy `planted_formula`. Its grid is that of the labels, so nothing is interpolated.
    planted_formula, planted_range
        The formula that an explanation of the planted unit must find in this open range, with IoU 1.

    """

    jpegs: tuple[bytes, ...]
    activations: npt.NDArray[np.float32]
    unit_ids: npt.NDArray[np.int32]
    layer: str
    labels: npt.NDArray[np.int32]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    planted_activations: npt.NDArray[np.float32]
    planted_formula: str
    planted_range: tuple[float, float]

    @cached_property
    def images(self) -> npt.NDArray[np.uint8]:
        """The mosaics' pixels, uint8[N, 256, 256, 3], decoded on first access."""
        return np.stack([np.asarray(open_image(jpeg, "the demo")) for jpeg in self.jpegs])

    def __repr__(self) -> str:
        return (
            f"Demo({len(self.jpegs)} mosaics, {len(self.unit_ids)} units of {self.layer}, {len(self.names)} concepts, "
            f"planted unit {self.planted_formula})"
        )


def load() -> Demo:
    """Return the embedded demo data.

    Raises
    ------
    StoreError
        If the packaged file is missing or is not the one that this version of ccx was released with.

    """
    arrays = _read()
    names = tuple(arrays["names"].tolist())
    labels = arrays["labels"].astype(np.int32)
    pieces = np.split(arrays["jpeg_bytes"], arrays["jpeg_ends"][:-1])
    return Demo(
        jpegs=tuple(piece.tobytes() for piece in pieces),
        activations=arrays["activations"].astype(np.float32),
        unit_ids=arrays["unit_ids"],
        layer=LAYER,
        labels=labels,
        names=names,
        categories=tuple(arrays["categories"].tolist()),
        planted_activations=_plant(labels, names),
        planted_formula=PLANTED_FORMULA,
        planted_range=PLANTED_RANGE,
    )


def content_sha256(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return a SHA-256 over the names, dtypes, shapes and values of arrays, however they were compressed."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name].astype(arrays[name].dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read() -> dict[str, npt.NDArray[Any]]:
    try:
        with (files(__name__) / DATA_FILE).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"the demo data {DATA_FILE} cannot be read ({error}); install ccx again"
        raise StoreError(msg) from error
    if content_sha256(arrays) != CONTENT_SHA256:
        msg = f"the demo data {DATA_FILE} are not those of this version; install ccx again"
        raise StoreError(msg)
    return arrays


def _plant(labels: npt.NDArray[np.int32], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Return activations that lie in `PLANTED_RANGE` exactly where `PLANTED_FORMULA` holds, float32[N, 1, 64, 64].

    They vary within both levels like those of a real unit, but without chance: multiples of the golden ratio modulo 1
    are spread evenly. The upper level is narrow enough that k-means, too, keeps it in one cluster.
    """
    photo, color = labels[:, 0], labels[:, 1]
    cat, coffee, black = (1 + names.index(name) for name in ("cat", "coffee", "black"))
    fires = ((photo == cat) | (photo == coffee)) & (color != black)
    spread = (np.arange(fires.size) * ((5**0.5 - 1) / 2) % 1.0).reshape(fires.shape)
    return np.where(fires, 4.0 + spread / 8, 1.0 + spread).astype(np.float32)[:, None]
