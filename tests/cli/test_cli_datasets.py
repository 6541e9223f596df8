"""``ccx concepts build`` from data sets of files, and ``ccx download``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ccx
from ccx.cli import app
from tests.support.picture_files import photo, png, write, write_broden
from tests.support.servers import Server, server

__all__ = ["server"]  # a fixture

OBJECTS = np.array([[0, 2, 2], [3, 300, 2]])


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def broden(tmp_path: Path) -> Path:
    rows = "ade20k/a.png,train,4,6,2,3,,ade20k/o.png,,,4,\npascal/b.png,train,4,6,2,3,1,,,,,\n"
    write_broden(tmp_path / "broden", rows, {"ade20k/o.png": OBJECTS})
    for name in ("ade20k/a.png", "pascal/b.png"):
        write(tmp_path / "broden/images" / name, png(photo(4, 6)))
    return tmp_path / "broden"


def test_broden(broden: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.ccx"
    arguments = ["concepts", "build", "--data", f"broden:{broden},subset=ade20k", "--out", out]
    code, text = run(*arguments, "--image-list", tmp_path / "list.txt")
    assert code == 0, text
    assert "6 concepts in 5 categories, 1 samples of 2×3 cells" in text
    assert (tmp_path / "list.txt").read_text() == "ade20k/a.png\n"
    np.testing.assert_array_equal(ccx.Concepts.load(out).mask('"wall (object)"')[0], OBJECTS == 2)
    assert run(*arguments)[0] == 0
    code, text = run(*arguments, "--grid", "1x3")
    assert code == 2
    assert "was made from something else: shape (None there, [1, 3] here)" in " ".join(text.split())
    code, text = run(*arguments[:-1], tmp_path / "d.ccx", "--grid", "1x3", "--colors", "--workers", 2)
    assert code == 0, text
    assert "17 concepts in 5 categories, 1 samples of 1×3 cells" in text


def test_problems_are_listed(broden: Path, tmp_path: Path) -> None:
    (broden / "images/ade20k/a.png").unlink()
    write(broden / "images/ade20k/o.png", "")
    code, text = run("concepts", "build", "--data", f"broden:{broden}", "--out", tmp_path / "c.ccx")
    assert code == 2
    assert "2 problems with the files of the data set" in text
    assert "a.png: cannot read it" in text
    assert "o.png: empty" in text


def test_a_folder_with_images_left_out_up_to_the_report(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"images/{name}.png", png(photo(2, 3)))
    for name in ("a", "c"):
        write(tmp_path / f"labels/{name}.png", png(np.array([[0, 1, 1], [2, 255, 1]], np.uint8)))
    write(tmp_path / "labels/damaged.png", "")
    write(tmp_path / "names.txt", "sky\nsea\n")
    write(tmp_path / "only.txt", "a\nc\n")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((2, 3, 2, 3)))
    paths = f"folder:{tmp_path / 'images'},{tmp_path / 'labels'},{tmp_path / 'names.txt'}"
    spec = f"{paths},void=255,only={tmp_path / 'only.txt'}"
    code, text = run("concepts", "build", "--data", spec, "--out", tmp_path / "c.ccx")
    assert code == 0, text
    assert "2 concepts, 2 samples of 2×3 cells" in text
    explain = ("explain", tmp_path / "a.npy", "--concepts", tmp_path / "c.ccx", "--out", tmp_path / "run", "--images")
    code, text = run(*explain, tmp_path / "images")
    assert code == 2
    assert "images: expected the samples of the concepts, with 'c.png' at position 1, got 'b.png'" in text
    code, text = run(*explain, spec)
    assert code == 0, text
    assert (tmp_path / "run/report.html").read_text(encoding="utf-8").count("data:image/jpeg") == 2
    assert "left out" not in text
    (tmp_path / "labels/damaged.png").unlink()
    code, text = run("concepts", "build", "--data", f"{paths},void=255", "--out", tmp_path / "d.ccx")
    assert code == 0, text
    assert "1 image without a label map is left out: b\n" in text
    code, text = run("concepts", "build", "--data", f"{paths},voids=255", "--out", tmp_path / "d.ccx")
    assert code == 2
    assert "options of folder: image_suffix, label_suffix, palette, only, first_id, void, none, got 'voids=255'" in text


def test_tokens(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "sample,position,concept\n0,1,noun\n1,0,verb\n")
    np.save(tmp_path / "lengths.npy", [2, 1])
    out = tmp_path / "c.ccx"
    code, text = run("concepts", "build", "--tokens", table, "--lengths", tmp_path / "lengths.npy", "--out", out)
    assert code == 0, text
    concepts = ccx.Concepts.load(out)
    assert (concepts.names, concepts.shape, concepts.n_cells) == (("noun", "verb"), (1, 2), 3)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "one of --labels, --masks, --data and --tokens, got none"),
        (["--data", "x:y", "--tokens", "t.csv"], "--tokens, got several"),
        (["--data", "x:y"], "--data: expected broden:ROOT"),
        (["--data", "broden:nowhere"], "root: expected a folder, got nothing at nowhere"),
        (["--data", "broden:.", "--grid", "big"], "--grid: expected a number, or two with an x between, got 'big'"),
        (["--data", "broden:.", "--grid", "0x3"], "--grid: expected a number"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", "sample,position,concept\n0,1,noun\n")
    code, text = run("concepts", "build", "--out", "c.ccx", *arguments)
    assert code == 2
    assert problem in " ".join(text.split())


def test_downloads(server: Server, tmp_path: Path) -> None:
    code, text = run("download")
    assert code == 0
    assert "not verified by us" in text
    assert "http://netdissect.csail.mit.edu/data/broden1_224.zip" in text
    assert run("download", server.url, "--to", tmp_path)[0] == 0
    assert (tmp_path / "file.bin").read_bytes() == server.content
    code, text = run("download", server.url, "--to", tmp_path, "--sha256", "0" * 64)
    assert code == 2
    assert "its SHA-256 is" in text
    for what, problem in (("broden", "expected a published name or an address, got 'broden'"), ("http://x/", "file")):
        code, text = run("download", what)
        assert code == 2
        assert problem in text


def test_archives_are_unpacked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("broden1_224/index.csv", "image")
    server.content = (tmp_path / "a.zip").read_bytes()
    url = server.url.replace("file.bin", "broden1_224.zip")
    monkeypatch.setitem(ccx.downloading.PUBLISHED, "broden1_224", url)
    code, text = run("download", "broden1_224", "--to", tmp_path / "data")
    assert code == 0, text
    assert "We have verified neither it nor what it serves." in text
    assert (tmp_path / "data/broden1_224/index.csv").read_text() == "image"
    code, text = run("download", "broden1_224", "--to", tmp_path / "other", "--no-unpack")
    assert [path.name for path in sorted((tmp_path / "other").iterdir())] == [
        "broden1_224.zip",
        "broden1_224.zip.sha256",
    ]
