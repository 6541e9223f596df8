"""Layers of a torch model: find them by path, and record what they put out.

Everything here leaves the model as it was, whatever happens in between: hooks are removed, and every
module gets back its own training flag. torch is imported by the functions that need it.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from ccx.errors import DTypeError, InputError, MissingExtraError, ShapeError
from ccx.networks.ordering import check_count, check_order

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def resolve_layer(model: torch.nn.Module, layer: str) -> torch.nn.Module:
    """Return the module of `model` at a path such as ``"layer4"`` or ``"layer2.0.conv1"``.

    Raises
    ------
    DTypeError
        If `model` is no torch module, or `layer` no text.
    InputError
        If the model has no such module; the message lists the closest paths.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("finding a layer")
    import torch

    if not isinstance(model, torch.nn.Module):
        remedy = "load the model first; a state dict alone has no layers"
        raise DTypeError("model", wanted="a torch.nn.Module", got=type(model).__name__, remedy=remedy)
    if not isinstance(layer, str):
        remedy = "name it as model.named_modules() does"
        raise DTypeError("layer", wanted="the path of a module", got=type(layer).__name__, remedy=remedy)
    modules = dict(model.named_modules(remove_duplicate=False))
    del modules[""]  # the model itself
    if layer not in modules:
        close = difflib.get_close_matches(layer, modules, n=5)
        children = [name for name, _ in model.named_children()]
        remedy = f"did you mean {_listed(close)}?" if close else f"its outermost modules are {_listed(children)}"
        wanted = f"a module of {type(model).__name__}"
        raise InputError("layer", wanted=wanted, got=repr(layer), remedy=remedy)
    module: torch.nn.Module = modules[layer]
    return module


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode for a while; afterwards each module has its own mode again.

    ``model.train(before)`` would not do: a frozen batch normalisation inside a model in training is in
    evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def recording(model: torch.nn.Module, layer: str) -> Iterator[Callable[[Any], torch.Tensor]]:
    """Give a function that runs batches through the model and returns what one layer put out.

    The function moves a batch (tensor or NumPy array) to the model's device, and runs the model in evaluation mode and
    without gradients. The output is a copy on that device, so that layers which work in place
    (``ReLU(inplace=True)`` behind a normalisation) cannot change it. Of a layer that runs several times
    in one pass, the last output counts.

    Parameters
    ----------
    model
        Any torch module that takes one tensor.
    layer
        Path of the layer (`resolve_layer`), which must put out one tensor.

    Yields
    ------
    Callable
        ``batch -> output``; of use only inside the ``with`` block.

    Raises
    ------
    InputError
        If there is no such layer; from the function, if the layer does not put out one tensor, or does not
        run at all.
    MissingExtraError
        If torch is not installed.

    Examples
    --------
    >>> with recording(model, "layer4") as outputs_of:  # doctest: +SKIP
    ...     maps = outputs_of(images)  # float32[n, U, h, w]

    """
    require_torch("recording a layer")
    import torch

    def outputs_of(batch: Any) -> torch.Tensor:
        last: torch.Tensor = run(torch.as_tensor(batch))[layer][-1]
        return last

    with recording_calls(model, [layer], lambda _layer, output: output.clone()) as run:
        yield outputs_of


@contextmanager
def recording_calls(
    model: torch.nn.Module, layers: Sequence[str], take: Callable[[str, torch.Tensor], T]
) -> Iterator[Callable[..., dict[str, list[T]]]]:
    """Give a function that runs the model and returns what several layers put out, in one pass, call by call.

    The function takes the model's arguments; tensors among them are moved to its device. The model runs in evaluation
    mode and without gradients.

    Parameters
    ----------
    model
        Any torch module.
    layers
        Paths of layers (`resolve_layer`), each of which must put out one tensor.
    take
        Called with layer and output each time that a layer has run; what it returns is kept. It must copy, since
        later layers may work in place.

    Yields
    ------
    Callable
        ``(*inputs, **keywords) -> {layer: [what take returned, one entry a call]}``; of use only inside the block.

    Raises
    ------
    InputError
        As `recording`.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("recording a layer")
    import torch

    modules = {layer: resolve_layer(model, layer) for layer in layers}
    device = device_of(model)
    kept: dict[str, list[T]] = {}

    def keep(layer: str, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            names = [f"{layer}.{name}" for name, _ in modules[layer].named_children()]
            remedy = f"choose one inside it: {_listed(names)}" if names else "choose the layer before or behind it"
            got = f"a {type(output).__name__} from {layer!r}"
            raise InputError("layer", wanted="a layer that puts out one tensor", got=got, remedy=remedy)
        kept[layer].append(take(layer, output.detach()))

    def placed(value: Any) -> Any:
        return value.to(device) if device is not None and isinstance(value, torch.Tensor) else value

    def run(*inputs: Any, **keywords: Any) -> dict[str, list[T]]:
        kept.clear()
        kept.update((layer, []) for layer in modules)
        with torch.no_grad():
            model(*map(placed, inputs), **{name: placed(value) for name, value in keywords.items()})
        for layer, outputs in kept.items():
            if not outputs:
                remedy = "choose a layer that the model's forward pass uses"
                raise InputError("layer", wanted="a layer that runs", got=f"{layer!r}, which did not", remedy=remedy)
        return dict(kept)

    with evaluating(model), ExitStack() as hooks:
        for layer, module in modules.items():
            handle = module.register_forward_hook(lambda _module, _inputs, output, name=layer: keep(name, output))
            hooks.callback(handle.remove)
        yield run


def device_of(model: torch.nn.Module) -> torch.device | None:
    """Return the device of the model's first parameter or buffer; None = it has neither."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), None)


def record(model: torch.nn.Module, layer: str, batch: Any) -> torch.Tensor:
    """Run one batch through the model and return what a layer put out; see `recording`."""
    with recording(model, layer) as outputs_of:
        return outputs_of(batch)


def image_batches(loader: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the images of each batch, [n, channels, height, width].

    Parameters
    ----------
    loader
        Any iterable of batches: images (tensor or NumPy array), or a tuple or list whose first entry they are.

    Raises
    ------
    InputError
        If it is no loader whose samples come in order (`check_order`): they could not be told apart.
    DTypeError, ShapeError
        If a batch is something else, its images are no array of floats with four axes, or a DataLoader yields more or
        fewer than its data set has.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("reading images")
    import torch

    n_samples, done = check_order(loader), 0
    for batch in loader:
        first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        try:
            images = torch.as_tensor(first)
        except (TypeError, ValueError, RuntimeError) as error:
            remedy = "let it yield images or (images, ...)"
            raise DTypeError("loader", wanted="arrays of images", got=type(first).__name__, remedy=remedy) from error
        described = f"{str(images.dtype).removeprefix('torch.')}{list(images.shape)}"
        if not images.is_floating_point():
            remedy = "normalise the images as the model expects them"
            raise DTypeError("loader", wanted="images of floats", got=described, remedy=remedy)
        if images.ndim != 4:
            remedy = "let it yield batches, not single images"
            raise ShapeError("loader", wanted="images [n, channels, height, width]", got=described, remedy=remedy)
        done += len(images)
        yield images
    check_count(done, n_samples)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + ", ..." * (len(names) > 10) if names else "none"


def require_torch(purpose: str) -> None:
    """Raise `MissingExtraError` if torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch", purpose)
