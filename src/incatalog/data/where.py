"""Conditions on the fields of items: which of a catalog an answer may be about."""

from __future__ import annotations

import csv
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool

from incatalog.data.attributes import Value, value_problem
from incatalog.data.catalog import Catalog
from incatalog.data.columns import Column, is_date
from incatalog.data.fields import shown
from incatalog.data.word_forms import has_words
from incatalog.errors import ConfigError

Op = Literal["eq", "ne", "in", "not_in", "lt", "lte", "gt", "gte", "contains", "words"]
OPS: tuple[str, ...] = get_args(Op)
Mask = Bool[np.ndarray, " items"]

# Requests bring conditions, so their number has a limit.
MOST_CONDITIONS, MOST_VALUES, _LONGEST_VALUE = 64, 1000, 2000
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
# Longer signs first: `<` is the beginning of `<=`.
_SIGNS = {"<=": "lte", ">=": "gte", "!=": "ne", "==": "eq", "<": "lt", ">": "gt"}
_SIGNS |= {"=": "eq", "~~": "words", "~": "contains"}
_FLAG = re.compile(r"(?s)([^<>=!~]+)(<=|>=|!=|==|~~|<|>|=|~)(.*)")
# What takes several values.
_LISTS = ("in", "not_in", "words")
_TRUTHS = {"true": True, "false": False}


_Order = tuple[bool, float, str]


def _order(value: Value) -> _Order:
    """Sorts numbers before texts; 1, 1.0 and true are the same."""
    if isinstance(value, str | tuple):
        return True, 0.0, str(value)
    return False, float(value), ""


@dataclass(frozen=True)
class Condition:
    """What the value of one field has to be.

    A number given as text is that number where items have numbers, a number is its text where they
    have texts, true and false are 1 and 0, and capitals do not count, except in ids. Of an item
    with a list, one entry has to be it. ``contains`` looks for a part of a text, ``words`` for all
    words of a text, each in the singular or plural and at any place. ``lt`` and the like order
    numbers, and dates as far as they are written out: 2020 stands for the whole year.

    An item that lacks the field fulfils ``ne`` and ``not_in`` only.

    Attributes:
        field: Name of an attribute, or ``category``, ``title`` or ``id``.
        op: How it is compared.
        value: What with; several for ``in`` and ``not_in``, and perhaps for ``words``, of which one
            has to be it.
    """

    field: str
    op: Op
    value: Value | tuple[Value, ...]

    def rank(self) -> tuple[str, str, list[_Order]]:
        """Its place among others."""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return self.field, self.op, list(map(_order, values))

    def rows(self, catalog: Catalog, place: str = "where") -> Mask:
        """Which items fulfil it, by row; see :meth:`Where.rows`."""
        column = catalog.attribute(self.field)
        if self.op in _ORDERS:
            return self._ordered(column, f"{place}: {self.field}: {self.op}", catalog.name)
        if self.op == "contains":
            part = column.key(str(self.value))
            return column.with_texts(lambda text: part in text)
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        found = np.zeros(len(column.numbers), dtype=np.bool_)
        if self.op == "words":
            for value in values:
                found |= column.with_texts(has_words(column.key(_text(value))))
            return found
        for value in values:
            found |= column.with_text(_text(value))
            number = _number(value)
            if number is not None:
                found |= column.numbers == number
        return ~found if self.op in ("ne", "not_in") else found

    def _ordered(self, column: Column, place: str, name: str) -> Mask:
        compare = _ORDERS[self.op]
        assert not isinstance(self.value, tuple)
        number, date = _number(self.value), _text(self.value).upper().replace(" ", "T")
        dated = is_date(date)
        if not (column.has_numbers and number is not None) and not (column.dates and dated):
            has = "numbers" if column.has_numbers else "dates" if column.dates else "texts"
            hint = {
                "numbers": "compare it with a number",
                "dates": "compare it with a date such as 2026-01-31",
                "texts": "use eq, ne, in, not_in, contains or words",
            }[has]
            found = f"found {shown(self.value)}, and items of {name} have {has} there"
            raise ConfigError(f"{place}: {found}; {hint}")
        rows = np.zeros(len(column.numbers), dtype=np.bool_)
        if number is not None:
            # Where there is no number, no comparison holds.
            rows |= compare(column.numbers, number)
        if dated and column.dates:
            rows |= column.with_dates(lambda other: bool(compare(other[: len(date)], date)))
        return rows


