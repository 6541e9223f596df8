"""Open files of weights: what they describe, and their tensors, each read when it is needed.

Read are the zip archive that ``torch.save`` writes, the stream of pickles and storages that it wrote before torch 1.6,
and safetensors. Whatever a file claims is compared with its size before any memory is allocated.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ccx.errors import CCXError
from ccx.models.pickles import PARAMETERS, TENSORS, Made, Name, NotAllowedError, Storage, interpret
from ccx.store import PathLike
from ccx.store.files import parse_json, reason, store_error
from ccx.store.numpy_files import read_exactly

if TYPE_CHECKING:
    import torch

AGAIN = "save it again with torch.save(model.state_dict(), file)"
_DOWNLOAD = "download it again"
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(NotImplementedError, zipfile.BadZipFile),
)
_MOST_HEADER = 100_000_000  # set by the safetensors format
_SAFETENSORS = {
    **{f"F{8 * size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"I{8 * size}": f"int{8 * size}" for size in (1, 2, 4, 8)},
    **{"U8": "uint8", "BOOL": "bool", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
_OTHER_FILES = {  # by their first bytes: what they are, and what to do
    b"version https://git-lfs": ("is a pointer of git-lfs, not the file that it stands for", "run git lfs pull"),
    b"\x1f\x8b": ("is compressed with gzip", "unpack it"),
    b"BZh": ("is compressed with bzip2", "unpack it"),
    b"\xfd7zXZ": ("is compressed with xz", "unpack it"),
    b"\x89HDF": ("is an HDF5 file, as Keras writes", "export its weights from there"),
    b"\x93NUMPY": ("is an array of NumPy", "give the file of the network's weights"),
}
_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")


@dataclass(frozen=True)
class Contents:
    """What a file describes (numbers, texts, lists, mappings, `Made`), and how its storages are read."""

    root: Any
    read: Callable[[Storage], torch.Tensor]

    def tensor(self, value: Made) -> torch.Tensor:
        """Return the tensor that `value` describes; those of one storage share it.

        Raises `ValueError`, `TypeError` or `RuntimeError` if it is damaged, or reaches beyond its storage.
        """
        import torch

        value = _plain(value)
        storage, offset, size, stride, *more = value.arguments
        numbers = self.read(storage)
        if value.path.endswith("_v3"):
            dtype = more.pop(2)
            if not isinstance(dtype, Name):
                raise TypeError("a dtype was expected")
            numbers = numbers.view(getattr(torch, dtype.path.removeprefix("torch.")))
        if any(more[2:]):
            raise ValueError("a tensor with more to it than numbers")
        tensor = numbers.as_strided(size, stride, offset)  # refuses to reach beyond the storage
        if tensor.numel() > numbers.numel():
            raise ValueError("a tensor has more numbers than its storage")
        return tensor


def is_tensor(value: Any) -> bool:
    """Tell whether something in a file describes a tensor."""
    value = _plain(value)
    return isinstance(value, Made) and value.path in TENSORS and len(value.arguments) >= 4


def n_items(value: Made) -> int:
    """Return the number of items in the storage of a tensor."""
    storage = _plain(value).arguments[0]
    return storage.n_items if isinstance(storage, Storage) else 0


def _plain(value: Any) -> Any:
    """Return the tensor in a parameter."""
    return value.arguments[0] if isinstance(value, Made) and value.path in PARAMETERS and value.arguments else value


@contextmanager
def opened(path: PathLike) -> Iterator[Contents]:
    """Open a file of weights.

    Raises `StoreError` if it cannot be read, is damaged, is something else, or names anything that a checkpoint has no
    need of; also from inside the block, if a tensor in it is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            head = file.read(512)
            file.seek(0)
            _refuse_others(path, head, n_bytes)
            try:
                with _reader(head, file)(file, n_bytes) as contents:
                    yield contents
            except CCXError:
                raise
            except NotAllowedError as refused:
                problem = f"refused, and nothing in it was run: it names {refused!s:.200}, not only weights"
                raise store_error(path, problem, AGAIN) from refused
            except _DAMAGE as error:
                problem = f"cannot be read as weights: truncated, damaged, or no checkpoint ({error!s:.150})"
                raise store_error(path, problem, f"{_DOWNLOAD}, or {AGAIN}") from error
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error


def _refuse_others(path: PathLike, head: bytes, n_bytes: int) -> None:
    """Raise if the first bytes show that the file holds something other than weights."""
    if not n_bytes:
        raise store_error(path, "is empty", _DOWNLOAD)
    for start, (problem, remedy) in _OTHER_FILES.items():
        if head.startswith(start):
            raise store_error(path, problem, remedy)
    if head.lstrip().lower().startswith(_PAGE):
        raise store_error(
            path, "is a web page, not a checkpoint", f"{_DOWNLOAD}, in a browser if the site asks for one"
        )
    if head[257:262] == b"ustar":
        raise store_error(path, "is a tar archive", f"unpack it; if torch before 0.2 wrote it, {AGAIN} there")
    text = head.decode("utf-8", errors="replace").rstrip("\ufffd")  # the last letter may be cut
    if text and all((letter.isprintable() or letter.isspace()) and letter != "\ufffd" for letter in text):
        raise store_error(path, f"is a text, not a checkpoint (it begins {' '.join(text.split())[:40]!r})", _DOWNLOAD)


