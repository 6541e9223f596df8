"""Sparse activations: what they give is what the same activations give when they are written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import ccx
from ccx import studies
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels.sparse import sparse_histogram, sparse_pack, sparse_quantile
from tests.reference import sparse as oracle

FEW = [-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]


@st.composite
def problems(draw):
    """Return concepts with void cells, dense activations float32[N, U, H, W], their matrix."""
    n, u, h, w = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    valid = rng.random((n, h, w)) < draw(st.sampled_from([0.8, 1.0]))
    valid[:, 0, 0] = True  # nothing is explained where no cell is
    concepts = ccx.Concepts.from_masks(rng.random((3, n, h, w)) < 0.4, valid=valid)
    kind = draw(st.sampled_from(["positive", "signed", "few", "full", "silent"]))
    dense = rng.normal(size=(n, u, h, w)).astype(np.float32)
    if kind in ("positive", "signed", "silent"):
        dense *= rng.random(dense.shape) < (0 if kind == "silent" else 0.3)
    if kind == "few":
        dense = rng.choice(FEW, dense.shape).astype(np.float32)
    if kind in ("positive", "full"):
        dense = np.abs(dense)
    return concepts, dense, matrix_of(dense, draw(st.sampled_from(["csr", "csc", "coo"])))


def matrix_of(dense, kind="csr"):
    rows = dense.transpose(0, 2, 3, 1).reshape(-1, dense.shape[1])
    return sparse.coo_array(rows).asformat(kind)


def rows(found):
    return [item.to_record() for item in found]


@given(
    problems(),
    st.sampled_from([{"clusters": 3}, {"clusters": 1, "quantile": 0.2}, {"ranges": [(-0.5, 0.7), (0.5, 2)]}]),
    st.sampled_from(["beam", "optimal", "mmesh"]),
)
def test_as_when_written_out(problem, options, search):
    concepts, dense, matrix = problem
    options = {**options, "length": 2, "search": search, "progress": False}
    assert rows(ccx.explain(matrix, concepts, **options)) == rows(ccx.explain(dense, concepts, **options))


@given(problems(), st.data())
def test_evidence_as_when_written_out(problem, data):
    concepts, dense, matrix = problem
    options = {"clusters": 2, "length": 2, "progress": False}
    n = concepts.n_samples
    if n > 1:
        options["fit_samples"] = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n - 1)))
        options["permutations"] = (
            3 if 2 <= len(options["fit_samples"]) <= n - 2 else 0
        )  # two samples to exchange on both sides
    assert rows(ccx.explain(matrix, concepts, **options)) == rows(ccx.explain(dense, concepts, **options))


@given(problems(), st.tuples(st.sampled_from([-np.inf, *FEW]), st.sampled_from([*FEW, np.inf])))
def test_kernels_are_their_oracles(problem, limits):
    concepts, dense, _ = problem
    atoms, (height, width) = concepts.atoms, concepts.shape
    n_cells = height * width
    everything = dense[:, 0].reshape(-1)
    cells = np.flatnonzero(everything).astype(np.int64)
    values = everything[cells]
    ranges = np.array([limits, (-0.5, 0.5), (0, 1)], np.float64)
    np.testing.assert_array_equal(
        sparse_pack(cells, values, limits, concepts.n_samples, n_cells),
        oracle.sparse_pack(cells, values, limits, concepts.n_samples, n_cells),
    )
    valid = concepts.mask("(1 OR NOT 1)")
    sets = np.empty((concepts.n_samples, n_cells), object)
    masks = [concepts.mask(name).reshape(sets.shape) for name in concepts.names]
    for at in np.ndindex(sets.shape):
        sets[at] = frozenset(c for c, mask in enumerate(masks) if mask[at]) if valid.reshape(sets.shape)[at] else None
    known = [
        frozenset(atoms.atom_concepts[atoms.atom_starts[g] : atoms.atom_starts[g + 1]].tolist())
        for g in range(atoms.n_atoms)
    ]
    found = sparse_histogram(cells, values, ranges, atoms)
    np.testing.assert_array_equal(found, oracle.sparse_histogram(cells, values, ranges, sets, known))


@given(st.lists(st.sampled_from(FEW), min_size=1, max_size=30), st.floats(0.001, 0.999))
def test_quantiles_are_numpys(values, share):
    array = np.array(values, np.float32)
    want = np.quantile(array.astype(np.float64), 1 - share, method="linear")
    found = sparse_quantile(array[array != 0], int((array == 0).sum()), share)
    assert found == pytest.approx(want, abs=1e-12)


def test_explicit_zeros_and_duplicates_count_as_they_should():
    concepts = ccx.Concepts.from_masks(np.array([[[[True, False, False, True]]]]))
    matrix = sparse.coo_array(([1.0, 1.0, 0.0, 5.0], ([0, 0, 1, 3], [0, 0, 0, 0])), shape=(4, 1))
    found = ccx.explain(matrix, concepts, ranges=[(1.5, 6)], progress=False)
    assert (str(found[0].formula), found[0].iou) == ("1", 1.0)
    assert matrix.nnz == 4


def test_columns_that_name_a_cell_twice():
    concepts = ccx.Concepts.from_masks(np.array([[[[True, False, False, True]]]]))
    matrix = sparse.csc_array((np.array([1, 1, 5], np.float32), np.array([0, 0, 3]), np.array([0, 3])), shape=(4, 1))
    found = ccx.explain(matrix, concepts, ranges=[(1.5, 6)], progress=False)
    assert (str(found[0].formula), found[0].iou) == ("1", 1.0)


@pytest.mark.parametrize("values", [[2.0] * 6, [-1.0, 0, 0, -1.0, 0.5, 3.0], [0.0] * 6, [1.0, 0, 0, 0, 0, 1.0]])
@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_constant_signed_and_silent_units(values, clusters):
    concepts = ccx.Concepts.from_masks(np.array([[[[True, False, False, True, True, False]]]]))
    dense = np.array(values, np.float32).reshape(1, 1, 1, 6)
    options = {"clusters": clusters, "quantile": 0.3, "progress": False}
    assert rows(ccx.explain(matrix_of(dense), concepts, **options)) == rows(ccx.explain(dense, concepts, **options))


def test_as_many_units_as_a_sparse_autoencoder_has():
    rng = np.random.default_rng(0)
    concepts = ccx.Concepts.from_masks(rng.random((4, 20, 1, 30)) < 0.3)
    matrix = sparse.random_array((600, 16_384), density=0.01, rng=rng, dtype=np.float32, format="csr")
    found = ccx.explain(matrix, concepts, clusters=1, length=1, progress=False)
    assert len(found) == 16_384
    few = [0, 777, 16_383]
    dense = np.ascontiguousarray(matrix.tocsc()[:, few].toarray().T.reshape(3, 20, 1, 30).swapaxes(0, 1))
    wanted = ccx.explain(dense, concepts, clusters=1, length=1, progress=False)
    assert [(found[u].formula, found[u].range, found[u].iou) for u in few] == [
        (one.formula, one.range, one.iou) for one in wanted
    ]


def test_run_folders(tmp_path):
    rng = np.random.default_rng(0)
    concepts = ccx.Concepts.from_masks(rng.random((3, 4, 3, 5)) < 0.4)
    dense = (rng.random((4, 6, 3, 5)) * (rng.random((4, 6, 3, 5)) < 0.3)).astype(np.float32)
    found = ccx.explain(matrix_of(dense), concepts, clusters=2, out=tmp_path / "run", progress=False)
    assert ccx.explain(matrix_of(dense, "csc"), concepts, clusters=2, out=tmp_path / "run", progress=False) == found
    with pytest.raises(ccx.CCXError, match="activations"):
        ccx.explain(matrix_of(2 * dense), concepts, clusters=2, out=tmp_path / "run", progress=False)


def test_wrong_matrices():
    concepts = ccx.Concepts.from_masks(np.ones((1, 2, 3, 4), bool))
    with pytest.raises(ShapeError, match=r"a sparse matrix \[2·3·4, U\], got \[23, 1\]"):
        ccx.explain(sparse.csr_array((23, 1), dtype=np.float32), concepts)
    with pytest.raises(ShapeError, match="sparse matrix"):
        ccx.explain(sparse.csr_array((24, 0), dtype=np.float32), concepts)
    with pytest.raises(DTypeError, match="floating point, got int64"):
        ccx.explain(sparse.csr_array((24, 1), dtype=np.int64), concepts)
    with pytest.raises(InputError, match="None or cpu for sparse activations"):
        ccx.explain(sparse.csr_array((24, 1), dtype=np.float32), concepts, device="cuda")
    broken = sparse.csr_array(([np.nan, 1.0], ([0, 1], [1, 0])), shape=(24, 2), dtype=np.float64)
    with pytest.raises(InputError, match=r"finite values, got NaN, infinity .* unit 1"):
        ccx.explain(broken, concepts)
    assert len(ccx.explain(broken, concepts, units=[0], progress=False)) == 1
    with pytest.raises(DTypeError, match=r"got csr_array; only ccx\.explain takes sparse matrices"):
        studies.compare_thresholds(broken, concepts)
