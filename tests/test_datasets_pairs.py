"""Any sequence of (image, labels) pairs: torchvision's data sets, tensors, arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ccx
from ccx.datasets import Pairs
from ccx.errors import FilesError, InputError, StoreError
from tests.picture_files import photo, png, write

LABELS = np.array([[0, 1, 2, 255], [1, 1, 3, 255]])
NAMES = ["a", "b", "c"]


class Tensor:
    """What a tensor of torch offers, without torch."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> np.ndarray:
        return self.array


class Voc:
    """Like torchvision's VOCSegmentation: lists of paths, pictures of Pillow."""

    def __init__(self, images: list[str], masks: list[str]) -> None:
        self.images, self.masks = images, masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.open(self.images[index]).convert("RGB"), Image.open(self.masks[index])


@pytest.mark.parametrize(
    "image",
    [
        photo(2, 4),
        Image.fromarray(photo(2, 4)),
        Image.fromarray(photo(2, 4)).convert("RGBA"),
        Tensor(np.moveaxis(photo(2, 4), 2, 0)),
        Tensor(np.moveaxis(photo(2, 4), 2, 0) / np.float32(255)),
        photo(2, 4) / 255,
    ],
)
@pytest.mark.parametrize(
    "target",
    [
        LABELS,
        LABELS.astype(np.uint8),
        LABELS[None],
        Image.fromarray(LABELS.astype(np.uint8)),
        Image.open(io.BytesIO(png(LABELS, palette=bytes(range(256)) * 3))),
        Tensor(LABELS),
    ],
)
def test_images_and_targets_of_all_kinds(image: Any, target: Any) -> None:
    ds = Pairs([(image, target)], NAMES, void=255)
    np.testing.assert_array_equal(ds.image(0), photo(2, 4))
    np.testing.assert_array_equal(ds.labels(0), [[[0, 1, 2, 0], [1, 1, 3, 0]]])
    np.testing.assert_array_equal(ds.valid(0), LABELS != 255)
    assert ds.image_names == ("sample 0",)


def test_grey_images_layers_and_void() -> None:
    grey = photo(2, 4)[..., 0]
    layers = np.stack([LABELS, [[3, 3, 3, 3], [255, 3, 3, 3]]])
    ds = Pairs([(grey, layers), (grey[..., None], layers), (Tensor(grey[None]), layers[:1] > 0)], NAMES, void=255)
    for index in range(3):
        np.testing.assert_array_equal(ds.image(index), np.stack([grey] * 3, axis=2))
    assert ds.labels(0).shape == (2, 2, 4)
    np.testing.assert_array_equal(ds.valid(0), [[1, 1, 1, 0], [0, 1, 1, 0]])  # void in any layer
    assert ds.present(2) == ("a",)
    assert ds.concepts((2, 4), progress=False).n_samples == 3


def test_a_data_set_like_those_of_torchvision(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"i{i}.png", png(photo(4 + i, 6, i)))
        write(tmp_path / f"m{i}.png", png(np.full((4 + i, 6), i), palette=bytes(range(256)) * 3))
    voc = Voc([str(tmp_path / f"i{i}.png") for i in range(3)], [str(tmp_path / f"m{i}.png") for i in range(3)])
    ds = Pairs(voc, NAMES, void=255)
    assert ds.image_names == tuple(voc.images)
    with pytest.raises(InputError, match=r"label maps of one size, got unknown sizes; pass shape"):
        ds.concepts(progress=False)
    out = tmp_path / "c.ccx"
    concepts = ds.concepts((4, 6), workers=2, progress=False, out=out)
    assert [concepts.mask(name).sum(axis=(1, 2)).tolist() for name in "ab"] == [[0, 24, 0], [0, 0, 24]]
    assert ds.concepts((4, 6), progress=False, out=out).content_hash == concepts.content_hash
    assert ds.take([2, 1]).concepts((4, 6), progress=False).mask("b")[0].all()
    write(tmp_path / "m1.png", png(np.full((5, 6), 2), palette=bytes(range(256)) * 3))
    with pytest.raises(StoreError, match="was made from something else"):
        Pairs(voc, NAMES, void=255).concepts((4, 6), progress=False, out=out)
    (tmp_path / "m1.png").unlink()
    write(tmp_path / "i2.png", b"")
    with pytest.raises(FilesError) as caught:
        Pairs(voc, NAMES, void=255).concepts((4, 6), progress=False)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [voc.masks[1], voc.images[2]]


