"""Does the service hold for minutes: right answers and bounded memory while its catalog changes?

A real `incatalog serve`. Clients ask without a pause for conversations, lists and rankings, with
histories, exclusions and sets of categories of their own; others add, remove, disable and enable
items all the while. Every item named is compared with the catalog version that its answer names.

    python -m benchmarks.serving_load [--minutes 10] [--clients 64] [--model runs/study/cgen]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import tempfile
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, publish_part
from benchmarks.serving import JSON, Answer, Server, make_model

from incatalog import Catalog

HEADING = "Minutes of load while the catalog changes"
TOKENS, ANSWERS = 40, 3
CHANGERS, CHANGES_A_SECOND = 4, 10.0
# Of so many items the last one comes and goes, and the one before is disabled and enabled.
SHARE = 4
GROWTH, MOST_MB = 1.2, 700

Kind = str


class Timeline:
    """In which versions something held, by item; written by several threads."""

    def __init__(self) -> None:
        self._switches: dict[str, list[tuple[int, bool]]] = defaultdict(list)

    def switch(self, item_id: str, version: int, *, holds: bool) -> None:
        """Notes that it holds from a version on, or does not any longer."""
        self._switches[item_id].append((version, holds))

    def at(self, item_id: str, version: int, *, before: bool) -> bool:
        """Whether it held in a version; `before` says what was so at the start."""
        switches = self._switches.get(item_id, [])
        place = bisect_right([number for number, _ in switches], version)
        return switches[place - 1][1] if place else before


@dataclass
class World:
    """What may be asked, and what is known of every version.

    Attributes:
        catalog: As the service loads it.
        steady: Ids of the items that no one changes.
        there: When an item was in the catalog.
        disabled: When it was disabled.
    """

    catalog: Catalog
    there: Timeline = field(default_factory=Timeline)
    disabled: Timeline = field(default_factory=Timeline)

    def __post_init__(self) -> None:
        ids = [item.item_id for item in self.catalog.items]
        self.steady = [item_id for n, item_id in enumerate(ids) if n % SHARE < SHARE - 2]
        steady = set(self.steady)
        self.categories = sorted(
            {c for item in self.catalog.items if item.item_id in steady for c in item.categories}
        )
        self.categories_of = {
            item.item_id: frozenset(item.categories) for item in self.catalog.items
        }

    def changed_by(self, number: int) -> tuple[list[str], list[str]]:
        """Ids of the items one of the changers removes, and of those it disables."""
        ids = [item.item_id for item in self.catalog.items]
        removed = [one for n, one in enumerate(ids) if n % SHARE == SHARE - 1]
        disabled = [one for n, one in enumerate(ids) if n % SHARE == SHARE - 2]
        return removed[number::CHANGERS], disabled[number::CHANGERS]

    def ask(self, rng: random.Random) -> dict[str, Any]:
        """A request: its path and body."""
        body: dict[str, Any] = {"domain": "items"}
        body["history"] = rng.sample(self.steady, min(len(self.steady) // 2, rng.randrange(8)))
        body["exclude"] = rng.sample(self.steady, min(len(self.steady) // 2, rng.randrange(8)))
        if self.categories and rng.random() < 0.5:
            most = min(len(self.categories), 6)
            body["categories"] = rng.sample(self.categories, rng.randrange(1, most + 1))
        if rng.random() < 0.15:
            decode = rng.choice(["beam", "list"])
            return body | {"k": rng.randrange(1, 6), "decode": decode}
        text = f"Something like number {rng.randrange(10**6)}, please. " * rng.randrange(1, 6)
        body |= {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS}
        if rng.random() < 0.6:
            body["k"] = rng.randrange(1, 6)
        if rng.random() < 0.2:
            body |= {"temperature": 1.0, "seed": rng.randrange(10**6)}
        return body

    def wrong(self, body: dict[str, Any], items: list[str], version: int) -> Iterator[Kind]:
        """What is wrong with the items of an answer."""
        for item_id in items:
            known = item_id in self.categories_of
            if not self.there.at(item_id, version, before=known):
                yield "not in the version the answer names"
            if self.disabled.at(item_id, version, before=False):
                yield "disabled"
            if item_id in body["exclude"]:
                yield "excluded"
            if item_id in body["history"]:
                yield "seen"
            wanted = body.get("categories")
            if wanted and not self.categories_of.get(item_id, frozenset({"New"})) & set(wanted):
                yield "of another category"
        yield from ["repeated"] * (len(items) - len(set(items)))


class Changers:
    """Threads that change the catalog until they are told to stop."""

    def __init__(self, port: int, world: World) -> None:
        self.changes, self.errors = 0, list[str]()
        self._port, self._world = port, world
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CHANGERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets each finish its change."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        removed, disabled = self._world.changed_by(number)
        there, switched = dict.fromkeys(removed, True), dict.fromkeys(disabled, False)
        there |= {f"new-{number}-{n}": False for n in range(60)}
        for item in there.keys() - set(removed):
            removed.append(item)
        while not self._stop.wait(CHANGERS / CHANGES_A_SECOND):
            if disabled and rng.random() < 0.3:
                item_id = rng.choice(disabled)
                off = switched[item_id] = not switched[item_id]
                path = f"/v1/catalogs/items/items/{item_id}"
                version = self._send(connection, "PATCH", path, {"enabled": not off})
                self._world.disabled.switch(item_id, version, holds=off)
                continue
            item_id = rng.choice(removed)
            add = there[item_id] = not there[item_id]
            if add:
                version = self._send(
                    connection, "POST", "/v1/catalogs/items/items", {"items": [self._item(item_id)]}
                )
            else:
                path = f"/v1/catalogs/items/items/{item_id}"
                version = self._send(connection, "DELETE", path, None)
            self._world.there.switch(item_id, version, holds=add)

    def _item(self, item_id: str) -> dict[str, Any]:
        catalog = self._world.catalog
        if catalog.has(item_id):
            item = catalog.item(catalog.row(item_id))
            return {"id": item_id, "title": item.title, "categories": list(item.categories)}
        return {"id": item_id, "title": f"Seasonal Item {item_id}", "categories": ["New"]}

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any
    ) -> int:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        response = connection.getresponse()
        found = json.loads(response.read())
        self.changes += 1
        if response.status != 200:
            self.errors.append(str(found))
            return -1
        return int(found["version"])


@dataclass
class Clients:
    """Threads that ask until they are told to stop; every answer is kept small.

    Attributes:
        answers: What was asked, the items named and the version.
        errors: What went wrong instead.
    """

    port: int
    world: World
    count: int
    answers: list[tuple[dict[str, Any], list[str], int]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(n),)) for n in range(self.count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets each finish its question."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, rng: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        while not self._stop.is_set():
            body = self.world.ask(rng)
            kept = {name: body.get(name) for name in ("exclude", "history", "categories")}
            if "messages" in body:
                answer = Answer(connection, body)
                if answer.error or not answer.whole:
                    self._failed(answer.error)
                    continue
                self.answers.append((kept, list(answer.items), answer.version))
                continue
            connection.request("POST", "/v1/recommendations", json.dumps(body), JSON)
            response = connection.getresponse()
            found = json.loads(response.read())
            if response.status != 200:
                self._failed(str(found))
                continue
            items = [item["id"] for item in found["items"]]
            self.answers.append((kept, items, found["catalog_version"]))

    def _failed(self, error: str) -> None:
        # A set of categories may have lost all of its items for the moment.
        if "no item left" in error:
            error = "no item left to recommend (allowed)"
        self.errors[error[:160]] += 1


def rss(pid: int) -> tuple[float, float]:
    """Memory of a process now and at most so far, in MB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = dict(line.split(":", 1) for line in text.splitlines())
    now, most = (int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def under_load(model: Path, clients: int, minutes: float) -> str:
    """Runs the load; the table."""
    world = World(Catalog.load(model))
    with Server(model, "--domain", f"items={model}", own_domain=False) as server:
        began = rss(server.pid)[0]
        changers = Changers(server.port, world)
        crowd = Clients(server.port, world, clients)
        memory: list[tuple[float, float]] = []
        started = time.perf_counter()
        step = 60.0 if minutes >= 1 else 60 * minutes
        while (elapsed := time.perf_counter() - started) < 60 * minutes - 1:
            time.sleep(min(step * (len(memory) + 1), 60 * minutes) - elapsed)
            memory.append(rss(server.pid))
        crowd.stop()
        seconds = time.perf_counter() - started
        changers.stop()
    wrong = Counter(kind for asked in crowd.answers for kind in world.wrong(*asked))
    allowed = crowd.errors.pop("no item left to recommend (allowed)", 0)
    growth, last = memory[-1][0] / memory[0][0], memory[-1][0]
    rows = [
        ("answers", f"{len(crowd.answers):,}"),
        ("answers a second", f"{len(crowd.answers) / seconds:.1f}"),
        ("items named", f"{sum(len(items) for _, items, _ in crowd.answers):,}"),
        ("wrong items", sum(wrong.values())),
        ("requests that failed", sum(crowd.errors.values())),
        ("requests whose categories had no item left", allowed),
        ("changes of the catalog", f"{changers.changes:,}"),
        ("changes refused", len(changers.errors)),
        ("memory before the load", f"{began:.0f} MB"),
        ("memory after the first minute", f"{memory[0][0]:.0f} MB"),
        ("memory at the end", f"{last:.0f} MB, {growth:.2f} times that ({GROWTH} at most)"),
        ("most at any time", f"{memory[-1][1]:.0f} MB"),
    ]
    rows += [(f"wrong: {kind}", count) for kind, count in sorted(wrong.items())]
    by_minute = [(n, f"{now:.0f}", f"{most:.0f}") for n, (now, most) in enumerate(memory, 1)]
    title = f"{clients} clients on {model.name} for {minutes:g} minutes"
    title += f", {CHANGES_A_SECOND:g} changes a second wanted:\n\n"
    held = not wrong and not crowd.errors and growth <= GROWTH and last <= MOST_MB
    said = [f"\n\n`{error}`" for error in [*crowd.errors, *changers.errors][:3]]
    return (
        title
        + markdown(("what", "value"), rows)
        + "\n\n"
        + markdown(("minute", "memory, MB", "most so far, MB"), by_minute)
        + "".join(said)
        + f"\n\n{'Held.' if held else 'NOT HELD.'}"
    )


def main() -> None:
    """Runs the load and writes the table into the results of `benchmarks.serving`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path, help="A cgen model; a tiny one by default.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            model = Path(folder) / "office"
            make_model(model)
        body = under_load(model, options.clients, options.minutes)
    publish_part("serving", "serving_load", HEADING, body)


if __name__ == "__main__":
    main()
