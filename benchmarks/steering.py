"""Do people get what they ask for? Requests for genres and kinds, steered and not.

Ten phrasings for each of MovieLens' 18 genres and of ten kinds of office products; five of the ten
name what they mean. Others for twenty kinds are held out. Asked for 60 users each: how many of the
five best items are of the genre, with what is said and without. Then users whose next item fits a
request: NDCG@10 of that item.

The items are those that a guide with the weight 1 names, whatever the model is (docs/guide.md).
With `--served`, a service of the model is asked in chats over HTTP as well.

    python -m benchmarks.steering --teacher runs/study/blend --office-teacher RUN --served smollm2
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from benchmarks.report import markdown, publish, shared_data
from benchmarks.serving import JSON, Server
from benchmarks.steering_held_out import HELD_OUT
from benchmarks.steering_requests import GENRES, KINDS, Meant
from jaxtyping import Bool, Float64

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.where import Where
from incatalog.dialogue.render import Message, Text
from incatalog.metrics import bootstrap_intervals
from incatalog.model.pretrained import cache_folder
from incatalog.steering.balance import Balance
from incatalog.steering.steering import Steering
from incatalog.steering.wish import Wish
from incatalog.teacher.held_out import sample_users
from incatalog.teacher.teacher import load_teacher

_ASKED, _K = 5, 10
_NONE = Wish()


@dataclass(frozen=True)
class World:
    """A catalog, its users, and what is asked for there."""

    name: str
    catalog: Catalog
    histories: list[list[int]]
    targets: list[int]
    log_p: Float64[np.ndarray, "users items"]
    steering: Steering
    asked: Mapping[str, Meant]
    allowed: dict[Where, Bool[np.ndarray, " items"]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, name: str, data: Path, teacher: Path, encoder: str, asked: Mapping[str, Meant]
    ) -> World:
        """Asks the teacher about all users once."""
        catalog = Catalog.load(data)
        split = leave_one_out(Histories.load(data, catalog))
        held_out = [split.test(user) for user in sample_users(len(split), 1000, seed=0)]
        histories = [one.history.tolist() for one in held_out]
        log_p = load_teacher(teacher, catalog).log_probabilities(histories).astype(np.float64)
        for line, history in zip(log_p, histories, strict=True):
            line[history] = -np.inf
        balance = Balance.beside(teacher, encoder)
        steering = Steering.of(
            catalog, encoder=encoder, balance=balance, cache=cache_folder() / "steering"
        )
        targets = [one.target for one in held_out]
        return cls(name, catalog, histories, targets, log_p, steering, asked)

    def members(self, kind: str, *, named: bool = False) -> Bool[np.ndarray, " items"]:
        """The items that are meant, or named."""
        meant = self.asked[kind]
        pattern = (named and meant.named) or meant.titles
        if not pattern:
            return self.catalog.allowed_rows([kind])
        found = re.compile(pattern, re.IGNORECASE)
        return np.array([found.search(title) is not None for title in self.catalog.titles])

    def wish(self, phrase: str) -> Wish:
        """What a phrase steers to."""
        return self.steering.read([Message("user", (Text(phrase),))])

    def best(self, user: int, wish: Wish, k: int) -> list[int]:
        """The best items of a user."""
        scores = self.log_p[user].copy()
        if wish.log_weights is not None:
            scores += wish.log_weights
        if wish.filters:
            if wish.where not in self.allowed:
                self.allowed[wish.where] = wish.where.rows(self.catalog)
            scores[~self.allowed[wish.where]] = -np.inf
        rows = np.argsort(-scores, kind="stable")[:k]
        return [row for row in rows.tolist() if np.isfinite(scores[row])]


def main() -> None:
    """Asks everything, and writes ``results/steering.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/study/data"))
    parser.add_argument("--teacher", type=Path, required=True, help="Run folder of a teacher.")
    parser.add_argument("--office-teacher", type=Path, help="The same of shared/data/office.")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--served", help="A model to serve and to ask over HTTP, such as smollm2.")
    options = parser.parse_args()
    worlds = [World.load("films", options.data, options.teacher, options.encoder, GENRES)]
    sources = [(options.data, options.teacher)]
    if options.office_teacher:
        office = shared_data() / "office", options.office_teacher
        own = World.load("office", *office, options.encoder, KINDS)
        worlds += [own, replace(own, name="office, held out", asked=HELD_OUT)]
        sources.append(office)
    parts = []
    for world in worlds:
        shares, total = in_kind(world, options.users)
        gains, gained = next_items(world)
        rows = [(kind, *shares[kind], *gains.get(kind, ("", "", ""))) for kind in world.asked]
        header = ("asked for", "named", "meant", "not steered", "users", "NDCG@10", "not steered ")
        rows.append((f"all {world.name}", *total, *gained))
        parts.append(markdown(header, rows))
    parts.append(_TOLD.format(users=options.users) + cost(worlds[0]))
    if options.served:
        rows = [row for one in zip(worlds, sources, strict=False) for row in served(*one, options)]
        heading = "One phrasing of each kind, a user each, as chats of a running service:"
        parts.append(f"{heading}\n\n{markdown(('asked', 'named', 'meant'), rows)}")
    publish("steering", "Do people get what they ask for?", "\n\n".join(parts))


_TOLD = """Share of the five best items that are what was asked for, mean over {users} users and
phrasings that name it (named) or do not (meant). NDCG@10 of up to 100 users whose held-out
item is what is asked for; phrasings take turns, every second one names it. In brackets 95 % of the
bootstrap over users. What counts as an office product of a kind is a rule about titles, which knows
no synonyms. "Held out" are twenty kinds with three phrasings of each way, written after the first
rules of the steering. The rules of nouns came later, with the ten kinds in view and the
twenty beside them, several times: they decided nothing, but are no longer unseen. """


