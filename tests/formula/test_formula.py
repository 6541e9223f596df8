from __future__ import annotations

import copy
import itertools
import pickle
import re
import sys
from dataclasses import FrozenInstanceError
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ccx.errors import InputError, MissingExtraError
from ccx.formula import (
    And,
    Concept,
    Formula,
    Not,
    Operator,
    Or,
    canonical_ids,
    equivalent,
    left_deep,
    parse,
    simplify,
    tie_key,
)

PARITY = sorted((Path(__file__).parents[1] / "support" / "parity").glob("*.npz"))
A, B, C = map(Concept, "abc")

# Any code point at all, and the words and signs that could be mistaken for syntax.
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.lists(
        st.sampled_from(
            ["AND", "OR", "NOT", "and", "(", ")", '"', "\\", "\\u{61}", " ", "  ", "\n", "\u3000", "\u200d", "a", "#2"]
        )
    ).map("".join),
)


def trees(names: st.SearchStrategy[str], max_leaves: int = 12) -> st.SearchStrategy[Formula]:
    return st.recursive(
        names.map(Concept),
        lambda f: st.one_of(f.map(Not), st.builds(And, f, f), st.builds(Or, f, f)),
        max_leaves=max_leaves,
    )


def few(letters: str) -> st.SearchStrategy[str]:
    return st.sampled_from(letters)


@st.composite
def left_deep_formulas(draw: st.DrawFn, max_length: int = 8, letters: str = "abcdefghij") -> Formula:
    names = draw(st.permutations(letters))[: draw(st.integers(1, max_length))]
    return left_deep(names, draw(st.lists(st.sampled_from(Operator), min_size=len(names) - 1, max_size=len(names) - 1)))


def truth_table(formula: Formula, names: str) -> bytes:
    """The oracle: one row for each set of concepts, by Python's own `and`, `or` and `not`, recursively."""

    def holds(f: Formula, present: dict[str, bool]) -> bool:
        if isinstance(f, Concept):
            return present[f.name]
        if isinstance(f, Not):
            return not holds(f.operand, present)
        assert isinstance(f, And | Or)
        sides = holds(f.left, present), holds(f.right, present)
        return all(sides) if isinstance(f, And) else any(sides)

    rows = itertools.product([False, True], repeat=len(names))
    return bytes(holds(formula, dict(zip(names, row, strict=True))) for row in rows)


# --- tree ---


def test_properties_of_a_small_tree() -> None:
    formula = And(Or(Concept("sky"), Concept("tree")), Not(Concept("road")))
    assert str(formula) == "((sky OR tree) AND NOT road)"
    assert repr(formula) == "parse('((sky OR tree) AND NOT road)')"
    assert formula.length == 3
    assert formula.concepts == ("sky", "tree", "road")
    assert formula.children == (formula.left, formula.right)
    assert And(formula, Concept("sky")).length == 4
    assert And(formula, Concept("sky")).concepts == ("sky", "tree", "road")


def test_python_operators_build_formulas() -> None:
    built = (A | B) & ~C
    assert built == And(Or(A, B), Not(C))
    with pytest.raises(TypeError):
        A & "b"
    with pytest.raises(TypeError):
        "a" | B


def test_formulas_are_immutable_and_small() -> None:
    for formula, field in ((A, "name"), (~A, "operand"), (A & B, "left"), (A | B, "right")):
        with pytest.raises(FrozenInstanceError):
            setattr(formula, field, B)
        assert not hasattr(formula, "__dict__")
    with pytest.raises(TypeError):
        Formula()  # type: ignore[abstract]


@given(trees(few("ab"), 4), trees(few("ab"), 4))
def test_equality_and_hash_are_those_of_the_tree(f: Formula, g: Formula) -> None:
    assert (f == g) == (str(f) == str(g))
    assert (f != g) == (str(f) != str(g))
    if f == g:
        assert hash(f) == hash(g)


def test_equality_with_other_types_and_other_kinds() -> None:
    assert Concept("a").__eq__("a") is NotImplemented
    assert len({A & B, A | B, B & A, ~A, A, Concept("a"), parse("(a AND b)")}) == 5
    left, right = (A & B) & C, A & (B & C)
    assert left != right


