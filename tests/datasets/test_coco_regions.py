"""COCO files whose numbers cannot be drawn: refused with file, annotation and image, before native code sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccx.datasets import CocoInstances, CocoPanoptic
from ccx.datasets.regions import decoded, runs_of
from ccx.errors import CCXError, FilesError, StoreError
from tests.support.coco_files import compressed
from tests.support.picture_files import photo, png, write

pytestmark = pytest.mark.needs("coco")

SIZE = 40, 60
SQUARE, LINE = [10, 10, 30, 10, 30, 30, 10, 30], [5, 5, 6, 6]


def content(segmentation: Any = (SQUARE,), **changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": segmentation}],
        "categories": [{"id": 7, "name": "dog"}],
        **changes,
    }


def instances(root: Path, segmentation: Any = (SQUARE,), **changes: Any) -> CocoInstances:
    write(root / "images/1.png", png(photo(*SIZE)))
    return CocoInstances(root / "images", write(root / "a.json", json.dumps(content(segmentation, **changes))))


@pytest.mark.states("COCO", "polygons of less than three points", "accepted", "they have no inside, and give nothing")
@pytest.mark.parametrize(
    ("segmentation", "n_pixels"),
    [([SQUARE, LINE], 400), ([LINE, SQUARE], 400), ([LINE], 0), ([[], SQUARE], 400), ([SQUARE, []], 400), ([], 0),
     ([[1, 1]], 0), ([[1, 1], LINE, SQUARE, LINE], 400)],
)  # fmt: skip
def test_the_answer_does_not_depend_on_what_comes_first(tmp_path: Path, segmentation: Any, n_pixels: int) -> None:
    """cocoapi#369: a polygon of two points was a box, or an error, after its place in the list."""
    data = instances(tmp_path, segmentation)
    assert data.check(workers=1) == ()
    assert (data.labels(0) == 1).sum() == n_pixels


@pytest.mark.states("COCO", "polygons with NaN, infinite or far coordinates, an odd count, or an endless border",
                    "refused", "the message names file, annotation and image")  # fmt: skip
@pytest.mark.states("COCO", "run lengths that do not add up to h·w, are negative, or end within a number", "refused",
                    "the message names file, annotation and image")  # fmt: skip
@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([[0, 0, float("nan"), 0, 9, 9]], "has a point (nan, 0), far outside"),
        ([[0, 0, float("inf"), 0, 9, 9]], "has a point (inf, 0), far outside"),
        ([[0, 0, 1e7, 0, 1e7, 30, 0, 30]], "has a point (1e+07, 0), far outside"),
        ([SQUARE, [0, 0, -2e8, 0, 9, 9]], "has a point (-2e+08, 0), far outside"),
        ([[0, 0, 10**400, 0, 9, 9]], "has a point (inf, inf), far outside"),
        ([[0, 0, 9, 9, float("nan"), 1][2:]], "has a point (nan, 1), far outside"),
        ([[0, 0, 5, 0, 9]], "has a polygon of 5 numbers, an odd count"),
        ([[0, 0, 60, 40] * 9000], "has a polygon with a border of"),
        ([["0", 0, 5, 0, 9, 9]], "has a polygon that is no list of numbers"),
        ([[True, 0, 5, 0, 9, 9]], "has a polygon that is no list of numbers"),
        ([0, 0, 5, 0, 9, 9], "has a polygon that is no list of numbers"),
        ({"size": [40, 60], "counts": [400, 400]}, "its runs cover 800 of 2400 pixels"),
        ({"size": [40, 60], "counts": [2400, 1]}, "its runs cover 2401 of 2400 pixels"),
        ({"size": [40, 60], "counts": [2401, -1]}, "its run lengths are no whole numbers of at least 0"),
        ({"size": [40, 60], "counts": [2**32 - 1, 2401]}, "its runs cover 4294969696 of 2400 pixels"),
        ({"size": [40, 60], "counts": [2**32]}, "its run lengths are no whole numbers of at least 0"),
        ({"size": [40, 60], "counts": [2400.0]}, "its run lengths are no whole numbers of at least 0"),
        ({"size": [40, 60], "counts": []}, "its runs cover 0 of 2400 pixels"),
        ({"size": [40, 60]}, "its run lengths are no whole numbers of at least 0"),
        ({"size": [60, 40], "counts": [2400]}, "its size is [60, 40]"),
        ({"size": [40, 60], "counts": compressed([400, 400])}, "its runs cover 800 of 2400 pixels"),
        ({"size": [40, 60], "counts": compressed([0, 2500, -100])}, "has a run of -100 pixels"),
        ({"size": [40, 60], "counts": compressed([2400]) + "o"}, "end within a number"),
        ({"size": [40, 60], "counts": "oooooooo0"}, "a number of more than 32 bits"),
        ({"size": [40, 60], "counts": "P\u00e9"}, "a character that these never have"),
        ({"size": [40, 60], "counts": "\u007f"}, "a character that these never have"),
        ({"size": [40, 60], "counts": ""}, "its runs cover 0 of 2400 pixels"),
        (None, "its segmentation is a NoneType, neither polygons nor run lengths"),
        ("", "its segmentation is a str"),
    ],
)
def test_regions_that_cannot_be_drawn(tmp_path: Path, segmentation: Any, problem: str) -> None:
    data = instances(tmp_path, segmentation)
    (found,) = data.check(workers=1)
    wanted = f"{tmp_path / 'a.json'}: annotation 5 cannot be drawn on image 1.png of 40×60 ({problem}"
    assert found.startswith(wanted) or problem in found.removeprefix(wanted.removesuffix(problem))
    for read in (data.labels, data.valid, data.present):
        with pytest.raises(StoreError, match=r"a\.json: annotation 5 cannot be drawn on image 1\.png of 40×60"):
            read(0)
    with pytest.raises(FilesError, match=r"annotation 5 cannot be drawn on image 1\.png"):
        data.concepts(workers=1, progress=False)


