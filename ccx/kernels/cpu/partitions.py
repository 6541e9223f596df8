"""Partitions on the CPU: from label maps or packed masks to the partition of all cells by concept set.

Work on a batch of samples goes in two steps. `label_sets` and `mask_sets` (any number of threads)
number the distinct concept sets of each sample from 0 in the order in which its cells meet them.
`intern_sets` (one thread, samples in order) gives equal sets of different samples the same atom, so
that atoms are numbered in the order of first appearance whatever the batches and threads were.
"""

from __future__ import annotations

import numpy as np

from ccx.kernels.cpu._jit import inline, jit, trailing_zeros64

VOID = np.uint32(0xFFFFFFFF)  # code of a cell that is not valid
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # a free slot; no key reaches it
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@jit
def grown(values, length):
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
        cells = grown(cells, n_sets + n_codes)
        set_starts = grown(set_starts, n_sets + n_codes + 1)
        set_ids = grown(set_ids, n_ids + n_codes * n_layers)
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
            parents = grown(parents, room)
            labels = grown(labels, room)
            depths = grown(depths, room)
            child = grown(child, room)
            split_by = grown(split_by, room)
            n_nodes = _split(code, rows[n, concept], concept, n_nodes, parents, labels, depths, child, split_by)
        renumbered = grown(renumbered, n_nodes)
        n_codes = _renumber(code, renumbered[:n_nodes])
        code_counts[n] = n_codes
        cells = grown(cells, n_sets + n_codes)
        set_starts = grown(set_starts, n_sets + n_codes + 1)
        for node in range(n_nodes):
            if renumbered[node] >= 0:
                set_starts[n_sets + renumbered[node] + 1] = depths[node]
        for k in range(n_sets, n_sets + n_codes):
            set_starts[k + 1] += set_starts[k]
        n_ids = set_starts[n_sets + n_codes]
        set_ids = grown(set_ids, n_ids)
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
                atom_starts = grown(atom_starts, n_atoms + 1)
                atom_ids = grown(atom_ids, at + end - start)
                seen_in = grown(seen_in, n_atoms)
                slots = grown(slots, n_atoms)
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
