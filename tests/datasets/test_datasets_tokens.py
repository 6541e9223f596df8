"""Token tables: concepts over positions, with padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.datasets import token_concepts
from ccx.errors import DTypeError, InputError, MemoryBudgetError, ShapeError, StoreError
from tests.support.picture_files import write

ROWS = [(0, 0, "noun"), (0, 0, "animal"), (0, 2, "verb"), (1, 1, "noun"), (1, 1, "noun"), (2, 0, "verb")]
TEXT = "sample,position,concept\n" + "".join(f"{n},{t},{c}\n" for n, t, c in ROWS)
LENGTHS = [3, 2, 1]
NOUN = [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
VERB = [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def columns(rows: Any = ROWS) -> list[Any]:
    return [list(column) for column in zip(*rows, strict=True)]


def check(concepts: ccx.Concepts) -> None:
    assert concepts.shape == (1, 3)
    assert concepts.names == ("noun", "animal", "verb")
    np.testing.assert_array_equal(concepts.mask("noun")[:, 0], NOUN)
    np.testing.assert_array_equal(concepts.mask("verb")[:, 0], VERB)
    assert concepts.n_cells == 6
    np.testing.assert_array_equal(concepts.mask("(NOT noun)")[:, 0].sum(axis=1), [2, 1, 1])  # padding satisfies nothing


def test_tables_of_all_kinds(tmp_path: Path) -> None:
    check(token_concepts(write(tmp_path / "a.csv", TEXT), lengths=LENGTHS))
    check(token_concepts(write(tmp_path / "a.tsv", TEXT.replace(",", "\t")), lengths=np.array(LENGTHS)))
    check(token_concepts(columns(), lengths=LENGTHS))
    samples, positions, concepts = columns()
    check(token_concepts({"sample": samples, "position": positions, "concept": concepts}, lengths=LENGTHS))
    names = ["noun", "animal", "verb"]
    ids = [names.index(name) + 1 for name in concepts]
    check(token_concepts((np.array(samples), np.array(positions), np.array(ids)), names, lengths=LENGTHS))
    dense = np.zeros((3, 3, 3), bool)
    dense[samples, positions, np.array(ids) - 1] = True
    check(token_concepts(dense, names, lengths=LENGTHS))
    categories = token_concepts(dense, names, categories=["pos", "kind", "pos"]).categories
    assert categories == ("pos", "kind", "pos")


@pytest.mark.needs("pandas")
def test_data_frames() -> None:
    import pandas as pd

    frame = pd.DataFrame({"position": columns()[1], "concept": columns()[2], "sample": columns()[0], "x": 0})
    check(token_concepts(frame, lengths=LENGTHS))
    frame["concept"] = frame["concept"].astype("category")
    check(token_concepts(frame, lengths=LENGTHS))


def test_extents() -> None:
    concepts = token_concepts(columns(), n_samples=5, n_positions=4, names=["verb", "noun", "animal", "other"])
    assert (concepts.n_samples, concepts.shape, concepts.n_cells) == (5, (1, 4), 20)
    assert concepts.count("other") == 0
    assert token_concepts(columns()).n_cells == 9
    assert token_concepts(columns(), lengths=[3, 2, 1, 7]).shape == (1, 7)


@given(
    n=st.integers(1, 5), t=st.integers(1, 70), c=st.integers(1, 4), density=st.floats(0, 1), seed=st.integers(0, 10**6)
)
def test_tables_and_arrays_agree(n: int, t: int, c: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, t + 1, n)
    dense = (rng.random((n, t, c)) < density) & (np.arange(t) < lengths[:, None])[..., None]
    names = [f"c{i}" for i in range(c)]
    samples, positions, ids = np.nonzero(dense)
    options = {"lengths": lengths, "n_samples": n, "n_positions": t}
    order = rng.permutation(samples.size)
    table = token_concepts((samples[order], positions[order], ids[order] + 1), names, **options)
    array = token_concepts(dense, names, lengths=lengths)
    assert table.content_hash == array.content_hash
    for concept, name in enumerate(names):
        np.testing.assert_array_equal(array.mask(name)[:, 0], dense[..., concept])


def test_a_text_network_is_explained() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 21, 60)
    words = rng.integers(0, 5, (60, 20))
    dense = np.stack([words == k for k in range(5)], axis=2) & (np.arange(20) < lengths[:, None])[..., None]
    concepts = token_concepts(dense, ["the", "cat", "sat", "mat", "on"], lengths=lengths)
    fires = (words == 1) | (words == 3)
    activations = np.where(fires, 5 + rng.random((60, 20)), rng.random((60, 20))).astype(np.float32)[:, None]
    activations[:, 0][np.arange(20) >= lengths[:, None]] = 9  # padding counts nowhere
    found = ccx.explain(activations, concepts, ranges=[(4, 7)], progress=False)[0]
    assert str(found.formula) == "(cat OR mat)"
    assert found.iou == 1


@pytest.mark.parametrize(
    ("table", "options", "error", "problem"),
    [
        (columns([(0, -1, "a")]), {}, InputError, r"table: expected a position from 0 to .*, got -1 in row 0"),
        (columns([(0, 0, "a"), (3, 0, "a")]), {"n_samples": 3}, InputError, "a sample from 0 to 2, got 3 in row 1"),
        (columns([(0, 2, "a")]), {"lengths": [2]}, InputError, "position 2 of text 0|a position from 0 to 1"),
        (columns([(0, 2, "a")]), {"lengths": [2], "n_positions": 3}, InputError, "concept 1 at position 2 of text 0"),
        (columns([(0, 2, "a")]), {"lengths": [3, -1]}, InputError, "numbers from 0 to 3"),
        (columns([(0, 2, "a")]), {"lengths": [2.5]}, DTypeError, "lengths: expected integers"),
        (columns([(0, 0, "a")]), {"names": ["b"]}, InputError, "one of the names, got 'a' in row 0"),
        ([[0], [0], [2]], {"names": ["b"]}, InputError, r"ids 1\.\.1, got id 2 in row 0"),
        ([[0], [0], [0]], {"names": ["b"]}, InputError, r"ids 1\.\.1, got id 0 in row 0"),
        ([[0], [0], [1]], {}, InputError, "names beside ids"),
        ([[0], [0, 1], ["a"]], {}, ShapeError, r"three columns of one length, got \[1\], \[2\], \[1\]"),
        ([[0.0], [0], ["a"]], {}, DTypeError, "sample: expected integers, got float64"),
        ({"sample": [0], "concept": ["a"]}, {}, InputError, "got no position"),
        (5, {}, InputError, "a file, a data frame"),
        (np.zeros((1, 2, 3), int), {}, DTypeError, r"bool\[N, T, C\], got int64\[1, 2, 3\]"),
        (np.zeros((1, 0, 3), bool), {}, ShapeError, r"got bool\[1, 0, 3\]"),
        ([[], [], []], {"names": ["a"]}, InputError, "at least one row"),
        (columns(), {"names": ["noun", "noun"]}, InputError, "repeated: noun"),
    ],
)
def test_tables_that_do_not_fit(table: Any, options: dict[str, Any], error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        token_concepts(table, **options)


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no column 'concept'"):
        token_concepts(write(tmp_path / "a.csv", "sample,position\n0,0\n"))
    with pytest.raises(StoreError, match="line 2: position is 'x', no whole number"):
        token_concepts(write(tmp_path / "a.csv", "sample,position,concept\n0,x,a\n"))


@pytest.mark.parametrize("row", [(1 << 40, 0, "a"), (0, 1 << 40, "a"), (1 << 40, 1 << 40, "a"), (1 << 62, 0, "a")])
def test_numbers_beyond_memory_are_refused_before_anything_is_made(row):
    table = ([0, row[0]], [0, row[1]], ["a", row[2]])
    with pytest.raises(MemoryBudgetError, match="n_samples: expected work that fits"):
        token_concepts(table, progress=False)
