"""`ccx.probe`: every layout of outputs and kind of data, and models left as they were."""

from __future__ import annotations

import copy
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import ccx
from ccx.errors import CCXError, DTypeError, InputError, MissingExtraError, ShapeError, StoreError

torch_needed = pytest.mark.needs("torch")


@pytest.fixture
def models():
    from tests.support import probed_models

    return probed_models


@contextmanager
def unchanged(models, model):
    before = models.state(model)
    yield
    assert models.same_state(before, models.state(model))


def wanted(model, layer, images):
    """Return what a layer puts out, by a way of its own: the model's parts called one by one."""
    import torch

    modes = [module.training for module in model.modules()]
    model.eval()
    with torch.no_grad():
        x = model.layer1(torch.as_tensor(images))
        block = model.layer2[0]
        found = {
            "layer1": x,
            "layer2.0.conv1": block.conv1(x),
            "layer2.0.bn": block.bn(block.conv1(x)),
            "layer2.0": block(x.clone()),
            "layer2": block(x.clone()),
        }
        found["head"] = model.head(model.recurrent(found["layer2"].mean(3).transpose(1, 2))[0][:, -1])
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return found[layer].numpy()


@torch_needed
@pytest.mark.parametrize("layer", ["layer1", "layer2.0.conv1", "layer2.0.bn", "layer2.0", "layer2", "head"])
def test_a_layer_by_its_path(models, layer):
    model, images = models.net(), models.images()
    with unchanged(models, model):
        found = ccx.probe(model, images, layer, batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted(model, layer, images), rtol=0, atol=1e-6)


@torch_needed
def test_several_layers_in_one_pass(models):
    model, images = models.net(), models.images()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    layers = ["layer2.0.bn", "head", "layer1"]
    found = ccx.probe(model, images, layers, batch_size=5)
    assert list(found) == layers
    assert len(calls) == 2
    for layer in layers:
        np.testing.assert_allclose(found[layer], wanted(model, layer, images), rtol=0, atol=1e-6)
    assert list(ccx.probe(model, images, ["head"])) == ["head"]


@torch_needed
def test_units(models):
    model, images = models.net(), models.images()
    whole = ccx.probe(model, images, "layer1")
    assert np.array_equal(ccx.probe(model, images, "layer1", units=[3, 1, 3]), whole[:, [1, 3]])
    assert np.array_equal(ccx.probe(model, images, "layer1", units=range(1)), whole[:, :1])
    assert np.array_equal(
        ccx.probe(model, images, "head", units=np.array([4])), ccx.probe(model, images, "head")[:, 4:]
    )


@torch_needed
def test_every_kind_of_loader(models, tmp_path):
    import torch

    model, images = models.net(), models.images()
    tensor = torch.from_numpy(images)
    pairs = torch.utils.data.TensorDataset(tensor, torch.arange(10))
    whole = ccx.probe(model, images, "layer1", batch_size=4)
    done = []
    for loader in (
        tensor,
        pairs,
        list(tensor.split(4)),
        iter([(images[:4], "labels"), [tensor[4:8], None], images[8:]]),
        torch.utils.data.DataLoader(pairs, batch_size=4),
        torch.utils.data.DataLoader(pairs, batch_size=4, num_workers=1),
        {0: tensor[:4], 1: tensor[4:8], 2: tensor[8:]}.values(),
    ):
        found = ccx.probe(model, loader, "layer1", batch_size=4, progress=lambda *at: done.append(at))
        assert np.array_equal(found, whole)
    reverse = ccx.probe(model, images[::-1], "layer1")
    np.testing.assert_allclose(reverse, whole[::-1], atol=1e-6)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.array_equal(ccx.probe(model, mapped, "layer1", batch_size=4), whole)
    assert done[:4] == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert done[-1] == (10, 0)
    dropping = torch.utils.data.DataLoader(pairs, batch_size=5, drop_last=True)  # there is no rest
    np.testing.assert_allclose(ccx.probe(model, dropping, "layer1"), whole, atol=1e-6)
    assert np.array_equal(ccx.probe(model, pairs, "layer1", batch_size=4, workers=2), whole)


