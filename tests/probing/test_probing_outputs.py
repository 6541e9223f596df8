"""Layers that put out several things, models that run otherwise than usual, and batches of several inputs."""

from __future__ import annotations

import collections
import dataclasses
import warnings

import numpy as np
import pytest

import ccx
from ccx import networks
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.studies import ranges_importance

pytestmark = pytest.mark.needs("torch")


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@dataclasses.dataclass
class Answer:
    """What a network may put out."""

    hidden: object
    states: object
    loss: object = None


Pair = collections.namedtuple("Pair", ["left", "right"])


def several(kind):
    """Return a network whose layer puts out several things, of which the head takes one."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.unused = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            left, right = self.left(x), self.right(x)
            return {
                "tuple": lambda: (left, right),
                "list": lambda: [left, right],
                "named tuple": lambda: Pair(left, right),
                "mapping": lambda: collections.OrderedDict(hidden=left, states=(left, right)),
                "object": lambda: Answer(left, [left, right]),
                "one": lambda: (left, None),
                "keys with dots": lambda: {"a.b": left, "c": right},
            }[kind]()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = Layer(), nn.Linear(4, 3)

        def forward(self, x):
            found = self.layer(x)
            if kind in ("mapping", "object"):
                found = (found["states"] if kind == "mapping" else found.states)[1]
            elif kind == "keys with dots":
                found = found["c"]
            else:
                found = found[0]
            return self.head(found)

    torch.manual_seed(0)
    return Model()


@pytest.mark.states(
    "Networks",
    "a layer that puts out a tuple, a mapping or an object",
    "accepted",
    'say which entry: `output=0`, `output="last_hidden_state"`, `output="states.0"`',
)
@pytest.mark.parametrize(
    ("kind", "output", "part"),
    [
        ("tuple", 0, "left"),
        ("tuple", 1, "right"),
        ("tuple", -1, "right"),
        ("tuple", "1", "right"),
        ("list", 1, "right"),
        ("named tuple", "right", "right"),
        ("mapping", "hidden", "left"),
        ("mapping", "states.1", "right"),
        ("object", "hidden", "left"),
        ("object", "states.1", "right"),
        ("one", None, "left"),
        ("one", 0, "left"),
        ("keys with dots", "a.b", "left"),
    ],
)
def test_an_entry_of_what_a_layer_puts_out(kind, output, part, tmp_path):
    model, x = several(kind), rows(5, 6)
    want = ccx.probe(model, x, f"layer.{part}")
    assert np.array_equal(ccx.probe(model, x, "layer", output=output), want)
    assert np.array_equal(ccx.probe(model, x, "layer", output=output, out=tmp_path), want)
    both = ccx.probe(model, x, ["layer", "layer.right"], output=output)
    assert np.array_equal(both["layer"], want)


@pytest.mark.states(
    "Networks",
    "a layer that puts out several tensors",
    "refused",
    "the message lists the entries, and the layers inside that run",
)
def test_several_things_are_refused_with_what_there_is():
    x = rows(5, 6)
    for kind, message in [
        (
            "tuple",
            r"got a tuple from 'layer'; choose one: output=0 \(float32\[5, 4\]\), output=1 \(float32\[5, 4\]\); "
            r"or choose one inside it: layer\.left, layer\.right$",
        ),
        ("mapping", r"output='hidden' \(float32\[5, 4\]\), output='states' \(a tuple, which 'states\.0' leads into\)"),
        ("object", r"got a Answer from 'layer'; choose one: output='hidden'"),
    ]:
        with pytest.raises(InputError, match=message):
            ccx.probe(several(kind), x, "layer")
    for output, message in [
        (2, r"an entry of what 'layer' puts out, got 2; there are output=0"),
        ("x", r"got 'x'; there are"),
        ("0.0", r"got '0\.0'"),
        (True, "None, a number or a name"),
        ("", "None, a number or a name"),
        (1.5, "None, a number or a name"),
    ]:
        with pytest.raises(InputError, match=message):
            ccx.probe(several("tuple"), x, "layer", output=output)
    with pytest.raises(InputError, match="one that leads to a tensor, got a tuple"):
        ccx.probe(several("mapping"), x, "layer", output="states")
    with pytest.raises(InputError, match=r"puts out several things, got one tensor from layer\.left; leave"):
        ccx.probe(several("tuple"), x, "layer.left", output=0)
    with pytest.raises(InputError, match=r"a layer that runs, got 'layer\.unused', which did not; .*: layer"):
        ccx.probe(several("tuple"), x, "layer.unused")


def test_studies_change_an_entry():
    import torch

    x = torch.from_numpy(rows(4, 6))
    for kind, output in [
        ("tuple", 0),
        ("list", 0),
        ("named tuple", "left"),
        ("mapping", "states.1"),
        ("object", "states.1"),
        ("one", None),
    ]:
        model = several(kind)
        with networks.intervening(model, "layer", torch.zeros_like, output=output) as run:
            assert torch.equal(run(x), model.head(torch.zeros(4, 4)).detach()), kind
    refused = pytest.raises(InputError, match="choose one: output=0")
    with networks.intervening(several("tuple"), "layer", torch.zeros_like) as run, refused:
        run(x)


def test_ranges_of_an_entry():
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.plain = nn.Identity(), nn.Identity()
            self.pair = type("Two", (nn.Module,), {"forward": lambda _self, x: (x, x.mean())})()

        def forward(self, x):
            return self.pair(self.layer(x))[0].mean(dim=(2, 3))

    images = [torch.from_numpy(rows(4, 3, 5, 5))]
    ranges = {0: [(0.0, 1.0)], 2: [(-1.0, 0.5)]}
    found = ranges_importance(Model(), images, "pair", ranges, output=0)
    assert found.together == ranges_importance(Model(), images, "layer", ranges).together


@pytest.mark.states(
    "Networks", "attention (nn.MultiheadAttention)", "accepted", "`output=0`; its projections never run on their own"
)
def test_the_remedy_for_attention_is_a_layer_that_runs():
    from torch import nn

    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

        def forward(self, x):
            return self.norm(self.attention(x, x, x)[0])

    model, x = Attending(), rows(3, 5, 8)
    with pytest.raises(
        InputError, match=r"got a tuple from 'attention'; choose one: output=0 \(float32\[3, 5, 8\]\)"
    ) as met:
        ccx.probe(model, x, "attention")
    assert "out_proj" not in str(met.value)
    assert ccx.probe(model, x, "attention", output=0).shape == (3, 8, 5)
    with pytest.raises(InputError, match=r"got 'attention\.out_proj', which did not; .* uses: norm$"):
        ccx.probe(model, x, "attention.out_proj")
    encoder = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))  # it asks for no attention weights
    assert ccx.probe(encoder, x, "0.self_attn").shape == (3, 8, 5)
    with pytest.raises(InputError, match=r"got '0\.self_attn\.out_proj', which did not; .* uses: 0\.self_attn, 0$"):
        ccx.probe(encoder, x, "0.self_attn.out_proj")


@pytest.mark.states(
    "Networks", "transformers with torch's fast path and padding", "accepted", "they run layer by layer"
)
@pytest.mark.parametrize(
    ("layer", "units"), [("enc.layers.0", 16), ("enc.layers.0.linear1", 32), ("enc.layers.1.norm2", 16), ("enc", 16)]
)
def test_transformers_are_kept_from_their_fast_path(layer, units, tmp_path):
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                inner = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
                self.enc = nn.TransformerEncoder(inner, 2)

        def forward(self, x, mask):
            return self.enc(x, src_key_padding_mask=mask)

    torch.manual_seed(0)
    model, mask = Model(), torch.zeros(6, 5, dtype=torch.bool)
    mask[1:, 3:] = True
    data = {"x": torch.from_numpy(rows(6, 5, 16)), "mask": mask}
    before = torch.backends.mha.get_fastpath_enabled()
    found = ccx.probe(model, data, layer)
    assert found.shape == (6, units, 5)
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert np.isfinite(found).all()
    assert np.allclose(found, ccx.probe(model, data, layer, batch_size=1, out=tmp_path), atol=1e-5)


def test_ragged_tensors_are_filled_up_with_nan():
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            self.layer(torch.nested.nested_tensor([row[: 2 + i] for i, row in enumerate(x)]))
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        found = ccx.probe(Model(), rows(3, 4, 5), "layer")
    assert found.shape == (3, 5, 4)
    assert np.isnan(found).sum() == 5 * 3
    assert np.array_equal(found[2], rows(3, 4, 5)[2].T)


@pytest.mark.states("Networks", "layers given as modules", "accepted", "`ccx.probe(model, data, model.layer4)`")
def test_layers_as_modules():
    import torch
    from torch import nn

    model, x = several("tuple"), rows(5, 6)
    want = ccx.probe(model, x, "layer.left")
    assert np.array_equal(ccx.probe(model, x, model.layer.left), want)
    both = ccx.probe(model, x, [model.layer.left, "head"])
    assert list(both) == ["layer.left", "head"]
    wrapped = nn.DataParallel(model)
    assert np.array_equal(ccx.probe(wrapped, x, model.layer.left), want)
    for layer in (several("tuple").head, model, nn.ReLU()):
        with pytest.raises(InputError, match=r"layers of Model, got a .* from elsewhere; take it"):
            ccx.probe(model, x, layer)
    with pytest.raises(InputError, match="each layer once"):
        ccx.probe(model, x, [model.head, "head"])
    assert torch.is_grad_enabled()


@pytest.mark.states(
    "Networks",
    "models in torch.compile, DataParallel or DistributedDataParallel",
    "accepted",
    "the module inside them runs, uncompiled",
)
def test_wrapped_models(tmp_path):
    import torch

    model, x = several("tuple"), rows(5, 6)
    want = ccx.probe(model, x, "layer.left", out=tmp_path)
    compiled = torch.compile(model, backend="eager")
    compiled(torch.from_numpy(x))
    inner = several("tuple")
    inner.load_state_dict(model.state_dict())
    inner.layer = torch.compile(inner.layer, backend="eager")
    in_place = several("tuple")
    in_place.load_state_dict(model.state_dict())
    in_place.compile(backend="eager")
    in_place(torch.from_numpy(x))
    for wrapped, layer in [
        (compiled, "layer.left"),
        (compiled, "_orig_mod.layer.left"),
        (torch.nn.DataParallel(model), "layer.left"),
        (torch.nn.DataParallel(model), "module.layer.left"),
        (torch.nn.DataParallel(compiled), "module._orig_mod.layer.left"),
        (inner, "layer._orig_mod.left"),
        (in_place, "layer.left"),
    ]:
        assert np.array_equal(ccx.probe(wrapped, x, layer), want)
    assert np.array_equal(ccx.probe(inner, x, "layer", output=0), want)
    assert np.array_equal(ccx.probe(compiled, x, "layer.left", out=tmp_path), want)
    with pytest.raises(InputError, match=r"got 'module\.layer\.left'; did you mean layer\.left"):
        ccx.probe(model, x, "module.layer.left")


@pytest.mark.states(
    "Networks", "scripted, traced or exported models", "refused", "give the module that they were made from"
)
def test_scripted_traced_and_exported_models():
    import torch
    from torch import nn

    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU()), rows(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        scripted, traced = torch.jit.script(model), torch.jit.trace(model, torch.from_numpy(x))
    for one in (scripted, traced):
        outer = nn.Sequential(one, nn.Tanh())
        for given, layer in ((one, "0"), (outer, "0"), (outer, "0.0")):
            message = f"a layer of a Python module, got '{layer}', which is scripted or traced .*; give the module that"
            with pytest.raises(InputError, match=message):
                ccx.probe(given, x, layer)
        assert np.allclose(ccx.probe(outer, x, "1"), np.tanh(ccx.probe(model, x, "1")), atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (torch.from_numpy(x),)).module()
    with pytest.raises(InputError, match=r"model: expected one with an evaluation mode, .*exported from"):
        ccx.probe(exported, x, "0")


@pytest.mark.states(
    "Networks", 'models on the device "meta", and lazy modules that have not run', "refused", "load the weights first"
)
def test_models_without_numbers(tmp_path):
    from torch import nn

    for model, message in [
        (several("tuple").to("meta"), r"layer\.left\.weight on the device meta"),
        (nn.Sequential(nn.LazyLinear(3)), r"0\.weight without a shape yet"),
    ]:
        for options in ({}, {"out": tmp_path}):
            with pytest.raises(InputError, match=f"weights that can be read, got {message}; load the model's weights"):
                ccx.probe(model, rows(5, 6), next(iter(dict(model.named_children()))), **options)


def test_quantised_layers_give_their_numbers():
    import torch

    from tests.support.probed_models import statically_quantised

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = statically_quantised(0.5)
        found = ccx.probe(model, rows(5, 6 + 10), "1")
        want = model[:2](torch.from_numpy(rows(5, 16))).dequantize().numpy()
    assert np.array_equal(found, want)


@pytest.mark.states(
    "Networks",
    "inputs of another dtype, shape or number than the model takes",
    "refused",
    "the message says which; the model's own error is its cause",
)
def test_inputs_that_do_not_fit():
    import torch
    from torch import nn

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x, scale):
            return self.layer(x) * scale

    x = rows(5, 6)
    half, plain = nn.Sequential(nn.Linear(6, 4).half()), nn.Sequential(nn.Linear(6, 4))
    words = nn.Sequential(nn.Embedding(10, 4))
    for model, data, layer, kind, message in [
        (half, x, "0", DTypeError, r"inputs of float16, as the model's weights are, got float32\[5, 6\]; convert"),
        (plain, x.astype(np.float64), "0", DTypeError, r"inputs of float32, .* got float64\[5, 6\]"),
        (plain, x[:, :5], "0", ShapeError, r"a batch that the model takes, got float32\[5, 5\] \(mat1 and mat2"),
        (
            Two(),
            x,
            "layer",
            InputError,
            r"the arguments of Two\.forward \(.*'scale'\), got float32\[5, 6\]; .*inputs=2",
        ),
        (Two(), {"y": x}, "layer", InputError, r"the arguments of Two\.forward .*, got y=float32\[5, 6\]"),
        (words, np.full((2, 3), 99), "0", InputError, "tokens that the model knows, got int64"),
    ]:
        with pytest.raises(kind, match=message) as met:
            ccx.probe(
                model if model is not half else (half.half() if "float16" in message else half.float()), data, layer
            )
        assert met.value.__cause__ is not None

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            raise RuntimeError(f"mine, of {len(x)}")

    with pytest.raises(RuntimeError, match=r"^mine, of 5$"):
        ccx.probe(Mine(), x, "layer")
    assert torch.is_grad_enabled()


@pytest.mark.states(
    "Networks", "batches that are tuples of several inputs", "accepted", "`inputs=2` passes the first two"
)
@pytest.mark.states(
    "Networks", "a tuple whose second entry may be an input or a label", "refused", "`inputs=1` or `inputs=2`"
)
def test_several_inputs(tmp_path):
    import torch
    from torch import nn

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x, mask=None):
            return self.layer(x if mask is None else x * mask)

    x, mask = torch.from_numpy(rows(6, 4)), torch.from_numpy(rows(6, 4, seed=1) > 0)
    pairs = torch.utils.data.TensorDataset(x, mask)
    labelled = torch.utils.data.TensorDataset(x, torch.arange(6))
    for data in (pairs, torch.utils.data.DataLoader(pairs, batch_size=4), [(x, mask)]):
        with pytest.raises(InputError, match="inputs=1 or inputs=2"):
            ccx.probe(Masked(), data, "layer")
        assert np.array_equal(ccx.probe(Masked(), data, "layer", inputs=2), (x * mask).numpy())
        assert np.array_equal(ccx.probe(Masked(), data, "layer", inputs=1), x.numpy())
        assert np.array_equal(ccx.probe(nn.Sequential(Masked()), data, "0"), x.numpy())  # no place for a second
    for data in (labelled, torch.utils.data.DataLoader(labelled, batch_size=4)):
        assert np.array_equal(ccx.probe(Masked(), data, "layer"), x.numpy())
    stored = ccx.probe(Masked(), pairs, "layer", inputs=2, out=tmp_path)
    assert np.array_equal(stored, (x * mask).numpy())
    with pytest.raises(ShapeError, match="tuples that begin with 3 tensors, got 2 entries"):
        ccx.probe(Masked(), [(x, mask)], "layer", inputs=3)
    with pytest.raises(ShapeError, match="one number of samples"):
        ccx.probe(Masked(), [(x, mask[:5])], "layer", inputs=2)
    for wrong in (0, True, 1.5):
        with pytest.raises(InputError, match="inputs: expected an integer >= 1"):
            ccx.probe(Masked(), pairs, "layer", inputs=wrong)


@pytest.mark.states(
    "Networks",
    "mappings with one number per sample, such as lengths",
    "accepted",
    "beside an entry of two axes or more",
)
def test_mappings_with_one_number_a_sample(tmp_path):
    import torch
    from torch import nn

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x, lengths):
            return self.layer(x / lengths[:, None])

    data = {"x": torch.from_numpy(rows(6, 4)), "lengths": torch.arange(1, 7)}
    want = rows(6, 4) / np.arange(1, 7, dtype=np.float32)[:, None]
    assert np.array_equal(ccx.probe(Scaled(), data, "layer", batch_size=4), want)
    assert np.array_equal(ccx.probe(Scaled(), [data], "layer", out=tmp_path), want)
    samples = [{"x": data["x"][i], "lengths": i + 1} for i in range(6)]

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return samples[index]

    assert np.array_equal(ccx.probe(Scaled(), Samples(), "layer"), want)
    with pytest.raises(ShapeError, match=r"two axes or more.*not single samples"):
        ccx.probe(Scaled(), [{"x": data["x"][0], "lengths": data["x"][0]}], "layer")
    with pytest.raises(ShapeError, match=r"entry 'flag' \[n, \.\.\.\], with something in it"):
        ccx.probe(Scaled(), [{**data, "flag": True}], "layer")
