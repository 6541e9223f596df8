"""The order of samples: which loaders provably yield samples 0..n-1, each once.

Nothing is consumed: no batch is read, and samplers are copied before they are listed, so that their state and the
random generators stay as they were. torch is looked up among the imported modules: without it, none of its loaders
can exist.
"""

from __future__ import annotations

import copy
import gc
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import getattr_static, isgenerator
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ccx.checks import require_kind
from ccx.errors import InputError, ShapeError

_PARTS, _DEPTH, _ENTRIES = 1_000, 8, 64  # looked at of what a loader consists of
_LISTINGS = 3  # of a sampler: one that shuffles may come out in order once
_DATASETS = ("dataset", "_dataset")
_PLAIN = "build the DataLoader with shuffle=False and without a sampler of its own"


def check_order(loader: Any, argument: str = "loader") -> int | None:
    """Raise unless a loader yields its samples in their order, as far as it can be seen.

    Of a torch DataLoader, and of one inside a wrapper, a generator or an iterator, that is provable: its sampler must
    list 0..n-1, each once. Any other iterable of batches is believed: what it yields first is sample 0.

    Parameters
    ----------
    loader
        An iterable of batches.
    argument
        Its name in messages.

    Returns
    -------
    int or None
        The number of samples, where a DataLoader tells.

    Raises
    ------
    InputError
        If it shuffles, leaves out or repeats samples, or could do so.
    DTypeError
        If it is no iterable.

    """
    remedy = "pass a DataLoader or a list of batches"
    require_kind(argument, loader, Iterable, "an iterable of batches", remedy)
    try:
        return _checked(loader)
    except _Unordered as found:
        wanted = "samples in a fixed order, each once"
        raise InputError(argument, wanted=wanted, got=found.got, remedy=found.remedy) from found.__cause__


def check_count(n_samples: int, announced: int | None, argument: str = "loader") -> None:
    """Raise `ShapeError` if a loader yielded another number of samples than `check_order` found."""
    if announced is not None and n_samples != announced:
        remedy = "let len() of the data set and what it yields agree"
        raise ShapeError(argument, wanted=f"{announced} samples", got=str(n_samples), remedy=remedy)


class _Unordered(Exception):  # never leaves this module
    def __init__(self, got: str, remedy: str) -> None:
        self.got, self.remedy = got, remedy
        super().__init__(got)


def _checked(loader: Any) -> int | None:
    if isinstance(loader, (set, frozenset)):
        _refuse(f"a {type(loader).__name__}, which has no order", "pass a list of batches")
    data = sys.modules.get("torch.utils.data")
    parts = [] if isinstance(loader, (list, tuple, Mapping)) else list(_within(loader))
    for part in parts:
        if _shuffles(part, data):
            _refuse(f"a {_named(part)}, which shuffles", _PLAIN)
    found = [reading for reading in map(_reading, parts) if reading is not None]
    sizes = [_samples_of(reading) for reading in found]
    return sizes[0] if sizes and found[0].owner is loader else None


class _Reading(NamedTuple):
    """What a DataLoader, its iterator, or what has a DataLoader's attributes, reads."""

    owner: Any
    dataset: Any
    sampler: Any  # of batches, where `is_batched`
    is_batched: bool
    workers: int
    in_order: bool
    drop_last: bool
    n_done: int


def _reading(value: Any) -> _Reading | None:
    """Return what a loader reads; None for anything else."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return None
    own = vars(value)
    if "_index_sampler" in own and "_dataset" in own:  # the iterator of a DataLoader
        is_batched, workers = own.get("_auto_collation", True), own.get("_num_workers", 0)
        in_order, drop_last, n_done = own.get("_in_order", True), own.get("_drop_last"), own.get("_num_yielded", 0)
        return _Reading(
            value, own["_dataset"], own["_index_sampler"], is_batched, workers, in_order, bool(drop_last), n_done
        )
    if "dataset" not in own or not {"sampler", "batch_sampler"} & own.keys():
        return None
    batches = own.get("batch_sampler")
    sampler = own.get("sampler") if batches is None else batches
    return _Reading(
        value,
        own["dataset"],
        sampler,
        batches is not None,
        own.get("num_workers", 0),
        own.get("in_order", True),
        bool(own.get("drop_last")),
        0,
    )


def _samples_of(reading: _Reading) -> int | None:
    """Return the number of samples that a DataLoader yields, or raise."""
    if reading.n_done:
        _refuse(f"an iterator that has yielded {reading.n_done} batches already", "pass the DataLoader itself")
    if _is_iterable(reading.dataset):
        if reading.workers > 1:
            got = f"an iterable data set read by {reading.workers} workers, of which each yields a part or a copy"
            _refuse(got, "build the DataLoader with num_workers=0 or 1")
        if reading.drop_last:
            _refuse("a DataLoader that may drop the last samples", "build it with drop_last=False")
        return None
    if reading.workers > 0 and not reading.in_order:
        _refuse("batches as workers finish them", "build the DataLoader with in_order=True")
    n_samples = _length(reading.dataset)
    if n_samples is None:
        got = f"a data set of type {_named(reading.dataset)} without a length"
        _refuse(got, "give it a __len__, or pass a list of batches")
    _check_sampler(reading.sampler, n_samples, reading.dataset)
    return n_samples if reading.is_batched else None  # else an entry of the data set may be a batch


def _check_sampler(sampler: Any, n_samples: int, dataset: Any) -> None:
    """Raise unless a sampler, of samples or of batches, yields 0..n-1 in order, each time."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and type(sampler) is data.BatchSampler:
        size = sampler.batch_size
        if sampler.drop_last and n_samples % size:
            _refuse(f"{n_samples} samples, of which the last {n_samples % size} are dropped", "use drop_last=False")
        sampler = sampler.sampler
    if data is not None and type(sampler) is data.SequentialSampler and _length(sampler) == n_samples:
        return
    if isinstance(sampler, range) and sampler == range(n_samples):
        return
    if isinstance(sampler, Iterator):
        _refuse(f"a sampler that can be used only once ({_named(sampler)})", "give a list of indices")
    if any(_is_generator(part) for part in _within(sampler)):
        _refuse(f"a sampler with a random generator ({_named(sampler)})", _PLAIN)
    large = (part for part in _within(sampler) if _is_data(part) or hasattr(part, "dtype"))
    kept = {id(part): part for part in (dataset, *large)}  # too large to be copied
    try:
        copied = copy.deepcopy(sampler, kept)
    except Exception as error:  # whatever a sampler holds
        got = f"a sampler that cannot be copied to look at it ({_named(sampler)}: {type(error).__name__})"
        raise _Unordered(got, _PLAIN) from error
    for _ in range(_LISTINGS):
        _check_indices(copied, n_samples, _named(sampler))


