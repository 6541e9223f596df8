"""Every metric against plain definitions in exact fractions; forms of input; zero denominators; bad input."""

from __future__ import annotations

import doctest
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ccx
from ccx import kernels, metrics
from ccx.errors import BackendError, DTypeError, InputError, ShapeError
from ccx.metrics import METRICS, Overlap

PAIRWISE = [
    "iou", "sample_iou", "activations_coverage", "detection_accuracy", "samples_coverage", "explanation_coverage",
    "avg_overlapping_bitmap_size", "avg_overlapping",
]  # fmt: skip
GRIDS = st.sampled_from([(1, 1), (7, 9), (8, 8), (5, 13), (13, 5), (1, 127), (128, 1), (41, 25)])
SHARES = st.sampled_from([0.0, 0.02, 0.5, 1.0])


def expected(bitmap, mask, n_cells=None):
    """Return every metric as a fraction, cell by cell as the definitions say: bool[N, P] each."""
    pairs = [(set(np.flatnonzero(a)), set(np.flatnonzero(s))) for a, s in zip(bitmap, mask, strict=True)]
    sizes = [bitmap.shape[1]] * len(pairs) if n_cells is None else [int(n) for n in n_cells]

    def share(part, whole):
        return Fraction(part, whole) if whole else Fraction(0)

    def mean(values):
        return sum(values, Fraction(0)) / len(values) if values else Fraction(0)

    both = sum(len(a & s) for a, s in pairs)
    touched = [(a, s, n) for (a, s), n in zip(pairs, sizes, strict=True) if a & s]
    return {
        "iou": share(both, sum(len(a | s) for a, s in pairs)),
        "mean_sample_iou": mean([share(len(a & s), len(a | s)) for a, s in pairs]),
        "activations_coverage": share(both, sum(len(a) for a, _ in pairs)),
        "detection_accuracy": share(both, sum(len(s) for _, s in pairs)),
        "samples_coverage": share(len(touched), sum(bool(s) for _, s in pairs)),
        "explanation_coverage": share(len(touched), sum(bool(a) for a, _ in pairs)),
        "avg_mask_size": mean([Fraction(len(s), n) for (_, s), n in zip(pairs, sizes, strict=True) if s]),
        "avg_bitmap_size": mean([Fraction(len(a), n) for (a, _), n in zip(pairs, sizes, strict=True) if a]),
        "avg_overlapping_bitmap_size": mean([Fraction(len(a), n) for a, _, n in touched]),
        "avg_overlapping": mean([Fraction(len(a & s), n) for a, s, n in touched]),
    }


def assert_metrics(got, want):
    assert list(got) == list(want) == list(METRICS)
    for name, value in got.items():
        assert abs(value - float(want[name])) <= 1e-15, name  # NaN fails


