"""Odd places to write to, and functions of the user that fail: our errors there, and here the user's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ccx
from ccx.datasets import Pairs
from ccx.downloading import download
from ccx.errors import CCXError
from ccx.report import write_report
from ccx.scores import Custom
from ccx.studies import Table

RNG = np.random.default_rng(0)
MASKS = RNG.random((3, 4, 6, 6)) < 0.4
MAPS = RNG.standard_normal((4, 2, 3, 3)).astype(np.float32)
PAIRS = list(zip(RNG.integers(0, 256, (4, 6, 6, 3), np.uint8), RNG.integers(0, 3, (4, 6, 6)), strict=True))
EXPLAIN: dict[str, Any] = {"clusters": 1, "length": 2, "progress": False}


def concepts() -> ccx.Concepts:
    return ccx.Concepts.from_masks(MASKS, list("abc"))


def found() -> ccx.Explanations:
    return ccx.explain(MAPS, concepts(), **EXPLAIN)


def probe(out: Any) -> None:
    import torch

    ccx.probe(torch.nn.Conv2d(2, 2, 1), MAPS, "", out=out, progress=False)


WRITERS: dict[str, Callable[[Any], object]] = {
    "explain": lambda out: ccx.explain(MAPS, concepts(), out=out, **EXPLAIN),
    "report": lambda out: write_report(out, found(), concepts()),
    "explanations": lambda out: found().save(out),
    "concepts": lambda out: concepts().save(out),
    "build": lambda out: Pairs(PAIRS, ["a", "b"]).concepts((3, 3), out=out, workers=1, progress=False),
    "table": lambda out: Table("t", ("a",), ((1,),)).write(out),
    "download": lambda out: download("http://127.0.0.1:9/x", out),
    "probe": probe,
}


def places(folder: Path) -> dict[str, Any]:
    """Lay out a folder -> places in it where nothing good can be written, by what is wrong with them."""
    (folder / "file").write_text("mine")
    (folder / "others").mkdir()
    (folder / "others" / "run.json").write_text('{"mine": 1}')
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("none/at/all")
    os.mkfifo(folder / "pipe")
    return {
        "empty": "", "NUL": "a\0b", "surrogate": "a\udcffb\ud800", "long": "x" * 300, "deep": "x/" * 2_500 + "x",
        "below a file": folder / "file" / "x", "a file": folder / "file", "a foreign folder": folder / "others",
        "a loop": folder / "loop", "below a loop": folder / "loop" / "x", "dangling": folder / "dangling",
        "a pipe": folder / "pipe", "full": "/dev/full", "null": "/dev/null", "below null": "/dev/null/x",
        "/proc": "/proc/none/x", "root": "/", "number": 3, "bytes": b"x", "list": [], "function": print,
    }  # fmt: skip


@pytest.mark.parametrize(
    "writer", [pytest.param(name, marks=pytest.mark.needs("torch")) if name == "probe" else name for name in WRITERS]
)
def test_odd_places_are_our_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    monkeypatch.chdir(tmp_path)
    problems = []
    for problem, place in places(tmp_path).items():
        try:
            WRITERS[writer](place)
        except CCXError as error:
            problems.append(str(error))
        except Exception as error:  # each is what the attack looks for
            pytest.fail(f"{problem}: {error!r}")
        assert (tmp_path / "others" / "run.json").read_text() == '{"mine": 1}', problem
        assert (tmp_path / "pipe").is_fifo(), problem
        assert Path("/dev/null").is_char_device(), problem
    assert len(problems) > 12
    assert not any("\n" in text for text in problems)


class OwnError(Exception):
    """What no function of ccx raises."""


def failing(after: int, *, value: object = None) -> Callable[..., object]:
    """Return a function that raises from its n-th call on."""
    calls = itertools.count()

    def fail(*_: object) -> object:
        if next(calls) >= after:
            raise OwnError
        return value

    return fail


def failing_items(items: Any, after: int) -> Any:
    yield from items[:after]
    raise OwnError


@pytest.mark.parametrize("after", [0, 1])
def test_errors_of_the_users_functions_pass_through(tmp_path: Path, after: int) -> None:
    own: dict[str, Callable[[], object]] = {
        "progress of explain": lambda: ccx.explain(MAPS, concepts(), **EXPLAIN | {"progress": failing(after)}),
        "progress of a run": lambda: ccx.explain(
            MAPS, concepts(), **EXPLAIN | {"progress": failing(after), "out": tmp_path / "run"}
        ),
        "progress of building": lambda: Pairs(PAIRS, ["a", "b"]).concepts((3, 3), workers=1, progress=failing(after)),
        "progress of label maps": lambda: ccx.Concepts.from_label_maps(
            [labels[None] for _, labels in PAIRS], ["a", "b"], progress=failing(after)
        ),
        "score": lambda: ccx.explain(MAPS, concepts(), scoring=Custom(failing(0)), **EXPLAIN),
        "label maps": lambda: ccx.Concepts.from_label_maps(
            failing_items([labels[None] for _, labels in PAIRS], after), ["a", "b"]
        ),
        "names": lambda: ccx.Concepts.from_masks(MASKS, failing_items(list("abc"), after)),
        "units": lambda: ccx.explain(MAPS, concepts(), units=failing_items([0, 1], after), **EXPLAIN),
    }
    for what, call in own.items():
        with pytest.raises(OwnError):
            print(what, call())  # noqa: T201 - which one it was that raised nothing


@pytest.mark.parametrize("value", [None, "a", [], np.ones(2), float("nan"), 1j, object(), 10**400])
def test_scores_that_are_no_numbers_are_our_errors(value: object) -> None:
    with pytest.raises(CCXError):
        ccx.explain(MAPS, concepts(), scoring=Custom(lambda *_: value), **EXPLAIN)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("value", [None, "a", 3, [], np.ones(2), np.ones((3, 4, 5), object)])
def test_preprocessing_that_returns_nonsense_is_our_error(value: object) -> None:
    import torch

    images = [image for image, _ in PAIRS]
    with pytest.raises(CCXError):
        ccx.probe(torch.nn.Conv2d(3, 2, 1), images, "", preprocessing=lambda _: value, progress=False)


@pytest.mark.needs("torch")
def test_errors_of_models_and_preprocessing_pass_through() -> None:
    import torch

    class Failing(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise OwnError

    images = [image for image, _ in PAIRS]
    for model, preprocessing in ((Failing(), lambda _: torch.ones(3, 4, 4)), (torch.nn.Conv2d(3, 2, 1), failing(1))):
        with pytest.raises((OwnError, CCXError)) as caught:
            ccx.probe(model, images, "", preprocessing=preprocessing, progress=False)
        assert isinstance(caught.value, OwnError) or isinstance(caught.value.__cause__, OwnError) or preprocessing
