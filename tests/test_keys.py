"""Samples have identities: who carries keys, what follows them, and what is refused where they differ."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.concepts import FILE_FORMAT
from ccx.datasets import Broden, CocoInstances, Folder, Pairs, token_concepts
from ccx.errors import InputError, StoreError
from ccx.kernels.conversion import as_array
from ccx.keys import Keyed, check_keys, keys_hash, keys_of, require_same_samples, sample_name
from ccx.listing import data_keys, picture_files
from ccx.store import load_arrays, save_arrays
from tests.support.picture_files import photo, png, write, write_broden

KEYS = ("1.png", "2.png", "10.png", "a/1.png", "a/2.png", "b.png")
ARRAY = np.arange(6 * 3 * 2 * 2, dtype=np.float32).reshape(6, 3, 2, 2)
LABELS = np.random.default_rng(0).integers(0, 3, (6, 4, 4))
NAMES = ["sky", "tree"]
PATHS = ["/data/1.png", "/data/2.png", "/data/10.png", "/data/a/1.png", "/data/a/2.png", "/data/b.png"]


def maps(keys: tuple[str, ...] = KEYS) -> ccx.Activations:
    return ccx.Activations(ARRAY[: len(keys)], keys)


def concepts(keys: Any = KEYS) -> ccx.Concepts:
    return ccx.Concepts.from_label_maps(LABELS, NAMES, keys=keys)


# Activations


FOLLOWED: dict[str, Callable[[Any], Any]] = {
    "all": lambda a: a[:],
    "some": lambda a: a[1:4],
    "backwards": lambda a: a[::-1],
    "chosen": lambda a: a[[3, 1]],
    "from the end": lambda a: a[np.array([-1, 0])],
    "twice": lambda a: a[[2, 2]],
    "flags": lambda a: a[np.array([True, False] * 3)],
    "none": lambda a: a[[]],
    "one unit": lambda a: a[:, 1],
    "units": lambda a: a[:, [2, 0]],
    "samples of a unit": lambda a: a[[4, 0], 1],
    "one cell": lambda a: a[..., 0, 1],
    "a new last axis": lambda a: a[..., None],
    "flipped": np.flip,
    "flipped units": lambda a: np.flip(a, 1),
    "another dtype": lambda a: a.astype(np.float64),
}


@pytest.mark.states("Keys of samples", "part of keyed activations", "accepted", "keys follow slices, indices and flags")
@pytest.mark.parametrize("name", FOLLOWED)
def test_keys_follow(name: str) -> None:
    found = FOLLOWED[name](maps())
    assert isinstance(found, ccx.Activations)
    assert len(found.keys) == len(found)
    for key, row in zip(found.keys, np.asarray(found), strict=True):
        assert set(np.ravel(row)) <= set(np.ravel(ARRAY[KEYS.index(key)]))
    if found.size:
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0


DROPPED: dict[str, Callable[[Any], Any]] = {
    "split": lambda a: np.array_split(a, 3)[1],
    "rolled": lambda a: np.roll(a, 1, axis=0),
    "taken": lambda a: np.take(a, [5, 4, 3, 2, 1, 0], axis=0),
    "transposed": lambda a: a.T,
    "swapped": lambda a: a.swapaxes(0, 1),
    "reshaped": lambda a: a.reshape(6, -1),
    "sorted": lambda a: np.sort(a, axis=0),
    "permuted": lambda a: np.random.default_rng(0).permutation(a),
    "pairs of samples and units": lambda a: a[[0, 1], [1, 2]],
    "axes moved to the front": lambda a: a[:, 0, :, [0, 1, 0, 1, 0, 1]],
    "a new first axis": lambda a: a[None],
    "one sample": lambda a: a[2],
    "cells": lambda a: a[a > 3],
    "joined": lambda a: np.concatenate([a, a]),
    "repeated": lambda a: np.repeat(a, 2, axis=0),
    "summed up": np.add.accumulate,
    "mean": lambda a: a.mean(axis=0),
    "two orders": lambda a: a + a[::-1],
    "broadcast": lambda a: a + np.zeros((6, 6, 3, 2, 2)),
    "multiplied": lambda a: np.matmul(a, a),
    "rectified": lambda a: np.maximum(a, 0),  # new arrays, to be changed in place
    "copied": lambda a: a.copy(),
    "an array of them": np.array,
    "a copy of the object": copy.copy,
    "pickled": lambda a: pickle.loads(pickle.dumps(a)),
}


@pytest.mark.parametrize("name", DROPPED)
def test_keys_are_dropped_where_samples_may_move(name: str) -> None:
    assert keys_of(DROPPED[name](maps())) is None


def test_samples_of_keyed_activations_cannot_be_moved_in_place() -> None:
    for move in (lambda a: a.sort(axis=0), np.random.default_rng(0).shuffle, lambda a: np.copyto(a, 0)):
        with pytest.raises(ValueError, match="read-only"):
            move(maps())
    plain = maps().copy()
    plain.sort(axis=0)
    assert ARRAY.flags.writeable  # the caller's own array stays as it was


@given(st.data())
def test_any_index_keeps_the_right_keys_or_none(data: st.DataObject) -> None:
    n, shape = 5, (5, 3, 4)
    array = np.arange(60).reshape(shape)
    keyed = ccx.Activations(array, [f"s{i}" for i in range(n)])
    axis = st.one_of(
        st.integers(-3, 2),
        st.slices(3),
        st.lists(st.integers(-3, 2), max_size=4),
        st.just(None),
        st.just(...),
        st.lists(st.booleans(), min_size=5, max_size=5).map(np.array),
        st.lists(st.booleans(), min_size=3, max_size=3).map(np.array),
    )
    index = data.draw(st.one_of(axis, st.lists(axis, max_size=4).map(tuple)))
    try:
        found = keyed[index]
    except (IndexError, ValueError):
        return
    plain = array[index]
    np.testing.assert_array_equal(np.asarray(found), plain)
    if keys_of(found) is not None:
        assert [f"s{np.ravel(row)[0] // 12}" for row in plain if row.size] == [
            key for key, row in zip(found.keys, plain, strict=True) if row.size
        ]


def test_kernels_get_plain_arrays() -> None:
    np.testing.assert_array_equal(ccx.kernels.upsample(maps(), (4, 4)), ccx.kernels.upsample(ARRAY, (4, 4)))
    assert type(ccx.kernels.upsample(maps(), (2, 2))) is np.ndarray
    assert type(as_array(maps(), "activations")) is np.ndarray


# What users give


@pytest.mark.states(
    "Keys of samples", "keys that are no texts, empty or repeated", "refused", "one distinct text per sample"
)
@pytest.mark.parametrize(
    ("given_keys", "problem"),
    [
        (KEYS[:5], "expected 6 keys, got 5"),
        ("abcdef", "one text per sample, got str 'abcdef'"),
        (6, "one text per sample, got int 6"),
        (range(6), "got int 0 of sample 0"),
        (["", *KEYS[1:]], "got str '' of sample 0"),
        (["2.png", *KEYS[1:]], "distinct keys, got '2.png' twice"),
        (["e\u0301", "\u00e9", *KEYS[2:]], "twice"),
    ],
)
def test_keys_that_are_none(given_keys: Any, problem: str) -> None:
    labels = LABELS.copy()
    makers: list[Callable[[], object]] = [
        lambda: ccx.Activations(ARRAY, given_keys),
        lambda: concepts(given_keys),
        lambda: ccx.Concepts.from_label_maps(iter([labels]), NAMES, keys=given_keys),
        lambda: ccx.Concepts.from_masks(np.ones((1, 6, 2, 2), bool), keys=given_keys),
        lambda: token_concepts(np.ones((6, 3, 2), bool), keys=given_keys),
        lambda: Pairs([(photo(2, 2), np.ones((2, 2), np.uint8))] * 6, NAMES, keys=given_keys),
        lambda: ccx.explain(ARRAY, concepts(None), keys=given_keys),
        lambda: ccx.explain_bitmaps(np.ones((1, 6, 4, 4), bool), concepts(None), keys=given_keys),
    ]
    for make in makers:
        with pytest.raises(InputError, match=f"^keys: .*{problem}"):
            make()
    with pytest.raises(InputError, match="a scalar"):
        ccx.Activations(3.0, ["a"])


def test_keys_are_texts_in_one_form() -> None:
    assert check_keys("keys", np.array(["e\u0301", "b"])) == ("\u00e9", "b")
    assert all(type(key) is str for key in check_keys("keys", np.array(["a", "b"])))
    assert keys_of({"a": 1}) is None  # a mapping's method is no keys
    assert sample_name(None, 3) == "3"
    assert sample_name(KEYS, 3) == "a/1.png"
    assert len({keys_hash(keys) for keys in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], ["\udc80"])}) == 5


# Concepts


def test_concepts_carry_keys(tmp_path: Path) -> None:
    found = concepts()
    assert found.keys == KEYS
    assert found.content_hash == concepts(None).content_hash == concepts(KEYS[::-1]).content_hash
    assert found.subset(samples=[5, 0]).keys == ("b.png", "1.png")
    assert found.subset(samples=[0, 0]).keys == ("1.png", "1.png")
    assert found.subset(["sky"], samples=slice(2)).keys == KEYS[:2]
    assert concepts(None).subset(samples=[5, 0]).keys is None
    found.save(tmp_path / "keyed")
    assert ccx.Concepts.load(tmp_path / "keyed").keys == KEYS
    found.subset(samples=[0, 0]).save(tmp_path / "twice")
    assert ccx.Concepts.load(tmp_path / "twice").keys == ("1.png", "1.png")
    concepts(None).save(tmp_path / "plain")
    assert ccx.Concepts.load(tmp_path / "plain").keys is None


@pytest.mark.states("Keys of samples", "files of concepts of an older ccx", "accepted", "they have no keys")
def test_files_of_concepts_without_keys(tmp_path: Path) -> None:
    concepts().save(tmp_path / "new")
    arrays, metadata = load_arrays(tmp_path / "new", FILE_FORMAT)
    keys = metadata.pop("keys")
    save_arrays(tmp_path / "old", arrays, metadata, FILE_FORMAT)
    assert ccx.Concepts.load(tmp_path / "old").keys is None
    for wrong in (json.dumps(json.loads(keys)[:5]), "[1, 2, 3, 4, 5, 6]", '"abcdef"', "{"):
        save_arrays(tmp_path / "wrong", arrays, {**metadata, "keys": wrong}, FILE_FORMAT)
        with pytest.raises(StoreError, match="its header does not describe concepts"):
            ccx.Concepts.load(tmp_path / "wrong")


def test_tables_of_tokens_name_texts_by_keys(tmp_path: Path) -> None:
    keys = ["doc-b", "doc-a", "empty"]
    table = (["doc-a", "doc-b", "doc-a"], [0, 1, 2], ["noun", "verb", "verb"])
    found = token_concepts(table, keys=keys, n_positions=3)
    numbered = token_concepts(([1, 0, 1], *table[1:]), keys=keys, n_positions=3)
    assert found.keys == numbered.keys == tuple(keys)
    assert found.content_hash == numbered.content_hash
    path = write(tmp_path / "t.csv", "sample,position,concept\ndoc-a,0,noun\ndoc-b,1,verb\ndoc-a,2,verb\n")
    assert token_concepts(path, keys=keys).content_hash == found.content_hash
    path = write(tmp_path / "n.csv", "sample,position,concept\n1,0,noun\n0,1,verb\n1,2,verb\n")
    assert token_concepts(path, keys=keys).content_hash == found.content_hash
    with pytest.raises(InputError, match="'doc-c' in row 1"):
        token_concepts((["doc-a", "doc-c"], [0, 1], ["noun", "verb"]), keys=keys)
    with pytest.raises(InputError, match="samples that are keys or numbers, got both at once"):
        token_concepts((["1", "2"], [0, 1], ["noun", "verb"]), keys=["0", "2", "1"])
    assert token_concepts((["7", "9"], [0, 1], ["noun", "verb"]), keys=["9", "7"]).keys == ("9", "7")
    with pytest.raises(InputError, match="sample"):
        token_concepts(([0, 3], [0, 1], ["noun", "verb"]), keys=keys)


# Data sets


def folder(root: Path, names: tuple[str, ...] = KEYS) -> Folder:
    for number, name in enumerate(names):
        write(root / "images" / name, png(photo(4, 4, number)))
        write(root / "labels" / name, png(LABELS[number].astype(np.uint8)))
    return Folder(root / "images", root / "labels", NAMES)


def test_data_sets_and_their_concepts_carry_keys(tmp_path: Path) -> None:
    data = folder(tmp_path)
    ordered = ("1.png", "2.png", "10.png", "a/1.png", "a/2.png", "b.png")
    assert data.keys == data.images.keys == data_keys(data) == ordered
    assert data.take([5, 0]).keys == data.take([5, 0]).images.keys == ("b.png", "1.png")
    assert data.with_colors().take([1]).keys == ("2.png",)
    found = data.concepts(workers=1, progress=False)
    assert found.keys == ordered
    kept = data.concepts(workers=1, progress=False, out=tmp_path / "c")
    assert kept.keys == ccx.Concepts.load(tmp_path / "c").keys == ordered


def test_a_kept_file_of_concepts_is_of_these_keys_in_this_order(tmp_path: Path) -> None:
    data = folder(tmp_path)
    out = tmp_path / "c"
    data.concepts(workers=1, progress=False, out=out)
    with pytest.raises(StoreError, match="was made from something else: files"):
        data.take([1, 0, 2, 3, 4, 5]).concepts(workers=1, progress=False, out=out)
    arrays, metadata = load_arrays(out, FILE_FORMAT)
    save_arrays(out, arrays, {name: text for name, text in metadata.items() if name != "keys"}, FILE_FORMAT)
    assert data.concepts(workers=1, progress=False, out=out).keys == data.keys  # made before files had keys
    pairs = [(photo(4, 4), LABELS[0].astype(np.uint8))] * 2
    Pairs(pairs, NAMES, keys=["a", "b"]).concepts((4, 4), workers=1, progress=False, out=tmp_path / "p")
    with pytest.raises(StoreError, match="other keys"):
        Pairs(pairs, NAMES, keys=["b", "a"]).concepts((4, 4), workers=1, progress=False, out=tmp_path / "p")
    assert Pairs(pairs, NAMES).concepts((4, 4), workers=1, progress=False, out=tmp_path / "p").keys == ("a", "b")


class Listed:
    """A data set that lists its files, as those of torchvision do."""

    def __init__(self, **lists: Any) -> None:
        self.__dict__.update(lists)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return photo(4, 4, index), LABELS[index].astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (PATHS, KEYS),
        (Listed(images=PATHS), KEYS),
        (Listed(images=PATHS, masks=[path.replace("data", "masks") for path in PATHS]), KEYS),
        (Listed(samples=[(path, 0) for path in PATHS], root="/data"), KEYS),
        (Listed(samples=[(f"/data/x{path}", 0) for path in PATHS], root="/data/"), tuple(f"x/data/{k}" for k in KEYS)),
        (Listed(keys=KEYS), KEYS),
        (Listed(dataset=PATHS, indices=[5, 4, 3, 2, 1, 0]), KEYS[::-1]),
        (
            Listed(dataset=Listed(dataset=PATHS, indices=range(6)), indices=[0, 0, 1, 1, 2, 2]),
            tuple(np.repeat(KEYS[:3], 2)),
        ),
        (Listed(dataset=PATHS, indices=np.arange(6)), KEYS),
        (Listed(images=PATHS[:5]), None),
        (Listed(images=[photo(2, 2)] * 6), None),
        (Listed(keys=lambda: KEYS), None),
        (Listed(samples=list(range(6))), None),
        (Listed(), None),
        ([(photo(2, 2), 1)] * 6, None),
    ],
)
def test_keys_as_data_sets_tell_them(data: Any, keys: tuple[str, ...] | None) -> None:
    assert data_keys(data) == keys
    if isinstance(data, Listed):
        assert Pairs(data, NAMES).keys == keys


# Comparison


@pytest.mark.states(
    "Keys of samples", "the same samples in another order", "refused", "ccx.align(activations, concepts)"
)
@pytest.mark.states("Keys of samples", "more or fewer samples", "refused", "ccx.align(..., intersect=True)")
@pytest.mark.parametrize(
    ("keys", "got", "remedy"),
    [
        ((*KEYS[:1], *KEYS[:0:-1]), "'b.png' there, all 6 in another order", "ccx.align(activations, concepts)"),
        ((*KEYS, "c.png"), "'c.png' there, all of the concepts and others", "ccx.align(activations, concepts, inter"),
        (KEYS[:4], "nothing there, only 4 of 6", "concepts = ccx.align(concepts, activations, intersect=True)"),
        ((*KEYS[:5], "x"), "'x' there, 5 of them in both", "keep those: activations = ccx.align"),
        (tuple("uvwxyz"), "'u' there, none of them in both", "name them alike"),
        (("1.png", "2.png", "2.jpg", "a/1.png", "a/2.png", "b.png"), "'2.jpg' there, 5 of them", "keep those"),
    ],
)
def test_samples_that_differ(keys: tuple[str, ...], got: str, remedy: str) -> None:
    place = next(i for i, (a, b) in enumerate(zip([*keys, ""], [*KEYS, ""], strict=False)) if a != b)
    given_maps = ccx.Activations(np.zeros((len(keys), 3, 2, 2), np.float32), keys)
    for call in (
        lambda: ccx.explain(given_maps, concepts(), progress=False),
        lambda: ccx.explain(np.asarray(given_maps), concepts(), keys=keys, progress=False),
        lambda: ccx.metrics.measure([], given_maps, concepts()),
    ):
        with pytest.raises(InputError) as caught:
            call()
        there = repr(KEYS[place]) if place < 6 else "nothing"
        assert str(caught.value).startswith(
            f"activations: expected the samples of the concepts, with {there} at position"
        )
        assert f"at position {place}, got {got}" in str(caught.value)
        assert remedy in str(caught.value)


@pytest.mark.states(
    "Keys of samples", "the same names with other suffixes", "accepted", "1.png and 1.jpg are one sample"
)
def test_suffixes_are_not_compared_where_names_are_distinct_without() -> None:
    def same(own: list[str], wanted: list[str]) -> bool:
        try:
            require_same_samples("a", Keyed([], own), Keyed([], wanted))
        except InputError:
            return False
        return True

    assert same(["1.png", "a/2.PNG"], ["1.jpg", "a/2.jpeg"])
    assert same(["1", "2.png"], ["1.png", "2"])
    assert not same(["1.png", "2.png"], ["2.jpg", "1.jpg"])
    assert not same(["1.png", "1.jpg"], ["1.jpg", "1.png"])
    assert not same(["p.1", "q.2"], ["p.2", "q.1"])  # no suffixes of files
    assert not same(["a/.png", "b"], ["a/.jpg", "b"])
    assert not same(["a.png/1", "b"], ["a.jpg/1", "b"])
    assert same(["1.png", "1.png", "2.png"], ["1.jpg", "1.jpg", "2.jpg"])  # a sample that is there twice
    assert not same(["1.png", "1.png", "2.png"], ["1.jpg", "2.jpg", "2.jpg"])


@pytest.mark.states("Keys of samples", "arrays without keys", "accepted", "paired by position")
def test_without_keys_on_one_side_samples_are_paired_by_position() -> None:
    expected = ccx.explain(ARRAY, concepts(None), progress=False)
    for given_maps, keys, own in (
        (ARRAY, None, KEYS), (maps(), None, None), (maps(), None, KEYS), (ARRAY, KEYS, None), (ARRAY, KEYS, KEYS),
        (maps(), KEYS, KEYS),
    ):  # fmt: skip
        assert ccx.explain(given_maps, concepts(own), keys=keys, progress=False) == expected
    with pytest.raises(InputError, match="keys: expected none beside activations that carry their own"):
        ccx.explain(maps(), concepts(None), keys=KEYS[::-1], progress=False)


def test_bitmaps_have_their_samples_along_axis_1() -> None:
    bitmaps = np.asarray(maps())[:, 0].repeat(2, 1).repeat(2, 2)[None] > 20
    plain = ccx.explain_bitmaps(bitmaps, concepts(), progress=False)
    assert ccx.explain_bitmaps(bitmaps, concepts(), keys=KEYS, progress=False) == plain
    with pytest.raises(InputError, match=r"bitmaps: expected the samples of the concepts.*another order"):
        ccx.explain_bitmaps(bitmaps, concepts(), keys=KEYS[::-1], progress=False)
    six = ccx.Activations(np.ones((6, 6, 4, 4), bool), KEYS)
    for call in (
        lambda: ccx.explain_bitmaps(six, concepts(), progress=False),
        lambda: ccx.metrics.measure(plain, six, concepts()),
    ):
        with pytest.raises(InputError, match=r"\[M, N, ...\], with samples along axis 1, got .*swapaxes\(0, 1\)"):
            call()


def test_flags_of_positions_to_leave_out_are_compared() -> None:
    flags = np.zeros((6, 2, 2), bool)
    flags[3] = True
    keyed = ccx.Activations(flags, KEYS)
    plain = ccx.explain(maps(), concepts(), exclude=flags, progress=False)
    assert ccx.explain(maps(), concepts(), exclude=keyed, progress=False) == plain
    assert concepts().excluding(keyed).keys == KEYS
    for call in (
        lambda: ccx.explain(maps(), concepts(), exclude=keyed[::-1], progress=False),
        lambda: concepts().excluding(keyed[::-1]),
    ):
        with pytest.raises(InputError, match=r"exclude: expected the samples of the concepts.*another order"):
            call()


def test_a_run_folder_is_of_its_samples(tmp_path: Path) -> None:
    found = ccx.explain(maps(), concepts(), progress=False, out=tmp_path / "run")
    assert ccx.explain(ARRAY, concepts(), progress=False, out=tmp_path / "run") == found
    others = tuple(f"other {key}" for key in KEYS)
    with pytest.raises(StoreError, match="differs in content of samples"):
        ccx.explain(maps(others), concepts(others), progress=False, out=tmp_path / "run")
    plain = ccx.explain(ARRAY, concepts(None), progress=False, out=tmp_path / "plain")
    assert "samples" not in json.loads((tmp_path / "plain" / "run.json").read_text())["hashes"]
    assert plain == found


# Alignment


ORDER = [3, 0, 5, 1, 4, 2]
SHUFFLED = tuple(KEYS[i] for i in ORDER)


def test_align_reorders_whatever_has_keys(tmp_path: Path) -> None:
    from scipy import sparse

    shuffled = ccx.Activations(ARRAY[ORDER], SHUFFLED)
    for found in (
        ccx.align(shuffled, concepts()),
        ccx.align(shuffled, list(KEYS)),
        ccx.align(ARRAY[ORDER], concepts(), keys=SHUFFLED),
        ccx.align({"layer": shuffled}, concepts())["layer"],
        ccx.align(maps(), concepts()),
    ):
        assert found.keys == KEYS
        np.testing.assert_array_equal(found, ARRAY)
    rows = sparse.csr_array(ARRAY[ORDER].transpose(0, 2, 3, 1).reshape(24, 3))
    np.testing.assert_array_equal(
        ccx.align(rows, concepts(), keys=SHUFFLED).toarray(), ARRAY.transpose(0, 2, 3, 1).reshape(24, 3)
    )
    turned = ccx.align(concepts(), shuffled)
    assert turned.keys == SHUFFLED
    assert turned.content_hash == ccx.Concepts.from_label_maps(LABELS[ORDER], NAMES).content_hash
    data = folder(tmp_path)
    assert ccx.align(data, shuffled).keys == ccx.align(data.images, shuffled).keys == SHUFFLED
    assert ccx.align(list("abcdef"), list(SHUFFLED), keys=KEYS) == [list("abcdef")[i] for i in ORDER]
    assert ccx.align(Keyed("abcdef", KEYS), list(SHUFFLED)).keys == SHUFFLED
    renamed = ccx.align(shuffled, [key.replace("png", "jpg") for key in KEYS])
    assert renamed.keys[0] == "1.jpg"
    np.testing.assert_array_equal(renamed, ARRAY)


@pytest.mark.needs("torch")
def test_align_reorders_tensors() -> None:
    import torch

    found = ccx.align(torch.from_numpy(ARRAY[ORDER]), concepts(), keys=SHUFFLED)
    np.testing.assert_array_equal(found.numpy(), ARRAY)


def test_align_leaves_samples_out_only_when_asked() -> None:
    more = (*KEYS[::-1], "new.png")
    given_maps = ccx.Activations(np.concatenate([ARRAY[::-1], ARRAY[:1]]), more)
    with pytest.raises(InputError, match="expected the 6 samples of `to`, got 7, of which 6 are among them; intersect"):
        ccx.align(given_maps, concepts())
    found = ccx.align(given_maps, concepts(), intersect=True)
    assert found.keys == KEYS
    np.testing.assert_array_equal(found, ARRAY)
    few = ccx.align(given_maps[2:], concepts(), intersect=True)
    assert few.keys == KEYS[:4]
    assert ccx.align(concepts(), few, intersect=True).keys == KEYS[:4]
    with pytest.raises(InputError, match="got 7, of which 0 are among them; give keys that name the samples alike"):
        ccx.align(given_maps, ["x", "y"], intersect=True)


NAMED = st.lists(st.sampled_from(["1.png", "1.jpg", "2.png", "2.jpg", "a/1.png", "b", "c.5", "c.6"]), unique=True)


@given(NAMED, NAMED)
def test_what_is_the_same_is_accepted_and_what_is_shared_is_aligned(own: list[str], wanted: list[str]) -> None:
    array = ccx.Activations(np.arange(len(own)), own)
    stems = [[key.removesuffix(".png").removesuffix(".jpg") for key in keys] for keys in (own, wanted)]
    is_clear = all(len(set(one)) == len(one) for one in stems)
    first, second = stems if is_clear else (own, wanted)
    try:
        require_same_samples("a", array, Keyed(wanted, wanted))
        is_same = True
    except InputError:
        is_same = False
    assert is_same == (first == second)
    shared = [first.index(key) for key in second if key in first]
    for intersect, is_possible in ((True, bool(shared)), (False, bool(shared) and set(first) == set(second))):
        if is_possible:
            found = ccx.align(array, wanted, intersect=intersect)
            assert found.tolist() == shared
            assert list(found.keys) == [key for key, one in zip(wanted, second, strict=True) if one in first]
        else:
            with pytest.raises(InputError):
                ccx.align(array, wanted, intersect=intersect)


def test_align_refuses_what_is_unclear() -> None:
    for samples, to, options, problem in (
        (ARRAY, concepts(), {}, "samples: expected samples with keys, got ndarray; pass keys="),
        (maps(), concepts(None), {}, "to: expected samples with keys, got Concepts"),
        (maps(), {"a": 1}, {}, "to: expected samples with keys, got dict"),
        (maps()[[0, 0, 1]], concepts(), {}, "samples: expected distinct keys, got '1' twice"),
        (maps(), concepts().subset(samples=[0, 0]), {"intersect": True}, "to: expected distinct keys"),
        (ARRAY[:5], concepts(), {"keys": KEYS}, "keys: expected one of each of 5 rows, got 6"),
        (["a"], concepts(), {"keys": KEYS}, "keys: expected one of each of 1 rows, got 6"),
        (ARRAY, concepts(), {"keys": 3}, "keys: expected one text per sample"),
    ):
        with pytest.raises(InputError, match="^" + problem.replace("(", r"\(")):
            ccx.align(samples, to, **options)


def written(root: Path, kind: str) -> Any:
    """Return a data set of a kind, whose images lie below ``images``, in an order of its own."""
    if kind == "broden":
        rows = "".join(f"{name},train,4,4,2,2,,,,1,,\n" for name in ("b/10.png", "./b/9.png", "a//1.png"))
        write_broden(root, rows, {}, side=4)
        return Broden(root)
    names = ("b/10.png", "b/9.png", "a/1.png")
    for seed, name in enumerate(names):
        write(root / "images" / name, png(photo(4, 4, seed)))
        write(root / "labels" / name, png(np.ones((4, 4), np.uint8)))
    if kind == "pairs":
        return Pairs(Listed3([root / "images" / name for name in names]), ["x"])
    if kind == "folder":
        return Folder(root / "images", root / "labels", ["x"], only=[name.removesuffix(".png") for name in names])
    instances = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3]], "iscrowd": 0} for i in range(3)
    ]
    images = [{"id": i, "file_name": name, "height": 4, "width": 4} for i, name in enumerate(names)]
    content = {"images": images, "annotations": instances, "categories": [{"id": 1, "name": "x"}]}
    return CocoInstances(root / "images", write(root / "instances.json", json.dumps(content)))


class Listed3:
    def __init__(self, images: list[Path]) -> None:
        self.images = images

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return photo(4, 4, index), np.ones((4, 4), np.uint8)


@pytest.mark.parametrize("kind", ["broden", "folder", "pairs", pytest.param("coco", marks=pytest.mark.needs("coco"))])
def test_data_sets_and_their_folder_of_images_agree(tmp_path: Path, kind: str) -> None:
    """Each kind has an order of its own, and the keys that a listing of the folder of images has."""
    data = written(tmp_path, kind)
    assert data.keys == ("b/10.png", "b/9.png", "a/1.png")
    assert picture_files(tmp_path / "images").keys == ("a/1.png", "b/9.png", "b/10.png")
    annotations = data.concepts((2, 2), workers=1, progress=False)
    files = picture_files(tmp_path / "images")
    with pytest.raises(InputError, match=r"'b/10.png' at position 0, got 'a/1.png' there, all 3 in another order"):
        require_same_samples("images", files, annotations)
    aligned = ccx.align(files, annotations)
    assert aligned == [tmp_path / "images" / key for key in data.keys]
    require_same_samples("images", aligned, annotations)