@st.composite
def problems(draw):
    """Draw bool[N, P] twice, often sparse, with empty and full samples, and the grid."""
    height, width = draw(GRIDS)
    n_samples = draw(st.sampled_from([0, 1, 2, 5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    both = []
    for _ in range(2):
        cells = rng.random((n_samples, height * width)) < draw(SHARES)
        for sample in cells:
            if rng.random() < 0.3:
                sample[:] = rng.random() < 0.3
        both.append(cells)
    return both[0], both[1], (height, width)


@given(problems(), st.sampled_from([1, 2, 3]))
def test_all_forms_give_the_defined_values(problem, threads):
    bitmap, mask, (height, width) = problem
    want = expected(bitmap, mask)
    grids = [one.reshape(-1, height, width) for one in (bitmap, mask)]
    strided = [np.asfortranarray(one) for one in (bitmap, mask)]
    for a, s in ([bitmap, mask], grids, strided):
        assert_metrics(Overlap.of(a, s, threads=threads).to_dict(), want)
    packed = [kernels.pack(one) for one in (bitmap, mask)]
    assert_metrics(Overlap.of(*packed, n_cells=height * width, threads=threads).to_dict(), want)


@given(problems())
def test_functions_give_what_the_overlap_gives(problem):
    bitmap, mask, _ = problem
    overlap = Overlap.of(bitmap, mask)
    for name in PAIRWISE:
        np.testing.assert_array_equal(getattr(metrics, name)(bitmap, mask), getattr(overlap, name), strict=True)
    assert metrics.avg_mask_size(mask) == overlap.avg_mask_size
    assert metrics.avg_mask_size(bitmap) == overlap.avg_bitmap_size
    assert overlap.sample_iou.shape == (len(bitmap),)
    assert float(overlap.mean_sample_iou) == (overlap.sample_iou.mean() if len(bitmap) else 0)
    for name in ("bitmap", "mask", "shared"):
        np.testing.assert_array_equal(
            getattr(overlap, f"{name}_samples"), np.count_nonzero(getattr(overlap, f"{name}_cells")), strict=False
        )


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 63, 64, 65]))
def test_many_at_once_give_what_one_by_one_gives(seed, n_cells):
    rng = np.random.default_rng(seed)
    bitmaps, masks = rng.random((2, 4, n_cells)) < 0.3, rng.random((3, 4, n_cells)) < 0.3
    masks[1] = False
    one_by_one = [[Overlap.of(a, s).to_dict() for s in masks] for a in bitmaps]
    table = {name: np.array([[cell[name] for cell in row] for row in one_by_one]) for name in METRICS}
    # one bitmap, many masks, flat and packed; many bitmaps, one mask; all pairs
    several = Overlap.of(bitmaps[0], masks).to_dict()
    packed = Overlap.of(kernels.pack(bitmaps[0]), kernels.pack(masks), n_cells=n_cells).to_dict()
    other = Overlap.of(bitmaps, masks[0]).to_dict()
    pairs = Overlap.of(bitmaps[:, None, :, None], masks[:, :, None]).to_dict()  # [M, 1, N, 1, P], [F, N, 1, P]
    packed_pairs = Overlap.of(kernels.pack(bitmaps)[:, None], kernels.pack(masks), n_cells=n_cells).to_dict()
    for name, values in table.items():
        for got, want in (
            (several, values[0]), (packed, values[0]), (other, values[:, 0]), (pairs, values), (packed_pairs, values)
        ):  # fmt: skip
            np.testing.assert_array_equal(got[name], want, strict=True)
    assert metrics.sample_iou(bitmaps[0], masks).shape == (3, 4)


def test_three_axes_are_samples_and_grid_unless_the_other_has_two():
    cells = np.random.default_rng(0).random((2, 3, 5)) < 0.5
    assert np.shape(metrics.iou(cells, cells)) == ()
    assert metrics.iou(cells[0], cells).shape == (2,)


@pytest.mark.parametrize("n_samples", [0, 1, 3])
@pytest.mark.parametrize(("in_bitmap", "in_mask"), [(False, False), (False, True), (True, False)])
def test_a_share_of_nothing_is_zero(n_samples, in_bitmap, in_mask):
    bitmap, mask = (np.full((n_samples, 70), value) for value in (in_bitmap, in_mask))
    got = Overlap.of(bitmap, mask).to_dict()
    present = {"avg_bitmap_size": in_bitmap, "avg_mask_size": in_mask}
    assert got == {name: float(present.get(name, False) and n_samples > 0) for name in METRICS}
    assert all(type(value) is np.float64 for value in got.values())
    np.testing.assert_array_equal(metrics.sample_iou(bitmap, mask), np.zeros(n_samples), strict=True)


def test_counts_beyond_32_bits_stay_exact():
    cells = np.array([2**31 - 1] * 4, np.int64)
    overlap = Overlap(cells, cells, cells - 1, n_cells=2**31)
    assert overlap.iou == (4 * (2**31 - 2)) / (4 * 2**31)
    assert overlap.avg_mask_size == (2**31 - 1) / 2**31


def test_samples_may_differ_in_their_number_of_cells():
    rng = np.random.default_rng(1)
    valid = rng.random((6, 65)) < 0.7
    valid[2] = False
    bitmap, mask = (rng.random((6, 65)) < 0.4) & valid, (rng.random((6, 65)) < 0.4) & valid
    n_cells = valid.sum(axis=1)
    want = expected(bitmap, mask, n_cells)
    assert_metrics(Overlap.of(bitmap, mask, n_cells=n_cells).to_dict(), want)
    packed = Overlap.of(kernels.pack(bitmap), kernels.pack(mask), n_cells=n_cells)
    assert_metrics(packed.to_dict(), want)
    assert abs(metrics.avg_mask_size(mask, n_cells=n_cells) - float(want["avg_mask_size"])) <= 1e-15


