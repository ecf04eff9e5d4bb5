"""What filters are called where a person sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from incatalog.data.where import Condition
from incatalog.steering.bounds import MeasuredFields
from incatalog.steering.wish import Filter

_LOW, _HIGH = ("gte", "gt"), ("lte", "lt")
_BOUNDS = {"lte": "up to", "gte": "from", "lt": "below", "gt": "above"}
_YEARS = {"eq": "", "gte": "from", "lte": "until", "gt": "after", "lt": "before"}


class Phrase(NamedTuple):
    """What one filter is called, or the two that are the ends of one range."""

    label: str
    filters: tuple[Filter, ...]


def labelled(condition: Condition, measured: MeasuredFields) -> Filter:
    """A condition with what people read: "Horror", "not Horror", "price up to 20", "from 1990"."""
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    field, op = condition.field, condition.op
    name = re.sub(r"[\W_]+", " ", field).strip()
    if isinstance(values[0], bool):
        return Filter.of(condition, name if (op == "eq") == values[0] else f"not {name}")
    told = " or ".join(str(one) for one in values)
    if field == measured.year and op == "not_in":
        return Filter.of(condition, f"not from {values[0]} to {values[-1]}")
    if field == measured.year:
        return Filter.of(condition, f"{_YEARS.get(op, '')} {told}".lstrip())
    if op == "gt" and values == (0,):
        return Filter.of(condition, f"in {name}" if name == "stock" else f"has {name}")
    if op in _BOUNDS:
        return Filter.of(condition, f"{name} {_BOUNDS[op]} {told}", name)
    negative = "not " if op in ("ne", "not_in") else ""
    return Filter.of(condition, f"{negative}{told}")


def phrases(filters: Sequence[Filter]) -> tuple[Phrase, ...]:
    """What all filters are called, both ends of a range by one name: "price between 10 and 20"."""
    found: list[Phrase] = []
    left = list(filters)
    while left:
        one = left.pop(0)
        other = next((two for two in left if _ends(one, two) or _ends(two, one)), None)
        if other is None:
            found.append(Phrase(one.label, (one,)))
            continue
        left.remove(other)
        low, high = (one, other) if _ends(one, other) else (other, one)
        found.append(Phrase(_range(low, high), (one, other)))
    return tuple(found)


def _ends(low: Filter, high: Filter) -> bool:
    """Whether two filters are the lower and the upper end of one range."""
    same = low.condition.field == high.condition.field
    return same and low.condition.op in _LOW and high.condition.op in _HIGH


def _range(low: Filter, high: Filter) -> str:
    first, last = low.condition.value, high.condition.value
    if (low.condition.op, high.condition.op) != ("gte", "lte"):
        return f"{low.label} and {high.label.removeprefix(high.name).strip()}"
    if first == last:
        return f"{high.name} {last}".lstrip()
    # A year has no name of its own in front.
    return f"{high.name} between {first} and {last}" if high.name else f"from {first} to {last}"
