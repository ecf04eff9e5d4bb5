"""Load on services that share a state while they are killed: changes, questions, conversations.

Each item that changes belongs to one thread, which knows what every version has to hold of it:
what it was told is confirmed holds from that version on, and what it was told nothing of may hold
or not until its next change is confirmed.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.replica_world import Nursery, Replica, title

JSON = {"Content-Type": "application/json"}
CHANGERS, ASKERS, TALKERS, OWN = 6, 3, 4, 6
TURNS = 4
_ATTEMPTS = 200
Found = tuple[int, Any]


@dataclass
class Log:
    """What one item was in every version: its title, None where it is not there.

    Attributes:
        switches: The versions from which on something holds, and what.
        doubtful: From which version to which one nothing is known for sure.
    """

    switches: list[tuple[int, str | None]] = field(default_factory=lambda: [(0, None)])
    doubtful: list[tuple[int, int]] = field(default_factory=list)

    def wrong(self, version: int, named: str | None) -> bool:
        """Whether an answer of a version breaks what was confirmed."""
        if any(first < version < end for first, end in self.doubtful):
            return False
        numbers = [number for number, _ in self.switches]
        return self.switches[bisect_right(numbers, version) - 1][1] != named


@dataclass
class Outcome:
    """What a run has seen.

    Attributes:
        counts: How many changes, answers, turns, kills and refusals there were.
        wrong: What should not have been, in words.
        fingerprints: Of each service at the end, with its version.
        seconds: How long it took.
    """

    counts: Counter[str]
    wrong: list[str]
    fingerprints: list[tuple[int, str]]
    seconds: float


class Load:
    """Threads that change, ask and talk until there were so many changes, and so many kills."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        changes: int,
        kill_every: float,
        kills: int = 0,
        seed: int = 0,
    ) -> None:
        self.replicas = replicas
        self.counts, self.wrong = Counter[str](), list[str]()
        self.logs: dict[str, Log] = {}
        # What was answered: the version, the titles by id, and whether all items are named.
        self.answers: list[tuple[int, dict[str, str], bool]] = []
        self.turns: dict[str, list[tuple[str, bool]]] = {}
        self._wanted, self._kill_every, self._seed = changes, kill_every, seed
        self._least = kills
        self._lock, self._over = threading.Lock(), threading.Event()

    def run(self) -> Outcome:
        """Runs it all, and looks whether everything holds."""
        began = time.perf_counter()
        doing: list[tuple[Callable[[int], None], int]] = [
            (self._change, CHANGERS),
            (self._ask, ASKERS),
            (self._talk, TALKERS),
            (self._kill, 1),
        ]
        threads = [
            threading.Thread(target=self._watched, args=(what, number))
            for what, count in doing
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        for replica in self.replicas:
            if not replica.port:
                replica.start()
        fingerprints = self._fingerprints()
        self._check_answers()
        self._check_turns()
        return Outcome(self.counts, self.wrong, fingerprints, seconds)

    def _watched(self, what: Callable[[int], None], number: int) -> None:
        try:
            what(number)
        except Exception as error:
            self._say(f"{what.__name__} {number}: {error!r}")
            self._over.set()

    def _say(self, wrong: str) -> None:
        with self._lock:
            self.wrong.append(wrong)

    def _count(self, what: str) -> int:
        with self._lock:
            self.counts[what] += 1
            return self.counts[what]

    def _change(self, number: int) -> None:
        rng = random.Random(f"{self._seed} change {number}")
        ids = [f"item-{number}-{n}" for n in range(OWN)]
        self.logs |= {one: Log() for one in ids}
        there = dict.fromkeys(ids, False)
        unsure: dict[str, int] = {}  # the versions from which on nothing is known
        last, revision = dict.fromkeys(ids, 0), 0
        while not self._over.is_set():
            item = rng.choice(ids)
            revision += 1
            path = "/v1/catalogs/items/items"
            now: str | None = None
            if there[item] and item not in unsure and rng.random() < 0.4:
                status, found = self._send(rng, "DELETE", f"{path}/{item}", None)
            else:
                now = title(item, revision)
                body = {"items": [{"id": item, "title": now}]}
                status, found = self._send(rng, "POST", path, body)
            if status != 200:
                self._count(f"changes answered {status}" if status else "changes cut off")
                unsure.setdefault(item, last[item])
                time.sleep(0.02)
                continue
            log, version = self.logs[item], found["version"]
            if item in unsure:
                log.doubtful.append((unsure.pop(item), version))
            log.switches.append((version, now))
            there[item], last[item] = now is not None, version
            self._read_back(rng, item, now, version)
            confirmed = self._count("changes confirmed")
            if confirmed >= self._wanted and self.counts["kills"] >= self._least:
                self._over.set()

    def _read_back(self, rng: random.Random, item: str, now: str | None, version: int) -> None:
        """Asks any service for what was just confirmed."""
        if rng.random() > 0.3:
            return
        path = f"/v1/catalogs/items/items/{item}?at_least={version}"
        status, found = self._send(rng, "GET", path, None)
        if status in (200, 404):
            self._count("changes read back elsewhere")
            if (found["title"] if status == 200 else None) != now:
                self._say(f"{item} is {found} after it was made {now!r} in version {version}")

    def _ask(self, number: int) -> None:
        rng = random.Random(f"{self._seed} ask {number}")
        newest = 0
        while not self._over.is_set():
            whole = rng.random() < 0.8
            body: dict[str, Any] = {"k": 100 if whole else 5, "decode": "beam" if whole else "list"}
            body["catalog_version"] = {"at_least": newest}
            status, found = self._send(rng, "POST", "/v1/recommendations", body)
            if status != 200:
                self._count(f"questions answered {status}" if status else "questions cut off")
                time.sleep(0.05)
                continue
            self._count("answers")
            if found["catalog_version"] < newest:
                self._say(f"version {found['catalog_version']} after {newest}")
            newest = found["catalog_version"]
            named = {one["id"]: one["title"] for one in found["items"]}
            self.answers.append((newest, named, whole))
            time.sleep(0.05)

    def _talk(self, number: int) -> None:
        """Holds conversations, each beside another thread that holds the same."""
        rng, turn = random.Random(f"{self._seed} talk {number}"), 0
        while not self._over.is_set():
            turn += 1
            session, text = f"s{number // 2}-{turn // TURNS}", f"turn {turn} of {number}"
            said = [{"role": "user", "content": text}]
            body = {"model": "incatalog", "messages": said, "session": session, "max_tokens": 3}
            status, found = self._send(rng, "POST", "/v1/chat/completions", body)
            if status == 200:
                self._count("turns kept")
            elif status == 409:
                self._count(f"turns refused: {found['error']['code']}")
            else:
                self._count(f"turns answered {status}" if status else "turns cut off")
            if status == 200 or status in (0, 503):
                with self._lock:
                    self.turns.setdefault(session, []).append((text, status == 200))
            time.sleep(0.03)

    def _kill(self, _number: int) -> None:
        rng = random.Random(f"{self._seed} kill")
        while not self._over.wait(self._kill_every * rng.uniform(0.5, 1.5)):
            replica = self.replicas[self._count("kills") % len(self.replicas)]
            replica.kill()
            replica.start()

    def _fingerprints(self) -> list[tuple[int, str]]:
        newest = 0
        for _ in range(2):
            found = []
            for replica in self.replicas:
                path = f"/v1/catalogs/items?at_least={newest}"
                status, body = send(replica.port, "GET", path, None)
                if status != 200:
                    self._say(f"fingerprint: {status} {body}")
                    return []
                newest = max(newest, body["version"])
                found.append((body["version"], body["fingerprint"]))
        return found

    def _check_answers(self) -> None:
        for version, named, whole in self.answers:
            for item, log in self.logs.items():
                if (whole or item in named) and log.wrong(version, named.get(item)):
                    self.wrong.append(f"version {version} names {item} {named.get(item)!r}")

    def _check_turns(self) -> None:
        for session, turns in self.turns.items():
            status, found = send(self.replicas[0].port, "GET", f"/v1/sessions/{session}", None)
            messages = found["messages"] if status == 200 else []
            kept = [one["content"] for one in messages if one["role"] == "user"]
            expected = [text for text, confirmed in turns if confirmed]
            allowed = [text for text, _ in turns]
            if missing := set(expected) - set(kept):
                self.wrong.append(f"session {session} lost {sorted(missing)}")
            if len(kept) != len(set(kept)) or set(kept) - set(allowed):
                self.wrong.append(f"session {session} keeps {kept}; said were {allowed}")

    def _send(self, rng: random.Random, method: str, path: str, body: Any) -> Found:
        for _ in range(_ATTEMPTS):
            if port := rng.choice(self.replicas).port:
                return send(port, method, path, body)
            time.sleep(0.05)
        return 0, None


def send(port: int, method: str, path: str, body: Any) -> Found:
    """Status and body of an answer; status 0 where the connection ended without one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), JSON)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()


def under_load(
    folder: Path,
    model: Path,
    state: str,
    changes: int,
    kill_every: float,
    count: int = 3,
    kills: int = 0,
) -> Outcome:
    """Starts services on a state, loads them, and ends them."""
    flags = ("--model", str(model), "--domain", f"items={model}", "--device", "cpu")
    kept = ("--state", state, "--sessions", state, "--state-timeout", "10")
    nursery = Nursery()
    replicas: list[Replica] = []
    try:
        for number in range(count):
            replicas.append(Replica(nursery, folder / f"log-{number}", *flags, *kept))
        outcome = Load(replicas, changes, kill_every, kills).run()
        for replica in replicas:
            if "Traceback" in (said := replica.said):
                outcome.wrong.append(said[said.index("Traceback") :][:1500])
        return outcome
    finally:
        for replica in replicas:
            if replica.port:
                replica.kill()
        nursery.close()
