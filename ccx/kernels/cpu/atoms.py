"""Atoms on the CPU: from label maps or packed masks to the partition of all cells by concept set.

Work on a batch of samples goes in two steps. `label_sets` and `mask_sets` (any number of threads)
number the distinct concept sets of each sample from 0 in the order in which its cells meet them.
`intern_sets` (one thread, samples in order) gives equal sets of different samples the same atom, so
that atoms are numbered in the order of first appearance whatever the batches and threads were.
"""

from __future__ import annotations

import numpy as np

from ccx.jobs import parallel
from ccx.kernels.cpu._jit import inline, jit, trailing_zeros64

VOID = np.uint32(0xFFFFFFFF)  # code of a cell that is not valid
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # a free slot; no key reaches it
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@jit
def _grown(values, length):
    """Return `values`, or a copy with room for at least `length` items."""
    if length <= values.size:
        return values
    larger = np.empty(max(length, 2 * values.size), values.dtype)
    for i in range(values.size):
        larger[i] = values[i]
    return larger


@inline
def _slot(key, mask):
    """Where a key begins to probe: both halves of the product, as its low bits know nothing of the key's high ones."""
    product = key * _GOLDEN
    return ((product >> np.uint64(32)) ^ (product >> np.uint64(47))) & mask


@jit
def _refine(code, labels, with_code, n_bits, n_concepts, keys, numbers, code_keys, first_cells):
    """Renumber the codes of one sample by what cells carry: (code, labels), or labels alone -> number of codes.

    Returns -1 where a label is out of range.

    code uint32[P], labels int[l, P] of n_bits each, which make keys of at most 64 bits, not all of them ones;
    keys uint64[table], numbers uint32[table]: an open-addressing table with all slots empty, and left so; fills
    code_keys uint64[P], first_cells int32[P]. The table starts small, to stay in the L1 cache, and doubles within its
    arrays.
    """
    mask = np.uint64(1023)
    most = np.uint64(n_concepts)
    shift = np.uint64(n_bits)
    n_codes = 0
    last_key = _EMPTY
    last_number = np.uint32(0)
    for p in range(code.size):
        if code[p] == VOID:
            continue
        key = np.uint64(code[p]) if with_code else np.uint64(0)
        for layer in range(labels.shape[0]):
            label = np.uint64(np.int64(labels[layer, p]))  # negative ones become huge
            if label > most:
                _clear(keys, code_keys, n_codes, mask)
                return -1
            key = (key << shift) | label
        if key != last_key:
            slot = _slot(key, mask)
            while keys[slot] != key and keys[slot] != _EMPTY:
                slot = (slot + np.uint64(1)) & mask
            if keys[slot] == _EMPTY:
                keys[slot] = key
                numbers[slot] = np.uint32(n_codes)
                code_keys[n_codes] = key
                first_cells[n_codes] = p
                n_codes += 1
                last_number = np.uint32(n_codes - 1)
                if np.uint64(2 * n_codes) > mask:
                    _clear(keys, code_keys, n_codes, mask)
                    mask = np.uint64(2) * mask + np.uint64(1)
                    for k in range(n_codes):
                        slot = _slot(code_keys[k], mask)
                        while keys[slot] != _EMPTY:
                            slot = (slot + np.uint64(1)) & mask
                        keys[slot] = code_keys[k]
                        numbers[slot] = np.uint32(k)
            else:
                last_number = numbers[slot]
            last_key = key
        code[p] = last_number
    _clear(keys, code_keys, n_codes, mask)
    return n_codes


@jit
def _clear(keys, code_keys, n_codes, mask):
    """Empty the slots that hold the first `n_codes` keys; probing passes over slots that are empty already."""
    for k in range(n_codes):
        slot = _slot(code_keys[k], mask)
        while keys[slot] != code_keys[k]:
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = _EMPTY


@jit
def _first_out_of_range(code, labels, n_concepts):
    """Return the first layer, and its first cell, that has a label out of range."""
    for layer in range(labels.shape[0]):
        for p in range(code.size):
            label = np.int64(labels[layer, p])
            if code[p] != VOID and (label < 0 or label > n_concepts):
                return layer, p
    return 0, 0


