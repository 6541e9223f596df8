"""Problems for beam searches, and what the oracle finds in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import ccx
from tests.reference.beam_oracle import Candidate, Problem

KINDS = {"random": 6, "sparse": 2, "part": 2, "union": 2, "rest": 2, "block": 4, "copy": 1, "empty": 1, "full": 1}


BITMAPS = {"formula": 8, "random": 5, "exact": 3, "sparse": 2, "concept": 1, "full": 1, "empty": 1}


GRIDS = ((1, 1), (2, 3), (1, 63), (8, 8), (5, 13))


@dataclass(frozen=True, eq=False)
class Case:
    """Concepts bool[C, N, H, W], a bitmap bool[N, H, W] and which cells are valid."""

    masks: NDArray[np.bool_]
    bitmap: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    def problem(self, penalty: float = 1.0) -> Problem:
        return Problem(self.masks[:, self.valid], self.bitmap[self.valid], penalty)

    def concepts(self, **options: Any) -> ccx.Concepts:
        # Names in the other order than ids: whatever ranks by name is found out.
        names = [f"{9 - c} of {len(self.masks)}" for c in range(len(self.masks))]
        return ccx.Concepts.from_masks(self.masks, names, valid=self.valid, **options)


@st.composite
def cases(draw: st.DrawFn, max_concepts: int = 8) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_concepts = draw(st.sampled_from(range(max_concepts, 0, -1)))
    kinds = rng.choice(list(KINDS), n_concepts, p=np.array(list(KINDS.values())) / sum(KINDS.values()))
    shape = (draw(st.integers(1, 3)), *GRIDS[rng.integers(len(GRIDS))])
    bitmap_kind = rng.choice(list(BITMAPS), p=np.array(list(BITMAPS.values())) / sum(BITMAPS.values()))
    valid_share = rng.choice((1.0, 0.8, 0.0), p=(0.5, 0.47, 0.03))
    return planted(list(kinds), shape, bitmap_kind, valid_share, rng)


def planted(
    kinds: Sequence[str], shape: tuple[int, ...], bitmap_kind: str, valid_share: float, rng: np.random.Generator
) -> Case:
    """Make concepts of these kinds; "part", "union", "rest" and "copy" refer to those before."""
    masks = np.zeros((len(kinds), *shape), np.bool_)
    for c, kind in enumerate(kinds):
        noise = rng.random(shape)
        before = masks[rng.integers(0, c)] if c else noise < 0.5
        other = masks[rng.integers(0, c)] if c else noise < 0.3
        masks[c] = {
            "random": noise < 0.5,
            "sparse": noise < 0.1,
            "empty": np.zeros(shape, np.bool_),
            "full": np.ones(shape, np.bool_),
            "copy": before,
            "part": before & (noise < 0.5),
            "union": before | other,
            "rest": ~masks[:c].any(axis=0),
            "block": np.broadcast_to(np.arange(shape[-1]) % len(kinds) == c, shape),
        }[kind]
    noise = rng.random(shape)
    first, *others = rng.permutation(masks)[: rng.integers(1, 7)]
    exact = first
    for other in others:
        exact = (exact | other, exact | other, exact & other, exact & ~other)[rng.integers(4)]
    bitmap = {
        "random": noise < 0.4,
        "sparse": noise < 0.05,
        "formula": exact ^ (noise < 0.03),
        "exact": exact,
        "concept": first,
        "empty": np.zeros(shape, np.bool_),
        "full": np.ones(shape, np.bool_),
    }[bitmap_kind]
    return Case(masks, bitmap, valid=rng.random(shape) < valid_share)


def found_of(explanation: ccx.Explanation, concepts: ccx.Concepts) -> list[tuple[Any, ...]]:
    """List (concepts, operators, intersection, union) of the formula and its alternatives."""
    if explanation.formula is None:
        assert (explanation.iou, explanation.intersection, explanation.union) == (0.0, 0, 0)
        assert explanation.alternatives == ()
        return []
    listed = []
    for one in (explanation, *explanation.alternatives):
        assert one.formula is not None
        names, operators = one.formula.left_deep_parts() or ((), ())
        listed.append((tuple(map(concepts.index, names)), tuple(map(int, operators)), one.intersection, one.union))
        assert one.iou == one.intersection / one.union
    return listed


def expected_of(candidates: Iterable[Candidate]) -> list[tuple[Any, ...]]:
    return [(*one.canonical, one.intersection, one.union) for one in candidates]
