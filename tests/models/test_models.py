"""Networks by name: layers, sizes, normalisation, weights; and preprocessing."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

import ccx
from ccx import models
from ccx.errors import DTypeError, InputError, MissingExtraError, ShapeError, StoreError
from ccx.models import Preprocessing

needs_torch = pytest.mark.needs("torch")
needs_torchvision = pytest.mark.needs("torchvision")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5,) * 3, (0.5,) * 3)


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "layer", "side", "image", "shape"),
    [
        ("resnet18", "layer4", 224, 64, (512, 2, 2)),
        ("resnet50", "layer4", 224, 64, (2048, 2, 2)),
        ("vgg16", "features", 224, 64, (512, 2, 2)),
        ("alexnet", "features", 227, 96, (256, 2, 2)),
        ("densenet161", "features", 224, 64, (2208, 2, 2)),
    ],
)
def test_untrained_networks_are_probed_at_their_default_layer(name, layer, side, image, shape):
    import torch

    before = torch.get_rng_state()
    net = models.load(name, weights="none")
    assert torch.equal(torch.get_rng_state(), before)
    assert (net.name, net.weights, net.layers) == (name, "none", (layer,))
    assert net.preprocessing == Preprocessing(side, *HALVES)
    assert not net.module.training
    images = np.random.default_rng(0).standard_normal((2, 3, image, image), np.float32)
    found = ccx.probe(net, images)
    assert found.shape == (2, *shape)
    assert np.isfinite(found).all()
    assert found.std() > 0
    assert [parameter.shape[0] for parameter in net.module.parameters()][-1] == 1000


@needs_torchvision
def test_seeds_and_classes():
    import torch

    def weights(**options):
        return models.load("resnet18", weights="none", **options).module.state_dict()

    first, again, other = weights(classes=7), weights(classes=7), weights(classes=7, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert first["fc.weight"].shape == (7, 512)


@needs_torchvision
def test_sizes_and_normalisation():
    for name in ("resnet18", "resnet50", "vgg16", "alexnet", "densenet161"):
        side = 227 if name == "alexnet" else 224
        for weights, normalised in (("imagenet", IMAGENET), ("places365", IMAGENET), ("none", HALVES)):
            assert models.default_preprocessing(name, weights=weights) == Preprocessing((side, side), *normalised)
    assert models.default_preprocessing("inception_v3").size == (299, 299)
    assert models.default_preprocessing("vit_b_16", weights="none") == Preprocessing(224, *HALVES)
    assert models.default_preprocessing("efficientnet_b0").resampling == "bicubic"
    known = models.names()
    assert len(known) > 70
    for name in known:  # torchvision's transforms keep to one form
        assert min(models.default_preprocessing(name).size) >= 224


@needs_torchvision
def test_other_classifiers_need_a_layer():
    net = models.load("squeezenet1_1", weights="none", classes=3)
    assert net.layers == ()
    images = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(InputError, match="layers: expected a layer, got None; name one as"):
        ccx.probe(net, images)
    assert ccx.probe(net, images, "features").shape == (1, 512, 3, 3)


@needs_torchvision
def test_a_vision_transformer_of_torchvision():
    import torchvision

    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    found = ccx.probe(model, images, "encoder.layers.encoder_layer_1", tokens=(4, 4), skip=1)
    assert found.shape == (2, 16, 4, 4)


@needs_torchvision
def test_names_and_weights_that_are_none():
    for options, message in [
        ({"name": "resnet8"}, "name: expected a classifier of torchvision, got 'resnet8'; did you mean resnet18"),
        ({"name": "fcn_resnet50"}, "did you mean resnet50"),
        ({"name": 3}, "did you mean"),
        ({"weights": "coco"}, "weights: expected 'none' or 'imagenet' or 'places365', got 'coco'"),
        ({"weights": "none", "file": "x"}, "weights: expected no file beside none"),
        (
            {"weights": "places365"},
            r"file: expected Places365 weights of resnet18.*resnet18_places365\.pth\.tar at http",
        ),
        ({"weights": "places365", "name": "vgg16"}, "known to publish alexnet, densenet161, resnet18"),
        ({"weights": "places365", "name": "vgg16", "file": "."}, "got the folder"),
        ({"weights": "none", "classes": 0}, "classes: expected an integer >= 1"),
        ({"weights": "none", "classes": True}, "classes"),
    ]:
        with pytest.raises(InputError, match=message):
            models.load(**{"name": "resnet18", **options})
    for options in (
        {"file": "/nowhere.pth"},
        {"weights": "places365", "file": "/nowhere.pth"},
        {"weights": "places365", "file": "."},
    ):
        with pytest.raises(
            StoreError, match=r"(nowhere\.pth|resnet18_places365\.pth\.tar): there are no weights.*'ccx download'"
        ):
            models.load("resnet18", **options)


@needs_torchvision
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_places365_weights_of_a_resnet(tmp_path, kind):
    import torch
    import torchvision

    from tests.support import checkpoint_files as files

    torch.manual_seed(3)
    model = torchvision.models.resnet18(num_classes=365).eval()
    path = tmp_path / "resnet18_places365.pth.tar"
    files.save(files.training_state(model), path, kind)
    for weights, file in (("places365", path), ("place365", tmp_path), ("places365", str(path))):
        net = models.load("resnet18", weights=weights, file=file)
        assert net.weights == "places365"
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(net.module(images), model(images))
    if kind == "legacy":
        return
    with pytest.raises(InputError, match=r"expected weights of resnet50.*it looks like resnet18: load that"):
        models.load("resnet50", weights="places365", file=path)
    with pytest.raises(InputError, match="another number of classes: give classes=365"):
        models.load("resnet18", file=path)
    assert models.load("resnet18", file=path, classes=365).weights == "imagenet"


@needs_torchvision
def test_places365_weights_of_a_whole_densenet(tmp_path):
    import torch
    import torchvision

    from tests.support import checkpoint_files as files

    torch.manual_seed(3)
    model = torchvision.models.densenet161(num_classes=365).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
    files.save(files.rename_as_of_old(model), tmp_path / "whole_densenet161_places365_python36.pth.tar", "legacy")
    net = models.load("densenet161", weights="places365", file=tmp_path)
    with torch.no_grad():
        assert torch.equal(net.module(images), expected)


@needs_torchvision
def test_imagenet_weights_come_from_torchs_cache_or_are_downloaded_and_verified(tmp_path, monkeypatch):
    import torch
    import torchvision

    torch.manual_seed(4)
    model = torchvision.models.squeezenet1_1().eval()
    made = tmp_path / "made.pth"
    torch.save(model.state_dict(), made)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    published = tmp_path / "server" / f"squeezenet-{digest[:8]}.pth"
    published.parent.mkdir()
    published.write_bytes(made.read_bytes())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(models.named, "_torchvision_weights", lambda _name: _Weights(published.as_uri()))
    monkeypatch.setattr(models.named, "default_preprocessing", lambda *_, **__: Preprocessing())
    cached = tmp_path / "hub" / "checkpoints" / published.name
    for _ in range(2):  # downloaded, then found
        net = models.load("squeezenet1_1")
        with torch.no_grad():
            images = torch.randn(1, 3, 64, 64)
            assert torch.equal(net.module(images), model(images))
        assert cached.read_bytes() == made.read_bytes()
        published.unlink(missing_ok=True)
    cached.unlink()
    with pytest.raises(StoreError, match=r"cannot be downloaded to .*; download it by other means and give file="):
        models.load("squeezenet1_1")
    published.write_bytes(made.read_bytes() + b"x")
    with pytest.raises(StoreError, match="invalid hash value"):
        models.load("squeezenet1_1")
    assert not cached.exists()


class _Weights:
    def __init__(self, url):
        self.url = url


@needs_torch
def test_preprocessing_resizes_the_whole_image_and_normalises(tmp_path):
    import torch
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    same = Preprocessing((6, 8), (0.1, 0.2, 0.3), (0.5, 1, 2))(pixels)
    want = (pixels / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 1, 2])
    assert same.dtype == torch.float32
    np.testing.assert_allclose(same.numpy(), want.transpose(2, 0, 1), atol=1e-6)
    halves = Preprocessing((3, 4), *HALVES)(pixels)
    box = (pixels.reshape(3, 2, 4, 2, 3).mean((1, 3)) / 255 - 0.5) / 0.5
    assert halves.shape == (3, 3, 4)
    assert np.corrcoef(halves.numpy().ravel(), box.transpose(2, 0, 1).ravel())[0, 1] > 0.9  # all of it, nothing cut
    flat = np.full((5, 7, 3), 51, np.uint8)
    for resampling in ("nearest", "bilinear", "bicubic"):
        assert np.allclose(Preprocessing(9, *HALVES, resampling)(flat), (0.2 - 0.5) / 0.5)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    for image in (path, str(path), Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA")):
        assert torch.equal(Preprocessing((3, 4), *HALVES)(image), halves)


@needs_torch
def test_pictures_of_every_kind(tmp_path):
    import torch
    from PIL import Image

    grey = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    prepare = Preprocessing(4)
    three = prepare(np.repeat(grey[..., None], 3, 2))
    palette = Image.fromarray(grey).convert("P")
    for image in (grey, Image.fromarray(grey), palette):
        assert torch.equal(prepare(image), three)
    deep = Image.fromarray((grey.astype(np.uint16) << 8) | 255)
    deep.save(tmp_path / "deep.png")
    with pytest.raises(DTypeError, match="image: expected a picture of 8 bits per channel, got one of mode I;16"):
        prepare(deep)
    with pytest.raises(StoreError, match=r"deep\.png: is in L of 16 bits per channel, and no photograph of 8"):
        prepare(tmp_path / "deep.png")
    for wrong, kind in [
        (grey / 255, DTypeError),
        (torch.zeros(3, 4, 4), DTypeError),
        (3, DTypeError),
        (grey[None, None], ShapeError),
        (grey.reshape(2, 2, 4), ShapeError),
        (grey[:0], ShapeError),
    ]:
        with pytest.raises(kind, match="image: expected"):
            prepare(wrong)


def test_settings_of_preprocessing():
    assert Preprocessing(224) == Preprocessing((224, 224)) == Preprocessing([224, 224]) == Preprocessing()
    assert Preprocessing((2, 3), (0, 0, 0), (1, 1, 1)).to_dict() == {
        "size": [2, 3], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "resampling": "bilinear",
    }  # fmt: skip
    for options, message in [
        ({"size": 0}, "size"),
        ({"size": (3,)}, "size"),
        ({"size": 2.5}, "size"),
        ({"size": "224"}, "size"),
        ({"mean": 0.5}, "mean: expected three numbers"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean"),
        ({"std": (1, 1, 0)}, "std: expected three positive numbers"),
        ({"std": ("1", "1", "1")}, "std"),
        ({"resampling": "lanczos"}, "resampling"),
    ]:
        with pytest.raises(InputError, match=message):
            Preprocessing(**options)


def test_without_torch_the_message_names_the_extra(monkeypatch):
    for missing in ("torchvision", "torch"):
        monkeypatch.setitem(sys.modules, missing, None)
        for call in (models.names, lambda: models.load("resnet18"), lambda: models.default_preprocessing("resnet18")):
            with pytest.raises(MissingExtraError, match=r'a network by name needs .*"ccx\[torch\]"'):
                call()
    with pytest.raises(MissingExtraError, match="reading a checkpoint needs torch"):
        models.read_checkpoint("file")


@needs_torchvision
def test_weights_of_a_file_with_several_networks(tmp_path):
    import torch

    one, two = (models.load("squeezenet1_1", weights="none", classes=3, seed=seed).module for seed in (0, 1))
    torch.save({"state_dict": one.state_dict(), "state_dict_ema": two.state_dict()}, tmp_path / "file")
    options = {"weights": "imagenet", "file": tmp_path / "file", "classes": 3}
    with pytest.raises(InputError, match="which holds several: 'state_dict', 'state_dict_ema'; say which: key="):
        models.load("squeezenet1_1", **options)
    found = models.load("squeezenet1_1", key="state_dict_ema", **options).module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in two.state_dict().items())
