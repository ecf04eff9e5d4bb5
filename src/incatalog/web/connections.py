"""The connections of a service: how many there are, and how long a request may take to arrive.

A connection waits until its next request has arrived, headers and body. One that waits too long is
cut off; where a new connection finds no place, the one that has waited longest is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections import OrderedDict
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# More than any queue holds requests.
_MOST = 1024
_FEWEST = 8
# Files for all else that the process opens: databases, pages, connections being made.
_RESERVED = 64
# Connections taken at once, before the earlier ones are read again.
_AT_ONCE = 8
# Rounds of the event loop until what comes with a new connection has been read.
_ROUNDS = 3
# Seconds until the headers of a request are there.
_HEADERS = 10.0
# Seconds that a client may leave an answer unread.
_UNREAD = 60.0
# Seconds until a half-sent request must be complete when the service ends.
_LAST = 2.0
_NO_FILE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LARGEST = 65_536
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"


class Connections:
    """All connections of a service, on each of which a request arrives within `timeout` seconds."""

    def __init__(self, timeout: float) -> None:
        self.header_seconds = min(_HEADERS, timeout)
        self.unread_seconds = min(_UNREAD, timeout)
        # A body that is late is answered by the application, which says so in its own words.
        self.seconds = timeout + 5
        self._most = _room_for_files()
        self._open: set[HttpProtocol] = set()
        self._waiting: OrderedDict[HttpProtocol, None] = OrderedDict()

    def made(self, protocol: HttpProtocol) -> None:
        """Counts a new connection."""
        self._open.add(protocol)

    def lost(self, protocol: HttpProtocol) -> None:
        """Forgets a connection."""
        self._open.discard(protocol)
        self._waiting.pop(protocol, None)

    def waits(self, protocol: HttpProtocol) -> None:
        """Notes that a connection waits from now on."""
        self._waiting[protocol] = None
        self._waiting.move_to_end(protocol)

    def arrived(self, protocol: HttpProtocol) -> None:
        """Notes that a request has arrived."""
        self._waiting.pop(protocol, None)

    def make_room(self) -> bool:
        """Whether one more may be taken, perhaps in the place of the one that waits longest."""
        return len(self._open) < self._most or self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Cuts off the connection that waits longest; returns whether there was one."""
        if not self._waiting:
            return False
        oldest = next(iter(self._waiting))
        self.lost(oldest)
        oldest.transport.abort()
        return True


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 within limits of time; `arguments` are uvicorn's."""

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.conn = self._framing = _Framing(h11.SERVER)
        self._all = connections
        self._arriving: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        # Whether the headers of the next request are there.
        self._has_headers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._all.made(self)
        self._arriving = self.loop.call_later(self._all.header_seconds, self._late)
        self._settle(_ROUNDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all waiting."""
        self._all.lost(self)
        self._stop_waiting()
        self._set_read()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, and sees how much of the request is there."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Waits for the next request, a part of which may be there already."""
        super().on_response_complete()
        if self.transport.is_closing() or self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._all.waits(self)
        # Between two requests uvicorn's own timer runs, until something of the next is there.
        self._look(idle=not self.conn.trailing_data[0])

    def shutdown(self) -> None:
        """Takes no further request, and waits a short time for the rest of this one."""
        super().shutdown()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._wait(_LAST)

    def send_400_response(self, msg: str) -> None:
        """Says what is wrong with a request, and closes."""
        super().send_400_response(self._framing.fault or msg)

    def pause_writing(self) -> None:
        """Gives the client a while to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._all.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Notes that the client reads."""
        self._set_read()
        super().resume_writing()

    def _settle(self, rounds: int) -> None:
        """Begins to wait some rounds later, when what came with the connection has been read."""
        if rounds:
            self.loop.call_soon(self._settle, rounds - 1)
        elif self._arriving is not None:
            self._all.waits(self)

    def _look(self, *, idle: bool = False) -> None:
        """Sets the time by which the rest of the request must be there."""
        if self.transport.is_closing():
            self._stop_waiting()
        elif self.conn.their_state is h11.IDLE:
            if self._has_headers or (self._arriving is None and not idle):
                self._wait(self._all.header_seconds)
            self._has_headers = False
        elif self.conn.their_state is h11.SEND_BODY:
            if not self._has_headers:
                self._wait(self._all.seconds)
            self._has_headers = True
        else:
            self._stop_waiting()
            self._has_headers = False
            self._all.arrived(self)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._arriving = self.loop.call_later(seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _set_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _late(self) -> None:
        """Lets a connection go that has not sent its request in time."""
        self._arriving = None
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            message = f"no complete request within {self._all.header_seconds:g} s".encode()
            self.transport.write(_LATE + b"Content-Type: text/plain\r\n")
            self.transport.write(b"Content-Length: %d\r\n\r\n%s" % (len(message), message))
            self.transport.close()
        else:
            self.transport.abort()


class _Framing(h11.Connection):
    """Refuses a request with two lengths: another program might choose the other of them."""

    fault = ""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                self.fault = "both Content-Length and Transfer-Encoding; expected one of them"
                raise h11.RemoteProtocolError(self.fault)
        return event


class Door(socket.socket):
    """A listening socket that takes no more connections than there are places.

    asyncio takes connections while there are any; without a free file it would write an error to
    the log each time, in an endless loop.
    """

    def __init__(self, listener: socket.socket, connections: Connections) -> None:
        super().__init__(fileno=listener.detach())
        self._connections = connections
        self._taken = 0
        self._spare: int | None = None
        self._keep_spare()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; BlockingIOError if there is none, or earlier ones must be read."""
        while self._taken < _AT_ONCE:
            self._taken += 1
            try:
                connection, address = super().accept()
            except OSError as error:
                self._taken = 0
                if error.errno not in _NO_FILE:
                    raise
                self._refuse_one()
                break
            if self._connections.make_room():
                return connection, address
            with contextlib.suppress(OSError):
                connection.setblocking(False)
                connection.send(_BUSY + b"Content-Length: 0\r\n\r\n")
                # Closed with something unread, the connection would lose this answer.
                connection.recv(_LARGEST)
            connection.close()
        self._taken = 0
        raise BlockingIOError(errno.EAGAIN, "others are to be read first")

    def close(self) -> None:
        """Closes the socket."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        super().close()

    def _refuse_one(self) -> None:
        """Takes a connection by means of the spare file, and closes it."""
        self._connections.drop_oldest()
        if self._spare is None:
            # Nothing can be done until a file is free; the others are answered meanwhile.
            time.sleep(0.001)
        else:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                super().accept()[0].close()
        self._keep_spare()

    def _keep_spare(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)


def raise_file_limit() -> None:
    """Lets the process open as many files as it may."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _room_for_files() -> int:
    """Connections that the limit of open files leaves room for."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    except (ImportError, OSError):
        return _MOST
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return max(min(_MOST, limit - opened - _RESERVED), _FEWEST)
