"""Keys of samples through a network: what `ccx.probe` returns and stores, and what it is paired with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ccx
from ccx.datasets import Folder
from ccx.errors import InputError, StoreError
from ccx.probing import read_activations
from ccx.probing.storing import stored_keys
from tests.support.picture_files import png, write

pytestmark = pytest.mark.needs("torch")

KEYS = tuple(f"{number}.png" for number in range(1, 13))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, the later the brighter, and label maps: dark up to 6, bright behind."""
    root = tmp_path_factory.mktemp("numbered")
    for number in range(1, 13):
        write(root / "images" / f"{number}.png", png(np.full((8, 8, 3), number * 20, np.uint8)))
        write(root / "labels" / f"{number}.png", png(np.full((8, 8), 1 + (number > 6), np.uint8)))
    return root


def brightness() -> Any:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1, bias=False))
    torch.nn.init.constant_(net[0].weight, 1.0)
    return net


def probed(loader: Any, **options: Any) -> Any:
    plain = ccx.models.Preprocessing(8, mean=(0, 0, 0), std=(1, 1, 1))
    return ccx.probe(brightness(), loader, "0", **{"preprocessing": plain, "progress": False} | options)


def annotated(root: Path) -> Folder:
    return Folder(root / "images", root / "labels", ["dark", "bright"])


def test_pictures_of_a_folder_meet_their_labels(root: Path) -> None:
    """Pictures and label maps stood in two orders, each right in itself: 1, 2, 10 and 1, 10, 2."""
    maps = probed(root / "images")
    concepts = annotated(root).concepts((8, 8), workers=1, progress=False)
    found = ccx.explain(maps, concepts, ranges=[(1.5, np.inf)], length=1, progress=False)[0]
    assert (str(found.formula), found.iou) == ("bright", 1.0)
    assert maps.keys == concepts.keys == KEYS


@pytest.mark.states(
    "Keys of samples", "files in another order than the concepts", "refused", "ccx.align, or list the folder"
)
@pytest.mark.parametrize("kind", ["list of paths", "torchvision's", "loader of torchvision's", "subset"])
def test_files_in_another_order_are_noticed(root: Path, kind: str) -> None:
    import torch

    class Images(torch.utils.data.Dataset):
        """As torchvision's: files sorted by their texts."""

        def __init__(self) -> None:
            self.root = str(root / "images")
            self.samples = [(str(path), 0) for path in sorted((root / "images").iterdir())]

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, index: int) -> Any:
            from PIL import Image

            with Image.open(self.samples[index][0]) as image:
                return torch.from_numpy(np.asarray(image, np.float32) / 255).movedim(2, 0), 0

    by_text = sorted((root / "images").iterdir())
    data: Any = {
        "list of paths": by_text,
        "torchvision's": Images(),
        "loader of torchvision's": torch.utils.data.DataLoader(Images(), batch_size=5),
        "subset": torch.utils.data.Subset(Images(), range(12)),
    }[kind]
    maps = probed(data)
    assert maps.keys == tuple(path.name for path in by_text)
    concepts = annotated(root).concepts((8, 8), workers=1, progress=False)
    with pytest.raises(
        InputError, match=r"'2.png' at position 1, got '10.png' there, all 12 in another order.*ccx.align"
    ):
        ccx.explain(maps, concepts, progress=False)
    aligned = ccx.align(maps, concepts)
    np.testing.assert_array_equal(aligned, probed(root / "images"))
    assert ccx.explain(aligned, concepts, ranges=[(1.5, np.inf)], length=1, progress=False)[0].iou == 1.0


@pytest.mark.needs("torchvision")
def test_image_folders_of_torchvision(tmp_path: Path) -> None:
    """They list files by their texts, and class by class."""
    from torchvision.datasets import ImageFolder

    names = ("bus/2.png", "bus/10.png", "car/1.png")
    for number, name in enumerate(names):
        write(tmp_path / "images" / name, png(np.full((8, 8, 3), 50 * number, np.uint8)))
    maps = probed(ImageFolder(str(tmp_path / "images")))
    assert maps.keys == ("bus/10.png", "bus/2.png", "car/1.png")
    listed = probed(tmp_path / "images")
    assert listed.keys == names
    np.testing.assert_array_equal(ccx.align(maps, listed), listed)


def test_data_sets_give_their_keys(root: Path) -> None:
    some = annotated(root).take([3, 0])
    assert probed(some).keys == some.keys == ("4.png", "1.png")
    both = ccx.probe(brightness(), root / "images", ["0"], preprocessing=ccx.models.Preprocessing(8), progress=False)
    assert both["0"].keys == KEYS


