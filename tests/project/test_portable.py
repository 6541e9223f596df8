"""What not every system has: ccx is imported, explains and stores without it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HIDE = """
    import builtins, importlib.abc, io, os, sys

    class Hidden(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name in hidden:
                raise ModuleNotFoundError(f"no module named {name}", name=name)

    def without_proc(function):
        def refusing(path, *args, **keywords):
            if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith("/proc"):
                raise FileNotFoundError(2, "no such file", path)
            return function(path, *args, **keywords)
        return refusing

    hidden = set(sys.argv[1].split())
    sys.meta_path.insert(0, Hidden())
    for name in hidden:
        sys.modules.pop(name, None)
        if hasattr(os, name):
            delattr(os, name)
    if "/proc" in hidden:
        for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "listdir")):
            setattr(module, name, without_proc(getattr(module, name)))
"""
USE = """
    from pathlib import Path
    import numpy as np
    import ccx
    from ccx.datasets import Folder
    from ccx.memory import available_bytes

    folder = Path(sys.argv[2])
    rng = np.random.default_rng(0)
    masks = rng.random((4, 6, 5, 5)) < 0.5
    activations = rng.random((6, 2, 5, 5), np.float32)
    found = ccx.explain(activations, masks, clusters=2, progress=False, out=folder / "run")
    assert ccx.explain(activations, masks, clusters=2, progress=False, out=folder / "run") == found
    assert ccx.explain(activations, masks, clusters=2, progress=False) == found
    found.save(folder / "found.json")
    found.save(folder / "found.json")
    assert ccx.load(folder / "found.json") == found
    concepts = ccx.Concepts.from_masks(masks)
    concepts.save(folder / "c.ccx")
    assert ccx.Concepts.load(folder / "c.ccx").content_hash == concepts.content_hash
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
        for i in range(3):
            PIL.Image.fromarray(np.full((4, 4), i, np.uint8)).save(folder / kind / f"{i}.png")
    data = Folder(folder / "images", folder / "labels", names=["a", "b"])
    built = data.concepts(out=folder / "b.ccx", progress=False)
    assert built.names == ("a", "b")
    assert available_bytes() is None or available_bytes() > 0
    assert not [path for path in folder.rglob("*") if path.name.endswith((".lock", ".soft", ".tmp", ".parts"))]
"""
WINDOWS = "O_CLOEXEC O_DIRECTORY O_NOCTTY fchmod pwrite sysconf sync"  # what os lacks there, and Python does not need
MISSING = ["fcntl", "resource", "/proc", "sched_getaffinity", "fork", WINDOWS]


@pytest.mark.parametrize("missing", [*MISSING, " ".join(MISSING)])
def test_ccx_works_without(missing: str, tmp_path: Path) -> None:
    program = textwrap.dedent(HIDE) + "import PIL.Image, PIL.PngImagePlugin\n" + textwrap.dedent(USE)
    command = [sys.executable, "-W", "error", "-c", program, missing, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
