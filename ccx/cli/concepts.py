"""``ccx concepts``: build, describe and check files of concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from ccx.cli import files, options, terminal
from ccx.concepts import Concepts

app = typer.Typer(no_args_is_help=True, help="Build, describe and check files of concepts.")
ConceptsPath = Annotated[Path, typer.Argument(help="A file of 'ccx concepts build'.", exists=True, dir_okay=False)]


@app.command()
def build(
    out: Annotated[Path, typer.Option("--out", help="The file to write.", dir_okay=False)],
    labels: options.Labels = None,
    masks: options.Masks = None,
    names: options.Names = None,
    valid: options.Valid = None,
    threads: options.Threads = None,
) -> None:
    """Build a concepts file from label maps or masks."""
    with terminal.compile_notice():
        concepts = files.read_concepts(labels, masks, None, names, valid, threads)
    concepts.save(out)
    console = terminal.output()
    console.print(_description(concepts))
    console.print(Text(str(out)), soft_wrap=True)


@app.command()
def info(
    file: ConceptsPath,
    rows: Annotated[int, typer.Option("--rows", help="So many of the largest concepts; 0 = all.", min=0)] = 20,
) -> None:
    """Describe a concepts file: grid, size, and its largest concepts."""
    concepts = Concepts.load(file)
    console = terminal.output()
    console.print(_description(concepts))
    console.print(f"{concepts.n_cells:,} valid cells, content hash {concepts.content_hash}")
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
        table.add_row(str(index + 1), Text(concepts.names[index]), Text(category), f"{cells:,}", share)
    console.print(table)


@app.command()
def validate(file: ConceptsPath) -> None:
    """Check every invariant of a concepts file, and its content hash."""
    Concepts.load(file).validate()
    terminal.output().print(Text(f"{file}: valid"), soft_wrap=True)


def _description(concepts: Concepts) -> str:
    return repr(concepts).strip("<>").removeprefix("Concepts: ")
