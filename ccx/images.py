"""The one reader of picture files: which there are, what their heads say, and the pixels of photographs.

Photographs, label maps, reports and preprocessing all read pictures here, so that they agree on what they see. Formats
are told by content, not by suffix. Nothing is decoded before its size is known to be within Pillow's limit.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccx.errors import DTypeError, InputError
from ccx.store import PathLike
from ccx.store.files import open_regular, read_regular, reason, store_error

if TYPE_CHECKING:
    import PIL.Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes of picture files, in small letters."""

DAMAGED = "copy or download it again"
MAX_BYTES = 1 << 30  # of a file: more than any picture of so many pixels needs
_MAX_PIXELS = 89_478_485  # Pillow's limit, unless it is raised

PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_HEAD, _TAIL = 4096, 1024  # bytes that are read to look at a file
_EXIF = 1 << 16  # bytes in which the tags of EXIF are looked for: what a segment of JPEG can hold
_MOST_PARTS = 1 << 20  # chunks or segments that are walked through

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274  # tags of TIFF
_LOSSLESS = frozenset({1, 2, 3, 4, 5, 8, 32_773, 32_946, 34_925, 50_000})  # compressions of TIFF that keep numbers

_PHOTOGRAPHS = frozenset({"1", "CMYK", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr"})
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})

_LOSSY = "is a {}, whose compression changes ids"
_LOSSY_JPEG = _LOSSY.format("JPEG")

Read = Callable[[int, int], bytes]


