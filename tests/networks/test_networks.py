"""Layers of torch models: found, recorded, and models left as they were."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import numpy as np
import pytest

from ccx import networks
from ccx.errors import DTypeError, InputError, MissingExtraError, ShapeError


def build():
    """Return a small model with what makes recording hard: work in place, a layer used twice, one never, a tuple."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(2, 2, 3, padding=1)
            self.bn = nn.BatchNorm2d(2)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            out = self.relu(self.bn(self.conv1(x)))
            out += x
            return self.relu(out)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
            self.layer2 = nn.Sequential(Block(), nn.Dropout(0.5))
            self.recurrent = nn.GRU(2, 3, batch_first=True)
            self.unused = nn.Linear(1, 1)

        def forward(self, x):
            x = self.layer2(self.layer1(x))
            outputs, _ = self.recurrent(x.mean(dim=3).transpose(1, 2))
            return outputs

    torch.manual_seed(0)  # of the tests, not of the library
    return Net()


@pytest.fixture
def model():
    net = build()
    net.train()
    net.layer2[0].bn.eval()  # frozen
    return net


@pytest.fixture
def images():
    import torch

    return torch.randn(4, 3, 8, 9, generator=torch.Generator().manual_seed(1))


def state(model):
    modes = [module.training for module in model.modules()]
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    return modes, hooks, {name: value.clone() for name, value in model.state_dict().items()}


@contextmanager
def unchanged(model):
    import torch

    modes, hooks, values = state(model)
    assert hooks == 0
    yield
    assert state(model)[:2] == (modes, 0)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in values.items())


@pytest.mark.needs("torch")
def test_a_path_leads_to_its_module(model):
    assert networks.resolve_layer(model, "layer2") is model.layer2
    assert networks.resolve_layer(model, "layer2.0.conv1") is model.layer2[0].conv1
    model.alias = model.layer1
    assert networks.resolve_layer(model, "alias.0") is model.layer1[0]


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("layer3", "layer: expected a module of Net, got 'layer3'; did you mean .*layer1"),
        ("layer2.0.conv", "did you mean layer2.0.conv1"),
        ("zzz", "its outermost modules are layer1, layer2, recurrent, unused"),
        ("", "outermost"),
    ],
)
def test_a_wrong_path_lists_close_ones(model, path, message):
    for function in (networks.resolve_layer, lambda *args: networks.record(*args, None)):
        with unchanged(model), pytest.raises(InputError, match=message):
            function(model, path)


@pytest.mark.needs("torch")
def test_what_is_no_model_or_no_path(model):
    for wrong, path, message in [({"a": 1}, "a", "model: expected a torch.nn.Module, got dict"), (model, 3, "layer")]:
        with pytest.raises(DTypeError, match=message):
            networks.resolve_layer(wrong, path)


@pytest.mark.needs("torch")
def test_record_gives_the_layers_output_in_evaluation_mode(model, images):
    import torch

    with unchanged(model):
        got = networks.record(model, "layer2", images)
    model.eval()
    with torch.no_grad():
        want = model.layer2(model.layer1(images))
    assert torch.equal(got, want)
    assert not got.requires_grad
    assert torch.equal(networks.record(model, "layer2", images.numpy()), want)


@pytest.mark.needs("torch")
def test_later_work_in_place_does_not_reach_the_record(model, images):
    import torch

    got = networks.record(model, "layer2.0.bn", images)
    model.eval()
    with torch.no_grad():
        block = model.layer2[0]
        want = block.bn(block.conv1(model.layer1(images)))
    assert torch.equal(got, want)
    assert (got < 0).any()  # what the ReLU behind it would have removed


@pytest.mark.needs("torch")
def test_of_a_layer_that_runs_twice_the_last_output_counts(model, images):
    import torch

    assert torch.equal(networks.record(model, "layer2.0.relu", images), networks.record(model, "layer2.0", images))


@pytest.mark.needs("torch")
def test_recording_runs_many_batches(model, images):
    import torch

    whole = networks.record(model, "layer1", images)
    with unchanged(model), networks.recording(model, "layer1") as outputs_of:
        parts = [outputs_of(images[i : i + 1]) for i in range(4)]
        assert not model.layer1.training
        assert torch.is_grad_enabled()  # only the runs themselves are without gradients
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.needs("torch")
def test_several_layers_are_recorded_call_by_call(model, images):
    import torch

    layers = ["layer2.0.relu", "layer1"]
    with unchanged(model), networks.recording_calls(model, layers, lambda layer, out: (layer, out.clone())) as run:
        found = run(x=images)
        assert list(found) == layers
        assert [layer for layer, _ in found["layer2.0.relu"]] == ["layer2.0.relu"] * 2
        assert torch.equal(found["layer2.0.relu"][1][1], networks.record(model, "layer2.0", images))
        assert torch.equal(found["layer1"][0][1], networks.record(model, "layer1", images))
        again = run(images[:1])
        assert again["layer1"][0][1].shape[0] == 1
        assert found["layer1"][0][1].shape[0] == 4  # what was given stays
        with (
            pytest.raises(InputError, match="a layer that runs, got 'unused'"),
            networks.recording_calls(model, ["layer1", "unused"], lambda _layer, out: out) as other,
        ):
            other(images)


