"""The client of the teacher server that RecLM-cgen publishes, which someone already runs.

That server answers one history a request, pads it to ten items, and has best items and ranks. Its
`/inference` adds one to float32 probabilities, so that items nearly alike change places, and fills
up with items that do not fit; its `/ranking` does neither. So each history is asked for the ranks
of all items, and every rule is applied here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from jaxtyping import Bool, Float32, Int64

from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError, TeacherError
from incatalog.teacher.row_lists import MaybeRowLists, RowLists, Rows, check_length, ragged
from incatalog.teacher.selection import split_category
from incatalog.teacher_service.served_teacher import Sender, ServedTeacher, field_of, shown

if TYPE_CHECKING:
    from incatalog.teacher.teacher import Teacher

PUBLISHED = "published"
"""The kind of a teacher of which only its wire format is known."""
PUBLISHED_WINDOW = 10
"""Items of a history that the published server is made for; with more it fails."""

# A user and an item that every server has; the answer does not depend on the user.
_PADDING = "[PAD]"
# Best items by which one server is told from another; further down scores may be nearly alike.
_TOLD_APART_BY = 20
_LACKS = "scores, probabilities, histories to leave out"


class PublishedTeacher(ServedTeacher):
    """Asks a published teacher server for the order of all items.

    At the start it finds which items of the catalog the server knows, and tells this teacher from
    others by the best of them. Of a history longer than `PUBLISHED_WINDOW` the newest items are
    sent; all of it counts as seen. `scores`, `log_probabilities` and `temperature` are what it
    lacks: they raise `TeacherError`. Items it does not know are never answered.
    """

    kind = PUBLISHED

    def __init__(self, sender: Sender, catalog: Catalog) -> None:
        super().__init__(sender, catalog)
        if _PADDING in self._row_of:
            why = f"an item is called {_PADDING}, which is padding for a published server"
            then = "serve the teacher with `incatalog teacher serve`"
            raise TeacherError(f"{self.url}: {why}; {then}")
        self._known, best = self._first_order()
        self._known_ids = [self._ids[row] for row in self._known.tolist()]
        told = [self._ids[row] for row in best[:_TOLD_APART_BY].tolist()]
        self.fingerprint = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        self.described = (
            f"a published teacher server: the order of {len(best):,} of {len(catalog):,} items, "
            f"one history a request, its newest {PUBLISHED_WINDOW} items; it lacks {_LACKS}"
        )

    @property
    def temperature(self) -> float:
        """What it lacks; see `Teacher.temperature`."""
        self._refuse("temperature")

    def scores(
        self,
        histories: RowLists,  # noqa: ARG002 - it has no answer to any
    ) -> Float32[np.ndarray, "batch items"]:
        """What it lacks; see `Teacher.scores`."""
        self._refuse("scores")

    def log_probabilities(
        self,
        histories: RowLists,  # noqa: ARG002
        *,
        left_out: RowLists | None = None,  # noqa: ARG002
    ) -> Float32[np.ndarray, "batch items"]:
        """What it lacks; see `Teacher.log_probabilities`."""
        self._refuse("log-probabilities")

    def top_k(
        self,
        histories: RowLists,
        k: int,
        *,
        candidates: MaybeRowLists | None = None,
        excluded: MaybeRowLists | None = None,
        categories: Sequence[str | None] | None = None,
        exclude_seen: bool = True,
    ) -> Int64[np.ndarray, "batch k"]:
        """Best rows after each history; see `Teacher.top_k`."""
        if k < 1:
            raise TeacherError(f"k: found {k}; expected at least 1")
        batch = len(histories)
        rules = _Rules(self._catalog, histories, excluded, categories, exclude_seen, self.url)
        only = ragged(
            "candidates",
            [None] * batch if candidates is None else candidates,
            batch,
            self.num_items,
        )
        result = np.full((batch, k), -1, dtype=np.int64)
        for index in range(batch):
            fits = ~rules.left_out(index)
            if candidates is not None and candidates[index] is not None:
                fits &= np.isin(np.arange(self.num_items), only.at(index))
            order = self._order(index, rules.histories[index])
            found = order[fits[order]][:k]
            result[index, : len(found)] = found
        return result

    def ranking(
        self,
        histories: RowLists,
        candidates: RowLists,
        *,
        excluded: MaybeRowLists | None = None,
        categories: Sequence[str | None] | None = None,
        exclude_seen: bool = False,
    ) -> list[Int64[np.ndarray, " candidates"]]:
        """Ranks of candidates in the order of the whole catalog; see `Teacher.ranking`."""
        batch = len(histories)
        rules = _Rules(self._catalog, histories, excluded, categories, exclude_seen, self.url)
        lists = ragged("candidates", candidates, batch, self.num_items)
        self._require_known("candidates", lists.flat)
        result = []
        for index in range(batch):
            order = self._order(index, rules.histories[index])
            order = order[~rules.left_out(index)[order]]
            ranks = np.full(self.num_items, -1, dtype=np.int64)
            ranks[order] = np.arange(1, len(order) + 1)
            result.append(ranks[lists.at(index)])
        return result

    def _order(self, index: int, history: Rows) -> Rows:
        """All rows that the server knows, the best first."""
        shown_rows = history[-PUBLISHED_WINDOW:]
        self._require_known(f"history {index}", shown_rows)
        ranks = self._ranks([self._ids[row] for row in shown_rows.tolist()], self._known_ids)
        if not np.array_equal(np.sort(ranks), np.arange(len(self._known))):
            why = f"expected the ranks 0 to {len(self._known) - 1}, each once, got"
            raise TeacherError(f"{self.url}/ranking: {why} {ranks.tolist()!r:.80}")
        return self._known[np.argsort(ranks)]

    def _first_order(self) -> tuple[Rows, Rows]:
        """The rows that the server knows, ascending, and the same from the best after no history.

        It leaves out unknown candidates without a word. With padding, the last item of every order,
        between the candidates it can be seen which ones.

        Raises:
            TeacherError: No published server answers there, or one with other items.
        """
        between = [_PADDING, *(name for item_id in self._ids for name in (item_id, _PADDING))]
        try:
            ranks = self._ranks([], between)
        except TeacherError as error:
            neither = "no `incatalog teacher serve` (it has no /teacher), and no published server"
            raise TeacherError(f"{self.url}: {neither}: {error}") from error
        items = int(ranks.max(initial=0))
        marks = np.flatnonzero(ranks == items)
        known = np.flatnonzero(np.diff(marks) == 2)
        found = ranks[marks[known] + 1]
        if len(marks) != self.num_items + 1 or len(ranks) != len(marks) + len(known):
            why = f"no published server: its ranks of {len(between)} candidates are"
            raise TeacherError(f"{self.url}/ranking: {why} {ranks.tolist()!r:.80}")
        if not len(known) or not np.array_equal(np.sort(found), np.arange(items)):
            raise TeacherError(
                f"{self.url}: a published teacher server with other items: it has {items}, and "
                f"{len(known)} of the {self.num_items} of {self._catalog.name!r}; start it with "
                "the same data"
            )
        return known, known[np.argsort(found)]

    def _ranks(self, history: list[str], candidates: list[str]) -> Int64[np.ndarray, " ranks"]:
        """How many items stand before each candidate that the server knows."""
        body = {
            "users": [_PADDING],
            "item_lists": [history],
            "item_lengths": [len(history)],
            "candidate_item_lists": [candidates],
            "immediately": 1,
        }
        content = json.dumps(body, separators=(",", ":")).encode()
        response = self._sender.send("POST", "ranking", content)
        found = field_of(response, "ranking")
        good = isinstance(found, list) and len(found) == 1 and isinstance(found[0], list)
        if not good or not all(type(rank) is int and 0 <= rank < 1 << 40 for rank in found[0]):
            why = f"expected one list of ranks in `ranking`, got {shown(response)!r}"
            raise TeacherError(f"{self.url}/ranking: {why}")
        return np.array(found[0], dtype=np.int64)

    def unknown_among(self, rows: Rows) -> list[str]:
        """Items among some rows that the server does not know, each once."""
        return [self._ids[row] for row in np.setdiff1d(rows, self._known).tolist()]

    def _require_known(self, name: str, rows: Rows) -> None:
        if unknown := self.unknown_among(rows):
            why = "which the published teacher server does not know; start it with the same data"
            raise TeacherError(f"{self.url}: {name}: item {unknown[0]!r}, {why}")

    def _refuse(self, ability: str) -> NoReturn:
        raise TeacherError(f"{self.url}: a published teacher server has no {ability}; {_INSTEAD}")


_INSTEAD = (
    "take its weights over with `incatalog teacher import-unirec`, and name that folder, or serve "
    "it with `incatalog teacher serve`"
)


def require_probabilities(teacher: Teacher, flag: str) -> None:
    """Refuses a teacher without probabilities for a setting that needs them.

    Args:
        teacher: The teacher that was opened.
        flag: The flag and its value, as they are typed.

    Raises:
        ConfigError: It is a published server; names the flag and what the server lacks.
    """
    if isinstance(teacher, PublishedTeacher):
        why = "needs log-probabilities of all items, which the published teacher server at"
        raise ConfigError(f"{flag}: {why} {teacher.url} does not have; {_INSTEAD}")


def require_known_items(teacher: Teacher, flag: str, rows: Rows) -> None:
    """Refuses a teacher that does not know an item it may be asked about.

    Args:
        teacher: The teacher that was opened.
        flag: The flag and its value, as they are typed.
        rows: Items it may be asked about; may repeat.

    Raises:
        ConfigError: It is a published server, and was fitted on fewer items; names the flag and an
            item.
    """
    if isinstance(teacher, PublishedTeacher) and (unknown := teacher.unknown_among(rows)):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        asks = f"may ask about item {unknown[0]!r}{more}, which the published teacher server at"
        raise ConfigError(f"{flag}: {asks} {teacher.url} does not know; {_INSTEAD}")


class _Rules:
    """Histories and rules of some questions, once they are checked."""

    def __init__(
        self,
        catalog: Catalog,
        histories: RowLists,
        excluded: MaybeRowLists | None,
        categories: Sequence[str | None] | None,
        exclude_seen: bool,
        url: str,
    ) -> None:
        batch, items = len(histories), len(catalog)
        rows = ragged("history", histories, batch, items, needed_by=url)
        never = None if excluded is None else ragged("excluded", excluded, batch, items)
        if categories is not None:
            check_length("categories", len(categories), batch)
        self.histories = [rows.at(index) for index in range(batch)]
        self._items, self._exclude_seen = items, exclude_seen
        self._never = never
        self._categories = categories or [None] * batch
        self._masks = {
            name: _outside(catalog, name) for name in set(self._categories) if name is not None
        }

    def left_out(self, index: int) -> Bool[np.ndarray, " items"]:
        """Where an item may not be answered after a history."""
        out = np.zeros(self._items, dtype=np.bool_)
        if self._never is not None:
            out[self._never.at(index)] = True
        if self._exclude_seen:
            out[self.histories[index]] = True
        name = self._categories[index]
        return out if name is None else out | self._masks[name]


def _outside(catalog: Catalog, selection: str) -> Bool[np.ndarray, " items"]:
    """True for the items that "+C" (only C) or "-C" (all but C) rules out."""
    only, name = split_category(selection)
    mask = np.full(len(catalog), only)
    mask[catalog.category_rows(name)] = not only
    return mask
