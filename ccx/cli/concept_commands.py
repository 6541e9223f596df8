"""``ccx concepts``: build, describe and check files of concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from ccx.cli import flags, input_files, terminal
from ccx.cli.data_specs import FORMS, open_data
from ccx.cli.flags import option
from ccx.concepts import Concepts
from ccx.datasets import token_concepts
from ccx.errors import InputError, visible
from ccx.store import write_text

_DATA = "Data sets of files"

app = typer.Typer(no_args_is_help=True, help="Build, describe and check files of concepts.")
ConceptsPath = Annotated[Path, typer.Argument(help="A file of 'ccx concepts build'.", exists=True, dir_okay=False)]


@app.command()
def build(
    out: Annotated[Path, option("The file to write.", dir_okay=False)],
    labels: flags.Labels = None,
    masks: flags.Masks = None,
    names: flags.Names = None,
    valid: flags.Valid = None,
    keys: Annotated[
        Path | None, option("Keys of the samples: a .txt with one per line, or a .json list.", exists=True)
    ] = None,
    data: Annotated[str | None, option(f"A data set of files: {FORMS}.", _DATA)] = None,
    tokens: Annotated[Path | None, option("Texts: a .csv of sample,position,concept.", _DATA, exists=True)] = None,
    lengths: Annotated[Path | None, option("Tokens of each text, int[N].", _DATA, exists=True)] = None,
    grid: Annotated[str | None, option("Cells of --data: 112 or 112x112 (height, width).", _DATA)] = None,
    colors: Annotated[bool, option("Name the colors of --data, too.", _DATA, "--colors")] = False,
    image_list: Annotated[Path | None, option("Write the images of --data, in order.", _DATA, dir_okay=False)] = None,
    workers: Annotated[int | None, option("Processes that read --data.", _DATA)] = None,
    threads: flags.Threads = None,
) -> None:
    """Build a concepts file from label maps, masks, a data set of files, or a table of tokens.

    With --data, a run that was stopped goes on when the same command is given again.
    """
    if [labels, masks, data, tokens].count(None) != 3:
        remedy = "say where the concepts come from"
        got = "several" if any((labels, masks, data, tokens)) else "none"
        raise InputError("concepts", wanted="one of --labels, --masks, --data and --tokens", got=got, remedy=remedy)
    if keys is not None and data is not None:
        remedy = "leave it out: its images are called by their paths"
        raise InputError("--keys", wanted="no --keys beside --data", got="both", remedy=remedy)
    with terminal.compile_notice():
        if data is not None:
            concepts = _of_data(data, out, grid, colors, image_list, workers)
        elif tokens is not None:
            counts = None if lengths is None else input_files.read_array(lengths, "lengths")
            known = None if keys is None else input_files.read_keys(keys)
            concepts = token_concepts(tokens, names, keys=known, lengths=counts, threads=threads)
            concepts.save(out)
        else:
            concepts = input_files.read_concepts(
                flags.Inputs(labels=labels, masks=masks, names=names, valid=valid, threads=threads), keys
            )
            concepts.save(out)
    console = terminal.output()
    console.print(_description(concepts))
    terminal.say(out)


def _of_data(
    data: str, out: Path, grid: str | None, colors: bool, image_list: Path | None, workers: int | None
) -> Concepts:
    """Build the concepts of a data set of files, and write both files."""
    shape = None if grid is None else flags.parse_size(grid, "--grid")
    dataset = open_data(data)
    if colors:
        dataset = dataset.with_colors()
    with terminal.resumable():
        concepts = dataset.concepts(shape, workers=workers, out=out)
    if image_list is not None:
        write_text(image_list, "".join(f"{name}\n" for name in dataset.image_names))
    return concepts


@app.command()
def info(
    file: ConceptsPath,
    rows: Annotated[int, option("So many of the largest concepts; 0 = all.", min=0)] = 20,
) -> None:
    """Describe a concepts file: grid, size, and its largest concepts."""
    concepts = Concepts.load(file)
    console = terminal.output()
    console.print(_description(concepts))
    console.print(f"{concepts.n_cells:,} valid cells, content hash {concepts.content_hash}")
    if concepts.keys is not None:
        last = "" if concepts.n_samples == 1 else f" to {concepts.keys[-1]}"
        terminal.say(f"samples with keys, {concepts.keys[0]}{last}")
    order = np.argsort(-concepts.sizes, kind="stable")[: rows or None]
    n_more = concepts.n_concepts - len(order)
    table = Table(box=None, header_style="dim", pad_edge=False, caption=f"... and {n_more} more" if n_more else None)
    table.add_column("id", justify="right")
    table.add_column("concept", overflow="fold")
    table.add_column("category", overflow="fold")
    table.add_column("cells", justify="right")
    table.add_column("share", justify="right")
    for index in order:
        cells = int(concepts.sizes[index])
        category = concepts.categories[index] if concepts.categories is not None else ""
        share = f"{100 * cells / max(concepts.n_cells, 1):.2f} %"
        name, category = visible(concepts.names[index]), visible(category)
        table.add_row(str(index + 1), Text(name), Text(category), f"{cells:,}", share)
    console.print(table)


@app.command()
def validate(file: ConceptsPath) -> None:
    """Check every invariant of a concepts file, and its content hash."""
    Concepts.load(file).validate()
    terminal.say(f"{file}: valid")


def _description(concepts: Concepts) -> str:
    return repr(concepts).strip("<>").removeprefix("Concepts: ")
