"""Which filters still hold after all turns of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from incatalog.steering.heard import Heard
from incatalog.steering.wish import Filter


def kept_filters(turns: Sequence[Heard]) -> Iterable[Filter]:
    """The filters that hold after all turns.

    A new limit of a field takes the place of the old one in that direction, and a new wish that of
    the kinds that were asked for and of limits beside single items; what is not wanted stays so
    until it is asked for.
    """
    kept: dict[str, Filter] = {}
    for turn in turns:
        named = {(one.condition.field, _direction(one)) for one in turn.filters}
        for filter_id, one in list(kept.items()):
            field, way = one.condition.field, _direction(one)
            replaced = (field, way) in named and way != "not"
            replaced |= way == "is" and any(own == field for own, other in named if other != "not")
            told_kind = way == "is" and not isinstance(one.condition.value, bool | int)
            passed = turn.anew and (told_kind or _beside_an_item(one))
            opposite = any(_opposite(one, new) for new in turn.filters)
            if replaced or passed or opposite:
                del kept[filter_id]
        kept.update((one.id, one) for one in turn.filters)
    return kept.values()


def _direction(one: Filter) -> str:
    op = one.condition.op
    if op in ("ne", "not_in"):
        return "not"
    return {"lt": "up to", "lte": "up to", "gt": "from", "gte": "from"}.get(op, "is")


def _beside_an_item(one: Filter) -> bool:
    """Whether it is a limit such as "older than Alien": others take the value itself in."""
    return one.condition.op in ("lt", "gt") and one.condition.value != 0


def _opposite(one: Filter, other: Filter) -> bool:
    """Whether two filters name one value, and one of them excludes it."""
    first, second = one.condition, other.condition
    if first.field != second.field or (_direction(one) == "not") == (_direction(other) == "not"):
        return False
    return bool(_values(one) & _values(other))


def _values(one: Filter) -> set[object]:
    value = one.condition.value
    return set(value) if isinstance(value, tuple) else {value}
