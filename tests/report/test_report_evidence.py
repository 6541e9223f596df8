"""Chance and samples held out, in the report."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ccx.errors import InputError
from ccx.evidence import Chance
from ccx.report import render
from ccx.report.pictures import FINE, Pictures
from ccx.report.view_model import null_bar
from tests.support.reports import checked, explained, tiny


def texts(page):
    return re.sub(r"\s+", " ", " ".join(checked(page).texts))


def test_numbers_of_chance_are_shown():
    concepts, activations = tiny()
    found = explained(concepts, activations, permutations=9, groups="aabb", seed=1)
    page = render(found, concepts, activations=activations)
    text = texts(page)
    for item in found.explained:
        chance = item.chance
        assert f"by chance {chance.mean:.3f}, at most {chance.maximum:.3f}" in text
        assert f"p {chance.p:.3g}" in text
    assert "9 permutations of the samples within 2 groups, seed 1: no p is below 0.1" in text
    assert "Held out" not in text
    n_bars = page.count('<span class="null"')
    assert n_bars == len(found.explained)
    plain = explained(concepts, activations)
    assert "by chance" not in texts(render(plain, concepts, activations=activations)).lower()


def test_the_bar_is_to_scale():
    assert null_bar(0.8, Chance(9, 0.2, 0.4, 3.0, 0.1)) == pytest.approx((25, 50, 100))
    assert null_bar(-0.2, Chance(9, 0.0, 0.2, None, 1.0)) == pytest.approx((50, 100, 0))
    assert null_bar(0.0, Chance(9, 0.0, 0.0, None, 1.0)) == (0, 0, 0)


def test_pictures_and_shares_are_of_the_samples_explained():
    concepts, activations = tiny()
    fit = [0, 3]
    found = explained(concepts, activations, fit_samples=fit, permutations=3)
    page = render(found, concepts, activations=activations)
    text = texts(page)
    part = concepts.subset(samples=fit)
    alone = texts(render(explained(part, activations[fit], permutations=3), part, activations=activations[fit]))
    shares = r"bitmap [\d.]+ % · formula [\d.]+ % of all cells"
    assert re.findall(shares, text) == re.findall(shares, alone) != []
    assert re.findall(r"gain [-\d.]+", text) == re.findall(r"gain [-\d.]+", alone)
    assert set(re.findall(r'aria-label="sample (\d+)"', page)) <= {"0", "3"}
    for item in found.explained:
        assert f"held out: IoU {item.held_out.iou:.3f}" in text
    assert "found on 2 samples, scored on 2 more" in text
    with pytest.raises(InputError, match="give the same activations"):
        render(found, concepts, activations=activations[[1, 0, 2, 3]])


def test_candidates_among_many_samples(monkeypatch):
    """Where only some samples are looked at, they are of those explained, too."""
    monkeypatch.setattr("ccx.report.pictures._N_CANDIDATES", 2)
    concepts, activations = tiny()
    samples = np.array([1, 2, 3])
    found = explained(concepts, activations, fit_samples=samples)
    bitmaps = np.moveaxis(activations > 0.5, 1, 0)
    of_bitmaps = Pictures(concepts, None, bitmaps, None, 4, FINE, samples)
    chooser = Pictures(concepts, activations, None, None, 4, FINE, samples)
    assert chooser.activations_of(0).shape == (3, *activations.shape[2:])
    for item in found.explained:
        assert {one.sample for one in chooser.choose(item)} <= {1, 2, 3}
        assert 0 < len(of_bitmaps._candidates(item)) <= 2
        assert set(of_bitmaps._candidates(item)) <= {1, 2, 3}
