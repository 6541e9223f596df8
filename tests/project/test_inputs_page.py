"""The page on inputs says what the tests show."""

from __future__ import annotations

from collections import Counter

from tests.support.inputs_page import PAGE, page, statements


def test_the_page_is_that_of_the_tests():
    assert PAGE.read_text() == page(), "run  python -m tests.support.inputs_page"


def test_nothing_is_stated_twice():
    counts = Counter((one.kind, one.given) for one in statements())
    assert not [one for one, count in counts.items() if count > 1]
