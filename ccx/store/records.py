"""Records of fields, as JSON files hold them: checked field by field when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ccx.errors import InputError

Kinds = Mapping[str, tuple[type, ...]]
"""The fields of a record and the types that each may have."""


def checked_record(record: object, kinds: Kinds) -> dict[str, Any]:
    """Return the record as a dict of exactly these fields with exactly these types, numbers as floats.

    Raises
    ------
    InputError
        When fields are missing, unknown or of another type, or a number is not finite.

    """
    if not isinstance(record, Mapping) or record.keys() != kinds.keys():
        raise bad_field(field="record", wanted=f"the fields {', '.join(kinds)}", got=record)
    values = dict(record)
    for name, allowed in kinds.items():
        if type(values[name]) not in allowed:  # not isinstance: a bool is no int here
            raise bad_field(name, " or ".join(kind.__name__ for kind in allowed), values[name])
        if float in allowed and values[name] is not None:
            values[name] = _finite(name, values[name])
    return values


def _finite(name: str, value: float) -> float:
    """Return `value` as a float; JSON can write numbers that no float holds."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise bad_field(name, "a finite number", value)
    return number


def bad_field(field: str, wanted: str, got: object) -> InputError:
    """Return the error of a field that is not as it was written."""
    return InputError(argument=field, wanted=wanted, got=f"{got!r:.200}", remedy="pass a record that to_record made")
