"""Hostile .npy and .npz files: heads that lie, members that hold something else, kilobytes that say gigabytes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ccx.cli import input_files as files
from ccx.errors import MemoryBudgetError, StoreError
from ccx.store.numpy_files import map_npy
from tests.support.fuzzing import attack, attempts, mutated

KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
DESCRIPTIONS = ("<f4", "|b1", ">i8", "<U3", "|V0", "<U0", "|O", "<f3", "(9999999,)<f8", "<M8[ns]", "S99999999")
SHAPES = ("()", "(0,)", "(2, 3)", "(-1,)", "(1000000000000,)", "(9999999999999999999999,)", "(2,) * 9", "x", "((((")


def npy(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    if rng.random() < 0.5:
        shape = tuple(int(n) for n in rng.integers(0, 5, rng.integers(0, 4)))
        np.save(buffer, np.zeros(shape, rng.choice(["f4", "i8", "?", "U3"])))
        return buffer.getvalue()
    order, text = rng.choice(["True", "False", "None"]), rng.choice(SHAPES)
    head = f"{{'descr': '{rng.choice(DESCRIPTIONS)}', 'fortran_order': {order}, 'shape': {text}}}"
    length = len(head) if rng.random() < 0.8 else int(rng.choice([0, 9, 65_000]))
    version, n_digits = (1, 2) if rng.random() < 0.5 else (int(rng.integers(0, 5)), 4)
    announced = (length if rng.random() < 0.9 else (1 << 8 * n_digits) - 1).to_bytes(n_digits, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + announced + head.encode() + bytes(int(rng.integers(0, 200)))


def attempt(rng: np.random.Generator, folder: Path) -> str:
    if rng.random() < 0.3:
        path, content = folder / "x.npy", npy(rng)
    else:
        path, buffer = folder / "x.npz", io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in rng.choice(["activations.npy", "other.npy", "keys.npy", "a.txt"], rng.integers(0, 4), False):
                archive.writestr(str(name), npy(rng), KINDS[rng.integers(len(KINDS))])
        content = buffer.getvalue()
    path.write_bytes(mutated(content, rng) if rng.random() < 0.5 else content)
    read = files.read_activations if rng.random() < 0.5 else files.read_labels
    read(path)
    return "read"


def test_no_file_of_arrays_does_harm():
    attack(attempt, attempts(nightly=3_000, quick=60), gib=3).check("refused", "read")


def packed(path: Path, content: bytes, n_bytes: int | None = None) -> Path:
    """Write an archive with one array, whose size the directory gives as `n_bytes`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("activations.npy", content)
    if n_bytes is not None:
        content = path.read_bytes()
        for mark, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
            place = content.index(mark) + at
            content = content[:place] + n_bytes.to_bytes(4, "little") + content[place + 4 :]
        path.write_bytes(content)
    return path


def saved(shape: tuple[int, ...], n_zeros: int) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(n_zeros)


def test_a_kilobyte_that_announces_gigabytes_is_refused(tmp_path):
    lies = {
        "its header announces": packed(tmp_path / "a.npz", saved((10**10,), 1000)),
        "cannot have the 4000000000 bytes": packed(tmp_path / "b.npz", saved((4 * 10**9 - 128,), 1000), 4 * 10**9),
    }
    for words, path in lies.items():
        with pytest.raises(StoreError, match=words):
            files.read_array(path, "activations")


def test_a_member_that_ends_before_what_it_announces_is_truncated(tmp_path):
    path = packed(tmp_path / "a.npz", saved((100_000,), 50_000), 128 + 100_000)
    with pytest.raises(StoreError, match=r"cannot be read as an array"):
        files.read_array(path, "activations")


def test_what_inflates_beyond_memory_is_refused_before(tmp_path, monkeypatch):
    path = packed(tmp_path / "a.npz", saved((10**7,), 10**7))
    assert files.read_array(path, "activations").shape == (10**7,)
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 9 * 10**6)
    monkeypatch.setattr("ccx.store.numpy_files.read_exactly", None)
    with pytest.raises(MemoryBudgetError, match=r"a\.npz: activations.*0\.0 GB; save it with numpy\.save"):
        files.read_array(path, "activations")


def test_texts_beyond_memory_are_not_read(tmp_path):
    path = tmp_path / "names.txt"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(MemoryBudgetError, match=r"names\.txt"):
        files.read_names(path)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_honest_arrays_are_read_as_they_are(tmp_path, shape, order, save):
    array = np.asarray(np.random.default_rng(0).random(shape), order=order)
    save(tmp_path / "a.npz", array)
    np.save(tmp_path / "a.npy", array)
    for found in (files.read_array(tmp_path / "a.npz", "activations"), map_npy(tmp_path / "a.npy")):
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, type(found)) == (array.dtype, np.ndarray)
