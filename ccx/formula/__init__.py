"""Logical formulas over named concepts: build, print, parse, compare, simplify.

A formula is an immutable tree of `Concept`, `Not`, `And` and `Or`. Its leaves carry names only; ids belong
to the concepts of a data set. ``str`` writes every binary node in parentheses, as in
``((sky OR tree) AND NOT road)``, and `parse` is the exact inverse for any names.

The formulas that ccx searches are *left-deep*: ``((a op b) op c) ...`` with the three operators of
`Operator`. With distinct concepts they have a canonical form, so logical identity is a comparison of two
short sequences, whatever the length. Arbitrary trees are compared by truth tables and, with many concepts,
by a SAT solver.

Nothing here recurses: a formula may be as deep as memory allows.
"""

from ccx.formula.logic import equivalent, simplify
from ccx.formula.tree import And, Concept, Formula, Not, Or, Order, canonical_ids, left_deep, parse, tie_key
from ccx.operators import Operator

__all__ = [
    "And",
    "Concept",
    "Formula",
    "Not",
    "Operator",
    "Or",
    "Order",
    "canonical_ids",
    "equivalent",
    "left_deep",
    "parse",
    "simplify",
    "tie_key",
]
