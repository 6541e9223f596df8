"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst
from numpy.typing import NDArray

from ccx.kernels import AtomBuilder, Atoms
from tests import reference

THREADS = st.sampled_from([1, 2, 3])
# 1, 63, 64, 65 cells and more, H != W: rows and images straddle words
GRIDS = st.sampled_from([(1, 1), (1, 2), (2, 1), (7, 9), (9, 7), (8, 8), (5, 13), (13, 5), (1, 65), (63, 1), (11, 12)])
SOURCES = st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 1), (4, 3), (7, 9), (8, 8), (1, 65), (14, 15)])
# the least and the largest of normal and denormal numbers, both zeros, neighbours of 1
_SPECIAL = [0.0, 1e-45, 7e-43, 1.1754942e-38, 1.1754944e-38, 0.1, 1 / 3, 0.99999994, 1.0, 1.0000001, 6.5e4, 3e38]
_SPECIAL += [float(np.finfo(np.float32).max), math.inf]
SPECIAL = [float(np.float32(sign * value)) for value in _SPECIAL for sign in (1, -1)]
NUMBERS = st.one_of(
    st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False), st.integers(-3, 3).map(float), st.just(math.nan)
)


class Annotated(NamedTuple):
    """Atoms, and the same by the oracle."""

    atoms: Atoms
    sets: NDArray[np.object_]  # the set of each cell, [N, P]; None = void
    found: list[frozenset[int]]  # the atoms in order
    cells: list[int]  # their numbers of cells


@st.composite
def label_maps(draw, shape=None, n_samples=None):
    """Ids int[N, L, P] of few distinct values, bool[N, P] or None, and the number of concepts."""
    height, width = draw(GRIDS) if shape is None else shape
    n = draw(st.integers(0, 4)) if n_samples is None else n_samples
    n_layers, n_concepts = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 7])), draw(st.sampled_from([0, 1, 2, 5, 70, 65_535]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    palette = np.array([0, *rng.integers(1, n_concepts + 1, 4), n_concepts]) if n_concepts else np.zeros(1, np.int64)
    runs = draw(st.sampled_from([1, 4, height * width]))  # neighbours often carry the same
    labels = np.repeat(rng.choice(palette, (n, n_layers, height * width)), runs, axis=2)[..., : height * width]
    dtype = draw(st.sampled_from([np.uint16, np.int32, np.int64, np.uint64, ">i4"]))
    return labels.astype(dtype), draw(flags(n, height * width)), n_concepts, (height, width)


@st.composite
def flags(draw, n_samples, n_cells):
    """None, or bool[N, P]: all, none, or some cells, perhaps with a void sample."""
    share = draw(st.sampled_from([None, 0.0, 0.6, 1.0]))
    if share is None:
        return None
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    valid = rng.random((n_samples, n_cells)) < share
    if n_samples and draw(st.booleans()):
        valid[rng.integers(n_samples)] = False
    return valid


@st.composite
def annotated(draw, shape=None, n_samples=None):
    """Atoms of `label_maps`, by `AtomBuilder` and by the oracle."""
    labels, valid, n_concepts, grid = draw(label_maps(shape, n_samples))
    builder = AtomBuilder(grid, n_concepts, threads=draw(THREADS))
    builder.add_label_maps(labels, valid)
    sets = reference.sets_of_labels(labels, valid)
    found = reference.atoms_of(sets)
    return Annotated(builder.finish(), sets, list(found), list(found.values()))


_LEADING = st.sampled_from([(), (1,), (3,), (2, 2), (0,)])


@st.composite
def activation_maps(draw, leading=_LEADING):
    """Float[..., h, w] of numbers of one magnitude, of all magnitudes, or constant; float16 and float64 too."""
    shape = (*draw(leading), *draw(SOURCES))
    dtype = draw(st.sampled_from([np.float32, np.float32, np.float32, np.float16, np.float64]))
    kind = draw(st.sampled_from(["any", "constant", "close", "smooth"]))
    if kind == "any":
        with np.errstate(over="ignore"):
            return draw(nst.arrays(np.float32, shape, elements=NUMBERS, fill=NUMBERS)).astype(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = np.float32(draw(st.sampled_from([1.0, 1e-45, 1e-42, 1e-38, 3e-38, 1e-20, 7.0, 6e4, 1e30, 1.7e38])))
    if kind == "constant":
        maps = np.full(shape, rng.uniform(0.5, 2) * scale)
    elif kind == "close":  # a few units in the last place apart: mixed signs make the sums cancel
        maps = rng.choice([-1, 1], shape) * (1 + rng.integers(-4, 5, shape) * 2.0**-23) * scale
    else:
        maps = rng.standard_normal(shape) * scale
    with np.errstate(over="ignore"):
        return maps.astype(np.float32).astype(dtype)


@st.composite
def limits_near(draw, values: NDArray[np.float32], n_ranges: int) -> NDArray[np.float64]:
    """Open ranges float64[n_ranges, 2] whose ends are cell values, their neighbours, or anything else."""
    finite = np.unique(values[np.isfinite(values)])
    picks = st.sampled_from(finite.tolist()) if finite.size else st.just(0.0)
    # up to 8 float32 steps from a value, or between two float32 numbers, or 1 float64 step off
    near = st.builds(_stepped, picks, st.integers(-8, 8), st.sampled_from([0, 0, -1, 1, 2**27]))
    far = st.sampled_from([*SPECIAL, 1e300, -1e300, 1e-300, -1e-300, 0.1])
    ends = st.one_of(near, near, near, far)
    pairs = []
    for _ in range(n_ranges):
        lower, upper = sorted((draw(ends), draw(ends)))
        pairs.append((lower, upper) if lower < upper else _opened(lower))
    return np.array(pairs, np.float64).reshape(n_ranges, 2)


def float32_step(value: float, n_steps: int) -> np.float32:
    """Return the float32 `n_steps` above (or below) `value`."""
    stepped = np.float32(value)
    with np.errstate(over="ignore"):  # infinity follows the largest
        for _ in range(abs(n_steps)):
            stepped = np.nextafter(stepped, np.float32(math.copysign(math.inf, n_steps)))
    return stepped


def _stepped(value: float, steps32: int, steps64: int) -> float:
    start = float(float32_step(value, steps32))
    return start + steps64 * math.ulp(start) if math.isfinite(start) else start


def _opened(value: float) -> tuple[float, float]:
    """Return the narrowest range that starts at `value`, or ends there."""
    above = math.nextafter(value, math.inf)
    return (value, above) if above > value else (math.nextafter(value, -math.inf), value)


def formula_operands(data, n_bits, seed, density):
    """Return packed rows, operands int64[length, k] and operators uint8[length - 1] of a formula."""
    rng = np.random.default_rng(seed)
    n_rows, n_out = data.draw(st.sampled_from([0, 1, 5])), data.draw(st.sampled_from([0, 1, 3, 40]))
    length = data.draw(st.integers(1, 4))
    packed = reference.pack(rng.random((n_rows, n_bits)) < density)
    return packed, rng.integers(-2, n_rows, (length, n_out)), rng.integers(0, 3, length - 1).astype(np.uint8)
