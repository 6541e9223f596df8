"""Results made by hand, and what every result must agree with."""

from __future__ import annotations

import math
from typing import Any

from ccx.formula import parse
from ccx.results import Candidate, Explanation, Explanations, Status


def example(unit: int = 0, range_index: int = 1, **changes: Any) -> Explanation:
    values: dict[str, Any] = {
        "unit": unit,
        "range_index": range_index,
        "range": (0.5, math.inf),
        "formula": parse("((pedestrian OR bicyclist) AND NOT road)"),
        "iou": 0.18,
        "iou_gain": 0.08,
        "intersection": 18,
        "union": 100,
        "bitmap_cells": 40,
        "formula_cells": 78,
        "status": Status.EXPLAINED,
        "visited": 1200,
        "expanded": 15,
        "estimated": 5400,
        "optimal": False,
        "alternatives": (Candidate(parse("pedestrian"), 0.15, 15, 100),),
        "score": 0.18,
    }
    return Explanation(**values | changes)


def silent(unit: int, range_index: int = 1) -> Explanation:
    return example(
        unit,
        range_index,
        range=None,
        formula=None,
        iou=0.0,
        iou_gain=None,
        intersection=0,
        union=0,
        bitmap_cells=0,
        formula_cells=0,
        status=Status.SILENT,
        visited=0,
        expanded=0,
        estimated=0,
        alternatives=(),
        score=0.0,
    )


def table_of(*items: Explanation) -> Explanations:
    return Explanations(items, settings={"beam": 5, "ranges": (1, 2)}, concepts_hash="00ff", version="0.1.0")


def check_schema(value: Any, schema: dict[str, Any]) -> bool:
    """Validate the part of JSON Schema that results_schema.json uses."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    known = {"$schema", "title", "description", "type", "const", "enum", "anyOf", "required", "properties", "items"}
    known |= {"additionalProperties", "minItems", "maxItems", "minimum", "maximum"}
    assert schema.keys() <= known
    if "type" in schema:
        wanted = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        allowed = [t for kind in wanted for t in ((int, float) if kind == "number" else (kinds[kind],))]
        if type(value) not in allowed:
            return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        if set(schema.get("required", ())) - value.keys():
            return False
        if schema.get("additionalProperties") is False and value.keys() - properties.keys():
            return False
        if not all(check_schema(value[key], part) for key, part in properties.items()):
            return False
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            return False
        if not all(check_schema(item, schema.get("items", {})) for item in value):
            return False
    if type(value) in (int, float) and not schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf):
        return False
    if "anyOf" in schema and not any(check_schema(value, part) for part in schema["anyOf"]):
        return False
    return value in schema.get("enum", [value]) and value == schema.get("const", value)
