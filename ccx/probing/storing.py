"""A folder of activations that grows batch by batch, and that a killed run resumes.

``run.json`` and ``rows.jsonl`` (`ccx.store.RowLog`) say what is probed and which samples are safely stored; one
``.npy`` file per layer holds the numbers. Until the last sample it is called ``.npy.part``, so that nobody takes half a
file for the whole.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ccx.errors import StoreError
from ccx.keys import Activations, Keys, sample_name
from ccx.probing.layouts import check_sample_shape
from ccx.probing.verifying import differs
from ccx.store import PathLike, RowLog, json_text, read_json, read_run, write_text
from ccx.store.files import open_kept, read_bytes, store_error, storing, sync_folder, write_at
from ccx.store.numpy_files import map_npy, read_header
from ccx.store.runs import locked_run

KIND = "activations"
_KEY = ("first",)
_KEYS, _KEYS_FORMAT = "keys.json", "ccx.keys/1"  # who the samples are; a folder of an older ccx has none
_VERSION = "1"  # of the folder: what it holds does not depend on the version of ccx
_ANEW = "pass overwrite=True to probe anew, or choose another folder"

Array = npt.NDArray[Any]


def layer_file(layer: str) -> str:
    """Return the name of a layer's file within the folder."""
    return f"{quote(layer, safe='')}.npy"


