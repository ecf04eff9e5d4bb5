"""What a conversation wants of the items."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from incatalog.data.where import Condition, Where

LogWeights = Float64[np.ndarray, " items"]

_SIGNS = {"eq": "=", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_SIGNS |= {"contains": "~", "words": "~~"}


@dataclass(frozen=True)
class Filter:
    """A condition that was said, as a person can see it and take it off.

    Attributes:
        id: Stable text of the condition, such as ``price<=20`` or ``category=Horror``.
        condition: What the items have to fulfil.
        label: What people read.
        name: What the label calls the field of a limit; empty where it does not name it.
    """

    id: str
    condition: Condition
    label: str
    name: str = ""

    @classmethod
    def of(cls, condition: Condition, label: str, name: str = "") -> Filter:
        """Makes the id of a condition."""
        values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        sign = {"in": "=", "not_in": "!="}.get(condition.op) or _SIGNS[condition.op]
        told = ",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in values)
        return cls(f"{condition.field}{sign}{told}", condition, label, name)


@dataclass(frozen=True, eq=False)
class Wish:
    """What was said, as far as it is about items.

    Attributes:
        log_weights: What is added to the log-weight of each item row; None where nothing that was
            said makes one item fit better than another.
        filters: Conditions that all items of the answer fulfil.
        without: Rows that are not to be named again.
        about: Rows that the wanted items are to be like.
        k: How many items are asked for, if that was said.
        recommends: Whether an answer should name items.
        words: What was asked for, in words that say more than the filters.
        avoided: What is not wanted and no filter says.
        lacking: What the last message limits and no item of the catalog has, such as "prices".
        unmentioned: Names in the last message that no item has in its text.
    """

    log_weights: LogWeights | None = None
    filters: tuple[Filter, ...] = ()
    without: frozenset[int] = frozenset()
    about: tuple[int, ...] = ()
    k: int | None = None
    recommends: bool = False
    words: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    unmentioned: tuple[str, ...] = ()
    where: Where = field(init=False)

    def __post_init__(self) -> None:
        where = Where(tuple(one.condition for one in self.filters))
        object.__setattr__(self, "where", where)
