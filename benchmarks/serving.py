"""What does the service bear: many conversations at once, and a catalog that changes under them?

A real `incatalog serve` of a tiny model over the Office catalog. Clients ask without a pause, each
on a connection of its own; every answer is compared with what the library answers alone in this
process. The weights are random and the model is made to like naming items: time does not depend on
them, and answers are no less particular.

    python -m benchmarks.serving [--seconds 20] [--churn-seconds 60] [--clients 64]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import markdown, publish, shared_data

from incatalog import Catalog, Recommender
from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig

QUESTIONS, TOKENS = 200, 60
ROUNDS, ROUND_SECONDS = 3, 6.0
CHANGES_A_SECOND, CHANGERS = 100, 8
JSON = {"Content-Type": "application/json"}

Question = tuple[dict[str, Any], tuple[str, tuple[str, ...]]]


class Server:
    """A service in a process of its own."""

    def __init__(
        self, model: Path, *flags: str, own_domain: bool = True, files: int | None = None
    ) -> None:
        command = ["serve", "--model", str(model), "--port", "0"]
        command += ["--domain", f"office={model}"] if own_domain else []
        program = [sys.executable, "-m", "incatalog.cli", *command, *flags]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the server
        self._process = subprocess.Popen(
            ["prlimit", f"--nofile={files}", *program] if files else program, stderr=self._log
        )
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.said())):
            if self._process.poll() is not None:
                sys.exit(self.said())
            time.sleep(0.05)
        self.port = int(found[1])
        self.pid = self._process.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> str:
        """What it has written so far."""
        self._log.seek(0)
        return self._log.read()

    def terminate(self) -> None:
        """Asks it to end."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> str:
        """Ends it; what it said."""
        self.terminate()
        self._process.wait(timeout=120)
        return self.said()


class Answer:
    """What one request got.

    Attributes:
        text: The text.
        items: Ids of the items.
        version: The catalog version it was answered with.
        first: Seconds to the first piece.
        begun: Whether anything of it came.
        whole: Whether it was told to its end.
        error: What was told instead.
    """

    def __init__(self, connection: http.client.HTTPConnection, body: dict[str, Any]) -> None:
        self.text, self.items, self.version = "", (), -1
        self.whole, self.begun, self.error = False, False, ""
        self.first = float("nan")
        body = body | {"model": "incatalog", "stream": True}
        try:
            self._read(connection, body)
        except (OSError, http.client.HTTPException) as error:
            self.error = f"cut off: {error!r}"

    def _read(self, connection: http.client.HTTPConnection, body: dict[str, Any]) -> None:
        started = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
        response = connection.getresponse()
        self.begun = True
        if response.status != 200:
            self.error = response.read().decode()
            return
        items: list[str] = []
        while line := response.readline():
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.error = str(chunk)
                    continue
                piece = chunk["choices"][0]["delta"].get("content", "")
                if piece and self.first != self.first:
                    self.first = time.perf_counter() - started
                self.text += piece
                self.version = chunk["catalog_version"]
                items += [item["id"] for item in chunk.get("items", ())]
            elif line.startswith(b"data: [DONE]"):
                self.whole = True
                break
        response.read()
        self.items = tuple(items)


