"""Arguments of the public functions, valid and invalid ones mixed: each call answers, or raises an error of ccx."""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import ccx
from ccx import clustering, datasets, formula, heuristics, kernels, metrics, scores
from tests.support.fuzzing import attack, attempts

N, C, U, GRID = 4, 3, 2, (4, 4)
CELLS = GRID[0] * GRID[1]
_WORLD = np.random.default_rng(7)
MASKS = _WORLD.random((C, N, *GRID)) < 0.4
LABELS = _WORLD.integers(0, C + 1, (N, 2, *GRID))
MAPS = _WORLD.standard_normal((N, U, 2, 2)).astype(np.float32)
BITMAPS = _WORLD.random((2, N, *GRID)) < 0.3
NAMES = ["a", "b", "c d"]
IMAGES = _WORLD.integers(0, 256, (N, *GRID, 3), dtype=np.uint8)


@functools.cache
def concepts() -> ccx.Concepts:
    return ccx.Concepts.from_masks(MASKS, NAMES, categories=["x", "x", "y"])


@functools.cache
def keyed() -> ccx.Concepts:
    return ccx.Concepts.from_masks(MASKS, NAMES, keys=list("stuv"))


@functools.cache
def found() -> ccx.Explanations:
    return ccx.explain(MAPS, concepts(), clusters=2, length=2, progress=False)


Options = dict[str, list[Any]]
BITS, OTHER = BITMAPS[0].reshape(N, CELLS), MASKS[0].reshape(N, CELLS)
PACKED = kernels.pack(BITMAPS.reshape(2, N, CELLS))
FORMULAS = ["a", "NOT a", "(a AND b)", '(a OR "c d")', "((a AND b) OR NOT a)", formula.parse("(b AND NOT a)")]
SEARCH: Options = {
    "length": [1, 2, 3],
    "beam": [1, 3],
    "search": ["beam", "optimal", "mmesh", "cfh", "areas", "none"],
    "published": [False, False, True],
    "scoring": ["iou", "f1", "mcc", scores.Custom(lambda i, f, *_: i - f, "mine")],
    "only": [None, ["a", "b"]],
    "categories": [None, ["x"]],
    "candidates": [None, 2],
    "length_penalty": [1.0, 0.9],
    "top": [1, 2],
    "min_iou": [0.0, 0.1],
    "time_limit": [None, 0.5],
    "evaluation_limit": [None, 50],
    "permutations": [0, 3],
    "groups": [None, [0, 0, 1, 1]],
    "seed": [0, 3],
    "fit_samples": [None, [0, 1], [True, True, False, True]],
    "test_samples": [None, [2]],
    "keys": [None, list("stuv")],
    "device": [None, "cpu"],
    "threads": [1, None],
    "progress": [False, lambda *_: None],
}
EXPLAIN: Options = {
    "activations": [MAPS, MAPS[..., 0, 0], MAPS.astype(np.float64), np.repeat(MAPS, 2, 3)],
    "concepts": [concepts, keyed, MASKS],
    "clusters": [1, 2, 3],
    "quantile": [0.005, 0.3],
    "clustering": ["optimal"],
    "ranges": [None, [(0, 1)], [[(0, 1)], [(-1, 1)]]],
    "units": [None, [0], range(2)],
    **SEARCH,
}
BITMAP_AND_MASK: Options = {
    "bitmap": [BITS, PACKED[0], BITMAPS[0]],
    "mask": [OTHER, MASKS[0], MASKS[1]],
    "threads": [1],
}
CELLS_OF: Options = {"n_cells": [None, CELLS, [CELLS] * N]}
HEURISTIC: Options = {
    "formula": FORMULAS,
    "heuristic_info": [None, (1, 2)],
    "num_hits": [1, 5],
    "max_size_mask": [CELLS, 3],
}


