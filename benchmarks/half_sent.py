"""Does a service answer while a thousand requests are held open half-sent?

A real `incatalog serve` of the study's model; each kind of half-sent request is held for some
seconds while its health is asked for again and again, each time on a connection of its own.

    python -m benchmarks.half_sent [--model runs/study/cgen] [--held 1000] [--seconds 15]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import resource
import socket
import sys
import time
from pathlib import Path

from benchmarks.report import markdown, publish_part
from benchmarks.serving import Server

_HALVES = {
    "headers half-sent": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Wait",
    "bodies half-sent": b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
    "nothing sent": b"",
}
_FEW_FILES = 200


def slowest(port: int, half: bytes, held: int, seconds: float) -> tuple[int, float]:
    """Times health was asked for, and the longest that took, from the first held request on."""
    asked, longest = 0, 0.0
    with contextlib.ExitStack() as open_ones:
        end = time.perf_counter() + seconds
        number = 0
        while time.perf_counter() < end:
            if number < held:
                with contextlib.suppress(ConnectionError):
                    one = socket.create_connection(("127.0.0.1", port), timeout=10)
                    open_ones.enter_context(one)
                    one.sendall(half)
                number += 1
                if number % 20:
                    continue
            started = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/healthz")
            if connection.getresponse().status != 200:
                sys.exit("/healthz did not answer 200")
            connection.close()
            asked, longest = asked + 1, max(longest, time.perf_counter() - started)
            if number >= held:
                time.sleep(0.05)
    return asked, longest


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("runs/study/cgen"))
    parser.add_argument("--held", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    if not options.model.is_dir():
        sys.exit(f"{options.model}: no such folder; make the study first: make study")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    rows = []
    for files in (most, _FEW_FILES):
        server = Server(options.model, files=files)
        for name, half in _HALVES.items():
            asked, longest = slowest(server.port, half, options.held, options.seconds)
            rows.append((name, f"{files:,}", asked, f"{longest:.2f} s"))
        server.stop()
    heading = f"{options.held:,} half-sent requests held open"
    table = markdown(("held", "open files at most", "/healthz asked", "longest answer"), rows)
    publish_part("serving", "half_sent", heading, table)


if __name__ == "__main__":
    main()
