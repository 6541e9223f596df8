"""Weights from checkpoint files, without running anything that is in them.

`ccx.models.archives` opens a file and `ccx.models.pickles` reads what it describes as data. This module finds the
weights in it, and gives them the names that a model expects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ccx.errors import InputError
from ccx.models.archives import AGAIN, is_tensor, n_items, opened
from ccx.models.pickles import MODULES, Made
from ccx.networks import require_torch
from ccx.store import PathLike
from ccx.store.files import store_error

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("module.", "_orig_mod.")  # of torch.nn.DataParallel and averaged models, and of torch.compile
_USUAL = frozenset(
    {"state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module", "state"}
)
# Numbers that are no weights: of averaging, of profilers, of batch normalisation.
_COUNTERS = frozenset({"n_averaged", "num_batches_tracked", "total_ops", "total_params", "num_updates"})
# As densenets were named before torch 0.4, when a module's name could hold a dot.
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)")
_N_LISTED = 5
_MOST_KEYS = 3  # that lead to weights
_MOST_DEPTH, _MOST_TENSORS, _LONGEST_NAME = 50, 100_000, 1000  # of networks; modules may be met on many paths


def read_checkpoint(path: PathLike, *, key: str | None = None) -> dict[str, torch.Tensor]:
    """Read the weights in a checkpoint file -> name -> tensor, on the CPU.

    Read are files of ``torch.save``, in its present and its old format, and of safetensors. Weights may be the whole
    content, an entry of a mapping (``state_dict``, ``model``, ``state_dict_ema``, ...), also beside settings,
    optimizers and counters, or a whole model of an architecture that the Places365 project published. The prefixes
    ``module.`` and ``_orig_mod.`` of wrappers are stripped, and old names of densenets (``norm.1``) are renamed
    (``norm1``).

    Nothing in the file is ever run: its pickle is read as data, within bounds of time and memory.

    Parameters
    ----------
    path
        The file.
    key
        Where the weights are, if several networks are in the file: the entry, such as ``"state_dict_ema"`` or
        ``"ema.model"``, or what all names of the wanted ones begin with, such as ``"teacher"``.

    Raises
    ------
    StoreError
        If the file cannot be read, is damaged, holds no weights, or names anything that a checkpoint has no need of.
    InputError
        If it holds several networks and `key` does not tell which, or there is no such entry.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("reading a checkpoint")
    with opened(path) as contents:
        found = {place: _without_wrappers(described) for place, described in _networks(contents.root)}
        if not found:
            raise store_error(path, "holds no state dict", AGAIN)
        chosen = _chosen(found, key, path)
        return {_new_name(name): contents.tensor(value) for name, value in chosen.items()}


Described = dict[str, Made]  # name -> a tensor


def _networks(root: Any) -> Iterator[tuple[str, Described]]:
    """Yield each set of weights in what a file describes, by the keys that lead to it."""
    stack, met = [("", root, 0)], set[int]()
    while stack:
        place, value, depth = stack.pop()
        if id(value) in met:
            continue
        if isinstance(value, Made) and value.path in MODULES:
            yield place, dict(_of_module(value))
        elif isinstance(value, dict):
            met.add(id(value))
            tensors = {name: entry for name, entry in value.items() if isinstance(name, str) and is_tensor(entry)}
            _check_names(tensors, len(tensors))
            if any(n_items(entry) > 1 for entry in tensors.values()):
                yield place, tensors
            inside = [
                (f"{place}.{name}" if place else name, entry, depth + 1)
                for name, entry in value.items()
                if isinstance(name, str) and len(name) <= _LONGEST_NAME and isinstance(entry, (dict, Made))
            ]
            stack += inside[::-1] if depth < _MOST_KEYS else []


def _check_names(names: Iterable[str], n_met: int) -> None:
    """Raise if there are more or longer names than networks have."""
    if n_met > _MOST_TENSORS or any(len(name) > _LONGEST_NAME for name in names):
        raise ValueError("more tensors, or longer names, than a network has")


def _of_module(root: Made) -> Iterator[tuple[str, Made]]:
    """Yield names and tensors of a module and those inside it."""
    stack: list[tuple[str, Any, int]] = [("", root, 0)]
    n_met = 0
    while stack:
        prefix, module, depth = stack.pop()
        if depth > _MOST_DEPTH or not isinstance(module, Made) or module.path not in MODULES:
            raise ValueError("a module was expected")
        tensors = [*module.state.get("_parameters", {}).items(), *module.state.get("_buffers", {}).items()]
        inside = module.state.get("_modules", {})
        n_met += len(tensors) + len(inside)
        _check_names([prefix, *(name for name, _ in tensors), *inside], n_met)
        for name, value in tensors:
            if value is not None:
                if not is_tensor(value):
                    raise ValueError("a tensor was expected")
                yield f"{prefix}{name}", value
        stack += [(f"{prefix}{name}.", child, depth + 1) for name, child in inside.items() if child is not None][::-1]


