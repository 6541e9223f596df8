"""Importance of ranges: predictions that change, compared with a network that is changed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ccx import studies
from ccx.errors import InputError, ShapeError

pytestmark = pytest.mark.needs("torch")


def make(kind):
    """Return a small classifier with a layer "body", and the tail that a test runs by hand."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
            self.act = nn.ReLU(inplace=True)
            self.side = nn.Conv2d(3, 5, 1)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(5, 7)

        def tail(self, maps, images):
            if kind == "around":  # another path leads around the layer
                maps = maps + 0.3 * self.side(images)
            return self.head(self.drop(20 * self.act(maps - 0.2).mean(dim=(2, 3)) - 4))

        def forward(self, images):
            return self.tail(self.body(images), images)

    return Net()


def images_of(n):
    import torch

    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def by_hand(net, images, ranges):
    """Return (samples with an activation inside, samples whose class changes) with these units' ranges at 0."""
    import torch

    net.eval()
    with torch.no_grad():
        maps = net.body(images)
        before = net.tail(maps.clone(), images).argmax(1)
        changed = maps.clone()
        for unit, (lower, upper) in ranges.items():
            own = changed[:, unit]
            own[(own > lower) & (own < upper)] = 0
        after = net.tail(changed.clone(), images).argmax(1)
    net.train()
    return int((changed != maps).flatten(1).any(1).sum()), int((after != before).sum())


@pytest.mark.parametrize("kind", ["chain", "around"])
def test_counts_are_those_of_a_network_changed_by_hand(kind):
    import torch

    net = make(kind)
    net.train()
    images = images_of(50)
    ranges = {0: [(0.0, 0.4), (0.4, 9.0)], 1: [(0.1, 0.3), (0.3, np.inf)], 4: [(0.2, 0.5)]}
    batches = [(images[:20], "labels"), (images[20:35], 1), (images[35:], 2)]
    found = studies.ranges_importance(net, batches, "body", ranges, alone=True, progress=False)
    for number in (0, 1):
        own = {unit: one[number] for unit, one in ranges.items() if number < len(one)}
        n_affected, n_changed = by_hand(net, images, own)
        assert found.together.rows[number] == (number + 1, 50, n_affected, n_changed, n_changed / 50)
    assert sum(found.together.column("changed")) > 0
    for row in found.alone:
        limits = ranges[row["unit"]][row["range"] - 1]
        assert (row["lower"], row["upper"]) == (limits[0], None if np.isinf(limits[1]) else limits[1])
        assert (row["affected"], row["changed"]) == by_hand(net, images, {row["unit"]: limits})
    assert len(found.alone) == 5
    upside_down = {unit: one[::-1] for unit, one in ranges.items()}
    assert studies.ranges_importance(net, batches, "body", upside_down, alone=True, progress=False) == found
    assert net.training
    assert net.body[1].training
    assert not net.body._forward_hooks
    assert len(studies.ranges_importance(net, batches, "body", ranges, progress=False).alone) == 0
    assert torch.equal(images, images_of(50))


def test_more_changes_than_fit_at_once(monkeypatch):
    from ccx.networks import interventions

    net, images = make("around"), images_of(9)
    ranges = {unit: [(0.0, 0.3), (0.3, 2.0)] for unit in range(5)}
    whole = studies.ranges_importance(net, [images], "body", ranges, alone=True, progress=False)
    monkeypatch.setattr(interventions, "_CHUNK", 2)
    assert studies.ranges_importance(net, [images], "body", ranges, alone=True, progress=False) == whole


def test_ends_of_a_range_lie_outside():
    import torch

    net, images = make("chain").eval(), images_of(8)
    with torch.no_grad():
        values = net.body(images)[:, 0].flatten()
    lower, upper = (float(values[values > 0].sort().values[place]) for place in (3, 9))
    found = studies.ranges_importance(net, [images], "body", {0: [(lower, upper)]}, alone=True, progress=False)
    n_inside = len({n // 36 for n in ((values > lower) & (values < upper)).nonzero().flatten().tolist()})
    nothing = studies.ranges_importance(
        net, [images], "body", {0: [(lower, float(np.nextafter(np.float32(lower), 9)))]}
    )
    assert found.together.column("affected") == found.alone.column("affected") == [n_inside]
    assert nothing.together.column("affected") == [0]


def test_wrong_arguments():
    net, images = make("chain"), images_of(4)
    with pytest.raises(InputError, match="a layer that puts out unit 9"):
        studies.ranges_importance(net, [images], "body", {9: [(0, 1)]})
    with pytest.raises(InputError, match="a module of Net"):
        studies.ranges_importance(net, [images], "bodi", {0: [(0, 1)]})
    with pytest.raises(InputError, match="at least one range"):
        studies.ranges_importance(net, [images], "body", {})
    with pytest.raises(InputError, match="at least one batch"):
        studies.ranges_importance(net, [], "body", {0: [(0, 1)]})
    with pytest.raises(ShapeError, match=r"outputs \[4, classes\]"):
        studies.ranges_importance(net.body, [images], "0", {0: [(0, 1)]})
