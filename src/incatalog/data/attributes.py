"""What a catalog knows of an item beside its title: a price, a brand, a year."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from incatalog.data.fields import FilePlace, is_missing, shown
from incatalog.errors import CatalogError

Value = bool | int | float | str | tuple[str, ...]
"""What an attribute holds; a date is the ISO text of it."""

# What an item has anyway: no attribute can be called that.
RESERVED = frozenset({"id", "title", "title_t", "description", "category", "boost", "boost_until"})
_MOST_INT = 1 << 63  # columns of numbers have 64 bits


class Attributes(Mapping[str, Value]):
    """The attributes of one item by their names; they never change."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"Attributes({self._values!r})"


NO_ATTRIBUTES = Attributes()


def read_attributes(
    place: FilePlace, item: str, fields: Mapping[str, Any], used: Collection[str]
) -> Attributes:
    """The attributes of an item: all fields of its record that nothing else uses.

    Missing values, objects and lists of anything but texts and numbers are passed over.

    Args:
        place: Where the record stands.
        item: What a message calls the item.
        fields: The record.
        used: Names of the fields that are used otherwise.

    Raises:
        DataError: A number is infinite, or a text holds half a surrogate pair.
    """
    found: dict[str, Value] = {}
    for name, value in fields.items():
        if name in used or name in RESERVED or not name:
            continue
        known = read_value(place, f"{name} of {item}", value)
        if known is not None:
            found[name] = known
    return Attributes(found) if found else NO_ATTRIBUTES


def read_value(place: FilePlace, name: str, value: Any) -> Value | None:
    """The value in a field; None for a missing one and for what no attribute can hold."""
    if isinstance(value, str):
        return place.unicode(name, value) if value.strip() else None
    if isinstance(value, list | tuple):
        if not all(isinstance(one, str | int | float) for one in value):
            return None
        texts = (str(one) for one in value if not is_missing(one))
        kept = tuple(place.unicode(name, text) for text in texts if text.strip())
        return kept or None
    if isinstance(value, bool) or not isinstance(value, int | float) or is_missing(value):
        return value if isinstance(value, bool) else None
    if math.isinf(value) or abs(value) >= _MOST_INT:
        raise place.error(f"{name} is {shown(value)}; expected a number below 2^63")
    return value


def checked_attributes(item_id: str, values: Mapping[str, Any]) -> Attributes:
    """Attributes as code gives them; a list is as good as a tuple.

    Raises:
        CatalogError: A name is that of another field of items, or a value is of no known kind.
    """
    found: dict[str, Value] = {}
    for name, given in values.items():
        value = tuple(given) if isinstance(given, list) else given
        problem = value_problem(value)
        if name in RESERVED or not name:
            taken = ", ".join(sorted(RESERVED))
            problem = f"expected a name that is not empty and none of {taken}"
        if problem:
            raise CatalogError(f"item {item_id!r}: attribute {name!r} is {shown(given)}; {problem}")
        found[name] = value
    return Attributes(found)


def value_problem(value: object) -> str:
    """What is wrong with a value of an attribute, as the end of a message; empty if nothing is."""
    if isinstance(value, tuple):
        wrong = not all(isinstance(one, str) for one in value)
        return "expected texts in the list" if wrong else ""
    if isinstance(value, bool | str):
        return ""
    if not isinstance(value, int | float):
        return "expected true or false, a number, a text or a list of texts"
    within = not math.isnan(value) and abs(value) < _MOST_INT
    return "" if within else "expected a finite number below 2^63"
