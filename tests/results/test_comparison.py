"""Searches compared row by row, in Python and on the command line."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import ccx
from ccx.cli import app
from ccx.comparison import Compared, Comparison
from ccx.errors import InputError


@pytest.fixture(scope="module")
def problem():
    """Bitmaps on which a narrow beam falls short here and there."""
    rng = np.random.default_rng(1)
    masks = rng.random((9, 4, 6, 6)) < 0.35
    bitmaps = np.stack([(masks[a] | masks[b]) & ~masks[c] for a, b, c in (rng.permutation(9)[:3] for _ in range(40))])
    bitmaps ^= rng.random(bitmaps.shape) < 0.25
    bitmaps[-1] = False
    return bitmaps, ccx.Concepts.from_masks(masks)


def found_by(problem, **options):
    return ccx.explain_bitmaps(*problem, threads=1, progress=False, **options)


def test_the_optimum_beside_a_narrow_beam(problem):
    best, beam = found_by(problem, search="optimal"), found_by(problem, beam=1)
    compared = best.compare(beam)
    scores = [(one.score, other.score) for one, other in zip(best, beam, strict=True)]
    short = [(a - b) / a for a, b in scores if b < a]
    assert len(short) > 3  # else nothing is compared
    numbers = compared.summary()
    assert (numbers["rows"], numbers["worse"], numbers["equal"], numbers["better"]) == (
        40,
        len(short),
        40 - len(short),
        0,
    )
    assert numbers["worse_share"] == len(short) / 40
    assert numbers["mean_shortfall"] == pytest.approx(sum(short) / len(short))
    assert numbers["worst_shortfall"] == max(short)
    assert numbers["median_shortfall"] == pytest.approx(float(np.median(short)))
    assert (numbers["mean_excess"], numbers["most_excess"]) == (None, None)
    assert numbers["other_formula"] == sum(a.formula != b.formula for a, b in zip(best, beam, strict=True))
    back = beam.compare(best).summary()
    assert (back["worse"], back["better"], back["most_excess"]) == (0, len(short), max(short))
    assert f"worse in {len(short)} of 40 rows" in repr(compared)
    assert compared.table().row_count == len(short)
    assert compared.table(2).caption == f"... and {len(short) - 2} more"
    assert compared[-1] == Compared(39, 1, 0.0, 0.0, None, None)
    assert compared[-1].shortfall == 0.0
    assert compared.to_records()[0] == {
        "unit": 0,
        "range_index": 1,
        "score": best[0].score,
        "other_score": beam[0].score,
        "shortfall": compared[0].shortfall,
        "formula": str(best[0].formula),
        "other_formula": str(beam[0].formula),
    }
    assert isinstance(compared[:2], Comparison)
    assert json.dumps(compared.to_records())


def test_rows_are_matched_by_unit_and_range(problem):
    best = found_by(problem, search="optimal")
    compared = best[3:10].compare(best[5:])
    assert [one.unit for one in compared] == [5, 6, 7, 8, 9]
    assert compared.unmatched == 2 + 30
    assert "32 rows without a match" in repr(compared)
    assert compared.summary()["equal"] == 5
    assert compared == best[3:10].compare(best[5:])
    assert hash(compared) == hash(best[3:10].compare(best[5:]))


def test_what_cannot_be_compared_is_refused(problem):
    bitmaps, concepts = problem
    best = found_by(problem)
    for options, text in (
        ({"scoring": "f1"}, "scoring iou, got scoring f1"),
        ({"length_penalty": 0.9}, "length_penalty"),
    ):
        with pytest.raises(InputError, match=f"other: expected {text}"):
            best.compare(found_by(problem, **options))
    with pytest.raises(InputError, match="other: expected concepts "):
        best.compare(found_by((bitmaps, concepts.subset(only=concepts.names[:3]))))
    with pytest.raises(InputError, match="other: expected rows of the same units, got none"):
        best[:2].compare(best[2:])
    with pytest.raises(InputError, match=r"other: expected the same bitmaps, .* for unit 0, range 1"):
        best.compare(found_by((~bitmaps, concepts)))


def test_older_results_have_no_scoring(problem):
    best = found_by(problem)
    settings = {key: value for key, value in best.settings.items() if key != "scoring"}
    old = ccx.Explanations(best, settings=settings, concepts_hash=best.concepts_hash, version=best.version)
    assert old.score_title == "IoU"
    assert old.compare(best).summary()["equal"] == 40
    better = [replace(one, score=one.score + 0.5) for one in best]
    changed = ccx.Explanations(better, settings=settings, concepts_hash=best.concepts_hash, version=best.version)
    assert best.compare(changed).summary()["better"] == 40
    assert best.compare(changed)[0].shortfall == pytest.approx(-0.5 / (best[0].score + 0.5))


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(3)
    masks = rng.random((8, 5, 6, 6)) < 0.4
    activations = rng.random((5, 6, 6, 6)).astype(np.float32) + (masks[:6] & ~masks[2:]).swapaxes(0, 1)
    np.save(tmp_path / "activations.npy", activations)
    np.save(tmp_path / "masks.npy", masks)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_compare_searches(files):
    data = "compare-searches", files / "activations.npy", "--masks", files / "masks.npy", "--beam", 1, "--clusters", 3
    result = run(*data, "--searches", "optimal,beam,none", "--out", files / "out", "--scoring", "iou")
    assert result.exit_code == 0, result.output
    activations, masks = np.load(files / "activations.npy"), np.load(files / "masks.npy")
    best, beam, none = (
        ccx.explain(activations, masks, clusters=3, beam=1, search=search, progress=False)
        for search in ("optimal", "beam", "none")
    )
    wanted = best.compare(beam)
    assert wanted.summary()["worse"] > 0
    assert f"beam: {wanted.text()}" in result.output
    rows = list(csv.DictReader((files / "out" / "rows.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(best)
    assert [row["search"] for row in rows[:: len(best)]] == ["beam", "none"]
    assert float(rows[1]["shortfall"]) == wanted[1].shortfall
    summary = list(csv.DictReader((files / "out" / "summary.csv").read_text().splitlines()))
    assert [int(one["worse"]) for one in summary] == [wanted.summary()["worse"], best.compare(none).summary()["worse"]]

    result = run(*data, "--scoring", "balanced-accuracy", "--format", "jsonl", "--out", files / "out", "--length", 2)
    assert result.exit_code == 0, result.output
    assert "balanced accuracy of each search beside that of optimal" in result.output
    lines = (files / "out" / "rows.jsonl").read_text().splitlines()
    assert len(lines) == len(best)
    assert json.loads(lines[0])["search"] == "beam"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--searches", "beam"), "--searches: expected two or more different searches, got 'beam'"),
        (("--searches", "beam,beam"), "--searches: expected two or more different searches"),
        (("--searches", "beam,best"), "search: expected"),
        (("--searches", "beam,mmesh", "--scoring", "f1"), "scoring: expected"),
        (("--format", "xml"), "--format: expected csv or jsonl, got 'xml'"),
        (("--scoring", "dice"), "scoring: expected"),
    ],
)
def test_bad_options_are_one_message(files, options, message):
    result = run("compare-searches", files / "activations.npy", "--masks", files / "masks.npy", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_explain_passes_the_score_on(files):
    out = files / "run"
    arguments = "explain", files / "activations.npy", "--masks", files / "masks.npy", "--out", out, "--scoring", "mcc"
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    found = ccx.load(out)
    assert found.settings["scoring"] == "mcc"
    assert "MCC" in result.output
    assert f"{max(one.score for one in found):.3f}" in result.output
    assert "MCC" in run("show", out).output
    page = (out / "report.html").read_text()
    assert "scoring mcc" in page
    assert f"MCC {max(one.score for one in found):.3f}" in page
