"""The whole way, with networks whose weights we set: images -> network -> probe -> explain -> the planted formula."""

from __future__ import annotations

import numpy as np
import pytest

import ccx
from ccx.datasets import Folder, token_concepts
from ccx.formula import equivalent, parse

pytestmark = pytest.mark.needs("torch")
HALVES = ((0.5,) * 3, (0.5,) * 3)
FIRES = [(0.5, np.inf)]


def cells_to_pixels(cells, side=4):
    """Spread [N, H, W, 3] of 0 and 1 to uint8 pictures, `side` pixels a cell."""
    return (255 * cells).astype(np.uint8).repeat(side, 1).repeat(side, 2)


def colours(n=24, grid=(5, 6)):
    """Return masks bool[3, N, H, W] of red, green and blue, in every combination, and pictures of them."""
    masks = np.random.default_rng(0).random((3, n, *grid)) < 0.45
    return masks, cells_to_pixels(masks.transpose(1, 2, 3, 0))


def planted_convolution():
    """Return a network whose unit 1 of "relu" is positive where (red OR green) AND NOT blue."""
    import torch
    from torch import nn

    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 2, 1))
    model.add_module("relu", nn.ReLU(inplace=True))
    model.add_module("pool", nn.AvgPool2d(4))
    with torch.no_grad():  # inputs are -1 and 1
        model.conv.weight[1, :, 0, 0] = torch.tensor([0.5, 0.5, -1.0])
        model.conv.bias[1] = 0.0
    return model


def test_a_convolutional_network(tmp_path):
    from PIL import Image

    masks, pictures = colours()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    prepare = ccx.models.Preprocessing(pictures.shape[1:3], *HALVES)
    maps = ccx.probe(planted_convolution(), tmp_path, "pool", units=[1], preprocessing=prepare, out=tmp_path / "out")
    assert maps.shape == (24, 1, 5, 6)
    concepts = ccx.Concepts.from_masks(masks, ["red", "green", "blue"])
    (found,) = ccx.explain(maps, concepts, ranges=FIRES, search="optimal", progress=False)
    assert equivalent(found.formula, parse("((red OR green) AND NOT blue)"))
    assert found.iou == 1.0


def test_a_convolutional_network_on_a_folder_of_label_maps(tmp_path):
    from PIL import Image

    labels = np.random.default_rng(1).integers(0, 4, (20, 5, 6), dtype=np.uint8)  # 0 = nothing, house, tree, car
    shown = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]])[labels]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number, (picture, label) in enumerate(zip(cells_to_pixels(shown), labels, strict=True)):
        Image.fromarray(picture).save(tmp_path / "images" / f"{number:02}.png")
        Image.fromarray(label.repeat(4, 0).repeat(4, 1)).save(tmp_path / "labels" / f"{number:02}.png")
    dataset = Folder(tmp_path / "images", tmp_path / "labels", ["house", "tree", "car"])
    net = ccx.models.NamedModel(
        "planted", "none", planted_convolution(), ("pool",), ccx.models.Preprocessing((20, 24), *HALVES)
    )
    maps = ccx.probe(net, dataset, units=[1], out=tmp_path / "out")
    concepts = dataset.concepts((5, 6), workers=1, progress=False)
    found = ccx.explain(maps, concepts, ranges=FIRES, length=1, progress=False)
    assert str(found[0].formula) == "tree"  # alone green without blue
    assert found[0].iou == 1.0


@pytest.mark.needs("torchvision")
def test_a_vision_transformer():
    """Patches carry v = red + green - 2 blue; layer norm keeps its sign; an MLP unit lets what is positive pass."""
    import torch
    import torchvision

    masks, pictures = colours(grid=(6, 6))
    model = torchvision.models.VisionTransformer(24, 4, 2, 2, 8, 16, num_classes=2)
    block = model.encoder.layers[1]
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.self_attention.out_proj.weight.zero_()  # so that attention adds nothing
            layer.self_attention.out_proj.bias.zero_()
            layer.mlp[3].weight.zero_()
            layer.mlp[3].bias.zero_()
        model.encoder.pos_embedding.zero_()
        model.conv_proj.weight.zero_()
        model.conv_proj.bias.zero_()
        for unit, sign in ((2, 1), (5, -1)):  # a pair, so that the mean over the width is 0
            model.conv_proj.weight[unit] = sign * torch.tensor([0.5, 0.5, -1.0])[:, None, None] / 16
        block.mlp[0].weight.zero_()
        block.mlp[0].bias.zero_()
        block.mlp[0].weight[7, 2] = 1.0
    prepare = ccx.models.Preprocessing(24, *HALVES)
    layer = "encoder.layers.encoder_layer_1.mlp.1"
    maps = ccx.probe(model, list(pictures), layer, units=[7], tokens=(6, 6), skip=1, preprocessing=prepare)
    assert maps.shape == (24, 1, 6, 6)
    concepts = ccx.Concepts.from_masks(masks, ["red", "green", "blue"])
    (found,) = ccx.explain(maps, concepts, ranges=FIRES, search="optimal", progress=False)
    assert equivalent(found.formula, parse("((red OR green) AND NOT blue)"))
    assert found.iou == 1.0


def test_a_text_model():
    """Words carry concepts in their embedding; a convolution fires on a noun or name that follows no "not"."""
    import torch
    from torch import nn

    words = ["<pad>", "cat", "Ann", "runs", "not"]
    kinds = {1: "noun", 2: "name", 3: "verb", 4: "negation"}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 4)
            self.conv = nn.Conv1d(4, 3, 2)
            self.relu = nn.ReLU()

        def forward(self, input_ids, attention_mask):
            x = (self.embedding(input_ids) * attention_mask[..., None]).transpose(1, 2)
            return self.relu(self.conv(nn.functional.pad(x, (1, 0))))

    model = Model()
    with torch.no_grad():
        model.embedding.weight[:] = torch.eye(5)[:, 1:]
        model.conv.weight.zero_()
        model.conv.bias.zero_()
        model.conv.weight[2, :, 1] = torch.tensor([1.0, 1.0, 0.0, 0.0])  # this word
        model.conv.weight[2, :, 0] = torch.tensor([0.0, 0.0, 0.0, -1.0])  # the one before

    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 30)
    ids = np.where(np.arange(8) < lengths[:, None], rng.integers(1, len(words), (30, 8)), 0)
    mask = (ids > 0).astype(np.float32)
    batches = [{"input_ids": ids[i : i + 7], "attention_mask": mask[i : i + 7]} for i in range(0, 30, 7)]
    maps = ccx.probe(model, batches, "relu", unit_axis=1)
    assert maps.shape == (30, 3, 8)

    rows = [(n, t, kinds[word]) for (n, t), word in np.ndenumerate(ids) if word]
    rows += [(n, t + 1, "after not") for n, t in np.argwhere(ids == 4) if t + 1 < lengths[n]]
    concepts = token_concepts([np.array(column) for column in zip(*rows, strict=True)], lengths=lengths)
    (found,) = ccx.explain(maps[:, 2:], concepts, ranges=FIRES, search="optimal", progress=False)
    assert equivalent(found.formula, parse('((noun OR name) AND NOT "after not")'))
    assert found.iou == 1.0
    assert found.bitmap_cells == int((((ids == 1) | (ids == 2)) & (np.roll(ids, 1, 1) * (np.arange(8) > 0) != 4)).sum())
