"""Floats as IEEE 754 has them, whatever the thread of the caller is set to.

``torch.set_flush_denormal(True)``, and libraries compiled with ``-ffast-math`` when they are loaded, have a processor
take denormals for zeros, in their thread and in those that it starts. Then the open range (0, inf), whose least member
is a denormal, would hold every zero.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ccx.errors import BackendError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_LEAST = 5e-324
_DEFAULT = ctypes.c_void_p(-1)  # FE_DFL_ENV of fenv.h: what a process starts with
_MOST_BYTES = 64  # of a fenv_t


def ieee(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a function, and the threads that it starts, compute with denormals; then the thread is as it was.

    Raises
    ------
    BackendError
        By the function, where that cannot be set.

    """

    @functools.wraps(function)
    def computed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not _flushes():
            return function(*args, **kwargs)
        before = ctypes.create_string_buffer(_MOST_BYTES)
        try:
            library = ctypes.CDLL(None)
            library.fegetenv(before)
            library.fesetenv(_DEFAULT)
        except (AttributeError, OSError, TypeError) as error:
            raise _unable() from error
        try:
            if _flushes():
                raise _unable()
            return function(*args, **kwargs)
        finally:
            library.fesetenv(before)

    return computed


def _flushes() -> bool:
    """Return whether denormals are taken for zeros, as operands or as results."""
    return _LEAST + _LEAST == 0.0


def _unable() -> BackendError:
    msg = (
        "this thread takes denormal numbers for zeros, and cannot be set otherwise: call "
        "torch.set_flush_denormal(False), or do without the library that sets it (compiled with -ffast-math)"
    )
    return BackendError(msg)