def test_nodes_refuse_what_is_no_formula() -> None:
    for build in (lambda: Not("a"), lambda: And(A, "b"), lambda: Or(None, A)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="operand: expected a formula"):
            build()
    with pytest.raises(InputError, match="name: expected a str, got int"):
        Concept(1)  # type: ignore[arg-type]


def test_numpy_names_become_plain_strings() -> None:
    assert type(Concept(np.array(["sky"])[0]).name) is str


@given(trees(NAMES))
def test_copies_and_pickles_are_equal(formula: Formula) -> None:
    assert copy.deepcopy(formula) == formula
    assert pickle.loads(pickle.dumps(formula)) == formula


# --- text ---


@given(trees(NAMES))
@example(Concept(""))
@example(Concept("\ud800"))
@example(Not(Not(Concept("\x1c"))))
def test_parse_is_the_inverse_of_str(formula: Formula) -> None:
    text = str(formula)
    assert parse(text) == formula
    assert str(parse(text)) == text
    text.encode()  # no lone surrogates, so any file can hold it
    assert text.isprintable()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sky", "sky"),
        ("traffic light", "traffic light"),
        ("building-c", "building-c"),
        ("car#2", "car#2"),
        ("children's room", "children's room"),
        ("black and white", "black and white"),
        ("AND-gate", "AND-gate"),
        ("back\\slash", "back\\slash"),
        ("天空", "天空"),
        ("wall (brick)", '"wall (brick)"'),
        ("this OR that", '"this OR that"'),
        ("NOT", '"NOT"'),
        ("", '""'),
        (" sky", '" sky"'),
        ("a  b", '"a  b"'),
        ('5" pipe', r'"5\" pipe"'),
        ("(\\)", r'"(\\)"'),
        ("two\nlines", r'"two\u{a}lines"'),
        ("wide\u3000space", r'"wide\u{3000}space"'),
    ],
)
def test_names_are_bare_where_unambiguous(name: str, text: str) -> None:
    assert str(Concept(name)) == text
    assert str(And(Not(Concept(name)), A)) == f"(NOT {text} AND a)"
    assert parse(f"({text} OR {text})") == Concept(name) | Concept(name)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("((1 OR 2) AND (NOT 3))", (Concept("1") | Concept("2")) & ~Concept("3")),
        ("(NOT (a OR b) AND c)", ~(A | B) & C),
        ("NOT(a)AND(b)", ~A & B),
        ("NOT a OR b", ~A | B),
        ("NOT NOT a", ~~A),
        ("a AND b", A & B),
        ("(((a)) OR ((b)))", A | B),
        ("  ( a\n OR\tb )  ", A | B),
        ("traffic \n light", Concept("traffic light")),
        ('"a" AND b', A & B),
        (r'"\u{61}"', A),
        (r'"\u{00061}\u{10ffff}"', Concept("a\U0010ffff")),
        ("not a", Concept("not a")),
    ],
)
def test_accepted_spellings(text: str, formula: Formula) -> None:
    assert parse(text) == formula


