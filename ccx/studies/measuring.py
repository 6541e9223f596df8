"""The published metrics of explanations, with their means and deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccx.concepts import Concepts
from ccx.jobs import Progress, progress_reporter
from ccx.kernels.activations import as_maps
from ccx.keys import require_same_samples
from ccx.metrics import METRICS, get_concept_masking, measure
from ccx.results import Explanation, Explanations
from ccx.studies.table import Table, finite, mean_and_deviation

MASKING = "concept_masking"
_LEADING = ("unit", "range_index", "lower", "upper", "formula")


@dataclass(frozen=True, slots=True)
class Metrics:
    """What `metrics` measured.

    Attributes
    ----------
    summary
        Mean and deviation of each metric, in all and by range, over the explanations that have a formula.
    units
        Every metric of every explanation.

    """

    summary: Table
    units: Table

    @property
    def overview(self) -> Table:
        """The means by metric and range: one row per metric, with the deviation over all ranges."""
        rows: dict[str, list[float | None]] = {}
        for record in self.summary:
            numbers = [record["mean"], record["sd"]] if record["range"] == "all" else [record["mean"]]
            rows.setdefault(record["metric"], []).extend(numbers)
        ranges = [name for name in dict.fromkeys(self.summary.column("range")) if name != "all"]
        columns = ("metric", "mean", "sd", *(f"range {name}" for name in ranges))
        return Table("mean of each metric", columns, tuple((name, *numbers) for name, numbers in rows.items()))


def metrics(
    found: Explanations,
    activations: Any,
    concepts: Concepts,
    *,
    masking: Callable[[Explanation], float] | None = None,
    threads: int | None = None,
    progress: Progress | bool | None = None,
) -> Metrics:
    """Measure explanations by all published metrics (docs/metrics.md).

    Parameters
    ----------
    found
        What `ccx.explain` returned.
    activations
        What it was given.
    concepts
        `Concepts` of the same samples.
    masking
        Also the score of concept masking, which runs the model: see `concept_masking`.
    threads, progress
        As for `ccx.explain`.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`) as `ccx.metrics.measure`.

    """
    items = list(found)
    with progress_reporter(progress, "measuring") as report:
        records = measure(items, activations, concepts, threads=threads, progress=report)
    names = list(METRICS)
    if masking is not None:
        names.append(MASKING)
        for item, record in zip(items, records, strict=True):
            record[MASKING] = None if item.formula is None else float(masking(item))
    explained = [record for record in records if record["formula"] is not None]
    numbers = sorted({record["range_index"] for record in explained})
    groups = [("all", explained)]
    groups += [(str(k), [record for record in explained if record["range_index"] == k]) for k in numbers]
    rows = [
        (name, range_, len(group), *mean_and_deviation(record[name] for record in group))
        for name in names
        for range_, group in groups
    ]
    for record in records:
        record |= {name: finite(record[name]) for name in ("lower", "upper")}
    return Metrics(
        Table("metrics of explanations", ("metric", "range", "explanations", "mean", "sd"), tuple(rows)),
        Table.of("metrics of each explanation", records, (*_LEADING, *names)),
    )


def concept_masking(
    model: Any,
    loader: Iterable[Any],
    layer: str,
    activations: Any,
    concepts: Concepts,
    input_size: int | tuple[int, int],
    *,
    seed: int = 0,
) -> Callable[[Explanation], float]:
    """Return what scores an explanation by concept masking (`ccx.metrics.get_concept_masking`), for `metrics`.

    Parameters
    ----------
    model, loader, layer
        The network, and its normalised images in the order of the activations; the loader is read once per explanation.
    activations
        float[N, U, ...] of the layer, for these images.
    concepts
        `Concepts` of the same samples.
    input_size
        Side of the images, or (height, width).
    seed
        Of the noise.

    Raises
    ------
    InputError
        If activations or loader know the keys of their samples, and these are not those of the concepts.

    """
    require_same_samples("activations", activations, concepts)
    require_same_samples("loader", loader, concepts)
    counted = concepts.valid_positions(as_maps(activations, concepts.n_samples, concepts.shape).shape[2:])

    def score(item: Explanation) -> float:
        if item.formula is None or item.range is None:
            return 0.0
        before = activations[:, item.unit]
        if counted is not None:  # NaN lies in no range
            before = np.where(counted.reshape(before.shape), before, np.float32(np.nan))
        return float(
            get_concept_masking(
                unit=item.unit,
                activations=before,
                activation_range=item.range,
                label_mask=concepts.mask(item.formula),
                mask_shape=concepts.shape,
                layer_name=layer,
                model=model,
                loader=loader,
                input_size=input_size,
                rng=seed,
            )
        )

    return score
