"""``ccx explain``, ``report`` and ``show``: explain units from files, and look at what was found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import ccx
from ccx.cli import files, options, terminal
from ccx.report import write_report

_N_ROWS = 40
RunPath = Annotated[Path, typer.Argument(help="A run folder, or a file of explanations.", exists=True, metavar="RUN")]


def explain(
    activations: Annotated[
        Path, typer.Argument(help="float[N, U, h, w], [N, U, T] or [N, U]: .npy, .npz, .safetensors.", exists=True)
    ],
    out: Annotated[Path, typer.Option("--out", help="Run folder for rows, JSON and report.", file_okay=False)],
    key: options.Key = None,
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
    search: options.Search = "beam",
    published: options.Published = False,
    only: options.Only = None,
    category: options.Categories = None,
    candidates: options.Candidates = None,
    length_penalty: options.LengthPenalty = 1.0,
    top: options.Top = 1,
    min_iou: options.MinIou = 0.0,
    threads: options.Threads = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html too.")] = True,
    images: options.Images = None,
) -> None:
    """Explain units from files: print the best range of each, write JSON and a report.

    A run that was stopped goes on when the same command is given again.
    """
    settings: dict[str, Any] = {
        "clusters": clusters,
        "quantile": quantile,
        "clustering": clustering,
        "ranges": options.parse_ranges(ranges),
        "units": options.parse_units(units),
        "length": length,
        "beam": beam,
        "search": search,
        "published": published,
        "names": only or None,
        "categories": category or None,
        "candidates": candidates,
        "length_penalty": length_penalty,
        "top": top,
        "min_iou": min_iou,
    }
    started = time.perf_counter()
    with terminal.compile_notice():
        values = files.read_array(activations, "activations", key)
        annotated = files.read_concepts(labels, masks, concepts, names, valid, threads)
        photographs = None if images is None else files.read_images(images, annotated.n_samples)
        try:
            found = ccx.explain(values, annotated, threads=threads, out=out, **settings)
        except KeyboardInterrupt as error:
            terminal.errors().print("stopped; the same command goes on where it stopped")
            raise typer.Exit(130) from error
        found.save(out / "explanations.json")
        written = ["explanations.json"]
        if report:
            title = f"What the units of {activations.name} respond to"
            with terminal.writing_report():
                write_report(
                    out / "report.html",
                    found,
                    annotated,
                    activations=values,
                    images=photographs,
                    title=title,
                    threads=threads,
                )
            written.append("report.html")
    console = terminal.output()
    console.print(terminal.best_ranges(found, annotated, _N_ROWS))
    print_written(out, written, found, time.perf_counter() - started)


def report(
    run: RunPath,
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file; by default in or beside RUN.")] = None,
    labels: options.Labels = None,
    masks: options.Masks = None,
    concepts: options.ConceptsFile = None,
    names: options.Names = None,
    valid: options.Valid = None,
    activations: Annotated[
        Path | None, typer.Option("--activations", help="What was explained, for pictures.", exists=True)
    ] = None,
    key: options.Key = None,
    images: options.Images = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the report.")] = "What the units respond to",
    threads: options.Threads = None,
) -> None:
    """Write the report of a run, with the concepts that it was given."""
    found = ccx.load(run)
    target = out or (run / "report.html" if run.is_dir() else run.with_suffix(".html"))
    with terminal.compile_notice():
        values = None if activations is None else files.read_array(activations, "activations", key)
        annotated = files.read_concepts(labels, masks, concepts, names, valid, threads)
        photographs = None if images is None else files.read_images(images, annotated.n_samples)
        with terminal.writing_report():
            write_report(target, found, annotated, activations=values, images=photographs, title=title, threads=threads)
    terminal.output().print(Text(str(target)), soft_wrap=True)


def show(
    run: RunPath,
    unit: Annotated[int | None, typer.Option("--unit", help="Only this unit.")] = None,
    rows: Annotated[int, typer.Option("--rows", help="Most rows; 0 = all.", min=0)] = _N_ROWS,
) -> None:
    """Print what a run found, also while it goes on."""
    found = ccx.load(run)
    if unit is not None:
        found = found.of_unit(unit)
    console = terminal.output()
    console.print(found.table(rows or None))
    console.print(_summary(found))


def print_written(folder: Path, names: list[str], found: ccx.Explanations, seconds: float) -> None:
    """Say what was found, in what time, and where it was written."""
    console = terminal.output()
    console.print()
    console.print(f"{_summary(found)}, in {seconds:.1f} s")
    for name in names:
        console.print(Text(str(folder / name)), soft_wrap=True)


def _summary(found: ccx.Explanations) -> str:
    numbers = found.summary()
    n_explained = numbers["statuses"].get(ccx.Status.EXPLAINED, 0)
    text = f"{n_explained} of {len(found)} ranges of {numbers['units']} units explained"
    return text if numbers["median_iou"] is None else f"{text}, median IoU {numbers['median_iou']:.3f}"