def test_run_lengths_are_drawn_as_their_description_says() -> None:
    rng = np.random.default_rng(0)
    for n_pixels in (1, 7, 300):
        for _ in range(40):
            counts = rng.multinomial(n_pixels, rng.dirichlet(np.ones(int(rng.integers(1, 30))))).tolist()  # some are 0
            wanted = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(n_pixels, 1).T
            for given in (counts, compressed(counts)):
                segmentation = {"size": [1, n_pixels], "counts": given}
                found = decoded(runs_of(segmentation, (1, n_pixels)), (1, n_pixels))
                np.testing.assert_array_equal(found, wanted)


def test_empty_runs_take_no_room(tmp_path: Path) -> None:
    """pycocotools keeps room for h·w + 1 runs when it merges regions; empty ones would overrun it."""
    many = {"size": [40, 60], "counts": [*([0] * 200_001), 2400]}
    data = instances(tmp_path, many, annotations=[
        {**content()["annotations"][0], "id": n, "segmentation": many} for n in range(3)
    ])  # fmt: skip
    assert (data.labels(0) == 1).all()


ONE = content()["annotations"][0]
IMAGE = content()["images"][0]


@pytest.mark.states("COCO", "images, annotations or categories that share an id, images that share a file", "refused",
                    "give each once")  # fmt: skip
@pytest.mark.states("COCO", "categories and images that the file does not have", "refused", "all of them are named")
@pytest.mark.states("COCO", "ids that are true, 1.0 or text; sizes below 1", "refused", "give whole numbers")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"images": [IMAGE, {**IMAGE, "file_name": "2.png"}]}, "two images have the id 1"),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, r"two images have the file_name 1\.png"),
        ({"annotations": [ONE, ONE]}, "two annotations have the id 5"),
        ({"categories": [{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]}, "two categories have the id 7"),
        ({"annotations": [{**ONE, "category_id": 8}]}, "annotation 5 of image 1 is of category 8, which has no name"),
        ({"annotations": [{**ONE, "image_id": 2**70}]}, f"annotations of image {2**70}, which is not there"),
        ({"annotations": [{**ONE, "image_id": 1.0}]}, r"annotation 5 has image_id 1\.0, not int"),
        ({"annotations": [{**ONE, "image_id": True}]}, "annotation 5 has image_id True, not int"),
        ({"annotations": [{**ONE, "id": "5"}]}, "annotation '5' has id '5', not int"),
        (
            {"annotations": [{**ONE, "iscrowd": float("nan")}]},
            "annotation 5 of image 1 has iscrowd nan, neither 0 nor 1",
        ),
        ({"annotations": [{**ONE, "iscrowd": None}]}, "annotation 5 of image 1 has iscrowd None, neither 0 nor 1"),
        ({"images": [{**IMAGE, "height": 0}]}, r"image 1 \(1\.png\): has no pixels \(0×60\)"),
        ({"images": [{**IMAGE, "width": 2**40}]}, r"image 1 \(1\.png\): has 40×1099511627776 pixels, more than"),
        ({"images": [{**IMAGE, "width": -60}]}, r"image 1 \(1\.png\): has no pixels"),
        ({"images": [{**IMAGE, "width": True}]}, "image 1 has width True, not int"),
        ({"images": [{**IMAGE, "file_name": "a\0.png"}]}, "image 1 has file_name .*, not the name of a file"),
        ({"images": [{**IMAGE, "file_name": "\ud800"}]}, "image 1 has file_name .*, not the name of a file"),
        ({"images": [{**IMAGE, "file_name": ""}]}, "image 1 has file_name '', not the name of a file"),
        (
            {"images": [{**IMAGE, "file_name": [[[[[[[[9]]]]]]]]}]},
            r"image 1 has file_name \[+\.\.\.\]+, not str",
        ),
    ],
)
def test_files_that_contradict_themselves(tmp_path: Path, changes: Any, problem: str) -> None:
    with pytest.raises(StoreError, match=r"a\.json: " + problem) as caught:
        instances(tmp_path, **changes)
    assert len(str(caught.value)) < 600