def test_data_in_memory_are_told_apart_by_their_content(tmp_path: Path) -> None:
    pairs = [(photo(2, 4, i), LABELS) for i in range(20)]
    out = tmp_path / "c.ccx"
    Pairs(pairs, NAMES, void=255).concepts((2, 4), progress=False, out=out)
    Pairs(list(pairs), NAMES, void=255).concepts((2, 4), progress=False, out=out)
    changed = [(photo(2, 4, i + 1), LABELS) for i in range(20)]
    with pytest.raises(StoreError, match=r"was made from something else: content"):
        Pairs(changed, NAMES, void=255).concepts((2, 4), progress=False, out=out)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ((photo(2, 4), LABELS / 255), r"sample 0: the target is ndarray float64\[2, 4\], no label map"),
        ((photo(2, 4), {"semantic": LABELS}), "the target is a dict, no label map"),
        ((photo(2, 4), (LABELS, LABELS, LABELS[:1])), "the target is a tuple, no label map"),
        ((photo(2, 4), LABELS - 1), "holds the id -1; ids begin at 0"),
        ((photo(2, 4), LABELS + 3), "holds ids without a name: 4, 5, 6, 258"),
        ((photo(2, 4), LABELS[0]), r"no label map"),
        (photo(2, 4), "sample 0: is a ndarray, no pair"),
        ((photo(2, 4),), "is a tuple, no pair"),
    ],
)
def test_targets_that_are_none(item: Any, problem: str) -> None:
    ds = Pairs([item], NAMES, void=255)
    with pytest.raises(StoreError, match=problem):
        ds.labels(0)
    with pytest.raises(FilesError, match=problem):
        ds.concepts((2, 2), progress=False)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Tensor(np.full((3, 2, 4), -0.5)), "values from -0.5 to -0.5; leave normalisation to the model"),
        (Tensor(np.full((3, 2, 4), np.nan)), "values from nan to nan"),
        (
            np.moveaxis(photo(2, 4), 2, 0),
            r"the image is uint8\[3, 2, 4\]; give pictures of Pillow, or arrays \[h, w, 3\]",
        ),
        (Tensor(photo(2, 4)), r"or tensors \[3, h, w\]"),
        (photo(2, 4).astype(int), "give uint8, or float"),
    ],
)
def test_images_that_are_none(image: Any, problem: str) -> None:
    with pytest.raises(StoreError, match=problem):
        Pairs([(image, LABELS)], NAMES, void=255).image(0)


def test_data_sets_that_fail() -> None:
    class Broken(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            raise RuntimeError("the archive is closed")

    with pytest.raises(StoreError, match=r"sample 0: cannot be read \(RuntimeError: the archive is closed\)"):
        Pairs(Broken([1, 2]), NAMES).image(0)
    with pytest.raises(InputError, match="pairs: expected a sequence"):
        Pairs(iter([1]), NAMES)


@pytest.mark.needs("torch")
def test_tensors_of_torch() -> None:
    import torch

    image = torch.from_numpy(np.moveaxis(photo(2, 4), 2, 0).copy())
    ds = Pairs([(image / 255, torch.from_numpy(LABELS))], NAMES, void=255)
    np.testing.assert_array_equal(ds.image(0), photo(2, 4))
    assert ds.concepts((2, 4), progress=False).count("a") == 3
    assert isinstance(ds.concepts((2, 4), progress=False), ccx.Concepts)
