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
from tests.support.picture_files import photo, png, write

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
        ((photo(2, 4), LABELS - 1), "holds ids without a name: -1"),
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


@pytest.mark.states("Pairs", "label map [h, w, 1]", "converted", "one layer")
@pytest.mark.states("Pairs", "several layers [L, h, w]", "accepted", "as they are, also where [h, w, L] would fit")
def test_one_layer_behind(tmp_path: Path) -> None:
    for target in (LABELS[..., None], Tensor(LABELS[..., None])):
        np.testing.assert_array_equal(
            Pairs([(photo(2, 4), target)], NAMES, void=255).labels(0), [[[0, 1, 2, 0], [1, 1, 3, 0]]]
        )
    cube = np.arange(64).reshape(4, 4, 4) % 4
    np.testing.assert_array_equal(Pairs([(photo(4, 4), cube)], NAMES).labels(0), cube)


@pytest.mark.states("Pairs", "image and label map of two sizes", "refused", "let transforms treat both alike")
@pytest.mark.states("Pairs", "label map [w, h]", "refused", "transpose it")
@pytest.mark.states("Pairs", "label map [h, w, L], or in colours", "refused", "layers go first; ids of colours")
@pytest.mark.states("Pairs", "one-hot masks", "refused", "take the argmax")
@pytest.mark.parametrize("size", [(2, 4), (5, 3)])
def test_label_maps_of_another_size_or_rank(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size)
    labels[0] = 3, *range(size[1] - 1)
    one_hot = np.stack([labels == k for k in range(4)])
    for target, problem in [
        (labels.T, r"the image is \d×\d and the label map .*; transpose it: labels.swapaxes\(-1, -2\)"),
        (np.stack([labels.T] * 3), "transpose it"),
        (Image.fromarray(labels.T.astype(np.uint8)), "transpose it"),
        (labels[:1], "let transforms treat both alike"),
        (np.repeat(labels, 2, 0), "let transforms treat both alike"),
        (np.stack([labels] * 4, 2), r"layers go first: numpy.moveaxis\(labels, 2, 0\)"),
        (Image.fromarray(photo(*size)), "of coloured ones the ids of their colours"),
        (np.moveaxis(one_hot, 0, 2), r"of one-hot maps take labels.argmax\(axis=2\)"),
        (one_hot, r"looks one-hot, with one layer per concept; make ids of it: labels.argmax\(axis=0\)"),
        (one_hot.astype(np.int64), "looks one-hot"),
        (Tensor(one_hot[:2]), "looks one-hot"),
    ]:
        for image in (photo(*size), Tensor(np.moveaxis(photo(*size), 2, 0)), photo(*size)[..., 0]):
            with pytest.raises(StoreError, match=problem):
                Pairs([(image, target)], NAMES).labels(0)
    with pytest.raises(FilesError, match="sample 1: the image is"):
        Pairs([(photo(*size), labels), (photo(*size), labels.T)], NAMES).concepts((2, 2), progress=False)


class Augmenting:
    """A data set whose pairs are flipped at random; counts its calls."""

    def __init__(self, flips: Any, n: int = 40) -> None:
        self.flips, self.n, self.calls = flips, n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.calls += 1
        step = -1 if next(self.flips) else 1
        return photo(2, 4, index)[:, ::step], LABELS[:, ::step]


def flips(seed: int) -> Any:
    return iter(np.random.default_rng(seed).integers(0, 2, 10_000).tolist())


@pytest.mark.states("Pairs", "pairs that change from call to call", "refused", "switch augmentation off")
def test_random_pairs_are_refused(tmp_path: Path) -> None:
    for workers in (1, 2):
        with pytest.raises(FilesError, match=r"sample \d+: gives something else each time; switch off what is random"):
            Pairs(Augmenting(flips(0)), NAMES, void=255).concepts((2, 4), workers=workers, progress=False)
    steady = Augmenting(iter([0] * 200 + [1] * 200))
    ds = Pairs(steady, NAMES, void=255)
    for workers in (1, 2):  # what workers drew is known here
        ds.concepts((2, 4), workers=workers, progress=False)
    steady.flips = iter([1] * 9)
    for see in (ds.image, ds.labels, ds.valid, ds.present, ds.take([7, 3]).image):
        with pytest.raises(StoreError, match=r"sample 3: gives something else"):
            see(1 if getattr(see, "__self__", ds) is not ds else 3)
    out = tmp_path / "c.ccx"
    Pairs(Augmenting(iter([0] * 999)), NAMES, void=255).concepts((2, 4), progress=False, out=out)
    with pytest.raises((FilesError, StoreError), match="something else"):
        Pairs(Augmenting(iter([1] * 999)), NAMES, void=255).concepts((2, 4), progress=False, out=out)


def test_image_and_labels_come_from_one_call() -> None:
    source = Augmenting(iter([0, 0, 1, 1]), 2)
    ds = Pairs(source, NAMES, void=255).with_colors()
    ds.image(0), ds.labels(0), ds.valid(0)
    assert source.calls == 1
    ds.labels(1), ds.image(1)
    assert source.calls == 2


def test_a_changed_image_alone_is_noticed() -> None:
    class Jittering(list[Any]):
        calls = 0

        def __getitem__(self, index: Any) -> Any:
            self.calls += 1
            return photo(2, 4, self.calls), LABELS

    ds = Pairs(Jittering([0, 1]), NAMES, void=255)
    ds.image(0), ds.image(1)
    with pytest.raises(StoreError, match="sample 0: gives something else"):
        ds.labels(0)


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
