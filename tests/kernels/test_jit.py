"""The cache of compiled kernels: whatever becomes of its files, kernels run, and one warning says what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.caching import CacheImpl

from ccx.kernels.cpu import _caching, _jit
from tests.support.full_disk import file_size_limit

MODULE = """
from ccx.kernels.cpu._jit import inline, jit

@inline
def twice(a):
    return 2 * a

@jit
def add(a, b):
    return twice(a) + b
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache, beside a module with kernels."""
    (tmp_path / "kernels.py").write_text(MODULE)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_caching, "_told", set())
    return tmp_path / "cache"


def kernel(folder: Path) -> Any:
    """Return `add` as a new process has it."""
    spec = importlib.util.spec_from_file_location("kernels", folder.parent / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.add


def run(folder: Path) -> tuple[int, list[str]]:
    """Call `add` in a new process, as it were -> (cache hits, warnings)."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        add = kernel(folder)
        assert add(20, 2) == 42
        assert add(0.25, 1.0) == 1.5
    return sum(add.stats.cache_hits.values()), [str(one.message) for one in told]


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"kernels.add*{suffix}"))


def test_kernels_are_cached(folder: Path) -> None:
    assert run(folder) == (0, [])
    assert run(folder) == (2, [])
    assert [len(files(folder, suffix)) for suffix in ("nbi", "nbc")] == [1, 2]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": cut,
    "empty": lambda content: content[:0],
    "one byte": lambda content: content[:1],
    "one bit": flip,
    "garbage": lambda content: b"\x80\x05garbage" * len(content),
    "zeros": lambda content: bytes(len(content)),
    "last byte": lambda content: content[:-1],
}


@pytest.mark.states("The cache of compiled kernels", "damaged files", "accepted", "a warning, and it is made anew")
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_anew(folder: Path, suffix: str, damage: str) -> None:
    run(folder)
    for file in files(folder, suffix):
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    _, told = run(folder)
    assert len(told) == 1
    assert f"kernels in {files(folder, suffix)[0].parent} is damaged and made anew" in told[0]
    assert "NUMBA_CACHE_DIR" in told[0]
    _caching._told.clear()
    assert run(folder) == (2, [])


def test_code_of_another_signature_is_not_called(folder: Path) -> None:
    """Processes that store two signatures at a time may write both to one file."""
    run(folder)
    one, other = files(folder, "nbc")
    shutil.copy(one, other)
    assert run(folder) == (1, [])
    assert run(folder) == (2, [])


@pytest.mark.states("The cache of compiled kernels", "a full disk, or over quota", "accepted", "a warning: make room")
def test_a_full_disk_costs_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n_bytes in (0, 100, 3_000):
        shutil.rmtree(folder, ignore_errors=True)
        _caching._told.clear()
        kernel(folder)  # numba looks at the folder
        with file_size_limit(n_bytes):
            hits, told = run(folder)
        assert hits == 0
        assert len(told) == 1
        assert f"kernels in {next(folder.iterdir())} (File too large), so that every process compiles" in told[0]
        assert "make room, or set NUMBA_CACHE_DIR" in told[0]
        assert run(folder)[1] == []  # what was stored by half is whole, or not there
        assert run(folder) == (2, [])


@pytest.mark.states("The cache of compiled kernels", "no folder to write to", "accepted", "a warning: NUMBA_CACHE_DIR")
def test_a_folder_that_is_gone_costs_a_warning(folder: Path) -> None:
    add = kernel(folder)
    shutil.rmtree(folder)
    folder.write_text("no folder")
    with pytest.warns(RuntimeWarning, match=r"no cache of compiled kernels in .* \(Not a directory\)") as told:
        assert [add(20, 2), add(0.25, 1.0)] == [42, 1.5]
    assert len(told) == 1
    assert run(folder)[1] == []  # the folder of the package serves in its place
    assert run(folder) == (2, [])


def test_no_folder_at_all_costs_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.warns(RuntimeWarning, match="no folder to cache compiled kernels.*set NUMBA_CACHE_DIR") as told:
        assert kernel(folder)(20, 2) == 42
    assert len(told) == 1  # of two kernels


def test_another_version_of_numba_compiles_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(numba, "__version__", "0.0.1")
        run(folder)
    assert run(folder) == (0, [])
    assert run(folder) == (2, [])


def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_function: object) -> None:
        msg = "something else"
        raise RuntimeError(msg)

    monkeypatch.setattr(_jit, "KernelCache", broken)
    with pytest.raises(RuntimeError, match="something else"):
        _jit.jit(abs.__class__ and (lambda a: a))


def test_processes_share_a_cache(folder: Path) -> None:
    """Several at once compile and store the same kernels; each answer is right, and nothing is said."""
    text = (
        "import sys; sys.path.insert(0, sys.argv[1]); from kernels import add; "
        "calls = [lambda: add(20, 2), lambda: add(20.0, 2), lambda: add(20, 2.0)]; n = int(sys.argv[2]); "
        "print([call() for call in calls[n:] + calls[:n]])"
    )
    root = str(Path(_jit.__file__).parents[3])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": root}
    for _ in range(2):
        started = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", text, str(folder.parent), str(n)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for n in range(3)
        ]
        for child in started:
            said, _ = child.communicate()
            assert np.array_equal(eval(said.decode()), [42, 42, 42]), said.decode()
