"""Keys of samples on the command line, and in the captions of reports and figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import ccx
from ccx import studies
from ccx.cli import app
from ccx.cli import input_files as files
from ccx.errors import InputError, StoreError
from ccx.keys import Keyed, keys_of, shortened
from ccx.report import render, write_report
from tests.support.picture_files import photo, png, write

KEYS = tuple(f"town/{number}.png" for number in (1, 2, 3, 10))
ORDER = [2, 0, 3, 1]
LABELS = np.array([1, 1, 2, 2])[:, None, None] * np.ones((1, 4, 4), int)
VALUES = (
    np.where(LABELS == 2, 5.0, 0.1)[:, None].astype(np.float32) + np.arange(16, dtype=np.float32).reshape(4, 4) / 99
)


def run(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
    assert result.exit_code == (2 if fails else 0), result.output
    return " ".join(result.output.split())


def concepts(keys: tuple[str, ...] | None = KEYS) -> ccx.Concepts:
    return ccx.Concepts.from_label_maps(LABELS, ["dark", "bright"], keys=keys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Activations in another order than the concepts, with their keys beside them, and a folder of photographs."""
    concepts().save(tmp_path / "c.ccx")
    np.save(tmp_path / "plain.npy", VALUES[ORDER])
    keys = [KEYS[i] for i in ORDER]
    (tmp_path / "keys.txt").write_text("\n".join(keys) + "\n")
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    np.savez(tmp_path / "a.npz", maps=VALUES[ORDER], keys=keys)
    save_file({"maps": VALUES[ORDER]}, tmp_path / "a.safetensors", {"keys": json.dumps(keys)})
    for number, key in enumerate(KEYS):
        write(tmp_path / "photos" / key, png(photo(8, 8, number)))
    return tmp_path


@pytest.mark.states(
    "Keys of samples", "keys in a file, on the command line", "accepted", "--keys, or in the .npz or .safetensors"
)
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("plain.npy", ["--keys", "keys.txt"]),
        ("plain.npy", ["--keys", "keys.json"]),
        ("a.npz", []),
        ("a.safetensors", []),
    ],
)
def test_explain_compares_keys_and_aligns(data: Path, file: str, options: list[str]) -> None:
    options = [str(data / one) if "." in one else one for one in options]
    command = ["explain", data / file, *options, "--concepts", data / "c.ccx", "--range", "2,inf", "--length", 1]
    message = run(*command, "--out", data / "run", fails=True)
    assert (
        "with 'town/1.png' at position 0, got 'town/3.png' there, all 4 in another order; add --align order" in message
    )
    run(*command, "--out", data / "run", "--align", "order", "--images", data / "photos")
    found = ccx.load(data / "run")
    assert [(str(one.formula), one.iou) for one in found] == [("bright", 1.0)]
    page = (data / "run" / "report.html").read_text()
    assert set(captions(page)) == set(KEYS[2:])
    # The report of a run compares, and aligns, as well.
    again = ["report", data / "run", "--concepts", data / "c.ccx", "--activations", data / file, *options]
    assert "all 4 in another order; add --align order" in run(*again, fails=True)
    run(*again, "--align", "order", "--images", data / "photos", "--out", data / "again.html")
    assert set(captions((data / "again.html").read_text())) == set(KEYS[2:])


def test_photographs_are_compared(data: Path) -> None:
    np.save(data / "sorted.npy", VALUES)
    (data / "photos" / "town" / "0.png").write_bytes(png(photo(8, 8)))
    command = ["explain", data / "sorted.npy", "--concepts", data / "c.ccx", "--out", data / "run", "--images"]
    message = run(*command, data / "photos", fails=True)
    assert "images: expected the samples of the concepts, with 'town/1.png' at position 0, got 'town/0.png'" in message
    assert "all of the concepts and others" in message
    assert "got 5, of which 4 are among them" in run(*command, data / "photos", "--align", "order", fails=True)
    run(*command, data / "photos", "--align", "shared")
    assert len(ccx.load(data / "run")) == 5


def test_shared_samples(data: Path) -> None:
    np.savez(data / "three.npz", maps=VALUES[ORDER[:3]], keys=[KEYS[i] for i in ORDER[:3]])
    command = ["explain", data / "three.npz", "--concepts", data / "c.ccx", "--range", "2,inf", "--no-report"]
    assert "only 3 of 4" in run(*command, "--out", data / "run", fails=True)
    assert "intersect=True keeps those" in run(*command, "--out", data / "run", "--align", "order", fails=True)
    for option in (["--fit-samples", "0,1"], ["--test-samples", "0"], ["--groups", data / "keys.txt"]):
        message = run(*command, "--out", data / "run", "--align", "shared", *option, fails=True)
        assert "no --groups, --fit-samples or --test-samples" in message
    run(*command, "--out", data / "run", "--align", "shared")
    rows = sorted(ORDER[:3])
    expected = ccx.explain(VALUES[rows], concepts().subset(samples=rows), ranges=[(2, np.inf)], progress=False)
    assert ccx.load(data / "run") == expected


