"""``ccx demo``: explain the embedded data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import ccx
from ccx.cli import explain_commands, flags, terminal
from ccx.datasets import demo as data
from ccx.errors import InputError
from ccx.formula import equivalent, parse
from ccx.options import EvidenceOptions
from ccx.report import KnownUnit, write_report
from ccx.store import make_folder

_CAUTION = (
    "A dozen source photographs show the mechanics. They are no evidence about cats: "
    "a unit explained by 'cat' here likes something in one picture of one cat."
)


@flags.with_options(EvidenceOptions, without=("groups", "seed", "fit_samples", "test_samples"), permutations=39)
def demo(
    out: Annotated[Path, flags.option("Folder for report and JSON.", file_okay=False)] = Path("ccx-demo"),
    units: Annotated[int | None, flags.option("Only so many units.", min=1)] = None,
    threads: flags.Threads = None,
    *,
    permutations: int,
) -> None:
    """Explain units of a real network on embedded photographs, and one unit whose formula is known."""
    started = time.perf_counter()
    embedded = data.load()
    n_units = len(embedded.unit_ids)
    if units is not None and units > n_units:
        raise InputError("--units", wanted=f"at most {n_units}", got=str(units), remedy="leave it out for all")
    make_folder(out)
    console = terminal.output()
    console.print(f"{units or n_units} units of {embedded.layer}, on {len(embedded.jpegs)} mosaics of 12 photographs")
    console.print(Text(_CAUTION, style="yellow"))

    concepts = ccx.Concepts.from_label_maps(
        embedded.labels, embedded.names, categories=embedded.categories, threads=threads
    )
    found = ccx.explain(
        embedded.activations,
        concepts,
        units=None if units is None else range(units),
        permutations=permutations,
        threads=threads,
    )
    planted = KnownUnit(
        title="planted unit: nobody trained it; it fires exactly where its formula is true",
        formula=parse(embedded.planted_formula),
        found=ccx.explain(
            embedded.planted_activations,
            concepts,
            ranges=[embedded.planted_range],
            permutations=permutations,
            threads=threads,
            progress=False,
        ),
        activations=embedded.planted_activations,
    )
    found.save(out / "explanations.json")
    write_report(
        out / "report.html",
        found,
        concepts,
        activations=embedded.activations,
        images=embedded.images,
        title="ccx demo",
        notes=[f"{embedded.layer}, on {len(embedded.jpegs)} mosaics of 12 photographs.", _CAUTION],
        unit_names=[f"channel {channel}" for channel in embedded.unit_ids],
        known=[planted],
        threads=threads,
    )

    console.print()
    console.print(terminal.best_ranges(found, concepts))
    console.print(
        Text("the range of each unit with the largest gain: IoU beyond the share of cells that it holds", "dim")
    )
    terminal.print_evidence_notes(found)
    is_found = _print_check(planted)
    explain_commands.print_written(out, ["report.html", "explanations.json"], found, time.perf_counter() - started)
    if not is_found:
        raise typer.Exit(1)


def _print_check(planted: KnownUnit) -> bool:
    """Print what was planted and what was found; return whether they are the same."""
    best = planted.found.best()[0]
    is_found = best.formula is not None and equivalent(best.formula, planted.formula)
    console = terminal.output()
    console.print()
    console.print(Text(f"planted unit  true   {planted.formula}"))
    verdict = Text("  the same", style="bold green") if is_found else Text("  not the same", style="bold red")
    console.print(Text(f"              found  {best.formula}, IoU {best.iou:.3f}") + verdict)
    return is_found
