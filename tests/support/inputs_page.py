"""The page ``docs/inputs.md``, made from the tests: ``python -m tests.support.inputs_page`` writes it.

A test that shows what becomes of a kind of input says so in a marker, in literal texts:

    @pytest.mark.states("Photographs", "16-bit grey", "refused", "scale them to 8 bits first")

The page has a section for each kind, and a row for each statement, with the test that shows it. The second text says
what a user may give, the third is one of "accepted", "converted" and "refused", the fourth says how, or the remedy.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "inputs.md"
VERDICTS = ("accepted", "converted", "refused")
HEAD = """\
# What goes in

What ccx accepts, what it converts and how, and what it refuses. Where an input could be meant in two ways it is
refused, and the message says how to say which. Every row is what a test shows: `python -m tests.support.inputs_page`
makes this page from the tests, and a test compares the two.
"""


class Statement(NamedTuple):
    """What a test states about an input."""

    kind: str
    given: str
    verdict: str
    how: str
    test: str


def statements() -> list[Statement]:
    """Collect what all tests state, by kind of input, then in the order of verdicts and texts."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                for mark in map(_states, node.decorator_list):
                    if mark is not None:
                        found.append(_statement(mark, f"{path.stem}::{node.name}"))
    return sorted(found, key=lambda one: (one.kind, VERDICTS.index(one.verdict), one.given, one.test))


def _states(decorator: ast.expr) -> ast.Call | None:
    is_call = isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.states"
    return decorator if is_call else None


def _statement(mark: ast.Call, test: str) -> Statement:
    try:
        kind, given, verdict, how = (ast.literal_eval(text) for text in mark.args)
    except ValueError as error:
        msg = f"{test}: pytest.mark.states takes four literal texts: kind, given, verdict, how"
        raise ValueError(msg) from error
    if verdict not in VERDICTS or mark.keywords:
        msg = f"{test}: the verdict is {verdict!r}, not one of {VERDICTS}"
        raise ValueError(msg)
    return Statement(kind, given, verdict, how, test)


def page() -> str:
    """Return the page as the tests have it."""
    lines, kind = [HEAD], None
    for one in statements():
        if one.kind != kind:
            kind = one.kind
            lines += [f"\n## {kind}\n", "| you give | it is | how, or what to do | shown by |", "|---|---|---|---|"]
        cells = (one.given, one.verdict, one.how, f"`{one.test}`")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
