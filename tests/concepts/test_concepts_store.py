"""Concepts on disk, their content hash, and `validate`, which finds every kind of damage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ccx
from ccx import Concepts
from ccx.concepts import FILE_FORMAT
from ccx.errors import InputError, StoreError
from ccx.kernels import Atoms
from ccx.store import load_arrays, save_arrays
from tests.support.full_disk import FullDisk

NAMES = ["sky", "tree", "Straße", "a OR b"]
CATEGORIES = ["scene", "object", "object", "color"]


def annotations() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    rng = np.random.default_rng(7)
    labels = np.where(rng.random((5, 2, 6, 11)) < 0.6, rng.integers(0, 5, (5, 2, 6, 11)), 0)
    labels[3] = 2  # a sample of one atom
    valid = rng.random((5, 6, 11)) < 0.9
    valid[4] = False
    return labels, valid


def build(**changes: Any) -> Concepts:
    labels, valid = annotations()
    arguments = {"labels": labels, "names": NAMES, "categories": CATEGORIES, "valid": valid, **changes}
    return Concepts.from_label_maps(**arguments)


# Files ---------------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    concepts = build()
    path = tmp_path / "concepts.ccx"
    concepts.save(path)
    loaded = Concepts.load(path)
    assert (loaded.names, loaded.categories, loaded.shape) == (tuple(NAMES), tuple(CATEGORIES), (6, 11))
    for field in dataclasses.fields(Atoms):
        one, other = getattr(concepts.atoms, field.name), getattr(loaded.atoms, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(other, one, strict=True)
            assert not other.flags.writeable
            assert not other.flags.owndata
        else:
            assert one == other
    loaded.validate()
    assert loaded.content_hash == concepts.content_hash
    assert repr(loaded) == repr(concepts)
    bitmaps = loaded.mask("(sky OR tree)")[None]
    assert ccx.explain_bitmaps(bitmaps, loaded) == ccx.explain_bitmaps(bitmaps, concepts)
    assert loaded.subset(categories=["object"]).content_hash == concepts.subset(NAMES[1:3]).content_hash
    np.testing.assert_array_equal(loaded.packed_rows().rows, concepts.packed_rows().rows)


def test_saving_is_deterministic_and_loaded_concepts_can_be_saved(tmp_path: Path) -> None:
    build().save(tmp_path / "one")
    build(threads=1).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded = Concepts.load(tmp_path / "one")
    loaded.save(tmp_path / "one")  # over the file that is mapped
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded.validate()


def test_without_categories(tmp_path: Path) -> None:
    build(categories=None).save(tmp_path / "concepts")
    assert Concepts.load(tmp_path / "concepts").categories is None


def test_loading_without_verification_reads_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concepts = build()
    concepts.save(tmp_path / "concepts")
    monkeypatch.setattr("ccx.concepts.concepts.content_hash", lambda _: pytest.fail("read everything"))
    assert Concepts.load(tmp_path / "concepts", verify=False).content_hash == concepts.content_hash


def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "concepts"
    build().save(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for end in (0, 1, 7, 8, 100, header - 1, header, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(StoreError, match=str(path)):
            Concepts.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StoreError, match="damaged"):
        Concepts.load(path)
    for at in range(0, header, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StoreError):
            Concepts.load(path)


def test_damaged_data_are_found_on_loading(tmp_path: Path) -> None:
    path = tmp_path / "concepts"
    build().save(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in range(header, len(whole), 13):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=r"damaged: it"):
            Concepts.load(path)
        with pytest.raises((StoreError, InputError), match=r"it should hold|concepts: expected .*; (rebuild|restore)"):
            Concepts.load(path, verify=False).validate()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b'{"format": "ccx.run/1"}', b"\x93NUMPY\x01\x00" + b" " * 200])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(StoreError, match="file"):
        Concepts.load(tmp_path / "file")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(StoreError, match="cannot read it"):
            Concepts.load(path)
    with pytest.raises(StoreError, match="cannot write it"):
        build().save(tmp_path / "missing" / "concepts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"names": None},
        {"names": json.dumps(NAMES[:3])},
        {"names": json.dumps([1, 2, 3, 4])},
        {"names": json.dumps(["sky"] * 4)},
        {"names": "no json"},
        {"names": "null"},
        {"categories": None},
        {"categories": json.dumps(["scene"])},
        {"shape": None},
        {"shape": "[6]"},
        {"shape": '"611"'},
        {"content_hash": None},
        {"array": None},
        {"format": "ccx-concepts/2"},
        {"format": "elsewhere/1"},
    ],
)
def test_files_that_do_not_describe_concepts(tmp_path: Path, change: dict[str, str | None]) -> None:
    path = tmp_path / "concepts"
    build().save(path)
    arrays, metadata = load_arrays(path, FILE_FORMAT)
    ((key, value),) = change.items()
    if key == "array":
        del arrays["atom_starts"]
    elif value is None:
        del metadata[key]
    elif key != "format":
        metadata[key] = value
    save_arrays(path, arrays, metadata, value if key == "format" and value else FILE_FORMAT)
    with pytest.raises(StoreError, match=str(path)):
        Concepts.load(path)


@pytest.mark.parametrize("n_good", range(3))
def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    path = tmp_path / "concepts"
    build().save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        FullDisk(patch, n_good, ("fsync", "ftruncate", "open"))
        with pytest.raises(StoreError, match="No space left on device"):
            build(names=["other", *NAMES[1:]]).save(path)
    assert path.read_bytes() == before
    build(names=["other", *NAMES[1:]]).save(path)
    assert Concepts.load(path).names[0] == "other"
    assert list(tmp_path.iterdir()) == [path]


# Content hash --------------------------------------------------------------------------------------------------------


def test_anything_that_differs_changes_the_hash() -> None:
    labels, valid = annotations()
    one_label, one_void = labels.copy(), valid.copy()
    one_label[0, 0, 0, 0] = 1 + labels[0, 0, 0, 0] % 4
    one_void[0, 0, 0] = ~valid[0, 0, 0]
    valid[0, 0, 0] = one_label[0, 0, 0, 0] != 0
    variants = {
        "as it is": {},
        "a name": {"names": ["Sky", *NAMES[1:]]},
        "order of names": {"names": NAMES[::-1]},
        "a category": {"categories": [*CATEGORIES[:3], "colour"]},
        "no categories": {"categories": None},
        "one label": {"labels": one_label, "valid": np.ones_like(valid)},
        "all valid": {"valid": np.ones_like(valid)},
        "one void cell": {"valid": one_void},
        "order of samples": {"labels": labels[::-1], "valid": valid[::-1]},
        "fewer samples": {"labels": labels[:4], "valid": valid[:4]},
        "another grid": {"labels": labels.reshape(5, 2, 11, 6), "valid": valid.reshape(5, 11, 6)},
        "another concept, which is absent": {"names": [*NAMES, "new"], "categories": [*CATEGORIES, "new"]},
    }
    hashes = {name: build(**changes).content_hash for name, changes in variants.items()}
    assert len(set(hashes.values())) == len(hashes), hashes
    assert all(len(found) == 32 for found in hashes.values())


def test_layers_and_their_order_are_no_content() -> None:
    labels, _ = annotations()
    twice = np.concatenate([labels, labels[:, ::-1], np.zeros_like(labels)], axis=1)
    assert build(labels=twice).content_hash == build().content_hash


def test_the_hash_does_not_change_between_versions() -> None:
    """Files and run folders are recognised by it: change FILE_FORMAT if this value must change."""
    concepts = Concepts.from_label_maps(np.array([[[1, 0, 2], [2, 2, 1]]]), ["a", "b"])
    assert concepts.content_hash == "8041540635861a61726c985c61cc2fad"


# Invariants ----------------------------------------------------------------------------------------------------------


def swapped(array: NDArray[Any], i: int, j: int) -> NDArray[Any]:
    array[[i, j]] = array[[j, i]]
    return array


def changed(array: NDArray[Any], at: Any, value: Any) -> NDArray[Any]:
    array[at] = value
    return array


def two_concepts(atoms: Atoms) -> int:
    """Return where an atom of two concepts starts in `atom_concepts`."""
    return int(atoms.atom_starts[np.flatnonzero(np.diff(atoms.atom_starts) == 2)[0]])


def one_concept(atoms: Atoms) -> tuple[int, int]:
    """Return where two atoms of one concept each start in `atom_concepts`."""
    first, second = atoms.atom_starts[np.flatnonzero(np.diff(atoms.atom_starts) == 1)[:2]]
    return int(first), int(second)


WRAPS = (2**63 - 1, -(2**63))  # their difference, too, is positive in 64 bits

CORRUPTIONS: list[tuple[str, str, Callable[[NDArray[Any], Atoms], Any]]] = [
    ("the documented dtypes and axes", "cells", lambda a, _: a.astype(np.float64)),
    ("the documented dtypes and axes", "cell_atoms", lambda a, _: a.astype(np.int64)),
    (r"a cell map of \[N, 66\]", "cell_atoms", lambda a, _: a[:, 1:]),
    ("the documented dtypes and axes", "cell_atoms", lambda a, _: a[..., None]),
    ("the documented dtypes and axes", "sample_atoms", lambda a, _: a[:, None]),
    (
        "one run of entries per sample, in order",
        "sample_starts",
        lambda a, _: changed(a, slice(2, 4), WRAPS),
    ),
    (
        "one run of concepts per atom, in order",
        "atom_starts",
        lambda a, _: changed(a, slice(2, 4), WRAPS),
    ),
    ("entries of 1 to 66 cells", "sample_cells", lambda a, _: changed(a, 1, 0)),
    ("entries of 1 to 66 cells", "sample_cells", lambda a, _: changed(a, 1, 67)),
    ("atoms of as many cells as there are", "cells", lambda a, _: changed(a, 1, -1)),
    ("atoms of as many cells as there are", "cells", lambda a, _: changed(a, 1, 2**62)),
    ("one run of entries per sample, in order", "sample_starts", lambda a, _: a[:-1]),
    ("one run of entries per sample, in order", "sample_starts", lambda a, _: changed(a, 0, 1)),
    ("one run of entries per sample, in order", "sample_starts", lambda a, _: swapped(a, 1, 2)),
    ("one run of entries per sample, in order", "sample_starts", lambda a, _: changed(a, -1, a[-1] + 1)),
    ("one run of entries per sample, in order", "sample_cells", lambda a, _: a[:-1]),
    ("one run of entries per sample, in order", "cell_atoms", lambda a, _: a[:-1]),
    ("one run of concepts per atom, in order", "atom_starts", lambda a, _: a[:-1]),
    ("one run of concepts per atom, in order", "atom_starts", lambda a, _: changed(a, 0, 1)),
    ("one run of concepts per atom, in order", "atom_starts", lambda a, _: changed(a, 2, a[3] + 1)),
    ("one run of concepts per atom, in order", "atom_concepts", lambda a, _: a[:-1]),
    ("one run of concepts per atom, in order", "cells", lambda a, _: a[:-1]),
    ("concepts below 4", "atom_concepts", lambda a, _: changed(a, 1, 4)),
    ("entries of existing atoms", "sample_atoms", lambda a, t: changed(a, 1, t.n_atoms)),
    ("entries of existing atoms", "sample_atoms", lambda a, _: changed(a, 1, -1)),
    ("entries of distinct atoms in each sample", "sample_atoms", lambda a, _: changed(a, 1, a[0])),
    ("atoms numbered in the order in which samples meet them", "sample_atoms", lambda a, _: swapped(a, 0, 1)),
    (
        "concepts that ascend within each atom",
        "atom_concepts",
        lambda a, t: swapped(a, two_concepts(t), two_concepts(t) + 1),
    ),
    (
        "concepts that ascend within each atom",
        "atom_concepts",
        lambda a, t: changed(a, two_concepts(t) + 1, a[two_concepts(t)]),
    ),
    (
        "atoms of distinct concept sets",
        "atom_concepts",
        lambda a, t: changed(a, one_concept(t)[0], a[one_concept(t)[1]]),
    ),
    ("entries' cells that add up to the atoms'", "cells", lambda a, _: changed(a, 2, a[2] + 1)),
    ("entries' cells that add up to the atoms'", "sample_cells", lambda a, _: changed(a, 0, a[0] - 1)),
    ("a cell map that agrees with the entries", "cell_atoms", lambda a, _: changed(a, (0, -1), (a[0, -1] + 1) % 3)),
    ("cells of atoms that their sample has", "cell_atoms", lambda a, _: changed(a, (3, 2), 60_000)),
    ("cells of atoms that their sample has", "cell_atoms", lambda a, _: changed(a, (4, 2), 1)),  # a void cell
    ("cells of atoms that their sample has", "cell_atoms", lambda a, _: np.where(a > 0, a, a.max())),
]


@pytest.mark.parametrize(("invariant", "name", "corrupt"), CORRUPTIONS)
def test_validate_names_the_invariant(invariant: str, name: str, corrupt: Callable[[NDArray[Any], Atoms], Any]) -> None:
    good = build()
    good.validate()
    array = corrupt(getattr(good.atoms, name).copy(), good.atoms)
    with pytest.raises(InputError, match=f"concepts: expected .*{invariant}, got the contrary; rebuild the concepts"):
        Concepts(dataclasses.replace(good.atoms, **{name: array}), NAMES, CATEGORIES).validate()


def test_validate_sees_cells_that_change_places() -> None:
    """Two local atoms of equally many cells: only the order in which cells meet them tells."""
    atoms = Concepts.from_label_maps(np.array([[[1, 2, 2, 1, 0]]]), ["a", "b"]).atoms
    exchanged = dataclasses.replace(atoms, cell_atoms=np.array([[1, 0, 0, 1, 2]], np.uint16))
    with pytest.raises(InputError, match="a cell map that agrees with the entries"):
        Concepts(exchanged, ["a", "b"]).validate()


def test_validate_compares_the_stored_hash(tmp_path: Path) -> None:
    build().save(tmp_path / "one")
    arrays, metadata = load_arrays(tmp_path / "one", FILE_FORMAT)
    metadata["names"] = json.dumps(["Sky", *NAMES[1:]])
    save_arrays(tmp_path / "two", arrays, metadata, FILE_FORMAT)
    loaded = Concepts.load(tmp_path / "two", verify=False)
    with pytest.raises(InputError, match=r"concepts: expected the stored content hash, got .*, stored was .*; restore"):
        loaded.validate()


def test_data_that_would_lead_kernels_astray_are_refused_on_loading(tmp_path):
    masks = np.random.default_rng(0).random((3, 4, 5, 6)) < 0.5
    concepts = ccx.Concepts.from_masks(masks)
    path = tmp_path / "concepts.ccx"
    concepts.save(path)
    arrays, metadata = load_arrays(path, FILE_FORMAT)
    for name, value in (("cell_atoms", 60_000), ("sample_atoms", 10_000), ("atom_concepts", 7), ("sample_starts", -3)):
        damaged = {key: array.copy() for key, array in arrays.items()}
        damaged[name].flat[-1] = value
        save_arrays(path, damaged, metadata, FILE_FORMAT)
        with pytest.raises(StoreError, match="damaged: it should hold"):
            ccx.Concepts.load(path)
