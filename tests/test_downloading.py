"""Downloads from a local server with every vice: no ranges, lost connections, other files, wrong checksums."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccx import downloading
from ccx.downloading import PUBLISHED, download, unpack
from ccx.errors import InputError, StoreError
from tests.support.full_disk import FullDisk, file_size_limit
from tests.support.picture_files import write
from tests.support.servers import CONTENT, ROOT, Server, started

SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_whole_download(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(server.url, tmp_path / "deep/f.bin", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert (tmp_path / "deep/f.bin.sha256").read_text() == f"{SHA256}  f.bin\n"
    assert sorted(one.name for one in path.parent.iterdir()) == ["f.bin", "f.bin.sha256"]
    assert download(server.url, path) == path  # checked, not loaded again
    assert server.seen == [(None, 200)]


def test_lost_connections_are_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 0, 500_000, 0, 0]
    path = download(server.url, tmp_path / "f.bin", wait=0)
    assert path.read_bytes() == CONTENT
    assert server.seen == [
        (None, 200), ("bytes=1000000-", 206), ("bytes=1000000-", 206), ("bytes=1500000-", 206), ("bytes=1500000-", 206),
        ("bytes=1500000-", 206),
    ]  # fmt: skip


def test_the_next_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000, *[0] * 5]
    with pytest.raises(StoreError, match=r"closed after 1000000 of 3000000 bytes; run it again: it goes on"):
        download(server.url, tmp_path / "f.bin", wait=0)
    assert not (tmp_path / "f.bin").exists()
    assert (tmp_path / ".f.bin.part").stat().st_size == 1_000_000
    server.seen.clear()
    assert download(server.url, tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.seen == [("bytes=1000000-", 206)]


def test_a_file_that_changed_in_between_is_loaded_anew(server: Server, tmp_path: Path) -> None:
    for checks in (True, False):  # a server that ignores If-Range, too
        server.break_after = [1_000_000, *[0] * 5]
        path = tmp_path / f"{checks}.bin"
        with pytest.raises(StoreError):
            download(server.url, path, wait=0)
        server.content, server.etag, server.checks_version = CONTENT[::-1], f'"v{checks}"', checks
        assert download(server.url, path, wait=0).read_bytes() == CONTENT[::-1]
        server.content, server.etag = CONTENT, '"v1"'


@pytest.mark.parametrize("etag", ['"v1"', None, 'W/"weak"'])
def test_servers_without_ranges(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.ranges, server.etag = False, etag
    server.break_after = [2_000_000, 1_000_000]
    assert download(server.url, tmp_path / "f.bin", wait=0).read_bytes() == CONTENT
    server.break_after = [1_000_000] * 20
    with pytest.raises(StoreError, match="closed after 1000000 of 3000000 bytes"):
        download(server.url, tmp_path / "g.bin", wait=0)
    assert len(server.break_after) > 10  # it gave up when nothing more came


def test_a_length_that_is_not_announced(server: Server, tmp_path: Path) -> None:
    server.announces = False
    seen: list[tuple[int, int]] = []
    path = download(server.url, tmp_path / "f.bin", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), 0)


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    write(tmp_path / ".f.bin.part", CONTENT)
    write(tmp_path / ".f.bin.part.json", f'{{"url": "{server.url}", "version": "\\"v1\\""}}')
    assert download(server.url, tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.seen == [("bytes=3000000-", 416)]
    write(tmp_path / ".g.bin.part", CONTENT + b"more")
    write(tmp_path / ".g.bin.part.json", f'{{"url": "{server.url}", "version": "\\"v1\\""}}')
    with pytest.raises(StoreError, match="3000004 bytes are there, the server has 3000000"):
        download(server.url, tmp_path / "g.bin")
    for notes in ("", "{}", '{"url": "http://other/", "version": "v1"}'):  # whose bytes they are is unknown
        write(tmp_path / ".h.bin.part", b"x" * 100)
        write(tmp_path / ".h.bin.part.json", notes)
        assert download(server.url, tmp_path / "h.bin").read_bytes() == CONTENT
        (tmp_path / "h.bin").unlink()


def test_a_whole_part_of_another_version_is_loaded_anew(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000] + [0] * 9
    with pytest.raises(StoreError):
        download(server.url, tmp_path / "file.bin", wait=0.001)
    server.break_after = []
    (tmp_path / ".file.bin.part").write_bytes(CONTENT)  # as long as what the server has by now
    server.content, server.etag, server.checks_version = CONTENT[::-1], '"v2"', False
    assert download(server.url, tmp_path / "file.bin").read_bytes() == CONTENT[::-1]
    assert [status for _, status in server.seen[-2:]] == [416, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "abc"},
        {"Content-Length": "-5"},
        {"Content-Length": "9" * 30},
        {"Content-Range": "nonsense"},
        {"Content-Range": "bytes 5-6/x"},
        {"Content-Range": "bytes */\u00b2"},
        {"ETag": "\u00e9" * 50},
        {"Location": "http://elsewhere"},
    ],
)
def test_odd_headers_are_no_crash(server: Server, tmp_path: Path, headers: dict[str, str]) -> None:
    server.headers = headers
    path = tmp_path / "file.bin"
    for broken in ([1_000_000] + [0] * 9, []):
        server.break_after = broken
        try:
            download(server.url, path, wait=0.001)
        except StoreError:
            assert not path.exists()
        else:
            assert path.read_bytes() in (CONTENT, CONTENT[:1_000_000])  # an end that nothing announced


@pytest.mark.parametrize(
    ("begins", "goes_on", "is_followed"),
    [
        ("https://a/x", "https://b/y", True),
        ("http://a/x", "https://b/y", True),
        ("http://a/x", "http://b/y", True),
        ("https://a/x", "http://b/y", False),
        ("https://a/x", "ftp://b/y", False),
        ("http://a/x", "ftp://b/y", False),
        ("http://a/x", "file:///etc/passwd", False),
    ],
)
def test_no_redirection_to_what_is_less_safe(begins: str, goes_on: str, is_followed: bool) -> None:
    request = urllib.request.Request(begins)
    handler = downloading._Redirects()
    if is_followed:
        assert handler.redirect_request(request, None, 302, "", {}, goes_on).full_url == goes_on
        return
    with pytest.raises(StoreError, match=r"sends us on to .*, which is less safe"):
        handler.redirect_request(request, None, 302, "", {}, goes_on)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://127.0.0.1/file.bin", "sends us on to ftp"),
        ("http://[::1", "no address that can be asked"),
        ("http://127.0.0.1:port/", "no address that can be asked"),
    ],
)
def test_a_redirection_is_looked_at(server: Server, tmp_path: Path, address: str, message: str) -> None:
    server.status, server.headers = 302, {"Location": address}
    with pytest.raises(StoreError, match=message):
        download(server.url, tmp_path / "file.bin")


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a b/c", "http://a:99999/", "http:///x", "http://h\n/x", 7, None, b"x"]
)
def test_odd_addresses(tmp_path: Path, url: Any) -> None:
    with pytest.raises(InputError, match="url: expected an address of http or https"):
        download(url, tmp_path / "x")


def test_two_downloads_at_once(server: Server, tmp_path: Path) -> None:
    """The one that is late finds the file, or hears of the other; it never writes into what the other finished."""
    failures: list[BaseException] = []

    def load() -> None:
        try:
            download(server.url, tmp_path / "file.bin")
        except StoreError as error:
            if "another process downloads this file" not in str(error):
                failures.append(error)

    for _ in range(10):
        (tmp_path / "file.bin").unlink(missing_ok=True)
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_got_its_name_meanwhile_is_not_written_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, path = tmp_path / ".file.bin.part", tmp_path / "file.bin"
    part.write_bytes(CONTENT)
    lock = downloading.lock

    def late(*args: Any, **keywords: Any) -> Any:
        part.rename(path)  # another process ends between our look and locking
        return lock(*args, **keywords)

    monkeypatch.setattr(downloading, "lock", late)
    assert download(server.url, path).read_bytes() == CONTENT
    assert server.seen == []


def test_checksums(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    assert download(server.url, path, sha256=SHA256.upper()) == path
    assert not (tmp_path / "f.bin.sha256").exists()
    with pytest.raises(StoreError, match=rf"f\.bin: its SHA-256 is {SHA256}, wanted 0{{64}}; delete it, and"):
        download(server.url, path, sha256="0" * 64)
    path.unlink()
    with pytest.raises(StoreError, match=r"its SHA-256 is .*, wanted 0+; check address and checksum"):
        download(server.url, path, sha256="0" * 64)
    assert not path.exists()
    assert not (tmp_path / ".f.bin.part").exists()
    for sha256 in ("ab", "x" * 64):
        with pytest.raises(InputError, match="sha256: expected 64 hexadecimal digits"):
            download(server.url, path, sha256=sha256)


def test_the_first_checksum_holds_ever_after(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "f.bin")
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(StoreError, match=rf"wanted {SHA256}; delete it, and download it again"):
        download(server.url, path)
    path.unlink()
    server.content, server.etag = CONTENT[::-1], '"v2"'
    with pytest.raises(StoreError, match=r"another file than at first; delete .*f\.bin\.sha256 if that is right"):
        download(server.url, path)
    assert not path.exists()
    (tmp_path / "f.bin.sha256").unlink()
    assert download(server.url, path).read_bytes() == CONTENT[::-1]
    write(tmp_path / "f.bin.sha256", "nothing")
    with pytest.raises(StoreError, match="holds no SHA-256"):
        download(server.url, path)


@pytest.mark.parametrize(("status", "text"), [(404, "404 Not Found"), (403, "403"), (500, "500"), (503, "503")])
def test_servers_that_refuse(server: Server, tmp_path: Path, status: int, text: str) -> None:
    server.status = status
    with pytest.raises(StoreError, match=rf"file\.bin: the server says {text}.*; check the address"):
        download(server.url, tmp_path / "f.bin", wait=0)
    assert not (tmp_path / "f.bin").exists()
    assert server.seen == [(None, status)]


def test_no_server_and_no_address(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StoreError, match=r"the connection was lost \(.*refused.*check the address and the connection"):
        download(f"http://127.0.0.1:{port}/f", tmp_path / "f.bin", wait=0)
    for url in ("file:///etc/passwd", "ftp://a/b", "f.bin", ""):
        with pytest.raises(InputError, match="url: expected an address of http or https"):
            download(url, tmp_path / "f.bin")
    assert not (tmp_path / "f.bin").exists()


def test_a_full_disk(server: Server, tmp_path: Path) -> None:
    with file_size_limit(1_500_000), pytest.raises(StoreError, match=r"cannot write it \(File too large\); make room"):
        download(server.url, tmp_path / "f.bin")
    assert not (tmp_path / "f.bin").exists()
    server.seen.clear()
    assert download(server.url, tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.seen == [("bytes=1500000-", 206)]
    write(tmp_path / "file", "")
    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        download(server.url, tmp_path / "file/f.bin")


@pytest.mark.parametrize("n_good", range(5))  # notes and their folder, the file, its checksum and its folder
def test_no_space_at_every_flush(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    with monkeypatch.context() as patched:
        FullDisk(patched, n_good, ("fsync",))
        with pytest.raises(StoreError, match="No space left on device"):
            download(server.url, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").exists() == (n_good > 2)
    assert download(server.url, tmp_path / "f.bin").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.bin", "f.bin.sha256"]


def test_kills_and_ctrl_c(server: Server, tmp_path: Path) -> None:
    path, part = tmp_path / "f.bin", tmp_path / ".f.bin.part"
    server.pause = 0.05
    for number in (signal.SIGKILL, signal.SIGINT):
        before = part.stat().st_size if part.exists() else 0
        process = started(server, path)
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > before) and time.monotonic() < deadline:
            time.sleep(0.005)
        if number is signal.SIGINT:
            with pytest.raises(StoreError, match=r"\.f\.bin\.part: another process downloads this file; wait for it"):
                download(server.url, path)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode
        assert not path.exists()
        assert part.stat().st_size > before
    server.pause = 0
    assert download(server.url, path).read_bytes() == CONTENT
    assert re.fullmatch(r"bytes=\d+-", server.seen[-1][0] or "")
    assert server.seen[-1][1] == 206


def zipped(path: Path, entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            if change is not None:
                change(entry)
            archive.writestr(entry, content)
    return path


def test_unpacking(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive = zipped(tmp_path / "b.zip", {"top/": b"", "top/index.csv": b"abc", "top/images/a/b.png": b"de"})
    folder = unpack(archive, progress=lambda done, total: seen.append((done, total)))
    assert folder == tmp_path / "top"
    assert (folder / "index.csv").read_bytes() == b"abc"
    assert (folder / "images/a/b.png").read_bytes() == b"de"
    assert seen[-1] == (5, 5)
    (folder / "notes.txt").write_text("mine")
    assert unpack(archive) == folder  # as it is
    assert (folder / "notes.txt").read_text() == "mine"
    several = unpack(zipped(tmp_path / "c.zip", {"x": b"1", "y/z": b"2"}))
    assert several == tmp_path / "c"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "c", "c.zip", "top"]
    single = unpack(zipped(tmp_path / "d.zip", {"x": b"1"}))
    assert (single / "x").read_bytes() == b"1"


def test_a_folder_that_lacks_files_is_not_taken_for_the_archive(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "b.zip", {"top/": b"", "top/index.csv": b"abc", "top/empty/": b"", "top/a/b.png": b"de"}
    )
    folder = unpack(archive)
    for damage in (
        (folder / "index.csv").unlink,
        lambda: (folder / "index.csv").write_bytes(b"ab"),
        (folder / "empty").rmdir,
        lambda: (folder / "a").rename(folder / "z"),
    ):
        damage()
        with pytest.raises(StoreError, match=r"top: is there already, without 'top/.*; delete or rename it"):
            unpack(archive)
        shutil.rmtree(folder)
        unpack(archive)


def test_several_processes_unpack_once(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {f"top/{i}": bytes([i]) * 20_000 for i in range(40)})
    code = "import sys; from ccx.downloading import unpack; print(unpack(sys.argv[1]), flush=True)"
    command = [sys.executable, "-c", code, str(archive)]
    for _ in range(3):
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(4)]
        for run in runs:
            out, _ = run.communicate()
            assert run.returncode == 0
            assert out.decode().strip() == str(tmp_path / "top")
        assert all((tmp_path / "top" / str(i)).read_bytes() == bytes([i]) * 20_000 for i in range(40))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "top"]
        shutil.rmtree(tmp_path / "top")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {f"top/{i}": bytes(1 << 20) for i in range(8)})
    code = """
