"""The cache of compiled kernels: what is damaged, or cannot be written, costs a warning and a compilation.

numba writes its cache without checksums, and lets errors of its files end the call that needs a kernel.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

_DIGEST_BYTES = 16
_told: set[str] = set()


def tell_once(message: str) -> None:
    """Warn, unless this process already said so: hundreds of kernels share one cache."""
    if message not in _told:
        _told.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


class KernelCache(FunctionCache):
    """The cache of one kernel, which never raises an error of its files.

    Raises
    ------
    RuntimeError
        When numba finds no folder for it.

    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CheckedFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}.ccx",  # apart from files without checksums
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what is stored for a signature; None where it has to be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # pickles and object code that are damaged raise what they see fit
            self._tell(error)
            with suppress(Exception):
                self.flush()  # or the index would keep what is compiled now from being stored
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store what was compiled for a signature, if that can be."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # mostly OSError: a full disk, a quota, a folder that is gone
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        where = f"compiled kernels in {self.cache_path}"
        if isinstance(error, OSError):
            remedy = "make room, or set NUMBA_CACHE_DIR to a folder that can be written"
            reason = error.strerror or str(error)
            tell_once(f"no cache of {where} ({reason}), so that every process compiles them anew; {remedy}")
        else:
            remedy = "delete the folder if this comes back, or set NUMBA_CACHE_DIR to another"
            tell_once(f"the cache of {where} is damaged and made anew ({error}); {remedy}")


class _CheckedFile(IndexDataCacheFile):
    """Files that end with a hash of what precedes it; compiled code also says what it is the code of."""

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        found = super().load(key)
        # Two processes that store two signatures at a time may give both the same file.
        return None if found is None or found[0] != key else found[1]

    def _load_index(self) -> Any:
        with suppress(FileNotFoundError):
            _check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name))
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        with super()._open_for_write(filepath) as file:
            yield content
            file.write(content.getvalue() + _digest(content.getvalue()))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _check(path: str) -> None:
    content = Path(path).read_bytes()
    if content[-_DIGEST_BYTES:] != _digest(content[:-_DIGEST_BYTES]):
        msg = f"{Path(path).name} does not fit its checksum"
        raise ValueError(msg)