@pytest.mark.parametrize(
    ("text", "wanted", "got"),
    [
        ("", "a concept, NOT or ( at character 1", "the end of the text"),
        ("  ", "a concept, NOT or ( at character 3", "the end of the text"),
        ("()", "a concept, NOT or ( at character 2", "')'"),
        ("(a AND )", "a concept, NOT or ( at character 8", "')'"),
        ("a AND", "a concept, NOT or ( at character 6", "the end of the text"),
        ("OR a", "a concept, NOT or ( at character 1", "'OR'"),
        ("a AND OR b", "a concept, NOT or ( at character 7", "'OR'"),
        ("NOT", "a concept, NOT or ( at character 4", "the end of the text"),
        ("(a", "AND, OR or ) at character 3", "the end of the text"),
        ("(a OR b", ") at character 8", "the end of the text"),
        ("(a OR b OR c)", ") at character 9", "'OR'"),
        ("a OR b AND c", "the end at character 8", "'AND'"),
        ("a)", "AND, OR or the end at character 2", "')'"),
        ("(a OR b))", "AND, OR or the end at character 9", "')'"),
        ("wall (brick)", "AND, OR or the end at character 6", "'('"),
        ("(a NOT b)", "AND, OR or ) at character 4", "'NOT'"),
        ("(a) traffic  light", "AND, OR or the end at character 5", "'traffic light'"),
        ('a "b"', "AND, OR or the end at character 3", "'b'"),
        ('"a', 'a closing " for the name that opens at character 1', "the end of the text"),
        ('(a OR "b\\")', 'a closing " for the name that opens at character 7', "the end of the text"),
        (r'"\n"', 'one of the escapes \\" \\\\ \\u{hex} at character 2', r"'\\n'"),
        (r'"a\u{110000}"', 'one of the escapes \\" \\\\ \\u{hex} at character 3', r"'\\u{110000}'"),
        ("a OR b " + "c" * 100 + " OR", "the end at character 109", "'OR'"),
        ('a OR b "' + "c" * 100 + '"', "the end at character 8", repr("c" * 59 + "…")),
    ],
)
def test_syntax_errors_say_where_and_what(text: str, wanted: str, got: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert (caught.value.argument, caught.value.wanted, caught.value.got) == ("formula", wanted, got)


@given(st.lists(st.sampled_from(["(", ")", "AND", "OR", "NOT", "a", '"', "\\", " "])).map(" ".join))
def test_any_text_is_a_formula_or_an_input_error(text: str) -> None:
    try:
        formula = parse(text)
    except InputError:
        return
    assert parse(str(formula)) == formula


def test_parse_refuses_other_types() -> None:
    with pytest.raises(InputError, match="formula: expected a str, got bytes"):
        parse(b"a")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PARITY, ids=lambda path: path.stem)
def test_labels_of_the_published_system_parse(path: Path) -> None:
    with np.load(path) as case:
        labels = {str(label) for key in case.files if key.endswith("runs.label") for label in case[key]} - {""}
    for label in labels:
        formula = parse(label)
        assert formula.left_deep_parts() is not None
        assert formula.length <= 3
        assert str(formula) == re.sub(r"\(NOT (\d+)\)", r"NOT \1", label)
    assert labels or path.stem == "h7_rounding"


# --- evaluation and names ---


@given(trees(few("abcd")))
def test_evaluate_boolean_arrays_and_packed_rows(formula: Formula) -> None:
    rows = np.array(list(itertools.product([False, True], repeat=4)))
    column = {name: rows[:, i] for i, name in enumerate("abcd")}
    want = np.frombuffer(truth_table(formula, "abcd"), bool)
    np.testing.assert_array_equal(formula.evaluate(column.__getitem__), want, strict=True)
    words = {name: np.packbits(bits, bitorder="little").view(np.uint16) for name, bits in column.items()}
    packed = formula.evaluate(words.__getitem__)
    np.testing.assert_array_equal(np.unpackbits(packed.view(np.uint8), bitorder="little"), want)


def test_evaluate_calls_leaves_in_order_and_changes_nothing() -> None:
    seen = []
    table = {name: np.array([True, False]) for name in "abc"}

    def leaf(name: str) -> np.ndarray:
        seen.append(name)
        return table[name]

    parse("((a OR NOT b) AND (c OR a))").evaluate(leaf)
    assert seen == ["a", "b", "c", "a"]
    assert all((value == [True, False]).all() for value in table.values())


def test_left_deep_evaluation_holds_three_values_at_most() -> None:
    alive = peak = 0

    class Value:
        def __init__(self, *_: object) -> None:
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

        def __and__(self, other: Value) -> Value:
            return Value(self, other)

        __or__ = __and__

        def __invert__(self) -> Value:
            return Value(self)

    left_deep("abcdefghij", [i % 3 for i in range(9)]).evaluate(Value)
    assert peak == 3


def test_rename_renders_ids_with_names() -> None:
    formula = parse("((12 OR 7) AND NOT 3)")
    names = {"12": "sky", "7": "wall (brick)", "3": "12", "9": "unused"}
    assert str(formula.rename(names)) == '((sky OR "wall (brick)") AND NOT 12)'
    with pytest.raises(InputError, match=r"names: expected an entry for each concept .* got none for '7'; "):
        formula.rename({"12": "sky", "3": "road"})


