"""Who the samples are: keys, their comparison, and arrays that carry them.

A key is a text that names a sample: the path of its image below the folder of images, or what a user gives. Where two
things that are paired both know the keys of their samples (activations and concepts, photographs and concepts), the
keys must be the same in the same order. What has no keys is paired by position.

A file of another format is the same sample: keys that end like file names are compared without the suffix where
that leaves all of them distinct.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ccx.checks import items, require_flag, shown
from ccx.errors import InputError

T = TypeVar("T")
Keys: TypeAlias = tuple[str, ...]

_SUFFIX = re.compile(r"(?<=[^/])\.[A-Za-z][A-Za-z0-9]{1,4}\Z")
_SEVERAL = "give each sample a key of its own"


class Activations(np.ndarray[Any, np.dtype[Any]]):
    """An array [N, ...] that carries the key of each of its N samples.

    It is read-only, as its keys would not follow what is moved in place: ``array.copy()`` is a plain array to change.
    Slices, indices and flags of samples select the keys, too. What is computed from it has none (`keys` is None), as
    samples may have moved; give it some where they have not: ``Activations(numpy.maximum(maps, 0), maps.keys)``.

    Parameters
    ----------
    array
        Any array [N, ...].
    keys
        N distinct texts.

    Raises
    ------
    InputError
        Unless there is one distinct text per sample.

    """

    keys: Keys | None

    def __new__(cls, array: npt.ArrayLike, keys: Iterable[str]) -> Self:  # noqa: D102 - see the class
        try:
            plain = np.asarray(array)
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            got, remedy = f"a {type(array).__name__}", "give [N, ...]"
            raise InputError("array", wanted="an array", got=got, remedy=remedy) from error
        if plain.ndim == 0:
            raise InputError("array", wanted="samples along axis 0", got="a scalar", remedy="give [N, ...]")
        return cls.carrying(plain, check_keys("keys", keys, plain.shape[0]))

    @classmethod
    def carrying(cls, array: npt.NDArray[Any], keys: Keys | None) -> Self:
        """Return an array with keys that are known to be its own, without a copy; None = with none."""
        found = np.asarray(array).view(cls)
        if keys is not None:
            found.flags.writeable = False
        found.keys = keys
        return found

    def __array_finalize__(self, source: Any) -> None:
        self.keys = None  # until something proves that the samples are where they were

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(found, Activations) and self.keys is not None:
            chosen = _chosen(index, self.ndim, len(self.keys))
            if chosen is not None:
                return Activations.carrying(found, tuple(self.keys[i] for i in chosen))
        return found

    def astype(self, *arguments: Any, **options: Any) -> Any:
        """Return the samples in another dtype, with their keys."""
        return Activations.carrying(super().astype(*arguments, **options), self.keys)

    def copy(self, order: Any = "C") -> npt.NDArray[Any]:  # type: ignore[override]
        """Return a plain array to change in place, without keys."""
        return np.array(self, order=order)


class Keyed(list[T]):
    """A list of samples, such as the pictures of a folder, that carries their keys.

    Attributes
    ----------
    keys : tuple of str
        One per sample.

    """

    def __init__(self, samples: Iterable[T], keys: Iterable[str]) -> None:
        super().__init__(samples)
        self.keys = tuple(keys)

    def take(self, samples: Iterable[int]) -> Keyed[T]:
        """Return some of the samples, in the order of their indices."""
        chosen = list(samples)
        return Keyed([self[i] for i in chosen], [self.keys[i] for i in chosen])


def keys_of(value: Any) -> Keys | None:
    """Return the keys that something carries; or None (a mapping's method `keys` does not count)."""
    keys = getattr(value, "keys", None)
    return keys if isinstance(keys, tuple) else None


def as_key(text: str) -> str:
    """Return a text in the one form that keys have, accents as in NFC."""
    return unicodedata.normalize("NFC", text)


def check_keys(argument: str, keys: Any, n_samples: int | None = None, *, distinct: bool = True) -> Keys:
    """Return keys that a user gave, accents as in NFC.

    Raises `InputError` if they are no texts, empty, not distinct, or not one per sample.
    """
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        got = f"{type(keys).__name__} {shown(keys)}"
        raise InputError(argument, wanted="one text per sample", got=got, remedy="give a list of texts")
    checked = []
    for number, key in enumerate(items(argument, keys, "one text per sample", "give a list of texts")):
        if not isinstance(key, str) or not key:
            got = f"{type(key).__name__} {key!r:.40} of sample {number}"
            raise InputError(
                argument, wanted="one text per sample", got=got, remedy="convert: [str(key) for key in keys]"
            )
        checked.append(as_key(str(key)))
    if n_samples is not None and len(checked) != n_samples:
        raise InputError(argument, wanted=f"{n_samples} keys", got=str(len(checked)), remedy="give one per sample")
    if distinct:
        _require_distinct(argument, checked)
    return tuple(checked)


def keys_hash(keys: Sequence[str]) -> str:
    """Return a hash of keys in their order: 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for key in keys:
        digest.update(key.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def sample_name(keys: Keys | None, sample: int) -> str:
    """Return what a caption calls a sample: its key, or its number where it has none."""
    return str(sample) if keys is None else keys[sample]


def shortened(name: str, most: int) -> str:
    """Return the last `most` letters of a sample's name, by which the files of a folder differ."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def require_same_samples(
    argument: str, samples: Any, concepts: Any, *, keys: Any = None, whose: str = "the concepts", name: str = "concepts"
) -> Keys | None:
    """Raise unless two things that are paired have the same samples in the same order, as far as both know them.

    Messages call `samples` by `argument`, and `concepts`, whatever they are, by `whose` in words and by `name` as an
    argument. `keys` are those of `samples`, where they carry none. Returns the keys that are known, of either. Raises
    `InputError` if they differ, with the first pair that does, whether all are there in another order, and what to do;
    or if `keys` are not valid.
    """
    own, wanted = keys_of(samples), keys_of(concepts)
    if keys is not None:
        given = check_keys("keys", keys, getattr(concepts, "n_samples", None) if wanted is None else None)
        if own is not None and not _are_same(own, given):
            wanted_words = f"none beside {argument} that carry their own"
            raise InputError("keys", wanted=wanted_words, got="others", remedy="leave keys out")
        own = given
    if own is None or wanted is None:
        return wanted if own is None else own
    if _are_same(own, wanted):
        return wanted
    raise _mismatch(argument, own, wanted, whose, name)


