"""Packed bit rows and shapes of masks, each checked against its oracle, then timed.

``pytest benchmarks/test_rows_bench.py --benchmark-enable``. All data lie in main memory, not in a cache.
``extra_info`` gives bytes read and written, GB/s, their share of the plain read bandwidth of the same number of
threads, and items a second; all from the fastest round, as the bandwidth is (`_bandwidth.read_bandwidth`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks._measure import measure
from ccx.kernels import rows, shapes
from tests import reference

GRID = (112, 112)
N_BITS = GRID[0] * GRID[1]
N_ROWS = 80_000  # 125 MB an array
N_CHECKED = 50  # rows that the oracle, which is slow, is asked about
THREADS = pytest.mark.parametrize("threads", [1, 2])


@pytest.fixture(scope="module")
def two_tables() -> tuple[np.ndarray, np.ndarray]:
    """Two tables uint64[N_ROWS, 196] of random rows."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2**64, (2, N_ROWS, rows.n_words(N_BITS)), dtype=np.uint64)
    return first, second


def blobs(n_masks: int, holes: float) -> np.ndarray:
    """Return bool[n, 112, 112]: wavy ellipses over about 15 % of the grid; a share `holes` of the cells is off."""
    rng = np.random.default_rng(1)
    y, x = np.ogrid[: GRID[0], : GRID[1]]
    masks = np.empty((n_masks, *GRID), dtype=np.bool_)
    for mask in masks:
        radius = np.sqrt(N_BITS * 0.15 * rng.uniform(0.5, 1.6) / np.pi)
        stretch = np.exp(rng.uniform(-0.5, 0.5))
        row, col = rng.uniform(0.2, 0.8, 2) * GRID
        wave_y, wave_x, phase = rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0, 6.3)
        distance = ((x - col) / (radius * stretch)) ** 2 + ((y - row) / (radius / stretch)) ** 2
        mask[:] = distance + 0.3 * np.sin(wave_x * x + phase) * np.sin(wave_y * y + phase) < 1
    masks &= rng.random(masks.shape) >= holes
    return masks


@THREADS
def test_pack(benchmark: Any, threads: int) -> None:
    """Time `rows.pack`."""
    bits = np.random.default_rng(2).random((20_000, N_BITS), dtype=np.float32) < 0.15
    packed = rows.pack(bits, threads=threads)
    np.testing.assert_array_equal(packed[:N_CHECKED], reference.pack(bits[:N_CHECKED]))
    n_bytes = bits.nbytes + packed.nbytes
    measure(benchmark, lambda: rows.pack(bits, threads=threads), n_bytes=n_bytes, n_items=len(bits), threads=threads)


@THREADS
def test_unpack(benchmark: Any, threads: int, two_tables: tuple[np.ndarray, np.ndarray]) -> None:
    """Time `rows.unpack`."""
    packed = two_tables[0][:20_000]
    bits = rows.unpack(packed, N_BITS, threads=threads)
    np.testing.assert_array_equal(bits[:N_CHECKED], reference.unpack(packed[:N_CHECKED], N_BITS))
    n_bytes, n_items = bits.nbytes + packed.nbytes, len(packed)
    del bits
    call = lambda: rows.unpack(packed, N_BITS, threads=threads)  # noqa: E731
    measure(benchmark, call, n_bytes=n_bytes, n_items=n_items, threads=threads)


@THREADS
@pytest.mark.parametrize("operation", ["logical_and", "logical_or", "logical_and_not"])
def test_logical(benchmark: Any, operation: str, threads: int, two_tables: tuple[np.ndarray, np.ndarray]) -> None:
    """Time `rows.logical_*`."""
    a, b = two_tables
    out = np.empty_like(a)
    function = getattr(rows, operation)
    function(a, b, out, threads=threads)
    np.testing.assert_array_equal(out, getattr(reference, operation)(a, b))
    n_bytes = a.nbytes + b.nbytes + out.nbytes
    measure(benchmark, lambda: function(a, b, out, threads=threads), n_bytes=n_bytes, n_items=N_ROWS, threads=threads)


@THREADS
def test_popcount(benchmark: Any, threads: int, two_tables: tuple[np.ndarray, np.ndarray]) -> None:
    """Time `rows.popcount`."""
    a = two_tables[0]
    counts = rows.popcount(a, threads=threads)
    np.testing.assert_array_equal(counts[:N_CHECKED], reference.popcount(a[:N_CHECKED]))
    measure(benchmark, lambda: rows.popcount(a, threads=threads), n_bytes=a.nbytes, n_items=N_ROWS, threads=threads)


@THREADS
def test_and_popcount(benchmark: Any, threads: int, two_tables: tuple[np.ndarray, np.ndarray]) -> None:
    """Time `rows.and_popcount`."""
    a, b = two_tables
    counts = rows.and_popcount(a, b, threads=threads)
    np.testing.assert_array_equal(counts[:N_CHECKED], reference.and_popcount(a[:N_CHECKED], b[:N_CHECKED]))
    n_bytes = a.nbytes + b.nbytes
    measure(
        benchmark, lambda: rows.and_popcount(a, b, threads=threads), n_bytes=n_bytes, n_items=N_ROWS, threads=threads
    )


@THREADS
@pytest.mark.parametrize(("n", "m", "n_words"), [(2000, 1000, 196), (200, 150, 30_000), (4000, 4000, 8)])
def test_intersection_counts(benchmark: Any, n: int, m: int, n_words: int, threads: int) -> None:
    """Bytes are those of the words met (n × m × n_words), which a kernel without tiles would read from memory."""
    packed = np.random.default_rng(3).integers(0, 2**64, (n + m, n_words), dtype=np.uint64)
    a, b = packed[:n], packed[n:]
    counts = rows.intersection_counts(a, b, threads=threads)
    np.testing.assert_array_equal(counts[:3, :3], reference.intersection_counts(a[:3], b[:3]))
    np.testing.assert_array_equal(counts[-3:, -3:], reference.intersection_counts(a[-3:], b[-3:]))
    n_met = n * m * n_words
    call = lambda: rows.intersection_counts(a, b, threads=threads)  # noqa: E731
    measure(benchmark, call, n_bytes=8 * n_met, n_items=n_met, threads=threads, unit="words")


@pytest.mark.parametrize("function", ["bounding_boxes", "inscribed_rectangles", "both"])
@pytest.mark.parametrize("holes", [0.0, 0.05])
def test_shapes(benchmark: Any, function: str, holes: float) -> None:
    """Time boxes, rectangles and the two together, on one thread: the goal is 100,000 rows/s for the two."""
    masks = blobs(20_000, holes)
    packed = rows.pack(masks.reshape(-1, N_BITS))
    names = ["bounding_boxes", "inscribed_rectangles"] if function == "both" else [function]
    for name in names:
        wanted = getattr(reference, name)(packed[:N_CHECKED], GRID)
        np.testing.assert_array_equal(getattr(shapes, name)(packed[:N_CHECKED], GRID, threads=1), wanted)
    call = lambda: [getattr(shapes, name)(packed, GRID, threads=1) for name in names]  # noqa: E731
    measure(benchmark, call, n_bytes=packed.nbytes, n_items=len(packed))
    benchmark.extra_info["cover"] = round(float(masks.mean()), 3)