# --- left-deep formulas ---


def test_operator_values_are_the_tie_order_and_the_kernels_encoding() -> None:
    assert [(op.name, int(op)) for op in Operator] == [("OR", 0), ("AND", 1), ("AND_NOT", 2)]
    assert left_deep("abcd", np.array([2, 0, 1], np.uint8)) == parse("(((a AND NOT b) OR c) AND d)")


@given(left_deep_formulas())
def test_left_deep_parts_invert_left_deep(formula: Formula) -> None:
    parts = formula.left_deep_parts()
    assert parts is not None
    assert left_deep(*parts) == formula
    assert parts[0] == formula.concepts


@pytest.mark.parametrize(
    "text", ["NOT a", "a OR NOT b", "a AND (b OR c)", "NOT a AND b", "a AND NOT NOT b", "(a OR b) OR (c OR d)"]
)
def test_other_shapes_have_no_left_deep_parts(text: str) -> None:
    assert parse(text).left_deep_parts() is None
    with pytest.raises(InputError, match="expected a left-deep formula of distinct concepts"):
        parse(text).canonical()


@pytest.mark.parametrize(
    ("names", "operators", "got"),
    [([], [], "0 names and 0 operators"), (["a"], [0], "1 names and 1 operators"), (["a", "b"], [3], "3")],
)
def test_left_deep_refuses(names: list[str], operators: list[int], got: str) -> None:
    with pytest.raises(InputError) as caught:
        left_deep(names, operators)
    assert caught.value.got == got


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("b", "b"),
        ("b OR a", "(a OR b)"),
        ("(b AND NOT a) AND c", "((b AND c) AND NOT a)"),
        ("((d OR c) AND NOT b) AND a", "(((c OR d) AND a) AND NOT b)"),
        ("((d AND NOT c) OR b) OR a", "(((d AND NOT c) OR a) OR b)"),
        ("(c OR b) AND NOT a", "((b OR c) AND NOT a)"),
    ],
)
def test_canonical_examples(text: str, canonical: str) -> None:
    assert str(parse(text).canonical()) == canonical


