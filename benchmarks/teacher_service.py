"""What does the teacher service bear, and does training ever wait for its samples?

A real `incatalog teacher serve` with a network of the published sizes over the games catalog.
Clients ask without a pause, each on a connection of its own, and compare every answer with what the
teacher answers in this process. The weights are random: time does not depend on them, and answers
are no less particular.

    python -m benchmarks.teacher_service [--seconds 60] [--clients 64]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import markdown, publish, shared_data

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher_service.client import HttpTeacher
from incatalog.training.collator import Collator
from incatalog.training.dataset import SftDataset
from incatalog.training.settings import SftSettings
from incatalog.training.sft import train_sft
from incatalog.training.trainer import ScopedTrainer

WINDOW, HIDDEN = 10, 128
QUESTIONS = 3000
ROUNDS, ROUND_SECONDS = 3, 5.0
UNBATCHED = ("--max-batch", "1", "--max-wait", "0")
STEPS, BATCH = 60, 8

Query = tuple[bytes, list[str]]


class Server:
    """A service in a process of its own."""

    def __init__(self, model: Path, data: Path, *flags: str) -> None:
        command = ["teacher", "serve", "--model", str(model), "--data", str(data), "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "incatalog.cli", *command, *flags],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            sys.exit(line + self.process.communicate()[1])
        self.port = int(found[1])

    def stop(self) -> str:
        """Asks it to end; what it said."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[1]