@dataclass(frozen=True)
class Where:
    """Conditions that must all hold, in an order that does not depend on how they were given."""

    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        ordered = sorted(dict.fromkeys(self.conditions), key=Condition.rank)
        object.__setattr__(self, "conditions", tuple(ordered))

    def __bool__(self) -> bool:
        """Whether there is a condition at all."""
        return bool(self.conditions)

    @classmethod
    def parse(cls, given: Any, place: str = "where") -> Where:
        """Conditions as a mapping from fields to what they have to be.

        A value is that value, a list one of them, a mapping ``{op: value}``:
        ``{"price": {"lte": 20}, "brand": ["A", "B"], "in_stock": True}``.

        Args:
            given: The mapping.
            place: What messages call it.

        Raises:
            ConfigError: Something of it is no condition; names the field.
        """
        if not isinstance(given, Mapping):
            expected = 'an object such as {"price": {"lte": 20}}'
            raise ConfigError(f"{place}: found {shown(given)}; expected {expected}")
        found: list[Condition] = []
        for field, value in given.items():
            if not isinstance(field, str) or not field:
                raise ConfigError(f"{place}: found the field {field!r}; expected a name")
            own = f"{place}: {field[:80]}"
            if isinstance(value, Mapping):
                if not value:
                    expected = f"expected some of {', '.join(OPS)}"
                    raise ConfigError(f"{own}: found no condition; {expected}")
                found += [_condition(field, str(op), one, own) for op, one in value.items()]
            elif isinstance(value, list | tuple):
                found.append(_condition(field, "in", value, own))
            else:
                found.append(_condition(field, "eq", value, own))
            if len(found) > MOST_CONDITIONS:
                raise ConfigError(f"{place}: expected {MOST_CONDITIONS} conditions at most")
        return cls(tuple(found))

    @classmethod
    def from_flags(cls, given: Sequence[str], place: str = "--where") -> Where:
        """Conditions as flags give them.

        ``price<=20`` (also ``<``, ``>``, ``>=``), ``brand=A,B`` (one of them), ``brand!=A``,
        ``title~part`` (contains), ``title~~gel pens`` (has these words), ``in_stock`` (is true). A
        value with a comma in it stands in double quotes.

        Raises:
            ConfigError: One of them is no condition.
        """
        found = []
        for text in given:
            match = _FLAG.fullmatch(text)
            field, sign, rest = (text, "=", "true") if match is None else match.groups()
            field, op = field.strip(), _SIGNS[sign]
            if not field or not rest.strip() or (match is None and re.search(r"[<>=!~]", text)):
                expected = "expected one such as 'price<=20', 'brand=A,B' or 'in_stock'"
                raise ConfigError(f"{place} {text!r}: no condition; {expected}")
            own = f"{place}: {field[:80]}"
            values: Any = rest.strip()
            if op in ("eq", "ne", "words"):
                parts = _parts(values, own)
                op = {"eq": "in", "ne": "not_in"}.get(op, op) if len(parts) > 1 else op
                values = parts if len(parts) > 1 else parts[0]
            found.append(_condition(field, op, values if op == "words" else _typed(values), own))
        return cls(tuple(found))

    def joined(self, other: Where) -> Where:
        """All conditions of both."""
        return Where((*self.conditions, *other.conditions))

    def rows(self, catalog: Catalog, place: str = "where") -> Mask:
        """Which items of a catalog fulfil all conditions, by row.

        Raises:
            CatalogError: No item has such a field; names near ones.
            ConfigError: An order is asked of texts, or numbers and dates are compared.
        """
        found = np.full(len(catalog), True)
        found[list(catalog.vacant)] = False
        for condition in self.conditions:
            catalog.check_field(condition.field, place)
        for condition in self.conditions:
            found &= condition.rows(catalog, place)
        return found

    def as_mapping(self) -> dict[str, dict[str, Any]]:
        """The conditions as :meth:`parse` reads them."""
        found: dict[str, dict[str, Any]] = {}
        for one in self.conditions:
            value = list(one.value) if isinstance(one.value, tuple) else one.value
            found.setdefault(one.field, {})[one.op] = value
        return found

    def __str__(self) -> str:
        """The conditions as one line."""
        return " and ".join(map(_told, self.conditions))


