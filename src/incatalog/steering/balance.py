"""How much what is said counts: beside a teacher, and words beside vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from incatalog.artifacts import read_json, write_json
from incatalog.errors import ArtifactError, ConfigError, DataError

STEERING_FILE = "steering.json"
WORDS = "words"
_AGAIN = "restore it, or run `incatalog steering fit` again"


@dataclass(frozen=True)
class Balance:
    """What likeness of a wish and an item is multiplied by.

    Attributes:
        strength: What a likeness of 1 adds to an item's log-weight.
        words: The part of likeness by words, from 0 to 1; the rest is that of vectors.
        kinds: What the logarithm of how much a category is meant is multiplied by.

    Raises:
        ConfigError: A value is out of range.
    """

    strength: float = 5.0
    words: float = 0.2
    kinds: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.words <= 1:
            raise ConfigError(f"steering words: found {self.words}; expected 0 to 1")
        if not 0 <= self.strength <= 1000:
            raise ConfigError(f"steering strength: found {self.strength}; expected 0 to 1000")
        if not 0 <= self.kinds <= 100:
            raise ConfigError(f"steering kinds: found {self.kinds}; expected 0 to 100")

    @classmethod
    def usual(cls, encoder: str) -> Self:
        """What was measured well without fitting; see docs/steering.md."""
        return cls(10.0, 1.0, 0.0) if encoder == WORDS else cls()

    @classmethod
    def beside(cls, teacher: Path | None, encoder: str) -> Self:
        """What was fitted for a teacher and an encoder, and lies in its run folder; or the usual.

        Raises:
            ArtifactError: The file is damaged.
        """
        path = None if teacher is None else teacher / STEERING_FILE
        if path is None or not path.exists():
            return cls.usual(encoder)
        try:
            found = read_json(path)
            own = found["encoders"].get(_name(encoder))
            if own is None:
                return cls.usual(encoder)
            return cls(own["strength"], own["words"], own["kinds"])
        except (DataError, ConfigError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: is damaged ({error}); {_AGAIN}") from error

    def save(self, teacher: Path, encoder: str, fitted: Mapping[str, Any]) -> None:
        """Writes it into the run folder of a teacher, beside what was fitted for other encoders."""
        path = teacher / STEERING_FILE
        try:
            known = dict(read_json(path)["encoders"]) if path.exists() else {}
        except (DataError, KeyError, TypeError, ValueError):
            known = {}
        known[_name(encoder)] = {**asdict(self), "fitted": dict(fitted)}
        write_json(path, {"encoders": known})


def _name(encoder: str) -> str:
    """The encoder without where it lies, so that folders can be moved."""
    return Path(encoder).name
