"""From what a layer puts out to [n, U], [n, U, T] or [n, U, h, w]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccx.checks import UNBOUNDED, integer, items, sides
from ccx.errors import InputError, ShapeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layout:
    """How outputs are laid out: which axis has the units, which of them count, and where tokens lie.

    See `ccx.probe` for each.
    """

    tokens: tuple[int, int] | None
    skip: int
    unit_axis: int | None
    units: tuple[int, ...] | None  # ascending

    def arrange(self, output: torch.Tensor, layer: str, n_samples: int) -> torch.Tensor:
        """Return [n, ...] as [n, U], [n, U, T] or [n, U, h, w], where possible without a copy.

        Raises `ShapeError` if it has another number of axes, samples or tokens; `InputError` if a unit is not there.
        """
        import torch

        got = f"{list(output.shape)} from {layer!r}"
        if output.ndim not in (2, 3, 4):
            raise ShapeError("layers", wanted="outputs of two to four axes", got=got, remedy="choose another layer")
        if output.shape[0] != n_samples:
            wanted = f"outputs of the {n_samples} samples of the batch along axis 0"
            remedy = "build the model with batch_first=True, or choose another layer"
            raise ShapeError("layers", wanted=wanted, got=got, remedy=remedy)
        axis = self._axis(output, got)
        units_first = output.movedim(axis, 1)
        if self.units is not None:
            if self.units[-1] >= units_first.shape[1]:
                wanted = f"units 0..{units_first.shape[1] - 1} of {layer!r}"
                raise InputError("units", wanted=wanted, got=str(self.units[-1]), remedy="give indices of units")
            units_first = units_first.index_select(1, torch.as_tensor(self.units, device=output.device))
        return self._on_grid(units_first, got) if output.ndim == 3 else units_first

    def _axis(self, output: torch.Tensor, got: str) -> int:
        if self.unit_axis is None:
            return 2 if output.ndim == 3 else 1
        axis = self.unit_axis + output.ndim if self.unit_axis < 0 else self.unit_axis
        if not 1 <= axis < output.ndim:
            remedy = "axis 0 has the samples"
            raise InputError("unit_axis", wanted=f"an axis of {got}", got=str(self.unit_axis), remedy=remedy)
        return axis

    def _on_grid(self, outputs: torch.Tensor, got: str) -> torch.Tensor:
        n_tokens = outputs.shape[2] - self.skip
        if self.tokens is None:
            if n_tokens < 1:
                raise ShapeError("skip", wanted="tokens beyond those skipped", got=got, remedy="give a smaller skip")
            return outputs[:, :, self.skip :]
        if n_tokens != self.tokens[0] * self.tokens[1]:
            wanted = f"{self.tokens[0]}×{self.tokens[1]} tokens behind {self.skip} that are skipped"
            remedy = "correct tokens=(h, w) and skip (class and register tokens); unit_axis says where the units are"
            raise ShapeError("tokens", wanted=wanted, got=got, remedy=remedy)
        return outputs[:, :, self.skip :].unflatten(2, self.tokens)


def check_sample_shape(layer: str, expected: tuple[int, ...], got: tuple[int, ...]) -> None:
    """Raise `ShapeError` if a batch's samples are of another shape than those before."""
    if expected != got:
        wanted = f"samples of one shape (so far {layer!r} put out {list(expected)} for each)"
        remedy = "resize images to one size; pad texts to one length (the padding can be void for the concepts)"
        raise ShapeError("loader", wanted=wanted, got=f"{list(got)}", remedy=remedy)


def check_layout(tokens: Any, skip: Any, unit_axis: Any, units: Any) -> Layout:
    """Check what a caller passed -> the layout; raises `InputError` if something is of another kind."""
    wanted = "None or (h, w)"
    return Layout(
        None if tokens is None else sides("tokens", tokens, "write tokens=(14, 14)", wanted),
        integer("skip", skip, 0, UNBOUNDED, "1 skips a class token"),
        None if unit_axis is None else integer("unit_axis", unit_axis, -UNBOUNDED, UNBOUNDED, "leave it out"),
        None if units is None else _units(units),
    )


def _units(units: Any) -> tuple[int, ...]:
    remedy = "give indices of units"
    chosen = {integer("units", unit, 0, UNBOUNDED, remedy) for unit in items("units", units, "a list of units", remedy)}
    if not chosen:
        raise InputError("units", wanted="at least one unit", got="none", remedy="leave it out for all")
    return tuple(sorted(chosen))
