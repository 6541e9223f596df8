"""Names files, made and mutated: what is read is what was written, all else is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from ccx.datasets import token_concepts
from ccx.datasets.tables import named
from tests.support.fuzzing import attack, attempts

PIECES = [
    "sky", "car", "tree", "red car", "x, y", "a;b", 'so "called"', "1", "7 up", "nan", "NaN", "", " ", "木", "\u2028",
    "\x85", "\f", "\n", "\r\n", "\t", ",", ";", '"', "'", "name", "id", "sep=;", "[", "{", "\\", "null", "<NA>", "é",
    "\U0001f697",
]  # fmt: skip
IDS: list[Any] = [0, 1, 2, 3, 7, 255, 65_534, 10**12, -1, "1.0", "x", "", "9" * 5000, "1e3", " 4 ", "٣"]
HEADS = ["id", "ID", "idx", "index", "number", "class_id", ""]
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]


def attempt(rng: np.random.Generator, folder: Path) -> str:
    def pick(choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    n = int(rng.integers(0, 6))
    is_plain = rng.random() < 0.5
    names = [
        f"n{k} {pick(PIECES[:8])}" if is_plain else "".join(pick(PIECES) for _ in range(rng.integers(1, 4)))
        for k in range(n)
    ]
    ids = rng.permutation(70)[:n].tolist() if is_plain else [pick(IDS) for _ in range(n)]
    kind = pick(["txt", "csv", "tsv", "json", "tokens"])
    delimiter = pick([",", ",", ",", ";", "\t"]) if kind != "tsv" else "\t"
    has_ids = rng.random() < 0.7 and kind != "txt"
    text = _text(
        kind,
        names,
        ids if has_ids else None,
        delimiter,
        pick(["\n", "\r\n", "\r"]),
        pick(HEADS) if not is_plain else "id",
    )
    encoding = pick(ENCODINGS)
    content = text.encode(encoding, errors="replace")
    is_mutated = rng.random() < 0.4
    if is_mutated:
        content = _mutated(rng, content)
    path = folder / f"names.{'csv' if kind == 'tokens' else kind}"
    path.write_bytes(content)
    if kind == "tokens":
        found = token_concepts(path, progress=False).names
        assert all(name.strip() == name != "" and name.casefold() != "nan" for name in found)
        assert is_mutated or encoding == "latin-1" or found == tuple(dict.fromkeys(names))
        return "tokens read"
    known = named(path)
    assert len(set(known.names)) == len(known.names) == len(known.ids) == len(set(known.ids)) > 0
    assert all(name.strip() == name != "" and name.casefold() != "nan" for name in known.names)
    assert list(known.ids) == sorted(known.ids)
    assert known.ids[0] >= 0
    if is_plain and not is_mutated and encoding != "latin-1":
        pairs = zip(ids if has_ids else range(1, n + 1), names, strict=True)
        assert list(zip(known.ids, known.names, strict=True)) == sorted(pairs)
    return "read"


def _text(kind: str, names: list[str], ids: list[Any] | None, delimiter: str, end: str, head: str) -> str:
    if kind == "txt":
        return "".join(f"{name}{end}" for name in names)
    if kind == "json":
        return json.dumps(names if ids is None else dict(zip(map(str, ids), names, strict=True)), indent=len(names) % 3)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    if kind == "tokens":
        writer.writerows([["sample", "position", "concept"], *([0, k, name] for k, name in enumerate(names))])
    elif ids is None:
        writer.writerows([["name"], *([name] for name in names)])
    else:
        writer.writerows([[head, "name"], *zip(ids, names, strict=True)])
    return out.getvalue()


def _mutated(rng: np.random.Generator, content: bytes) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        at, stop = np.sort(rng.integers(0, len(content) + 1, 2)).tolist()
        match int(rng.integers(4)):
            case 0:
                content = content[:at] + content[stop:]
            case 1:
                content = content[:stop] + content[at:stop] + content[stop:]
            case 2:
                content = content[:at] + rng.bytes(int(rng.integers(1, 4))) + content[at:]
            case 3:
                content = content[:at] + PIECES[int(rng.integers(len(PIECES)))].encode() + content[at:]
    return content


def test_names_files_are_read_as_written_or_refused() -> None:
    attack(attempt, attempts(nightly=5_000, quick=100)).check("read", "tokens read", "refused")
