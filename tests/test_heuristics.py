"""The published heuristics with the published arguments, against the published values and the batched form."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx import heuristics, kernels
from ccx.errors import InputError, ShapeError
from ccx.formula import left_deep
from tests import reference
from tests.support.beam_cases import Case, cases
from tests.support.parity_cases import CASES_WITH_UNITS, Bitmap, ParityCase, load_case

KINDS = ("mmesh", "cfh", "areas")
OPERATORS = (" OR {}", " AND {}", " AND (NOT {})")


def text_of(parts: Any) -> str:
    """Write [c, op, c, op, c] as the published code does."""
    text = str(parts[0])
    for operator, concept in zip(parts[1::2], parts[2::2], strict=True):
        text = f"({text}{OPERATORS[operator].format(concept)})"
    return text


def mask_of(case: ParityCase, parts: Any) -> Any:
    return reference.satisfied(case.masks, [c - 1 for c in parts[::2]], parts[1::2])


def published_shapes(mask: Any, bitmap: Any) -> tuple[Any, Any, Any, Any]:
    """Areas, rectangles, boxes (x first) and intersections with inclusive corners, bool[N, H, W] each."""
    n_samples, height, width = mask.shape
    rows = kernels.pack(mask.reshape(n_samples, -1))
    last = np.array([0, 0, 1, 1])
    rectangles = kernels.inscribed_rectangles(rows, (height, width)) - last
    boxes = np.maximum(kernels.bounding_boxes(rows, (height, width)) - last, 0)
    corners = boxes.reshape(n_samples, 2, 2)[:, :, ::-1]
    return mask.sum((1, 2)), rectangles.reshape(n_samples, 2, 2), corners, (mask & bitmap).sum((1, 2))


def info_of(case: ParityCase, bitmap: Bitmap, beam: list[Any] | None) -> Any:
    unary = case.areas, case.inscribed, case.boxes
    intersections = (case.masks & bitmap.cells).sum((2, 3))
    enneary = None
    if beam is not None:
        known = [published_shapes(mask_of(case, parts), bitmap.cells) for parts in beam]
        enneary = tuple(dict(zip(map(text_of, beam), parts, strict=True)) for parts in zip(*known, strict=True))
    return (unary, bitmap.cells.sum((1, 2)), intersections), enneary


def test_values_are_those_of_the_published_functions() -> None:
    """Every 7th candidate, with all three heuristics; infinite where a published value is negative or infinite."""
    n_values = 0
    for name, level in product(CASES_WITH_UNITS, ("L2", "L3")):
        case = load_case(name)
        for bitmap in case.bitmaps:
            if f"est.{level}.formulas" not in bitmap.other:
                continue
            beam = bitmap.other["est.beam2"].tolist() if level == "L3" else None
            info = info_of(case, bitmap, beam)
            num_hits, n_cells = int(bitmap.cells.sum()), bitmap.cells[0].size
            candidates = bitmap.other[f"est.{level}.formulas"].tolist()
            for kind in KINDS:
                function = getattr(heuristics, f"{kind}_heuristic")
                for row in range(0, len(candidates), 7):
                    found = function(text_of(candidates[row]), info, num_hits=num_hits, max_size_mask=n_cells)
                    published = float(bitmap.other[f"est.{level}.{kind}"][row])
                    wanted = published if published >= 0 else math.inf
                    assert found == pytest.approx(wanted, rel=1e-6, abs=1.01e-4)
                    assert found == round(found, 4)
                    n_values += 1
    assert n_values > 2_000


class Leaf:
    """Formulas of another library, which print as the published code's do."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def some_info() -> tuple[ParityCase, Bitmap, Any]:
    case = load_case("h3_odd")
    bitmap = next(bitmap for bitmap in case.bitmaps if "est.beam2" in bitmap.other)
    return case, bitmap, info_of(case, bitmap, bitmap.other["est.beam2"].tolist())


def test_formulas_and_arrays_of_any_kind() -> None:
    _, bitmap, ((unary, areas, intersections), enneary) = some_info()
    hits, n_cells = int(areas.sum()), bitmap.cells[0].size
    parts = bitmap.other["est.beam2"][0].tolist()
    text = f"({text_of(parts)} OR 4)"
    left = tuple(part[text_of(parts)] for part in enneary)
    lists = tuple(part.tolist() for part in unary), areas.tolist(), intersections.tolist()
    values = {
        heuristics.mmesh_heuristic(formula, info, hits, n_cells)
        for formula in (text, ccx.parse(text), Leaf(text))
        for info in (((unary, areas, intersections), enneary), (lists, left), (lists, tuple(p.tolist() for p in left)))
    }
    by_formula = tuple({ccx.parse(key): value for key, value in part.items()} for part in enneary)
    values.add(heuristics.mmesh_heuristic(text, (lists, by_formula), hits, n_cells))
    assert len(values) == 1


