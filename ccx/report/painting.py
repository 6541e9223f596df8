"""Formulas in colored pieces, as people read them."""

from __future__ import annotations

from dataclasses import dataclass

from ccx.concepts import Concepts
from ccx.formula import And, Concept, Formula, Not, Or, lexer

_N_COLORS = 8  # of categories, in style.css; further categories begin again


@dataclass(frozen=True, slots=True)
class Piece:
    """A name, a connective or a parenthesis of a formula; names have the color of their category."""

    kind: str
    text: str
    color: int = 0
    category: str = ""


class Painter:
    """Splits formulas into pieces, with the colors of the concepts' categories."""

    def __init__(self, concepts: Concepts) -> None:
        kinds = list(dict.fromkeys(concepts.categories or ()))
        self.color_of = {kind: i % _N_COLORS for i, kind in enumerate(kinds)}
        self.category_of = dict(zip(concepts.names, concepts.categories or (), strict=False))

    def name(self, name: str) -> Piece:
        """Return a concept's piece."""
        category = self.category_of.get(name, "")
        return Piece("name", shown_name(name), self.color_of.get(category, 0), shown_name(category))

    def pieces(self, formula: Formula) -> list[Piece]:
        """Return what stands in a formula, left to right; parentheses only where the connective changes."""
        pieces: list[Piece] = []
        stack: list[Formula | str] = [formula]
        while stack:
            match stack.pop():
                case str(text):
                    pieces.append(Piece("parenthesis" if text in "()" else "connective", text))
                case Concept(name):
                    pieces.append(self.name(name))
                case Not(operand):
                    inner: list[Formula | str] = (
                        [operand] if isinstance(operand, (Concept, Not)) else [")", operand, "("]
                    )
                    stack += [*inner, "NOT"]
                case (And() | Or()) as node:
                    right = _in_parentheses(node.right, type(node))
                    stack += [*right, "AND" if isinstance(node, And) else "OR", *_in_parentheses(node.left, type(node))]
        return pieces


def _in_parentheses(operand: Formula, around: type[Formula]) -> list[Formula | str]:
    """Return what to put on the stack for an operand; one of the same connective needs no parentheses."""
    return [operand] if isinstance(operand, (Concept, Not, around)) else [")", operand, "("]


def shown_name(name: str) -> str:
    """Return a name as people can read it: escaped where it holds what cannot be seen."""
    return name if not name or name.isprintable() else lexer.written(name)
