"""Metrics against the published system's, run by run (docs/metrics.md lists the differences)."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from ccx import metrics
from ccx.formula import parse
from ccx.metrics import Overlap
from tests.support import parity_cases

# the published column: ours
COLUMNS = {
    "iou": "iou",
    "mean_sample_iou": "mean_sample_iou",
    "activations_coverage": "activations_coverage",
    "explanation_coverage": "explanation_coverage",
    "detection_accuracy": "detection_accuracy",
    "samples_coverage": "samples_coverage",
    "avg_mask_size_label": "avg_mask_size",
    "avg_mask_size_bitmap": "avg_bitmap_size",
    "avg_mask_size_overlapping_bitmaps": "avg_overlapping_bitmap_size",
    "avg_overlapping": "avg_overlapping",
    "avg_mask_size_intersection": "avg_overlapping",
    "num_nonzerosamples_label": "mask_samples",
    "num_nonzerosamples_intersection": "shared_samples",
}
UNDEFINED = Counter(
    dict.fromkeys(
        ["activations_coverage", "explanation_coverage", "avg_mask_size_bitmap", "avg_mask_size_overlapping_bitmaps",
         "avg_overlapping", "avg_mask_size_intersection"], 16
    )
)  # fmt: skip


def runs(case):
    """Yield (bitmap, run, bool[N, P] of the cells, bool[N, P] of the formula found) of all runs that found one."""
    for bitmap in case.bitmaps:
        cells = bitmap.cells.reshape(len(bitmap.cells), -1)
        for run in bitmap.runs:
            if not run.error:
                mask = parse(run.label).evaluate(lambda name: case.masks[int(name) - 1])
                yield bitmap, run, cells, mask.reshape(cells.shape)


def ours(case, bitmap, cells, mask):
    overlap = Overlap.of(cells, mask)
    values = {theirs: float(getattr(overlap, name)) for theirs, name in COLUMNS.items()}
    before, after = case.activations[:, bitmap.unit], case.activations_after[:, bitmap.unit]
    (unit,) = (unit for unit in case.units if (unit.unit, unit.n_ranges) == (bitmap.unit, bitmap.n_ranges))
    limits = tuple(unit.ranges[bitmap.range_index])
    labelled = mask.any(axis=1)
    values["cosine_masking_all"] = metrics.cosine_concept_masking_score(before, after, limits)
    values["cosine_masking_labelled"] = metrics.cosine_concept_masking_score(before[labelled], after[labelled], limits)
    return values


@pytest.mark.parametrize("name", parity_cases.CASES_WITH_UNITS)
def test_every_value_that_the_published_system_defines(name):
    case = parity_cases.load_case(name)
    undefined = Counter()
    for bitmap, run, cells, mask in runs(case):
        got = ours(case, bitmap, cells, mask)
        assert set(got) == set(run.metrics)
        for column, value in run.metrics.items():
            where = f"{column}, unit {bitmap.unit}, {bitmap.range_index} of {bitmap.n_ranges}, {run.label}"
            if math.isnan(value):
                undefined[column] += 1
                assert not cells.any(), where  # only of empty bitmaps
                assert got[column] == 0, where
            else:
                assert abs(got[column] - value) <= 1e-6, where
    assert undefined == (UNDEFINED if name == "h5_ties" else Counter())


def test_how_many_runs_are_compared():
    counts = [sum(1 for _ in runs(parity_cases.load_case(name))) for name in parity_cases.CASES_WITH_UNITS]
    assert counts == [142, 114, 86]
    n_runs = [sum(len(b.runs) for b in parity_cases.load_case(name).bitmaps) for name in parity_cases.CASES_WITH_UNITS]
    assert n_runs == [168, 144, 120]


@pytest.mark.parametrize("name", parity_cases.CASES_WITH_UNITS)
def test_the_iou_of_every_single_concept(name):
    case = parity_cases.load_case(name)
    for bitmap in case.bitmaps:
        got = metrics.iou(bitmap.cells, case.masks)  # all concepts at once
        assert got.shape == bitmap.unary_iou.shape
        assert np.abs(got - bitmap.unary_iou).max() <= 1e-6
