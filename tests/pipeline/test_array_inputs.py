"""What is given for an array: converted where it has one meaning, refused with a remedy where it has two."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

import ccx
from ccx.errors import BackendError, DTypeError, InputError, MemoryBudgetError, ShapeError
from ccx.kernels.conversion import as_array, as_floats, reordered

RNG = np.random.default_rng(0)
VALUES = np.round(RNG.standard_normal((6, 3)), 1).astype(np.float16).astype(np.float32)  # exact in narrow dtypes too
MASKS = RNG.random((2, 6, 1, 1)) < 0.5
MASKS[:, :2, 0, 0] = [[True, False], [False, True]]
CONCEPTS = ccx.Concepts.from_masks(MASKS, ["a", "b"])


def same(given, want=VALUES):
    """Compare an array of NumPy's base class, in the machine's byte order."""
    found = as_array(given, "x")
    assert type(found) is np.ndarray
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, want)
    return found


class Stored:
    """An array elsewhere, that is read when it is indexed."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, index):
        return self._array[index]


class Converting(Stored):
    """An array of another library, with NumPy's protocol."""

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._array, dtype)


matrices = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")


@matrices
@pytest.mark.states("Arrays", "`numpy.matrix`, memory maps and other subclasses", "converted", "a plain view")
@pytest.mark.states("Arrays", "masked arrays, nothing masked", "converted", "a plain view")
@pytest.mark.states("Arrays", "another byte order", "converted", "a copy in the machine's")
@pytest.mark.states("Arrays", "arrays of other libraries: shape, dtype, indices", "converted", "read whole")
@pytest.mark.states("Arrays", "lists of numbers, or of arrays of one shape", "converted", "stacked")
def test_what_has_one_meaning(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    read_only = VALUES.copy()
    read_only.flags.writeable = False
    for given in (
        VALUES, np.matrix(VALUES), mapped, read_only, np.ma.array(VALUES), np.ma.array(VALUES, mask=False),
        VALUES[::-1][::-1], np.asfortranarray(VALUES), VALUES.view(np.recarray), VALUES.tolist(), list(VALUES),
        tuple(map(np.ma.array, VALUES)), Stored(VALUES), Converting(VALUES), VALUES.astype(">f4"),
        VALUES.astype(np.float16), VALUES.astype(np.longdouble), [list(row) for row in VALUES],
    ):  # fmt: skip
        same(given)
        assert ccx.explain(given, CONCEPTS, clusters=1, progress=False) == ccx.explain(
            VALUES, CONCEPTS, clusters=1, progress=False
        )
    assert same(mapped) is not mapped
    assert np.shares_memory(same(mapped), mapped)
    assert as_array(VALUES, "x") is VALUES
    same(VALUES[:, ::-1], VALUES[:, ::-1])
    same(range(3, 9, 2), [3, 5, 7])
    same(np.full((), 3.0), 3)


@pytest.mark.states("Arrays", "masked entries", "refused", "fill them; leave cells out with valid=")
@pytest.mark.states("Arrays", "complex, text, objects, structured arrays", "refused", "convert, or take a field")
@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (np.ma.array(VALUES, mask=VALUES > 1), InputError, r"no masked entries, got \d+ masked of 18; fill them"),
        ([np.ma.array([1.0, 2.0], mask=[0, 1])], InputError, "1 masked of 2"),
        ([[np.ma.array([1.0, 2.0], mask=[0, 1])]], InputError, "1 masked of 2"),
        (VALUES.astype(complex), DTypeError, r"got complex128\[6, 3\]; take its \.real"),
        (VALUES.astype(object), DTypeError, r"got object\[6, 3\]; say what it holds"),
        (VALUES.astype(str), DTypeError, "expected numbers or booleans, got <U"),
        (np.zeros(3, [("a", "f4")]), DTypeError, "take one of its fields"),
        (np.rec.array([(1, 2.0)]), DTypeError, "take one of its fields"),
        (np.array(["2020-01-01"], "M8[D]"), DTypeError, "give numbers"),
        (scipy.sparse.csr_array(VALUES), DTypeError, "only ccx.explain takes sparse matrices"),
        (scipy.sparse.csr_matrix(VALUES), DTypeError, "only ccx.explain takes sparse matrices"),
        (scipy.sparse.dok_array(VALUES), DTypeError, "only ccx.explain takes sparse matrices"),
        ([[1, 2], [3]], DTypeError, "a list that is no regular table of numbers"),
        ([10**400], DTypeError, "no regular table"),
        (range(2**70, 2**70 + 2), DTypeError, "range"),
        (["a", "b"], DTypeError, "no regular table"),
        ([np.zeros(2), np.zeros(3)], DTypeError, "no regular table"),
        ([np.zeros(2), 3.0], DTypeError, "no regular table"),
        ([None], DTypeError, "no regular table"),
        (3.0, DTypeError, "got float"),
        (np.float32(3), DTypeError, "got float32"),
        (np.ndarray, DTypeError, "got type"),
        ("text", DTypeError, "got str"),
        (b"bytes", DTypeError, "got bytes"),
        (None, DTypeError, "got NoneType"),
        ({"a": 1}, DTypeError, "got dict"),
        (iter([1.0]), DTypeError, "got list_iterator"),
        (range(10**15), MemoryBudgetError, "expected work that fits"),
        (Stored(np.broadcast_to(np.float32(0), (1 << 40, 1 << 10))), MemoryBudgetError, "expected work that fits"),
    ],
)  # fmt: skip
def test_what_has_none_or_two(given, kind, message):
    with pytest.raises(kind, match=f"x: .*{message}"):
        as_array(given, "x")


