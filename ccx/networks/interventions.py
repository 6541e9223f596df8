"""Changing what a layer puts out, and what the network then says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ccx.errors import InputError, ShapeError
from ccx.networks import outputs
from ccx.networks.hooks import did_not_run, no_tensor, require_torch, resolve_layer, running, what_ran
from ccx.networks.outputs import Output

if TYPE_CHECKING:
    import torch

Ranges = Sequence[tuple[float, float]]

_CHUNK = 256  # changed samples that run through the rest of the network at a time


@contextmanager
def intervening(
    model: torch.nn.Module,
    layer: str,
    change: Callable[[torch.Tensor], torch.Tensor],
    *,
    output: Output = None,
) -> Iterator[Callable[[Any], torch.Tensor]]:
    """Give a function that runs batches through the model while what one layer puts out is changed.

    The function moves a batch (tensor or NumPy array) to the model's device, runs the model in evaluation mode and
    without gradients, and returns what the model puts out.

    Parameters
    ----------
    model
        Any torch module that takes one tensor.
    layer
        Path of the layer (`resolve_layer`).
    change
        ``output -> output``; it must not write to the tensor that it is given.
    output
        Which of several things that the layer puts out, as for `recording`.

    Yields
    ------
    Callable
        ``batch -> what the model puts out``; of use only inside the ``with`` block.

    Raises
    ------
    InputError
        If there is no such layer; from the function, if the layer does not put out one tensor, or does not run.
    MissingExtraError
        If torch is not installed.

    """
    require_torch("changing a layer's output")
    import torch

    outputs.check_output(output)
    module = resolve_layer(model, layer)
    n_calls = 0

    def changed(_module: Any, _inputs: Any, value: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        steps = outputs.find(value, output, layer)
        return outputs.replaced(value, steps, change(outputs.get(value, steps)))

    def changing(batch: Any) -> torch.Tensor:
        nonlocal n_calls
        n_calls = 0
        images = torch.as_tensor(batch)
        try:
            found = run(images)
        except outputs.NoTensorError as error:
            raise no_tensor(error, what_ran(model, run, [images], {})) from error
        if not n_calls:
            raise did_not_run(layer, what_ran(model, run, [images], {}))
        try:
            return outputs.get(found, outputs.find(found, None, "the model"))
        except outputs.NoTensorError as error:
            remedy = "wrap the model so that it returns the scores alone"
            got = type(found).__name__
            raise InputError("model", wanted="one that puts out one tensor", got=got, remedy=remedy) from error

    with running(model) as run:
        handle = module.register_forward_hook(changed)
        try:
            yield changing
        finally:
            handle.remove()


class ClassesAfter:
    """The classes that a network predicts for a batch, before and after a layer's output is changed.

    The output of the layer is replaced, so the images matter only where another path leads around it: without one, a
    single image does for any number of outputs, and only the rest of the network is run on them. Whether that holds is
    tried with the true outputs.

    Parameters
    ----------
    model
        A torch classifier: it puts out [n, classes].
    layer
        Path of a layer that puts out [n, U, ...].
    images
        A batch.
    output
        Which of several things that the layer puts out, as for `recording`.

    Attributes
    ----------
    outputs
        What the layer puts out for the batch, a copy.
    before
        int64[n]: the class of the largest output.

    Raises
    ------
    InputError, ShapeError
        If the layer or the output of the model do not fit.

    """

    def __init__(self, model: torch.nn.Module, layer: str, images: torch.Tensor, *, output: Output = None) -> None:
        kept: list[torch.Tensor] = []

        def keep(taken: torch.Tensor) -> torch.Tensor:
            kept.append(taken.clone())
            return taken

        self._model, self._layer, self._images, self._output = model, layer, images, output
        with intervening(model, layer, keep, output=output) as run:
            self._scores = _checked(run(images), len(images))
        self.before = self._scores.argmax(dim=1)
        self.outputs = kept[-1]
        self._one_does = len(kept) == 1 and all(self._agrees_for(images[n : n + 1]) for n in (0, len(images) - 1))

    def _agrees_for(self, images: torch.Tensor) -> bool:
        try:
            scores = self._replaced(images, self.outputs)
        except (RuntimeError, ValueError, ShapeError):  # shapes do not fit: another path leads around the layer
            return False
        most = float(self._scores.abs().max())  # the last bits may depend on the size of a batch
        return bool(((scores - self._scores).abs() <= 1e-5 * most).all())

    def predict(self, outputs: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Return the classes predicted from changed outputs [m, U, ...] of the samples `where` (int64[m])."""
        import torch

        images = self._images[:1] if self._one_does else self._images[where.to(self._images.device)]
        parts = [
            self._replaced(
                images if self._one_does else images[start : start + _CHUNK], outputs[start : start + _CHUNK]
            )
            for start in range(0, len(outputs), _CHUNK)
        ]
        return torch.cat(parts).argmax(dim=1)

    def _replaced(self, images: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        def change(_output: torch.Tensor) -> torch.Tensor:
            return outputs.clone()  # layers may work in place

        with intervening(self._model, self._layer, change, output=self._output) as run:
            return _checked(run(images), len(outputs))


def _checked(scores: Any, n_samples: int) -> torch.Tensor:
    if getattr(scores, "ndim", 0) != 2 or len(scores) != n_samples:
        got = f"{list(scores.shape)}" if hasattr(scores, "shape") else type(scores).__name__
        remedy = "wrap the model so that it returns the scores alone"
        raise ShapeError("model", wanted=f"outputs [{n_samples}, classes]", got=got, remedy=remedy)
    found: torch.Tensor = scores
    return found


def inside_ranges(outputs: torch.Tensor, limits: Mapping[int, tuple[float, float]]) -> torch.Tensor:
    """Mark the activations [n, U, ...] strictly inside their unit's range: bool of the same shape."""
    import torch

    inside = torch.zeros_like(outputs, dtype=torch.bool)
    for unit, (lower, upper) in limits.items():
        inside[:, unit] = (outputs[:, unit] > lower) & (outputs[:, unit] < upper)
    return inside


def zeroed_ranges(
    outputs: torch.Tensor, limits: Mapping[int, Ranges]
) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor, torch.Tensor]]:
    """Set each range of each unit to 0 alone, for every sample that has an activation inside; some at a time.

    Yields lists of (unit, number of the range), the changed outputs [m, U, ...], and their samples int64[m].
    """
    import torch

    keys: list[tuple[int, int]] = []
    parts, places = [], []
    for unit, ranges in limits.items():
        for number, (lower, upper) in enumerate(ranges):
            inside = (outputs[:, unit] > lower) & (outputs[:, unit] < upper)
            (where,) = inside.reshape(len(outputs), -1).any(dim=1).nonzero(as_tuple=True)
            if not len(where):
                continue
            changed = outputs[where]
            changed[:, unit] = changed[:, unit].masked_fill(inside[where], 0)
            keys += [(unit, number)] * len(where)
            parts.append(changed)
            places.append(where)
            if len(keys) >= _CHUNK:
                yield keys, torch.cat(parts), torch.cat(places)
                keys, parts, places = [], [], []
    if keys:
        yield keys, torch.cat(parts), torch.cat(places)
