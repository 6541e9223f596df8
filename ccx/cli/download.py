"""``ccx download``: fetch published data and weights, or any file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.table import Table
from rich.text import Text

from ccx.cli import terminal
from ccx.downloading import PUBLISHED, Progress
from ccx.downloading import download as load
from ccx.downloading import unpack as unpack_zip
from ccx.errors import InputError
from ccx.jobs import progress_reporter

_CAUTION = "The address was published with the paper. We have verified neither it nor what it serves."
_MEGABYTE = 1_000_000


def download(
    what: Annotated[
        str | None, typer.Argument(help="A published name or an address; without it, names are listed.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to write into.", file_okay=False)] = Path(),
    sha256: Annotated[str | None, typer.Option("--sha256", help="What the file must hash to.")] = None,
    unpack: Annotated[bool, typer.Option("--unpack/--no-unpack", help="Unpack .zip files.")] = True,
) -> None:
    """Download published data or weights; a download that was stopped goes on.

    The SHA-256 of a first download is recorded beside the file; the file must agree with it ever after.
    """
    console = terminal.output()
    if what is None:
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("name")
        table.add_column("address (not verified by us)", overflow="fold")
        for name, address in PUBLISHED.items():
            table.add_row(name, Text(address))
        console.print(table)
        return
    url = PUBLISHED.get(what, what)
    if "://" not in url:
        remedy = "run 'ccx download' for the names"
        raise InputError("WHAT", wanted="a published name or an address", got=repr(what), remedy=remedy)
    try:
        name = PurePosixPath(urlsplit(url).path).name
    except ValueError:  # brackets that belong to no IPv6 address
        name = ""
    if not name:
        raise InputError("WHAT", wanted="the address of a file", got=repr(url), remedy="add the file's name")
    if what in PUBLISHED and sha256 is None:
        terminal.errors().print(Text(_CAUTION, style="yellow"))
    try:
        with progress_reporter(None, f"{name} (MB)") as report:
            path = load(url, to / name, sha256=sha256, progress=_in_megabytes(report))
        console.print(Text(str(path)), soft_wrap=True)
        if unpack and path.suffix == ".zip":
            with progress_reporter(None, "unpacking (MB)") as report:
                folder = unpack_zip(path, progress=_in_megabytes(report))
            console.print(Text(str(folder)), soft_wrap=True)
    except KeyboardInterrupt as error:
        terminal.errors().print("stopped; the same command goes on where it stopped")
        raise terminal.Stopped from error


def _in_megabytes(report: Progress) -> Progress:
    return lambda done, total: report(done // _MEGABYTE, total // _MEGABYTE)