def table() -> dict[Callable[..., Any], Options]:
    """Return the functions to attack, with valid values for each of their arguments; functions without are called."""
    known, atoms = concepts(), concepts().atoms
    weights, grid = [atoms.cells, atoms.cells[None]], [GRID, (2, 8)]
    one = found()[0]
    makers: Options = {"names": [NAMES, tuple("abc")], "categories": [None, ["x", "x", "y"]], "threads": [1]}
    makers |= {"progress": [None], "keys": [None, list("stuv")]}
    return {
        ccx.explain: EXPLAIN,
        ccx.explain_bitmaps: {"bitmaps": [BITMAPS, PACKED], "concepts": [concepts, MASKS], **SEARCH},
        ccx.Concepts.from_label_maps: {
            "labels": [LABELS, LABELS[:, 0], [LABELS, LABELS], [(LABELS, MASKS[0])]],
            "valid": [None, MASKS[0]],
            **makers,
        },
        ccx.Concepts.from_masks: {
            "masks": [MASKS, kernels.pack(MASKS.reshape(C, N, CELLS)), [scipy.sparse.csr_array(BITS)] * C],
            "shape": [None, GRID],
            "valid": [None, MASKS[0]],
            **makers,
        },
        known.subset: {
            "only": [None, ["a"]],
            "categories": [None, ["y"]],
            "samples": [None, [1, 0], slice(2)],
            "threads": [1],
        },
        known.mask: {
            "formula": FORMULAS,
            "packed": [False, True],
            "samples": [None, [0], MASKS[0, :, 0, 0]],
            "threads": [1],
        },
        known.count: {"formula": FORMULAS},
        known.index: {"name": NAMES},
        known.packed_rows: {"samples": [None, [0]], "threads": [1]},
        known.selected: {"only": [None, ["a"]], "categories": [None, ["y"]]},
        known.save: {"path": ["c.ccx"], "source": [None, "text"]},
        ccx.Concepts.load: {"path": ["c.ccx", "none.ccx"], "verify": [True, False]},
        ccx.load: {"path": ["found.json", "c.ccx"]},
        found().save: {"path": ["found.json"]},
        found().table: {"max_rows": [None, 1]},
        found().of_unit: {"unit": [0, 1, 9]},
        found().compare: {"other": [found]},
        ccx.Explanation.from_record: {"record": [one.to_record(), {**one.to_record(), "formula": "NOT"}]},
        ccx.align: {
            "samples": [keyed, MAPS],
            "to": [keyed, list("vuts")],
            "keys": [None, list("stuv")],
            "intersect": [False, True],
        },
        ccx.Activations: {"array": [MAPS], "keys": [list("stuv")]},
        ccx.parse: {"text": [str(text) for text in FORMULAS] + ["NOT", "(a", "a AND", '"', "a b"]},
        formula.simplify: {"formula": [formula.parse(str(text)) for text in FORMULAS], "order": [None, NAMES]},
        formula.equivalent: {"a": [formula.parse("(a AND b)")], "b": [formula.parse("(b AND a)")]},
        formula.left_deep: {"names": [["a", "b"]], "operators": [[0], [1], [2]]},
        formula.And: {"left": [formula.Concept("a")], "right": [formula.Concept("b")]},
        formula.Not: {"operand": [formula.Concept("a")]},
        formula.Concept: {"name": NAMES},
        formula.parse("(a AND b)").rename: {"names": [{"a": "z"}, {}]},
        formula.parse("(a AND b)").canonical: {"order": [None, NAMES]},
        metrics.iou: BITMAP_AND_MASK,
        metrics.sample_iou: BITMAP_AND_MASK,
        metrics.detection_accuracy: BITMAP_AND_MASK,
        metrics.samples_coverage: BITMAP_AND_MASK,
        metrics.avg_overlapping: BITMAP_AND_MASK | CELLS_OF,
        metrics.avg_mask_size: {"mask": [OTHER, MASKS[0]], "threads": [1], **CELLS_OF},
        metrics.Overlap.of: BITMAP_AND_MASK | CELLS_OF,
        metrics.Overlap: {name: [np.ones(N, np.int64)] for name in ("bitmap_cells", "mask_cells", "shared_cells")}
        | CELLS_OF,
        metrics.measure: {
            "found": [found, [one]],
            "activations": [MAPS, BITMAPS, PACKED],
            "concepts": [concepts],
            "threads": [1],
            "progress": [None],
        },
        metrics.cosine_concept_masking_score: {
            "before": [MAPS[:, 0]],
            "after": [MAPS[:, 1]],
            "activation_range": [(0, 1), (-1.5, 1)],
        },
        heuristics.areas_heuristic: HEURISTIC,
        heuristics.cfh_heuristic: HEURISTIC,
        heuristics.mmesh_heuristic: HEURISTIC,
        heuristics.extension_estimates: {
            "formulas": [FORMULAS[:1]],
            "concepts": [concepts],
            "bitmap": [PACKED[0], BITMAPS[0]],
            "heuristic": ["mmesh", "cfh", "areas"],
            "threads": [1],
        },
        scores.resolve: {"scoring": ["iou", "mcc", "precision"]},
        scores.Custom: {"function": [lambda i, *_: i], "name": ["", "mine"], "monotone": [False, True]},
        clustering.unit_ranges: {
            "values": [MAPS, MAPS[:, 0]],
            "clusters": [1, 2, 5],
            "quantile": [0.1],
            "method": ["optimal"],
        },
        clustering.top_quantile: {"values": [MAPS], "quantile": [0.005, 0.5]},
        clustering.optimal_ranges: {"values": [MAPS], "n_clusters": [1, 3]},
        clustering.check_ranges: {"ranges": [[(0, 1)], [[0, 1], [2, np.inf]]]},
        kernels.pack: {"bits": [BITS, MASKS], "threads": [1]},
        kernels.unpack: {"rows": [PACKED], "n_bits": [CELLS], "threads": [1]},
        kernels.n_words: {"n_bits": [0, 1, 65]},
        kernels.popcount: {"rows": [PACKED], "threads": [1]},
        kernels.and_popcount: {"a": [PACKED], "b": [PACKED[:1]], "threads": [1]},
        kernels.intersection_counts: {"a": [PACKED[0]], "b": [PACKED[1]], "threads": [1]},
        kernels.logical_and: {"a": [PACKED], "b": [PACKED[:1]], "out": [None, np.zeros_like(PACKED)], "threads": [1]},
        kernels.upsample: {"activations": [MAPS, MAPS[0, 0]], "shape": grid, "threads": [1]},
        kernels.upsample_pack: {
            "activations": [MAPS[:, 0]],
            "shape": grid,
            "limits": [(0, 1), (-np.inf, 0)],
            "threads": [1],
        },
        kernels.range_histogram: {
            "activations": [MAPS[:, 0]],
            "ranges": [[(0, 1)], [(0, 1), (1, 2)]],
            "atoms": [atoms],
            "out": [None],
            "threads": [1],
        },
        kernels.bitmap_histogram: {"rows": [PACKED[0], PACKED], "atoms": [atoms], "out": [None], "threads": [1]},
        kernels.permuted_histogram: {
            "rows": [PACKED[0]],
            "permutations": [np.arange(N)[None]],
            "atoms": [atoms],
            "threads": [1],
        },
        kernels.bounding_boxes: {"rows": [PACKED], "shape": [GRID], "threads": [1]},
        kernels.inscribed_rectangles: {"rows": [PACKED], "shape": [GRID], "threads": [1]},
        kernels.kmeans_1d: {"sorted_values": [np.sort(MAPS, None)], "n_clusters": [1, 3]},
        kernels.atom_rows: {
            "atoms": [atoms],
            "inside": [np.ones(atoms.n_atoms, bool)],
            "samples": [np.arange(N)],
            "threads": [1],
        },
        kernels.concept_rows: {"atoms": [atoms], "samples": [np.arange(N)], "threads": [1]},
        kernels.concept_counts: {"atoms": [atoms], "weights": weights},
        kernels.pair_counts: {"atoms": [atoms], "weights": weights, "threads": [1]},
        kernels.formula_counts: {
            "atoms": [atoms],
            "weights": weights,
            "concepts": [np.array([[0, 1]])],
            "operators": [np.array([[1]])],
            "threads": [1],
        },
        kernels.AtomBuilder: {"shape": [GRID], "n_concepts": [C], "threads": [1]},
        datasets.Pairs: {
            "pairs": [list(zip(IMAGES, LABELS[:, 0], strict=True))],
            "names": [NAMES],
            "categories": [None],
            "first_id": [1],
            "void": [(), 3],
            "none": [None, 0],
            "keys": [None],
        },
        datasets.token_concepts: {
            "table": [MASKS[0], [(0, 1, "a")]],
            "names": [None, NAMES],
            "categories": [None],
            "keys": [None],
            "lengths": [None, [4] * N],
            "n_samples": [None, N],
            "n_positions": [None, 4],
            "threads": [1],
            "progress": [None],
        },
        datasets.Folder: {
            "images": ["images"],
            "labels": ["labels"],
            "names": [NAMES],
            "void": [()],
            "none": [None],
            "first_id": [1],
        },
    }


