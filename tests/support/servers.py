"""A server of files that does what it is told to: breaks off, refuses, lies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server:
    """A server of one file; tests set what it does."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"v1"'
        self.ranges = True
        self.checks_version = True
        self.announces = True
        self.break_after: list[int] = []  # bytes after which each of the next answers breaks off
        self.pause = 0.0
        self.status = 200
        self.headers: dict[str, str] = {}  # odd ones, in place of the right ones
        self.seen: list[tuple[str | None, int]] = []  # ranges asked for, statuses
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = False  # server_close waits for them

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that go away are part of the tests

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/file.bin"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        start, status = 0, self.status
        if status == 200 and asked and self.ranges:
            same = request.headers.get("If-Range") == self.etag or not self.checks_version
            if same:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                status = 206 if start < len(self.content) else 416
        self.seen.append((asked, status))
        body = self.content[start:] if status in (200, 206) else b"no"
        request.send_response(status)
        headers = {}
        if self.etag:
            headers["ETag"] = self.etag
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        if status == 416:
            headers["Content-Range"] = f"bytes */{len(self.content)}"
        if self.announces:
            headers["Content-Length"] = str(len(body))
        for name, value in {**headers, **self.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        stop = self.break_after.pop(0) if self.break_after else len(body)
        for at in range(0, min(stop, len(body)), 100_000):
            request.wfile.write(body[at : min(at + 100_000, stop)])
            time.sleep(self.pause)
        request.close_connection = True

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


PROGRAM = "import sys; from ccx.downloading import download; download(sys.argv[1], sys.argv[2])"


def started(server: Server, path: Path) -> subprocess.Popen[str]:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + PROGRAM
    arguments = [sys.executable, "-c", code, server.url, str(path)]
    return subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stderr=subprocess.PIPE)
