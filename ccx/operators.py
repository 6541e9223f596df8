"""How a left-deep formula takes in its next concept."""

from __future__ import annotations

from enum import IntEnum


class Operator(IntEnum):
    """How a left-deep formula takes in its next concept.

    The values are the tie order and the kernels' encoding (uint8).
    """

    OR = 0
    AND = 1
    AND_NOT = 2


OR, AND, AND_NOT = map(int, Operator)  # as kernels compare them