CELLS = np.zeros((3, 65), bool)
ROWS = np.zeros((3, 2), np.uint64)


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (DTypeError, "bitmap: .*compare first: bitmap != 0", (CELLS.astype(int), CELLS)),
        (DTypeError, "mask: .*compare first", (CELLS, CELLS.astype(np.uint8))),
        (DTypeError, "mask: .*compare first", (CELLS, CELLS.astype(np.float32))),
        (DTypeError, "bitmap", ("text", CELLS)),
        (ShapeError, r"a single sample is \[1, P\]", (CELLS[0], CELLS[0])),
        (ShapeError, "mask: expected the samples and cells of bool", (CELLS, CELLS[:1])),  # samples never broadcast
        (ShapeError, "mask", (CELLS, CELLS[:, :64])),
        (ShapeError, "mask", (CELLS, CELLS[:, :1])),
        (ShapeError, "mask", (CELLS, ROWS)),
        (ShapeError, "mask", (ROWS, np.zeros((3, 1), np.uint64))),
        (ShapeError, "mask", (np.zeros((2, 3, 5, 13), bool), np.zeros((4, 3, 5, 13), bool))),
        (ShapeError, "mask", (CELLS, CELLS.reshape(3, 5, 13))),  # read as [F, N, P]
    ],
)
def test_arrays_that_do_not_fit(kind, message, arguments):
    for function in (metrics.iou, metrics.sample_iou, metrics.explanation_coverage):
        with pytest.raises(kind, match=message):
            function(*arguments)