def test_compare_searches_compares_keys(data: Path) -> None:
    command = ["compare-searches", data / "a.npz", "--concepts", data / "c.ccx", "--length", 1]
    assert "all 4 in another order; add --align order" in run(*command, fails=True)
    assert "beam" in run(*command, "--align", "order")


def test_nothing_to_align_by(data: Path) -> None:
    concepts(None).save(data / "none.ccx")
    for file, annotated, given in (
        ("a.npz", "none.ccx", "order"), ("plain.npy", "c.ccx", "order"), ("plain.npy", "none.ccx", "shared"),
    ):  # fmt: skip
        command = ["explain", data / file, "--concepts", data / annotated, "--out", data / "run", "--align", given]
        assert "--align: expected activations and concepts with keys, got none" in run(*command, fails=True)
    command = ["explain", data / "a.npz", "--concepts", data / "c.ccx", "--out", data / "run", "--align", "both"]
    assert "--align: expected order or shared, got 'both'" in run(*command, fails=True)


def test_files_of_keys_that_are_none(data: Path) -> None:
    for text, problem in (("a\n\nb\nc\n", "line 2: a blank line"), ("a\nb\n", "expected 4 keys, got 2")):
        (data / "k.txt").write_text(text)
        with pytest.raises((InputError, StoreError), match=problem):
            files.read_activations(data / "plain.npy", None, data / "k.txt")
    for text, problem in (('{"a": 1}', "no list of keys"), ("[1, 2, 3, 4]", "got int 1 of sample 0")):
        (data / "k.json").write_text(text)
        with pytest.raises((InputError, StoreError), match=problem):
            files.read_activations(data / "plain.npy", None, data / "k.json")
    np.savez(data / "two.npz", maps=VALUES, keys=["a", "b"])
    with pytest.raises(StoreError, match="4 samples with 2 keys"):
        files.read_activations(data / "two.npz")
    np.savez(data / "numbers.npz", activations=VALUES, keys=np.arange(4))  # an array of that name, and no keys
    assert keys_of(files.read_activations(data / "numbers.npz")) is None
    assert files.read_array(data / "numbers.npz", "activations", "keys").tolist() == [0, 1, 2, 3]


def test_concepts_are_built_with_keys(data: Path) -> None:
    np.save(data / "labels.npy", LABELS)
    np.save(data / "masks.npy", LABELS[None] == np.array([1, 2])[:, None, None, None])
    (data / "names.txt").write_text("dark\nbright\n")
    (data / "tokens.csv").write_text("sample,position,concept\ntown/3.png,0,noun\n")
    keys = tuple(KEYS[i] for i in ORDER)
    for source in (["--labels", data / "labels.npy"], ["--masks", data / "masks.npy"]):
        run(
            "concepts",
            "build",
            "--out",
            data / "k.ccx",
            *source,
            "--names",
            data / "names.txt",
            "--keys",
            data / "keys.txt",
        )
        assert ccx.Concepts.load(data / "k.ccx").keys == keys
    assert "samples with keys, town/3.png to town/2.png" in run("concepts", "info", data / "k.ccx")
    run("concepts", "build", "--out", data / "t.ccx", "--tokens", data / "tokens.csv", "--keys", data / "keys.txt")
    assert ccx.Concepts.load(data / "t.ccx").keys == keys
    message = run("concepts", "build", "--out", data / "x", "--data", "demo", "--keys", data / "keys.txt", fails=True)
    assert "no --keys beside --data" in message


@pytest.mark.needs("torch")
def test_a_probed_folder_is_explained_with_its_keys(data: Path) -> None:
    import torch

    net = torch.nn.Conv2d(3, 2, 1)
    ccx.probe(
        torch.nn.Sequential(net), data / "photos", "0", preprocessing=ccx.models.Preprocessing(4), out=data / "probed",
        progress=False,
    )  # fmt: skip
    assert files.read_activations(data / "probed" / "0.npy").keys == KEYS
    command = ["explain", data / "probed" / "0.npy", "--out", data / "run", "--no-report", "--concepts"]
    run(*command, data / "c.ccx")
    concepts().subset(samples=ORDER).save(data / "other.ccx")
    assert "in another order" in run(*command, data / "other.ccx", fails=True)