import sys, time
from ccx.downloading import unpack
def wait(done, total):
    print("under way", flush=True)
    time.sleep(60)
unpack(sys.argv[1], progress=wait)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(archive)], stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"under way\n"
        child.kill()
    assert len(list(tmp_path.iterdir())) == 3
    unpack(archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "top"]


def test_archives_whose_entries_contradict_each_other(tmp_path: Path) -> None:
    for entries in ({"a": b"1", "a/b": b"2"}, {"a/b": b"2", "a": b"1"}):
        with pytest.raises(StoreError, match=r"b\.zip: cannot be unpacked"):
            unpack(zipped(tmp_path / "b.zip", {"top/" + name: content for name, content in entries.items()}))
    with pytest.raises(StoreError, match=r"b\.zip: holds nothing"):
        unpack(zipped(tmp_path / "b.zip", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\..\\x", "c:/x", "..", "a/.."])
def test_entries_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "b.zip", {"good": b"1", name: b"2"})
    with pytest.raises(StoreError, match=r"b\.zip: it holds .* which lies outside or is no file; do not trust it"):
        unpack(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


def test_links_are_refused(tmp_path: Path) -> None:
    def link(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16

    with pytest.raises(StoreError, match="is no file; do not trust it"):
        unpack(zipped(tmp_path / "b.zip", {"a": b"/etc/passwd"}, link))


def test_archives_that_are_damaged_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "b.zip", {"top/a": bytes(10_000), "top/b": CONTENT[:1000]})
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content.replace(CONTENT[:20], CONTENT[1:21])):
        write(archive, damaged)
        with pytest.raises(StoreError, match=r"b\.zip: cannot be unpacked .*; delete it, and download it again"):
            unpack(archive)
        assert not (tmp_path / "top").exists()
    write(archive, content)
    with monkeypatch.context() as patched:
        usage = type("Usage", (), {"free": 100})
        patched.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(StoreError, match=r"needs 0\.0 GB, and 0\.0 GB are free; make room"):
            unpack(archive)
    with file_size_limit(5_000), pytest.raises(StoreError, match=r"cannot be unpacked \(File too large\); make room"):
        unpack(archive)
    assert not (tmp_path / "top").exists()
    assert (unpack(archive) / "a").read_bytes() == bytes(10_000)
    with pytest.raises(StoreError, match="cannot be unpacked"):
        unpack(tmp_path / "no.zip")


def test_published_addresses() -> None:
    assert set(PUBLISHED) == {
        "broden1_224", "broden1_227", "broden1_384", "resnet18_places365", "alexnet_places365", "densenet161_places365",
    }  # fmt: skip
    assert all(url.startswith("http://") for url in PUBLISHED.values())
