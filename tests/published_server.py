"""RecLM-cgen's teacher server (`unirec/asyc_server.py`) as it behaves on the wire.

`teacher_service/published_answers.json` holds what the real one answered.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.teacher.selection import ScoringTeacher

PAD = "[PAD]"
WINDOW = 10

Scoring = Callable[[list[int]], np.ndarray]
"""Scores of all items of the catalog after some rows."""


class Published:
    """Answers one row of a request; items have the numbers of `known` and padding is 0."""

    def __init__(self, scoring: Scoring, catalog: Catalog, known: Sequence[int]) -> None:
        self._scoring, self._known = scoring, list(known)
        ids = [item.item_id for item in catalog.items]
        self._row_of = {item_id: row for row, item_id in enumerate(ids)}
        self._id_of = [PAD, *(ids[row] for row in known)]
        self._number_of = {item_id: number for number, item_id in enumerate(self._id_of)}
        self._users = {PAD, *(f"u{user}" for user in range(60))}
        self._categories = {
            name: {ids[row] for row in catalog.category_rows(name)} for name in catalog.categories
        }

    def answer(self, kind: str, body: dict[str, Any]) -> list[list[Any]]:
        if body["users"][0] not in self._users:
            raise KeyError(body["users"][0])
        shown = body["item_lists"][0]
        shown = [PAD] * (WINDOW - len(shown)) + shown
        numbers = [self._number_of[item] for item in shown]
        # The table of positions has one row more than the window.
        if len(numbers) > WINDOW + 1:
            raise IndexError("index out of range in self")
        asked = body.get("candidate_item_lists")
        candidates = None if asked is None else asked[0]
        probabilities = self._probabilities([self._row_of[i] for i in shown if i != PAD])
        if kind == "ranking":
            if not body.get("immediately"):
                raise KeyError("top_k")
            probabilities[0] = -torch.inf
            places = probabilities.argsort(descending=True).argsort()
            return [places[self._numbers(candidates)].tolist()]
        if candidates is None:
            candidates = self._not_seen(set(shown), body.get("target_category"))
        probabilities[self._numbers(candidates)] += 1
        probabilities -= 1
        probabilities[0] = -torch.inf
        return [[self._id_of[n] for n in probabilities.topk(body["k"]).indices.tolist()]]

    def _not_seen(self, shown: set[str], selections: list[str] | None) -> list[str]:
        among = set(self._number_of)
        if selections is not None:
            named = self._categories[selections[0][1:]]
            among = named if selections[0][0] == "+" else among - named
        return [item for item in among if item not in shown and item != PAD]

    def _numbers(self, items: Sequence[str]) -> list[int]:
        return [self._number_of[item] for item in items if item in self._number_of]

    def _probabilities(self, rows: list[int]) -> Tensor:
        scores = torch.zeros(len(self._id_of))
        scores[1:] = torch.from_numpy(self._scoring(rows)[self._known]).float()
        return scores.softmax(0)


def scores_of(teacher: ScoringTeacher) -> Scoring:
    """The scores of a teacher; those without a history are arbitrary, but depend on its weights."""
    return lambda rows: teacher.scores([rows[-WINDOW:] or [0]])[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes, which wait for each other without this.
    disable_nagle_algorithm = True
    server: Any

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        kind = self.path.removeprefix("/")
        if self.command != "POST" or kind not in ("inference", "ranking"):
            return self._reply(
                404, _problem(404, "Not Found", f"Requested URL {self.path} not found")
            )
        self.server.asked.append((kind, json.loads(content)))
        try:
            with self.server.lock:
                found = self.server.published.answer(kind, json.loads(content))
        except (KeyError, IndexError, RuntimeError) as error:
            return self._reply(500, _problem(500, "Internal Server Error", str(error)))
        return self._reply(200, {kind: found})

    do_GET = do_POST  # noqa: N815

    def _reply(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _problem(status: int, description: str, message: str) -> dict[str, Any]:
    return {"description": description, "status": status, "message": message}


@contextmanager
def published(
    scoring: Scoring, catalog: Catalog, known: Sequence[int] | None = None, port: int = 0
) -> Iterator[Any]:
    """The server in a thread, as long as the block; `asked` are the requests it has had."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.published = Published(scoring, catalog, range(len(catalog)) if known is None else known)
    server.lock, server.asked = threading.Lock(), []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