def hostile(rng: np.random.Generator) -> Any:
    """Return a value that seldom fits."""
    endless: list[Any] = []
    endless.append(endless)
    shape = tuple(int(n) for n in rng.integers(0, 5, rng.integers(0, 5)))
    kinds = "?bBhHiIlLefdgFDOSUVmM"
    values: list[Callable[[], Any]] = [
        *(lambda value=value: value for value in (
            None, True, False, -1, 0, 1, 2, 7, 65, 2**31, 2**63, -(2**63), 10**400, 0.5, 1.5, -0.0, 1e300,
            float("nan"), float("inf"), 1j, "", "a", "text", "0", "\0", "\ud800", "(a", "NOT " * 2_000 + "a", b"",
            b"bytes", (), [], {}, [None], [1], [-1], [1.5], ["a"], ["a", "a"], [""], [[]], [["a"]], [[1], [1, 2]],
            [True], [10**400], [float("nan")], (1, 2), (0, 0), (1, 2, 3), (2**40, 2**40), (1, "a"), ((0, 1),),
            {"a": 1}, {1: "a"}, {"a"}, frozenset("ab"), range(3), range(10**12), slice(None), slice("a"), ...,
            NotImplemented, object(), int, np.ndarray, np.float32, lambda *_: None, lambda: None, print,
            functools.partial(print), datetime.date(2020, 1, 1), decimal.Decimal(1), fractions.Fraction(1, 2), Path(),
            Path("/dev/null"), "nowhere/at/all", "x" * 5_000, np.float32(1), np.int64(-1), np.bool_(True),
            np.str_("a"), np.datetime64("NaT"), np.array("a"), np.array(1), np.array(None), np.ma.masked,
            scipy.sparse.eye_array(3).tocsr(), scipy.sparse.coo_array((4, 4)), memoryview(b"ab"),
        )),
        lambda: endless,
        lambda: iter([1, 2]),
        lambda: (value for value in "ab"),
        lambda: map(str, [1]),
        lambda: zip([1], [2], strict=True),
        lambda: np.zeros(shape, rng.choice(list(kinds))),
        lambda: np.zeros(shape, rng.choice(list("?bBhHiIlLefd"))),
        lambda: rng.integers(-3, 9, shape),
        lambda: rng.standard_normal(shape).astype(np.float32),
        lambda: np.full(shape, np.nan),
        lambda: rng.random(shape) < 0.5,
        lambda: rng.integers(0, 2**63, shape).astype(np.uint64),
        lambda: rng.integers(0, 2, shape).astype(">i4"),
        lambda: np.ma.array(np.ones((2, 3)), mask=rng.random((2, 3)) < 0.5),
        lambda: np.broadcast_to(np.float32(1), (N, 2**40, 1, 1)),
        lambda: np.broadcast_to(np.True_, (2**40, N, *GRID)),
        lambda: np.rec.array([(1, 2.0)]),
        lambda: rng.integers(-2, 5, rng.integers(0, 6)).tolist(),
        lambda: rng.choice(["a", "b", "c d", "d", ""], rng.integers(0, 5)).tolist(),
        lambda: "".join(rng.choice(list('ab"()NOTANDOR \\\n'), rng.integers(1, 12))),
        lambda: random.Random(0),
        concepts, keyed, found, lambda: found()[0], lambda: concepts().atoms, lambda: formula.parse("(a AND b)"),
        lambda: MASKS, lambda: MAPS, lambda: PACKED, lambda: LABELS, lambda: NAMES,
    ]  # fmt: skip
    return values[rng.integers(len(values))]()