class Crowd:
    """Clients that ask one question after the other."""

    def __init__(self, port: int, count: int, ask: Callable[[random.Random], Any]) -> None:
        self.answers: list[tuple[Any, Answer]] = []
        self.refused = 0
        self._port, self._ask = port, ask
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(number),))
            for number in range(count)
        ]
        self.started = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Waits until the service is gone or `stop` was called."""
        for thread in self._threads:
            thread.join()

    def stop(self) -> float:
        """Lets every client finish its question; the seconds since the start."""
        self._stop.set()
        self.wait()
        return time.perf_counter() - self.started

    def _run(self, rng: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        while not self._stop.is_set():
            question, body = self._ask(rng)
            answer = Answer(connection, body)
            if answer.error.startswith("cut off") and not answer.begun:
                # The service has stopped listening.
                self.refused += 1
                return
            self.answers.append((question, answer))


def make_model(folder: Path) -> Recommender:
    """A tiny model over the Office catalog that likes to open item spans."""
    catalog = Catalog.load(shared_data() / "office", "office")
    backbone = create_tiny(list(catalog.titles), TinyConfig(seed=0))
    network: Any = backbone.model
    torch.manual_seed(1)
    with torch.no_grad():
        network.lm_head.weight = torch.nn.Parameter(torch.randn_like(network.lm_head.weight))
        network.lm_head.weight[backbone.soi_token_id] *= 4
    folder.mkdir()
    save_model(folder, backbone, ModelSpec(base="tiny", list_form="plain"))
    catalog.save(folder)
    return Recommender.from_pretrained(folder, device="cpu")


def make_questions(recommender: Recommender) -> list[Question]:
    """Conversations, lists and plain chat, each with the answer of the library alone."""
    rng = np.random.default_rng(0)
    ids = [item.item_id for item in recommender.catalog.items]
    questions = []
    for number in range(QUESTIONS):
        messages = [{"role": "user", "content": f"Something for desk number {number}, please."}]
        body: dict[str, Any] = {"messages": messages, "max_tokens": TOKENS}
        kind = number % 4
        history = [ids[row] for row in rng.choice(len(ids), 5, replace=False)]
        rows = recommender.catalog.rows(history).tolist() if kind == 1 else []
        if kind:
            body |= {"domain": "office", "history": history if kind == 1 else []}
        if kind == 1:
            body["k"] = 5
        request = recommender.chat_request(
            messages,
            history=rows,
            k=body.get("k"),
            items=kind > 0,
            excluded=recommender.excluded(history=rows, exclude_seen=True) if rows else None,
            max_new_tokens=TOKENS,
        )
        text = recommender.answer_text()
        for event in recommender.engine.generate([request]):
            list(text.feed(event))
        answer = text.answer()
        told = answer.text, tuple(one.item_id for one in answer.items)
        questions.append((body, told))
    return questions


def asker(questions: list[Question]) -> Callable[[random.Random], Any]:
    """Asks any of the questions."""

    def ask(rng: random.Random) -> tuple[Any, dict[str, Any]]:
        body, told = rng.choice(questions)
        return told, body

    return ask


def tokens_written(port: int) -> float:
    """Tokens a service has written so far."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.search(r"^incatalog_tokens_total (\S+)", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def under_load(model: Path, questions: list[Question], clients: int, seconds: float) -> str:
    """The long run, ended by SIGTERM while everybody asks."""
    server = Server(model)
    crowd = Crowd(server.port, clients, asker(questions))
    time.sleep(seconds)
    written = tokens_written(server.port)
    elapsed = time.perf_counter() - crowd.started
    server.terminate()
    crowd.wait()
    found = re.search(r"(\d+) requests accepted, (\d+) answered", server.stop())
    accepted, answered = map(int, found.groups()) if found else (-1, -1)
    counts: Counter[str] = Counter()
    for told, answer in crowd.answers:
        if answer.error or not answer.whole:
            counts["failed"] += 1
        elif (answer.text, answer.items) != told:
            counts["mixed up"] += 1
        else:
            counts["right"] += 1
    first = sorted(a.first for _, a in crowd.answers if a.first == a.first)
    rows = [
        ("answers checked", f"{counts['right']:,}"),
        ("failed", counts["failed"]),
        ("mixed up", counts["mixed up"]),
        ("accepted by the server until SIGTERM ended it", f"{accepted:,}"),
        ("of these lost", accepted - len(crowd.answers)),
        ("answered to the end according to the server", f"{answered:,}"),
        ("refused afterwards", crowd.refused),
        ("answers a second", f"{len(crowd.answers) / elapsed:.1f}"),
        ("tokens a second", f"{written / elapsed:,.0f}"),
        ("first token, p50", f"{1e3 * first[len(first) // 2]:.0f} ms"),
        ("first token, p99", f"{1e3 * first[int(0.99 * len(first))]:.0f} ms"),
    ]
    title = f"{clients} streams, {seconds:g} seconds, then SIGTERM:\n\n"
    return title + markdown(("what", "value"), rows)


def together_or_not(model: Path, questions: list[Question], clients: int) -> str:
    """Both services alive, and a crowd before one after the other."""
    servers = {"side by side": Server(model), "one at a time": Server(model, "--batch", "1")}
    rates: dict[str, list[float]] = defaultdict(list)
    first: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name, server in servers.items():
            before = tokens_written(server.port)
            crowd = Crowd(server.port, clients, asker(questions))
            time.sleep(ROUND_SECONDS)
            rates[name].append((tokens_written(server.port) - before) / ROUND_SECONDS)
            crowd.stop()
            first[name] += [answer.first for _, answer in crowd.answers]
    for server in servers.values():
        server.stop()
    ratio = statistics.median(
        one / other
        for one, other in zip(rates["side by side"], rates["one at a time"], strict=True)
    )
    rows = [
        (
            name,
            f"{statistics.median(rates[name]):,.0f}",
            f"{1e3 * statistics.median(first[name]):.0f} ms",
        )
        for name in servers
    ]
    return f"Side by side against one at a time, in turns: {ratio:.1f} times the tokens.\n\n" + (
        markdown(("answers", "tokens a second", "first token, p50"), rows)
    )


