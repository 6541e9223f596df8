"""Weights from checkpoint files, without running anything that is in them.

State dicts are read by ``torch.load(weights_only=True)``. A whole pickled model, which that refuses, is read by
`ccx.models.inert`: as data, under an explicit list of names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccx.errors import InputError, StoreError
from ccx.models.inert import NotAllowedError, read_whole_model
from ccx.networks import require_torch
from ccx.store import PathLike

if TYPE_CHECKING:
    import torch

_REMEDY = "save it again with torch.save(model.state_dict(), file)"
_WRAPPER = "module."  # of torch.nn.DataParallel
# As densenets were named before torch 0.4, when a module's name could hold a dot.
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)")
_N_LISTED = 5


def read_checkpoint(path: PathLike) -> dict[str, torch.Tensor]:
    """Read the weights in a checkpoint file -> name -> tensor, on the CPU.

    Read are files of ``torch.save``, in its present and its old format, that hold a state dict, a mapping with one
    under ``state_dict`` (as the Places365 checkpoints), or a whole model of an architecture that the Places365 project
    published. The prefix ``module.`` is stripped, and old names of densenets (``norm.1``) are renamed (``norm1``).

    Nothing in the file is ever run: `torch.load` gets ``weights_only=True``, whole models are read as inert data.

    Raises
    ------
    StoreError
        If the file cannot be read, is damaged, holds no weights, or names anything that a checkpoint has no need of.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("reading a checkpoint")
    import torch

    state = _state_dict(_load(path))
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        msg = f"{path}: holds no state dict; {_REMEDY}"
        raise StoreError(msg)
    if all(name.startswith(_WRAPPER) for name in state):
        state = {name.removeprefix(_WRAPPER): value for name, value in state.items()}
    return {_new_name(name): value for name, value in state.items()}


def _load(path: PathLike) -> Any:
    import torch

    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        msg = f"{path}: cannot read it ({error.strerror or error}); check the path"
        raise StoreError(msg) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols and storages of old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise what torch, zipfile and struct see fit
        try:
            return read_whole_model(path)
        except NotAllowedError as refused:
            msg = f"{path}: refused, and nothing in it was run: it names {refused}, not only weights; {_REMEDY}"
            raise StoreError(msg) from refused
        except (ValueError, OSError):
            first_line = str(error).strip().partition("\n")[0]
            msg = f"{path}: cannot be read as weights ({first_line:.200}); download it again, or {_REMEDY}"
            raise StoreError(msg) from error


def _state_dict(loaded: Any) -> dict[str, Any]:
    """Return the state dict in what a checkpoint held; an empty one if there is none."""
    if not isinstance(loaded, Mapping):
        return {}
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded.get(key), Mapping):
            return dict(loaded[key])
    return {str(name): value for name, value in loaded.items()}


def _new_name(name: str) -> str:
    return "".join(match.groups()) if (match := _OLD_DENSENET.fullmatch(name)) else name


def fill(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: PathLike, name: str) -> None:
    """Put a checkpoint's weights into a model.

    Raises
    ------
    InputError
        If they are of another architecture or number of classes: what differs, and what they look like.

    """
    expected = model.state_dict()
    # Older versions of batch normalisation kept no count, and no result depends on it.
    missing = [key for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    unknown = [key for key in state if key not in expected]
    shapes = [key for key in state if key in expected and state[key].shape != expected[key].shape]
    if not (missing or unknown or shapes):
        model.load_state_dict(dict(state), strict=False)
        return
    differences = [
        _listed("lacks", missing),
        _listed("has besides", unknown),
        _listed("differs in", [f"{key} {list(state[key].shape)}, not {list(expected[key].shape)}" for key in shapes]),
    ]
    got = f"{path}, which {', '.join(filter(None, differences))}"
    raise InputError("file", wanted=f"weights of {name}", got=got, remedy=_guess(state, missing, unknown, shapes, name))


def _guess(
    state: Mapping[str, torch.Tensor], missing: list[str], unknown: list[str], shapes: list[str], name: str
) -> str:
    """Say what a checkpoint that does not fit may be."""
    if not missing and not unknown and len({key.rpartition(".")[0] for key in shapes}) == 1:
        n_classes = state[shapes[0]].shape[0]
        return f"it looks like {name} with another number of classes: give classes={n_classes}"
    if len(missing) + len(unknown) + len(shapes) < len(state) / 4:
        return "it looks like a changed one"
    likely = _likely_architecture(state)
    return f"it looks like {likely}: load that" if likely else "check the model's name"


def _likely_architecture(state: Mapping[str, torch.Tensor]) -> str | None:
    """Return the torchvision classifier that shares most names and shapes of parameters, if they are most of all."""
    import torch
    import torchvision

    shapes = {(key, tuple(value.shape)) for key, value in state.items() if not key.endswith(".num_batches_tracked")}
    best, best_share = None, 0.5
    for name in sorted(torchvision.models.list_models(module=torchvision.models), key=len):  # plain networks first
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        try:
            with torch.device("meta"):
                model = torchvision.models.get_model(name, weights=None, **options)
        except NotImplementedError:  # regnets reckon their widths with tensors
            continue
        theirs = {(key, tuple(v.shape)) for key, v in model.state_dict().items() if "num_batches" not in key}
        share = len(shapes & theirs) / max(len(shapes | theirs), 1)
        if share > best_share:
            best, best_share = name, share
        if share == 1:
            break
    return best


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _N_LISTED} more" if len(names) > _N_LISTED else ""
    return f"{what} {', '.join(names[:_N_LISTED])}{more}"
