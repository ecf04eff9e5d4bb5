"""The client of a teacher that is served elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.row_lists import MaybeRowLists, RowLists, check_length
from incatalog.teacher.selection import ScoringTeacher, split_category
from incatalog.teacher_service.published_teacher import PublishedTeacher
from incatalog.teacher_service.served_teacher import Sender, ServedTeacher, field_of, shown

if TYPE_CHECKING:
    import httpx

TEACHER_HEADER = "incatalog-teacher"
"""Header of every answer: the fingerprint of catalog and weights it comes from."""

_BATCH_ROWS = 256
_INFO = {
    *("teacher", "kind", "temperature", "counts", "empty_histories"),
    *("max_k", "max_rows", "max_scores", "max_body"),
}
# How a server says that it has no such endpoint.
_NO_ENDPOINT = {404, 405}


class BestItems(NamedTuple):
    """The likeliest items after each history, best first."""

    rows: Int64[np.ndarray, "batch n"]  # -1 where fewer items are likely at all
    log_probabilities: Float32[np.ndarray, "batch n"]  # natural logarithms; minus infinity there
    rest: Float64[np.ndarray, " batch"]  # logarithm of what all other items have together


class HttpTeacher(ServedTeacher):
    """Asks `incatalog teacher serve`; answers are those of the same teacher in this process.

    The service says who it is at the start and with every answer: a teacher of another catalog, or
    one that changes during a training, is an error. What fails for a moment is sent again, as
    `Sender` does; questions change nothing there.
    """

    def __init__(
        self,
        url: str,
        catalog: Catalog,
        *,
        batch_rows: int = _BATCH_ROWS,
        timeout: float = 60.0,
        tries: int = 6,
        backoff: float = 0.25,
    ) -> None:
        super().__init__(Sender(url, timeout=timeout, tries=tries, backoff=backoff), catalog)
        info = self._info()
        self.fingerprint, self.kind = str(info["teacher"]), str(info["kind"])
        self.temperature = float(info["temperature"])
        self._counts, self._empty_histories = bool(info["counts"]), bool(info["empty_histories"])
        self._batch_rows = min(batch_rows, info["max_rows"])
        self._max_k, self._max_body = int(info["max_k"]), int(info["max_body"])
        self._score_rows = min(self._batch_rows, info["max_scores"] // len(catalog))
        self.described = f"`incatalog teacher serve`, a {self.kind}"

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
        self._check_count("k", k)
        columns = self._columns(histories, excluded, categories, candidates)
        result = np.full((len(histories), k), -1, dtype=np.int64)
        common = {"k": k, "exclude_seen": exclude_seen}
        for row, items in enumerate(self._answers("inference", columns, common)):
            result[row, : len(items)] = self._rows(items, k)
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
        columns = self._columns(histories, excluded, categories, candidates)
        answers = self._answers("ranking", columns, {"exclude_seen": exclude_seen})
        # The wire counts from 0.
        places = ([-1 if rank is None else rank + 1 for rank in ranks] for ranks in answers)
        return [np.array(row, dtype=np.int64) for row in places]

    def scores(self, histories: RowLists) -> Float32[np.ndarray, "batch items"]:
        """Scores of all items after each history; see `Teacher.scores`."""
        columns = self._columns(histories)
        result = np.empty((len(histories), self.num_items), dtype=np.float32)
        if histories and not self._score_rows:
            raise TeacherError(f"{self.url}: too many items for an answer of all scores")
        for start in range(0, len(histories), max(1, self._score_rows)):
            lists = columns["item_lists"][start : start + self._score_rows]
            content = self._post("scores", self._body({"item_lists": lists})).content
            rows = result[start : start + len(lists)]
            if len(content) != rows.nbytes:
                raise TeacherError(f"{self.url}/scores: answered with {len(content)} bytes")
            rows[:] = np.frombuffer(content, dtype="<f4").reshape(rows.shape)
            if not np.isfinite(rows.max(axis=1)).all():
                raise TeacherError(f"{self.url}/scores: answered with scores that are not numbers")
        return result

    def log_probabilities(
        self, histories: RowLists, *, left_out: RowLists | None = None
    ) -> Float32[np.ndarray, "batch items"]:
        """Log-probabilities of all items after each history; see `Teacher.log_probabilities`.

        A teacher that counted the training histories would have to count anew to leave some out.
        The service does not, so `left_out` is an error there.
        """
        if left_out is not None:
            check_length("left_out", len(left_out), len(histories))
            if self._counts:
                raise TeacherError(
                    f"left_out: {self.url} serves a teacher that counts ({self.kind}), which "
                    "leaves no history out over HTTP; name its run folder in place of the address"
                )
        result = self.scores(histories)
        for start in range(0, len(result), max(1, self._score_rows)):
            rows = result[start : start + max(1, self._score_rows)]
            exact = rows.astype(np.float64) / self.temperature
            exact -= exact.max(axis=1, keepdims=True)
            rows[:] = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
        return result

    def best_log_probabilities(self, histories: RowLists, n: int) -> BestItems:
        """The `n` likeliest items after each history, and what is left for all others.

        Items of the history count like any other; of equally likely ones the lower row comes first.

        Raises:
            TeacherError: As for `scores`; `n` is above `--max-k` of the service.
        """
        self._check_count("n", n)
        batch = len(histories)
        rows = np.full((batch, n), -1, dtype=np.int64)
        values, rest = np.full((batch, n), -np.inf, dtype=np.float32), np.full(batch, -np.inf)
        kind, columns = "log_probabilities", self._columns(histories)
        for row, answer in enumerate(self._answers(kind, columns, {"best": n})):
            items, found, left = self._likely(answer)
            rows[row, : len(items)] = self._rows(items, n)
            values[row, : len(items)] = found
            rest[row] = left
        return BestItems(rows, values, rest)

    def _likely(self, answer: Any) -> tuple[list[str], list[float], float]:
        """Reads a row of `/log-probabilities`; refuses what are no logarithms of probabilities."""
        try:
            items, values, rest = list(answer["items"]), answer["values"], answer["rest"]
            found = [float(value) for value in values]
            left = -math.inf if rest is None else float(rest)
            # Rounding may take the sum of all a little beyond one.
            good = len(found) == len(items) and all(value <= 1e-6 for value in [*found, left])
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            got = f"{answer!r:.80}"
            why = f"expected items, their log-probabilities and the rest, got {got}"
            raise TeacherError(f"{self.url}/log-probabilities: {why}")
        return items, found, left

    def _check_count(self, name: str, count: int) -> None:
        if not 1 <= count <= self._max_k:
            limit = f"1 to {self._max_k}, which is --max-k of {self.url}"
            raise TeacherError(f"{name}: found {count}; expected {limit}")

    def _columns(
        self,
        histories: RowLists,
        excluded: MaybeRowLists | None = None,
        categories: Sequence[str | None] | None = None,
        candidates: MaybeRowLists | None = None,
    ) -> dict[str, list[Any]]:
        """What every question holds, one entry for each history; checked before it is sent."""
        batch = len(histories)
        columns: dict[str, list[Any]] = {
            "item_lists": self._written(
                "history", histories, batch, may_be_empty=self._empty_histories
            )
        }
        if excluded is not None:
            columns["excluded_item_lists"] = self._written("excluded", excluded, batch)
        if categories is not None:
            check_length("categories", len(categories), batch)
            for category in dict.fromkeys(categories):
                if category is not None:
                    self._catalog.category_rows(split_category(category)[1])
            columns["target_category"] = list(categories)
        if candidates is not None:
            columns["candidate_item_lists"] = self._written("candidates", candidates, batch)
        return columns

    def _answers(
        self, kind: str, columns: dict[str, list[Any]], common: dict[str, Any]
    ) -> Iterator[list[Any]]:
        """The answer to each history, in order."""
        every, size = range(len(columns["item_lists"])), self._batch_rows
        pending = [every[start : start + size] for start in every[::size]][::-1]
        while pending:
            rows = pending.pop()
            part = {name: column[rows.start : rows.stop] for name, column in columns.items()}
            content = self._body(part | common)
            if len(content) > self._max_body and len(rows) > 1:
                half = len(rows) // 2
                pending += [rows[half:], rows[:half]]
            else:
                yield from self._entries(kind, content, len(rows))

    def _body(self, fields: dict[str, Any]) -> bytes:
        # No other question of this process would join, so it does not wait for one.
        body = fields | {"immediately": 1, "catalog": self._catalog.items_fingerprint}
        return json.dumps(body, separators=(",", ":")).encode()

    def _entries(self, kind: str, content: bytes, count: int) -> list[Any]:
        response = self._post(kind.replace("_", "-"), content)
        found = field_of(response, kind)
        if not isinstance(found, list) or len(found) != count:
            got = f"{shown(response)!r}; is it a `incatalog teacher serve`?"
            raise TeacherError(f"{self.url}/{kind}: expected {count} lists in `{kind}`, got {got}")
        return found

    def _info(self) -> dict[str, Any]:
        """Who answers there; refuses one with another catalog."""
        response = self._sender.send("GET", "teacher")
        try:
            info = dict(response.json())
            found, items, name = info["catalog"], info["items"], info["name"]
            if missing := _INFO - info.keys():
                raise KeyError(min(missing))
        except (ValueError, KeyError, TypeError):
            why, got = "not a `incatalog teacher serve` of this version", shown(response)
            raise TeacherError(f"{self.url}: {why}; it answers {got!r}") from None
        catalog = self._catalog
        if found != catalog.items_fingerprint:
            raise TeacherError(
                f"{self.url}: serves the catalog {name!r} of {items} items, another one than "
                f"{catalog.name!r} of {len(catalog)} (items, order or titles differ); "
                "start it with the same data"
            )
        return info

    def _post(self, kind: str, content: bytes) -> httpx.Response:
        response = self._sender.send("POST", kind, content)
        if response.headers.get(TEACHER_HEADER) != self.fingerprint:
            then = "serve the earlier one again, or start a new run"
            raise TeacherError(f"{self.url}: another teacher answers than at the start; {then}")
        return response


def is_url(location: str) -> bool:
    """Whether a teacher is named by the address of a service rather than by a folder."""
    return location.startswith(("http://", "https://"))


def open_served(url: str, catalog: Catalog, **sending: Any) -> HttpTeacher | PublishedTeacher:
    """The teacher at an address: our service, or the published server where it has no `/teacher`.

    Args:
        url: The address.
        catalog: The catalog it was fitted on.
        sending: Options of `Sender`.

    Raises:
        TeacherError: Nobody answers, someone else does, or a teacher of another catalog.
    """
    sender = Sender(url, **sending)
    found = sender.send("GET", "teacher", also=_NO_ENDPOINT).status_code
    if found == 200:
        sender.close()
        return HttpTeacher(url, catalog, **sending)
    return PublishedTeacher(sender, catalog)


def open_teacher(
    location: str, catalog: Catalog, device: str = "auto"
) -> ScoringTeacher | HttpTeacher | PublishedTeacher:
    """The teacher of a run folder, or of the server at a URL, which has a device of its own."""
    if is_url(location):
        return open_served(location, catalog)
    from incatalog.teacher.teacher import load_teacher

    return load_teacher(location, catalog, device)
