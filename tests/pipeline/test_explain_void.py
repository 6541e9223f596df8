"""Void cells, padding and positions left out count nowhere: not in ranges, statuses, chance, or what is asked later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse
from typer.testing import CliRunner

import ccx
from ccx import metrics, studies
from ccx.cli import app
from ccx.clustering import unit_ranges
from ccx.datasets import token_concepts
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.report import render
from ccx.report.pictures import FINE, Pictures
from tests.reference import positions as oracle

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
GARBAGE = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -7.0])
RANGES = st.sampled_from(
    [
        {"clusters": 3},
        {"clusters": 1, "quantile": 0.2},
        {"ranges": [(-0.5, 0.7), (0.5, 2)]},
        {"clusters": 2, "fit_samples": [0, 2]},
    ]
)
N = 5


def rows(found: ccx.Explanations) -> list[Any]:
    return [item.to_record() for item in found]


def made(seed: int, grid: tuple[int, int], source: tuple[int, int]) -> tuple[ccx.Concepts, Any, Any]:
    """Return concepts with void cells, activations [N, 3, h, w] (signed, positive, constant), and what counts there."""
    rng = np.random.default_rng(seed)
    valid = rng.random((N, *grid)) < 0.6
    valid[0, 0, 0] = valid[2, -1, -1] = True
    valid[1] = True
    valid[3] = False
    concepts = ccx.Concepts.from_masks(rng.random((4, N, *grid)) < 0.4, valid=valid)
    maps = rng.standard_normal((N, 3, *source)).astype(np.float32)
    maps[:, 1] = np.maximum(maps[:, 1], 0)
    maps[:, 2] = 0.7
    return concepts, maps, oracle.valid_positions(valid, source)


def filled(maps: Any, counted: Any, value: float) -> Any:
    return np.where(counted[:, None], maps, np.float32(value))


# ------------------------------------------------------------------------------------------------------ padding


def padded(seed: int = 0) -> tuple[Any, Any, ccx.Concepts]:
    """Return tokens bool[N, T, C] with their lengths, and the concepts of both."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, 40)
    tokens = np.zeros((40, 16, 2), bool)
    for n, length in enumerate(lengths):
        tokens[n, :length] = rng.random((length, 2)) < 0.3
    return tokens, np.arange(16) < lengths[:, None], token_concepts(tokens, list("ab"), lengths=lengths, progress=False)


@pytest.mark.states(
    "Activations", "padding of texts (`lengths=`), whatever the model puts out", "accepted", "it counts nowhere"
)
@pytest.mark.parametrize("padding", [0.0, 5.0, np.nan, np.inf, -1e30])
@pytest.mark.parametrize("kind", ["positive", "signed", "constant", "silent"])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_padded_texts_are_explained_as_without_padding(padding: float, kind: str, as_sparse: bool) -> None:
    tokens, inside, concepts = padded()
    values = np.where(tokens[..., 0], 2, 0) + np.random.default_rng(1).random(tokens.shape[:2])
    values -= {"positive": 0.2, "signed": 0.5}.get(kind, 0)
    values = {"constant": np.ones_like(values), "silent": np.zeros_like(values)}.get(kind, values)
    values = np.maximum(values, 0) if kind == "positive" else values
    given = np.where(inside, values, padding).astype(np.float32)
    flat = token_concepts(tokens[inside][None], list("ab"), progress=False)
    for options in ({"clusters": 1, "quantile": 0.3}, {"clusters": 2}, {"clusters": 3, "search": "mmesh"}):
        form = sparse.csr_array(given.reshape(-1, 1)) if as_sparse else given[:, None]
        got = ccx.explain(form, concepts, length=2, progress=False, **options)
        wanted = ccx.explain(values[inside].astype(np.float32)[None, None], flat, length=2, progress=False, **options)
        assert [(one.range, one.status, one.bitmap_cells, one.iou, str(one.formula)) for one in got] == [
            (one.range, one.status, one.bitmap_cells, one.iou, str(one.formula)) for one in wanted
        ]


@pytest.mark.needs("sklearn")
def test_the_published_clustering_looks_at_no_padding() -> None:
    concepts, maps, counted = made(0, (6, 7), (3, 4))
    found = ccx.explain(filled(maps, counted, np.nan), concepts, clustering="sklearn", clusters=3, progress=False)
    limits = unit_ranges(maps[:, 0][counted], clusters=3, method="sklearn")
    assert [one.range for one in found.of_unit(0)] == list(map(tuple, limits.tolist()))


# ------------------------------------------------------------------------------------------------------- images


