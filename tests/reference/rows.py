"""Packed bit rows, by way of unpacked booleans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """``bool[..., n_bits] -> uint64[..., n_words]``: bit j is worth ``2**(j % 64)`` in word ``j // 64``."""
    *lead, n_bits = bits.shape
    n_words = -(-n_bits // 64)
    words = np.zeros((*lead, n_words, 64), dtype=np.uint64)
    words.reshape(*lead, n_words * 64)[..., :n_bits] = bits
    rows: NDArray[np.uint64] = (words << np.arange(64, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64)
    return rows


def unpack(rows: NDArray[np.uint64], n_bits: int) -> NDArray[np.bool_]:
    """``uint64[..., n_words] -> bool[..., n_bits]``."""
    *lead, n_words = rows.shape
    ones = rows[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    bits: NDArray[np.bool_] = ones.reshape(*lead, n_words * 64).astype(np.bool_)
    return bits[..., :n_bits]


def formula_rows(
    rows: NDArray[np.uint64], operands: NDArray[np.int64], operators: NDArray[np.uint8], n_bits: int
) -> NDArray[np.uint64]:
    """``uint64[R, n_words], int64[length, k], uint8[length - 1] -> uint64[k, n_words]``; -1 is all ones, -2 zeros."""
    table = np.concatenate([unpack(rows, n_bits), np.zeros((1, n_bits), np.bool_), np.ones((1, n_bits), np.bool_)])
    bits = table[operands[0]]
    for operand, operator in zip(operands[1:], operators, strict=True):
        bits = (bits | table[operand], bits & table[operand], bits & ~table[operand])[operator]
    return pack(bits)


def logical_and(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Intersect ``uint64[..., n_words]``."""
    return a & b


def logical_or(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Unite ``uint64[..., n_words]``."""
    return a | b


def logical_and_not(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Subtract ``uint64[..., n_words]``."""
    return a & ~b


def popcount(rows: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``uint64[..., n_words] -> int64[...]``: the ones of each row."""
    counts: NDArray[np.int64] = unpack(rows, 64 * rows.shape[-1]).sum(axis=-1, dtype=np.int64)
    return counts


def and_popcount(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``uint64[..., n_words]`` twice ``-> int64[...]``: the ones that rows share."""
    return popcount(a & b)


def intersection_counts(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """``uint64[n, n_words], uint64[m, n_words] -> int64[n, m]``: the ones that all pairs of rows share."""
    bits_a, bits_b = (unpack(rows, 64 * rows.shape[1]).astype(np.int64) for rows in (a, b))
    return bits_a @ bits_b.T
