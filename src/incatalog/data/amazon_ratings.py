"""Amazon's ratings without reviews: CSV of 2014, 2018 and 2023."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from incatalog.data.documents import require_once, text_lines
from incatalog.data.fields import FilePlace
from incatalog.data.interactions import Interactions
from incatalog.data.rating_tables import RatingTable
from incatalog.data.reviews import LEFT_OUT
from incatalog.data.times import Times

_COLUMNS = ("user_id", "parent_asin", "rating", "timestamp")
_HISTORY = "history"
_ASIN = re.compile(r"[0-9A-Z]{10}")
_FIRST_LINES = 100


@dataclass(frozen=True)
class AmazonRatings:
    """A file of ratings; where it gives the histories too, the place of their column."""

    table: RatingTable
    new: bool  # Whether it is of 2023.
    names: tuple[str, ...]
    history: int | None = None

    def read(
        self, item_codes: dict[str, int], skipped: Counter[str], fields: dict[str, None]
    ) -> Interactions:
        """Gathers the ratings; see :func:`incatalog.data.reviews.prepare_reviews`."""
        fields.update(dict.fromkeys(self.names))

        def unknown(place: FilePlace, item: str) -> None:
            del place, item
            skipped[LEFT_OUT] += 1

        if self.history is not None:
            return self._read_histories(item_codes, skipped)
        found = Interactions(Times(self.table.names[3]))
        self.table.read(item_codes, found, unknown)
        return found

    def _read_histories(self, item_codes: dict[str, int], skipped: Counter[str]) -> Interactions:
        """The history of every user's last row, and the item of that row.

        The other rows repeat it; those that do not are counted.
        """
        user_at, item_at, _, time_at = self.table.columns
        times, found, rows = Times(_COLUMNS[3]), Interactions(None), Interactions(None)
        last: dict[str, tuple[tuple[int, int], str]] = {}
        for place, cells in self.table.rows():
            user = place.id(_COLUMNS[0], cells[user_at])
            item, history, time = cells[item_at], cells[self.history or 0], cells[time_at]
            if not time.isascii() or not time.isdigit():
                raise place.error(f"{_COLUMNS[3]} is {time!r}; expected whole milliseconds")
            times.add(place, time)
            if item in item_codes:
                rows.add(place, user, item_codes[item], None)
            key = (int(time), len(history))
            if user not in last or key >= last[user][0]:
                last[user] = (key, f"{history} {item}")
        times.order()  # Refuses times of several units.
        place = FilePlace(self.table.path)
        for user, (_, items) in last.items():
            found.user(user)
            rows.user(user)
            for item in items.split():
                if item in item_codes:
                    found.add(place, user, item_codes[item], None)
                else:
                    skipped[LEFT_OUT] += 1
        lost = _named(rows).join(_named(found), on=["user", "item"], how="anti")
        skipped["ratings that the last history of their user lacks"] += len(lost)
        return found


def _named(found: Interactions) -> pl.DataFrame:
    """Users by name, as each of several has codes of its own, and items."""
    frame = found.frame().select("user", "item").unique()
    return frame.with_columns(
        pl.col("user").replace_strict(
            pl.int_range(len(found.user_codes), eager=True), list(found.user_codes)
        )
    )


def find_ratings(path: Path) -> AmazonRatings | None:
    """How a file of ratings is to be read; None for a file of records.

    Ratings of 2023 have a header. Those of before have none: in 2014 the user stands first, in 2018
    the item, which is told by the form of Amazon's ids.
    """
    rows: list[list[str]] = []
    place = FilePlace(path)
    for line, text in enumerate(itertools.islice(text_lines(path), _FIRST_LINES), 1):
        if not text.strip():
            continue
        if not rows:
            place = FilePlace(path, line)
            if text.lstrip().startswith("{"):
                return None
        try:
            rows.append(next(csv.reader([text.rstrip("\r\n")], strict=True)))
        except csv.Error as error:
            raise FilePlace(path, line).error(f"not valid CSV: {error}") from error
    if not rows:
        return None
    head = rows[0]
    if not {_COLUMNS[0], _COLUMNS[1]}.isdisjoint(head):
        require_once(path, head)
        for column in _COLUMNS:
            if column not in head:
                raise place.error(f"no column {column!r}; found {', '.join(head)}")
        user, item, rating, time = map(head.index, _COLUMNS)
        table = RatingTable(path, ",", (user, item, rating, time), len(head), _COLUMNS, header=True)
        history = head.index(_HISTORY) if _HISTORY in head else None
        return AmazonRatings(table, True, tuple(head), history)
    four = [row for row in rows if len(row) == len(_COLUMNS)]
    items = [place for place in (0, 1) if all(_ASIN.fullmatch(row[place]) for row in four)]
    if len(head) != len(_COLUMNS) or len(items) != 1:
        expected = f"expected JSON lines, or CSV with the header {','.join(_COLUMNS)}"
        other = "or ratings without a header, one of whose first two columns holds ASINs"
        raise place.error(f"no Amazon reviews: {','.join(head)!r:.60}; {expected}, {other}")
    return AmazonRatings(
        RatingTable(path, ",", (1 - items[0], items[0], 2, 3), len(_COLUMNS), _COLUMNS), False, ()
    )
