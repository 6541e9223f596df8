"""Results: what is saved comes back, what is shown is readable, what is damaged is refused."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import pickle
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.errors import InputError, MissingExtraError, StoreError
from ccx.evidence import Chance, HeldOut
from ccx.formula import Concept, Formula, left_deep, parse
from ccx.results import FORMAT, ROW_KEY, RUN_FORMAT, Candidate, Explanation, Explanations, Status
from ccx.store import RowLog
from tests.support.fuzzing import attempts
from tests.support.result_examples import check_schema, example, silent, table_of
from tests.support.seals import before_range_index, unseal

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.sampled_from(["sky", "traffic light", "<b>[red]</b>", "AND", "木", '"', "\ud800", "\u2028"]) | st.text(
    min_size=1
)


@st.composite
def formulas(draw: st.DrawFn) -> Formula:
    distinct = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return left_deep(
        distinct, draw(st.lists(st.integers(0, 2), min_size=len(distinct) - 1, max_size=len(distinct) - 1))
    )


@st.composite
def counts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw |F and B| > 0 and |F or B|, and their IoU."""
    intersection = draw(st.integers(1, 2**62))
    union = draw(st.integers(intersection, 2**63 - 1))
    return {"intersection": intersection, "union": union, "iou": intersection / union}


@st.composite
def chances(draw: st.DrawFn, score: float) -> Chance | None:
    """Draw what permutations may reach beside a score."""
    null = draw(st.integers(1, 2**40))
    reached = draw(st.integers(0, null))
    maximum = score + (draw(st.floats(0, 1)) if reached else -draw(st.floats(0, 1)))
    mean = maximum - draw(st.floats(0, 1))
    z = None if null == 1 else draw(st.none() | st.floats(0, 9).map(lambda z: math.copysign(z, score - mean)))
    return draw(st.none() | st.just(Chance(null, mean, maximum, z, (1 + reached) / (1 + null))))


@st.composite
def cells(draw: st.DrawFn) -> dict[str, Any]:
    """Draw counts that fit each other."""
    found = draw(counts())
    only_bitmap = draw(st.integers(0, found["union"] - found["intersection"]))
    sizes = {"bitmap_cells": found["intersection"] + only_bitmap, "formula_cells": found["union"] - only_bitmap}
    return found | sizes


@st.composite
def held_out(draw: st.DrawFn) -> HeldOut:
    score = draw(st.floats(-1, 1))
    return HeldOut(score, chance=draw(chances(score)), **draw(cells()))


@st.composite
def explanations(draw: st.DrawFn, unit: int = 0, range_index: int = 1) -> Explanation:
    status = draw(st.sampled_from(Status))
    ends = draw(
        st.none() | st.lists(finite | st.sampled_from([math.inf, -math.inf]), min_size=2, max_size=2).map(sorted)
    )
    found: dict[str, Any] = {"intersection": 0, "union": 0, "iou": 0.0, "formula": None, "score": 0.0, "iou_gain": None}
    found |= {"bitmap_cells": 0, "formula_cells": 0, "optimal": draw(st.booleans())}
    if status is Status.EXPLAINED:
        found |= draw(cells()) | {"formula": draw(formulas())}
        n_cells = draw(st.integers(found["union"], 2**63 - 1))
        found["iou_gain"] = draw(st.none() | st.just(found["iou"] - found["bitmap_cells"] / n_cells))
        found["score"] = found["iou"] * draw(st.floats(0, 1))
        n_bitmap, known = found["bitmap_cells"], {str(found["formula"])}
        others = []
        for formula in draw(st.lists(formulas(), max_size=2)):
            if str(formula) not in known:
                hits, union = draw(st.integers(0, n_bitmap)), draw(st.integers(n_bitmap, 2**63 - 1))
                others.append(Candidate(formula, hits / union, hits, union))
                known.add(str(formula))
        slack = 0.0 if found["optimal"] else draw(st.floats(0, 1))
        found |= {
            "alternatives": tuple(others),
            "chance": draw(chances(found["score"])),
            "held_out": draw(st.none() | held_out()),
            "upper_bound": draw(st.none() | st.just(found["score"] + slack)),
            "evaluations": draw(st.integers(0, 2**40)),
        }
    elif status in (Status.NO_OVERLAP, Status.BELOW_MIN_IOU):
        found["bitmap_cells"] = found["union"] = draw(st.integers(1, 2**40))
    return Explanation(
        unit=unit,
        range_index=range_index,
        range=None if ends is None else tuple(ends),
        status=status,
        visited=draw(st.integers(0, 2**40)),
        expanded=draw(st.integers(0, 2**40)),
        estimated=draw(st.integers(0, 2**40)),
        **found,
    )


