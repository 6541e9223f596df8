"""Downloads that go on where they stopped, are checked, and appear only when they are whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from ccx._version import VERSION
from ccx.errors import CCXError, InputError
from ccx.store import PathLike, new_folder, write_text
from ccx.store.files import as_target, open_kept, open_regular, read_bytes, reason, store_error
from ccx.store.folders import made
from ccx.store.locks import lock

Progress = Callable[[int, int], object]
"""Called with (bytes done, bytes in all; 0 where unknown)."""

_BROADLY = "http://netdissect.csail.mit.edu/data/"
_PLACES = "http://places2.csail.mit.edu/models_places365/"
PUBLISHED = {
    "broden1_224": f"{_BROADLY}broden1_224.zip",
    "broden1_227": f"{_BROADLY}broden1_227.zip",
    "broden1_384": f"{_BROADLY}broden1_384.zip",
    "resnet18_places365": f"{_PLACES}resnet18_places365.pth.tar",
    "alexnet_places365": f"{_PLACES}alexnet_places365.pth.tar",
    "densenet161_places365": f"{_PLACES}whole_densenet161_places365_python36.pth.tar",
}
"""Where the data and weights of the papers were published. We have not verified these addresses, or what they serve."""

_SCHEMES = ("http", "https")
_CHUNK = 1 << 20
_ATTEMPTS = 5  # without a single byte between them
_TIMEOUT = 60  # seconds without a byte


class _Answer(NamedTuple):
    """What a server sends: from which byte on, of how many (0 = unknown), and how it calls this version of the file."""

    start: int
    total: int
    version: str
    body: Any


def download(
    url: str, path: PathLike, *, sha256: str | None = None, progress: Progress | None = None, wait: float = 1.0
) -> Path:
    """Download a file; a file that is already there is checked, not loaded again.

    Bytes go to ``.NAME.part`` beside the file; after a kill, a lost connection or a full disk, the next call goes on
    there, if the server can and still has the same file. The SHA-256 of the first download is recorded in
    ``NAME.sha256``, as ``sha256sum`` writes it; later ones, and the file itself whenever this is called, must agree.

    Parameters
    ----------
    url
        An address of http or https.
    path
        The file to make.
    sha256
        What the file must hash to, if known; otherwise the first download is trusted.
    progress
        Called as bytes come.
    wait
        Seconds before the second attempt after a lost connection; doubled each time. Five attempts without a byte are
        the last.

    Raises
    ------
    InputError
        If `url` is no address, or `sha256` is not 64 hexadecimal digits.
    StoreError
        If the server refuses or the connection is lost for good, the disk is full, another process downloads the same
        file, or a checksum is wrong. The message says what to do.

    """
    _check_url(url)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", str(sha256)):
        raise InputError("sha256", wanted="64 hexadecimal digits", got=repr(sha256), remedy="copy all of them")
    target = as_target(path)
    record = target.with_name(f"{target.name}.sha256")
    wanted = sha256.lower() if sha256 is not None else _recorded(record)
    part = target.with_name(f".{target.name}.part")
    notes = part.with_name(f"{part.name}.json")
    if target.exists():
        _check(target, wanted, "delete it, and download it again")
    else:
        with _locked(part) as file:
            if target.exists():  # another process was quicker
                part.unlink()
                return download(url, path, sha256=sha256, progress=progress, wait=wait)
            _load(url, file, notes, progress, wait)
            changed = f"another file than at first; delete {record} if that is right"
            _check(part, wanted, changed if sha256 is None else "check address and checksum", delete=True)
            os.fsync(file.fileno())
            part.replace(target)
            notes.unlink(missing_ok=True)
    if wanted is None:
        write_text(record, f"{_sha256(target)}  {target.name}\n")
    return target


def _check_url(url: Any) -> None:
    try:
        parts = urllib.parse.urlsplit(url if isinstance(url, str) else "")
        good = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        good = good and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # no port, no address
        good = False
    if not good:
        remedy = "check the address; write what is not ASCII as %XX"
        raise InputError("url", wanted="an address of http or https", got=repr(url)[:200], remedy=remedy)


def _recorded(record: Path) -> str | None:
    if not record.exists():
        return None
    text = read_bytes(record).decode("ascii", "replace").split()
    if not text or len(text[0]) != 64:
        raise store_error(record, "holds no SHA-256", "delete it, and download the file again")
    return text[0]


def _check(path: Path, wanted: str | None, remedy: str, *, delete: bool = False) -> None:
    found = wanted and _sha256(path)
    if found != wanted:
        if delete:
            path.unlink()
        raise store_error(path, f"its SHA-256 is {found}, wanted {wanted}", remedy)


def _sha256(path: Path) -> str:
    try:
        descriptor, _ = open_regular(path)  # it would wait for a pipe
        with os.fdopen(descriptor, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise store_error(path, f"cannot read it ({reason(error)})", "check the path") from error


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open the file of bytes so far, and keep other processes out."""
    held = store_error(part, "another process downloads this file", "wait for it")
    try:
        made(part.parent)
        with (
            lock(part.with_name(f"{part.name}.lock"), held=held),
            os.fdopen(open_kept(part), "r+b", buffering=0) as file,
        ):
            yield file
    except OSError as error:
        remedy = "make room or choose another place, and run it again: it goes on where it stopped"
        raise store_error(part, f"cannot write it ({reason(error)})", remedy) from error


