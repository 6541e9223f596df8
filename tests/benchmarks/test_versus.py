"""The race of `benchmarks/versus.py`, on a tiny problem: that what it prints is what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

if not (ROOT / "benchmarks" / "versus.py").exists():
    pytest.skip("the benchmarks lie in the checkout, and these tests run without it", allow_module_level=True)

sys.path.append(str(ROOT))  # behind everything else: ccx itself may be installed
try:
    from benchmarks import _peers, versus
    from benchmarks._peers import Answer
    from benchmarks._problem import SCALES, Problem
    from benchmarks.synthetic import generate
finally:
    sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def drawn():
    return versus.draw(SCALES["tiny"], 3)


def race(*options, tmp_path):
    """Run the script -> (its JSON, its Markdown)."""
    files = tmp_path / "race.json", tmp_path / "race.md"
    script = [sys.executable, str(ROOT / "benchmarks" / "versus.py"), "--scale", "tiny", "--bitmaps", "2"]
    subprocess.run([*script, "--json", str(files[0]), "--markdown", str(files[1]), *options], check=True, cwd=tmp_path)
    return json.loads(files[0].read_text()), files[1].read_text()


def test_the_script_races_ccx_against_numpy(tmp_path):
    facts, text = race("--systems", "ccx beam,NumPy beam", tmp_path=tmp_path)
    ours, numpy = facts["races"][0]["runs"]
    for run in ours, numpy:
        assert [one["failure"] for one in run["bitmaps"]] == [None, None]
        assert all(one["user"] + one["system"] > 0 for one in [run["preparation"], *run["bitmaps"]])
    assert [one["formula"] for one in ours["bitmaps"]] == [one["formula"] for one in numpy["bitmaps"]]
    assert "the same formula for 2 of 2" in text
    assert "| NumPy beam : ccx beam |" in text


@pytest.mark.needs("versus")
def test_the_script_races_ccx_against_the_published_package(tmp_path):
    facts, text = race("--systems", "ccx beam,peer beam,peer optimal", tmp_path=tmp_path)
    assert facts["machine"]["compositional-explanations"]
    ours, *peers = facts["races"][0]["runs"]
    for run in peers:
        for one, mine in zip(run["bitmaps"], ours["bitmaps"], strict=True):
            assert one["failure"] is None
            assert 0 < one["intersection"] * mine["union"] <= mine["intersection"] * one["union"]
    assert "| peer beam : ccx beam |" in text


@pytest.mark.parametrize("name", ["NumPy beam", "ccx beam"])
def test_systems_without_the_peer_agree_on_many_problems(name):
    rng = np.random.default_rng(3)
    for _ in range(25):
        shape = rng.integers(2, 8), rng.integers(1, 4), rng.integers(1, 12), rng.integers(1, 12)
        masks = rng.random(shape) < rng.random((shape[0], 1, 1, 1))
        bitmap = rng.random(shape[1:]) < rng.random()
        problem = Problem(masks, [f"c{c}" for c in range(shape[0])], np.eye(shape[0], dtype=bool), bitmap[None])
        answers = []
        for system in (_peers.SYSTEMS[name](), _peers.Ccx("none")):
            system.prepare(problem)
            answers.append(system.explain(bitmap))
        assert answers[0] == answers[1]


def test_a_problem_survives_its_folder(drawn, tmp_path):
    problem = drawn[1]
    problem.save(tmp_path)
    again = Problem.load(tmp_path)
    assert again.names == problem.names
    for name in ("masks", "disjoint", "bitmaps"):
        np.testing.assert_array_equal(getattr(again, name), getattr(problem, name), strict=True)


def test_reduced_data_keep_the_most_frequent_concepts():
    data = generate(20, 1)
    small = data.reduced(7, step=4)
    assert small.labels.shape == (20, 5, 28, 28)
    thin = data.labels[:, :, ::4, ::4]
    present = {c: (thin == c + 1).any(axis=(1, 2, 3)).sum() for c in range(len(data.names))}
    kept = [data.names.index(name) for name in small.names]
    assert min(present[c] for c in kept) >= max(n for c, n in present.items() if c not in kept)
    for new, old in enumerate(kept):
        np.testing.assert_array_equal(small.labels == new + 1, thin == old + 1)
        assert small.categories[new] == data.categories[old]


SABOTAGE = """
import os, sys, time
sys.path.insert(0, {root!r})
from benchmarks import _peers
class Sabotaged(_peers.Ccx):
    number = 0
    def explain(self, bitmap):
        Sabotaged.number += bitmap.size > 300
        if Sabotaged.number == 1 and {trouble!r} == "raise":
            raise ValueError("no")
        if Sabotaged.number == 1 and {trouble!r} == "die":
            os._exit(3)
        while Sabotaged.number == 1 and {trouble!r} == "spin":
            pass
        return super().explain(bitmap)
    def prepare(self, problem):
        if problem.masks[0].size > 300 and {trouble!r} == "unprepared":
            sys.exit("no memory")
        super().prepare(problem)
