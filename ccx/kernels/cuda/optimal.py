"""The proven optimum on the GPU; `ccx.kernels.optimal` documents, `optimal.cuh` computes.

Matrices, atoms and weights lie on the GPU. Lists lie on the host, which ranks what is found: those that are passed are
copied over, and those that are found are copied back, with 8 bytes for each row of a table to tell where its entries
go.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccx.kernels.cuda.device import Array, device_of, int64s, launch
from ccx.kernels.cuda.tables import listed

Ints = NDArray[np.int32]


def atom_gains(cells: Array, counts: Array, q: int, p: int) -> Array:
    """Serve `ccx.kernels.cpu.optimal.atom_gains`."""
    device = device_of(cells, counts)
    (n_atoms,) = cells.shape
    gains = device.empty((n_atoms,), np.int64)
    args = (device.contiguous(cells, np.int64), device.contiguous(counts, np.int64), gains, *int64s(n_atoms, q, p))
    launch(device, "optimal", "atom_gains", n_atoms, args)
    return gains


def ordered(sizes: Array, hits: Array, gains: Array, order: Ints, q: int, p: int) -> tuple[Array, ...]:
    """Serve `ccx.kernels.cpu.optimal.ordered`."""
    device = device_of(sizes, hits, gains)
    n = order.size
    matrices = (device.contiguous(matrix, np.int64) for matrix in (sizes, hits, gains))
    results = tuple(device.empty((n, n), np.int64) for _ in range(4))
    args = (*matrices, device.upload(order), *results, *int64s(sizes.shape[0], n, q, p))
    launch(device, "optimal", "order_pairs", n * n, args)
    return results


def good_pairs(values: Array, least: int) -> Ints:
    """Serve `ccx.kernels.cpu.optimal.good_pairs`."""
    device = device_of(values)
    n = values.shape[0]
    found = listed(device, "optimal", "good_pairs", [device.contiguous(values, np.int64)], n, (n, least), (3, np.int32))
    pairs: Ints = device.download(found)
    return pairs


def promising_pairs(values: Array, gains: Array, least: int, first: int, last: int) -> tuple[Ints, int]:
    """Serve `ccx.kernels.cpu.optimal.promising_pairs`."""
    device = device_of(values, gains)
    n = values.shape[0]
    matrices = [device.contiguous(matrix, np.int64) for matrix in (values, gains)]
    n_rows = last - first
    pairs = listed(device, "optimal", "open_pairs", matrices, n_rows, (first, n_rows, n, least), (3, np.int32))
    n_pairs = pairs.shape[0]
    results = device.empty((2, n_pairs), np.int64)
    launch(device, "optimal", "try_pairs", 32 * n_pairs, (*matrices, pairs, results, *int64s(n_pairs, n, least)))
    promising, n_tried = device.download(results)
    return device.download(pairs)[promising != 0], int(n_tried.sum())


def triple_counts(
    head_atoms: Ints,
    atom_starts: Array,
    atom_concepts: Array,
    ranks: Ints,
    cells: Array,
    counts: Array,
    row_of: Ints,
    n_rows: int,
    n: int,
) -> Array:
    """Serve `ccx.kernels.cpu.optimal.triple_counts`."""
    device = device_of(atom_starts, atom_concepts, cells, counts)
    triples = device.zeros((2, n_rows, n), np.int64)
    args = (
        device.upload(head_atoms),
        device.contiguous(atom_starts, np.int64),
        device.contiguous(atom_concepts, np.uint16),
        device.upload(ranks),
        device.upload(row_of),
        device.contiguous(cells, np.int64),
        device.contiguous(counts, np.int64),
        triples,
        *int64s(head_atoms.size, n_rows, n),
    )
    launch(device, "optimal", "triple_counts", 32 * head_atoms.size, args)
    return triples


def good_extensions(
    pairs: Ints, rows: Ints, triples: Array, sizes: Array, hits: Array, q: int, p: int, least: int
) -> tuple[NDArray[np.int64], int]:
    """Serve `ccx.kernels.cpu.optimal.good_extensions`."""
    device = device_of(triples, sizes, hits)
    n_pairs, n = pairs.shape[0], sizes.shape[0]
    arrays = [
        device.upload(np.ascontiguousarray(pairs)),
        device.upload(rows),
        *(device.contiguous(matrix, np.int64) for matrix in (triples, sizes, hits)),
    ]
    counted = (triples.shape[1], n_pairs, n, q, p, least)
    found = listed(device, "optimal", "good_extensions", arrays, n_pairs, counted, (7, np.int64))
    extensions: NDArray[np.int64] = device.download(found)
    return extensions, 3 * n_pairs * (n - 2)
