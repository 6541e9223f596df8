"""``ccx compare-searches``: how often, and how far, a search falls short of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import ccx
from ccx.cli import files, options, terminal
from ccx.errors import InputError
from ccx.store import make_folder
from ccx.studies import Table

_N_ROWS = 10


def compare_searches(
    activations: Annotated[
        Path, typer.Argument(help="float[N, U, h, w], [N, U, T] or [N, U]: .npy, .npz, .safetensors.", exists=True)
    ],
    searches: Annotated[
        str, typer.Option("--searches", help="Two or more with commas between; the first is the reference.")
    ] = "optimal,beam",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for summary and rows.", file_okay=False)] = None,
    kind: Annotated[str, typer.Option("--format", help="Of both: csv or jsonl.")] = "csv",
    key: options.Key = None,
    keys: options.Keys = None,
    align: options.Align = None,
    labels: options.Labels = None,
    masks: options.Masks = None,
    concepts: options.ConceptsFile = None,
    names: options.Names = None,
    valid: options.Valid = None,
    clusters: options.Clusters = 5,
    quantile: options.Quantile = 0.005,
    clustering: options.Clustering = "optimal",
    ranges: options.Ranges = None,
    units: options.Units = None,
    length: options.Length = 3,
    beam: options.Beam = 5,
    scoring: options.Scoring = "iou",
    only: options.Only = None,
    category: options.Categories = None,
    length_penalty: options.LengthPenalty = 1.0,
    device: options.Device = "cpu",
    threads: options.Threads = None,
) -> None:
    """Explain the same units by several searches, and say how often and how far each falls short of the first."""
    chosen = [one.strip() for one in searches.split(",")]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        wanted = "two or more different searches"
        raise InputError("--searches", wanted=wanted, got=repr(searches), remedy="write them like optimal,beam")
    if kind not in ("csv", "jsonl"):
        raise InputError("--format", wanted="csv or jsonl", got=repr(kind), remedy="see --help")
    settings: dict[str, Any] = {
        "clusters": clusters,
        "quantile": quantile,
        "clustering": clustering,
        "ranges": options.parse_ranges(ranges),
        "units": options.parse_units(units),
        "length": length,
        "beam": beam,
        "scoring": scoring.replace("-", "_"),
        "names": only or None,
        "categories": category or None,
        "length_penalty": length_penalty,
    }
    if out is not None:
        make_folder(out)
    with terminal.compile_notice():
        values = files.read_activations(activations, key, keys)
        annotated = files.read_concepts(labels, masks, concepts, names, valid, threads)
        values, annotated, _ = files.paired(values, annotated, None, align)
        found = [
            ccx.explain(values, annotated, device=device, threads=threads, **settings | {"search": search})
            for search in chosen
        ]
    compared = [found[0].compare(one) for one in found[1:]]
    summary = Table.of(
        f"searches compared with {chosen[0]}",
        [{"search": search, **one.summary()} for search, one in zip(chosen[1:], compared, strict=True)],
    )
    console = terminal.output()
    console.print(f"{found[0].score_title} of each search beside that of {chosen[0]}")
    for search, one in zip(chosen[1:], compared, strict=True):
        console.print(f"{search}: {one.text()}")
    for search, one in zip(chosen[1:], compared, strict=True):
        if one.summary()["worse"] or one.summary()["better"]:
            console.print()
            console.print(f"where the score of {search} is another, with shortfall as a share of the higher score")
            console.print(one.table(_N_ROWS))
    if out is not None:
        rows = Table.of(
            "rows",
            [
                {"search": search, **record}
                for search, one in zip(chosen[1:], compared, strict=True)
                for record in one.to_records()
            ],
        )
        for name, table in (("summary", summary), ("rows", rows)):
            table.write(out / f"{name}.{kind}")
            console.print(Text(str(out / f"{name}.{kind}")), soft_wrap=True)
