"""Between the JSON of the teacher service and rows of the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher.selection import split_category
from incatalog.teacher_service.batching import Answer, Query, Rows
from incatalog.teacher_service.teacher_schemas import (
    FilteredRequest,
    InferenceRequest,
    ItemId,
    RankingRequest,
    ScoresRequest,
    TeacherRequest,
)

PADDING = "[PAD]"
_NAMED = 5
_SHOWN = 60


class Wire:
    """Reads requests and writes answers for one catalog.

    What is read is checked in full, so that a wrong request is refused before it waits among
    others. Every method that reads raises TeacherError, one line that names the field.
    """

    def __init__(self, catalog: Catalog, *, max_k: int, max_rows: int, max_scores: int) -> None:
        """Takes the catalog and the limits of a request: items a row, rows, and scores."""
        self._name = catalog.name
        self._fingerprint = catalog.fingerprint
        self._ids = [item.item_id for item in catalog.items]
        self._row_of: dict[ItemId, int] = {item_id: row for row, item_id in enumerate(self._ids)}
        self._categories = frozenset(catalog.categories)
        self._max_k = max_k
        self._max_rows = max_rows
        self._max_scores = max_scores

    def check_catalog(self, request: TeacherRequest) -> None:
        """Refuses a client with another catalog.

        Raises:
            CatalogError: The client names another fingerprint.
        """
        if request.catalog not in (None, self._fingerprint):
            raise CatalogError(
                f"catalog: the client's fingerprint is {_shown(request.catalog)}, the service's "
                f"{self._fingerprint[:12]}… (catalog {self._name!r}, {len(self._ids)} items); "
                "ids, titles or their order differ, so give both the same data"
            )

    def inference(self, request: InferenceRequest) -> Query:
        """Reads a question for the best items."""
        histories = self._histories(request)
        if not 1 <= request.k <= self._max_k:
            raise TeacherError(f"k: found {_shown(request.k)}; expected 1 to {self._max_k}")
        candidates: list[Rows | None] = [None] * len(histories)
        if request.candidate_item_lists:
            candidates = self._optional(
                "candidate_item_lists", request.candidate_item_lists, len(histories)
            )
        seen = [
            only is None if request.exclude_seen is None else bool(request.exclude_seen)
            for only in candidates
        ]
        return Query(
            "inference",
            histories,
            request.k,
            candidates,
            self._excluded(request, histories, seen),
            self._selections(request, len(histories)),
            bool(request.immediately),
        )

    def ranking(self, request: RankingRequest) -> Query:
        """Reads a question for ranks."""
        histories = self._histories(request)
        candidates = self._optional(
            "candidate_item_lists", request.candidate_item_lists, len(histories)
        )
        seen = [bool(request.exclude_seen)] * len(histories)
        return Query(
            "ranking",
            histories,
            candidates=candidates,
            excluded=self._excluded(request, histories, seen),
            categories=self._selections(request, len(histories)),
            immediately=bool(request.immediately),
        )

    def scores(self, request: ScoresRequest) -> Query:
        """Reads a question for all scores."""
        histories = self._histories(request)
        most = self._max_scores // len(self._ids)
        if len(histories) > most:
            raise TeacherError(
                f"item_lists: found {len(histories)} rows of {len(self._ids)} scores; "
                f"expected {most} rows at most"
            )
        return Query("scores", histories, immediately=bool(request.immediately))

    def best_items(self, answer: Answer) -> dict[str, list[list[str]]]:
        """Writes the answer to `inference`."""
        ids = self._ids
        return {"inference": [[ids[row] for row in rows.tolist()] for rows in answer]}

    @staticmethod
    def ranks(answer: Answer) -> dict[str, list[list[int | None]]]:
        """Writes the answer to `ranking`, counted from 0 as the published server does."""
        return {
            "ranking": [
                [rank - 1 if rank > 0 else None for rank in ranks.tolist()] for ranks in answer
            ]
        }

    def _histories(self, request: TeacherRequest) -> list[Rows]:
        lists = request.item_lists
        if not 1 <= len(lists) <= self._max_rows:
            raise TeacherError(
                f"item_lists: found {len(lists)} rows; expected 1 to {self._max_rows}"
            )
        if request.users is not None:
            _check_rows("users", request.users, len(lists))
        unpadded = [_without_padding(items) if self._pads else items for items in lists]
        if request.item_lengths is not None:
            _check_rows("item_lengths", request.item_lengths, len(lists))
            for row, said in enumerate(request.item_lengths):
                if said not in (len(unpadded[row]), len(lists[row])):
                    raise TeacherError(
                        f"item_lengths {row}: found {_shown(said)}; item_lists {row} has "
                        f"{len(unpadded[row])} items"
                    )
        histories = [self._read("item_lists", row, items) for row, items in enumerate(unpadded)]
        for row, rows in enumerate(histories):
            if not rows.size:
                raise TeacherError(f"item_lists {row}: empty; expected at least one item")
        return histories

    @property
    def _pads(self) -> bool:
        """Whether padding can be told from an item."""
        return PADDING not in self._row_of

    def _optional(
        self, name: str, lists: Sequence[Sequence[ItemId] | None], batch: int
    ) -> list[Rows | None]:
        _check_rows(name, lists, batch)
        return [
            None if items is None else self._read(name, row, items)
            for row, items in enumerate(lists)
        ]

    def _excluded(
        self, request: FilteredRequest, histories: Sequence[Rows], seen: Sequence[bool]
    ) -> list[Rows]:
        nothing = np.empty(0, dtype=np.int64)
        excluded = [rows if out else nothing for rows, out in zip(histories, seen, strict=True)]
        if not request.excluded_item_lists:
            return excluded
        named = self._optional("excluded_item_lists", request.excluded_item_lists, len(histories))
        return [
            rows if more is None else np.concatenate([rows, more])
            for rows, more in zip(excluded, named, strict=True)
        ]

    def _selections(self, request: FilteredRequest, batch: int) -> list[str | None]:
        if not request.target_category:
            return [None] * batch
        _check_rows("target_category", request.target_category, batch)
        for row, selection in enumerate(request.target_category):
            if selection is None:
                continue
            place = f"target_category {row}"
            try:
                _, name = split_category(selection)
            except TeacherError:
                raise TeacherError(
                    f"{place}: found {_shown(selection)}; expected +NAME (only that category) "
                    "or -NAME (all but that category)"
                ) from None
            if name not in self._categories:
                raise TeacherError(
                    f"{place}: no category {_shown(name)} in the catalog {self._name!r}; "
                    f"it has {len(self._categories)}{_such_as(sorted(self._categories))}"
                )
        return request.target_category

    def _read(self, name: str, row: int, items: Sequence[ItemId]) -> Rows:
        row_of = self._row_of
        try:
            found = [row_of[item] for item in items]
        except KeyError:
            found = [row_of.get(str(item), -1) for item in items]
        rows = np.array(found, dtype=np.int64)
        if (rows < 0).any():
            unknown = dict.fromkeys(items[place] for place in np.flatnonzero(rows < 0).tolist())
            raise TeacherError(
                f"{name} {row}: no item {_listed(unknown)} in the catalog {self._name!r} "
                f"of {len(self._ids)} items"
            )
        return rows


def _without_padding(items: Sequence[ItemId]) -> Sequence[ItemId]:
    start = 0
    while start < len(items) and items[start] == PADDING:
        start += 1
    return items[start:]


def _check_rows(name: str, entries: Sequence[object], batch: int) -> None:
    if len(entries) != batch:
        raise TeacherError(
            f"{name}: found {len(entries)} entries; expected {batch}, one for each of item_lists"
        )


def _shown(value: object) -> str:
    """The value as in Python source, cut where it is long; whole numbers in their digits."""
    # Numbers of thousands of digits are not printed by Python.
    text = hex(value) if isinstance(value, int) and value.bit_length() > 1000 else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _listed(values: Iterable[object]) -> str:
    all_of_them = list(values)
    text = ", ".join(map(_shown, all_of_them[:_NAMED]))
    more = len(all_of_them) - _NAMED
    return f"{text} and {more} more" if more > 0 else text


def _such_as(names: Sequence[str]) -> str:
    return f", such as {_listed(names[:3])}" if names else ""
