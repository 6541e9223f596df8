"""The studies, compared with what plain loops over the cells say."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter

import numpy as np
import pytest

import ccx
from ccx import studies
from ccx.errors import InputError, MissingExtraError, StoreError
from ccx.formula import parse
from ccx.kernels import upsample
from ccx.results import Explanation, Explanations, Status
from ccx.studies import picturing
from ccx.studies.random_units import random_units
from ccx.studies.specialization import left_part
from ccx.studies.thresholds import unit_ranges_of


@pytest.fixture(scope="module")
def data():
    """Return concepts of two categories and activations of 6 units, the last of them silent."""
    rng = np.random.default_rng(0)
    masks = rng.random((5, 12, 6, 8)) < 0.3
    concepts = ccx.Concepts.from_masks(masks, list("abcde"), categories=["x", "x", "y", "y", "y"])
    activations = np.maximum(rng.normal(size=(12, 6, 3, 4)), 0).astype(np.float32)
    activations[:, 0] += masks[0].reshape(12, 3, 2, 4, 2).mean(axis=(2, 4))
    activations[:, 5] = 0
    return concepts, activations


def iou_of(concepts, values, limits, formula):
    """Return the IoU of a formula, by booleans."""
    upsampled = upsample(np.ascontiguousarray(values), concepts.shape)
    fires = (upsampled > limits[0]) & (upsampled < limits[1])
    holds = concepts.mask(formula)
    return (fires & holds).sum() / (fires | holds).sum()


# Tables


def table():
    return studies.Table("t", ("name", "n", "share"), (('a,"b"\n', 1, 0.25), ("ä", 2, None)))


def test_tables_are_written_as_they_are(tmp_path):
    table().write(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "n", "share"], ['a,"b"\n', "1", "0.25"], ["ä", "2", ""]]
    table().write(tmp_path / "t.jsonl")
    lines = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == table().to_records()
    with pytest.raises(InputError, match=r"ends in .csv or .jsonl or .parquet"):
        table().write(tmp_path / "t.xlsx")
    assert table().column("n") == [1, 2]
    with pytest.raises(InputError, match="one of name, n, share"):
        table().column("m")
    assert len(studies.Table.of("none", [], ["a"])) == 0


@pytest.mark.needs("pandas")
def test_tables_become_data_frames():
    frame = table().to_pandas()
    assert list(frame.columns) == ["name", "n", "share"]
    assert frame["n"].tolist() == [1, 2]


@pytest.mark.needs("pandas")
def test_parquet_names_its_extra(tmp_path, monkeypatch):
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=r"ccx\[parquet\]"):
        table().write(tmp_path / "t.parquet")


def test_random_units():
    rng = np.random.default_rng(0)
    assert random_units(None, 5, 0, rng) == random_units(None, 5, 9, rng) == [0, 1, 2, 3, 4]
    chosen = random_units(None, 100, 10, np.random.default_rng(3))
    assert chosen == sorted(set(chosen)) == random_units(None, 100, 10, np.random.default_rng(3))
    assert len(chosen) == 10
    assert random_units([4, 1, 4], 5, 0, rng) == [1, 4]
    for wrong in ([5], [-1], []):
        with pytest.raises(InputError, match="units: expected integers from 0 to 4"):
            random_units(wrong, 5, 0, rng)
    with pytest.raises(InputError, match="n_units"):
        random_units(None, 5, -1, rng)


@pytest.mark.needs("pyarrow")
def test_tables_become_parquet(tmp_path):
    import pandas as pd

    table().write(tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert frame["name"].tolist() == ['a,"b"\n', "ä"]
    assert frame["n"].tolist() == [1, 2]
    assert frame["share"].isna().tolist() == [False, True]


# Thresholds


def test_ranges_of_quantiles_hold_their_share_of_the_non_zero_activations():
    values = np.concatenate([np.zeros(50), np.arange(1, 1001)]).astype(np.float32)
    for q, (lower, upper) in zip(studies.QUANTILES, unit_ranges_of(values, studies.QUANTILES), strict=True):
        share = np.mean((values[50:] > lower) & (values[50:] < upper))
        assert share == pytest.approx(q if q <= 0.5 else 1 - q, abs=0.0011), q
    (lower, upper), (least, most) = unit_ranges_of(values, [0.5, 0.51])
    assert np.isinf(upper)
    assert (least, most) == (1e-6, pytest.approx(lower - 9.99))
    assert np.isnan(unit_ranges_of(np.zeros(4), [0.1])).all()
    assert np.isnan(unit_ranges_of(np.full(4, -1.0), [0.9])).all()


def test_compare_thresholds(data):
    concepts, activations = data
    quantiles = (0.1, 0.5, 0.9)
    found = studies.compare_thresholds(activations, concepts, quantiles=quantiles, length=2, progress=False)
    assert set(found.units.column("unit")) == set(range(5))
    for row in found.units:
        values = activations[:, row["unit"]]
        threshold = np.quantile(values[values != 0].astype(np.float64), 1 - row["quantile"])
        limits = (threshold, np.inf) if row["quantile"] <= 0.5 else (1e-6, threshold)
        assert (row["lower"], row["upper"]) == (limits[0], None if np.isinf(limits[1]) else limits[1])
        (want,) = ccx.explain(activations, concepts, ranges=[limits], units=[row["unit"]], length=2, progress=False)
        assert (row["formula"], row["iou"]) == (str(want.formula), want.iou)
        assert row["iou"] == pytest.approx(iou_of(concepts, values, limits, row["formula"]))
    for row in found.categories:
        formulas = [one["formula"] for one in found.units if one["quantile"] == row["quantile"]]
        plain = [
            name for text in formulas for name in text.replace("NOT ", "NOT_").replace("(", "").replace(")", "").split()
        ]
        assert row["x"] == sum(plain.count(name) for name in "ab")
        assert row["y"] == sum(plain.count(name) for name in "cde")
        assert row["explanations"] == len(formulas)
    chosen = studies.compare_thresholds(activations, concepts, quantiles=(0.5,), units=[2, 5], length=1, progress=False)
    assert chosen.units.column("unit") == [2]
    silent = studies.compare_thresholds(activations, concepts, quantiles=(0.5,), units=[5], progress=False)
    assert silent.categories.rows == ((0.5, 0, None, 0, 0),)
    with pytest.raises(InputError, match="between 0 and 1"):
        studies.compare_thresholds(activations, concepts, quantiles=(1.5,))
    with pytest.raises(InputError, match="integers from 0 to 5"):
        studies.compare_thresholds(activations, concepts, units=[6])


# Heuristics


def test_compare_heuristics(data):
    concepts, activations = data
    found = studies.compare_heuristics(activations, concepts, clusters=2, length=2, n_units=0, progress=False)
    searches = found.summary.column("search")
    assert searches == ["mmesh", "cfh", "areas", "none", "beam", "optimal"]
    by_unit = {}
    for row in found.runs:
        by_unit.setdefault(row["unit"], []).append(row)
    assert sorted(by_unit) == [0, 1, 2, 3, 4]
    for unit, rows in by_unit.items():
        assert len({row["range"] for row in rows}) == 1
        assert [row["search"] for row in rows] == searches
        for row in rows:
            explained = ccx.explain(
                activations, concepts, clusters=2, length=2, units=[unit], search=row["search"], progress=False
            )
            want = explained[row["range"] - 1]
            assert (row["formula"], row["iou"], row["visited"], row["estimated"]) == (
                str(want.formula), want.iou, want.visited, want.estimated,
            )  # fmt: skip
            assert row["seconds"] > 0
    for row in found.summary:
        own = [run for run in found.runs if run["search"] == row["search"]]
        assert row["ranges"] == len(own)
        for what in ("seconds", "visited", "estimated"):
            values = [run[what] for run in own]
            assert row[f"{what} mean"] == pytest.approx(np.mean(values))
            assert row[f"{what} sd"] == pytest.approx(np.std(values))
        best = [max(run["iou"] for run in by_unit[one["unit"]]) for one in own]
        assert row["best"] == sum(one["iou"] == most for one, most in zip(own, best, strict=True))
    again = studies.compare_heuristics(activations, concepts, clusters=2, length=2, n_units=0, progress=False)
    assert again.runs.column("range") == found.runs.column("range")
    other = studies.compare_heuristics(
        activations, concepts, searches=["mmesh"], n_units=2, seed=1, published=True, progress=False
    )
    assert len(set(other.runs.column("unit"))) <= 2
    with pytest.raises(InputError, match="search"):
        studies.compare_heuristics(activations, concepts, searches=["best"])


def test_best_counts_the_ranges_on_which_no_search_finds_more():
    rng = np.random.default_rng(0)
    concepts = ccx.Concepts.from_masks(rng.random((8, 4, 4, 4)) < 0.4)
    activations = rng.random((4, 8, 4, 4)).astype(np.float32)
    found = studies.compare_heuristics(
        activations, concepts, searches=["none", "optimal"], beam=2, quantile=0.3, n_units=0, progress=False
    )
    ious = np.array(found.runs.column("iou")).reshape(8, 2)
    equal = int((ious[:, 0] == ious[:, 1]).sum())
    assert equal < 8  # so narrow a beam misses some
    assert found.summary.column("best") == [equal, 8]


# Specialization


def explanations(formulas, n_ranges, concepts_hash="h"):
    """Return explanations of units with `n_ranges` formulas each, None = none."""
    items = [
        Explanation(
            unit=i // n_ranges, range_index=i % n_ranges + 1, range=(0.0, 1.0),
            formula=None if text is None else parse(text),
            iou=0.5, iou_gain=None, intersection=1, union=2, bitmap_cells=1, formula_cells=2,
            status=Status.NO_OVERLAP if text is None else Status.EXPLAINED, visited=0, optimal=False, score=0.5,
        )
        for i, text in enumerate(formulas)
    ]  # fmt: skip
    return Explanations(items, settings={}, concepts_hash=concepts_hash, version="0")


def test_analyze_activations_by_hand():
    untrained = explanations(
        ["((a OR b) OR c)"] * 3 + ["((a OR b) OR d)"] * 2 + ["((c AND d) OR e)"] * 2 + ["e", None, "((a AND e) OR b)"],
        2,
    )
    trained = explanations(["((a OR b) OR c)", "((a OR b) OR e)", "((c AND d) OR a)", "((a OR b) OR d)", "e", None], 2)
    found = studies.analyze_activations(trained, untrained, share=0.4)  # k = 2 of 5 units
    assert [row[1:] for row in found.defaults.rows if row[0] == "formula"] == [
        ("((a OR b) OR c)", 3), ("((a OR b) OR d)", 2),
    ]  # fmt: skip
    assert [row[1:] for row in found.defaults.rows if row[0] == "left part"] == [("(a OR b)", 5), ("(c AND d)", 2)]
    kinds = dict(zip(found.units.column("formula"), found.units.column("kind"), strict=True))
    assert kinds == {
        "((a OR b) OR c)": "unspecialized", "((a OR b) OR d)": "unspecialized",
        "((a OR b) OR e)": "weakly specialized", "((c AND d) OR a)": "weakly specialized", "e": "specialized",
    }  # fmt: skip
    assert found.shares.rows == (("1", 3, 1 / 3, 1 / 3, 1 / 3), ("2", 2, 0.5, 0.5, 0.0), ("all", 5, 0.4, 0.4, 0.2))
    more = studies.analyze_activations(trained, untrained, share=0.6)  # k = 3, but only two left parts occur again
    assert [row[1:] for row in more.defaults.rows if row[0] == "left part"] == [("(a OR b)", 5), ("(c AND d)", 2)]
    assert studies.analyze_activations(trained, untrained, share=0.3).defaults == found.defaults  # ceil(1.5)
    fewer = studies.analyze_activations(trained, untrained, share=0.2)
    assert Counter(fewer.units.column("kind")) == {"unspecialized": 1, "weakly specialized": 2, "specialized": 2}
    with pytest.raises(InputError, match="same concepts"):
        studies.analyze_activations(trained, explanations(["a"], 1, "other"))
    shorter = Explanations(list(untrained), settings={"length": 2}, concepts_hash="0", version="0")
    longer = Explanations(list(trained), settings={"length": 3, "units": [0]}, concepts_hash="0", version="0")
    with pytest.raises(InputError, match="length=2, not 3"):
        studies.analyze_activations(longer, shorter)
    with pytest.raises(InputError, match="0 < share <= 1"):
        studies.analyze_activations(trained, untrained, share=0)


def test_left_parts():
    assert left_part(parse("a")) is None
    assert left_part(parse("NOT a")) is None
    assert left_part(parse("((a OR b) AND NOT c)")) == parse("(a OR b)")


# Metrics


def test_metrics(data):
    concepts, activations = data
    found = ccx.explain(activations, concepts, clusters=2, length=2, progress=False)
    measured = studies.metrics(found, activations, concepts, masking=lambda item: item.unit / 10, progress=False)
    assert [(row["unit"], row["range_index"]) for row in measured.units] == [
        (item.unit, item.range_index) for item in found
    ]
    for row, item in zip(measured.units, found, strict=True):
        assert row["iou"] == item.iou
        assert row["concept_masking"] == (None if item.formula is None else item.unit / 10)
    explained = [item for item in found if item.formula is not None]
    rows = {(row["metric"], row["range"]): row for row in measured.summary}
    assert rows["iou", "all"]["mean"] == pytest.approx(np.mean([item.iou for item in explained]))
    assert rows["iou", "2"]["sd"] == pytest.approx(np.std([item.iou for item in explained if item.range_index == 2]))
    assert rows["concept_masking", "1"]["explanations"] == 5
    assert all(value is None or np.isfinite(value) for row in measured.units.rows for value in row[5:])


# Pictures


@pytest.mark.needs("matplotlib")
def test_images_show_samples_that_qualify(data, tmp_path, monkeypatch):
    from PIL import Image

    from ccx.studies import picturing

    concepts, activations = data
    found = ccx.explain(activations, concepts, clusters=2, length=2, progress=False)
    photographs = np.full((12, 16, 16, 3), 200, np.uint8)
    shown = []
    real = picturing._blackened
    monkeypatch.setattr(
        picturing, "_blackened", lambda image, fires: shown.append((image, fires)) or real(image, fires)
    )
    paths = studies.images(
        found, activations, concepts, photographs, tmp_path / "figures", top_k=3, n_units=0, progress=False
    )
    assert [path.name for path in paths] == [f"unit_{unit}_c_2.png" for unit in range(6)]
    for path in paths:
        with Image.open(path) as image:
            assert image.size[0] > 100
    qualifying = []
    for item in found.explained:
        upsampled = upsample(np.ascontiguousarray(activations[:, item.unit]), concepts.shape)
        fires = (upsampled > item.range[0]) & (upsampled < item.range[1])
        holds = concepts.mask(item.formula)
        both, either = (fires & holds).sum(axis=(1, 2)), (fires | holds).sum(axis=(1, 2))
        good = [fires[n] for n in range(12) if both[n] and both[n] / either[n] > item.iou]
        qualifying.append((min(3, len(good)), good))
    assert len(shown) == sum(n for n, _ in qualifying)
    bitmaps = [fires for _, fires in shown]
    for n, good in qualifying:
        for fires in bitmaps[:n]:
            assert any((fires == one).all() for one in good)
        bitmaps = bitmaps[n:]
    again = studies.images(
        found, activations, concepts, photographs, tmp_path / "again", top_k=3, units=[1], progress=False
    )
    assert again[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(InputError, match="12 images"):
        studies.images(found, activations, concepts, photographs[:3], tmp_path)
    with pytest.raises(InputError, match="top_k"):
        studies.images(found, activations, concepts, photographs, tmp_path, top_k=0)


@pytest.mark.needs("matplotlib")
def test_images_leave_out_cells_that_are_not_valid(tmp_path, monkeypatch):
    """Void cells count in no sample's IoU, and are black."""
    valid = np.ones((2, 4, 4), bool)
    valid[:, 2:] = False
    masks = np.zeros((1, 2, 4, 4), bool)
    masks[0, :, :2, :2] = True
    masks[0, 1, 0] = True  # so that the formula is exact on the first sample only
    concepts = ccx.Concepts.from_masks(masks, ["left"], valid=valid)
    activations = np.zeros((2, 1, 4, 4), np.float32)
    activations[:, 0, :, :2] = 1  # also where nothing is valid
    found = ccx.explain(activations, concepts, ranges=[(0.5, np.inf)], length=1, progress=False)
    assert 0.5 < found[0].iou < 1
    shown = []
    monkeypatch.setattr(picturing, "_blackened", lambda image, fires: shown.append(fires) or image)
    studies.images(found, activations, concepts, np.zeros((2, 8, 8, 3), np.uint8), tmp_path, progress=False)
    np.testing.assert_array_equal(shown, [masks[0, 0]])
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot make this folder"):
        studies.images(found, activations, concepts, np.zeros((2, 8, 8, 3), np.uint8), tmp_path / "file" / "x")