def test_packed_rows_need_their_number_of_cells_for_sizes_only():
    assert metrics.iou(ROWS, ROWS) == 0
    with pytest.raises(InputError, match="n_cells: expected the number of cells"):
        metrics.avg_overlapping(ROWS, ROWS)
    ones = np.array([[1, 3]], np.uint64)  # bits 0, 64, 65
    for n_cells, message in [
        (64, "takes 2 words"), (129, "takes 2 words"), (-1, "takes 2 words"), (65, "zeros in the bits behind bit 64"),
        (np.array([2]), "at least the cells that are set"), (np.array([66, 66]), "int64.1."), (np.array([66.0]), "int"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            metrics.avg_mask_size(ones, n_cells=n_cells)
    assert metrics.avg_mask_size(ones, n_cells=66) == 3 / 66
    with pytest.raises(InputError, match="n_cells: expected 65, got 66"):
        metrics.avg_mask_size(CELLS, n_cells=66)


@pytest.mark.parametrize("module", [metrics.overlap, metrics.masking])
def test_examples(module):
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


# -- cosine


def cosine_expected(before, after, limits):
    total = 0.0
    for first, second in zip(before.tolist(), after.tolist(), strict=True):
        pairs = [(x, y) for x, y in zip(first, second, strict=True) if limits[0] < x < limits[1]]
        norm = math.sqrt(math.fsum(x * x for x, _ in pairs)) * math.sqrt(math.fsum(y * y for _, y in pairs))
        total += math.fsum(x * y for x, y in pairs) / norm if norm else 0.0
    return total / len(before) if len(before) else 0.0


# 0.1 as float32 lies above 0.1: inside a range that begins there
@example(before=[[0.1, 0.0, 0.0]], after=[[1.0, 1.0, 1.0]], limits=(0.1, math.inf))
@given(
    before=st.lists(st.lists(st.integers(-3, 3).map(lambda n: n / 10), min_size=3, max_size=3), max_size=4),
    after=st.lists(st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=4, max_size=4),
    limits=st.sampled_from([(-0.2, 0.2), (0.0, math.inf), (-math.inf, math.inf), (0.1, 0.3), (5.0, 6.0)]),
)
def test_cosine_is_the_mean_over_samples_inside_an_open_range(before, after, limits):
    first = np.array(before, np.float32).reshape(-1, 3)
    second = np.array(after[: len(before)], np.float32).reshape(-1, 3)
    got = metrics.cosine_concept_masking_score(first, second, limits)
    assert type(got) is np.float64
    assert abs(got - cosine_expected(first, second, limits)) <= 1e-12
    spread = metrics.cosine_concept_masking_score(first[:, None, :, None], second[:, None, :, None], limits)
    assert spread == got


def test_cosine_of_equal_maps_is_one_and_of_opposite_ones_minus_one():
    maps = np.random.default_rng(0).random((50, 7, 7)).astype(np.float32)
    assert abs(metrics.cosine_concept_masking_score(maps, maps, (-1, 2)) - 1) <= 1e-15
    assert abs(metrics.cosine_concept_masking_score(maps, -maps, (-1, 2)) + 1) <= 1e-15
    assert metrics.cosine_concept_masking_score(maps[:0], maps[:0], (0, 1)) == 0
    tiny = maps * np.float32(1e-30)
    assert abs(metrics.cosine_concept_masking_score(tiny, tiny, (-1, 2)) - 1) <= 1e-6


def test_cosine_never_gives_nan_in_silence():
    maps = np.ones((2, 3), np.float32)
    for bad in (np.nan, np.inf, 1e300):
        after = np.array([[1, 1, 1], [1, bad, 1]])
        with pytest.raises(InputError, match="after: expected finite"):
            metrics.cosine_concept_masking_score(maps, after, (0, 2))
        outside = np.where(np.isfinite(after) & (after < 2), maps, np.float32(5))
        assert abs(metrics.cosine_concept_masking_score(outside, after, (0, 2)) - 1) <= 1e-15
    assert metrics.cosine_concept_masking_score(np.full((1, 3), np.nan), maps[:1], (0, 2)) == 0


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (DTypeError, "before", (np.ones((2, 3), int), np.ones((2, 3)), (0, 1))),
        (ShapeError, "after", (np.ones((2, 3)), np.ones((3, 2)), (0, 1))),
        (ShapeError, "before", (np.float64(1)[...], np.ones(1), (0, 1))),
        (InputError, "lower < upper", (np.ones((2, 3)), np.ones((2, 3)), (1, 1))),
        (InputError, "lower < upper", (np.ones((2, 3)), np.ones((2, 3)), (0, math.nan))),
        (InputError, "lower < upper", (np.ones((2, 3)), np.ones((2, 3)), (0, 1, 2))),
        (InputError, "lower < upper", (np.ones((2, 3)), np.ones((2, 3)), None)),
    ],
)
def test_cosine_of_bad_input(kind, message, arguments):
    with pytest.raises(kind, match=message):
        metrics.cosine_concept_masking_score(*arguments)


# -- explanations


@pytest.fixture(scope="module")
def explained():
    rng = np.random.default_rng(4)
    masks = rng.random((6, 9, 5, 13)) < 0.25
    valid = rng.random((9, 5, 13)) < 0.8
    valid[3] = False
    concepts = ccx.Concepts.from_masks(masks, list("abcdef"), valid=valid)
    activations = rng.random((9, 4, 3, 4)).astype(np.float32) - np.float32(0.2)
    activations[:, 2] = 0  # silent: no range
    return activations, concepts, ccx.explain(activations, concepts, clusters=2, length=3, progress=False), valid


def test_measure_gives_the_metrics_of_each_explanation(explained):
    activations, concepts, found, valid = explained
    steps = []
    records = metrics.measure(found, activations, concepts, threads=2, progress=lambda *step: steps.append(step))
    assert steps == [(done + 1, len(found)) for done in range(len(found))]
    assert [(r["unit"], r["range_index"]) for r in records] == [(e.unit, e.range_index) for e in found]
    n_cells = valid.reshape(9, -1).sum(axis=1)
    for item, record in zip(found, records, strict=True):
        assert record["formula"] == (None if item.formula is None else str(item.formula))
        assert (record["lower"], record["upper"]) == (item.range or (None, None))
        if item.range is None:
            assert [record[name] for name in METRICS] == [0.0] * len(METRICS)
            continue
        assert record["iou"] == item.iou == item.intersection / item.union
        assert record["activations_coverage"] == item.intersection / item.bitmap_cells
        assert record["detection_accuracy"] == item.intersection / item.formula_cells
        values = kernels.upsample(activations[:, item.unit], (5, 13))
        bitmap = ((item.range[0] < values) & (values < item.range[1]) & valid).reshape(9, -1)
        mask = concepts.mask(item.formula).reshape(9, -1)
        n_void_as_one = np.maximum(n_cells, 1)  # a sample without a valid cell has no cell of A or S
        assert_metrics({name: record[name] for name in METRICS}, expected(bitmap, mask, n_void_as_one))
    assert metrics.measure(found, activations, concepts, threads=1) == records
    assert metrics.measure(found[1:3], activations, concepts) == records[1:3]


