"""Attributes in the columns of a table, each of the kind that all cells of its column are of."""

from __future__ import annotations

import ast
import contextlib
import datetime
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from incatalog.data.attributes import NO_ATTRIBUTES, Attributes, Value, value_problem
from incatalog.data.columns import is_date
from incatalog.data.fields import is_missing
from incatalog.data.formats import SYMBOLS, is_currency

_TRUTHS = {"true": True, "false": False, "yes": True, "no": False}
# What stands in a cell of numbers where there is none.
_NONE = frozenset({"nan", "na", "n/a", "null", "none", "-", "--", "?"})
_POINT = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?(\d{1,3}([. ]\d{3})+|\d+)(,\d+)?")
# Article numbers and post codes begin with zeros, and amounts do not.
_PADDED = re.compile(r"[+-]?0\d")
_SIGNS = "|".join(map(re.escape, sorted(SYMBOLS, key=len, reverse=True)))
_MONEY = re.compile(
    rf"(?P<minus>-?)\s*(?P<before>{_SIGNS}|[A-Z]{{3}}(?=[\s\d]))?\s*(?P<amount>[+-]?\d[\d., ]*?)"
    rf"\s*(?P<behind>{_SIGNS}|[A-Z]{{3}})?"
)


@dataclass(frozen=True, eq=False)
class TypedColumn:
    """The values of one column, None where a cell is empty.

    Attributes:
        values: One for each row.
        kind: What they are, in words.
        currency: Of prices that the cells have with a sign or a code, its code; else empty.
    """

    values: Sequence[Value | None]
    kind: str
    currency: str = ""

    @property
    def empty(self) -> bool:
        """Whether no cell holds a value."""
        return all(value is None for value in self.values)


def typed_column(cells: Sequence[Any]) -> TypedColumn:
    """Finds out what a column holds.

    Texts of a column are numbers, prices, truth values (true and false, yes and no) or lists (as
    JSON or Python writes them) only if all of them are; a mixed column is one of texts, as it was
    written. Numbers may have a point or a comma before the decimals. Objects are left out.
    """
    plain = [_plain(cell) for cell in cells]
    known = [cell for cell in plain if cell is not None]
    kinds = {type(cell) for cell in known}
    if kinds <= {str}:
        return _of_texts(plain, known)
    if kinds == {bool}:
        return TypedColumn(plain, "yes or no")
    if kinds <= {int, float}:
        return TypedColumn(plain, "numbers")
    if tuple in kinds:
        lists = [cell if isinstance(cell, tuple | None) else (str(cell),) for cell in plain]
        return TypedColumn(lists, "lists")
    return _of_texts(*_both(None if cell is None else str(cell) for cell in plain))


def item_attributes(columns: dict[str, TypedColumn], total: int) -> list[Attributes]:
    """The attributes of each row."""
    if not columns:
        return [NO_ATTRIBUTES] * total
    names = tuple(columns)
    rows = zip(*(column.values for column in columns.values()), strict=True)
    return [
        Attributes({n: v for n, v in zip(names, row, strict=True) if v is not None}) for row in rows
    ]


def _both(cells: Iterable[str | None]) -> tuple[list[str | None], list[str]]:
    every = list(cells)
    return every, [cell for cell in every if cell is not None]


def _plain(cell: Any) -> Value | None:
    """A cell as an attribute may hold it; None for an empty one."""
    if isinstance(cell, str):
        return " ".join(cell.split()) or None
    if is_missing(cell) or isinstance(cell, dict):
        return None
    if isinstance(cell, Decimal):
        return float(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, list | tuple):
        simple = all(isinstance(one, str | int | float) or one is None for one in cell)
        texts = tuple(" ".join(str(one).split()) for one in cell if not is_missing(one))
        return (tuple(filter(None, texts)) or None) if simple else None
    return cell if not value_problem(cell) else None


def _of_texts(cells: Sequence[Any], known: Sequence[Any]) -> TypedColumn:
    different = dict.fromkeys(known)
    if not different:
        return TypedColumn(cells, "nothing")
    if all(cell.lower() in _TRUTHS for cell in different):
        return _converted(cells, lambda cell: _TRUTHS[cell.lower()], "yes or no")
    numeric = [cell for cell in different if cell.lower() not in _NONE]
    if numeric and (read := _number_reader(numeric)):
        number = {cell: read(cell) for cell in numeric}
        whole = all(value.is_integer() and "." not in c for c, value in number.items())
        as_kind: Callable[[float], Value] = int if whole else float
        return _converted(
            cells, lambda cell: as_kind(number[cell]) if cell in number else None, "numbers"
        )
    if numeric and (found := _prices(numeric)):
        amounts, currency = found
        return _converted(cells, amounts.get, f"prices in {currency}", currency)
    if all(cell[0] == "[" and cell[-1] == "]" for cell in different):
        lists = {cell: _listed(cell) for cell in different}
        if all(value is not None for value in lists.values()):
            return _converted(cells, lambda cell: lists[cell] or None, "lists")
    dates = all(is_date(cell) and "-" in cell for cell in different)
    return TypedColumn(cells, "dates" if dates else "texts")


def _converted(
    cells: Sequence[Any], convert: Callable[[str], Value | None], kind: str, currency: str = ""
) -> TypedColumn:
    values = [None if cell is None else convert(cell) for cell in cells]
    return TypedColumn(values, kind, currency)


def _number_reader(texts: Iterable[str]) -> Callable[[str], float] | None:
    """What reads all the texts as numbers; None if they are none, or are written in two ways."""
    texts = list(texts)
    if any(_PADDED.match(text) for text in texts):
        return None
    for form, thousands, decimals in ((_POINT, ",", "."), (_COMMA, ". ", ",")):
        if all(form.fullmatch(text) for text in texts):
            drop = str.maketrans(decimals, ".", thousands)
            # Beyond these a number is one of an article.
            if all(value_problem(float(text.translate(drop))) == "" for text in texts):
                return lambda text: float(text.translate(drop))
    return None


def _prices(texts: Iterable[str]) -> tuple[dict[str, float], str] | None:
    """The amounts of texts that are prices in one currency, and which that is."""
    amounts: dict[str, str] = {}
    codes: set[str] = set()
    for text in texts:
        found = _MONEY.fullmatch(text)
        if found is None:
            return None
        for sign in (found["before"], found["behind"]):
            if sign:
                codes.add(SYMBOLS.get(sign, sign))
        amounts[text] = f"{found['minus']}{found['amount']}"
    read = _number_reader(amounts.values())
    if read is None or len(codes) != 1 or not all(map(is_currency, codes)):
        return None
    return {text: read(amount) for text, amount in amounts.items()}, codes.pop()


def _listed(cell: str) -> tuple[str, ...] | None:
    """The list that a cell spells; None if it spells none."""
    value: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(cell)
    if value is None:
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = ast.literal_eval(cell)
    if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
        return None
    return tuple(filter(None, (" ".join(str(one).split()) for one in value)))
