"""The nodes of a formula, its text, and the left-deep formulas with their canonical form."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar, cast

from ccx.checks import integer, items, require_kind, texts
from ccx.errors import InputError
from ccx.formula import lexer
from ccx.operators import Operator

T = TypeVar("T")
Order = Sequence[str] | Mapping[str, int]


class Formula(ABC):
    """Base of the four kinds of node: `Concept`, `Not`, `And`, `Or`.

    Formulas are immutable, hashable, and equal when they are the same tree; for logical identity see
    `equivalent`. ``a & b``, ``a | b`` and ``~a`` build larger formulas.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def children(self) -> tuple[Formula, ...]:
        """The operands, left to right; none for a concept."""

    @property
    def length(self) -> int:
        """Number of concept leaves; a concept that occurs twice counts twice (as in the published system)."""
        return sum(1 for _ in self._names())

    @property
    def concepts(self) -> tuple[str, ...]:
        """The distinct names, in order of first appearance."""
        return tuple(dict.fromkeys(self._names()))

    def evaluate(self, leaf: Callable[[str], T]) -> T:
        """Combine ``leaf(name)`` of every leaf with ``&``, ``|`` and ``~``, left to right.

        Parameters
        ----------
        leaf
            Gives the value of a concept: a boolean array, a packed row, an integer, ... of any one type with
            the three operators. It is called once for each leaf, in order; nothing is changed in place.

        Returns
        -------
        value
            The value of the whole formula. On packed rows ``~`` also sets the padding bits: clear them after.

        """
        value: T = self.fold(leaf, operator.invert, operator.and_, operator.or_)
        return value

    def rename(self, names: Mapping[str, str]) -> Formula:
        """Return this formula with each name replaced, for instance ids by the names they stand for.

        Raises
        ------
        InputError
            If `names` lacks one of the concepts.

        """
        require_kind("names", names, Mapping, "a mapping from old to new names", 'write {"old": "new"}')
        missing = [name for name in self.concepts if name not in names]
        if missing:
            raise InputError(
                argument="names",
                wanted=f"an entry for each concept of {lexer.clip(str(self))!r}",
                got=f"none for {lexer.clip(', '.join(map(repr, missing)))}",
                remedy="add the missing entries",
            )
        return self.evaluate(lambda name: Concept(names[name]))

    def left_deep_parts(self) -> tuple[tuple[str, ...], tuple[Operator, ...]] | None:
        """Return ``(names, operators)`` such that `left_deep` rebuilds this formula; None if it has another shape."""
        names: list[str] = []
        operators: list[Operator] = []
        node: Formula = self
        while True:
            match node:
                case Concept(name):
                    return (name, *reversed(names)), tuple(reversed(operators))
                case Or(left, Concept(name)):
                    operators.append(Operator.OR)
                case And(left, Concept(name)):
                    operators.append(Operator.AND)
                case And(left, Not(Concept(name))):
                    operators.append(Operator.AND_NOT)
                case _:
                    return None
            names.append(name)
            node = left

    def canonical(self, order: Order | None = None) -> Formula:
        """Return the canonical form of a left-deep formula of distinct concepts, at any length.

        The operands are cut into maximal runs of one connective (AND and AND NOT are the same connective; the
        first concept belongs to the first run), and each run lists its positive concepts in order, then its
        negated ones. Two such formulas are logically equal if and only if their canonical forms are identical.

        Parameters
        ----------
        order
            The concepts' order: a sequence of names, or a mapping from name to id. None orders the names by
            code point. Formulas can be compared only within one order.

        Raises
        ------
        InputError
            If the formula is not left-deep, repeats a concept, or has a concept that `order` lacks.

        """
        parts = distinct_parts(self)
        if parts is None:
            raise InputError(
                argument="formula",
                wanted="a left-deep formula of distinct concepts, as in ((a OR b) AND NOT c)",
                got=repr(lexer.clip(str(self))),
                remedy="compare other formulas with ccx.formula.equivalent",
            )
        names, operators = parts
        id_of = ids_in_order(names, order)
        name_of = {i: name for name, i in id_of.items()}
        ids, canonical_operators = canonical_ids(list(id_of.values()), operators)
        return left_deep([name_of[i] for i in ids], canonical_operators)

    def __and__(self, other: object) -> And:
        return And(self, other) if isinstance(other, Formula) else NotImplemented

    def __or__(self, other: object) -> Or:
        return Or(self, other) if isinstance(other, Formula) else NotImplemented

    def __invert__(self) -> Not:
        return Not(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Formula):
            return NotImplemented
        return self is other or self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        pieces: list[str] = []
        stack: list[Formula | str] = [self]
        while stack:
            match stack.pop():
                case str(piece):
                    pieces.append(piece)
                case Concept(name):
                    pieces.append(lexer.written(name))
                case Not(operand):
                    stack += (operand, "NOT ")
                case And(left, right):
                    stack += (")", right, " AND ", left, "(")
                case Or(left, right):
                    stack += (")", right, " OR ", left, "(")
        return "".join(pieces)

    def __repr__(self) -> str:
        return f"parse({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[[str], Formula], tuple[str]]:
        # Copies and worker processes get the text: it is flat, so depth does not matter there either.
        return parse, (str(self),)

    def _postorder(self) -> Iterator[Formula]:
        """Every node after its operands, left to right."""
        # Root, right, left, read backwards.
        nodes: list[Formula] = []
        stack: list[Formula] = [self]
        while stack:
            node = stack.pop()
            nodes.append(node)
            stack += node.children
        return reversed(nodes)

    def _names(self) -> Iterator[str]:
        return (node.name for node in self._postorder() if isinstance(node, Concept))

    def _key(self) -> tuple[str | type[Formula], ...]:
        """Names and kinds in postorder: as each kind has a fixed number of operands, they determine the tree."""
        return tuple(node.name if isinstance(node, Concept) else type(node) for node in self._postorder())

    def fold(
        self,
        leaf: Callable[[str], T],
        negate: Callable[[T], T],
        conjoin: Callable[[T, T], T],
        disjoin: Callable[[T, T], T],
    ) -> T:
        """Compute a value bottom up; a left-deep formula holds no more than three values at a time."""
        values: list[T] = []
        for node in self._postorder():
            match node:
                case Concept(name):
                    values.append(leaf(name))
                case Not():
                    values.append(negate(values.pop()))
                case And():
                    values[-2:] = [conjoin(*values[-2:])]
                case Or():
                    values[-2:] = [disjoin(*values[-2:])]
        return values.pop()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Concept(Formula):
    """A leaf: the cells that carry the concept called `name`."""

    name: str

    def __post_init__(self) -> None:
        require_kind("name", self.name, str, "a str", "name concepts by strings; ids become names by str(id)")
        # NumPy's strings are a subclass with a repr of their own.
        object.__setattr__(self, "name", str(self.name))

    @property
    def children(self) -> tuple[()]:
        """No operands."""
        return ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Formula):
    """The cells outside `operand`."""

    operand: Formula

    def __post_init__(self) -> None:
        _check_operands(self)

    @property
    def children(self) -> tuple[Formula]:
        """The operand."""
        return (self.operand,)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Binary(Formula):
    left: Formula
    right: Formula

    def __post_init__(self) -> None:
        _check_operands(self)

    @property
    def children(self) -> tuple[Formula, Formula]:
        """The left and the right operand."""
        return self.left, self.right


