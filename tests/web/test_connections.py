from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

# A service of three endpoints behind the same door as both services.
SERVICE = """
import asyncio, sys
from incatalog.web.bodies import BodyLimit
from incatalog.web.listener import bound, serve_app

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await receive()
    if scope["path"] == "/slow":
        await asyncio.sleep(3)
    size = 8_000_000 if scope["path"] == "/large" else 2
    start = {"type": "http.response.start", "status": 200, "headers": []}
    await send(start)
    await send({"type": "http.response.body", "body": b"o" * size})

seconds, proxies = float(sys.argv[1]), sys.argv[2:]
limited = BodyLimit(app, 1000, seconds)
serve_app(
    limited, bound("127.0.0.1", 0), grace=seconds, proxies=proxies,
    announce=lambda address: print(address, flush=True),
)
"""
HALF_HEADERS = b"GET /fast HTTP/1.1\r\nHost: local"
HALF_BODY = b"POST /fast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
WHOLE = b"GET /fast HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def many_files() -> None:
    """A thousand connections of this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Service:
    def __init__(self, log: Path, seconds: float, files: tuple[int, int] | None = None) -> None:
        limit = () if files is None else ("prlimit", "--nofile={}:{}".format(*files))
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [*limit, sys.executable, "-c", SERVICE, str(seconds)],
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    @property
    def files(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    @property
    def said(self) -> str:
        return self._log.read_text()

    def limits(self) -> list[str]:
        text = Path(f"/proc/{self._process.pid}/limits").read_text()
        found = re.search(r"Max open files +(\d+) +(\d+)", text)
        assert found
        return list(found.groups())

    def connect(self, sent: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(sent)
        return connection

    def seconds_to_answer(self) -> float:
        started = time.perf_counter()
        with urllib.request.urlopen(f"{self.url}/fast", timeout=10) as reply:
            assert reply.read() == b"oo"
        return time.perf_counter() - started

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(timeout=30) == 0
        assert "Traceback" not in self.said


@contextlib.contextmanager
def served(
    folder: Path, seconds: float = 30, files: tuple[int, int] | None = None
) -> Iterator[Service]:
    service = Service(folder / "log", seconds, files)
    try:
        yield service
    finally:
        service.stop()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("files", [None, (200, 200)], ids=["many files", "200 files"])
@pytest.mark.parametrize("sent", [HALF_HEADERS, HALF_BODY, b""], ids=["headers", "body", "nothing"])
def test_a_thousand_half_sent_requests_keep_no_one_out(
    tmp_path: Path, sent: bytes, files: tuple[int, int] | None
) -> None:
    with served(tmp_path, files=files) as service, contextlib.ExitStack() as held:
        waits = []
        for number in range(1000):
            held.enter_context(service.connect(sent))
            if number % 50 == 49:
                waits.append(service.seconds_to_answer())
        waits += [service.seconds_to_answer() for _ in range(20)]
        assert max(waits) < 1
        if files is not None:
            assert service.files <= 200
        assert len(service.said) < 10_000


def test_connections_that_come_all_at_once_are_survived(tmp_path: Path) -> None:
    """More than there are files, before the service has looked at the first of them."""
    with served(tmp_path, files=(120, 120)) as service, contextlib.ExitStack() as held:
        os.kill(service._process.pid, 19)
        time.sleep(0.1)
        for _ in range(500):
            held.enter_context(service.connect(HALF_HEADERS))
        os.kill(service._process.pid, 18)
        assert service.seconds_to_answer() < 2
        assert len(service.said) < 10_000


def test_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    with served(tmp_path, files=(150, 900)) as service:
        assert service.limits() == ["900", "900"]


def test_request_that_does_not_arrive_is_given_up_in_time(tmp_path: Path) -> None:
    with served(tmp_path, seconds=1) as service:
        started = time.perf_counter()
        late = [service.connect(sent) for sent in (HALF_HEADERS, HALF_BODY, b"")]
        # After an answered request as well, and however slowly something comes.
        kept = service.connect(WHOLE)
        kept.recv(1000)
        kept.sendall(HALF_HEADERS)
        trickling = service.connect(b"")
        with contextlib.suppress(OSError):
            for letter in HALF_HEADERS:
                trickling.sendall(bytes([letter]))
                time.sleep(0.1)
        answer(trickling)
        headers, body, nothing, again = map(answer, [*late, kept])
        assert time.perf_counter() - started < 5
        assert headers.startswith(b"HTTP/1.1 408 ")
        assert headers.endswith(b"no complete request within 1 s")
        assert body.startswith(b"HTTP/1.1 408 ")
        assert b"not complete within 1 s" in body
        assert nothing == b""
        assert b"HTTP/1.1 408 " in again
        # Who has sent all of it is answered, however long it takes.
        slow = service.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_connection_that_answers_is_not_given_up_for_a_new_one(tmp_path: Path) -> None:
    with served(tmp_path, files=(120, 120)) as service, contextlib.ExitStack() as held:
        busy = service.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(300):
            held.enter_context(service.connect(HALF_HEADERS))
        assert busy.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_too_many_that_answer_refuse_the_next(tmp_path: Path) -> None:
    with served(tmp_path, files=(120, 120)) as service:
        slow = [
            service.connect(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            for _ in range(100)
        ]
        found = [answer(connection)[9:12] for connection in slow]
        assert set(found) <= {b"200", b"503", b""}
        assert found.count(b"200") >= 20
        assert b"503" in found
        assert service.seconds_to_answer() < 1


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        b"TRANSFER-ENCODING: Chunked\r\nX: y\r\nCONTENT-LENGTH: 5\r\n",
    ],
)
def test_two_ends_of_a_body_are_refused(tmp_path: Path, headers: bytes) -> None:
    hidden = b"0\r\n\r\nGET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(tmp_path) as service:
        sent = b"POST /fast HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + hidden
        found = answer(service.connect(sent))
        assert found.startswith(b"HTTP/1.1 400 ")
        assert b"both Content-Length and Transfer-Encoding" in found
        # What stands behind it is no request of its own.
        assert found.count(b"HTTP/1.1") == 1
        # One of them alone is as good as ever.
        chunked = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        alone = b"POST /fast HTTP/1.1\r\nHost: localhost\r\n" + chunked
        assert answer(service.connect(alone)).startswith(b"HTTP/1.1 200 ")


def test_requests_one_behind_the_other_are_all_answered(tmp_path: Path) -> None:
    last = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with served(tmp_path) as service:
        found = answer(service.connect(WHOLE * 4 + last))
        assert found.count(b"HTTP/1.1 200 OK") == 5


def test_answer_that_no_one_reads_is_given_up(tmp_path: Path) -> None:
    with served(tmp_path, seconds=1) as service:
        asking = WHOLE.replace(b"/fast", b"/large")
        unread, read = service.connect(asking), service.connect(asking)
        size = 0
        while size < 8_000_000:
            size += len(read.recv(1_000_000))
        before = service.files
        deadline = time.perf_counter() + 5
        while service.files >= before:
            assert time.perf_counter() < deadline
            time.sleep(0.05)
        assert len(answer(unread)) < 8_000_000


def test_half_sent_requests_do_not_hold_the_end_up(tmp_path: Path) -> None:
    service = Service(tmp_path / "log", 60)
    with contextlib.ExitStack() as held:
        for sent in (HALF_BODY, HALF_HEADERS, b""):
            for _ in range(20):
                held.enter_context(service.connect(sent))
        slow = held.enter_context(service.connect(WHOLE.replace(b"/fast", b"/slow")))
        # All of them have been read.
        service.seconds_to_answer()
        started = time.perf_counter()
        service._process.terminate()
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")
        service.stop()
        assert time.perf_counter() - started < 20