@pytest.mark.states("Activations", "NaN where no valid cell is", "accepted", "it counts nowhere")
@given(
    seed=SEEDS,
    grid=SIDES,
    source=SIDES,
    garbage=GARBAGE,
    options=RANGES,
    search=st.sampled_from(["beam", "mmesh"]),
)
def test_what_has_no_valid_cell_changes_nothing(
    seed: int, grid: tuple[int, int], source: tuple[int, int], garbage: float, options: dict[str, Any], search: str
) -> None:
    concepts, maps, counted = made(seed, grid, source)
    n_units, height, width = maps.shape[1:]
    if height * grid[1] != width * grid[0]:
        assume(n_units * grid[1] != height * grid[0])  # which could be channels last, and is refused
    asked = {**options, "search": search, "length": 2, "progress": False}
    got = ccx.explain(filled(maps, counted, garbage), concepts, **asked)
    assert rows(got) == rows(ccx.explain(filled(maps, counted, 0), concepts, **asked))
    if "ranges" not in options:
        fit = options.get("fit_samples", list(range(N)))
        ranges = {name: options[name] for name in ("clusters", "quantile") if name in options}
        for unit in (0, 1):
            limits = unit_ranges(maps[fit, unit][counted[fit]], **ranges)
            assert [one.range for one in got.of_unit(unit) if one.range] == list(map(tuple, limits.tolist()))
    assert {str(one.status) for one in got.of_unit(2)} <= {"constant", "no_overlap", "explained"}


@given(seed=SEEDS, grid=SIDES, garbage=st.sampled_from([np.nan, np.inf, -7.0]), clusters=st.sampled_from([1, 3]))
def test_sparse_activations_of_void_cells_change_nothing(
    seed: int, grid: tuple[int, int], garbage: float, clusters: int
) -> None:
    concepts, maps, counted = made(seed, grid, grid)
    given = filled(maps * (maps > -0.3), counted, garbage)
    matrix = sparse.csc_array(given.transpose(0, 2, 3, 1).reshape(-1, 3))
    options = {"clusters": clusters, "quantile": 0.2, "length": 2, "progress": False}
    assert rows(ccx.explain(matrix, concepts, **options)) == rows(ccx.explain(given, concepts, **options))


@pytest.mark.states(
    "Activations", "NaN or infinity where a valid cell is", "refused", "mend the model, or choose `units`"
)
@given(seed=SEEDS, grid=SIDES, source=SIDES, bad=st.sampled_from([np.nan, np.inf, 1e39]))
def test_every_position_with_a_weight_for_a_valid_cell_must_be_finite(
    seed: int, grid: tuple[int, int], source: tuple[int, int], bad: float
) -> None:
    concepts, maps, counted = made(seed, grid, source)
    maps = maps.astype(np.float64)
    at = np.argwhere(counted)[seed % counted.sum()]
    maps[at[0], 1, at[1], at[2]] = bad
    with pytest.raises(InputError, match=r"finite values, got NaN, infinity .* in unit 1;"):
        ccx.explain(maps, concepts, progress=False)
    if grid == source:
        matrix = sparse.csr_array(maps.transpose(0, 2, 3, 1).reshape(-1, 3))
        with pytest.raises(InputError, match=r"finite values, got NaN, infinity .* in unit 1;"):
            ccx.explain(matrix, concepts, progress=False)


def test_without_void_cells_all_positions_count() -> None:
    """Also those that a coarser grid of cells passes over."""
    maps = np.random.default_rng(0).random((N, 1, 9, 9), np.float32)
    concepts = ccx.Concepts.from_masks(np.random.default_rng(1).random((2, N, 2, 2)) < 0.5)
    assert concepts.valid_positions((9, 9)) is None
    (found,) = ccx.explain(maps, concepts, clusters=1, progress=False)
    assert found.range == tuple(unit_ranges(maps, clusters=1)[0])