def require_samples_second(argument: str, array: Any) -> None:
    """Raise if an array of bitmaps [M, N, ...] carries keys, which are of axis 0."""
    if keys_of(array) is not None:
        remedy = f"write numpy.asarray({argument}).swapaxes(0, 1)"
        got = f"{list(array.shape)} with samples along axis 0"
        raise InputError(argument, wanted="[M, N, ...], with samples along axis 1", got=got, remedy=remedy)


def align(samples: Any, to: Any, *, keys: Iterable[str] | None = None, intersect: bool = False) -> Any:
    """Bring samples into the order of others, by their keys.

    Parameters
    ----------
    samples
        What is to be reordered: activations of `ccx.probe` (or the dict of several layers), any array [N, ...] or
        scipy sparse matrix with `keys`, `ccx.Concepts`, a data set of `ccx.datasets`, or a list with `keys`.
    to
        Whose order it takes: anything that carries keys, such as `Concepts`, or a list of keys.
    keys
        The keys of `samples`, where they carry none.
    intersect
        Keep only the samples that both have, instead of raising where one has more than the other. ``align(a, b)`` then
        has fewer samples than `b` where `a` lacks some: align `b` to it, too.

    Returns
    -------
    The samples in the order of `to`, with its keys where they can carry keys.

    Raises
    ------
    InputError
        If one of the two has no keys, a key stands for two samples, or, without `intersect`, the samples differ.

    Examples
    --------
    >>> maps = Activations(np.arange(3), ["1.png", "10.png", "2.png"])
    >>> align(maps, ["1.png", "2.png", "10.png"]).tolist()
    [0, 2, 1]

    """
    require_flag("intersect", intersect)
    if isinstance(samples, Mapping):
        return {name: align(one, to, keys=keys, intersect=intersect) for name, one in samples.items()}
    own = keys_of(samples) if keys is None else check_keys("keys", keys)
    wanted = check_keys("to", to, distinct=False) if type(to) in (list, tuple) else keys_of(to)
    if own is None:
        remedy = "pass keys=, one text per sample"
        raise InputError("samples", wanted="samples with keys", got=type(samples).__name__, remedy=remedy)
    if wanted is None:
        remedy = "pass concepts that have keys, or a list of keys"
        raise InputError("to", wanted="samples with keys", got=type(to).__name__, remedy=remedy)
    first, second = _comparable(own, wanted)
    _require_distinct("samples", first)
    _require_distinct("to", second)
    place = {key: i for i, key in enumerate(first)}
    order = [place[key] for key in second if key in place]
    if not order or (not intersect and not len(order) == len(first) == len(second)):
        wanted_words = "some of the samples of `to`" if intersect else f"the {len(second)} samples of `to`"
        got = f"{len(first)}, of which {len(order)} are among them"
        remedy = "intersect=True keeps those" if order else "give keys that name the samples alike"
        raise InputError("samples", wanted=wanted_words, got=got, remedy=remedy)
    known = tuple(key for key, one in zip(wanted, second, strict=True) if one in place)
    return _taken(samples, order, len(own), known)


