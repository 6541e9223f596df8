"""Kills at random moments, and several processes at once: nothing is lost, and all bytes are those of a calm run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.fuzzing import attempts

ROOT = Path(__file__).parents[2]


def counts_of(*command: object) -> dict[str, int]:
    """Run a program of tests/support, and return what it counted."""
    words = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(*command[::2], done.stdout)  # noqa: T201 - shown by pytest -s, for the record
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    "work",
    [
        "explain",
        "concepts",
        pytest.param("probe", marks=pytest.mark.needs("torch")),
        pytest.param("run", marks=pytest.mark.needs("torch")),
    ],
)
def test_killed_at_random_moments(tmp_path: Path, work: str) -> None:
    n = attempts(nightly=100, quick=4)
    found = counts_of("tests.support.kills", tmp_path, work, "at-random", n)
    assert found["kills"] >= n
    assert found["finished"] >= 1


@pytest.mark.needs("torch")
def test_a_probe_killed_at_every_call_of_the_system(tmp_path: Path) -> None:
    assert counts_of("tests.support.kills", tmp_path, "probe", "at-every-call", 0)["kills"] >= 20


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that are killed are part of the test


def test_races_to_one_folder_end_complete(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "data.zip", "w") as archive:
        for number in range(200):
            archive.writestr(f"top/{number}", bytes([number]) * 5_000)
    n = attempts(nightly=50, quick=4)
    with _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found = counts_of("tests.support.races", f"http://127.0.0.1:{server.server_port}/data.zip", tmp_path, n)
        server.shutdown()
    assert found["races"] == n