@jit
def _table_size(n_cells):
    size = 1024
    while size < 4 * n_cells:
        size *= 2
    return size


@jit
def label_sets(labels, valid, has_valid, codes, code_counts, n_concepts):
    """Give a number to each concept set of each sample of a batch of label maps.

    labels int[n, L, P], ids 0..n_concepts; valid bool[n, P], read only if has_valid; fills
    codes uint32[n, P] and code_counts int64[n]. Returns (cells int32[E], set_starts int64[E + 1],
    set_ids uint16[S], bad): the E sets of all samples, one sample after the other, ids ascending
    from 0; bad = (sample, layer, cell) of an id out of range, else (-1, 0, 0).

    Layers are taken in groups, each of which refines the partition that the ones before it made: a cell's
    new code is the number of its tuple (code so far, labels). So any number of layers needs only 64-bit keys.
    """
    n_samples, n_layers, n_cells = labels.shape
    keys = np.empty(_table_size(n_cells), np.uint64)
    keys[:] = _EMPTY
    numbers = np.empty(keys.size, np.uint32)
    code_keys = np.empty(n_cells, np.uint64)
    first_cells = np.empty(n_cells, np.int32)
    cells = np.empty(256, np.int32)
    set_starts = np.zeros(257, np.int64)
    set_ids = np.empty(1024, np.uint16)
    n_sets = 0
    n_ids = 0
    n_bits = 1
    while n_concepts >> n_bits:
        n_bits += 1
    n_first, n_more = 63 // n_bits, 32 // n_bits  # beside a code, which is below VOID
    for n in range(n_samples):
        code = codes[n]
        n_codes = _start_codes(code, valid[n] if has_valid else valid[0], has_valid)
        first = 0
        while first < n_layers:
            last = min(first + (n_more if first > 0 else n_first), n_layers)
            group = labels[n, first:last]
            n_codes = _refine(code, group, first > 0, n_bits, n_concepts, keys, numbers, code_keys, first_cells)
            if n_codes < 0:
                layer, cell = _first_out_of_range(code, labels[n], n_concepts)
                return cells[:0], set_starts[:1], set_ids[:0], (n, layer, cell)
            first = last
        code_counts[n] = n_codes
        cells = _grown(cells, n_sets + n_codes)
        set_starts = _grown(set_starts, n_sets + n_codes + 1)
        set_ids = _grown(set_ids, n_ids + n_codes * n_layers)
        for k in range(n_codes):
            start = n_ids
            for layer in range(n_layers):
                label = np.int64(labels[n, layer, first_cells[k]])
                if label > 0:
                    n_ids = _insert(set_ids, start, n_ids, np.uint16(label - 1))
            set_starts[n_sets + k + 1] = n_ids
        _count_codes(code, cells[n_sets : n_sets + n_codes])
        n_sets += n_codes
    return cells[:n_sets], set_starts[: n_sets + 1], set_ids[:n_ids], (-1, 0, 0)


@jit
def _start_codes(code, valid, has_valid):
    """Set all valid cells' codes to 0, the others to VOID -> 1 if any cell is valid, else 0."""
    any_valid = 0
    for p in range(code.size):
        if has_valid and not valid[p]:
            code[p] = VOID
        else:
            code[p] = np.uint32(0)
            any_valid = 1
    return any_valid


@jit
def _count_codes(code, cells):
    cells[:] = 0
    for p in range(code.size):
        if code[p] != VOID:
            cells[code[p]] += 1


@inline
def _insert(set_ids, start, end, concept):
    """Insert `concept` into the ascending set_ids[start:end] unless it is there -> new end."""
    at = end
    while at > start and set_ids[at - 1] > concept:
        at -= 1
    if at > start and set_ids[at - 1] == concept:
        return end
    for i in range(end, at, -1):
        set_ids[i] = set_ids[i - 1]
    set_ids[at] = concept
    return end + 1


