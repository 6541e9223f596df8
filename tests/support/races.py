"""A program for tests: several processes at once download and unpack one archive into one folder.

``python -m tests.support.races URL FOLDER N`` prints JSON: the number of races, of processes that were refused because
another one was at work, and of those that were killed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from ccx.downloading import download, unpack
from ccx.errors import StoreError
from tests.support.kills import died_of, forked


def fetch(url: str, folder: Path, n_refused: Path) -> None:
    while True:
        try:
            archive = download(url, folder / "data.zip", wait=0.0)
            break
        except StoreError as error:
            if "another process downloads this file" not in str(error):
                raise
            with n_refused.open("ab") as file:
                file.write(b".")
            time.sleep(0.002)
    unpack(archive)


def main(url: str, root: Path, n: int) -> None:
    rng, n_refused, n_killed = random.Random(0), root / "refused", 0
    n_refused.touch()
    for race in range(n):
        folder = root / "race"
        folder.mkdir()
        runners = [forked(lambda folder=folder: fetch(url, folder, n_refused)) for _ in range(2 + race % 2)]
        if race % 3 == 2:
            time.sleep(rng.uniform(0, 0.03))
            os.kill(runners[0], signal.SIGKILL)
        n_killed += sum(died_of(pid) == signal.SIGKILL for pid in runners)
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert found == sorted(["data.zip", "data.zip.sha256", *(f"top/{i}" for i in range(200))]), found
        assert all((folder / "top" / str(i)).read_bytes() == bytes([i]) * 5_000 for i in range(200))
        assert sorted(path.name for path in folder.iterdir()) == ["data.zip", "data.zip.sha256", "top"]
        shutil.rmtree(folder)
    counts = {"races": n, "refused": len(n_refused.read_bytes()), "killed": n_killed}
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
