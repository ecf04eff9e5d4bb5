"""Between the JSON of the teacher service and rows of the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher_service import teacher_schemas as forms
from incatalog.teacher_service.batching import Found, Kind, Query, Rows
from incatalog.teacher_service.likely import LikelyItems
from incatalog.teacher_service.teacher_schemas import ItemId

PADDING = "[PAD]"
_Ids = Sequence[ItemId]
_NAMED = 5
_SHOWN = 60


class Wire:
    """Reads requests and writes answers for one catalog, within limits.

    A request is checked in full before it waits among others; TeacherError names the wrong field.
    """

    def __init__(self, catalog: Catalog, info: forms.TeacherInfo) -> None:
        self._info = info
        self._ids = [item.item_id for item in catalog.items]
        self._row_of: dict[ItemId, int] = {item_id: row for row, item_id in enumerate(self._ids)}
        self._pads = PADDING not in self._row_of  # whether padding can be told from an item
        self._categories = sorted(catalog.categories)
        self._selections = {sign + name for name in self._categories for sign in "+-"}

    def query(self, request: forms.Question) -> Query:
        """Reads a question; a CatalogError refuses a client with another catalog."""
        info = self._info
        if request.catalog not in (None, info.catalog):
            own = f"{info.catalog[:12]}… (catalog {info.name!r}, {info.items} items)"
            raise CatalogError(
                f"catalog: the client's fingerprint is {_shown(request.catalog)}, the service's "
                f"{own}; ids, titles or their order differ, so give both the same data"
            )
        histories, hurried = self._histories(request), bool(request.immediately)
        batch = len(histories)
        if isinstance(request, forms.ScoresRequest):
            most = info.max_scores // info.items
            if batch > most:
                found = f"found {batch} rows of {info.items} scores"
                raise TeacherError(f"item_lists: {found}; expected {most} rows at most")
            return Query("scores", histories, immediately=hurried)
        if isinstance(request, forms.LikelyRequest):
            self._check_count("best", request.best)
            return Query("log_probabilities", histories, request.best, immediately=hurried)
        best, k = isinstance(request, forms.InferenceRequest), getattr(request, "k", 0)
        if best:
            self._check_count("k", k)
        # Only the best items may be asked for without a list of candidates.
        asked = request.candidate_item_lists or ([None] * batch if best else [])
        candidates = self._lists("candidate_item_lists", asked, batch)
        excluded: list[Rows] = []
        for rows, only in zip(histories, candidates, strict=True):
            seen = only is None if request.exclude_seen is None else request.exclude_seen
            excluded.append(rows if seen else rows[:0])
        if more := request.excluded_item_lists:
            named = zip(excluded, self._lists("excluded_item_lists", more, batch), strict=True)
            excluded = [rows if out is None else np.concatenate([rows, out]) for rows, out in named]
        categories = request.target_category or [None] * batch
        self._check_categories(categories, batch)
        kind: Kind = "inference" if best else "ranking"
        return Query(kind, histories, k, candidates, excluded, categories, hurried)

    def answer(self, kind: Kind, found: Found) -> dict[str, list[Any]]:
        """Writes ids or ranks, which count from 0 as those of the published server do."""
        if kind == "log_probabilities":
            return {kind: [self._likely(row) for row in found]}
        lists = [rows.tolist() for rows in found]
        if kind == "inference":
            return {kind: [[self._ids[row] for row in rows] for rows in lists]}
        return {kind: [[rank - 1 if rank > 0 else None for rank in ranks] for ranks in lists]}

    def _histories(self, request: forms.Question) -> list[Rows]:
        lists, most = request.item_lists, self._info.max_rows
        if not 1 <= len(lists) <= most:
            raise TeacherError(f"item_lists: found {len(lists)} rows; expected 1 to {most}")
        if request.users is not None:
            _check_rows("users", request.users, len(lists))
        unpadded = [_without_padding(items) if self._pads else items for items in lists]
        if request.item_lengths is not None:
            _check_rows("item_lengths", request.item_lengths, len(lists))
            for row, said in enumerate(request.item_lengths):
                count = len(unpadded[row])
                if said not in (count, len(lists[row])):
                    why = f"item_lists {row} has {count} items"
                    raise TeacherError(f"item_lengths {row}: found {_shown(said)}; {why}")
        histories = [self._read("item_lists", row, items) for row, items in enumerate(unpadded)]
        for row, rows in enumerate(histories):
            if not rows.size and not self._info.empty_histories:
                raise TeacherError(f"item_lists {row}: empty; expected at least one item")
        return histories

    def _check_count(self, name: str, count: int) -> None:
        most = self._info.max_k
        if not 1 <= count <= most:
            raise TeacherError(f"{name}: found {_shown(count)}; expected 1 to {most}")

    def _likely(self, row: LikelyItems) -> dict[str, Any]:
        items = [self._ids[item] for item in row.rows.tolist()]
        # JSON has no infinity.
        rest = row.rest if np.isfinite(row.rest) else None
        return {"items": items, "values": row.log_probabilities.tolist(), "rest": rest}

    def _lists(self, name: str, lists: Sequence[_Ids | None], batch: int) -> list[Rows | None]:
        _check_rows(name, lists, batch)
        return [
            None if items is None else self._read(name, row, items)
            for row, items in enumerate(lists)
        ]

    def _check_categories(self, categories: Sequence[str | None], batch: int) -> None:
        _check_rows("target_category", categories, batch)
        for row, selection in enumerate(categories):
            if selection is None or selection in self._selections:
                continue
            if selection[:1] not in ("+", "-"):
                forms = "+NAME (only that category) or -NAME (all but that category)"
                why = f"found {_shown(selection)}; expected {forms}"
            else:
                known = self._categories
                such_as = f", such as {_listed(known[:3])}" if known else ""
                why = f"no category {_shown(selection[1:])} in the catalog {self._info.name!r}"
                why += f"; it has {len(known)}{such_as}"
            raise TeacherError(f"target_category {row}: {why}")

    def _read(self, name: str, row: int, items: _Ids) -> Rows:
        row_of = self._row_of
        try:
            found = [row_of[item] for item in items]
        except KeyError:
            found = [row_of.get(str(item), -1) for item in items]
        rows = np.array(found, dtype=np.int64)
        if (rows < 0).any():
            unknown = dict.fromkeys(items[place] for place in np.flatnonzero(rows < 0).tolist())
            catalog = f"the catalog {self._info.name!r} of {self._info.items} items"
            raise TeacherError(f"{name} {row}: no item {_listed(unknown)} in {catalog}")
        return rows


def _without_padding(items: _Ids) -> _Ids:
    start = next((place for place, item in enumerate(items) if item != PADDING), len(items))
    return items[start:]


def _check_rows(name: str, entries: Sequence[object], batch: int) -> None:
    if len(entries) != batch:
        expected = f"expected {batch}, one for each of item_lists"
        raise TeacherError(f"{name}: found {len(entries)} entries; {expected}")


def _shown(value: object) -> str:
    """The value as in Python source, cut where it is long; whole numbers in their digits."""
    # Numbers of thousands of digits are not printed by Python.
    text = hex(value) if isinstance(value, int) and value.bit_length() > 1000 else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _listed(values: Iterable[object]) -> str:
    every = list(values)
    text = ", ".join(map(_shown, every[:_NAMED]))
    more = len(every) - _NAMED
    return f"{text} and {more} more" if more > 0 else text