@pytest.mark.parametrize(("inside", "outside", "status"), [(0.0, 3.0, "silent"), (2.0, 0.0, "constant")])
def test_a_unit_is_silent_or_constant_where_it_counts(inside: float, outside: float, status: str) -> None:
    valid = np.zeros((2, 4, 4), bool)
    valid[:, :2] = True
    concepts = ccx.Concepts.from_masks(np.ones((1, 2, 4, 4), bool), valid=valid)
    maps = np.where(valid, np.float32(inside), np.float32(outside))[:, None]
    for form in (maps, sparse.csr_array(maps.reshape(-1, 1))):
        for clusters in (1, 2):
            (found,) = ccx.explain(form, concepts, clusters=clusters, progress=False)
            assert found.status == status


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_published_ranges_come_from_all_positions(form: str) -> None:
    concepts, maps, counted = made(0, (6, 7), (6, 7))
    given = filled(maps, counted, 9)
    options = {"clusters": 3, "search": "mmesh", "published": True, "units": [0], "progress": False}
    matrix = sparse.csr_array(given.transpose(0, 2, 3, 1).reshape(-1, 3))
    found = ccx.explain(given if form == "dense" else matrix, concepts, **options)
    assert [one.range for one in found] == list(map(tuple, unit_ranges(given[:, 0], clusters=3).tolist()))
    broken = filled(maps, counted, np.nan)
    with pytest.raises(InputError, match="finite"):
        ccx.explain(broken if form == "dense" else sparse.csr_array(broken.reshape(-1, 3)), concepts, **options)


# ------------------------------------------------------------------------------------------------ what is left out


def flags_of(kind: str, seed: int, n: int, source: tuple[int, int]) -> tuple[Any, Any]:
    """Return positions to leave out as users give them, and as bool[N, h, w]."""
    rng = np.random.default_rng(seed)
    if kind == "[T]":
        given = rng.random(source[1]) < 0.3
    elif kind == "[h, w]":
        given = rng.random(source) < 0.3
    else:
        given = rng.random((n, *source)) < 0.3
        given = given[:, 0].copy() if kind == "[N, T]" else given
    given.flat[0] = False
    whole = {"[T]": given[None, None], "[h, w]": given[None], "[N, T]": given[:, None] if given.ndim == 2 else given}
    return given, np.broadcast_to(whole.get(kind, given), (n, *source))


