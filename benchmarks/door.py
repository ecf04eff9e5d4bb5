"""How good is what people get? The same users at every door of a running service.

Each model is served as anyone would (`incatalog serve`), with its guide and without, and asked over
HTTP for ten items after each user's history: as a ranking, as a list, and in a chat (streamed, as
the page does). The teacher alone stands beside them. SmolLM2 was never trained here: what it
lists comes from the guide, and the model only talks around it.

    python -m benchmarks.door --teacher RUN --models runs/study/cgen smollm2
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import markdown, publish
from benchmarks.serving import JSON, Server

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.evaluation.run import sample_users
from incatalog.metrics import bootstrap_intervals
from incatalog.teacher.teacher import load_teacher

_K = 10
_SENTENCE = "Which ten would you recommend to me now?"


def main() -> None:
    """Asks everywhere, and writes ``results/door.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/study/data"))
    parser.add_argument("--teacher", type=Path, required=True, help="Run folder of a teacher.")
    parser.add_argument("--models", nargs="+", default=["runs/study/cgen"])
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--doors", nargs="+", choices=sorted(DOORS), default=list(DOORS))
    options = parser.parse_args()
    catalog = Catalog.load(options.data)
    split = leave_one_out(Histories.load(options.data, catalog))
    users = sample_users(len(split), options.users, seed=0)
    held_out = [split.test(user) for user in users]
    histories = [one.history.tolist() for one in held_out]
    targets = [catalog.item(one.target).item_id for one in held_out]
    teacher = load_teacher(options.teacher, catalog)
    best = teacher.top_k(histories, _K, exclude_seen=True).tolist()
    alone = [[catalog.item(row).item_id for row in rows if row >= 0] for rows in best]
    table = [("teacher alone", "", *figures(alone, targets, catalog), "")]
    shown = [[catalog.item(row).item_id for row in rows] for rows in histories]
    for model in options.models:
        trained = Path(model).is_dir()
        for guided in (True,) if not trained else (True, False):
            flags = ["--domain", f"items={options.data}"]
            flags += ["--guide", str(options.teacher) if not trained else "own"]
            if not guided:
                flags[-1] = "off"
            with Server(Path(model), *flags, own_domain=False) as server:
                for door in options.doors:
                    asked = Asked(server.port, DOORS[door], options.clients)
                    found, seconds = asked.all(shown)
                    name = f"{Path(model).name}{', guided' if guided else ''}"
                    row = (name, door, *figures(found, targets, catalog), f"{seconds:.2f}")
                    print(*row, flush=True)
                    table.append(row)
    header = (
        "model",
        "door",
        "NDCG@10",
        "HR@10",
        "outside",
        "lists of ten",
        "s a list",
    )
    publish(
        "door",
        f"What {len(users)} people get, {catalog.name}",
        markdown(header, table)
        + "\n\nHeld-out last item of each, seen items excluded. In brackets 95 % of the bootstrap "
        f"over users. Seconds with {options.clients} clients at a time. Where a guide weighs alone "
        "(a weight of 1, as for models that were never trained), no pass of a model of "
        "titles or codes decides about a list, and a list without words around it takes none "
        "at all.",
    )


def figures(
    found: Sequence[Sequence[str]], targets: Sequence[str], catalog: Catalog
) -> tuple[str, ...]:
    """Cells of a row: NDCG with its interval, hit rate, items outside, whole lists."""
    gains = np.array(
        [
            1 / np.log2(2 + list(items).index(target)) if target in items else 0.0
            for items, target in zip(found, targets, strict=True)
        ]
    )
    [interval] = bootstrap_intervals(gains[:, None], 1000, 0)
    outside = sum(not catalog.has(item) for items in found for item in items)
    whole = sum(len(set(items)) == _K for items in found)
    ndcg = f"{interval.value:.4f} ({interval.low:.4f}–{interval.high:.4f})"
    return ndcg, f"{(gains > 0).mean():.4f}", str(outside), str(whole)


def ranking(connection: http.client.HTTPConnection, history: list[str]) -> list[str]:
    """A ranking of the first place."""
    return _recommended(connection, history, "beam")


def listed(connection: http.client.HTTPConnection, history: list[str]) -> list[str]:
    """A list that is written."""
    return _recommended(connection, history, "list")


def _recommended(
    connection: http.client.HTTPConnection, history: list[str], decode: str
) -> list[str]:
    body = {"history": history, "k": _K, "decode": decode, "exclude_seen": True}
    answer = _sent(connection, "/v1/recommendations", body)
    return [item["id"] for item in json.loads(answer)["items"]]


def chat(connection: http.client.HTTPConnection, history: list[str]) -> list[str]:
    """The cards of a streamed conversation in which a sentence asks for ten."""
    body = {
        "model": "incatalog/items",
        "messages": [{"role": "user", "content": _SENTENCE}],
        "history": history,
        "exclude_seen": True,
        "k": _K,
        "stream": True,
    }
    lines = _sent(connection, "/v1/chat/completions", body).decode().splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    if wrong := [chunk for chunk in chunks if "error" in chunk]:
        sys.exit(str(wrong[0]))
    return [item["id"] for chunk in chunks for item in chunk.get("items", ())]


def _sent(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> bytes:
    connection.request("POST", path, json.dumps(body), JSON)
    response = connection.getresponse()
    said = response.read()
    if response.status != 200:
        sys.exit(f"{path}: {response.status} {said.decode()[:300]}")
    return said


Ask = Callable[[http.client.HTTPConnection, list[str]], list[str]]
DOORS: dict[str, Ask] = {"ranking": ranking, "list": listed, "chat": chat}


class Asked:
    """Clients that ask for the items of one user after the other."""

    def __init__(self, port: int, ask: Ask, clients: int) -> None:
        self._port, self._ask, self._clients = port, ask, clients

    def all(self, histories: Sequence[list[str]]) -> tuple[list[list[str]], float]:
        """What each user got, and seconds a list."""
        started = time.perf_counter()
        with ThreadPoolExecutor(self._clients) as pool:
            found = list(pool.map(self._one, histories))
        return found, (time.perf_counter() - started) / len(histories)

    def _one(self, history: list[str]) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        try:
            return self._ask(connection, history)
        finally:
            connection.close()


if __name__ == "__main__":
    main()