def in_kind(world: World, count: int) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Shares of the five best items that are of the kind: named, meant, and not steered."""
    users = range(min(count, len(world.histories)))
    cells: dict[str, tuple[str, ...]] = {}
    found = []
    for kind, meant in world.asked.items():
        inside, by_name = world.members(kind), world.members(kind, named=True)

        def share(wish: Wish, inside: Bool[np.ndarray, " items"]) -> float:
            return float(np.mean([inside[world.best(u, wish, _ASKED)].mean() for u in users]))

        named = [share(world.wish(phrase), by_name) for phrase in meant.naming]
        other = [share(world.wish(phrase), inside) for phrase in meant.meaning]
        line = (float(np.mean(named)), float(np.mean(other)), share(_NONE, inside))
        found.append(line)
        cells[kind] = tuple(f"{one:.2f}" for one in line)
        weak = {p: round(s, 2) for p, s in zip(meant.meaning, other, strict=True) if s < 0.4}
        print(kind, *cells[kind], weak, flush=True)
    return cells, tuple(f"{one:.3f}" for one in np.mean(found, axis=0))


def next_items(world: World) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """NDCG@10 of users whose held-out item is of the kind: how many, steered, not steered."""
    cells: dict[str, tuple[str, ...]] = {}
    every: list[tuple[float, float]] = []
    for kind, meant in world.asked.items():
        inside, by_name = world.members(kind), world.members(kind, named=True)
        users = [user for user, row in enumerate(world.targets) if inside[row]][:100]
        phrases = [p for pair in zip(meant.naming, meant.meaning, strict=True) for p in pair]
        wishes = [world.wish(phrase) for phrase in phrases]
        own = []
        for place, user in enumerate(users):
            # Every second phrase names the kind.
            if place % 2 == 0 and not by_name[world.targets[user]]:
                continue
            steered = _ndcg(world, user, wishes[place % len(wishes)])
            own.append((steered, _ndcg(world, user, _NONE)))
        every += own
        if own:
            steered, alone = np.mean(own, axis=0)
            cells[kind] = (str(len(own)), f"{steered:.3f}", f"{alone:.3f}")
    values = np.array(every)
    steered, alone, gain = bootstrap_intervals(
        np.stack([values[:, 0], values[:, 1], values[:, 0] - values[:, 1]], axis=1), 1000, 0
    )
    told = f"{steered.value:.3f} ({gain.value:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})"
    return cells, (str(len(every)), told, f"{alone.value:.3f}")


def _ndcg(world: World, user: int, wish: Wish) -> float:
    best = world.best(user, wish, _K)
    target = world.targets[user]
    return 1 / float(np.log2(2 + best.index(target))) if target in best else 0.0


def cost(world: World) -> str:
    """Milliseconds a message takes: the encoder's own, and all else."""
    phrases = [p for m in world.asked.values() for p in (*m.naming, *m.meaning)]
    sentences = world.steering.likeness.memory.sentences
    reading = []
    for phrase in phrases:  # all are known to the encoder
        start = time.perf_counter()
        world.wish(phrase)
        reading.append(time.perf_counter() - start)
    told = f"Reading a message took {1000 * np.median(reading):.1f} ms (median of {len(reading)}; "
    told += f"{1000 * np.quantile(reading, 0.95):.1f} at the 95th percentile)"
    if sentences is None:
        return f"{told}."
    encoding = []
    for phrase in phrases[::4]:
        start = time.perf_counter()
        sentences.encoder.encode([f"{phrase}, now"])
        encoding.append(time.perf_counter() - start)
    return f"{told}, and the encoder {1000 * np.median(encoding):.1f} ms more."


def served(
    world: World, source: tuple[Path, Path], options: argparse.Namespace
) -> list[tuple[str, ...]]:
    """The same shares from chats with a service, for a sample."""
    data, teacher = source
    flags = ["--domain", f"items={data}", "--guide", str(teacher)]
    flags += ["--encoder", options.encoder]
    rows = []
    with Server(Path(options.served), *flags, own_domain=False) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        for name, steer in (("steered", True), ("not steered", False)):
            shares: dict[str, list[float]] = {"named": [], "meant": []}
            for number, (kind, meant) in enumerate(world.asked.items()):
                for way, phrases in (("named", meant.naming), ("meant", meant.meaning)):
                    inside = world.members(kind, named=way == "named")
                    phrase = phrases[number % len(phrases)]
                    history = world.histories[number]
                    body = {
                        "model": "incatalog/items",
                        "messages": [{"role": "user", "content": phrase}],
                        "history": [world.catalog.item(row).item_id for row in history],
                        "exclude_seen": True,
                        "k": _ASKED,
                        "steer": steer,
                    }
                    found = _answer(connection, body)
                    of_kind = [bool(inside[world.catalog.row(one)]) for one in found]
                    shares[way].append(float(np.mean(of_kind)) if of_kind else 0.0)
            cells = (f"{np.mean(own):.3f}" for own in shares.values())
            rows.append((f"{world.name}: {options.served} over HTTP, {name}", *cells))
    return rows


def _answer(connection: http.client.HTTPConnection, body: Mapping[str, object]) -> Sequence[str]:
    connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
    response = connection.getresponse()
    said = json.loads(response.read())
    if response.status != 200:
        raise SystemExit(f"{response.status} {said}")
    return [item["id"] for item in said["items"]]


if __name__ == "__main__":
    main()
