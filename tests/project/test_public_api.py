"""What other tools may rely on: names, signatures and defaults; and that importing ccx stays light."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import ccx
import ccx.kernels
import ccx.metrics
from ccx.concepts import Concepts

NAMES = [
    "Activations", "CCXError", "Concepts", "Explanation", "Explanations", "Formula", "Status", "__version__", "align",
    "explain",
    "explain_bitmaps", "heuristics", "kernels", "load", "metrics", "models", "parse",
    "plot", "probe", "scores",
]  # fmt: skip
KERNELS = [
    "AtomBuilder", "Atoms", "ConceptRows", "ConceptShapes", "Extensions", "FormulaShapes", "and_popcount", "atom_rows",
    "best_extensions", "best_placed", "best_singles", "bitmap_histogram", "bounding_boxes", "concept_counts",
    "concept_hits", "concept_rows", "concept_shapes", "conjunction_counts", "estimate_extensions", "formula_counts",
    "formula_shapes",
    "inscribed_rectangles", "intersection_counts", "kmeans_1d", "logical_and", "logical_and_not", "logical_or",
    "n_words", "pack", "pair_counts", "permuted_histogram", "popcount", "range_histogram", "unpack", "upsample",
    "upsample_pack",
]  # fmt: skip
METRICS = [
    "METRICS", "Overlap", "activations_coverage", "avg_mask_size", "avg_overlapping", "avg_overlapping_bitmap_size",
    "cosine_concept_masking_score", "detection_accuracy", "explanation_coverage", "get_concept_masking", "iou",
    "measure", "sample_iou", "samples_coverage",
]  # fmt: skip
SEARCH = {"length": 3, "beam": 5, "search": "beam", "published": False, "scoring": "iou"}
OPTIONS = {
    "only": None, "categories": None, "candidates": None, "length_penalty": 1.0, "top": 1, "min_iou": 0.0,
    "time_limit": None, "evaluation_limit": None,
    "permutations": 0, "groups": None, "seed": 0, "fit_samples": None, "test_samples": None, "keys": None,
    "device": None, "threads": None, "progress": None, "out": None,
}  # fmt: skip
HEAVY = frozenset(
    "torch cupy pandas sklearn pyeda matplotlib skimage scipy.sparse jinja2 typer rich PIL safetensors".split()  # noqa: SIM905
)


def defaults_of(function: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the positional parameters, and the keyword-only ones in order with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    return required, {p.name: p.default for p in parameters if p.default is not p.empty}


def test_names() -> None:
    assert ccx.__all__ == NAMES
    assert ccx.kernels.__all__ == KERNELS
    assert ccx.metrics.__all__ == METRICS
    for module in (ccx, ccx.kernels, ccx.metrics):
        for name in module.__all__:
            assert getattr(module, name) is not None
    assert ccx.load == ccx.Explanations.load


def test_modules_and_names_come_at_first_use() -> None:
    script = """
        import sys
        import ccx
        assert not [name for name in ("numpy", "numba", "ccx.errors") if name in sys.modules]
        assert issubclass(ccx.errors.InputError, ccx.CCXError)  # a module that nobody imported
        assert set(ccx.__all__) <= set(dir(ccx))
        for name in ("nothing", "_nothing", "datasets2"):
            assert not hasattr(ccx, name), name
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_signatures() -> None:
    clustering = {"quantile": 0.005, "clustering": "optimal", "ranges": None, "units": None, "exclude": None}
    assert defaults_of(ccx.explain) == (
        ["activations", "concepts"],
        {"names": None, "clusters": 5, **SEARCH, **clustering, **OPTIONS},
    )
    assert defaults_of(ccx.explain_bitmaps) == (["bitmaps", "concepts"], {"names": None, **SEARCH, **OPTIONS})
    building = {"categories": None, "keys": None, "valid": None, "threads": None, "progress": None}
    assert defaults_of(Concepts.from_label_maps) == (["labels", "names"], building)
    assert defaults_of(Concepts.from_masks) == (["masks"], {"names": None, "shape": None, **building})
    assert defaults_of(Concepts.subset) == (
        ["self"],
        {"only": None, "categories": None, "samples": None, "threads": None},
    )
    assert defaults_of(Concepts.mask) == (["self", "formula"], {"packed": False, "samples": None, "threads": None})
    assert defaults_of(Concepts.count) == (["self", "formula"], {})
    probing = {
        "layers": None, "output": None, "inputs": None, "units": None, "tokens": None, "skip": 0, "unit_axis": None,
        "call": None, "preprocessing": None, "batch_size": 32, "workers": 0, "device": None,
        "precision": "float32", "dtype": "float32", "data_id": None, "keys": None, "out": None, "overwrite": False,
        "progress": None,
    }  # fmt: skip
    assert defaults_of(ccx.probe) == (["model", "loader"], probing)
    loading = {"weights": "imagenet", "file": None, "key": None, "classes": None, "seed": 0}
    assert defaults_of(ccx.models.load) == (["name"], loading)
    assert defaults_of(Concepts.load) == (["path"], {"verify": True})
    for name in ("iou", "activations_coverage", "detection_accuracy", "samples_coverage", "explanation_coverage"):
        assert defaults_of(getattr(ccx.metrics, name)) == (["bitmap", "mask"], {"threads": None})
    assert list(inspect.signature(ccx.metrics.get_concept_masking).parameters) == [
        "unit", "activations", "activation_range", "label_mask", "mask_shape", "layer_name", "model", "loader",
        "input_size", "rng",
    ]  # fmt: skip


@pytest.mark.parametrize("function", [ccx.explain, ccx.explain_bitmaps])
def test_options_are_keywords_only(function: Any) -> None:
    kinds = {p.kind for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    "function",
    [ccx.explain, ccx.explain_bitmaps, ccx.probe, ccx.models.load, Concepts.from_label_maps, Concepts.from_masks],
)
def test_every_option_is_documented(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert name in text, name


def test_results_have_the_fields_that_tools_read() -> None:
    fields = list(ccx.Explanation.__dataclass_fields__)
    assert fields == [
        "unit", "range_index", "range", "formula", "iou", "iou_gain", "score", "intersection", "union",
        "bitmap_cells", "formula_cells", "status", "visited", "expanded", "estimated", "optimal", "upper_bound",
        "evaluations", "alternatives", "chance", "held_out",
    ]  # fmt: skip
    assert [str(status) for status in ccx.Status] == [
        "explained", "silent", "constant", "single_value", "empty", "no_overlap", "below_min_iou"
    ]  # fmt: skip


def imported(program: str) -> set[str]:
    """Return the modules that a fresh interpreter has imported after `program`."""
    program = textwrap.dedent(program) + "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(Path(ccx.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=env, check=True)
    return set(json.loads(done.stdout))


def test_importing_is_light() -> None:
    modules = imported("import ccx")
    assert not modules & HEAVY
    others = {name for name in modules - imported("import numba") if name.partition(".")[0] != "ccx"}
    assert len(others) < 30, others  # numba, which imports NumPy, is nearly all of it


def test_explaining_is_light() -> None:
    modules = imported(
        """
        import numpy as np, ccx
        masks = np.random.default_rng(0).random((3, 4, 5, 6)) < 0.5
        found = ccx.explain(np.random.default_rng(1).random((4, 2, 5, 6), np.float32), masks)
        repr(found)
        """
    )
    assert not modules & HEAVY