def test_measure_of_bitmaps_packed_or_not(explained):
    _, concepts, _, _ = explained
    bitmaps = np.random.default_rng(5).random((3, 9, 5, 13)) < 0.2
    bitmaps[1] = False
    found = ccx.explain_bitmaps(bitmaps, concepts, progress=False)
    records = metrics.measure(found, bitmaps, concepts)
    assert [record["iou"] for record in records] == [item.iou for item in found]
    assert records[1]["formula"] is None
    packed = kernels.pack(bitmaps.reshape(3, 9, -1))
    before = packed.copy()
    assert metrics.measure(found, packed, concepts) == records
    np.testing.assert_array_equal(packed, before)


def test_measure_where_every_cell_is_valid():
    rng = np.random.default_rng(6)
    masks = rng.random((3, 4, 8, 8)) < 0.3
    concepts = ccx.Concepts.from_masks(masks)
    for activations in (rng.random((4, 2)), rng.random((4, 2, 1, 5)), rng.random((4, 2, 8, 8))):
        found = ccx.explain(activations, concepts, clusters=2, progress=False)
        records = metrics.measure(found, activations, concepts)
        assert [record["iou"] for record in records] == [item.iou for item in found]
        for record in records:
            if record["formula"]:
                mask = concepts.mask(record["formula"]).reshape(4, -1)
                assert record["avg_mask_size"] == metrics.avg_mask_size(mask)


def test_measure_refuses_tokens_that_are_not_the_cells():
    """As explain does: patches would be stretched over the grid without a word."""
    concepts = ccx.Concepts.from_masks(np.ones((1, 4, 8, 8), bool))
    activations = np.random.default_rng(0).random((4, 2, 64))
    found = ccx.explain(activations.reshape(4, 2, 8, 8), concepts, clusters=2, progress=False)
    with pytest.raises(ShapeError, match="one token per cell of the concepts' grid"):
        metrics.measure(found, activations, concepts)


def test_measure_of_a_cluster_of_one_value():
    activations = np.repeat([0.0, 1.0], 4).astype(np.float32).reshape(8, 1)
    concepts = ccx.Concepts.from_masks(np.ones((1, 8, 1, 1), bool))
    found = ccx.explain(activations, concepts, clusters=1, progress=False)
    narrow = ccx.explain(activations, concepts, clusters=2, progress=False)
    for one in (found, narrow):
        for item, record in zip(one, metrics.measure(one, activations, concepts), strict=True):
            assert record["iou"] == item.iou


@pytest.mark.needs("pandas")
def test_records_make_a_data_frame(explained):
    import pandas as pd

    activations, concepts, found, _ = explained
    frame = pd.DataFrame(metrics.measure(found, activations, concepts))
    assert list(frame) == ["unit", "range_index", "lower", "upper", "formula", *METRICS]
    assert all(frame[name].dtype == np.float64 for name in ("lower", "upper", *METRICS))