def _chosen(found: Mapping[str, Described], key: str | None, path: PathLike) -> Described:
    """Return the weights that `key` names, or the only ones that are plainly a network's."""
    listed = ", ".join(sorted(repr(name) for name in found if name)[:10])
    if key is not None:
        if key in found:
            return found[key]
        prefix = f"{key.removesuffix('.')}."
        inside = [_below(prefix, one) for one in found.values() if _below(prefix, one)]
        if len(inside) == 1:
            return inside[0]
        wanted = "an entry of the file with weights" + (f" ({listed})" if listed else "")
        raise InputError("key", wanted=wanted, got=repr(key), remedy="name one, or what the names begin with")
    usual = [name for name in found if name.rpartition(".")[2] in _USUAL] or [name for name in found if not name]
    first = (usual or list(found))[0]
    is_plain = len(usual) == 1 or len(found) == 1
    if is_plain and not any(_alike(found[first], one) for name, one in found.items() if name != first):
        return found[first]
    got, remedy = f"{path}, which holds several: {listed}", f"say which: key={max(found)!r}"
    raise InputError("key", wanted="the entry with the weights", got=got, remedy=remedy)


def _below(prefix: str, described: Described) -> Described:
    return {name.removeprefix(prefix): value for name, value in described.items() if name.startswith(prefix)}


def _alike(one: Described, other: Described) -> bool:
    """Tell whether two sets of weights may be of one architecture: most of their names are the same."""
    names = [{".".join(name.split(".")[-3:]) for name in described} for described in (one, other)]
    return 2 * len(names[0] & names[1]) > min(map(len, names))


def _without_wrappers(described: Described) -> Described:
    """Strip what wrappers put before all names, and drop the counters that stand beside them."""
    for wrapper in _WRAPPERS * 3:
        inside = _below(wrapper, described)
        if inside and all(name.startswith(wrapper) or name in _COUNTERS for name in described):
            described = inside
    return {name.replace("_orig_mod.", ""): value for name, value in described.items()}


def _new_name(name: str) -> str:
    return "".join(match.groups()) if (match := _OLD_DENSENET.fullmatch(name)) else name


def fill(model: torch.nn.Module, state: Mapping[str, torch.Tensor], path: PathLike, name: str) -> None:
    """Put a checkpoint's weights into a model.

    Where the model's names all stand behind one prefix (``model.``, ``backbone.``, ``student.encoder.``, ...), what is
    elsewhere belongs to something around the model, and is left. Raises `InputError` if they are of another
    architecture or number of classes: what differs, and what they look like.
    """
    expected = model.state_dict()
    state = _behind_prefix(state, expected, path)
    # Older versions of batch normalisation kept no count, and no result depends on it.
    missing = [key for key in expected if key not in state and not _is_counter(key)]
    unknown = [key for key in state if key not in expected and not _is_counter(key)]
    shapes = [key for key in state if key in expected and state[key].shape != expected[key].shape]
    if not (missing or unknown or shapes):
        model.load_state_dict({key: value for key, value in state.items() if key in expected}, strict=False)
        return
    differences = [
        _listed("lacks", missing),
        _listed("has besides", unknown),
        _listed("differs in", [f"{key} {list(state[key].shape)}, not {list(expected[key].shape)}" for key in shapes]),
    ]
    got = f"{path}, which {', '.join(filter(None, differences))}"
    head = next(reversed(expected)).partition(".")[0]
    if not unknown and not shapes and missing == [key for key in expected if key.partition(".")[0] == head]:
        remedy = f"it is {name} without {head}: fill a module of your own, with strict=False"
    else:
        remedy = _guess(state, missing, unknown, shapes, name)
    raise InputError("file", wanted=f"weights of {name}", got=got, remedy=remedy)


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] in _COUNTERS


def _behind_prefix(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, Any], path: PathLike
) -> Mapping[str, torch.Tensor]:
    """Return the weights behind the prefix behind which most of the names are that a model expects."""
    counts = Counter[str]()
    for key in state:
        parts = key.split(".")
        ends = (".".join(parts[n:]) for n in range(min(len(parts), _MOST_DEPTH)))
        counts.update(key[: len(key) - len(end)] for end in ends if end in expected and not _is_counter(end))
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if not best or "" in best or 2 * most < sum(not _is_counter(key) for key in expected):
        return state
    if len(best) > 1:
        got = f"{path}, which holds several networks, behind {', '.join(best[:_N_LISTED])}"
        raise InputError("key", wanted="the weights of one", got=got, remedy=f"say which: key={best[0][:-1]!r}")
    return {key.removeprefix(best[0]): value for key, value in state.items() if key.startswith(best[0])}


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
