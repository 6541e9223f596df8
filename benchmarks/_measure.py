"""How a call is timed with pytest-benchmark, and what is noted beside its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._bandwidth import read_bandwidth


def measure(
    benchmark: Any,
    call: Callable[[], Any],
    *,
    n_bytes: int,
    n_items: int,
    threads: int = 1,
    unit: str = "rows",
    oracle_ratio: float | None = None,
) -> None:
    """Time `call` and note bytes, GB/s, their share of the read bandwidth, items a second, and the oracle's ratio."""
    benchmark.pedantic(call, rounds=15, warmup_rounds=2)
    if benchmark.stats is None:  # --benchmark-disable: the call ran once, which is all that was asked for
        return
    seconds = benchmark.stats.stats.min
    bandwidth = read_bandwidth(threads)
    benchmark.extra_info.update(
        threads=threads,
        n_bytes=n_bytes,
        gb_per_s=round(n_bytes / seconds / 1e9, 2),
        read_bandwidth_gb_per_s=round(bandwidth / 1e9, 2),
        share_of_read_bandwidth=round(n_bytes / seconds / bandwidth, 3),
    )
    benchmark.extra_info[f"{unit}_per_s"] = round(n_items / seconds)
    if oracle_ratio is not None:
        benchmark.extra_info["oracle_time_ratio"] = round(oracle_ratio, 1)


def check(kernel: Callable[[], Any], oracle: Callable[[], Any]) -> float:
    """Assert that both return equal arrays -> how many times longer the oracle takes for the same work."""
    got = kernel()
    began = time.perf_counter()
    wanted = oracle()
    oracle_seconds = time.perf_counter() - began
    np.testing.assert_array_equal(got, wanted)
    seconds = []
    for _ in range(5):  # it is compiled by now
        began = time.perf_counter()
        kernel()
        seconds.append(time.perf_counter() - began)
    return oracle_seconds / min(seconds)
