"""Odd command lines: each ends well, or with one message of ours and an exit status, never with a traceback."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.core import TyperArgument
from typer.testing import CliRunner

from ccx.cli.app import app
from tests.support.fuzzing import attack, attempts

N, GRID = 6, (8, 8)
_CONCEPTS = [("--masks", "masks.npy"), ("--concepts", "all.ccx"), ("--labels", "labels.npy", "--names", "names.txt")]
_NET = "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))\n"
TEXTS = (
    "",
    " ",
    "-1",
    "0",
    "1",
    "2",
    "7",
    "0-9999999999",
    "5-1",
    "0-1",
    "1,",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "0.5",
    "9" * 400,
    str(2**31),
    str(2**63),
    str(2**64),
    "²",
    "٣",
    "a,b",
    "0,nan",
    "inf,-inf",
    "0x0",
    "1x2x3",
    "beam",
    "optimal",
    "iou",
    "\udcff",
    "\x1b[31m",
    "\N{PILE OF POO}",
    "x" * 5_000,
    "a=b",
    ":",
    "nets:make",
    "nets:",
    "os:system",
    "folder:a,b,c",
    "folder:pictures,pictures,names.txt,void=x",
    "broden:.,x=1",
    "coco:a",
    "demo:",
    "http://",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.zip",
    "http://[/x",
    "https://h:x/y",
    "http://127.0.0.1:99999999/x",
    "true",
    "None",
    "cuda:0",
    "float16",
    "csv",
    "parquet",
    "0.5,0.5,0.5",
    "--",
    "--help",
    "()",
    "{}",
    "%s",
    "NOT a",
    "order",
    "shared",
)
PATHS = (
    "missing",
    "pictures",
    ".",
    "..",
    "/",
    "/dev/null",
    "/dev/full",
    "/dev/zero",
    "/dev/stdin",
    "pipe",
    "loop",
    "empty",
    "empty.npy",
    "empty.txt",
    "empty.ccx",
    "noise.npy",
    "noise.npz",
    "noise.safetensors",
    "noise.txt",
    "noise.json",
    "noise.ccx",
    "cut.npy",
    "cut.ccx",
    "numbers.npy",
    "scalar.npy",
    "texts.npy",
    "none.npy",
    "masks.npy",
    "labels.npy",
    "names.txt",
    "all.ccx",
    "maps.npy",
    "run",
    "maps.npy/x",
    "x" * 300,
    "x/" * 2_500,
    "\udcff",
    "deep.json",
    "deep.toml",
    "nul.toml",
    "odd.toml",
    "fits.toml",
    "~",
    "proc",
    "/proc/self/mem",
    "tall/x/y",
)  # What would run for long, or take processes, because a user asked for it.
CALM = {"permutations", "workers", "threads", "top", "beam", "length", "batch_size", "clusters"}


@functools.cache
def world() -> Path:
    """Make the files that commands are given, good ones and bad ones."""
    folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(3)
    arrays = {
        "maps": rng.standard_normal((N, 2, 4, 4)).astype(np.float32),
        "masks": rng.random((3, N, *GRID)) < 0.4,
        "labels": rng.integers(0, 4, (N, 1, *GRID)),
        "lengths": np.full(N, 4),
        "groups": np.arange(N) % 2,
        "numbers": np.arange(5.0),
        "scalar": np.array(1),
        "texts": np.array(["a", "b"]),
        "none": np.zeros((0, 3)),
        "images": rng.integers(0, 256, (N, *GRID, 3), dtype=np.uint8),
        "exclude": rng.random(GRID) < 0.1,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    texts = {
        "names.txt": "a\nb\nc d\n",
        "keys.txt": "".join(f"k{n}\n" for n in range(N)),
        "nets.py": _NET,
        "tokens.csv": "sample,position,concept\n0,1,a\n3,2,b\n",
        "deep.json": "[" * 100_000,
        "empty.txt": "",
        "empty": "",
        "deep.toml": "a = " + "[" * 50_000,
        "nul.toml": 'model = "\\u0000"\nroot-models = "a\\u0000b"\n',
        "empty.npy": "",
        "odd.toml": "length = 1e400\nlayer = 3\nseed = true\n[run]\nclusters = {}\n",
        "empty.ccx": "",
        "fits.toml": 'length = 2\nmodel = "none such"\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    for suffix in ("npy", "npz", "safetensors", "txt", "json", "ccx"):
        (folder / f"noise.{suffix}").write_bytes(rng.bytes(999))
    (folder / "pictures").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    calls = (
        ["concepts", "build", "--masks", "masks.npy", "--names", "names.txt", "--out", "all.ccx"],
        ["explain", "maps.npy", "--masks", "masks.npy", "--out", "run", "--no-report", "--threads", "1"],
    )
    os.chdir(folder)
    for call in calls:
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 0, (result.output, result.exception)
    for name in ("maps.npy", "all.ccx"):
        content = (folder / name).read_bytes()
        (folder / f"cut{Path(name).suffix}").write_bytes(content[: len(content) // 2])
    return folder


@functools.cache
def commands() -> dict[tuple[str, ...], Any]:
    """Return all commands that are not hidden, by their words."""

    def walk(words: tuple[str, ...], command: Any) -> dict[tuple[str, ...], Any]:
        if not hasattr(command, "commands"):
            return {words: command}
        below = [walk((*words, name), one) for name, one in command.commands.items() if not one.hidden]
        return {key: one for found in below for key, one in found.items()}

    return walk((), typer.main.get_command(app))


def base(words: tuple[str, ...], rng: np.random.Generator, out: str) -> list[str]:
    """Return arguments with which the command would do its work; the studies' network is none in any case."""
    concepts = list(_CONCEPTS[rng.integers(len(_CONCEPTS))])
    match words[-1]:
        case "explain":
            return ["maps.npy", *concepts, "--out", out, "--length", "2", "--no-report", "--threads", "1"]
        case "report":
            return ["run", "--masks", "masks.npy", "--activations", "maps.npy", "--out", f"{out}/r.html"]
        case "show":
            return ["run"]
        case "compare-searches":
            return ["maps.npy", *concepts, "--out", out, "--length", "2", "--threads", "1"]
        case "probe":
            return ["nets:make", "pictures", "--out", out, "--layer", "0", "--size", "8"]
        case "build":
            given = [*_CONCEPTS, ("--tokens", "tokens.csv", "--lengths", "lengths.npy")]
            return [*given[rng.choice([0, 2, 3])], "--out", f"{out}/c.ccx"]
        case "info" | "validate":
            return ["all.ccx"]
        case "download":
            return [] if rng.random() < 0.1 else ["ftp://x/y", "--to", out]
        case "demo":
            return ["--units", "99", "--out", out]
        case _:
            return ["--model", "none such", "--root-results", out]


