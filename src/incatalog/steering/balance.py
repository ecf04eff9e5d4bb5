"""How much what is said counts: beside a teacher, and words beside vectors."""

from __future__ import annotations

from dataclasses import dataclass

from incatalog.errors import ConfigError


@dataclass(frozen=True)
class Balance:
    """What likeness of a wish and an item is multiplied by.

    Attributes:
        strength: What a likeness of 1 adds to an item's log-weight.
        words: The part of likeness by words, from 0 to 1; the rest is that of vectors.

    Raises:
        ConfigError: A value is out of range.
    """

    strength: float = 20.0
    words: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.words <= 1:
            raise ConfigError(f"steering words: found {self.words}; expected 0 to 1")
        if not 0 <= self.strength <= 1000:
            raise ConfigError(f"steering strength: found {self.strength}; expected 0 to 1000")
