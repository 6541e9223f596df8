"""Records of JSON files, derived from dataclasses, in which each field is written once.

The text below a field says what it means, its annotation, perhaps with a `Field`, what it holds. From these come what
is written and read, the JSON Schema, the columns of a data frame and the documentation.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

from ccx.errors import InputError

Json = dict[str, Any]
R = TypeVar("R", bound="Record")


class Codec(NamedTuple):
    """How values of one type stand in JSON: their schema, value -> JSON, and (name of the field, JSON) -> value."""

    schema: Json
    write: Callable[[Any], Any]
    read: Callable[[str, Any], Any]


class Column(NamedTuple):
    """A column of a data frame: its name, what it shows of a value, its dtype, and what it shows of None."""

    name: str
    of: Callable[[Any], Any]
    dtype: str = "float64"
    missing: Any = math.nan


@dataclass(frozen=True, slots=True)
class Field:
    """What is to be known of a field beside its type.

    Attributes
    ----------
    least, most
        Bounds of a number.
    codec
        How it stands in JSON; None = as its type.
    columns
        Of a data frame; None = one of its name.

    """

    least: float | None = None
    most: float | None = None
    codec: Codec | None = None
    columns: tuple[Column, ...] | None = None


class Stored(NamedTuple):
    """A field of a record as it is stored."""

    doc: str
    field: Field
    codec: Codec
    columns: tuple[Column, ...]


class Record:
    """A dataclass that stands in JSON files: its annotations are types, or ``Annotated[TYPE, Field(...)]``."""

    __slots__ = ()

    def to_record(self) -> Json:
        """Return JSON-able values (``docs/results.md``)."""
        return {name: one.codec.write(getattr(self, name)) for name, one in stored_fields(type(self)).items()}

    @classmethod
    def from_record(cls, record: object) -> Self:
        """Return what `to_record` made `record` of.

        Raises
        ------
        InputError
            When fields are missing, unknown or of another type, or contradict each other.

        """
        fields = stored_fields(cls)
        if not isinstance(record, Mapping) or record.keys() != fields.keys():
            raise bad_field("record", f"the fields {', '.join(fields)}", record)
        item = cls(**{name: one.codec.read(name, record[name]) for name, one in fields.items()})
        item.check()
        return item

    def check(self) -> None:
        """Raise `InputError` where fields contradict each other."""


def documented(cls: type[R]) -> type[R]:
    """Add to a record's docstring what its fields mean."""
    lines = [f"{name}\n    {doc}" for name, doc in _docs(cls).items()]
    cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nAttributes\n----------\n" + "\n".join(lines) + "\n"
    return cls


def stored_fields(cls: type[Record]) -> dict[str, Stored]:
    """Return the fields of a record by name."""
    kind: Any = cls  # mypy takes no class for hashable
    return _stored_fields(kind)


@cache
def _stored_fields(cls: Any) -> dict[str, Stored]:
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for one in dataclasses.fields(cls):
        hint = hints[one.name]
        kind, field = get_args(hint) if get_origin(hint) is Annotated else (hint, Field())
        codec = _codec(kind, field)
        columns = (_column(one.name, kind, codec),) if field.columns is None else field.columns
        found[one.name] = Stored(_docs(cls).get(one.name, ""), field, codec, columns)
    return found


def _docs(cls: Any) -> dict[str, str]:
    """Return the text below each field of a class, where its source is there: Python keeps none at run time."""
    body = next((one.body for one in _classes(cls.__module__) if one.name == cls.__name__), [])
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@cache
def _classes(module: str) -> list[ast.ClassDef]:
    try:
        source = inspect.getsource(sys.modules[module])
    except OSError:
        return []
    return [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef)]


def schema_of(cls: type[Record]) -> Json:
    """Return the JSON Schema of a record."""
    fields = stored_fields(cls)
    properties = {name: {"description": one.doc, **one.codec.schema} for name, one in fields.items()}
    return {"type": "object", "additionalProperties": False, "required": list(fields), "properties": properties}


def out_of_bounds(item: Record) -> list[tuple[str, str, object]]:
    """Return (field, what it should be, what it is) of each number beyond its bounds."""
    found = []
    for name, one in stored_fields(type(item)).items():
        value, field = getattr(item, name), one.field
        if value is None:
            continue
        if field.least is not None and not value >= field.least:
            found.append((name, f"a number of at least {field.least}", value))
        elif field.most is not None and not value <= field.most:
            found.append((name, f"a number of at most {field.most}", value))
    return found


