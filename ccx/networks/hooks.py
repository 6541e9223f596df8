"""Layers of a torch model: find them by path and record their outputs."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ccx.checks import require_kind
from ccx.errors import DTypeError, InputError, ShapeError, require_library
from ccx.networks import outputs
from ccx.networks.forward_errors import called
from ccx.networks.ordering import check_count, check_order
from ccx.networks.outputs import Output

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside wrappers that only say how it runs: torch.compile, DataParallel and its like."""
    import torch

    parallel = torch.nn.parallel.DataParallel, torch.nn.parallel.DistributedDataParallel
    while True:
        if "_orig_mod" in model._modules and type(model).__name__ == "OptimizedModule":
            model = model.get_submodule("_orig_mod")
        elif isinstance(model, parallel):
            model = model.module
        else:
            return model


def resolve_layer(model: torch.nn.Module, layer: str) -> torch.nn.Module:
    """Return the module of `model` at a path such as ``"layer4"`` or ``"layer2.0.conv1"``.

    Paths lead from the module inside wrappers (`unwrapped`), whose own prefixes may stand before them.

    Raises
    ------
    DTypeError
        If `model` is no torch module, or `layer` no text.
    InputError
        If the model has no such module (the message lists the closest paths), or it runs where it cannot be watched.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("finding a layer")
    import torch

    remedy = "load the model first; a state dict alone has no layers"
    require_kind("model", model, torch.nn.Module, "a torch.nn.Module", remedy)
    require_kind("layer", layer, str, "the path of a module", "name it as model.named_modules() does")
    plain = unwrapped(model)
    modules = dict(plain.named_modules(remove_duplicate=False))
    path = layer
    while path not in modules and path.startswith(_WRAPPERS) and plain is not model:
        path = path.partition(".")[2]
    if path not in modules or not path:  # the model itself is none of its layers
        del modules[""]
        close = difflib.get_close_matches(path, modules, n=5)
        children = [name for name, _ in plain.named_children()]
        remedy = f"did you mean {_listed(close)}?" if close else f"its outermost modules are {_listed(children)}"
        raise InputError("layer", wanted=f"a module of {type(plain).__name__}", got=repr(layer), remedy=remedy)
    parts = path.split(".")
    around = [modules[".".join(parts[:n])] for n in range(len(parts) + 1)]
    if any(isinstance(module, torch.jit.ScriptModule) for module in around):
        got = f"{layer!r}, which is scripted or traced and runs unseen"
        remedy = "give the module that it was made from; load_state_dict takes its state_dict() for the weights"
        raise InputError("layer", wanted="a layer of a Python module", got=got, remedy=remedy)
    module: torch.nn.Module = modules[path]
    return module


def layer_path(model: torch.nn.Module, layer: Any) -> Any:
    """Return the path of a layer given as a module; anything else is returned unchanged.

    Raises
    ------
    InputError
        If it is no layer of the model.

    """
    import torch

    if not isinstance(layer, torch.nn.Module) or not isinstance(model, torch.nn.Module):
        return layer
    inside, wanted = unwrapped(layer), unwrapped(model)
    path = next((path for path, module in wanted.named_modules() if module in (layer, inside)), "")
    if not path:
        got = f"a {type(layer).__name__} from elsewhere"
        remedy = "take it from this very model: model.layer4, or its path"
        raise InputError("layers", wanted=f"layers of {type(wanted).__name__}", got=got, remedy=remedy)
    return path


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode for a while; afterwards each module has its own mode again.

    ``model.train(before)`` would not do: a frozen batch normalisation inside a model in training is in
    evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        try:
            model.eval()
        except NotImplementedError as error:
            remedy = "give the module that it was exported from"
            raise InputError("model", wanted="one with an evaluation mode", got=f"{error}", remedy=remedy) from error
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def running(model: torch.nn.Module) -> Iterator[Callable[..., Any]]:
    """Give a function that runs a model so that each of its layers is seen, in evaluation mode and without gradients.

    Wrappers are left out and nothing is compiled (`unwrapped`), and transformers do not take torch's fast path, which
    runs a whole layer at once, on nested tensors. The function takes the model's arguments and moves tensors among
    them to its device.
    """
    import torch

    plain = unwrapped(model)
    device = device_of(plain)

    def placed(value: Any) -> Any:
        return value.to(device) if device is not None and isinstance(value, torch.Tensor) else value

    def run(*inputs: Any, **keywords: Any) -> Any:
        with torch.no_grad():
            return called(plain, list(map(placed, inputs)), {name: placed(value) for name, value in keywords.items()})

    with ExitStack() as stack:
        stack.enter_context(evaluating(plain))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        if "torch._dynamo" in sys.modules:  # or nothing has been compiled, and to import it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield run


@contextmanager
def recording(model: torch.nn.Module, layer: str, *, output: Output = None) -> Iterator[Callable[[Any], torch.Tensor]]:
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
        Path of the layer (`resolve_layer`).
    output
        Which of several things that the layer puts out: ``0``, ``"last_hidden_state"``, ``"states.0"``.

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

    with recording_calls(model, [layer], lambda _layer, taken: taken.clone(), output=output) as run:
        yield outputs_of


@contextmanager
def recording_calls(
    model: torch.nn.Module,
    layers: Sequence[str],
    take: Callable[[str, torch.Tensor], T],
    *,
    output: Output = None,
) -> Iterator[Callable[..., dict[str, list[T]]]]:
    """Give a function that runs the model and returns what several layers put out, in one pass, call by call.

    The function takes the model's arguments; tensors among them are moved to its device. The model runs as by
    `running`.

    Parameters
    ----------
    model
        Any torch module.
    layers
        Paths of layers (`resolve_layer`).
    take
        Called with layer and output each time that a layer has run; what it returns is kept. It must copy, since
        later layers may work in place.
    output
        As `recording`, of layers that put out something else than one tensor.

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
    outputs.check_output(output)
    modules = {layer: resolve_layer(model, layer) for layer in layers}
    kept: dict[str, list[T]] = {}
    was_used = False

    def keep(layer: str, value: Any) -> None:
        nonlocal was_used
        steps = outputs.find(value, output, layer)
        was_used |= bool(steps)
        kept[layer].append(take(layer, outputs.get(value, steps).detach()))

    def recorded(*inputs: Any, **keywords: Any) -> dict[str, list[T]]:
        kept.clear()
        kept.update((layer, []) for layer in modules)
        try:
            run(*inputs, **keywords)
        except outputs.NoTensorError as error:
            raise no_tensor(error, what_ran(model, run, inputs, keywords)) from error
        for layer, taken in kept.items():
            if not taken:
                raise did_not_run(layer, what_ran(model, run, inputs, keywords))
        if output is not None and not was_used:
            got = f"one tensor from {_listed(list(modules))}"
            raise InputError("output", wanted="a layer that puts out several things", got=got, remedy="leave it out")
        return dict(kept)

    with running(model) as run, ExitStack() as hooks:
        for layer, module in modules.items():
            handle = module.register_forward_hook(lambda _module, _inputs, value, name=layer: keep(name, value))
            hooks.callback(handle.remove)
        yield recorded