class ActivationFolder:
    """The stored activations of some layers, [N, ...] each, written in the order of the samples.

    What is on the disk after the last sample depends only on settings, hashes (`ccx.store.RowLog`), samples and
    batches, and not on how often the work was interrupted. `n_stored` samples are safely stored; `finished` says
    whether they are all. With `overwrite`, what the folder holds of an earlier probe is discarded, whatever it is.
    Raises `StoreError` if the folder holds something else or is damaged, is used by another process, or cannot be
    written.
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        layers: Sequence[str],
        settings: Mapping[str, Any],
        hashes: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        if overwrite or _is_empty(self.folder):
            _discard(self.folder)
        with ExitStack() as files:
            self._log = files.enter_context(_opened_log(self.folder, settings, hashes))
            self.n_stored, self._digests = _stored(self._log, hashed=settings.get("data") is None)
            self._files = {layer: _LayerFile(self.folder, layer) for layer in layers}
            self._precision = str(settings.get("precision", "float32"))
            with storing(self.folder, "samples"):
                self.finished = self._opened(files)
            self._keys = self._stored_keys = _read_keys(self.folder)
            self._n_written = self.n_stored
            self._pending: list[dict[str, Any]] = []
            self._stack = files.pop_all()

    def _opened(self, files: ExitStack) -> bool:
        """Open the layers' files at their last stored sample, or tell that they are finished."""
        if self.n_stored == 0:
            for file in self._files.values():
                file.path.unlink(missing_ok=True)  # of a probe that was discarded
                file.part.unlink(missing_ok=True)
            (self.folder / _KEYS).unlink(missing_ok=True)
            return False
        if all(file.is_finished(self.n_stored) for file in self._files.values()):
            return True
        for file in self._files.values():
            file.resume(self.n_stored)
            files.callback(file.close)
        return False

    def begin(self, keys: Keys | None, *, is_sure: bool) -> None:
        """Take the keys of the samples to be probed, None = unknown.

        `is_sure` says that they are those of what is there without keys: all samples are compared, or a user says so.
        Raises `StoreError` if the samples that are there have other keys, or none, and it is not sure that these are
        theirs.
        """
        if keys is None:
            return
        if self.n_stored == 0:
            self._keys = keys
            self._write_keys()
        elif self._stored_keys is not None:
            n_compared = max(len(keys), len(self._stored_keys)) if self.finished else self.n_stored
            stored, given = self._stored_keys[:n_compared], keys[:n_compared]
            if stored != given:
                pairs = enumerate(zip_longest(stored, given))
                place, there, here = next((i, a, b) for i, (a, b) in pairs if a != b)
                problem = f"sample {place} is {there or 'not'} there, and {here or 'not'} in the data"
                raise store_error(self.folder, problem, _ANEW)
            self._keys = keys
        elif is_sure:
            self._keys = keys
        else:
            problem = "holds samples without keys, and data_id= hides whether they are those of the data, in this order"
            raise store_error(self.folder, problem, f"give their keys with keys=, {_ANEW}")

    def _write_keys(self) -> None:
        if self._keys != self._stored_keys:
            text = json_text({"format": _KEYS_FORMAT, "keys": self._keys}, "keys")
            write_text(self.folder / _KEYS, text + "\n")
            self._stored_keys = self._keys

    def check(self, first: int, digests: Sequence[str]) -> None:
        """Compare hashes of samples with those of the stored ones, from sample `first` on.

        Raises `StoreError` if one differs.
        """
        stored = self._digests[first : first + len(digests)]
        wrong = next((i for i, (old, new) in enumerate(zip(stored, digests, strict=False)) if old != new), None)
        if wrong is not None:
            key = "" if self._keys is None else f" ({sample_name(self._keys, first + wrong)})"
            problem = f"sample {first + wrong}{key} of the data is not the one that was probed there"
            remedy = f"switch off what changes from run to run (random augmentation), {_ANEW}"
            raise store_error(self.folder, problem, remedy)

    def check_numbers(self, computed: Mapping[str, Array]) -> None:
        """Compare activations of the first samples, computed again, with those that are stored.

        Raises `StoreError` if they differ by more than rounding.
        """
        for layer, array in computed.items():
            with storing(self.folder, "samples"):
                stored = self._files[layer].first(len(array)) if len(array) else array
            difference = differs(stored, array, self._precision)
            if difference is not None:
                problem = f"{layer!r} puts out something else than what is stored: {difference}"
                remedy = f"probe with the same model and data, and without chance in them, {_ANEW}"
                raise store_error(self.folder, problem, remedy)

    def check_end(self, n_samples: int) -> None:
        """Raise `StoreError` if the data ended after `n_samples`, before the stored ones did."""
        if n_samples < self.n_stored:
            raise store_error(self.folder, f"holds {self.n_stored} samples, and the data end after {n_samples}", _ANEW)

    def refuse_more(self) -> None:
        """Raise `StoreError` as the data go on behind the last sample of a finished folder."""
        raise store_error(self.folder, f"was finished after {self.n_stored} samples, and the data have more", _ANEW)

    def require_room(self, sample_bytes: int, n_samples: int) -> None:
        """Raise `StoreError` unless `n_samples` in all, of `sample_bytes` each, fit on the disk."""
        with storing(self.folder, "samples"):
            there = os.statvfs(self.folder)
        needed, free = (n_samples - self.n_stored) * sample_bytes, there.f_bavail * there.f_frsize
        if needed > free:
            problem = f"needs {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free"
            remedy = "make room, choose another place, or probe fewer units= or dtype='float16'"
            raise store_error(self.folder, problem, remedy)

    def append(self, arrays: Mapping[str, Array], digests: Sequence[str] | None) -> None:
        """Write the next samples of all layers; `commit` makes them safe."""
        n_samples = len(next(iter(arrays.values())))
        with storing(self.folder, "samples"):
            for layer, file in self._files.items():
                file.write(arrays[layer], self._n_written, self._stack)
        row: dict[str, Any] = {"first": self._n_written, "stop": self._n_written + n_samples}
        if digests is not None:
            row["samples"] = list(digests)
        self._pending.append(row)
        self._n_written += n_samples

    def commit(self) -> None:
        """Flush what was written to the disk, and note that it is there."""
        if not self._pending:
            return
        with storing(self.folder, "samples"):
            for file in self._files.values():
                file.flush()
        for row in self._pending:
            if (row["first"],) not in self._log:  # left by a commit that failed
                self._log.append(row)
        self._log.flush()
        self._pending = []
        self.n_stored = self._n_written

    def finish(self) -> None:
        """Commit, and give the files their names."""
        self.commit()
        self._write_keys()
        if self.finished:
            return
        with storing(self.folder, "samples"):
            for file in self._files.values():
                file.finish(self.n_stored)
            sync_folder(self.folder)
        self.finished = True

    def arrays(self) -> dict[str, Array]:
        """Return the finished activations of each layer, memory-mapped and read-only, with their keys if known."""
        keys = self._keys
        if keys is None or len(keys) != self.n_stored:
            return {layer: file.read() for layer, file in self._files.items()}
        return {layer: Activations.carrying(file.read(), keys) for layer, file in self._files.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            with suppress(StoreError):  # what goes wrong here, the error under way says as well
                self.commit()
        self._stack.close()


class _LayerFile:
    """One layer's ``.npy`` file; the shape of a sample and the dtype are those of the first array written."""

    def __init__(self, folder: Path, layer: str) -> None:
        self._layer = layer
        self.path = path = folder / layer_file(layer)
        self.part = path.with_name(f"{path.name}.part")
        self._descriptor = -1
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.float32)
        self._start = 0

    def is_finished(self, n_samples: int) -> bool:
        """Tell whether the file has its final name; raise if it does not hold `n_samples`."""
        if not self.path.exists():
            return False
        shape, dtype, start, n_bytes = _layout(self.path)
        if shape[0] != n_samples or n_bytes != start + math.prod(shape) * dtype.itemsize:
            raise store_error(self.path, "damaged: its size is not that of the stored samples", _ANEW)
        return True

    def resume(self, n_samples: int) -> None:
        """Open the file to write behind `n_samples`; what a killed run left there is overwritten or cut off."""
        present = self.path if self.path.exists() else self.part
        if not present.exists():
            raise store_error(self.part, f"is missing, and {n_samples} samples should be in it", _ANEW)
        shape, self._dtype, self._start, n_bytes = _layout(present)
        self._shape = shape[1:]
        end = self._end(n_samples)
        if n_bytes < end:
            raise store_error(present, f"truncated: {n_bytes} bytes, {n_samples} samples need {end}", _ANEW)
        if present == self.path:  # killed while it gave the files their names: it is whole
            self.path.rename(self.part)
        self._descriptor = open_kept(self.part)

    def write(self, array: Array, first: int, stack: ExitStack) -> None:
        if self._descriptor < 0:
            self._shape, self._dtype = array.shape[1:], array.dtype
            header = _header((0, *self._shape), self._dtype)
            self._start = len(header)
            self._descriptor = open_kept(self.part)
            os.ftruncate(self._descriptor, 0)
            stack.callback(self.close)
            write_at(self._descriptor, header, 0)
        check_sample_shape(self._layer, self._shape, array.shape[1:])
        write_at(self._descriptor, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, self._end(first))

    def flush(self) -> None:
        os.fsync(self._descriptor)

    def finish(self, n_samples: int) -> None:
        write_at(self._descriptor, _header((n_samples, *self._shape), self._dtype), 0)
        os.ftruncate(self._descriptor, self._end(n_samples))
        os.fsync(self._descriptor)
        self.part.replace(self.path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def first(self, n_samples: int) -> Array:
        """Return the first stored samples."""
        with (self.path if self.path.exists() else self.part).open("rb") as file:
            shape, dtype, start, _ = _layout(Path(file.name))
            file.seek(start)
            items = np.fromfile(file, dtype, n_samples * math.prod(shape[1:]))
        return items.reshape(n_samples, *shape[1:])

    def read(self) -> Array:
        return map_npy(self.path, _ANEW)

    def _end(self, n_samples: int) -> int:
        return self._start + n_samples * math.prod(self._shape) * self._dtype.itemsize


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the head of a .npy file. NumPy leaves room in it: its length is the same for any number of samples."""
    buffer = io.BytesIO()
    entries = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, entries)
    return buffer.getvalue()


def _layout(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int, int]:
    """Return shape, dtype, where the numbers begin, and the size of a .npy file."""
    with path.open("rb") as file:
        try:
            shape, _, dtype, start = read_header(file)
        except ValueError as error:
            raise store_error(path, f"damaged: its head cannot be read ({error})", _ANEW) from error
        return shape, dtype, start, os.fstat(file.fileno()).st_size


def _opened_log(folder: Path, settings: Mapping[str, Any], hashes: Mapping[str, str]) -> RowLog:
    if (folder / "run.json").exists():
        _layers_of(folder)
    settings = {"kind": KIND, **settings}
    return RowLog(folder, key=_KEY, settings=settings, hashes=hashes, version=_VERSION, remedy=_ANEW)


def _stored(log: RowLog, *, hashed: bool) -> tuple[int, list[str]]:
    """Return the number of stored samples, and their hashes if there are any."""
    n_stored, digests = 0, list[str]()
    for row in log.rows:
        first, stop, samples = row["first"], row.get("stop"), row.get("samples") or []
        if type(stop) is not int or not n_stored == first < stop or len(samples) != (stop - first if hashed else 0):
            raise store_error(log.folder, f"damaged: its row of sample {first} does not fit those before it", _ANEW)
        n_stored = stop
        digests += samples
    return n_stored, digests


def _layers_of(folder: Path) -> list[str]:
    """Return the layers in a folder; raise unless it is one of activations."""
    settings = read_run(folder, _KEY)[0]["settings"]
    if settings.get("kind") != KIND:
        raise store_error(folder, "holds something else than activations", "choose another folder")
    return list(settings.get("layers", ()))


def read_activations(path: PathLike) -> Array:
    """Return the activations in a layer's file, memory-mapped and read-only, with the keys of the samples if known.

    Raises
    ------
    StoreError
        If it cannot be read, or its folder is damaged.

    """
    array, keys = map_npy(path, _ANEW), stored_keys(Path(path))
    if keys is not None and array.shape[:1] != (len(keys),):
        raise store_error(path, f"damaged: {array.shape[:1]} samples with {len(keys)} keys", _ANEW)
    return array if keys is None else Activations.carrying(array, keys)


def stored_keys(path: Path) -> Keys | None:
    """Return the keys of the samples in a layer's file; None if it lies in no folder of `probe`, or these are unknown.

    Raises `StoreError` if the folder is damaged.
    """
    folder = path.parent
    if not all((folder / name).exists() for name in (_KEYS, "run.json")) or path.name not in map(
        layer_file, _layers_of(folder)
    ):
        return None
    return _read_keys(folder)


def _read_keys(folder: Path) -> Keys | None:
    path = folder / _KEYS
    if not path.exists():
        return None
    keys = read_json(path, _KEYS_FORMAT).get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise store_error(path, "damaged: no list of keys", _ANEW)
    return tuple(keys)


def _is_empty(folder: Path) -> bool:
    """Tell whether a folder was begun and holds no sample, so that nothing is lost by another probe in its place."""
    rows = folder / "rows.jsonl"
    return rows.exists() and b"\n" not in read_bytes(rows)


def _discard(folder: Path) -> None:
    """Empty a folder of activations: first its list of samples, so that a kill in between leaves nothing believed."""
    if not (folder / "run.json").exists():
        return
    layers = _layers_of(folder)
    with storing(folder, "samples"), locked_run(folder), (folder / "rows.jsonl").open("r+b") as rows:
        rows.truncate(0)
        os.fsync(rows.fileno())
        for layer in layers:
            for name in (layer_file(layer), f"{layer_file(layer)}.part"):
                (folder / name).unlink(missing_ok=True)
        (folder / _KEYS).unlink(missing_ok=True)
        (folder / "timings.jsonl").unlink(missing_ok=True)
        (folder / "run.json").unlink()
