"""``ccx explain``, ``report`` and ``show``: explain units from files, and look at what was found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
import typer

import ccx
from ccx.cli import flags, input_files, terminal
from ccx.errors import CCXError, InputError
from ccx.options import EvidenceOptions, RangeOptions, SearchOptions
from ccx.report import report_path, write_report
from ccx.results import ROW_KEYS
from ccx.store import content_hash, read_run

_N_ROWS = 40
RunPath = Annotated[Path, typer.Argument(help="A run folder, or a file of explanations.", exists=True, metavar="RUN")]


@flags.with_options(RangeOptions, SearchOptions, EvidenceOptions)
def explain(
    context: typer.Context,
    activations: flags.ActivationsFile,
    inputs: flags.Inputs,
    out: Annotated[Path, flags.option("Run folder for rows, JSON and report.", file_okay=False)],
    exclude: flags.Exclude = None,
    device: flags.Device = "cpu",
    report: Annotated[
        bool, flags.option("Write a report too: report.html, or a folder for more than 100 units.")
    ] = True,
    images: flags.Images = None,
    **settings: Any,
) -> None:
    """Explain units from files: print the best range of each, write JSON and a report.

    A run that was stopped goes on when the same command is given again.
    """
    if settings["ranges"]:
        _refuse_beside_ranges(context)
    groups, fit, test = (settings[name] for name in ("groups", "fit_samples", "test_samples"))
    settings["groups"] = None if groups is None else input_files.read_labels(groups)
    settings["fit_samples"] = input_files.read_samples(fit, "--fit-samples")
    settings["test_samples"] = input_files.read_samples(test, "--test-samples")
    started = time.perf_counter()
    values = input_files.read_activations(activations, inputs.key, inputs.keys)
    given = input_files.read_concepts(inputs)
    photographs = input_files.read_images(images) if images is not None and report else None
    values, annotated, photographs = input_files.paired(values, given, photographs, inputs.align)
    if annotated.n_samples < given.n_samples and (groups, fit, test) != (None, None, None):
        wanted, remedy = "no --groups, --fit-samples or --test-samples", "these count samples, and some are left out"
        raise InputError("--align shared", wanted=wanted, got="one", remedy=remedy)
    left_out = None if exclude is None else _left_out(exclude, annotated, inputs.align)
    if photographs is not None:
        input_files.check_images(photographs)
    n_stored = _n_stored(out)
    threads = inputs.threads
    with terminal.resumable():
        found = ccx.explain(values, annotated, exclude=left_out, device=device, threads=threads, out=out, **settings)
    if left_out is not None:
        annotated = annotated.excluding(left_out, threads=threads)
    found.save(out / "explanations.json")
    written = ["explanations.json"]
    if report:
        written.append(report_path("", found).name)
        title = f"What the units of {activations.name} respond to"
        path = out / written[-1]
        with terminal.writing_report():
            write_report(path, found, annotated, activations=values, images=photographs, title=title, threads=threads)
    console = terminal.output()
    console.print(terminal.best_ranges(found, annotated, _N_ROWS))
    terminal.print_evidence_notes(found)
    print_written(out, written, found, time.perf_counter() - started)
    if 0 < n_stored == len(found):
        terminal.say(f"nothing left to do: read from {out}")


def _left_out(path: Path, concepts: ccx.Concepts, align: str | None) -> npt.NDArray[Any]:
    """Read the positions to leave out; refuse flags of each sample where samples are put into another order."""
    flags = input_files.read_array(path, "exclude")
    if align is not None and flags.ndim > 1 + (concepts.shape[0] > 1):
        wanted, remedy = "[h, w] or [T] beside --align", "bring activations and flags into one order first"
        raise InputError("--exclude", wanted=wanted, got="flags of each sample", remedy=remedy)
    return flags


def _refuse_beside_ranges(context: typer.Context) -> None:
    """Raise if an option that says how to find ranges is given beside ``--range``."""
    for name in ("clusters", "quantile", "clustering"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            remedy = f"leave out --{name}, as the ranges are given"
            raise InputError("--range", wanted=f"no --{name} beside it", got="both", remedy=remedy)


def _n_stored(folder: Path) -> int:
    """Return how many explanations a run folder has; of one that is none or damaged, 0."""
    try:
        return len(ccx.load(folder)) if folder.is_dir() else 0
    except CCXError:
        return 0  # what is wrong, ccx.explain says


@flags.with_options()
def report(
    run: RunPath,
    inputs: flags.Inputs,
    out: Annotated[
        Path | None, flags.option("The HTML file, or a folder for a page per unit; by default in or beside RUN.")
    ] = None,
    exclude: flags.Exclude = None,
    activations: Annotated[Path | None, flags.option("What was explained, for pictures.", exists=True)] = None,
    images: flags.Images = None,
    title: Annotated[str, flags.option("Heading of the report.")] = "What the units respond to",
) -> None:
    """Write the report of a run, with the concepts that it was given."""
    found = ccx.load(run)
    target = out or (report_path(run, found) if run.is_dir() else run.with_suffix(".html"))
    values = None if activations is None else input_files.read_activations(activations, inputs.key, inputs.keys)
    annotated = input_files.read_concepts(inputs)
    photographs = None if images is None else input_files.read_images(images)
    values, annotated, photographs = input_files.paired(values, annotated, photographs, inputs.align)
    if values is not None and run.is_dir():
        _check_explained(run, values)
    if exclude is not None:
        annotated = annotated.excluding(_left_out(exclude, annotated, inputs.align), threads=inputs.threads)
    with terminal.writing_report():
        write_report(
            target, found, annotated, activations=values, images=photographs, title=title, threads=inputs.threads
        )
    terminal.say(target)


def _check_explained(run: Path, activations: npt.NDArray[Any]) -> None:
    """Raise if activations are not those that a run folder was made from; only then does it hold another hash."""
    explained = read_run(run, ROW_KEYS)[0]["hashes"].get("activations")
    if explained is None:
        return
    shape = activations.shape
    hashed = content_hash({"activations": activations.reshape(*shape[:2], *(1,) * (4 - len(shape)), *shape[2:])})
    if hashed != explained:
        wanted, remedy = f"those that were explained (content {explained})", "give the same activations as to explain"
        raise InputError("--activations", wanted=wanted, got=f"content {hashed}", remedy=remedy)


def show(
    run: RunPath,
    unit: Annotated[int | None, flags.option("Only this unit.")] = None,
    rows: Annotated[int, flags.option("Most rows; 0 = all.", min=0)] = _N_ROWS,
) -> None:
    """Print what a run found, also while it goes on."""
    found = ccx.load(run)
    if unit is not None:
        found = found.of_unit(unit)
    console = terminal.output()
    console.print(terminal.plain_in_files(found.table(rows or None, console.width), console))
    console.print(summary(found))


def print_written(folder: Path, names: list[str], found: ccx.Explanations, seconds: float) -> None:
    """Say what was found, in what time, and where it was written."""
    console = terminal.output()
    console.print()
    console.print(f"{summary(found)}, in {seconds:.1f} s")
    for name in names:
        terminal.say(folder / name)


def summary(found: ccx.Explanations) -> str:
    """Return how many ranges were explained, and the median IoU."""
    numbers = found.summary()
    n_explained = numbers["statuses"].get(ccx.Status.EXPLAINED, 0)
    text = f"{n_explained} of {len(found)} ranges of {numbers['units']} units explained"
    return text if numbers["median_iou"] is None else f"{text}, median IoU {numbers['median_iou']:.3f}"
