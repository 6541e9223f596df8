"""The command line, through its application and as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from rich.text import Text
from typer.testing import CliRunner

import ccx
from ccx.cli import app, flags, terminal
from ccx.cli import input_files as files
from ccx.errors import InputError, StoreError
from tests.support.command_line import NAMES, expected, ok, run

ROOT = Path(__file__).parents[2]
# A background job, as CI may be, ignores Ctrl-C, and so would its children.
CODE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ccx.cli import main; main()"


def process(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen([sys.executable, "-c", CODE, *map(str, arguments)], env=environment, text=True, **options)


def test_version_and_help():
    assert ok("--version") == f"ccx {ccx.__version__}\n"
    text = ok("--help")
    for command in ("demo", "explain", "report", "show", "concepts"):
        assert command in text
    assert "--length-penalty" in ok("explain", "--help")


def commands_of(command):
    return [command, *(one for each in getattr(command, "commands", {}).values() for one in commands_of(each))]


def test_brackets_in_help_are_no_markup():
    """Where a name in brackets begins with a small letter, as in [h, w], it must be escaped."""
    commands = commands_of(typer.main.get_command(app))
    texts = [option.help for one in commands for option in one.params if getattr(option, "help", None)]
    assert len(texts) > 100
    for text in texts:
        assert Text.from_markup(text).plain == text.replace("\\[", "[")


def test_explain_from_labels(data):
    out = data / "run"
    text = ok(
        "explain", data / "activations.npy", "--labels", data / "labels.npy", "--names", data / "names.txt",
        "--out", out, "--images", data / "images.npy", "--top", 2,
    )  # fmt: skip
    found = expected(data, top=2)
    assert ccx.load(out) == ccx.load(out / "explanations.json") == found
    assert "(sky AND road [1])" in text
    assert "[silent]" in text
    assert str(out / "report.html") in text
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page
    assert "[red]car[/red]" in page


def test_explain_reads_every_kind_of_file(data):
    arguments = ("--names", data / "names.txt", "--no-report", "--clusters", 2)
    concepts = ccx.Concepts.from_label_maps(np.load(data / "labels.npy"), NAMES)
    concepts.save(data / "all.ccx")
    sources = {"--labels": data / "labels.npy", "--masks": data / "masks.npy", "--concepts": data / "all.ccx"}
    wanted = expected(data, clusters=2).to_records()
    for i, file in enumerate(("activations.npy", "arrays.npz", "activations.safetensors")):
        for j, (flag, source) in enumerate(sources.items()):
            more = arguments if flag != "--concepts" else arguments[2:]
            out = data / f"run{i}{j}"
            ok("explain", data / file, flag, source, *more, "--out", out)
            assert ccx.load(out).to_records() == wanted
            assert not (out / "report.html").exists()


def test_explain_passes_every_option_on(data):
    out = data / "run"
    arguments = [
        "--units", "0-1", "--range", "0.1,inf", "--range=-1,0", "--length", 2, "--beam", 3, "--candidates", 3,
        "--length-penalty", 0.9, "--top", 2, "--min-iou", 0.01, "--only", "sky", "--only", "tree", "--category", "a",
        "--threads", 1, "--search", "mmesh",
    ]  # fmt: skip
    ok(
        "explain", data / "activations.npy", "--labels", data / "labels.npy", "--names", data / "names.json",
        "--out", out, *arguments,
    )  # fmt: skip
    settings = ccx.load(out).settings
    assert settings["units"] == [0, 1]
    assert settings["ranges"] == [[[-1.0, 0.0], [0.1, "inf"]]] * 2
    assert settings["only"] == ["sky", "tree"]
    wanted = {
        "length": 2,
        "beam": 3,
        "candidates": 3,
        "length_penalty": 0.9,
        "top": 2,
        "min_iou": 0.01,
        "search": "mmesh",
    }
    assert {key: settings[key] for key in wanted} == wanted
    ok(
        "explain", data / "activations.npy", "--masks", data / "masks.npy", "--out", data / "top", "--clusters", 1,
        "--quantile", 0.1, "--clustering", "optimal", "--search", "areas", "--published",
    )  # fmt: skip
    settings = ccx.load(data / "top").settings
    assert (settings["quantile"], settings["search"], settings["published"]) == (0.1, "areas", True)


def test_key_chooses_the_array(data):
    out = data / "run"
    ok("explain", data / "arrays.npz", "--key", "other", "--masks", data / "masks.npy", "--out", out)
    assert ccx.load(out).units == (0,)
    result = run("explain", data / "activations.npy", "--key", "x", "--masks", data / "masks.npy", "--out", data / "x")
    assert result.exit_code == 2
    assert "no --key beside a .npy file" in result.output
    result = run("explain", data / "arrays.npz", "--key", "none", "--masks", data / "masks.npy", "--out", data / "x")
    assert result.exit_code == 2
    assert "expected an array called 'none', got activations, other" in result.output


def test_a_second_run_resumes_and_another_is_refused(data):
    command = ("explain", data / "activations.npy", "--masks", data / "masks.npy", "--out", data / "run")
    first = ok(*command)
    rows = (data / "run" / "rows.jsonl").read_bytes()
    lines = rows.splitlines(keepends=True)
    (data / "run" / "rows.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:10])
    second = ok(*command)
    assert second.splitlines()[:5] == first.splitlines()[:5]
    assert (data / "run" / "rows.jsonl").read_bytes() == rows
    assert "nothing left to do" not in first + second
    assert f"nothing left to do: read from {data / 'run'}\n" in ok(*command)
    result = run(*command, "--length", 2)
    assert result.exit_code == 2
    assert "error:" in result.output
    assert "length" in result.output


def test_show_and_report(data):
    ok("explain", data / "activations.npy", "--masks", data / "masks.npy", "--out", data / "run", "--no-report")
    text = ok("show", data / "run")
    assert "ranges of 3 units explained" in text
    assert not set("─│┃━") & set(text)
    assert "... and 9 more" in ok("show", data / "run", "--rows", 2)
    one = ok("show", data / "run" / "explanations.json", "--unit", 1)
    assert "of 1 units" in one
    assert run("show", data / "run", "--unit", 7).exit_code == 2
    ok("report", data / "run", "--masks", data / "masks.npy", "--title", "My title")
    page = (data / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h1>My title</h1>" in page
    assert "<figure tabindex" not in page
    ok(
        "report", data / "run" / "explanations.json", "--masks", data / "masks.npy",
        "--activations", data / "activations.npy", "--images", data / "images.npy", "--out", data / "other.html",
    )  # fmt: skip
    assert "<figure tabindex" in (data / "other.html").read_text(encoding="utf-8")
    np.save(data / "reversed.npy", np.load(data / "activations.npy")[::-1])
    pictured = ("report", data / "run", "--masks", data / "masks.npy", "--activations")
    ok(*pictured, data / "activations.npy")
    wrong = run(*pictured, data / "reversed.npy")
    assert wrong.exit_code == 2
    assert "--activations: expected those that were explained" in wrong.output
    wrong = run("report", data / "run", "--labels", data / "labels.npy", "--names", data / "names.txt")
    assert wrong.exit_code == 2
    assert "expected those that were explained with" in wrong.output


def test_concepts_build_info_validate(data):
    file = data / "all.ccx"
    text = ok("concepts", "build", "--labels", data / "labels.npy", "--names", data / "names.csv", "--out", file)
    assert "4 concepts in 1 categories, 6 samples of 8×8 cells" in text
    info = ok("concepts", "info", file)
    assert "[red]car[/red]" in info
    assert ccx.Concepts.load(file).content_hash in info
    assert "... and 3 more" in ok("concepts", "info", file, "--rows", 1)
    assert "valid" in ok("concepts", "validate", file)
    damaged = bytearray(file.read_bytes())
    damaged[-3] ^= 1
    file.write_bytes(damaged)
    result = run("concepts", "validate", file)
    assert result.exit_code == 2
    assert "error:" in result.output


def test_valid_cells(data):
    valid = np.zeros((6, 8, 8), bool)
    valid[:3] = True
    np.save(data / "valid.npy", valid)
    ok("concepts", "build", "--masks", data / "masks.npy", "--valid", data / "valid.npy", "--out", data / "half.ccx")
    assert ccx.Concepts.load(data / "half.ccx").n_cells == 3 * 64


def test_demo(tmp_path):
    out = tmp_path / "deep" / "demo"
    text = ok("demo", "--out", out, "--units", 3)
    assert "no evidence about cats" in text
    assert "the same" in text
    assert "((cat OR coffee) AND NOT black), IoU 1.000" in text
    assert text.rstrip().endswith(str(out / "explanations.json"))
    assert ccx.load(out / "explanations.json").units == (0, 1, 2)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "✓ found" in page
    assert "no evidence about cats" in page
    assert "by chance" in page
    assert "39 permutations of the samples" in page
    assert text.split("\nunit ")[1].split()[:8] == ["gain", "IoU", "null", "mean", "null", "max", "z", "p"]
    assert 100_000 < len(page) < 3_000_000
    assert run("demo", "--out", out, "--units", 43).exit_code == 2


def test_errors_are_one_message_without_traceback(data):
    (data / "bad.npy").write_bytes(b"nothing")
    commands = [
        (("explain", data / "bad.npy", "--masks", data / "masks.npy"), "cannot be read as an array"),
        (("explain", data / "names.txt", "--masks", data / "masks.npy"), "no known kind"),
        (("explain", data / "activations.npy"), "one of --labels, --masks and --concepts"),
        (("explain", data / "activations.npy", "--labels", data / "labels.npy"), "--names beside --labels"),
        (("explain", data / "activations.npy", "--masks", data / "labels.npy"), "from_label_maps"),
        (
            ("explain", data / "activations.npy", "--masks", data / "masks.npy", "--units", "x"),
            "write them like 0-9,14",
        ),
        (("explain", data / "activations.npy", "--masks", data / "masks.npy", "--range", "1"), "LOWER,UPPER"),
        (
            ("explain", data / "activations.npy", "--masks", data / "masks.npy", "--range=0,1", "--clusters", 5),
            "no --clusters beside it",
        ),
        (("explain", data / "activations.npy", "--concepts", data / "masks.npy"), "does not begin like a safetensors"),
        (("explain", data / "labels.npy", "--masks", data / "masks.npy"), "floating point"),
    ]
    for command, message in commands:
        result = run(*command, "--out", data / "out")
        assert result.exit_code == 2, command
        assert message in result.output.replace("\n", " "), command
        assert "Traceback" not in result.output
        assert not (data / "out" / "report.html").exists()
    with pytest.raises(InputError):
        CliRunner().invoke(
            app, ["--debug", "explain", str(data / "activations.npy"), "--out", "x"], catch_exceptions=False
        )


def test_errors_go_to_stderr_with_status_2(data):
    running = process("show", data / "names.txt", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (2, "")
    assert err.startswith("error: ")
    assert "\x1b" not in err


def test_a_closed_pipe_is_quiet(data):
    ok("explain", data / "activations.npy", "--masks", data / "masks.npy", "--out", data / "run", "--no-report")
    reader, writer = os.pipe()
    os.close(reader)
    running = process("show", data / "run", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert running.communicate(timeout=60)[1] == ""
    assert running.returncode == 1


def test_output_that_cannot_be_written_is_one_line(data):
    with Path("/dev/full").open("w") as full:
        running = process("concepts", "--help", stdout=full, stderr=subprocess.PIPE)
        err = running.communicate(timeout=60)[1]
    assert (running.returncode, err.count("\n")) == (1, 1)
    assert "cannot write the standard output (No space left on device)" in err


def test_as_a_module():
    command = [sys.executable, "-m", "ccx", "--version"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=60, check=True)
    assert done.stdout == f"ccx {ccx.__version__}\n"


@pytest.mark.parametrize(("closed", "status", "says"), [(1, 1, "the standard output is closed"), (2, 0, "")])
def test_closed_streams(data, closed, status, says):
    command = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-c", CODE, "concepts", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == status
    assert says in done.stderr
    assert done.stderr.count("\n") == bool(says)


def test_names_need_not_fit_the_terminals_encoding(data):
    (data / "names.txt").write_text("\n".join(["Straße", "木", "c", "d"]), encoding="utf-8")
    ok("concepts", "build", "--masks", data / "masks.npy", "--names", data / "names.txt", "--out", data / "all.ccx")
    env = {"PYTHONIOENCODING": "ascii"}
    running = process("concepts", "info", data / "all.ccx", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    assert "Stra?e" in out


def test_ctrl_c_says_how_to_go_on(data):
    # Many rows, so that the run is still going when the signal comes.
    rng = np.random.default_rng(1)
    np.save(data / "many.npy", rng.standard_normal((6, 4000, 8, 8), np.float32))
    command = ("explain", data / "many.npy", "--masks", data / "masks.npy", "--out", data / "run", "--length", 4)
    command += ("--beam", 300, "--no-report")
    with process(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        rows, deadline = data / "run" / "rows.jsonl", time.monotonic() + 120
        while not (rows.exists() and rows.stat().st_size) and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        try:
            err = running.communicate(timeout=60)[1]
        finally:
            running.kill()
    assert running.returncode == 130, err
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert 0 < len(ccx.load(data / "run")) < 20_000


@pytest.mark.parametrize(
    ("text", "units"), [(None, None), ("3", [3]), ("0-2", [0, 1, 2]), ("1, 4-5", [1, 4, 5]), ("7-7", [7])]
)
def test_units(text, units):
    assert flags.parse_units(text) == units


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "1.5"])
def test_units_that_are_none(text):
    with pytest.raises(InputError, match="--units"):
        flags.parse_units(text)


def test_npy_is_memory_mapped_and_pickles_are_refused(data):
    found = files.read_array(data / "activations.npy", "activations")
    assert type(found) is np.ndarray
    assert isinstance(found.base, np.memmap)
    np.save(data / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(data / "objects.npz", np.array([{}], object))
    (data / "pickle.npy").write_bytes(np.ones(1).dumps())
    for name in ("objects.npy", "objects.npz", "pickle.npy"):
        with pytest.raises(StoreError, match="cannot be read as an array") as caught:
            files.read_array(data / name, "activations")
        assert "pickle" not in str(caught.value).replace("pickle.npy", "")
    (data / "cut.npz").write_bytes((data / "arrays.npz").read_bytes()[:200])
    (data / "cut.safetensors").write_bytes((data / "activations.safetensors").read_bytes()[:200])
    for name in ("cut.npz", "cut.safetensors"):
        with pytest.raises(StoreError):
            files.read_array(data / name, "activations")
    content = (data / "activations.npy").read_bytes()
    cut = {0: "does not begin like", 50: "header is damaged", 500: f"truncated: 500 bytes.* {len(content)}\\)"}
    for n_bytes, message in cut.items():
        (data / "cut.npy").write_bytes(content[:n_bytes])
        with pytest.raises(StoreError, match=rf"cut\.npy: cannot be read as an array \(.*{message}"):
            files.read_array(data / "cut.npy", "activations")
    with pytest.raises(StoreError, match=r"missing\.npy: cannot read it"):
        files.read_array(data / "missing.npy", "activations")


def test_names_of_masks_are_those_of_ids_1_to_c(tmp_path):
    file = tmp_path / "names.csv"
    file.write_text("id,name,category\n2,sky,x\n1,road,y\n")
    assert files.read_names(file) == (["road", "sky"], ["y", "x"])
    file.write_text("id,name\n2,sky\n3,road\n")
    with pytest.raises(StoreError, match=r"names\.csv: id 1 has no name .*masks are concepts 1, 2"):
        files.read_names(file)
    file = tmp_path / "names.txt"
    file.write_text("road\n\nsky\n")
    with pytest.raises(StoreError, match=r"id 2 has no name \(in a \.txt file: its line is blank\)"):
        files.read_names(file)


def test_labels_of_samples(tmp_path):
    file = tmp_path / "groups.txt"
    file.write_bytes(b"a b\r\nc\r\na b\r\n\r\n")
    assert files.read_labels(file) == ["a b", "c", "a b"]
    for text, problem in (("a\n\nb\n", "line 2: the label is blank"), ("a\nnan\n", "line 2: the label is 'nan'")):
        file.write_text(text)
        with pytest.raises(StoreError, match=problem):
            files.read_labels(file)


def test_images_of_a_folder(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    images = files.read_images(tmp_path)
    assert [path.name for path in images] == ["a.JPG", "b.png"]
    concepts = ccx.Concepts.from_label_maps(np.ones((3, 2, 2), int), ["x"])
    with pytest.raises(InputError, match="expected 3 images, got 2"):
        files.paired(None, concepts, images, None)


def test_images_are_in_natural_order(tmp_path):
    names = ["1a.png", "2.png", "10.png", "a.png", "a2b1.png", "a2b10.png", "a02c.png", "a10.png"]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [path.name for path in files.read_images(str(tmp_path))] == names


def test_images_are_checked_before_the_run(data):
    command = ("explain", data / "activations.npy", "--masks", data / "masks.npy", "--out", data / "run", "--images")
    np.save(data / "chw.npy", np.zeros((6, 3, 16, 16), np.uint8))
    folder = data / "photos"
    folder.mkdir()
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.jpg")
    whole = (folder / "4.jpg").read_bytes()
    (folder / "4.jpg").write_bytes(whole[: len(whole) // 2])
    for images, message in ((data / "chw.npy", "put the channels last"), (folder, "4.jpg: truncated or damaged")):
        result = run(*command, images)
        assert result.exit_code == 2
        assert message in result.output.replace("\n", " ")
        assert not (data / "run").exists()
    (folder / "4.jpg").write_bytes(whole)
    ok(*command, folder)


def test_tables_have_colors_only_on_a_terminal(data):
    found = expected(data)
    concepts = ccx.Concepts.from_label_maps(np.load(data / "labels.npy"), NAMES)
    table = terminal.best_ranges(found, concepts, max_rows=2)
    assert table.row_count == 2
    console = terminal.output()
    with console.capture() as captured:
        console.print(table)
    assert "\x1b" not in captured.get()
    assert "... and 1 more" in captured.get()
