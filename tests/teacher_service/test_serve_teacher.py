from __future__ import annotations

import contextlib
import random
import re
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError, TeacherError
from incatalog.teacher.blending import blend_teachers
from incatalog.teacher.fit import fit_teacher
from incatalog.teacher.settings import TeacherBlendSettings, TeacherFitSettings
from incatalog.teacher.teacher import InProcessTeacher, load_teacher
from incatalog.teacher_service.client import HttpTeacher
from incatalog.teacher_service.serve_teacher import serve_teacher, teacher_fingerprint
from incatalog.teacher_service.settings import TeacherServeSettings
from serving import Client, Process

CLIENTS = 32


@pytest.fixture(scope="session")
def process(run: Path, walks: Path) -> Iterator[Process]:
    process = Process(run, walks, "--timeout", "10")
    yield process
    process.kill()


@pytest.fixture(scope="session")
def kinds(run: Path, walks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of a teacher that counts, and of a blend of it with the network."""
    folder = tmp_path_factory.mktemp("kinds")
    knn = fit_teacher(TeacherFitSettings(walks, folder / "knn", kind="knn"))
    blend = TeacherBlendSettings((str(run), str(knn)), walks, folder / "blend")
    return {"knn": knn, "blend": blend_teachers(blend)}


@pytest.mark.parametrize("kind", ["knn", "blend"])
def test_every_kind_answers_as_in_this_process(
    kinds: dict[str, Path], walks: Path, catalog: Catalog, kind: str
) -> None:
    local = load_teacher(kinds[kind], catalog, "cpu")
    histories: list[list[int]] = [[], [3], [3, 4, 5], list(range(20)), [23, 0, 1]]
    process = Process(kinds[kind], walks)
    try:
        remote = HttpTeacher(process.url, catalog, tries=1)
        assert (remote.kind, remote.temperature) == (kind, local.temperature)
        np.testing.assert_array_equal(remote.top_k(histories, 9), local.top_k(histories, 9))
        asked = [[0, 7, 7], [], [5], [20, 21], [2]]
        for found, expected in zip(
            remote.ranking(histories, asked), local.ranking(histories, asked), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(remote.scores(histories), local.scores(histories))
        everything = local.log_probabilities(histories)
        np.testing.assert_allclose(remote.log_probabilities(histories), everything, atol=2e-6)
        best = remote.best_log_probabilities(histories, 5)
        order = np.argsort(-everything, axis=1, kind="stable")[:, :5]
        np.testing.assert_array_equal(best.rows, order)
        np.testing.assert_array_equal(
            best.log_probabilities, np.take_along_axis(everything, order, axis=1)
        )
        shares = np.exp(best.log_probabilities, dtype=np.float64).sum(axis=1) + np.exp(best.rest)
        np.testing.assert_allclose(shares, 1, atol=1e-6)
        with pytest.raises(TeacherError, match=f"left_out: {process.url} serves .*{kind}"):
            remote.log_probabilities([[3]], left_out=[[3, 4]])
        info = Client(process.url).send("GET", "/teacher").body
        assert info["window"] == local.window == 10
        remote.close()
    finally:
        process.kill()


def test_the_fingerprint_is_that_of_all_an_answer_depends_on(
    kinds: dict[str, Path], tmp_path: Path, catalog: Catalog
) -> None:
    folder = tmp_path / "blend"
    shutil.copytree(kinds["blend"], folder)
    first = teacher_fingerprint(folder, catalog)
    assert first == teacher_fingerprint(kinds["blend"], catalog)
    assert first != teacher_fingerprint(kinds["knn"], catalog)
    for beside in ("validation.json", "manifest.json"):
        (folder / beside).unlink()
    assert teacher_fingerprint(folder, catalog) == first
    depends = sorted(path for path in folder.rglob("teacher.*"))
    assert len(depends) == 6  # Description and numbers of the blend and of its two parts.
    for path in depends:
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert teacher_fingerprint(folder, catalog) != first, path
        path.write_bytes(content)
    assert teacher_fingerprint(folder, catalog) == first
    items = [replace(item, categories=("all",)) for item in catalog.items]
    assert teacher_fingerprint(folder, Catalog.from_items(items, "walks")) != first


class Crowd:
    """Clients that ask at random until they are stopped, each checking its own answers.

    Attributes:
        counts: Answers by status; ``wrong`` for those that are not the teacher's, ``broken`` for
            connections that ended without one.
    """

    def __init__(self, url: str, reference: InProcessTeacher, count: int, *, rows: int = 3) -> None:
        self.counts: Counter[Any] = Counter()
        self._rows = rows
        self._expected = [reference.top_k([[row]], 24, exclude_seen=False) for row in range(24)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(Client(url), random.Random(number)))
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Counter[Any]:
        self._stop.set()
        return self.wait()

    def wait(self) -> Counter[Any]:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.counts

    def _ask(self, client: Client, rng: random.Random) -> None:
        while not self._stop.is_set():
            rows = [rng.randrange(24) for _ in range(rng.randint(1, self._rows))]
            k = rng.randint(1, 24)
            body = {
                "item_lists": [[f"i{row}"] for row in rows], "k": k, "exclude_seen": False,
                "immediately": rng.randint(0, 1),
            }  # fmt: skip
            try:
                reply = client.send("POST", "/inference", body)
            except (OSError, HTTPException):
                self.counts["broken"] += 1
                return
            kind: Any = reply.status
            if kind == 200:
                wanted = [[f"i{item}" for item in self._expected[row][0][:k]] for row in rows]
                kind = 200 if reply.body == {"inference": wanted} else "wrong"
            self.counts[kind] += 1


@pytest.mark.long
def test_many_clients_get_their_own_answers(process: Process, reference: InProcessTeacher) -> None:
    crowd = Crowd(process.url, reference, CLIENTS)
    time.sleep(2)
    counts = crowd.stop()
    assert set(counts) == {200}
    assert counts[200] > 10 * CLIENTS


@pytest.mark.long
def test_termination_under_load_loses_no_accepted_request(
    run: Path, walks: Path, reference: InProcessTeacher
) -> None:
    process = Process(run, walks, "--max-batch", "8", "--max-queue", "40", "--max-wait", "0.001")
    try:
        # Three rows from each of 32 clients are more than may wait, so many are told to come back.
        crowd = Crowd(process.url, reference, CLIENTS)
        time.sleep(1)
        process.terminate()
        counts = crowd.wait()
        code, said = process.wait()
    finally:
        process.kill()
    assert code == 0
    found = re.search(r"stopped; (\d+) questions accepted, (\d+) answered", said)
    assert found, said
    accepted, answered = map(int, found.groups())
    assert set(counts) <= {200, 429, "broken"}
    assert counts[429] > 0
    assert accepted == answered == counts[200]


def _attack(process: Process, mode: GenerationMode, examples: int) -> Counter[int]:
    """Sends every operation of the schema random requests; the answers by status."""
    api = schemathesis.openapi.from_url(f"{process.url}/openapi.json")
    statuses: Counter[int] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        def attack(case: schemathesis.Case) -> None:
            response = case.call()
            statuses[response.status_code] += 1
            case.validate_response(
                response, checks=[not_a_server_error, response_schema_conformance]
            )

        attack()
    return statuses


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_the_schema_allows_or_not_is_no_server_error(
    process: Process, mode: GenerationMode
) -> None:
    statuses = _attack(process, mode, 12)
    assert statuses.keys() <= {200, 400, 404, 405, 409, 413, 422}
    assert statuses[422] > 10


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_server_error_at_length(process: Process, mode: GenerationMode) -> None:
    assert _attack(process, mode, 400)[422] > 400


def test_examples_of_the_schema_are_answered(process: Process) -> None:
    client = Client(process.url)
    paths = client.send("GET", "/openapi.json").body["paths"]
    asked = 0
    for path in ("/inference", "/ranking", "/scores", "/log-probabilities"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert client.send("POST", path, example["value"]).status == 200, example
            asked += 1
    client.close()
    assert asked == 6


@pytest.mark.long
def test_half_sent_requests_keep_no_one_out(process: Process) -> None:
    port = int(process.url.rsplit(":", 1)[1])
    sent = (
        b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost",
    )
    with contextlib.ExitStack() as held:
        for number in range(1000):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(sent[number % 2])
            if number % 100 == 99:
                started = time.perf_counter()
                client = Client(process.url)
                assert client.send("GET", "/healthz").status == 200
                client.close()
                assert time.perf_counter() - started < 1
        # It takes no longer than a request may to be rid of them.
        connection.settimeout(20)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"port": 70000}, "--port 70000: expected 0 to 65535"),
    ({"max_batch": 0}, "--max-batch 0: expected at least 1"),
    ({"max_wait": -1.0}, "--max-wait -1.0: expected at least 0"),
    ({"timeout": float("nan")}, "--timeout nan: expected more than 0"),
    ({"model": Path("no/where")}, "--model no/where: no such folder"),
    ({"host": "no.such.host.invalid"}, "--host no.such.host.invalid: "),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_settings_that_cannot_work(
    run: Path, walks: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        serve_teacher(TeacherServeSettings(**{"model": run, "data": walks, "port": 0, **changes}))


def test_a_taken_port_is_named(process: Process, run: Path, walks: Path) -> None:
    with pytest.raises(ConfigError, match=f"--port {process.port} on 127.0.0.1: .* in use"):
        serve_teacher(TeacherServeSettings(run, walks, port=process.port))


def test_a_teacher_of_another_catalog_is_not_served(
    run: Path, tmp_path: Path, walks: Path, catalog: Catalog
) -> None:
    Catalog.from_items(catalog.items[::-1], "swapped").save(tmp_path)
    (tmp_path / "sequential.jsonl").write_text("{}")
    with pytest.raises(TeacherError, match="fitted on another catalog"):
        serve_teacher(TeacherServeSettings(run, tmp_path, port=0))


def _without(module: str) -> Callable[..., Any]:
    import importlib

    def load(name: str, *arguments: Any) -> Any:
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments)

    real = importlib.import_module
    return load


def test_a_missing_extra_is_named(run: Path, walks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", _without("uvicorn"))
    with pytest.raises(
        ImportError, match=r"uvicorn is not installed; run: pip install 'incatalog\[s"
    ):
        serve_teacher(TeacherServeSettings(run, walks, port=0))
