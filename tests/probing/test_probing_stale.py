"""Stored activations are believed only after a check: of all that can be seen of a model, and of what it puts out."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx.errors import StoreError
from ccx.probing.identity import described, model_hashes
from ccx.probing.verifying import differs

pytestmark = pytest.mark.needs("torch")
ROOT = Path(__file__).parents[2]


def inputs(n=6):
    return np.random.default_rng(0).standard_normal((n, 16), np.float32)


def linear(seed=0):
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU()).eval()


def quantised(model):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its quantisation will move
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})


def sae(kind, seed):
    """Return a network whose weights stand where no parameter is."""
    import torch
    from torch import nn

    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed))

    class Sae(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            if kind == "attribute":
                self.w = weight
            elif kind == "list":
                self.w = [weight]
            elif kind == "mapping":
                self.w = {"encoder": {"weight": weight}}
            elif kind == "array":
                self.w = weight.numpy()
            elif kind == "object":
                self.w = Held(weight)
            elif kind == "buffer that is not saved":
                self.register_buffer("w", weight, persistent=False)
            elif kind == "number":
                self.w = float(seed)
            elif kind == "closure":
                self.encode = lambda x: x @ weight
            elif kind == "bound method":
                self.encode = Held(weight).multiplied
            elif kind == "partial":
                self.encode = functools.partial(torch.matmul, other=weight)
            elif kind == "sparse":
                self.w = weight.to_sparse()

        def forward(self, x):
            if hasattr(self, "encode"):
                return self.act(self.encode(x))
            w = self.w
            w = w[0] if kind == "list" else w["encoder"]["weight"] if kind == "mapping" else w
            w = torch.as_tensor(w) if kind == "array" else w.tensor if kind == "object" else w
            return self.act(x * w if kind == "number" else x @ (w.to_dense() if kind == "sparse" else w))

    return Sae()


class Held:
    """Holds a tensor."""

    def __init__(self, tensor):
        self.tensor = tensor

    def multiplied(self, x):
        return x @ self.tensor


KINDS = (
    *("attribute", "list", "mapping", "array", "object", "number", "sparse"),
    *("buffer that is not saved", "closure", "bound method", "partial"),
)


@pytest.mark.states(
    "Stored activations", "another model than the stored one", "refused", "`overwrite=True` probes anew"
)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_where_no_parameter_is(kind, tmp_path):
    first = ccx.probe(sae(kind, 1), inputs(), "act", out=tmp_path)
    assert np.array_equal(ccx.probe(sae(kind, 1), inputs(), "act", out=tmp_path), first)
    with pytest.raises(StoreError, match=r"differs in content of (weights|state).*pass overwrite=True"):
        ccx.probe(sae(kind, 2), inputs(), "act", out=tmp_path)
    ccx.probe(sae(kind, 2), inputs(), "act", out=tmp_path, overwrite=True)


def test_packed_and_quantised_weights(tmp_path):
    import torch

    from tests.support.probed_models import statically_quantised  # which needs torch, too

    other = copy.deepcopy(linear())
    torch.nn.init.constant_(other[0].weight, 9.0)
    for number, (one, two, layer) in enumerate(
        [
            (quantised(linear()), quantised(other), "0"),
            (statically_quantised(0.5), statically_quantised(0.25), "1"),
        ]
    ):
        out = tmp_path / str(number)
        found = ccx.probe(one, inputs(), layer, out=out)
        assert found.dtype == np.float32
        assert np.array_equal(ccx.probe(one, inputs(), layer, out=out), found)
        with pytest.raises(StoreError, match="differs in content of state"):
            ccx.probe(two, inputs(), layer, out=out)


def changed_models():
    """Return pairs of models: one, and one that differs in something else than its plain weights."""
    import torch
    from torch import nn

    hooked = linear()
    hooked[0].register_forward_hook(lambda _module, _inputs, output: output * 2)
    bound = [linear(), linear()]
    for model, factor in zip(bound, (2.0, 3.0), strict=True):
        model[0].register_forward_hook(functools.partial(lambda factor, _m, _i, output: output * factor, factor))
    patched = linear()
    patched[0].forward = lambda x: x[:, :8]
    spectral = [torch.nn.utils.parametrizations.spectral_norm(linear(seed)[0]) for seed in (0, 1)]
    half, plain = linear(), linear()
    half.half()
    averaged = [torch.optim.swa_utils.AveragedModel(linear()) for _ in range(2)]
    averaged[1].update_parameters(linear(3))
    lora = [Lora(linear()[0], seed) for seed in (0, 1)]
    awake = linear()
    awake[1].train = functools.partial(setattr, awake[1], "training")
    awake[1].train(True)
    extra = [Extra(1), Extra(2)]
    return {
        "a hook": (plain, hooked),
        "what a hook is bound to": tuple(bound),
        "a replaced forward": (plain, patched),
        "spectral normalisation": tuple(nn.Sequential(one) for one in spectral),
        "another dtype": (plain, half),
        "averaged weights": tuple(averaged),
        "low-rank weights in a list": tuple(nn.Sequential(one) for one in lora),
        "a layer that stays in training": (plain, awake),
        "an extra state": tuple(nn.Sequential(one) for one in extra),
    }


def make_lora():
    import torch
    from torch import nn

    class Lora(nn.Module):
        def __init__(self, base, seed):
            super().__init__()
            generator = torch.Generator().manual_seed(seed)
            self.base = base
            self.low_rank = [torch.randn(16, 2, generator=generator), torch.randn(2, 8, generator=generator)]

        def forward(self, x):
            return self.base(x) + x @ self.low_rank[0] @ self.low_rank[1]

    return Lora


def Lora(base, seed):
    return make_lora()(base, seed)


def Extra(number):
    from torch import nn

    class WithState(nn.Module):
        def get_extra_state(self):
            return {"number": number}

        def forward(self, x):
            return x * number

    return WithState()


def test_what_else_a_model_can_differ_in():
    for name, (one, other) in changed_models().items():
        assert model_hashes(one) != model_hashes(other), name
        assert model_hashes(one) == model_hashes(one), name
        assert model_hashes(copy.deepcopy(other)) == model_hashes(other), name


def test_what_does_not_make_another_model():
    import torch

    model = linear()
    hashes = model_hashes(model)
    model.train()
    assert model_hashes(model) == hashes
    assert model_hashes(torch.nn.DataParallel(model)) == hashes
    assert model_hashes(torch.compile(model)) == hashes
    model.requires_grad_(requires_grad=False)
    assert model_hashes(model) == hashes
    model(torch.randn(1, 16))
    assert model_hashes(model) == hashes
    assert model_hashes(linear()) == hashes


def test_tensors_that_wrap_others():
    """As torchao's weights do."""
    import torch
    from torch.testing._internal.two_tensor import TwoTensor

    def model(number):
        found = linear()
        weight = TwoTensor(found[0].weight.detach(), torch.full((8, 16), number))
        found[0].weight = torch.nn.Parameter(weight, requires_grad=False)
        return found

    assert model_hashes(model(1.0)) == model_hashes(model(1.0))
    assert model_hashes(model(1.0)) != model_hashes(model(2.0))