@torch_needed
def test_random_numbers_are_left_alone(models):
    import torch

    before = torch.get_rng_state()
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(models.images()), torch.arange(10))
    ccx.probe(models.net(), pairs, "layer1")
    assert torch.equal(torch.get_rng_state(), before)


@torch_needed
def test_images_are_preprocessed_one_by_one(models, tmp_path):
    import torch
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8 + i, 10, 3), dtype=np.uint8) for i in range(12)]
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    prepare = ccx.models.Preprocessing((9, 11))
    model = models.net()
    whole = ccx.probe(model, torch.stack([prepare(pixels) for pixels in pictures]), "layer1")

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            return Image.fromarray(pictures[index]), index

    class Annotated:
        images = pictures

    named = ccx.models.NamedModel("net", "none", model, ("layer1",), prepare)
    for loader in (
        tmp_path,
        str(tmp_path),
        pictures,
        [Image.fromarray(pixels) for pixels in pictures],
        [tmp_path / f"{i}.png" for i in range(12)],
        Pairs(),
        Annotated(),
    ):
        assert np.array_equal(ccx.probe(model, loader, "layer1", preprocessing=prepare), whole)
        assert np.array_equal(ccx.probe(named, loader), whole)
    same_size = np.stack([pictures[0], pictures[0][::-1]])
    prepared = torch.stack([prepare(pixels) for pixels in same_size])
    for loader in (same_size, torch.from_numpy(same_size)):
        assert np.array_equal(ccx.probe(named, loader), ccx.probe(model, prepared, "layer1"))
    assert np.array_equal(ccx.probe(named, prepared), ccx.probe(model, prepared, "layer1"))  # ready already