@jit
def mask_sets(rows, valid, has_valid, codes, code_counts):
    """Give a number to each concept set of each sample of a batch of packed, possibly overlapping masks.

    rows uint64[n, C, n_words]; the rest as in `label_sets`. Each concept splits the codes of its
    cells: only set bits cost time. A code's set is a path in a tree of (parent, concept) nodes;
    concepts come in ascending order, so the paths are sorted.
    """
    n_samples, n_concepts, _ = rows.shape
    parents = np.empty(1024, np.int64)
    labels = np.empty(1024, np.int64)
    depths = np.empty(1024, np.int64)
    child = np.empty(1024, np.uint32)
    split_by = np.empty(1024, np.int64)
    renumbered = np.empty(1024, np.int64)
    cells = np.empty(256, np.int32)
    set_starts = np.zeros(257, np.int64)
    set_ids = np.empty(1024, np.uint16)
    n_sets = 0
    n_ids = 0
    for n in range(n_samples):
        code = codes[n]
        _start_codes(code, valid[n] if has_valid else valid[0], has_valid)
        n_nodes = 1
        parents[0] = -1
        depths[0] = 0
        split_by[0] = -1
        for concept in range(n_concepts):
            room = 2 * n_nodes  # each node splits at most once by one concept
            parents = _grown(parents, room)
            labels = _grown(labels, room)
            depths = _grown(depths, room)
            child = _grown(child, room)
            split_by = _grown(split_by, room)
            n_nodes = _split(code, rows[n, concept], concept, n_nodes, parents, labels, depths, child, split_by)
        renumbered = _grown(renumbered, n_nodes)
        n_codes = _renumber(code, renumbered[:n_nodes])
        code_counts[n] = n_codes
        cells = _grown(cells, n_sets + n_codes)
        set_starts = _grown(set_starts, n_sets + n_codes + 1)
        for node in range(n_nodes):
            if renumbered[node] >= 0:
                set_starts[n_sets + renumbered[node] + 1] = depths[node]
        for k in range(n_sets, n_sets + n_codes):
            set_starts[k + 1] += set_starts[k]
        n_ids = set_starts[n_sets + n_codes]
        set_ids = _grown(set_ids, n_ids)
        for node in range(n_nodes):
            if renumbered[node] >= 0:
                at = set_starts[n_sets + renumbered[node] + 1]
                step = node
                while step > 0:
                    at -= 1
                    set_ids[at] = np.uint16(labels[step])
                    step = parents[step]
        _count_codes(code, cells[n_sets : n_sets + n_codes])
        n_sets += n_codes
    return cells[:n_sets], set_starts[: n_sets + 1], set_ids[:n_ids]


@jit
def _split(code, row, concept, n_nodes, parents, labels, depths, child, split_by):
    """Move the cells of one sample's packed mask to child nodes of their nodes -> number of nodes."""
    for word in range(row.size):
        bits = row[word]
        while bits:
            p = word * 64 + np.int64(trailing_zeros64(bits))
            bits &= bits - np.uint64(1)
            node = code[p]
            if node == VOID:
                continue
            if split_by[node] != concept:
                split_by[node] = concept
                child[node] = np.uint32(n_nodes)
                parents[n_nodes] = np.int64(node)
                labels[n_nodes] = concept
                depths[n_nodes] = depths[node] + 1
                split_by[n_nodes] = -1
                n_nodes += 1
            code[p] = child[node]
    return n_nodes


@jit
def _renumber(code, renumbered):
    """Give numbers to the nodes that still have cells, in the order of their first cells; -1 to the others."""
    renumbered[:] = -1
    n_codes = 0
    for p in range(code.size):
        node = code[p]
        if node != VOID:
            if renumbered[node] < 0:
                renumbered[node] = n_codes
                n_codes += 1
            code[p] = np.uint32(renumbered[node])
    return n_codes


