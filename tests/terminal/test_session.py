"""What a conversation in a terminal does with each line, in this process and over HTTP."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from incatalog import Catalog, Recommender
from incatalog.assistant.assistant import Assistant
from incatalog.errors import ConfigError, ServiceError
from incatalog.quickstart.example_talks import asked
from incatalog.serving.catalogs import load_domains
from incatalog.serving.service import ChatService
from incatalog.serving.settings import ServeSettings
from incatalog.serving.store import CatalogStore
from incatalog.steering.steering import Steering
from incatalog.terminal.local_talker import LocalTalker
from incatalog.terminal.remote_talker import RemoteTalker
from incatalog.terminal.screen import Screen
from incatalog.terminal.session import COMMANDS, ChatSession
from incatalog.terminal.talker import Talker

_MARK = re.compile(r"\[(\d+) · (\w+)\]")


class Talk:
    """A session, and what it writes for each line."""

    def __init__(self, talker: Talker) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()
        self.session = ChatSession(talker, Screen(self._out, self._err))

    def say(self, line: str, *, goes_on: bool = True) -> str:
        assert self.session.line(line) is goes_on
        assert self._err.getvalue() == ""
        return self._take(self._out)

    def answered(self, line: str) -> tuple[str, str]:
        """What stands beside an answer, and the answer."""
        assert self.session.line(line)
        return self._take(self._err), self._take(self._out)

    def refused(self, line: str) -> str:
        assert self.session.line(line)
        said = self._take(self._err)
        assert self._take(self._out) == ""
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said.removeprefix("error: ").strip()

    @staticmethod
    def _take(stream: io.StringIO) -> str:
        said = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return said


@dataclass(frozen=True)
class Server:
    """A service in a thread of the tests."""

    url: str


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, recommender: Recommender, model: Path, books: Path
) -> Iterator[Server]:
    state = tmp_path_factory.mktemp("service") / "state.sqlite"
    with serving(recommender, model, books, state) as server:
        yield server


def _by_words(_name: str, catalog: Catalog) -> Steering:
    return Steering.of(catalog, encoder="words")


@contextlib.contextmanager
def serving(
    recommender: Recommender, model: Path, books: Path, state: Path, *, steered: bool = False
) -> Iterator[Server]:
    how: Any = {"steering": _by_words} if steered else {}
    with contextlib.closing(CatalogStore(state)) as store:
        domains = load_domains(recommender, {"films": model, "books": books}, store, **how)
        app = ChatService(recommender, domains, ServeSettings(model)).app()
        listener = socket.create_server(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        running.should_exit = True
        thread.join()


@pytest.fixture
def local(recommender: Recommender, books: Path) -> Talker:
    other = recommender.with_catalog(Catalog.load(books))
    return LocalTalker({"films": recommender, "books": other}, max_tokens=60)


@pytest.fixture(params=["local", "remote"])
def talk(request: pytest.FixtureRequest) -> Talk:
    if request.param == "local":
        return Talk(request.getfixturevalue("local"))
    return Talk(RemoteTalker(request.getfixturevalue("server").url, max_tokens=60))


def test_items_of_an_answer_are_marked_and_explained(talk: Talk, recommender: Recommender) -> None:
    said = talk.say("Which films do you like?")
    marks = _MARK.findall(said)
    assert marks
    assert [int(number) for number, _ in marks] == list(range(1, len(marks) + 1))
    catalog = recommender.catalog
    for number, item_id in marks:
        item = catalog.item(catalog.row(item_id))
        assert f"{item.title} [{number} · {item_id}]" in said
        told = talk.say(f"/why {number}")
        assert told.startswith(f"{item.title} [{item_id}]\n")
        assert f"categories: {item.categories[0]}" in told
    assert talk.refused("/why 99").startswith("/why 99: expected a number from 1 to ")
    # No colours where nobody looks.
    assert "\x1b" not in said


def test_the_history_takes_titles_as_people_type_them(talk: Talk) -> None:
    assert talk.say("/history") == "history is empty; /history add TITLE\n"
    assert talk.say("/history add night train") == "added Night Train (1959) [i9]\n"
    assert talk.say('/history add "Robot Circus (1984)"') == "added Robot Circus (1984) [i15]\n"
    assert talk.say("/history add i3") == "added Harbour Master, The (1988) [i3]\n"
    lines = talk.say("/history").splitlines()
    assert lines[0] == "1. Night Train (1959) [i9]"
    assert len(lines) == 3
    assert talk.say("/history remove 2") == "removed Robot Circus (1984)\n"
    assert [line[:2] for line in talk.say("/history").splitlines()] == ["1.", "2."]
    assert "/history add qqqqqq: is no item" in talk.refused("/history add qqqqqq")
    assert talk.refused("/history remove 9") == "/history remove 9: expected a number from 1 to 2"
    assert talk.refused("/history foo").startswith("/history foo: expected /history [add TITLE")
    assert talk.say("/history clear") == "history is empty\n"


def test_the_history_forgives_misspelling(talk: Talk) -> None:
    assert talk.say("/history add Robot Circsu Reloaded").startswith("added Robot Circus: Reloaded")
    assert talk.say("/history add señor molinna") == "added Señor Molina (1995) [i14]\n"


def test_no_answer_names_what_was_taken_or_a_filter_forbids(
    talk: Talk, recommender: Recommender
) -> None:
    taken = _MARK.findall(talk.say("Films, please."))[0][1]
    talk.say(f"/history add {taken}")
    talk.say("/new")
    assert taken not in [item for _, item in _MARK.findall(talk.say("Films, please."))]
    assert talk.say('/filter "price<=4"') == "1. price<=4\n"
    assert talk.say("/filter in_stock") == "1. price<=4\n2. in_stock\n"
    talk.say("/new")
    named = _MARK.findall(talk.say("Films, please."))
    assert named
    catalog = recommender.catalog
    for _, item_id in named:
        known = catalog.item(catalog.row(item_id)).attributes
        assert known["price"] <= 4  # type: ignore[operator]
        assert known["in_stock"] is True
    assert talk.say("/filter off 2") == "1. price<=4\n"
    assert talk.say("/filter off") == "no filters\n"
    assert "no condition" in talk.refused("/filter price<=")


def test_filters_that_cannot_hold_are_refused_at_once(talk: Talk) -> None:
    assert "no field 'prise'" in talk.refused("/filter prise<=4")
    assert "no item of 40 fulfils price>1000" in talk.refused("/filter price>1000")
    assert talk.say("/filter") == "no filters\n"


@pytest.fixture(params=["local", "remote"])
def steered(
    request: pytest.FixtureRequest,
    recommender: Recommender,
    model: Path,
    books: Path,
    tmp_path: Path,
) -> Iterator[Talk]:
    """A conversation with somebody who understands filters."""
    hearing = recommender.with_steering(_by_words("films", recommender.catalog))
    if request.param == "local":
        yield Talk(LocalTalker({"films": hearing}, max_tokens=60))
        return
    with serving(recommender, model, books, tmp_path / "state.sqlite", steered=True) as server:
        yield Talk(RemoteTalker(server.url, "films", max_tokens=60))


def test_what_was_understood_can_be_taken_off(steered: Talk, recommender: Recommender) -> None:
    catalog = recommender.catalog

    def kinds(said: str) -> set[str]:
        rows = [catalog.row(item) for _, item in _MARK.findall(said)]
        return {name for row in rows for name in catalog.item(row).categories}

    assert steered.say("/off") == "no filter was understood\n"
    note, said = steered.answered("Crime between 2 and 9 euros, at least 90 minutes, please.")
    assert note == (
        "understood: price between 2 and 9 [price>=2 price<=9], Crime [category=Crime]; /off ID "
        "takes one off; not known here: running times\n"
    )
    assert kinds(said) == {"Crime"}
    told = steered.refused("/off category=Drama")
    assert told.startswith("/off category=Drama: no such filter, did you mean category=Crime?; exp")
    note, said = steered.answered("/off category=Crime")
    assert note.startswith("understood: price between 2 and 9 [price>=2 price<=9]; /off ID")
    assert kinds(said) == {"Crime", "Drama"}
    assert steered.say("/off") == (
        "price>=2 price<=9: price between 2 and 9\n"
        "category=Crime: taken off; /on category=Crime lets it hold again\n"
    )
    assert "not known here" in steered.answered("/off Price between 2 and 9")[0]
    note, _ = steered.answered("/on price>=2")
    assert note.startswith("understood: price from 2 [price>=2]; ")
    assert steered.refused("/on price>=7").startswith(
        "/on price>=7: is not taken off; expected one"
    )
    steered.say("/new")
    assert "price between 2 and 9" in steered.answered("Crime between 2 and 9 euros")[0]


def test_catalogs_are_changed_and_switched_off(talk: Talk) -> None:
    assert talk.say("/domain") == "* films\n  books\n  off\n"
    talk.say("/history add i3")
    talk.say("/filter price<=4")
    assert talk.say("/domain books") == "catalog: books\n"
    # Both were those of the other catalog.
    assert talk.say("/history") == "history is empty; /history add TITLE\n"
    assert talk.say("/filter") == "no filters\n"
    named = _MARK.findall(talk.say("Something to read?"))
    assert {item for _, item in named} <= {"b0", "b1", "b2"}
    assert talk.say("/domain off") == "catalog: off\n"
    assert not _MARK.findall(talk.say("Hello!"))
    assert talk.refused("/history add Zebra").startswith("no catalog is chosen; /domain NAME with")
    expected = "/domain x: no such catalog; expected films, books or off"
    assert talk.refused("/domain x") == expected


def test_commands(local: Talker) -> None:
    talk = Talk(local)
    said = talk.say("/help")
    assert all(f"/{name}" in said for name in COMMANDS)
    assert talk.refused("/hstory") == "/hstory: no such command, did you mean history?; see /help"
    assert talk.refused("/why") == "/why: no answer has named an item yet"
    assert talk.say("   ") == ""
    assert talk.say("/quit", goes_on=False) == ""


def test_titles_that_several_items_have(recommender: Recommender, tmp_path: Path) -> None:
    from incatalog import Item

    films = [Item("a", "Sabrina (1954)"), Item("b", "Sabrina (1995)")]
    other = recommender.with_catalog(Catalog.from_items(films, "films"))
    talk = Talk(LocalTalker({"films": other}))
    told = talk.refused("/history add sabrina")
    assert "is the title of 2 items" in told
    assert "a (Sabrina (1954)), b (Sabrina (1995))" in told
    assert talk.say("/history add Sabrina (1995)") == "added Sabrina (1995) [b]\n"


def test_turns_keep_their_items(recommender: Recommender) -> None:
    """What an answer named is an item for the model in the next turn too."""
    from incatalog.dialogue.render import ItemRef, Message, Text

    talk = Talk(LocalTalker({"films": recommender}, max_tokens=60))
    first = [{"role": "user", "content": "Films, please."}]
    assistant = Assistant.of(recommender)
    answer = assistant.answer(first, usual_tokens=60)
    said = _MARK.sub("", talk.say("Films, please."))
    assert said.replace(" ", "").strip() == answer.text.replace(" ", "").strip()
    assert any(isinstance(part, ItemRef) for part in answer.message.parts)
    turns = [*first, answer.message, Message("user", (Text("More?"),))]
    expected = assistant.answer(turns, usual_tokens=60)
    again = _MARK.findall(talk.say("More?"))
    assert [item for _, item in again] == [one.item_id for one in expected.items]


def test_a_service_that_is_not_there_is_one_line(server: Server) -> None:
    with pytest.raises(ServiceError, match=r"no answer .*; is `incatalog serve` running there"):
        RemoteTalker("http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"not an address .*; expected http://HOST:PORT"):
        RemoteTalker("127.0.0.1")
    with pytest.raises(ConfigError, match=r"--domain toys: .* has films, books"):
        RemoteTalker(server.url, "toys")
    assert RemoteTalker(server.url, "books").domains == ("books", "films")


def test_proxies_are_not_asked_for_a_service(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert RemoteTalker(server.url).domains
    body = {"model": "incatalog", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    assert asked(server.url, body)["choices"]


def test_what_a_service_refuses_is_one_line_and_the_conversation_goes_on(server: Server) -> None:
    talk = Talk(RemoteTalker(server.url, max_tokens=60))
    assert "tokens" in talk.refused("x" * 90_000)
    assert _MARK.findall(talk.say("Films?"))
