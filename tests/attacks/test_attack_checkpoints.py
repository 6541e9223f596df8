"""Attacks on the reader of checkpoints: files made and mutated, of every format, and programs of no library."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccx.models import read_checkpoint
from ccx.models.checkpoints import _behind_prefix
from tests.support.fuzzing import attack, attempts

with contextlib.suppress(ImportError):
    import torch  # before the clock of the first input runs

KINDS = ("zip", "legacy", "safetensors", "program", "archive")
_CACHE: dict[str, bytes] = {}


@pytest.mark.needs("torch")
@pytest.mark.states(
    "Checkpoints", "damaged and hostile files", "refused", "in bounded time and memory; nothing in them is run"
)
def test_checkpoints_made_and_mutated():
    attack(attempt, attempts(nightly=2_000, quick=60)).check("read", "refused")


def attempt(rng: np.random.Generator, folder: Path) -> str:
    path = folder / "file"
    kind = KINDS[rng.integers(len(KINDS))]
    content = CONTENTS[kind](rng)
    path.write_bytes(content if kind == "program" and rng.random() < 0.5 else mutated(rng, content))
    found = read_checkpoint(path, key=None if rng.random() < 0.8 else "model")
    sizes = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found.values()}
    assert sum(sizes.values()) <= path.stat().st_size
    _behind_prefix(found, {"weight": None, "0.bias": None, "fc.weight": None}, path)
    return "read"


def saved(rng: np.random.Generator, *, legacy: bool) -> bytes:
    number = int(rng.integers(6))
    name = f"{number} {legacy}"
    if name not in _CACHE:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        state = model.state_dict()
        value = (
            state,
            {"state_dict": {f"module.{key}": one for key, one in state.items()}, "epoch": 3, "at": np.float64(0.5)},
            {"model": state, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: {"step": 1}}}},
            {"state_dict": state, "state_dict_ema": dict(state)},
            model,
            {"a": torch.arange(100)[::3], "b": torch.ones(1).expand(1), "c": torch.zeros(5, dtype=torch.bfloat16)},
        )[number]
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
        _CACHE[name] = buffer.getvalue()
    return _CACHE[name]


def safetensors(rng: np.random.Generator) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if rng.random() < 0.5 else {}
    end = 0
    for name in ("fc.weight", "fc.bias", "module.x")[: rng.integers(4)]:
        kind, size = (("F32", 4), ("BF16", 2), ("I64", 8), ("BOOL", 1), ("F128", 16))[rng.integers(5)]
        shape = [int(one) for one in rng.integers(0, 5, rng.integers(4))]
        if rng.random() < 0.1:
            shape += [int(rng.choice([-1, 1 << 40, 1 << 62]))]
        begin, end = end, end + int(np.prod(shape, dtype=object)) * size
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    n_header = len(text) if rng.random() < 0.8 else int(rng.choice([0, 1, 1 << 20, 1 << 62]))
    return n_header.to_bytes(8, "little") + text + bytes(max(0, min(end, 1 << 12)))


def program(rng: np.random.Generator) -> bytes:
    """Return a zip archive of torch with instructions at random, or such that grow what they hold."""
    name = f"program {rng.integers(6)}"
    n = int(rng.choice([10, 1_000, 100_000]))
    pair = b"(h\x00h\x00"
    body = {
        "program 0": b"".join(PARTS[rng.integers(len(PARTS))] for _ in range(rng.integers(1, 400))),
        "program 1": b")" + b"\x85" * n + b"q\x00}h\x00Ns",  # nested, as a key
        "program 2": b"]q\x00" + pair + b"e" + b"q\x00]q\x00(h\x00h\x00e" * min(n, 1_000),
        "program 3": b"}q\x00" + b"(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u" * min(n, 1_000),  # inside itself
        "program 4": b"X" + (n * 3).to_bytes(4, "little") + b"a" * (n * 3) + b"q\x00" + b"h\x00h\x00\x93" * min(n, 9),
        "program 5": b"}(" + b"".join(_collides(k) for k in range(min(n, 30_000))) + b"u",
    }[name]  # fmt: skip
    return zipped(b"\x80\x02" + body + b".")


def _collides(k: int) -> bytes:
    """Return instructions for a key whose hash is 0, and a value."""
    return b"\x8a\x0a" + (k * ((1 << 61) - 1)).to_bytes(10, "little") + b"N"


PARTS = (
    *(bytes([one]) for one in b"N)]}(.02aesutRbQ\x85\x86\x87\x81\x93\x94\x88\x89\x8f\x90\x91"),
    *(b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"r\xff\xff\xff\x7f", b"K\x07", b"M\x10\x00", b"J\xff\xff\xff\xff"),
    *(b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"X\x03\x00\x00\x00cpu"),
    *(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x3f", b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f"),
    *(b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"),
    *(b"ctorch._utils\n_rebuild_parameter\n", b"ctorch.nn.modules.container\nSequential\n", b"cnumpy\ndtype\n"),
    b"cos\nsystem\n",
)


def zipped(pickle: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/data/0", bytes(64))
    return buffer.getvalue()


def archive(rng: np.random.Generator) -> bytes:
    """Return a zip archive of odd members: compressed, twice, missing, large when inflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(rng, legacy=False))) as whole:
        entries = [(name, whole.read(name)) for name in whole.namelist()]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED) as changed:
        for name, content in entries:
            if rng.random() < 0.05:
                continue
            text = content if rng.random() < 0.9 else bytes(int(rng.choice([0, 1, 1 << 10, 1 << 22])))
            changed.writestr(name if rng.random() < 0.95 else name.replace("data", "Data"), text)
        if rng.random() < 0.2:
            changed.writestr("archive/constants.pkl", b"")
    return buffer.getvalue()


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    """Return a file with some of its bytes changed, cut, doubled or put in; sometimes as it is."""
    changed = bytearray(content)
    for _ in range(rng.integers(0, 4)):
        way, where = rng.integers(6), int(rng.integers(max(len(changed), 1)))
        many = int(rng.integers(1, 200))
        if way <= 2 and changed:
            changed[where] = rng.integers(256)
        elif way == 3:
            del changed[where : where + many]
        elif way == 4:
            changed[where:where] = changed[where : where + many]
        else:
            changed[where : where + 8] = int(rng.choice([0, 1, (1 << 31) - 1, 1 << 32, (1 << 63) - 1])).to_bytes(
                8, "little"
            )
    return bytes(changed)


CONTENTS = {
    "zip": lambda rng: saved(rng, legacy=False),
    "legacy": lambda rng: saved(rng, legacy=True),
    "safetensors": safetensors,
    "program": program,
    "archive": archive,
}