# Captions, and photographs from Python


def explained(keys: tuple[str, ...] | None = KEYS) -> tuple[ccx.Explanations, ccx.Concepts]:
    annotated = concepts(keys)
    return ccx.explain(VALUES, annotated, ranges=[(2, np.inf)], progress=False), annotated


def captions(page: str) -> list[str]:
    return re.findall(r'<span class="sample" title="([^"]*)"><bdi>\1</bdi></span>', page)


def test_captions_show_keys_where_anything_knows_them(data: Path) -> None:
    found, annotated = explained()
    assert captions(render(found, annotated, activations=VALUES)) == list(KEYS[2:])
    found, annotated = explained(None)
    assert captions(render(found, annotated, activations=VALUES)) == ["2", "3"]
    assert captions(render(found, annotated, activations=ccx.Activations(VALUES, KEYS))) == list(KEYS[2:])
    paths = [data / "photos" / key for key in KEYS]
    assert captions(render(found, annotated, activations=VALUES, images=paths)) == ["3.png", "10.png"]
    odd = ("<b>&.png", "a\u202eb", "$x$", "q\"uote'")
    found, annotated = explained(odd)
    assert captions(render(found, annotated, activations=VALUES)) == ["$x$", "q&#34;uote&#39;"]
    found, annotated = explained(odd[::-1])
    assert captions(render(found, annotated, activations=VALUES))[1] == "&lt;b&gt;&amp;.png"


@pytest.mark.states(
    "Keys of samples", "photographs in another order than the concepts", "refused", "ccx.align, or list the folder"
)
def test_photographs_of_other_samples_are_refused(data: Path) -> None:
    found, annotated = explained()
    by_text = sorted(data / "photos" / key for key in KEYS)
    given = Keyed(by_text, [path.relative_to(data / "photos").as_posix() for path in by_text])
    with pytest.raises(
        InputError, match=r"images: .*'town/2.png' at position 1, got 'town/10.png' there, all 4 in another"
    ):
        write_report(data / "r.html", found, annotated, activations=VALUES, images=given)
    write_report(data / "r.html", found, annotated, activations=VALUES, images=ccx.align(given, annotated))
    with pytest.raises(InputError, match=r"activations: .*another order"):
        write_report(data / "r.html", found, annotated, activations=ccx.Activations(VALUES[ORDER], given.keys))
    plain, without = explained(None)
    with pytest.raises(InputError, match=r"images: expected the samples of the activations.*another order"):
        write_report(data / "r.html", plain, without, activations=ccx.Activations(VALUES, KEYS), images=given)
    with pytest.raises(InputError, match="images: expected 4 images, got 3"):
        render(found, annotated, activations=VALUES, images=[photo(4, 4)] * 3)


@pytest.mark.needs("matplotlib")
def test_figures_show_keys_and_compare_them(data: Path) -> None:
    found, annotated = explained(("$1$", "a" * 60, "$b$", "the/end/of/a/long/path.png"))
    figure = ccx.plot(found, annotated, activations=VALUES)
    titles = [axis.get_title() for part in figure.subfigs for axis in part.axes if axis.get_title()]
    assert titles == ["$b$: 1.00", "…/end/of/a/long/path.png: 1.00"]
    figure.savefig(data / "figure.png")
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "…cd"
    found, annotated = explained()
    given = Keyed([photo(4, 4)] * 4, [KEYS[i] for i in ORDER])
    with pytest.raises(InputError, match=r"images: .*another order"):
        ccx.plot(found, annotated, activations=VALUES, images=given)
    with pytest.raises(InputError, match=r"photographs: .*another order"):
        studies.images(found, VALUES, annotated, given, data / "figures")
    keyed = ccx.Activations(VALUES[ORDER], given.keys)
    for call in (
        lambda: studies.images(found, keyed, annotated, [photo(4, 4)] * 4, data / "figures"),
        lambda: studies.compare_heuristics(keyed, annotated, n_units=1, progress=False),
        lambda: studies.compare_thresholds(keyed, annotated, progress=False),
        lambda: studies.metrics(found, keyed, annotated, progress=False),
        lambda: studies.concept_masking(None, [], "0", keyed, annotated, 4),
        lambda: studies.concept_masking(None, Keyed([], given.keys), "0", VALUES, annotated, 4),
    ):
        with pytest.raises(
            InputError, match=r"(activations|loader): expected the samples of the concepts.*another order"
        ):
            call()
    assert studies.images(found, VALUES, annotated, ccx.align(given, annotated), data / "figures", progress=False)