@jit
def projected_sets(samples, sample_starts, sample_atoms, sample_cells, atom_starts, atom_ids, new_concepts):
    """Return the sets of some samples' local atoms, with concepts renumbered or left out (-1).

    samples int64[n], new_concepts int64[C'] -> (code_counts int64[n], cells int32[E], set_starts
    int64[E + 1], set_ids uint16[S]); equal sets of one sample are merged by `intern_sets`.
    """
    code_counts = np.empty(samples.size, np.int64)
    n_sets = 0
    n_ids = 0
    for k in range(samples.size):
        first, last = sample_starts[samples[k]], sample_starts[samples[k] + 1]
        code_counts[k] = last - first
        n_sets += last - first
        for entry in range(first, last):
            n_ids += atom_starts[sample_atoms[entry] + 1] - atom_starts[sample_atoms[entry]]
    cells = np.empty(n_sets, np.int32)
    set_starts = np.zeros(n_sets + 1, np.int64)
    set_ids = np.empty(n_ids, np.uint16)
    n_sets = 0
    n_ids = 0
    for k in range(samples.size):
        for entry in range(sample_starts[samples[k]], sample_starts[samples[k] + 1]):
            atom = sample_atoms[entry]
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                concept = new_concepts[atom_ids[i]]
                if concept >= 0:
                    set_ids[n_ids] = np.uint16(concept)
                    n_ids += 1
            cells[n_sets] = sample_cells[entry]
            n_sets += 1
            set_starts[n_sets] = n_ids
    return code_counts, cells, set_starts, set_ids[:n_ids]


@jit
def _set_hash(set_ids, start, end):
    value = np.uint64(end - start)
    for i in range(start, end):
        value = (value ^ np.uint64(set_ids[i])) * _GOLDEN
        value ^= value >> np.uint64(29)
    return value


@jit
def intern_sets(
    code_counts, cells, set_starts, set_ids, atom_starts, atom_ids, n_atoms, table, seen_in, slots, first_sample
):
    """Give every set of a batch its atom, merging equal sets, also within one sample.

    code_counts int64[n], cells int32[E], set_starts int64[E + 1], set_ids uint16[S]: what
    `label_sets` or `mask_sets` returned. atom_starts int64[> n_atoms], atom_ids uint16[...],
    table int32[power of two], seen_in int32[>= n_atoms], slots int32[>= n_atoms]: the atoms so far,
    replaced by larger arrays as needed. Returns (local int32[E]: the sample's local atom of each
    code; entry_atoms int32[E'], entry_cells int32[E'], entry_counts int64[n]; then the atoms:
    atom_starts, atom_ids, n_atoms, table, seen_in, slots).
    """
    n_samples = code_counts.size
    local = np.empty(cells.size, np.int32)
    entry_atoms = np.empty(cells.size, np.int32)
    entry_cells = np.empty(cells.size, np.int32)
    entry_counts = np.zeros(n_samples, np.int64)
    n_entries = 0
    code = 0
    for n in range(n_samples):
        first_entry = n_entries
        for _ in range(code_counts[n]):
            start = set_starts[code]
            end = set_starts[code + 1]
            mask = np.uint64(table.size - 1)
            slot = _set_hash(set_ids, start, end) & mask
            atom = np.int64(-1)
            while table[slot] >= 0:
                candidate = np.int64(table[slot])
                at = atom_starts[candidate]
                if atom_starts[candidate + 1] - at == end - start:
                    same = True
                    for i in range(end - start):
                        if atom_ids[at + i] != set_ids[start + i]:
                            same = False
                            break
                    if same:
                        atom = candidate
                        break
                slot = (slot + np.uint64(1)) & mask
            if atom < 0:
                atom = n_atoms
                n_atoms += 1
                table[slot] = np.int32(atom)
                at = atom_starts[atom]
                atom_starts = _grown(atom_starts, n_atoms + 1)
                atom_ids = _grown(atom_ids, at + end - start)
                seen_in = _grown(seen_in, n_atoms)
                slots = _grown(slots, n_atoms)
                for i in range(end - start):
                    atom_ids[at + i] = set_ids[start + i]
                atom_starts[atom + 1] = at + end - start
                seen_in[atom] = -1
                if 2 * n_atoms > table.size:
                    table = np.empty(2 * table.size, np.int32)
                    table[:] = -1
                    mask = np.uint64(table.size - 1)
                    for other in range(n_atoms):
                        slot = _set_hash(atom_ids, atom_starts[other], atom_starts[other + 1]) & mask
                        while table[slot] >= 0:
                            slot = (slot + np.uint64(1)) & mask
                        table[slot] = np.int32(other)
            if seen_in[atom] != first_sample + n:
                seen_in[atom] = first_sample + n
                slots[atom] = np.int32(n_entries - first_entry)
                entry_atoms[n_entries] = atom
                entry_cells[n_entries] = 0
                n_entries += 1
            local[code] = slots[atom]
            entry_cells[first_entry + slots[atom]] += cells[code]
            code += 1
        entry_counts[n] = n_entries - first_entry
    return (local, entry_atoms[:n_entries], entry_cells[:n_entries], entry_counts,
            atom_starts, atom_ids, n_atoms, table, seen_in, slots)  # fmt: skip


