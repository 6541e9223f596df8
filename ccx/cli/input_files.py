"""The files that commands read: arrays, names, concepts, pictures; never a pickle."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

import ccx
from ccx.checks import choice
from ccx.cli import flags
from ccx.cli.data_specs import DEMO, open_data
from ccx.concepts import Concepts
from ccx.concepts.annotations import name_problem
from ccx.datasets.tables import line_error, named, text_lines
from ccx.errors import CCXError, InputError
from ccx.jobs import progress_reporter
from ccx.keys import Activations, Keyed, Keys, check_keys, keys_of, require_same_samples
from ccx.listing import picture_files
from ccx.memory import require_bytes
from ccx.probing.storing import stored_keys
from ccx.report import check_photo
from ccx.store.files import open_regular, parse_json, read_bytes, store_error
from ccx.store.numpy_files import map_npy, open_npz

_LABEL_BYTES = 64  # of a number as an object of Python, in a list


def read_array(path: Path, argument: str, key: str | None = None) -> npt.NDArray[Any]:
    """Read an array from .npy (memory-mapped), .npz or .safetensors.

    Of a file with several arrays, `key` chooses one; without it the only one, or the one called `argument`. Raises
    `StoreError` if the file cannot be read, is of another kind, or holds Python objects; `InputError` if it has no such
    array, it is unclear which one is meant, or `key` is given where there is no choice.
    """
    suffix = path.suffix.lower()
    if key is not None and suffix == ".npy":
        wanted = "no --key beside a .npy file, which holds one array"
        raise InputError("--key", wanted=wanted, got=repr(key), remedy="leave it out")
    match suffix:
        case ".npy":
            return map_npy(path)
        case ".npz":
            with open_npz(path) as archive:
                return archive.read(_chosen(archive.names, path, argument, key))
        case ".safetensors":
            with _tensors(path) as tensors:
                name = _chosen(tensors.keys(), path, argument, key)
                described = tensors.get_slice(name)
                n_bits = int(re.sub(r"\D.*", "", described.get_dtype().lstrip("BFIU")) or 8)  # F32, BOOL, F8_E4M3
                n_bytes = math.prod(described.get_shape()) * n_bits // 8
                require_bytes(f"{path}: {name}", n_bytes, "save it with numpy.save: such a file is mapped")
                tensor: npt.NDArray[Any] = tensors.get_tensor(name)
            return tensor
    raise store_error(path, f"{path.suffix or 'no suffix'} is no known kind", "give .npy, .npz or .safetensors")


@contextmanager
def _tensors(path: Path) -> Iterator[Any]:
    """Open a file of safetensors; whatever is wrong with its content becomes a `StoreError`."""
    from safetensors import safe_open  # noqa: PLC0415 - only for such files

    os.close(open_regular(path)[0])  # it would wait for a pipe
    try:
        with safe_open(path, framework="numpy") as tensors:
            yield tensors
    except CCXError:
        raise
    except Exception as error:
        remedy = "save plain numbers with numpy.save, numpy.savez or safetensors"
        raise store_error(path, f"cannot be read as an array ({error})", remedy) from error


def read_activations(path: Path, key: str | None = None, keys: Path | None = None) -> npt.NDArray[Any]:
    """Read activations as `read_array`, with the keys of their samples if these are known.

    They stand in the file `keys`; or where the activations are: in the folder of ``ccx probe``, in a .npz under
    ``keys``, in the metadata of a .safetensors as a JSON list under ``keys``. Raises `StoreError` or `InputError` as
    `read_array`, and if there is not one key per sample.
    """
    array = read_array(path, "activations", key)
    if keys is not None:
        found: Keys | None = check_keys("--keys", read_keys(keys), array.shape[0] if array.ndim else 0)
    else:
        found = _keys_beside(path, array.shape[:1])
        if found is not None:
            _require_one_each(path, array.shape[:1], (len(found),))
    return array if found is None else Activations.carrying(array, found)


def read_keys(path: Path) -> list[str]:
    """Read one key per sample: a line of a .txt file, or a list in a .json file.

    Raises `StoreError` if the file cannot be read or is of another kind.
    """
    if path.suffix.lower() == ".json":
        found = parse_json(read_bytes(path), path)
        if not isinstance(found, list):
            raise store_error(path, "no list of keys", 'write ["1.png", ...]')
        return found
    keys = text_lines(path)
    if "" in keys:
        raise line_error(path, keys.index("") + 1, "a blank line", "write one key per sample")
    return keys


def _require_one_each(path: Path, samples: tuple[int, ...], keys: tuple[int, ...]) -> None:
    if keys != samples:
        n_samples, n_keys = (" x ".join(map(str, shape)) or "no" for shape in (samples, keys))
        problem = f"{n_samples} samples with {n_keys} keys"
        raise store_error(path, problem, "make it again, or give their keys with --keys")


def _keys_beside(path: Path, samples: tuple[int, ...]) -> Keys | None:
    """Return the keys that are stored with an array of so many samples."""
    found: Any = None
    if path.suffix.lower() == ".npy":
        return stored_keys(path)
    if path.suffix.lower() == ".npz":
        with open_npz(path) as archive:
            if "keys" in archive.names and archive.header("keys").dtype.kind == "U":
                _require_one_each(path, samples, archive.header("keys").shape)  # before they are many texts
                found = archive.read("keys").tolist()
    elif path.suffix.lower() == ".safetensors":
        with _tensors(path) as tensors:
            text = (tensors.metadata() or {}).get("keys")
        found = None if text is None else parse_json(text.encode(), path)
    return None if found is None else check_keys("keys", found, distinct=False)


def paired(activations: Any, concepts: Concepts, images: Any, align: str | None) -> tuple[Any, Concepts, Any]:
    """Return what belongs together, after a comparison of keys, and in one order where `align` says so.

    Activations and images, which may be None, are brought into the order of the concepts by the `align` "order";
    "shared" also leaves out what one of them lacks. Raises `InputError` if samples differ, or `align` is asked for and
    there is nothing to align by.
    """
    if align is not None:
        choice("--align", align, ("order", "shared"), "see --help", "order or shared")
    given = {"activations": activations, "images": images}
    keyed = {name: one for name, one in given.items() if keys_of(one) is not None and concepts.keys is not None}
    if align is not None and not keyed:
        remedy = "give --keys, and a file of concepts whose samples have keys"
        raise InputError("--align", wanted="activations and concepts with keys", got="none", remedy=remedy)
    if align == "shared":
        for one in keyed.values():
            there = Keyed(range(concepts.n_samples), concepts.keys or ())
            shared = sorted(ccx.align(there, one, intersect=True))
            concepts = concepts.subset(samples=shared) if len(shared) < concepts.n_samples else concepts
    for name, one in given.items():
        if name not in keyed:
            if name == "images" and one is not None and len(one) != concepts.n_samples:
                remedy = "give one image per sample, in the order of the samples, or the data set itself"
                raise InputError(name, wanted=f"{concepts.n_samples} images", got=str(len(one)), remedy=remedy)
        elif align is not None:
            given[name] = ccx.align(one, concepts, intersect=align == "shared")
        else:
            _require_same(name, one, concepts)
    return given["activations"], concepts, given["images"]


def _require_same(argument: str, samples: Any, concepts: Concepts) -> None:
    try:
        require_same_samples(argument, samples, concepts)
    except InputError as error:
        remedy = "add --align order to reorder them, or --align shared to leave out what one of them lacks, too"
        raise InputError(argument, wanted=error.wanted, got=error.got, remedy=remedy) from error


def _chosen(keys: Iterable[str], path: Path, argument: str, key: str | None) -> str:
    listed = list(keys)
    names = [name for name in listed if name != "keys" or key == "keys"] or listed  # those of samples stand beside
    wanted = key if key is not None else names[0] if len(names) == 1 else argument
    if wanted not in names:
        remedy = (
            f"choose one of the arrays of {path} with --key"
            if key is not None or argument == "activations"
            else (f"save one array, or call it {argument}")
        )
        raise InputError(
            argument, wanted=f"an array called {wanted!r}", got=", ".join(names[:20]) or "none", remedy=remedy
        )
    return wanted


def read_names(path: Path) -> tuple[list[str], list[str] | None]:
    """Read the names of concepts 1..C, and categories if the file has them (`ccx.datasets.tables.named`).

    Raises `StoreError` if the file cannot be read, or other ids have names.
    """
    known = named(path)
    if missing := sorted(set(range(1, len(known.ids) + 1)) - set(known.ids)):
        problem = (
            f"id {missing[0]} has no name (in a .txt file: its line is blank), and others go up to {known.ids[-1]}"
        )
        raise store_error(path, problem, "masks are concepts 1, 2, ...: name these")
    return list(known.names), None if known.categories is None else list(known.categories)


def read_labels(path: Path) -> list[Any]:
    """Read one label per sample: a line of a .txt file, or an entry of an array."""
    if path.suffix.lower() != ".txt":
        array = read_array(path, "groups")
        require_bytes("--groups", _LABEL_BYTES * array.size, "give one label per sample")
        return list(array.tolist()) if array.ndim else [array]
    labels = text_lines(path)
    for number, label in enumerate(labels, start=1):
        if problem := name_problem(label):
            raise line_error(path, number, f"the label is {problem}", "write one label per sample")
    return list(labels)


def read_samples(text: str | None, flag: str) -> Any:
    """Return samples given as ``0-99,105``, or in an array file, of indices or one bool per sample; None = none given.

    Raises `InputError` if the text is neither; `StoreError` if the file cannot be read.
    """
    if text is not None and Path(text).suffix:
        return read_array(Path(text), flag.removeprefix("--"))
    return flags.parse_units(text, flag)


def read_concepts(given: flags.Inputs, keys: Path | None = None) -> Concepts:
    """Read concepts from a file of ``ccx concepts build``, or build them from label maps or masks.

    Raises `InputError` if not exactly one of the three is given, or what belongs to it is missing; `StoreError` if a
    file cannot be read.
    """
    places = [f"--{name}" for name in ("labels", "masks", "concepts") if getattr(given, name)]
    if len(places) != 1:
        remedy = "say where the concepts come from"
        got = " and ".join(places) or "none"
        raise InputError("concepts", wanted="one of --labels, --masks and --concepts", got=got, remedy=remedy)
    if given.concepts is not None:
        if given.names is not None or given.valid is not None:
            remedy = "a concepts file has its own names and valid cells"
            raise InputError("concepts", wanted="no --names or --valid beside --concepts", got="one", remedy=remedy)
        return Concepts.load(given.concepts)
    with progress_reporter(None, "reading concepts") as progress:
        options: dict[str, Any] = {"threads": given.threads, "progress": progress}
        options["keys"] = None if keys is None else read_keys(keys)
        options["valid"] = None if given.valid is None else read_array(given.valid, "valid")
        if given.masks is not None:
            names, categories = (None, None) if given.names is None else read_names(given.names)
            return Concepts.from_masks(read_array(given.masks, "masks"), names, categories=categories, **options)
        if given.names is None:
            remedy = "give a .txt, .csv, .tsv or .json file; without a column id, its first name belongs to id 1"
            raise InputError("names", wanted="--names beside --labels", got="none", remedy=remedy)
        known = named(given.names)
        ids = dict(zip(known.ids, known.names, strict=True))
        labels = read_array(given.labels, "labels")  # type: ignore[arg-type]  # it is one of both
        return Concepts.from_label_maps(labels, ids, categories=known.categories, **options)


def read_images(place: str) -> Any:
    """Return the images of an array file, a data set, or a folder (in the order of `ccx.listing`), with their keys.

    Raises `InputError` if the text names no data set; `StoreError` if they cannot be read.
    """
    path = Path(place)
    if path.is_dir():
        return picture_files(path)
    if path.is_file() or not (":" in place or place == DEMO):
        return read_array(path, "images")
    return open_data(place).images


def check_images(images: Any) -> None:
    """Raise what the report would raise for any of the `images` of `read_images`, before work starts."""
    if not isinstance(images, list):
        check_photo(images[0], "images[0]")  # all entries of an array have one shape and dtype
        return
    with progress_reporter(None, "checking pictures") as progress:
        for number, path in enumerate(images, start=1):
            check_photo(path, str(path))
            progress(number, len(images))