def what_ran(
    model: torch.nn.Module, run: Callable[..., Any], inputs: Sequence[Any], keywords: Mapping[str, Any]
) -> list[str]:
    """Run a model by `running` once more -> the paths of all layers that run and put out one tensor, in their order."""
    found: list[str] = []

    def note(path: str, value: Any) -> None:
        with suppress(outputs.NoTensorError):
            outputs.find(value, None, path)
            found.append(path)

    with ExitStack() as hooks:
        for path, module in unwrapped(model).named_modules():
            # Before those of who asks, which fail.
            handle = module.register_forward_hook(lambda _m, _i, value, path=path: note(path, value), prepend=True)
            hooks.callback(handle.remove)
        with suppress(outputs.NoTensorError):
            run(*inputs, **keywords)
    return [path for path in dict.fromkeys(found) if path]


def no_tensor(error: outputs.NoTensorError, ran: list[str]) -> InputError:
    """Return the error for a layer that puts out several things, with what to choose instead."""
    layer, kind = error.layer, type(error.output).__name__
    inside = [path for path in ran if path.startswith(f"{layer}.")]
    listed = outputs.described(error.output)
    remedies = [] if listed == "none" else [f"choose one: {listed}"]
    if inside:
        remedies.append(f"choose one inside it: {_listed(sorted(inside, key=lambda path: path.count('.')))}")
    remedy = "; or ".join(remedies) or "choose the layer before or behind it"
    return InputError("layer", wanted="a layer that puts out one tensor", got=f"a {kind} from {layer!r}", remedy=remedy)


def did_not_run(layer: str, ran: list[str]) -> InputError:
    """Return the error for a layer that did not run, with those like it that do."""
    inside = [path for path in ran if path.startswith(f"{layer}.")]
    around = sorted((path for path in ran if layer.startswith(f"{path}.")), key=len, reverse=True)
    close = inside or around or difflib.get_close_matches(layer, ran, n=5, cutoff=0) or ran
    remedy = "choose a layer that the model's forward pass uses" + (f": {_listed(close)}" if close else "")
    return InputError("layer", wanted="a layer that runs", got=f"{layer!r}, which did not", remedy=remedy)


def device_of(model: torch.nn.Module) -> torch.device | None:
    """Return the device of the model's first parameter or buffer; None = it has neither."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), None)


def record(model: torch.nn.Module, layer: str, batch: Any, *, output: Output = None) -> torch.Tensor:
    """Run one batch through the model and return what a layer put out; see `recording`."""
    with recording(model, layer, output=output) as outputs_of:
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
        if np.ma.is_masked(first):  # torch would take what a mask hides for numbers
            remedy = "fill them: .filled(value)"
            raise InputError("loader", wanted="no masked entries", got="a masked array", remedy=remedy)
        try:
            images = torch.as_tensor(first)
        except (TypeError, ValueError, RuntimeError) as error:
            remedy = "let it yield images or (images, ...)"
            raise DTypeError("loader", wanted="arrays of images", got=type(first).__name__, remedy=remedy) from error
        described = outputs.tensor_text(images)
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
    require_library("torch", "torch", purpose)
