"""What the assistant takes from whoever reads a conversation: the wish behind its last message.

:mod:`incatalog.steering` is such a reader; the assistant knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from incatalog.dialogue.render import Message
from incatalog.recommender.guide import LogWeights


class Chip(Protocol):
    """A filter that was understood, and that people can take off."""

    @property
    def id(self) -> str:
        """Stable text by which it is taken off, such as ``price<=20``."""

    @property
    def label(self) -> str:
        """What people are shown."""

    @property
    def condition(self) -> Any:
        """What an item has to fulfil: a field, a comparison and a value."""


class Understood(Protocol):
    """A wish."""

    @property
    def log_weights(self) -> LogWeights | None:
        """What is added to the guide's log-weights, by row; None for nothing."""

    @property
    def filters(self) -> Sequence[Chip]:
        """What every item has to fulfil."""

    @property
    def without(self) -> frozenset[int]:
        """Rows that are not wanted."""

    @property
    def about(self) -> Sequence[int]:
        """Rows of the items that the message points to."""

    @property
    def k(self) -> int | None:
        """How many items are asked for, where that is said."""

    @property
    def recommends(self) -> bool:
        """Whether the answer should name items."""

    @property
    def words(self) -> Sequence[str]:
        """The words by which the wish was understood."""


class WishReader(Protocol):
    """Reads conversations about one catalog."""

    def read(self, messages: Sequence[Message], *, off: Collection[str] = ()) -> Understood:
        """The wish behind the last message, without the filters that ``off`` names."""
