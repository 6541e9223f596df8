"""Passes of a network over batches: from a batch to the activations of the layers that are probed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ccx import networks
from ccx.errors import DTypeError, InputError
from ccx.probing.layouts import Layout, check_sample_shape
from ccx.probing.loaders import Batch

if TYPE_CHECKING:
    import torch

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Arrays: TypeAlias = dict[str, Array]
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
StoredDtype: TypeAlias = Literal["float32", "float16"]


@dataclass(frozen=True)
class Runner:
    """A network, and how it is run; see `ccx.probe` for each."""

    model: torch.nn.Module
    layers: tuple[str, ...]
    layout: Layout
    call: int | None
    output: networks.Output
    precision: Precision
    dtype: StoredDtype
    device: Any

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers, as JSON; not the device, on which only rounding depends."""
        layout = self.layout
        return {
            "layers": list(self.layers),
            "units": None if layout.units is None else list(layout.units),
            "tokens": None if layout.tokens is None else list(layout.tokens),
            "skip": layout.skip,
            "unit_axis": layout.unit_axis,
            "call": self.call,
            "output": self.output,
            "precision": self.precision,
            "dtype": self.dtype,
        }

    @contextmanager
    def running(self) -> Iterator[Callable[[Batch], Arrays]]:
        """Give the function from a batch to its activations, of use only inside the block."""
        import torch

        stored = getattr(torch, self.dtype)
        shapes: dict[str, tuple[int, ...]] = {}
        batch_now: list[Batch] = []

        def take(layer: str, output: torch.Tensor) -> tuple[int, Array]:
            if not output.is_floating_point():
                remedy = "choose a layer that puts out activations"
                got = f"{output.dtype} from {layer!r}"
                raise DTypeError("layers", wanted="outputs of floats", got=got, remedy=remedy)
            arranged = self.layout.arrange(output, layer, batch_now[0].n_samples)
            # One copy to its place, as later layers may change the output.
            copied = torch.empty(arranged.shape, dtype=stored).copy_(arranged)
            if stored == torch.float16 and bool((torch.isinf(copied) & ~torch.isinf(arranged).cpu()).any()):
                remedy = 'leave out dtype="float16"'
                raise DTypeError(
                    "dtype", wanted="values within float16", got=f"larger ones in {layer!r}", remedy=remedy
                )
            return output.ndim, copied.numpy()

        def run(batch: Batch) -> Arrays:
            batch_now[:] = [batch]
            with self._autocast():
                outputs = record(*batch.inputs, **batch.keywords)
            n_axes = {ndim for taken in outputs.values() for ndim, _ in taken}
            if (self.layout.tokens is not None or self.layout.skip) and 3 not in n_axes:
                wanted = "a layer that puts out tokens, three axes"
                got = f"{' and '.join(map(str, sorted(n_axes)))} axes"
                raise InputError("tokens", wanted=wanted, got=got, remedy="leave out tokens and skip")
            found = {layer: self._chosen(layer, taken) for layer, taken in outputs.items()}
            for layer, array in found.items():
                check_sample_shape(layer, shapes.setdefault(layer, array.shape[1:]), array.shape[1:])
            return found

        with (
            _placed(self.model, self.device),
            networks.recording_calls(self.model, self.layers, take, output=self.output) as record,
        ):
            yield run

    def _chosen(self, layer: str, taken: list[tuple[int, Array]]) -> Array:
        """Return the output of the call that counts."""
        if self.call is None:
            if len(taken) > 1:
                remedy = "say which run counts: call=0 for the first, call=-1 for the last"
                got = f"{layer!r}, which ran {len(taken)} times in one pass"
                raise InputError("layers", wanted="a layer that runs once", got=got, remedy=remedy)
            return taken[0][1]
        try:
            return taken[self.call][1]
        except IndexError as error:
            wanted = f"a run of {layer!r}, from 0 to {len(taken) - 1}"
            raise InputError("call", wanted=wanted, got=str(self.call), remedy="leave it out") from error

    def _autocast(self) -> AbstractContextManager[object]:
        import torch

        if self.precision == "float32":
            return nullcontext()
        device = networks.device_of(self.model)
        kind = "cpu" if device is None else device.type
        mixed: AbstractContextManager[object] = torch.autocast(kind, dtype=getattr(torch, self.precision))
        return mixed


@contextmanager
def _placed(model: torch.nn.Module, device: Any) -> Iterator[None]:
    """Move a model to a device for a while."""
    import torch

    if device is None:
        yield
        return
    try:
        target = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = "leave it out to run the model where it is"
        raise InputError(
            "device", wanted=f"a device of this machine ({reason:.120})", got=repr(device), remedy=remedy
        ) from error
    before = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if len(before) > 1:
        remedy = "leave it out, and let the model's own code place its inputs"
        raise InputError("device", wanted="none for a model on several devices", got=repr(device), remedy=remedy)
    try:
        if before and before != {target}:
            model.to(target)
        yield
    finally:
        for place in before:
            model.to(place)