def test_measure_of_what_does_not_fit(explained):
    activations, concepts, found, _ = explained
    bitmaps = np.zeros((4, 9, 5, 13), bool)
    bitmap_found = ccx.explain_bitmaps(concepts.mask("a")[None], concepts, progress=False)
    for kind, message, arguments in [
        (ShapeError, r"activations: expected 9 samples, got float32\[8, 4, 3, 4\]", (found, activations[:8], concepts)),
        (ShapeError, "activations: expected float", (found, activations[..., None], concepts)),
        (InputError, "activations: expected unit 1, got 1 units", (found, activations[:, :1], concepts)),
        (InputError, "found: expected explanations of bitmaps", (found, bitmaps, concepts)),
        (InputError, "found: expected explanations of activations", (bitmap_found, activations, concepts)),
        (ShapeError, "activations: expected bool", (bitmap_found, bitmaps[:, :8], concepts)),
        (ShapeError, "activations: expected uint64", (bitmap_found, np.zeros((9, 2), np.uint64), concepts)),
        (ShapeError, "activations: expected uint64", (bitmap_found, np.zeros((1, 9, 3), np.uint64), concepts)),
        (InputError, "zeros in the bits", (bitmap_found, np.full((1, 9, 2), 2**63, np.uint64), concepts)),
        (DTypeError, "activations", (found, activations.astype(int), concepts)),
        (InputError, "concept: expected one of 1 names", (found, activations, concepts.subset(["a"]))),
    ]:
        with pytest.raises(kind, match=message):
            metrics.measure(*arguments)


# -- torch


@pytest.mark.needs("torch")
def test_torch_tensors_give_numpy_results():
    import torch

    rng = np.random.default_rng(2)
    bitmap, masks = rng.random((3, 65)) < 0.4, rng.random((2, 3, 65)) < 0.4
    tensors = torch.from_numpy(bitmap), torch.from_numpy(masks)
    for name in PAIRWISE:
        got = getattr(metrics, name)(*tensors)
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(got, getattr(metrics, name)(bitmap, masks))
    assert type(metrics.iou(tensors[0], tensors[0])) is np.float64
    assert metrics.iou(tensors[0], bitmap) == 1  # one of each kind
    packed = kernels.pack(bitmap)
    assert metrics.iou(torch.from_numpy(packed), packed) == 1
    with pytest.raises(BackendError, match="meta"):
        metrics.iou(tensors[0].to("meta"), bitmap)
    maps = torch.rand(3, 4, requires_grad=True)
    assert abs(metrics.cosine_concept_masking_score(maps, maps, (-1, 2)) - 1) <= 1e-15


# -- concept masking

N, SIDE, GRID = 7, 12, (5, 6)


@pytest.fixture
def masking():
    """Return what `get_concept_masking` takes, on a small network with a normalisation that is in training mode."""
    import torch

    torch_rng = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True),
        torch.nn.Flatten(), torch.nn.Linear(100, 2),
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_rng)
    images = torch.randn(N, 3, SIDE, SIDE, generator=torch_rng)
    with torch.no_grad():
        maps = model.eval()[:3](images.clone())
    model.train()
    mask = np.random.default_rng(1).random((N, *GRID)) < 0.3
    mask[[2, 5]] = False
    return {
        "unit": 1, "activations": maps[:, 1], "activation_range": (0.1, 2.5), "label_mask": mask, "mask_shape": GRID,
        "layer_name": "2", "model": model, "loader": torch.split(images, 3), "input_size": SIDE, "rng": 3,
    }  # fmt: skip


def masking_expected(unit, activations, activation_range, label_mask, model, loader, rng):
    """Return the score image by image, with torch's own resizing and cosine."""
    import torch

    rng = np.random.default_rng(rng)
    images = torch.cat(list(loader))
    part = model.eval()[:3]
    scores = []
    for image, mask, before in zip(images, label_mask, activations, strict=True):
        if not mask.any():
            continue
        noise = torch.from_numpy(rng.random(mask.shape, np.float32))
        weights = torch.where(torch.from_numpy(mask), 1.0, noise)
        weights = torch.nn.functional.interpolate(weights[None, None], (SIDE, SIDE), mode="bilinear")
        with torch.no_grad():
            after = part(image[None] * weights)[0, unit]
        inside = (activation_range[0] < before) & (before < activation_range[1])
        pair = [(one * inside).flatten() for one in (before, after)]
        scores.append(float(torch.nn.functional.cosine_similarity(*pair, dim=0)))
    return sum(scores) / len(scores)


