"""A Postgres that is there, goes away and comes back, under stores and under a real service."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.replica_world import Postgres, postgres, postgres_lacks

from chatting import Server
from incatalog import Item, Recommender
from incatalog.errors import ArtifactError, ConfigError, StateError
from incatalog.serving.catalogs import Domain
from incatalog.serving.rates import SharedRates
from incatalog.serving.sessions import SessionStore
from incatalog.serving.store import CatalogStore, NewItem, Stored, new_mark

pytestmark = pytest.mark.long
HELLO = [{"role": "user", "content": "Hé, ☃"}]
CHANGE = [Stored("x", NewItem(Item("x", "New")))]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if lacking := postgres_lacks():
        pytest.skip(lacking)
    with postgres() as running:
        yield running


def test_two_stores_compare_and_set(server: Postgres) -> None:
    with closing(CatalogStore(server.url)) as one, closing(CatalogStore(server.url)) as other:
        one.begin("compared", "base")
        other.begin("compared", "base")
        with pytest.raises(ArtifactError, match="begun with other items"):
            other.begin("compared", "another")
        start = one.head("compared")
        made = one.append("compared", start, new_mark(), CHANGE, {"x": True})
        assert made is not None
        assert made.number == 1
        assert other.append("compared", start, new_mark(), [], {}) is None
        grown = other.since("compared", start)
        assert grown is not None
        assert (grown.head, grown.marks) == (made, {made.mark})
        assert (dict(grown.changes), dict(grown.absent)) == ({"x": CHANGE[0]}, {"x": True})
        whole = other.whole("compared")
        assert (whole.head, list(whole.changes), whole.absent) == (made, CHANGE, {"x"})
        with other.held("compared"):
            assert other.append("compared", made, new_mark(), [], {"x": False}) is not None
        assert one.whole("compared").absent == frozenset()


def test_who_waits_is_told_at_once(server: Postgres) -> None:
    with closing(CatalogStore(server.url)) as one, closing(CatalogStore(server.url)) as other:
        one.begin("told", "base")
        other.wait(0.01)
        change = (one.head("told"), new_mark(), CHANGE, {})
        teller = threading.Timer(0.2, one.append, ("told", *change))
        began = time.monotonic()
        teller.start()
        other.wait(60)
        assert time.monotonic() - began < 30
        teller.join()


def test_of_two_turns_after_the_same_one_the_later_is_told(server: Postgres) -> None:
    with closing(SessionStore(server.url)) as one, closing(SessionStore(server.url)) as other:
        assert one.save("me", "mine", HELLO, None)
        assert not other.save("me", "mine", HELLO, None)
        found = other.conversation("me", "mine")
        assert found.messages[0].text == "Hé, ☃"
        assert other.save("me", "mine", HELLO * 2, found.mark)
        assert not one.save("me", "mine", HELLO * 3, found.mark)
        assert len(one.conversation("me", "mine").messages) == 2
        assert one.forget("me", "mine")
        assert not other.forget("me", "mine")


def test_requests_are_counted_together(server: Postgres, tmp_path: Path) -> None:
    for state in (server.url, tmp_path / "state.sqlite"):
        with closing(SharedRates(state, 5.0)) as one, closing(SharedRates(state, 5.0)) as other:
            waits = [store.take("me", 6) for store in (one, other) * 4]
            assert waits[:6] == [0.0] * 6
            assert all(0 < wait <= 10 for wait in waits[6:])
            assert other.take("you", 6) == 0.0


def test_addresses_that_cannot_work_are_one_line_without_the_password(server: Postgres) -> None:
    nowhere = "postgresql://shop:secret@127.0.0.1:1/shop"
    for address, kind, message in (
        (nowhere, StateError, "postgresql://127.0.0.1:1/shop: cannot be reached"),
        (server.url.replace("/postgres", "/none"), StateError, '"none" does not exist'),
        ("postgresql://shop:secret@[::/shop", ConfigError, "the address of Postgres is malformed"),
    ):
        with pytest.raises(kind, match=message) as error:
            CatalogStore(address)
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)


def test_a_change_while_postgres_is_started_anew_is_made_once(
    server: Postgres, recommender: Recommender
) -> None:
    with closing(CatalogStore(server.url, timeout=60)) as store:
        domain = Domain("restarted", recommender, store)
        server.kill()
        back = threading.Timer(0.5, server.start)
        back.start()
        assert asyncio.run(domain.remove(["i5"])).number == 1
        back.join()


def test_a_server_that_hangs_is_given_up(server: Postgres) -> None:
    with closing(CatalogStore(server.url, timeout=0.5)) as store:
        store.begin("hanging", "base")
        with server.hanging():
            began = time.monotonic()
            with pytest.raises(StateError):
                store.heads()
            # Once the old connection is given up, no new one is made.
            assert time.monotonic() - began < 30
        assert store.head("hanging").number == 0


def overtaken(slow: httpx.Client, fast: httpx.Client, asked: dict[str, Any]) -> tuple[str, bool]:
    """A stream during which another service answers a turn of the same session."""
    long = asked | {"stream": True, "max_tokens": 400}
    with slow.stream("POST", "/v1/chat/completions", json=long) as reply:
        assert reply.status_code == 200
        lines = reply.iter_lines()
        next(lines)
        done = fast.post("/v1/chat/completions", json=asked)
        return "".join(lines), done.status_code == 200


@pytest.mark.timeout(600)
def test_a_service_without_its_postgres_confirms_nothing_and_recovers(
    server: Postgres, tmp_path: Path, model: Path
) -> None:
    state = ("--state", server.url, "--sessions", server.url, "--state-timeout", "1")
    flags = ("--model", model, "--domain", f"served={model}", *state)
    items = "/v1/catalogs/served/items"
    said = [{"role": "user", "content": "Hello"}]
    asked = {"model": "incatalog", "messages": said, "session": "s", "max_tokens": 3}

    def change(http: httpx.Client, number: int) -> httpx.Response:
        new = {"items": [{"id": f"n{number}", "title": f"New {number}"}]}
        return http.post(items, json=new)

    with (
        Server(tmp_path / "one", *flags) as one,
        Server(tmp_path / "other", *flags) as other,
        httpx.Client(base_url=one.url, timeout=100) as http,
        httpx.Client(base_url=other.url, timeout=100) as elsewhere,
    ):
        assert change(http, 0).json()["version"] == 1
        seen: dict[str, Any] = {"k": 3, "catalog_version": {"at_least": 1}}
        found = elsewhere.post("/v1/recommendations", json=seen).json()
        assert found["catalog_version"] == 1
        assert elsewhere.get(f"{items}/n0?at_least=1").json()["title"] == "New 0"
        # A version that nobody has made is told from one that has not arrived.
        ahead = elsewhere.post("/v1/recommendations", json={"catalog_version": {"at_least": 9}})
        assert (ahead.status_code, ahead.json()["error"]["code"]) == (409, "version_ahead")
        assert http.post("/v1/chat/completions", json=asked).status_code == 200
        # Of two turns at once the later one is told, though it was answered to its end.
        for _ in range(20):
            told, other_kept = overtaken(elsewhere, http, asked | {"session": "t"})
            if other_kept and "session_changed" in told:
                break
        assert "session_changed" in told
        assert told.endswith("data: [DONE]")
        server.kill()
        for reply in (
            change(http, 1),
            http.post("/v1/chat/completions", json=asked),
            http.post("/v1/recommendations", json={"catalog_version": {"at_least": 2}}),
        ):
            assert reply.status_code == 503, reply.text
            assert reply.json()["error"]["code"] in ("state_unavailable", "state_behind")
            assert reply.headers["retry-after"] == "1"
            assert "127.0.0.1" not in reply.text
        # What needs nothing of it is answered, by the version that it names.
        assert http.post("/v1/recommendations", json={"k": 3}).json()["catalog_version"] == 1
        assert http.get("/readyz").status_code == 200
        server.start()
        for _ in range(100):
            if (reply := change(http, 2)).status_code == 200:
                break
        assert reply.json()["version"] == 2
        path = "/v1/catalogs/served?at_least=2"
        both = [client.get(path).json() for client in (http, elsewhere)]
        assert both[0] == both[1]
        assert both[0]["items"] == 42
        assert elsewhere.post("/v1/chat/completions", json=asked).status_code == 200
        kept = http.get("/v1/sessions/s").json()["messages"]
        assert [one["role"] for one in kept] == ["user", "assistant"] * 2
        for running in (one, other):
            assert "Traceback" not in running.said
