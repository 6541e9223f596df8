"""Picture files: quick checks, pixels, label ids, and where a grid's cells lie in a picture."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.store.files import reason, store_error

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_GRAY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6  # colour types of PNG
_TAIL = 4096  # bytes in which the end of a JPEG is looked for
_DAMAGED = "copy or download it again"


class Header(NamedTuple):
    """What the head of a picture file says; `bits` and `kind` (the colour type) are -1 where it is no PNG."""

    height: int
    width: int
    bits: int
    kind: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def read_header(path: Path) -> Header:
    """Read what a picture file says of itself, and whether it ends where it should.

    A PNG must end with its last chunk. A JPEG without an end marker near its end is decoded to see whether it is
    whole; its content, as that of all others, is not looked at.

    Raises
    ------
    StoreError
        If the file is missing, no picture, or truncated.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(descriptor, 33, 0)
            n_bytes = os.fstat(descriptor).st_size
            tail = (
                os.pread(descriptor, _TAIL, max(0, n_bytes - _TAIL))
                if not head.startswith(_PNG)
                else os.pread(descriptor, len(_PNG_END), max(0, n_bytes - len(_PNG_END)))
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error
    if head.startswith(_PNG) and len(head) == 33:
        width, height, bits, kind = struct.unpack(">IIBB", head[16:26])
        if not width or not height:
            raise store_error(path, f"a PNG of {height}×{width} pixels", _DAMAGED)
        if tail != _PNG_END:
            raise store_error(path, f"truncated: its {n_bytes} bytes do not end like a PNG", _DAMAGED)
        return Header(height, width, bits, kind)
    if not n_bytes:
        raise store_error(path, "empty", _DAMAGED)
    with _opened(path) as image:
        if head.startswith(_JPEG) and _JPEG_END not in tail:
            _decode(image, path)
        return Header(image.height, image.width, -1, -1)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return a photograph, uint8[h, w, 3] in RGB as stored: a rotation in its metadata is not applied.

    Raises
    ------
    StoreError
        If it cannot be read.

    """
    with _opened(path) as image:
        _decode(image, path)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_ids(path: Path) -> npt.NDArray[Any]:
    """Return the ids of a label map of one number a pixel, (u)int[h, w].

    Palette pictures give their indices, grey ones of 1 to 16 (TIFF: 32) bits their values.

    Raises
    ------
    StoreError
        If it cannot be read, or has colours in place of ids.

    """
    header = read_header(path)
    with _opened(path) as image:
        _decode(image, path)
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            remedy = "give label maps of one id a pixel (grey or palette)"
            raise store_error(path, f"is in {image.mode}, which has no ids", remedy)
        pixels: npt.NDArray[Any] = np.asarray(image)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8)
    if header.kind == _GRAY and header.bits in (2, 4):  # spread over 0..255 by the decoder
        return pixels // np.uint8(255 // (2**header.bits - 1))
    return pixels


def read_rgb_ids(path: Path) -> npt.NDArray[np.uint32]:
    """Return R + 256 G + 65536 B of each pixel of a PNG, uint32[h, w].

    Raises
    ------
    StoreError
        If it cannot be read, or is no PNG of 8 bits a colour.

    """
    with _opened(path) as image:
        if image.format != "PNG" or image.mode not in ("RGB", "RGBA"):
            got = f"{image.format} in {image.mode}"
            raise store_error(path, f"wanted a PNG with R, G and B of 8 bits, it is {got}", "give the published files")
        _decode(image, path)
        height, width = image.height, image.width
        words = np.frombuffer(
            image.convert("RGBX").tobytes() if image.mode == "RGBA" else image.tobytes("raw", "RGBX"), "<u4"
        )
    return words.reshape(height, width) & np.uint32(0xFFFFFF)


def cell_indices(n_pixels: int, n_cells: int) -> npt.NDArray[np.intp]:
    """Return the pixel in which the centre of each cell lies, along one axis: intp[n_cells].

    Cell i of n reaches from i/n to (i + 1)/n of the axis. A centre on the border of two pixels belongs to the later.
    """
    return (2 * np.arange(n_cells) + 1) * n_pixels // (2 * n_cells)


def sampled(pixels: npt.NDArray[Any], shape: tuple[int, int] | None) -> npt.NDArray[Any]:
    """Return the pixels at the cells' centres: [h, w, ...] -> [H, W, ...]; None = all."""
    if shape is None or pixels.shape[:2] == shape:
        return pixels
    rows, columns = (cell_indices(n, cells) for n, cells in zip(pixels.shape[:2], shape, strict=True))
    return pixels[rows[:, None], columns]


def _opened(path: Path) -> Any:
    from PIL import Image  # noqa: PLC0415 - only where pictures are read

    try:
        return Image.open(io.BytesIO(path.read_bytes()))
    except OSError as error:
        if error.errno is not None:
            raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error
        raise store_error(path, "no picture, or its head is damaged", _DAMAGED) from error
    except Exception as error:  # decoders raise what they see fit
        raise store_error(path, f"no picture that can be read ({error})", _DAMAGED) from error


def _decode(image: Any, path: Path) -> None:
    try:
        image.load()
    except Exception as error:  # decoders raise what they see fit
        raise store_error(path, f"truncated or damaged ({error})", _DAMAGED) from error
