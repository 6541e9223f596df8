"""The commands of the studies: they compute what is missing, print tables, and write them beside the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ccx import studies
from ccx.cli import explain_commands, terminal
from ccx.cli.setup import Setup, require, study
from ccx.errors import InputError
from ccx.studies import Experiment, Table

_N_ROWS = 40
_HEURISTICS = ("all", *studies.SEARCHES)


@study()
def run(
    setup: Setup,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write a report with pictures, too.")] = True,
) -> None:
    """Explain the units of a network on a data set, and write results and a report.

    A run that was stopped goes on when the same command is given again.
    """
    experiment = setup.experiment()
    for layer in experiment.layers:
        found = experiment.found(layer)
        _heading(experiment, layer)
        console = terminal.output()
        console.print(terminal.best_ranges(found, experiment.concepts, _N_ROWS))
        console.print()
        console.print(explain_commands.summary(found))
        _say(experiment.folder(layer) / "explanations.json")
        if report:
            with terminal.writing_report():
                path = experiment.report(layer)
            _say(path)


@study(random_units=100, clusters=1)
def compare_heuristics(
    setup: Setup,
    heuristic: Annotated[str, typer.Option("--heuristic", help=f"One of {', '.join(_HEURISTICS)}.")] = "all",
    published: Annotated[bool, typer.Option("--published", help="With the published rounding and ties, too.")] = False,
    figure: Annotated[bool, typer.Option("--figure/--no-figure", help="Draw heuristics.png, too.")] = True,
) -> None:
    """Compare what the heuristics save: time and formulas visited, of random units and ranges."""
    if heuristic not in _HEURISTICS:
        raise InputError("--heuristic", wanted=" or ".join(_HEURISTICS), got=repr(heuristic), remedy="see --help")
    if figure:
        require("matplotlib", "plot", "the figure (--no-figure leaves it out)")
    experiment = setup.experiment()
    searches = studies.SEARCHES if heuristic == "all" else tuple(one for one in studies.SEARCHES if one == heuristic)
    for layer in experiment.layers:
        compared = studies.compare_heuristics(
            experiment.activations(layer),
            experiment.concepts,
            searches=searches,
            n_units=setup.random_units,
            clusters=setup.clusters,
            quantile=setup.quantile,
            length=setup.length,
            beam=setup.beam,
            published=published,
            seed=setup.seed,
            threads=setup.threads,
        )
        with experiment.alone(layer) as folder:
            _show(experiment, layer, compared.summary)
            _say(setup.write(folder, "heuristics", compared.summary))
            _say(setup.write(folder, "heuristics_runs", compared.runs))
            if figure:
                _draw(compared.plot(), folder / "heuristics.png")


@study(random_units=50)
def compare_thresholds(
    setup: Setup,
    filename_figure: Annotated[
        Path, typer.Option("--filename-figure", help="The figure, in the folder of results.")
    ] = Path("grid_threshold.png"),
    figure: Annotated[bool, typer.Option("--figure/--no-figure", help="Draw it.")] = True,
) -> None:
    """Explain units at eleven quantiles, and count the categories that their formulas name."""
    if figure:
        require("matplotlib", "plot", "the figure (--no-figure leaves it out)")
    experiment = setup.experiment()
    for layer in experiment.layers:
        compared = studies.compare_thresholds(
            experiment.activations(layer),
            experiment.concepts,
            units=experiment.units(layer),
            length=setup.length,
            beam=setup.beam,
            search=setup.search,
            threads=setup.threads,
        )
        with experiment.alone(layer) as folder:
            _show(experiment, layer, compared.categories)
            _say(setup.write(folder, "thresholds", compared.categories))
            _say(setup.write(folder, "thresholds_units", compared.units))
            if figure:
                _draw(compared.plot(), folder / filename_figure)


@study()
def metrics(
    setup: Setup,
    masking: Annotated[
        bool, typer.Option("--masking/--no-masking", help="Concept masking, too, which runs the network.")
    ] = True,
) -> None:
    """Measure the explanations of a run by all published metrics."""
    experiment = setup.experiment()
    for layer in experiment.layers:
        found, activations = experiment.found(layer), experiment.activations(layer)
        score = None
        if masking:
            size = experiment.network.preprocessing.size
            module, batches, concepts = experiment.network.module, experiment.batches, experiment.concepts
            score = studies.concept_masking(module, batches, layer, activations, concepts, size, seed=setup.seed)
        measured = studies.metrics(found, activations, experiment.concepts, masking=score, threads=setup.threads)
        with experiment.alone(layer) as folder:
            _show(experiment, layer, measured.overview)
            _say(setup.write(folder, "metrics", measured.summary))
            _say(setup.write(folder, "metrics_units", measured.units))


@study()
def ranges_importance(
    setup: Setup,
    alone: Annotated[bool, typer.Option("--alone", help="Also for each unit and range alone.")] = False,
) -> None:
    """Count the predictions that change when the activations in a range are set to 0."""
    experiment = setup.experiment()
    for layer in experiment.layers:
        ranges = studies.unit_ranges(
            experiment.activations(layer),
            experiment.units(layer),
            concepts=experiment.concepts,
            clusters=setup.clusters,
            quantile=setup.quantile,
        )
        found = studies.ranges_importance(experiment.network.module, experiment.batches, layer, ranges, alone=alone)
        with experiment.alone(layer) as folder:
            _show(experiment, layer, found.together)
            _say(setup.write(folder, "ranges_importance", found.together))
            if alone:
                _say(setup.write(folder, "ranges_importance_units", found.alone))


@study()
def analyze_activations(setup: Setup) -> None:
    """Compare a run with one of the untrained network: which formulas training brought about."""
    if setup.pretrained == "none":
        remedy = "name the weights of the trained network; the untrained one is run beside it"
        raise InputError("--pretrained", wanted="trained weights", got="none", remedy=remedy)
    trained, untrained = setup.experiment(), setup.untrained()
    for layer in trained.layers:
        found = studies.analyze_activations(trained.found(layer), untrained.found(layer))
        with trained.alone(layer) as folder:
            _show(trained, layer, found.shares)
            _say(setup.write(folder, "specialization", found.shares))
            _say(setup.write(folder, "specialization_units", found.units))
            _say(setup.write(folder, "specialization_defaults", found.defaults))


@study(random_units=100)
def images(
    setup: Setup,
    top_k: Annotated[int, typer.Option("--top-k", help="Photographs per range.")] = 5,
    dir_images: Annotated[Path, typer.Option("--dir-images", help="Folder of the figures.")] = Path("figures/units"),
) -> None:
    """Draw a figure per unit: photographs on which it fires and its formula holds, all else black."""
    require("matplotlib", "plot", "ccx images")
    experiment = setup.experiment()
    for layer in experiment.layers:
        found = experiment.found(layer)
        folder = dir_images if len(experiment.layers) == 1 else dir_images / layer
        paths = studies.images(
            found,
            experiment.activations(layer),
            experiment.concepts,
            experiment.data.images,
            folder,
            top_k=top_k,
            units=found.units,
            seed=setup.seed,
        )
        terminal.output().print(Text(f"{len(paths)} figures in {folder}"), soft_wrap=True)


def _heading(experiment: Experiment, layer: str) -> None:
    network = experiment.network
    console = terminal.output()
    console.print()
    console.print(Text(f"{network.name} ({network.weights}), {layer}, on {experiment.name}", style="bold"))


def _show(experiment: Experiment, layer: str, table: Table) -> None:
    _heading(experiment, layer)
    console = terminal.output()
    console.print(Text(table.title, style="dim"))
    console.print(table.to_rich())
    console.print()


def _draw(figure: object, path: Path) -> None:
    studies.write_figure(figure, path)
    _say(path)


def _say(path: Path) -> None:
    terminal.output().print(Text(str(path)), soft_wrap=True)