def columns_of(items: list[Any], cls: type[Record]) -> dict[str, tuple[list[Any], str]]:
    """Return the columns of a data frame of records: name -> (values, dtype)."""
    columns: dict[str, tuple[list[Any], str]] = {}
    for name, one in stored_fields(cls).items():
        values = [getattr(item, name) for item in items]
        for column in one.columns:
            shown = [column.missing if value is None else column.of(value) for value in values]
            columns[column.name] = [column.missing if value is None else value for value in shown], column.dtype
    return columns


def documentation_of(cls: type[Record]) -> str:
    """Return a Markdown table of the fields: name, JSON type, meaning."""
    rows = ["| field | type | value |", "|---|---|---|"]
    for name, one in stored_fields(cls).items():
        doc = one.doc.replace("``", "`").replace("|", "\\|").replace("None", "`null`")
        rows.append(f"| `{name}` | {_words(one.codec.schema)} | {doc} |")
    return "\n".join(rows) + "\n"


def _words(schema: Json) -> str:
    if "anyOf" in schema:
        return " or ".join(_words(one) for one in reversed(schema["anyOf"]))
    if "enum" in schema:
        return "text"
    kind = str({"string": "text", "null": "`null`"}.get(schema["type"], schema["type"]))
    bounds = [f"{sign} {schema[key]}" for sign, key in (("≥", "minimum"), ("≤", "maximum")) if key in schema]
    return " ".join([kind, *bounds])


def _codec(kind: Any, field: Field) -> Codec:
    if NoneType in get_args(kind):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        codec = _codec(inner, field)
        return Codec(
            {"anyOf": [{"type": "null"}, codec.schema]},
            lambda value: None if value is None else codec.write(value),
            lambda name, value: None if value is None else codec.read(name, value),
        )
    if field.codec is not None:
        return field.codec
    if get_origin(kind) is tuple:
        return _several(_codec(get_args(kind)[0], field))
    if issubclass(kind, Record):
        return Codec(schema_of(kind), kind.to_record, lambda _, value: kind.from_record(value))
    if issubclass(kind, StrEnum):
        return Codec({"enum": [str(one) for one in kind]}, str, partial(_read_choice, kind))
    schema, write, read = _PLAIN[kind]
    bounds = {"minimum": field.least, "maximum": field.most}
    return Codec(schema | {key: bound for key, bound in bounds.items() if bound is not None}, write, read)


def _several(codec: Codec) -> Codec:
    def read(name: str, value: Any) -> tuple[Any, ...]:
        return tuple(codec.read(name, one) for one in checked(list, name, value))

    return Codec({"type": "array", "items": codec.schema}, lambda value: list(map(codec.write, value)), read)


def _column(name: str, kind: Any, codec: Codec) -> Column:
    kinds = {kind, *get_args(kind)}
    dtype = next((f"{one.__name__}64" for one in (int, float) if one in kinds), "bool" if bool in kinds else "object")
    return Column(name, codec.write, dtype, math.nan if dtype == "float64" else None)


def _read_choice(kind: type[StrEnum], name: str, value: Any) -> StrEnum:
    if checked(str, name, value) not in set(kind):
        raise bad_field(name, f"one of {', '.join(kind)}", value)
    return kind(value)


def checked(kind: type | tuple[type, ...], name: str, value: Any) -> Any:
    """Return a value of exactly this type, or one of these."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:  # not isinstance: a bool is no int here
        raise bad_field(name, " or ".join(one.__name__ for one in kinds), value)
    return value


def read_number(name: str, value: Any) -> float:
    """Return a finite number as a float; JSON can write numbers that no float holds."""
    try:
        number = float(checked((float, int), name, value))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise bad_field(name, "a finite number", value)
    return number


_PLAIN: dict[Any, Codec] = {
    bool: Codec({"type": "boolean"}, bool, partial(checked, bool)),
    int: Codec({"type": "integer"}, int, partial(checked, int)),
    float: Codec({"type": "number"}, float, read_number),
    str: Codec({"type": "string"}, str, partial(checked, str)),
}


def bad_field(field: str, wanted: str, got: object) -> InputError:
    """Return the error of a field that is not as it was written."""
    return InputError(argument=field, wanted=wanted, got=f"{got!r:.200}", remedy="pass a record that to_record made")
