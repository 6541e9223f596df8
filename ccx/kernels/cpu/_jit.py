"""How the CPU backend compiles and runs its loops.

Kernels are compiled without numba's own threads: they release the GIL and `ccx.jobs.parallel` runs them on
Python threads over disjoint slices. So the number of threads is a plain argument of each call, ccx
changes no global state, may itself be called from any thread, and starts in a fraction of the time
that numba's ``parallel=True`` takes to compile.

Compiling is what a first run waits for, so kernels avoid two things that cost seconds and nothing else: assigning an
array to a slice of another (numba compiles the wording of its error message) and `inline` where a call will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from ccx.kernels.cpu._caching import KernelCache, tell_once


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


def instruction(emitter: Callable[..., Any]) -> Any:
    """Make what emits LLVM's instructions callable from kernels."""
    return intrinsic(emitter)


@instruction
def popcount64(typing_context: Any, word: Any) -> Any:
    """Count the ones of a uint64 (LLVM's ctpop, which it vectorises) -> uint64."""
    return numba.types.uint64(numba.types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


@instruction
def trailing_zeros64(typing_context: Any, word: Any) -> Any:
    """Count the zeros below the lowest one of a uint64 that is not 0 (LLVM's cttz) -> uint64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return numba.types.uint64(numba.types.uint64), emit
