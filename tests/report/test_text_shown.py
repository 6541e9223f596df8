"""Names come from files of somebody else: what they hold is shown, and does nothing."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from rich.text import Text
from typer.testing import CliRunner

import ccx
from ccx.cli.app import app
from ccx.cli.terminal import VisibleConsole
from ccx.errors import InputError, MissingExtraError, StoreError, visible
from ccx.jobs import progress_reporter
from ccx.report import render
from ccx.studies.table import Table

HOSTILE = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202eb\x00\ud800\x08"
SEEN = r"a\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}b\u{0}\u{d800}\u{8}"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]")


def test_what_acts_is_written_out():
    assert visible(HOSTILE) == SEEN
    assert visible("größe 日本 🐈\n\tnext") == "größe 日本 🐈\n\tnext"
    for code in (*range(9), *range(11, 32), *range(127, 160), 0x200B, 0x200F, 0x2028, 0x2066, 0xFEFF, 0xDC80):
        assert visible(f"x{chr(code)}y") == f"x\\u{{{code:x}}}y"


@pytest.mark.parametrize(
    "error",
    [
        InputError("names", wanted="distinct names", got=HOSTILE, remedy="rename it"),
        StoreError(f"{HOSTILE}: damaged"),
        MissingExtraError(HOSTILE, "x", "y"),
    ],
)
def test_errors(error):
    assert SEEN in str(error)
    assert not ACTS.search(str(error))


def concepts():
    masks = np.random.default_rng(0).random((2, 5, 4, 4)) < 0.5
    return ccx.Concepts.from_masks(masks, [HOSTILE, "plain"], categories=[f"k{HOSTILE}", "k"])


def test_the_console_and_its_tables():
    file = io.StringIO()
    console = VisibleConsole(file=file, width=200, markup=False)
    console.print(Text(HOSTILE), HOSTILE)
    assert file.getvalue().count(SEEN.replace(r"\u{7}", "").replace(r"\u{8}", "")) == 2  # Rich strips these two itself
    assert not ACTS.search(file.getvalue())


def test_the_command_that_lists_concepts(tmp_path):
    for name in ("c.ccx", "c\x1b[2J.ccx"):
        concepts().save(tmp_path / name)
        for command in ("info", "validate"):
            found = CliRunner().invoke(app, ["concepts", command, str(tmp_path / name)], env={"COLUMNS": "200"})
            assert found.exit_code == 0
            assert not ACTS.search(found.output)
            assert (SEEN in found.output) == (command == "info")
    assert r"c\u{1b}[2J.ccx: valid" in found.output


def test_the_report():
    annotated = concepts()
    found = ccx.explain(np.random.default_rng(1).random((5, 1, 4, 4)), annotated, progress=False, clusters=2)
    page = render(found, annotated, title=HOSTILE, notes=[HOSTILE], unit_names=[f"<b>{HOSTILE}"])
    assert page.count(SEEN.replace("&", "&amp;")) >= 3
    assert not ACTS.search(page)
    assert "<b>a" not in page


def test_cells_of_csv_files_are_no_formulas(tmp_path):
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "plain", "a=b", ""]
    table = Table("t", ("=name", "value"), tuple((name, -1.5) for name in names))
    table.write(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["'=name", "value"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "plain", "a=b", ""]
    assert {row[1] for row in rows[1:]} == {"-1.5"}  # numbers stay numbers


def test_labels_of_progress_bars(capfd):
    with progress_reporter(True, f"{HOSTILE} {{x}} [red]") as report:
        report(1, 2)
    shown = capfd.readouterr().err
    assert "{x} [red]" in shown
    assert "\x1b]0" not in shown
