"""The data that `probe` takes: batches for a model, from whatever holds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccx.errors import CCXError, DTypeError, InputError, ShapeError, StoreError
from ccx.kernels.conversion import as_array
from ccx.keys import Keys
from ccx.listing import data_keys, picture_files
from ccx.networks import check_order
from ccx.networks.outputs import tensor_text

if TYPE_CHECKING:
    import torch

Preprocess = Callable[[Any], Any]
_REMEDY = "let it yield tensors, tuples that begin with one, or mappings of tensors"


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of a model, for n samples."""

    inputs: tuple[torch.Tensor, ...]
    keywords: dict[str, torch.Tensor]
    n_samples: int

    def digests(self) -> list[str]:
        """Return a hash of each sample: 128 bits of SHA-256, of names, dtypes, shapes and bytes."""
        import torch

        named = [("", tensor) for tensor in self.inputs] + sorted(self.keywords.items())
        parts = []
        for name, tensor in named:
            label = f"{name}\0{tensor.dtype}\0{list(tensor.shape[1:])}\0".encode()
            rows = tensor.detach().cpu().contiguous()
            if rows.dtype == torch.bool:
                rows = rows.view(torch.uint8)
            parts.append((label, rows.reshape(len(rows), -1).view(torch.uint8).numpy()))
        found = []
        for index in range(self.n_samples):
            digest = hashlib.sha256()
            for label, rows in parts:
                digest.update(label)
                digest.update(rows[index])
            found.append(digest.hexdigest()[:32])
        return found


@dataclass(frozen=True)
class Source:
    """Batches in a fixed order; `n_samples` is None where nobody knows before the end, `keys` where nobody does."""

    batches: Iterable[Batch]
    n_samples: int | None
    keys: Keys | None


