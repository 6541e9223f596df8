"""The yardstick of all benchmarks: how fast this machine reads memory, plainly.

Run as a script it prints the figure for one thread and for every available processor.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ccx.jobs import available_threads, parallel
from ccx.kernels.cpu._jit import jit

N_BYTES = 1 << 28  # several times the last-level cache of the machines we know


@jit
def _sum(words: NDArray[np.uint64]) -> np.uint64:
    total = np.uint64(0)
    for i in range(words.size):
        total += words[i]
    return total


@cache
def read_bandwidth(threads: int = 1) -> float:
    """Measure how fast `threads` threads sum a uint64 array that no cache holds -> bytes a second.

    The best of nine passes: whatever else runs on the machine can only make a pass slower. Compare it
    with the best pass of a kernel, not with its mean.
    """
    words = np.arange(N_BYTES // 8, dtype=np.uint64)
    wanted = np.uint64(words.size * (words.size - 1) // 2)
    seconds = []
    for _ in range(10):  # the first compiles
        began = time.perf_counter()
        parts = parallel(lambda start, stop: _sum(words[start:stop]), words.size, threads)
        seconds.append(time.perf_counter() - began)
        if np.sum(parts, dtype=np.uint64) != wanted:
            msg = "the sum is wrong: nothing measured with it would mean anything"
            raise RuntimeError(msg)
    return N_BYTES / min(seconds[1:])


if __name__ == "__main__":
    for n_threads in sorted({1, available_threads()}):
        print(f"{n_threads} thread(s): {read_bandwidth(n_threads) / 1e9:.1f} GB/s read")
