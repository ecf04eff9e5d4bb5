"""Limits that are said: "under 20 euros", "from the nineties", "in stock"; as conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from incatalog.data.catalog import Catalog, Item
from incatalog.data.columns import is_date
from incatalog.data.where import Condition, Op
from incatalog.data.word_forms import stem
from incatalog.steering.numbers_said import DECADES, MONEY, NUMBER, decade, is_year, number

PRICE = ("price", "cost", "amount", "preis", "prix")
YEAR = ("year", "release year", "released", "release date", "published", "publication date",
         "publication year", "date", "premiere")  # fmt: skip
IN_STOCK = ("in stock", "instock", "available", "availability", "is available")
STOCK = ("stock", "quantity", "inventory", "stock quantity", "on hand", "stock level")
# What a unit behind a number is a measure of.
_MEASURES = {
    "minute": ("minute", "runtime", "duration", "length"), "min": ("runtime", "duration"),
    "hour": ("hour",), "star": ("star", "rating"), "page": ("page", "page count"),
    "player": ("player",),
}  # fmt: skip

# Before a number these say what it is of, as units do behind it.
_MEASURED = frozenset(("rating", "rated", "score", "runtime", "duration", "page", "player", "year"))

_N = NUMBER
_UNIT = rf"(?:\s*(?P<unit>{MONEY}|[a-z]+))?"
_MOST = (
    r"(?:no|not) more than|at most|up to|under|below|less than|fewer than|cheaper than|lower than|"
    r"max(?:imum)?(?: of| price)?|within|not over|not above|a budget of|budget of|budget is|"
    r"shorter than|<=?"
)
_LEAST = (
    r"no less than|not under|not below|at least|over|above|more than|min(?:imum)?(?: of)?|"
    r"starting (?:at|from)|higher than|better than|longer than|>=?"
)
_RANGE = re.compile(
    rf"\b(?:between|from)\s+(?P<low>{_N})\s*(?:{MONEY})?\s*(?:and|to|until|till|-|–)\s*"
    rf"(?P<high>{_N}){_UNIT}"
)
_DASH = re.compile(rf"(?<![\w-])(?P<low>{_N})\s*[-–]\s*(?P<high>{_N}){_UNIT}")
_AT_MOST = re.compile(rf"(?<!\w)(?:{_MOST})\s*(?P<high>{_N}){_UNIT}")
_AT_LEAST = re.compile(rf"(?<!\w)(?:{_LEAST})\s*(?P<low>{_N}){_UNIT}")
_OR_LESS = re.compile(
    rf"(?P<high>{_N})\s*(?P<unit>{MONEY}|[a-z]+)?\s+"
    r"(?:or (?:less|cheaper|under|below|fewer)|max(?:imum)?|tops|at most)\b"
)
_OR_MORE = re.compile(
    rf"(?P<low>{_N})\s*(?P<unit>{MONEY}|[a-z]+)?\s+"
    r"(?:or (?:more|above|higher|better|over)|and (?:up|above|over)|minimum|at least)\b"
)
_ABOUT = re.compile(rf"\b(?:around|about|roughly|approximately)\s+(?P<at>{_N})\s*(?P<unit>{MONEY})")
_YEARS = r"(?:18|19|20)\d\d"
_YEAR_RANGE = re.compile(
    rf"\b(?:(?:made|released|published)\s+)?(?:(?:between|from)\s+)?(?P<low>{_YEARS})\s*"
    rf"(?:and|to|until|till|through|-|–)\s*(?P<high>{_YEARS})\b"
)
_AFTER = re.compile(
    rf"\b(?:after|newer than|later than|younger than|more recent than)\s+(?P<year>{_YEARS})\b"
)
_SINCE = re.compile(rf"\b(?:since|not before|from)\s+(?P<year>{_YEARS})(?P<on>\s+on(?:wards?)?)?\b")
_BEFORE = re.compile(rf"\b(?:before|older than|earlier than|pre[- ])\s*(?P<year>{_YEARS})\b")
_UNTIL = re.compile(rf"\b(?:until|till|up to|not after|no later than)\s+(?P<year>{_YEARS})\b")
_IN_YEAR = re.compile(rf"\b(?:in|of|from the year|the year|made in)\s+(?P<year>{_YEARS})\b")
_DECADE = re.compile(
    r"\b(?:(?:in|from|of|the|during)\s+)*(?:(?P<part>early|mid|late)[- ]+)?"
    rf"(?P<decade>{'|'.join(DECADES)}|(?:(?:19|20)?\d0)['’]?s)\b"
)
_PARTS = {"early": (0, 3), "mid": (4, 6), "late": (7, 9), None: (0, 9)}
_AVAILABLE = re.compile(
    r"\b(?:(?:that (?:is|are) |only )?(?:in|on) stock|available(?: now| today| immediately)?|"
    r"ready to ship|(?:(?:that )?i can|can be) (?:buy|order|bought|ordered) (?:now|today))\b"
)


@dataclass(frozen=True)
class Said:
    """A condition, and where a text says it."""

    condition: Condition
    start: int
    end: int


@dataclass(frozen=True)
class MeasuredFields:
    """Fields of a catalog that hold numbers, dates and truths."""

    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()
    price: str | None = None
    year: str | None = None
    dated: bool = False  # whether the years stand in dates

    @classmethod
    def of(cls, catalog: Catalog) -> MeasuredFields:
        """Looks at what the items' attributes hold."""
        return cls().with_items(catalog.live_items)

    def with_items(self, items: Iterable[Item]) -> MeasuredFields:
        """The same with the attributes of further items."""
        found: dict[str, set[str]] = {name: set(kinds) for name, kinds in self.kinds.items()}
        for item in items:
            for name, value in item.attributes.items():
                found.setdefault(name, set()).add(_kind(value))
        kinds = {name: frozenset(own) for name, own in found.items()}
        if kinds == self.kinds:
            return self
        truths = tuple(name for name, own in kinds.items() if own == {"truth"})
        numbers = tuple(name for name, own in kinds.items() if "number" in own)
        dates = tuple(name for name, own in kinds.items() if own == {"date"})
        year = called(YEAR, numbers) or called(YEAR, dates)
        price = called(PRICE, numbers)
        return MeasuredFields(kinds, numbers, truths, price, year, year in dates)

    def read(self, text: str) -> list[Said]:
        """The limits that a text in lower case says of these fields."""
        found: list[Said] = []
        taken = bytearray(len(text))
        for said in (*self._years(text), *self._numbers(text), *self._truths(text)):
            start, end = said[0].start, said[0].end
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                found += said
        return found

    def _years(self, text: str) -> Iterator[list[Said]]:
        if self.year is None:
            return
        decades = list(_DECADE.finditer(text))
        years = [(match, decade(match["decade"])) for match in decades]
        known = [(match, first) for match, first in years if first is not None]
        if known:
            # Two decades are the time from one to the other.
            first = min(year + _PARTS[match["part"]][0] for match, year in known)
            last = max(year + _PARTS[match["part"]][1] for match, year in known)
            start, end = known[0][0].start(), known[-1][0].end()
            yield self._dates(start, end, gte=first, lte=last)
        for match in _YEAR_RANGE.finditer(text):
            low, high = sorted((int(match["low"]), int(match["high"])))
            yield self._dates(*match.span(), gte=low, lte=high)
        for match in _AFTER.finditer(text):
            yield self._dates(*match.span(), gte=int(match["year"]) + 1)
        for match in _BEFORE.finditer(text):
            yield self._dates(*match.span(), lte=int(match["year"]) - 1)
        for match in _UNTIL.finditer(text):
            yield self._dates(*match.span(), lte=int(match["year"]))
        for match in _SINCE.finditer(text):
            year = int(match["year"])
            one = match[0].startswith("from") and not match["on"]
            yield self._dates(*match.span(), gte=year, **({"lte": year} if one else {}))
        for match in _IN_YEAR.finditer(text):
            year = int(match["year"])
            yield self._dates(*match.span(), gte=year, lte=year)

    def _dates(self, start: int, end: int, **years: int) -> list[Said]:
        assert self.year is not None
        ops: dict[str, Op] = {"gte": "gte", "lte": "lte"}
        if not self.dated and years.get("gte") == years.get("lte"):
            ops, years = {"eq": "eq"}, {"eq": years["gte"]}
        value = {name: str(year) if self.dated else year for name, year in years.items()}
        return [Said(Condition(self.year, ops[op], value[op]), start, end) for op in years]

    def _numbers(self, text: str) -> Iterator[list[Said]]:
        for pattern in (_RANGE, _AT_MOST, _AT_LEAST, _OR_LESS, _OR_MORE, _DASH):
            for match in pattern.finditer(text):
                parts = match.groupdict()
                name, end = self._field(match, bare=pattern is not _DASH)
                if name is None:
                    continue
                made: list[Said] = []
                values = {op: number(parts[end_of]) for op, end_of in _ENDS if parts.get(end_of)}
                if len(values) == 2 and values["gte"] > values["lte"]:
                    values = {"gte": values["lte"], "lte": values["gte"]}
                for op, value in values.items():
                    condition = Condition(name, "gte" if op == "gte" else "lte", value)
                    made.append(Said(condition, match.start(), end))
                yield made
        for match in _ABOUT.finditer(text):
            if self.price is not None:
                value = number(match["at"])
                low, high = (_rounded(part * value) for part in (0.75, 1.25))
                yield [
                    Said(Condition(self.price, "gte", low), *match.span()),
                    Said(Condition(self.price, "lte", high), *match.span()),
                ]

    def _field(self, match: re.Match[str], *, bare: bool) -> tuple[str | None, int]:
        """The field a limit is about, by the unit behind it or the word before; and its end."""
        unit, end = match["unit"], match.end()
        if re.search(MONEY, match[0]):
            return self.price, end
        if unit is not None:
            if stem(unit) in _NO_MEASURE:
                return None, end
            named = (stem(unit), *_MEASURES.get(stem(unit), ()))
            if known := called(named, self.numbers):
                return known, end
            if stem(unit) in _MEASURES:
                # Minutes are no price, whatever the catalog knows.
                return None, end
            end = match.end("unit") - len(unit)
        before = match.string[: match.start()].split()[-3:]
        for word in reversed(before):
            if known := called((stem(word),), self.numbers):
                return known, end
            if stem(word) in _MEASURED:
                return None, end
        values = [number(match[name]) for name in ("low", "high") if match.groupdict().get(name)]
        if self.price is None or not bare or (self.year and all(map(is_year, values))):
            return None, end
        return self.price, end

    def _truths(self, text: str) -> Iterator[list[Said]]:
        for span in says_stock(text):
            if name := called(IN_STOCK, self.truths):
                yield [Said(Condition(name, "eq", True), *span)]
            elif name := called(STOCK, self.numbers):
                yield [Said(Condition(name, "gt", 0), *span)]
        for name in self.truths:
            for match in re.finditer(rf"\b{re.escape(_words(name))}\b", text):
                yield [Said(Condition(name, "eq", True), *match.span())]


def says_stock(text: str) -> list[tuple[int, int]]:
    """Where a text in lower case wants what can be had now."""
    return [match.span() for match in _AVAILABLE.finditer(text)]


def _rounded(value: float) -> int | float:
    cents = round(value, 2)
    return int(cents) if cents == int(cents) else cents


_ENDS = (("gte", "low"), ("lte", "high"))
# Numbers with these behind them measure people and time, and no item.
_NO_MEASURE = frozenset(
    ("year", "kid", "child", "person", "month", "week", "day", "time", "percent")
)


def _words(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def called(names: tuple[str, ...], fields: tuple[str, ...]) -> str | None:
    """The field of one of these names; first the one that is called so, then one with the word."""
    told = {one: _words(one) for one in fields}
    for name in names:
        for one, words in told.items():
            if stem(words) == name or words == name:
                return one
    for name in names:
        for one, words in told.items():
            if name in words.split() or name in map(stem, words.split()):
                return one
    return None


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "date" if isinstance(value, str) and is_date(value) else "text"
