"""Picture files and data sets in published layouts, written byte by byte: nothing here uses a reader of ccx."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels: npt.NDArray[Any], *, bits: int = 8, palette: bytes | None = None, kind: int | None = None) -> bytes:
    """Return a PNG: pixels [h, w] (grey, or indices with a palette) or [h, w, 3 or 4], `bits` a value."""
    height, width = pixels.shape[:2]
    if kind is None:
        kind = 3 if palette is not None else 0 if pixels.ndim == 2 else {3: 2, 4: 6}[pixels.shape[2]]
    rows = []
    for row in pixels.reshape(height, -1).tolist():
        if bits == 16:
            packed = b"".join(struct.pack(">H", value) for value in row)
        else:
            text = "".join(f"{value:0{bits}b}" for value in row)
            text += "0" * (-len(text) % 8)
            packed = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
        rows.append(b"\0" + packed)
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head)]
    if palette is not None:
        parts.append(chunk(b"PLTE", palette))
    return b"".join([*parts, chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b"")])


def photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return the pixels of a picture, uint8[height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write(path: Path, content: bytes | str) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def broden_png(labels: npt.NDArray[Any]) -> bytes:
    """Return a label map of Broden: R + 256 G is the label."""
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    pixels[..., 0] = labels % 256
    pixels[..., 1] = labels // 256
    return png(pixels)


BRODEN_LABELS = """number,name,category,frequency,coverage,syns
0,-,,0,0,
1,black-c,color(9),9,3.5,
2,wall,object(7);part(2),9,2.5,wall;bulwark
3,leg,part(4);object(1),5,0.5,
4,street-s,scene(3),3,3,
5,wall,texture(2),2,1,
300,far,object(2),2,0.25,
"""
BRODEN_CODES = {
    "color": "code,number,name,frequency,coverage\n1,1,black-c,9,3.5\n",
    "object": "code,number,name,frequency,coverage\n1,2,wall,7,2.0\n2,3,leg,1,0.1\n3,300,far,2,0.25\n",
    "part": "code,number,name,frequency,coverage\n1,2,wall,2,0.5\n2,3,leg,4,0.4\n",
    "material": "code,number,name,frequency,coverage\n",
    "scene": "code,number,name,frequency,coverage\n1,4,street-s,3,3\n",
    "texture": "code,number,name,frequency,coverage\n1,5,wall,2,1\n",
}
BRODEN_CATEGORIES = "name,first,last,count,frequency\ncolor,1,1,1,9\nobject,2,300,3,10\n"
BRODEN_HEAD = "image,split,ih,iw,sh,sw,color,object,part,material,scene,texture\n"


def write_broden(root: Path, rows: str, maps: dict[str, npt.NDArray[Any]], side: int = 224) -> None:
    """Write a folder in Broden's layout: rows of index.csv without its head, label maps by their paths."""
    write(root / "index.csv", BRODEN_HEAD + rows)
    write(root / "label.csv", BRODEN_LABELS)
    write(root / "category.csv", BRODEN_CATEGORIES)
    for name, text in BRODEN_CODES.items():
        write(root / f"c_{name}.csv", text)
    for seed, row in enumerate(rows.splitlines()):
        image = row.split(",")[0]
        write(root / "images" / image, png(photo(side, side, seed)))
    for path, labels in maps.items():
        write(root / "images" / path, broden_png(labels))
