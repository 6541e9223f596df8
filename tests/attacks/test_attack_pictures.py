"""Attack by picture files: made in every mode and format, and mutated; all readers agree on size and verdict."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccx.datasets.label_maps import Coding, label_map_size, read_broden_ids, read_colors, read_ids, read_rgb_numbers
from ccx.errors import CCXError, StoreError
from ccx.images import open_image, photograph_size, read_image
from ccx.models import Preprocessing
from ccx.report.drawing import check_photo, photo, pixels_of
from tests.support.fuzzing import attack, attempts
from tests.support.picture_files import png

FORMATS = {
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "GIF": ["1", "L", "P", "RGB"],
    "JPEG": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "PPM": ["1", "L", "RGB", "I"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"],
    "WEBP": ["L", "RGB", "RGBA"],
}
SUFFIXES = ("png", "jpg", "tif", "webp", "bmp", "gif", "ppm", "pgm", "npy")
TURNS = [None, lambda p: p, lambda p: p[:, ::-1], lambda p: p[::-1, ::-1], lambda p: p[::-1],
         lambda p: p.swapaxes(0, 1), lambda p: np.rot90(p, 3), lambda p: p[::-1, ::-1].swapaxes(0, 1),
         lambda p: np.rot90(p, 1)]  # fmt: skip
HAS_TORCH = importlib.util.find_spec("torch") is not None
if HAS_TORCH:
    importlib.import_module("torch")  # here, so that the first input need not wait for it


def picture(rng: np.random.Generator, kind: str, mode: str) -> Image.Image:
    height, width = rng.integers(1, 30, 2)
    noise = rng.integers(0, 256, (height, width, 4)).astype(np.uint8)
    if rng.random() < 0.5:
        noise[..., 3] = 255
    if mode in ("I;16", "I", "F"):
        numbers = rng.integers(-3 if mode == "I" and kind == "TIFF" else 0, 65_536, (height, width))
        return Image.fromarray(numbers.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    if mode in ("RGBX", "LAB", "CMYK", "YCbCr"):
        n = {"RGBX": 4, "CMYK": 4}.get(mode, 3)
        return Image.frombytes(mode, (int(width), int(height)), noise[..., :n].tobytes())
    return Image.fromarray(noise, "RGBA").convert(mode)


def made(rng: np.random.Generator) -> tuple[bytes, np.ndarray | None]:
    """Return a picture file, and its pixels where it is a plain photograph that keeps them."""
    if rng.random() < 0.15:
        bits = int(rng.choice([1, 2, 4, 8, 16]))
        numbers = rng.integers(0, 2**bits, tuple(rng.integers(1, 20, 2)))
        palette = bytes(3 << bits) if bits < 16 and rng.random() < 0.5 else None
        return png(numbers, bits=bits, palette=palette), None
    kind = str(rng.choice(list(FORMATS)))
    mode = str(rng.choice(FORMATS[kind]))
    image = picture(rng, kind, mode)
    options: dict[str, object] = {}
    orientation = int(rng.integers(0, 10)) if rng.random() < 0.4 and kind in ("JPEG", "PNG", "TIFF", "WEBP") else 1
    if kind == "TIFF":
        orientation = min(max(orientation, 1), 8)
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind in ("GIF", "PNG", "TIFF", "WEBP") and rng.random() < 0.1:
        options |= {"save_all": True, "append_images": [picture(rng, kind, mode).resize(image.size)]}
    if kind == "WEBP":
        options["lossless"] = bool(rng.random() < 0.5)
    elif kind == "JPEG":
        options["progressive"] = bool(rng.random() < 0.5)
    elif kind == "TIFF" and mode in ("L", "RGB"):
        options["compression"] = str(rng.choice(["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd"]))
    elif kind in ("PNG", "GIF") and mode in ("P", "L") and len(options) == 0 and rng.random() < 0.2:
        options["transparency"] = int(rng.integers(0, 256))
    file = io.BytesIO()
    image.save(file, kind, **options)
    plain = kind in ("PNG", "BMP", "PPM") and mode == "RGB" and "save_all" not in options
    turn = TURNS[orientation] if 1 <= orientation <= 8 else TURNS[1]
    return file.getvalue(), turn(np.asarray(image)) if plain else None


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    found = bytearray(content)
    n = len(found)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, max(1, min(n, 64) if rng.random() < 0.5 else n)))
        match rng.integers(0, 8):
            case 0:
                found[at : at + 1] = rng.bytes(1)
            case 1:
                found[at : at + 4] = rng.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"]
                )
            case 2:
                del found[at:]
            case 3:
                del found[at : at + int(rng.integers(1, 9))]
            case 4:
                found[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 5:
                found += rng.bytes(int(rng.integers(1, 3000)))
            case 6:
                other = made(rng)[0]
                found[at:] = other[min(at, len(other)) :]
            case _:
                if found[12:16] == b"IHDR":  # a head that its checksum confirms
                    place = int(rng.integers(16, 29))
                    sides = (0, 1, 2**16, 2**31 - 1, 2**32 - 1)
                    if place < 24:
                        found[place // 4 * 4 : place // 4 * 4 + 4] = struct.pack(">I", int(rng.choice(sides)))
                    else:
                        found[place] = int(rng.integers(0, 17))
                    found[29:33] = struct.pack(">I", zlib.crc32(found[12:29]))
    return bytes(found)


def no_file(rng: np.random.Generator, path: Path) -> None:
    match rng.integers(0, 4):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("/dev/zero")
        case _:
            path.symlink_to(path)


def verdict(read, *arguments):
    """Return what was read, None if it was refused."""
    try:
        return read(*arguments)
    except StoreError:
        return None


def attempt(rng: np.random.Generator, folder: Path) -> str:
    path = folder / f"a.{rng.choice(SUFFIXES)}"
    if rng.random() < 0.02:
        no_file(rng, path)
        return check(path, None)
    content, pixels = made(rng)
    if rng.random() < 0.75:
        content, pixels = mutated(rng, content), None
    if path.suffix == ".npy" and rng.random() < 0.8:
        file = io.BytesIO()
        np.save(file, rng.integers(-1, 300, tuple(rng.integers(0, 9, int(rng.integers(1, 4))))))
        content, pixels = file.getvalue() if rng.random() < 0.3 else mutated(rng, file.getvalue()), None
    path.write_bytes(content)
    return check(path, pixels)


def check(path: Path, pixels: np.ndarray | None) -> str:
    ends = {photograph(path, pixels)}
    for read, coding in (
        (read_ids, Coding.IDS),
        (read_colors, Coding.COLORS),
        (read_broden_ids, Coding.BYTES),
        (read_rgb_numbers, Coding.BYTES),
    ):
        if path.suffix == ".npy" and read is not read_ids:
            continue
        found, size = verdict(read, path), verdict(label_map_size, path, coding)
        assert size is not None or found is None, f"{read.__name__}: the head is refused, the content read"
        assert found is None or found.shape[:2] == size, f"{read.__name__}: {found.shape}, head {size}"
        ends.add(found is not None)
        if found is not None and hasattr(found, "numbers"):
            assert found.numbers().shape == size
    return "read" if True in ends else "refused"


def photograph(path: Path, pixels: np.ndarray | None) -> bool:
    """Tell whether a file is a photograph, for all who look at it."""
    found, size = verdict(read_image, path), verdict(photograph_size, path)
    shown, small = verdict(pixels_of, path, "a"), verdict(photo, path, 7, "a")
    assert (found is None) == (shown is None) == (small is None), "report and data set disagree"
    assert size is not None or found is None, "the head is refused, the content read"
    prepared = None
    if HAS_TORCH:
        prepare = Preprocessing(size or 4, mean=(0, 0, 0), std=(1, 1, 1))
        prepared = verdict(prepare, path)
        assert (prepared is None) == (found is None), "preprocessing and data set disagree"
    if found is None:
        assert pixels is None, "a sound photograph is refused"
        return False
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8
    check_photo(path, "a")
    np.testing.assert_array_equal(shown, found)
    np.testing.assert_array_equal(np.asarray(open_image(path.read_bytes())), found)
    assert small.aspect == size[1] / size[0]
    if prepared is not None:
        np.testing.assert_array_equal((prepared.numpy() * 255).round().transpose(1, 2, 0), found)
    if pixels is not None:
        np.testing.assert_array_equal(found, pixels)
    return True


def test_pictures_are_read_alike_or_refused() -> None:
    # A file of 100 bytes may hold as many pixels as Pillow allows, and is read ten times.
    attack(attempt, attempts(nightly=10_000, quick=60), seconds=60).check("read", "refused")


def test_what_is_no_picture_raises_errors_of_ccx_alone(tmp_path: Path) -> None:
    for read in (read_image, photograph_size, read_ids, read_colors, read_broden_ids):
        for path in (tmp_path / "a\0.png", tmp_path / "\ud800.png", tmp_path / ("a" * 300 + ".png")):
            with pytest.raises(CCXError):
                read(path)
