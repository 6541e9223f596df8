"""Memory that work will need, checked before it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from ccx.errors import MemoryBudgetError

_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int | None:
    """Return the bytes that new allocations can take without swapping, or None where it cannot be told."""
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def require_bytes(argument: str, n_bytes: int, remedy: str) -> None:
    """Raise unless `n_bytes` can be allocated.

    Raises
    ------
    MemoryBudgetError
        Names the argument that asks for the memory, and the remedy.

    """
    available = available_bytes()
    if available is not None and n_bytes > available:
        wanted = f"work that fits into the {available / 1e9:.1f} GB of memory available"
        raise MemoryBudgetError(argument, wanted=wanted, got=f"a need of about {n_bytes / 1e9:.1f} GB", remedy=remedy)
