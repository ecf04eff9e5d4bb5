"""Guesses which column of two tables holds what: by names, and by what stands in them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from incatalog.data.category_cells import SHARED, category_separator, is_category
from incatalog.data.column_names import CERTAIN, LIKELY, NEVER, POSSIBLE, says
from incatalog.data.id_forms import OVERLOOKS, Agreement, agreement
from incatalog.data.settings import TableSettings
from incatalog.data.table_sample import SampleColumn, TableSample, sample_table
from incatalog.data.time_formats import TimeFormat, time_format

ORDERS, PRODUCTS = "orders", "products"
_ITEM_SETTINGS = ("title_column", "description_column", "category_column", "boost_column")
# Cells that are looked at to tell whether they are times.
_MOST_TIMES = 5_000
# Columns of ids are filled and do not repeat; a few cells may be otherwise.
_ALMOST_ALL = 0.98
# Fewer rows that name a known product are chance, unless both names are certain.
_MANY_ROWS, _SOME_ROWS = 0.5, 0.05
# How much a name counts beside the share of rows that agree.
_NAME_WEIGHT = 0.1
_CLEARLY = 0.1
# The name of ids of items in prepared data.
_PLAIN = "item_id"
# Numbers that are seconds or milliseconds from 2000 to 2036.
_SECONDS = (946_684_800, 2_085_978_496)
_NUMBER = re.compile(r"\s*[+-]?[0-9]*\.?[0-9]*\s*")
_LETTERS = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True)
class ColumnGuess:
    """What one setting should be."""

    setting: str
    what: str  # the role, for people
    table: str  # ORDERS or PRODUCTS
    column: str  # empty if there is none
    why: str
    sure: bool = True
    needed: bool = False
    choices: tuple[str, ...] = ()  # what else it could be, the likeliest first

    @property
    def flag(self) -> str:
        """The flag that says it."""
        return "--" + self.setting.replace("_", "-")


@dataclass(frozen=True)
class TableGuess:
    """Settings of a table with what was found out, and the samples it was found out from."""

    settings: TableSettings
    orders: TableSample
    products: TableSample
    columns: tuple[ColumnGuess, ...]
    notes: tuple[str, ...] = ()
    kept: tuple[ColumnGuess, ...] = ()  # columns of products with a known meaning, as attributes

    @property
    def open(self) -> list[ColumnGuess]:
        """What only a person can say."""
        return [one for one in self.columns if not one.sure]

    def sample(self, table: str) -> TableSample:
        """The first rows of the orders or of the products."""
        return self.orders if table == ORDERS else self.products


@dataclass
class _Search:
    """The guess as far as it has come: what columns are taken."""

    orders: Mapping[str, SampleColumn]
    products: Mapping[str, SampleColumn]
    settings: TableSettings
    found: dict[str, ColumnGuess] = field(default_factory=dict)

    def given(self, setting: str) -> str | None:
        """What the settings say; None where it is to be guessed."""
        value: str | None = getattr(self.settings, setting)
        return value

    def note(self, guess: ColumnGuess) -> None:
        self.found[guess.setting] = guess

    def taken(self, table: str) -> set[str]:
        return {one.column for one in self.found.values() if one.table == table and one.column}


def guess_columns(settings: TableSettings) -> TableGuess:
    """Finds out what the settings do not say: which column holds what, and how it is written.

    What is given is taken as it is. Of the items' columns it is the ids that both files have which
    decides, of the others the name and then the cells.

    Raises:
        DataError: A file is missing, empty or broken.
        ConfigError: The ending of a file is unknown.
    """
    quote, separator, encoding = settings.quote, settings.separator, settings.encoding
    how: dict[str, Any] = {"quote": quote, "separator": separator, "encoding": encoding}
    orders = sample_table(settings.interactions, **how)
    products = sample_table(settings.items, **how)
    search = _Search(orders.columns, products.columns, settings)
    times = {name: _times(column) for name, column in orders.columns.items()}
    agreed = _items(search)
    _time(search, times)
    _user(search, times)
    _texts(search)
    kept = tuple(_known_attributes(search))
    guessed: dict[str, Any] = {one.setting: one.column for one in search.found.values() if one.sure}
    form = settings.id_form or (agreed.form if agreed else "exact")
    pattern = settings.time_format
    notes = []
    time_column = guessed.get("time_column") or settings.time_column
    if pattern is None:
        told = times.get(time_column or "")
        pattern = told.pattern if told else ""
        if pattern:
            notes.append(f"times are read as {pattern}")
        if told and told.other:
            why = f"days could also be {told.other}"
            choices = (told.pattern, told.other)
            about = ("time_format", "form of times", ORDERS, pattern, why)
            search.note(ColumnGuess(*about, sure=False, needed=True, choices=choices))
    if settings.id_form is None and form != "exact":
        notes.append(f"ids are matched although they differ in {OVERLOOKS[form]}")
    if settings.category_separator is None:
        name = guessed.get("category_column") or settings.category_column
        split = category_separator(products.columns[name]) if name in products.columns else ""
        guessed["category_separator"] = split
        notes += [f"categories in one cell are separated by {split}"] if split else []
    names = (*_ITEM_SETTINGS, "time_column")
    # What is not there is none.
    guessed = dict.fromkeys((n for n in names if getattr(settings, n) is None), "") | guessed
    filled = replace(settings, **guessed, id_form=form, time_format=pattern)
    return TableGuess(filled, orders, products, tuple(search.found.values()), tuple(notes), kept)


def _items(search: _Search) -> Agreement | None:
    """The columns that both files have in common: ids of products."""
    given = search.given("item_column"), search.given("item_id_column")
    if given == (None, None) and {_PLAIN} <= search.orders.keys() & search.products.keys():
        given = _PLAIN, _PLAIN
    used = [given[0]] if given[0] is not None else list(search.orders)
    there = [given[1]] if given[1] is not None else list(search.products)
    pairs: list[tuple[float, int, Agreement, str, str]] = []
    for name in used:
        if name not in search.orders or not (column := search.orders[name]).counts:
            continue
        weight = CERTAIN if given[0] is not None else says("item", name)
        for other in there:
            if other not in search.products:
                continue
            ids = search.products[other]
            named = CERTAIN if given[1] is not None else says("item_id", other)
            if given[1] is None and not _holds_ids(ids, named):
                continue
            agreed = agreement(column.counts, ids.counts.keys())
            score = agreed.rows * (1 - _NAME_WEIGHT) + _NAME_WEIGHT * agreed.covered
            score += _NAME_WEIGHT * (weight + named)
            pairs.append((score, weight + named, agreed, name, other))
    pairs.sort(key=lambda pair: -pair[0])
    if not pairs:
        _note_items(search, "", "", "no column of the products holds an id for each", False, (), ())
        return None
    score, named, agreed, name, other = pairs[0]
    certain = named >= 2 * CERTAIN and agreed.rows >= _SOME_ROWS
    few = agreed.known < min(10, len(search.orders[name].counts) / 2)
    close = [pair for pair in pairs[1:] if score - pair[0] < _CLEARLY and pair[3:] != (name, other)]
    sure = certain or (agreed.rows >= _MANY_ROWS and not few and (named >= LIKELY or not close))
    # Where ids under names that mean nothing else do not agree, the reader says which.
    sure = sure or name == other == _PLAIN
    why = f"{agreed.rows:.0%} of rows agree"
    choices = list(dict.fromkeys(pair[3] for pair in pairs))[:5]
    others = list(dict.fromkeys(pair[4] for pair in pairs))[:5]
    _note_items(search, name, other, why, sure, choices, others)
    return agreed


def _note_items(
    search: _Search,
    name: str,
    other: str,
    why: str,
    sure: bool,
    choices: Collection[str],
    others: Collection[str],
) -> None:
    places = (
        ("item_column", "product", ORDERS, name, choices),
        ("item_id_column", "product id", PRODUCTS, other, others),
    )
    for setting, what, table, column, among in places:
        if search.given(setting) is None:
            search.note(ColumnGuess(setting, what, table, column, why, sure, True, tuple(among)))


def _holds_ids(column: SampleColumn, named: int) -> bool:
    """Whether each cell can be the id of a product."""
    if not column.counts or column.lists:
        return False
    rows = len(column.cells)
    filled = column.filled / rows
    return column.unlike >= _ALMOST_ALL and (filled >= _ALMOST_ALL or named >= LIKELY)


def _times(column: SampleColumn) -> TimeFormat | None:
    """How the times of a column are written; None if they are none."""
    if column.moments:
        return TimeFormat("")
    cells = [cell for cell in column.cells if cell]
    step = max(1, len(cells) // _MOST_TIMES)
    return time_format(cells[::step])


def _time(search: _Search, times: Mapping[str, TimeFormat | None]) -> None:
    if search.given("time_column") is not None:
        return
    taken = search.taken(ORDERS) | {search.given("user_column") or ""}
    named = []
    for name, told in times.items():
        weight = says("time", name)
        column = search.orders[name]
        if name in taken or weight == NEVER or column.filled < _ALMOST_ALL * len(column.cells):
            continue
        dates = told is not None and (bool(told.pattern) or _dated(column) or _epochs(column))
        if told is not None and (weight >= POSSIBLE or dates):
            named.append((weight + dates, name))
    if not named:
        # Where cells under a name that means nothing else are no times, the reader says which.
        exact = "timestamp" if "timestamp" in search.orders else ""
        why = "none is found: the order of the file counts"
        search.note(ColumnGuess("time_column", "time", ORDERS, exact, why))
        return
    named.sort(key=lambda one: -one[0])
    best = named[0][1]
    why = "its name and its cells" if says("time", best) > 0 else "its cells are dates"
    search.note(ColumnGuess("time_column", "time", ORDERS, best, why))


def _epochs(column: SampleColumn) -> bool:
    """Whether numbers are all seconds or all milliseconds of the last decades."""
    try:
        numbers = [float(cell) for cell in column.counts]
    except ValueError:
        return False
    return any(
        all(_SECONDS[0] * unit <= number <= _SECONDS[1] * unit for number in numbers)
        for unit in (1, 1000)
    )


def _dated(column: SampleColumn) -> bool:
    """Whether times are dates of ISO 8601, and no numbers, which prices are too."""
    return column.moments or not any(map(_NUMBER.fullmatch, column.counts))


def _user(search: _Search, times: Mapping[str, TimeFormat | None]) -> None:
    if search.given("user_column") is not None:
        return
    taken = search.taken(ORDERS)
    named, likely = [], []
    for name, column in search.orders.items():
        weight = says("user", name)
        told = times[name]
        dates = told is not None and (bool(told.pattern) or _dated(column) or _epochs(column))
        if name in taken or weight == NEVER or column.lists or not column.counts or dates:
            continue
        if weight >= LIKELY:
            named.append((weight, column.filled, name))
        # A person comes back; quantities and states are few, order numbers nearly all differ.
        elif len(column.counts) >= max(2, 0.01 * column.filled) and says("item", name) <= 0:
            likely.append((weight, -abs(column.unlike - 0.2), name))
    if named:
        named.sort(key=lambda one: (-one[0], -one[1]))
        best = named[0][2]
        search.note(ColumnGuess("user_column", "customer", ORDERS, best, "its name", needed=True))
        return
    choices = tuple(one[2] for one in sorted(likely, reverse=True))
    best, sure = (choices[0] if choices else ""), False
    if choices and says("user", best) == POSSIBLE:
        sure = sum(says("user", name) == POSSIBLE for name in choices) == 1
    why = "its name" if sure else "no name says who bought"
    search.note(ColumnGuess("user_column", "customer", ORDERS, best, why, sure, True, choices[:5]))


def _texts(search: _Search) -> None:
    """Title, description and categories of the products."""
    wanted = {"title_column": "title", "description_column": "description",
              "category_column": "category", "boost_column": "boost"}  # fmt: skip
    id_column = search.given("item_id_column") or ""
    for setting, role in wanted.items():
        if search.given(setting) is not None:
            continue
        given = {search.given(other) or "" for other in _ITEM_SETTINGS}
        taken = search.taken(PRODUCTS) | given | {id_column}
        found = []
        for name, column in search.products.items():
            weight = says(role, name)
            # The names of products may be all that orders and products have in common.
            shared = setting == "title_column" and weight == CERTAIN
            if weight < POSSIBLE or (name in taken and not shared):
                continue
            if role != "category" or is_category(column):
                found.append((weight, column.filled, name))
        found.sort(key=lambda one: (-one[0], -one[1]))
        if found:
            search.note(ColumnGuess(setting, role, PRODUCTS, found[0][2], "its name"))
        elif role == "title":
            _title_by_cells(search, taken)
        elif role == "category":
            _category_by_cells(search, taken)


def _title_by_cells(search: _Search, taken: Collection[str]) -> None:
    """The one column of texts that differ and are of the length of a title."""
    found = []
    for name, column in search.products.items():
        if name in taken or column.lists or column.unlike < SHARED:
            continue
        lengths = list(map(len, column.counts))
        words = sum(bool(_LETTERS.search(text)) for text in column.counts)
        if words >= _ALMOST_ALL * len(column.counts) and 3 <= statistics.median(lengths) <= 200:
            found.append((statistics.median(lengths), name))
    choices = tuple(name for _, name in sorted(found))
    why = "its cells are texts that differ" if len(choices) == 1 else "no name says what is a title"
    best = choices[0] if choices else ""
    sure = len(choices) == 1
    guess = ColumnGuess("title_column", "title", PRODUCTS, best, why, sure, True, choices[:5])
    search.note(guess)


def _category_by_cells(search: _Search, taken: Collection[str]) -> None:
    """A column whose few short texts repeat, if only one is like that; it may also have none."""
    names = [
        name
        for name, column in search.products.items()
        if name not in taken
        and not any(says(role, name) for role in ("price", "stock", "item_id", "time"))
        and is_category(column)
        and len(column.counts) >= 3
        and len(column.counts) <= column.filled / 5
        and all(_LETTERS.search(text) for text in column.counts)
    ]
    only = names[0] if len(names) == 1 else ""
    if only:
        why = "its few texts repeat"
        search.note(ColumnGuess("category_column", "category", PRODUCTS, only, why))


def _known_attributes(search: _Search) -> list[ColumnGuess]:
    """Price and stock: kept as attributes, as all other columns are, and named for people."""
    found = []
    for role in ("price", "stock"):
        weights = {name: says(role, name) for name in search.products}
        taken = search.taken(PRODUCTS)
        names = [name for name in weights if weights[name] > 0 and name not in taken]
        if names:
            best = max(names, key=lambda name: weights[name])
            found.append(ColumnGuess("", role, PRODUCTS, best, "its name"))
    return found
