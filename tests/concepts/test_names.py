"""Files of names: ids and names come as they were written, or an error says the line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import ccx
from ccx.cli import app
from ccx.datasets import Broden, Folder, token_concepts
from ccx.datasets.tables import named, read_table, unique_names
from ccx.errors import InputError, StoreError
from tests.support.picture_files import png, write

SKY, CAR = "sky", "red car"
TREE = {"names": ["sky", "red car"], "categories": ["nature", "thing"]}
BY_ID = {"names": {"2": "red car", "1": "sky"}, "categories": {"1": "nature", "2": "thing"}}


@pytest.mark.states(
    "Names of concepts", ".txt, one name per line", "accepted", "line k is id k, or counts from first_id"
)
@pytest.mark.states(
    "Names of concepts", ".csv, .tsv or .txt with a head line", "accepted", "columns name, id, category"
)
@pytest.mark.states("Names of concepts", ".json", "accepted", "a list, a mapping from ids, or names and categories")
@pytest.mark.states("Names of concepts", "semicolons for commas, sep=;", "converted", "what the head line shows")
@pytest.mark.states("Names of concepts", "UTF-16 with a byte order mark, CRLF", "converted", "as UTF-8 and LF")
@pytest.mark.states("Names of concepts", "white space around a name", "converted", "taken away; in .json refused")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "\ufeffsky\nred car\n\n"),
        ("a.txt", "sky\r\n red car\t\r\n\r\n"),
        ("a.txt", "sky\rred car\r"),
        ("a.txt", "sky\nred car\n".encode("utf-16")),
        ("a.txt", "sky\nred car\n".encode("utf-32")),
        ("a.txt", "id\tname\n2\tred car\n1\tsky\n"),
        ("a.json", json.dumps(["sky", "red car"])),
        ("a.json", json.dumps({"2": "red car", "1": "sky"})),
        ("a.json", "\ufeff" + json.dumps({"names": {"2": "red car", "1": "sky"}})),
        ("a.csv", "name\nsky\nred car\n"),
        ("a.csv", "name\nsky\nred car\n\n,\n"[:-2] + "\n"),
        ("a.csv", 'Index,Name\n2,"red car"\n1, sky \n'),
        ("a.csv", "id,name,count\n2,red car,,\n"[:-2] + "\n1,sky,\n,,\n,,\n\n"),
        ("a.csv", "id;name\r\n2;red car\r\n1;sky\r\n"),
        ("a.csv", "id\tname\n2\tred car\n1\tsky\n"),
        ("a.csv", "sep=;\r\nid;name\r\n2;red car\r\n1;sky\r\n"),
        ("a.csv", '"sep=|"\nid|name\n2|red car\n1|sky\n'),
        ("a.csv", "id,index,name\n2,0,red car\n1,1,sky\n"),
        ("a.csv", "idx,number,name\n2,2,red car\n1,1,sky\n"),
        ("a.csv", "id,name\n02,red car\n 1 ,sky\n"),
        ("a.csv", "id,name\n\n2,red car\n\n1,sky\n"),
        ("a.csv", "name,frequency\nsky,0.5\nred car,0.25\n"),
        ("a.tsv", "ID\tname\n2\tred car\n1\tsky\n"),
    ],
)
def test_names_of_all_kinds(tmp_path: Path, name: str, text: str | bytes) -> None:
    assert named(write(tmp_path / name, text)) == ((1, 2), (SKY, CAR), None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(TREE)),
        ("a.json", json.dumps(BY_ID)),
        ("a.csv", "category,id,name\nthing,2,red car\nnature,1,sky\n"),
        ("a.csv", "Name;Category\nsky;nature\nred car;thing\n"),
    ],
)
def test_categories_come_with_their_names(tmp_path: Path, name: str, text: str) -> None:
    assert named(write(tmp_path / name, text)) == ((1, 2), (SKY, CAR), ("nature", "thing"))


@pytest.mark.states(
    "Names of concepts", "a comma, quotes, a line break or U+2028 in a quoted name", "accepted", "RFC 4180"
)
@pytest.mark.parametrize(
    "odd",
    [
        "line\nbreak",
        "crlf\r\nin it",
        "x\u2028y",
        "a\x85b",
        "form\ffeed",
        "a\x1cb",
        'so "called"',
        "car, auto; n02958343",
        "a\tb",
    ],
)
def test_a_cell_is_what_was_written(tmp_path: Path, odd: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", "name"], [7, odd], [3, "sky"]])
    assert named(write(tmp_path / "a.csv", text.getvalue())) == ((3, 7), ("sky", odd), None)
    assert named(write(tmp_path / "a.json", json.dumps({"7": odd, "3": "sky"}))).names == ("sky", odd)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["sample", "position", "concept"], [0, 0, odd], [0, 1, "sky"]])
    assert token_concepts(write(tmp_path / "t.csv", text.getvalue()), progress=False).names == (odd, "sky")


@pytest.mark.states("Names of concepts", "synonyms with commas, a line of a .txt", "accepted", "the line is the name")
@pytest.mark.parametrize("line", ["tench, Tinca tinca", "n01440764 tench", "x\u2028y", "form\ffeed", "3-D", '"quoted"'])
def test_a_line_is_what_was_written(tmp_path: Path, line: str) -> None:
    assert named(write(tmp_path / "a.txt", f"sky\n{line}\n")).names == ("sky", line)


@pytest.mark.states(
    "Names of concepts", "a blank line within a .txt", "accepted", "its id has no name; the ids of others stay"
)
def test_a_blank_line_keeps_the_ids_of_others(tmp_path: Path) -> None:
    file = write(tmp_path / "names.txt", "road\n\nsky\n \n\n")
    assert named(file) == ((1, 3), ("road", "sky"), None)
    assert named(file, 0).ids == (0, 2)
    write(tmp_path / "i/a.png", png(np.zeros((1, 3, 3), np.uint8)))
    write(tmp_path / "l/a.png", png(np.array([[0, 1, 3]], np.uint8)))
    folder = Folder(tmp_path / "i", tmp_path / "l", file)
    np.testing.assert_array_equal(folder.labels(0), [[[0, 1, 2]]])
    write(tmp_path / "l/a.png", png(np.array([[0, 1, 2]], np.uint8)))
    with pytest.raises(StoreError, match=r"ids without a name: 2 \(2 names\)"):
        Folder(tmp_path / "i", tmp_path / "l", file).labels(0)
    with pytest.raises(InputError, match=r"labels: expected ids that have one of the 2 names, got 2"):
        ccx.Concepts.from_label_maps(np.array([[[0, 1, 2]]]), {1: "road", 3: "sky"})


@pytest.mark.states(
    "Names of concepts", "blank, missing, NaN or repeated names or ids", "refused", "repair the line that is named"
)
@pytest.mark.states("Names of concepts", "a concept called nan", "refused", "a missing value reads the same: rename it")
@pytest.mark.states(
    "Names of concepts", "an id below 0, or no whole number", "refused", "write whole numbers of at least 0"
)
@pytest.mark.states(
    "Names of concepts", "another column of whole numbers and no id", "refused", "call it id, or leave it out"
)
@pytest.mark.states("Names of concepts", "no head line in a .csv", "refused", "write one: id,name")
@pytest.mark.states(
    "Names of concepts", ".txt lines with numbers before the names", "refused", "write a .csv with id and name"
)
@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", "", "no known kind"),
        ("a.json", "3", "no list or mapping of names"),
        ("a.json", "[", "not valid JSON"),
        ("a.json", '["sky",\n""]', "entry 2: the name is blank"),
        ("a.json", '["sky",\n" "]', "entry 2: the name is blank"),
        ("a.json", '["sky",\n null]', "entry 2: the name is missing"),
        ("a.json", '["sky",\n\nNaN]', "entry 2: the name is missing"),
        ("a.json", '["sky",\n" car"]', "entry 2: the name is ' car', with white space around it"),
        ("a.json", '["sky",\n5]', r"entry 2: the name is 5 \(int\), no text"),
        ("a.json", '["sky, [{:",\n"car",\n"sky, [{:"]', r"entry 3: the name 'sky, \[\{:' stands in entry 1, too"),
        ("a.json", '{"1": "sky",\n"x": "car"}', "entry 2: 'x' is no id"),
        ("a.json", '{"1": "sky",\n"-2": "car"}', "entry 2: '-2' is no id"),
        ("a.json", '{"1": "sky",\n"01": "car"}', "entry 2: the id 1 stands in entry 1, too"),
        ("a.json", '{"1": "sky", "1": "car"}', "a key occurs twice"),
        ("a.json", '{"categories": [],\n"names": ["sky",\n[1]]}', "its categories do not fit"),
        ("a.json", '{"x": [{"names": [2]}], "names": ["sky"]}', "'x' beside names"),
        ("a.json", '{"names":\n{"1": "sky",\n"2": ["names"]}}', r"entry 2: the name is \['names'\] \(list\), no text"),
        ("a.json", '{"categories": ["x",\n""],\n"names": ["sky",\n"car"]}', "entry 2: the category is blank"),
        ("a.json", '{"names": {"2": "car", "1": "sky"}, "categories": ["x", "y"]}', "its categories do not fit"),
        ("a.json", "[]", "holds no name"),
        ("a.txt", "\n\n", "holds no name"),
        ("a.txt", "sky\nred\tcar\n", "line 2: holds a tab within its name"),
        ("a.txt", "sky\ncar\nNaN\n", "line 3: the name is 'NaN', which is how a missing value reads"),
        ("a.txt", "sky\ncar\n\nsky\n", "line 4: the name 'sky' stands in line 1, too"),
        ("a.txt", "1 sky\n2 car\n", "each line begins with a number, as '1 sky'"),
        ("a.txt", "0: sky\n\n5: car\n", "each line begins with a number, as '0: sky'"),
        ("a.txt", "1,sky\n2,car\n", "each line begins with a number"),
        ("a.txt", "id,name\n1,sky\n", "line 1: 'id,name' looks like the head line of a table; call the file .csv"),
        ("a.txt", "Name\nsky\n", "line 1: 'Name' looks like the head line"),
        ("a.txt", "1\tsky\n2\tcar\n", "no column 'name', only 1, sky"),
        ("a.txt", b"sky\nbl\xe5\n", "line 2: no UTF-8 text"),
        ("a.txt", b"\xff\xfes", "no UTF-16 text"),
        ("a.txt", "sky\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("a.csv", "", "empty"),
        ("a.csv", "id,name\n", "holds no name"),
        ("a.csv", "id,label\n1,a\n", "no column 'name', only id, label"),
        ("a.csv", "1,sky\n2,car\n", "no column 'name', only 1, sky; give it a head line"),
        ("a.csv", "name,Name\nsky,car\n", "several columns 'name': name, Name"),
        ("a.csv", "id,ID,name\n1,2,sky\n", "several columns 'id'"),
        ("a.csv", "id,name\nx,a\n", "line 2: id is 'x', no whole number"),
        ("a.csv", "id,name\n-1,a\n", "line 2: id is '-1', no whole number"),
        ("a.csv", "id,name\n1,b\n2.0,a\n", "line 3: id is '2.0', no whole number"),
        ("a.csv", "id,name\n,a\n", "line 2: id is '', no whole number"),
        ("a.csv", f"id,name\n{'9' * 5000},a\n", "line 2: id is '9+"),
        ("a.csv", "id,name\n1,a\n1,b\n", "line 3: the id 1 stands in line 2, too"),
        ("a.csv", 'id,name\n1,"a\nb"\n2,"a\nb"\n', r"line 4: the name 'a\\nb' stands in line 2, too"),
        ("a.csv", "id,name\n1,a\n2,\n", "line 3: the name is blank"),
        ("a.csv", "id,name\n1,a\n2,nan\n", "line 3: the name is 'nan'"),
        ("a.csv", 'id,name\n1,a\n2,"nan"\n', "line 3: the name is 'nan'"),
        ("a.csv", "id,name\n1,a\n2,<NA>\n", "line 3: the name is '<NA>'"),
        ("a.csv", "name,category\na,x\nb,\n", "line 3: the category is blank"),
        ("a.csv", "name,category\na,x\nb,NaN\n", "line 3: the category is 'NaN'"),
        ("a.csv", "name\nsky\n\ncar\n", "line 3: is blank"),
        ("a.csv", 'name\nsky\n""\ncar\n', "line 3: the name is blank"),
        ("a.csv", ",name\n0,sky\n1,car\n", "no column id, but the column '' has another whole number in each row"),
        ("a.csv", "class_id,name\n4,sky\n5,car\n", "no column id, but the column 'class_id' has"),
        ("a.csv", "index,number,name\n0,1,sky\n1,2,car\n", "the columns index and number differ"),
        ("a.csv", "id;name,alias\n1;sky,x\n", "line 1: columns separated in two ways: 'id;name'"),
        ("a.csv", "name,id;x\nsky,1;2\n", "line 1: columns separated in two ways: 'id;x'"),
        ("a.csv", "id,name\n1,sky, blue\n", "line 2: 3 cells under 2 columns"),
        ("a.csv", 'id,name\n1,a\n2,"sky\n3,car\n', r"line 3: no table \(unexpected end of data\)"),
        ("a.csv", 'id,name\n1,a\n2,"sky"blue\n', "line 3: no table"),
        ("a.csv", 'sep=;\nid;name\n1;a\n2;"sky"blue\n', "line 4: no table"),
        ("a.csv", f"id,name\n1,{'a' * 140_000}\n", "line 2: no table .field larger"),
    ],
)
def test_names_that_could_be_something_else_are_refused(
    tmp_path: Path, name: str, text: str | bytes, problem: str
) -> None:
    with pytest.raises(StoreError, match=problem):
        named(write(tmp_path / name, text))


@pytest.mark.states(
    "Names of concepts", "a set or a mapping in place of a list", "refused", "its order says nothing: give a list"
)
@pytest.mark.states(
    "Names of concepts", "white space around a name in a list", "refused", "name the token ' the' visibly: '␣the'"
)
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["sky", ""], "at index 1 one that is blank"),
        (["sky", " \n"], "at index 1 one that is blank"),
        (["nan", "sky"], "at index 0 one that is 'nan', which is how a missing value reads"),
        (["sky", " the"], "at index 1 one that is ' the', with white space around it"),
        (["sky", float("nan")], "float nan"),
        (["sky", None], "NoneType None"),
        (np.array(["sky", np.nan], object), "float nan"),
        (np.array(["sky", "nan"]), "one that is 'nan'"),
        (["sky", "sky"], "repeated: sky"),
        ({"sky", "car"}, "got a set; give a list"),
        ({"sky": 1, "car": 2}, "ids of at least 0 as keys, got 'sky'|got a dict; give a list"),
        ({1: "sky", 2: "nan"}, "one that is 'nan'|got a dict; give a list"),
        ({1: "sky", 2.0: "car"}, "ids of at least 0 as keys, got 2.0|got a dict; give a list"),
        ({1: "sky", False: "tree"}, "ids of at least 0 as keys, got False|got a dict"),
        ({1: "sky", 10**30: "car"}, "ids of at least 0 as keys, got 1000|got a dict"),
    ],
)
def test_every_way_in_refuses_the_same_names(tmp_path: Path, names: object, problem: str) -> None:
    write(tmp_path / "i/a.png", png(np.zeros((1, 2, 3), np.uint8)))
    write(tmp_path / "l/a.png", png(np.zeros((1, 2), np.uint8)))
    labels = np.zeros((1, 1, 2), int)
    for make in (
        lambda: ccx.Concepts.from_label_maps(labels, names),
        lambda: ccx.Concepts.from_masks(np.zeros((2, 1, 1, 2), bool), names),
        lambda: Folder(tmp_path / "i", tmp_path / "l", names),
        lambda: token_concepts(np.zeros((1, 2, 2), bool), names, progress=False),
    ):
        with pytest.raises(InputError, match=f"names: expected .*({problem})"):
            make()
    with pytest.raises(InputError, match="categories: expected names, got at index 0 one that is blank"):
        ccx.Concepts.from_label_maps(labels, ["sky"], categories=[""])


@pytest.mark.needs("pandas")
def test_names_of_a_data_frame() -> None:
    import pandas as pd

    frame = pd.DataFrame({"name": ["sky", "car"]})
    labels = np.zeros((1, 1, 2), int)
    assert ccx.Concepts.from_label_maps(labels, frame["name"]).names == ("sky", "car")
    with pytest.raises(InputError, match="got a DataFrame; give a list"):
        ccx.Concepts.from_label_maps(labels, frame)
    with pytest.raises(InputError, match="names: expected texts, got"):
        ccx.Concepts.from_label_maps(labels, pd.Series(["sky", pd.NA]))


@pytest.mark.states(
    "Label maps", "ids with gaps, or in any order", "converted", "by the ids beside the names: {7: 'road', ...}"
)
@given(st.data())
def test_label_maps_by_id_are_those_of_ids_in_order(data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, 300) | st.integers(0, 10**17), min_size=1, max_size=5, unique=True))
    index = data.draw(st.lists(st.integers(0, len(ids)), min_size=1, max_size=8))
    names = [f"n{number}" for number in ids]
    known = [0, *sorted(ids)]
    labels = np.array([[[known[i] for i in index]]])
    found = ccx.Concepts.from_label_maps(labels, dict(zip(ids, names, strict=True)))
    assert found.names == tuple(f"n{number}" for number in sorted(ids))
    for number, name in zip(ids, names, strict=True):
        np.testing.assert_array_equal(found.mask(name), labels == number)


def test_the_command_line_honours_ids(tmp_path: Path) -> None:
    """The ids of a file of names are those of label maps, in whatever order its lines come."""
    labels = np.array([[[2, 2, 1, 0], [2, 1, 1, 0]]])
    np.save(tmp_path / "labels.npy", labels)
    activations = (labels == 2).astype(np.float32)[:, None]
    np.save(tmp_path / "activations.npy", activations)
    for name, text in (
        ("a.csv", "id,name\n2,sky\n1,road\n"),
        ("b.json", '{"2": "sky", "1": "road"}'),
        ("c.txt", "road\nsky\n"),
        ("d.csv", "id,name\n9,tree\n2,sky\n1,road\n"),
        ("e.txt", "road\nsky\n\ntree\n"),
    ):
        names, out = write(tmp_path / name, text), tmp_path / f"{name}.run"
        command = ["explain", str(tmp_path / "activations.npy"), "--labels", str(tmp_path / "labels.npy"), "--names"]
        more = ["--out", str(out), "--range", "0.5,2", "--length", "1", "--no-report"]
        result = CliRunner().invoke(app, [*command, str(names), *more])
        assert result.exit_code == 0, result.output
        found = ccx.load(out)[0]
        assert (str(found.formula), found.iou) == ("sky", 1), name


@pytest.mark.states("Tables of tokens", "a missing, NaN or blank concept", "refused", "name it, or leave out the row")
@pytest.mark.parametrize("missing", ["", " ", "nan", "NaN", "<NA>", " the"])
def test_token_tables_say_the_line_of_a_missing_concept(tmp_path: Path, missing: str) -> None:
    file = write(tmp_path / "a.csv", f'sample,position,concept\n0,0,noun\n0,1,"{missing}"\n')
    with pytest.raises(StoreError, match=r"a\.csv, line 3: the concept is "):
        token_concepts(file)
    with pytest.raises(InputError, match=r"table: expected a name, got one that is .* in row 1"):
        token_concepts([[0, 0], [0, 1], ["noun", missing]])


@pytest.mark.states("Tables of tokens", "concepts that are numbers with gaps (floats)", "refused", "give integer ids")
@pytest.mark.parametrize(
    "values", [["a", None], ["a", np.nan], [1.0, np.nan], [1, "a"], [True, False], [b"a", b"b"], [1, {}]]
)
def test_token_tables_name_the_row_that_has_no_text(values: list[object]) -> None:
    for column in (values, np.array(values, object)):
        with pytest.raises(InputError, match=r"table: expected names, got .* in row [01]"):
            token_concepts([[0, 0], [0, 1], column], ["x", "y"])


@pytest.mark.states(
    "Tables of tokens", "names as a file, or by id", "accepted", "ids in the table are those of the file"
)
def test_token_tables_take_names_by_id(tmp_path: Path) -> None:
    file = write(tmp_path / "names.csv", "id,name,category\n7,verb,x\n3,noun,y\n")
    table = [[0, 0], [0, 1], [7, 3]]
    found = token_concepts(table, file, progress=False)
    assert (found.names, found.categories) == (("noun", "verb"), ("y", "x"))
    np.testing.assert_array_equal(found.mask("verb"), [[[True, False]]])
    with pytest.raises(InputError, match="one of 2 ids, got id 4 in row 1"):
        token_concepts([[0, 0], [0, 1], [7, 4]], file)
    with pytest.raises(InputError, match=r"ids 1\.\.2, got id 3 in row 1"):
        token_concepts([[0, 0], [0, 1], [1, 3]], ["a", "b"])


@pytest.mark.needs("pandas")
@pytest.mark.needs("pyarrow")
@pytest.mark.states("Tables of tokens", ".parquet", "refused", "give the data frame of pandas.read_parquet")
def test_token_tables_of_data_frames_with_gaps(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"sample": [0, 0], "position": [0, 1], "concept": ["noun", None]})
    frame.to_parquet(tmp_path / "a.parquet")
    kinds = [frame, pd.read_parquet(tmp_path / "a.parquet")]
    kinds += [frame.astype({"concept": kind}) for kind in ("string", "category", "string[pyarrow]")]
    kinds += [frame.assign(concept=[1, None]), frame.assign(concept=pd.array([1, None], "Int64"))]
    for kind in kinds:
        with pytest.raises(InputError, match=r"table: expected names, got .* in row [01]"):
            token_concepts(kind, ["noun", "verb"])
    with pytest.raises(StoreError, match=r"a\.parquet: \.parquet is no known kind.*pandas\.read_parquet"):
        token_concepts(tmp_path / "a.parquet")


def test_lists_of_images(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        write(tmp_path / f"i/{stem}.png", png(np.zeros((1, 2, 3), np.uint8)))
        write(tmp_path / f"l/{stem}.png", png(np.zeros((1, 2), np.uint8)))
    for text in ("b\r\n\r\na\r\n", "\ufeffb\na", "b\n \na\n".encode("utf-16")):
        file = write(tmp_path / "only.txt", text)
        assert Folder(tmp_path / "i", tmp_path / "l", ["x"], only=file).image_names == ("b.png", "a.png")
    with pytest.raises(InputError, match="only: expected names in an order, got a set"):
        Folder(tmp_path / "i", tmp_path / "l", ["x"], only={"a", "b"})


def test_tables_without_needs(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n\n2,z\n'))
    assert table.rows == ((2, ("1", "x\ny")), (5, ("2", "z")))
    assert table.blank == (4,)
    assert list(table.numbers("A".lower())) == [1, 2]
    assert unique_names(["a", "b", "a"], ["x", "y", "z"]) == ["a (x)", "b", "a (z)"]


def test_broden_takes_numbers_of_any_length_for_paths(tmp_path: Path) -> None:
    write(tmp_path / "images/1.jpg", png(np.zeros((8, 8, 3), np.uint8)))
    write(tmp_path / "index.csv", f"image,split,ih,iw,sh,sw,scene\n1.jpg,train,8,8,4,4,{'9' * 5000}\n")
    write(tmp_path / "label.csv", "number,name,category\n3,street,scene\n")
    write(tmp_path / "c_scene.csv", "code,number,name,frequency,coverage\n1,3,street,1,1\n")
    assert Broden(tmp_path).check()
