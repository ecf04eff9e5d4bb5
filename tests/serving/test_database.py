from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from incatalog import Item, Recommender
from incatalog.errors import ArtifactError
from incatalog.serving.catalogs import Domain
from incatalog.serving.drafts import fingerprint
from incatalog.serving.sessions import SessionStore
from incatalog.serving.store import CatalogStore, NewItem, Stored, new_mark

STORES = {"state": CatalogStore, "sessions": SessionStore}
HOLDER = """
import sys, time
from pathlib import Path
from incatalog.serving.sessions import SessionStore
store = SessionStore(Path(sys.argv[1]))
assert store.save("me", "mine", [{"role": "user", "content": "Hello"}], None)
print("ready", flush=True)
time.sleep(60)
"""
HELLO = [{"role": "user", "content": "Hello"}]


def fill(store: Any, base: str = "b") -> None:
    """Writes something, so that the log of SQLite is there."""
    if isinstance(store, CatalogStore):
        store.begin("films", base)
        change = Stored("x", NewItem(Item("x", "New")))
        assert store.append("films", store.head("films"), new_mark(), [change], {})
    else:
        assert store.save("me", "mine", HELLO, store.conversation("me", "mine").mark)


@pytest.fixture(autouse=True)
def open_mask() -> Any:
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.mark.parametrize("kind", STORES)
def test_files_are_for_their_owner_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.sqlite"
    store = STORES[kind](path)
    fill(store)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        "s.sqlite", "s.sqlite-shm", "s.sqlite-wal", "s.sqlite.lock",
    ]  # fmt: skip
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"] * 4


@pytest.mark.parametrize("kind", STORES)
def test_files_that_others_may_read_are_closed_to_them(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.sqlite"
    store = STORES[kind](path)
    fill(store)
    # As after a kill: the log is still there.
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    store.close()
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644)
    again = STORES[kind](path)
    fill(again)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    del modes["s.sqlite.lock"]
    assert set(modes.values()) == {0o600}


def test_a_second_process_shares_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        (tmp_path / "link").symlink_to(path)
        for name in ("s.sqlite", "link"):
            with closing(SessionStore(tmp_path / name)) as store:
                found = store.conversation("me", "mine")
                assert [message.text for message in found.messages] == ["Hello"]
                # Of two that go on from the same turn, the later one keeps nothing.
                assert store.save("me", "mine", HELLO, found.mark)
                assert not store.save("me", "mine", [*HELLO, *HELLO], found.mark)
                assert not store.save("me", "mine", [*HELLO, *HELLO], None)
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    with closing(SessionStore(path)) as store:
        assert len(store.conversation("me", "mine").messages) == 1


def test_a_turn_after_a_deleted_conversation_is_not_kept(tmp_path: Path) -> None:
    with closing(SessionStore(tmp_path / "s.sqlite")) as store:
        assert store.save("me", "mine", HELLO, None)
        before = store.conversation("me", "mine").mark
        assert store.forget("me", "mine")
        assert not store.save("me", "mine", HELLO, before)
        assert store.save("me", "mine", HELLO, None)
        # It looks like the one before, and is another one.
        assert not store.save("me", "mine", HELLO, before)


def test_a_file_that_a_service_wants_for_itself_alone_is_refused(tmp_path: Path) -> None:
    """As versions of the package have it that know of no others."""
    path = tmp_path / "s.sqlite"
    with (tmp_path / "s.sqlite.lock").open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.write("4711\n")
        lock.flush()
        with pytest.raises(ArtifactError, match=r"s\.sqlite: process 4711 uses it for itself"):
            SessionStore(path)
    with (
        closing(SessionStore(path)),
        (tmp_path / "s.sqlite.lock").open() as lock,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


OLD_STATE = """
CREATE TABLE format (version INTEGER NOT NULL);
INSERT INTO format VALUES (1);
CREATE TABLE versions (domain TEXT PRIMARY KEY, number INTEGER NOT NULL);
INSERT INTO versions VALUES ('films', 7);
CREATE TABLE items (
    place INTEGER PRIMARY KEY AUTOINCREMENT, domain TEXT NOT NULL, item_id TEXT NOT NULL,
    state TEXT NOT NULL, item TEXT, UNIQUE (domain, item_id)
);
INSERT INTO items VALUES (1, 'films', 'i3', 'removed', NULL);
CREATE TABLE absent (domain TEXT NOT NULL, item_id TEXT NOT NULL, PRIMARY KEY (domain, item_id));
"""
OLD_SESSIONS = """
CREATE TABLE format (version INTEGER NOT NULL);
INSERT INTO format VALUES (1);
CREATE TABLE sessions (
    owner TEXT NOT NULL, name TEXT NOT NULL, messages TEXT NOT NULL, changed REAL NOT NULL,
    PRIMARY KEY (owner, name)
);
INSERT INTO sessions VALUES ('me', 'mine', '[{"role": "user", "content": "Hello"}]', 5.0);
"""


def test_files_of_the_version_before_are_taken_on(tmp_path: Path, recommender: Recommender) -> None:
    state, sessions = tmp_path / "state.sqlite", tmp_path / "sessions.sqlite"
    for path, script in ((state, OLD_STATE), (sessions, OLD_SESSIONS)):
        with closing(sqlite3.connect(path)) as database:
            database.executescript(script)
    for _ in range(2):
        with closing(CatalogStore(state)) as store:
            version = Domain("films", recommender, store).version
            assert (version.number, version.catalog.has("i3")) == (7, False)
    with closing(CatalogStore(state)) as store:
        domain = Domain("films", recommender, store)
        assert asyncio.run(domain.remove(["i4"])).number == 8
    with closing(SessionStore(sessions)) as kept:
        found = kept.conversation("me", "mine")
        assert kept.save("me", "mine", [*HELLO, *HELLO], found.mark)
        assert not kept.save("me", "mine", HELLO, found.mark)


def changed(path: Path, statement: str, *values: Any) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


def item(**changes: Any) -> str:
    whole = {"item_id": "x", "title": "New", "description": "", "categories": [], "title_t": None}
    return json.dumps({"item": whole | changes, "codes": None, "vector": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "item: invalid JSON"),
        ("[]", "item: "),
        ("null", "item: "),
        ("{}", "item: item: field required"),
        (b"\x00\xff", "item: found no text"),
        (7, "item: "),
        (item(title=3), "item: item.title: input should be a valid string"),
        (item(categories="Drama"), "item: item.categories"),
        (item(categories=[1]), "item: item.categories.0"),
        (item(item_id="y"), "item: found that of 'y'; expected 'x'"),
        (item().replace('"vector": null', '"vector": [NaN]'), "expected finite numbers"),
        (item().replace('"codes": null', '"codes": [1.5]'), "item: codes.0"),
    ],
)
def test_malformed_row_of_the_state_is_one_line(
    tmp_path: Path, recommender: Recommender, text: Any, message: str
) -> None:
    path = tmp_path / "s.sqlite"
    store = CatalogStore(path)
    fill(store, fingerprint(recommender))
    store.close()
    changed(path, "UPDATE items SET item = ?", text)
    with pytest.raises(ArtifactError) as error:
        Domain("films", recommender, CatalogStore(path))
    said = str(error.value)
    assert said.startswith(f"{path}: table items, row place 1 of domain 'films': ")
    assert message in said
    assert said.endswith("; delete the row, or put the state back from a copy")
    assert "\n" not in said


