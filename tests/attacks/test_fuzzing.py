"""The harness of the attacks itself: it tells every end apart, and goes on behind what kills it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from ccx.errors import StoreError
from tests.support.fuzzing import attack


def every_end(rng: np.random.Generator, folder: Path) -> str:
    assert not list(folder.iterdir()), "each input has an empty folder"
    (folder / "input").write_bytes(rng.bytes(4))
    (folder / "more").mkdir()
    number = every_end.number = getattr(every_end, "number", -1) + 1
    match number % 5 + 5 * (number > 4):
        case 1:
            raise StoreError("refused")
        case 2:
            raise KeyError("foreign")
        case 3:
            time.sleep(60)
        case 4:
            os._exit(3)
    return "read"


def by_content(rng: np.random.Generator, folder: Path) -> str:
    return "even" if rng.integers(2) == 0 else "odd"


def greedy(rng: np.random.Generator, folder: Path) -> str:
    np.ones(1 << 28)
    return "read"


def test_ends_are_told_apart_and_the_attack_goes_on():
    report = attack(every_end, 5, seconds=1)
    assert report.counts == {"read": 2, "refused": 1, "foreign": 1, "hang": 1}  # behind the hang it begins anew
    assert len(report.failures) == 2
    assert "KeyError" in report.failures[0]
    assert "hang" in report.failures[1]
    assert "input 3" in report.failures[1]
    with pytest.raises(AssertionError, match="2 of 5 inputs failed"):
        report.check()


def test_inputs_depend_on_their_number_alone():
    report = attack(by_content, 40)
    again = [["even", "odd"][int(np.random.default_rng([0, i]).integers(2))] for i in range(40)]
    assert report.counts == {end: again.count(end) for end in ("even", "odd")}
    report.check("even", "odd")
    with pytest.raises(AssertionError, match="wanted some of each"):
        report.check("read")


def test_memory_beyond_the_limit_is_no_success():
    report = attack(greedy, 1, gib=1.5)
    assert report.counts == {"foreign": 1}
    assert "MemoryError" in report.failures[0]