PROGRAM = """
import functools, numpy as np, torch
from ccx.probing.identity import described, model_hashes
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.GRU(3, 2))
model.names, model.table = {"b", "a", "c"}, {"x": [np.arange(3), torch.ones(2)]}
model.itself = [model]
scale = {"a": 1.5}
model[0].register_forward_hook(lambda m, i, o: o * scale["a"] if "a" in {"a", "b", "c"} else o)
print(model_hashes(model), described(functools.partial(lambda x, y=2: x in {"p", "q", "r"}, 3)))
"""


def test_hashes_are_those_of_another_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(ccx.__file__).parents[1]), "PATH": ""},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


@pytest.mark.states(
    "Stored activations",
    "a model that puts out something else, whatever its hashes say",
    "refused",
    "one stored batch is computed again; `overwrite=True` probes anew",
)
@pytest.mark.parametrize("data_id", [None, "six rows"])
def test_whatever_the_hashes_say_one_batch_is_computed_again(tmp_path, data_id):
    import torch
    from torch import nn

    elsewhere = {"factor": 1.0}

    class Unseen(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(x * elsewhere["factor"] + torch.zeros(1))

    first = ccx.probe(Unseen(), inputs(), "layer", out=tmp_path, data_id=data_id, batch_size=2)
    elsewhere["factor"] = 1.0 + 1e-6  # as another device may round
    assert np.array_equal(ccx.probe(Unseen(), inputs(), "layer", out=tmp_path, data_id=data_id), first)
    elsewhere["factor"] = 1.1
    message = r"'layer' puts out something else than what is stored: sample 0, unit 0: \S+ there, \S+ now; .*overwrite"
    with pytest.raises(StoreError, match=message):
        ccx.probe(Unseen(), inputs(), "layer", out=tmp_path, data_id=data_id)


def test_a_resumed_folder_is_checked_too(tmp_path, monkeypatch):
    from tests.support import probed_models as models

    monkeypatch.setattr("ccx.probing.recording.COMMIT_SECONDS", 0.0)

    def stopping():
        yield models.images()[:3]
        raise KeyboardInterrupt

    for data_id in (None, "mine"):
        out = tmp_path / str(data_id)
        with pytest.raises(KeyboardInterrupt):
            ccx.probe(models.net(), stopping(), "layer1", out=out, data_id=data_id)
        with monkeypatch.context() as patch:
            forward = models.Net.forward
            patch.setattr(models.Net, "forward", lambda self, x, forward=forward: forward(self, x + 1))
            with pytest.raises(StoreError, match="puts out something else than what is stored: sample 0"):
                ccx.probe(models.net(), models.images(), "layer1", out=out, data_id=data_id)
        assert len(ccx.probe(models.net(), models.images(), "layer1", out=out, data_id=data_id)) == 10


def test_a_model_with_chance_in_it_is_refused(tmp_path):
    from torch import nn

    class Awake(nn.Dropout):
        def train(self, mode=True):  # noqa: ARG002 - stays awake, for Monte Carlo dropout
            return super().train(True)

    model = nn.Sequential(Awake(0.5), nn.Identity())
    ccx.probe(model, inputs(), "1", out=tmp_path)
    with pytest.raises(StoreError, match="without chance in them"):
        ccx.probe(model, inputs(), "1", out=tmp_path)


SHIFT = 1.0


def shifted(image):
    import torch

    return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1).copy()) + SHIFT


