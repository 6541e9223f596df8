"""Attack by COCO files: sound ones, against masks drawn here, and mutated ones, in their JSON and in their bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccx.datasets import CocoInstances, CocoPanoptic
from ccx.errors import CCXError
from tests.support.coco_files import compressed
from tests.support.fuzzing import attack, attempts
from tests.support.picture_files import photo, png, write

pytestmark = pytest.mark.needs("coco")

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 4, 1.0, 0.5, -0.0, 1e300, 1e7, -1e9, float("nan"), float("inf"), -float("inf"),
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**400, -(2**63), "", "a", "\ud800", "a\0b", "0" * 40, "/", [],
    {}, [[]], [[1, 2]], [[1, 2, 3]], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [[0, 0, 9, 9]], [[[]]], {"size": [1, 1]},
    {"size": [4, 6], "counts": [0] * 3000 + [24]}, {"size": [4, 6], "counts": "0" * 3000 + "h0"},
    {"size": [4, 6], "counts": [2**32 - 1, 25]}, {"size": [4, 6], "counts": "o" * 300}, [[0, 0, 1, 0, 1, 1] * 3000],
    {"size": [4, 6], "counts": [30, -6]}, "PPYo1", "\x7f\x7f",
]  # fmt: skip


def region(rng: np.random.Generator, height: int, width: int) -> tuple[Any, np.ndarray]:
    """Return a segmentation and its mask bool[height, width]."""
    mask = np.zeros((height, width), bool)
    if rng.random() < 0.5:
        polygons, beyond = [], min(3, height, width)
        for _ in range(int(rng.integers(1, 4))):
            top, bottom = np.sort(rng.integers(-beyond, height + beyond + 1, 2)).tolist()
            left, right = np.sort(rng.integers(-beyond, width + beyond + 1, 2)).tolist()
            if top < bottom and left < right:
                mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
                polygons.append([left, top, right, top, right, bottom, left, bottom])
            polygons += [[0, 0, 1, 1]] if rng.random() < 0.2 else []  # of two points: nothing
        rng.shuffle(polygons)
        return polygons, mask
    flat = np.repeat(rng.random(height * width) < 0.5, 1 + int(rng.integers(0, 9)))[: height * width]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    if rng.random() < 0.3:  # an empty run in the middle
        counts[1:1] = [0, 0]
    mask = flat.reshape(width, height).T
    return {"size": [height, width], "counts": counts if rng.random() < 0.5 else compressed(counts)}, mask


def sound(rng: np.random.Generator, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Return an annotation file of instances, and bool[images, categories, h, w]."""
    height, width, n_images, n_kinds = (int(rng.integers(1, high)) for high in (13, 15, 4, 4))
    masks = np.zeros((n_images, n_kinds, height, width), bool)
    images, annotations = [], []
    for i in range(n_images):
        images.append({"id": i * 7 + 1, "file_name": f"{i}.png", "height": height, "width": width})
        write(folder / "images" / f"{i}.png", png(photo(height, width, i)))
        for _ in range(int(rng.integers(1, 4))):
            kind = int(rng.integers(0, n_kinds))
            segmentation, mask = region(rng, height, width)
            masks[i, kind] |= mask
            one = {"id": len(annotations), "image_id": i * 7 + 1, "category_id": kind, "segmentation": segmentation}
            annotations.append({**one, "iscrowd": 0, "area": float("nan")})
    categories = [{"id": kind, "name": f"c{kind}"} for kind in range(n_kinds)]
    return {"images": images, "annotations": annotations, "categories": categories}, masks


def panoptic(rng: np.random.Generator, folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation file of segments of the same images."""
    annotations = []
    for image in content["images"]:
        ids = rng.integers(0, 4, (image["height"], image["width"])) * 80_000
        pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=2)
        write(folder / "maps" / image["file_name"], png(pixels))
        segments = [{"id": int(n), "category_id": 0, "iscrowd": 0} for n in np.unique(ids) if n]
        annotations.append({"image_id": image["id"], "file_name": image["file_name"], "segments_info": segments})
    return {**content, "annotations": annotations}


def places(content: Any) -> list[tuple[Any, Any]]:
    """Return every place in a JSON value: what holds it, and its key or index."""
    found, waiting = [], [content]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found


def mutate(rng: np.random.Generator, content: dict[str, Any]) -> None:
    for _ in range(int(rng.integers(1, 4))):
        there = places(content)
        if not there:
            return
        holder, key = there[int(rng.integers(0, len(there)))]
        match rng.integers(0, 5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, json.loads(json.dumps(holder[key])))
            case 2:
                other, place = there[int(rng.integers(0, len(there)))]
                if place in other if isinstance(other, dict) else place < len(other):
                    holder[key] = json.loads(json.dumps(other[place]))
            case _:
                holder[key] = json.loads(json.dumps(VALUES[int(rng.integers(0, len(VALUES)))]))


def damage(rng: np.random.Generator, text: bytes) -> bytes:
    found = bytearray(text)
    at = int(rng.integers(0, len(found)))
    match rng.integers(0, 4):
        case 0:
            del found[at:]
        case 1:
            found[at : at + 1] = rng.bytes(1)
        case 2:
            found[at:at] = b"[" * int(rng.choice([1, 900, 100_000]))
        case _:
            found[at:at] = bytes(rng.choice([b"9" * 5000, b"e999", b"-", b"NaN", b'"', b"\\ud800", b"\xef\xbb\xbf"]))
    return bytes(found)


def attempt(rng: np.random.Generator, folder: Path) -> str:
    content, masks = sound(rng, folder)
    is_panoptic = rng.random() < 0.25
    if is_panoptic:
        content = panoptic(rng, folder, content)
    is_sound = rng.random() < 0.2
    if not is_sound and rng.random() < 0.9:
        mutate(rng, content)
    text = json.dumps(content).encode()
    if not is_sound and rng.random() < 0.2:
        text = damage(rng, text)
    path = folder / "a.json"
    path.write_bytes(text)
    crowd = str(rng.choice(["label", "void", "skip"]))
    try:
        if is_panoptic:
            data = CocoPanoptic(folder / "images", folder / "maps", path, crowd=crowd)
        else:
            data = CocoInstances(folder / "images", path, crowd=crowd, unlabelled=True)
    except CCXError as error:
        if is_sound:
            raise AssertionError from error
        raise
    return look(data, masks if is_sound and not is_panoptic else None)


def look(data: Any, masks: np.ndarray | None) -> str:
    problems = data.check(workers=1)
    n_refused = 0
    for i in range(len(data)):
        try:
            layers, valid = data.labels(i), data.valid(i)
            data.present(i)
        except CCXError as error:
            if not problems and "holds segments that" not in str(error):  # which only decoding shows
                msg = "the check finds nothing"
                raise AssertionError(msg) from error
            n_refused += 1
            continue
        assert layers.min() >= 0
        assert layers.max() <= len(data.names)
        assert valid.shape == layers.shape[1:]
        if masks is not None:
            for kind, mask in enumerate(masks[i]):
                np.testing.assert_array_equal((layers == kind + 1).any(axis=0), mask)
    assert masks is None or not problems, problems
    return "refused" if problems or n_refused else "read"


def test_coco_files_are_read_as_drawn_or_refused() -> None:
    attack(attempt, attempts(nightly=10_000, quick=60)).check("read", "refused")
