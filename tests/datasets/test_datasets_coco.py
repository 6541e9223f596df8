"""COCO: instances (polygons, run lengths, crowds) and panoptic annotations, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccx.datasets import CocoInstances, CocoPanoptic
from ccx.errors import FilesError, InputError, StoreError
from tests.support.picture_files import photo, png, write

pytestmark = pytest.mark.needs("coco")

CATEGORIES = [
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 3, "name": "car", "supercategory": "vehicle"},
    {"id": 90, "name": "cat", "supercategory": "toy"},
]
IMAGES = [
    {"id": 9, "file_name": "b.png", "height": 4, "width": 6},
    {"id": 2, "file_name": "a.png", "height": 4, "width": 6},
    {"id": 5, "file_name": "none.png", "height": 4, "width": 6},
]
SQUARE = [[1, 1, 4, 1, 4, 3, 1, 3]]  # x, y in turn: columns 1 to 3, rows 1 and 2
TWO_PIECES = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 2, 6, 2, 6, 4, 4, 4]]
# Run lengths of 4×6 pixels go down the columns: 4 zeros, 8 ones, 12 zeros = columns 1 and 2
COLUMNS = {"size": [4, 6], "counts": [4, 8, 12]}
INSTANCES = [
    {"id": 1, "image_id": 2, "category_id": 17, "iscrowd": 0, "segmentation": SQUARE},
    {"id": 2, "image_id": 2, "category_id": 3, "iscrowd": 1, "segmentation": COLUMNS},
    {"id": 3, "image_id": 9, "category_id": 90, "iscrowd": 0, "segmentation": TWO_PIECES},
    {"id": 4, "image_id": 9, "category_id": 90, "iscrowd": 0, "segmentation": [[1, 0, 3, 0, 3, 2, 1, 2]]},
]  # fmt: skip
CAT = [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]
CAR = [[0, 1, 1, 0, 0, 0]] * 4
TOY = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]]


def write_json(root: Path, **changes: Any) -> Path:
    content = {"info": {}, "images": IMAGES, "annotations": INSTANCES, "categories": CATEGORIES, **changes}
    for seed, image in enumerate(IMAGES):
        write(root / "images" / str(image["file_name"]), png(photo(4, 6, seed)))
    return write(root / "instances.json", json.dumps(content))


def test_instances(tmp_path: Path) -> None:
    path = write_json(tmp_path)
    ds = CocoInstances(tmp_path / "images", path)
    assert ds.names == ("car", "cat (animal)", "cat (toy)")  # by id
    assert ds.categories == ("vehicle", "animal", "toy")
    assert ds.image_names == ("a.png", "b.png")  # by id; the third has no annotation
    np.testing.assert_array_equal(ds.image(0), photo(4, 6, 1))
    labels = ds.labels(0)
    assert labels.shape == (2, 4, 6)  # car and cat overlap
    np.testing.assert_array_equal((labels == 1).any(axis=0), CAR)
    np.testing.assert_array_equal((labels == 2).any(axis=0), CAT)
    np.testing.assert_array_equal(ds.labels(1), 3 * np.array([TOY]))  # two instances, one of two pieces
    concepts = ds.concepts(progress=False)
    np.testing.assert_array_equal(concepts.mask('("cat (animal)" AND car)')[0], np.array(CAT) & np.array(CAR))
    assert len(CocoInstances(tmp_path / "images", write_json(tmp_path), unlabelled=True)) == 3


def test_crowds(tmp_path: Path) -> None:
    path = write_json(tmp_path)
    skip = CocoInstances(tmp_path / "images", path, crowd="skip")
    np.testing.assert_array_equal(skip.labels(0), 2 * np.array([CAT]))
    assert skip.valid(0).all()
    void = CocoInstances(tmp_path / "images", path, crowd="void")
    np.testing.assert_array_equal(void.labels(0), 2 * np.array([CAT]))
    np.testing.assert_array_equal(void.valid(0), ~np.array(CAR, bool))
    assert void.valid(1).all()
    with pytest.raises(InputError, match="crowd: expected 'label' or "):
        CocoInstances(tmp_path / "images", path, crowd="ignore")  # type: ignore[arg-type]


def test_compressed_run_lengths(tmp_path: Path) -> None:
    # The published compression: each count as base-32 digits from character 48 on; the third and later ones less the
    # one before the last. 4, 8, 12, 0 -> 4, 8, 12, 0 - 8 = -8 -> characters 4, 8, <, and -8 -> 24 = "H".
    compressed = {"size": [4, 6], "counts": "48<"}
    ds = CocoInstances(
        tmp_path / "images", write_json(tmp_path, annotations=[{**INSTANCES[1], "segmentation": compressed}])
    )
    np.testing.assert_array_equal(ds.labels(0), [CAR])


def test_sampling(tmp_path: Path) -> None:
    ds = CocoInstances(tmp_path / "images", write_json(tmp_path))
    np.testing.assert_array_equal(ds.labels(1, (2, 2)), 3 * np.array(TOY)[None][:, [1, 3]][:, :, [1, 4]])


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = write_json(tmp_path)
    (tmp_path / "images/a.png").unlink()
    write(tmp_path / "images/b.png", png(photo(4, 5)))
    with pytest.raises(FilesError) as caught:
        CocoInstances(tmp_path / "images", path).concepts(progress=False)
    first, second = caught.value.problems
    assert "a.png: cannot read it (No such file" in first
    assert "b.png: 4×5 pixels" in second
    assert "instances.json says 4×6" in second


def test_annotations_that_do_not_fit(tmp_path: Path) -> None:
    wrong = [{**INSTANCES[0], "category_id": 1}, {**INSTANCES[1], "image_id": 77}, {**INSTANCES[2], "category_id": 2}]
    with pytest.raises(FilesError) as caught:
        CocoInstances(tmp_path / "images", write_json(tmp_path, annotations=wrong))
    assert len(caught.value.problems) == 3
    assert "annotation 1 of image 2 is of category 1, which has no name" in caught.value.problems[0]
    assert "annotations of image 77, which is not there" in caught.value.problems[2]
    for segmentation in ([[1, 2, 3]], {"size": [3, 6], "counts": [18]}, {"size": [4, 6]}, "x", [["a"] * 6]):
        ds = CocoInstances(
            tmp_path / "images", write_json(tmp_path, annotations=[{**INSTANCES[0], "segmentation": segmentation}])
        )
        with pytest.raises(FilesError, match=r"annotation 1 cannot be drawn on image a\.png of 4×6"):
            ds.concepts(progress=False)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"images": None}, "no list of images"),
        ({"annotations": [3]}, "no list of annotations"),
        ({"categories": [{"id": "x", "name": "a"}]}, "category 'x' has id 'x', not int"),
        ({"categories": [CATEGORIES[0], CATEGORIES[0]]}, "two categories have the id 17"),
        ({"images": [{"id": 2, "file_name": "a.png", "height": 4}]}, "image 2 has width None, not int"),
        ({"annotations": [{"id": 1, "image_id": 2, "category_id": 3}]}, "annotation 1 has no segmentation"),
        ({"annotations": []}, "3 images, none with annotations"),
    ],
)
def test_files_that_are_not_of_coco(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises((StoreError, InputError), match=problem):
        CocoInstances(tmp_path / "images", write_json(tmp_path, **changes))
    with pytest.raises(StoreError, match="not valid JSON"):
        CocoInstances(tmp_path / "images", write(tmp_path / "b.json", '{"images": ['))


def write_panoptic(root: Path, **changes: Any) -> Path:
    big = 3 + 256 * 2 + 65_536
    ids = np.array([[0, 7, 7, big], [300, 7, big, big]])
    pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=2)
    write(root / "maps/a.png", png(pixels))
    write(root / "images/a.png", png(photo(2, 4)))
    segments = [
        {"id": 7, "category_id": 17, "iscrowd": 0},
        {"id": big, "category_id": 3, "iscrowd": 1},
        {"id": 300, "category_id": 17, "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 2, "width": 4}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": changes.pop("segments", segments)}],
        "categories": CATEGORIES,
        **changes,
    }
    return write(root / "panoptic.json", json.dumps(content))


def test_panoptic(tmp_path: Path) -> None:
    path = write_panoptic(tmp_path)
    ds = CocoPanoptic(tmp_path / "images", tmp_path / "maps", path)
    np.testing.assert_array_equal(ds.labels(0), [[[0, 2, 2, 1], [2, 2, 1, 1]]])
    np.testing.assert_array_equal(ds.valid(0), [[0, 1, 1, 1], [1, 1, 1, 1]])
    assert ds.concepts(progress=False).n_cells == 7
    counted = CocoPanoptic(tmp_path / "images", tmp_path / "maps", path, unlabelled_is_void=False)
    assert counted.concepts(progress=False).n_cells == 8
    void = CocoPanoptic(tmp_path / "images", tmp_path / "maps", path, crowd="void")
    np.testing.assert_array_equal(void.valid(0), [[0, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(void.labels(0), [[[0, 2, 2, 0], [2, 2, 0, 0]]])
    skip = CocoPanoptic(tmp_path / "images", tmp_path / "maps", path, crowd="skip", unlabelled_is_void=False)
    assert skip.concepts(progress=False).count("car") == 0
    assert skip.valid(0).all()


def test_panoptic_files_that_do_not_fit(tmp_path: Path) -> None:
    path = write_panoptic(tmp_path, segments=[{"id": 7, "category_id": 17}])
    with pytest.raises(FilesError, match=r"a\.png: holds segments that .*panoptic\.json does not: 300, 66051"):
        CocoPanoptic(tmp_path / "images", tmp_path / "maps", path).concepts(progress=False)
    with pytest.raises(StoreError, match="its annotations have no segments_info; give a panoptic file"):
        CocoPanoptic(tmp_path / "images", tmp_path / "maps", write_json(tmp_path))
    with pytest.raises(StoreError, match="segment 7 has category_id None, not int"):
        CocoPanoptic(tmp_path / "images", tmp_path / "maps", write_panoptic(tmp_path, segments=[{"id": 7}]))
    path = write_panoptic(tmp_path)
    (tmp_path / "maps/a.png").unlink()
    with pytest.raises(FilesError, match=r"maps/a\.png: cannot read it"):
        CocoPanoptic(tmp_path / "images", tmp_path / "maps", path).concepts(progress=False)
