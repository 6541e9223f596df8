"""Concepts: every way to build them gives the same data set, and that is what the boolean masks say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import ccx
from ccx import Concepts
from ccx.errors import DTypeError, InputError, MemoryBudgetError, ShapeError
from ccx.formula import And, Concept, Not, Or

GRIDS = ((1, 1), (1, 63), (8, 8), (5, 13), (3, 43))


@dataclass(frozen=True, eq=False)
class Data:
    """Label maps int64[N, L, H, W] of C concepts, the masks that they say, and which cells are valid."""

    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]  # bool[C, N, H, W]
    valid: NDArray[np.bool_]  # bool[N, H, W]

    @property
    def names(self) -> list[str]:
        return [f"concept {c + 1}" for c in range(len(self.masks))]

    @property
    def categories(self) -> list[str]:
        return ["abc"[c % 3] for c in range(len(self.masks))]

    def build(self, **options: Any) -> Concepts:
        return Concepts.from_label_maps(
            self.labels, self.names, categories=self.categories, **{"valid": self.valid, **options}
        )


def made(rng: np.random.Generator, n_samples: int, n_concepts: int, n_layers: int, grid: tuple[int, int]) -> Data:
    """Draw label maps of noise, of blocks, of one label (a full mask) and of none."""
    shape = (n_samples, n_layers, *grid)
    labels = rng.integers(0, n_concepts + 1, shape)
    blocks = np.broadcast_to(np.arange(grid[1]) * (n_concepts + 1) // grid[1], shape)
    kind = rng.integers(0, 4, (n_samples, n_layers, 1, 1))
    labels = np.select(
        [kind == 1, kind == 2, kind == 3], [blocks, labels[..., :1, :1] + 0 * labels, 0 * labels], labels
    )
    ids = np.arange(1, n_concepts + 1).reshape(-1, 1, 1, 1, 1)
    valid = rng.random((n_samples, *grid)) < rng.choice((1.0, 0.9, 0.9, 0.0))
    valid[rng.random(n_samples) < 0.1] = False
    return Data(labels, (labels == ids).any(axis=2), valid)


@st.composite
def data(draw: st.DrawFn, max_samples: int = 6) -> Data:
    numbers = (draw(st.integers(1, max_samples)), draw(st.integers(1, 12)), draw(st.integers(1, 3)))
    return made(np.random.default_rng(draw(st.integers(0, 2**32))), *numbers, draw(st.sampled_from(GRIDS)))


@pytest.fixture(scope="module")
def some() -> Data:
    """A data set with void cells, full, overlapping and absent concepts."""
    return made(np.random.default_rng(3), 9, 7, 3, (5, 13))


# Ways to build -------------------------------------------------------------------------------------------------------


def in_batches(array: NDArray[Any], size: int, valid: NDArray[np.bool_] | None = None) -> Iterator[Any]:
    for start in range(0, len(array), size):
        batch = array[start : start + size]
        yield batch if valid is None else (batch, valid[start : start + size])


@given(
    case=data(),
    size=st.integers(1, 7),
    threads=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "int16", "int32", ">u2", "int64"]),
)
@settings(max_examples=60)
def test_all_ways_to_build_agree(case: Data, size: int, threads: int, dtype: str) -> None:
    whole = case.build(threads=1)
    whole.validate()
    labels, words = case.labels.astype(dtype), ccx.kernels.pack(case.masks.reshape(*case.masks.shape[:2], -1))
    grid = case.valid.shape[1:]
    options: dict[str, Any] = {"categories": case.categories, "threads": threads}
    others = [
        Concepts.from_label_maps(labels, case.names, valid=case.valid, **options),
        Concepts.from_label_maps(in_batches(labels, size, case.valid), case.names, **options),
        Concepts.from_label_maps(np.asfortranarray(labels)[:, ::-1], case.names, valid=case.valid, **options),
        Concepts.from_masks(case.masks, case.names, valid=case.valid, **options),
        Concepts.from_masks(words, case.names, grid, valid=case.valid, **options),
        Concepts.from_masks(np.asfortranarray(case.masks), case.names, valid=case.valid, **options),
        Concepts.from_masks(as_sparse(case.masks), case.names, grid, valid=case.valid, **options),
    ]
    if case.valid.all():
        others.append(Concepts.from_label_maps(labels, case.names, **options))
        others.append(Concepts.from_label_maps(in_batches(labels, size), case.names, **options))
    for other in others:
        assert other.content_hash == whole.content_hash
        assert repr(other) == repr(whole)


def as_sparse(masks: NDArray[np.bool_]) -> list[Any]:
    return [sparse.csr_array(mask.reshape(len(mask), -1)) for mask in masks]


@given(case=data())
@settings(max_examples=30)
def test_one_layer_needs_no_axis(case: Data) -> None:
    first = Concepts.from_label_maps(case.labels[:, :1], case.names)
    assert Concepts.from_label_maps(case.labels[:, 0], case.names).content_hash == first.content_hash


def test_small_batches_inside_change_nothing(some: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = some.build()
    for n_samples in (1, 2, 4):
        monkeypatch.setattr("ccx.kernels.partitions._BATCH_CELLS", n_samples * 65)
        monkeypatch.setattr("ccx.concepts.annotations._MASK_BATCH_BYTES", n_samples * 65 * 7)
        for other in (
            some.build(),
            Concepts.from_masks(some.masks, some.names, categories=some.categories, valid=some.valid),
        ):
            assert other.content_hash == whole.content_hash
        assert whole.subset().content_hash == whole.content_hash


def test_sparse_masks_of_any_format(some: Data) -> None:
    masks = as_sparse(some.masks)
    expected = Concepts.from_masks(some.masks).content_hash
    explicit_zeros = [mask.astype(np.float64) for mask in masks]
    for mask in explicit_zeros:
        mask.data[::2] = 0.0  # stored, and no member
    for given_masks in (
        [m.tocoo() for m in masks],
        tuple(m.tocsc() for m in masks),
        [sparse.csr_matrix(m) for m in masks],
    ):
        assert Concepts.from_masks(given_masks, shape=(5, 13)).content_hash == expected
    thinned = np.stack([mask.toarray() != 0 for mask in explicit_zeros]).reshape(some.masks.shape)
    assert Concepts.from_masks(explicit_zeros, shape=(5, 13)).content_hash == Concepts.from_masks(thinned).content_hash


def test_default_names_and_progress(some: Data) -> None:
    calls: list[tuple[int, int]] = []
    concepts = Concepts.from_masks(some.masks, progress=lambda *call: calls.append(call))
    assert concepts.names == tuple("1234567")
    assert concepts.categories is None
    assert calls == [(9, 9)]
    calls.clear()
    Concepts.from_label_maps(in_batches(some.labels, 4), some.names, progress=lambda *call: calls.append(call))
    assert calls == [(4, 0), (8, 0), (9, 0)]
    calls.clear()
    Concepts.from_label_maps(some.labels, some.names, progress=lambda *call: calls.append(call))
    assert calls == [(9, 9)]


def test_repr_and_sizes(some: Data) -> None:
    concepts = some.build()
    assert repr(concepts) == (
        f"<Concepts: 7 concepts in 3 categories, 9 samples of 5×13 cells, {concepts.atoms.n_atoms} atoms>"
    )
    assert (len(concepts), concepts.n_concepts, concepts.n_samples, concepts.shape) == (7, 7, 9, (5, 13))
    assert concepts.n_cells == some.valid.sum()


@pytest.mark.needs("torch")
def test_torch_label_maps_and_masks(some: Data) -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    labels, valid = torch.from_numpy(some.labels), torch.from_numpy(some.valid)
    expected = some.build().content_hash
    assert some.build(valid=valid).content_hash == expected
    loader = DataLoader(TensorDataset(labels.to(torch.int16), valid), batch_size=4)
    for given_labels, options in ((labels, {"valid": valid}), (labels.to(torch.uint8), {"valid": valid}), (loader, {})):
        built = Concepts.from_label_maps(given_labels, some.names, categories=some.categories, **options)
        assert built.content_hash == expected
    masks = torch.from_numpy(some.masks)
    assert Concepts.from_masks(masks, some.names, categories=some.categories, valid=valid).content_hash == expected


# What they say -------------------------------------------------------------------------------------------------------


@given(case=data())
def test_masks_counts_and_pairs(case: Data) -> None:
    concepts = case.build()
    inside = case.masks & case.valid
    flat = inside.reshape(len(inside), -1).astype(np.int64)
    np.testing.assert_array_equal(concepts.sizes, flat.sum(axis=1))
    np.testing.assert_array_equal(concepts.pair_sizes, flat @ flat.T)
    assert concepts.n_cells == case.valid.sum()
    for c, name in enumerate(case.names):
        np.testing.assert_array_equal(concepts.mask(Concept(name)), inside[c], strict=True)
        assert concepts.index(name) == c
    a, b = (Concept(case.names[c]) for c in (0, -1))
    first, last = inside[0], inside[-1]
    for formula, expected in (
        (Or(a, b), first | last),
        (And(a, Not(b)), first & ~last),
        (Not(Or(a, Not(b))), ~first & last & case.valid),
        (Not(a), ~first & case.valid),
    ):
        np.testing.assert_array_equal(concepts.mask(formula), expected, strict=True)
        np.testing.assert_array_equal(concepts.mask(str(formula)), expected)
        assert concepts.count(formula) == concepts.count(str(formula)) == expected.sum()
        packed = ccx.kernels.pack(expected.reshape(len(expected), -1))
        np.testing.assert_array_equal(concepts.mask(formula, packed=True), packed, strict=True)


@given(case=data(), threads=st.integers(1, 3))
def test_packed_rows(case: Data, threads: int) -> None:
    """Absent concepts have no entry, full ones an entry without a row, all others a row."""
    concepts = case.build()
    chosen = np.arange(len(case.valid))[::2]
    found = concepts.packed_rows(chosen, threads=threads)
    inside = (case.masks & case.valid).reshape(*case.masks.shape[:2], -1)
    n_rows = 0
    for k, sample in enumerate(chosen):
        entries = range(found.starts[k], found.starts[k + 1])
        present = np.flatnonzero(inside[:, sample].any(axis=1))
        assert found.concepts[entries.start : entries.stop].tolist() == present.tolist()
        for entry, concept in zip(entries, present, strict=True):
            mask = inside[concept, sample]
            assert found.areas[entry] == mask.sum()
            if mask.all():
                assert found.row_of[entry] == -1
            else:
                np.testing.assert_array_equal(found.rows[found.row_of[entry]], ccx.kernels.pack(mask))
                assert found.row_of[entry] == n_rows
                n_rows += 1
    assert found.rows.shape[0] == n_rows
    assert found.starts[-1] == len(found.concepts) == len(found.areas) == len(found.row_of)


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        (None, range(9)),
        (3, [3]),
        (-1, [8]),
        (slice(1, 7, 2), [1, 3, 5]),
        ([4, 0, 4], [4, 0, 4]),
        ((2, 1), [2, 1]),
        ([], []),
        (np.arange(9) % 2 == 0, [0, 2, 4, 6, 8]),
        (np.array([5], np.uint8), [5]),
    ],
)
def test_masks_of_some_samples(some: Data, samples: Any, wanted: Iterable[int]) -> None:
    concepts = some.build()
    mask = (some.masks[1] & some.valid)[list(wanted)]
    np.testing.assert_array_equal(concepts.mask("concept 2".join('""'), samples=samples), mask, strict=True)
    assert len(concepts.packed_rows(samples).starts) == len(mask) + 1
    if len(mask):
        assert concepts.subset(samples=samples).n_samples == len(mask)


@given(case=data(), choice=st.data())
@settings(max_examples=60)
def test_subset_is_building_from_the_subset(case: Data, choice: st.DataObject) -> None:
    n_samples, n_concepts = len(case.valid), len(case.masks)
    kept = choice.draw(st.sets(st.integers(0, n_concepts - 1), min_size=1).map(sorted), label="concepts")
    samples = choice.draw(st.lists(st.integers(0, n_samples - 1), min_size=1, max_size=8), label="samples")
    subset = case.build().subset([case.names[c] for c in reversed(kept)], samples=samples)
    subset.validate()
    built = Concepts.from_masks(
        case.masks[kept][:, samples],
        [case.names[c] for c in kept],
        categories=[case.categories[c] for c in kept],
        valid=case.valid[samples],
    )
    assert subset.content_hash == built.content_hash
    assert (subset.names, subset.categories) == (built.names, built.categories)


def test_subset_by_categories(some: Data) -> None:
    concepts = some.build()  # categories a b c a b c a
    assert concepts.subset(categories=["a", "c"]).names == tuple(some.names[c] for c in (0, 2, 3, 5, 6))
    assert concepts.subset(some.names[:3], categories=["a", "b"]).names == tuple(some.names[:2])
    assert concepts.subset().content_hash == concepts.content_hash
    np.testing.assert_array_equal(concepts.selected(categories=["b"]), [c % 3 == 1 for c in range(7)])
    assert concepts.selected().all()
    without = Concepts.from_masks(some.masks)
    assert without.subset(["2"]).categories is None


# Extremes ------------------------------------------------------------------------------------------------------------


def test_more_atoms_in_a_sample_than_16_bits() -> None:
    """17 overlapping masks cut 70,000 cells of a sample into as many atoms; a second sample has two."""
    cells = np.arange(70_000)
    masks = np.zeros((17, 2, 1, 70_000), np.bool_)
    masks[:, 0, 0] = cells >> np.arange(17)[:, None] & 1
    masks[0, 1, 0, :9] = True
    concepts = Concepts.from_masks(masks)
    assert concepts.atoms.n_atoms == 70_000
    assert concepts.atoms.cell_atoms.dtype == np.uint32
    concepts.validate()
    np.testing.assert_array_equal(concepts.mask("((1 OR 17) AND NOT 4)"), (masks[0] | masks[16]) & ~masks[3])
    small = concepts.subset(samples=[1])
    assert small.atoms.cell_atoms.dtype == np.uint16
    assert small.content_hash == Concepts.from_masks(masks[:, 1:]).content_hash


def test_more_concepts_than_a_dense_pair_matrix_holds() -> None:
    labels = np.arange(1, 5_001).reshape(2, 1, 50, 50)
    other = np.roll(labels[::-1], 7, axis=3)  # a second layer
    concepts = Concepts.from_label_maps(np.concatenate([labels, other], axis=1), [str(c) for c in range(5_000)])
    pairs = concepts.pair_sizes
    assert sparse.issparse(pairs)
    assert pairs.nnz == 5_000 + 2 * 5_000
    a, b = labels[0, 0, 3, 3] - 1, other[0, 0, 3, 3] - 1
    assert (pairs[a, a], pairs[a, b], pairs[b, a]) == (2, 1, 1)


def test_the_largest_id() -> None:
    names = [str(c) for c in range(65_535)]
    labels = np.array([[[[65_535, 0, 1]]]], np.uint16)
    concepts = Concepts.from_label_maps(labels, names)
    assert concepts.count("65534") == concepts.count("0") == 1
    with pytest.raises(InputError, match="65535, got 65536"):
        Concepts.from_label_maps(labels, [*names, "one more"])


def test_no_valid_cell() -> None:
    concepts = Concepts.from_masks(np.ones((2, 3, 4, 5), np.bool_), valid=np.zeros((3, 4, 5), np.bool_))
    concepts.validate()
    assert (concepts.n_cells, concepts.atoms.n_atoms, concepts.count("1"), concepts.count("NOT 1")) == (0, 0, 0, 0)
    assert not concepts.mask("NOT (1 AND 2)").any()
    assert len(concepts.packed_rows().concepts) == 0
    assert not concepts.sizes.any()
    assert not concepts.pair_sizes.any()


# Errors --------------------------------------------------------------------------------------------------------------

LABELS = np.zeros((2, 1, 3, 4), np.int64)
MASKS = np.zeros((2, 3, 3, 4), np.bool_)
NAMES = ["a", "b"]


def from_labels(labels: Any = LABELS, names: Any = NAMES, **options: Any) -> Callable[[], Concepts]:
    return lambda: Concepts.from_label_maps(labels, names, **options)


def from_masks(masks: Any = MASKS, *args: Any, **options: Any) -> Callable[[], Concepts]:
    return lambda: Concepts.from_masks(masks, *args, **options)


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (from_labels(LABELS.astype(float)), DTypeError, r"labels: expected integer ids, got float64\[2, 1, 3, 4\]"),
        (from_labels(LABELS > 0), DTypeError, r"labels: .* got bool\[2, 1, 3, 4\]; masks, .*Concepts.from_masks"),
        (
            from_labels(LABELS[0, 0]),
            ShapeError,
            r"labels: expected int\[N, L, H, W\] or int\[N, H, W\], got int64\[3, 4\]",
        ),
        (from_labels(LABELS[None]), ShapeError, r"labels: expected int\[N, L, H, W\]"),
        (from_labels(LABELS[:, :0]), ShapeError, r"labels: .* got int64\[2, 0, 3, 4\]"),
        (from_labels(LABELS[..., :0]), ShapeError, r"labels: .* got int64\[2, 1, 3, 0\]"),
        (from_labels(LABELS[:0]), InputError, "labels: expected at least one sample, got none"),
        (from_labels(iter([])), InputError, "labels: expected at least one sample, got none"),
        (from_labels(iter([LABELS[:0]])), InputError, "labels: expected at least one sample, got none"),
        (from_labels(None), DTypeError, "labels: expected integer ids, got NoneType"),
        (from_labels(LABELS.tolist()), InputError, "labels: .* got a batch of type list; convert with numpy.asarray"),
        (from_labels([(LABELS, LABELS, LABELS)]), InputError, "labels: .* got a batch of type tuple"),
        (from_labels("labels.npy"), InputError, "labels: .* got a batch of type str"),
        (
            from_labels([LABELS, LABELS[..., :3]]),
            ShapeError,
            r"labels: expected a grid of \(3, 4\), got int64\[2, 1, 3, 3\]",
        ),
        (from_labels(valid=np.ones((2, 3, 4))), ShapeError, r"valid: expected bool\[2, 3, 4\], got float64\[2, 3, 4\]"),
        (
            from_labels(valid=np.ones((2, 4, 3), bool)),
            ShapeError,
            r"valid: expected bool\[2, 3, 4\], got bool\[2, 4, 3\]",
        ),
        (from_labels([LABELS], valid=np.ones((2, 3, 4), bool)), InputError, r"valid: .*yield \(labels, valid\) pairs"),
        (from_labels([(LABELS, np.ones(3, bool))]), ShapeError, r"valid: expected bool\[2, 3, 4\], got bool\[3\]"),
        (from_labels(names=3), InputError, "names: expected a sequence of texts, got 3"),
        (
            from_labels(names="ab"),
            InputError,
            r"names: expected a sequence of texts, got the one text 'ab'; write \['ab'\]",
        ),
        (from_labels(names=[]), InputError, "names: expected at least one name, got none"),
        (from_labels(names=[1, 2]), InputError, "names: expected texts, got int 1"),
        (from_labels(names=["a", "b", "a"]), InputError, "names: expected distinct names, got repeated: a"),
        (from_labels(categories=["x"]), InputError, "categories: expected 2 categories, got 1"),
        (from_labels(categories=[1, 2]), InputError, "categories: expected texts, got int 1"),
        (from_labels(threads=0), InputError, "threads: expected None or an integer >= 1, got 0"),
        (from_masks(MASKS.astype(int)), DTypeError, r"masks: expected bool\[C, N, H, W\], got int64.*from_label_maps"),
        (from_masks(MASKS.astype(float)), DTypeError, r"masks: expected bool\[C, N, H, W\], got float64"),
        (from_masks(MASKS[0]), ShapeError, r"masks: expected bool\[C, N, H, W\], got bool\[3, 3, 4\]"),
        (from_masks(MASKS[:0]), ShapeError, "masks: expected at least one concept and cell"),
        (from_masks(MASKS[:, :, :0]), ShapeError, "masks: expected at least one concept and cell"),
        (from_masks(MASKS[:, :0]), InputError, "masks: expected at least one sample, got none"),
        (from_masks(None), DTypeError, "masks: expected an array"),
        (from_masks([]), DTypeError, "masks: expected bool"),
        (from_masks(MASKS, ["a"]), InputError, "names: expected 2 names, got 1"),
        (from_masks(MASKS, ["a", "a"]), InputError, "names: expected distinct names, got repeated: a"),
        (from_masks(MASKS, NAMES, (4, 3)), ShapeError, r"masks: expected a grid of \(4, 3\), got bool\[2, 3, 3, 4\]"),
        (
            from_masks(MASKS, valid=np.ones((3, 3, 3), bool)),
            ShapeError,
            r"valid: expected bool\[3, 3, 4\], got bool\[3, 3, 3\]",
        ),
        (from_masks(np.zeros((2, 3, 1), np.uint64)), DTypeError, r"masks: .* packed masks need shape=\(H, W\)"),
        (from_masks(np.zeros((2, 3, 1), np.uint64), shape=(9, 9)), ShapeError, r"masks: expected uint64\[C, N, 2\]"),
        (
            from_masks(np.zeros((2, 3, 1), np.uint64), shape=(0, 9)),
            InputError,
            r"shape: expected \(H, W\), two integers >= 1, got \(0, 9\)",
        ),
        (from_masks(np.full((2, 3, 1), 16, np.uint64), shape=(2, 2)), InputError, "masks: expected zeros in the bits"),
        (
            from_masks([sparse.csr_array((3, 4))]),
            InputError,
            r"shape: expected \(H, W\), two integers",
        ),
        (from_masks([sparse.csr_array((3, 4))], shape=5), InputError, r"shape: expected \(H, W\), two integers"),
        (
            from_masks([sparse.csr_array((3, 4))], shape=(2, 3)),
            ShapeError,
            r"masks: expected sparse \[3, 6\], got \[3, 4\]",
        ),
        (
            from_masks([sparse.csr_array((3, 4)), sparse.csr_array((2, 4))], shape=(2, 2)),
            ShapeError,
            r"masks: expected sparse \[3, 4\], got \[2, 4\]",
        ),
    ],
)
def test_bad_annotations(build: Callable[[], Concepts], kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message) as error:
        build()
    assert type(error.value) is kind


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bad", [-1, 3, 70_000, -(2**40)])
def test_the_first_label_out_of_range_is_named(threads: int, bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.ones((40, 2, 5, 6), np.int64)
    labels[23:, 1, 2, 4] = bad
    where = rf"expected ids from 0 \(none\) to 2, the number of names, got {bad} in sample 23, layer 1, row 2, column 4"
    monkeypatch.setattr("ccx.kernels.partitions._BATCH_CELLS", 30 * 7)
    for given_labels in (labels, [labels[:9], labels[9:]]):
        with pytest.raises(InputError, match=where):
            Concepts.from_label_maps(given_labels, NAMES, threads=threads)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.index("concept 9"), r"concept: expected one of 7 names, got 'concept 9'; did you mean 'concept"),
        (lambda c: c.mask("zebra"), r"concept: expected one of 7 names, got 'zebra'; see concepts.names"),
        (lambda c: c.mask("(a AND"), "formula: expected a concept"),
        (lambda c: c.mask(3), "formula: expected a Formula or its text, got 3"),
        (lambda c: c.count("zebra"), "concept: expected one of 7 names"),
        (lambda c: c.count(None), "formula: expected a Formula or its text, got None"),
        (lambda c: c.mask(Concept("concept 1"), samples=9), "samples: expected samples 0..8, got 9"),
        (lambda c: c.mask(Concept("concept 1"), samples=[[0]]), r"samples: expected samples 0..8, got \[\[0\]\]"),
        (lambda c: c.packed_rows([0.5]), r"samples: expected samples 0..8, got \[0.5\]"),
        (lambda c: c.packed_rows([[1], [2, 3]]), r"samples: expected samples 0..8"),
        (lambda c: c.subset(samples=[True, False]), r"samples: expected samples 0..8, got \[True, False\]"),
        (lambda c: c.subset(samples="all"), r"samples: expected samples 0..8, got 'all'"),
        (lambda c: c.subset(samples=[]), "samples: expected at least one sample, got none"),
        (lambda c: c.subset(["zebra"]), "concept: expected one of 7 names, got 'zebra'"),
        (lambda c: c.subset("concept 1"), "only: expected a sequence of texts, got the one text"),
        (lambda c: c.subset([]), "only: expected at least one concept, got none"),
        (lambda c: c.subset(5), "only: expected a sequence of texts, got 5"),
        (
            lambda c: c.subset(categories=["a", "z"]),
            r"categories: expected some of \['a', 'b', 'c'\], got z; see concepts",
        ),
        (lambda c: c.subset(["concept 1"], categories=["b"]), "only: expected at least one concept, got none"),
        (lambda c: Concepts(c.atoms, ["a"]), "names: expected 7 names, got 1"),
    ],
)
def test_bad_questions(some: Data, call: Callable[[Concepts], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(some.build())


def test_categories_that_were_never_given(some: Data) -> None:
    with pytest.raises(
        InputError, match=r"categories: expected some of \[\], got a; give categories when the concepts"
    ):
        Concepts.from_masks(some.masks).subset(categories=["a"])


def test_memory_is_estimated_before_it_is_taken(some: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_no_more(*_: Any, **__: Any) -> None:
        pytest.fail("work has begun")

    monkeypatch.setattr("ccx.memory.available_bytes", lambda: 1_000)
    monkeypatch.setattr("ccx.concepts.concepts.AtomBuilder", build_no_more)
    for build in (some.build, lambda: Concepts.from_masks(some.masks)):
        with pytest.raises(
            MemoryBudgetError, match=r"expected work that fits into the 0\.0 GB of memory available"
        ) as error:
            build()
        assert isinstance(error.value, MemoryError)
        assert "use fewer samples or a coarser grid" in str(error.value)


@pytest.mark.parametrize("available", [None, 10**9])
def test_enough_or_unknown_memory(some: Data, monkeypatch: pytest.MonkeyPatch, available: int | None) -> None:
    monkeypatch.setattr("ccx.memory.available_bytes", lambda: available)
    assert some.build().n_samples == 9
