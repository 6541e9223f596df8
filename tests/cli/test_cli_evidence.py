"""Chance and samples held out, on the command line."""

from __future__ import annotations

import numpy as np
import pytest

import ccx
from ccx.cli import input_files as files
from ccx.errors import InputError, StoreError
from tests.support.command_line import data, expected, ok, run

__all__ = ["data"]  # a fixture

LABELS = list("uuvvvu")


def explain(data, *more):
    return ok(
        "explain", data / "activations.npy", "--labels", data / "labels.npy", "--names", data / "names.txt",
        "--out", data / "run", "--clusters", 2, *more,
    )  # fmt: skip


def head_of(text):
    """Return the head of the table, above which kernels may have been compiled."""
    return next(line for line in text.splitlines() if line.startswith("unit"))


def test_null_and_groups(data):
    (data / "groups.txt").write_text("\n".join(LABELS) + "\n")
    text = explain(data, "--permutations", 9, "--groups", data / "groups.txt", "--seed", 3)
    found = expected(data, clusters=2, permutations=9, groups=LABELS, seed=3)
    assert ccx.load(data / "run") == found
    best = next(one for one in found if one.unit == 1 and one.range_index == 2)
    row = next(line for line in text.splitlines() if line.split()[:1] == ["1"])
    assert f"{best.chance.mean:.3f}" in row.split()
    assert head_of(text).split()[:9] == ["unit", "gain", "IoU", "null", "mean", "null", "max", "z", "p"]
    assert "no p is below 0.1" in text
    assert f"{best.chance.maximum:.3f}" in ok("show", data / "run", "--unit", 1)


@pytest.mark.parametrize(
    ("given", "fit"),
    [
        (("--fit-samples", "0-2,4"), [0, 1, 2, 4]),
        (("--fit-samples", "fit.npy", "--test-samples", "5"), [True, True, True, False, True, False]),
        (("--test-samples", "score.npy"), [0, 1, 2, 4]),
    ],
)
def test_fit_and_score(data, monkeypatch, given, fit):
    np.save(data / "fit.npy", np.array([True, True, True, False, True, False]))
    np.save(data / "score.npy", np.array([5, 3]))
    monkeypatch.chdir(data)
    text = explain(data, *given)
    found = expected(data, clusters=2, fit_samples=fit, test_samples=[5] if "5" in given else None)
    assert ccx.load(data / "run") == found
    assert "held out" in head_of(text)
    assert "held out: IoU of the same formula" in text
    best = next(one for one in found if one.unit == 1 and one.range_index == 2)
    cells = next(line for line in text.splitlines() if line.split()[:1] == ["1"]).split()
    assert f"{best.held_out.iou:.3f}" in cells
    # Shares are shares of the cells that were explained.
    n_cells = 4 * 64
    assert cells[1] == f"{best.iou - best.bitmap_cells / n_cells:.3f}"
    assert f"{100 * best.bitmap_cells / n_cells:.1f}" in cells


def test_what_does_not_fit_is_one_message(data):
    for more in (
        ("--fit-samples", "0-9"),
        ("--permutations", "-1"),
        ("--fit-samples", "0-x"),
        ("--test-samples", "nowhere.npy"),
    ):
        result = run(
            "explain", data / "activations.npy", "--labels", data / "labels.npy", "--names", data / "names.txt",
            "--out", data / "run", *more,
        )  # fmt: skip
        assert result.exit_code == 2
        assert result.output.startswith("error: ")


def test_labels_and_samples(data):
    np.save(data / "groups.npy", np.array([3, 3, 1]))
    assert files.read_labels(data / "groups.npy") == [3, 3, 1]
    assert files.read_samples(None, "--fit-samples") is None
    with pytest.raises(InputError, match="--fit-samples: expected numbers and ranges"):
        files.read_samples("x", "--fit-samples")
    with pytest.raises(StoreError):
        files.read_samples(str(data / "none.npy"), "--fit-samples")
