"""Logical identity and simplification of arbitrary formulas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from ccx.checks import require_kind
from ccx.errors import InputError, require_library
from ccx.formula.tree import And, Concept, Formula, Not, Or, Order, distinct_parts, ids_in_order

# 2**20 rows are 128 KiB a table.
_TABLE_CONCEPTS = 20
# Espresso takes 0.1 to 0.2 s for the 2,048 rows of the parity or of a random function of that many concepts.
_MINTERM_CONCEPTS = 12
_MAX_TERMS = 4096

# A conjunction of literals: bit i of the first integer is concept i, of the second NOT concept i.
_Term = tuple[int, int]


def equivalent(a: Formula, b: Formula) -> bool:
    """Whether two formulas are true for the same sets of concepts: exact, for any trees.

    Left-deep formulas of distinct concepts are compared by their canonical forms, at any length; other
    formulas by truth tables up to 20 concepts together, and beyond that by PicoSAT (through pyeda), which
    looks for a set of concepts that tells them apart (as with any SAT solver, its worst case is exponential).

    Raises
    ------
    MissingExtraError
        If the SAT solver is needed and the extra ``logic`` is not installed.

    """
    for argument, formula in (("a", a), ("b", b)):
        require_kind(argument, formula, Formula, "a formula", "see ccx.parse")
    if distinct_parts(a) and distinct_parts(b):
        return a.canonical() == b.canonical()
    concepts = tuple(dict.fromkeys(a.concepts + b.concepts))
    if len(concepts) <= _TABLE_CONCEPTS:
        rows = _truth_rows(concepts)
        return a.evaluate(rows.__getitem__) == b.evaluate(rows.__getitem__)
    return not _can_differ(a, b)


def simplify(formula: Formula, order: Order | None = None) -> Formula:
    """Return an equivalent formula in a small two-level form: an OR of ANDs of concepts and negated concepts.

    The form is espresso's (through pyeda): an irredundant OR of prime terms, nearly always with the fewest
    terms possible. Such a form can be longer than a nested one: ``((a OR b) AND c)`` becomes
    ``((a AND c) OR (b AND c))``. Each term lists its positive concepts, then its negated ones, both in
    order; shorter terms come first, then those with fewer NOTs, then in the concepts' order. So the result
    is the same in every run.

    There are no constants: with ``a`` the first concept in order, a tautology becomes ``(a OR NOT a)`` and a
    contradiction ``(a AND NOT a)``.

    Parameters
    ----------
    formula
        Any tree. Beyond 12 concepts, it and its negation may have 4,096 terms when multiplied out to an OR of
        ANDs; left-deep formulas have no more terms than concepts.
    order
        The concepts' order, as in `Formula.canonical`.

    Raises
    ------
    InputError
        If there are too many terms, or a concept that `order` lacks.
    MissingExtraError
        If the extra ``logic`` is not installed.

    """
    require_library("pyeda", "logic", "simplify()")
    from pyeda.boolalg.espresso import FTYPE, espresso, set_config  # noqa: PLC0415
    from pyeda.boolalg.minimization import CONFIG  # noqa: PLC0415

    require_kind("formula", formula, Formula, "a formula", "see ccx.parse")
    id_of = ids_in_order(formula.concepts, order)
    names = sorted(id_of, key=id_of.__getitem__)
    first = Concept(names[0])
    if len(names) <= _MINTERM_CONCEPTS:
        terms = _minterms(formula, names)
    else:
        terms = _multiplied_out(formula, names)
        _multiplied_out(Not(formula), names)  # espresso complements its input: refuse what it could not finish
    if not terms:
        return And(first, Not(first))
    # Espresso writes 1 for a negated input, 2 for a positive one, 3 for an absent one; the 1 behind is its output.
    cover = [
        (tuple(3 - (positive >> i & 1) - 2 * (negated >> i & 1) for i in range(len(names))), (1,))
        for positive, negated in sorted(terms)
    ]
    set_config(**CONFIG)  # the configuration is global in pyeda, so that another user may have changed it
    found = espresso(len(names), 1, cover, FTYPE)
    conjunctions = [
        ([i for i, value in enumerate(inputs) if value == 2], [i for i, value in enumerate(inputs) if value == 1])
        for inputs, _ in found
    ]
    if conjunctions == [([], [])]:
        return Or(first, Not(first))
    conjunctions.sort(key=lambda term: (len(term[0]) + len(term[1]), len(term[1]), term))
    return _joined(
        (
            _joined(chain((Concept(names[i]) for i in positive), (Not(Concept(names[i])) for i in negated)), And)
            for positive, negated in conjunctions
        ),
        Or,
    )


def _joined(operands: Iterable[Formula], connective: type[And | Or]) -> Formula:
    operands = iter(operands)
    formula = next(operands)
    for operand in operands:
        formula = connective(formula, operand)
    return formula


def _truth_rows(names: Sequence[str]) -> dict[str, int]:
    """Return a truth table for each concept: bit r of an integer of 2**n bits tells whether row r holds it.

    Row r holds concept i if bit i of r is set. The endless sign bits of Python's integers repeat row 0, where
    no concept is held, so that tables made by ``&``, ``|`` and ``~`` are equal exactly if their rows are.
    """
    rows = {}
    for i, name in enumerate(names):
        half = 1 << i
        row = ((1 << half) - 1) << half
        for doubled in range(i + 1, len(names)):
            row |= row << (1 << doubled)
        rows[name] = row
    return rows


def _can_differ(a: Formula, b: Formula) -> bool:
    """Whether a SAT solver finds a set of concepts for which exactly one of two formulas holds."""
    require_library("pyeda", "logic", f"comparing formulas of over {_TABLE_CONCEPTS} concepts")
    from pyeda.boolalg import picosat  # noqa: PLC0415

    # G. S. Tseitin's encoding: a variable for each concept and each connective, negation by sign.
    variables: dict[str, int] = {name: i for i, name in enumerate(dict.fromkeys(a.concepts + b.concepts), start=1)}
    clauses: list[tuple[int, ...]] = []
    n_variables = len(variables)

    def conjoin(left: int, right: int) -> int:
        nonlocal n_variables
        n_variables += 1
        clauses.extend([(-n_variables, left), (-n_variables, right), (n_variables, -left, -right)])
        return n_variables

    def disjoin(left: int, right: int) -> int:
        return -conjoin(-left, -right)

    def encode(formula: Formula) -> int:
        literal: int = formula.fold(variables.__getitem__, lambda value: -value, conjoin, disjoin)
        return literal

    value_a, value_b = encode(a), encode(b)
    clauses += [(value_a, value_b), (-value_a, -value_b)]
    return picosat.satisfy_one(n_variables, clauses) is not None


def _minterms(formula: Formula, names: Sequence[str]) -> set[_Term]:
    """Return the rows of the truth table where the formula holds, as terms of all its concepts."""
    rows = _truth_rows(names)
    table = formula.evaluate(rows.__getitem__)
    everything = (1 << len(names)) - 1
    return {(row, everything ^ row) for row in range(1 << len(names)) if table >> row & 1}


def _multiplied_out(formula: Formula, names: Sequence[str]) -> set[_Term]:
    """Return terms whose OR is the formula, by distributing AND over OR."""
    bit = {name: 1 << i for i, name in enumerate(names)}

    def check(n_terms: int) -> None:
        if n_terms > _MAX_TERMS:
            raise InputError(
                argument="formula",
                wanted=f"at most {_MINTERM_CONCEPTS} concepts, or {_MAX_TERMS} terms when multiplied out",
                got=f"{len(names)} concepts and at least {n_terms} terms",
                remedy="simplify parts of it",
            )

    def conjoin(left: set[_Term], right: set[_Term]) -> set[_Term]:
        check(len(left) * len(right))
        products = ((p | q, m | n) for p, m in left for q, n in right)
        return {(positive, negated) for positive, negated in products if not positive & negated}

    def disjoin(left: set[_Term], right: set[_Term]) -> set[_Term]:
        check(len(left) + len(right))
        return left | right

    def negate(literal: set[_Term]) -> set[_Term]:
        ((positive, negated),) = literal
        return {(negated, positive)}

    return _negations_at_leaves(formula).fold(lambda name: {(bit[name], 0)}, negate, conjoin, disjoin)


def _negations_at_leaves(formula: Formula) -> Formula:
    """Return an equivalent formula in which only concepts are negated (De Morgan)."""
    # Each node becomes the pair (itself, its negation); both share their parts, so this stays linear.
    pair: tuple[Formula, Formula] = formula.fold(
        lambda name: (Concept(name), Not(Concept(name))),
        lambda both: (both[1], both[0]),
        lambda left, right: (And(left[0], right[0]), Or(left[1], right[1])),
        lambda left, right: (Or(left[0], right[0]), And(left[1], right[1])),
    )
    return pair[0]
