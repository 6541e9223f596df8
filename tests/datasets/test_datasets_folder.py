"""Folders of images and label maps in the layouts of ADE20K, Pascal VOC and Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccx.datasets import Folder
from ccx.errors import FilesError, InputError, ShapeError, StoreError
from tests.support.picture_files import photo, png, write

LABELS = np.array([[0, 1, 2, 255], [1, 1, 3, 255]])


def test_pascal_voc(tmp_path: Path) -> None:
    """JPEGs of which some have palette label maps: 0 is background, 255 void; splits are lists of names."""
    for seed, name in enumerate(("2007_1", "2007_2", "2007_3")):
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        Image.fromarray(photo(2, 4, seed)).save(tmp_path / f"JPEGImages/{name}.jpg")
    for name, labels in (("2007_1", LABELS), ("2007_3", LABELS[::-1])):
        write(tmp_path / f"SegmentationClass/{name}.png", png(labels, palette=bytes(range(256)) * 3))
    write(tmp_path / "train.txt", "2007_3\n")
    names = ["aeroplane", "bicycle", "bird"]
    ds = Folder(tmp_path / "JPEGImages", tmp_path / "SegmentationClass", names, void=255)
    assert ds.image_names == ("2007_1.jpg", "2007_3.jpg")
    assert ds.without_labels == ("2007_2",)
    np.testing.assert_array_equal(ds.labels(0), [[[0, 1, 2, 0], [1, 1, 3, 0]]])
    np.testing.assert_array_equal(ds.valid(0), [[1, 1, 1, 0], [1, 1, 1, 0]])
    assert ds.present(1) == tuple(names)
    concepts = ds.concepts(progress=False)
    assert (concepts.shape, concepts.n_cells, concepts.names) == ((2, 4), 12, tuple(names))
    np.testing.assert_array_equal(concepts.mask("(NOT bird)")[0], [[1, 1, 1, 0], [1, 1, 0, 0]])

    train = Folder(
        tmp_path / "JPEGImages", tmp_path / "SegmentationClass", names, void=255, only=tmp_path / "train.txt"
    )
    assert train.image_names == ("2007_3.jpg",)
    missing = Folder(
        tmp_path / "JPEGImages", tmp_path / "SegmentationClass", names, void=255, only=["2007_3", "2007_2", "x"]
    )
    with pytest.raises(FilesError) as caught:
        missing.concepts(progress=False)
    assert [problem.split(": ")[0].rpartition("/")[2] for problem in caught.value.problems] == [
        "2007_2.png", "x.jpg", "x.png"
    ]  # fmt: skip
    with pytest.raises(InputError, match="only: expected each image once, got 2007_3 twice"):
        Folder(tmp_path / "JPEGImages", tmp_path / "SegmentationClass", names, only=["2007_3", "2007_3"])


def test_ade20k(tmp_path: Path) -> None:
    """Nested folders, 8-bit grey, 0 = other, and objectInfo150.txt with tabs."""
    write(tmp_path / "annotations/training/ADE_1.png", png(LABELS.clip(0, 3)))
    (tmp_path / "images/training").mkdir(parents=True)
    Image.fromarray(photo(2, 4)).save(tmp_path / "images/training/ADE_1.jpg")
    info = write(
        tmp_path / "objectInfo150.txt",
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.15\t11664\t1172\t1\twall\n"
        "2\t0.1\t6046\t612\t1\tbuilding, edifice\n3\t0.1\t8265\t796\t1\tsky\n",
    )
    ds = Folder(tmp_path / "images", tmp_path / "annotations", info)
    assert ds.names == ("wall", "building, edifice", "sky")
    assert ds.image_names == ("training/ADE_1.jpg",)
    np.testing.assert_array_equal(ds.labels(0), LABELS.clip(0, 3)[None])
    assert ds.valid(0).all()


def test_cityscapes(tmp_path: Path) -> None:
    """Suffixes that differ, several maps an image, ids with gaps."""
    labels = np.array([[0, 7, 8, 26], [11, 33, 1, 26]])
    for kind, pixels in (("labelIds", labels), ("instanceIds", labels + 1000), ("color", None)):
        content = png(photo(2, 4)) if pixels is None else png(pixels, bits=8 if kind == "labelIds" else 16)
        write(tmp_path / f"gtFine/val/ulm/ulm_0_gtFine_{kind}.png", content)
    write(tmp_path / "left/val/ulm/ulm_0_leftImg8bit.png", png(photo(2, 4)))
    options = {"image_suffix": "_leftImg8bit.png", "label_suffix": "_gtFine_labelIds.png"}
    names = {7: "road", 8: "sidewalk", 26: "car", 11: "building", 33: "bicycle"}
    ds = Folder(tmp_path / "left", tmp_path / "gtFine", names, void=[0, 1], **options)
    assert ds.names == ("road", "sidewalk", "building", "car", "bicycle")  # by id
    assert ds.image_names == ("val/ulm/ulm_0_leftImg8bit.png",)
    np.testing.assert_array_equal(ds.labels(0)[0], [[0, 1, 2, 4], [3, 5, 0, 4]])
    np.testing.assert_array_equal(ds.valid(0), [[0, 1, 1, 1], [1, 1, 0, 1]])
    none = Folder(tmp_path / "left", tmp_path / "gtFine", names, none=[0, 1], **options)
    assert none.valid(0).all()
    with pytest.raises(
        FilesError, match=r"labelIds\.png: holds ids without a name: 1 \(5 names\); give them names, or say void=1 "
    ):
        Folder(tmp_path / "left", tmp_path / "gtFine", names, **options).concepts(progress=False)
    instances = {**options, "label_suffix": "_gtFine_instanceIds.png"}
    sixteen = Folder(
        tmp_path / "left", tmp_path / "gtFine", {k + 1000: v for k, v in names.items()}, void=[1000, 1001], **instances
    )
    np.testing.assert_array_equal(sixteen.labels(0), ds.labels(0))
    with pytest.raises(InputError, match=r"label_suffix: expected one file per name, got .* and .*; give label_suffix"):
        Folder(tmp_path / "left", _with_twins(tmp_path / "twins"), names)
    with pytest.raises(InputError, match=r"named like the images, got 1 images, such as .* give image_suffix"):
        Folder(tmp_path / "left", tmp_path / "gtFine", names)


def _with_twins(folder: Path) -> Path:
    for suffix in ("png", "bmp"):
        write(folder / f"a.{suffix}", png(LABELS))
    return folder


def test_first_id_zero(tmp_path: Path) -> None:
    write(tmp_path / "i/a.png", png(photo(1, 3)))
    write(tmp_path / "l/a.png", png(np.array([[0, 1, 255]])))
    ds = Folder(tmp_path / "i", tmp_path / "l", ["road", "car"], first_id=0, void=255)
    np.testing.assert_array_equal(ds.labels(0), [[[1, 2, 0]]])
    np.testing.assert_array_equal(ds.valid(0), [[1, 1, 0]])


def test_sizes_that_differ_are_all_named_and_need_a_shape(tmp_path: Path) -> None:
    for name, size, label_size in (
        ("a", (4, 6), (4, 6)),
        ("b", (4, 8), (4, 6)),
        ("c", (2, 2), (3, 2)),
        ("d", (5, 5), (5, 5)),
    ):
        write(tmp_path / f"i/{name}.png", png(photo(*size)))
        write(tmp_path / f"l/{name}.png", png(np.ones(label_size, int)))
    with pytest.raises(FilesError) as caught:
        Folder(tmp_path / "i", tmp_path / "l", ["x"]).concepts(progress=False)
    assert len(caught.value.problems) == 2
    for problem, text in zip(
        caught.value.problems, ("b.png: 4×6 pixels, its image", "c.png: 3×2 pixels, its image"), strict=True
    ):
        assert text in problem
    good = Folder(tmp_path / "i", tmp_path / "l", ["x"], only=["a", "d"])
    with pytest.raises(InputError, match="shape: expected label maps of one size, got 4×6, 5×5; pass shape"):
        good.concepts(progress=False)
    assert good.concepts((3, 2), progress=False).count("x") == 12
    for shape in ((0, 3), "ab", 5, (3, 3, 3), (1.5, 2)):
        with pytest.raises(InputError, match=r"shape: expected \(H, W\), two integers >= 1"):
            good.concepts(shape, progress=False)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"void": 1}, r"void: expected ids without a name, got \[1\]"),
        ({"none": [2]}, r"none: expected ids without a name, got \[2\]"),
        ({"none": [9], "void": [9]}, r"none: expected ids that are not void, got \[9\]"),
        ({"void": 1.5}, r"void: expected whole numbers, got 1\.5"),
        ({"void": [True]}, "void: expected whole numbers"),
        ({"names": {70_000: "a"}}, "ids from 0 to 65535, got 70000"),
        ({"categories": ["a"]}, "categories: expected 3 categories, got 1"),
        ({"names": ["a", "a"]}, "repeated: a"),
        ({"names": []}, "at least one name"),
        ({"names": {"x": "a"}}, "names: expected ids of at least 0 as keys, got 'x'"),
        ({"names": {-1: "a"}}, "names: expected ids of at least 0 as keys, got -1"),
        ({"names": {1: "a", "1": "b"}}, "names: expected distinct ids, got 1 twice"),
        ({"names": [f"n{i}" for i in range(65_535)]}, "names: expected at most 65534"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, options: dict, problem: str) -> None:
    write(tmp_path / "i/a.png", png(photo(2, 4)))
    write(tmp_path / "l/a.png", png(LABELS))
    with pytest.raises(InputError, match=problem):
        Folder(tmp_path / "i", tmp_path / "l", **{"names": ["a", "b", "c"], **options})


def test_colors_are_one_more_layer(tmp_path: Path) -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:] = [
        [(255, 0, 0), (0, 0, 0), (255, 255, 255), (128, 128, 128)],
        [(255, 165, 0), (0, 128, 0), (255, 255, 0), (128, 0, 128)],
    ]
    write(tmp_path / "i/a.png", png(image))
    write(tmp_path / "l/a.png", png(LABELS))
    plain = Folder(tmp_path / "i", tmp_path / "l", ["sky", "orange", "sea"], void=255, categories=["x", "y", "z"])
    ds = plain.with_colors()
    assert len(plain.names) == 3
    assert ds.names == (
        "sky", "orange", "sea", "black", "blue", "brown", "gray", "green", "orange color", "pink", "purple", "red",
        "white", "yellow",
    )  # fmt: skip
    assert ds.categories == ("x", "y", "z", *["color"] * 11)
    labels = ds.labels(0)
    np.testing.assert_array_equal(labels[0], plain.labels(0)[0])
    names = [[ds.names[c - 1] for c in row] for row in labels[1]]
    assert names == [["red", "black", "white", "gray"], ["orange color", "green", "yellow", "purple"]]
    concepts = ds.concepts(progress=False)
    np.testing.assert_array_equal(concepts.mask("red")[0], [[1, 0, 0, 0], [0, 0, 0, 0]])
    assert not concepts.mask("purple").any()  # where it is void
    assert ds.concepts((1, 2), progress=False).count("green") == 1  # the pixel at the cell's centre
    with pytest.raises(InputError, match="call it once"):
        ds.with_colors()


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    for name in "il":
        (tmp_path / name).mkdir()
    (tmp_path / "i/notes.txt").touch()
    with pytest.raises(
        InputError, match=r"images: expected pictures \(\.bmp, .*\), got none in .*i; check the folder$"
    ):
        Folder(tmp_path / "i", tmp_path / "l", ["a"])
    write(tmp_path / "i/a.png", png(photo(2, 4)))
    with pytest.raises(InputError, match=r"got none in .*l; check the folder and label_suffix$"):
        Folder(tmp_path / "i", tmp_path / "l", ["a"], label_suffix="_ids.png")


def test_a_missing_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "i/a.png", png(photo(2, 4)))
    write(tmp_path / "l/a.png", png(LABELS))
    ds = Folder(tmp_path / "i", tmp_path / "l", ["a", "b", "c"], void=255)
    (tmp_path / "i/a.png").unlink()
    with pytest.raises(StoreError, match=r"a\.png: cannot read it"):
        ds.image(0)
    with pytest.raises(FilesError, match=r"a\.png: cannot read it"):
        ds.with_colors().concepts(progress=False)
    assert not issubclass(FilesError, ShapeError)
