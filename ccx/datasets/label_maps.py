"""Label maps in picture files: quick checks, ids and colours, and where a grid's cells lie in a picture."""

from __future__ import annotations

import io
import os
import struct
import zlib
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx.images import (
    DAMAGED,
    PNG,
    Head,
    check_pixels,
    content_of,
    decode,
    head_of,
    is_turned,
    open_image,
    opened,
    read_head,
)
from ccx.kernels.png import MAX_FILTER, Ids, cell_indices
from ccx.store import PathLike
from ccx.store.files import store_error
from ccx.store.numpy_files import read_header

NPY = ".npy"

_GRAY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6  # colour types of PNG
_SAMPLE_FORMAT = 339  # tag of TIFF: 2 = signed
_AS_PNG = "save label maps as PNG"


class Coding(Enum):
    """How a picture holds numbers: one per pixel (grey or palette), in colours, or in the bytes R, G and B of a PNG."""

    IDS = "one id per pixel"
    COLORS = "colours"
    BYTES = "numbers in R, G and B"


_TURN = "turn it as it is meant, and save it without the tag"
_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_COLOR_MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX")


def label_map_size(path: PathLike, coding: Coding) -> tuple[int, int]:
    """Return (h, w) of a label map from its head, or of an array in a .npy file.

    Raises `StoreError` as `ccx.images.read_head`, and if the file cannot hold a label map in this coding.
    """
    if _is_npy(path):
        return _npy_array(path).shape
    head = read_head(path)
    _check(head, coding, path)
    return head.height, head.width


def read_ids(path: PathLike) -> Ids | npt.NDArray[Any]:
    """Read the ids of a label map of one number per pixel, as `Ids` or as whole numbers [h, w].

    Palette pictures give their indices, grey ones of 1 to 16 (TIFF: 32) bits their values, .npy files their entries.
    Raises `StoreError` if it cannot be read, or its pixels are no ids: colours, a lossy compression, an orientation in
    its EXIF.
    """
    if _is_npy(path):
        return _npy_array(path)
    content = content_of(path)
    if (found := _png_ids(path, content, (_GRAY, _PALETTE))) is not None:
        return found
    with opened(content, path) as image:
        head = head_of(content, image, path)
        _check(head, Coding.IDS, path)
        decode(image, path, head)
        pixels: npt.NDArray[Any] = np.asarray(image)
        if head.format == "TIFF":
            pixels = _as_stored(pixels, image.tag_v2.get(_SAMPLE_FORMAT), head.bits)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8)
    if head.mode == "L" and head.bits in (2, 4):  # spread over 0..255 by the decoder
        return pixels // np.uint8(255 // (2**head.bits - 1))
    return pixels


def _as_stored(pixels: npt.NDArray[Any], kind: Any, bits: int) -> npt.NDArray[Any]:
    """Return the numbers of a TIFF as signed as they were stored."""
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize * 8 == bits:
        return pixels.astype(f"{'i' if kind in (2, (2,)) else 'u'}{pixels.dtype.itemsize}", copy=False)
    return pixels


def read_broden_ids(path: PathLike) -> Ids | npt.NDArray[Any]:
    """Read R + 256 G of each pixel of a PNG of 8 bits per colour.

    Raises `StoreError` if it cannot be read, or is no such PNG.
    """
    content = content_of(path)
    if (found := _png_ids(path, content, (_RGB, _RGBA))) is not None:
        return found
    return read_rgb_numbers(path, content) & np.uint32(0xFFFF)