def test_a_list_in_itself_and_arrays_that_cannot_be_read():
    endless = []
    endless.append(endless)
    with pytest.raises(DTypeError, match="no regular table"):
        as_array(endless, "x")

    class Closed(Stored):
        def __getitem__(self, index):
            raise OSError("the file is closed")

    class Lying(Stored):
        def __getitem__(self, index):
            return self._array[0]

    with pytest.raises(DTypeError, match=r"a Closed that cannot be read \(OSError: the file is closed\)"):
        as_array(Closed(VALUES), "x")
    with pytest.raises(ShapeError, match=r"x: expected \[6, 3\], got float32\[3\]"):
        as_array(Lying(VALUES), "x")


@pytest.mark.states("Arrays", "booleans or whole numbers as activations", "refused", "convert: astype(numpy.float32)")
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_activations_are_floating_point_everywhere(dtype):
    values = VALUES.astype(dtype)
    for call in (
        lambda: ccx.explain(values, CONCEPTS),
        lambda: ccx.explain(values.tolist(), CONCEPTS),
        lambda: ccx.explain(scipy.sparse.csc_array(values), CONCEPTS),
        lambda: ccx.kernels.upsample(values, (2, 2)),
        lambda: ccx.kernels.kmeans_1d(values[:, 0], 2),
        lambda: ccx.clustering.unit_ranges(values, clusters=2, quantile=0.1),
        lambda: ccx.metrics.cosine_concept_masking_score(values, values, (0, 1)),
        lambda: as_floats(values, "values"),
    ):
        with pytest.raises(DTypeError, match=r"floating point.*; convert: \w+\.astype\(numpy\.float32\)"):
            call()


@pytest.mark.states("Arrays", "float16, float64, long double as activations", "converted", "to float32")
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble, ">f8"])
def test_all_floats_are_taken_as_float32(dtype):
    values, ascending = VALUES.astype(dtype), np.sort(VALUES[:, 0])
    assert ccx.explain(values, CONCEPTS, progress=False) == ccx.explain(VALUES, CONCEPTS, progress=False)
    want = ccx.clustering.unit_ranges(VALUES, clusters=2, quantile=0.1)
    np.testing.assert_array_equal(ccx.clustering.unit_ranges(values, clusters=2, quantile=0.1), want)
    want = ccx.kernels.kmeans_1d(ascending, 2)
    np.testing.assert_array_equal(ccx.kernels.kmeans_1d(ascending.astype(dtype), 2), want)


