"""The client of a teacher that is served elsewhere."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError, require
from incatalog.teacher.row_lists import MaybeRowLists, RowLists, check_length, ragged
from incatalog.teacher.selection import ScoringTeacher, split_category

if TYPE_CHECKING:
    import httpx

TEACHER_HEADER = "incatalog-teacher"
"""Header of every answer: the fingerprint of catalog and weights it comes from."""

_BATCH_ROWS = 256
_KEEP_ALIVE = 30.0  # less than the time after which the server closes an idle connection
_LONGEST_WAIT = 30.0
_INFO = {
    *("teacher", "kind", "temperature", "counts", "empty_histories"),
    *("max_k", "max_rows", "max_scores", "max_body"),
}
_JSON = {"Content-Type": "application/json"}
# What passes by itself: a timeout, a full queue, a server that restarts behind a proxy.
_PASSING = {408, 429, 502, 503, 504}


class BestItems(NamedTuple):
    """The likeliest items after each history, best first."""

    rows: Int64[np.ndarray, "batch n"]  # -1 where fewer items are likely at all
    log_probabilities: Float32[np.ndarray, "batch n"]  # natural logarithms; minus infinity there
    rest: Float64[np.ndarray, " batch"]  # logarithm of what all other items have together


class HttpTeacher:
    """Asks `incatalog teacher serve`; answers are those of the same teacher in this process.

    The service says who it is at the start and with every answer: a teacher of another catalog, or
    one that changes during a training, is an error. What fails for a moment is sent again, up to
    ``tries`` times, after waits that double from ``backoff`` seconds or as long as ``Retry-After``
    says; questions change nothing there. A forked process opens its own connections.
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
        require("httpx", extra="serve")
        self.url = url.rstrip("/")
        self._catalog = catalog
        self._ids = [item.item_id for item in catalog.items]
        self._row_of = {item_id: row for row, item_id in enumerate(self._ids)}
        self._timeout, self._tries, self._backoff = timeout, max(1, tries), backoff
        self._clients: dict[int, httpx.Client] = {}
        info = self._info()
        self.fingerprint, self.kind = str(info["teacher"]), str(info["kind"])
        self.temperature = float(info["temperature"])
        self._counts, self._empty_histories = bool(info["counts"]), bool(info["empty_histories"])
        self._batch_rows = min(batch_rows, info["max_rows"])
        self._max_k, self._max_body = int(info["max_k"]), int(info["max_body"])
        self._score_rows = min(self._batch_rows, info["max_scores"] // len(catalog))

    def __getstate__(self) -> dict[str, Any]:
        """All but the connections, which belong to their process."""
        return self.__dict__ | {"_clients": {}}

    @property
    def num_items(self) -> int:
        """Items of the catalog."""
        return len(self._catalog)

    def close(self) -> None:
        """Closes the connections of this process; a later question opens new ones."""
        if client := self._clients.pop(os.getpid(), None):
            client.close()

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
        columns: dict[str, list[Any]] = {"item_lists": self._lists("history", histories, batch)}
        if excluded is not None:
            columns["excluded_item_lists"] = self._lists("excluded", excluded, batch)
        if categories is not None:
            check_length("categories", len(categories), batch)
            for category in dict.fromkeys(categories):
                if category is not None:
                    self._catalog.category_rows(split_category(category)[1])
            columns["target_category"] = list(categories)
        if candidates is not None:
            columns["candidate_item_lists"] = self._lists("candidates", candidates, batch)
        return columns

    def _lists(self, name: str, lists: MaybeRowLists, batch: int) -> list[list[str] | None]:
        needed = self.url if name == "history" and not self._empty_histories else ""
        rows, ids = ragged(name, lists, batch, self.num_items, needed_by=needed), self._ids
        return [
            None if given is None else [ids[row] for row in rows.at(index).tolist()]
            for index, given in enumerate(lists)
        ]

    def _rows(self, items: Sequence[str], k: int) -> list[int]:
        if len(items) > k:
            raise TeacherError(f"{self.url}: asked for {k} items, answered with {len(items)}")
        try:
            return [self._row_of[item] for item in items]
        except (KeyError, TypeError) as error:
            why = f"which is not in the catalog {self._catalog.name!r}"
            raise TeacherError(f"{self.url}: answered with item {error}, {why}") from None

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
        found = _field(response, kind)
        if not isinstance(found, list) or len(found) != count:
            got = f"{response.text[:80]!r}; is it a `incatalog teacher serve`?"
            raise TeacherError(f"{self.url}/{kind}: expected {count} lists in `{kind}`, got {got}")
        return found

    def _info(self) -> dict[str, Any]:
        """Who answers there; refuses one with another catalog."""
        response = self._send("GET", "teacher", None)
        try:
            info = dict(response.json())
            found, items, name = info["catalog"], info["items"], info["name"]
            if missing := _INFO - info.keys():
                raise KeyError(min(missing))
        except (ValueError, KeyError, TypeError):
            why, got = "not a `incatalog teacher serve` of this version", response.text[:80]
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
        response = self._send("POST", kind, content)
        if response.headers.get(TEACHER_HEADER) != self.fingerprint:
            then = "serve the earlier one again, or start a new run"
            raise TeacherError(f"{self.url}: another teacher answers than at the start; {then}")
        return response

    def _send(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        """One request, sent again while it fails for a moment."""
        import httpx

        url, wait, said = f"{self.url}/{path}", self._backoff, ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            try:
                response = self._client().request(method, url, content=content, headers=_JSON)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise TeacherError(f"{url}: not an address ({error})") from error
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
                continue
            if response.status_code == 200:
                return response
            said = f"{response.status_code} {_field(response, 'detail', response.text[:80])}"
            if response.status_code not in _PASSING:
                raise TeacherError(f"{url}: {said}")
            wait = max(wait, _retry_after(response))
        then = "is `incatalog teacher serve` running there?"
        raise TeacherError(f"{url}: no answer after {self._tries} tries ({said}); {then}")

    def _client(self) -> httpx.Client:
        """The connections of this process; a forked one must not use those of its parent."""
        import httpx

        client = self._clients.get(os.getpid())
        if client is None:
            limits = httpx.Limits(keepalive_expiry=_KEEP_ALIVE)
            # A proxy from the environment would rarely find a service in the same network.
            client = httpx.Client(timeout=self._timeout, trust_env=False, limits=limits)
            self._clients[os.getpid()] = client
        return client


def _field(response: httpx.Response, name: str, otherwise: Any = None) -> Any:
    try:
        return response.json()[name]
    except (ValueError, KeyError, TypeError):
        return otherwise


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait; 0 where it does not say in seconds."""
    try:
        seconds = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return min(seconds, _LONGEST_WAIT) if math.isfinite(seconds) and seconds > 0 else 0.0


def is_url(location: str) -> bool:
    """Whether a teacher is named by the address of a service rather than by a folder."""
    return location.startswith(("http://", "https://"))


def open_teacher(
    location: str, catalog: Catalog, device: str = "auto"
) -> ScoringTeacher | HttpTeacher:
    """The teacher of a run folder, or of the service at a URL, which has a device of its own."""
    if is_url(location):
        return HttpTeacher(location, catalog)
    from incatalog.teacher.teacher import load_teacher

    return load_teacher(location, catalog, device)