@pytest.mark.states(
    "Stored activations",
    "another preprocessing: a lambda, a partial, what a function is bound to",
    "refused",
    "`overwrite=True` probes anew",
)
def test_preprocessings_are_told_apart(tmp_path, monkeypatch):
    import torch
    from torchvision import transforms

    def bound(number):
        return lambda image: shifted(image) + number

    def default(number):
        def prepare(image, number=number):
            return shifted(image) + number

        return prepare

    class Prepare:
        def __init__(self, number):
            self.number = number

        def __call__(self, image):
            return shifted(image) + self.number

    ways = {
        "lambdas": (lambda image: shifted(image) * 2, lambda image: shifted(image) * 3),
        "closures": (bound(1), bound(2)),
        "defaults": (default(1), default(2)),
        "partials": tuple(functools.partial(lambda image, by: shifted(image) * by, by=by) for by in (1, 2)),
        "objects": (Prepare(1), Prepare(2)),
        "bound methods": (Prepare(1).__call__, Prepare(2).__call__),
        "transforms": tuple(transforms.Compose([transforms.ToTensor(), transforms.Resize(n)]) for n in (5, 6)),
        "modules": tuple(torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(2)),
    }
    for name, (one, other) in ways.items():
        assert described(one) == described(one), name
        assert described(one) != described(other), name
    before = described(shifted)
    monkeypatch.setitem(shifted.__globals__, "SHIFT", 2.0)
    assert described(shifted) != before
    monkeypatch.undo()

    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    options = {"out": tmp_path, "data_id": "three"}
    ccx.probe(model, images, "0", preprocessing=ways["closures"][0], **options)
    ccx.probe(model, images, "0", preprocessing=bound(1), **options)
    with pytest.raises(StoreError, match="differs in preprocessing"):
        ccx.probe(model, images, "0", preprocessing=bound(2), **options)


def test_rounding_is_no_difference():
    rng = np.random.default_rng(0)
    stored = rng.standard_normal((3, 4, 5, 5)).astype(np.float32)
    stored[:, 1] *= 1e-3
    assert differs(stored, stored.copy(), "float32") is None
    assert differs(stored, stored * np.float32(1 + 1e-4), "float32") is None
    assert differs(stored, (stored * np.float32(1.02)), "bfloat16") is None
    assert differs(stored, (stored * np.float32(1.02)), "float32").startswith("sample 0, unit")
    assert differs(stored, stored + np.float32(1e-4), "float32") is None
    wrong = stored.copy()
    wrong[2, 3, 4, 4] += 0.1
    assert differs(stored, wrong, "float32").startswith("sample 2, unit 3: ")
    holes = stored.copy()
    holes[1, 2, 0, 0] = np.nan
    assert differs(holes, holes.copy(), "float32") is None
    assert differs(stored, holes, "float32").startswith("sample 1, unit 2")
    assert differs(holes, stored, "float32").startswith("sample 1, unit 2")
    assert differs(stored[:0], stored[:0], "float32") is None
    assert "shape" in differs(stored, stored[:, :3], "float32")


def test_experiments_believe_no_activations_of_another_model(tmp_path):
    import torch
    from PIL import Image

    from ccx.datasets import Folder
    from ccx.models import NamedModel, Preprocessing
    from ccx.studies import Experiment

    rng = np.random.default_rng(0)
    for folder, shape in (("images", (8, 8, 3)), ("labels", (8, 8))):
        (tmp_path / folder).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 3, shape).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "names.txt").write_text("one\ntwo\n")

    def experiment(seed):
        convolution = torch.nn.Conv2d(3, 2, 1)
        torch.nn.init.constant_(convolution.weight, 0.1)
        torch.nn.init.zeros_(convolution.bias)
        scale = torch.tensor(float(seed))
        convolution.register_forward_hook(lambda _module, _inputs, output: output * scale)
        network = NamedModel("mine", "none", torch.nn.Sequential(convolution), ("0",), Preprocessing(8))
        data = Folder(tmp_path / "images", tmp_path / "labels", tmp_path / "names.txt")
        folders = {name: tmp_path / "kept" / name for name in ("segmentations", "activations", "results")}
        return Experiment(data, network, name="three", progress=False, **folders)

    first = experiment(1).activations("0")
    assert np.array_equal(experiment(1).activations("0"), first)
    with pytest.raises(StoreError, match="differs in content of state"):
        experiment(2).activations("0")