class Head(NamedTuple):
    """What the head of a picture file says.

    `height` and `width` are those of the pixels as stored, `orientation` is EXIF's (1 = upright); `mode` is Pillow's,
    `bits` are those of a channel. `changes_ids` says why the numbers of its pixels are not those that were stored.
    """

    format: str
    height: int
    width: int
    mode: str
    bits: int
    orientation: int = 1
    is_animated: bool = False
    changes_ids: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the upright picture."""
        return (self.height, self.width) if self.orientation < 5 else (self.width, self.height)


# What is looked at before a picture is decoded


def photograph_size(path: PathLike) -> tuple[int, int]:
    """Return (h, w) of a photograph as `read_image` would give it, from its head.

    Raises `StoreError` as `read_head`, and if `read_image` would refuse its kind.
    """
    head = read_head(path)
    _check_photograph(head, path)
    return head.size


def read_head(path: PathLike) -> Head:
    """Read what the head of a picture file says, and see whether the file ends where it should.

    A PNG must have its last chunk. A JPEG without an end marker near its end is decoded to see whether it is whole; its
    content, as that of all others, is not looked at. Raises `StoreError` if the file is missing, no regular file, no
    picture, truncated, or too large.
    """
    descriptor, n_bytes = open_regular(path)
    try:
        first = os.pread(descriptor, _HEAD, 0)
        head = _own_head(first, n_bytes, lambda at, n: os.pread(descriptor, n, at), path)
        is_whole = True
        if first.startswith(_JPEG):
            is_whole = _JPEG_END in os.pread(descriptor, _TAIL, max(0, n_bytes - _TAIL))
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the disk") from error
    finally:
        os.close(descriptor)
    if head is not None and is_whole:
        return head
    with opened(content_of(path), path) as image:
        if head is None:
            head = pillow_head(image, path)
        if not is_whole:
            decode(image, path)
    return head


def head_of(content: bytes, image: PIL.Image.Image, where: PathLike) -> Head:
    """Return what `read_head` would, of the content of a file that is opened as `image`."""
    n_bytes = len(content)
    return _own_head(content, n_bytes, lambda at, n: content[at : at + n], where) or pillow_head(image, where)


def _own_head(first: bytes, n_bytes: int, read: Read, where: PathLike) -> Head | None:
    """Read the head of a PNG or JPEG, without Pillow; None = Pillow shall say what it is.

    `first` holds the first of `n_bytes`; ``read(at, n)`` returns n bytes from a position.
    """
    if not n_bytes:
        raise store_error(where, "empty", DAMAGED)
    if first.startswith(PNG):
        head = _png_head(first, n_bytes, read, where)
    elif first.startswith(_JPEG):
        head = _jpeg_head(first, read)
    else:
        return None
    if head is not None:
        check_pixels(head.height, head.width, where)
    return head


def _png_head(first: bytes, n_bytes: int, read: Read, where: PathLike) -> Head | None:
    if len(first) < 33 or first[12:16] != b"IHDR":
        return None
    width, height, bits, kind = struct.unpack_from(">IIBB", first, 16)
    if kind not in _PNG_MODES:
        return None
    if first[37:41] == b"IDAT" and int.from_bytes(first[33:37], "big") + 57 == n_bytes and first.endswith(_PNG_END):
        return Head(
            "PNG", height, width, _PNG_MODES[kind], bits
        )  # as most label maps are: there is nothing to walk for
    at, orientation, n_frames = len(PNG), 1, 1
    for _ in range(_MOST_PARTS):
        part = first[at : at + 8]
        if len(part) < 8:
            part = read(at, 8)
        length, name = int.from_bytes(part[:4], "big"), part[4:]
        if at + 12 + length > n_bytes or len(part) < 8:
            raise store_error(where, f"truncated: its {n_bytes} bytes do not end like a PNG", DAMAGED)
        if name == b"IEND":
            return Head("PNG", height, width, _PNG_MODES[kind], bits, orientation, n_frames > 1)
        if name == b"eXIf":
            orientation = _orientation(read(at + 8, min(length, _EXIF)))
        elif name == b"acTL":
            n_frames = int.from_bytes(read(at + 8, min(length, 4)), "big")
        at += 12 + length
    raise store_error(where, f"has more than {_MOST_PARTS} chunks", DAMAGED)


def _jpeg_head(first: bytes, read: Read) -> Head | None:
    at, orientation, frame = 2, 0, None
    for _ in range(_MOST_PARTS):
        part = first[at : at + 10]
        if len(part) < 10:
            part = read(at, 10)
        if len(part) < 4 or part[0] != 0xFF:
            return None
        marker, length = part[1], part[2] << 8 | part[3]
        if marker == 0xDA:  # the scan: tags stand before it
            break
        if marker == 0xFF or length < 2 or 0xD0 <= marker <= 0xD9:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those are no frames
            if frame is not None:
                return None
            frame = part[4:]
        elif marker == 0xE1 and not orientation and part[4:] == b"Exif\0\0":
            orientation = _orientation(read(at + 4, length - 2))
        at += 2 + length
    if frame is None or len(frame) < 6:
        return None
    bits, height, width, n_channels = struct.unpack(">BHHB", frame)
    if n_channels not in _JPEG_MODES:
        return None
    return Head("JPEG", height, width, _JPEG_MODES[n_channels], bits, orientation or 1, False, _LOSSY_JPEG)


def pillow_head(image: Any, where: PathLike) -> Head:
    """Return what Pillow says of a file that it has opened."""
    try:
        head = _pillow_head(image)
    except Exception as error:  # decoders raise what they see fit, also where they look for a second frame
        raise store_error(where, f"its head is damaged ({error})", DAMAGED) from error
    check_pixels(head.height, head.width, where)
    return head


def _pillow_head(image: Any) -> Head:
    width, height = image.size
    bits = 32 if image.mode in ("I", "F") else 16 if image.mode.startswith("I;16") else 8
    orientation = _orientation(image.info.get("exif") or b"")
    changes_ids = ""
    is_animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"  # whose first is the photograph
    match image.format:
        case "TIFF":
            tags = image.tag_v2
            width, height = tags[_WIDTH], tags[_HEIGHT]  # Pillow's are those of the upright picture
            bits = _highest(tags.get(_BITS), 1)
            orientation = _known(_highest(tags.get(_ORIENTATION), 1))
            if _highest(tags.get(_COMPRESSION), 1) not in _LOSSLESS:
                changes_ids = _LOSSY.format(f"TIFF in compression {tags.get(_COMPRESSION)}")
            elif _highest(tags.get(_PHOTOMETRIC), 1) == 0:
                changes_ids = "stores white as 0, and readers disagree on its numbers"
        case "PPM":
            arguments = image.tile[0][3]
            most = arguments[1] if isinstance(arguments, tuple) else 255
            bits = 8 if most < 256 and image.mode != "I" else 16
            if image.mode == "1":
                changes_ids = "stores black as 1, and readers disagree on its numbers"
            elif most not in (255, 65_535):
                changes_ids = f"has a greatest value of {most}, to which readers scale its numbers"
        case "JPEG" | "MPO":
            changes_ids = _LOSSY_JPEG
        case "WEBP" if not _is_lossless(image.fp):
            changes_ids = _LOSSY.format("lossy WebP")
    return Head(image.format, height, width, image.mode, bits, orientation, is_animated, changes_ids)


def _is_lossless(file: Any) -> bool:
    """Tell whether the picture in a WebP is lossless (its chunk is VP8L)."""
    at = 12
    for _ in range(_MOST_PARTS):
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name in (b"VP8L", b"VP8 ", b""):
            return bool(name == b"VP8L")
        at += 8 + length + length % 2
    return False


def _highest(value: Any, default: int) -> int:
    """Return the highest number of a tag, or `default` if it holds none."""
    numbers = value if isinstance(value, tuple) else (value,)
    return max((number for number in numbers if isinstance(number, int)), default=default)


def _known(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _orientation(exif: bytes) -> int:
    """Return the orientation in a block of EXIF; 1 where it says none, or is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (n_tags,) = struct.unpack_from(f"{order}H", exif, at)
        for k in range(n_tags):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at + 2 + 12 * k)
            if tag == _ORIENTATION:
                return _known(value) if kind == 3 else 1
    except struct.error:
        pass
    return 1