def as_source(
    loader: Any, preprocessing: Preprocess | None, batch_size: int, workers: int, n_inputs: int | None = 1
) -> Source:
    """Return the batches of any data that `ccx.probe` accepts.

    Raises `InputError` (`DTypeError`, `ShapeError`) if it is nothing of these; later, from the batches, if one of them
    cannot be used; `StoreError` if a folder or a picture cannot be read.
    """
    import torch

    if isinstance(loader, (str, os.PathLike)):
        loader = picture_files(loader)
    if isinstance(loader, Mapping):
        whole = as_batch(loader)
        return _cut(
            lambda part: {name: tensor[part] for name, tensor in whole.keywords.items()},
            whole.n_samples,
            batch_size,
            None,
        )
    keys = data_keys(loader)
    if isinstance(loader, (np.ndarray, torch.Tensor)) or _is_stored(loader):
        if len(loader.shape) < 4 or str(loader.dtype).removeprefix("torch.") != "uint8" or preprocessing is None:
            return _cut(loader.__getitem__, len(loader), batch_size, keys)
        loader = _Rows(loader)
    items = _as_items(loader)
    if items is None:
        n_samples = check_order(loader)
        keys = None if n_samples is None else data_keys(getattr(loader, "dataset", None))  # whose samples come in order
        return Source(_batches(loader, n_inputs), n_samples, keys)
    batches = torch.utils.data.DataLoader(
        _Items(items, preprocessing, n_inputs),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collated,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    return Source(_batches(batches, n_inputs), len(items), keys)


def _batches(loader: Iterable[Any], n_inputs: int | None = 1) -> Iterator[Batch]:
    for value in loader:  # asked for no sooner than a batch is: a data set with a name may not be read at all
        if isinstance(value, CCXError):
            raise value
        yield as_batch(value, n_inputs)


def as_batch(value: Any, n_inputs: int | None = 1) -> Batch:
    """Return what a loader yielded as the arguments of a model: of a tuple the first `n_inputs` entries.

    None is 1 for a model that takes more: a second entry that may be an input is refused. Raises `DTypeError` or
    `ShapeError` if it is no batch.
    """
    if isinstance(value, Mapping):
        keywords = {str(name): _tensor(entry, f"entry {name!r}") for name, entry in value.items()}
        return Batch((), keywords, _n_in_all(keywords))
    if n_inputs is not None and n_inputs > 1:
        if not isinstance(value, (tuple, list)) or len(value) < n_inputs:
            got = f"{len(value)} entries" if isinstance(value, (tuple, list)) else f"a {type(value).__name__}"
            wanted = f"tuples that begin with {n_inputs} tensors"
            raise ShapeError("loader", wanted=wanted, got=got, remedy="let it yield them, or leave out inputs")
        tensors = {f"entry {i}": _tensor(entry, f"entry {i}") for i, entry in enumerate(value[:n_inputs])}
        return Batch(tuple(tensors.values()), {}, _n_in_all(tensors))
    if isinstance(value, (tuple, list)) and value:
        _refuse_second(value, n_inputs, n_axes=2)
        value = value[0]
    tensor = _tensor(value, "a batch")
    _n_in_all({"a batch": tensor})
    is_image = tensor.ndim == 4 or (tensor.ndim == 3 and str(tensor.dtype) == "torch.uint8")
    if is_image and not tensor.is_floating_point():
        remedy = "normalise the images as the model expects them, or pass preprocessing= and single images"
        raise DTypeError("loader", wanted="images of floats", got=tensor_text(tensor), remedy=remedy)
    return Batch((tensor,), {}, tensor.shape[0])


def _refuse_second(entries: Sequence[Any], n_inputs: int | None, n_axes: int) -> None:
    """Raise unless the first of several entries is plainly the only input."""
    if n_inputs is None and len(entries) > 1 and getattr(entries[1], "ndim", 0) >= n_axes:
        got = f"several entries, the second of shape {list(entries[1].shape)}, for a model with a place for it"
        remedy = "say how many are inputs: inputs=1 or inputs=2; or let it yield mappings"
        raise InputError("loader", wanted="batches with one input", got=got, remedy=remedy)


def _n_in_all(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the number of samples of a batch's tensors; those of one axis have a number for each sample."""
    sizes = {name: int(tensor.shape[0]) for name, tensor in tensors.items()}
    if len(set(sizes.values())) != 1:
        wanted = "batches whose tensors have one number of samples"
        raise ShapeError("loader", wanted=wanted, got=str(sizes), remedy="drop what is no input of the model")
    if all(tensor.ndim < 2 for tensor in tensors.values()):
        got = ", ".join(map(tensor_text, tensors.values()))
        wanted = "batches [n, ...] of two axes or more, with something in them"
        raise ShapeError("loader", wanted=wanted, got=got, remedy="let it yield batches, not single samples")
    return next(iter(sizes.values()))


def _tensor(value: Any, what: str) -> torch.Tensor:
    try:
        tensor = _as_tensor(value)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"{what} of type {type(value).__name__}"
        raise DTypeError("loader", wanted="batches of tensors", got=got, remedy=_REMEDY) from error
    if tensor.ndim < 1 or tensor.numel() == 0:
        wanted = f"{what} [n, ...], with something in it"
        remedy = "let it yield batches, and nothing but tensors"
        raise ShapeError("loader", wanted=wanted, got=tensor_text(tensor), remedy=remedy)
    return tensor


def _as_tensor(value: Any) -> torch.Tensor:
    import torch

    if isinstance(value, np.ndarray) and not (type(value) is np.ndarray and value.dtype.isnative):
        value = as_array(value, "loader")  # torch would take what a mask hides for numbers
    if isinstance(value, np.ndarray) and not (value.flags.writeable and min(value.strides, default=0) >= 0):
        value = value.copy()  # torch warns of read-only arrays, as memory-mapped ones are, and refuses negative strides
    return torch.as_tensor(value)


def _is_stored(value: Any) -> bool:
    """Tell whether this is an array in a file (h5py, zarr), of which a part is read when it is indexed."""
    return not isinstance(value, type) and all(
        hasattr(value, name) for name in ("shape", "dtype", "__getitem__", "__len__")
    )


def _cut(samples: Callable[[slice], Any], n_samples: int, batch_size: int, keys: Keys | None) -> Source:
    """Cut what holds all samples into batches."""
    parts = (samples(slice(first, first + batch_size)) for first in range(0, n_samples, batch_size))
    return Source(_batches(parts), n_samples, keys)


def _as_items(loader: Any) -> Sequence[Any] | None:
    """Return the single samples behind what a caller passed; None if it holds batches."""
    import torch

    data = torch.utils.data
    if isinstance(loader, data.IterableDataset):
        remedy = "wrap it: torch.utils.data.DataLoader(data_set, batch_size=32)"
        raise InputError("loader", wanted="batches, or a data set with an index", got="an iterable one", remedy=remedy)
    if isinstance(loader, data.DataLoader):
        return None
    if isinstance(loader, (data.Dataset, _Rows)):
        return loader  # type: ignore[return-value]  # map-style: __len__ and __getitem__
    images = getattr(loader, "images", None)
    if images is not None and hasattr(images, "__getitem__"):
        found: Sequence[Any] = images
        return found
    if isinstance(loader, (list, tuple)) and loader and _is_picture(loader[0]):
        return loader
    return None


def _is_picture(value: Any) -> bool:
    """Tell whether an entry of a list is a single image, and no batch."""
    if isinstance(value, (str, os.PathLike)):
        return True
    return (isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim < 4) or hasattr(value, "getbands")


class _Rows:
    """The entries of an array, one by one: images for a preprocessing."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Any:
        row = self._array[index]
        return row if isinstance(row, np.ndarray) else row.numpy()


@dataclass(frozen=True)
class _Items:
    """Single samples, preprocessed; a tuple counts by its first entries, one for each input of the model."""

    items: Sequence[Any]
    preprocessing: Preprocess | None
    n_inputs: int | None = 1

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        try:
            item = self.items[index]
            if isinstance(item, (tuple, list)) and item:
                if self.n_inputs is not None and self.n_inputs > 1:
                    return tuple(map(self._prepared, item[: self.n_inputs]))
                _refuse_second(item, self.n_inputs, n_axes=1)
                item = item[0]
            return self._prepared(item)
        except InputError as error:  # an error that is raised here would come from a worker process as a text
            got = f"{error.got} (sample {index})"
            return type(error)(error.argument, wanted=error.wanted, got=got, remedy=error.remedy)
        except CCXError as error:
            return StoreError(str(error))

    def _prepared(self, item: Any) -> Any:
        sample = _as_sample(item)
        return self._preprocessed(item) if sample is None else sample

    def _preprocessed(self, item: Any) -> Any:
        if self.preprocessing is not None:
            return self.preprocessing(item)
        try:
            return _as_tensor(item)
        except InputError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            remedy = "pass preprocessing=, such as ccx.models.Preprocessing()"
            got = type(item).__name__
            raise DTypeError("loader", wanted="samples that are tensors", got=got, remedy=remedy) from error


def _as_sample(item: Any) -> Any:
    """Return a sample that needs no preprocessing; None if it does."""
    import torch

    if isinstance(item, Mapping):
        return {name: _as_tensor(value) for name, value in item.items()}
    return item if isinstance(item, torch.Tensor) and item.dtype != torch.uint8 else None


def _collated(samples: list[Any]) -> Any:
    import torch

    wrong = next((sample for sample in samples if isinstance(sample, CCXError)), None)
    if wrong is not None:
        return wrong
    shapes = {tuple(getattr(sample, "shape", ())) for sample in samples}
    if len(shapes) > 1:
        listed = ", ".join(str(list(shape)) for shape in sorted(shapes)[:3])
        return ShapeError("loader", wanted="samples of one shape", got=listed, remedy="resize or pad them")
    return torch.utils.data.default_collate(samples)
