"""A thread that has the catalogs of a service follow what other services change."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping

from incatalog.errors import IncatalogError, StateError
from incatalog.serving.catalogs import Domain
from incatalog.serving.store import CatalogStore

_log = logging.getLogger(__name__)
_EVERY = 1.0  # seconds between two looks at a store that tells of nothing


class Follower:
    """Brings every domain to the newest version of the store, soon after another service made it.

    Where the store cannot be reached, the domains stay at the version they have, and the follower
    goes on trying.
    """

    def __init__(self, store: CatalogStore, domains: Mapping[str, Domain]) -> None:
        self._store, self._domains = store, dict(domains)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reached = time.monotonic()
        self._said = ""

    def start(self) -> None:
        """Begins; to be called on the event loop that answers."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; the event loop has to run still."""
        self._closing.set()
        self._thread.join()

    @property
    def silence(self) -> float:
        """Seconds since the newest versions of all services were known."""
        return time.monotonic() - self._reached

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._look()
                self._reached = time.monotonic()
                self._say("")
            except Exception as error:
                # Whatever it was: a service that followed no longer would not know.
                self._say(str(error) if isinstance(error, IncatalogError) else repr(error))
                self._closing.wait(_EVERY)
            self._store.wait(_EVERY)

    def _look(self) -> None:
        assert self._loop is not None
        heads = self._store.heads()
        for name, domain in self._domains.items():
            if (head := heads.get(name)) is None:
                raise StateError(f"{self._store.place}: has domain {name!r} no longer")
            if head.number != domain.version.number and not self._closing.is_set():
                asyncio.run_coroutine_threadsafe(domain.catch_up(), self._loop).result()

    def _say(self, what: str) -> None:
        """Logs what has changed: once, and not at every look."""
        if what != self._said:
            _log.warning("%s", what or f"{self._store.place}: reached again")
        self._said = what