def _reader(head: bytes, file: IO[bytes]) -> Callable[[IO[bytes], int], Any]:
    is_archive = zipfile.is_zipfile(file)
    file.seek(0)
    if is_archive:
        return _archive
    if head.startswith(b"PK\x03\x04"):
        raise EOFError("a zip archive without its end")
    return _safetensors if head[8:9] == b"{" else _stream


@contextmanager
def _archive(file: IO[bytes], n_bytes: int) -> Iterator[Contents]:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        sizes = [member.file_size for member in members.values()]
        if len(members) != len(archive.infolist()) or sum(sizes) > n_bytes:
            raise ValueError("its files do not fit into it")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise ValueError("its files are compressed, which torch does not do")
        folders = [name.removesuffix("data.pkl") for name in members if f"/{name}".endswith("/data.pkl")]
        if len(folders) != 1:
            raise ValueError("a zip archive that holds no checkpoint")
        (folder,) = folders
        if f"{folder}constants.pkl" in members:
            raise ValueError("a program of TorchScript")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder").strip() != b"little":
            raise ValueError("written on a machine with another order of bytes")

        def content(storage: Storage) -> bytearray:
            member = members[f"{folder}data/{storage.key}"]
            with archive.open(member) as stream:
                return read_exactly(stream, member.file_size)

        with archive.open(f"{folder}data.pkl") as stream:
            root = interpret(stream, members[f"{folder}data.pkl"].file_size)
        yield Contents(root, _cached(content))


@contextmanager
def _stream(file: IO[bytes], n_bytes: int) -> Iterator[Contents]:
    def next_pickle() -> Any:
        return interpret(file, n_bytes - file.tell())

    if next_pickle() != _LEGACY_MAGIC or next_pickle() != _LEGACY_VERSION:
        raise ValueError("no file of torch.save")
    next_pickle()  # of the machine that wrote it: its sizes and order of bytes
    root = next_pickle()
    keys = next_pickle()
    start, places = file.tell(), dict[str, tuple[int, int]]()
    kinds = _storages(root)
    for key in keys if isinstance(keys, list) else ():
        n_items = int.from_bytes(file.read(8), "little")
        size = n_items * _dtype(kinds[key].kind).itemsize
        start += 8
        if n_items != kinds[key].n_items or start + size > n_bytes:
            raise EOFError("truncated, or the size of a storage is not the one announced")
        places[key] = start, size
        start += size
        file.seek(start)

    yield Contents(root, _cached(partial(_content_at, file, places)))


def _storages(root: Any) -> dict[str, Storage]:
    """Return the storages that a pickle refers to, wherever they stand in it."""
    found: dict[str, Storage] = {}
    met: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, Storage):
            found[value.key] = value
        elif isinstance(value, (dict, list, tuple, Made)) and id(value) not in met:
            met.add(id(value))
            if isinstance(value, Made):
                stack += (value.arguments, value.state)
            else:
                stack += value.values() if isinstance(value, dict) else value
    return found


@contextmanager
def _safetensors(file: IO[bytes], n_bytes: int) -> Iterator[Contents]:
    n_header = int.from_bytes(file.read(8), "little")
    if n_header > min(n_bytes - 8, _MOST_HEADER):
        raise EOFError("truncated, or no file of safetensors")
    header = parse_json(file.read(n_header), file.name)
    start, places, root = 8 + n_header, dict[str, tuple[int, int]](), dict[str, Made]()
    for name, entry in header.items() if isinstance(header, dict) else ():
        if name == "__metadata__":
            continue
        kind, shape, (begin, end) = _SAFETENSORS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
            raise TypeError("sizes are no numbers")
        n_items = math.prod(shape)
        if end - begin != n_items * _dtype(kind).itemsize or start + end > n_bytes:
            raise EOFError("truncated, or a size is not the one announced")
        places[name] = start + begin, end - begin
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        root[name] = Made("torch._utils._rebuild_tensor", (Storage(kind, name, n_items), 0, tuple(shape), strides))

    yield Contents(root, _cached(partial(_content_at, file, places)))


def _content_at(file: IO[bytes], places: dict[str, tuple[int, int]], storage: Storage) -> bytearray:
    place, size = places[storage.key]
    file.seek(place)
    return bytearray(file.read(size))


def _cached(content: Callable[[Storage], bytearray]) -> Callable[[Storage], torch.Tensor]:
    """Return a function that reads each storage once."""
    found: dict[str, tuple[Storage, torch.Tensor]] = {}

    def read(storage: Any) -> torch.Tensor:
        import torch

        if not isinstance(storage, Storage):
            raise TypeError("a storage was expected")
        if storage.key not in found:
            dtype = _dtype(storage.kind)
            numbers = content(storage)
            if len(numbers) != storage.n_items * dtype.itemsize:
                raise EOFError("truncated")
            tensor = torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
            found[storage.key] = storage, tensor
        described, tensor = found[storage.key]
        if described != storage:
            raise ValueError("one storage of two kinds")
        return tensor

    return read


def _dtype(kind: str) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, kind)
    return dtype
