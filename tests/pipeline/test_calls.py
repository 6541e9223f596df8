"""How `explain` gets to its first search: in few calls, down the layers, and each check is made once."""

import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import ccx
from ccx.search.beam import BeamSearch

PACKAGE, PROJECT = Path(ccx.__file__).parent, Path(__file__).parents[2] / "pyproject.toml"
RNG = np.random.default_rng(0)
MAPS = RNG.random((4, 2, 2, 2), np.float32)
MASKS = RNG.random((3, 4, 4, 4)) > 0.5
CHECKERS = {
    *("as_concepts", "require_same_samples", "units_of", "as_maps", "as_bitmaps", "check_units", "check_given_ranges"),
    *("check_values", "all_finite", "group_codes", "check_split", "require_valid_cells", "check_progress"),
    *("as_floats", "resolve", "unit_ranges", "check_padding", "require_memory"),
}
MOST_CALLS, MOST_FILES, MOST_CLIMBS, MOST_DESCENTS = 110, 21, 2, 18


class Call(NamedTuple):
    """Of a function of ccx, and the file that it is called from; a compiled kernel knows of none, and has its own."""

    name: str
    file: str
    caller: str


def calls_before_the_first_search(function, *arguments, **options):
    """Return the calls of ccx in order; comprehensions are no functions."""
    found, is_searching = [], False

    def noted(frame, event, _):
        nonlocal is_searching
        code, caller = frame.f_code, frame.f_back
        if event != "call" or is_searching or not Path(code.co_filename).is_relative_to(PACKAGE):
            return
        is_searching = code is BeamSearch.__call__.__code__
        if is_searching or code.co_name.startswith("<"):
            return
        while caller is not None and not Path(caller.f_code.co_filename).is_relative_to(PACKAGE):
            caller = caller.f_back
        found.append(Call(code.co_name, code.co_filename, (caller or frame).f_code.co_filename))

    sys.setprofile(noted)
    try:
        function(*arguments, threads=1, progress=False, **options)
    finally:
        sys.setprofile(None)
    assert is_searching
    return found


@pytest.fixture(scope="module")
def concepts():
    known = ccx.Concepts.from_masks(MASKS)
    ccx.explain(MAPS, known, threads=1, progress=False)  # prepares them, and compiles
    ccx.explain_bitmaps(MASKS, known, threads=1, progress=False)
    return known


@pytest.fixture(scope="module")
def calls(concepts):
    return calls_before_the_first_search(ccx.explain, MAPS, concepts)


def test_the_way_to_the_first_search_is_short(calls):
    """Of the files five are the pipeline's, and eight the kernels'; fewer would have several purposes each."""
    assert len(calls) <= MOST_CALLS
    assert len({call.file for call in calls}) <= MOST_FILES


def room_of(file):
    """Return the package, or module, of ccx that a file belongs to."""
    return Path(file).relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_data_goes_down_the_layers(calls):
    """A call climbs if it is made from a lower layer (the contract in pyproject.toml) to a higher one: a callback.

    Counted from the body of `explain` on, as decorators come before the data. What may climb is where work is spread:
    jobs call the pipeline for some units, and the kernels for some samples. A descent is a call of `ccx.kernels` from
    any other place, after which the data comes back.
    """
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    depths = {room: depth for depth, line in enumerate(layers) for room in re.findall(r"\w+", line)}
    begun = next(i for i, call in enumerate(calls) if call.name == "explain")
    ways = [(room_of(call.caller), room_of(call.file)) for call in calls[begun + 1 :]]
    climbs = [(there, here) for there, here in ways if depths[here] < depths[there]]
    assert len(climbs) <= MOST_CLIMBS, climbs
    descents = [there for there, here in ways if here == "kernels" != there]
    assert len(descents) <= MOST_DESCENTS, descents


@pytest.mark.parametrize(
    ("function", "data", "options"),
    [
        (ccx.explain, MAPS, {}),
        (ccx.explain, MAPS, {"ranges": [(0.1, 0.9)], "only": ["1", "2"], "fit_samples": [0, 1], "permutations": 2}),
        (ccx.explain_bitmaps, MASKS, {"groups": list("aabb"), "permutations": 2}),
    ],
)
def test_each_check_is_made_once(function, data, options, concepts):
    calls = Counter(call.name for call in calls_before_the_first_search(function, data, concepts, **options))
    assert {name: n for name, n in calls.items() if name in CHECKERS} == dict.fromkeys(CHECKERS & set(calls), 1)
