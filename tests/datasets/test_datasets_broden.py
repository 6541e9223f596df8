"""Broden: a small folder in the published layout, written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccx.datasets import Broden
from ccx.errors import FilesError, InputError, StoreError
from tests.support.picture_files import BRODEN_HEAD, broden_png, photo, png, write, write_broden

OBJECTS = np.array([[0, 2, 2], [3, 300, 2]])
LEGS = np.array([[3, 0, 0], [3, 0, 0]])
TEXTURE = np.array([[5, 5, 5], [0, 0, 5]])
ROWS = """ade20k/a.png,train,4,6,2,3,,ade20k/a_o.png,ade20k/a_p1.png;ade20k/a_p2.png,,4,
dtd/b.png,val,4,6,2,3,1,,,,,dtd/b_t.png;5
ade20k/c.png,val,4,6,2,3,,,,,,
"""
MAPS = {
    "ade20k/a_o.png": OBJECTS,
    "ade20k/a_p1.png": LEGS,
    "ade20k/a_p2.png": 2 - LEGS // 2 * 2,
    "dtd/b_t.png": TEXTURE,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_broden(tmp_path, ROWS, MAPS)
    for seed, name in enumerate(("ade20k/a.png", "dtd/b.png", "ade20k/c.png")):
        write(tmp_path / "images" / name, png(photo(4, 6, seed)))
    return tmp_path


def test_the_whole_layout(root: Path) -> None:
    ds = Broden(root)
    # Numbers 1..5 and 300, in order. "wall" occurs twice: each has its primary category, where its coverage (c_*.csv,
    # not label.csv) is greatest: 2 in object (2.0 > 0.5), 3 in part (0.4 > 0.1).
    assert ds.names == ("black-c", "wall (object)", "leg", "street-s", "wall (texture)", "far")
    assert ds.categories == ("color", "object", "part", "scene", "texture", "object")
    assert ds.image_names == ("ade20k/a.png", "dtd/b.png")  # c has no label
    assert len(ds) == 2
    # Object, two layers of parts, and the scene as a number for the whole image; 300 is concept 6.
    np.testing.assert_array_equal(
        ds.labels(0), [[[0, 2, 2], [3, 6, 2]], LEGS, [[0, 2, 2], [0, 2, 2]], [[4, 4, 4], [4, 4, 4]]]
    )
    np.testing.assert_array_equal(ds.labels(1), [np.full((2, 3), 1), TEXTURE, np.full((2, 3), 5)])
    assert ds.labels(0).dtype == np.int32
    assert ds.valid(0).all()
    assert ds.present(0) == ("wall (object)", "leg", "street-s", "far")
    np.testing.assert_array_equal(ds.image(1), photo(4, 6, 1))
    np.testing.assert_array_equal(ds.images[0], photo(4, 6, 0))
    assert ds.check() == ()
    assert repr(ds) == "<Broden: 2 images, 6 names>"


def test_subsets_splits_and_categories(root: Path) -> None:
    assert Broden(root, "ade20k").image_names == ("ade20k/a.png",)
    assert Broden(root, "ade20k", unlabelled=True).image_names == ("ade20k/a.png", "ade20k/c.png")
    assert Broden(root, split="val").image_names == ("dtd/b.png",)
    assert Broden(root, categories=["object"]).image_names == ("ade20k/a.png",)
    assert Broden(root, categories=["object"]).labels(0).shape == (1, 2, 3)
    assert Broden(root, "ade20k", unlabelled=True).labels(1).shape == (0, 2, 3)
    with pytest.raises(InputError, match="images with 'pascal' in their path, got none of the 3"):
        Broden(root, "pascal")
    with pytest.raises(InputError, match=r"images with '.*c' in their path in split 'val', got 1, none with labels"):
        Broden(root, "ade20k/c", split="val")
    with pytest.raises(InputError, match=r"categories: expected some of .*, got \['thing'\]"):
        Broden(root, categories=["thing"])
    with pytest.raises(InputError, match="root: expected a folder, got nothing at"):
        Broden(root / "no")


def test_concepts_are_those_of_the_label_maps(root: Path) -> None:
    concepts = Broden(root).concepts(workers=1, progress=False)
    assert concepts.shape == (2, 3)
    assert concepts.categories == Broden(root).categories
    masks = {
        "black-c": [[[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]],
        "wall (object)": [[[0, 1, 1], [0, 1, 1]], [[0, 0, 0], [0, 0, 0]]],
        "leg": [[[1, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]]],
        "far": [[[0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]],
        "wall (texture)": [[[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]],
    }
    for name, mask in masks.items():
        np.testing.assert_array_equal(concepts.mask(f'"{name}"'), np.array(mask, bool), err_msg=name)


def test_an_image_without_labels_is_a_sample_without_concepts(root: Path) -> None:
    concepts = Broden(root, "ade20k", unlabelled=True).concepts(progress=False)
    assert concepts.n_cells == 12
    assert not concepts.mask('"street-s"')[1].any()


def test_taking_some_images_keeps_everything_aligned(root: Path) -> None:
    ds = Broden(root)
    for samples in ([1, 0], slice(None, None, -1), np.array([1, 0])):
        taken = ds.take(samples)
        assert taken.image_names == ("dtd/b.png", "ade20k/a.png")
        np.testing.assert_array_equal(taken.image(0), ds.image(1))
        np.testing.assert_array_equal(taken.labels(1), ds.labels(0))
        assert taken.concepts(progress=False).mask('"black-c"')[0].all()
    assert ds.take([True, False]).image_names == ("ade20k/a.png",)
    assert ds.image_names == ("ade20k/a.png", "dtd/b.png")
    with pytest.raises(InputError, match=r"samples: expected images 0\.\.1, got \[2\]"):
        ds.take([2])
    for index in (2, -3, "a", 0.5):
        with pytest.raises(InputError, match=r"index: expected 0\.\.1"):
            ds.image(index)


def test_every_problem_is_named_before_anything_is_read(root: Path) -> None:
    images = root / "images"
    (images / "ade20k/a.png").unlink()
    content = (images / "ade20k/a_o.png").read_bytes()
    write(images / "ade20k/a_o.png", content[:-1])
    write(images / "ade20k/a_p1.png", broden_png(np.zeros((3, 3), int)))
    write(images / "dtd/b_t.png", "")
    write(images / "dtd/b.png", "GIF or so")
    text = (root / "index.csv").read_text().replace("2,3,1,,,,,dtd/b_t.png;5", "2,3,99,,,,,dtd/b_t.png;5")
    write(root / "index.csv", text)
    ds = Broden(root)
    wanted = [
        r"a\.png: cannot read it \(No such file or directory\)",
        r"a_o\.png: truncated: its \d+ bytes do not end like a PNG",
        r"a_p1\.png: 3×3 pixels, index\.csv says 2×3",
        r"b\.png: no picture",
        r"index\.csv, image dtd/b\.png: label 99 is not in label\.csv",
        r"b_t\.png: empty",
    ]
    assert len(ds.check()) == len(wanted)
    with pytest.raises(FilesError) as caught:
        ds.concepts(progress=False, workers=1)
    import re

    assert len(caught.value.problems) == len(wanted)
    for pattern, problem in zip(wanted, caught.value.problems, strict=True):
        assert re.search(pattern, problem), (pattern, problem)
        assert problem in str(caught.value)
    assert "6 problems with the files of the data set; repair" in str(caught.value)


def test_damage_inside_and_unknown_labels_are_all_named(root: Path) -> None:
    images = root / "images"
    content = bytearray((images / "ade20k/a_o.png").read_bytes())
    content[content.index(b"IDAT") + 6] ^= 1
    write(images / "ade20k/a_o.png", bytes(content))
    write(images / "dtd/b_t.png", broden_png(np.array([[6, 7, 1], [299, 301, 0]])))
    assert Broden(root).check() == ()
    with pytest.raises(FilesError) as caught:
        Broden(root).concepts(progress=False, workers=1)
    first, second = caught.value.problems
    assert "a_o.png: damaged: a checksum in it is wrong" in first
    assert "b_t.png: holds ids without a name: 6, 7, 299, 301 (6 names)" in second
    with pytest.raises(StoreError, match=r"b_t\.png: holds ids without"):
        Broden(root).labels(1)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("index.csv", "", "index.csv: empty"),
        ("index.csv", "image,split,ih\n", "no column 'iw', only image, split, ih"),
        ("index.csv", "image,split,ih,iw,sh,sw,color\na.png,train,4,6,2\n", "line 2: 5 cells under 7 columns"),
        ("index.csv", BRODEN_HEAD + "a.png,train,4,6,2,x,1,,,,,\n", "line 2: sw is 'x', no whole number"),
        ("label.csv", "number,name,category\n1,a,object(1)\n1,b,object(1)\n", "a number occurs twice"),
        ("label.csv", "number,name,category\n77,a,object(1)\n", r"label 77 \(a\) stands in no c_\*\.csv"),
        ("c_part.csv", "code,number,coverage\n1,2,much\n", "line 2: coverage is 'much', no number"),
        ("label.csv", b"\xff\xfe\x00", "no UTF-16 text"),
        ("label.csv", "number,name,category\n1,,object(1)\n", "line 2: the name is blank"),
        ("label.csv", "number,name,category\n1,NaN,object(1)\n", "line 2: the name is 'NaN', which is how a missing"),
        ("c_part.csv", "code,number,coverage\n1,2,nan\n", "line 2: coverage is 'nan', no number"),
    ],
)
def test_damaged_tables(root: Path, name: str, text: str | bytes, problem: str) -> None:
    write(root / name, text)
    with pytest.raises(StoreError, match=problem):
        Broden(root)


def test_missing_tables(root: Path) -> None:
    (root / "c_scene.csv").unlink()
    with pytest.raises(StoreError, match=r"c_scene\.csv: cannot read it \(No such file"):
        Broden(root)


@pytest.mark.parametrize("side", [224, 227, 384])
def test_sizes_of_the_published_variants(tmp_path: Path, side: int) -> None:
    cells = (side + 1) // 2 if side == 227 else side // 2
    rng = np.random.default_rng(side)
    labels = rng.choice([0, 2, 3, 300], (cells, cells))
    row = f"pascal/x.png,train,{side},{side},{cells},{cells},,pascal/x_o.png,,,,\n"
    write_broden(tmp_path, row, {"pascal/x_o.png": labels}, side)
    ds = Broden(tmp_path, "pascal")
    assert ds.image(0).shape == (side, side, 3)
    wanted = np.select([labels == 2, labels == 3, labels == 300], [2, 3, 6], 0)
    np.testing.assert_array_equal(ds.labels(0)[0], wanted)
    assert ds.concepts(progress=False).shape == (cells, cells)
    rows = (2 * np.arange(7) + 1) * cells // 14
    np.testing.assert_array_equal(ds.labels(0, (7, 7))[0], wanted[rows[:, None], rows])
    assert ds.concepts((7, 7), progress=False).shape == (7, 7)


def test_pictures_that_are_no_label_maps_of_broden(root: Path, tmp_path: Path) -> None:
    path = root / "images/ade20k/a_o.png"
    Image.fromarray(OBJECTS.astype(np.uint8)).save(path)
    with pytest.raises(FilesError, match=r"wanted a PNG with R, G and B of 8 bits, it is PNG in L"):
        Broden(root).concepts(progress=False)
    pixels = np.stack([OBJECTS % 256, OBJECTS // 256, OBJECTS * 0 + 9, OBJECTS * 0 + 50], axis=2)
    write(path, png(pixels))  # with transparency, and something in blue
    np.testing.assert_array_equal(Broden(root).labels(0)[0], [[0, 2, 2], [3, 6, 2]])
    Image.fromarray(pixels[..., :3].astype(np.uint8)).save(path, "JPEG")
    with pytest.raises(FilesError, match="it is JPEG in RGB"):
        Broden(root).concepts(progress=False)


@pytest.mark.states("Broden", "numbers in index.csv that have no name in label.csv, negative or huge ones", "refused",
                    "wherever the labels are looked at")  # fmt: skip
@pytest.mark.parametrize("number", ["77", "-4", "65535", "65536", "4294967299", "999999999999999999"])
def test_numbers_of_whole_images_that_have_no_name(tmp_path: Path, number: str) -> None:
    """NetDissect-Lite#28: they were the concept 65535, or an IndexError."""
    write(tmp_path / "images/1.png", png(photo(8, 8)))
    write(tmp_path / "index.csv", f"image,split,ih,iw,sh,sw,scene\n1.png,train,8,8,4,4,{number}\n")
    write(tmp_path / "label.csv", "number,name,category\n3,street,scene\n")
    write(tmp_path / "c_scene.csv", "code,number,name,frequency,coverage\n1,3,street,1,1\n")
    ds = Broden(tmp_path)
    problem = rf"index\.csv, image 1\.png: label {number} is not in label\.csv"
    for read in (ds.labels, ds.present, ds.valid):
        with pytest.raises(StoreError, match=problem):
            read(0)
    with pytest.raises(FilesError, match=problem):
        ds.concepts(workers=1, progress=False)
    (found,) = ds.check(workers=1)
    assert f"label {number} is not in label.csv" in found
