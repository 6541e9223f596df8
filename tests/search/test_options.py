"""Options are declared once, and everything else takes them from there."""

import inspect
import json
import warnings

import numpy as np
import pytest
import typer

import ccx
from ccx.cli.app import app
from ccx.errors import InputError
from ccx.options import KINDS, RENAMED, EvidenceOptions, Options, RangeOptions, SearchOptions, renamed_settings
from ccx.results import ROW_KEYS
from ccx.scores import SCORES, Score
from ccx.search import SEARCHES
from ccx.store import read_run
from ccx.studies import Experiment
from tests.support.options_page import PAGE, page

RNG = np.random.default_rng(0)
MAPS = RNG.random((6, 2, 3, 4), np.float32)
MASKS = RNG.random((3, 6, 3, 4)) > 0.5
CONCEPTS = ccx.Concepts.from_masks(MASKS)
DECLARED = {one.name: one for kind in KINDS for one in kind.declared()}
COMMANDS = typer.main.get_command(app).commands


def as_given(one):
    return one.default.name if isinstance(one.default, Score) else one.default


def test_no_option_is_declared_twice():
    assert len(DECLARED) == sum(len(kind.declared()) for kind in KINDS)


@pytest.mark.parametrize("function", [ccx.explain, ccx.explain_bitmaps])
def test_explain_has_the_declared_options_and_defaults(function):
    parameters = inspect.signature(function).parameters
    of_units = {one.name for one in RangeOptions.declared()}
    names = set(DECLARED) - (of_units if function is ccx.explain_bitmaps else set())
    assert names <= set(parameters)
    assert {name: parameters[name].default for name in names} == {name: as_given(DECLARED[name]) for name in names}
    assert all(f"\n    {name}" in function.__doc__ or f", {name}" in function.__doc__ for name in names)


def test_studies_have_the_declared_defaults():
    parameters = inspect.signature(Experiment).parameters
    for name in ("clusters", "quantile", "length", "beam", "search"):
        assert parameters[name].default == as_given(DECLARED[name])


@pytest.mark.parametrize("command", ["explain", "run", "compare-searches", "compare-heuristics"])
def test_the_command_line_has_the_declared_options(command):
    shown = {one.name: one for one in COMMANDS[command].params}
    found = set(DECLARED) & set(shown) - {"seed"}  # of the choice of units, for the studies
    found -= {"published"} if command == "compare-heuristics" else set()  # of several searches
    assert found >= {"clusters", "quantile", "length", "beam"}
    assert command != "explain" or found | {"seed"} == set(DECLARED)
    for name in found:
        assert shown[name].help == DECLARED[name].metadata["help"]
        assert command == "compare-heuristics" or (shown[name].default or None) == (as_given(DECLARED[name]) or None)


def test_defaults_pass_their_own_checks():
    for one in DECLARED.values():
        check = one.metadata["check"]
        assert check is None or check(one.name, one.default) == one.default


def test_the_page_is_that_of_the_declarations():
    assert PAGE.read_text() == page(), "run  python -m tests.support.options_page"


