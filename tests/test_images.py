"""The one reader of pictures: photographs of every kind, upright, refused or converted alike for all who look."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ccx.cli import input_files as files
from ccx.datasets import Folder, Pairs
from ccx.errors import CCXError, DTypeError, FilesError, InputError, StoreError
from ccx.images import open_image, photograph_size, read_head, read_image, rgb
from ccx.models import Preprocessing
from ccx.report.drawing import photo, pixels_of
from tests.support.picture_files import chunk, png, write
from tests.support.picture_files import photo as pixels_like_a_photo

# What viewers show of stored pixels, for the orientations 1 to 8 of EXIF (CIPA DC-008, tag 274)
SHOWN = [
    lambda p: p,
    lambda p: p[:, ::-1],
    lambda p: p[::-1, ::-1],
    lambda p: p[::-1],
    lambda p: p.swapaxes(0, 1),
    lambda p: np.rot90(p, -1),
    lambda p: p[::-1, ::-1].swapaxes(0, 1),
    np.rot90,
]


JPEG = b"Exif\0\0"  # what stands before such a block in JPEG


def exif(orientation: int, order: str = "<") -> bytes:
    """Return a block of EXIF, byte by byte."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.states("Photographs", "an orientation in EXIF (JPEG, PNG, TIFF, WebP)", "converted",
                    "turned upright, as every viewer does")  # fmt: skip
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_photographs_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.kron(pixels_like_a_photo(2, 3, 5), np.ones((16, 16, 1), np.uint8))
    options: dict[str, object] = {"lossless": True} if suffix == "webp" else {}
    if suffix == "tif":
        options["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
        options["tiffinfo"][274] = orientation  # type: ignore[index]
    elif suffix == "jpg":
        options |= {"exif": JPEG + exif(orientation, ">"), "quality": 98, "subsampling": 0}
    else:
        options["exif"] = exif(orientation, "<>"[orientation % 2])
    path = save(Image.fromarray(stored), tmp_path / f"a.{suffix}", **options)
    wanted = SHOWN[orientation - 1](stored)
    found = read_image(path)
    assert photograph_size(path) == found.shape[:2] == wanted.shape[:2]
    np.testing.assert_allclose(found.astype(int), wanted, atol=24 if suffix == "jpg" else 0)
    assert read_head(path).format == {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    assert (read_head(path).height, read_head(path).width) == stored.shape[:2]


def test_an_orientation_behind_the_pixels_and_one_that_is_none(tmp_path: Path) -> None:
    pixels = pixels_like_a_photo(40, 60)  # more than what a first look reads
    content = png(pixels)
    tag = chunk(b"eXIf", exif(6))
    for file in (content[:33] + tag + content[33:], content[:-12] + tag + content[-12:]):
        path = write(tmp_path / "a.png", file + b"behind the end")
        assert photograph_size(path) == (60, 40)
        np.testing.assert_array_equal(read_image(path), np.rot90(pixels, -1))
    for block in (exif(0), exif(9), exif(3)[:9], b"", b"Exif\0\0", b"II*\0\xff\xff\xff\xff", b"MM" + exif(6)[2:]):
        path = write(tmp_path / "a.png", content[:33] + chunk(b"eXIf", block) + content[33:])
        np.testing.assert_array_equal(read_image(path), pixels)
        jpeg = save(Image.fromarray(pixels), tmp_path / "a.jpg", exif=JPEG + block.removeprefix(JPEG))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # of Pillow
            assert photograph_size(jpeg) == read_image(jpeg).shape[:2] == (40, 60)


def test_a_photograph_stored_sideways_meets_its_upright_labels(tmp_path: Path) -> None:
    """labelme#1529: label maps are drawn on what viewers show."""
    shown = np.zeros((40, 60, 3), np.uint8)
    shown[:20], shown[20:] = (220, 30, 30), (40, 70, 140)
    labels = np.where(np.arange(40)[:, None] < 20, 1, 2) * np.ones((1, 60), int)
    for name in ("i", "l"):
        (tmp_path / name).mkdir()
    for n, (orientation, stored) in enumerate(
        [(1, shown), (3, shown[::-1, ::-1]), (6, np.rot90(shown)), (8, np.rot90(shown, -1))]
    ):
        stored = np.ascontiguousarray(stored)
        save(Image.fromarray(stored), tmp_path / f"i/{n}.jpg", exif=JPEG + exif(orientation), quality=95)
        write(tmp_path / f"l/{n}.png", png(labels))
    data = Folder(tmp_path / "i", tmp_path / "l", ["sky", "sea"]).with_colors()
    assert data.check(workers=1) == ()
    concepts = data.concepts((8, 8), workers=1, progress=False)
    assert concepts.count("(sky AND red)") == concepts.count("sky")
    assert concepts.count("(sea AND blue)") == concepts.count("sea")
    lying = save(Image.fromarray(shown), tmp_path / "i/0.jpg", exif=JPEG + exif(6))
    assert photograph_size(lying) == (60, 40)
    with pytest.raises(FilesError, match=r"0\.png: 40×60 pixels, its image .*0\.jpg has 60×40"):
        data.concepts((8, 8), workers=1, progress=False)


@pytest.mark.states("Photographs", "grey, 1-bit, palette, YCbCr", "converted", "to RGB")
@pytest.mark.states("Photographs", "CMYK", "converted", "to RGB without a colour profile, as image loaders do")
@pytest.mark.states("Photographs", "an alpha channel that is opaque", "converted", "to RGB")
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "jpg"), ("L", "gif"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("RGBA", "webp"),
     ("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("RGBX", "tif"), ("L", "bmp"), ("L", "ppm")],
)  # fmt: skip
def test_modes_that_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(pixels_like_a_photo(6, 4)).convert(mode)
    path = save(image, tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as opened:
        np.testing.assert_array_equal(read_image(path), np.asarray(opened.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(rgb(image, "a")), np.asarray(image.convert("RGB")))


@pytest.mark.states("Photographs", "16-bit grey, or 16 bits per colour", "refused", "scale them to 8 bits first")
@pytest.mark.states("Photographs", "floats or 32 bits (TIFF)", "refused", "scale them to 8 bits first")
@pytest.mark.states("Photographs", "LAB, HSV", "refused", "convert them to RGB first")
def test_modes_that_are_refused(tmp_path: Path) -> None:
    deep = np.arange(24).reshape(4, 6) * 2000
    paths = [
        write(tmp_path / "a.png", png(deep, bits=16)),
        write(tmp_path / "b.png", png(np.stack([deep] * 3, axis=2), bits=16)),
        write(tmp_path / "c.png", png(np.stack([deep] * 4, axis=2), bits=16)),
        save(Image.fromarray(deep.astype(np.uint16)), tmp_path / "d.tif"),
        save(Image.fromarray(deep.astype(np.float32)), tmp_path / "e.tif"),
        save(Image.fromarray(deep.astype(np.int32)), tmp_path / "f.tif"),
        save(Image.frombytes("LAB", (6, 4), bytes(72)), tmp_path / "g.tif"),
        write(tmp_path / "h.pgm", b"P5 6 4 65535\n" + deep.astype(">u2").tobytes()),
    ]
    for path in paths:
        for read in (read_image, photograph_size, pixels_of_file):
            with pytest.raises(
                StoreError, match=rf"{path.name}: is in .*no photograph of 8 bits per channel; (scale|conv)"
            ):
                read(path)
    for mode in ("I;16", "I", "F", "LAB", "HSV"):
        with pytest.raises(DTypeError, match="a: expected a picture of 8 bits per channel, got one of mode"):
            rgb(Image.new(mode, (4, 6)), "a")


def pixels_of_file(path: Path) -> np.ndarray:
    return pixels_of(path, "images[0]")


@pytest.mark.states("Photographs", "transparent pixels (alpha, palette, colour key)", "refused",
                    "lay them on a background first: what stands below is not what anybody sees")  # fmt: skip
def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    pixels = pixels_like_a_photo(4, 6)
    alpha = np.full((4, 6, 1), 255, np.uint8)
    alpha[1, 2] = 254
    with_alpha = Image.fromarray(np.concatenate([pixels, alpha], axis=2))
    palette = Image.fromarray(pixels[..., 0]).convert("P")
    paths = [
        save(with_alpha, tmp_path / "a.png"),
        save(with_alpha, tmp_path / "b.webp", lossless=True),
        save(with_alpha, tmp_path / "c.tif"),
        save(with_alpha.convert("LA"), tmp_path / "d.png"),
        save(palette, tmp_path / "e.png", transparency=int(pixels[0, 0, 0])),
        save(Image.fromarray(pixels), tmp_path / "f.png", transparency=tuple(pixels[2, 3].tolist())),
        save(palette, tmp_path / "g.gif", transparency=int(pixels[0, 0, 0])),
    ]
    for path in paths:
        for read in (read_image, pixels_of_file):
            with pytest.raises(
                StoreError, match=rf"{path.name}: is one with transparent pixels; lay it on a background"
            ):
                read(path)
    with pytest.raises(InputError, match=r"images\[0\]: expected an opaque picture"):
        pixels_of(np.asarray(with_alpha), "images[0]")
    unused = next(n for n in range(256) if n not in pixels[..., 0])
    palette_like = save(palette, tmp_path / "h.png", transparency=unused)  # no pixel has it
    np.testing.assert_array_equal(read_image(palette_like)[..., 0], np.asarray(palette.convert("RGB"))[..., 0])


@pytest.mark.states("Photographs", "several frames or pages", "refused", "save the one that is meant as a file")
@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(pixels_like_a_photo(8, 6, seed)) for seed in range(3)]
    path = save(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    for read in (read_image, photograph_size, pixels_of_file):
        with pytest.raises(StoreError, match="has several frames or pages; save the one that is meant"):
            read(path)


@pytest.mark.states("Photographs", "MPO, as cameras write it", "accepted", "the first picture is the photograph")
def test_of_mpo_the_first_picture_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 6, 3), level, np.uint8)) for level in (50, 200)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert abs(read_image(tmp_path / "a.jpg").astype(int) - 50).max() < 5


@pytest.mark.states("Photographs", "more pixels than Pillow's limit, or none", "refused",
                    "scale them down, or raise PIL.Image.MAX_IMAGE_PIXELS; nothing is decoded before")  # fmt: skip
@pytest.mark.parametrize(("width", "height"), [(2**32 - 1, 2**32 - 1), (2**31, 1), (0, 5), (5, 0), (9500, 9500)])
def test_sizes_are_limited_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    content = bytearray(png(pixels_like_a_photo(3, 3)))
    content[16:24] = struct.pack(">II", width, height)
    content[8:33] = chunk(b"IHDR", bytes(content[16:29]))
    path = write(tmp_path / "a.png", bytes(content))
    wide = save(Image.new("1", (1, 1)), tmp_path / "b.bmp").read_bytes()
    bmp = write(
        tmp_path / "b.bmp", wide[:18] + struct.pack("<ii", min(width, 2**31 - 1), min(height, 2**31 - 1)) + wide[26:]
    )
    for read in (read_image, photograph_size, pixels_of_file):
        for file in (path, bmp):
            with pytest.raises(StoreError, match=rf"{file.name}: (has|no picture)"):
                read(file)


@pytest.mark.states("Photographs", "pipes, devices, folders", "refused", "give regular files")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    (tmp_path / "c.png").mkdir()
    for name in "abc":
        for read in (read_image, photograph_size, pixels_of_file):
            with pytest.raises(StoreError, match=rf"{name}\.png: cannot read it \(no regular file\)"):
                read(tmp_path / f"{name}.png")


@pytest.mark.states("Photographs", "a Pillow picture with an orientation that was not applied", "refused",
                    "PIL.ImageOps.exif_transpose(picture), or drop it with picture.info.pop('exif')")  # fmt: skip
def test_pictures_in_memory_are_upright_or_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(pixels_like_a_photo(4, 6)).save(file, "PNG", exif=exif(6))
    with Image.open(file) as image:
        for picture in (image, image.convert("L"), image.resize((3, 3))):
            with pytest.raises(InputError, match=r"a: expected an upright picture, .* drop it with picture\.info\.pop"):
                rgb(picture, "a")
        with pytest.raises(StoreError, match="sample 0: the image is one with an orientation"):
            Pairs([(image, np.ones((4, 6), int))], ["sky"]).image(0)
        image.info.pop("exif")
        assert rgb(image, "a").size == (6, 4)
    assert open_image(file.getvalue()).size == (4, 6)


@pytest.mark.needs("torch")
def test_all_readers_show_the_same_picture(tmp_path: Path) -> None:
    """A data set, preprocessing, the report and ``--images`` of the command line."""
    stored = pixels_like_a_photo(4, 6)
    images = [
        (Image.fromarray(stored), "png", {"exif": exif(6)}),
        (Image.fromarray(stored), "jpg", {"exif": JPEG + exif(5), "quality": 90}),
        (Image.fromarray(stored).convert("CMYK"), "tif", {}),
        (Image.fromarray(stored).convert("P"), "gif", {}),
        (Image.fromarray(stored).convert("L"), "webp", {"lossless": True}),
    ]
    for name in ("i", "l"):
        (tmp_path / name).mkdir()
    for n, (image, suffix, options) in enumerate(images):
        path = save(image, tmp_path / f"i/{n}.{suffix}", **options)
        write(tmp_path / f"l/{n}.png", png(np.ones(photograph_size(path), int)))
    data = Folder(tmp_path / "i", tmp_path / "l", ["sky"])
    listed = files.read_images(str(tmp_path / "i"))
    assert data.check(workers=1) == ()
    for n, path in enumerate(listed):
        seen = data.image(n)
        np.testing.assert_array_equal(pixels_of(path, "images"), seen)
        prepare = Preprocessing(seen.shape[:2], mean=(0, 0, 0), std=(1, 1, 1))
        np.testing.assert_array_equal((prepare(path).numpy() * 255).round().transpose(1, 2, 0), seen)
        assert photo(path, 100, "images").aspect == seen.shape[1] / seen.shape[0]
    assert data.image(0).shape == (6, 4, 3)
    files.check_images(listed)
    write(listed[0], png(np.zeros((4, 6), int), bits=16))
    for read in (data.image, lambda n: pixels_of(listed[n], "images"), lambda n: Preprocessing(4)(listed[n]),
                 lambda _: files.check_images(listed)):  # fmt: skip
        with pytest.raises(CCXError, match=r"0\.png: is in L of 16 bits per channel"):
            read(0)


@pytest.mark.states("Pairs", "label maps of Pillow that come from a JPEG, or with an orientation in EXIF", "refused",
                    "save them as PNG, turned as they are meant")  # fmt: skip
def test_label_maps_in_memory_are_refused_like_their_files(tmp_path: Path) -> None:
    grey = Image.fromarray(np.ones((4, 6), np.uint8))
    jpeg, turned = save(grey, tmp_path / "a.jpg"), save(grey, tmp_path / "a.png", exif=exif(3))
    for path, problem in ((jpeg, "the label map is a JPEG"), (turned, "the label map has an orientation in its EXIF")):
        with Image.open(path) as labels, pytest.raises(StoreError, match=f"sample 0: {problem}"):
            Pairs([(np.zeros((4, 6, 3), np.uint8), labels)], ["sky"]).labels(0)