EVERYTHING = Where(())


def _told(condition: Condition) -> str:
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    signs = {op: sign for sign, op in _SIGNS.items()} | {"in": "=", "not_in": "!="}
    return f"{condition.field}{signs[condition.op]}{','.join(map(_text, values))}"


def _condition(field: str, op: str, value: Any, place: str) -> Condition:
    """One condition, checked, in the simplest form that means the same."""
    if op not in OPS:
        raise ConfigError(f"{place}: no condition {op[:80]!r}; expected one of {', '.join(OPS)}")
    if op not in _LISTS or (op == "words" and not isinstance(value, list | tuple)):
        return Condition(field, op, _checked(value, place, op))  # type: ignore[arg-type]
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{place}: {op}: found {shown(value)}; expected a list of values")
    if len(value) > MOST_VALUES:
        many = f"found {len(value)} values; expected {MOST_VALUES} at most"
        raise ConfigError(f"{place}: {op}: {many}")
    kept = sorted({_checked(one, place, op) for one in value}, key=_order)
    if len(kept) == 1:
        op, kept_value = {"in": "eq", "not_in": "ne"}.get(op, op), kept[0]
        return Condition(field, op, kept_value)  # type: ignore[arg-type]
    return Condition(field, op, tuple(kept))  # type: ignore[arg-type]


def _checked(value: Any, place: str, op: str) -> Value:
    if isinstance(value, tuple | list) or (problem := value_problem(value)):
        problem = "expected true or false, a number or a text"
        raise ConfigError(f"{place}: found {shown(value)}; {problem}")
    if isinstance(value, str) and not 0 < len(value) <= _LONGEST_VALUE:
        expected = f"expected 1 to {_LONGEST_VALUE}"
        raise ConfigError(f"{place}: found a text of {len(value)} characters; {expected}")
    if op == "words" and not any(letter.isalnum() for letter in _text(value)):
        raise ConfigError(f"{place}: {op}: found {shown(value)}; expected a text with words")
    found: Value = value
    return found


def _parts(text: str, place: str) -> list[str]:
    try:
        [parts] = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        how = "a value that holds a comma stands in double quotes"
        raise ConfigError(f"{place}: found {text[:80]!r}; {how}") from error
    return [part.strip() for part in parts if part.strip()] or [text]


def _typed(values: str | Iterable[str]) -> Any:
    """The values that texts of a command line mean."""
    if not isinstance(values, str):
        return [_typed(value) for value in values]
    if values.lower() in _TRUTHS:
        return _TRUTHS[values.lower()]
    for kind in (int, float):
        # What a number would be written otherwise, such as 0012, may be a text.
        try:
            number = kind(values)
        except ValueError:
            continue
        if str(number) == values and not value_problem(number):
            return number
    return values


def _number(value: Value | tuple[Value, ...]) -> float | None:
    """The number that a value is or spells."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def _text(value: Value | tuple[Value, ...]) -> str:
    """A value as an item's text would have it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
