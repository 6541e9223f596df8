"""`explain(..., out=folder)`: the same bytes whatever happened on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ccx
from ccx.errors import StoreError
from tests.support.full_disk import FullDisk

N, GRID, UNITS, CLUSTERS = 4, (8, 8), 30, 3


def made() -> tuple[np.ndarray, ccx.Concepts]:
    """Make 30 units, some of them silent, constant or of two values, and concepts."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(N, UNITS, 4, 4)).astype(np.float32)
    maps[:, 4] = 0
    maps[:, 9] = 3
    maps[:, 11] = maps[:, 11] > 0
    labels = rng.integers(0, 6, (N, 2, *GRID))
    return maps, ccx.Concepts.from_label_maps(labels, [f"concept {c}" for c in range(5)])


def run(folder: Path, **options: Any) -> ccx.Explanations:
    maps, concepts = made()
    return ccx.explain(maps, concepts, out=folder, **{"clusters": CLUSTERS, "length": 2, "top": 2, **options})


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("run.json", "rows.jsonl")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_the_folder_holds_what_is_returned(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert ccx.load(tmp_path) == found
    assert found == run(None)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert all(len(row.pop("checksum")) == 16 for row in rows)
    assert rows == found.to_records()
    keys = [(row["unit"], row["range_index"]) for row in rows]
    assert keys == sorted(set(keys))
    assert {row["status"] for row in rows} == {"explained", "silent", "constant", "single_value"}
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["settings"] == found.settings
    assert set(about["hashes"]) == {"concepts", "activations"}
    assert about["hashes"]["concepts"] == found.concepts_hash


def test_times_stand_in_a_file_of_their_own(whole: Path) -> None:
    rows = (whole / "rows.jsonl").read_text()
    assert "seconds" not in rows
    timings = [json.loads(line) for line in (whole / "timings.jsonl").read_text().splitlines()]
    assert [(one["unit"], one["range_index"]) for one in timings] == [
        (one.unit, one.range_index) for one in ccx.load(whole)
    ]
    for one in timings:
        assert set(one["seconds"]) <= {"ranges", "histogram", "search", "evidence"}
        assert min(one["seconds"].values()) >= 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_byte(tmp_path: Path, whole: Path, threads: int) -> None:
    run(tmp_path, threads=threads)
    assert files_of(tmp_path) == files_of(whole)


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    expected = run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls: list[tuple[int, int]] = []
    assert run(tmp_path, progress=lambda *call: calls.append(call)) == expected
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # The last unit might lack ranges, for all that its rows can tell: it is searched again.
    assert calls == [(UNITS - 1, UNITS), (UNITS, UNITS)]


@pytest.mark.parametrize("n_rows", [0, 1, 2, 3, 12, 13, 40, 84])
@pytest.mark.parametrize("torn", [b"", b'{"unit":', b"\xff\x00"])
def test_a_run_goes_on_after_any_row(tmp_path: Path, whole: Path, n_rows: int, torn: bytes) -> None:
    for name, content in files_of(whole).items():
        (tmp_path / name).write_bytes(content)
    rows = (whole / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(rows[:n_rows]) + torn)
    searched: list[tuple[int, int]] = []
    found = run(tmp_path, progress=lambda *call: searched.append(call), threads=1)
    assert files_of(tmp_path) == files_of(whole)
    assert found == ccx.load(whole)
    n_done = json.loads(rows[n_rows - 1])["unit"] if n_rows else 0  # units that surely are complete
    assert searched == [(done, UNITS) for done in range(n_done, UNITS + 1)]


def test_an_interrupted_run_keeps_its_rows(tmp_path: Path, whole: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 7:
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            run(tmp_path, progress=stop)
        assert ccx.load(tmp_path).units == tuple(range(7))
    run(tmp_path)
    assert files_of(tmp_path) == files_of(whole)


def test_a_run_of_bitmaps(tmp_path: Path) -> None:
    _, concepts = made()
    bitmaps = np.random.default_rng(1).random((9, N, *GRID)) < 0.3
    expected = ccx.explain_bitmaps(bitmaps, concepts)
    assert ccx.explain_bitmaps(bitmaps, concepts, out=tmp_path) == expected
    content = files_of(tmp_path)
    assert set(json.loads(content["run.json"])["hashes"]) == {"concepts", "bitmaps"}
    (tmp_path / "rows.jsonl").write_bytes(content["rows.jsonl"][:777])
    packed = ccx.kernels.pack(bitmaps.reshape(9, N, -1))
    assert ccx.explain_bitmaps(packed, concepts, out=tmp_path) == expected  # packed ones are the same bitmaps
    assert files_of(tmp_path) == content
    with pytest.raises(StoreError, match="differs in content of bitmaps"):
        ccx.explain_bitmaps(~bitmaps, concepts, out=tmp_path)


# Other runs, damage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"beam": 4}, r"beam \(5 there, 4 here\)"),
        ({"length": 3}, r"length \(2 there, 3 here\)"),
        ({"top": 1}, r"top \(2 there, 1 here\)"),
        ({"candidates": 3}, r"candidates \(null there, 3 here\)"),
        ({"length_penalty": 0.9}, r"length_penalty \(1.0 there, 0.9 here\)"),
        ({"min_iou": 0.1}, r"min_iou \(0.0 there, 0.1 here\)"),
        ({"clusters": 4}, r"clusters \(3 there, 4 here\)"),
        ({"units": [1]}, r"units \(.* there, \[1\] here\)"),
        ({"only": ["concept 1"]}, r"only \(null there, \[\"concept 1\"\] here\)"),
        ({"ranges": [(0, 1)]}, r"ranges \(null there"),
        ({"clustering": "sklearn"}, r"clustering \(\"optimal\" there, \"sklearn\" here\)"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, whole: Path, options: dict[str, Any], difference: str) -> None:
    if "clustering" in options:
        pytest.importorskip("sklearn", exc_type=ImportError)
    with pytest.raises(StoreError, match=f"holds a run that differs in .*{difference}.*choose another folder"):
        run(whole, **options)


def test_other_inputs_are_refused(whole: Path) -> None:
    before = files_of(whole)
    maps, concepts = made()
    other = maps.copy()
    other[0, 0, 0, 0] += 1
    with pytest.raises(StoreError, match=r"differs in content of activations \("):
        ccx.explain(other, concepts, out=whole, clusters=CLUSTERS, length=2, top=2)
    renamed = ccx.Concepts(concepts.atoms, ["a", *concepts.names[1:]])
    with pytest.raises(StoreError, match=r"differs in content of concepts \("):
        ccx.explain(maps, renamed, out=whole, clusters=CLUSTERS, length=2, top=2)
    assert files_of(whole) == before


def test_another_version_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccx.pipeline.explaining.VERSION", "0.0.0")
    with pytest.raises(StoreError, match="differs in version of ccx"):
        run(whole)


@pytest.mark.parametrize("damage", [{"formula": "(a AND"}, {"status": "fine"}, {"iou": None}, {"extra": 1}])
def test_damaged_rows_are_refused(tmp_path: Path, whole: Path, damage: dict[str, Any]) -> None:
    for name, content in files_of(whole).items():
        (tmp_path / name).write_bytes(content)
    rows = (whole / "rows.jsonl").read_text().splitlines()
    rows[5] = json.dumps(json.loads(rows[5]) | damage)
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(StoreError, match="damaged"):
        run(tmp_path)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        run(tmp_path / "file")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "rows.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match=r"has rows.jsonl but no run.json"):
        run(tmp_path / "foreign")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    def second_run(done: int, _total: int) -> None:
        if done == 3:
            with pytest.raises(StoreError, match="another process writes to it"):
                run(tmp_path)

    run(tmp_path, progress=second_run)


# Full disk; kills are in tests/attacks/test_attack_kills.py ----------------------------------------------------------


def test_rows_reach_the_disk_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(done: int, _total: int) -> None:
        if done:
            assert ccx.load(tmp_path).units == tuple(range(done))

    monkeypatch.setattr("ccx.pipeline.explaining._FLUSH_SECONDS", 0.0)
    run(tmp_path, progress=look)


@pytest.mark.parametrize("n_good", [0, 1, 2, 3, 5, 8, 9, 10, 11])
def test_a_full_disk_loses_nothing(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    with monkeypatch.context() as patch:
        FullDisk(patch, n_good, ("pwrite", "fsync", "ftruncate"))
        with pytest.raises(StoreError, match="No space left on device"):
            run(tmp_path)
    kept = tmp_path / "rows.jsonl"
    rows = files_of(whole)["rows.jsonl"]
    assert not kept.exists() or rows.startswith(kept.read_bytes())
    assert run(tmp_path) == ccx.load(whole)
    assert files_of(tmp_path) == files_of(whole)