@pytest.mark.parametrize("function", [ccx.explain, ccx.explain_bitmaps])
@pytest.mark.parametrize(("old", "value"), [("null", 2), ("fit", [0, 1, 2]), ("score", [4, 5])])
def test_old_names_warn_and_do_the_same(function, old, value):
    data = MAPS if function is ccx.explain else MASKS[:2]
    with pytest.warns(DeprecationWarning, match=f"{old}= is now {RENAMED[old]}=") as caught:
        found = function(data, CONCEPTS, threads=1, **{old: value})
    assert caught[0].filename == __file__
    assert found == function(data, CONCEPTS, threads=1, **{RENAMED[old]: value})
    with pytest.raises(InputError, match=f"{old}: expected {RENAMED[old]} alone, its new name, got both"):
        function(data, CONCEPTS, **{old: value, RENAMED[old]: value})
    with pytest.raises(TypeError, match="unexpected keyword argument 'nul'"):
        function(data, CONCEPTS, nul=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'permutation'; did you mean permutations="):
        function(data, CONCEPTS, permutation=1)


def test_names_name_raw_masks_and_choose_nothing():
    found = ccx.explain(MAPS, MASKS, names=["a", "b", "c"], length=1, threads=1)
    assert {str(one.formula) for one in found} <= {"a", "b", "c"}
    (one,) = ccx.explain_bitmaps(MASKS[1:2], MASKS, names=["a", "b", "c"], threads=1)
    assert str(one.formula) == "b"
    for function, data in ((ccx.explain, MAPS), (ccx.explain_bitmaps, MASKS)):
        with pytest.raises(InputError, match=r"names: expected None beside Concepts.*; only= chooses the concepts"):
            function(data, CONCEPTS, names=["1"])
    with pytest.raises(InputError, match="names: expected"):
        ccx.explain(MAPS, MASKS, names=["a", "b"])


def test_concepts_are_chosen_by_only():
    with pytest.warns(DeprecationWarning, match="names= is now only="):
        assert CONCEPTS.subset(names=["2"]).names == ("2",)
    assert CONCEPTS.subset(only=["2"]).names == ("2",)
    with pytest.raises(InputError, match="names: expected only alone"):
        CONCEPTS.subset(["2"], names=["2"])


def test_the_class_of_options_has_its_new_name():
    import ccx.search

    with pytest.warns(DeprecationWarning, match="SearchOptions"):
        assert ccx.search.SearchSettings is SearchOptions
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ccx.search.nothing  # noqa: B018


def test_an_old_run_is_read_under_new_names_and_not_continued(tmp_path):
    asked = {"permutations": 2, "fit_samples": [0, 1, 2, 3], "only": ["1", "3"], "clusters": 2, "threads": 1}
    found = ccx.explain(MAPS, CONCEPTS, out=tmp_path, **asked)
    before = {new: old for old, new in {**RENAMED, "names": "only"}.items()}
    run = {**read_run(tmp_path, ROW_KEYS)[0], "format": "ccx.run/1"}
    run["settings"] = {before.get(name, name): value for name, value in run["settings"].items()}
    run.pop("checksum", None)
    (tmp_path / "run.json").write_text(json.dumps(run) + "\n")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["cluster"] = row.pop("range_index") - 1
        del row["iou_gain"], row["checksum"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ccx.load(tmp_path).settings == found.settings
    with pytest.raises(ccx.CCXError, match="version 1 of ccx"):
        ccx.explain(MAPS, CONCEPTS, out=tmp_path, **asked)


def test_settings_of_today_stay():
    assert renamed_settings({"null": 1, "only": None, "beam": 2}) == {"permutations": 1, "only": None, "beam": 2}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(SearchOptions, "published", 1), (RangeOptions, "clustering", "lloyd"), (EvidenceOptions, "seed", True)],
)
def test_an_error_names_the_argument(kind, name, value):
    with pytest.raises(InputError) as error:
        kind(**{name: value})
    assert error.value.argument == name


def test_every_search_has_a_class_that_looks_at_its_options():
    assert set(SEARCHES) == set(DECLARED["search"].metadata["check"].__closure__[0].cell_contents)
    for name, kind in SEARCHES.items():
        assert kind(SearchOptions(search=name)).options.search == name
    with pytest.raises(InputError, match='search: expected "beam" or "optimal"'):
        SearchOptions(search="best")
    with pytest.raises(InputError, match="scoring"):
        SEARCHES["mmesh"](SearchOptions(search="mmesh", scoring=SCORES["f1"]))
    with pytest.raises(InputError, match="time_limit: expected None beside permutations"):
        SEARCHES["optimal"](SearchOptions(search="optimal", time_limit=1), permutations=2)


def test_each_value_is_checked_once(monkeypatch):
    checked = []
    for kind in KINDS:
        for one in kind.declared():
            check = one.metadata["check"]
            if check is not None:

                def counted(name, value, check=check):
                    checked.append(name)
                    return check(name, value)

                monkeypatch.setattr(one, "metadata", {**one.metadata, "check": counted})
    given = {"length": 2, "beam": 3, "top": 2, "min_iou": 0.1, "clusters": 2, "quantile": 0.1, "seed": 1}
    ccx.explain(MAPS, CONCEPTS, threads=1, **given)
    assert sorted(checked) == sorted([*given, "scoring"])  # whose default is a name
    assert isinstance(SearchOptions(), Options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ccx.explain(MAPS, CONCEPTS, threads=1)


@pytest.mark.parametrize("seconds", [10**400, -(10**400), np.float32("inf"), float("nan"), -1, "1"])
def test_seconds_are_checked(seconds):
    with pytest.raises(InputError, match="time_limit: expected None or seconds >= 0"):
        SearchOptions(search="optimal", time_limit=seconds)


@pytest.mark.parametrize("scoring", [np.ones(1, np.int64).view("M8"), 10**400, "iuo", None, np.array("iou")])
def test_what_is_no_score_is_refused(scoring):
    with pytest.raises(InputError, match="scoring: expected"):
        SearchOptions(scoring=scoring)