def check_pixels(height: int, width: int, where: PathLike) -> None:
    """Raise `StoreError` where a picture has no pixels, or more than Pillow's limit."""
    if height < 1 or width < 1:
        raise store_error(where, f"has no pixels ({height}×{width})", DAMAGED)
    if height * width > _MAX_PIXELS:
        from PIL import Image  # noqa: PLC0415 - only where pictures are read

        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and height * width > limit:
            remedy = "scale it down; or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"
            raise store_error(where, f"has {height}×{width} pixels, more than {limit}", remedy)


# Photographs


def read_image(path: PathLike) -> npt.NDArray[np.uint8]:
    """Return a photograph, uint8[h, w, 3] in RGB, upright as viewers show it (orientation of EXIF).

    Refused are pictures of more than 8 bits per channel, with transparent pixels, of several frames or pages, and of
    colours that are neither grey, palette, RGB, YCbCr nor CMYK. CMYK becomes RGB without a colour profile, as image
    loaders of networks do it.

    Raises
    ------
    StoreError
        If it cannot be read or is refused.

    """
    return np.asarray(open_image(path))


def open_image(source: PathLike | bytes, where: PathLike | None = None, *, is_draft: bool = False) -> PIL.Image.Image:
    """Return a photograph as a Pillow picture in RGB, upright; rules and errors are those of `read_image`.

    `source` is a path, or the content of a file; errors call it `where`, None = by its path. As a draft, a JPEG is
    decoded no finer than it takes to see that it can be.
    """
    content = source if isinstance(source, bytes) else content_of(source)
    place: PathLike = where if where is not None else "image" if isinstance(source, bytes) else source
    with opened(content, place) as image:
        head = head_of(content, image, place)
        _check_photograph(head, place)
        if is_draft:
            image.draft("RGB", (1, 1))
        decode(image, place, None if is_draft else head)
        try:
            picture = _rgb(image, str(place))
        except InputError as error:
            raise store_error(place, f"is {error.got}", error.remedy) from error
        return picture if head.format == "TIFF" else _upright(picture, head.orientation)  # Pillow turns those of TIFF


