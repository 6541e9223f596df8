"""Run folders: one writer, no torn rows, and runs that go on after kill -9 or a full disk."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ccx
from ccx.errors import InputError, StoreError
from ccx.store import RowLog, read_run
from tests.support.full_disk import FullDisk, file_size_limit
from tests.support.fuzzing import attempts
from tests.support.seals import unseal

KEY = ("unit", "cluster")
HASHES = {"concepts": "c0", "activations": "a0"}
SETTINGS = {"beam": 5, "length": 3, "ranges": None}


def open_log(folder: Path, **options: Any) -> RowLog:
    arguments = {"key": KEY, "settings": SETTINGS, "hashes": HASHES, "version": "1", "batch_rows": 3, **options}
    return RowLog(folder, **arguments)


def row(index: int) -> dict[str, Any]:
    return {"unit": index // 5, "cluster": index % 5, "formula": "ü" * (index % 7), "iou": index / 7}


def fill(folder: Path, n_rows: int = 20, **options: Any) -> None:
    with open_log(folder, **options) as log:
        for index in range(n_rows):
            if (index // 5, index % 5) not in log:
                log.append(row(index), {"seconds": time.process_time()})


def test_rows_and_timings(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "b")
    run, rows = read_run(tmp_path / "a" / "b", KEY)
    assert run == {"format": "ccx.run/2", "version": "1", "hashes": HASHES, "settings": SETTINGS}
    assert list(rows) == [row(index) for index in range(20)]
    timings = (tmp_path / "a" / "b" / "timings.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in timings] == [["seconds"]] * 20
    with open_log(tmp_path / "a" / "b") as log:
        assert log.rows == rows
        assert len(log) == 20
        assert (3, 4) in log
        assert (4, 0) not in log


def test_batches(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with open_log(tmp_path) as log:
        for index in range(5):
            log.append(row(index))
        assert rows.read_bytes().count(b"\n") == 3
        assert len(log) == 5
        log.flush()
        assert rows.read_bytes().count(b"\n") == 5
        log.append(row(5))
    assert rows.read_bytes().count(b"\n") == 6
    log.close()  # again: nothing happens


@pytest.mark.parametrize(
    "bad",
    [row(3), row(0), {"unit": 1}, {"unit": True, "cluster": 9}, {"unit": 1.0, "cluster": 2}, {**row(9), "x": {1}}],
)
def test_bad_rows_are_refused_and_the_log_goes_on(tmp_path: Path, bad: dict[str, Any]) -> None:
    with open_log(tmp_path) as log:
        for index in range(4):
            log.append(row(index))
        with pytest.raises(InputError, match="row: expected"):
            log.append(bad)
        with pytest.raises(InputError, match="timing: expected"):
            log.append(row(4), {"seconds": float("nan")})
        log.append(row(4))
    assert read_run(tmp_path, KEY)[1] == tuple(row(index) for index in range(5))


def test_resume_after_every_cut(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "rows.jsonl"
    whole = path.read_bytes()
    breaks = [end for end in range(len(whole)) if b"\n" in whole[max(end - 2, 0) : end + 1]]  # and before and after
    for end in sorted({*breaks, *range(0, len(whole), attempts(nightly=1, quick=7))}):
        path.write_bytes(whole[:end])
        assert len(read_run(tmp_path, KEY)[1]) == whole[:end].count(b"\n")
        fill(tmp_path, batch_rows=100)
        assert path.read_bytes() == whole


def test_torn_timings_are_dropped(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    with (tmp_path / "timings.jsonl").open("ab") as file:
        file.write(b'{"sec')
    fill(tmp_path, 4)
    assert len([json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]) == 4


def test_rows_are_chained(tmp_path: Path) -> None:
    """What is changed, moved, left out or of another run does not fit its checksum."""
    fill(tmp_path, 6)
    fill(tmp_path / "other", 6, settings={**SETTINGS, "beam": 6})
    path = tmp_path / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    others = (tmp_path / "other" / "rows.jsonl").read_bytes().splitlines(keepends=True)
    for damaged, line in [
        ([lines[0], lines[2], lines[3]], 2),
        ([lines[0], lines[1].replace(b"iou", b"iuo"), lines[2]], 2),
        ([lines[1], lines[2]], 1),
        ([others[0], lines[1]], 1),
        ([lines[0], others[1]], 2),
        ([lines[0], re.sub(rb',"checksum":"\w+"', b"", lines[1]), lines[2]], 2),
    ]:
        path.write_bytes(b"".join(damaged))
        for opening in (lambda: open_log(tmp_path), lambda: read_run(tmp_path, KEY)):
            with pytest.raises(StoreError, match=rf"line {line}: damaged: it does not fit its checksum"):
                opening()
    path.write_bytes(b"".join(lines[:3]))  # as a kill leaves it
    assert read_run(tmp_path, KEY)[1] == tuple(row(index) for index in range(3))
    path.write_bytes(b"".join(lines)[:-1] + b"\x0b")
    with pytest.raises(StoreError, match="line 6: damaged: no line break behind it"):
        open_log(tmp_path)
    run = tmp_path / "run.json"
    run.write_text(run.read_text().replace('"beam":5', '"beam":6'))
    with pytest.raises(StoreError, match=r"run\.json: damaged: its content does not fit its checksum"):
        open_log(tmp_path, settings={**SETTINGS, "beam": 6})


def test_every_flipped_bit_of_a_run_is_refused(tmp_path: Path) -> None:
    """Of rows as `ccx.probe` keeps them, too: nothing is read but what was written."""
    with open_log(tmp_path, key=("first",), settings={"kind": "activations", "layers": ["a"]}) as log:
        for first in (0, 2):
            log.append({"first": first, "stop": first + 2, "samples": ["00ff", "a1"]})
    for name in ("run.json", "rows.jsonl"):
        path = tmp_path / name
        whole = path.read_bytes()
        for bit in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(StoreError, match=rf"{name}.*: "):
                read_run(tmp_path, ("first",))
        path.write_bytes(whole)
    assert len(read_run(tmp_path, ("first",))[1]) == 2


def test_a_run_before_checksums_goes_on_without(tmp_path: Path) -> None:
    fill(tmp_path / "whole")
    unseal(tmp_path / "whole")
    fill(tmp_path / "run", 7)
    unseal(tmp_path / "run")
    fill(tmp_path / "run")
    for name in ("run.json", "rows.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_rows_have_no_checksum_of_their_own(tmp_path: Path) -> None:
    with open_log(tmp_path) as log, pytest.raises(InputError, match="row: expected no field 'checksum'"):
        log.append({**row(0), "checksum": "x"})


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    unseal(tmp_path)
    path = tmp_path / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged, problem in [
        ([lines[0], lines[2], lines[1]], r"line 3: damaged: row \(0, 1\) follows row \(0, 2\)"),
        ([lines[0], lines[0]], r"line 2: damaged: row \(0, 0\) follows row \(0, 0\)"),
        ([lines[0], lines[1][:9] + b"\n", lines[2]], "line 2: damaged: not valid JSON"),
        ([lines[0], b"\n", lines[2]], "line 2: damaged: not valid JSON"),
        ([lines[0], b"\0" * 30 + b"\n", lines[2]], "line 2: damaged: not valid JSON"),
        ([lines[0], b"[]\n"], "line 2: damaged: no integers"),
        ([b'{"unit": 0}\n'], "line 1: damaged: no integers"),
    ]:
        path.write_bytes(b"".join(damaged))
        for opening in (lambda: open_log(tmp_path), lambda: read_run(tmp_path, KEY)):
            with pytest.raises(StoreError, match=problem + r".*; delete the lines from there on"):
                opening()
        assert path.read_bytes() == b"".join(damaged)


def test_another_run_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for options, difference in [
        ({"settings": {**SETTINGS, "beam": 10}}, r"differs in beam \(5 there, 10 here\); choose another folder, or"),
        ({"settings": {"beam": 5, "ranges": None, "top": 2}}, r"length \(3 there, nothing here\), top \(nothing there"),
        ({"hashes": {**HASHES, "activations": "a1"}}, r"differs in content of activations \("),
        ({"version": "2"}, r"differs in version of ccx \(\"1\" there, \"2\" here\)"),
        ({"settings": {"length": 3, "beam": 5}}, r"ranges \(null there, nothing here\)"),
    ]:
        with pytest.raises(StoreError, match=difference):
            open_log(tmp_path, **options)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    open_log(tmp_path, settings=dict(reversed(SETTINGS.items()))).close()  # the order is no setting


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / "run.json").unlink()
    with pytest.raises(StoreError, match=r"has rows\.jsonl but no run\.json"):
        open_log(tmp_path)
    (tmp_path / "run.json").write_text('{"format": "ccx.run/1"}')
    with pytest.raises(StoreError, match="no version"):
        read_run(tmp_path, KEY)
    with pytest.raises(StoreError, match="beam \\(nothing there"):
        open_log(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write to it"):
        open_log(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot read it"):
        read_run(tmp_path / "nowhere", KEY)
    with pytest.raises(InputError, match="settings: expected JSON"):
        open_log(tmp_path / "new", settings={"beam": {5}})
    assert not (tmp_path / "new").exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append(row(0))
        with pytest.raises(StoreError, match="another process writes to it; wait for it, or choose another folder"):
            open_log(tmp_path)
        log.append(row(1))
    fill(tmp_path, 3)
    assert len(read_run(tmp_path, KEY)[1]) == 3


def test_only_a_full_disk_asks_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StoreError, match=r"cannot write to it \(.*\); check the path and its permissions$"):
            open_log(folder)
    with monkeypatch.context() as patch:
        FullDisk(patch, 0, ("open",))
        with pytest.raises(StoreError, match=r"No space left on device\); .* are kept: make room, and run again$"):
            open_log(tmp_path / "run")


@pytest.mark.parametrize("n_good", range(26))
def test_full_disk_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    fill(tmp_path / "whole", 10)
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, n_good, ("pwrite", "fsync", "ftruncate", "open"))
        with suppress(StoreError):
            fill(tmp_path / "run", 10)
            assert disk.n_calls == n_good == 25  # the last case sees no failure: every call has failed once
    kept = tmp_path / "run" / "rows.jsonl"
    whole = (tmp_path / "whole" / "rows.jsonl").read_bytes()
    assert not kept.exists() or whole.startswith(kept.read_bytes())
    fill(tmp_path / "run", 10)
    assert kept.read_bytes() == whole


def test_a_failed_batch_can_be_written_again(tmp_path: Path) -> None:
    fill(tmp_path / "whole", 20)
    whole = (tmp_path / "whole" / "rows.jsonl").read_bytes()
    log = open_log(tmp_path / "run", batch_rows=20)
    for n_bytes in range(0, len(whole) - 100, 97):
        for index in range(len(log), min(len(log) + 4, 19)):
            log.append(row(index))
        with file_size_limit(n_bytes), pytest.raises(StoreError, match="File too large"):
            log.flush()  # always less room than the rows need: some bytes are written
    log.append(row(19), {"seconds": 1})
    log.close()
    assert (tmp_path / "run" / "rows.jsonl").read_bytes() == whole


RUNNER = """
    import sys
    from ccx.store import RowLog
    with RowLog(sys.argv[1], key=("unit", "cluster"), settings={}, hashes={}, version="1", batch_rows=3) as log:
        print(len(log), flush=True)
        for index in range(200):
            if (index // 5, index % 5) not in log:
                log.append({"unit": index // 5, "cluster": index % 5, "text": "x" * (index * 37 % 500)}, {"seconds": 1})
                print(index, flush=True)
"""


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(0)

    def start(folder: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", textwrap.dedent(RUNNER), str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(ccx.__file__).parents[1])

    with start("whole") as child:
        child.communicate()
    assert child.returncode == 0
    n_kills = 0
    for _ in range(200):
        with start("killed") as child:
            assert child.stdout is not None
            n_before = int(child.stdout.readline())
            if n_before < 180:
                for _ in range(rng.randrange(60)):
                    child.stdout.readline()
                time.sleep(rng.uniform(0.0, 0.002))
                child.kill()
            child.stdout.read()  # or a child that goes on would wait for a reader
        n_kills += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
    assert n_kills >= 3
    for name in ("run.json", "rows.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
