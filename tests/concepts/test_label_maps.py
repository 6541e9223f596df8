"""Label maps of every kind: ids, colours, arrays; what would change ids is refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ccx.cli.data_specs import open_data
from ccx.datasets import Folder, Pairs
from ccx.errors import FilesError, InputError, StoreError
from tests.support.picture_files import chunk, photo, png, write

IDS = np.array([[1, 2, 3, 1], [3, 0, 2, 2]])
NAMES = ["sky", "sea", "sand"]
COLORS = {"sky": (70, 130, 180), "sea": (0, 0, 255), "sand": (230, 215, 70)}
TABLE = np.array([(0, 0, 0), *COLORS.values()], np.uint8)


def folder(root: Path, labels: Any, suffix: str = "png", *, names: Any = NAMES, **options: Any) -> Folder:
    """Return a folder of one image and one label map: bytes, a picture, or an array."""
    path = root / f"l/a.{suffix}"
    if isinstance(labels, bytes):
        write(path, labels)
        size = (2, 4)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        save = options.pop("save", {})
        labels.save(path, **save) if isinstance(labels, Image.Image) else np.save(path, labels)
        size = labels.size[::-1] if isinstance(labels, Image.Image) else np.maximum(labels.shape[:2], 1)
    write(root / "i/a.png", png(photo(*size)))
    return Folder(root / "i", root / "l", names, **options)


def refused(data: Folder, problem: str, *, is_seen_at_once: bool = True) -> None:
    """See that everything that looks at the labels says what is wrong."""
    for read in (data.labels, data.present, data.valid):
        with pytest.raises(StoreError, match=problem):
            read(0)
    with pytest.raises(FilesError, match=problem):
        data.concepts(workers=1, progress=False)
    assert bool(data.check(workers=1)) == is_seen_at_once


@pytest.mark.states("Label maps", "grey or palette pictures of 1 to 16 bits (PNG, TIFF, BMP, GIF)", "accepted",
                    "a pixel's number is its id")  # fmt: skip
def test_lossless_pictures_keep_ids(tmp_path: Path) -> None:
    grey = Image.fromarray(IDS.astype(np.uint8))
    palette = grey.copy()
    palette.putpalette(bytes(range(256)) * 3)
    for n, (image, suffix) in enumerate(
        [(grey, "png"), (grey, "tif"), (grey, "bmp"), (grey, "gif"), (palette, "png"), (palette, "gif"),
         (palette, "bmp"),
         (Image.fromarray(IDS.astype(np.uint16)), "tif"), (Image.fromarray(IDS.astype(np.int32)), "tif"), (grey, "pgm")]
    ):  # fmt: skip
        np.testing.assert_array_equal(folder(tmp_path / str(n), image, suffix).labels(0), IDS[None])
    for n, transparency in enumerate((1, bytes([0, 255, 7, 255]))):  # tells nothing of ids
        image = Image.fromarray(IDS.astype(np.uint8))
        image.putpalette(bytes(range(256)) * 3)
        data = folder(tmp_path / f"t{n}", image, save={"transparency": transparency})
        np.testing.assert_array_equal(data.labels(0), IDS[None])


def tiff(rows: bytes, bits: int, **tags: int) -> bytes:
    """Return an uncompressed grey TIFF of 2×4 pixels, byte by byte."""
    entries = {256: 4, 257: 2, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: len(rows)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    at = 8 + len(rows) + len(rows) % 2
    return (
        b"II*\0"
        + struct.pack("<I", at)
        + rows.ljust(at - 8, b"\0")
        + struct.pack("<H", len(entries))
        + table
        + bytes(4)
    )


def test_tiffs_of_every_width_keep_ids(tmp_path: Path) -> None:
    two = bytes(int("".join(f"{n:02b}" for n in row), 2) for row in IDS)
    four = b"".join(bytes([row[0] << 4 | row[1], row[2] << 4 | row[3]]) for row in IDS.tolist())
    for bits, rows in [(2, two), (4, four), (8, IDS.astype(np.uint8).tobytes()), (16, IDS.astype("<u2").tobytes()),
                       (32, IDS.astype("<u4").tobytes())]:  # fmt: skip
        np.testing.assert_array_equal(folder(tmp_path / str(bits), tiff(rows, bits), "tif").labels(0), IDS[None])


@pytest.mark.states("Label maps", "JPEG, lossy WebP, JPEG in TIFF", "refused", "save them as PNG, from their source")
@pytest.mark.states("Label maps", "white stored as 0 (TIFF, PBM), or scaled by a greatest value (PGM)", "refused",
                    "save them as PNG")  # fmt: skip
def test_what_changes_ids_is_refused(tmp_path: Path) -> None:
    grey = Image.fromarray(np.kron(IDS, np.ones((8, 8), int)).astype(np.uint8))
    for n, (labels, suffix, problem) in enumerate([
        (grey, "jpg", "a JPEG, whose compression changes ids; save label maps as PNG, from their source"),
        (grey.convert("RGB"), "jpg", "a JPEG, whose compression changes ids"),
        (grey, "webp", "a lossy WebP, whose compression changes ids"),
        (tiff(IDS.astype(np.uint8).tobytes(), 8, t262=0), "tif", "stores white as 0"),
        (tiff(b"\x50\xa0", 1, t262=0), "tif", "stores white as 0"),
        (b"P4 4 2\n\x50\xa0", "ppm", "stores black as 1"),
        (b"P5 4 2 40\n" + IDS.astype(np.uint8).tobytes(), "pgm", "has a greatest value of 40"),
    ]):  # fmt: skip
        refused(folder(tmp_path / str(n), labels, suffix), problem)
    pages = io.BytesIO()
    grey.save(pages, "TIFF", compression="jpeg")
    refused(folder(tmp_path / "j", pages.getvalue(), "tif"), "TIFF in compression 7, whose compression changes ids")
    write(tmp_path / "x/l/a.png", (tmp_path / "0/l/a.jpg").read_bytes())  # whatever it is called
    write(tmp_path / "x/i/a.png", png(photo(16, 32)))
    refused(Folder(tmp_path / "x/i", tmp_path / "x/l", NAMES), "is a JPEG")


@pytest.mark.states("Label maps", "an orientation in EXIF", "refused",
                    "turn them as they are meant, and save them without the tag")  # fmt: skip
def test_label_maps_with_an_orientation_are_refused(tmp_path: Path) -> None:
    content = png(IDS)
    block = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 3, 0, 0)
    tagged = content[:33] + chunk(b"eXIf", block) + content[33:]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = 6
    grey = Image.fromarray(IDS.astype(np.uint8))
    for n, data in enumerate(
        [folder(tmp_path / "a", tagged), folder(tmp_path / "b", grey, "tif", save={"tiffinfo": tags})]
    ):
        refused(data, rf"a label map with an orientation \({(3, 6)[n]}\) in its EXIF; turn it as it is meant")
    upright = block.replace(b"\0\x01\0\x03\0\0", b"\0\x01\0\x01\0\0")
    plain = folder(tmp_path / "c", content[:33] + chunk(b"eXIf", upright) + content[33:])
    np.testing.assert_array_equal(plain.labels(0), IDS[None])


@pytest.mark.states("Label maps", "several frames or pages", "refused", "save the one that is meant as a file")
@pytest.mark.states("Label maps", "colours, without palette=", "refused", "say with palette= what they mean")
@pytest.mark.states("Label maps", "floats, alpha channels", "refused", "give one whole number per pixel")
def test_what_has_no_ids_is_refused(tmp_path: Path) -> None:
    grey = Image.fromarray(IDS.astype(np.uint8))
    for n, (labels, options, problem) in enumerate([
        (grey.convert("RGB"), {}, "is in RGB, which has no ids; .* say with palette= what its colours mean"),
        (grey.convert("LA"), {}, "is in LA, which has no ids"),
        (grey, {"save_all": True, "append_images": [grey.rotate(180)]}, "has several frames"),
    ]):  # fmt: skip
        refused(folder(tmp_path / str(n), labels, save=options), problem)
    refused(
        folder(tmp_path / "f", Image.fromarray(IDS.astype(np.float32)), "tif"), "is in F of 32 bits, which has no ids"
    )


@pytest.mark.states("Label maps", "whole numbers [h, w] in .npy files", "accepted", "an entry is an id")
@pytest.mark.states("Label maps", "the ignore index -1 (or -100, 65535), in .npy files, TIFF and pairs", "accepted",
                    "say void=-1")  # fmt: skip
@pytest.mark.parametrize("void", [-1, -100, 65_535, -(2**31)])
def test_arrays_and_ignore_indices(tmp_path: Path, void: int) -> None:
    labels = np.where(IDS == 3, void, IDS)
    wanted = np.where(IDS == 3, 0, IDS)
    for n, array in enumerate((labels, np.asfortranarray(labels.astype(">i8")))):
        data = folder(tmp_path / str(n), array, "npy", void=void)
        assert data.check(workers=1) == ()
        np.testing.assert_array_equal(data.labels(0), wanted[None])
        np.testing.assert_array_equal(data.valid(0), IDS != 3)
        assert data.concepts(workers=1, progress=False).n_cells == 6
        unknown = folder(tmp_path / f"u{n}", array, "npy")
        refused(unknown, rf"holds ids without a name: {void} .*say void={void} ", is_seen_at_once=False)
    signed = folder(tmp_path / "t", Image.fromarray(labels.astype(np.int32)), "tif", void=void)
    np.testing.assert_array_equal(signed.labels(0), wanted[None])
    np.testing.assert_array_equal(signed.valid(0), IDS != 3)
    pairs = Pairs([(photo(2, 4), labels)], NAMES, void=void)
    np.testing.assert_array_equal(pairs.labels(0), wanted[None])
    np.testing.assert_array_equal(pairs.valid(0, (1, 2)), (IDS != 3)[1:, [1, 3]])


def test_numbers_that_no_id_has_are_no_other_ids(tmp_path: Path) -> None:
    for n, number in enumerate((65_535, 65_536, 65_537, 2**32 + 1, -65_535)):
        data = folder(tmp_path / str(n), np.where(IDS == 3, number, IDS), "npy", void=255)
        refused(data, f"holds ids without a name: {number} ", is_seen_at_once=False)
    bits = folder(tmp_path / "b", IDS > 2, "npy", names=["sand"])
    np.testing.assert_array_equal(bits.labels(0), (IDS > 2)[None])


@pytest.mark.states("Label maps", ".npy files of floats, objects, other shapes, or cut short", "refused",
                    "save whole numbers [h, w] with numpy.save")  # fmt: skip
def test_arrays_that_are_no_label_maps(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, IDS)
    for n, (labels, problem) in enumerate([
        (IDS / 2, r"holds float64\[2, 4\], no label map; save whole numbers"),
        (IDS[None], r"holds int64\[1, 2, 4\]"),
        (IDS[:0], r"has no pixels \(0×4\)"),
        (file.getvalue()[:-1], r"truncated or damaged: 63 bytes for int64\[2, 4\]"),
        (file.getvalue() + b"\0", "truncated or damaged: 65 bytes"),
        (file.getvalue().replace(b"(2, 4)", b"(9e9,)"), r"its head is damaged"),
        (file.getvalue().replace(b"(2, 4), ", b"(99999, 99999), "), "has 99999×99999 pixels, more than"),
        (b"no array", "no .npy file"),
        (b"", "no .npy file"),
    ]):  # fmt: skip
        data = folder(tmp_path / str(n), labels, "npy")
        with pytest.raises(StoreError, match=problem):
            data.labels(0)
        assert any("a.npy" in found for found in data.check(workers=1))
    objects = tmp_path / "o/l/a.npy"
    objects.parent.mkdir(parents=True)
    np.save(objects, np.array([[object()]]), allow_pickle=True)
    write(tmp_path / "o/i/a.png", png(photo(1, 1)))
    refused(Folder(tmp_path / "o/i", tmp_path / "o/l", NAMES), "holds Python objects")


@pytest.mark.states("Label maps", "colours, with palette= (a mapping, a list, a .csv of name, r, g, b)", "converted",
                    "a colour is the id or name that the palette gives it; any other colour is an error")  # fmt: skip
def test_palettes(tmp_path: Path) -> None:
    picture = Image.fromarray(TABLE[IDS])
    listed = write(
        tmp_path / "colors.csv", "name,R,G,B\n" + "".join(f"{n},{r},{g},{b}\n" for n, (r, g, b) in COLORS.items())
    )
    by_id = write(tmp_path / "ids.csv", "id,r,g,b\n0,0,0,0\n1,70,130,180\n2,0,0,255\n3,230,215,70\n")
    black = {0: (0, 0, 0)}
    for n, palette in enumerate(
        ({**COLORS, **black}, {1: (70, 130, 180), 2: (0, 0, 255), 3: (230, 215, 70), **black}, by_id)
    ):
        for suffix, image in (("png", picture), ("png", picture.convert("RGBA")), ("webp", picture), ("bmp", picture)):
            save = {"lossless": True} if suffix == "webp" else {}
            root = tmp_path / f"{n}{suffix}{image.mode}"
            data = folder(root, image, suffix, palette=palette, save=save)
            assert data.check(workers=1) == ()
            np.testing.assert_array_equal(data.labels(0), IDS[None])
            np.testing.assert_array_equal(data.labels(0, (1, 2)), IDS[None, 1:, [1, 3]])
    full = np.where(IDS == 0, 1, IDS)
    for n, palette in enumerate((list(COLORS.values()), listed, np.array(list(COLORS.values())))):
        data = folder(tmp_path / f"l{n}", Image.fromarray(TABLE[full]).quantize(), palette=palette)
        np.testing.assert_array_equal(data.labels(0), full[None])
    void = folder(tmp_path / "v", picture, palette={**COLORS, 255: (0, 0, 0)}, void=255)
    np.testing.assert_array_equal(void.valid(0), IDS != 0)
    spec = f"folder:{tmp_path}/v/i,{tmp_path}/v/l,{write(tmp_path / 'names.txt', chr(10).join(NAMES))},palette={by_id}"
    np.testing.assert_array_equal(open_data(spec).labels(0), IDS[None])
    assert void.concepts(workers=1, progress=False, out=tmp_path / "v.ccx").n_cells == 7
    other = folder(tmp_path / "v", picture, palette={**COLORS, 255: (0, 0, 0), 254: (1, 1, 1)}, void=255)
    with pytest.raises(StoreError, match="was made from something else: palette"):
        other.concepts(workers=1, progress=False, out=tmp_path / "v.ccx")
    array = folder(tmp_path / "a", IDS, "npy", palette=COLORS)  # which has ids already
    np.testing.assert_array_equal(array.labels(0), IDS[None])


def test_colours_that_a_palette_does_not_hold(tmp_path: Path) -> None:
    picture = Image.fromarray(TABLE[IDS])
    refused(folder(tmp_path / "a", picture, palette=COLORS), r"holds colours that the palette does not: \(0, 0, 0\)",
            is_seen_at_once=False)  # fmt: skip
    refused(folder(tmp_path / "b", picture, "jpg", palette=COLORS), "is a JPEG, whose compression changes ids")
    refused(folder(tmp_path / "c", picture, "webp", palette=COLORS), "is a lossy WebP")
    deep = png(TABLE[IDS].astype(int) * 257, bits=16)
    refused(
        folder(tmp_path / "d", deep, palette=COLORS),
        "is in RGB of 16 bits, which has no colours; save label maps as PNG",
    )
    clear = picture.convert("RGBA")
    clear.putpixel((0, 0), (70, 130, 180, 0))
    refused(folder(tmp_path / "e", clear, palette=COLORS), "transparent pixels", is_seen_at_once=False)


@pytest.mark.states(
    "Label maps", 'ADE20K\'s colours, with palette="ade20k"', "converted", "the id is R // 10 * 256 + G"
)
def test_the_coding_of_ade20k(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 257, 2977], [3055, 256, 255, 1]])
    pixels = np.stack([ids // 256 * 10, ids % 256, np.arange(8).reshape(2, 4) * 31], axis=2).astype(np.uint8)
    names = {int(number): f"n{number}" for number in np.unique(ids) if number}
    data = folder(tmp_path, Image.fromarray(pixels), names=names, palette="ade20k")
    assert data.present(0) == tuple(names.values())
    order = [0, *names]
    np.testing.assert_array_equal(data.labels(0), np.vectorize(order.index)(ids)[None])


@pytest.mark.parametrize(
    ("palette", "problem"),
    [
        ({"sky": (1, 2, 3), "see": (2, 3, 4)}, "palette: expected names that are known, got 'see'"),
        ({"sky": (1, 2, 3)}, r"palette: expected a colour for each name, got none for \['sea', 'sand'\]"),
        ({**COLORS, "sea": COLORS["sky"]}, r"palette: expected one id per colour, got \(70, 130, 180\) for 1 and 2"),
        ({**COLORS, "sea": (1, 2, 256)}, r"palette: expected colours \(R, G, B\) from 0 to 255, got \(1, 2, 256\)"),
        ({**COLORS, "sea": 3}, "palette: expected colours"),
        ({**COLORS, 1.5: (0, 0, 0)}, "palette: expected names or ids as keys, got 1.5"),
        ([(1, 2, 3)], "got 1 colours of 3 names"),
        (7, "palette: expected colours"),
    ],
)
def test_palettes_that_are_none(tmp_path: Path, palette: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        folder(tmp_path, Image.fromarray(TABLE[IDS]), palette=palette)
