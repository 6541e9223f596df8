"""Layers of a torch model: find them by path, record what they put out, or change it.

Everything here leaves the model as it was, whatever happens in between: hooks are removed, and every module gets back
its own training flag. torch is imported by the functions that need it.
"""

from ccx.networks.hooks import (
    device_of,
    evaluating,
    image_batches,
    record,
    recording,
    recording_calls,
    require_torch,
    resolve_layer,
)
from ccx.networks.interventions import ClassesAfter, inside_ranges, intervening, zeroed_ranges
from ccx.networks.ordering import check_count, check_order

__all__ = [
    "ClassesAfter",
    "check_count",
    "check_order",
    "device_of",
    "evaluating",
    "image_batches",
    "inside_ranges",
    "intervening",
    "record",
    "recording",
    "recording_calls",
    "require_torch",
    "resolve_layer",
    "zeroed_ranges",
]