@jit
def localise(codes, code_starts, local, entry_counts, cell_atoms):
    """Write each cell's local atom: cell_atoms uint16|uint32[n, P]; void cells get the slot after the last."""
    for n in range(codes.shape[0]):
        start = code_starts[n]
        void = entry_counts[n]
        for p in range(codes.shape[1]):
            code = codes[n, p]
            cell_atoms[n, p] = void if code == VOID else local[start + np.int64(code)]


@jit
def concept_postings(atom_starts, atom_ids, n_concepts):
    """Transpose atoms -> concepts: (posting_starts int64[C + 1], posting_atoms int32[S]), atoms ascending."""
    starts = np.zeros(n_concepts + 1, np.int64)
    for i in range(atom_ids.size):
        starts[np.int64(atom_ids[i]) + 1] += 1
    for c in range(n_concepts):
        starts[c + 1] += starts[c]
    atoms = np.empty(atom_ids.size, np.int32)
    fill = starts[:-1].copy()
    for atom in range(atom_starts.size - 1):
        for i in range(atom_starts[atom], atom_starts[atom + 1]):
            concept = atom_ids[i]
            atoms[fill[concept]] = atom
            fill[concept] += 1
    return starts, atoms


def concept_counts(atoms, weights):
    """Sum by concept: weights int64[M, G] -> int64[M, C]."""
    counts = np.empty((weights.shape[0], atoms.n_concepts), np.int64)
    for row, count in zip(weights, counts, strict=True):
        count[:] = _concept_counts(atoms.atom_starts, atoms.atom_concepts, row, atoms.n_concepts)
    return counts


def total_counts(_atoms, weights):
    """Sum all: weights int64[M, G] -> int64[M]."""
    return weights.sum(axis=1)


def with_sizes(atoms, weights):
    """Return cells and weights int64[G] as int64[2, G]."""
    return np.stack([atoms.cells, weights])


@jit
def _concept_counts(atom_starts, atom_ids, weights, n_concepts):
    """Sum by concept: weights int64[G] -> int64[C]: total weight of the atoms that hold each concept."""
    counts = np.zeros(n_concepts, np.int64)
    for atom in range(atom_starts.size - 1):
        weight = weights[atom]
        if weight:
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                counts[atom_ids[i]] += weight
    return counts


def pair_counts(atoms, weights, threads):
    """Sum by pair of concepts: weights int64[G] -> int64[C, C]."""
    n, sets = atoms.n_concepts, (atoms.atom_starts, atoms.atom_concepts)
    counts = np.zeros((n, n), np.int64)
    parallel(lambda a, b: _pair_rows(*sets, weights, a, counts[a:b]), n, threads)
    return counts


def sparse_pair_counts(posting_starts, posting_atoms, weights):
    """Sum by pair of concepts: weights int64[G] -> csr_array int64[C, C] of the pairs that occur."""
    from scipy import sparse  # noqa: PLC0415 - half a second to import; only data sets of many concepts need it

    shape = (posting_starts.size - 1, weights.size)
    held = sparse.csr_array((np.ones(posting_atoms.size, np.int64), posting_atoms, posting_starts), shape)
    weighted = sparse.csr_array((weights[posting_atoms], posting_atoms, posting_starts), shape)
    pairs = (weighted @ held.T).tocsr()
    pairs.eliminate_zeros()
    pairs.sort_indices()
    return pairs


