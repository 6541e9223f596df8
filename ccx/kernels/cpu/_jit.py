"""How the CPU backend compiles and runs its loops.

Kernels are compiled without numba's own threads: they release the GIL and `parallel` runs them on
Python threads over disjoint slices. So the number of threads is a plain argument of each call, ccx
changes no global state, may itself be called from any thread, and starts in a fraction of the time
that numba's ``parallel=True`` takes to compile.

Compiling is what a first run waits for, so kernels avoid two things that cost seconds and nothing else: assigning an
array to a slice of another (numba compiles the wording of its error message) and `inline` where a call will do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event
from typing import Any

import numba
from llvmlite import ir
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from ccx.kernels.cpu._caching import KernelCache, tell_once
from ccx.stopping import stoppable


def jit(function: Callable[..., Any]) -> Any:
    """Compile `function` with numba: cached on disk, without the GIL, IEEE arithmetic as written."""
    return _compiled(function)


def inline(function: Callable[..., Any]) -> Any:
    """Like `jit`, for small helpers that are called from other kernels."""
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    kernel = numba.njit(nogil=True, **options)(function)
    if not isinstance(kernel, Dispatcher):  # NUMBA_DISABLE_JIT gives the function back
        return kernel
    try:
        # As cache=True does, with a cache that cannot end a run.
        kernel._cache = KernelCache(function)  # type: ignore[attr-defined]
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        tell_once(
            "no folder to cache compiled kernels: neither the package nor the home folder can be written, so that "
            "every process compiles anew; set NUMBA_CACHE_DIR to a folder that can"
        )
    return kernel


def _instruction(emitter: Callable[..., Any]) -> Any:
    """Make an LLVM instruction callable from kernels."""
    return intrinsic(emitter)


@_instruction
def popcount64(typing_context: Any, word: Any) -> Any:
    """Count the ones of a uint64 (LLVM's ctpop, which it vectorises) -> uint64."""
    return numba.types.uint64(numba.types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


@_instruction
def trailing_zeros64(typing_context: Any, word: Any) -> Any:
    """Count the zeros below the lowest one of a uint64 that is not 0 (LLVM's cttz) -> uint64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return numba.types.uint64(numba.types.uint64), emit


def available_threads() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel(work: Callable[[int, int], Any], n_items: int, threads: int | None = None) -> list[Any]:
    """Call ``work(start, stop)`` over contiguous slices of ``range(n_items)``, one a thread.

    `threads=None` uses every available processor. Results come back in the order of the slices; an
    error in any slice is raised here. Then, or where this is interrupted, the others end at their next
    `ccx.stopping.check`, if they make any.
    """
    n_slices = max(1, min(threads or available_threads(), n_items))
    bounds = [n_items * i // n_slices for i in range(n_slices + 1)]
    slices = list(pairwise(bounds))
    if n_slices == 1:
        return [work(*slices[0])]
    stop = Event()

    def work_on(piece: tuple[int, int]) -> Any:
        return work(*piece)

    with ThreadPoolExecutor(n_slices) as pool:
        try:
            return list(pool.map(stoppable(work_on, stop), slices))
        finally:
            stop.set()
