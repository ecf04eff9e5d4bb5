"""Several services on one state: in one process here, as services of their own under `long`."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from benchmarks.replica_load import Outcome, under_load
from benchmarks.replica_world import make_model, postgres, postgres_lacks

from incatalog import Item, Recommender
from incatalog.errors import ArtifactError, CatalogError, OutcomeError, StateError
from incatalog.serving import store as store_file
from incatalog.serving.catalogs import Domain
from incatalog.serving.store import CatalogStore, Head, NewItem


def new(item_id: str, title: str) -> NewItem:
    return NewItem(Item(item_id, title, attributes={"price": len(title)}))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[CatalogStore]]:
    """Three on one file, as three services have them."""
    opened = [CatalogStore(tmp_path / "state.sqlite", timeout=0.3) for _ in range(3)]
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def replicas(stores: list[CatalogStore], recommender: Recommender) -> list[Domain]:
    return [Domain("films", recommender, store) for store in stores]


def present(domain: Domain) -> set[str]:
    return {item.item_id for item in domain.version.catalog.live_items}


def names(domain: Domain) -> dict[str, str | None]:
    """What the model writes, by item."""
    return {item.item_id: item.title_t for item in domain.version.catalog.live_items}


def test_changes_on_any_of_them_are_one_line_of_versions(
    replicas: list[Domain], stores: list[CatalogStore], recommender: Recommender
) -> None:
    rng = random.Random(0)
    fingerprints: dict[int, str] = {}

    async def change(number: int) -> None:
        domain = rng.choice(replicas)
        before = await domain.catch_up()
        items = sorted(present(domain))
        kind = rng.randrange(5)
        if kind == 0:
            # Several share a title: the model knows them by names that are told apart.
            changed = domain.put([new(f"n{number}", f"Harbour {number % 3}")])
        elif kind == 1:
            changed = domain.put([new(rng.choice(items), f"Renamed {number}")])
        elif kind == 2:
            changed = domain.remove(rng.sample(items, 2))
        elif kind == 3:
            changed = domain.enable(rng.choice(items), enabled=rng.random() < 0.5)
        else:
            kept = [new(one, f"Fed {one}") for one in rng.sample(items, len(items) - 2)]
            fed = await domain.feed(kept, disable=rng.random() < 0.5)
            assert fed[0].number == before.number + 1
            fingerprints[fed[0].number] = fed[0].fingerprint
            return
        version = await changed
        assert version.number == before.number + 1
        fingerprints[version.number] = version.fingerprint

    async def run() -> None:
        for number in range(40):
            await change(number)
            if number % 4 == 0:
                version = await rng.choice(replicas).catch_up()
                assert version.fingerprint == fingerprints[version.number]
        for domain in replicas:
            await domain.catch_up()

    asyncio.run(run())
    again = Domain("films", recommender, stores[0])
    for domain in (*replicas, again):
        assert domain.version.number == 40
        assert domain.version.fingerprint == fingerprints[40]
        assert names(domain) == names(replicas[0])


def test_changes_at_once_are_all_made_and_each_item_is_there_once(
    replicas: list[Domain],
) -> None:
    async def run() -> None:
        changes = [
            domain.put([new(f"n{place}-{number}", f"New {place} {number}")])
            for number in range(12)
            for place, domain in enumerate(replicas)
        ]
        same = [domain.remove(["i0"]) for domain in replicas]
        found = await asyncio.gather(*changes, *same, return_exceptions=True)
        refused = [one for one in found if isinstance(one, BaseException)]
        # Only one of them can have removed it.
        assert [type(one) for one in refused] == [CatalogError] * 2
        for domain in replicas:
            await domain.catch_up()

    asyncio.run(run())
    expected = {f"n{place}-{number}" for place in range(3) for number in range(12)}
    for domain in replicas:
        assert present(domain) == expected | {f"i{row}" for row in range(1, 40)}
        assert domain.version.fingerprint == replicas[0].version.fingerprint


def test_whoever_is_far_behind_starts_from_all_items(
    replicas: list[Domain], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "_KEPT", 2)

    async def run() -> None:
        for number in range(6):
            await replicas[0].put([new(f"n{number}", f"New {number}")])
        await replicas[0].remove(["i3"])
        await replicas[1].catch_up()

    asyncio.run(run())
    assert replicas[1].version.number == 7
    assert replicas[1].version.fingerprint == replicas[0].version.fingerprint


def test_a_service_with_other_items_is_refused(
    stores: list[CatalogStore], replicas: list[Domain], recommender: Recommender
) -> None:
    with pytest.raises(ArtifactError, match=r"state\.sqlite: domain 'films' was begun with other"):
        Domain("films", recommender.with_changes(removed=["i0"]), stores[0])


def test_a_state_that_was_put_back_is_not_followed(
    tmp_path: Path, replicas: list[Domain], recommender: Recommender
) -> None:
    path = tmp_path / "state.sqlite"
    asyncio.run(replicas[0].put([new("a", "First")]))
    for statement in (
        "UPDATE versions SET number = 0",
        # As many versions, of which the first was another one.
        "UPDATE versions SET number = 2, mark = 'z'",
        "DELETE FROM versions",
    ):
        with sqlite3.connect(path) as database:
            database.execute("INSERT OR REPLACE INTO log VALUES ('films', 2, 'x', 'z', '{}')")
            database.execute(statement)
        database.close()
        with pytest.raises(StateError, match="cannot follow the other services"):
            asyncio.run(replicas[0].put([new("b", "Second")]))
        assert replicas[0].fault is not None
        assert (replicas[0].version.number, present(replicas[0]) >= {"a"}) == (1, True)


class Breaking(CatalogStore):
    """Keeps what it is told to, or does not, and then says that nobody knows."""

    kept, told = True, 1

    def append(self, domain: str, known: Head, mark: str, *what: Any) -> Head | None:
        if not self.told:
            return super().append(domain, known, mark, *what)
        self.told -= 1
        if self.kept:
            super().append(domain, known, mark, *what)
        raise OutcomeError("broken")


@pytest.mark.parametrize("kept", [True, False])
def test_a_change_of_which_nothing_was_heard_is_made_once(
    tmp_path: Path, recommender: Recommender, kept: bool
) -> None:
    with closing(Breaking(tmp_path / "s")) as store:
        store.kept = kept
        domain = Domain("films", recommender, store)
        version = asyncio.run(domain.remove(["i5"]))
        assert (version.number, store.head("films").number) == (1, 1)
        assert "i5" not in present(domain)


def test_a_change_that_stays_doubtful_is_not_confirmed(
    tmp_path: Path, recommender: Recommender
) -> None:
    with closing(Breaking(tmp_path / "s", timeout=0.2)) as store:
        store.kept, store.told = False, 1000
        domain = Domain("films", recommender, store)
        with pytest.raises(OutcomeError):
            asyncio.run(domain.remove(["i5"]))
        store.told = 0
        assert asyncio.run(domain.remove(["i5"])).number == 1


def test_a_busy_file_is_an_error_that_passes(
    tmp_path: Path, replicas: list[Domain], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as other:
        replicas[0]._store._database._connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[attr-defined]
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="database is locked"):
            asyncio.run(replicas[0].remove(["i5"]))
        other.execute("ROLLBACK")
    assert asyncio.run(replicas[0].remove(["i5"])).number == 1
    assert asyncio.run(replicas[1].catch_up()).number == 1


def held(outcome: Outcome, changes: int) -> None:
    assert outcome.wrong == []
    counts: Mapping[str, int] = outcome.counts
    assert counts["changes confirmed"] >= changes
    for kind in ("answers", "turns kept", "changes read back elsewhere", "kills"):
        assert counts[kind] > 0, outcome
    assert len(outcome.fingerprints) == 3
    assert len(set(outcome.fingerprints)) == 1


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_three_services_confirm_holds_whichever_is_killed(tmp_path: Path, kind: str) -> None:
    make_model(tmp_path / "model")
    # Changes, seconds between kills, services, kills.
    load = 150, 3.0, 3, 3
    if kind == "sqlite":
        state = str(tmp_path / "state.sqlite")
        held(under_load(tmp_path, tmp_path / "model", state, *load), 150)
        return
    if lacking := postgres_lacks():
        pytest.skip(lacking)
    with postgres() as server:
        held(under_load(tmp_path, tmp_path / "model", server.url, *load), 150)
