"""Reading pictures: every kind of label map, beside Pillow and literal bytes; damaged files."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ccx.datasets.label_maps import Coding, label_map_size, read_broden_ids, read_ids, read_rgb_numbers, sampled
from ccx.errors import StoreError
from ccx.images import photograph_size, read_head, read_image
from ccx.kernels.png import Ids
from tests.support.picture_files import chunk, photo, png, write

PALETTE = bytes(range(256)) * 3


def numbers_of(ids: Ids | np.ndarray) -> np.ndarray:
    return ids.numbers() if isinstance(ids, Ids) else ids


@pytest.mark.parametrize(("bits", "palette"), [(1, None), (2, None), (4, None), (8, None), (16, None)])
def test_grey_label_maps(tmp_path: Path, bits: int, palette: None) -> None:
    numbers = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
    numbers[0, :2] = 0, 2**bits - 1
    np.testing.assert_array_equal(numbers_of(read_ids(write(tmp_path / "a.png", png(numbers, bits=bits)))), numbers)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_label_maps_give_their_indices(tmp_path: Path, bits: int) -> None:
    numbers = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
    path = write(tmp_path / "a.png", png(numbers, bits=bits, palette=PALETTE[: 3 * 2**bits]))
    np.testing.assert_array_equal(numbers_of(read_ids(path)), numbers)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    mode=st.sampled_from(["L", "P", "RGB", "RGBA", "I;16"]),
    seed=st.integers(0, 10**6),
)
def test_what_pillow_writes_is_read_as_pillow_reads_it(height: int, width: int, mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    smooth = np.cumsum(rng.integers(-2, 3, (height, width, n)), axis=1)  # so that Pillow uses all filters
    pixels = (smooth * 300).astype(np.uint16)[..., 0] if mode == "I;16" else smooth.astype(np.uint8)
    image = Image.fromarray(pixels if n > 1 or mode == "I;16" else pixels[..., 0], None if mode != "P" else "L")
    if mode == "P":
        image.putpalette(PALETTE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        image.save(path)
        with Image.open(path) as opened:
            read = np.asarray(opened)
        if n > 1:
            wanted = read[..., 0] + 256 * read[..., 1].astype(int)
            np.testing.assert_array_equal(numbers_of(read_broden_ids(path)), wanted)
            np.testing.assert_array_equal(read_rgb_numbers(path), wanted + 65_536 * read[..., 2].astype(int))
        else:
            np.testing.assert_array_equal(numbers_of(read_ids(path)), read)
        assert label_map_size(path, Coding.BYTES if n > 1 else Coding.IDS) == (height, width)


def test_interlaced_pictures_and_other_formats(tmp_path: Path) -> None:
    numbers = np.arange(48).reshape(6, 8)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 8, 0, 0, 0, 1))
    passes = []  # Adam7: first column, first row, and the distances of each pass
    for x, y, dx, dy in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:
        passes += [b"\0" + row.astype(np.uint8).tobytes() for row in numbers[y::dy, x::dx] if row.size]
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"".join(passes))) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(numbers_of(read_ids(write(tmp_path / "a.png", content))), numbers)
    for suffix in ("bmp", "tif"):
        Image.fromarray(numbers.astype(np.uint8)).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(numbers_of(read_ids(tmp_path / f"a.{suffix}")), numbers)
    Image.fromarray((numbers + 70_000).astype(np.int32)).save(tmp_path / "b.tif")
    assert (numbers_of(read_ids(tmp_path / "b.tif")) == numbers + 70_000).all()


def test_several_data_chunks(tmp_path: Path) -> None:
    whole = png(np.arange(64).reshape(8, 8))
    at = whole.index(b"IDAT")
    (n,) = struct.unpack(">I", whole[at - 4 : at])
    data = whole[at + 4 : at + 4 + n]
    text = chunk(b"tEXt", b"Comment\0IDAT IEND")
    content = whole[: at - 4] + text + chunk(b"IDAT", data[:5]) + chunk(b"IDAT", data[5:]) + whole[at + 8 + n :]
    np.testing.assert_array_equal(numbers_of(read_ids(write(tmp_path / "a.png", content))), np.arange(64).reshape(8, 8))


def test_every_truncation_of_a_png_is_told(tmp_path: Path) -> None:
    content = png(photo(5, 5))
    for end in range(len(content)):
        path = write(tmp_path / "a.png", content[:end])
        with pytest.raises(StoreError, match=r"a\.png: "):
            read_head(path)
        if end < len(content) - 16:  # without the last chunk, all pixels are there
            with pytest.raises(StoreError, match=r"a\.png: "):
                read_broden_ids(path)


def test_every_flipped_byte_of_a_png_is_told_or_harmless(tmp_path: Path) -> None:
    pixels = photo(4, 4)
    content = png(pixels)
    at = content.index(b"IDAT")
    for position in range(at + 4, len(content) - 12):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        with pytest.raises(StoreError, match=r"a\.png: (damaged|truncated)"):
            read_broden_ids(write(tmp_path / "a.png", bytes(damaged)))


def test_what_a_first_look_refuses_is_not_read(tmp_path: Path) -> None:
    content = png(np.arange(12).reshape(3, 4))
    for position in range(len(content)):
        for value in (0, 1, 255, content[position] ^ 0x20):
            damaged = bytearray(content)
            damaged[position] = value
            path = write(tmp_path / "a.png", bytes(damaged))
            try:
                label_map_size(path, Coding.IDS)
            except StoreError:
                with pytest.raises(StoreError):
                    read_ids(path)


def test_damage_that_checksums_do_not_show(tmp_path: Path) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0))

    def file(inflated: bytes) -> Path:
        parts = [b"\x89PNG\r\n\x1a\n", head, chunk(b"IDAT", zlib.compress(inflated)), chunk(b"IEND", b"")]
        return write(tmp_path / "a.png", b"".join(parts))

    assert numbers_of(read_ids(file(b"\0abc\0def")))[1, 2] == ord("f")
    with pytest.raises(StoreError, match="an unknown filter"):
        read_ids(file(b"\0abc\7def"))
    with pytest.raises(StoreError, match="truncated or damaged: 7 of 8 bytes"):
        read_ids(file(b"\0abc\0de"))
    with pytest.raises(StoreError, match="truncated or damaged: more of 8 bytes"):
        read_ids(file(b"\0abc\0def" * 1000))


def test_jpegs(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(40, 60)).save(path)
    content = path.read_bytes()
    assert photograph_size(path) == (40, 60)
    assert read_image(path).shape == (40, 60, 3)
    write(path, content + b"\0" * 2000)  # padded, and whole: found by decoding it
    assert photograph_size(path) == (40, 60)
    write(path, content[:3] + b"\xfe" + struct.pack(">H", 5002) + b"c" * 5000 + content[2:])  # a long comment
    assert photograph_size(path) == (40, 60)
    write(path, content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"a\.jpg: truncated or damaged"):
        read_head(path)
    with pytest.raises(StoreError, match=r"a\.jpg: truncated or damaged"):
        read_image(path)


def test_labels_in_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.png: is in RGB, which has no ids; give label maps of one id per pixel"):
        read_ids(write(tmp_path / "a.png", png(photo(3, 3))))
    with pytest.raises(StoreError, match="it is PNG in RGB of 16 bits"):
        read_rgb_numbers(write(tmp_path / "b.png", png(photo(3, 3).astype(int) * 257, bits=16)))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    for read in (read_head, read_ids, read_image, read_broden_ids, read_rgb_numbers):
        with pytest.raises(StoreError, match=r"no\.png: cannot read it \(No such file or directory\)"):
            read(tmp_path / "no.png")
        with pytest.raises(StoreError, match="cannot read it"):
            read(tmp_path)
        with pytest.raises(StoreError, match=r"a\.png: no picture"):
            read(write(tmp_path / "a.png", "no picture at all"))
    with pytest.raises(StoreError, match=r"a\.png: no picture"):
        read_head(write(tmp_path / "a.png", b"\x89PNG\r\n\x1a\n"))


def test_sampling() -> None:
    pixels = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(sampled(pixels, (2, 3)), pixels[[1, 3]][:, [1, 3, 5]])
    assert sampled(pixels, None) is pixels


def test_a_picture_in_memory_is_what_the_helper_writes() -> None:
    """The test's own PNG writer agrees with Pillow."""
    pixels = photo(5, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)
