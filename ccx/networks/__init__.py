"""Layers of a torch model: find them by path, record what they put out, or change it.

Everything here leaves the model as it was, whatever happens in between: hooks are removed, and every module gets back
its own training flag. torch is imported by the functions that need it.
"""

from ccx.networks.forward_errors import takes_several
from ccx.networks.hooks import (
    device_of,
    evaluating,
    image_batches,
    layer_path,
    record,
    recording,
    recording_calls,
    require_torch,
    resolve_layer,
    running,
    unwrapped,
)
from ccx.networks.interventions import ClassesAfter, inside_ranges, intervening, zeroed_ranges
from ccx.networks.ordering import check_count, check_order
from ccx.networks.outputs import Output, check_output

__all__ = [
    "ClassesAfter",
    "Output",
    "check_count",
    "check_order",
    "check_output",
    "device_of",
    "evaluating",
    "image_batches",
    "inside_ranges",
    "intervening",
    "layer_path",
    "record",
    "recording",
    "recording_calls",
    "require_torch",
    "resolve_layer",
    "running",
    "takes_several",
    "unwrapped",
    "zeroed_ranges",
]