class Crowd:
    """Clients that ask one question after the other, and check what they get."""

    def __init__(self, port: int, questions: list[Query], count: int) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._port, self._questions = port, questions
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(number),))
            for number in range(count)
        ]
        self.started = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def wait(self) -> float:
        """Waits until the service is gone or `stop` was called; the seconds since the start."""
        for thread in self._threads:
            thread.join()
        return time.perf_counter() - self.started

    def stop(self) -> float:
        """Lets every client finish its question."""
        self._stop.set()
        return self.wait()

    def _ask(self, rng: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stop.is_set():
            body, expected = rng.choice(self._questions)
            started = time.perf_counter()
            try:
                connection.request("POST", "/inference", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):
                self.counts["disconnected"] += 1
                return
            self.seconds.append(time.perf_counter() - started)
            if response.status != 200:
                self.counts["failed"] += 1
            elif json.loads(content)["inference"] != [expected]:
                self.counts["mixed up"] += 1
            else:
                self.counts["right"] += 1


def make_questions(teacher: ScoringTeacher, histories: Histories, catalog: Catalog) -> list[Query]:
    """Requests as the published client sends them, each with its answer."""
    rng = np.random.default_rng(0)
    users = rng.choice(len(histories), size=QUESTIONS, replace=False)
    lists = [histories.history(int(user))[: int(rng.integers(1, 15))] for user in users]
    answers = teacher.top_k(lists, 10)
    ids = [item.item_id for item in catalog.items]
    questions = []
    for user, rows, answer in zip(users.tolist(), lists, answers.tolist(), strict=True):
        k = int(rng.integers(1, 11))
        body = {
            "users": [histories.user_ids[user]],
            "item_lists": [[ids[row] for row in rows]],
            "item_lengths": [len(rows)],
            "k": k,
            "immediately": int(rng.integers(0, 2)),
        }
        questions.append((json.dumps(body).encode(), [ids[row] for row in answer[:k]]))
    return questions


def under_load(
    model: Path, data: Path, questions: list[Query], clients: int, seconds: float
) -> str:
    """The long run, ended by SIGTERM while everybody asks."""
    server = Server(model, data)
    crowd = Crowd(server.port, questions, clients)
    time.sleep(seconds)
    elapsed = time.perf_counter() - crowd.started
    asked, times = crowd.counts.total(), sorted(crowd.seconds)
    cut_off = crowd.counts["disconnected"]
    said = server.stop()
    crowd.wait()
    found = re.search(r"(\d+) questions accepted, (\d+) answered", said)
    accepted, answered = map(int, found.groups()) if found else (-1, -1)
    rows = [
        ("answers checked", f"{crowd.counts['right']:,}"),
        ("failed", crowd.counts["failed"] + cut_off),
        ("mixed up", crowd.counts["mixed up"]),
        ("accepted by the server until SIGTERM ended it", f"{accepted:,}"),
        ("of these lost", accepted - crowd.counts["right"] if found else "unknown"),
        ("answered according to the server", f"{answered:,}"),
        ("requests a second", f"{asked / elapsed:,.0f}"),
        ("p50", f"{1e3 * times[len(times) // 2]:.1f} ms"),
        ("p99", f"{1e3 * times[int(0.99 * len(times))]:.1f} ms"),
    ]
    return f"{clients} clients, {seconds:g} seconds, then SIGTERM:\n\n" + markdown(
        ("what", "value"), rows
    )


def batched_or_not(model: Path, data: Path, questions: list[Query], clients: int) -> str:
    """Both services alive, and a crowd before one after the other."""
    servers = {"batched": Server(model, data), "one by one": Server(model, data, *UNBATCHED)}
    rates: dict[str, list[float]] = {name: [] for name in servers}
    times: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, server in servers.items():
            crowd = Crowd(server.port, questions, clients)
            time.sleep(ROUND_SECONDS)
            rates[name].append(crowd.counts.total() / crowd.stop())
            times[name] += crowd.seconds
    for server in servers.values():
        server.stop()
    ratio = statistics.median(
        one / other for one, other in zip(rates["batched"], rates["one by one"], strict=True)
    )
    rows = [
        (
            name,
            f"{statistics.median(rates[name]):,.0f}",
            f"{1e3 * statistics.median(times[name]):.1f} ms",
        )
        for name in servers
    ]
    return f"Batched against one by one, in turns: {ratio:.1f} times the throughput.\n\n" + (
        markdown(("service", "requests a second", "p50"), rows)
    )


def samples_of_a_step(model: Path, data: Path, folder: Path) -> str:
    """How much of a step of the smallest model, the fastest there is, goes into its samples."""
    spent: Counter[str] = Counter()

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] += time.perf_counter() - started

        return run

    watched = [
        (ScoringTeacher, "top_k", "teacher"),
        (HttpTeacher, "top_k", "teacher"),
        (SftDataset, "__getitems__", "samples"),
        (Collator, "__call__", "collating"),
        (ScopedTrainer, "train", "training"),
    ]
    for owner, method, name in watched:
        setattr(owner, method, timed(getattr(owner, method), name))
    server = Server(model, data)
    rows = []
    for name, teacher in (
        ("in process", str(model)),
        ("over HTTP", f"http://127.0.0.1:{server.port}"),
    ):
        spent.clear()
        train_sft(
            SftSettings(
                model="tiny",
                data=data,
                out=folder / name.replace(" ", "-"),
                teacher=teacher,
                tune="full",
                history_form="span",
                scope="branching",
                batch_size=BATCH,
                max_steps=STEPS,
                validate_every=0,
                checkpoint_every=STEPS,
                logging_steps=STEPS,
                device="cpu",
            )
        )
        whole = spent["training"]
        rows.append(
            (
                name,
                f"{1e3 * whole / STEPS:.0f} ms",
                f"{1e3 * spent['teacher'] / STEPS:.1f} ms",
                f"{100 * spent['teacher'] / whole:.1f} %",
                f"{100 * (spent['samples'] + spent['collating']) / whole:.1f} %",
            )
        )
    server.stop()
    header = ("teacher", "step", "asking the teacher", "share", "all of making samples")
    return (
        f"A training step of the smallest model (`tiny`, batch {BATCH}, no workers):\n\n"
        + markdown(header, rows)
    )


def main() -> None:
    """Runs all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    data = shared_data() / "games"
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    torch.manual_seed(0)
    network = SasRec(SasRecSizes(len(catalog), WINDOW, HIDDEN, 4 * HIDDEN, 2, 2, 0.0))
    for parameter in network.parameters():
        # Scores as far apart as those of trained weights.
        torch.nn.init.normal_(parameter, std=0.1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_network(folder / "teacher", network, catalog.fingerprint)
        teacher = load_teacher(folder / "teacher", catalog, "cpu")
        questions = make_questions(teacher, histories, catalog)
        parts = [
            under_load(folder / "teacher", data, questions, options.clients, options.seconds),
            batched_or_not(folder / "teacher", data, questions, options.clients),
            samples_of_a_step(folder / "teacher", data, folder),
        ]
    cores = f"Server, clients and training share {os.cpu_count()} cores."
    question = f"The teacher as a service: {len(catalog):,} items, SASRec {HIDDEN} wide"
    publish("teacher_service", question, "\n\n".join([cores, *parts]))


if __name__ == "__main__":
    main()