def test_json_that_is_none(tmp_path: Path) -> None:
    for text in (
        "[" * 100_000,
        '{"images": ' + "9" * 5000 + "}",
        "\ufeff",
        '"a"',
        "NaN",
        '{"images": [], "annotations": 3',
    ):
        path = write(tmp_path / "a.json", text)
        with pytest.raises(StoreError, match=r"a\.json: (not valid JSON|no list of images)"):
            CocoInstances(tmp_path, path)


@pytest.mark.parametrize(
    ("segments", "problem"),
    [
        ([{"id": 0, "category_id": 7}], "segment 0 of image 1 does not fit into a PNG, which holds 1 to 16777215"),
        ([{"id": 2**24, "category_id": 7}], "segment 16777216 of image 1 does not fit into a PNG"),
        ([{"id": -1, "category_id": 7}], "segment -1 of image 1"),
        ([{"id": 2**70, "category_id": 7}], "segment 1180591620717411303424 of image 1"),
        ([{"id": 3, "category_id": 7}] * 2, "image 1 has two segments with the id 3"),
        ([{"id": 3, "category_id": 9}], "segment 3 of image 1 is of category 9, which has no name"),
        ([{"id": 3, "category_id": 7, "iscrowd": 2}], "segment 3 of image 1 has iscrowd 2"),
        ([{"id": 3.0, "category_id": 7}], r"segment 3\.0 has id 3\.0, not int"),
        ({"id": 3}, "no list of segments_info of image 1"),
        ([3], "no list of segments_info of image 1"),
    ],
)
def test_segments_that_contradict_themselves(tmp_path: Path, segments: Any, problem: str) -> None:
    write(tmp_path / "images/1.png", png(photo(*SIZE)))
    write(tmp_path / "maps/1.png", png(np.zeros((*SIZE, 3), int)))
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": segments}
    path = write(tmp_path / "a.json", json.dumps(content(annotations=[annotation])))
    with pytest.raises(StoreError, match=r"a\.json: " + problem):
        CocoPanoptic(tmp_path / "images", tmp_path / "maps", path)
    twice = [{**annotation, "segments_info": []}] * 2
    path = write(tmp_path / "a.json", json.dumps(content(annotations=twice)))
    with pytest.raises(StoreError, match=r"image 1 has two annotations, 1\.png and 1\.png"):
        CocoPanoptic(tmp_path / "images", tmp_path / "maps", path)


def test_a_panoptic_map_of_another_size_is_no_label_map(tmp_path: Path) -> None:
    write(tmp_path / "images/1.png", png(photo(*SIZE)))
    write(tmp_path / "maps/1.png", png(np.zeros((3, 5, 3), int)))
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 3, "category_id": 7}]}
    path = write(tmp_path / "a.json", json.dumps(content(annotations=[annotation])))
    data = CocoPanoptic(tmp_path / "images", tmp_path / "maps", path)
    for read in (data.labels, data.present, lambda _: data.concepts(workers=1, progress=False)):
        with pytest.raises(CCXError, match=r"maps/1\.png: 3×5 pixels, .*a\.json says 40×60"):
            read(0)
