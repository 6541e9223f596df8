"""The application: its commands, and how errors, Ctrl-C and closed pipes end it."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from ccx import __version__
from ccx.cli import comparing, concept_commands, demo, download, explain_commands, probing, studies, terminal
from ccx.cli.setup import StudyCommand
from ccx.errors import CCXError
from ccx.jobs import interruptible

_UNWRITABLE = frozenset({errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE})


class _Commands(TyperGroup):
    """All commands; an error that ccx raised on purpose is one message and exit status 2, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CCXError as error:
            if ctx.params.get("debug"):
                raise
            terminal.errors().print(Text(f"error: {error}", style="red"), soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            terminal.errors().print("stopped")
            raise terminal.Stopped from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # The published scripts write --num_clusters.
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
    help="Exact logical explanations of neurons over human concepts.",
)
app.command()(demo.demo)
app.command()(explain_commands.explain)
app.command()(explain_commands.report)
app.command()(explain_commands.show)
app.command()(comparing.compare_searches)
app.command()(probing.probe)
# The studies, also under the names of the published scripts.
for _study, _script in (
    (studies.run, "run-clustering"),
    (studies.compare_heuristics, None),
    (studies.compare_thresholds, None),
    (studies.metrics, "compute-metrics"),
    (studies.ranges_importance, "compute-ranges-importance"),
    (studies.analyze_activations, None),
    (studies.images, "generate-images"),
):
    app.command(cls=StudyCommand, rich_help_panel="Studies of a network on a data set")(_study)
    if _script is not None:
        app.command(_script, cls=StudyCommand, hidden=True)(_study)
app.add_typer(concept_commands.app, name="concepts")
app.command()(download.download)


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.output().print(f"ccx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", envvar="CCX_DEBUG", help="Show tracebacks of errors.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line on ``sys.argv``."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process lives
    if sys.stdout is None:
        sys.exit("error: the standard output is closed; send it to a file or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # names of concepts need not fit the terminal's encoding
    try:
        with interruptible():
            app(prog_name="ccx")
    except KeyboardInterrupt as error:
        # Typer ends by itself where it is interrupted, and says nothing.
        if not isinstance(getattr(error.__cause__, "__context__", None), terminal.Stopped):
            terminal.errors().print("stopped")
        raise SystemExit(terminal.STOPPED) from None
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        # What is left in the buffers must not fail again when Python closes them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        is_gone = isinstance(error, BrokenPipeError)
        sys.exit(1 if is_gone else f"error: cannot write the standard output ({error.strerror}); send it elsewhere")
