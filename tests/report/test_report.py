"""The report: a pure page, whole in itself, escaped, and right about what it draws."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import ccx
from ccx.errors import DTypeError, InputError, ShapeError, StoreError
from ccx.formula import And, Concept, Not, Or, parse
from ccx.report import KnownUnit, render, write_report
from ccx.report.drawing import drawable, outline, photo
from ccx.report.painting import Painter, shown_name
from tests.support.reports import checked, explained, tiny

GOLD = Path(__file__).parent / "gold" / "report.html"
HOSTILE = [
    '<script>alert("1")</script>',
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}",
    "a & b",
    "line\nbreak\u202e",
    "",
]


def scrubbed(page):
    return page.replace(ccx.__version__, "VERSION")


def test_gold_file():
    concepts, activations = tiny()
    found = explained(concepts, activations, top=3)
    known = KnownUnit(
        "planted", parse("(sky AND NOT tree)"), explained(concepts, activations[:, :1]), activations[:, :1]
    )
    page = scrubbed(
        render(found, concepts, activations=activations, title="Gold", notes=["A note."], known=[known], pictures=2)
    )
    checked(page)
    if os.environ.get("CCX_UPDATE_GOLD"):
        GOLD.parent.mkdir(exist_ok=True)
        GOLD.write_text(page, encoding="utf-8")
    assert page == GOLD.read_text(encoding="utf-8"), "CCX_UPDATE_GOLD=1 writes it anew; then look at the difference"


def test_pure_and_self_contained(tmp_path):
    concepts, activations = tiny()
    found = explained(concepts, activations)
    images = np.arange(4 * 12 * 16 * 3, dtype=np.uint8).reshape(4, 12, 16, 3)
    page = render(found, concepts, activations=activations, images=images)
    assert page == render(found, concepts, activations=activations, images=images, threads=1)
    without_data = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe|src=|fetch\(|import\(", without_data)
    assert "default-src 'none'" in page
    checker = checked(page)
    assert checker.tags.count("symbol") == 4
    write_report(tmp_path / "report.html", found, concepts, activations=activations, images=images)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_hostile_names_are_escaped():
    concepts, activations = tiny(names=HOSTILE[:4], categories=[HOSTILE[0], HOSTILE[1], HOSTILE[4], HOSTILE[2]])
    found = explained(concepts, activations, top=2)
    known = KnownUnit(HOSTILE[1], Concept(HOSTILE[0]), explained(concepts, activations[:, :1]))
    page = render(
        found, concepts, activations=activations, title=HOSTILE[0], notes=HOSTILE, unit_names=HOSTILE[:3], known=[known]
    )
    checker = checked(page)
    assert checker.tags.count("script") == 1
    assert "img" not in checker.tags
    assert "{{ 7 * 7 }}" in page
    assert any(text == HOSTILE[0] for text in checker.texts)


def test_names_that_cannot_be_seen_are_shown_escaped():
    assert shown_name("a\u202eb") == '"a\\u{202e}b"'
    assert shown_name("Straße 1") == "Straße 1"
    concepts, activations = tiny(names=["a\u202eb", "\ud800", "c\nd", "d"])
    page = render(explained(concepts, activations), concepts, title="\ud800")
    assert "\u202e" not in page
    page.encode("utf-8")


def test_statuses_are_shown():
    concepts, activations = tiny()
    page = render(explained(concepts, activations, min_iou=0.99), concepts, activations=activations)
    assert "silent: the unit never fires" in page
    assert "below the minimum" in page
    assert "nothing was explained" in page
    checked(page)


def test_without_activations_there_are_no_pictures():
    concepts, activations = tiny()
    page = render(explained(concepts, activations), concepts)
    assert "<figure tabindex" not in page
    assert "In the pictures" not in page
    checked(page)


def test_pictured_units_bounds_the_pictures():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    n_all, n_one, n_none = (
        render(found, concepts, activations=activations, pictured_units=n).count("<figure tabindex") for n in (9, 1, 0)
    )
    assert n_all > n_one > n_none == 0
    assert render(found, concepts, activations=activations, pictures=0).count("<figure tabindex") == 0


def test_known_unit_verdict_is_logical():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    own = explained(concepts, activations[:, :1])
    same = KnownUnit("x", And(Not(Concept("tree")), Concept("sky")), own)
    assert "✓ found" in render(found, concepts, known=[same])
    assert "✗ not found" in render(found, concepts, known=[dataclasses.replace(same, formula=Concept("sky"))])


def test_bitmaps_and_invalid_cells_are_drawn():
    concepts, _ = tiny()
    bitmaps = np.stack([concepts.mask("sky"), concepts.mask("NOT road")])
    found = ccx.explain_bitmaps(bitmaps, concepts, length=1, progress=False)
    page = render(found, concepts, bitmaps=bitmaps)
    assert page.count("<figure tabindex") >= 4
    assert page == render(found, concepts, bitmaps=ccx.kernels.pack(bitmaps.reshape(2, 4, -1)))
    valid = np.ones((4, 6, 8), bool)
    valid[:, :, :4] = False
    halved = ccx.Concepts.from_masks(np.ones((1, 4, 6, 8), bool), ["all"], valid=valid)
    values = np.ones((4, 1, 6, 8), np.float32)
    one = ccx.explain(values, halved, ranges=[(0, 2)], progress=False)
    assert 'M4 0h4v6h-4z"/>' in render(one, halved, activations=values)


@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 5)])
def test_values_and_tokens(shape):
    values = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    masks = np.zeros((2, 4, 1, shape[2] if len(shape) > 2 else 1), bool)
    masks[0, 2:] = masks[1, ::2] = True
    concepts = ccx.Concepts.from_masks(masks)
    found = ccx.explain(values, concepts, clusters=2, progress=False)
    checked(render(found, concepts, activations=values))


def test_arguments_must_belong_together():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    other, _ = tiny(names=("a", "b", "c", "d"))
    with pytest.raises(InputError, match="concepts: expected those that were explained"):
        render(found, other)
    with pytest.raises(InputError, match=r"activations: expected those .* unit 0 .*got \d+ cells"):
        render(found, concepts, activations=activations + 1)
    with pytest.raises(InputError, match=r"activations: expected those .* cells shared with the formula .*same order"):
        render(found, concepts, activations=activations[::-1])
    with pytest.raises(InputError, match="expected unit 1, got 1 units"):
        render(found, concepts, activations=activations[:, :1])
    with pytest.raises(ShapeError, match="4 samples"):
        render(found, concepts, activations=activations[:3])
    with pytest.raises(InputError, match="images: expected 4 images, got 3"):
        render(found, concepts, activations=activations, images=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="unit_names: expected at least 3 names"):
        render(found, concepts, unit_names=["only one"])
    with pytest.raises(InputError, match="no activations beside them"):
        render(found, concepts, activations=activations, bitmaps=np.zeros((1, 4, 6, 8), bool))


def test_a_failed_write_leaves_the_old_report(tmp_path):
    concepts, activations = tiny()
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(InputError):
        write_report(path, explained(concepts, activations), concepts, activations=activations + 1)
    assert path.read_text() == "old"
    with pytest.raises(StoreError):
        write_report(tmp_path / "missing" / "report.html", explained(concepts, activations), concepts)


def test_units_are_ranked_by_what_goes_beyond_always_true_formulas():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    assert [item.iou_gain for item in found] == [
        None if item.formula is None else item.iou - item.bitmap_cells / concepts.n_cells for item in found
    ]
    page = render(found, concepts)
    places = [page.index(f'id="unit-{item.unit}"') for item in found.best()]
    assert places == sorted(places)
    old = ccx.Explanations(
        [dataclasses.replace(item, iou_gain=None) for item in found],
        settings=found.settings, concepts_hash=found.concepts_hash, version=found.version,
    )  # fmt: skip
    assert "gain 0." in page
    assert "gain 0." not in render(old, concepts)  # of an older version, which stored none


FORMULAS = st.recursive(
    st.sampled_from("abcd").map(Concept),
    lambda inner: st.one_of(inner.map(Not), st.builds(And, inner, inner), st.builds(Or, inner, inner)),
    max_leaves=8,
)


@given(FORMULAS)
def test_pieces_mean_the_formula(formula):
    concepts, _ = tiny()
    pieces = Painter(concepts).pieces(formula)
    text = " ".join(piece.text for piece in pieces)
    truth = {name: np.array([(row >> i) & 1 for row in range(16)], bool) for i, name in enumerate("abcd")}
    # Python's own precedence (not, and, or) is only used where parentheses do not decide; chains are of one kind.
    python = text.replace("AND", "&").replace("OR", "|").replace("NOT", "~")
    found = eval(python, {"__builtins__": {}}, truth)
    np.testing.assert_array_equal(found, formula.evaluate(truth.__getitem__))
    assert not re.search(r"\b[a-d] AND [a-d] OR|OR [a-d] AND", text)


def filled(path, shape):
    """Fill an SVG path of M, h, v, z by the even-odd rule."""
    inside = np.zeros(shape, np.int64)
    for contour in filter(None, path.split("z")):
        x, y = map(int, re.match(r"M(-?\d+) (-?\d+)", contour).groups())
        for direction, number in re.findall(r"([hv])(-?\d+)", contour):
            length = int(number)
            if direction == "h":
                # Crossing a horizontal edge flips all cells below it.
                inside[y:, min(x, x + length) : max(x, x + length)] ^= 1
                x += length
            else:
                y += length
    return inside.astype(bool)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outline_encloses_the_bitmap(bitmap):
    np.testing.assert_array_equal(filled(outline(bitmap), bitmap.shape), bitmap)


def test_outline_of_empty_full_and_touching():
    assert outline(np.zeros((3, 5), bool)) == ""
    assert outline(np.ones((3, 5), bool)) == "M0 0h5v3h-5z"
    assert outline(np.eye(2, dtype=bool)).count("z") in (1, 2)


@pytest.mark.parametrize(
    ("shape", "wanted"), [((64, 64), (64, 64)), ((129, 3), (65, 1)), ((1, 1000), (1, 125)), ((256, 128), (128, 64))]
)
def test_drawable_thins(shape, wanted):
    found = drawable(np.ones((2, *shape), bool), 128)
    assert max(found.shape[1:]) <= 128
    assert found.shape[0] == 2
    assert all(abs(got - want) <= 1 for got, want in zip(found.shape[1:], wanted, strict=True))


def test_photos_of_every_kind(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    kinds = [
        pixels, pixels[:, :, :1], pixels[:, :, 0],
        np.dstack([pixels, np.full((20, 40), 255, np.uint8)]), pixels / 255.0,
        tmp_path / "one.png", str(tmp_path / "one.png"), file.getvalue(),
    ]  # fmt: skip
    for image in kinds:
        found = photo(image, 10, "images[0]")
        assert found.aspect == 2
        assert found.jpeg[:2] == b"\xff\xd8"


def test_photos_that_are_none(tmp_path):
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(StoreError, match=r"no\.png: no picture"):
        photo(tmp_path / "no.png", 10, "images[0]")
    with pytest.raises(StoreError, match=r"images\[0\]: no picture"):
        photo(b"no image", 10, "images[0]")
    with pytest.raises(StoreError):
        photo(tmp_path / "missing.png", 10, "images[0]")
    with pytest.raises(ShapeError, match=r"images\[0\]: expected \[H, W\] or \[H, W, 3\], got uint8\[3, 8, 9\]"):
        photo(np.zeros((3, 8, 9), np.uint8), 10, "images[0]")
    with pytest.raises(DTypeError, match="uint8, or float"):
        photo(np.zeros((8, 9), np.int64), 10, "images[0]")
    with pytest.raises(InputError, match="expected an image, got object"):
        photo(object(), 10, "images[0]")