class And(_Binary):
    """The cells in both `left` and `right`."""

    __slots__ = ()


class Or(_Binary):
    """The cells in `left`, in `right`, or in both."""

    __slots__ = ()


def _check_operands(node: Formula) -> None:
    for operand in node.children:
        remedy = "wrap a name as Concept(name), or read text with ccx.formula.parse"
        require_kind("operand", operand, Formula, "a formula", remedy)


def parse(text: str) -> Formula:
    r"""Read a formula; the exact inverse of ``str``.

    ``AND`` and ``OR`` join two formulas and stand in parentheses of their own, of which the outermost may be
    left out; ``NOT`` binds tighter than both. More parentheses do no harm, so the published system's
    ``((1 OR 2) AND (NOT 3))`` is read as well. A name is one or more words (``traffic light``, ``car#2``), or
    stands in double quotes: ``"wall (brick)"``. Names that hold parentheses, quotes, the words AND, OR or
    NOT, unprintable characters or spaces other than single ones between words need the quotes. Inside them
    ``\"``, ``\\`` and ``\u{1f600}`` (any code point in hexadecimal) are escapes.

    Raises
    ------
    InputError
        If the text is not a formula: says at which character and what was expected there.

    """
    require_kind("formula", text, str, "a str", "pass the formula as text")
    frames = [_Frame()]  # the whole text, then one for each open parenthesis
    operand: Formula | None = None  # what has been read of the last frame, once that is a formula
    for token in lexer.tokens(text):
        if operand is None:
            if token.kind == "name":
                operand = frames[-1].take(Concept(token.text))
            elif token.kind == "NOT":
                frames[-1].negations += 1
            elif token.kind == "(":
                frames.append(_Frame())
            else:
                raise lexer.syntax_error(wanted=_OPERAND, at=token)
        elif token.kind in _CONNECTIVES and frames[-1].left is None:
            frames[-1].left, frames[-1].connective = operand, _CONNECTIVES[token.kind]
            operand = None
        elif token.kind == ")" and len(frames) > 1:
            frames.pop()
            operand = frames[-1].take(operand)
        elif token.kind != "end" or len(frames) > 1:
            closing = ")" if len(frames) > 1 else "the end"
            raise lexer.syntax_error(wanted=f"AND, OR or {closing}" if frames[-1].left is None else closing, at=token)
    return cast(Formula, operand)  # the end of the text is an error while an operand is due


