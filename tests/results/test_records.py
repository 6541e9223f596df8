"""Each field of a result is written once: schema, documentation and columns follow from the dataclasses."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import ccx
from ccx.errors import InputError
from ccx.evidence import Chance, HeldOut
from ccx.results import Candidate, Explanation, schema
from ccx.store.records import Column, Field, Record, columns_of, documentation_of, documented, out_of_bounds, schema_of

SCHEMA = Path(ccx.__file__).with_name("results_schema.json")
PAGE = Path(ccx.__file__).parents[1] / "docs" / "results.md"
HINT = "CCX_UPDATE_GOLD=1 writes it anew; then look at the difference"


def test_the_schema_in_the_package_is_that_of_the_dataclasses() -> None:
    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("CCX_UPDATE_GOLD"):
        SCHEMA.write_text(text, encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == text, HINT


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are not installed")
def test_the_page_lists_the_fields_of_the_dataclasses() -> None:
    page = PAGE.read_text(encoding="utf-8")
    expected = page
    for kind in (Explanation, Candidate, Chance, HeldOut):
        table = f"<!-- {kind.__name__} -->\n{documentation_of(kind)}<!-- end -->"
        expected, count = re.subn(
            rf"<!-- {kind.__name__} -->.*?<!-- end -->", lambda _, table=table: table, expected, flags=re.S
        )
        assert count == 1, kind
    if os.environ.get("CCX_UPDATE_GOLD"):
        PAGE.write_text(expected, encoding="utf-8")
        page = expected
    assert page == expected, HINT


def test_docstrings_list_the_fields() -> None:
    for kind in (Explanation, Candidate, Chance, HeldOut):
        assert kind.__doc__ is not None
        for name in kind.__dataclass_fields__:
            assert f"\n{name}\n    " in kind.__doc__


@documented
@dataclass(frozen=True, slots=True)
class Inner(Record):
    """A part."""

    label: str
    """A text."""


@documented
@dataclass(frozen=True, slots=True)
class Outer(Record):
    """A whole."""

    count: Annotated[int, Field(least=1, most=9)]
    """A number."""
    share: float | None
    """Or none."""
    parts: Annotated[tuple[Inner, ...], Field(columns=(Column("n", len, "int64"),))] = ()
    """Several."""
    part: Annotated[Inner | None, Field(columns=(Column("label", lambda one: one.label, "object", "-"),))] = None
    """One."""


def test_records_of_any_dataclass() -> None:
    item = Outer(3, None, (Inner("a"), Inner("b")), Inner("c"))
    record = {"count": 3, "share": None, "parts": [{"label": "a"}, {"label": "b"}], "part": {"label": "c"}}
    assert item.to_record() == record
    assert Outer.from_record(record) == item
    assert Outer.from_record(record | {"share": 2}).share == 2.0
    properties: dict[str, Any] = schema_of(Outer)["properties"]
    assert properties["count"] == {"description": "A number.", "type": "integer", "minimum": 1, "maximum": 9}
    assert "| `count` | integer ≥ 1 ≤ 9 | A number. |" in documentation_of(Outer)
    assert columns_of([item, Outer(1, 0.5)], Outer) == {
        "count": ([3, 1], "int64"),
        "share": ([pytest.approx(math.nan, nan_ok=True), 0.5], "float64"),
        "n": ([2, 0], "int64"),
        "label": (["c", "-"], "object"),
    }
    assert [found[:2] for found in out_of_bounds(Outer(0, None))] == [("count", "a number of at least 1")]
    assert [found[:2] for found in out_of_bounds(Outer(10, None))] == [("count", "a number of at most 9")]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"count": True}, "count: expected int, got True"),
        ({"count": 1.0}, "count: expected int"),
        ({"share": "1"}, "share: expected float or int"),
        ({"share": math.inf}, "share: expected a finite number"),
        ({"parts": {}}, "parts: expected list"),
        ({"parts": [{"label": 1}]}, "label: expected str, got 1"),
        ({"part": {}}, "record: expected the fields label"),
        ({"more": 1}, "record: expected the fields count, share, parts, part"),
    ],
)
def test_other_records_are_refused(change: dict[str, Any], problem: str) -> None:
    good = Outer(3, None).to_record()
    with pytest.raises(InputError, match=problem):
        Outer.from_record(good | change)
