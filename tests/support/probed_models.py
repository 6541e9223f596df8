"""Small networks for tests of probing. Imports torch: for tests that need it, inside them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """A convolution, and a ReLU that runs twice and in place."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n, n, 3, padding=1)
        self.bn = nn.BatchNorm2d(n)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.bn(self.conv1(x)))
        out += x
        return self.relu(out)


class Net(nn.Module):
    """A convolutional network with what makes probing hard: dropout, work in place, a GRU, a layer never used."""

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, n, 3, stride=2), nn.ReLU())
        self.layer2 = nn.Sequential(Block(n), nn.Dropout(0.5))
        self.recurrent = nn.GRU(n, 3, batch_first=True)
        self.head = nn.Linear(3, 5)
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        x = self.layer2(self.layer1(x))
        outputs, _ = self.recurrent(x.mean(dim=3).transpose(1, 2))
        return self.head(outputs[:, -1])


class Transformer(nn.Module):
    """Patches and a class token through one encoder layer: [n, 1 + h·w, width]."""

    def __init__(self, width: int = 8, batch_first: bool = True) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = nn.TransformerEncoderLayer(width, 2, 16, batch_first=batch_first)
        self.last = nn.Identity()

    def forward(self, x):
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        if not self.encoder.self_attn.batch_first:
            return self.last(self.encoder(tokens.transpose(0, 1)))
        return self.last(self.encoder(tokens))


class Text(nn.Module):
    """An embedding and a convolution over positions; takes tokens, or a tokenizer's mapping."""

    def __init__(self, n_words: int = 20, width: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_words, width)
        self.mix = nn.Conv1d(width, 3, 3, padding=1)

    def forward(self, input_ids, attention_mask=None):
        x = self.embedding(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        return self.mix(x.transpose(1, 2))


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net()
    model.train()
    model.layer2[0].bn.eval()  # frozen, in a model in training
    return model


def images(n: int = 10, height: int = 9, width: int = 11) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((n, 3, height, width), np.float32)


def state(model: nn.Module):
    """Return what probing must leave alone: modes, hooks, devices, weights."""
    modes = [module.training for module in model.modules()]
    hooks = [
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]
    values = {name: (value.device.type, value.clone()) for name, value in model.state_dict().items()}
    return modes, hooks, values


def same_state(first, second) -> bool:
    if first[:2] != second[:2] or first[2].keys() != second[2].keys():
        return False
    pairs = zip(first[2].values(), second[2].values(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def statically_quantised(scale):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.ao.nn.quantized.Linear(16, 8)
        weight = torch.quantize_per_tensor(torch.full((8, 16), scale), 0.01, 0, torch.qint8)
        layer.set_weight_bias(weight, None)
    quantise = torch.ao.nn.quantized.Quantize(0.1, 0, torch.quint8)
    return torch.nn.Sequential(quantise, layer, torch.ao.nn.quantized.DeQuantize())