TABLE = functools.cache(lambda: list(table().items()))


def attempt(rng: np.random.Generator, folder: Path) -> str:
    calls = TABLE()
    function, options = calls[rng.integers(len(calls))]
    if rng.random() < 0.1:
        function, options = calls[rng.integers(2)]  # the two with most arguments
    given = {}
    for name, values in options.items():
        if name in ("threads", "progress") or len(options) < 9 or values[0] is not None or rng.random() < 0.2:
            value = values[rng.integers(len(values))] if rng.random() < 0.5 else values[0]
            given[name] = value() if any(value is one for one in (concepts, keyed, found)) else value
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        given[str(rng.choice(list(options)))] = hostile(rng)
    if callable(given.get("progress")):  # what a function of the caller raises is the caller's
        given["progress"] = None
    for name in ("path", "out"):
        if isinstance(given.get(name), (str, Path)) and str(given[name]):
            given[name] = folder / str(given[name]).lstrip("/")
    if function in (formula.And, formula.Not, formula.Concept):
        function(*given.values())
    else:
        function(**given)
    return "answered"


@pytest.mark.filterwarnings("ignore")
def test_arguments() -> None:
    # A minute for the first of each kind, which may compile kernels.
    attack(attempt, attempts(nightly=100_000, quick=300), seconds=60).check("answered", "refused")
