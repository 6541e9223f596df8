"""``ccx compare-searches``: how often, and how far, a search falls short of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import ccx
from ccx.cli import flags, input_files, terminal
from ccx.errors import InputError
from ccx.options import RangeOptions, SearchOptions
from ccx.store import make_folder
from ccx.studies import Table

_N_ROWS = 10


@flags.with_options(
    RangeOptions,
    SearchOptions,
    without=("search", "published", "candidates", "top", "min_iou", "time_limit", "evaluation_limit"),
)
def compare_searches(
    activations: Annotated[
        Path, typer.Argument(help="float[N, U, h, w], [N, U, T] or [N, U]: .npy, .npz, .safetensors.", exists=True)
    ],
    searches: Annotated[
        str, typer.Option("--searches", help="Two or more with commas between; the first is the reference.")
    ] = "optimal,beam",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for summary and rows.", file_okay=False)] = None,
    kind: Annotated[str, typer.Option("--format", help="Of both: csv or jsonl.")] = "csv",
    key: flags.Key = None,
    keys: flags.Keys = None,
    align: flags.Align = None,
    labels: flags.Labels = None,
    masks: flags.Masks = None,
    concepts: flags.ConceptsFile = None,
    names: flags.Names = None,
    valid: flags.Valid = None,
    device: flags.Device = "cpu",
    threads: flags.Threads = None,
    **settings: Any,
) -> None:
    """Explain the same units by several searches, and say how often and how far each falls short of the first."""
    chosen = [one.strip() for one in searches.split(",")]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        wanted = "two or more different searches"
        raise InputError("--searches", wanted=wanted, got=repr(searches), remedy="write them like optimal,beam")
    if kind not in ("csv", "jsonl"):
        raise InputError("--format", wanted="csv or jsonl", got=repr(kind), remedy="see --help")
    if out is not None:
        make_folder(out)
    with terminal.compile_notice():
        values = input_files.read_activations(activations, key, keys)
        annotated = input_files.read_concepts(labels, masks, concepts, names, valid, threads)
        values, annotated, _ = input_files.paired(values, annotated, None, align)
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