@st.composite
def tables(draw: st.DrawFn) -> Explanations:
    keys = sorted(draw(st.sets(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=6)))
    json_values = (
        st.none() | st.booleans() | st.integers() | finite | st.text(max_size=3) | st.lists(finite, max_size=2)
    )
    return Explanations(
        [draw(explanations(*key)) for key in keys],
        settings=draw(st.dictionaries(st.text(max_size=5), json_values, max_size=3)),
        concepts_hash="00ff",
        version="0.1.0",
    )


HALF = {"iou": 0.5, "iou_gain": 0.35, "intersection": 50, "bitmap_cells": 60, "formula_cells": 90, "score": 0.5}
MIXED = table_of(example(2, 1), example(2, 2, formula=parse("sky"), **HALF), silent(7), example(9))


# ---------------------------------------------------------------------------- files and records


@given(found=tables())
def test_a_saved_file_comes_back_and_fits_its_schema(
    tmp_path_factory: pytest.TempPathFactory, found: Explanations
) -> None:
    path = tmp_path_factory.getbasetemp() / "found.json"
    found.save(path)
    assert Explanations.load(path) == found
    content = json.loads(path.read_bytes())
    assert [Explanation.from_record(record) for record in content["explanations"]] == list(found)
    assert content["explanations"] == found.to_records()
    schema = json.loads(Path(ccx.__file__).with_name("results_schema.json").read_bytes())
    assert check_schema(content, schema)


def test_the_schema_refuses_what_load_refuses() -> None:
    schema = json.loads(Path(ccx.__file__).with_name("results_schema.json").read_bytes())
    record_schema = schema["properties"]["explanations"]["items"]
    good = example().to_record()
    assert check_schema(good, record_schema)
    for name in good:
        for bad in [..., None, "x", 1.5, -1, True, [], [1], {"formula": "sky"}, [{"formula": "sky"}], ["inf", "x"]]:
            damaged = good | {name: bad}
            if bad is ...:
                del damaged[name]
            if not check_schema(damaged, record_schema):
                with pytest.raises(InputError):
                    Explanation.from_record(damaged)


