"""The report as a folder: a page a unit, photographs as files; and what bounds the time that pictures take."""

from __future__ import annotations

import re

import numpy as np
import pytest

import ccx
from ccx.errors import InputError, StoreError
from ccx.kernels import unpack, upsample_pack
from ccx.report import pictures as chosen
from ccx.report import render, report_path, write_report
from ccx.report.charts import activation_chart
from tests.support.full_disk import file_size_limit
from tests.support.reports import Checker, explained, tiny


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def page(folder, name):
    checker = Checker()
    checker.feed((folder / name).read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_every_page_and_photograph_that_a_page_names_is_there(tmp_path):
    concepts, activations = tiny()
    found = explained(concepts, activations)
    images = np.arange(4 * 12 * 16 * 3, dtype=np.uint8).reshape(4, 12, 16, 3)
    folder = tmp_path / "report"
    write_report(folder, found, concepts, activations=activations, images=images)
    names = set(files(folder))
    assert {f"units/unit-{unit}.html" for unit in found.units} < names
    assert {name for name in names if name.startswith("photos/")}
    for name in [name for name in names if name.endswith(".html")]:
        checker = page(folder, name)
        for target in checker.targets:
            path, _, anchor = target.partition("#")
            there = (folder / name).parent / path if path else folder / name
            assert there.is_file(), (name, target)
            if anchor:
                assert anchor in page(there.parent, there.name).ids
        assert not re.search(r"https?:|//[a-z]|data:", (folder / name).read_text(encoding="utf-8"))
    shown = [name for name in names if name.startswith("units/") and b"<figure tabindex" in files(folder)[name]]
    assert len(shown) == 2  # the third unit is silent


def test_a_unit_has_the_same_cards_in_a_file_and_in_a_folder(tmp_path):
    concepts, activations = tiny()
    found = explained(concepts, activations)
    write_report(tmp_path / "report", found, concepts, activations=activations)
    single = render(found, concepts, activations=activations)
    for unit in found.units:
        text = (tmp_path / "report" / "units" / f"unit-{unit}.html").read_text(encoding="utf-8")
        body = text[text.index("</div>", text.index('<div class="head">')) : text.index("</article>")]
        assert body.strip() in single


def test_only_a_report_is_replaced(tmp_path):
    concepts, activations = tiny()
    found = explained(concepts, activations)
    folder = tmp_path / "report"
    folder.mkdir()
    write_report(folder, found, concepts)
    (folder / "units" / "stale.html").write_text("old")
    write_report(folder, found, concepts)
    assert "units/stale.html" not in files(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for other in ("mine", "file"):
        with pytest.raises(StoreError, match="exists and holds no report"):
            write_report(tmp_path / other, found, concepts)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(tmp_path / "missing" / "report", found, concepts)


@pytest.mark.parametrize("n_bytes", [0, 1000, 8000])
def test_a_full_disk_leaves_the_old_report(tmp_path, n_bytes):
    concepts, activations = tiny()
    found = explained(concepts, activations)
    folder = tmp_path / "report"
    write_report(folder, found, concepts, title="old")
    old = files(folder)
    with file_size_limit(n_bytes), pytest.raises(StoreError):
        write_report(folder, found, concepts, activations=activations, title="new")
    assert files(folder) == old
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def many(n_samples):
    """Return concepts of two halves and activations whose samples fire ever more, in a shuffled order."""
    rng = np.random.default_rng(0)
    masks = np.zeros((2, n_samples, 4, 6), bool)
    masks[0, :, :2] = masks[1, :, :, :3] = True
    share = rng.permutation(n_samples) / n_samples
    activations = (rng.random((n_samples, 1, 4, 6)) < share[:, None, None, None]).astype(np.float32)
    return ccx.Concepts.from_masks(masks, ["upper", "left"]), activations


def test_of_many_samples_those_that_fire_most_are_looked_at(monkeypatch):
    monkeypatch.setattr(chosen, "_N_CANDIDATES", 8)
    concepts, activations = many(50)
    found = ccx.explain(activations, concepts, ranges=[(0.5, 2)], length=2, progress=False)
    (pictures,) = [
        chosen.Pictures(concepts, activations, None, None, 3, chosen.FINE).of(item) for item in found.explained
    ]
    fires = unpack(upsample_pack(activations[:, 0], (4, 6), (0.5, 2)), 24)
    holds = concepts.mask(found[0].formula).reshape(50, 24)
    candidates = np.argsort(-fires.sum(axis=1), kind="stable")[:8]
    shared = (fires & holds)[candidates].sum(axis=1)
    assert sorted(shared)[-2:] == sorted((fires & holds)[picture.sample].sum() for picture in pictures[:2])
    for picture in pictures:
        assert picture.sample in candidates
        both, either = (fires & holds)[picture.sample].sum(), (fires | holds)[picture.sample].sum()
        assert picture.iou == both / either
    with pytest.raises(InputError, match="cells"):  # the first explanation is compared on all samples
        chosen.Pictures(concepts, 1 - activations, None, None, 3, chosen.FINE).of(found[0])
    bitmaps = (activations[:, 0] > 0.5)[None]
    of_bitmaps = ccx.explain_bitmaps(bitmaps, concepts, length=2, progress=False)
    assert chosen.Pictures(concepts, None, bitmaps, None, 3, chosen.FINE).of(of_bitmaps[0]) == pictures


def test_activation_chart_counts_every_value():
    concepts, activations = tiny()
    found = explained(concepts, activations)
    chart = activation_chart(activations[:, 0], list(found.of_unit(0)))
    counts, _ = np.histogram(activations[:, 0], bins=len(chart.bars))
    assert sum(height > 0 for height in chart.bars) <= np.count_nonzero(counts) + 1
    assert max(chart.bars) == 1
    assert [number for *_, number in chart.bands] == [1, 2, 3]
    assert all(0 <= start <= end <= 1 for start, end, _ in chart.bands)
    assert activation_chart(np.zeros((2, 3, 3), np.float32), []) is None


def test_many_units_make_a_folder(tmp_path):
    concepts, activations = tiny()
    many = np.repeat(activations, 34, axis=1)
    found = ccx.explain(many, concepts, clusters=1, length=1, progress=False)
    assert report_path(tmp_path, found) == tmp_path / "report"
    assert report_path(tmp_path, found[:100]) == tmp_path / "report.html"
