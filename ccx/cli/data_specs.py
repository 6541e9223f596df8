"""Data sets named on the command line: ``KIND:PATH[,PATH...][,option=value...]``, or ``demo``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    "first_id": int,
    "void": lambda text: [int(part) for part in text.split("+")],
    "none": lambda text: [int(part) for part in text.split("+")],
}
DEMO = "demo"  # the embedded mosaics, which need no files
FORMS = "; ".join([*(f"{kind}:{','.join(paths)}" for kind, (_, paths) in _KINDS.items()), DEMO])


def open_data(spec: str) -> Dataset:
    """Open the data set that a text like ``folder:images,labels,names.txt,void=255`` names.

    Raises
    ------
    InputError
        If the text is none; and what the data set raises.

    """
    if spec == DEMO:
        return _demo()
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in _KINDS:
        raise InputError("--data", wanted=FORMS, got=repr(spec), remedy="see docs/datasets.md")
    make, wanted = _KINDS[kind]
    paths, options = [], {}
    for part in rest.split(","):
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in _OPTIONS:
            paths.append(part)
            continue
        try:
            options[name] = _OPTIONS[name](value)
        except ValueError as error:
            raise InputError("--data", wanted=f"a number for {name}", got=repr(value), remedy="see --help") from error
    if len(paths) != len(wanted):
        form = f"{kind}:{','.join(wanted)}"
        raise InputError("--data", wanted=form, got=repr(spec), remedy="write the paths in this order, with commas")
    try:
        return make(*paths, **options)
    except TypeError as error:
        remedy = "see docs/datasets.md"
        raise InputError("--data", wanted=f"options of {kind}", got=repr(spec), remedy=remedy) from error


def _demo() -> Dataset:
    data = demo.load()
    return Pairs(list(zip(data.images, data.labels, strict=True)), data.names, categories=data.categories)
