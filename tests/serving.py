"""Teacher services to ask: one in a thread of the test, and one as the process users start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn

from incatalog.data.catalog import Catalog
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher_service.settings import TeacherServeSettings
from incatalog.teacher_service.teacher_endpoints import TeacherService

NOWHERE = Path("nowhere")


@contextlib.contextmanager
def served(
    teacher: ScoringTeacher,
    catalog: Catalog,
    *,
    port: int = 0,
    fingerprint: str = "f",
    **limits: Any,
) -> Iterator[str]:
    """The URL of a service that runs in a thread as long as the block."""
    config = replace(TeacherServeSettings(NOWHERE, NOWHERE), **limits)
    app = TeacherService(teacher, catalog, config, fingerprint).app()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    settings = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Process:
    """`incatalog teacher serve` as users start it."""

    def __init__(self, model: Path, data: Path, *flags: str) -> None:
        command = ["teacher", "serve", "--model", model, "--data", data, "--port", "0", *flags]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "incatalog.cli", *map(str, command)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not found:
            raise AssertionError(line + self._process.communicate()[1])
        self.port = int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[int, str]:
        """Exit code and what it said at the end."""
        _, said = self._process.communicate(timeout=30)
        return self._process.returncode, said

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: dict[str, str]


class Client:
    """One kept connection, opened anew where the server has closed it, that sends things once."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._connection = HTTPConnection(host, int(port), timeout=30)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        # A server closes what was idle for long, as while the tests of other fixtures ran.
        idle = self._connection.sock
        if idle is not None and select.select([idle], [], [], 0)[0]:
            self._connection.close()
        self._connection.request(
            method, path, body, {"Content-Type": "application/json", **headers}
        )
        response = self._connection.getresponse()
        content: Any = response.read()
        if response.headers.get_content_type() == "application/json":
            content = json.loads(content)
        return Reply(response.status, content, {k.lower(): v for k, v in response.getheaders()})

    def close(self) -> None:
        self._connection.close()


class _Scripted(BaseHTTPRequestHandler):
    """Answers with one status after the other, as set on the server."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.asked.append(time.monotonic())
        status, headers, body = self.server.script.pop(0)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def scripted(*script: tuple[int, dict[str, str], bytes]) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Scripted)
    server.script, server.asked = list(script), []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
