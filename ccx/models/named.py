"""torchvision's classifiers by name, with the layers, image sizes and normalisation of the published system."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ccx.checks import UNBOUNDED, choice, integer
from ccx.errors import InputError, StoreError, require_library
from ccx.models.checkpoints import fill, read_checkpoint
from ccx.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from ccx.networks import require_torch
from ccx.store import PathLike
from ccx.store.files import store_error

if TYPE_CHECKING:
    import torch

Weights: TypeAlias = Literal["none", "imagenet", "places365"]

PLACES365_ADDRESS = "http://places2.csail.mit.edu/models_places365/"
"""Where the Places365 project publishes its weights (an address that we have not verified)."""
PLACES365_FILES = {
    "alexnet": "alexnet_places365.pth.tar",
    "densenet161": "whole_densenet161_places365_python36.pth.tar",
    "resnet18": "resnet18_places365.pth.tar",
    "resnet50": "resnet50_places365.pth.tar",
}
_LAYERS = {
    "alexnet": "features",
    "densenet161": "features",
    "resnet18": "layer4",
    "resnet50": "layer4",
    "vgg16": "features",
}
_SIZES = {"alexnet": 227}
_PUBLISHED_SIZE = 224
_HALVES = (0.5, 0.5, 0.5)
_ALIASES = {"place365": "places365"}  # as the published scripts spell it, too
_N_CLASSES = {"none": 1000, "imagenet": 1000, "places365": 365}


@dataclass(frozen=True)
class NamedModel:
    """A network, and what is known about it.

    `ccx.probe` takes it in place of a torch module, and then knows layers and preprocessing.

    Attributes
    ----------
    name
        As in `names`.
    weights
        "none", "imagenet" or "places365".
    module
        The torch module, in evaluation mode.
    layers
        Layers to probe by default; empty if the published system has none for it.
    preprocessing
        From an image to what `module` takes.

    """

    name: str
    weights: str
    module: torch.nn.Module
    layers: tuple[str, ...]
    preprocessing: Preprocessing


def names() -> list[str]:
    """Return the names of all classifiers that torchvision has.

    Raises
    ------
    MissingExtraError
        If torch or torchvision is not installed.

    """
    _require_torchvision()
    import torchvision

    found: list[str] = torchvision.models.list_models(module=torchvision.models)
    return found


def load(
    name: str,
    *,
    weights: Weights = "imagenet",
    file: PathLike | None = None,
    key: str | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> NamedModel:
    """Load a torchvision classifier by name.

    Parameters
    ----------
    name
        Such as ``"resnet18"``; `names` lists them.
    weights
        "imagenet": torchvision's first weights for it, from torch's cache of downloads; where they are not there, they
        are downloaded and their checksum is verified. "places365": from `file`. "none": untrained. They also decide
        the normalisation: ImageNet's mean and deviation, or 0.5 and 0.5 for "none".
    file
        A checkpoint to read the weights from (`read_checkpoint`), or the folder in which it lies under its published
        name.
    key
        Where the weights are in a file that holds several networks, such as ``"state_dict_ema"`` (`read_checkpoint`).
    classes
        Outputs of the last layer: by default 365 for "places365", else 1000.
    seed
        Of the weights of an untrained network. torch's global generator stays as it was.

    Raises
    ------
    InputError
        If there is no such name or kind of weights, or the checkpoint is of another architecture, or of several.
    StoreError
        If the checkpoint cannot be read.
    MissingExtraError
        If torch or torchvision is not installed.

    """
    _require_torchvision()
    _check_name(name)
    chosen = _ALIASES.get(str(weights), weights)
    choice("weights", chosen, get_args(Weights), "give file= for weights of your own")
    if chosen == "none" and file is not None:
        remedy = "say by weights= how its images were normalised: as for imagenet or places365"
        raise InputError("weights", wanted="no file beside none", got=str(file), remedy=remedy)
    n_classes = _N_CLASSES[chosen] if classes is None else integer("classes", classes, 1, UNBOUNDED, "leave it out")
    source = None if chosen == "none" else _checkpoint(name, chosen, file)
    if source is not None and not source.exists():
        remedy = "check the path; 'ccx download' lists published weights; the weights none (untrained) need no file"
        raise store_error(source, f"there are no weights for {name} ({chosen})", remedy)
    module = _build(name, chosen, n_classes, seed)
    if source is not None:
        fill(module, read_checkpoint(source, key=key), source, name)
    layers = (_LAYERS[name],) if name in _LAYERS else ()
    return NamedModel(name, chosen, module.eval(), layers, default_preprocessing(name, weights=weights))


def default_preprocessing(name: str, *, weights: Weights = "imagenet") -> Preprocessing:
    """Return the preprocessing of a named model: the size at which it was trained, and its normalisation.

    Raises
    ------
    InputError
        If there is no such name.
    MissingExtraError
        If torch or torchvision is not installed.

    """
    _require_torchvision()
    _check_name(name)
    mean, std = (_HALVES, _HALVES) if weights == "none" else (IMAGENET_MEAN, IMAGENET_STD)
    if name in _LAYERS:
        side = _SIZES.get(name, _PUBLISHED_SIZE)
        return Preprocessing((side, side), mean, std)
    transforms = _torchvision_weights(name).transforms()
    (side,) = transforms.crop_size
    if weights == "imagenet":
        mean, std = tuple(transforms.mean), tuple(transforms.std)
    return Preprocessing((side, side), mean, std, transforms.interpolation.value)


def _build(name: str, weights: str, n_classes: int, seed: int) -> torch.nn.Module:
    import torch
    import torchvision

    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # They warn unless told how to begin, and their own way takes a minute; their ImageNet weights were trained on
        # images normalised otherwise, which they undo themselves.
        options = {"init_weights": False, "transform_input": weights == "imagenet"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: torch.nn.Module = torchvision.models.get_model(name, weights=None, num_classes=n_classes, **options)
    return module


def _checkpoint(name: str, weights: str, file: PathLike | None) -> Path:
    """Return the path of a checkpoint, downloaded if it is one of torchvision's."""
    if file is not None and not Path(file).is_dir():
        return Path(file)
    if weights == "imagenet":
        url = _torchvision_weights(name).url
        published = url.rpartition("/")[2]
        return Path(file) / published if file is not None else _downloaded(url)
    published_name = PLACES365_FILES.get(name)
    if file is None:
        remedy = (
            f"the project publishes {published_name} at {PLACES365_ADDRESS} (an address that we have not verified)"
            if published_name
            else f"the project is known to publish {', '.join(PLACES365_FILES)} only; give a file of your own"
        )
        raise InputError("file", wanted=f"Places365 weights of {name}", got="no file", remedy=remedy)
    if published_name is None:
        remedy = "name the file itself; its published name is known for " + ", ".join(PLACES365_FILES)
        raise InputError("file", wanted=f"a checkpoint of {name}", got=f"the folder {file}", remedy=remedy)
    return Path(file) / published_name


def _downloaded(url: str) -> Path:
    """Return where torch keeps its download of a file; download it first where it is missing."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rpartition("-")[2]  # torchvision's file names end in the first digits of their SHA-256
        torch.hub.download_url_to_file(url, os.fspath(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        msg = f"{url}: cannot be downloaded to {path} ({error}); download it by other means and give file="
        raise StoreError(msg) from error
    return path


def _torchvision_weights(name: str) -> Any:
    import torchvision

    return next(iter(torchvision.models.get_model_weights(name)))


def _check_name(name: str) -> None:
    known = names()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=5) or sorted(_LAYERS)
        remedy = f"did you mean {', '.join(close)}? ccx.models.names() lists all"
        raise InputError("name", wanted="a classifier of torchvision", got=repr(name), remedy=remedy)


def _require_torchvision() -> None:
    require_torch("a network by name")
    require_library("torchvision", "torch", "a network by name")
