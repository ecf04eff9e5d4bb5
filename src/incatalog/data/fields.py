"""What a field of a record may hold: text, an id, or nothing; errors name the record's place."""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from incatalog.errors import DataError

# A command line, a line of an item file or the path of an address cannot hold these.
_UNNAMEABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MOST_SHOWN = 60
# A factor beyond them is a mistake; zero would be an exclusion, which has a field of its own.
_LEAST_FACTOR, _MOST_FACTOR = 1e-9, 1e9
DAY_EXPECTED = "expected a day such as 2026-01-31"


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where a record stands; it reads the record's fields and makes the errors about them."""

    path: Path
    line: int = 0  # From 1; 0 if it is not known.
    part: str = ""  # In words, where in the file, if the line is not known.

    def error(self, message: str) -> DataError:
        """An error that begins with this place."""
        return DataError.at(self.path, f"{self.part}{message}", line=self.line or None)

    def text(self, name: str, value: Any, *, several: bool = False, numbers: bool = False) -> str:
        """The text of a field called ``name``; empty for a missing value.

        With ``several`` a list of texts is joined by spaces; with ``numbers`` a whole number is
        text too, as a table may have turned a title such as 1984 into one. Nothing else becomes
        text: how it would read is a guess.
        """
        if several and isinstance(value, list):
            return " ".join(filter(None, self.texts(name, value)))
        if is_missing(value):
            return ""
        if isinstance(value, str):
            return self.unicode(name, value)
        if numbers and type(value) is int:
            return str(value)
        expected = "text or a list of texts" if several else "text"
        raise self.error(f"{name} is {shown(value)}; expected {expected}")

    def texts(self, name: str, values: Iterable[Any], *, numbers: bool = False) -> list[str]:
        """The texts of a list; empty ones for its missing values."""
        return [self.text(f"an entry of {name}", value, numbers=numbers) for value in values]

    def factor(self, name: str, value: Any) -> float:
        """The factor in a field, more than 0; 1 for a missing value or an empty cell."""
        if is_missing(value) or value == "":
            return 1.0
        try:
            # A cell of a CSV file is text. True is no number.
            found = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if problem := factor_problem(found):
            raise self.error(f"{name} is {shown(value)}; {problem}")
        return found

    def day(self, name: str, value: Any) -> str | None:
        """The day in a field, as an ISO date; None for a missing value or an empty cell."""
        if is_missing(value) or value == "":
            return None
        text = value.isoformat() if isinstance(value, datetime.date) else value
        try:
            return datetime.date.fromisoformat(text[:10]).isoformat()
        except (TypeError, ValueError):
            raise self.error(f"{name} is {shown(value)}; {DAY_EXPECTED}") from None

    def id(self, name: str, value: Any) -> str:
        """The id in a field; refuses one that a command or an address could not name."""
        found = identifier(value)
        if found is None:
            raise self.error(f"{name} is {shown(value)}; expected an id")
        problem = id_problem(found)
        if problem:
            raise self.error(f"{name} is {shown(found)}; {problem}")
        return self.unicode(name, found)

    def unicode(self, name: str, text: str) -> str:
        """Text that can be written and tokenised; refuses half a surrogate pair."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{name} holds half a surrogate pair; expected Unicode text"
            raise self.error(message) from error
        return text


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, or NaN as data frames write it."""
    if isinstance(value, float | Decimal):
        return math.isnan(value)
    return value is None


def identifier(value: Any) -> str | None:
    """The id that ``value`` stands for; integers count, as another file may write them as text."""
    is_id = type(value) is int or (isinstance(value, str) and value != "")
    return str(value) if is_id else None


def id_problem(item_id: str) -> str:
    """What is wrong with an id, as the end of a message; empty if nothing is."""
    if not item_id:
        return "expected an id that is not empty"
    if _UNNAMEABLE.search(item_id):
        return "expected an id without line breaks and control characters"
    return ""


def factor_problem(value: float) -> str:
    """What is wrong with a factor, as the end of a message; empty if nothing is."""
    inside = _LEAST_FACTOR <= value <= _MOST_FACTOR
    return "" if inside else f"expected a number from {_LEAST_FACTOR:g} to {_MOST_FACTOR:g}"


def first_repeated(ids: Iterable[str]) -> str | None:
    """The first id that occurs a second time; None if all differ."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            return one
        seen.add(one)
    return None


def near_names(name: str, names: Iterable[str]) -> str:
    """What a mistyped name may have meant, as the end of a message; empty if nothing is alike."""
    near = difflib.get_close_matches(name, list(names), n=3)
    return f"; near: {', '.join(map(repr, near))}" if near else ""


def shown(value: Any) -> str:
    """A value as a message shows it; a long or nested one is shortened."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    text = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
    plain = isinstance(value, str | int | float | None)
    return text if plain else f"{text} ({type(value).__name__})"


def unknown(noun: str, name: object, known: Iterable[str]) -> str:
    """What to say of a name that nothing of a kind has."""
    if not isinstance(name, str):
        kind = type(name).__name__
        return f"no {noun} {name!r}, which is of type {kind}; expected a text: give {str(name)!r}"
    return f"no {noun} {name!r}{near_names(name, known)}"
