"""Activations around the smallest numbers of float32."""

from __future__ import annotations

import numpy as np

LEAST, NORMAL = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).smallest_normal)


VALUES = [0.0, -0.0, LEAST, 2 * LEAST, -LEAST, -3 * LEAST, 1e-40, -1e-40, NORMAL, -NORMAL, 3 * NORMAL, 0.5, -2.0]


RANGES = [
    (0.0, np.inf),
    (-0.0, np.inf),
    (-np.inf, 0.0),
    (-np.inf, -0.0),
    (0.0, LEAST),  # nothing lies between
    (0.0, 2 * LEAST),
    (-LEAST, LEAST),  # the zeros alone
    (LEAST, NORMAL),
    (LEAST / 4, 1e-40),  # the lower end is no float32
    (-NORMAL, -LEAST / 4),
    (-1e-40, 1e-40),
    (NORMAL, 4.0),
]


def some_maps(*shape, dtype=np.float32):
    return np.random.default_rng(sum(shape)).choice(np.array(VALUES, dtype), shape)
