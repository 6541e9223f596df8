from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import (
    AtomBuilder,
    atom_rows,
    atoms,
    concept_counts,
    concept_rows,
    pack,
    pair_counts,
    partitions,
    unpack,
)
from tests import reference
from tests.support.strategies import GRIDS, THREADS, annotated, flags, label_maps

BATCH_CELLS = st.sampled_from([1, 64, 130, 1 << 22])  # one sample a batch, two, all
SEEDS = st.integers(0, 2**32 - 1)


def assert_same(got, wanted):
    np.testing.assert_array_equal(got, wanted, strict=True)


def assert_atoms(atoms, sets, n_concepts, shape):
    """Every array of `atoms`, with its dtype, against the sets of the cells."""
    found = reference.atoms_of(sets)
    number = {one: g for g, one in enumerate(found)}
    local = [list(reference.atoms_of(sample[None]).items()) for sample in sets]
    most = max(map(len, local), default=0)
    cell_atoms = np.empty(sets.shape, np.uint16 if most <= 65_535 else np.uint32)
    for n, sample in enumerate(local):
        place = {one: i for i, (one, _) in enumerate(sample)} | {None: len(sample)}
        cell_atoms[n] = [place[one] for one in sets[n]]
    assert (atoms.shape, atoms.n_concepts, atoms.n_samples, atoms.n_atoms) == (shape, n_concepts, len(sets), len(found))
    assert_same(atoms.cell_atoms, cell_atoms)
    assert_same(atoms.sample_starts, np.cumsum([0, *map(len, local)]))
    assert_same(atoms.sample_atoms, np.array([number[one] for sample in local for one, _ in sample], np.int32))
    assert_same(atoms.sample_cells, np.array([cells for sample in local for _, cells in sample], np.int32))
    assert_same(atoms.atom_starts, np.cumsum([0, *map(len, found)]))
    assert_same(atoms.atom_concepts, np.array([c for one in found for c in sorted(one)], np.uint16))
    assert_same(atoms.cells, np.array(list(found.values()), np.int64))
    starts, posted = atoms.postings
    holders = [np.flatnonzero(row) for row in reference.membership(list(found), n_concepts)] if n_concepts < 100 else []
    for c, wanted in enumerate(holders):
        assert_same(posted[starts[c] : starts[c + 1]], wanted.astype(np.int32))
    assert (starts.dtype, starts.size, starts[-1]) == (np.int64, n_concepts + 1, atoms.atom_concepts.size)


def in_batches(add, arrays, cuts):
    """Call `add` on consecutive pieces of arrays (or None)."""
    for start, stop in pairwise([0, *sorted(cuts), None]):
        add(*(None if array is None else array[start:stop] for array in arrays))


@given(data=st.data(), maps=label_maps(), threads=THREADS, batch_cells=BATCH_CELLS)
def test_label_maps_match_the_reference(data, maps, threads, batch_cells):
    """Ids up to 65,535, repeated in layers, no layer, void cells; whatever the calls, batches and threads."""
    labels, valid, n_concepts, shape = maps
    builder = AtomBuilder(shape, n_concepts, threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "_BATCH_CELLS", batch_cells)
        in_batches(
            builder.add_label_maps, (labels, valid), data.draw(st.lists(st.integers(0, len(labels)), max_size=2))
        )
    assert_atoms(builder.finish(), reference.sets_of_labels(labels, valid), n_concepts, shape)


@given(data=st.data(), maps=label_maps(), threads=THREADS)
def test_partitions_made_elsewhere_make_the_same_atoms(data, maps, threads):
    """In any pieces, joined or not."""
    labels, valid, n_concepts, shape = maps
    builder, elsewhere = (AtomBuilder(shape, n_concepts, threads=threads) for _ in range(2))
    parts = []
    cuts = data.draw(st.lists(st.integers(0, len(labels)), max_size=3))
    in_batches(lambda *arrays: parts.append(elsewhere.partition(*arrays)), (labels, valid), cuts)
    n_joined = data.draw(st.integers(1, len(parts)))
    for part in (partitions.Partition.joined(parts[:n_joined]), *parts[n_joined:]):
        builder.add_partition(part)
    assert elsewhere.finish().n_samples == 0
    assert_atoms(builder.finish(), reference.sets_of_labels(labels, valid), n_concepts, shape)