@pytest.mark.needs("torch")
def test_torch_tensors() -> None:
    import torch

    _, bitmap, ((unary, areas, intersections), _) = some_info()
    tensors = tuple(torch.from_numpy(np.array(part)) for part in unary)
    info = ((tensors, torch.from_numpy(areas), torch.from_numpy(intersections)), None)
    for text in ("(1 OR 2)", "(3 AND (NOT 5))"):
        arguments = int(areas.sum()), bitmap.cells[0].size
        ours = heuristics.mmesh_heuristic(text, info, *arguments)
        assert ours == heuristics.mmesh_heuristic(text, ((unary, areas, intersections), None), *arguments)


@given(case=cases(max_concepts=4), kind=st.sampled_from(KINDS), threads=st.sampled_from((1, 2)))
def test_estimates_of_extensions(case: Case, kind: Any, threads: int) -> None:
    """Against the definition; void cells count nowhere."""
    concepts = case.concepts()
    n = len(case.masks)
    formulas = [left_deep(concepts.names[:length], [length % 3] * (length - 1)) for length in range(1, n + 1)]
    got = heuristics.extension_estimates(formulas, concepts, case.bitmap, kind, threads=threads)
    masks, bitmap = case.masks & case.valid, case.bitmap & case.valid
    wholes = np.stack([concepts.mask(formula) for formula in formulas])
    numerators, denominators = reference.estimate_extensions(wholes, masks, bitmap, kind)
    with np.errstate(all="ignore"):
        wanted = np.where(denominators > 0, numerators / denominators, np.inf)
    np.testing.assert_array_equal(got, wanted, strict=True)
    as_texts = heuristics.extension_estimates(map(str, formulas[:1]), concepts, case.bitmap, kind)
    np.testing.assert_array_equal(as_texts, got[:1])
    assert heuristics.extension_estimates([], concepts, case.bitmap, kind).shape == (0, n, 3)


def test_arguments_that_do_not_fit() -> None:
    _, bitmap, info = some_info()
    unary, areas, intersections = info[0]
    hits, n_cells = int(areas.sum()), bitmap.cells[0].size
    unknown = "((1 OR 2) OR 3)"
    bad: list[tuple[str, Any, Any, str]] = [
        ("1", info, hits, "formula: expected (L OR c), (L AND c) or (L AND NOT c), got 1"),
        ("(1 OR sky)", info, hits, "formula: expected concepts 1 to 5, got 'sky'"),
        ("(1 OR 6)", info, hits, "formula: expected concepts 1 to 5, got '6'"),
        ("(1 OR 2)", info, hits + 1, f"num_hits: expected {hits}, the sum of neuron_areas"),
        ("(1 OR 2)", unary, hits, "heuristic_info: expected ((unary_info,"),
        (unknown, info, hits, "enneary_info: expected an entry of (1 OR 2), got none"),
        (unknown, (info[0], None), hits, "enneary_info: expected (areas, inscribed, bounding_box, intersection) of"),
        (unknown, (info[0], (areas,) * 4), hits, "heuristic_info (inscribed): expected [25, 2, 2]"),
        ("(1 OR 2)", ((unary, areas, intersections + 0.5), None), hits, "heuristic_info (intersection): expected int"),
    ]
    for formula, given_info, given_hits, message in bad:
        with pytest.raises(InputError) as error:
            heuristics.cfh_heuristic(formula, given_info, given_hits, n_cells)
        assert str(error.value).startswith(message)
    concepts = ccx.Concepts.from_masks(load_case("h3_odd").masks)
    with pytest.raises(ShapeError, match=r"bitmap: expected bool\[25, 15, 17\]"):
        heuristics.extension_estimates(["1"], concepts, bitmap.cells[1:])
    with pytest.raises(InputError, match="kind: expected"):
        heuristics.extension_estimates(["1"], concepts, bitmap.cells, "none")  # type: ignore[arg-type]
