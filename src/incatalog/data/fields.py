"""What a field of a record may hold: text, an id, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from incatalog.data.documents import identifier
from incatalog.errors import DataError

# Neither a command line, a line of an item file nor a path of an address can name them.
_UNNAMEABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MOST_SHOWN = 60


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, or NaN as data frames write it."""
    if isinstance(value, float | Decimal):
        return math.isnan(value)
    return value is None


def text_field(
    path: Path,
    line: int,
    name: str,
    value: Any,
    *,
    several: bool = False,
    numbers: bool = False,
) -> str:
    """The text of a field; empty for a missing value.

    Nothing is turned into text: what it would read like is the writer's guess, not the data's.
    """
    if several and isinstance(value, list):
        return " ".join(filter(None, text_fields(path, line, name, value)))
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return unicode_text(path, line, name, value)
    if numbers and type(value) is int:
        return str(value)
    expected = "text or a list of texts" if several else "text"
    raise DataError.at(path, f"{name} is {shown(value)}; expected {expected}", line=line)


def text_fields(
    path: Path, line: int, name: str, values: Iterable[Any], *, numbers: bool = False
) -> list[str]:
    """The texts of a list; empty ones for its missing values. See :func:`text_field`."""
    name = f"an entry of {name}"
    return [text_field(path, line, name, value, numbers=numbers) for value in values]


def id_field(path: Path, line: int, name: str, value: Any) -> str:
    """The id in a field."""
    found = identifier(value)
    if found is None:
        raise DataError.at(path, f"{name} is {shown(value)}; expected an id", line=line)
    problem = id_problem(found)
    if problem:
        raise DataError.at(path, f"{name} is {shown(found)}; {problem}", line=line)
    return unicode_text(path, line, name, found)


def id_problem(item_id: str) -> str:
    """Why nothing could name an item of this id, as the end of a message; empty if all can."""
    if not item_id:
        return "expected an id that is not empty"
    if _UNNAMEABLE.search(item_id):
        return "expected an id without line breaks and control characters"
    return ""


def unicode_text(path: Path, line: int | None, name: str, text: str) -> str:
    """Text that can be written and tokenised."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{name} holds half a surrogate pair; expected Unicode text"
        raise DataError.at(path, message, line=line) from error
    return text


def shown(value: Any) -> str:
    """A value as a message shows it: what kind it is, where it would be long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    text = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
    return (
        text if isinstance(value, str | int | float | None) else f"{text} ({type(value).__name__})"
    )
