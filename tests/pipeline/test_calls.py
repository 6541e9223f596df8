"""How `explain` gets to its first search: in few calls, and each check is made once."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx.search.beam import BeamSearch

PACKAGE = str(Path(ccx.__file__).parent)
RNG = np.random.default_rng(0)
MAPS = RNG.random((4, 2, 2, 2), np.float32)
MASKS = RNG.random((3, 4, 4, 4)) > 0.5
CHECKERS = {
    *("as_concepts", "require_same_samples", "units_of", "as_maps", "as_bitmaps", "check_units", "check_given_ranges"),
    *("check_values", "check_finite", "all_finite", "group_codes", "check_split", "require_valid_cells"),
    *("check_progress", "check_quantile", "unit_ranges", "check_padding", "require_memory"),
}
MOST_CALLS, MOST_FILES = 216, 24


def calls_before_the_first_search(function, *arguments, **options):
    """Return (file, function) of each call of ccx, in order; comprehensions are no functions."""
    found, is_searching = [], False

    def noted(frame, event, _):
        nonlocal is_searching
        code = frame.f_code
        if event != "call" or is_searching or not code.co_filename.startswith(PACKAGE):
            return
        is_searching = code is BeamSearch.__call__.__code__
        if not is_searching and not code.co_name.startswith("<"):
            found.append((code.co_filename, code.co_name))

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


def test_the_way_to_the_first_search_is_short(concepts):
    calls = calls_before_the_first_search(ccx.explain, MAPS, concepts)
    assert len(calls) <= MOST_CALLS
    assert len({file for file, _ in calls}) <= MOST_FILES


@pytest.mark.parametrize(
    ("function", "data", "options"),
    [
        (ccx.explain, MAPS, {}),
        (ccx.explain, MAPS, {"ranges": [(0.1, 0.9)], "only": ["1", "2"], "fit_samples": [0, 1], "permutations": 2}),
        (ccx.explain_bitmaps, MASKS, {"groups": list("aabb"), "permutations": 2}),
    ],
)
def test_each_check_is_made_once(function, data, options, concepts):
    calls = calls_before_the_first_search(function, data, concepts, **options)
    calls = Counter(name for file, name in calls if Path(file).parent.name != "cpu")
    assert {name: n for name, n in calls.items() if name in CHECKERS} == {
        name: 2 if name == "require_memory" else 1
        for name in CHECKERS & set(calls)  # of the search and of chance
    }