@pytest.mark.states("Keys of samples", "batches and arrays to probe", "accepted", "keys= names the samples")
def test_batches_have_the_keys_that_are_given() -> None:
    images = np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32)
    keys = ["a", "b", "c", "d"]
    for data in (images, [images[:3], images[3:]], iter([images[:3], images[3:]]), ccx.Activations(images, keys)):
        assert probed(data, keys=keys).keys == tuple(keys)
    assert probed(ccx.Activations(images, keys)).keys == tuple(keys)
    assert type(probed(images)) is np.ndarray
    assert type(probed([images[:3], images[3:]])) is np.ndarray
    for data in (images, iter([images])):
        with pytest.raises(InputError, match="keys: expected 4 keys, got 3"):
            probed(data, keys=keys[:3])
    with pytest.raises(InputError, match="distinct keys"):
        probed(images, keys=["a", "a", "b", "c"])


def test_a_folder_keeps_the_keys(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    maps = probed(root / "images", out=out)
    assert maps.keys == stored_keys(out / "0.npy") == KEYS
    again = read_activations(out / "0.npy")
    assert again.keys == KEYS
    np.testing.assert_array_equal(again, maps)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "timings.jsonl"}
    assert probed(root / "images", out=out).keys == KEYS  # reopened
    pixels = np.stack([np.full((8, 8, 3), number * 20, np.uint8) for number in range(1, 13)])
    assert probed(pixels, out=out).keys == KEYS  # the same content, as an array without keys
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != "timings.jsonl"} == before
    with pytest.raises(StoreError, match=r"sample 0 is 1.png there, and a1.png in the data"):
        probed(root / "images", out=out, keys=[f"a{key}" for key in KEYS])
    anew = probed(root / "images", out=out, keys=[f"a{key}" for key in KEYS], overwrite=True)
    assert anew.keys[0] == "a1.png"
    assert type(probed(pixels, out=out, overwrite=True)) is np.ndarray
    assert stored_keys(out / "0.npy") is None
    assert type(read_activations(out / "0.npy")) is np.ndarray
    write(root / "other.npy", b"")
    assert stored_keys(root / "other.npy") is None


@pytest.mark.states(
    "Keys of samples", "folders of activations of an older ccx", "accepted", "keys come with the next comparison"
)
def test_a_folder_without_keys_gets_them_when_its_samples_are_compared(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    probed(root / "images", out=out)
    (out / "keys.json").unlink()
    with pytest.raises(StoreError, match=r"sample 0 \(2.png\) of the data is not the one"):
        probed(annotated(root).take([1, 0, *range(2, 12)]), out=out)
    assert stored_keys(out / "0.npy") is None
    assert probed(root / "images", out=out).keys == stored_keys(out / "0.npy") == KEYS
    believed = tmp_path / "believed"
    probed(root / "images", out=believed, data_id="numbered")
    assert probed(root / "images", out=believed, data_id="numbered").keys == KEYS
    with pytest.raises(StoreError, match=r"sample 1 is 2.png there, and 10.png in the data"):
        probed(sorted((root / "images").iterdir()), out=believed, data_id="numbered")
    (believed / "keys.json").unlink()  # of an older ccx: nobody knows in which order it listed the folder
    with pytest.raises(
        StoreError, match=r"holds samples without keys, and data_id= hides whether .* keys=, pass overwrite"
    ):
        probed(root / "images", out=believed, data_id="numbered")
    assert probed(root / "images", out=believed, data_id="numbered", keys=KEYS).keys == KEYS
    assert probed(root / "images", out=believed, data_id="numbered").keys == KEYS


def test_a_killed_probe_goes_on_with_its_keys(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = annotated(root)

    def stop(done: int, _total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probed(files, out=out, batch_size=2, progress=stop)
    with pytest.raises(StoreError, match=r"sample 0 is 1.png there, and x in the data"):
        probed(files, out=out, batch_size=2, keys=["x", *KEYS[1:]])
    whole = probed(files, out=out, batch_size=2)
    assert whole.keys == KEYS
    np.testing.assert_array_equal(whole, probed(files))


def test_a_damaged_list_of_keys(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    probed(root / "images", out=out)
    for content in ('{"format":"ccx.keys/1"}', '{"format":"ccx.keys/1","keys":[1]}', "{", '{"format":"ccx.keys/2"}'):
        (out / "keys.json").write_text(content)
        with pytest.raises(StoreError, match=r"keys.json"):
            probed(root / "images", out=out)
        with pytest.raises(StoreError, match=r"keys.json"):
            read_activations(out / "0.npy")
    (out / "keys.json").write_text(json.dumps({"format": "ccx.keys/1", "keys": KEYS[:3]}))
    with pytest.raises(StoreError, match=r"damaged: \(12,\) samples with 3 keys"):
        read_activations(out / "0.npy")
    for content in (None, b"", b"no array"):
        (out / "0.npy").unlink() if content is None else (out / "0.npy").write_bytes(content)
        with pytest.raises(StoreError, match=r"0.npy: cannot (read it|be read)"):
            read_activations(out / "0.npy")


def test_too_few_stored_keys(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    probed(root / "images", out=out)
    (out / "keys.json").write_text(json.dumps({"format": "ccx.keys/1", "keys": KEYS[:3]}))
    with pytest.raises(StoreError, match=r"sample 3 is not there, and 4.png in the data"):
        probed(root / "images", out=out)