def test_other_rows_of_the_state(tmp_path: Path, recommender: Recommender) -> None:
    for statement, value, message in (
        ("UPDATE items SET item_id = ?", b"x", "table items, row place 1 .* item_id: found b'x'"),
        ("UPDATE versions SET number = ?", "two", "table versions, row domain 'films': number"),
        ("UPDATE versions SET number = ?", -1, "table versions, row domain 'films': number"),
        ("UPDATE format SET version = ?", "new", "found format new; expected 2"),
        ("ALTER TABLE items RENAME TO things -- ?", None, None),
        # It is well-formed, and what it says cannot be done.
        ("UPDATE items SET item = ?", item(title=" "), "do not fit its catalog: .*title"),
    ):
        path = tmp_path / f"{abs(hash(statement + str(value)))}.sqlite"
        store = CatalogStore(path)
        fill(store, fingerprint(recommender))
        store.close()
        changed(path, statement, *(() if value is None else (value,)))
        if message is None:
            # A table that is missing is made anew.
            CatalogStore(path).close()
            continue
        with pytest.raises(ArtifactError, match=message):
            Domain("films", recommender, CatalogStore(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid JSON"),
        ("{}", "messages: input should be a valid array"),
        ('[{"role": "user"}]', "messages: 0.content"),
        ('[{"role": "robot", "content": "x"}]', "messages: 0.role"),
        ('[{"role": "user", "content": 5}]', "messages: 0.content"),
        ('[{"role": "user", "content": "x", "items": [{"id": ""}]}]', "messages: 0.items.0"),
        (b"\xff", "invalid JSON"),
        ("[" * 5000, "invalid JSON"),
    ],
)
def test_malformed_row_of_the_sessions_is_one_line(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "s.sqlite"
    store = SessionStore(path)
    assert store.save("me", "a", HELLO, None)
    assert store.save("me", "b", HELLO, None)
    store.close()
    changed(path, "UPDATE sessions SET messages = ? WHERE name = 'b'", text)
    for _ in range(2):
        with pytest.raises(ArtifactError) as error:
            SessionStore(path)
        said = str(error.value)
        assert said.startswith(f"{path}: table sessions, row owner 'me', name 'b': messages: ")
        assert message in said
        assert "\n" not in said
    changed(path, "DELETE FROM sessions WHERE name = 'b'")
    assert len(SessionStore(path).conversation("me", "a").messages) == 1


@pytest.mark.parametrize("kind", STORES)
def test_damaged_file_is_one_line(tmp_path: Path, recommender: Recommender, kind: str) -> None:
    path = tmp_path / "s.sqlite"
    store = STORES[kind](path)
    for _ in range(200):
        fill(store, fingerprint(recommender))
    store.close()
    whole = path.read_bytes()
    for damaged in (whole[:2000], whole[: len(whole) // 2], b"\x00" * 100 + whole[100:]):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"s\.sqlite: ") as error:  # noqa: PT012
            opened = STORES[kind](path)
            if isinstance(opened, CatalogStore):
                Domain("films", recommender, opened)
        assert "\n" not in str(error.value)


def test_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file or directory"):
        SessionStore(tmp_path / "nowhere" / "s.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="not a usable SQLite file"):
        CatalogStore(tmp_path / "folder")
