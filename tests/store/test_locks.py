"""The one lock: what it keeps out, that it goes with its process, and what stands for it where a disk has none."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ccx.errors import StoreError
from ccx.store.folders import locked_folder
from ccx.store.locks import lock

BUSY = StoreError("busy")
ERRORS = [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK]


def holder(path: Path, code: str = "") -> subprocess.Popen[str]:
    """Start a process that holds a lock until its input ends."""
    program = f"""
        import os, sys
        from pathlib import Path
        {code}
        from ccx.store.locks import lock
        with lock(Path(sys.argv[1])):
            print("held", flush=True)
            sys.stdin.read()
    """
    arguments = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(path)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def without_flock(number: int) -> str:
    return f"import fcntl; fcntl.flock = lambda *_: (_ for _ in ()).throw(OSError({number}, 'no locks'))"


def refusing(number: int) -> Callable[..., None]:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


@pytest.mark.parametrize("number", [0, *ERRORS])
def test_one_process_at_a_time(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    code = without_flock(number) if number else ""
    if number:
        monkeypatch.setattr(fcntl, "flock", refusing(number))
    path, calls = tmp_path / "lock", []
    process = holder(path, code)
    with pytest.raises(StoreError, match="busy"), lock(path, held=BUSY):
        pass
    held = lock(path, waiting=lambda: (calls.append(1), end(process)))
    with held, pytest.raises(StoreError, match="busy"), lock(path, held=BUSY):
        pass
    assert calls == [1]
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [0, *ERRORS])
def test_a_killed_process_holds_nothing(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    code = without_flock(number) if number else ""
    if number:
        monkeypatch.setattr(fcntl, "flock", refusing(number))
    process = holder(tmp_path / "lock", code)
    process.kill()
    end(process)
    assert names(tmp_path) == ["lock.soft" if number else "lock"]
    with lock(tmp_path / "lock", held=BUSY):
        pass
    assert names(tmp_path) == []


def test_a_fork_holds_nothing(tmp_path: Path) -> None:
    """Neither while its parent does, nor when that is killed; and its end does not free what the parent holds."""
    path = tmp_path / "lock"
    program = """
        import os, sys, time
        from pathlib import Path
        from ccx.store.locks import lock
        with lock(Path(sys.argv[1])):
            ended = os.fork()
            if ended:
                os.waitpid(ended, 0)
                child = os.fork()
                if not child:
                    print(os.getpid(), flush=True)  # who has begun holds nothing
                    time.sleep(600)
                sys.stdin.read()
        os._exit(0)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(StoreError, match="busy"), lock(path, held=BUSY):
            pass
        process.kill()
        process.wait()
        with lock(path, held=BUSY):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        end(process)


def test_many_processes_wait_for_each_other(tmp_path: Path) -> None:
    """The file is removed by each, and made by the next: none of them ever holds one that has no name."""
    program = """
        import sys
        from pathlib import Path
        from ccx.store.locks import lock
        folder = Path(sys.argv[1])
        for _ in range(40):
            with lock(folder / "lock"):
                n = int((folder / "n").read_text())
                (folder / "n").write_text(str(n + 1))
    """
    (tmp_path / "n").write_text("0")
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    processes = [subprocess.Popen(arguments) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert (tmp_path / "n").read_text() == "160"
    assert names(tmp_path) == ["n"]


def test_shared_folders(tmp_path: Path) -> None:
    folder, calls = tmp_path / "a" / "b", []
    with locked_folder(folder) as path:
        assert path == folder
        with pytest.raises(StoreError, match="busy"), locked_folder(folder, held=BUSY):
            pass
    process = holder(folder / ".lock")
    with locked_folder(folder, waiting=lambda path: (calls.append(path), end(process))):
        pass
    assert calls == [folder]
    assert names(folder) == []
    (tmp_path / "f").touch()
    with pytest.raises(StoreError, match=r"/f: cannot make this folder"), locked_folder(tmp_path / "f"):
        pass
