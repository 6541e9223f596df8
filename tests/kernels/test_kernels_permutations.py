from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx import memory
from ccx.errors import DTypeError, InputError, MemoryBudgetError, ShapeError
from ccx.kernels import AtomBuilder, bitmap_histogram, pack, permuted_histogram
from tests import reference
from tests.support.strategies import THREADS, annotated


def assert_same(got, wanted):
    np.testing.assert_array_equal(got, wanted, strict=True)


@given(data=st.data(), known=annotated(), threads=THREADS)
def test_permuted_histogram_matches_the_reference(data, known, threads):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bitmap = rng.random(known.sets.shape) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    n, r = len(bitmap), data.draw(st.sampled_from([0, 1, 2, 7, 65]))
    orders = np.array(
        [rng.permutation(n) for _ in range(r)], data.draw(st.sampled_from([np.int64, np.int32, np.uint8]))
    )
    orders = orders.reshape(r, n)
    got = permuted_histogram(pack(bitmap), orders, known.atoms, threads=threads)
    assert_same(got, reference.permuted_histogram(bitmap, orders, known.sets, known.found))
    for order, counts in zip(orders[:2], got, strict=False):
        assert_same(counts, bitmap_histogram(pack(bitmap[order])[None], known.atoms)[0])


@pytest.mark.parametrize("threads", [1, 3])
def test_more_atoms_than_uint16_numbers(threads):
    n_cells = 257 * 256
    builder = AtomBuilder((257, 256), 513)
    cells = np.arange(n_cells)
    labels = np.stack([1 + cells % 256, 257 + cells // 256])[None]
    builder.add_label_maps(np.concatenate([labels, labels[..., ::-1]]))
    atoms = builder.finish()
    assert atoms.cell_atoms.dtype == np.uint32
    rows = pack(np.random.default_rng(0).random((2, n_cells)) < 0.5)
    got = permuted_histogram(rows, [[0, 1], [1, 0]], atoms, threads=threads)
    assert_same(got, bitmap_histogram(np.stack([rows, rows[::-1]]), atoms))


def test_atoms_that_stretch_over_many_words_and_samples():
    rng = np.random.default_rng(0)
    labels, valid = rng.integers(0, 4, (5, 2, 21 * 31)), rng.random((5, 21 * 31)) < 0.9
    builder = AtomBuilder((21, 31), 3)
    builder.add_label_maps(labels, valid)
    sets = reference.sets_of_labels(labels, valid)
    bitmap = rng.random(valid.shape) < 0.5
    orders = np.array([rng.permutation(5) for _ in range(9)])
    wanted = reference.permuted_histogram(bitmap, orders, sets, list(reference.atoms_of(sets)))
    for threads in (1, 2, 4):
        assert_same(permuted_histogram(pack(bitmap), orders, builder.finish(), threads=threads), wanted)


def made():
    builder = AtomBuilder((2, 3), 2)
    builder.add_label_maps(np.array([[[1, 1, 2, 0, 0, 2]], [[0, 2, 2, 1, 1, 1]]]))
    return builder.finish(), pack(np.array([[1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]], np.bool_))


def test_by_hand():
    atoms, rows = made()  # atoms in order: {1}, {2}, {}
    assert permuted_histogram(rows, [[0, 1], [1, 0], [0, 0]], atoms).tolist() == [[4, 1, 1], [1, 2, 3], [2, 2, 2]]


@pytest.mark.parametrize(
    ("rows", "orders", "error", "words"),
    [
        (None, [[0.0, 1.0]], DTypeError, "permutations: expected int"),
        (None, [0, 1], ShapeError, "permutations: expected int"),
        (None, [[0, 1, 0]], ShapeError, "permutations: expected int"),
        (None, [[0, 2]], InputError, "permutations: expected 0 to 1, got values from 0 to 2"),
        (None, [[-1, 0]], InputError, "got values from -1 to 0"),
        (np.zeros((3, 1), np.uint64), [[0, 1]], ShapeError, "bitmap: expected uint64"),
        (np.zeros((1, 2, 1), np.uint64), [[0, 1]], ShapeError, "bitmap: expected uint64"),
        (np.zeros((2, 2), np.uint64), [[0, 1]], ShapeError, "bitmap: expected uint64"),
        (np.zeros((2, 1), np.int64), [[0, 1]], DTypeError, "bitmap: expected uint64"),
        (np.full((2, 1), 1 << 6, np.uint64), [[0, 1]], InputError, "bitmap: expected zeros"),
    ],
)
def test_what_does_not_fit_is_refused(rows, orders, error, words):
    atoms, good = made()
    with pytest.raises(error, match=words):
        permuted_histogram(good if rows is None else rows, orders, atoms)


def test_memory_is_asked_for_first(monkeypatch):
    atoms, rows = made()
    monkeypatch.setattr(memory, "available_bytes", lambda: (12 * 3 + 8 * 2) * 2 - 1)
    with pytest.raises(MemoryBudgetError, match="permutations"):
        permuted_histogram(rows, [[0, 1], [1, 0]], atoms)
    assert permuted_histogram(rows, [[0, 1]], atoms).shape == (1, 3)
