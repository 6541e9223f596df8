"""From data sets to concepts: the same as from label maps, whatever workers, kills and full disks there were."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.datasets import Folder, Pairs
from ccx.errors import FilesError, InputError, MemoryBudgetError, StoreError
from ccx.store import load_arrays, locked_folder
from tests.support.full_disk import FullDisk, file_size_limit
from tests.support.picture_files import photo, png, write

ROOT = Path(__file__).parents[2]
NAMES = [f"n{i}" for i in range(9)]
SIDE = 12


def write_folder(root: Path, n_images: int = 130) -> Path:
    rng = np.random.default_rng(n_images)
    image = png(photo(SIDE, SIDE))
    for i in range(n_images):
        write(root / f"i/{i:04d}.png", image)
        labels = np.repeat(np.repeat(rng.choice([0, 255, *range(1, 10)], (4, 4)), 3, 0), 3, 1)
        write(root / f"l/{i:04d}.png", png(labels))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder"))


def opened(root: Path, **options: Any) -> Folder:
    return Folder(root / "i", root / "l", NAMES, **{"void": 255, **options})


def expected(dataset: Any, shape: tuple[int, int] | None = None) -> ccx.Concepts:
    batches = [(dataset.labels(i, shape)[None], dataset.valid(i, shape)[None]) for i in range(len(dataset))]
    return ccx.Concepts.from_label_maps(batches, dataset.names, categories=dataset.categories)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("shape", [None, (5, 7)])
def test_concepts_are_those_of_from_label_maps(folder: Path, workers: int, shape: tuple[int, int] | None) -> None:
    dataset = opened(folder)
    found = dataset.concepts(shape, workers=workers, progress=False)
    found.validate()
    assert found.content_hash == expected(dataset, shape).content_hash
    assert not multiprocessing.active_children()


@given(
    n=st.integers(1, 150), grid=st.tuples(st.integers(1, 5), st.integers(1, 5)), n_layers=st.integers(1, 3),
    has_void=st.booleans(), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_any_labels(n: int, grid: tuple[int, int], n_layers: int, has_void: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.zeros((*grid, 3), np.uint8)
    pairs = [(image, rng.integers(0, 5, (int(rng.integers(1, n_layers + 1)), *grid))) for _ in range(n)]
    for _, layers in pairs:
        layers[0, 0, 0] = 2  # what is 0 and 1 alone may be taken for one-hot
    dataset = Pairs(pairs, ["a", "b", "c"], void=4 if has_void else (), none=0 if has_void else (0, 4))
    found = dataset.concepts(grid, workers=1, progress=False)
    assert found.content_hash == expected(dataset).content_hash


def test_a_file_is_the_same_however_it_came(folder: Path, tmp_path: Path) -> None:
    files = []
    for number, workers in enumerate((1, 2)):
        out = tmp_path / f"{number}" / "c.ccx"
        out.parent.mkdir()
        built = opened(folder).concepts(workers=workers, progress=False, out=out)
        files.append(out.read_bytes())
        assert [path.name for path in out.parent.iterdir()] == ["c.ccx"]
        assert ccx.Concepts.load(out).content_hash == built.content_hash
        again = opened(folder).concepts(workers=workers, progress=False, out=out)
        assert again.content_hash == built.content_hash
    assert files[0] == files[1]
    source = json.loads(load_arrays(tmp_path / "0/c.ccx", "ccx-concepts/1")[1]["source"])
    assert source["kind"] == "folder"
    assert source["images"] == 130


def test_a_stale_file_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", 5)
    out = tmp_path / "c.ccx"
    opened(root).concepts(progress=False, out=out)
    content = out.read_bytes()
    for dataset, shape, what in (
        (opened(root), (3, 3), r"shape \(None there, \[3, 3\] here\)"),
        (opened(root, void=[255, 254]), None, "ids"),
        (opened(root, categories=["x"] * 9), None, "names"),
        (opened(root).take([0, 1]), None, r"images \(5 there, 2 here\)"),
        (opened(root).take([1, 0, 2, 3, 4]), None, "files"),
        (opened(root).with_colors(), None, r"colors \(False there, True here\)"),
    ):
        with pytest.raises(StoreError, match=rf"c\.ccx: was made from something else: .*{what}.*; delete it, or"):
            dataset.concepts(shape, progress=False, out=out)
    label = root / "l/0003.png"
    os.utime(label, ns=(1, 1))
    with pytest.raises(StoreError, match="files"):
        opened(root).concepts(progress=False, out=out)
    assert out.read_bytes() == content
    ccx.Concepts.from_label_maps(np.ones((1, 2, 2), int), ["a"]).save(out)
    with pytest.raises(StoreError, match=r"kind \(unknown there, folder here\)"):
        opened(root).concepts(progress=False, out=out)
    write(out, "something else")
    with pytest.raises(StoreError, match="does not begin like a safetensors file"):
        opened(root).concepts(progress=False, out=out)


def test_work_is_kept_when_files_turn_out_to_be_damaged(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", 130)
    out = tmp_path / "c.ccx"
    whole = opened(root).concepts(progress=False).content_hash
    good = {}
    for name in ("0011", "0012", "0100"):
        path = root / f"l/{name}.png"
        good[path] = path.read_bytes()
        at = good[path].index(b"IDAT") + 6
        write(path, good[path][:at] + bytes([good[path][at] ^ 1]) + good[path][at + 1 :])
    with pytest.raises(FilesError) as caught:
        opened(root).concepts(workers=2, progress=False, out=out)
    assert [problem.split(": ")[0].rpartition("/")[2] for problem in caught.value.problems] == [
        "0011.png", "0012.png", "0100.png"
    ]  # fmt: skip
    assert "what was built is kept" in str(caught.value)
    assert not out.exists()
    parts = list((tmp_path / ".c.ccx.parts").iterdir())
    assert len(parts) == 65 - 3  # of two images each; 11 and 12 lie in two of them
    for path, content in good.items():
        write(path, content)
    read: list[Path] = []
    dataset = opened(root)
    layers = dataset._layers
    dataset._layers = lambda sample, shape: (read.append(sample.labels), layers(sample, shape))[1]  # type: ignore[method-assign]
    assert dataset.concepts(workers=1, progress=False, out=out).content_hash == whole
    assert len(read) == 6
    assert not (tmp_path / ".c.ccx.parts").exists()


def test_damaged_parts_are_made_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "c.ccx"
    monkeypatch.setattr(ccx.Concepts, "save", _only_parts(ccx.Concepts.save))
    with pytest.raises(KeyboardInterrupt):
        opened(folder).concepts(workers=1, progress=False, out=out)
    monkeypatch.undo()
    parts = sorted((tmp_path / ".c.ccx.parts").iterdir())
    assert len(parts) == 65
    for number, part in enumerate(parts):
        content = part.read_bytes()
        part.write_bytes(content[: len(content) // 2] if number % 2 else content[:-3] + b"abc")
    found = opened(folder).concepts(workers=1, progress=False, out=out)
    assert found.content_hash == expected(opened(folder)).content_hash


def _only_parts(save: Any) -> Any:
    def saved(concepts: Any, path: Path, **options: Any) -> None:
        if path.name == "c.ccx":
            raise KeyboardInterrupt
        save(concepts, path, **options)

    return saved


def test_two_builders_of_one_file(folder: Path, tmp_path: Path) -> None:
    refused = pytest.raises(StoreError, match=r"\.c\.ccx\.parts: another process builds here; wait for it")
    with locked_folder(tmp_path / ".c.ccx.parts"), refused:
        opened(folder).concepts(progress=False, out=tmp_path / "c.ccx")


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ccx.datasets import Folder
data = Folder(sys.argv[1] + "/i", sys.argv[1] + "/l", [f"n{i}" for i in range(9)], void=255)
print("ready", flush=True)
data.concepts(workers=2, progress=False, out=sys.argv[2])
"""