def _load(url: str, file: Any, notes: Path, progress: Progress | None, wait: float) -> None:
    """Load the bytes that are missing, in as many attempts as it takes."""
    done = file.seek(0, os.SEEK_END)
    version = _version_of(notes, url) if done else ""
    failures, most = 0, done
    while True:
        problem = "the connection was lost"
        try:
            with _asked(url, done if version else 0, version) as answer:
                if answer is None:  # there is nothing behind the last byte
                    return
                if answer.start != done or (done and answer.version != version):
                    done = file.seek(0)
                    file.truncate()
                if answer.start != done:
                    version = ""  # the rest of another file, though asked not to
                    continue
                version = answer.version
                write_text(notes, json.dumps({"url": url, "version": version}))
                _append(answer, file, progress)
            done = file.tell()
            if not answer.total or done == answer.total:
                return
            problem = f"the connection was closed after {done} of {answer.total} bytes"
            if done > answer.total:
                file.truncate(0)
                raise store_error(url, f"the server sent more than its {answer.total} bytes", "try it again")
        except urllib.error.HTTPError as error:
            error.close()
            raise store_error(url, f"the server says {error.code} {error.reason}", "check the address") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = f"{problem} ({getattr(error, 'reason', None) or error})"
            done = file.tell()
        failures, most = (0, done) if done > most else (failures + 1, most)
        if failures >= _ATTEMPTS or not (done or version):
            remedy = "run it again: it goes on where it stopped" if done else "check the address and the connection"
            raise store_error(url, problem, remedy)
        time.sleep(wait * 2**failures)


def _append(answer: _Answer, file: Any, progress: Progress | None) -> None:
    """Write what a server sends behind the bytes that are there."""
    while block := answer.body.read(_CHUNK):
        view = memoryview(block)
        while view:  # the file has no buffer, and may take a part
            view = view[file.write(view) :]
        if progress is not None:
            progress(file.tell(), answer.total)


