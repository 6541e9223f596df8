"""`render` and `write_report`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ccx.concepts import Concepts
from ccx.errors import InputError, visible
from ccx.pipeline.judging import explained_samples
from ccx.report.pictures import COARSE, FINE, Album, Pictures, samples_keys
from ccx.report.view_model import Frame, KnownUnit, Report, build, null_bar
from ccx.results import Explanations
from ccx.store import PathLike, new_folder, write_text
from ccx.store.files import as_target, store_error

_PICTURED_UNITS = 100  # of a page: more make a file that is slow to open
_MANY_UNITS = 200  # pictures of more are coarser, so that a layer stays below some 50 MB
_MARK = "ccx-report.txt"  # in a folder that may be replaced


def report_path(folder: PathLike, found: Explanations) -> Path:
    """Return where to write a report into a folder: one file, or a folder for more than 100 units."""
    return Path(folder) / ("report" if len(found.units) > _PICTURED_UNITS else "report.html")


def render(found: Explanations, concepts: Concepts, **options: Any) -> str:
    """Return the report as one HTML page that needs nothing else: no network, no other file.

    Parameters and errors are those of `write_report`. The same arguments give the same page.
    """
    with _viewed(found, concepts, is_folder=False, **options) as report:
        return _page("report.html", report=report)


def write_report(path: PathLike, found: Explanations, concepts: Concepts, **options: Any) -> None:
    """Write the report: to one HTML file that needs nothing else, or to a folder with a page per unit.

    Parameters
    ----------
    path
        ``NAME.html``, or a folder, for layers of many units: it is new, empty, or holds an older report.
    found
        What `ccx.explain` or `ccx.explain_bitmaps` returned.
    concepts
        The concepts that it was given.
    activations, bitmaps
        What was explained, in the form in which it was explained; at most one of them. Without it there are no
        pictures.
    images
        One photograph per sample, to draw the pictures over: anything with a length that is indexed by sample.
        Entries are uint8[H, W, 3] or [H, W], float in [0, 1] of these shapes, paths of image files, or their bytes;
        they need not have one size. None = pictures on gray.
    title, notes
        Heading (default "What the units respond to"), and paragraphs below it.
    unit_names
        What to call each unit beside its number: one text per unit of the activations.
    known
        `KnownUnit` s, shown as a check.
    pictures
        Pictures per explanation: those on which bitmap and formula agree on most cells, and last the one on which
        they differ most. By default 4, of more than 200 pictured units 3, drawn more coarsely.
    pictured_units
        So many units, those listed first, get pictures. By default 100 in one file, all in a folder.
    threads
        Processors to use; None = all available.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`) if the arguments do not belong to each other.
    StoreError
        If an image cannot be read, or the report cannot be written; an older one stays.

    """
    target = as_target(path)
    if target.suffix.lower() in (".html", ".htm"):
        write_text(target, render(found, concepts, **options))
        return
    _check_target(target)
    with _viewed(found, concepts, is_folder=True, **options) as report, new_folder(target) as folder:
        _write_folder(folder, report)


def check_concepts(found: Explanations, concepts: Concepts) -> None:
    """Raise `InputError` unless `found` was explained with `concepts`."""
    if found.concepts_hash != concepts.content_hash:
        wanted, remedy = f"those that were explained with ({found.concepts_hash})", "load or build the same concepts"
        if found.settings.get("exclude") is not None:
            remedy = "positions were left out: give concepts.excluding(them)"
        raise InputError("concepts", wanted=wanted, got=concepts.content_hash, remedy=remedy)


@contextmanager
def _viewed(  # noqa: PLR0913 - public keywords
    found: Explanations,
    concepts: Concepts,
    *,
    is_folder: bool,
    activations: Any = None,
    bitmaps: Any = None,
    images: Any = None,
    title: str = "What the units respond to",
    notes: Iterable[str] = (),
    unit_names: Sequence[str] | None = None,
    known: Sequence[KnownUnit] = (),
    pictures: int | None = None,
    pictured_units: int | None = None,
    threads: int | None = None,
) -> Iterator[Report]:
    for one in (found, *(unit.found for unit in known)):
        check_concepts(one, concepts)
    if activations is not None and bitmaps is not None:
        raise InputError("bitmaps", wanted="no activations beside them", got="both", remedy="leave one of them out")
    if unit_names is not None and len(unit_names) <= max(found.units, default=-1):
        wanted = f"at least {max(found.units) + 1} names"
        raise InputError("unit_names", wanted=wanted, got=str(len(unit_names)), remedy="give one name per unit")
    if pictured_units is None:
        pictured_units = len(found.units) if is_folder else _PICTURED_UNITS
    are_many = min(pictured_units, len(found.units)) > _MANY_UNITS
    n_pictures = pictures if pictures is not None else 3 if are_many else 4
    detail = COARSE if are_many else FINE
    samples_keys(concepts, activations, images)  # checks them
    album = None if images is None else Album(images, detail, threads)

    def chooser(explained: Explanations, activations: Any, bitmaps: Any) -> Pictures | None:
        if n_pictures < 1 or (activations is None and bitmaps is None):
            return None
        samples = explained_samples(explained, concepts)
        keys = samples_keys(concepts, activations, images)
        return Pictures(concepts, activations, bitmaps, album, n_pictures, detail, samples, keys)

    try:
        yield build(
            found,
            concepts,
            pictures=chooser(found, activations, bitmaps),
            known=[(one, chooser(one.found, one.activations, None)) for one in known],
            album=album,
            frame=Frame(title, notes, is_folder),
            unit_names=unit_names,
            n_pictured=pictured_units,
        )
    finally:
        if album is not None:
            album.close()


def _write_folder(folder: Path, report: Report) -> None:
    for name in ("style.css", "script.js"):
        write_text(folder / name, _page(name))
    (folder / "photos").mkdir()
    for sample, photo in report.photos.items():
        (folder / "photos" / f"{sample}.jpg").write_bytes(photo.jpeg)
    (folder / "units").mkdir()
    template = _environment().get_template("unit.html")
    for before, card, after in report.neighbours():
        page = template.render(report=report, card=card, before=before, after=after)
        (folder / "units" / f"{card.anchor}.html").write_text(_encodable(page), encoding="utf-8")
    write_text(folder / "index.html", _page("report.html", report=report))
    write_text(folder / _MARK, f"A report of ccx {report.version}; open index.html. It is replaced as a whole.\n")


def _check_target(target: Path) -> None:
    is_empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not is_empty and not (target / _MARK).is_file():
        raise store_error(target, "exists and holds no report", "give a new folder, or NAME.html for one file")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ccx.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["null_bar"] = null_bar
    environment.filters["data_uri"] = lambda jpeg: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    return environment


def _page(template: str, **values: Any) -> str:
    return _encodable(_environment().get_template(template).render(**values))


def _encodable(page: str) -> str:
    """Return what UTF-8 can hold: titles may have more, as file names do."""
    return page.encode("utf-8", "replace").decode("utf-8")