@pytest.mark.parametrize("change", [{"iou": 10**400}, {"range": [10**400, 0]}, {"extra": 1}, {"formula": "(a OR"}])
def test_other_impossible_records(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Explanation.from_record(example().to_record() | change)
    with pytest.raises(InputError, match="record: expected the fields unit, range_index"):
        Explanation.from_record([])


def test_numpy_scalars_are_written_as_numbers() -> None:
    import numpy as np

    item = example(
        unit=np.int64(3), range=(np.float64("-inf"), np.float32(0.1)), iou=np.float64(0.18), optimal=np.bool_(True)
    )
    record = json.loads(json.dumps(item.to_record(), allow_nan=False))
    assert (record["unit"], record["range"], record["optimal"]) == (3, ["-inf", float(np.float32(0.1))], True)
    assert Explanation.from_record(record) == item


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="range: expected an ascending range"):
        table_of(example(range=(math.nan, 1.0))).save(tmp_path / "found.json")
    with pytest.raises(InputError, match="settings"):
        Explanations([], settings={"quantile": math.nan}, concepts_hash="", version="")
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    table_of(example(), silent(1)).save(path)
    content = path.read_bytes()
    for end in range(len(content) - 1):  # the last byte is a line break
        path.write_bytes(content[:end])
        with pytest.raises(StoreError, match=r"found\.json: "):
            Explanations.load(path)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("ccx.explanations/1", "ccx.explanations/4", r"version 4 of ccx\.explanations, and this ccx reads version 3"),
        ("ccx.explanations/1", "ccx.run/1", r"has format 'ccx\.run/1'; check the path"),
        ('"concepts_hash"', '"hash"', "damaged: no concepts_hash"),
        ('"settings":{"beam":5,"ranges":[1,2]}', '"settings":[]', "damaged: no settings"),
        ('"explanations":[', '"explained":[', "damaged: no explanations"),
        ('"explained","visited"', '"fine","visited"', "explanation 0: status: expected one of explained, silent"),
        ('"unit":1', '"unit":"1"', "explanation 1: unit: expected int, got '1'"),
        ('"union":100,"bit', '"union":1e2,"bit', "explanation 0: union: expected int, got 100.0"),
        ('"iou":0.18', '"iou":1e999', "explanation 0: iou: expected a finite number"),
        ('"iou":0.18', '"iou":NaN', "not valid JSON"),
        ("NOT road)", "NOT road", "explanation 0: formula: expected"),
        ('"inf"', '"infinity"', "explanation 0: range: expected"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "found.json"
    table_of(example(), silent(1)).save(path)
    unseal(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StoreError, match=problem):
        Explanations.load(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Explanations.load(tmp_path / "missing.json")
    with pytest.raises(StoreError, match=r"run\.json: cannot read it"):
        Explanations.load(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(StoreError, match="no format of ccx"):
        Explanations.load(tmp_path / "list.json")


def test_a_run_folder_comes_back(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "key": ROW_KEY,
        "format": RUN_FORMAT,
        "settings": MIXED.settings,
        "hashes": {"concepts": MIXED.concepts_hash, "activations": "aa"},
        "version": MIXED.version,
    }
    with RowLog(tmp_path, **arguments) as log:
        for item in MIXED[:2]:
            log.append(item.to_record(), {"seconds": 0.1})
    assert Explanations.load(tmp_path) == MIXED[:2]
    with RowLog(tmp_path, **arguments) as log:
        assert [Explanation.from_record(row) for row in log.rows] == list(MIXED[:2])
        for item in MIXED[2:]:
            log.append(item.to_record())
        log.flush()
        assert Explanations.load(tmp_path) == MIXED  # while it is being written
    with pytest.raises(StoreError, match="differs in content of concepts"):
        RowLog(tmp_path, **arguments | {"hashes": {"concepts": "other", "activations": "aa"}})
    before_range_index(tmp_path)
    unseal(tmp_path)
    assert list(Explanations.load(tmp_path)) == without_gain(MIXED)  # of a version before checksums
    rows = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(rows.replace('"visited":1200', '"visited":null', 1))
    with pytest.raises(StoreError, match="explanation 0: visited: expected int, got None"):
        Explanations.load(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    del run["hashes"]["concepts"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(StoreError, match="no concepts_hash"):
        Explanations.load(tmp_path)


def flips(content: bytes, step: int) -> Iterator[tuple[int, bytes]]:
    for bit in range(0, 8 * len(content), step):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(flipped)


@pytest.mark.states("Stored results", "damage of any bit", "refused", "copy or make it again: each file has checksums")
@pytest.mark.states("Stored results", "formats without checksums (/1)", "accepted", "checked against themselves")
def test_every_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    found = table_of(example(), silent(1))
    found.save(tmp_path / "found.json")
    about: dict[str, Any] = {"settings": found.settings, "hashes": {"concepts": "00ff"}, "version": found.version}
    with RowLog(tmp_path / "run", key=ROW_KEY, format=RUN_FORMAT, **about) as log:
        for item in found:
            log.append(item.to_record(), {"seconds": 0.5})
    n_refused, step = 0, attempts(nightly=1, quick=7)  # 7 meets every byte, and each of its bits in turn
    for file in (tmp_path / "found.json", *sorted((tmp_path / "run").iterdir())):
        whole = file.read_bytes()
        place = file if file.parent == tmp_path else file.parent
        for bit, content in flips(whole, step):
            file.write_bytes(content)
            try:
                assert Explanations.load(place) == found, (file.name, bit)
            except StoreError:
                n_refused += 1
            else:
                assert file.name == "timings.jsonl", (file.name, bit)  # nothing is read from it
        file.write_bytes(whole)
        assert Explanations.load(place) == found
    assert n_refused > 10_000 // step


def without_gain(found: Explanations) -> list[Explanation]:
    return [dataclasses.replace(item, iou_gain=None) for item in found]


@pytest.mark.states("Stored results", "formats 1 and 2, whose ranges count from 0", "accepted", "ranges count from 1")
def test_results_of_older_formats_are_migrated(tmp_path: Path) -> None:
    about: dict[str, Any] = {"settings": MIXED.settings, "hashes": {"concepts": "00ff"}, "version": MIXED.version}
    run = {"key": ROW_KEY, "format": RUN_FORMAT, **about}
    path, folder = tmp_path / "found.json", tmp_path / "run"
    MIXED.save(path)
    with RowLog(folder, **run) as log:
        for record in MIXED.to_records():
            log.append(record)
    expected = without_gain(MIXED)
    for place in (path, folder):
        before_range_index(place)
        assert list(Explanations.load(place)) == expected
        unseal(place)
        assert list(Explanations.load(place)) == expected
    assert Explanations.load(path).best().units == (2, 9, 7)  # by IoU
    Explanations.load(path).save(path)
    assert f'"{FORMAT}"' in path.read_text()
    assert list(Explanations.load(path)) == expected
    with pytest.raises(StoreError, match=r"version 1 of ccx\.run, and this ccx reads version 3; .* make it again"):
        RowLog(folder, **run)


def test_permutations_of_older_formats(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    found = table_of(example(chance=CHANCE, held_out=HELD_OUT))
    found.save(path)
    before_range_index(path)
    assert path.read_text().count('"null":9') == 2
    assert list(Explanations.load(path)) == without_gain(found)


def test_deprecated_fields() -> None:
    with pytest.warns(DeprecationWarning, match="range_index now, and counts from 1"):
        assert example(range_index=3).cluster == 2
    with pytest.warns(DeprecationWarning, match="permutations now"):
        assert CHANCE.null == 9


def test_best() -> None:
    big = example(3, 2, iou=0.6, iou_gain=0.08, intersection=60, bitmap_cells=80, formula_cells=80, score=0.6)
    found = table_of(silent(0), example(2, 1), example(2, 2, **HALF), example(3, 1), big, silent(4), example(1))
    best = found.best()
    assert [(item.unit, item.range_index) for item in best] == [(2, 2), (1, 1), (3, 2), (0, 1), (4, 1)]
    assert best.settings == found.settings
    assert table_of(silent(1, 2), example(1, 1, iou_gain=-0.1)).best()[0].range_index == 1
    assert not table_of().best()


def test_results_before_checksums_are_checked_against_themselves(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    MIXED.save(path)
    unseal(path)
    assert Explanations.load(path) == MIXED
    text = path.read_text()
    for old, new, problem in (
        ('"union":100', '"union":101', "explanation 0: union: expected the cells of bitmap and formula, 100, got 101"),
        (
            '"range_index":2',
            '"range_index":1',
            "explanations: expected one per unit and range, got unit 2, range 1 twice",
        ),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(StoreError, match=rf"found\.json: damaged: {problem}"):
            Explanations.load(path)


CHANCE = Chance(9, 0.1, 0.15, 2.0, 0.1)
HELD_OUT = HeldOut(0.5, 0.5, 5, 10, 7, 8, Chance(9, 0.1, 0.6, 2.0, 0.2))


@pytest.mark.states("Stored results", "records that contradict themselves", "refused", "find them again")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"iou": 0.19}, r"iou: expected intersection / union, 18 / 100, got 0\.19"),
        ({"intersection": 41, "iou": 0.41}, "intersection: expected cells within the 40 of bitmap or formula, got 41"),
        ({"intersection": -1}, "intersection: expected a number of at least 0"),
        ({"union": 99, "iou": 18 / 99}, "union: expected the cells of bitmap and formula, 100, got 99"),
        ({"bitmap_cells": 41}, "union: expected the cells of bitmap and formula, 101, got 100"),
        ({"unit": -1}, "unit: expected a number of at least 0"),
        ({"range_index": 0}, "range_index: expected a number of at least 1"),
        ({"iou_gain": 0.18 - 0.41}, r"iou_gain: expected the IoU 0\.18 minus the share of 40 cells"),
        ({"iou_gain": 0.19}, r"iou_gain: expected the IoU 0\.18 minus the share of 40 cells"),
        ({"visited": -1}, "visited: expected a number of at least 0"),
        ({"range": (1.0, 0.5)}, "range: expected an ascending range"),
        ({"status": Status.SILENT}, "status: expected explained with a formula"),
        ({"formula": None}, "status: expected explained with a formula, another without"),
        ({"upper_bound": 0.1}, r"upper_bound: expected at least the score 0\.18, got 0\.1"),
        ({"upper_bound": 0.2, "optimal": True}, r"upper_bound: expected the score 0\.18, which is optimal, got 0\.2"),
        ({"alternatives": (Candidate(parse("a"), 0.2, 15, 100),)}, "alternatives: expected the IoU 15 / 100, got 0.2"),
        (
            {"alternatives": (Candidate(parse("a"), 15 / 39, 15, 39),)},
            "alternatives: expected cells of a formula beside",
        ),
        ({"alternatives": (Candidate(parse("a"), 0.41, 41, 100),)}, "alternatives: expected cells of a formula beside"),
        ({"alternatives": (Candidate(example().formula, 0.18, 18, 100),)}, "alternatives: expected each formula once"),
        ({"chance": dataclasses.replace(CHANCE, permutations=0)}, "chance: expected at least one permutation"),
        ({"chance": dataclasses.replace(CHANCE, p=0.15)}, "chance: expected a p-value of 9 permutations"),
        ({"chance": dataclasses.replace(CHANCE, p=0.0)}, "chance: expected a p-value of 9 permutations"),
        ({"chance": dataclasses.replace(CHANCE, mean=0.16)}, "chance: expected a mean of at most the maximum"),
        ({"chance": dataclasses.replace(CHANCE, p=0.2)}, r"chance: expected 1 scores that reach 0\.18"),
        ({"chance": dataclasses.replace(CHANCE, z=-2.0)}, "chance: expected a z of the score"),
        ({"held_out": dataclasses.replace(HELD_OUT, iou=0.4)}, "held_out: expected intersection / union, 5 / 10"),
        ({"held_out": dataclasses.replace(HELD_OUT, bitmap_cells=4)}, "held_out: expected cells within the 4"),
        ({"held_out": dataclasses.replace(HELD_OUT, chance=CHANCE, score=0.05)}, "held_out: expected a z of the score"),
    ],
)
def test_contradictions_are_neither_read_nor_written(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    assert Explanation.from_record(example(chance=CHANCE, held_out=HELD_OUT).to_record()).chance == CHANCE
    item = example(**changes)
    with pytest.raises(InputError, match=problem):
        Explanation.from_record(item.to_record())
    with pytest.raises(InputError, match=problem):
        table_of(item).save(tmp_path / "found.json")
    assert not (tmp_path / "found.json").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"score": 0.1}, "score: expected 0 without a formula"),
        ({"iou": 0.1}, "iou: expected 0 without a formula"),
        ({"iou_gain": 0.1}, "iou_gain: expected nothing without a formula"),
        ({"formula_cells": 3}, "formula_cells: expected 0 without a formula"),
        ({"alternatives": (Candidate(parse("a"), 0.5, 1, 2),)}, "alternatives: expected nothing without a formula"),
        ({"chance": CHANCE}, "chance: expected nothing without a formula"),
        ({"held_out": HELD_OUT}, "held_out: expected nothing without a formula"),
        ({"bitmap_cells": 3}, "bitmap_cells: expected 0 where the status is silent"),
        ({"union": 3}, "union: expected 0 without a formula"),
        ({"status": Status.NO_OVERLAP}, "bitmap_cells: expected some where the status is no_overlap"),
        ({"status": Status.EXPLAINED}, "status: expected explained with a formula"),
    ],
)
def test_contradictions_without_formula(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        dataclasses.replace(silent(0), **changes).check()


def test_scores_are_what_settings_say(tmp_path: Path) -> None:
    about: dict[str, Any] = {"concepts_hash": "", "version": ""}
    item = example(score=0.18 * 0.9**2)
    fitting = Explanations([item], settings={"scoring": "iou", "length_penalty": 0.9}, **about)
    fitting.save(tmp_path / "found.json")
    assert Explanations.load(tmp_path / "found.json") == fitting
    with pytest.raises(InputError, match=r"score: expected IoU times length penalty, 0\.18"):
        Explanations([item], settings={"scoring": "iou", "length_penalty": 1}, **about).save(tmp_path / "found.json")


# ----------------------------------------------------------------------------------- a sequence


def test_sequence() -> None:
    assert len(MIXED) == 4
    assert MIXED[0] == example(2, 1)
    assert MIXED[-1] is list(MIXED)[3]
    assert MIXED[1:] == Explanations(
        list(MIXED)[1:], settings=MIXED.settings, concepts_hash=MIXED.concepts_hash, version=MIXED.version
    )
    assert MIXED[0] in MIXED
    assert MIXED.index(silent(7)) == 2
    assert MIXED.units == (2, 7, 9)
    assert [item.range_index for item in MIXED.of_unit(2)] == [1, 2]
    assert MIXED.explained.units == (2, 9)
    assert not MIXED[:0]
    with pytest.raises(IndexError):
        MIXED[4]
    with pytest.raises(InputError, match="unit: expected one of 2, 7, 9, got 3"):
        MIXED.of_unit(3)


def test_equality_and_hash() -> None:
    same = copy.deepcopy(MIXED)
    assert same == MIXED
    assert hash(same) == hash(MIXED)
    assert pickle.loads(pickle.dumps(MIXED)) == MIXED
    assert MIXED[:3] != MIXED
    assert list(MIXED) != MIXED
    for change in ({"settings": {}}, {"concepts_hash": ""}, {"version": "2"}):
        arguments: dict[str, Any] = {
            "settings": MIXED.settings,
            "concepts_hash": MIXED.concepts_hash,
            "version": MIXED.version,
            **change,
        }
        assert Explanations(MIXED, **arguments) != MIXED


def test_immutable() -> None:
    MIXED.settings["beam"] = 10
    assert MIXED.settings == {"beam": 5, "ranges": [1, 2]}
    with pytest.raises(AttributeError):
        MIXED.version = "2"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        MIXED[0].iou = 1.0  # type: ignore[misc]
    assert not hasattr(MIXED[0], "__dict__")
    assert not hasattr(MIXED, "__dict__")


def test_summary() -> None:
    assert MIXED.summary() == {
        "explanations": 4,
        "units": 3,
        "statuses": {"explained": 3, "silent": 1},
        "mean_iou": pytest.approx((0.18 + 0.5 + 0.18) / 3),
        "median_iou": 0.18,
        "max_iou": 0.5,
        "mean_length": pytest.approx(7 / 3),
    }
    empty = table_of().summary()
    assert (empty["explanations"], empty["statuses"], empty["mean_iou"], empty["max_iou"]) == (0, {}, None, None)


# ---------------------------------------------------------------------------------------- shown


def test_repr() -> None:
    assert repr(MIXED).splitlines() == [
        "Explanations: 4 of 3 units, 3 explained, median IoU 0.180",
        "unit         range   gain    IoU  formula",
        "   2  1 (0.5, inf)  0.080  0.180  ((pedestrian OR bicyclist) AND NOT road)",
        "   2  2 (0.5, inf)  0.350  0.500  sky",
        "   7             1         0.000  [silent]",
        "   9  1 (0.5, inf)  0.080  0.180  ((pedestrian OR bicyclist) AND NOT road)",
    ]
    assert repr(table_of()) == "Explanations: 0 of 0 units, 0 explained"
    many = table_of(*(example(unit, formula=Concept("x" * 500)) for unit in range(1000)))
    lines = repr(many).splitlines()
    assert len(lines) == 13
    assert lines[-1] == "... and 990 more"
    assert max(map(len, lines)) < 120


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, _: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_escaped() -> None:
    parser = _Tags()
    parser.feed(table_of(example(formula=Concept("<script>alert('&amp;')</script>")), silent(3))._repr_html_())
    assert set(parser.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert parser.tags.count("tr") == 3
    assert parser.tags.count("td") == 10
    assert "".join(parser.text).count("<script>alert('&amp;')</script>") == 1
    many = table_of(*(example(unit) for unit in range(150)))._repr_html_()
    assert many.count("<tr>") == 101
    assert "... and 50 more" in many


def rendered(found: Explanations, max_rows: int | None = None, *, colour: bool = False) -> str:
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=colour, color_system="truecolor" if colour else None)
    console.print(found.table(max_rows))
    return file.getvalue()


def test_rich_table() -> None:
    text = rendered(table_of(example(formula=Concept("[red]not markup")), silent(4)))
    assert "not markup" in text
    assert "[red]" in text
    assert "[silent]" in text
    assert "0.180" in text
    assert "... and 3 more" in rendered(MIXED, 1)
    assert "more" not in rendered(MIXED, 4)
    long = Concept("x" * 300)
    assert rendered(table_of(example(formula=long))).count("x") == 300  # folded, not cut


def test_rich_table_colours_by_iou() -> None:
    styles = [
        (0.2, r"\x1b\[1;32m0\.200"),
        (0.1, r"\x1b\[32m0\.100"),
        (0.04, r"\x1b\[33m0\.040"),
        (0.03, r"\x1b\[2m0\.030"),
    ]
    for iou, style in styles:
        assert re.search(style, rendered(table_of(example(iou=iou)), colour=True)), iou


@pytest.mark.needs("pandas")
def test_pandas() -> None:
    import pandas as pd

    frame = MIXED.to_pandas()
    assert frame["unit"].tolist() == [2, 2, 7, 9]
    assert frame["formula"].tolist()[1:3] == ["sky", None]
    assert frame["length"].tolist() == [3, 1, 0, 3]
    assert frame["upper"].tolist()[:2] == [math.inf, math.inf]
    assert math.isnan(frame["lower"][2])
    assert frame["alternatives"][0] == ("pedestrian",)
    assert frame["status"].tolist()[2] == "silent"
    assert frame.columns.tolist() == [
        *("unit", "range_index", "lower", "upper", "formula", "length", "iou", "iou_gain"),
        *("score", "intersection", "union"),
        *("bitmap_cells", "formula_cells", "status", "visited", "expanded", "estimated", "optimal"),
        *("upper_bound", "evaluations", "alternatives"),
        *("null_mean", "null_maximum", "z", "p", "held_out_iou", "held_out_score", "held_out_p"),
    ]
    pd.testing.assert_series_equal(MIXED[:0].to_pandas().dtypes, frame.dtypes)


def test_pandas_is_named_when_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"ccx\[pandas\]\""):
        MIXED.to_pandas()


# ----------------------------------------------------------------------------------- invariants


def check_invariants(item: Explanation) -> None:
    """Check what every explanation of ccx must satisfy."""
    assert item.unit >= 0
    assert item.range_index >= 1
    assert item.range is None or item.range[0] <= item.range[1]
    assert (item.formula is not None) == (item.status is Status.EXPLAINED)
    assert item.union == item.bitmap_cells + item.formula_cells - item.intersection
    assert item.iou == (item.intersection / item.union if item.union else 0.0)
    assert 0.0 <= item.score <= item.iou <= 1.0
    if item.formula is None:
        assert (item.iou, item.intersection, item.formula_cells) == (0.0, 0, 0)
    else:
        assert item.intersection > 0
    for other in item.alternatives:
        assert other.iou == other.intersection / other.union


@given(item=explanations())
def test_drawn_explanations_are_possible_ones(item: Explanation) -> None:
    check_invariants(item)
