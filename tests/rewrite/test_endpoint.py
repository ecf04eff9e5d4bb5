from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from incatalog.errors import ConfigError, ScorerError
from incatalog.rewrite.endpoint import (
    EndpointJudge,
    EndpointPerplexity,
    EndpointRetriever,
    EndpointSettings,
    letter_choice,
)

Answer = Callable[[str, dict[str, Any]], "tuple[int, bytes]"]


class Host:
    """A real HTTP server that answers as it is told to."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                host.asked.append((self.path, body))
                status, content = answer(self.path, body)
                if status == 0:
                    # Dies in the middle of its answer.
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def host() -> Iterator[Callable[[Answer], Host]]:
    running: list[Host] = []

    def start(answer: Answer) -> Host:
        running.append(Host(answer))
        return running[-1]

    yield start
    for one in running:
        one.close()


def settings(*urls: str, **changes: Any) -> EndpointSettings:
    fast = {"tries": 2, "timeout": 0.5, "pause": 0.01, "parallel": 2}
    return EndpointSettings(tuple(urls), "judge", **(fast | changes))


def chat(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def silent(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    time.sleep(2)
    return chat("A")


BROKEN: dict[str, Answer] = {
    "times out": silent,
    "fails": lambda path, body: (500, b"{}"),
    "answers no JSON": lambda path, body: (200, b"<html>gateway</html>"),
    "answers another form": lambda path, body: (200, b'{"choices": []}'),
    "answers without text": lambda path, body: (
        200,
        b'{"choices": [{"message": {"content": null}}]}',
    ),
    "dies mid-way": lambda path, body: (0, b""),
}


@pytest.mark.parametrize("how", BROKEN)
def test_another_address_stands_in(how: str, host: Callable[[Answer], Host]) -> None:
    broken, good = host(BROKEN[how]), host(lambda path, body: chat(" B."))
    judge = EndpointJudge(settings(broken.url, good.url))
    assert judge.choices(["Which?"], [["one", "two", "three"]]) == [1]
    path, body = good.asked[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "judge"
    assert body["temperature"] == 0
    assert body["messages"][0]["content"].splitlines()[:4] == [
        "Which?",
        "A. one",
        "B. two",
        "C. three",
    ]
    # From now on the one that answered is asked first.
    asked = len(broken.asked)
    assert judge.choices(["And now?"], [["one", "two"]]) == [1]
    assert len(broken.asked) == asked


@pytest.mark.parametrize("how", BROKEN)
def test_no_answer_in_all_tries_is_an_error_and_no_reward(
    how: str, host: Callable[[Answer], Host]
) -> None:
    broken, other = host(BROKEN[how]), host(BROKEN[how])
    judge = EndpointJudge(settings(broken.url, other.url, timeout=0.2))
    with pytest.raises(ScorerError, match="no answer from 2 addresses in 2 tries"):
        judge.choices(["Which?"], [["one", "two"]])
    assert len(broken.asked) == len(other.asked) == 2


def test_address_that_recovers_is_asked_again(host: Callable[[Answer], Host]) -> None:
    calls = []

    def sometimes(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        calls.append(body)
        return chat("A") if len(calls) > 1 else (503, b"")

    judge = EndpointJudge(settings(host(sometimes).url))
    assert judge.choices(["Which?"], [["one", "two"]]) == [0]
    assert len(calls) == 2
    # The same question is asked once.
    assert judge.choices(["Which?"], [["one", "two"]]) == [0]
    assert len(calls) == 2


def test_nobody_listens_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ScorerError, match="ConnectError"):
            EndpointJudge(settings(url)).choices(["Which?"], [["one", "two"]])


def test_perplexity_counts_the_tokens_behind_the_prompt(host: Callable[[Answer], Host]) -> None:
    def completions(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        assert body["echo"] is True
        assert body["max_tokens"] == 0
        assert body["prompt"] == "Say Harbour Lights"
        told = {
            "token_logprobs": [None, -9.0, -1.0, -2.0],
            "text_offset": [0, 2, 4, 11],
        }
        return 200, json.dumps({"choices": [{"logprobs": told}]}).encode()

    scorer = EndpointPerplexity(settings(host(completions).url))
    # "Say " are the first four characters; the tokens that end behind them count.
    assert scorer.perplexities(["Say "], ["Harbour Lights"]) == [pytest.approx(math.exp(1.5))]
    nothing = host(
        lambda path, body: (
            200,
            b'{"choices": [{"logprobs": {"token_logprobs": [null], "text_offset": [0]}}]}',
        )
    )
    with pytest.raises(ScorerError, match="no log-probability"):
        EndpointPerplexity(settings(nothing.url)).perplexities([""], ["x"])


def test_similarities_are_cosines(host: Callable[[Answer], Host]) -> None:
    def embeddings(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        vector = [3.0, 4.0] if body["input"] == ["good"] else [1.0]
        return 200, json.dumps({"data": [{"embedding": vector}]}).encode()

    vectors = np.array([[1, 0], [0, 2], [0, 0]], dtype=np.float32)
    scorer = EndpointRetriever(settings(host(embeddings).url), vectors)
    assert scorer.similarities(["good"]).tolist() == [pytest.approx([0.6, 0.8, 0.0])]
    with pytest.raises(ScorerError, match="expected 2 finite numbers"):
        scorer.similarities(["bad"])


def test_letters_are_read_from_answers() -> None:
    assert [letter_choice(text, 4) for text in ("A", " b)", "**C**", "(D)", "“A”")] == [
        0,
        1,
        2,
        3,
        0,
    ]
    assert [letter_choice(text, 4) for text in ("", "E", "?", "1")] == [-1] * 4
    assert letter_choice("D", 3) == -1


def test_settings_that_cannot_work() -> None:
    for wrong in ((), ("localhost:8000",)):
        with pytest.raises(ConfigError, match="at least one http address"):
            EndpointSettings(wrong, "m")
    with pytest.raises(ConfigError, match="tries"):
        settings("http://x", tries=0)
