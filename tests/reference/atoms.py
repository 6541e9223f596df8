"""Atoms as Python sets, and what is counted by them on one column of booleans per atom.

The *set of a cell* is a frozenset of concept indices from 0, or None where the cell is not valid.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sets_of_labels(labels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.object_]:
    """Ids ``int[N, L, P]``, 0 = none, of any layers, repeated or not -> the set of each cell, ``[N, P]``."""
    sets = np.empty((labels.shape[0], labels.shape[2]), np.object_)
    for n, p in np.ndindex(sets.shape):
        if valid is None or valid[n, p]:
            sets[n, p] = frozenset(int(label) - 1 for label in labels[n, :, p] if label > 0)
    return sets


def sets_of_masks(masks: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> NDArray[np.object_]:
    """``bool[N, C, P]`` -> the set of each cell, ``[N, P]``."""
    sets = np.empty((masks.shape[0], masks.shape[2]), np.object_)
    for n, p in np.ndindex(sets.shape):
        if valid is None or valid[n, p]:
            sets[n, p] = frozenset(np.flatnonzero(masks[n, :, p]).tolist())
    return sets


def atoms_of(sets: NDArray[np.object_]) -> dict[frozenset[int], int]:
    """Return the atoms in the order in which samples and cells first meet them, with their numbers of cells."""
    return dict(Counter(one for one in sets.ravel() if one is not None))


def membership(found: list[frozenset[int]], n_concepts: int) -> NDArray[np.bool_]:
    """Return whether each atom holds each concept: ``bool[C, G]``."""
    member = np.zeros((n_concepts, len(found)), np.bool_)
    for g, concepts in enumerate(found):
        member[list(concepts), g] = True
    return member


def concept_masks(sets: NDArray[np.object_], n_concepts: int) -> NDArray[np.bool_]:
    """Return the cells of each concept: ``[N, P] -> bool[N, C, P]``."""
    masks = np.zeros((sets.shape[0], n_concepts, sets.shape[1]), np.bool_)
    for n, p in np.ndindex(sets.shape):
        masks[n, list(sets[n, p] or ()), p] = True
    return masks


def concept_counts(member: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """``bool[C, G], int64[..., G] -> int64[..., C]``."""
    return weights @ member.T.astype(np.int64)


def pair_counts(member: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """``bool[C, G], int64[G] -> int64[C, C]``."""
    ones = member.astype(np.int64)
    return (ones * weights) @ ones.T
