"""What identifies a network: its weights, and the text that describes its modules."""

from __future__ import annotations

import hashlib
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from ccx.errors import InputError

if TYPE_CHECKING:
    import torch

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")  # in the texts of objects without a text of their own


def model_hashes(model: torch.nn.Module) -> dict[str, str]:
    """Return hashes of a network -> ``{"weights": ..., "architecture": ...}``.

    The first covers names, dtypes, shapes and bytes of all parameters and buffers, the second the text of the module,
    in which strides, paddings and kinds of layers stand. What a network does beyond that is not seen: code of its
    ``forward`` that was changed while everything else stayed.

    Raises
    ------
    InputError
        If a weight has no numbers (a model on the device "meta"), or none in plain memory.

    """
    import torch

    weights = hashlib.sha256()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        try:
            plain = tensor.detach().cpu().contiguous()
            numbers = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            got = f"{name} of {tensor.dtype} on {tensor.device}"
            remedy = "load the model's weights first"
            raise InputError("model", wanted="weights that can be read", got=got, remedy=remedy) from error
        weights.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        weights.update(numbers)
    text = f"{type(model).__module__}.{type(model).__qualname__}\n{_ADDRESS.sub('', repr(model))}"
    return {
        "weights": weights.hexdigest()[:32],
        "architecture": hashlib.sha256(text.encode()).hexdigest()[:32],
    }


def described(preprocessing: Any) -> Any:
    """Return a preprocessing as JSON: its settings, or the text of what has none."""
    if preprocessing is None:
        return None
    settings = getattr(preprocessing, "to_dict", None)
    return settings() if callable(settings) else _ADDRESS.sub("", repr(preprocessing))
