"""``ccx compare-searches``: how often, and how far, a search falls short of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import ccx
from ccx.checks import choice
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
    activations: flags.ActivationsFile,
    inputs: flags.Inputs,
    searches: Annotated[
        str, flags.option("Two or more with commas between; the first is the reference.")
    ] = "optimal,beam",
    out: Annotated[Path | None, flags.option("Folder for summary and rows.", file_okay=False)] = None,
    kind: Annotated[str, flags.option("Of both: csv or jsonl.", None, "--format")] = "csv",
    device: flags.Device = "cpu",
    **settings: Any,
) -> None:
    """Explain the same units by several searches, and say how often and how far each falls short of the first."""
    chosen = [one.strip() for one in searches.split(",")]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        wanted = "two or more different searches"
        raise InputError("--searches", wanted=wanted, got=repr(searches), remedy="write them like optimal,beam")
    choice("--format", kind, ("csv", "jsonl"), "see --help", "csv or jsonl")
    if out is not None:
        make_folder(out)
    values = input_files.read_activations(activations, inputs.key, inputs.keys)
    values, annotated, _ = input_files.paired(values, input_files.read_concepts(inputs), None, inputs.align)
    found = [
        ccx.explain(values, annotated, device=device, threads=inputs.threads, **settings | {"search": search})
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
            terminal.say(out / f"{name}.{kind}")
