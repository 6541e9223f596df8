"""`render` and `write_report`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ccx.concepts import Concepts
from ccx.errors import InputError
from ccx.report.pictures import Album, Pictures
from ccx.report.view import KnownUnit, build
from ccx.results import Explanations
from ccx.store import PathLike, write_text


def render(
    found: Explanations,
    concepts: Concepts,
    *,
    activations: Any = None,
    bitmaps: Any = None,
    images: Any = None,
    title: str = "What the units respond to",
    notes: Iterable[str] = (),
    unit_names: Sequence[str] | None = None,
    known: Sequence[KnownUnit] = (),
    pictures: int = 4,
    pictured_units: int = 100,
    threads: int | None = None,
) -> str:
    """Return the report as one HTML page that needs nothing else: no network, no other file.

    The same arguments give the same page.

    Parameters
    ----------
    found
        What `ccx.explain` or `ccx.explain_bitmaps` returned.
    concepts
        The concepts that it was given.
    activations, bitmaps
        What was explained, in the form in which it was explained; at most one of them. Without it there are no
        pictures.
    images
        One photograph a sample, to draw the pictures over: anything with a length that is indexed by sample.
        Entries are uint8[H, W, 3] or [H, W], float in [0, 1] of these shapes, paths of image files, or their bytes;
        they need not have one size. None = pictures on gray.
    title, notes
        Heading, and paragraphs below it.
    unit_names
        What to call each unit beside its number: one text a unit of the activations.
    known
        Units whose formula is known, shown as a check.
    pictures
        Pictures an explanation: those on which bitmap and formula agree on most cells, and last the one on which
        they differ most.
    pictured_units
        So many units, those listed first, get pictures; it bounds size and time for layers of many units.
    threads
        Processors to use; None = all available.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`) if the arguments do not belong to each other.
    StoreError
        If an image file cannot be read.

    """
    for one in (found, *(unit.found for unit in known)):
        if one.concepts_hash != concepts.content_hash:
            wanted, remedy = f"those that were explained with ({one.concepts_hash})", "load or build the same concepts"
            raise InputError("concepts", wanted=wanted, got=concepts.content_hash, remedy=remedy)
    if activations is not None and bitmaps is not None:
        raise InputError("bitmaps", wanted="no activations beside them", got="both", remedy="leave one of them out")
    if unit_names is not None and len(unit_names) <= max(found.units, default=-1):
        wanted = f"at least {max(found.units) + 1} names"
        raise InputError("unit_names", wanted=wanted, got=str(len(unit_names)), remedy="give one name a unit")
    album = None if images is None else Album(images, concepts.n_samples)

    def chooser(activations: Any, bitmaps: Any) -> Pictures | None:
        if pictures < 1 or (activations is None and bitmaps is None):
            return None
        return Pictures(concepts, activations, bitmaps, album, pictures, threads)

    report = build(
        found,
        concepts,
        pictures=chooser(activations, bitmaps),
        known=[(one, chooser(one.activations, None)) for one in known],
        photos={} if album is None else album.photos,
        title=title,
        notes=notes,
        unit_names=unit_names,
        n_pictured=pictured_units,
    )
    environment = Environment(
        loader=PackageLoader("ccx.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(report=report)
    return page.encode("utf-8", "replace").decode("utf-8")  # titles may hold what UTF-8 cannot, as file names do


def write_report(path: PathLike, found: Explanations, concepts: Concepts, **options: Any) -> None:
    """Write the report to an HTML file, atomically; the options are those of `render`.

    Raises
    ------
    StoreError
        If the file cannot be written; an older one stays. Also what `render` raises.

    """
    write_text(path, render(found, concepts, **options))
