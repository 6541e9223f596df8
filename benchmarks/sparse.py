"""Sparse activations, as sparse autoencoders give: `python benchmarks/sparse.py [--units 16384] [--explained 64]`.

A data set of the size of a text corpus: N texts of 256 tokens with 400 concepts over positions, and U units of which 32
fire at each token. Checks some units against the same activations written out, then times all of the histograms, and
the whole of `explain` on some units; CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np
from scipy import sparse

import ccx
from ccx.kernels.sparse import sparse_histogram

TOKENS, CONCEPTS, FIRING = 256, 400, 32


def problem(n_texts: int, n_units: int) -> tuple[ccx.Concepts, sparse.csc_array]:
    """Draw concepts on 1×256 cells, and non-zero activations: 32 of the units a token."""
    rng = np.random.default_rng(0)
    n_tokens = n_texts * TOKENS
    labels = np.minimum(rng.zipf(1.3, (n_texts, 3, 1, TOKENS)), CONCEPTS).astype(np.int32)
    names = [f"concept {c}" for c in range(1, CONCEPTS + 1)]
    concepts = ccx.Concepts.from_label_maps(labels, names)
    rows = np.repeat(np.arange(n_tokens), FIRING)
    columns = (rng.integers(0, n_units, n_tokens)[:, None] * 7 + np.arange(FIRING) * 131) % n_units
    columns = (columns + labels[:, 0].reshape(-1, 1) * 17) % n_units  # units follow concepts to some degree
    values = rng.exponential(size=rows.size).astype(np.float32) + np.float32(0.1)
    return concepts, sparse.csc_array((values, (rows, columns.ravel())), shape=(n_tokens, n_units))


def main() -> None:
    """Check, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--units", type=int, default=16384)
    parser.add_argument("--explained", type=int, default=64, help="units of which the whole is timed; 0 = all")
    options = parser.parse_args()
    concepts, matrix = problem(options.texts, options.units)
    print(f"{concepts!r}, {matrix.shape[1]} units, {matrix.nnz:,} non-zeros")
    few = sorted(np.random.default_rng(1).choice(options.units, 3, replace=False).tolist())
    written_out = matrix[:, few].toarray().T.reshape(3, options.texts, 1, TOKENS).swapaxes(0, 1)
    found = ccx.explain(matrix, concepts, units=few, progress=False)
    wanted = ccx.explain(np.ascontiguousarray(written_out), concepts, progress=False)
    same = [(a.formula, a.intersection, a.union) for a in found] == [
        (b.formula, b.intersection, b.union) for b in wanted
    ]
    print(f"equal to the same activations written out: {same}")
    if not same:
        raise SystemExit(1)
    starts, cells = matrix.indptr, matrix.indices.astype(np.int64)
    ranges = np.array([(0.1, 0.3), (0.3, 0.7), (0.7, 1.5), (1.5, 3), (3, np.inf)])
    began = time.process_time()
    for first, end in pairwise(starts):
        sparse_histogram(cells[first:end], matrix.data[first:end], ranges, concepts.atoms)
    seconds = time.process_time() - began
    each = 1e6 * seconds / options.units
    print(f"histograms of {options.units} units x 5 ranges: {seconds:.2f} CPU s, {each:.0f} us a unit")
    n = options.explained or options.units
    began = time.process_time()
    ccx.explain(matrix, concepts, units=range(n), threads=1, progress=False)
    seconds = time.process_time() - began
    rest = "" if n == options.units else f"; {seconds / n * options.units:.0f} s for all (extrapolated)"
    print(f"explain, {n} units x 5 ranges, beam, length 3: {seconds:.1f} CPU s{rest}")


if __name__ == "__main__":
    main()