@pytest.mark.needs("matplotlib")
def test_what_lies_outside_the_bitmap_is_black():
    from ccx.studies.picturing import _blackened

    image = np.full((4, 6, 3), 9, np.uint8)
    fires = np.array([[True, False, False], [False, False, True]])
    want = np.zeros((4, 6, 3), np.uint8)
    want[:2, :2] = want[2:, 4:] = 9
    np.testing.assert_array_equal(_blackened(image, fires), want)


@pytest.mark.needs("matplotlib")
def test_figures_of_studies(data):
    concepts, activations = data
    thresholds = studies.compare_thresholds(activations, concepts, quantiles=(0.1, 0.9), length=1, progress=False)
    figure = thresholds.plot()
    drawn = [axis for axis in figure.axes if axis.patches]
    assert [[bar.get_height() for bar in axis.patches] for axis in drawn] == [
        list(row[3:]) for row in thresholds.categories.rows
    ]
    heuristics = studies.compare_heuristics(activations, concepts, searches=["none", "beam"], progress=False)
    seconds, visited = heuristics.plot().axes
    assert drawn_means(visited) == heuristics.summary.column("visited mean")
    assert drawn_means(seconds) == heuristics.summary.column("seconds mean")
    assert [label.get_text() for label in seconds.get_yticklabels()] == ["none", "beam"]
    nothing = studies.compare_heuristics(activations, concepts, searches=["beam"], units=[5], progress=False)
    assert nothing.plot().get_suptitle() == "mean and deviation over 0 ranges"


def drawn_means(axis):
    return [float(bars.lines[0].get_xdata()[0]) for bars in axis.containers]


def test_all_public_names_exist():
    assert all(hasattr(studies, name) for name in studies.__all__)
    assert len(set(itertools.chain(studies.__all__))) == len(studies.__all__)