def _png_ids(path: PathLike, content: bytes, kinds: tuple[int, ...]) -> Ids | None:
    """Read the ids of a plain PNG of 8 or 16 bits, several times faster than a decoder for all pictures.

    Returns None for what is no such PNG: that decoder shall say what is wrong, or read it.
    """
    if not content.startswith(PNG) or len(content) < 33 or content[12:16] != b"IHDR":
        return None
    width, height, bits, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if kind not in kinds or bits not in (8, 16) or compression or filtering or interlaced:
        return None
    if bits == 16 and kind != _GRAY:
        return None
    check_pixels(height, width, path)
    pieces, at = [], len(PNG)
    while at + 12 <= len(content):
        (n_bytes,) = struct.unpack_from(">I", content, at)
        name = content[at + 4 : at + 8]
        if name == b"IDAT":
            end = at + 8 + n_bytes
            if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise store_error(path, "damaged: a checksum in it is wrong", DAMAGED)
            pieces.append(content[at + 8 : end])
        elif name == b"IEND" and at + 12 + n_bytes <= len(content):
            break
        elif name in (b"eXIf", b"acTL"):  # an orientation, or frames
            return None
        at += 12 + n_bytes
    else:
        raise store_error(path, f"truncated: its {len(content)} bytes do not end like a PNG", DAMAGED)
    samples = {_GRAY: 1, _PALETTE: 1, _RGB: 3, _RGBA: 4}[kind] * bits // 8
    size = height * (1 + width * samples)
    inflate = zlib.decompressobj()
    try:
        inflated = inflate.decompress(b"".join(pieces), size + 1)
    except zlib.error as error:
        raise store_error(path, f"damaged ({error})", DAMAGED) from error
    if len(inflated) != size or not inflate.eof:
        got = "more" if len(inflated) > size else f"{len(inflated)}"
        raise store_error(path, f"truncated or damaged: {got} of {size} bytes", DAMAGED)
    if max(inflated[:: size // height]) > MAX_FILTER:
        raise store_error(path, "damaged: an unknown filter", DAMAGED)
    rows = np.frombuffer(inflated, np.uint8).reshape(height, -1)
    if bits == 16:
        return Ids(rows, 2, 1, 0, 256)
    return Ids(rows, samples, 0, 1, 256) if samples > 1 else Ids(rows, 1, 0, 0, 0)


def read_rgb_numbers(path: PathLike, content: bytes | None = None) -> npt.NDArray[np.uint32]:
    """Return R + 256 G + 65536 B of each pixel of a PNG, or of its content, uint32[h, w].

    Raises `StoreError` if it cannot be read, or is no PNG of 8 bits per colour.
    """
    content = content_of(path) if content is None else content
    with opened(content, path) as image:
        head = head_of(content, image, path)
        _check(head, Coding.BYTES, path)
        decode(image, path, head)
        words = np.frombuffer(image.convert("RGBA").tobytes(), "<u4")
    return words.reshape(head.height, head.width) & np.uint32(0xFFFFFF)


def read_colors(path: PathLike) -> npt.NDArray[np.uint8]:
    """Return the colours of a label map, uint8[h, w, 3].

    Raises `StoreError` if it cannot be read, or its colours are not those that were saved; what `ccx.images.read_image`
    refuses, too.
    """
    content = content_of(path)
    with opened(content, path) as image:
        _check(head_of(content, image, path), Coding.COLORS, path)
    return np.asarray(open_image(content, path))


def require_size(path: PathLike, found: tuple[int, ...], wanted: tuple[int, int], source: PathLike) -> None:
    """Raise `StoreError` unless a picture has the size (h, w) that its data set says."""
    if found != wanted:
        problem = f"{found[0]}×{found[1]} pixels, {source} says {wanted[0]}×{wanted[1]}"
        raise store_error(path, problem, "give the files that belong together")


def sampled(pixels: npt.NDArray[Any], shape: tuple[int, int] | None) -> npt.NDArray[Any]:
    """Return the pixels at the cells' centres: [h, w, ...] -> [H, W, ...]; None = all."""
    if shape is None or pixels.shape[:2] == shape:
        return pixels
    rows, columns = (cell_indices(n, cells) for n, cells in zip(pixels.shape[:2], shape, strict=True))
    return pixels[rows[:, None], columns]


def _check(head: Head, coding: Coding, where: PathLike) -> None:
    """Raise `StoreError` unless a picture can hold a label map in this coding."""
    if coding is Coding.BYTES:
        if head.format != "PNG" or head.mode not in ("RGB", "RGBA") or head.bits != 8:
            got = _kind(head)
            problem = f"wanted a PNG with R, G and B of 8 bits, it is {head.format} in {got}"
            raise store_error(where, problem, "give the published files")
    elif head.changes_ids:
        raise store_error(where, head.changes_ids, f"{_AS_PNG}, from their source")
    elif head.mode not in (_ID_MODES if coding is Coding.IDS else _COLOR_MODES) or (
        coding is Coding.COLORS and head.bits > 8
    ):
        remedy = "give label maps of one id per pixel (grey or palette), or say with palette= what its colours mean"
        if coding is Coding.COLORS:
            remedy = f"{_AS_PNG} of 8 bits per colour"
        raise store_error(
            where, f"is in {_kind(head)}, which has no {'ids' if coding is Coding.IDS else 'colours'}", remedy
        )
    if head.is_animated:
        raise store_error(where, "has several frames or pages", "save the one that is meant as a file of its own")
    if head.orientation != 1:
        # Programs copy the EXIF of a photograph to label maps that they draw upright, and to those that they do not.
        raise store_error(where, f"a label map with an orientation ({head.orientation}) in its EXIF", _TURN)


def check_label_picture(picture: Any, where: PathLike) -> None:
    """Raise `StoreError` for a Pillow picture that would be refused as a file of a label map."""
    if picture.format in ("JPEG", "MPO"):
        raise store_error(
            where, "the label map is a JPEG, whose compression changes ids", f"{_AS_PNG}, from their source"
        )
    if is_turned(picture):
        raise store_error(where, "the label map has an orientation in its EXIF", _TURN)


def _kind(head: Head) -> str:
    return head.mode if head.bits <= 8 else f"{head.mode} of {head.bits} bits"


def _is_npy(path: PathLike) -> bool:
    return os.fspath(path)[-4:].lower() == NPY


def _npy_array(path: PathLike) -> npt.NDArray[Any]:
    """Return the whole numbers [h, w] of a .npy file."""
    file = io.BytesIO(content_of(path))
    remedy = "save whole numbers [h, w] with numpy.save"
    try:
        head = read_header(file)
    except ValueError as error:
        raise store_error(path, f"no .npy file, or its head is damaged ({error})", remedy) from error
    shape, dtype, n_bytes = head.shape, head.dtype, len(file.getbuffer())
    if dtype.kind not in "biu" or len(shape) != 2:
        raise store_error(path, f"holds {dtype}{list(shape)}, no label map", remedy)
    check_pixels(*shape, path)
    if n_bytes != head.n_bytes:
        raise store_error(path, f"truncated or damaged: {n_bytes - head.start} bytes for {dtype}{list(shape)}", DAMAGED)
    numbers = np.frombuffer(file.getbuffer(), dtype, offset=head.start).reshape(shape, order=head.order)
    return numbers.astype(np.uint8) if dtype.kind == "b" else numbers