def hostile(parameter: Any, rng: np.random.Generator) -> list[str]:
    """Return a parameter with a value that seldom fits."""
    if parameter.name in CALM:
        value = str(rng.choice(["-1", "0", "1", "2", "nan", "x", "", "1e400", str(2**63), "9" * 30]))
        if parameter.name in ("permutations", "threads", "workers", "batch_size"):
            value = value if not value.isdecimal() or len(value) < 2 else "-" + value
    else:
        values = PATHS if rng.random() < 0.5 else TEXTS
        value = values[rng.integers(len(values))]
    if isinstance(parameter, TyperArgument):
        return [value]
    flag = str(rng.choice([*parameter.opts, *parameter.secondary_opts]))
    if getattr(parameter, "is_flag", False) and rng.random() < 0.9:
        return [flag]
    return [f"{flag}={value}"] if rng.random() < 0.8 else [flag, value]


def attempt(rng: np.random.Generator, folder: Path) -> str:
    os.chdir(world())
    every = commands()
    words = list(every)[rng.integers(len(every))]
    given = base(words, rng, str(folder / "out"))
    for _ in range(rng.choice([1, 1, 2, 3])):
        parameter = every[words].params[rng.integers(len(every[words].params))]
        found = hostile(parameter, rng)
        if isinstance(parameter, TyperArgument) and given and not given[0].startswith("-"):
            given[0] = found[0]
        else:
            given += found
    if "--out=." in given or "--out=/" in given:
        given += ["--out", str(folder / "out")]  # the others need what is there
    result = CliRunner().invoke(app, [*words, *given], env={"CCX_DEBUG": None})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        shown = f"ccx {' '.join([*words, *given])!a:.2000}"
        raise AssertionError(shown) from result.exception
    if result.exit_code == 0:
        return "done"
    assert "Traceback" not in result.output, given
    assert result.output.strip(), given
    return "refused" if "error: " in result.output else "usage"


def test_no_command_line_ends_in_a_traceback() -> None:
    attack(attempt, attempts(nightly=2_000, quick=50), seconds=60).check("done", "refused", "usage")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["explain", "maps.npy", "--masks", "masks.npy", "--units", "0-99999999999999", "--out", "o"], "--units"),
        (["explain", "maps.npy", "--masks", "masks.npy", "--units", "9" * 5_000, "--out", "o"], "write them like"),
        (["run", "--config", "deep.toml"], "deep.toml: is no TOML"),
        (["run", "--config", "/dev/full"], "no regular file"),
        (["explain", "maps.npy", "--masks", "masks.npy", "--names", "pipe", "--out", "o"], "pipe"),
        (["download", "http://[/x"], "the address of a file"),
    ],
)
def test_what_the_attack_found(words: list[str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())  # back to it in the end
    os.chdir(world())
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert problem in result.output