def _version_of(notes: Path, url: str) -> str:
    """Return how the server called the file whose bytes are there; "" = unknown."""
    try:
        found = json.loads(notes.read_bytes())
        return str(found["version"]) if found["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def _asked(url: str, start: int, version: str) -> Iterator[_Answer | None]:
    """Ask a server for a file from byte `start` on, if it is still of this version."""
    headers = {"User-Agent": f"ccx/{VERSION}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)
    try:
        with _opened(request) as body:
            length = _number(body.headers.get("Content-Length"))
            if body.status != http.client.PARTIAL_CONTENT:
                yield _Answer(0, length, _version(body.headers), body)
                return
            first, _, total = body.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if first.partition("-")[0] != str(start):
                raise store_error(url, f"the server sends bytes {first:.40}, asked was {start}-", "try it again")
            yield _Answer(start, _number(total) or start + length, _version(body.headers), body)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        total, now = error.headers.get("Content-Range", "").partition("/")[2], _version(error.headers)
        error.close()
        if now != version:  # or it does not say: what is there may be another file of that length
            with _asked(url, 0, "") as whole:
                yield whole
            return
        if total != str(start):
            problem = f"{start} bytes are there, the server has {total[:40] or 'fewer'}"
            raise store_error(url, problem, "delete them") from error
        yield None


def _version(headers: Any) -> str:
    """Return how a server calls the version of a file that it sends; "" = it does not say."""
    version: str = headers.get("ETag") or headers.get("Last-Modified") or ""
    if version.startswith("W/"):  # weak: says nothing of single bytes
        version = headers.get("Last-Modified") or ""
    return version


def _number(text: str | None) -> int:
    """Return a length that a server announces; 0 = it announces none, or no number."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but never from https to http, nor to other kinds of addresses."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Serve `urllib.request.HTTPRedirectHandler`."""
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in _SCHEMES or (req.type == "https" and scheme != "https"):
            problem = f"the server sends us on to {newurl:.200}, which is less safe"
            raise store_error(req.full_url, problem, "check the address, or download the file by other means")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(request: urllib.request.Request) -> Any:
    """Ask a server, or raise `StoreError` where an address, be it one that a server sends us on to, cannot be asked."""
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)
    except (http.client.InvalidURL, ValueError) as error:
        raise store_error(request.full_url, f"no address that can be asked ({error})", "check the address") from error


def unpack(archive: PathLike, *, progress: Progress | None = None) -> Path:
    """Unpack a .zip file beside itself -> the folder, which appears only when it is whole.

    It is the archive's one top folder, or is called like the archive where that has several. A folder of that name that
    is there already is returned if it has all files of the archive, in their sizes. Of several processes one unpacks,
    and the others wait.

    Raises
    ------
    StoreError
        If the archive is damaged, does not fit on the disk, or has entries that lie outside its folder or are no files
        and folders; or if a folder of that name lacks some of its files.

    """
    path = Path(archive)
    try:
        with zipfile.ZipFile(path) as opened:
            return _unpacked(opened, path, progress)
    except CCXError:
        raise
    except OSError as error:
        raise store_error(path, f"cannot be unpacked ({reason(error)})", "make room, and run it again") from error
    except Exception as error:  # damaged archives raise what zipfile, zlib, bz2 and lzma see fit
        raise store_error(path, f"cannot be unpacked ({error})", "delete it, and download it again") from error


def _unpacked(opened: zipfile.ZipFile, path: Path, progress: Progress | None) -> Path:
    entries = opened.infolist()
    for entry in entries:
        _check_entry(path, entry)
    if not entries:
        raise store_error(path, "holds nothing", "delete it, and download it again")
    tops = {PurePosixPath(entry.filename).parts[0] for entry in entries}
    one = len(tops) == 1 and all(entry.is_dir() or "/" in entry.filename for entry in entries)
    target = path.with_name(next(iter(tops)) if one else path.stem)
    with ExitStack() as stack:
        if not target.exists():
            stack.enter_context(lock(path.with_name(f".{path.name}.lock")))
        if target.exists():  # or another process was quicker
            _check_unpacked(entries, target.parent if one else target, target)
            return target
        _require_room(entries, path)
        with new_folder(target) as folder:
            try:
                _extract(opened, folder, target.name if one else "", progress)
            except OSError as error:
                remedy = "make room, and run it again"
                raise store_error(path, f"cannot be unpacked ({reason(error)})", remedy) from error
    return target


def _check_unpacked(entries: list[zipfile.ZipInfo], folder: Path, target: Path) -> None:
    """Raise `StoreError` if a folder lacks a file of the archive, or has it in another size."""
    for entry in entries:
        place = folder / entry.filename
        is_there = place.is_dir() if entry.is_dir() else place.is_file() and place.stat().st_size == entry.file_size
        if not is_there:
            problem = f"is there already, without {entry.filename!r} as it stands in the archive"
            raise store_error(target, problem, "delete or rename it, and unpack again")


def _check_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    parts = PurePosixPath(entry.filename).parts
    kind = stat.S_IFMT(entry.external_attr >> 16)
    is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
    if not parts or parts[0] == "/" or ".." in parts or "\\" in entry.filename or ":" in parts[0] or not is_plain:
        raise store_error(archive, f"it holds {entry.filename!r}, which lies outside or is no file", "do not trust it")


def _require_room(entries: list[zipfile.ZipInfo], archive: Path) -> None:
    total, free = sum(entry.file_size for entry in entries), shutil.disk_usage(archive.parent).free
    if total > free:
        problem = f"needs {total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise store_error(archive, problem, "make room, and run it again")


def _extract(opened: zipfile.ZipFile, folder: Path, top: str, progress: Progress | None) -> None:
    """Extract everything into a folder, which stands for the archive's folder `top`; at most what it announces."""
    entries = opened.infolist()
    total, done = sum(entry.file_size for entry in entries), 0
    for entry in entries:
        name = PurePosixPath(entry.filename)
        place = folder / (name.relative_to(top) if top else name)
        if entry.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as packed, place.open("xb") as file:
            shutil.copyfileobj(packed, file, _CHUNK)
        done += entry.file_size
        if progress is not None:
            progress(done, total)
    if hasattr(os, "sync"):
        os.sync()  # the folder must not have its name before its files are on the disk


__all__ = ["PUBLISHED", "download", "unpack"]
