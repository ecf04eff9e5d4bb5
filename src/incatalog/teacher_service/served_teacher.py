"""What all clients of a teacher elsewhere share: connections, repeated tries, ids and rows."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError, require
from incatalog.teacher.row_lists import MaybeRowLists, ragged

if TYPE_CHECKING:
    import httpx

_KEEP_ALIVE = 30.0  # less than the time after which the server closes an idle connection
_LONGEST_WAIT = 30.0
_JSON = {"Content-Type": "application/json"}
# What passes by itself: a timeout, a full queue, a server that restarts behind a proxy.
_PASSING = {408, 429, 502, 503, 504}
_SHOWN = 80


class Sender:
    """Sends requests to one address, again while they fail for a moment.

    They are sent up to ``tries`` times, after waits that double from ``backoff`` seconds or as long
    as ``Retry-After`` says. A forked process opens its own connections.
    """

    def __init__(
        self, url: str, *, timeout: float = 60.0, tries: int = 6, backoff: float = 0.25
    ) -> None:
        require("httpx", extra="serve")
        self.url = url.rstrip("/")
        self._timeout, self._tries, self._backoff = timeout, max(1, tries), backoff
        self._clients: dict[int, httpx.Client] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the connections, which belong to their process."""
        return self.__dict__ | {"_clients": {}}

    def close(self) -> None:
        """Closes the connections of this process; a later request opens new ones."""
        if client := self._clients.pop(os.getpid(), None):
            client.close()

    def send(
        self, method: str, path: str, content: bytes | None = None, *, also: Collection[int] = ()
    ) -> httpx.Response:
        """The answer to one request: one with status 200, or a status that is expected ``also``.

        Raises:
            TeacherError: The address is none, nobody answers there, or the answer is a refusal.
        """
        import httpx

        url, wait, said = f"{self.url}/{path}", self._backoff, ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            try:
                response = self._client().request(method, url, content=content, headers=_JSON)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise TeacherError(f"{url}: not an address ({error})") from error
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
                continue
            if response.status_code == 200 or response.status_code in also:
                return response
            said = f"{response.status_code} {_refusal(response)}"
            if response.status_code not in _PASSING:
                raise TeacherError(f"{url}: {said}")
            wait = max(wait, _retry_after(response))
        then = "is `incatalog teacher serve` running there?"
        raise TeacherError(f"{url}: no answer after {self._tries} tries ({said}); {then}")

    def _client(self) -> httpx.Client:
        """The connections of this process; a forked one must not use those of its parent."""
        import httpx

        client = self._clients.get(os.getpid())
        if client is None:
            limits = httpx.Limits(keepalive_expiry=_KEEP_ALIVE)
            # A proxy from the environment would rarely find a service in the same network.
            client = httpx.Client(timeout=self._timeout, trust_env=False, limits=limits)
            self._clients[os.getpid()] = client
        return client


class ServedTeacher:
    """A teacher that answers elsewhere; what its clients have in common."""

    kind: str
    """What kind of teacher answers, as summaries of evaluations name it."""
    fingerprint: str
    """Tells this teacher from others."""
    described: str
    """Who was found at the address, in words."""

    def __init__(self, sender: Sender, catalog: Catalog) -> None:
        self.url, self._sender, self._catalog = sender.url, sender, catalog
        self._ids = [item.item_id for item in catalog.items]
        self._row_of = {item_id: row for row, item_id in enumerate(self._ids)}

    @property
    def num_items(self) -> int:
        """Items of the catalog."""
        return len(self._catalog)

    def close(self) -> None:
        """Closes the connections of this process; a later question opens new ones."""
        self._sender.close()

    def _written(
        self, name: str, lists: MaybeRowLists, batch: int, *, may_be_empty: bool = True
    ) -> list[list[str] | None]:
        """Row lists as lists of ids, once they are checked."""
        needed = "" if may_be_empty else self.url
        rows, ids = ragged(name, lists, batch, self.num_items, needed_by=needed), self._ids
        return [
            None if given is None else [ids[row] for row in rows.at(index).tolist()]
            for index, given in enumerate(lists)
        ]

    def _rows(self, items: Sequence[str], k: int) -> list[int]:
        """The rows of answered items, of which there may be `k`."""
        if len(items) > k:
            raise TeacherError(f"{self.url}: asked for {k} items, answered with {len(items)}")
        try:
            return [self._row_of[item] for item in items]
        except (KeyError, TypeError) as error:
            why = f"which is not in the catalog {self._catalog.name!r}"
            raise TeacherError(f"{self.url}: answered with item {error}, {why}") from None


def field_of(response: httpx.Response, name: str, otherwise: Any = None) -> Any:
    """A field of an answer in JSON; `otherwise` where there is none."""
    try:
        return response.json()[name]
    except (ValueError, KeyError, TypeError):
        return otherwise


def shown(response: httpx.Response) -> str:
    """How the text of an answer begins."""
    return response.text[:_SHOWN]


def _refusal(response: httpx.Response) -> str:
    """What a refusal says, in one line."""
    said = field_of(response, "detail") or field_of(response, "message") or shown(response)
    return " ".join(str(said).split())


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say in seconds."""
    try:
        seconds = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return min(seconds, _LONGEST_WAIT) if math.isfinite(seconds) and seconds > 0 else 0.0
