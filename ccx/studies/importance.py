"""How often a network's prediction changes when activations inside a range are set to 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccx import clustering, networks
from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.jobs import Progress, progress_reporter
from ccx.kernels.activations import as_maps
from ccx.results import Explanations
from ccx.studies.table import Table, finite

Ranges = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RangesImportance:
    """What `ranges_importance` found.

    Attributes
    ----------
    together
        By range: samples whose predicted class changes when all units' activations inside their own range of this
        number are set to 0 at once.
    alone
        The same for each unit and range alone; empty unless it was asked for.

    """

    together: Table
    alone: Table


def ranges_importance(
    model: Any,
    loader: Iterable[Any],
    layer: str,
    ranges: Explanations | Mapping[int, Ranges],
    *,
    output: networks.Output = None,
    alone: bool = False,
    progress: Progress | bool | None = None,
) -> RangesImportance:
    """Measure what the activations of each range contribute to the class that a network predicts.

    The published study (La Rosa et al. 2023, section 5): activations strictly inside a range, in the layer's own
    output, are set to 0, and the share of samples counted whose predicted class (the largest output) changes. Ranges
    are numbered from 1, the lowest.

    Parameters
    ----------
    model
        A torch classifier: it puts out [n, classes]. It is left as it was.
    loader
        Batches of images, or tuples that begin with them.
    layer
        Path of a layer that puts out [n, U, ...].
    ranges
        What `ccx.explain` found for units of this layer, or the ranges of each unit.
    output
        As for `ccx.probe`.
    alone
        Also change each unit and range alone. Where the rest of the network needs nothing but the layer's output,
        only the rest is run again, and only for samples that have an activation inside.
    progress
        As for `ccx.explain`, in batches; their number is known if the loader has a length.

    Raises
    ------
    InputError, ShapeError, DTypeError
        If the layer, its output or the ranges do not fit.
    MissingExtraError
        If torch is not installed.

    """
    networks.require_torch("ranges_importance")
    limits = _limits(ranges)
    numbers = range(max(len(one) for one in limits.values()))
    together = dict.fromkeys(numbers, 0)
    affected = dict.fromkeys(numbers, 0)
    each = {(unit, number): [0, 0] for unit, one in limits.items() for number in range(len(one))}  # affected, changed
    n_samples = 0
    n_batches = len(loader) if isinstance(loader, Sized) else 0
    with progress_reporter(progress, "changing ranges") as report:
        for done, images in enumerate(networks.image_batches(loader)):
            classes = networks.ClassesAfter(model, layer, images, output=output)
            outputs, before = classes.outputs, classes.before
            if done == 0:
                _check_units(limits, outputs.shape, layer)
            n_samples += len(images)
            for number in numbers:
                inside = networks.inside_ranges(
                    outputs, {unit: one[number] for unit, one in limits.items() if number < len(one)}
                )
                (where,) = inside.flatten(1).any(dim=1).nonzero(as_tuple=True)
                affected[number] += len(where)
                if len(where):
                    after = classes.predict(outputs[where].masked_fill(inside[where], 0), where)
                    together[number] += int((after != before[where]).sum())
            for keys, changed, where in networks.zeroed_ranges(outputs, limits) if alone else ():
                differs = classes.predict(changed, where) != before[where]
                for key, one in zip(keys, differs.tolist(), strict=True):
                    each[key][0] += 1
                    each[key][1] += one
            report(done + 1, n_batches)
    if not n_samples:
        raise InputError("loader", wanted="at least one batch", got="none", remedy="check the data set")
    return RangesImportance(
        Table(
            "predictions that change, all units at once",
            ("range", "samples", "affected", "changed", "share"),
            tuple((k + 1, n_samples, affected[k], together[k], together[k] / n_samples) for k in numbers),
        ),
        Table(
            "predictions that change, each unit alone",
            ("unit", "range", "lower", "upper", "affected", "changed", "share"),
            tuple(
                (unit, number + 1, *map(finite, limits[unit][number]), *counts, counts[1] / n_samples)
                for (unit, number), counts in each.items()
                if alone
            ),
        ),
    )


def unit_ranges(
    activations: Any,
    units: Iterable[int],
    *,
    concepts: Concepts | None = None,
    clusters: int = 5,
    quantile: float = 0.005,
) -> dict[int, Ranges]:
    """Return the ranges of some units, as `ccx.explain` clusters them; those that hold a value, ascending.

    Parameters
    ----------
    activations
        float[N, U, ...].
    units
        Their indices.
    concepts
        Of the same samples: only activations count that have a valid cell. None = all count.
    clusters, quantile
        As for `ccx.explain`.

    """
    found: dict[int, Ranges] = {}
    counted = None
    if concepts is not None:
        maps = as_maps(activations, concepts.n_samples, concepts.shape)
        activations, counted = maps, concepts.valid_positions(maps.shape[2:])
    for unit in units:
        values = np.asarray(activations[:, unit])
        values = values if counted is None else values[counted]
        limits = clustering.unit_ranges(values, clusters=clusters, quantile=quantile)
        found[unit] = [(float(lower), float(upper)) for lower, upper in limits if lower < upper]
    return found


def _limits(ranges: Explanations | Mapping[int, Ranges]) -> dict[int, list[tuple[float, float]]]:
    if isinstance(ranges, Explanations):
        limits: dict[int, list[tuple[float, float]]] = {}
        for item in ranges:
            if item.range is not None:
                limits.setdefault(item.unit, []).append(item.range)
    else:
        limits = {int(unit): [(float(lower), float(upper)) for lower, upper in one] for unit, one in ranges.items()}
    limits = {unit: sorted(one) for unit, one in limits.items() if one}
    if not limits:
        remedy = "explain activations, or give {unit: [(lower, upper), ...]}"
        raise InputError("ranges", wanted="at least one range", got="none", remedy=remedy)
    return limits


def _check_units(limits: Mapping[int, Ranges], shape: Sequence[int], layer: str) -> None:
    if len(shape) < 2 or shape[1] <= max(limits):
        wanted = f"a layer that puts out unit {max(limits)} along axis 1"
        raise InputError("layer", wanted=wanted, got=f"{layer!r} with {list(shape)}", remedy="check the layer")
