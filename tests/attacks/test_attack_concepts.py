"""Hostile files of concepts: recomputed hashes, and arrays that would lead kernels astray."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

import ccx
from ccx.concepts.concepts import FILE_FORMAT
from ccx.store import content_hash, load_arrays, save_arrays
from tests.support.fuzzing import attack, attempts

EXTREMES = (0, 1, -1, 2, 255, 256, 65_535, 65_536, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63), 2**64 - 1)


def concepts_of(rng: np.random.Generator) -> ccx.Concepts:
    shape = tuple(int(n) for n in rng.integers(1, 9, 2))
    n_concepts, n_samples = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    masks = rng.random((n_concepts, n_samples, *shape)) < rng.choice([0.1, 0.5, 0.9])
    valid = rng.random((n_samples, *shape)) < 0.8 if rng.random() < 0.5 else None
    return ccx.Concepts.from_masks(masks, valid=valid)


def changed(array: Any, rng: np.random.Generator) -> Any:
    """Return the array with one fault: a value, a run of values, a length, an axis, a dtype."""
    array = array.copy()
    if array.dtype.kind not in "iu":  # changed before
        return array
    info = np.iinfo(array.dtype)
    values = [value for value in EXTREMES if info.min <= value <= info.max]
    match rng.integers(10):
        case 0 | 1 | 2 if array.size:  # values at random places
            for _ in range(rng.integers(1, 4)):
                array.flat[rng.integers(array.size)] = rng.choice(values)
        case 3 if array.size > 3:  # differences that wrap around
            at = rng.integers(array.size - 2)
            array.flat[at + 1 : at + 3] = (info.max, info.min) if rng.random() < 0.5 else (info.min, info.max)
        case 4 if array.size:  # off by one
            at = rng.integers(array.size)
            array.flat[at] = np.clip(int(array.flat[at]) + int(rng.choice([-1, 1])), info.min, info.max)
        case 5 | 6 if array.size:  # two values change places, which keeps all sums
            one, other = rng.integers(array.size, size=2)
            array.flat[[one, other]] = array.flat[[other, one]]
        case 7:
            array = array[: rng.integers(array.shape[0] + 1)] if rng.random() < 0.5 else np.concatenate([array, array])
        case 8:
            array = array.reshape(-1, 1) if array.ndim == 1 else array.reshape(-1)
        case _:
            kinds = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.bool_)
            array = array.astype(kinds[rng.integers(len(kinds))])
    return array


def hostile(rng: np.random.Generator, path: Path) -> None:
    concepts_of(rng).save(path)
    mapped, metadata = load_arrays(path, FILE_FORMAT)
    arrays = {name: array.copy() for name, array in mapped.items()}  # the file is written anew
    for _ in range(rng.integers(1, 3)):
        name = str(rng.choice(list(arrays)))
        arrays[name] = changed(arrays[name], rng)
    if rng.random() < 0.2:
        odd = [
            "[0, 0]",
            "[-1, 5]",
            "[1.0, 2]",
            "[true, 2]",
            "[3]",
            "7",
            "null",
            f"[1, {2**40}]",
            "[" * 2000,
            "nonsense",
        ]
        metadata["shape"] = str(rng.choice(odd))
    if rng.random() < 0.1:
        odd = ["[]", "[1]", '["a", "a"]', '{"a": 1}', "null", '["a"]', json.dumps([str(i) for i in range(70_000)])]
        metadata["names"] = str(rng.choice(odd))
    content: dict[str, object] = dict(arrays)
    for name in ("names", "categories", "shape"):
        try:
            content[name] = json.loads(metadata[name])
        except (ValueError, RecursionError):
            content[name] = None
    metadata["content_hash"] = content_hash(content)
    save_arrays(path, arrays, metadata, FILE_FORMAT)


def attempt(rng: np.random.Generator, folder: Path) -> str:
    path = folder / "concepts.ccx"
    hostile(rng, path)
    concepts = ccx.Concepts.load(path, verify=bool(rng.random() < 0.8))
    try:
        concepts.validate()
        end = "whole"
    except ccx.errors.InputError:
        end = "loaded, then refused"
    _ = concepts.pair_sizes, concepts.sizes, concepts.packed_rows(threads=1)
    concepts.mask(f"({concepts.names[0]} OR NOT {concepts.names[-1]})")
    concepts.subset(samples=[-1, 0], threads=1).save(folder / "again.ccx")
    bitmaps = rng.random((1, concepts.n_samples, *concepts.shape)) < 0.3
    for search in ("beam", "optimal", "mmesh"):
        ccx.explain_bitmaps(
            bitmaps, concepts, search=search, permutations=2 * (concepts.n_samples > 1), threads=1, progress=False
        )
    return end


def test_no_file_of_concepts_leads_a_kernel_astray(tmp_path):
    """By night kernels check every index, which tells more than a crash would; it takes a compilation of its own."""
    by_night = os.environ.get("CCX_HYPOTHESIS") == "nightly"
    env = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)} if by_night else {}
    report = attack(attempt, attempts(nightly=4_000, quick=60), seconds=600 if by_night else 60, env=env)
    report.check("refused", "whole")
