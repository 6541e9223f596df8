"""Data sets named on the command line: ``KIND:PATH[,PATH...][,option=value...]``, or ``demo``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ccx.cli import terminal
from ccx.datasets import Broden, CocoInstances, CocoPanoptic, Dataset, Folder, Pairs, demo
from ccx.errors import InputError

_KINDS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {
    "broden": (Broden, ("ROOT",)),
    "coco": (CocoInstances, ("IMAGES", "ANNOTATIONS")),
    "panoptic": (CocoPanoptic, ("IMAGES", "MAPS", "ANNOTATIONS")),
    "folder": (Folder, ("IMAGES", "LABELS", "NAMES")),
}
_OPTIONS: dict[str, Callable[[str], Any]] = {
    "subset": str,
    "split": str,
    "crowd": str,
    "image_suffix": str,
    "label_suffix": str,
    "palette": str,
    "only": Path,
    "first_id": int,
    "void": lambda text: [int(part) for part in text.split("+")],
    "none": lambda text: [int(part) for part in text.split("+")],
}
DEMO = "demo"  # the embedded mosaics, which need no files
FORMS = "; ".join([*(f"{kind}:{','.join(paths)}" for kind, (_, paths) in _KINDS.items()), DEMO])


def open_data(spec: str) -> Dataset:
    """Open the data set that a text like ``folder:images,labels,names.txt,void=255`` names.

    Raises `InputError` if the text is none, and what the data set raises.
    """
    if spec == DEMO:
        return _demo()
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in _KINDS:
        raise InputError("--data", wanted=FORMS, got=repr(spec), remedy="see docs/datasets.md")
    make, wanted = _KINDS[kind]
    known = [name for name in _OPTIONS if name in inspect.signature(make).parameters]
    paths: list[str] = []
    options: dict[str, Any] = {}
    for part in rest.split(","):
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not equals or (name not in known and len(paths) < len(wanted)):
            paths.append(part)
            continue
        if name not in known:
            remedy = "leave it out"
            raise InputError("--data", wanted=f"options of {kind}: {', '.join(known)}", got=repr(part), remedy=remedy)
        try:
            options[name] = _OPTIONS[name](value)
        except ValueError as error:
            raise InputError("--data", wanted=f"a number for {name}", got=repr(value), remedy="see --help") from error
    if len(paths) != len(wanted):
        form = f"{kind}:{','.join(wanted)}"
        raise InputError("--data", wanted=form, got=repr(spec), remedy="write the paths in this order, with commas")
    data = make(*paths, **options)
    if isinstance(data, Folder) and data.without_labels and "only" not in options:
        n_images, first = len(data.without_labels), data.without_labels[0]
        listed = f"image without a label map is left out: {first}"
        if n_images > 1:
            listed = f"images without label maps are left out, such as {first}"
        terminal.notice(f"{n_images} {listed}")
    return data


def _demo() -> Dataset:
    data = demo.load()
    enlarged = data.labels  # they are embedded on a coarser grid than the photographs
    for axis in (2, 3):
        enlarged = enlarged.repeat(data.images.shape[axis - 1] // data.labels.shape[axis], axis)
    return Pairs(list(zip(data.images, enlarged, strict=True)), data.names, categories=data.categories)
