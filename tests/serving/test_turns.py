from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatting import Server

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keeping")
    flags = ("--model", model, "--max-messages", "10", "--sessions", folder / "s.sqlite")
    with Server(folder / "log", *flags) as running:
        yield running
        assert "Traceback" not in running.said


@pytest.fixture
def http(keeping: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=keeping.url, timeout=60) as client:
        yield client


def body(text: str, session: str, tokens: int = 5, **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    return {
        "model": "incatalog",
        "messages": said,
        "session": session,
        "max_tokens": tokens,
        **fields,
    }


def kept(http: httpx.Client, session: str) -> list[str]:
    """What the user has said, of what the service has kept."""
    found = http.get(f"/v1/sessions/{session}").json()["messages"]
    return [message["content"] for message in found if message["role"] == "user"]


@pytest.mark.long
@pytest.mark.parametrize("stream", [False, True])
def test_turns_that_overlap_are_kept_or_refused(http: httpx.Client, stream: bool) -> None:
    session = f"overlap-{stream}"
    taken: list[str] = []
    refused: list[str] = []

    def ask(number: int) -> None:
        reply = http.post(PATH, json=body(f"turn {number}", session, 40, stream=stream))
        if reply.status_code == 200:
            taken.append(f"turn {number}")
        else:
            assert reply.status_code == 409
            error = reply.json()["error"]
            assert (error["code"], error["param"]) == ("session_busy", "session")
            assert reply.headers["retry-after"] == "1"
            refused.append(f"turn {number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) + len(refused) == 4
    # Whoever got an answer is kept, whoever did not is not.
    assert sorted(kept(http, session)) == sorted(taken)
    # The next turn may come, and other sessions are no one's concern.
    assert http.post(PATH, json=body("last", session)).status_code == 200
    assert kept(http, session) == [*kept(http, session)[:-1], "last"]


def test_a_turn_that_goes_wrong_or_is_left_lets_the_next_begin(http: httpx.Client) -> None:
    for wrong in (
        {"deadline": 1e-6},
        {"domain": "nowhere"},
        {"k": 3},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}] * 11},
    ):
        assert http.post(PATH, json=body("x", "wrong") | wrong).status_code >= 400
    with http.stream("POST", PATH, json=body("gone", "wrong", 400, stream=True)) as reply:
        assert reply.status_code == 200
        # While it is answered, it is not to be deleted, nor is another turn to begin.
        with httpx.Client(base_url=http.base_url, timeout=30) as other:
            assert other.post(PATH, json=body("x", "wrong")).status_code == 409
            assert other.delete("/v1/sessions/wrong").status_code == 409
    for _ in range(100):
        found = http.post(PATH, json=body("right", "wrong"))
        if found.status_code == 200:
            break
    assert found.status_code == 200
    assert kept(http, "wrong") == ["right"]


def test_a_long_conversation_goes_on_without_its_oldest_turns(http: httpx.Client) -> None:
    """By the number of messages: ten at most, the answer to come not counted."""
    first = body("turn 0", "long")
    first["messages"].insert(0, {"role": "system", "content": "Be kind."})
    left_out = [http.post(PATH, json=first).json()["left_out"]]
    for number in range(1, 12):
        reply = http.post(PATH, json=body(f"turn {number}", "long"))
        assert reply.status_code == 200, reply.text
        left_out.append(reply.json()["left_out"])
    # System, four turns and the question make ten; each further one takes the place of another.
    assert left_out == [0] * 5 + [2] * 7
    found = http.get("/v1/sessions/long").json()["messages"]
    assert found[0] == {"role": "system", "content": "Be kind."}
    assert kept(http, "long") == [f"turn {number}" for number in range(7, 12)]


def test_a_conversation_that_outgrows_the_context_goes_on(http: httpx.Client) -> None:
    """By the tokens: the model reads and writes 1,024 in all."""
    left_out = 0
    for number in range(6):
        text = f"turn {number} " + "harbour lights " * 40
        asked = body(text, "wide", 60, stream=number % 2 == 1)
        reply = http.post(PATH, json=asked)
        assert reply.status_code == 200, reply.text
        assert '"error"' not in reply.text
        if number % 2:
            left_out += '"left_out"' in reply.text
        else:
            left_out += reply.json()["left_out"] > 0
            assert reply.json()["usage"]["completion_tokens"] > 0
    assert left_out >= 3
    assert kept(http, "wide")[-1].startswith("turn 5 ")
    # What does not fit by itself is an error still, and changes nothing.
    before = http.get("/v1/sessions/wide").json()
    reply = http.post(PATH, json=body("x" * 50_000, "wide"))
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert http.get("/v1/sessions/wide").json() == before