@pytest.mark.needs("torch")
def test_layers_without_one_tensor(model, images):
    with unchanged(model), pytest.raises(InputError, match="a layer that puts out one tensor, got a tuple from 'recur"):
        networks.record(model, "recurrent", images)
    with unchanged(model), pytest.raises(InputError, match="a layer that runs, got 'unused', which did not"):
        networks.record(model, "unused", images)


@pytest.mark.needs("torch")
def test_a_tuple_from_a_module_with_children_names_them(images):
    from torch import nn

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.left(x), self.right(x)

    model = nn.Sequential(Pair())
    with unchanged(model), pytest.raises(InputError, match=r"choose one inside it: 0\.left, 0\.right"):
        networks.record(model, "0", images)
    assert networks.record(model, "0.left", images).min() == 0  # no parameters: the batch stays where it is


@pytest.mark.needs("torch")
def test_an_exception_leaves_the_model_as_it_was(model, images):
    with unchanged(model), pytest.raises(ShapeError, match="to have 3 channels"):
        networks.record(model, "layer1", images[:, :2])
    with unchanged(model), pytest.raises(KeyboardInterrupt), networks.recording(model, "layer1"):
        raise KeyboardInterrupt
    with unchanged(model), pytest.raises(ValueError, match="mine"), networks.evaluating(model):
        raise ValueError("mine")


@pytest.mark.needs("torch")
def test_a_batch_moves_to_the_device_of_the_model(model, images):
    assert networks.record(model.to("meta"), "layer1", images).device.type == "meta"


@pytest.mark.needs("torch")
def test_a_failed_batch_gives_no_older_output(images):
    from torch import nn

    class Moody(nn.Module):
        """Runs its layer and fails, then works without it."""

        def __init__(self):
            super().__init__()
            self.layer, self.failed = nn.ReLU(), False

        def forward(self, x):
            if not self.failed:
                self.failed = True
                self.layer(x)
                raise RuntimeError
            return x

    with networks.recording(Moody(), "layer") as outputs_of:
        with pytest.raises(RuntimeError):
            outputs_of(images)
        with pytest.raises(InputError, match="which did not"):
            outputs_of(images)


@pytest.mark.needs("torch")
def test_the_model_runs_without_gradients(model, images):
    import torch

    seen = []
    model.layer2.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    networks.record(model, "layer1", images)
    assert seen == [False]


@pytest.mark.needs("torch")
def test_batches_of_any_loader(images):
    import torch

    pairs = torch.utils.data.TensorDataset(images, torch.arange(4))
    for loader in (
        [images[:3], images[3:]],
        iter([(images[:2], "labels"), [images[2:], None, None]]),
        [images.numpy()],
        torch.utils.data.DataLoader(pairs, batch_size=3),
    ):
        assert torch.equal(torch.cat(list(networks.image_batches(loader))), images)
    assert list(networks.image_batches([])) == []


@pytest.mark.needs("torch")
def test_loaders_that_cannot_be_used(images):
    import torch

    shuffling = torch.utils.data.DataLoader(images, batch_size=2, shuffle=True)
    for kind, message, loader in [
        (InputError, "loader: expected samples in a fixed order", shuffling),
        (DTypeError, "loader: expected an iterable of batches", 3),
        (DTypeError, "loader: expected arrays of images, got dict", [{"images": images}]),
        (DTypeError, "loader: expected arrays of images, got str", [("path", 1)]),
        (DTypeError, r"loader: expected images of floats, got uint8\[1, 3, 2, 2\]", [np.zeros((1, 3, 2, 2), np.uint8)]),
        (ShapeError, r"loader: expected images \[n, channels", images),  # images one by one
        (ShapeError, "loader", [()]),
    ]:
        with pytest.raises(kind, match=message):
            list(networks.image_batches(loader))


def test_without_torch_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (
        lambda: networks.resolve_layer(None, "layer4"),
        lambda: networks.record(None, "layer4", None),
        lambda: list(networks.image_batches([])),
    ):
        with pytest.raises(MissingExtraError, match=r'needs torch: install it with  pip install "ccx\[torch\]"'):
            call()