def _check_indices(sampler: Any, n_samples: int, name: str) -> None:
    """Raise unless what a sampler yields now is 0..n-1, one by one or in batches, without a random number."""
    expected = 0
    try:
        with _random_numbers() as are_drawn:
            for index in _indices(sampler, n_samples, name):
                if index != expected or expected == n_samples:
                    _refuse(f"{index!r:.40} where sample {expected} of {n_samples} should be ({name})", _PLAIN)
                expected += 1
            drawn = are_drawn()
    except _Unordered:
        raise
    except Exception as error:  # whatever a sampler raises
        got = f"a sampler that fails ({name}: {type(error).__name__}: {error})"
        raise _Unordered(got, _PLAIN) from error
    if drawn:
        _refuse(f"a sampler that draws random numbers ({name})", _PLAIN)
    if expected < n_samples:
        remedy = f"{_PLAIN}; for some samples take torch.utils.data.Subset, and concepts.subset(samples=...)"
        _refuse(f"{expected} of {n_samples} samples ({name})", remedy)


def _indices(sampler: Any, n_samples: int, name: str) -> Iterator[Any]:
    """Yield the indices in what a sampler yields, one by one or in batches; of too many only the first."""
    n_left = n_samples
    for entry in sampler:
        is_batch = isinstance(entry, (list, tuple, range)) or getattr(entry, "ndim", 0) > 0
        batch = list(islice(entry, n_left + 1)) if is_batch else [entry]
        if not batch:
            _refuse(f"an empty batch ({name})", _PLAIN)
        yield from batch
        n_left -= len(batch)


@contextmanager
def _random_numbers() -> Iterator[Any]:
    """Put the global random generators back afterwards; what is yielded tells whether they were used."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()  # noqa: NPY002

    def are_drawn() -> bool:
        numpy_state, now = before[1], np.random.get_state()  # noqa: NPY002 - samplers may still use it
        if random.getstate() != before[0] or not all(map(np.array_equal, numpy_state, now)):
            return True
        return torch is not None and not torch.equal(torch.get_rng_state(), before[2])

    try:
        yield are_drawn
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(before[2])


def _shuffles(part: Any, data: ModuleType | None) -> bool:
    """Tell whether a loader, a sampler or an iterable data set shuffles by what it is, whatever order comes out."""
    if getattr_static(part, "shuffle", None) is True:
        return True
    if data is None:
        return False
    kinds = (data.RandomSampler, data.SubsetRandomSampler, data.WeightedRandomSampler)
    pipes = getattr(sys.modules.get("torch.utils.data.datapipes.iter"), "Shuffler", kinds)
    return isinstance(part, (*kinds, pipes))


def _is_generator(part: Any) -> bool:
    torch = sys.modules.get("torch")
    kinds = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
    return isinstance(part, kinds) or (torch is not None and isinstance(part, torch.Generator))


def _within(value: Any) -> Iterator[Any]:
    """Yield a loader and what it consists of: wrapped loaders, samplers, and what a generator loops over."""
    waiting, seen = [(value, 0)], set[int]()
    while waiting and len(seen) < _PARTS:
        part, depth = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            if depth < _DEPTH:
                waiting += [(inner, depth + 1) for inner in _parts(part)]


def _parts(value: Any) -> list[Any]:
    """Return what a value holds, without looking into data."""
    if isgenerator(value):
        return [] if value.gi_frame is None else list(value.gi_frame.f_locals.values())
    if isinstance(value, (list, tuple)):
        return [entry for entry in value[:_ENTRIES] if not isinstance(entry, (int, float, str))]
    if isinstance(value, Mapping):
        return list(islice(value.values(), _ENTRIES))
    if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
        return gc.get_referents(value)  # map, zip, chain ... have no attributes
    if isinstance(value, (type, FunctionType, ModuleType)) or hasattr(value, "dtype") or _is_data(value):
        return []
    if not hasattr(value, "__dict__"):
        return []
    # Of a DataLoader neither an indexed data set, nor the iterator of an earlier pass that it keeps for its workers.
    own = {name: part for name, part in vars(value).items() if name != "_iterator"}
    return [part for name, part in own.items() if name not in _DATASETS or _is_iterable(part)]


def _is_data(value: Any) -> bool:
    """Tell whether this is a data set with an index, which says nothing about the order of a loader."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, data.Dataset) and not _is_iterable(value)


def _is_iterable(value: Any) -> bool:
    """Tell whether this is a data set of torch that is only iterated, which may shuffle by itself."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, data.IterableDataset)


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception:  # whatever a data set raises that has none
        return None


def _named(value: Any) -> str:
    return type(value).__name__


def _refuse(got: str, remedy: str) -> NoReturn:
    raise _Unordered(got, remedy)
