"""``ccx probe``: run a network over pictures and store what its layers put out."""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import ccx
from ccx.cli import flags, terminal
from ccx.cli.data_specs import DEMO, FORMS, open_data
from ccx.cli.flags import option
from ccx.datasets import Dataset
from ccx.errors import FilesError, InputError, StoreError
from ccx.images import photograph_size
from ccx.listing import picture_files
from ccx.models import NamedModel, Preprocessing
from ccx.probing.storing import layer_file

_NETWORK, _IMAGES, _OUTPUT = "Network", "Images", "What is stored"


def probe(
    model: Annotated[
        str,
        typer.Argument(help="A classifier of torchvision by name, or module:function, which returns a torch module."),
    ],
    images: Annotated[str, typer.Argument(help=f"A folder of pictures, or a data set: {FORMS}.")],
    out: Annotated[Path, option("Folder for one .npy file per layer.", file_okay=False)],
    layer: Annotated[list[str] | None, option("Path of a layer; repeatable.", _NETWORK)] = None,
    weights: Annotated[str, option("imagenet, places365 or none (untrained).", _NETWORK)] = "imagenet",
    checkpoint: Annotated[Path | None, option("File of the weights, or the folder that it lies in.", _NETWORK)] = None,
    checkpoint_key: Annotated[
        str | None, option("Which weights, of a file with several: state_dict_ema.", _NETWORK)
    ] = None,
    classes: Annotated[int | None, option("Outputs of the network's last layer.", _NETWORK)] = None,
    seed: Annotated[int, option("Of untrained weights.", _NETWORK)] = 0,
    device: Annotated[str | None, option("Where the network runs: cpu, cuda, ...", _NETWORK)] = None,
    precision: Annotated[str, option("float32, or mixed precision: bfloat16, float16.", _NETWORK)] = "float32",
    size: Annotated[str | None, option("Images are resized to this: 224, or 224x320 (height, width).", _IMAGES)] = None,
    mean: Annotated[str | None, option("Of red, green, blue, as in 0.5,0.5,0.5.", _IMAGES)] = None,
    std: Annotated[str | None, option("Deviation, likewise.", _IMAGES)] = None,
    batch_size: Annotated[int, option("Images at a time.", _IMAGES)] = 32,
    workers: Annotated[int, option("Processes that read images.", _IMAGES)] = 0,
    data_id: Annotated[
        str | None, option("A name for the images, believed in place of their content.", _IMAGES)
    ] = None,
    units: Annotated[str | None, option("Only these units, as in 0-9,14.", _OUTPUT)] = None,
    tokens: Annotated[str | None, option("Grid of a transformer's patches: 14x14.", _OUTPUT)] = None,
    skip: Annotated[int, option("Tokens before them (1 = a class token).", _OUTPUT)] = 0,
    unit_axis: Annotated[int | None, option("Axis of the units; 1, or the last of three, by default.", _OUTPUT)] = None,
    output: Annotated[
        str | None, option("Which entry, of a layer that puts out several: 0, last_hidden_state.", _OUTPUT)
    ] = None,
    call: Annotated[int | None, option("Which run counts, of a layer that runs several times.", _OUTPUT)] = None,
    dtype: Annotated[str, option("float32 or float16.", _OUTPUT)] = "float32",
    overwrite: Annotated[bool, option("Discard what --out holds of another probe.", None, "--overwrite")] = False,
) -> None:
    """Run a network over pictures, and store the activations of its layers.

    Those of a folder are taken in natural order of their names (2.jpg before 10.jpg). A run that was stopped goes on
    when the same command is given again.
    """
    started = time.perf_counter()
    grid = None if tokens is None else flags.parse_size(tokens, "--tokens")
    given: dict[str, Any] = {
        "size": None if size is None else flags.parse_size(size, "--size"),
        "mean": None if mean is None else _numbers(mean, "--mean"),
        "std": None if std is None else _numbers(std, "--std"),
    }
    chosen_units = flags.parse_units(units)
    data = _images(images, is_known=data_id is not None and out.exists())
    net = _network(model, weights, checkpoint, checkpoint_key, classes, seed)
    net = replace(net, preprocessing=replace(net.preprocessing, **{k: v for k, v in given.items() if v is not None}))
    with terminal.resumable():
        found: Any = ccx.probe(
            net,
            data,
            layer or list(net.layers),
            units=chosen_units,
            tokens=grid,
            skip=skip,
            unit_axis=unit_axis,
            output=output,
            call=call,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,  # type: ignore[arg-type]  # probe checks it
            dtype=dtype,  # type: ignore[arg-type]
            data_id=data_id,
            out=out,
            overwrite=overwrite,
        )
    for name, array in found.items():
        shape = ", ".join(map(str, array.shape))
        terminal.say(f"{name}  {array.dtype}[{shape}]  {out / layer_file(name)}")
    terminal.say(f"{len(data)} pictures, in {time.perf_counter() - started:.1f} s")


def _network(
    model: str, weights: str, checkpoint: Path | None, key: str | None, classes: int | None, seed: int
) -> NamedModel:
    if ":" not in model:
        return ccx.models.load(
            model,
            weights=weights,  # type: ignore[arg-type]  # load checks it
            file=checkpoint,
            key=key,
            classes=classes,
            seed=seed,
        )
    if checkpoint is not None or classes is not None:
        remedy = "let the function load its weights"
        raise InputError(
            "MODEL", wanted="no --checkpoint or --classes beside module:function", got="one", remedy=remedy
        )
    place, _, function = model.partition(":")
    sys.path.insert(0, "")  # as `python -m` does: modules of the folder in which the command is given
    try:
        make = getattr(importlib.import_module(place), function)
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "give a module on the path and a function in it, such as nets:make"
        raise InputError("MODEL", wanted="module:function", got=f"{model!r} ({error})", remedy=remedy) from error
    finally:
        sys.path.pop(0)
    made = make()
    return made if isinstance(made, NamedModel) else NamedModel(model, "none", made, (), Preprocessing())


def _images(images: str, *, is_known: bool) -> list[Path] | Dataset:
    """Return pictures or a data set, after a quick look at all files: a bad one would else be met after hours."""
    if Path(images).is_dir():
        pictures = picture_files(images)
        problems = () if is_known else tuple(filter(None, map(_problem, pictures)))
        if problems:
            raise FilesError(problems, "repair or remove them")
        return pictures
    if ":" not in images and images != DEMO:
        raise InputError("IMAGES", wanted="a folder, or a data set", got=repr(images), remedy=f"data sets are {FORMS}")
    data = open_data(images)
    problems = () if is_known else data.check()
    if problems:
        raise FilesError(problems, "repair or leave out what is listed")
    return data


def _problem(path: Path) -> str | None:
    try:
        photograph_size(path)
    except StoreError as error:
        return str(error)
    return None


def _numbers(text: str, flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(flag, wanted="three numbers", got=repr(text), remedy="write it like 0.5,0.5,0.5") from error