def _taken(samples: Any, order: list[int], n_samples: int, keys: Keys) -> Any:
    """Return samples in an order, with these keys where they can carry any."""
    if hasattr(samples, "tocsr"):  # its rows are cells, sample after sample
        n_cells = _per_sample(samples.shape[0], n_samples)
        cells = np.asarray(order)[:, None] * n_cells + np.arange(n_cells)
        return samples.tocsr()[cells.ravel()]
    if hasattr(samples, "shape") and not hasattr(samples, "subset"):
        _per_sample((*samples.shape, 0)[0], n_samples, exactly=1)
        if hasattr(samples, "device") and not isinstance(samples, np.ndarray):
            return samples[order]  # where it lies; it carries no keys
        array = np.asarray(samples)
        return Activations.carrying(array if order == list(range(n_samples)) else array[order], keys)
    if hasattr(samples, "subset"):
        return samples.subset(samples=order)
    if not hasattr(samples, "__len__") or not (hasattr(samples, "__getitem__") or hasattr(samples, "take")):
        remedy = "give an array, concepts, or a list"
        raise InputError("samples", wanted="samples [N, ...]", got=type(samples).__name__, remedy=remedy)
    _per_sample(len(samples), n_samples, exactly=1)
    return samples.take(order) if hasattr(samples, "take") else Keyed([samples[i] for i in order], keys)


def _per_sample(n_rows: int, n_samples: int, exactly: int | None = None) -> int:
    """Return the number of rows per sample."""
    n_each = n_rows // n_samples
    if n_each * n_samples != n_rows or (exactly is not None and n_each != exactly):
        raise InputError(
            "keys", wanted=f"one of each of {n_rows} rows", got=str(n_samples), remedy="give one per sample"
        )
    return n_each


def _are_same(own: Keys, wanted: Keys) -> bool:
    if own == wanted:
        return True
    if len(own) != len(wanted):
        return False
    first, second = _comparable(own, wanted)
    return first == second


def _comparable(own: Keys, wanted: Keys) -> tuple[Keys, Keys]:
    """Return keys without suffixes, if that leaves distinct what was distinct; else as they are."""
    short = [tuple(_SUFFIX.sub("", key) for key in keys) for keys in (own, wanted)]
    is_clear = all(len(set(stems)) == len(set(keys)) for stems, keys in zip(short, (own, wanted), strict=True))
    return (short[0], short[1]) if is_clear else (own, wanted)


def _mismatch(argument: str, own: Keys, wanted: Keys, whose: str, name: str) -> InputError:
    """Return the error to raise where keys differ."""
    first, second = _comparable(own, wanted)
    pairs = enumerate(zip(first, second, strict=False))
    place = next((i for i, (one, other) in pairs if one != other), min(len(first), len(second)))
    there, here = (f"{keys[place]!r}" if place < len(keys) else "nothing" for keys in (wanted, own))
    shared = set(first) & set(second)
    align_own = f"{argument} = ccx.align({argument}, {name}, intersect=True)"
    align_other = f"{name} = ccx.align({name}, {argument}, intersect=True)"
    if len(first) == len(second) and sorted(first) == sorted(second):
        how, remedy = f"all {len(own)} in another order", f"reorder them: {argument} = ccx.align({argument}, {name})"
    elif len(shared) == len(set(second)):
        how, remedy = f"all of {whose} and others", f"take those: {align_own}"
    elif len(shared) == len(set(first)):
        how, remedy = f"only {len(own)} of {len(wanted)}", f"leave out the others: {align_other}"
    elif shared:
        how, remedy = f"{len(shared)} of them in both", f"keep those: {align_own}; {align_other}"
    else:
        how, remedy = "none of them in both", "give what was made from the same samples, or keys= that name them alike"
    wanted_words = f"the samples of {whose}, with {there} at position {place}"
    return InputError(argument, wanted=wanted_words, got=f"{here} there, {how}", remedy=remedy)


def _require_distinct(argument: str, keys: Sequence[str]) -> None:
    repeated = next((key for key, count in Counter(keys).items() if count > 1), None)
    if repeated is not None:
        raise InputError(argument, wanted="distinct keys", got=f"{repeated!r} twice", remedy=_SEVERAL)


def _chosen(index: Any, n_axes: int, n_samples: int) -> Sequence[int] | None:
    """Return the samples that an index puts along axis 0, in order; None where that is not certain."""
    parts = index if isinstance(index, tuple) else (index,)
    first, rest = (parts[0], parts[1:]) if parts else (slice(None), ())
    whole = [part for part in rest if isinstance(part, slice) or part is None or part is Ellipsis]
    single = [part for part in rest if isinstance(part, (int, np.integer)) and not isinstance(part, bool)]
    n_arrays = len(rest) - len(whole) - len(single)
    if first is Ellipsis:
        n_used = len(rest) - sum(part is None for part in rest)
        return range(n_samples) if not n_arrays and n_used < n_axes else None
    if isinstance(first, slice):
        # One array of indices stays in its place; with more, or with integers beside it, its axis may come first.
        is_in_place = not n_arrays or (n_arrays == 1 and not single)
        return range(n_samples)[first] if is_in_place else None
    indices = np.asarray(first)
    if first is None or n_arrays or indices.ndim != 1:
        return None
    if indices.dtype == np.bool_:
        indices = np.flatnonzero(indices)
    chosen: list[int] = indices.astype(np.int64).tolist()
    return chosen