@pytest.mark.states(
    "Arrays", "torch: gradients, bfloat16, float8, sparse, quantised", "converted", "exactly, to float32"
)
@pytest.mark.states("Arrays", "torch tensors on meta, or nested", "refused", "run the model; pad, and valid=")
@pytest.mark.needs("torch")
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of sparse layouts and quantisation in beta
def test_tensors_of_torch():
    import torch

    tensor = torch.from_numpy(VALUES)
    halves = torch.round(tensor * 2) / 2
    for given, want in (
        (tensor, VALUES),
        (tensor.clone().requires_grad_() * 1, VALUES),
        (torch.nn.Parameter(tensor), VALUES),
        (tensor.to(torch.bfloat16), tensor.to(torch.bfloat16).float().numpy()),
        (halves.to(torch.float8_e4m3fn), halves.numpy()),
        (tensor.half(), VALUES),
        (tensor.to_sparse(), VALUES),
        (tensor.to_sparse_csr(), VALUES),
        (tensor.to_sparse_csc(), VALUES),
        (tensor.to(torch.bfloat16).to_sparse(), tensor.to(torch.bfloat16).float().numpy()),
        (torch.complex(tensor, -tensor).conj().imag, VALUES),  # lazily negated
        (torch.quantize_per_tensor(halves, 0.5, 10, torch.quint8), halves.numpy()),
        (list(tensor), VALUES),
        ([[row] for row in tensor], VALUES[:, None]),
        (tensor.flip(1).T, VALUES[:, ::-1].T),
    ):
        found = same(given, want)
        assert found.dtype in (np.float16, np.float32)
    assert same(tensor > 0, VALUES > 0).dtype == np.bool_
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    for given, kind, message in (
        (tensor.to("meta"), BackendError, "on meta, which has no numbers; load the weights"),
        (torch.complex(tensor, tensor), DTypeError, "take its .real"),
        (torch.complex(tensor, tensor).conj(), DTypeError, "take its .real"),
        (nested, DTypeError, "a nested tensor; pad it"),
    ):
        with pytest.raises(kind, match=f"x: .*{message}"):
            as_array(given, "x")


def test_devices_of_torch(monkeypatch):
    from types import SimpleNamespace

    class Tensor:
        device = SimpleNamespace(type="mps")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    with pytest.raises(BackendError, match=r"pass x\.cpu\(\)"):
        as_array(Tensor(), "x")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())  # half imported, by another thread
    same(VALUES)


@pytest.mark.states("Arrays", "data frames and series", "converted", "their values")
@pytest.mark.states("Arrays", "data frames whose labels give another order", "refused", "sort_index(), or .to_numpy()")
@pytest.mark.needs("pandas")
def test_data_frames():
    import pandas as pd

    frame = pd.DataFrame(VALUES)
    for given, want in (
        (frame, VALUES),
        (frame.set_axis(list("abcdef")), VALUES),
        (frame.set_axis([9, 4, 2, 1, 5, 7]), VALUES),  # numbers of something else
        (frame.iloc[2:], VALUES[2:]),
        (frame[0], VALUES[:, 0]),
        (pd.Series([True, False]), [True, False]),
        (pd.Series([1.0, 2.0], dtype="Float64"), [1, 2]),
        ([frame, frame], [VALUES, VALUES]),
    ):
        same(given, want)
    for given, message in (
        (frame[::-1], r"expected rows in the order of their labels, got row 5 first; sort them \(sort_index"),
        (frame.sort_values(0), "rows in the order of their labels"),
        (frame[[1, 0, 2]], "columns in the order of their labels, got column 1 first"),
        (frame[0][::-1], "rows in the order"),
        (frame.assign(name="text"), r"got object\[6, 4\]"),
        (pd.Series([True, None]), r"got object\[2\]"),
        (pd.Series(["a", "b"]), "x: "),
    ):
        with pytest.raises(InputError, match=message):
            as_array(given, "x")


@pytest.mark.states("Arrays", "h5py and zarr arrays", "converted", "read whole; by probe in batches")
@pytest.mark.needs("h5py")
@pytest.mark.needs("zarr")
def test_arrays_in_files(tmp_path):
    import h5py
    import zarr

    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=VALUES)
        masks = file.create_dataset("masks", data=MASKS)
        labels = file.create_dataset("labels", data=MASKS[0].astype(">u2"))
        same(stored)
        assert ccx.explain(stored, masks, progress=False) == ccx.explain(VALUES, MASKS, progress=False)
        made = ccx.Concepts.from_label_maps(labels, ["a"])
        assert made.content_hash == ccx.Concepts.from_label_maps(MASKS[0].astype(int), ["a"]).content_hash
    with pytest.raises(DTypeError, match=r"a Dataset that cannot be read|got Dataset"):
        as_array(stored, "x")  # closed
    compressed = zarr.create_array(str(tmp_path / "x.zarr"), shape=VALUES.shape, dtype="f4", chunks=(2, 2))
    compressed[:] = VALUES
    same(compressed)


