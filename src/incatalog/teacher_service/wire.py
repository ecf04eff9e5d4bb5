"""Between the JSON of the teacher service and rows of the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher.selection import split_category
from incatalog.teacher_service import teacher_schemas as forms
from incatalog.teacher_service.batching import Found, Query, Rows
from incatalog.teacher_service.teacher_schemas import ItemId

PADDING = "[PAD]"
_NAMED = 5
_SHOWN = 60


class Wire:
    """Reads requests and writes answers for one catalog, within limits.

    A request is checked in full before it waits among others; TeacherError names the wrong field.
    """

    def __init__(self, catalog: Catalog, *, max_k: int, max_rows: int, max_scores: int) -> None:
        self._name = catalog.name
        self._fingerprint = catalog.fingerprint
        self._ids = [item.item_id for item in catalog.items]
        self._row_of: dict[ItemId, int] = {item_id: row for row, item_id in enumerate(self._ids)}
        # Whether padding can be told from an item.
        self._pads = PADDING not in self._row_of
        self._categories = frozenset(catalog.categories)
        self._max_k = max_k
        self._max_rows = max_rows
        self._max_scores = max_scores

    def check_catalog(self, request: forms.TeacherRequest) -> None:
        """Refuses a client with another catalog by a CatalogError."""
        if request.catalog not in (None, self._fingerprint):
            own = f"{self._fingerprint[:12]}… (catalog {self._name!r}, {len(self._ids)} items)"
            raise CatalogError(
                f"catalog: the client's fingerprint is {_shown(request.catalog)}, the service's "
                f"{own}; ids, titles or their order differ, so give both the same data"
            )

    def inference(self, request: forms.InferenceRequest) -> Query:
        """Reads a question for the best items."""
        histories = self._histories(request)
        if not 1 <= request.k <= self._max_k:
            raise TeacherError(f"k: found {_shown(request.k)}; expected 1 to {self._max_k}")
        candidates: list[Rows | None] = [None] * len(histories)
        if asked := request.candidate_item_lists:
            candidates = self._lists("candidate_item_lists", asked, len(histories))
        seen = [
            only is None if request.exclude_seen is None else bool(request.exclude_seen)
            for only in candidates
        ]
        return self._query("inference", request, histories, candidates, seen, request.k)

    def ranking(self, request: forms.RankingRequest) -> Query:
        """Reads a question for ranks."""
        histories = self._histories(request)
        asked = request.candidate_item_lists
        candidates = self._lists("candidate_item_lists", asked, len(histories))
        seen = [bool(request.exclude_seen)] * len(histories)
        return self._query("ranking", request, histories, candidates, seen)

    def scores(self, request: forms.ScoresRequest) -> Query:
        """Reads a question for all scores."""
        histories = self._histories(request)
        most = self._max_scores // len(self._ids)
        if len(histories) > most:
            found = f"found {len(histories)} rows of {len(self._ids)} scores"
            raise TeacherError(f"item_lists: {found}; expected {most} rows at most")
        return Query("scores", histories, immediately=bool(request.immediately))

    def best_items(self, found: Found) -> dict[str, list[list[str]]]:
        """Writes the answer to `inference`."""
        ids = self._ids
        return {"inference": [[ids[row] for row in rows.tolist()] for rows in found]}

    @staticmethod
    def ranks(found: Found) -> dict[str, list[list[int | None]]]:
        """Writes the answer to `ranking`, counted from 0 as the published server does."""
        lists = [[rank - 1 if rank > 0 else None for rank in ranks.tolist()] for ranks in found]
        return {"ranking": lists}

    def _query(
        self,
        kind: Literal["inference", "ranking"],
        request: forms.FilteredRequest,
        histories: list[Rows],
        candidates: list[Rows | None],
        seen: Sequence[bool],
        k: int = 0,
    ) -> Query:
        """A question with its rules; `seen` says which histories exclude their own items."""
        nothing = np.empty(0, dtype=np.int64)
        excluded = [rows if out else nothing for rows, out in zip(histories, seen, strict=True)]
        if asked := request.excluded_item_lists:
            named = self._lists("excluded_item_lists", asked, len(histories))
            excluded = [
                rows if more is None else np.concatenate([rows, more])
                for rows, more in zip(excluded, named, strict=True)
            ]
        categories: list[str | None] = [None] * len(histories)
        if request.target_category:
            categories = request.target_category
            self._check_categories(categories, len(histories))
        hurried = bool(request.immediately)
        return Query(kind, histories, k, candidates, excluded, categories, hurried)

    def _histories(self, request: forms.TeacherRequest) -> list[Rows]:
        lists = request.item_lists
        if not 1 <= len(lists) <= self._max_rows:
            most = self._max_rows
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
            if not rows.size:
                raise TeacherError(f"item_lists {row}: empty; expected at least one item")
        return histories

    def _lists(
        self, name: str, lists: Sequence[Sequence[ItemId] | None], batch: int
    ) -> list[Rows | None]:
        _check_rows(name, lists, batch)
        return [
            None if items is None else self._read(name, row, items)
            for row, items in enumerate(lists)
        ]

    def _check_categories(self, categories: Sequence[str | None], batch: int) -> None:
        _check_rows("target_category", categories, batch)
        for row, selection in enumerate(categories):
            if selection is None:
                continue
            place = f"target_category {row}"
            try:
                _, name = split_category(selection)
            except TeacherError:
                forms = "+NAME (only that category) or -NAME (all but that category)"
                why = f"found {_shown(selection)}; expected {forms}"
                raise TeacherError(f"{place}: {why}") from None
            if name not in self._categories:
                known = sorted(self._categories)
                such_as = f", such as {_listed(known[:3])}" if known else ""
                why = f"no category {_shown(name)} in the catalog {self._name!r}"
                raise TeacherError(f"{place}: {why}; it has {len(known)}{such_as}")

    def _read(self, name: str, row: int, items: Sequence[ItemId]) -> Rows:
        row_of = self._row_of
        try:
            found = [row_of[item] for item in items]
        except KeyError:
            found = [row_of.get(str(item), -1) for item in items]
        rows = np.array(found, dtype=np.int64)
        if (rows < 0).any():
            unknown = dict.fromkeys(items[place] for place in np.flatnonzero(rows < 0).tolist())
            catalog = f"the catalog {self._name!r} of {len(self._ids)} items"
            raise TeacherError(f"{name} {row}: no item {_listed(unknown)} in {catalog}")
        return rows


def _without_padding(items: Sequence[ItemId]) -> Sequence[ItemId]:
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
