"""The socket a service listens on."""

from __future__ import annotations

import socket

from reclm.errors import ConfigError


def bound(host: str, port: int) -> socket.socket:
    """A socket on a port, so that a taken one is known before anything is loaded.

    Raises:
        ConfigError: There is no such address, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Only where the protocol is named does asyncio switch Nagle's algorithm off, without which
        # every answer over a kept connection is 40 ms late.
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
