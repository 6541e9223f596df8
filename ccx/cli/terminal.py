"""What the commands print: consoles, tables, and a word while kernels are compiled."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ccx.concepts import Concepts
from ccx.errors import visible
from ccx.evidence import evidence_cells
from ccx.formula import Formula
from ccx.pipeline.judging import explained_cells
from ccx.results import WIDE, Explanations, range_text

_PLAIN_WIDTH = 120  # columns of a file or pipe
_GAIN_STYLES = ((0.1, "bold green"), (0.03, "green"), (0.01, "yellow"))
STOPPED = 130  # exit status after a Ctrl-C, as of a shell


class Stopped(typer.Exit):
    """Ends the command after a Ctrl-C that it has told of."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


class VisibleConsole(Console):
    """A console that shows control characters in names and paths, and sends none but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Serve `rich.console.Console`."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


def output() -> Console:
    """Return the console of results: colors on a terminal only, and nothing read as markup."""
    return _console(stderr=False)


def errors() -> Console:
    """Return the console of notices and errors, on the standard error."""
    return _console(stderr=True)


def say(text: object) -> None:
    """Print a text, or a path, as one line on the console of results."""
    output().print(Text(str(text)), soft_wrap=True)


def notice(text: str, style: str = "") -> None:
    """Print a text as one line on the standard error."""
    errors().print(Text(text, style=style), soft_wrap=True)


@contextmanager
def resumable() -> Iterator[None]:
    """Say after a Ctrl-C in the block that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        notice("stopped; the same command goes on where it stopped")
        raise Stopped from error


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    return VisibleConsole(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def plain_in_files(table: Table, console: Console) -> Table:
    """Take the lines off a table that goes to a file or pipe."""
    if not console.is_terminal:
        table.box, table.pad_edge = None, False
    return table


def best_ranges(found: Explanations, concepts: Concepts, max_rows: int | None = None) -> Table:
    """Return a table of the best range per unit (`Explanations.best`), on a narrow terminal with fewer columns."""
    n_cells = explained_cells(found, concepts)
    chosen = found.best()
    n_ranges = Counter(item.unit for item in found)
    n_more = 0 if max_rows is None else max(0, len(chosen) - max_rows)
    table = Table(caption=f"... and {n_more} more" if n_more else None, box=None, header_style="dim", pad_edge=False)
    is_narrow = output().width < WIDE
    evidence = [one for one in found.evidence_headings if not is_narrow or one in ("p", "held out", "held out p")]
    score = [] if found.score_title == "IoU" else [found.score_title]
    for heading in ("unit", "gain", "IoU", *score, *evidence, *([] if is_narrow else ["cells"]), "range"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("formula", overflow="fold")
    for item in chosen[:max_rows]:
        gain = item.iou_gain
        style = next((style for least, style in _GAIN_STYLES if gain is not None and gain >= least), "dim")
        table.add_row(
            str(item.unit),
            Text("" if gain is None else f"{gain:.3f}", style=style),
            f"{item.iou:.3f}" if item.formula is not None else "",
            *([f"{item.score:.3f}" if item.formula is not None else ""] if score else []),
            *(evidence_cells(item.chance, item.held_out).get(heading, "") for heading in evidence),
            *([] if is_narrow else [f"{100 * item.bitmap_cells / n_cells:.1f} %"]),
            range_text(item, n_ranges[item.unit], has_ends=not is_narrow),
            formula_text(item.formula) if item.formula is not None else Text(f"[{item.status}]", style="dim italic"),
        )
    return table


def print_evidence_notes(found: Explanations) -> None:
    """Say below a table what its columns of evidence mean."""
    n = found.settings["permutations"]
    if n:
        words = f"null: the best scores with the samples exchanged, {n} times; no p is below {1 / (1 + n):.3g}"
        output().print(Text(words, "dim"))
    if found.settings["fit_samples"] is not None:
        words = "held out: IoU of the same formula and range on samples that they were not found on"
        output().print(Text(words, "dim"))


def formula_text(formula: Formula) -> Text:
    """Return a formula whose connectives stand back."""
    text = Text(str(formula))
    text.highlight_words([" AND NOT ", " AND ", " OR "], style="dim")
    return text


def writing_report() -> AbstractContextManager[object]:
    """Show on a terminal that the report is being written, which takes a while for many samples."""
    return errors().status("writing the report")


@contextmanager
def compile_notice() -> Iterator[None]:
    """Print a line when the first kernel is compiled in the block; with a filled cache none is."""
    from numba.core import event  # noqa: PLC0415 - slow to import, and not needed for --help

    class Notice(event.Listener):
        said = False

        def on_start(self, _event: Any) -> None:
            if not Notice.said:
                Notice.said = True
                errors().print("compiling kernels for this processor; later runs find them in numba's cache ...")

        def on_end(self, _event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Notice()):
        yield
