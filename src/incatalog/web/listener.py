"""The socket a service listens on, and how it is served until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from incatalog.errors import ConfigError

_KEEP_ALIVE = 75  # an idle client may be in the middle of a training step, or of a conversation
_BACKLOG = 2048


def bound(host: str, port: int) -> socket.socket:
    """A socket on a port, so that a taken one is known before anything is loaded."""
    try:
        stream, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
        found = socket.getaddrinfo(host, port, type=stream, flags=passive)
        family, kind, protocol, _, address = found[0]
        # asyncio switches Nagle's algorithm off only if the protocol is named; with it, an answer
        # over a kept connection comes late.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(f"--port {port} on {host}: {error.strerror}") from error
    return listener


def serve_app(
    app: Any,
    listener: socket.socket,
    *,
    grace: float,
    announce: Callable[[str], object],
    proxies: Sequence[str] = (),
) -> None:
    """Serves on a :func:`bound` socket until SIGTERM or SIGINT, then answers what it has accepted.

    A request may take `grace` seconds to arrive, and to be answered after the signal. `announce`
    gets the address when it can be connected to; `proxies` may name the address of a client.
    """
    import uvicorn

    from incatalog.web.connections import Connections, Door, HttpProtocol, raise_file_limit

    raise_file_limit()
    connections = Connections(grace)
    door = Door(listener, connections)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(grace) + 5,
        # HttpProtocol and Door limit the connections, not uvicorn.
        http=partial(HttpProtocol, connections),  # type: ignore[arg-type]
        loop="asyncio",
        ws="none",
        backlog=_BACKLOG,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal again when it has shut down; by default that would end the process
    # before it says goodbye, and with a failure. It may also come before uvicorn looks for it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    # A client may connect as soon as it reads the announcement.
    door.listen(_BACKLOG)
    host, port = door.getsockname()[:2]
    announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets=[door])