@pytest.mark.states(
    "Activations", "`exclude=`: bool[N, h, w], [h, w]; of tokens [N, T], [T]", "accepted", "True counts nowhere"
)
@settings(max_examples=settings.default.max_examples // 2)  # two data sets and two searches each
@given(
    seed=SEEDS,
    kind=st.sampled_from(["[T]", "[N, T]", "[h, w]", "[N, h, w]"]),
    grid=SIDES,
    source=SIDES,
    garbage=GARBAGE,
    from_labels=st.booleans(),
)
def test_positions_left_out_are_as_cells_that_were_never_valid(
    seed: int, kind: str, grid: tuple[int, int], source: tuple[int, int], garbage: float, from_labels: bool
) -> None:
    if "T" in kind:
        grid = source = (1, grid[1])
    elif kind == "[h, w]":  # of concepts of tokens it would be [N, T]
        grid = (1 + grid[0], grid[1])
    rng = np.random.default_rng(seed)
    valid = rng.random((N, *grid)) < 0.8
    given, left_out = flags_of(kind, seed, N, source)
    rest = valid & ~oracle.cells_of(left_out, grid)
    if from_labels:
        labels = rng.integers(0, 4, (N, 2, *grid))
        concepts, wanted = (ccx.Concepts.from_label_maps(labels, list("abc"), valid=v) for v in (valid, rest))
    else:
        masks = rng.random((3, N, *grid)) < 0.4
        concepts, wanted = (ccx.Concepts.from_masks(masks, categories=list("xyz"), valid=v) for v in (valid, rest))
    assert concepts.excluding(given).content_hash == wanted.content_hash
    concepts.excluding(given).validate()
    maps = np.where(left_out[:, None], np.float32(garbage), rng.standard_normal((N, 2, *source)).astype(np.float32))
    options: dict[str, Any] = {"clusters": 2, "length": 2, "progress": False}
    if not wanted.n_cells:
        with pytest.raises(InputError, match="at least one valid cell"):
            ccx.explain(maps, concepts, exclude=given, **options)
        return
    if not np.isfinite(maps[np.broadcast_to(oracle.valid_positions(rest, source)[:, None], maps.shape)]).all():
        return  # a sample without void cells, whose grid passes over some positions
    found = ccx.explain(maps, concepts, exclude=given, **options)
    assert rows(found) == rows(ccx.explain(maps, wanted, **options))
    assert found.concepts_hash == wanted.content_hash
    assert found.settings["exclude"] == concepts.n_cells - wanted.n_cells


def test_sparse_activations_and_all_of_their_searches() -> None:
    tokens, inside, concepts = padded()
    values = np.where(inside, np.random.default_rng(0).random(inside.shape), 0).astype(np.float32)
    values[:, 0] = 1e4  # of the token that begins each text
    without = token_concepts(tokens[:, 1:], list("ab"), lengths=inside.sum(1) - 1, progress=False)
    first = np.arange(16) == 0
    for search in ("beam", "optimal", "areas"):
        options = {"clusters": 2, "length": 2, "search": search, "progress": False}
        wanted = [(one.range, one.iou, one.formula) for one in ccx.explain(values[:, None, 1:], without, **options)]
        matrix = sparse.csr_array(values.reshape(-1, 1))
        for form in (matrix, values[:, None]):
            found = ccx.explain(form, concepts, exclude=first, **options)
            assert [(one.range, one.iou, one.formula) for one in found] == wanted


@pytest.mark.states(
    "Activations", "`exclude=` of integers, as attention masks are", "refused", "write `attention_mask == 0`"
)
def test_what_is_no_mask_of_positions_is_refused() -> None:
    concepts, maps, _ = made(0, (6, 7), (3, 4))
    with pytest.raises(DTypeError, match=r"exclude: expected bool, got int64.* attention_mask == 0"):
        ccx.explain(maps, concepts, exclude=np.ones((3, 4), np.int64))
    for shape in [(4, 3), (6, 7), (N, 6, 7), (N - 1, 3, 4), (N, 3, 3, 4), (4,), (3, 0)]:
        with pytest.raises(ShapeError, match="exclude: expected "):
            ccx.explain(maps, concepts, exclude=np.zeros(shape, bool))
    with pytest.raises(InputError, match="exclude: expected None with published=True"):
        ccx.explain(maps, concepts, exclude=np.zeros((3, 4), bool), search="mmesh", published=True)
    with pytest.raises(InputError, match="concepts: expected at least one valid cell"):
        ccx.explain(maps, concepts, exclude=np.ones((3, 4), bool))
    tokens = ccx.Concepts.from_masks(np.ones((1, 3, 1, 8), bool))
    with pytest.raises(ShapeError, match=r"bool\[3, 8\] or \[8\], one flag per token, got bool\[2, 8\]"):
        ccx.explain(np.ones((3, 1, 8), np.float32), tokens, exclude=np.zeros((2, 8), bool))


def test_what_is_left_out_keeps_the_keys_of_the_samples() -> None:
    concepts = ccx.Concepts.from_masks(np.ones((1, 2, 3, 4), bool), keys=["a", "b"])
    assert concepts.excluding(np.eye(3, 4, dtype=bool)).keys == concepts.keys


def test_a_run_folder_is_of_one_mask(tmp_path: Any) -> None:
    concepts, maps, counted = made(0, (6, 7), (6, 7))
    maps = filled(maps, counted, 0)
    border = np.zeros((6, 7), bool)
    border[0] = True
    options = {"clusters": 2, "length": 1, "progress": False, "out": tmp_path}
    found = ccx.explain(maps, concepts, exclude=border, **options)
    assert ccx.explain(maps, concepts, exclude=border, **options) == found
    for other in (None, border[::-1]):
        with pytest.raises(ccx.CCXError, match="holds a run that differs in content of concepts"):
            ccx.explain(maps, concepts, exclude=other, **options)


def test_the_command_line(tmp_path: Any) -> None:
    concepts, maps, _ = made(0, (6, 7), (3, 4))
    border = np.eye(3, 4, dtype=bool)
    maps[1, :, border] = np.nan
    for name, array in (("maps", maps), ("exclude", border)):
        np.save(tmp_path / f"{name}.npy", array)
    concepts.save(tmp_path / "concepts.safetensors")
    asked = ["--concepts", str(tmp_path / "concepts.safetensors"), "--exclude", str(tmp_path / "exclude.npy")]
    run = ["explain", str(tmp_path / "maps.npy"), "--out", str(tmp_path / "run"), "--clusters", "2", *asked]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0, result.output
    assert ccx.load(tmp_path / "run") == ccx.explain(maps, concepts, clusters=2, exclude=border, progress=False)
    made_by_explain = (tmp_path / "run" / "report.html").read_text()
    again = ["report", str(tmp_path / "run"), "--activations", str(tmp_path / "maps.npy"), *asked]
    result = CliRunner().invoke(app, [*again, "--title", "What the units of maps.npy respond to"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "report.html").read_text() == made_by_explain
    np.save(tmp_path / "exclude.npy", np.zeros((N, 3, 4), bool))
    maps_keys = ["--keys", str(tmp_path / "keys.txt"), "--align", "order"]
    (tmp_path / "keys.txt").write_text("\n".join("abcde"))
    ccx.Concepts.from_masks(np.ones((1, N, 6, 7), bool), keys=list("edcba")).save(tmp_path / "concepts.safetensors")
    result = CliRunner().invoke(app, [*run, *maps_keys], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "beside --align, got flags of each sample" in result.output


# -------------------------------------------------------------------------------------------- what is asked later


def test_metrics_and_report_look_only_at_what_counts() -> None:
    concepts, maps, counted = made(3, (12, 14), (3, 4))
    clean, broken = filled(maps, counted, 0.2), filled(maps, counted, np.nan)
    border = np.zeros((3, 4), bool)
    border[0] = True
    for options in ({}, {"exclude": border}):
        found = ccx.explain(clean, concepts, clusters=2, length=2, progress=False, **options)
        known = concepts.excluding(border) if options else concepts
        assert metrics.measure(found, broken, known) == metrics.measure(found, clean, known)
        assert render(found, known, activations=broken) == render(found, known, activations=clean)
        assert [record["iou"] for record in metrics.measure(found, clean, known)] == [one.iou for one in found]
        if options:
            assert "cells left out" in render(found, known, activations=broken)
            with pytest.raises(InputError, match=r"positions were left out: give concepts\.excluding\(them\)"):
                render(found, concepts, activations=clean)


def test_pictures_of_many_samples_are_chosen_by_what_counts() -> None:
    """Of more than 256 samples those are looked at that have most activations in the range."""
    rng = np.random.default_rng(0)
    valid = np.zeros((300, 4, 4), bool)
    valid[:, :2] = True
    concepts = ccx.Concepts.from_masks(rng.random((2, 300, 4, 4)) < 0.5, valid=valid)
    maps = rng.random((300, 1, 4, 4), np.float32)
    (item,) = ccx.explain(maps, concepts, ranges=[(0.8, 0.9)], length=1, progress=False)
    others = [np.full(maps.shape, np.nan, np.float32), rng.choice(np.float32([0.1, 0.85, 2]), maps.shape)]
    chosen = [
        Pictures(concepts, np.where(valid[:, None], maps, other), None, None, 4, FINE)._candidates(item)
        for other in (np.float32(0), *others)
    ]
    assert len(chosen[0]) == 256
    np.testing.assert_array_equal(chosen[0], chosen[1])
    np.testing.assert_array_equal(chosen[0], chosen[2])


def test_studies_look_only_at_what_counts() -> None:
    concepts, maps, counted = made(4, (6, 7), (3, 4))
    clean, broken = filled(maps, counted, 0.2), filled(maps, counted, np.nan)
    assert studies.unit_ranges(broken, [0, 1], concepts=concepts, clusters=2) == {
        unit: list(map(tuple, unit_ranges(maps[:, unit][counted], clusters=2).tolist())) for unit in (0, 1)
    }
    for options in ({}, {"exclude": np.eye(3, 4, dtype=bool)}):
        first, second = (
            studies.compare_thresholds(form, concepts, quantiles=(0.1, 0.9), length=1, progress=False, **options)
            for form in (clean, broken)
        )
        assert first == second
    thresholds = studies.compare_thresholds(broken, concepts, quantiles=(0.1,), units=[1], length=1, progress=False)
    values = maps[:, 1][counted].astype(np.float64)
    assert thresholds.units.column("lower") == [np.quantile(values[values != 0], 0.9)]
    runs = [
        studies.compare_heuristics(form, concepts, searches=["beam", "mmesh"], n_units=0, progress=False).runs
        for form in (clean, broken)
    ]
    first, second = ([(*row[:3], *row[4:]) for row in run.rows] for run in runs)  # all but seconds
    assert first == second


@pytest.mark.needs("torch")
def test_concept_masking_compares_only_what_counts() -> None:
    import torch

    valid = np.ones((2, 4, 4), bool)
    valid[:, 2:] = False
    concepts = ccx.Concepts.from_masks(np.ones((1, 2, 4, 4), bool), ["all"], valid=valid)
    layer = torch.nn.Conv2d(3, 1, 1, bias=False).requires_grad_(False)
    layer.weight[:] = 1
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    activations = layer(images).numpy()
    found = ccx.explain(activations, concepts, ranges=[(0, np.inf)], length=1, progress=False)
    model = torch.nn.Sequential(layer)
    scores = []
    for below in (activations[:, :, 2:], np.full((2, 1, 2, 4), 50, np.float32)):
        given = np.concatenate([activations[:, :, :2], below], axis=2)
        scores.append(studies.concept_masking(model, [images], "0", given, concepts, 4)(found[0]))
    assert scores[0] == scores[1] == pytest.approx(1)
