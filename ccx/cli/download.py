"""``ccx download``: fetch published data and weights, or any file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.table import Table
from rich.text import Text

from ccx.cli import flags, terminal
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
    to: Annotated[Path, flags.option("Folder to write into.", file_okay=False)] = Path(),
    sha256: Annotated[str | None, flags.option("What the file must hash to.")] = None,
    unpack: Annotated[bool, flags.option("Unpack .zip files.")] = True,
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
        terminal.notice(_CAUTION, "yellow")
    with terminal.resumable():
        with progress_reporter(None, f"{name} (MB)") as report:
            path = load(url, to / name, sha256=sha256, progress=_in_megabytes(report))
        terminal.say(path)
        if unpack and path.suffix == ".zip":
            with progress_reporter(None, "unpacking (MB)") as report:
                folder = unpack_zip(path, progress=_in_megabytes(report))
            terminal.say(folder)


def _in_megabytes(report: Progress) -> Progress:
    return lambda done, total: report(done // _MEGABYTE, total // _MEGABYTE)