@pytest.mark.parametrize(("n_sets", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_codes_of_partitions_are_as_small_as_they_can_be(n_sets, dtype):
    """The highest code is that of cells that are not valid."""
    labels = np.minimum(np.arange(600), n_sets - 1)[None, None]
    valid = np.arange(600) < 500
    builder = AtomBuilder((20, 30), 300)
    part = builder.partition(labels, valid[None])
    assert (part.codes.dtype, part.codes.max()) == (dtype, n_sets)
    builder.add_partition(part)
    assert_atoms(builder.finish(), reference.sets_of_labels(labels, valid[None]), 300, (20, 30))


@st.composite
def overlapping_masks(draw):
    """bool[N, C, P] of any overlaps: concepts that occur nowhere, everywhere, as copies of others; and valid flags."""
    shape = draw(GRIDS)
    n, n_concepts = draw(st.integers(0, 4)), draw(st.sampled_from([0, 1, 3, 9, 70]))
    rng = np.random.default_rng(draw(SEEDS))
    masks = rng.random((n, n_concepts, math.prod(shape))) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    for c in range(1, n_concepts):
        kind = draw(st.sampled_from(["as is", "as is", "copy", "empty", "full"])) if c < 9 else "as is"
        if kind != "as is":
            masks[:, c] = masks[:, c - 1] if kind == "copy" else kind == "full"
    return masks, draw(flags(n, math.prod(shape))), shape


@given(data=st.data(), case=overlapping_masks(), threads=THREADS, batch_cells=BATCH_CELLS)
def test_masks_match_the_reference(data, case, threads, batch_cells):
    masks, valid, shape = case
    builder = AtomBuilder(shape, masks.shape[1], threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "_BATCH_CELLS", batch_cells)
        cuts = data.draw(st.lists(st.integers(0, len(masks)), max_size=2))
        in_batches(builder.add_packed_masks, (pack(masks), valid), cuts)
    assert_atoms(builder.finish(), reference.sets_of_masks(masks, valid), masks.shape[1], shape)


@given(maps=label_maps())
def test_label_maps_and_their_masks_make_the_same_atoms(maps):
    labels, valid, n_concepts, shape = maps
    if n_concepts > 100:  # a mask of each of 65,535 concepts
        return
    masks = reference.concept_masks(reference.sets_of_labels(labels), n_concepts)
    one, two = AtomBuilder(shape, n_concepts), AtomBuilder(shape, n_concepts)
    one.add_label_maps(labels, valid)
    two.add_packed_masks(pack(masks), valid)
    one, two = one.finish(), two.finish()
    for field in (
        "cell_atoms",
        "sample_starts",
        "sample_atoms",
        "sample_cells",
        "atom_starts",
        "atom_concepts",
        "cells",
    ):
        assert_same(getattr(one, field), getattr(two, field))


@given(data=st.data(), known=annotated(), threads=THREADS, batch_cells=BATCH_CELLS)
def test_samples_and_concepts_of_other_atoms(data, known, threads, batch_cells):
    """Samples in any order, repeated; concepts left out, so that atoms merge."""
    n_samples, n_concepts = known.atoms.n_samples, known.atoms.n_concepts
    picks = data.draw(st.lists(st.integers(0, n_samples - 1), max_size=6)) if n_samples else []
    stay = np.random.default_rng(data.draw(SEEDS)).random(n_concepts) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    new_concepts = np.where(stay, np.cumsum(stay) - 1, -1)
    builder = AtomBuilder(known.atoms.shape, int(stay.sum()), threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "_BATCH_CELLS", batch_cells)
        builder.add_atoms(known.atoms, np.array(picks, np.int64), new_concepts)
    sets = np.empty((len(picks), known.sets.shape[1]), np.object_)
    for place in np.ndindex(sets.shape):
        one = known.sets[picks[place[0]], place[1]]
        sets[place] = None if one is None else frozenset(int(new_concepts[c]) for c in one if stay[c])
    assert_atoms(builder.finish(), sets, int(stay.sum()), known.atoms.shape)


def test_finish_may_be_called_between_samples():
    builder = AtomBuilder((1, 3), 2)
    builder.add_label_maps(np.array([[[1, 1, 2]]]))
    first = builder.finish()
    builder.add_label_maps(np.array([[[0, 2, 1]]]))
    labels = np.array([[[1, 1, 2]], [[0, 2, 1]]])
    for _ in range(2):
        assert_atoms(builder.finish(), reference.sets_of_labels(labels), 2, (1, 3))
    assert_atoms(first, reference.sets_of_labels(labels[:1]), 2, (1, 3))


@pytest.mark.parametrize("n_distinct", [1023, 1024, 1025, 65_534, 65_535, 65_536, 90_000])
@pytest.mark.parametrize("source", ["labels", "masks"])
def test_many_distinct_sets_in_one_sample(n_distinct, source):
    """Hash tables grow; from 65,536 local atoms on a cell's takes 32 bits, and the code of void cells fits too."""
    n_cells = 90_010  # the last cells are void
    numbers = np.minimum(np.arange(n_cells), n_distinct - 1)
    valid = (np.arange(n_cells) < 90_000)[None]
    rng = np.random.default_rng(0)
    numbers[:90_000] = rng.permutation(numbers[:90_000])
    bits = (numbers >> np.arange(17)[:, None]) & 1
    builder = AtomBuilder((1, n_cells), 17)
    if source == "labels":
        builder.add_label_maps((bits * np.arange(1, 18)[:, None])[None].astype(np.int32), valid)
    else:
        builder.add_packed_masks(pack(bits.astype(np.bool_))[None], valid)
    builder.add_label_maps(np.zeros((1, 1, n_cells), np.int8))
    atoms = builder.finish()
    assert atoms.cell_atoms.dtype == (np.uint16 if n_distinct <= 65_535 else np.uint32)
    assert (atoms.n_atoms, atoms.cells.sum()) == (n_distinct, 90_000 + n_cells)
    assert (atoms.cell_atoms[0, 90_000:] == n_distinct).all()
    assert (atoms.cell_atoms[1] == 0).all()
    met = numbers[np.sort(np.unique(numbers[:90_000], return_index=True)[1])]  # in order of first appearance
    assert_same(met[atoms.cell_atoms[0, :90_000].astype(np.int64)], numbers[:90_000])
    worth = np.zeros(n_distinct, np.int64)
    np.add.at(
        worth, np.repeat(np.arange(n_distinct), np.diff(atoms.atom_starts)), 1 << atoms.atom_concepts.astype(np.int64)
    )
    assert_same(worth, met)


def test_the_most_concepts():
    """C = 65,535: the last id, sparse pairs, one concept per cell."""
    labels = np.array(
        [[[65_535, 1, 0, 65_534], [65_535, 65_535, 0, 1]], [[2, 65_535, 1, 1], [2, 1, 65_535, 0]]], np.uint16
    )
    builder = AtomBuilder((2, 2), 65_535)
    builder.add_label_maps(labels)
    atoms, sets = builder.finish(), reference.sets_of_labels(labels)
    assert_atoms(atoms, sets, 65_535, (2, 2))
    assert_same(np.flatnonzero(concept_counts(atoms, atoms.cells)), np.array([0, 1, 65_533, 65_534]))
    pairs = pair_counts(atoms, atoms.cells)
    assert (pairs.shape, pairs.dtype) == ((65_535, 65_535), np.int64)
    kept = [0, 1, 65_533, 65_534]
    member = reference.membership(list(reference.atoms_of(sets)), 65_535)[kept]
    wanted = reference.pair_counts(member, atoms.cells)
    assert_same(pairs[kept][:, kept].toarray(), wanted)
    assert pairs.sum() == wanted.sum()


# ---------------------------------------------------------------------------------------------- masks of atoms


@given(data=st.data(), known=annotated(), threads=THREADS)
def test_concept_rows_match_the_reference(data, known, threads):
    """A row of each concept that occurs, unless it covers the whole sample."""
    atoms, n_samples = known.atoms, known.atoms.n_samples
    picks = np.array(data.draw(st.lists(st.integers(0, n_samples - 1), max_size=5)) if n_samples else [], np.int64)
    found = concept_rows(atoms, picks, threads=threads)
    starts, concepts, areas, row_of, wanted = [0], [], [], [], []
    for n in picks:
        present = sorted(set().union(*(one for one in known.sets[n] if one)))
        for c in present:
            mask = np.array([one is not None and c in one for one in known.sets[n]])
            concepts.append(c)
            areas.append(mask.sum())
            row_of.append(-1 if mask.all() else len(wanted))
            if not mask.all():
                wanted.append(mask)
        starts.append(len(concepts))
    assert_same(found.starts, np.array(starts, np.int64))
    assert_same(found.concepts, np.array(concepts, np.int32))
    assert_same(found.areas, np.array(areas, np.int32))
    assert_same(found.row_of, np.array(row_of, np.int64))
    assert_same(found.rows, reference.pack(np.array(wanted, np.bool_).reshape(len(wanted), math.prod(atoms.shape))))


@given(data=st.data(), known=annotated(), threads=THREADS)
def test_atom_rows_match_the_reference(data, known, threads):
    atoms, n_samples = known.atoms, known.atoms.n_samples
    picks = np.array(data.draw(st.lists(st.integers(0, n_samples - 1), max_size=5)) if n_samples else [], np.int64)
    share = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    inside = np.random.default_rng(data.draw(SEEDS)).random(atoms.n_atoms) < share
    marked = {one for one, is_in in zip(known.found, inside, strict=True) if is_in}
    wanted = np.array([[one in marked for one in known.sets[n]] for n in picks], np.bool_)
    got = atom_rows(atoms, inside, picks, threads=threads)
    assert_same(unpack(got, math.prod(atoms.shape)), wanted.reshape(len(picks), math.prod(atoms.shape)))
    assert_same(got, pack(unpack(got, math.prod(atoms.shape))))  # padding bits are zero


# ---------------------------------------------------------------------------------------------- counts


def some_weights(known, seed, *lead):
    """Any weights, far beyond the numbers of cells that there are: half of int64, shared among the atoms."""
    most = 2**62 // max(known.atoms.n_atoms, 1)
    rng = np.random.default_rng(seed)
    return rng.integers(0, most, (*lead, known.atoms.n_atoms)) * (rng.random((*lead, known.atoms.n_atoms)) < 0.7)


@given(known=annotated(), lead=st.sampled_from([(), (1,), (3,), (2, 2), (0,)]), seed=SEEDS)
def test_concept_counts_match_the_reference(known, lead, seed):
    weights = some_weights(known, seed, *lead)
    member = reference.membership(known.found, known.atoms.n_concepts)
    assert_same(concept_counts(known.atoms, weights), reference.concept_counts(member, weights))


@given(known=annotated())
def test_concept_counts_are_numbers_of_cells(known):
    if known.atoms.n_concepts <= 100:
        masks = reference.concept_masks(known.sets, known.atoms.n_concepts)
        assert_same(concept_counts(known.atoms, known.atoms.cells), masks.sum(axis=(0, 2)))


@given(known=annotated(), seed=SEEDS, threads=THREADS, dense=st.sampled_from([0, 1, 4_096]))
def test_pair_counts_match_the_reference(known, seed, threads, dense):
    if known.atoms.n_concepts > 100:
        return
    weights = some_weights(known, seed)
    wanted = reference.pair_counts(reference.membership(known.found, known.atoms.n_concepts), weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atoms, "DENSE_PAIRS", dense)
        got = pair_counts(known.atoms, weights, threads=threads)
    assert isinstance(got, np.ndarray) == (known.atoms.n_concepts <= dense)
    if not isinstance(got, np.ndarray):
        assert got.nnz == np.count_nonzero(wanted)
        got = got.toarray()
    assert_same(got, wanted)


@pytest.mark.parametrize("n_concepts", [4_096, 4_097])
def test_pair_counts_at_the_limit_of_dense(n_concepts):
    labels = np.random.default_rng(0).integers(0, n_concepts + 1, (3, 4, 40))
    builder = AtomBuilder((5, 8), n_concepts)
    builder.add_label_maps(labels)
    atoms = builder.finish()
    pairs = pair_counts(atoms, atoms.cells, threads=2)
    assert sparse.issparse(pairs) == (n_concepts > 4_096)
    masks = reference.concept_masks(reference.sets_of_labels(labels), n_concepts).swapaxes(0, 1).reshape(n_concepts, -1)
    ones = sparse.csr_array(masks.astype(np.int64))
    assert (sparse.csr_array(pairs) != ones @ ones.T).nnz == 0


# ---------------------------------------------------------------------------------------------- errors


def test_layers_are_taken_in_groups():
    """Four and more layers, ids of all 16 bits, concepts that differ only in the first layer of a group."""
    rng = np.random.default_rng(0)
    for n_layers, n_concepts in [(3, 65_535), (5, 65_535), (5, 32_767), (9, 32_768), (8, 300), (8, 3), (70, 1)]:
        ids = np.array([0, 1, n_concepts - 1, n_concepts])
        labels = rng.choice(ids, (3, n_layers, 600)).astype(np.uint16)
        labels[0] = n_concepts
        labels[1, 1:] = n_concepts
        builder = AtomBuilder((20, 30), n_concepts, threads=1)
        builder.add_label_maps(labels)
        assert_atoms(builder.finish(), reference.sets_of_labels(labels), n_concepts, (20, 30))


@pytest.mark.parametrize(("n_layers", "layer"), [(2, 1), (7, 0), (7, 3), (7, 4), (7, 6)])
def test_an_id_out_of_range_is_named_with_its_place(n_layers, layer):
    for dtype, bad in [(np.int32, -1), (np.uint64, 2**64 - 1), (np.int64, -(2**63)), (np.uint16, 6)]:
        labels = np.zeros((3, n_layers, 65), dtype)
        labels[2, layer, 14] = bad
        labels[2, layer, 20] = bad
        builder = AtomBuilder((5, 13), 5, threads=2)
        builder.add_label_maps(labels[:2])
        with pytest.raises(InputError, match=rf"got {bad} in sample 2, layer {layer}, row 1, column 1; give a name"):
            builder.add_label_maps(labels[2:])
        valid = np.ones((3, 65), np.bool_)
        valid[2, [14, 20]] = False  # void cells may carry anything, for instance 255
        AtomBuilder((5, 13), 5).add_label_maps(labels, valid)


def test_errors_name_argument_got_and_wanted():
    for shape in [(0, 3), (3,), (2.5, 2), 7]:
        with pytest.raises(ShapeError, match=r"shape: expected \(H, W\), two integers >= 1"):
            AtomBuilder(shape, 1)
    for n_concepts in (-1, 65_536):
        with pytest.raises(InputError, match=f"n_concepts: expected 0 to 65535, got {n_concepts}"):
            AtomBuilder((1, 1), n_concepts)
    with pytest.raises(InputError, match="threads: expected None or an integer >= 1, got 0"):
        AtomBuilder((1, 1), 1, threads=0)

    builder = AtomBuilder((5, 13), 2)
    with pytest.raises(DTypeError, match=r"labels: expected integer ids, got float64\[1, 1, 65\]"):
        builder.add_label_maps(np.zeros((1, 1, 65)))
    with pytest.raises(DTypeError, match="labels: expected an array"):
        builder.add_label_maps("labels")
    for wrong in (np.zeros((1, 65), int), np.zeros((1, 1, 64), int), np.zeros((1, 1, 5, 13), int)):
        with pytest.raises(ShapeError, match=r"labels: expected \[n, layers, 65\], got int64\["):
            builder.add_label_maps(wrong)
    for valid in (np.ones((1, 64), np.bool_), np.ones((2, 65), np.bool_), np.ones((1, 65), np.uint8)):
        with pytest.raises(ShapeError, match=r"valid: expected bool\[1, 65\], got "):
            builder.add_label_maps(np.zeros((1, 1, 65), int), valid)
    with pytest.raises(DTypeError, match=r"masks: expected uint64\[..., 2\], got int64\[1, 2, 2\]"):
        builder.add_packed_masks(np.zeros((1, 2, 2), np.int64))
    with pytest.raises(ShapeError, match=r"masks: expected uint64\[..., 2\], got uint64\[1, 2, 1\]"):
        builder.add_packed_masks(np.zeros((1, 2, 1), np.uint64))
    for wrong in (np.zeros((1, 3, 2), np.uint64), np.zeros((2, 2), np.uint64)):
        with pytest.raises(ShapeError, match=r"masks: expected \[n, 2, 2\], got uint64\["):
            builder.add_packed_masks(wrong)
    with pytest.raises(InputError, match="masks: expected zeros in the bits behind bit 64, got ones"):
        builder.add_packed_masks(np.full((1, 2, 2), 2, np.uint64))
    assert builder.finish().n_samples == 0

    builder.add_label_maps(np.zeros((2, 1, 65), int))
    atoms = builder.finish()
    for function in (concept_counts, pair_counts):
        with pytest.raises(DTypeError, match=r"weights: expected int64\[.*1\], one weight per atom, got float64\[1\]"):
            function(atoms, np.ones(1))
        with pytest.raises(ShapeError, match=r"weights: expected int64\[.*1\], one weight per atom, got int64\[2\]"):
            function(atoms, np.ones(2, np.int64))
    with pytest.raises(ShapeError, match=r"weights: expected int64\[1\], one weight per atom, got int64\[1, 1\]"):
        pair_counts(atoms, np.ones((1, 1), np.int64))
    for samples in ([-1], [0, 2]):
        for call in (lambda at: concept_rows(atoms, at), lambda at: atom_rows(atoms, np.ones(1, np.bool_), at)):
            with pytest.raises(InputError, match=r"samples: expected 0 to 1, got values from"):
                call(np.array(samples))
    with pytest.raises(DTypeError, match=r"samples: expected int64\[n\], got float64\[1\]"):
        concept_rows(atoms, np.zeros(1))
    with pytest.raises(ShapeError, match=r"inside: expected bool\[1\], got bool\[2\]"):
        atom_rows(atoms, np.ones(2, np.bool_), np.zeros(1, np.int64))