def started(root: Path, out: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), str(out)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> str:
    _, stderr = process.communicate(timeout=120)
    return stderr


def test_ctrl_c_keeps_work_and_leaves_no_process(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.ccx"
    process = started(folder, out)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".c.ccx.parts/*.part")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    stderr = ended(process)
    if process.returncode:  # else it was done before
        assert stderr.count("Traceback") == 1
        assert "KeyboardInterrupt" in stderr
        assert list(tmp_path.glob(".c.ccx.parts/*.part"))
    assert opened(folder).concepts(progress=False, out=out).content_hash == expected(opened(folder)).content_hash


@pytest.mark.parametrize("n_good", [0, 1, 2, 5, 40, 130])
def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    out = tmp_path / "c.ccx"
    FullDisk(monkeypatch, 1 + n_good, ("fsync",))  # first the folder above that of parts
    with pytest.raises(StoreError, match=r"cannot write it .*No space left on device.*make room"):
        opened(folder).concepts(workers=1, progress=False, out=out)
    monkeypatch.undo()
    assert not out.exists()
    kept = {path.name for path in (tmp_path / ".c.ccx.parts").iterdir()}
    assert len(kept) == -(-n_good // 2)  # each file is flushed and renamed, then its folder is flushed
    found = opened(folder).concepts(workers=1, progress=False, out=out)
    assert found.content_hash == expected(opened(folder)).content_hash


def test_a_file_that_grows_too_large(folder: Path, tmp_path: Path) -> None:
    with file_size_limit(20_000), pytest.raises(StoreError, match=r"c\.ccx: cannot write it \(File too large\)"):
        opened(folder).concepts(workers=2, progress=False, out=tmp_path / "c.ccx")
    assert not (tmp_path / "c.ccx").exists()
    assert len(list(tmp_path.glob(".c.ccx.parts/*.part"))) == 65


def test_folders_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    with pytest.raises(StoreError, match=r"cannot make this folder \(Not a directory\)"):
        opened(folder).concepts(progress=False, out=tmp_path / "file" / "c.ccx")


def test_progress_and_empty_data_sets(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    dataset = opened(folder)
    dataset.concepts(workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (130, 130)  # all files were looked at
    assert seen[1:] == [(done, 130) for done in range(2, 131, 2)]
    assert capfd.readouterr() == ("", "")
    dataset.concepts(workers=2, progress=True)
    assert "building concepts" in capfd.readouterr().err
    assert dataset.check(workers=2, progress=False) == ()
    with pytest.raises(InputError, match="dataset: expected at least one image, got none"):
        dataset.take([]).concepts(progress=False)
    with pytest.raises(InputError, match="progress: expected"):
        dataset.concepts(progress="yes")  # type: ignore[arg-type]


def test_memory_is_asked_for_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 1000)
    with pytest.raises(MemoryBudgetError, match="dataset: expected work that fits"):
        opened(folder).concepts(progress=False)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 1)
    dataset = Folder(root / "i", root / "l", NAMES, void=255, only=["0000", *map(str, range(1200))])
    with pytest.raises(FilesError) as caught:
        dataset.concepts(progress=False)
    assert len(caught.value.problems) == 2400
    assert str(caught.value).count("\n") == 1001
    assert str(caught.value).endswith("... and 1400 more: see error.problems")
    shutil.rmtree(root)
