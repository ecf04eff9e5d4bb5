"""Who answers in a terminal: a model in this process, or a service elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from incatalog.data.where import EVERYTHING, Where


@dataclass(frozen=True)
class ShownItem:
    """An item in an answer, as a terminal shows it."""

    item_id: str
    title: str
    score: float
    reason: str | None = None  # why it fits, in words
    facts: tuple[tuple[str, str], ...] = ()  # what is known of it: label and value


Piece = str | ShownItem
"""A part of an answer: text, or an item in place of its title."""


@dataclass(frozen=True)
class SpokenTurn:
    """What was said by one side."""

    role: Literal["user", "assistant"]
    pieces: tuple[Piece, ...]

    @property
    def items(self) -> tuple[ShownItem, ...]:
        """The items it names, in order."""
        return tuple(piece for piece in self.pieces if isinstance(piece, ShownItem))

    @property
    def text(self) -> str:
        """The turn with titles in place of items."""
        return "".join(piece if isinstance(piece, str) else piece.title for piece in self.pieces)


@dataclass(frozen=True)
class Continued:
    """A conversation to be continued, and what its items have to be."""

    turns: tuple[SpokenTurn, ...]
    domain: str | None  # None for a conversation without items
    history: tuple[str, ...] = ()  # ids, oldest first
    where: Where = EVERYTHING


@dataclass(frozen=True)
class Found:
    """An item that a name may have meant."""

    item_id: str
    title: str
    likeness: float  # from 0 to 100; 100 for an id, or a title as it stands


class Talker(Protocol):
    """Answers conversations about some catalogs."""

    @property
    def described(self) -> str:
        """What answers, in a line."""

    @property
    def domains(self) -> Sequence[str]:
        """Names of the catalogs; the first is the one to begin with."""

    def stream(self, asked: Continued) -> Iterator[Piece]:
        """The answer, in pieces; closed, it is given up."""

    def find(self, domain: str, name: str) -> list[Found]:
        """Items that a name may have meant, best first."""

    def check(self, domain: str, where: Where) -> None:
        """Refuses conditions that no item of a catalog fulfils, as an IncatalogError."""