@torch_needed
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named(models, tmp_path, workers):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for i in range(4):
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
    whole = (tmp_path / "2.jpg").read_bytes()
    prepare = ccx.models.Preprocessing(16)
    model = models.net()
    for content, message in [
        (whole[: len(whole) // 2], "truncated"),
        (b"", "no picture, or its head is damaged"),
        (b"x" * 99, "no picture, or its head is damaged"),
    ]:
        (tmp_path / "2.jpg").write_bytes(content)
        with (
            unchanged(models, model),
            pytest.raises(StoreError, match=rf"2\.jpg: .*{message}.*; copy or download it again"),
        ):
            ccx.probe(model, tmp_path, "layer1", preprocessing=prepare, workers=workers)
    (tmp_path / "2.jpg").unlink()
    missing = [tmp_path / "0.jpg", tmp_path / "2.jpg"]
    with pytest.raises(StoreError, match=r"2\.jpg: .*No such file"):
        ccx.probe(model, missing, "layer1", preprocessing=prepare, workers=workers)
    with pytest.raises(DTypeError, match=r"image: expected .*, got float32 values \(sample 1\); "):
        ccx.probe(model, [pixels, pixels.astype(np.float32)], "layer1", preprocessing=prepare, workers=workers)


@torch_needed
def test_tokens_on_their_grid(models):
    import torch

    torch.manual_seed(1)
    model = models.Transformer()
    images = models.images(5, 6, 8)
    tokens = ccx.probe(model, images, "last")
    assert tokens.shape == (5, 8, 13)
    model.eval()
    with torch.no_grad():
        want = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(tokens, want.transpose(0, 2, 1), atol=1e-6)
    grid = ccx.probe(model, images, "last", tokens=(3, 4), skip=1)
    assert np.array_equal(grid, tokens[:, :, 1:].reshape(5, 8, 3, 4))
    assert np.array_equal(ccx.probe(model, images, "last", skip=2), tokens[:, :, 2:])
    assert np.array_equal(ccx.probe(model, images, "last", tokens=(3, 4), skip=1, units=[7, 0]), grid[:, [0, 7]])
    both = ccx.probe(model, images, ["patch", "last"], tokens=(3, 4), skip=1)
    assert both["patch"].shape == (5, 8, 3, 4)
    assert np.array_equal(both["last"], grid)
    for options, message in [
        ({"tokens": (4, 4), "skip": 1}, r"expected 4×4 tokens behind 1 that are skipped, got \[5, 13, 8\] from 'last'"),
        ({"tokens": (3, 4)}, r"expected 3×4 tokens behind 0"),
        ({"skip": 13}, "skip: expected tokens beyond those skipped"),
    ]:
        with pytest.raises(ShapeError, match=message):
            ccx.probe(model, images, "last", **options)
    with pytest.raises(InputError, match="tokens: expected a layer that puts out tokens, three axes, got 4 axes"):
        ccx.probe(model, images, "patch", tokens=(3, 4))
    sequence_first = models.Transformer(batch_first=False)
    with pytest.raises(ShapeError, match=r"outputs of the 5 samples .* build the model with batch_first=True"):
        ccx.probe(sequence_first, images, "last")


@torch_needed
def test_texts(models):
    import torch

    model = models.Text()
    ids = np.random.default_rng(0).integers(0, 20, (7, 9))
    found = ccx.probe(model, ids, ["embedding", "mix"], batch_size=3)
    assert np.array_equal(found["embedding"], model.embedding.weight.detach().numpy()[ids].transpose(0, 2, 1))
    assert found["mix"].shape == (7, 9, 3)  # taken for [n, T, U]
    mixed = ccx.probe(model, ids, "mix", unit_axis=1)
    assert mixed.shape == (7, 3, 9)
    np.testing.assert_allclose(mixed, found["mix"].transpose(0, 2, 1), atol=1e-6)
    mask = (np.arange(9) < 5).astype(np.int64)[None].repeat(7, 0)
    batches = [{"input_ids": torch.as_tensor(ids[:4]), "attention_mask": torch.as_tensor(mask[:4])}]
    batches.append({"attention_mask": mask[4:], "input_ids": ids[4:]})
    masked = ccx.probe(model, batches, "mix", unit_axis=-2)
    np.testing.assert_allclose(masked[..., 0], mixed[..., 0], atol=1e-6)
    assert np.ptp(masked[..., 6:], axis=2).max() < 1e-6  # nothing but the bias
    whole = {"input_ids": ids, "attention_mask": torch.as_tensor(mask)}
    np.testing.assert_allclose(ccx.probe(model, whole, "mix", unit_axis=1, batch_size=3), masked, atol=1e-6)
    with pytest.raises(ShapeError, match="one number of samples"):
        ccx.probe(model, {**whole, "attention_mask": mask[:3]}, "mix", unit_axis=1)
    lengths = [ids[:4], ids[4:, :6]]
    with pytest.raises(ShapeError, match=r"one shape \(so far 'embedding' put out \[6, 9\].*\[6, 6\]; .*pad texts"):
        ccx.probe(model, lengths, "embedding")

    class Encoded(torch.utils.data.Dataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return {"input_ids": ids[index], "attention_mask": mask[index]}

    np.testing.assert_allclose(ccx.probe(model, Encoded(), "mix", unit_axis=1, batch_size=4), masked, atol=1e-6)


@torch_needed
def test_channels_last(models):
    import torch

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Identity()

        def forward(self, x):
            return self.layer(x.permute(0, 2, 3, 1))

    images = models.images(3)
    assert np.array_equal(ccx.probe(Last(), images, "layer", unit_axis=-1), images)
    assert np.array_equal(ccx.probe(Last(), images, "layer", unit_axis=3, units=[2]), images[:, 2:])


@torch_needed
def test_a_layer_that_runs_several_times(models):
    model, images = models.net(), models.images()
    with unchanged(models, model), pytest.raises(InputError, match=r"'layer2\.0\.relu', which ran 2 times.*call=0"):
        ccx.probe(model, images, "layer2.0.relu")
    last = ccx.probe(model, images, "layer2.0.relu", call=-1)
    first = ccx.probe(model, images, "layer2.0.relu", call=0)
    assert np.array_equal(last, ccx.probe(model, images, "layer2.0"))
    np.testing.assert_allclose(first, np.maximum(wanted(model, "layer2.0.bn", images), 0), atol=1e-6)
    with pytest.raises(InputError, match=r"call: expected a run of 'layer2\.0\.relu', from 0 to 1, got 2"):
        ccx.probe(model, images, "layer2.0.relu", call=2)


@torch_needed
def test_mixed_precision_and_half_storage(models):
    model, images = models.net(), models.images()
    exact = ccx.probe(model, images, "layer2")
    with unchanged(models, model):
        mixed = ccx.probe(model, images, "layer2", precision="bfloat16")
    assert mixed.dtype == np.float32
    assert not np.array_equal(mixed, exact)
    np.testing.assert_allclose(mixed, exact, atol=0.05)
    half = ccx.probe(model, images, "layer2", dtype="float16")
    assert np.array_equal(half, exact.astype(np.float16))
    with pytest.raises(DTypeError, match="dtype: expected values within float16, got larger ones in 'layer1'"):
        ccx.probe(model, images * 1e6, "layer1", dtype="float16")


@torch_needed
def test_layers_that_cannot_be_probed(models):
    import torch

    model, images = models.net(), models.images()
    for layer, kind, message in [
        ("layer3", InputError, "got 'layer3'; did you mean .*layer1"),
        ("layer2.0.conv", InputError, "did you mean layer2.0.conv1"),
        ("recurrent", InputError, "a layer that puts out one tensor, got a tuple from 'recurrent'"),
        ("unused", InputError, "a layer that runs, got 'unused', which did not"),
        (None, InputError, "layers: expected a layer, got None; .*, such as layer1, .*"),
        ([], InputError, "layers: expected a layer"),
        (["layer1", "layer1"], InputError, "each layer once"),
        ([3], DTypeError, "layer: expected the path of a module, got int"),
    ]:
        with unchanged(models, model), pytest.raises(kind, match=message):
            ccx.probe(model, images, layer)
    with pytest.raises(InputError, match=r"units: expected units 0\.\.3 of 'layer1', got 4"):
        ccx.probe(model, images, "layer1", units=[0, 4])
    with pytest.raises(DTypeError, match=r"model: expected a torch\.nn\.Module"):
        ccx.probe(model.state_dict(), images, "layer1")

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Flatten(0)
            self.counts = torch.nn.Identity()

        def forward(self, x):
            self.counts(x.long())
            return self.layer(x)

    with pytest.raises(ShapeError, match="outputs of two to four axes"):
        ccx.probe(Wide(), images, "layer")
    with pytest.raises(DTypeError, match=r"outputs of floats, got torch\.int64 from 'counts'"):
        ccx.probe(Wide(), images, "counts")


@torch_needed
def test_data_that_cannot_be_probed(models):
    import torch

    model, images = models.net(), models.images()

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(images)

    shuffling = torch.utils.data.DataLoader(images, batch_size=2, shuffle=True)
    for loader, kind, message in [
        (shuffling, InputError, "samples in a fixed order"),
        (3, DTypeError, "an iterable of batches"),
        ([], InputError, "at least one batch, got none"),
        (iter([]), InputError, "at least one batch"),
        (Stream(), InputError, "got an iterable one; wrap it"),
        ([{"x": images, "y": images[:3]}], ShapeError, "one number of samples"),
        ([{"x": "text"}], DTypeError, "got entry 'x' of type str"),
        ([("a path", 1), 2], DTypeError, "got a batch of type str"),
        (images[0, 0, 0], ShapeError, "not single samples"),
        ([(255 * images).astype(np.uint8)], DTypeError, "images of floats, got uint8"),
        ((255 * images).astype(np.uint8), DTypeError, "images of floats, got uint8"),
        ("/nowhere/at/all", StoreError, "/nowhere/at/all: cannot read this folder"),
        ([images[0].astype(np.uint8)[0]] * 2, DTypeError, "images of floats, got uint8"),
    ]:
        with unchanged(models, model), pytest.raises(kind, match=message):
            ccx.probe(model, loader, "layer1")
    with pytest.raises(StoreError, match="has no picture files"):
        ccx.probe(model, "tests/support/parity", "layer1")

    class Mixed(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.zeros(3, 8 + index, 9)

    with pytest.raises(
        ShapeError, match=r"loader: expected samples of one shape, got \[3, 8, 9\], \[3, 9, 9\]; resize"
    ):
        ccx.probe(model, Mixed(), "layer1")

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return "a picture", index

    with pytest.raises(DTypeError, match=r"got str \(sample 0\); pass preprocessing="):
        ccx.probe(model, Pictures(), "layer1")


@torch_needed
def test_options_that_are_none(models):
    model, images = models.net(), models.images()
    for options, message in [
        ({"units": 3}, "units: expected a list of units, got 3; give indices"),
        ({"units": []}, "units: expected at least one"),
        ({"units": [-1]}, "units: expected an integer >= 0"),
        ({"units": [True]}, "units"),
        ({"tokens": 3}, r"tokens: expected None or \(h, w\)"),
        ({"tokens": (0, 3)}, "tokens"),
        ({"skip": -1}, "skip"),
        ({"skip": True}, "skip"),
        ({"unit_axis": "1"}, "unit_axis"),
        ({"unit_axis": 0}, "unit_axis: expected an axis of"),
        ({"unit_axis": 4}, "unit_axis: expected an axis of"),
        ({"call": 0.5}, "call"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1, got 0"),
        ({"workers": -1}, "workers: expected 0 to 1024"),
        ({"workers": 10**9}, "workers: expected 0 to 1024, got 1000000000; one per processor is plenty"),
        ({"precision": "half"}, "precision: expected 'float32' or 'bfloat16' or 'float16'"),
        ({"dtype": "float64"}, "dtype"),
        ({"data_id": ""}, "data_id"),
        ({"progress": 3}, "progress"),
        ({"device": "nowhere"}, "device: expected a device of this machine"),
        ({"device": "cuda:99"}, "device: expected a device of this machine"),
    ]:
        with unchanged(models, model), pytest.raises(InputError, match=message):
            ccx.probe(model, images, "layer1", **options)


@torch_needed
def test_an_exception_leaves_the_model_as_it_was(models):
    model, images = models.net(), models.images()

    def failing(error):
        yield images[:3]
        raise error

    for error in (KeyboardInterrupt(), ValueError("mine"), SystemExit(1)):
        with unchanged(models, model), pytest.raises(type(error)):
            ccx.probe(model, failing(error), "layer1")
    with unchanged(models, model), pytest.raises(ShapeError, match="to have 3 channels"):
        ccx.probe(model, images[:, :2], "layer1")


@torch_needed
def test_the_device_is_given_back(models, monkeypatch):
    """The device "meta" stands in for a GPU: the model moves there, and back when the layer cannot be copied."""
    import torch

    model, images = models.net(), models.images()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    moves = []
    move = torch.nn.Module.to

    def to(self, place):
        moves.append(str(place))
        if str(place) == "meta":
            raise RuntimeError("out of memory")
        return move(self, place)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(RuntimeError, match="out of memory"):
        ccx.probe(model, images, "layer1", device="meta")
    assert moves == ["meta", "cpu"]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    ccx.probe(model, images, "layer1", device="cpu")
    assert "meta" not in moves[2:]


@torch_needed
def test_arrays_too_large_for_memory(models, monkeypatch):
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="give out=, a folder"):
        ccx.probe(models.net(), models.images(), "layer1")


@pytest.mark.parametrize("kind", [InputError, DTypeError, ShapeError])
def test_errors_of_arguments_can_be_copied(kind):
    error = kind("loader", wanted="batches", got="none", remedy="give some")
    copied = copy.copy(error)
    assert (type(copied), str(copied), vars(copied)) == (kind, str(error), vars(error))


def test_without_torch_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'probing needs torch: install it with  pip install "ccx\[torch\]"'):
        ccx.probe(None, [], "layer4")
    assert issubclass(MissingExtraError, CCXError)
