"""Answers are recounted from the cells, whatever was asked for: no row contradicts them, or itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ccx
from tests.reference.answers_oracle import GUIDED, Asked, recount
from tests.reference.optimal_oracle import problems
from tests.reference.scores_oracle import EVERY, scoring_of
from tests.support.fuzzing import attack, attempts

SHAPE = (4, 3, 4)  # samples, rows, columns


def attempt(rng: np.random.Generator, folder: Path) -> str:
    """Ask one question with random options, and recount the answer."""
    n_concepts = int(rng.integers(1, 6))
    masks, bitmap = problems(rng, n_concepts, int(np.prod(SHAPE)))
    masks = masks.reshape(n_concepts, *SHAPE)
    valid = rng.random(SHAPE) < rng.choice([1.0, 1.0, 0.8, 0.0], p=[0.5, 0.2, 0.28, 0.02])
    names = [f"c{9 - number}" for number in range(n_concepts)]
    concepts = ccx.Concepts.from_masks(masks, names, valid=valid)
    options = some_options(rng, names)
    if rng.random() < 0.7:
        others = rng.random((2, *SHAPE)) < np.array([0.3, 0.0]).reshape(2, 1, 1, 1)
        bitmaps = np.concatenate([bitmap.reshape(1, *SHAPE), others])
        found = ccx.explain_bitmaps(bitmaps, concepts, **options)
    else:
        maps = rng.integers(-2, 3, (SHAPE[0], 4, *SHAPE[1:])).astype(np.float32)
        maps[:, 0], maps[:, 1] = 0, 3  # one unit is silent, one constant
        maps[:, 2] += 3 * bitmap.reshape(SHAPE)
        ranges = {"ranges": [(0.5, np.inf), (-np.inf, 0.0), (9.0, 10.0)]} if rng.random() < 0.5 else {}
        found = ccx.explain(maps, concepts, clusters=int(rng.integers(1, 3)), quantile=0.3, **ranges, **options)
        bitmaps = np.stack([
            np.zeros(SHAPE, bool) if row.range is None else between(maps[:, row.unit], *row.range) for row in found
        ])  # fmt: skip
    if rng.random() < 0.2:
        found.save(folder / "found.json")
        found = ccx.load(folder / "found.json")
    recount(found, Asked(masks, valid, bitmaps, names, options))
    return "proven" if found[0].optimal else "explained" if found[0].formula else str(found[0].status)


def between(maps: Any, lower: float, upper: float) -> Any:
    return (maps > lower) & (maps < upper)


def some_options(rng: np.random.Generator, names: list[str]) -> dict[str, Any]:
    """Every option of a search, most of them as they are by default."""

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    search = one_of("beam", "optimal", "optimal", *GUIDED)
    options = {
        "search": search,
        "length": one_of(1, 2, 3, 3, 4),
        "beam": one_of(1, 2, 5),
        "top": one_of(1, 1, 2, 7),
        "length_penalty": one_of(1.0, 1.0, 0.9, 0.5),
        "min_iou": one_of(0.0, 0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0),
        "threads": one_of(1, 2),
    }
    if search in GUIDED:
        options["published"] = one_of(False, False, True)
        if options["published"]:
            options["length_penalty"] = 1.0
    else:
        options["scoring"] = scoring_of(one_of("iou", *EVERY))
    if rng.random() < 0.3:
        options["candidates"] = one_of(1, 2, len(names), 99)
    if rng.random() < 0.2:
        options["only"] = sorted(rng.choice(names, int(rng.integers(1, len(names) + 1)), replace=False).tolist())
    if search == "optimal" and rng.random() < 0.4:
        options |= one_of({"evaluation_limit": int(rng.integers(0, 300))}, {"time_limit": one_of(0, 1e-3, 60)})
    if rng.random() < 0.3:
        options |= one_of(
            {"fit_samples": [0, 2]}, {"fit_samples": [1, 2], "test_samples": [3]}, {"test_samples": np.arange(4) < 2}
        )
    if rng.random() < 0.3:
        options |= {
            "permutations": one_of(1, 3),
            "seed": one_of(0, 7),
            "groups": one_of(None, [0, 0, 1, 1], list("aaaa")),
        }
    return options


def test_answers_are_what_the_cells_say():
    attack(attempt, attempts(nightly=10_000, quick=100)).check("proven", "explained", "refused", "below_min_iou")