def all_left_deep(names: str) -> list[Formula]:
    n = len(names)
    return [
        left_deep(chosen, operators)
        for chosen in itertools.permutations(names)
        for operators in itertools.product(Operator, repeat=n - 1)
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_canonical_forms_are_identical_exactly_if_truth_tables_are(length: int) -> None:
    names = "abcde"[:length]
    table_of: dict[str, int] = {}
    canonical_of: dict[int, str] = {}
    rows = {name: sum(1 << r for r in range(1 << length) if r >> i & 1) for i, name in enumerate(names)}
    for formula in all_left_deep(names):
        canonical = str(formula.canonical())
        table = formula.evaluate(rows.__getitem__)
        assert table_of.setdefault(canonical, table) == table
        assert canonical_of.setdefault(table, canonical) == canonical


@given(left_deep_formulas(5, "abcdef"), left_deep_formulas(5, "abcdef"))
def test_canonical_form_of_any_two_formulas(f: Formula, g: Formula) -> None:
    assert (f.canonical() == g.canonical()) == (truth_table(f, "abcdef") == truth_table(g, "abcdef"))


@given(left_deep_formulas(), st.permutations("abcdefghij"))
def test_canonical_in_a_given_order(formula: Formula, order: list[str]) -> None:
    canonical = formula.canonical(order)
    assert canonical == formula.canonical({name: 10 * i for i, name in enumerate(order, start=1)})
    assert canonical.canonical(order) == canonical
    # Renaming the concepts by their place in the order must give the default order.
    letter = dict(zip(order, "abcdefghij", strict=True))
    assert canonical.rename(letter) == formula.rename(letter).canonical()


def test_canonical_refuses() -> None:
    with pytest.raises(InputError, match="distinct concepts"):
        parse("(a OR b) AND a").canonical()
    with pytest.raises(InputError, match=r"order: expected .* got none for 'b'"):
        (A | B).canonical(["a", "c"])
    with pytest.raises(InputError, match=r"order: expected .* got one id for several"):
        (A | B).canonical({"a": 1, "b": 1})


def test_canonical_ids_and_tie_key_of_plain_ids() -> None:
    # ((7 AND NOT 3) AND 5) OR 2
    operators = [Operator.AND_NOT, Operator.AND, Operator.OR]
    assert canonical_ids([7, 3, 5, 2], operators) == ((5, 7, 3, 2), (1, 2, 0))
    assert tie_key([7, 3, 5, 2], operators) == (4, 1, (5, 7, 3, 2), (1, 2, 0))
    assert canonical_ids([9], []) == ((9,), ())
    assert tie_key([9], []) == (1, 0, (9,), ())
    assert tie_key(np.array([2, 1]), np.array([0], np.uint8)) == (2, 0, (1, 2), (0,))


@pytest.mark.parametrize("length", [2, 3, 4])
def test_tie_key_is_total(length: int) -> None:
    keys: dict[bytes, tuple[object, ...]] = {}
    names = "abcd"[:length]
    for formula in all_left_deep(names):
        chosen, operators = formula.left_deep_parts() or ((), ())
        key = tie_key([names.index(name) for name in chosen], operators)
        assert keys.setdefault(truth_table(formula, names), key) == key
        assert key[1] == str(formula).count("NOT")
    assert len(set(keys.values())) == len(keys)


# --- logic ---


@given(trees(few("abcde")), trees(few("abcde")))
def test_equivalent_is_that_of_truth_tables(f: Formula, g: Formula) -> None:
    assert equivalent(f, g) == (truth_table(f, "abcde") == truth_table(g, "abcde"))
    assert equivalent(f, Not(Not(f)))
    assert not equivalent(f, Not(f))


@given(left_deep_formulas(5, "abcde"), left_deep_formulas(5, "abcde"))
def test_equivalent_is_that_of_truth_tables_for_left_deep_formulas(f: Formula, g: Formula) -> None:
    assert equivalent(f, g) == (truth_table(f, "abcde") == truth_table(g, "abcde"))


def test_a_concept_that_does_not_matter_makes_no_difference() -> None:
    assert equivalent(A, A | (A & B))
    assert not equivalent(A, B)
    assert not equivalent(A & ~A, B | ~B)


@pytest.mark.needs("logic")
@given(trees(few("abcde")), trees(few("abcde")))
def test_sat_agrees_with_truth_tables(f: Formula, g: Formula) -> None:
    # Extra concepts beyond the size of truth tables, without effect.
    extra = reduce(And, (Or(Concept(f"e{i}"), Not(Concept(f"e{i}"))) for i in range(21)))
    assert equivalent(f & extra, g) == equivalent(f, g)


@pytest.mark.needs("logic")
@pytest.mark.parametrize("n_pairs", [11, 100])
def test_equivalent_with_many_concepts(n_pairs: int) -> None:
    pairs = [Concept(f"a{i}") & Concept(f"b{i}") for i in range(n_pairs)]
    ours = reduce(Or, pairs)
    assert equivalent(ours, ~reduce(And, (~pair for pair in reversed(pairs))))
    assert not equivalent(ours, ~reduce(And, (~pair for pair in pairs[1:])))


@given(left_deep_formulas(20, "abcdefghijklmnopqrstuvwxyz"), left_deep_formulas(20, "abcdefghijklmnopqrstuvwxyz"))
def test_twenty_concepts_need_no_library(f: Formula, g: Formula) -> None:
    assert equivalent(f, f.canonical())
    assert equivalent(f, Not(Not(f)))
    assert not equivalent(f, And(f, Not(f)))


@pytest.mark.needs("logic")
@given(trees(st.sampled_from(["a", "wall (brick)", "", "AND", "x[0]"])))
def test_simplify_gives_an_equivalent_two_level_form(formula: Formula) -> None:
    simple = simplify(formula)
    assert equivalent(simple, formula)
    assert simplify(simple) == simple
    assert set(simple.concepts) <= set(formula.concepts)
    stack = [(simple, False)]
    while stack:
        node, in_terms = stack.pop()
        assert not (isinstance(node, Or) and in_terms)
        if isinstance(node, Not):
            assert isinstance(node.operand, Concept)
        stack += [(child, in_terms or isinstance(node, And)) for child in node.children]


@pytest.mark.needs("logic")
@pytest.mark.parametrize(
    ("text", "simple"),
    [
        ("(a AND b) OR (a AND NOT b)", "a"),
        ("(a OR b) AND c", "((a AND c) OR (b AND c))"),
        ("NOT (a OR b)", "(NOT a AND NOT b)"),
        ("NOT (b AND NOT a)", "(a OR NOT b)"),
        ("(b AND NOT a) OR (NOT b AND a)", "((a AND NOT b) OR (b AND NOT a))"),
        ("b OR (a OR NOT a)", "(a OR NOT a)"),
        ("b AND (a AND NOT a)", "(a AND NOT a)"),
        ("((a AND b) OR (NOT a AND c)) OR (b AND c)", "((a AND b) OR (c AND NOT a))"),
    ],
)
def test_simplify_examples(text: str, simple: str) -> None:
    assert str(simplify(parse(text))) == simple


@pytest.mark.needs("logic")
def test_simplify_in_a_given_order() -> None:
    assert str(simplify(parse("(a OR b) AND c"), order=["c", "b", "a"])) == "((c AND b) OR (c AND a))"
    with pytest.raises(InputError, match="order"):
        simplify(A, order=["b"])


@pytest.mark.needs("logic")
@given(trees(few("abcdefghijklmnopqrstuvwxyz"), 30))
def test_simplify_with_many_concepts(formula: Formula) -> None:
    many = formula | reduce(And, map(Concept, "ABCDEFGHIJKLM"))
    assert equivalent(simplify(many), many)


@pytest.mark.needs("logic")
def test_simplify_long_left_deep_formulas() -> None:
    formula = left_deep([f"c{i}" for i in range(60)], [i % 3 for i in range(59)])
    assert equivalent(simplify(formula), formula)


@pytest.mark.needs("logic")
@pytest.mark.parametrize("outer", [Or, And])
def test_simplify_refuses_what_multiplies_out_too_far(outer: type[And | Or]) -> None:
    inner = And if outer is Or else Or
    formula = reduce(outer, (inner(Concept(f"a{i}"), Concept(f"b{i}")) for i in range(30)))
    with pytest.raises(InputError, match="got 60 concepts and at least 8192 terms"):
        simplify(formula)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "pyeda"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyeda", None)
    with pytest.raises(MissingExtraError, match=r"simplify\(\) needs pyeda: .*ccx\[logic\]"):
        simplify(A)
    many = reduce(And, (Concept(str(i)) for i in range(21)))
    with pytest.raises(MissingExtraError, match=r"ccx\[logic\]"):
        equivalent(many, ~many)
    assert equivalent(many, many)


# --- depth ---


@pytest.mark.parametrize("shape", ["left", "right", "not"])
def test_depth_is_no_limit(shape: str) -> None:
    n = 5_000
    leaves = [Concept(f"c{i}") for i in range(n)]
    if shape == "left":
        formula: Formula = left_deep([leaf.name for leaf in leaves], [i % 3 for i in range(n - 1)])
        assert formula.canonical().length == n
        assert equivalent(formula, formula.canonical())
    elif shape == "right":
        formula = reduce(lambda inner, leaf: leaf & (inner | leaf), leaves)
    else:
        formula = reduce(lambda inner, _: ~inner, leaves, A)
        assert equivalent(formula, A)
    again = parse(str(formula))
    assert again is not formula
    assert again == formula
    assert hash(again) == hash(formula)
    assert copy.deepcopy(formula) == formula
    assert isinstance(formula.evaluate(lambda _: np.array([True, False])), np.ndarray)
    assert formula.rename({name: name for name in formula.concepts}) == formula


@pytest.mark.parametrize("text", ["(" * 200_000, "NOT " * 200_000, "(a OR " * 200_000, '"' + "\\a" * 200_000])
def test_huge_bad_input_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)
