"""Memory budgets: the machine, control groups and limits of the process, whichever leaves least."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx import memory
from ccx.errors import MemoryBudgetError
from ccx.kernels.cpu.activations import copy_of_units

MOUNT_V2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
MOUNT_V1 = "35 31 0:30 {root} /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Lay out a machine with 16 GB left: a function that writes files below its root."""

    def lay_out(files: dict[str, str]) -> None:
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    lay_out({"proc/meminfo": f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {16 * GB // 1024} kB\n"})
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    return lay_out


def v2(path: str, limit: str, current: int, files: int = 0, high: str = "max") -> dict[str, str]:
    group = f"sys/fs/cgroup/{path}".rstrip("/")
    stat = f"anon {current - files}\nactive_file {files // 2}\ninactive_file {files - files // 2}\n"
    return {
        f"{group}/memory.max": f"{limit}\n",
        f"{group}/memory.high": f"{high}\n",
        f"{group}/memory.current": f"{current}\n",
        f"{group}/memory.stat": stat,
    }


def v1(path: str, limit: int, usage: int, files: int = 0) -> dict[str, str]:
    group = f"sys/fs/cgroup/memory/{path}".rstrip("/")
    return {
        f"{group}/memory.limit_in_bytes": f"{limit}\n",
        f"{group}/memory.usage_in_bytes": f"{usage}\n",
        f"{group}/memory.stat": f"cache {files}\ntotal_inactive_file {files}\ntotal_active_file 0\n",
    }


def test_a_machine_without_groups_has_what_it_says(machine):
    assert memory.available_bytes() == pytest.approx(16 * GB, rel=1e-6)


def test_a_container_has_its_own_group_at_the_root(machine):
    machine({"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": f"{MOUNT_V2}\n"})
    machine(v2("", str(16 * GB // 10), GB // 2, files=GB // 5))
    assert memory.available_bytes() == 16 * GB // 10 - GB // 2 + GB // 5


def test_the_least_of_all_groups_above_counts(machine):
    machine({"proc/self/cgroup": "0::/slice/job/step\n", "proc/self/mountinfo": f"{MOUNT_V2}\n"})
    machine(v2("slice", str(3 * GB), 2 * GB) | v2("slice/job", "max", GB) | v2("slice/job/step", str(9 * GB), GB))
    assert memory.available_bytes() == GB


def test_a_soft_limit_counts_as_well(machine):
    machine({"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": f"{MOUNT_V2}\n"})
    machine(v2("job", str(9 * GB), GB, high=str(2 * GB)))
    assert memory.available_bytes() == GB


def test_more_used_than_allowed_leaves_nothing(machine):
    machine({"proc/self/cgroup": "0::/job\n", "proc/self/mountinfo": f"{MOUNT_V2}\n"})
    machine(v2("job", str(GB), 2 * GB))
    assert memory.available_bytes() == 0


@pytest.mark.parametrize(
    ("root", "own", "group"),
    [
        ("/", "/docker/abc", "docker/abc"),  # seen from the machine
        ("/docker/abc", "/docker/abc", ""),  # inside: the group is mounted, its path is that of the machine
        ("/elsewhere", "/docker/abc", ""),  # inside, with a path that is not mounted at all
    ],
)
def test_groups_of_the_first_version(machine, root, own, group):
    lines = f"12:cpu,cpuacct:/x\n4:memory:{own}\n1:name=systemd:/init\n0::/\n"
    machine({"proc/self/cgroup": lines, "proc/self/mountinfo": f"{MOUNT_V1.format(root=root)}\n"})
    machine(v1(group, 2 * GB, GB, files=GB // 4))
    assert memory.available_bytes() == GB + GB // 4


def test_no_limit_of_the_first_version_is_a_huge_number(machine):
    machine({"proc/self/cgroup": "4:memory:/\n", "proc/self/mountinfo": f"{MOUNT_V1.format(root='/')}\n"})
    machine(v1("", 9_223_372_036_854_771_712, GB))
    assert memory.available_bytes() == pytest.approx(16 * GB, rel=1e-6)


@pytest.mark.parametrize("damage", ["", "0::/job", "x", "4:memory", "0::/job\n\x00"])
def test_odd_files_leave_the_machine_to_say(machine, damage):
    machine({"proc/self/cgroup": damage, "proc/self/mountinfo": f"1 2 3\n{MOUNT_V2}\n"})
    machine(v2("job", "damaged", GB))
    assert memory.available_bytes() == pytest.approx(16 * GB, rel=1e-6)


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process_count(limit):
    code = f"""
import resource
from ccx import memory
from ccx.errors import MemoryBudgetError
resource.setrlimit(resource.{limit}, (2 << 30, 2 << 30))
left = memory.available_bytes()
assert 0 < left < 2 << 30, left
bytearray(left // 2)
try:
    bytearray(left + (1 << 20))
except MemoryError:
    pass
else:
    raise SystemExit("more could be allocated than was left")
try:
    memory.require_bytes("samples", left + (64 << 20), "use fewer")
except MemoryBudgetError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "samples: expected work that fits" in done.stdout


def test_what_does_not_fit_is_refused_by_name(machine):
    with pytest.raises(MemoryBudgetError, match=r"fit: expected .* the 16\.0 GB .* 17\.0 GB; use less"):
        memory.require_bytes("fit", 17 * GB, "use less")
    memory.require_bytes("fit", 15 * GB, "use less")


def test_a_stream_of_labels_stops_before_memory_ends(monkeypatch):
    left = iter([10 * GB, 10 * GB, 50_000_000])  # asked for every 64 MiB of cell maps
    monkeypatch.setattr(memory, "available_bytes", lambda: next(left))
    labels = np.ones((1, 1, 512, 512), np.int8)
    drawn = 0

    def batches():
        nonlocal drawn
        while True:
            drawn += 1
            yield labels.repeat(32, 0)  # 16 MiB of cell maps

    with pytest.raises(MemoryBudgetError, match="samples: expected work that fits into the 0\\.1 GB"):
        ccx.Concepts.from_label_maps(batches(), ["thing"])
    assert drawn == 10


def test_units_of_a_view_are_copied_alone():
    view = np.broadcast_to(np.arange(12, dtype=np.float64).reshape(3, 4, 1, 1), (3, 4, 100_000, 100_000))
    found = copy_of_units(view[:, :, :2, :3], [2])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, view[:, 2:3, :2, :3])
    code = """
import resource
import numpy as np
from ccx.kernels.cpu.activations import copy_of_units
view = np.broadcast_to(np.ones((3, 1, 7, 7), np.float32), (3, 1 << 24, 7, 7))  # 9.9 GB if it were written out
copy_of_units(view[:, :2], [0])
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
assert copy_of_units(view, [5, 7]).shape == (3, 2, 7, 7)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_units_beyond_memory_are_refused_before_they_are_listed(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100_000_000)
    view = np.broadcast_to(np.ones((2, 1, 1, 1), np.float32), (2, 1 << 21, 1, 1))
    with pytest.raises(MemoryBudgetError, match=r"units: .*; choose some with units="):
        ccx.explain(view, np.ones((1, 2, 1, 1), np.bool_), progress=False)


def test_this_machine_says_something():
    assert Path("/proc/meminfo").exists() == (memory.available_bytes() is not None)
