"""Every score: its values and ranks, and the searches that maximise it against brute force on unpacked booleans."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccx
from ccx.concepts import Concepts
from ccx.kernels import bitmap_histogram, pack
from ccx.scores import SCORES, SLACK
from ccx.search import SearchSettings, beam_search, optimal_search
from tests.optimal_oracle import Best, every_formula, problems
from tests.scores_oracle import CUSTOM, EVERY, MEASURES, best_by, measure_of, rank, score_of, scoring_of

SEEDS = st.integers(0, 2**32 - 1)
PENALTIES = st.sampled_from([1.0, 1.0, 0.95, 0.5])


@st.composite
def hard_problems(draw, max_concepts=6):
    """Masks bool[C, P] and a bitmap bool[P]: disjoint, overlapping, nested, copied, empty, full, planted formulas."""
    rng = np.random.default_rng(draw(SEEDS))
    n_concepts = draw(st.integers(1, max_concepts))
    n_cells = draw(st.sampled_from([1, 4, 5, 20, 63, 64, 65, 200]))
    masks, bitmap = problems(rng, n_concepts, n_cells)
    special = draw(st.sampled_from(["none"] * 6 + ["empty", "full", "bitmap", "everything", "nothing", "few cells"]))
    if special == "empty":
        masks[0] = False
    elif special == "full":
        masks[0] = True
    elif special == "bitmap":
        masks[0] = bitmap
    elif special == "everything":
        bitmap[:] = True
    elif special == "nothing":
        bitmap[:] = False
    elif special == "few cells":
        bitmap = rng.random(n_cells) < 1.5 / n_cells
    return masks, bitmap


def search_of(masks, bitmap, search, **options):
    concepts = Concepts.from_masks(masks.reshape(len(masks), 1, 1, -1))
    (counts,) = bitmap_histogram(pack(bitmap.reshape(1, 1, -1)), concepts.atoms)
    result = search(concepts, counts, SearchSettings(**options), threads=1)
    return [Best(one.concepts, one.operators, one.intersection, one.union) for one in result.found]


@pytest.mark.parametrize("name", EVERY)
@given(
    problem=hard_problems(),
    length=st.integers(1, 3),
    top=st.sampled_from([1, 1, 2, 7]),
    penalty=PENALTIES,
    beam=st.integers(1, 4),
)
def test_the_optimum_equals_brute_force(name, problem, length, top, penalty, beam):
    masks, bitmap = problem
    wanted = best_by(every_formula(masks, bitmap, length), name, int(bitmap.sum()), bitmap.size, top, penalty)
    options = {"scoring": scoring_of(name), "length": length, "top": top, "length_penalty": penalty, "beam": beam}
    assert search_of(masks, bitmap, optimal_search, **options) == wanted