_OPERAND = "a concept, NOT or ("
_CONNECTIVES: dict[str, type[And | Or]] = {"AND": And, "OR": Or}


@dataclass(slots=True)
class _Frame:
    """A finished left operand with its connective, and the number of NOTs read since."""

    left: Formula | None = None
    connective: type[And | Or] = And
    negations: int = 0

    def take(self, operand: Formula) -> Formula:
        """Return what stands in this frame once `operand` ends."""
        for _ in range(self.negations):
            operand = Not(operand)
        self.negations = 0
        return operand if self.left is None else self.connective(self.left, operand)


def left_deep(names: Sequence[str], operators: Sequence[int]) -> Formula:
    """Build ``((names[0] operators[0] names[1]) operators[1] names[2]) ...``.

    Raises
    ------
    InputError
        If there are no names, not one operator fewer than names, or unknown operators.

    """
    names, remedy = texts("names", list(names) if isinstance(names, str) else names), "use OR = 0, AND = 1, AND_NOT = 2"
    given = items("operators", operators, "a sequence of operators")
    operators = [integer("operators", op, 0, 2, remedy) for op in given]
    if len(names) == 0 or len(operators) != len(names) - 1:
        raise InputError(
            argument="operators",
            wanted="one operator fewer than names, and one name or more",
            got=f"{len(names)} names and {len(operators)} operators",
            remedy="pass the operator in front of each name but the first",
        )
    formula: Formula = Concept(names[0])
    for op, name in zip(operators, names[1:], strict=True):
        concept = Concept(name)
        if op == Operator.OR:
            formula = Or(formula, concept)
        else:
            formula = And(formula, concept if op == Operator.AND else Not(concept))
    return formula


def canonical_ids(ids: Sequence[int], operators: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the canonical ids and operators of a left-deep formula of distinct concept ids.

    The definition stands at `Formula.canonical`. ``ids[0]`` is the innermost concept and ``operators[i]``
    (of `Operator`) stands in front of ``ids[i + 1]``. Both are trusted: searches call this often.
    """
    ordered_ids: list[int] = []
    ordered_operators: list[int] = []
    first = [ids[0]]
    for is_or, group in groupby(zip(operators, ids[1:], strict=True), key=lambda pair: pair[0] == Operator.OR):
        run = list(group)
        positive = sorted(first + [i for op, i in run if op != Operator.AND_NOT])
        negated = sorted(i for op, i in run if op == Operator.AND_NOT)
        ordered_ids += positive + negated
        ordered_operators += [Operator.OR if is_or else Operator.AND] * len(positive)
        ordered_operators += [Operator.AND_NOT] * len(negated)
        first = []
    # The first concept is positive and has no operator in front.
    return tuple(ordered_ids or first), tuple(ordered_operators[1:])


def tie_key(ids: Sequence[int], operators: Sequence[int]) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Return what orders left-deep formulas of equal score, smallest first; equal for logically equal ones.

    Fewer concepts, then fewer NOTs, then the smaller canonical ids, then the smaller canonical operators
    (OR < AND < AND NOT). The order is total over distinct formulas.
    """
    n_negations = sum(1 for op in operators if op == Operator.AND_NOT)
    return (len(ids), n_negations, *canonical_ids(ids, operators))


def distinct_parts(formula: Formula) -> tuple[tuple[str, ...], tuple[Operator, ...]] | None:
    """Return the parts of a left-deep formula that repeats no concept, otherwise None."""
    parts = formula.left_deep_parts()
    return parts if parts is not None and len(set(parts[0])) == len(parts[0]) else None


def ids_in_order(names: Iterable[str], order: Order | None) -> dict[str, int]:
    """Return the id that `order` (see `Formula.canonical`) gives to each of the names."""
    names = list(names)
    if order is None:
        order = sorted(names)
    elif not isinstance(order, Mapping):
        order = texts("order", order)
    all_ids = order if isinstance(order, Mapping) else {name: i for i, name in enumerate(order)}
    missing = [name for name in names if name not in all_ids or not hasattr(all_ids[name], "__index__")]
    ids = {name: all_ids[name] for name in names if name in all_ids}
    if missing or len(set(ids.values())) < len(ids):
        raise InputError(
            argument="order",
            wanted="a distinct place for each concept of the formula",
            got=f"none for {missing[0]!r}" if missing else "one id for several of them",
            remedy="pass all names in their order, or a mapping from name to id",
        )
    return ids
