"""Do long rankings hold the chats? A short chat alone, and beside clients that rank without pause.

A real `incatalog serve` of the study's model. One client chats, one short answer after the other;
then others ask for the hundred best items of a history each, again and again, on connections of
their own.

    python -m benchmarks.rankings [--model runs/study/cgen] [--clients 16] [--seconds 15]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import threading
import time
from pathlib import Path

from benchmarks.report import markdown
from benchmarks.serving import JSON, Server

from incatalog import Catalog

TOKENS, K = 24, 100


def chats(port: int, seconds: float) -> list[float]:
    """Seconds that each of some short chats took, asked one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 5:
        content = f"Something for evening {len(taken)}, please."
        body = {"model": "incatalog/office", "max_tokens": TOKENS}
        body |= {"messages": [{"role": "user", "content": content}]}
        started = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            sys.exit(text.decode())
        taken.append(time.perf_counter() - started)
    return sorted(taken)


class Rankers:
    """Clients that ask for long rankings until they are stopped."""

    def __init__(self, port: int, clients: int, ids: list[str]) -> None:
        self.taken: list[float] = []
        self._port, self._ids = port, ids
        self._going = True
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets each finish the one it waits for."""
        self._going = False
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        while self._going:
            body = json.dumps({"history": rng.sample(self._ids, 10), "k": K, "decode": "beam"})
            started = time.perf_counter()
            connection.request("POST", "/v1/recommendations", body, JSON)
            response = connection.getresponse()
            found = json.loads(response.read())
            if response.status != 200 or len(found["items"]) != K:
                sys.exit(str(found)[:300])
            self.taken.append(time.perf_counter() - started)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("runs/study/cgen"))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    if not options.model.is_dir():
        sys.exit(f"{options.model}: no such folder; make the study first: make study")
    ids = [item.item_id for item in Catalog.load(options.model).items]
    server = Server(options.model)
    chats(server.port, 2)
    alone = chats(server.port, options.seconds)
    crowd = Rankers(server.port, 1, ids)
    time.sleep(options.seconds)
    crowd.stop()
    single = crowd.taken
    crowd = Rankers(server.port, options.clients, ids)
    beside = chats(server.port, options.seconds)
    crowd.stop()
    busy = crowd.taken
    crowd = Rankers(server.port, options.clients, ids)
    time.sleep(options.seconds)
    crowd.stop()
    server.stop()
    rows = [
        (what, len(taken), f"{statistics.median(taken):.2f} s", f"{max(taken):.2f} s")
        for what, taken in (
            ("a short chat, alone", alone),
            (f"a short chat, beside {options.clients} who rank", beside),
            ("a ranking, alone", single),
            (f"a ranking, of {options.clients} clients", crowd.taken),
            (f"a ranking, of {options.clients} clients beside a chat", busy),
        )
    ]
    print(markdown(("what", "answers", "p50", "longest"), rows))
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"\nThe chat's p50 beside rankings is {ratio:.2f} times that alone.")


if __name__ == "__main__":
    main()
