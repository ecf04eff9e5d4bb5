"""The client of the teacher server that RecLM-cgen publishes, which someone already runs.

That server answers one history a request, pads it to ten items, knows best items and ranks only,
and fills up with items that do not fit where too few are left. What it can leave out itself is the
history it is shown; every other rule is turned into candidates, or asked a little further for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

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

# A user that every server's map has. The answer does not depend on the user.
_USER = "[PAD]"
_FILLER = "[PAD]"
# Best items by which one server is told from another; further down scores may be nearly alike.
_TOLD_APART_BY = 20
_LACKS = "scores, probabilities, histories to leave out"


class PublishedTeacher(ServedTeacher):
    """Asks a published teacher server for best items and ranks.

    At the start it ranks the whole catalog once, which shows whether the server has these very
    items, and by its best ones which teacher this is. Of a history longer than
    `PUBLISHED_WINDOW` the newest items are sent; all of it counts as seen. `scores`,
    `log_probabilities` and `temperature` are what it lacks: they raise `TeacherError`.
    """

    kind = PUBLISHED

    def __init__(self, sender: Sender, catalog: Catalog) -> None:
        super().__init__(sender, catalog)
        if _FILLER in self._row_of:
            why = f"an item is called {_FILLER}, which is padding for a published server"
            raise TeacherError(
                f"{self.url}: {why}; serve the teacher with `incatalog teacher serve`"
            )
        ranks = self._whole_ranking()
        self._known = len(ranks)
        best = np.argsort(ranks)[:_TOLD_APART_BY]
        # The places among the known items: which ones are unknown is not said.
        self.fingerprint = hashlib.sha256(best.astype("<i8").tobytes()).hexdigest()
        knows = f"{self._known:,} of {len(catalog):,} items"
        self.described = (
            f"a published teacher server: best items and ranks of {knows}, a history a request, "
            f"its newest {PUBLISHED_WINDOW} items; it lacks {_LACKS}"
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
        """Best rows after each history; see `Teacher.top_k`.

        The server adds one to the probabilities of what may be answered, in float32, so that the
        order of items whose probabilities differ by less than 1.2e-7 is chance.
        """
        if k < 1:
            raise TeacherError(f"k: found {k}; expected at least 1")
        batch = len(histories)
        asked = _Rules(self._catalog, histories, excluded, categories, exclude_seen, self.url)
        only = ragged("candidates", candidates or [None] * batch, batch, self.num_items)
        result = np.full((batch, k), -1, dtype=np.int64)
        for index in range(batch):
            fits = ~asked.left_out(index)
            if candidates is not None and candidates[index] is not None:
                fits &= np.isin(np.arange(self.num_items), only.at(index))
            found = self._best(asked.histories[index], fits, k)
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
        asked = _Rules(self._catalog, histories, excluded, categories, exclude_seen, self.url)
        lists = ragged("candidates", candidates, batch, self.num_items)
        result = []
        for index in range(batch):
            rows, out = lists.at(index), asked.left_out(index)
            ranks = np.full(len(rows), -1, dtype=np.int64)
            if (inside := np.flatnonzero(~out[rows])).size:
                without = np.flatnonzero(out)
                places = self._places(asked.histories[index], [*rows[inside], *without])
                # The server ranks all items; those that are left out take no place here.
                before = np.searchsorted(np.sort(places[inside.size :]), places[: inside.size])
                ranks[inside] = places[: inside.size] - before + 1
            result.append(ranks)
        return result

    def _best(self, history: Rows, fits: Bool[np.ndarray, " items"], k: int) -> list[int]:
        """The best rows that fit, `k` at most."""
        seen = history[-PUBLISHED_WINDOW:]
        others = fits.copy()
        others[seen] = False
        # What else does not fit is asked further for, where it is little; the server leaves out
        # what it is shown itself, and would do so where that may be answered.
        beside = self.num_items - int(others.sum()) - len(np.unique(seen))
        fields: dict[str, Any] = {}
        count = k + beside
        if fits[seen].any() or beside > max(len(history), k):
            count, rows = k, np.flatnonzero(fits)
            fields["candidate_item_lists"] = [[self._ids[row] for row in rows.tolist()]]
            most = min(len(rows), self._known)
        else:
            most = self._known - len(np.unique(seen))
        if not fits.any() or most < 1:
            return []
        count = min(count, most)
        answer = self._ask("inference", history, fields | {"k": count}, count)
        found = self._rows([item for item in answer if item != _FILLER], count)
        if len(set(found)) < len(found):
            raise TeacherError(f"{self.url}/inference: names an item twice: {answer!r:.80}")
        return [row for row in found if fits[row]][:k]

    def _places(self, history: Rows, rows: Sequence[int]) -> Int64[np.ndarray, " rows"]:
        """How many items stand before each of some rows."""
        fields = {"candidate_item_lists": [[self._ids[row] for row in rows]]}
        return self._read_ranks(self._ask("ranking", history, fields, len(rows)), self._known)

    def _whole_ranking(self) -> Int64[np.ndarray, " known"]:
        """How many items stand before each item that the server knows, after no history.

        Raises:
            TeacherError: No published server answers there, or one with other items.
        """
        fields = {"candidate_item_lists": [self._ids]}
        try:
            answer = self._ask("ranking", np.zeros(0, dtype=np.int64), fields, None)
            ranks = self._read_ranks(answer, None)
        except TeacherError as error:
            neither = "no `incatalog teacher serve` (it has no /teacher), and no published server"
            raise TeacherError(f"{self.url}: {neither}: {error}") from error
        if not len(ranks) or not np.array_equal(np.sort(ranks), np.arange(len(ranks))):
            most = f", and {int(ranks.max()) + 1} items at least" if len(ranks) else ""
            raise TeacherError(
                f"{self.url}: a published teacher server with other items: it knows {len(ranks)} "
                f"of the {self.num_items} of {self._catalog.name!r}{most}; start it with this data"
            )
        return ranks

    def _read_ranks(self, answer: Sequence[Any], known: int | None) -> Int64[np.ndarray, " rows"]:
        whole = all(type(rank) is int and 0 <= rank < (known or rank + 1) for rank in answer)
        if not whole:
            most = "" if known is None else f" below {known}"
            why = f"expected whole numbers{most}, got {answer!r:.80}"
            raise TeacherError(f"{self.url}/ranking: {why}")
        return np.array(answer, dtype=np.int64)

    def _ask(
        self, kind: str, history: Rows, fields: dict[str, Any], count: int | None
    ) -> list[Any]:
        """The answer to one history: a list, of `count` entries where that is known."""
        items = [self._ids[row] for row in history[-PUBLISHED_WINDOW:].tolist()]
        body = {"users": [_USER], "item_lists": [items], "item_lengths": [len(items)]}
        content = json.dumps(body | fields | {"immediately": 1}, separators=(",", ":")).encode()
        response = self._sender.send("POST", kind, content)
        found = field_of(response, kind)
        good = isinstance(found, list) and len(found) == 1 and isinstance(found[0], list)
        if not good or (count is not None and len(found[0]) != count):
            most = "" if count is None else f" of {count} entries"
            why = f"expected one list{most} in `{kind}`, got {shown(response)!r}"
            raise TeacherError(f"{self.url}/{kind}: {why}")
        return list(found[0])

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