@pytest.mark.needs("torch")
def test_concept_masking_is_what_each_image_gives_alone(masking):
    import torch

    model = masking["model"]
    want = masking_expected(
        **{key: masking[key] for key in masking if key not in {"mask_shape", "layer_name", "input_size"}}
    )
    model.train()
    got = metrics.get_concept_masking(**masking)
    assert type(got) is np.float64
    assert 0.2 < want < 0.999
    assert abs(got - want) <= 1e-6
    images = torch.cat(masking["loader"])
    flat = masking["label_mask"].reshape(N, -1)
    others = [
        {"loader": torch.split(images, 1)},
        {"loader": [(images, torch.zeros(N))]},
        {"loader": [[images[:6].numpy(), None], [images[6:].numpy(), None]]},
        {"loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=2)},
        {"label_mask": flat},
        {"label_mask": kernels.pack(flat)},
        {"label_mask": torch.from_numpy(masking["label_mask"])},
        {"activations": masking["activations"].numpy(), "input_size": (SIDE, SIDE)},
        {"rng": np.random.default_rng(3)},
    ]
    for other in others:
        assert abs(metrics.get_concept_masking(**masking | other) - want) <= 1e-6, other
    assert metrics.get_concept_masking(**masking | {"rng": 4}) != got


@pytest.mark.needs("torch")
def test_concept_masking_leaves_the_world_as_it_was(masking):
    import torch

    model = masking["model"]
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.cat(masking["loader"])
    seeds = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - it must not change
    metrics.get_concept_masking(**masking)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert torch.equal(torch.cat(masking["loader"]), images)
    assert torch.equal(torch.get_rng_state(), seeds[0])
    np.testing.assert_array_equal(np.random.get_state()[1], seeds[1])  # noqa: NPY002


@pytest.mark.needs("torch")
def test_concept_masking_without_anything_to_compare(masking):
    nowhere = {"label_mask": np.zeros((N, *GRID), bool)}
    assert metrics.get_concept_masking(**masking | nowhere) == 0
    assert metrics.get_concept_masking(**masking | {"activation_range": (1e6, math.inf)}) == 0
    everywhere = {"label_mask": np.ones((N, *GRID), bool)}
    assert abs(metrics.get_concept_masking(**masking | everywhere) - 1) <= 1e-6  # images stay as they are


@pytest.mark.needs("torch")
def test_concept_masking_of_one_value_a_sample(masking):
    import torch

    with torch.no_grad():
        values = masking["model"].eval()(torch.cat(masking["loader"]))
    values = {"layer_name": "4", "activations": values[:, 1], "activation_range": (-math.inf, math.inf)}
    assert -1 <= metrics.get_concept_masking(**masking | values) <= 1


@pytest.mark.needs("torch")
def test_concept_masking_of_what_does_not_fit(masking):
    import torch

    images = torch.cat(masking["loader"])
    for kind, message, change in [
        (InputError, "unit: expected 0..3, got 4", {"unit": 4}),
        (InputError, "unit: expected 0..3, got -1", {"unit": -1}),
        (InputError, "layer: .*did you mean", {"layer_name": "22"}),
        (ShapeError, "activations: expected float.N, 5, 5.", {"activations": np.ones((N, 3, 3))}),
        (ShapeError, "label_mask: expected bool.7, 6, 5.", {"mask_shape": (6, 5)}),
        (ShapeError, "label_mask", {"label_mask": np.ones((N + 1, *GRID), bool)}),
        (ShapeError, "label_mask", {"label_mask": np.ones((N, 2), np.uint64)}),
        (DTypeError, "label_mask", {"label_mask": np.ones((N, *GRID))}),
        (ShapeError, "loader: expected 7 images of 13×13", {"input_size": 13}),
        (ShapeError, "loader: expected 7 images, got 6", {"loader": [images[:6]]}),
        (ShapeError, "loader: expected 7 images of .*got 8 or more", {"loader": [images, images[:1]]}),
        (InputError, "lower < upper", {"activation_range": (1, 0)}),
    ]:
        with pytest.raises(kind, match=message):
            metrics.get_concept_masking(**masking | change)
    assert all(module.training for module in masking["model"].modules())
    assert not any(module._forward_hooks for module in masking["model"].modules())
