"""Picture files: quick checks, pixels, label ids, and where a grid's cells lie in a picture."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.kernels.pictures import MAX_FILTER, Ids, cell_indices
from ccx.store import PathLike
from ccx.store.files import reason, store_error

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_GRAY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6  # colour types of PNG
_HEAD, _TAIL = 4096, 1024  # bytes that are read to look at a file
_DAMAGED = "copy or download it again"


def read_header(path: PathLike) -> tuple[int, int]:
    """Read the size (h, w) of a picture from its head, and see whether it ends where it should.

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
            head = os.pread(descriptor, _HEAD, 0)
            n_bytes = os.fstat(descriptor).st_size
            tail = head if n_bytes <= _HEAD else os.pread(descriptor, _TAIL, n_bytes - _TAIL)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error
    if head.startswith(_PNG) and len(head) >= 33:
        width, height = struct.unpack(">II", head[16:24])
        if not tail.endswith(_PNG_END):
            raise store_error(path, f"truncated: its {n_bytes} bytes do not end like a PNG", _DAMAGED)
        return height, width
    if not n_bytes:
        raise store_error(path, "empty", _DAMAGED)
    if head.startswith(_JPEG) and _JPEG_END in tail and (size := _jpeg_size(head)) is not None:
        return size
    with _opened(path, _content(path)) as image:
        if head.startswith(_JPEG) and _JPEG_END not in tail:
            _decode(image, path)
        return image.height, image.width


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Return (h, w) from the frame header of a JPEG, None where it is not in `head`."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # C4, C8, CC are no frames
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return (height, width) if height and width else None
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def read_image(path: PathLike) -> npt.NDArray[np.uint8]:
    """Return a photograph, uint8[h, w, 3] in RGB as stored: a rotation in its metadata is not applied.

    Raises
    ------
    StoreError
        If it cannot be read.

    """
    with _opened(path, _content(path)) as image:
        _decode(image, path)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_ids(path: PathLike) -> Ids:
    """Read the ids of a label map of one number a pixel.

    Palette pictures give their indices, grey ones of 1 to 16 (TIFF: 32) bits their values.

    Raises
    ------
    StoreError
        If it cannot be read, or has colours in place of ids.

    """
    content = _content(path)
    if (found := _png_ids(path, content, (_GRAY, _PALETTE))) is not None:
        return found
    with _opened(path, content) as image:
        _decode(image, path)
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            remedy = "give label maps of one id a pixel (grey or palette)"
            raise store_error(path, f"is in {image.mode}, which has no ids", remedy)
        pixels: npt.NDArray[Any] = np.asarray(image)
    if pixels.dtype == np.bool_:
        return ids_of(pixels.astype(np.uint8))
    if content.startswith(_PNG) and content[25] == _GRAY and content[24] in (2, 4):  # spread over 0..255 by the decoder
        return ids_of(pixels // np.uint8(255 // (2 ** content[24] - 1)))
    return ids_of(pixels)


def read_broden_ids(path: PathLike) -> Ids:
    """Read R + 256 G of each pixel of a PNG of 8 bits a colour.

    Raises
    ------
    StoreError
        If it cannot be read, or is no such PNG.

    """
    content = _content(path)
    if (found := _png_ids(path, content, (_RGB, _RGBA))) is not None:
        return found
    return ids_of(_rgb_numbers(path, content) & np.uint32(0xFFFF))


def ids_of(numbers: npt.NDArray[Any]) -> Ids:
    """Return ids int[h, w] in the form of `read_ids`; those outside 0..65535 become 65535, which no name has."""
    if numbers.dtype.itemsize > 1:
        numbers = np.where((numbers < 0) | (numbers > 65_535), 65_535, numbers)
    height, width = numbers.shape
    rows = np.zeros((height, 1 + 2 * width), np.uint8)  # the first byte of a row: no filter
    rows[:, 1:] = np.ascontiguousarray(numbers, "<u2").view(np.uint8)
    return Ids(rows, 2, 0, 1, 256)


def _png_ids(path: PathLike, content: bytes, kinds: tuple[int, ...]) -> Ids | None:
    """Read the ids of a plain PNG of 8 or 16 bits, several times faster than a decoder for all pictures.

    Returns None for what is no such PNG: that decoder shall say what is wrong, or read it.
    """
    if not content.startswith(_PNG) or len(content) < 33:
        return None
    width, height, bits, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if kind not in kinds or bits not in (8, 16) or compression or filtering or interlaced:
        return None
    if bits == 16 and kind != _GRAY:
        return None
    pieces, at = [], len(_PNG)
    while at + 12 <= len(content):
        (n_bytes,) = struct.unpack_from(">I", content, at)
        name = content[at + 4 : at + 8]
        if name == b"IDAT":
            end = at + 8 + n_bytes
            if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise store_error(path, "damaged: a checksum in it is wrong", _DAMAGED)
            pieces.append(content[at + 8 : end])
        elif name == b"IEND":
            break
        at += 12 + n_bytes
    samples = {_GRAY: 1, _PALETTE: 1, _RGB: 3, _RGBA: 4}[kind] * bits // 8
    size = height * (1 + width * samples)
    inflate = zlib.decompressobj()
    try:
        inflated = inflate.decompress(b"".join(pieces), size + 1)
    except zlib.error as error:
        raise store_error(path, f"damaged ({error})", _DAMAGED) from error
    if len(inflated) != size or not inflate.eof:
        got = "more" if len(inflated) > size else f"{len(inflated)}"
        raise store_error(path, f"truncated or damaged: {got} of {size} bytes", _DAMAGED)
    if max(inflated[:: size // height]) > MAX_FILTER:
        raise store_error(path, "damaged: an unknown filter", _DAMAGED)
    rows = np.frombuffer(inflated, np.uint8).reshape(height, -1)
    if bits == 16:
        return Ids(rows, 2, 1, 0, 256)
    return Ids(rows, samples, 0, 1, 256) if samples > 1 else Ids(rows, 1, 0, 0, 0)


def read_rgb_numbers(path: PathLike) -> npt.NDArray[np.uint32]:
    """Return R + 256 G + 65536 B of each pixel of a PNG, uint32[h, w].

    Raises
    ------
    StoreError
        If it cannot be read, or is no PNG of 8 bits a colour.

    """
    return _rgb_numbers(path, _content(path))


def _rgb_numbers(path: PathLike, content: bytes) -> npt.NDArray[np.uint32]:
    with _opened(path, content) as image:
        if image.format != "PNG" or image.mode not in ("RGB", "RGBA") or content[24] != 8:
            got = f"{image.format} in {image.mode}" + (f" of {content[24]} bits" if image.format == "PNG" else "")
            raise store_error(path, f"wanted a PNG with R, G and B of 8 bits, it is {got}", "give the published files")
        _decode(image, path)
        height, width = image.height, image.width
        words = np.frombuffer(image.convert("RGBA").tobytes(), "<u4")
    return words.reshape(height, width) & np.uint32(0xFFFFFF)


def sampled(pixels: npt.NDArray[Any], shape: tuple[int, int] | None) -> npt.NDArray[Any]:
    """Return the pixels at the cells' centres: [h, w, ...] -> [H, W, ...]; None = all."""
    if shape is None or pixels.shape[:2] == shape:
        return pixels
    rows, columns = (cell_indices(n, cells) for n, cells in zip(pixels.shape[:2], shape, strict=True))
    return pixels[rows[:, None], columns]


def _content(path: PathLike) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - at ten times the speed of a Path
            return file.read()
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error


def _opened(path: PathLike, content: bytes) -> Any:
    from PIL import Image  # noqa: PLC0415 - only where pictures are read

    try:
        return Image.open(io.BytesIO(content))
    except Exception as error:  # decoders raise what they see fit
        why = "no picture, or its head is damaged" if isinstance(error, OSError) else f"no picture ({error})"
        raise store_error(path, why, _DAMAGED) from error


def _decode(image: Any, path: PathLike) -> None:
    try:
        image.load()
    except Exception as error:  # decoders raise what they see fit
        raise store_error(path, f"truncated or damaged ({error})", _DAMAGED) from error