class Changer:
    """Adds and removes items of its own, and remembers in which versions each was there."""

    def __init__(self, port: int, number: int, rate: float, seconds: float) -> None:
        self.present: dict[str, list[list[float]]] = defaultdict(list)
        self.changes, self.errors = 0, []
        self._port, self._number = port, number
        self._rate, self._seconds = rate, seconds
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        rng = random.Random(self._number)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        live: list[str] = []
        started = time.perf_counter()
        while (now := time.perf_counter() - started) < self._seconds:
            wait = self.changes / self._rate - now
            if wait > 0:
                time.sleep(wait)
            if live and (len(live) > 20 or rng.random() < 0.5):
                item_id = live.pop(rng.randrange(len(live)))
                path = f"/v1/catalogs/office/items/{item_id}"
                connection.request("DELETE", path)
                version = self._version(connection)
                self.present[item_id][-1][1] = version
            else:
                item_id = f"churn-{self._number}-{rng.randrange(60)}"
                if item_id in live:
                    continue
                title = f"Seasonal {rng.randrange(10**6)} Item"
                new = {"id": item_id, "title": title, "categories": ["Churn"]}
                body = json.dumps({"items": [new]})
                connection.request("POST", "/v1/catalogs/office/items", body, JSON)
                self.present[item_id].append([self._version(connection), float("inf")])
                live.append(item_id)
            self.changes += 1

    def _version(self, connection: http.client.HTTPConnection) -> float:
        response = connection.getresponse()
        body = json.loads(response.read())
        if response.status != 200:
            self.errors.append(str(body))
            return float("nan")
        return float(body["version"])


def under_churn(model: Path, clients: int, seconds: float, known: set[str]) -> str:
    """A catalog that changes a hundred times a second while everybody asks for what is new."""
    server = Server(model)
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    kept = [{"id": f"kept-{n}", "title": f"Kept {n}", "categories": ["Churn"]} for n in range(3)]
    connection.request("POST", "/v1/catalogs/office/items", json.dumps({"items": kept}), JSON)
    connection.getresponse().read()
    fixed = known | {item["id"] for item in kept}

    def ask(rng: random.Random) -> tuple[None, dict[str, Any]]:
        messages = [{"role": "user", "content": f"What is new for desk {rng.randrange(1000)}?"}]
        body = {"messages": messages, "domain": "office", "max_tokens": TOKENS}
        if rng.random() < 0.7:
            body |= {"k": 3, "categories": ["Churn"]}
        return None, body

    rate = CHANGES_A_SECOND / CHANGERS
    changers = [Changer(server.port, number, rate, seconds) for number in range(CHANGERS)]
    crowd = Crowd(server.port, clients, ask)
    for changer in changers:
        changer.thread.join()
    elapsed = crowd.stop()
    server.stop()
    present: dict[str, list[list[float]]] = {}
    for changer in changers:
        present |= changer.present
    named = invalid = failed = fresh = 0
    for _, answer in crowd.answers:
        failed += bool(answer.error) or not answer.whole
        for item_id in answer.items:
            named += 1
            fresh += item_id in present
            was_there = any(lo <= answer.version < hi for lo, hi in present.get(item_id, ()))
            invalid += not was_there and item_id not in fixed
    changes = sum(changer.changes for changer in changers)
    rows = [
        ("changes a second", f"{changes / seconds:.0f}"),
        ("changes refused", sum(len(changer.errors) for changer in changers)),
        ("answers", f"{len(crowd.answers):,}"),
        ("failed", failed + crowd.refused),
        ("items named", f"{named:,}"),
        ("of these, ones that came while the service ran", f"{fresh:,}"),
        ("not in the version that the answer saw", invalid),
        ("answers a second", f"{len(crowd.answers) / elapsed:.1f}"),
        ("versions", int(max(answer.version for _, answer in crowd.answers))),
    ]
    errors = {changer.errors[0] for changer in changers if changer.errors}
    errors |= {answer.error for _, answer in crowd.answers if answer.error}
    title = f"{clients} streams for {seconds:g} seconds while the catalog changes:\n\n"
    return (
        title
        + markdown(("what", "value"), rows)
        + "".join(f"\n\n`{error[:200]}`" for error in sorted(errors)[:3])
    )


def main() -> None:
    """Runs all three and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--churn-seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "office"
        recommender = make_model(model)
        questions = make_questions(recommender)
        known = {item.item_id for item in recommender.catalog.items}
        parts = [
            under_load(model, questions, options.clients, options.seconds),
            together_or_not(model, questions, options.clients),
            under_churn(model, options.clients, options.churn_seconds, known),
        ]
    publish("serving", "What does the service bear?", "\n\n".join(parts))


if __name__ == "__main__":
    main()
