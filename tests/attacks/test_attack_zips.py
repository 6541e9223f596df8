"""Hostile zip files: made and mutated."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from ccx.downloading import unpack
from tests.support.fuzzing import attack, attempts, mutated

PLAIN = ("top/a", "top/b/c", "top/d", "top/e/", "x")
ODD = (
    "top/b",
    "top/a/",
    "../x",
    "/x",
    "top//a",
    "top/./a",
    "a\0b",
    "",
    ".",
    "top/é",
    "top/" + "n" * 300,
    "C:/x",
    "top\\a",
)
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def made(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for _ in range(rng.integers(0, 6)):
            names = PLAIN if rng.random() < 0.9 else ODD
            entry = zipfile.ZipInfo(names[rng.integers(len(names))] or "x")
            entry.compress_type = KINDS[rng.integers(len(KINDS))]
            entry.external_attr = int(
                rng.choice([0, 0o100644 << 16, 0o40755 << 16, 0o120777 << 16], p=[0.4, 0.4, 0.15, 0.05])
            )
            archive.writestr(entry, bytes(int(rng.choice([0, 1, 1000, 1 << 20]))))
    return buffer.getvalue()


def attempt(rng: np.random.Generator, folder: Path) -> str:
    content = made(rng)
    if rng.random() < 0.7:
        content = mutated(content, rng)
    path = folder / "archive.zip"
    path.write_bytes(content)
    found = unpack(path)
    assert found.parent == folder
    assert sorted(folder.iterdir()) == sorted([path, found])
    assert unpack(path) == found
    return "unpacked"


def test_no_zip_file_does_harm():
    attack(attempt, attempts(nightly=1_500, quick=60), gib=2).check("refused", "unpacked")
