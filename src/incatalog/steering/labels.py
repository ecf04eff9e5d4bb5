"""What a filter is called where a person sees it."""

from __future__ import annotations

import re

from incatalog.data.where import Condition
from incatalog.steering.bounds import MeasuredFields


def label(condition: Condition, measured: MeasuredFields) -> str:
    """A condition in words: "Horror", "not Horror", "price up to 20", "from 1990"."""
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    field, op = condition.field, condition.op
    name = re.sub(r"[\W_]+", " ", field).strip()
    if isinstance(values[0], bool):
        return name if (op == "eq") == values[0] else f"not {name}"
    told = " or ".join(str(one) for one in values)
    if field == measured.year:
        words = {"eq": "", "gte": "from ", "lte": "until ", "gt": "after ", "lt": "before "}
        return f"{words.get(op, '')}{told}"
    if op == "gt" and values == (0,):
        return f"in {name}" if name == "stock" else f"has {name}"
    if op in ("lt", "lte", "gt", "gte"):
        words = {"lte": "up to", "gte": "from", "lt": "below", "gt": "above"}
        return f"{name} {words[op]} {told}"
    negative = "not " if op in ("ne", "not_in") else ""
    return f"{negative}{told}"
