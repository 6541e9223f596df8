"""The commands of the studies: they compute what is missing, print tables, and write them beside the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from rich.text import Text

from ccx import studies
from ccx.checks import choice
from ccx.cli import explain_commands, terminal
from ccx.cli.flags import option, with_options
from ccx.cli.setup import Setup
from ccx.errors import InputError, require_library
from ccx.studies import Experiment, Table

_N_ROWS = 40
_HEURISTICS = ("all", *studies.SEARCHES)


@with_options()
def run(
    setup: Setup,
    report: Annotated[bool, option("Write a report with pictures, too.")] = True,
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
        terminal.say(experiment.folder(layer) / "explanations.json")
        if report:
            with terminal.writing_report():
                path = experiment.report(layer)
            terminal.say(path)


@with_options(random_units=100, clusters=1)
def compare_heuristics(
    setup: Setup,
    heuristic: Annotated[str, option(f"One of {', '.join(_HEURISTICS)}.")] = "all",
    published: Annotated[bool, option("With the published rounding and ties, too.", None, "--published")] = False,
    figure: Annotated[bool, option("Draw heuristics.png, too.")] = True,
) -> None:
    """Compare what the heuristics save: time and formulas visited, of random units and ranges."""
    choice("--heuristic", heuristic, _HEURISTICS, "see --help", " or ".join(_HEURISTICS))
    if figure:
        require_library("matplotlib", "plot", "the figure (--no-figure leaves it out)")
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
        tables = {"heuristics": compared.summary, "heuristics_runs": compared.runs}
        _publish(setup, experiment, layer, tables, {"heuristics.png": compared.plot} if figure else {})


@with_options(random_units=50)
def compare_thresholds(
    setup: Setup,
    filename_figure: Annotated[Path, option("The figure, in the folder of results.")] = Path("grid_threshold.png"),
    figure: Annotated[bool, option("Draw it.")] = True,
) -> None:
    """Explain units at eleven quantiles, and count the categories that their formulas name."""
    if figure:
        require_library("matplotlib", "plot", "the figure (--no-figure leaves it out)")
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
        tables = {"thresholds": compared.categories, "thresholds_units": compared.units}
        _publish(setup, experiment, layer, tables, {filename_figure: compared.plot} if figure else {})


@with_options()
def metrics(
    setup: Setup,
    masking: Annotated[bool, option("Concept masking, too, which runs the network.")] = True,
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
        tables = {"metrics": measured.summary, "metrics_units": measured.units}
        _publish(setup, experiment, layer, tables, shown=measured.overview)


@with_options()
def ranges_importance(
    setup: Setup,
    alone: Annotated[bool, option("Also for each unit and range alone.", None, "--alone")] = False,
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
        tables = {"ranges_importance": found.together}
        _publish(setup, experiment, layer, tables | ({"ranges_importance_units": found.alone} if alone else {}))


@with_options()
def analyze_activations(setup: Setup) -> None:
    """Compare a run with one of the untrained network: which formulas training brought about."""
    if setup.pretrained == "none":
        remedy = "name the weights of the trained network; the untrained one is run beside it"
        raise InputError("--pretrained", wanted="trained weights", got="none", remedy=remedy)
    trained, untrained = setup.experiment(), setup.untrained()
    for layer in trained.layers:
        found = studies.analyze_activations(trained.found(layer), untrained.found(layer))
        tables = {"specialization": found.shares, "specialization_units": found.units}
        _publish(setup, trained, layer, tables | {"specialization_defaults": found.defaults})


@with_options(random_units=100)
def images(
    setup: Setup,
    top_k: Annotated[int, option("Photographs per range.")] = 5,
    dir_images: Annotated[Path, option("Folder of the figures.")] = Path("figures/units"),
) -> None:
    """Draw a figure per unit: photographs on which it fires and its formula holds, all else black."""
    require_library("matplotlib", "plot", "ccx images")
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
        terminal.say(f"{len(paths)} figures in {folder}")


def _heading(experiment: Experiment, layer: str) -> None:
    network = experiment.network
    console = terminal.output()
    console.print()
    console.print(Text(f"{network.name} ({network.weights}), {layer}, on {experiment.name}", style="bold"))


def _publish(
    setup: Setup,
    experiment: Experiment,
    layer: str,
    tables: Mapping[str, Table],
    figures: Mapping[Any, Callable[[], object]] = MappingProxyType({}),
    shown: Table | None = None,
) -> None:
    """Show a table, the first unless another is given, and write all, and figures, beside the results of a layer."""
    with experiment.alone(layer) as folder:
        _heading(experiment, layer)
        shown = shown or next(iter(tables.values()))
        console = terminal.output()
        console.print(Text(shown.title, style="dim"))
        console.print(shown.to_rich())
        console.print()
        for name, table in tables.items():
            terminal.say(setup.write(folder, name, table))
        for name, plot in figures.items():
            studies.write_figure(plot(), folder / name)
            terminal.say(folder / name)
