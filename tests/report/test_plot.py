"""`ccx.plot`: figures that show what was found."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest

import ccx
from ccx.errors import InputError, MissingExtraError
from tests.support.reports import explained, tiny

HOSTILE = ["$x^{", "<b>sky</b>", "line\nbreak", "d"]


def rows_of(figure):
    """Return (title, pictures drawn) of each row."""
    return [(part.get_suptitle(), sum(bool(axis.images) for axis in part.axes)) for part in figure.subfigs]


@pytest.mark.needs("matplotlib")
def test_a_unit_has_a_row_for_each_range_highest_first():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    images = np.zeros((4, 12, 16, 3), np.uint8)
    figure = ccx.plot(found.of_unit(0), concepts, activations=activations, images=images, pictures=3)
    rows = rows_of(figure)
    assert [f"range {item.range_index} " in title for item, (title, _) in zip(reversed(found[:3]), rows, strict=True)]
    for item, (title, n_pictures) in zip(reversed(list(found.of_unit(0))), rows, strict=True):
        assert f"range {item.range_index} (" in title
        assert f"IoU {item.iou:.3f}  {item.formula}" in title
        assert n_pictures == 3
    one = rows_of(ccx.plot(found[1], concepts, activations=activations, pictures=3))
    assert [title for title, _ in one] == [rows[1][0]]


@pytest.mark.needs("matplotlib")
def test_what_lies_outside_the_bitmap_is_dark():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    figure = ccx.plot(found[2], concepts, activations=activations, pictures=1)
    (axis,) = [axis for axis in figure.subfigs[0].axes if axis.images]
    shade = np.asarray(axis.images[1].get_array())[..., 3]
    sample = int(axis.get_title().partition(":")[0])
    lower, upper = found[2].range
    fires = (activations[sample, 0] > lower) & (activations[sample, 0] < upper)
    np.testing.assert_array_equal(shade == 0, fires)


@pytest.mark.needs("matplotlib")
@pytest.mark.parametrize("shape", [(1, 7), (5, 6)])
def test_lines_run_along_the_edges_of_cells(shape):
    """Tokens lie on a grid of one row: a line through the centres of cells would cut every corner."""
    rng = np.random.default_rng(0)
    masks = rng.random((2, 1, *shape)) < 0.5
    bitmaps = masks[:1] | masks[1:]
    found = ccx.explain_bitmaps(bitmaps, masks, length=1)
    figure = ccx.plot(found[0], ccx.Concepts.from_masks(masks), bitmaps=bitmaps, pictures=1)
    (axis,) = [axis for axis in figure.subfigs[0].axes if axis.images]
    for drawn, cells in zip(axis.collections, (bitmaps[0, 0], masks[int(str(found[0].formula)) - 1, 0]), strict=True):
        edges = {
            (min(one, other), max(one, other))
            for path in drawn.get_paths()
            for corners in [[tuple(corner) for corner in path.vertices.astype(int).tolist()]]
            for start, end in itertools.pairwise(corners)
            for one, other in itertools.pairwise(lattice(start, end))
        }
        padded = np.pad(cells, 1).astype(int)
        assert len(edges) == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()


def lattice(start, end):
    """Return all lattice points of an upright or level line."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    assert 0 in (end[0] - start[0], end[1] - start[1])
    return [
        tuple(s + (e - s) * step // max(length, 1) for s, e in zip(start, end, strict=True))
        for step in range(length + 1)
    ]


@pytest.mark.needs("matplotlib")
def test_an_overview_counts_ranges_and_concepts():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    figure = ccx.plot(found, concepts)
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == len(found.explained)
    names = [label.get_text() for label in right.get_yticklabels()]
    assert set(names) == {name for name in concepts.names for item in found.explained if name in str(item.formula)}


@pytest.mark.needs("matplotlib")
def test_hostile_names_and_silent_units_can_be_drawn():
    concepts, activations = tiny(names=HOSTILE)
    found = explained(concepts, activations)
    for what in (found, found.of_unit(0), found.of_unit(2)):
        file = io.BytesIO()
        ccx.plot(what, concepts, activations=activations).savefig(file)
        assert file.getvalue().startswith(b"\x89PNG")
    assert rows_of(ccx.plot(found.of_unit(2), concepts, activations=activations)) == [("unit 2: silent", 0)]


@pytest.mark.needs("matplotlib")
def test_arguments_must_belong_together():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    with pytest.raises(InputError, match="activations: expected what was explained"):
        ccx.plot(found[0], concepts)
    with pytest.raises(InputError, match="found: expected Explanation"):
        ccx.plot("unit 1", concepts)
    with pytest.raises(InputError, match="found: expected at least one"):
        ccx.plot(found[:0], concepts)
    with pytest.raises(InputError, match="concepts: expected those"):
        ccx.plot(found, tiny(names=list("abcd"))[0])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    concepts, activations = tiny()
    with pytest.raises(MissingExtraError, match=r"ccx\[plot\]"):
        ccx.plot(explained(concepts, activations), concepts)
