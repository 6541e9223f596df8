"""A disk that is full, for tests of what writes files."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """Let the kernel refuse every write beyond `n_bytes` of a file (EFBIG), after a partial write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FullDisk:
    """Replaces functions of `os`: the `n_good`-th call and all later ones raise ENOSPC; pwrite first writes half."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_good: int, names: tuple[str, ...]) -> None:
        self.n_calls = 0
        for name in names:
            monkeypatch.setattr(os, name, self._limited(getattr(os, name), n_good))

    def _limited(self, function: Callable[..., Any], n_good: int) -> Callable[..., Any]:
        def limited(*args: Any, **options: Any) -> Any:
            self.n_calls += 1
            if self.n_calls <= n_good:
                return function(*args, **options)
            if function.__name__ == "pwrite":
                descriptor, content, offset = args
                function(descriptor, content[: len(content) // 2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return limited
