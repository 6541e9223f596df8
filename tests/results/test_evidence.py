"""What is stored and shown of chance and of samples held out."""

from __future__ import annotations

import math
from typing import Any

import pytest

import ccx
from ccx.errors import InputError
from ccx.evidence import Chance, HeldOut
from ccx.store.records import schema_of
from tests.support.result_examples import check_schema, example, silent, table_of

CHANCE = Chance(permutations=99, mean=0.0512, maximum=0.1, z=2.57, p=0.01)
HELD_OUT = HeldOut(
    score=0.25,
    iou=0.25,
    intersection=5,
    union=20,
    bitmap_cells=10,
    formula_cells=15,
    chance=Chance(9, 0.25, 0.25, None, 1),
)
FOUND = table_of(example(0, chance=CHANCE, held_out=HELD_OUT), silent(1), example(2))


def test_resolution() -> None:
    assert CHANCE.resolution == 0.01
    assert Chance(1, 0, 0, None, 1).resolution == 0.5


def test_tables_show_what_there_is() -> None:
    assert repr(FOUND).splitlines()[1:] == [
        "unit         range   gain    IoU  null mean  null max    z     p  held out  held out p  formula",
        "   0  1 (0.5, inf)  0.080  0.180      0.051     0.100  2.6  0.01     0.250           1  "
        "((pedestrian OR bicyclist) AND NOT road)",
        f"   1             1         0.000{56 * chr(32)}[silent]",
        f"   2  1 (0.5, inf)  0.080  0.180{56 * chr(32)}((pedestrian OR bicyclist) AND NOT road)",
    ]
    assert [column.header for column in FOUND[2:].table().columns] == ["unit", "range", "gain", "IoU", "formula"]
    only_chance = table_of(example(chance=Chance(9, 0.1, 0.2, None, 0.1)))
    assert [column.header for column in only_chance.table().columns][4:] == ["null mean", "null max", "p", "formula"]
    assert "<td>0.051</td><td>0.100</td><td>2.6</td><td>0.01</td>" in FOUND._repr_html_()


def test_a_narrow_terminal_leaves_room_for_formulas() -> None:
    headings = [column.header for column in FOUND.table(width=80).columns]
    assert headings == ["unit", "range", "gain", "IoU", "p", "held out", "held out p", "formula"]


@pytest.mark.needs("pandas")
def test_pandas() -> None:
    frame = FOUND.to_pandas()
    columns = ["null_mean", "null_maximum", "z", "p", "held_out_iou", "held_out_score", "held_out_p"]
    assert frame.loc[0, columns].tolist() == [0.0512, 0.1, 2.57, 0.01, 0.25, 0.25, 1]
    assert all(math.isnan(number) for number in frame.loc[1, columns])


def test_records_that_are_damaged_are_refused() -> None:
    schema = schema_of(ccx.Explanation)
    good = FOUND[0].to_record()
    assert check_schema(good, schema)
    for field in ("chance", "held_out"):
        for name in good[field]:
            for bad in [..., None, "x", True, [], {}]:
                part: dict[str, Any] = good[field] | {name: bad}
                if bad is ...:
                    del part[name]
                damaged = good | {field: part}
                if not check_schema(damaged, schema):
                    with pytest.raises(InputError):
                        ccx.Explanation.from_record(damaged)
    with pytest.raises(InputError, match="p: expected a finite number"):
        Chance.from_record(CHANCE.to_record() | {"p": math.inf})