@jit
def _pair_rows(atom_starts, atom_ids, weights, first_row, counts):
    for atom in range(atom_starts.size - 1):
        weight = weights[atom]
        if weight == 0:
            continue
        for i in range(atom_starts[atom], atom_starts[atom + 1]):
            row = np.int64(atom_ids[i]) - first_row
            if 0 <= row < counts.shape[0]:
                for j in range(atom_starts[atom], atom_starts[atom + 1]):
                    counts[row, atom_ids[j]] += weight


@jit
def atom_rows(inside, samples, cell_atoms, sample_starts, sample_atoms, out):
    """Packed masks of the cells whose atom is marked: inside uint8[G], samples int64[n] -> out uint64[n, n_words]."""
    most = 0
    for n in samples:
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    marked = np.zeros(most + 1, np.uint64)  # the last slot, of cells that are not valid, stays 0
    for k in range(samples.size):
        n = samples[k]
        start = sample_starts[n]
        n_local = sample_starts[n + 1] - start
        for local in range(n_local):
            marked[local] = np.uint64(inside[sample_atoms[start + local]])
        marked[n_local] = np.uint64(0)
        for word in range(out.shape[1]):
            bits = np.uint64(0)
            for bit in range(min(64, cell_atoms.shape[1] - 64 * word)):
                bits |= marked[cell_atoms[n, 64 * word + bit]] << np.uint64(bit)
            out[k, word] = bits


@jit
def present_concepts(samples, sample_starts, sample_atoms, sample_cells, atom_starts, atom_ids, n_concepts):
    """Concepts that occur in each sample, ascending, and their numbers of cells there.

    samples int64[n] -> (starts int64[n + 1], concepts int32[R], areas int32[R]).
    """
    starts = np.zeros(samples.size + 1, np.int64)
    areas_of = np.zeros(n_concepts, np.int32)
    concepts = np.empty(64, np.int32)
    areas = np.empty(64, np.int32)
    for k in range(samples.size):
        at = starts[k]
        for entry in range(sample_starts[samples[k]], sample_starts[samples[k] + 1]):
            atom = sample_atoms[entry]
            concepts = _grown(concepts, at + atom_starts[atom + 1] - atom_starts[atom])
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                concept = atom_ids[i]
                if areas_of[concept] == 0:
                    concepts[at] = concept
                    at += 1
                areas_of[concept] += sample_cells[entry]
        starts[k + 1] = at
        concepts[starts[k] : at].sort()
        areas = _grown(areas, at)
        for j in range(starts[k], at):
            areas[j] = areas_of[concepts[j]]
            areas_of[concepts[j]] = 0
    return starts, concepts[: starts[-1]].copy(), areas[: starts[-1]].copy()


@jit
def concept_rows(
    samples, starts, concepts, row_of, cell_atoms, sample_starts, sample_atoms, atom_starts, atom_ids, rows
):
    """Packed masks of the concepts that `present_concepts` found: row_of int64[R], -1 = none wanted.

    Fills rows uint64[n_rows, n_words], which must be zeros.
    """
    n_words = rows.shape[1]
    most = 0
    for n in samples:
        most = max(most, sample_starts[n + 1] - sample_starts[n])
    bits = np.zeros((most + 1, n_words), np.uint64)
    for k in range(samples.size):
        n = samples[k]
        start = sample_starts[n]
        n_local = sample_starts[n + 1] - start
        bits[:n_local] = 0  # nothing reads the last slot, of cells that are not valid
        for p in range(cell_atoms.shape[1]):
            bits[cell_atoms[n, p], p >> 6] |= np.uint64(1) << np.uint64(p & 63)
        present = concepts[starts[k] : starts[k + 1]]
        for local in range(n_local):
            atom = sample_atoms[start + local]
            for i in range(atom_starts[atom], atom_starts[atom + 1]):
                row = row_of[starts[k] + np.searchsorted(present, np.int32(atom_ids[i]))]
                if row >= 0:
                    for word in range(n_words):
                        rows[row, word] |= bits[local, word]
