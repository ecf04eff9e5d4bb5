"""What the service needs of whoever answers its requests."""

from __future__ import annotations

from typing import Protocol

from incatalog.config import ItemDecode
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Request, Slot
from incatalog.serving.rankings import Ranker
from incatalog.serving.worker import Stream


class AnyWorker(Protocol):
    """Answers requests side by side; all methods are called on the event loop, but `close`."""

    @property
    def queued(self) -> int:
        """Requests that wait."""
        ...

    @property
    def active(self) -> int:
        """Answers that grow."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether a request would be accepted."""
        ...

    def start(self) -> None:
        """Begins to answer."""
        ...

    def close(self) -> None:
        """Accepts no more requests, and waits until the accepted ones are answered."""
        ...

    def item_decode(self, weights: ItemWeights | None) -> ItemDecode:
        """How items are written under these weights where a request does not say.

        Args:
            weights: What weighs the items of the answer.

        Returns:
            ``search`` wherever the engine can find the best of all items.
        """
        ...

    def submit(self, request: Request) -> Stream:
        """Lets a request join as soon as there is a place.

        Args:
            request: What is asked for.

        Returns:
            The events of the answer, as they come.

        Raises:
            QueueFullError: As many wait as may.
        """
        ...

    def cancel(self, stream: Stream) -> None:
        """Frees the place of an answer that no one reads any more, unless it has ended.

        Args:
            stream: What `submit` returned.
        """
        ...

    async def rank(self, ranker: Ranker, slot: Slot, k: int) -> RankedItems:
        """The best items of a place in a text.

        Args:
            ranker: Searches the items of one version of a catalog.
            slot: The place.
            k: How many.

        Returns:
            The items, best first.

        Raises:
            ConfigError: The engine cannot search here.
            QueueFullError: As many wait as may.
        """
        ...