def rgb(picture: Any, argument: str) -> PIL.Image.Image:
    """Return a Pillow picture in memory in RGB, by the rules of `read_image`; its pixels stay where they are.

    Raises `DTypeError` or `InputError` if it is of another mode, has transparent pixels, or carries an orientation that
    was not applied: its pixels may be meant as they are, or turned; `StoreError` if it comes from a file that cannot be
    decoded.
    """
    decode(picture, argument)
    if is_turned(picture):
        got = "one with an orientation in its EXIF that is not applied"
        remedy = "apply it with PIL.ImageOps.exif_transpose(picture), or drop it with picture.info.pop('exif')"
        raise InputError(argument, wanted="an upright picture", got=got, remedy=remedy)
    return _rgb(picture, argument)


def is_turned(picture: Any) -> bool:
    """Tell whether a Pillow picture in memory carries an orientation that was not applied."""
    return _orientation(picture.info.get("exif") or b"") > 1


def _rgb(picture: Any, argument: str) -> PIL.Image.Image:
    if picture.mode not in _PHOTOGRAPHS:
        got, remedy = f"one of mode {picture.mode}", _remedy(picture.mode)
        raise DTypeError(argument, wanted="a picture of 8 bits per channel", got=got, remedy=remedy)
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            remedy = "lay it on a background first: PIL.Image.alpha_composite"
            raise InputError(argument, wanted="an opaque picture", got="one with transparent pixels", remedy=remedy)
    found: PIL.Image.Image = picture if picture.mode == "RGB" else picture.convert("RGB")
    return found


def _check_photograph(head: Head, where: PathLike) -> None:
    if head.is_animated:
        raise store_error(where, "has several frames or pages", "save the one that is meant as a file of its own")
    if head.mode not in _PHOTOGRAPHS or head.bits > 8:
        kind = f"{head.mode} of {head.bits} bits per channel" if head.bits > 8 else f"mode {head.mode}"
        raise store_error(where, f"is in {kind}, and no photograph of 8 bits per channel", _remedy(head.mode))


def _remedy(mode: str) -> str:
    return "convert it to RGB" if mode in ("HSV", "LAB") else "scale it to 0..255 first"


def _upright(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    from PIL.Image import Transpose  # noqa: PLC0415 - only where pictures are read

    turns = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    return picture if orientation == 1 else picture.transpose(turns[orientation - 2])


# Decoding


def content_of(path: PathLike) -> bytes:
    """Return the bytes of a picture file, of at most `MAX_BYTES`."""
    return read_regular(path, MAX_BYTES)


def opened(content: bytes, where: PathLike) -> Any:
    """Return a picture that Pillow has opened and not decoded, or raise `StoreError`."""
    from PIL import Image  # noqa: PLC0415 - only where pictures are read

    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Exception as error:  # decoders raise what they see fit
        why = "no picture, or its head is damaged" if isinstance(error, OSError) else f"no picture ({error})"
        raise store_error(where, why, DAMAGED) from error
    image.info.pop("xmp", None)  # or Pillow would turn a TIFF by it, which viewers do not
    return image


def decode(image: Any, where: PathLike, head: Head | None = None) -> None:
    """Decode a picture that Pillow has opened; raise `StoreError` if it cannot, or is not of its head's size."""
    try:
        image.load()
    except Exception as error:  # decoders raise what they see fit
        raise store_error(where, f"truncated or damaged ({error})", DAMAGED) from error
    if head is not None:
        width, height = image.size
        wanted = head.size if head.format == "TIFF" else (head.height, head.width)  # Pillow turns those of TIFF
        if (height, width) != wanted:
            problem = f"damaged: its head says {wanted[0]}×{wanted[1]}, its pixels are {height}×{width}"
            raise store_error(where, problem, DAMAGED)
