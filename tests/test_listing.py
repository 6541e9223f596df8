"""The one order of the pictures in a folder: who lists one sees the same samples."""

from __future__ import annotations

import os
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.datasets import Folder
from ccx.errors import StoreError
from ccx.listing import natural_order, picture_files, relative_keys
from tests.support.picture_files import photo, png, write

PICTURE = png(photo(2, 3))
LABELS = png(np.ones((2, 3), np.uint8))


def listed(folder: Path, *names: str) -> tuple[str, ...]:
    """Return the keys of pictures of these names, as the listing has them."""
    for name in names:
        write(folder / name, PICTURE)
    return picture_files(folder).keys


@pytest.mark.states("Folders of pictures", "names with numbers", "accepted", "in natural order: 1, 2, 10")
def test_numbers_count_as_numbers(tmp_path: Path) -> None:
    names = ("1.png", "2.png", "10.png", "a.png", "a1.png", "a1-2.png", "a1-10.png", "a2.jpg", "a2.png", "b07.png")
    assert listed(tmp_path, *reversed(names)) == names


def test_ties_are_ordered_by_the_exact_text(tmp_path: Path) -> None:
    assert listed(tmp_path / "zeros", "1.png", "01.png", "001.png") == ("001.png", "01.png", "1.png")
    assert listed(tmp_path / "case", "b.png", "a.png", "B.png", "A.png") == ("A.png", "a.png", "B.png", "b.png")
    composed, apart = "\u00e9.png", "e\u0301.png"  # é in one letter, and in two
    assert listed(tmp_path / "accents", apart, "f.png", "e.png") == ("e.png", "f.png", composed)
    both = {path.name for path in (write(tmp_path / "both" / name, PICTURE) for name in (composed, apart))}
    assert [path.name for path in picture_files(tmp_path / "both")] == sorted(both)


@pytest.mark.states("Folders of pictures", "folders within", "accepted", "all of them, each at the place of its name")
def test_nested_folders_stay_together(tmp_path: Path) -> None:
    names = ("01/b.png", "1/a.png", "2/1.png", "2/10.png", "2.png", "10/x/1.png", "v1.9/1.png", "v1.10/1.png")
    assert listed(tmp_path, *reversed(names)) == names
    assert [path.relative_to(tmp_path).as_posix() for path in picture_files(tmp_path)] == list(names)


@pytest.mark.states("Folders of pictures", "hidden files and folders", "converted", "left out: ._1.png, .thumbnails")
def test_hidden_files_are_no_samples(tmp_path: Path) -> None:
    hidden = ("._1.png", ".DS_Store", ".thumbnails/1.png", "a/._2.png", "a/.cache/deep/3.png")
    assert listed(tmp_path, *hidden, "1.png", "a/2.png", "notes.txt") == ("1.png", "a/2.png")
    inside = write(tmp_path / ".hidden" / "1.png", PICTURE).parent  # what was asked for is not hidden
    assert picture_files(inside).keys == ("1.png",)


@pytest.mark.states("Folders of pictures", "links", "accepted", "as what they lead to, under their own names")
@pytest.mark.states("Folders of pictures", "a link that leads back", "refused", "remove it")
def test_links(tmp_path: Path) -> None:
    there = write(tmp_path / "elsewhere" / "10.png", PICTURE)
    folder = tmp_path / "farm"
    write(folder / "2.png", PICTURE)
    (folder / "1.png").symlink_to(there)
    (folder / "twice").symlink_to(there.parent)
    (folder / "gone.png").symlink_to(tmp_path / "nothing")  # listed: who reads it says what is wrong
    assert picture_files(folder).keys == ("1.png", "2.png", "gone.png", "twice/10.png")
    (tmp_path / "way").symlink_to(folder)
    assert picture_files(tmp_path / "way").keys == picture_files(folder).keys
    (folder / "a").mkdir()
    (folder / "a" / "back").symlink_to(folder)
    with pytest.raises(StoreError, match=r"a/back/?: is a link that leads back to .*farm.*remove it"):
        picture_files(folder)


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert listed(tmp_path, "1.PNG", "folder.png/2.JPEG") == ("1.PNG", "folder.png/2.JPEG")
    (tmp_path / "empty").mkdir()
    for place, problem in (("empty", "has no picture files"), ("nothing", "cannot read this folder")):
        with pytest.raises(StoreError, match=f"{place}: {problem}"):
            picture_files(tmp_path / place)


def test_folder_and_listing_agree(tmp_path: Path) -> None:
    """Also where what follows the common part would order images otherwise than their label maps."""
    stems = ("a", "a_1", "a_10", "a_2", "town/9", "town/10", "Town")
    for stem in (*stems, "._a", ".trash/a", "without"):
        write(tmp_path / "images" / f"{stem}_leftImg8bit.png", PICTURE)
    for stem in (*stems, "._a", ".trash/a"):
        write(tmp_path / "labels" / f"{stem}_ids.png", LABELS)
    data = Folder(
        tmp_path / "images", tmp_path / "labels", ["x"], image_suffix="_leftImg8bit.png", label_suffix="_ids.png"
    )
    alone = [key for key in picture_files(tmp_path / "images").keys if "without" not in key]
    assert list(data.image_names) == alone
    assert len(alone) == len(stems)
    assert data.without_labels == ("without",)


def test_a_label_map_without_an_image_is_named(tmp_path: Path) -> None:
    write(tmp_path / "images" / "1.png", PICTURE)
    for name in ("1.png", "2.png"):
        write(tmp_path / "labels" / name, LABELS)
    data = Folder(tmp_path / "images", tmp_path / "labels", ["x"])
    assert data.image_names == ("1.png", "2.png")
    assert "2.png" in data.check()[0]


def test_files_in_a_list_are_called_by_their_paths_below_their_common_folder(tmp_path: Path) -> None:
    assert relative_keys([tmp_path / "a" / "1.png", tmp_path / "b" / "1.png"]) == ("a/1.png", "b/1.png")
    assert relative_keys([str(tmp_path / "a" / "1.png"), tmp_path / "a" / "2.png"]) == ("1.png", "2.png")
    assert relative_keys(["x/./1.png", "x//y/2.png"]) == ("1.png", "y/2.png")
    assert relative_keys(["1.png", "y/2.png"]) == ("1.png", "y/2.png")
    assert relative_keys(["/1.png", "/2.png"]) == ("1.png", "2.png")
    assert relative_keys(["e\u0301.png"]) == ("\u00e9.png",)
    assert relative_keys(["1.png", tmp_path / "2.png"]) is None
    assert relative_keys([np.zeros(3)]) is None
    assert relative_keys([]) is None


NAMES = st.text("aAbß01289._- é\u0301x²", min_size=1, max_size=6).filter(lambda text: text.strip(".") != "")


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True))
def test_order_is_total_and_keeps_folders_together(paths: list[str]) -> None:
    ordered = sorted(paths, key=natural_order)
    assert all(natural_order(a) < natural_order(b) for a, b in pairwise(ordered))
    folders = [path.rpartition("/")[0].split("/")[0] for path in ordered if "/" in path]
    runs = [a for a, b in pairwise([*folders, None]) if a != b]
    assert len(runs) == len(set(folders))
    assert [unicodedata.normalize("NFC", path) for path in ordered]
