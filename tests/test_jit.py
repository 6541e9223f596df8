"""Compilation where numba finds no folder for its cache."""

from __future__ import annotations

import numba
import pytest

from ccx.kernels.cpu import _jit


def test_kernels_compile_without_a_cache(monkeypatch):
    njit = numba.njit

    def unwritable(*args, cache=False, **options):
        if cache:
            msg = "cannot cache function 'add': no locator available for file 'x.py'"
            raise RuntimeError(msg)
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", unwritable)
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR"):
        add = _jit.jit(lambda a, b: a + b)
    assert add(2, 3) == 5


def test_other_errors_are_raised(monkeypatch):
    def broken(*_args, **_options):
        msg = "something else"
        raise RuntimeError(msg)

    monkeypatch.setattr(numba, "njit", broken)
    with pytest.raises(RuntimeError, match="something else"):
        _jit.jit(abs)
