"""The rules of the house that a linter does not know: docs/architecture.md names them."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import ccx

ROOT = Path(__file__).parents[2]
CCX = Path(ccx.__file__).parent  # which need not lie beside the tests
SOURCES = sorted(path for path in CCX.rglob("*") if path.suffix in (".py", ".cuh"))
MODULES = [path for path in SOURCES if path.suffix == ".py"]
BACKENDS = tuple(f"kernels/{name}/" for name in ("cpu", "cuda", "src", "reference"))
MOST_LINES, MOST_CODE = 600, 60

WORDS_OF_OTHERS = {"kernels/cpu/_jit.py"}  # Numba has no class of its own for a cache that cannot be written


def named(path):
    return path.relative_to(CCX).as_posix()


def functions(path):
    """Yield each function of a module."""
    tree = ast.parse(path.read_text())
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def code_lines(function, text):
    """Return how many lines of a function's body hold code; documentation, comments and blank lines do not count."""
    first = function.body[1:2] if ast.get_docstring(function) else function.body[:1]
    if not first:
        return 0
    lines = text.splitlines(keepends=True)[first[0].lineno - 1 : function.end_lineno]
    counted = set()
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO("if 1:\n" + "".join(lines)).readline):
        if token.type not in silent:
            counted.update(range(token.start[0], token.end[0] + 1))
    return len(counted - {1})


def test_the_package_is_found():
    assert {"__init__.py", "pipeline/explaining.py", "kernels/src/atoms.cuh"} <= {named(path) for path in SOURCES}


def test_files_are_short():
    long = {named(path) for path in SOURCES if len(path.read_text().splitlines()) > MOST_LINES}
    assert not long


def test_functions_are_short():
    long = set()
    for path in MODULES:
        if named(path).startswith(BACKENDS):
            continue  # kernels loop over samples, rows, words and bits in one function
        text = path.read_text()
        long |= {
            f"{named(path)}:{function.name}" for function in functions(path) if code_lines(function, text) > MOST_CODE
        }
    assert not long


def test_file_stems_are_unique():
    seen, twice = set(), set()
    for path in MODULES:
        if not named(path).startswith(BACKENDS) and not path.stem.startswith("__"):
            (twice if path.stem in seen else seen).add(path.stem)
    assert not twice


def branches_on_words(tree):
    """Yield the lines where a condition looks at the text of an error that was caught."""
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        texts = {f"str({handler.name})", f"{handler.name}.args", f"repr({handler.name})"}
        for node in ast.walk(handler):
            condition = ast.unparse(node.test) if isinstance(node, (ast.If, ast.IfExp, ast.While)) else ""
            if any(text in condition for text in texts):
                yield node.lineno


def test_nobody_branches_on_the_text_of_an_error():
    found = {named(path) for path in MODULES if any(branches_on_words(ast.parse(path.read_text())))}
    assert found == WORDS_OF_OTHERS


@pytest.mark.parametrize("condition", ["'a' in str(error)", "str(error).startswith('a')", "error.args[0] == 'a'"])
def test_such_a_branch_is_found(condition):
    assert list(branches_on_words(ast.parse(f"try:\n    f()\nexcept OSError as error:\n    if {condition}: pass\n")))


def private_names(tree, package):
    """Yield what a module imports, or takes from a module, that is private to another package than its own."""
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ccx":
            for name in node.names:
                full = f"{node.module}.{name.name}"
                modules[name.asname or name.name] = full
                yield from foreign(full, package)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield from foreign(f"{modules[node.value.id]}.{node.attr}", package)


def foreign(full, package):
    """Yield a dotted name if one of its parts is private to a package that `package` does not lie in."""
    parts = full.split(".")
    for i, part in enumerate(parts):
        if not part.startswith("_") or part.startswith("__") or part == "_version":
            continue
        owner = parts[:i]
        if not (CCX.parent.joinpath(*owner)).is_dir():
            owner = owner[:-1]  # of a module: its package
        if f"{package}.".startswith(f"{'.'.join(owner)}.") and len(owner) > 1:
            continue
        yield full


def test_private_names_stay_in_their_package():
    found = set()
    for path in MODULES:
        package = ".".join(("ccx", *path.relative_to(CCX).parent.parts))
        found |= {(named(path), name) for name in private_names(ast.parse(path.read_text()), package)}
    assert not found


@pytest.mark.parametrize(
    ("line", "package", "is_foreign"),
    [
        ("from ccx.kernels.cpu._jit import jit", "ccx.kernels", True),
        ("from ccx.kernels.cpu._jit import jit", "ccx.kernels.cpu", False),
        ("from ccx.kernels.cpu import rows\nrows._table", "ccx.kernels.cpu", False),
        ("from ccx.kernels.cpu import rows\nrows._table", "ccx.search", True),
        ("from ccx.search.beam import _count", "ccx.search", False),
        ("from ccx.scores import _ranks", "ccx.search", True),
        ("from ccx.scores import ranks", "ccx.search", False),
    ],
)
def test_such_a_name_is_found(line, package, is_foreign):
    assert bool(list(private_names(ast.parse(line), package))) == is_foreign


# "one row per sample", never "one row a sample": readers take the article for one.
_UNITS = (
    "atom|batch|bitmap|block|category|cell|channel|class|column|concept|data set|entry|explanation|figure|file|formula|"
    "group|image|label|layer|line|map|mask|name|picture|pixel|process|processor|range|row|run|sample|score|search|second|step|"
    "tensor|thread|token|unit|value|word|worker"
)
_COUNTED = (
    r"\d[\d,]*(?:[./]\d+)?(?: (?:CPU )?m?s)?|once|twice|times|bits|bytes|hours|instructions|operations|seconds|threads|"
    r"(?:one|a|an|1) (?:[\w.`]+ )?(?:bool|category|column|entry|figure|file|flag|id|image|key|label|layer|mask|name|"
    r"number|object|photograph|PNG|record|row|text|token|value|weight)|one|Ranges|Formulas|Photographs|Seconds"
)
PER = re.compile(rf"(?<![\w-])(?:{_COUNTED}) an? (?:{_UNITS})\b")


def public_texts():
    """Yield the files whose words users read: sources with their messages and documentation, and pages."""
    for path in CCX.rglob("*"):
        if path.suffix in (".py", ".json", ".html") and not named(path).startswith(BACKENDS):
            yield path
    yield from (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*.py"))


def test_public_texts_say_per():
    found = [
        f"{path}:{number}: {match[0]}"
        for path in public_texts()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for match in PER.finditer(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        *("one row a sample", "two seconds a range", "three times a unit", "Ranges a unit; 1 = the top quantile"),
        *("a label a sample", "one .npy file a layer", "0.3 ms an image", "once a data set", "8 bits a channel"),
    ],
)
def test_a_text_that_does_not_say_per_is_found(text):
    assert PER.search(text)


def test_no_test_file_imports_another():
    tests = sorted((ROOT / "tests").rglob("*.py"))
    stems = {path.stem for path in tests if path.stem.startswith("test_")}
    imported = {
        f"{path.name}: {part}"
        for path in tests
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        for part in name.split(".")
        if part in stems
    }
    assert not imported, "what tests share stands in tests/support"


def test_names_of_test_files_are_unique():
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert names == sorted(set(names))