@pytest.mark.needs("torch")
@pytest.mark.needs("h5py")
def test_probing_arrays_of_all_kinds(tmp_path):
    import h5py
    import torch
    from torch import nn

    images = RNG.standard_normal((5, 3, 4, 4)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    want = ccx.probe(model, images, "0", batch_size=2)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=images)
        for loader in (stored, Sized(images), images.astype(">f4"), np.ma.array(images), [np.ma.array(images)]):
            np.testing.assert_allclose(ccx.probe(model, loader, "0", batch_size=2), want, atol=1e-6)
    masked = np.ma.array(images, mask=images > 1)
    for loader in (masked, [masked], {"x": masked}, torch.utils.data.DataLoader([masked[0]], collate_fn=list)):
        with pytest.raises(InputError, match="expected no masked entries"):
            ccx.probe(model, loader, "0")
    with pytest.raises(InputError, match="expected no masked entries"):
        next(ccx.networks.image_batches([masked]))


class Sized(Stored):
    """An array elsewhere, of a length."""

    def __len__(self):
        return len(self._array)


@pytest.mark.states(
    "Arrays", "activations [U, N, h, w] or [N, h, w, U]", "refused", "the message names the axes to move"
)
@pytest.mark.states(
    "Arrays", "masks [N, C, H, W], bitmaps [N, M, H, W]", "refused", "the message names the axes to move"
)
@pytest.mark.states("Arrays", "labels [N, H, W, L]", "refused", "numpy.moveaxis(labels, 3, 1)")
def test_swapped_axes():
    n, c, u, grid = 5, 2, 7, (4, 6)
    rng = np.random.default_rng(1)
    masks = rng.random((c, n, *grid)) < 0.5
    concepts = ccx.Concepts.from_masks(masks, ["a", "b"])
    maps = rng.standard_normal((n, u, 2, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (n, 2, 4, 3))
    for call, message in (
        (lambda: ccx.explain(maps.swapaxes(0, 1), concepts), r"numpy.transpose\(activations, \(1, 0, 2, 3\)\)"),
        (lambda: ccx.explain(np.moveaxis(maps, 0, 3), concepts), r"numpy.transpose\(activations, \(3, 0, 1, 2\)\)"),
        (lambda: ccx.explain(maps[:, :, 0, 0].T, concepts), r"numpy.transpose\(activations, \(1, 0\)\)"),
        (
            lambda: ccx.explain(np.moveaxis(maps, 1, 3), concepts),
            r"units come second: numpy.transpose\(activations, \(0, 3, 1, 2\)\); if they do, bring",
        ),
        (lambda: ccx.explain(maps, masks.swapaxes(0, 1)), r"samples come second: numpy.swapaxes\(concepts, 0, 1\)"),
        (lambda: ccx.explain_bitmaps(masks, masks.swapaxes(0, 1)), "samples come second"),
        (
            lambda: ccx.explain_bitmaps(masks[:1].swapaxes(0, 1), concepts),
            r"numpy.transpose\(bitmaps, \(1, 0, 2, 3\)\)",
        ),
        (lambda: ccx.Concepts.from_masks(masks.swapaxes(0, 1), list("ab")), r"\[C, N, H, W\]: numpy.swapaxes\(masks"),
        (
            lambda: ccx.Concepts.from_label_maps(
                np.moveaxis(labels, 1, 3), ["a", "b", "c"], valid=np.ones((n, 4, 3), bool)
            ),
            r"beside bool\[5, 4, 3\]; put the layers second: numpy.moveaxis\(labels, 3, 1\)",
        ),
        (
            lambda: ccx.Concepts.from_label_maps(np.zeros((n, 7, 9, 2), int), ["a", "b", "c"]),
            "at most 3 layers, the number of names, .*put the layers second",
        ),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert reordered("x", (2, 3), (4, None)) is None
    assert reordered("x", (5, 5, 3), (3, 5, 5)) == "reorder its axes: numpy.transpose(x, (2, 0, 1))"
    # Where the given order fits, it is what is meant.
    for fitting in (
        maps,
        maps[:, :2],
        rng.standard_normal((n, 4, *grid)),
        rng.standard_normal((n, 2, 3, 3))[..., :1, :],
    ):
        assert ccx.explain(fitting, concepts, units=[0], clusters=1, progress=False)


@pytest.mark.states("Sparse activations", "scipy, as matrix or array, in any format; torch [N·H·W, U]", "accepted", "")
@pytest.mark.states("Sparse activations", "indices outside of the matrix", "refused", "build it again from coordinates")
@pytest.mark.needs("torch")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_activations():
    import torch

    values = np.where(RNG.random((24, 3)) < 0.3, RNG.standard_normal((24, 3)), 0).astype(np.float32)
    concepts = ccx.Concepts.from_masks(RNG.random((2, 6, 2, 2)) < 0.5)
    want = ccx.explain(scipy.sparse.csc_array(values), concepts, progress=False)
    tensor = torch.from_numpy(values)
    for given in (
        *(kind(values) for kind in (scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.lil_array)),
        *(scipy.sparse.csc_array(values).asformat(kind) for kind in ("bsr", "dok", "dia")),
        tensor.to_sparse(), tensor.to_sparse_csr(), tensor.to_sparse_csc(), tensor.double().to_sparse(),
    ):  # fmt: skip
        assert ccx.explain(given, concepts, progress=False) == want
    wild = scipy.sparse.csc_array(values)
    wild.indices[0] = 24
    high = scipy.sparse.coo_array(values)
    high.coords[0][0] = -1
    for given in (wild, high):
        with pytest.raises(InputError, match=r"activations: expected a sparse matrix in order, .*build it again"):
            ccx.explain(given, concepts, progress=False)
    ids = [scipy.sparse.csr_array(np.array([[0, 2, 1, 0]]))]
    with pytest.raises(DTypeError, match=r"masks: expected sparse masks of 0 and 1, .*from_label_maps"):
        ccx.Concepts.from_masks(ids, shape=(2, 2))
    wild = scipy.sparse.csr_array(np.array([[0, 1, 1, 0]]))
    wild.indices[0] = 4
    with pytest.raises(InputError, match="masks: expected a sparse matrix in order"):
        ccx.Concepts.from_masks([wild], shape=(2, 2))


@matrices
def test_out_is_written_where_the_caller_looks():
    rows = np.ones((2, 1), np.uint64)
    for out in (np.zeros((2, 1), ">u8"), [[0], [0]]):
        with pytest.raises(InputError, match="out: "):
            ccx.kernels.logical_and(rows, rows, out=out)
    matrix = np.matrix(np.zeros((2, 1), np.uint64))
    ccx.kernels.logical_and(rows, rows, out=matrix)
    assert matrix.tolist() == [[1], [1]]


_SCRIPT = """
import json, sys
import numpy as np
if "warm" in sys.argv:
    import importlib.util
    for name in ("scipy.sparse", "pandas", "torch", "h5py", "zarr"):
        if importlib.util.find_spec(name.partition(".")[0]):
            __import__(name)
import ccx
concepts = ccx.Concepts.from_masks(np.arange(12).reshape(2, 6, 1, 1) % 3 > 0)
values = np.arange(18, dtype=np.float32).reshape(6, 3) % 7

class Sparse:
    shape, ndim, dtype, nnz, format = (6, 3), 2, np.dtype("f4"), 18, "own"
    def tocsc(self, copy=False):
        from scipy.sparse import csc_array
        return csc_array(values)

class Stored:
    shape, dtype = values.shape, values.dtype
    def __getitem__(self, index):
        return values[index]

def end(given):
    try:
        return repr(tuple(ccx.explain(given, concepts, progress=False)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

given = [values, Sparse(), Stored(), values.tolist(), values > 3, values.astype(object), np.ma.array(values, mask=True),
         np.matrix(values), None, "text", values.T, [values], {"a": values}]
print(json.dumps([end(one) for one in given]))
"""


def test_a_fresh_process_answers_as_a_warm_one():
    answers = [
        json.loads(
            subprocess.run([sys.executable, "-c", _SCRIPT, kind], capture_output=True, check=True, text=True).stdout
        )
        for kind in ("fresh", "warm")
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == answers[0][1] == answers[0][2] == answers[0][3] == answers[0][7]
    assert all("Error: " in answer for answer in (*answers[0][4:7], *answers[0][8:]))