_peers.SYSTEMS["ccx beam"] = lambda: Sabotaged("beam")
_peers.main(_peers.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
"""


@pytest.mark.parametrize(
    ("trouble", "failures", "cell"),
    [
        ("raise", ["crash: ValueError: no", None, None], "2 of 3; 1 × crash: ValueError: no"),
        ("die", ["crash: exit status 3"] * 3, "0 of 3; 3 × crash: exit status 3"),
        ("spin", [versus.TIME_OUT] * 3, "0 of 3; 3 × time-out"),
        ("unprepared", ["crash: no memory in preparation"] * 3, "0 of 3; 3 × crash: no memory in preparation"),
    ],
)
def test_failures_are_counted_and_shown(trouble, failures, cell, drawn, tmp_path, monkeypatch):
    script = tmp_path / "sabotaged.py"
    script.write_text(SABOTAGE.format(root=str(ROOT), trouble=trouble))
    monkeypatch.setattr(_peers, "__file__", str(script))
    drawn[1].save(tmp_path)
    run = versus.run_system(tmp_path, "ccx beam", 3, time_limit=0.5)
    assert [one.failure for one in run.bitmaps] == failures
    assert run.texts()[-1] == cell
    if trouble == "spin":
        assert run.texts()[2] == "≥ 0.5 s"
        assert run.against(run)[1].startswith("≥ 1 ")
    if trouble == "die":
        assert run.texts()[2] == run.against(run)[1] == "–"


def outcome(intersection=1, union=2, user=1.0, **more):
    return versus.Outcome(user=user, intersection=intersection, union=union, peak_in_all=10, **more)


def test_ious_are_compared_exactly_and_failures_apart():
    near = outcome(10**18, 3 * 10**18 - 1), outcome(1, 3)  # the same float
    ours = versus.Run("ccx beam", bitmaps=[near[0], near[1], outcome(), outcome()])
    theirs = versus.Run(
        "peer beam", bitmaps=[near[1], near[0], outcome(2, 4, user=3.0), outcome(user=9, failure=versus.TIME_OUT)]
    )
    assert near[0].iou > near[1].iou == Fraction(1, 3)
    assert theirs.against(ours) == ["peer beam : ccx beam", "≥ 2 (1 to 9)", "1", "1.0", "1", "1", "1", "1"]


def test_a_wrong_claim_is_found_out(drawn):
    data, problem, _ = drawn
    system = _peers.Ccx("beam")
    system.prepare(problem)
    formula, iou = system.explain(problem.bitmaps[0])
    run = versus.Run("ccx beam", bitmaps=[versus.Outcome(formula=str(formula), claimed=iou)])
    versus.judge(run, data, problem.bitmaps[:1])
    assert float(run.bitmaps[0].iou) == iou > 0
    run.bitmaps[0].claimed = iou * 1.000001
    with pytest.raises(RuntimeError, match="which has"):
        versus.judge(run, data, problem.bitmaps[:1])


def test_an_unknown_system_is_refused(tmp_path):
    script = [sys.executable, str(ROOT / "benchmarks" / "versus.py"), "--systems", "nobody"]
    done = subprocess.run(script, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "not here: nobody" in done.stderr


def test_an_empty_bitmap_has_no_formula():
    problem = Problem(np.ones((2, 1, 3, 3), np.bool_), ["a", "b"], np.eye(2, dtype=bool), np.zeros((1, 1, 3, 3), bool))
    for name in ("ccx beam", "NumPy beam"):
        system = _peers.SYSTEMS[name]()
        system.prepare(problem)
        assert system.explain(problem.bitmaps[0]) == Answer(None, 0.0)
