from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatting import Server
from incatalog import Item, Recommender
from incatalog.errors import ArtifactError
from incatalog.serving.catalogs import Domain
from incatalog.serving.sessions import SessionStore
from incatalog.serving.store import CatalogStore, NewItem, Stored

STORES = {"state": CatalogStore, "sessions": SessionStore}
HOLDER = """
import sys, time
from pathlib import Path
from incatalog.serving.sessions import SessionStore
store = SessionStore(Path(sys.argv[1]))
store.save("me", "mine", [{"role": "user", "content": "Hello"}])
print("ready", flush=True)
time.sleep(60)
"""


def fill(store: Any) -> None:
    """Writes something, so that the log of SQLite is there."""
    if isinstance(store, CatalogStore):
        store.save("films", 1, [Stored("x", NewItem(Item("x", "New")))])
    else:
        store.save("me", "mine", [{"role": "user", "content": "Hello"}])


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


def test_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        (tmp_path / "link").symlink_to(path)
        for name in ("s.sqlite", "link"):
            with pytest.raises(ArtifactError, match=f"{name}: process {holder.pid} uses it"):
                SessionStore(tmp_path / name)
        # The one that is refused has not taken anything from the other.
        with pytest.raises(ArtifactError, match="uses it already"):
            SessionStore(path)
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    store = SessionStore(path)
    assert [message.text for message in store.messages("me", "mine")] == ["Hello"]
    store.close()
    SessionStore(path).close()


@pytest.mark.long
def test_two_services_on_one_file_are_one_line(tmp_path: Path, model: Path) -> None:
    used = {flag: str(tmp_path / f"of{flag}") for flag in ("--state", "--sessions")}
    with Server(
        tmp_path / "log", "--model", model, *(x for pair in used.items() for x in pair)
    ) as (running):
        for flag, path in used.items():
            command = [sys.executable, "-m", "incatalog.cli", "serve", "--port", "0"]
            flags = ["--model", str(model), flag, path]
            second = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=100)
            assert second.returncode == 2
            assert f"process {running.pid} uses it already" in second.stderr
            assert "Traceback" not in second.stderr
            assert second.stderr.strip().count("\n") == 0


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
    fill(store)
    store.close()
    changed(path, "UPDATE items SET item = ?", text)
    with pytest.raises(ArtifactError) as error:
        Domain("films", recommender, CatalogStore(path))
    said = str(error.value)
    assert said.startswith(f"{path}: table items, row place 1 of domain 'films': ")
    assert message in said
    assert said.endswith("; delete the row, or put the file back from a copy")
    assert "\n" not in said


def test_other_rows_of_the_state(tmp_path: Path, recommender: Recommender) -> None:
    for statement, value, message in (
        ("UPDATE items SET item_id = ?", b"x", "table items, row place 1 .* item_id: found b'x'"),
        ("UPDATE versions SET number = ?", "two", "table versions, row domain 'films': number"),
        ("UPDATE versions SET number = ?", -1, "table versions, row domain 'films': number"),
        ("UPDATE format SET version = ?", "new", "found format new; expected 1"),
        ("ALTER TABLE items RENAME TO things -- ?", None, None),
        # It is well-formed, and what it says cannot be done.
        ("UPDATE items SET item = ?", item(title=" "), "do not fit its catalog: .*title"),
    ):
        path = tmp_path / f"{abs(hash(statement + str(value)))}.sqlite"
        store = CatalogStore(path)
        fill(store)
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
    store.save("me", "a", [{"role": "user", "content": "Hello"}])
    store.save("me", "b", [{"role": "user", "content": "Hello"}])
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
    assert len(SessionStore(path).messages("me", "a")) == 1


@pytest.mark.parametrize("kind", STORES)
def test_damaged_file_is_one_line(tmp_path: Path, recommender: Recommender, kind: str) -> None:
    path = tmp_path / "s.sqlite"
    store = STORES[kind](path)
    for _ in range(200):
        fill(store)
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
