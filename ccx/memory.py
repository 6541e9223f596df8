"""Memory that work will need, checked before it is taken: what this process may use, not what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ccx.errors import MemoryBudgetError

_ROOT = Path("/")  # under which /proc and the mounted control groups lie; tests lay out others
_GROUP_FILES = {  # by kind of file system: what limits a group, what it uses, and which of that it would give back
    "cgroup2": (("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file")),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}


def available_bytes() -> int | None:
    """Return the bytes that this process can still allocate without swapping, or None where it cannot be told.

    The least of what the machine has left, what the control groups (v1 and v2, with all groups above) that it runs in
    have left (a container has one), and what its own limits leave (RLIMIT_AS, RLIMIT_DATA; `ulimit -v`, `ulimit -d`).
    """
    found = [*_of_machine(), *_of_groups(), *_of_limits()]
    return max(0, min(found)) if found else None


def require_bytes(argument: str, n_bytes: int, remedy: str) -> None:
    """Raise `MemoryBudgetError`, which names the argument and the remedy, unless `n_bytes` can be allocated."""
    available = available_bytes()
    if available is not None and n_bytes > available:
        wanted = f"work that fits into the {available / 1e9:.1f} GB of memory available"
        raise MemoryBudgetError(
            argument, wanted=wanted, got=f"a need of about {min(n_bytes, 10**24) / 1e9:.1f} GB", remedy=remedy
        )


def _of_machine() -> Iterator[int]:
    try:
        fields = _fields(_read("proc/meminfo"))
        if "MemAvailable" in fields:
            yield 1024 * fields["MemAvailable"]
        else:
            yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # the last of Linux, the first of Windows
        return


def _of_groups() -> Iterator[int]:
    """Yield what each control group that holds this process has left, up to the mounted one."""
    for kind, folder, inner in _groups():
        limits, usage, given_back = _GROUP_FILES[kind]
        for path in (inner, *inner.parents):
            group = folder / path
            try:
                least = min(_limit(group / name) for name in limits)
                used = int((group / usage).read_text())
                stat = _fields((group / "memory.stat").read_text())
            except (OSError, ValueError):  # the root has no such files
                continue
            # Files in the page cache count as used, and leave when memory is asked for.
            yield int(min(least - used + sum(stat.get(name, 0) for name in given_back), 1 << 62))


def _groups() -> Iterator[tuple[str, Path, PurePosixPath]]:
    """Yield the kind, the mounted folder and the path below it of the groups that count memory."""
    try:
        lines = _read("proc/self/cgroup").splitlines()
        mounts = [line.partition(" - ")[::2] for line in _read("proc/self/mountinfo").splitlines()]
    except OSError:
        return
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1)}
    for where, what in mounts:
        _, _, _, root, folder, *_ = [*where.split(), "", "", "", "", ""]
        kind, *_, options = what.split() or ("", "")
        if kind not in _GROUP_FILES or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        names = [""] if kind == "cgroup2" else [name for name in own if "memory" in name.split(",")]
        for path in (own[name] for name in names if name in own):
            mounted, inside = PurePosixPath(root), PurePosixPath(path)
            # A container may see a group's path from outside, and only the group itself mounted.
            inner = inside.relative_to(mounted) if inside.is_relative_to(mounted) else PurePosixPath()
            yield kind, _ROOT / folder.lstrip("/"), inner


def _of_limits() -> Iterator[int]:
    """Yield what the limits of the process leave: of its address space, and of its data."""
    try:
        import resource  # noqa: PLC0415 - not everywhere

        used = _fields(_read("proc/self/status"))
    except (ImportError, OSError, ValueError):
        return
    for limit, size in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY and size in used:
            yield most - 1024 * used[size]


def _read(path: str) -> str:
    return (_ROOT / path).read_text()


def _limit(path: Path) -> float:
    text = path.read_text().strip() if path.exists() else "max"
    return float("inf") if text == "max" else int(text)


def _fields(text: str) -> dict[str, int]:
    """Return the numbers of lines such as ``MemAvailable:  123 kB`` or ``active_file 123``."""
    words = (line.replace(":", " ").split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}
