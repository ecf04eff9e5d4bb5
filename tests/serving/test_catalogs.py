from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog import Catalog, Item, Recommender
from incatalog.data.where import Where
from incatalog.errors import (
    ArtifactError,
    CatalogError,
    ConfigError,
    DataError,
    SemanticIdError,
    VectorError,
)
from incatalog.items.aliases import Aliases
from incatalog.serving.catalogs import Domain, load_domains
from incatalog.serving.server import _title_fields
from incatalog.serving.settings import ServeSettings
from incatalog.serving.store import CatalogStore, NewItem


def new(item_id: str, title: str, *categories: str) -> NewItem:
    return NewItem(Item(item_id, title, categories=categories))


def ids(domain: Domain) -> set[str]:
    return {item.item_id for item in domain.version.catalog.live_items}


def as_after_a_kill(path: Path) -> Path:
    """The files as they lie on the disk while a store has them open."""
    copied = path.parent / "killed"
    copied.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), copied / name)
    return copied / path.name


def test_versions_are_immutable_and_changes_that_arrive_together_make_one(
    tmp_path: Path, recommender: Recommender
) -> None:
    store = CatalogStore(tmp_path / "state.sqlite")
    domain = Domain("films", recommender, store)
    before = domain.version

    async def change() -> None:
        first = domain.put([new("a", "Alpha")])
        rest = [domain.put([new(f"b{n}", f"Beta {n}")]) for n in range(10)]
        failing = domain.put([new("c", " ")])
        results = await asyncio.gather(first, *rest, failing, return_exceptions=True)
        assert isinstance(results[-1], DataError)
        numbers = [version.number for version in results[:-1]]  # type: ignore[union-attr]
        assert numbers[0] == 1
        # While the first was made, the others gathered.
        assert max(numbers) <= 3
        for version in results[:-1]:
            assert not isinstance(version, BaseException)
            assert version.number <= domain.version.number

    asyncio.run(change())
    assert ids(domain) == {f"i{row}" for row in range(40)} | {"a"} | {f"b{n}" for n in range(10)}
    assert before.number == 0
    assert len(before.catalog) == 40
    assert store.version("films") == domain.version.number


def test_restart_finds_what_was_saved(tmp_path: Path, recommender: Recommender) -> None:
    shuffled = random.Random(0)
    path = tmp_path / "state.sqlite"
    store = CatalogStore(path)
    domain = Domain("films", recommender, store)

    async def change() -> None:
        for number in range(60):
            present = sorted(ids(domain))
            kind = shuffled.randrange(4)
            if kind == 0:
                await domain.put([new(f"n{number}", f"New {number}", "New")])
            elif kind == 1:
                chosen = shuffled.choice(present)
                await domain.put([new(chosen, f"Renamed {number}", "Renamed")])
            elif kind == 2:
                await domain.remove(shuffled.sample(present, 2))
            else:
                chosen = shuffled.choice(present)
                await domain.enable(chosen, enabled=shuffled.random() < 0.4)

    asyncio.run(change())

    def described(domain: Domain) -> dict[str, Any]:
        version = domain.version
        return {
            item.item_id: (item.title, item.categories, row in version.recommender.disabled)
            for row, item in enumerate(version.catalog.items)
            if row not in version.catalog.vacant
        }

    again = Domain("films", recommender, CatalogStore(as_after_a_kill(path)))
    assert described(again) == described(domain)
    assert again.version.number == domain.version.number
    asyncio.run(again.put([new("more", "More")]))
    assert again.version.number == domain.version.number + 1


def test_an_item_is_removed_and_replaced_with_all_its_spellings(
    tmp_path: Path, recommender: Recommender
) -> None:
    rows = tuple(range(20))
    spelled = Recommender(
        recommender.backbone,
        recommender.spec,
        recommender.catalog,
        aliases=Aliases(rows, tuple(f"Film {row}" for row in rows)),
    )
    path = tmp_path / "state.sqlite"
    domain = Domain("films", spelled, CatalogStore(path))
    asyncio.run(domain.remove(["i0", "i1"]))
    asyncio.run(domain.put([new("i2", "Film 0"), new("x", "Film 3")]))
    asyncio.run(domain.enable("i4", enabled=False))
    for one in (domain, Domain("films", spelled, CatalogStore(as_after_a_kill(path)))):
        changed = one.version.recommender
        titles = {item.item_id: item.title_t for item in changed.catalog.live_items}
        assert (titles["i2"], titles["x"]) == ("Film 0", "Film 3 (2)")
        found = changed.recommend(["i3"], k=100, exclude_seen=False)
        assert len(found) == len(ids(one)) - 1
        assert {item.item_id for item in found} == ids(one) - {"i4"}
        listed = changed.recommend(["i3"], k=100, exclude_seen=False, decode="list")
        assert {item.item_id for item in listed} == ids(one) - {"i4"}


def test_only_item_may_be_replaced_and_not_removed(
    tmp_path: Path, recommender: Recommender
) -> None:
    everything = [f"i{row}" for row in range(1, 40)]
    domain = Domain(
        "films", recommender.with_changes(removed=everything), CatalogStore(tmp_path / "s")
    )
    asyncio.run(domain.put([new("i0", "The Only One")]))
    [item] = list(domain.version.catalog.live_items)
    assert item.title == "The Only One"
    with pytest.raises(CatalogError, match="nothing would be left"):
        asyncio.run(domain.remove(["i0"]))
    with pytest.raises(CatalogError, match="nothing would be left"):
        asyncio.run(domain.enable("i0", enabled=False))


def test_what_the_method_needs_of_an_item_is_asked_for(
    tmp_path: Path, recommender: Recommender
) -> None:
    domain = Domain("films", recommender, CatalogStore(tmp_path / "s"))
    with pytest.raises(CatalogError, match="share an id"):
        asyncio.run(domain.put([new("x", "One"), new("x", "Two")]))
    with pytest.raises(CatalogError, match="i99"):
        asyncio.run(domain.remove(["i99"]))


def test_domain_has_the_name_and_the_categories_of_its_folder(
    tmp_path: Path, recommender: Recommender
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = [
        Item(item.item_id, item.title, categories=("Moved",)) for item in recommender.catalog.items
    ]
    Catalog.from_items(moved).save(folder)
    found = load_domains(recommender, {"cinema": folder}, CatalogStore(tmp_path / "s"))
    version = found["cinema"].version
    assert version.catalog.name == "cinema"
    assert version.catalog.categories == ("Moved",)
    # Nothing was built anew for them.
    assert version.recommender.grounding is recommender.grounding
    with pytest.raises(CatalogError, match="expected the same items"):
        recommender.with_metadata(Catalog.from_items(moved[::-1]))


def test_domains_that_change_side_by_side_are_all_saved(
    tmp_path: Path, recommender: Recommender
) -> None:
    store = CatalogStore(tmp_path / "s")
    domains = [Domain(f"d{n}", recommender, store) for n in range(6)]

    async def change() -> None:
        for number in range(8):
            await asyncio.gather(*(d.put([new(f"n{number}", f"New {number}")]) for d in domains))

    asyncio.run(change())
    store.close()
    again = CatalogStore(tmp_path / "s")
    for domain in domains:
        assert again.version(domain.name) == 8
        assert len(list(again.changes(domain.name))) == 8


def test_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_text("no database" * 100)
    with pytest.raises(ArtifactError, match="not a usable SQLite file"):
        CatalogStore(path)
    other = tmp_path / "other.sqlite"
    CatalogStore(other).close()
    with sqlite3.connect(other) as database:
        database.execute("UPDATE format SET version = 99")
    with pytest.raises(ArtifactError, match="found format 99; expected 1"):
        CatalogStore(other)


def test_model_of_codes_takes_items_with_codes_of_their_own(
    tmp_path: Path, coded: Recommender
) -> None:
    domain = Domain("films", coded, CatalogStore(tmp_path / "s"))
    with pytest.raises(SemanticIdError, match="expected 2 of them"):
        asyncio.run(domain.put([new("x", "Without")]))
    taken = NewItem(Item("x", "Twin"), codes=(0, 0))
    with pytest.raises(SemanticIdError, match="those of another item"):
        asyncio.run(domain.put([taken]))
    with pytest.raises(SemanticIdError, match="below 8, 8"):
        asyncio.run(domain.put([NewItem(Item("x", "Far"), codes=(0, 8))]))
    asyncio.run(domain.put([NewItem(Item("x", "Fits"), codes=(7, 7))]))
    found = domain.version.recommender.recommend(["i1"], 100, decode="list")
    assert "x" in {one.item_id for one in found}
    # The one whose codes these are may be replaced by another with the same.
    asyncio.run(domain.put([NewItem(Item("i0", "Anew"), codes=(0, 0))]))
    assert domain.version.catalog.item(domain.version.catalog.row("i0")).title == "Anew"


def test_model_that_retrieves_takes_items_with_vectors(
    tmp_path: Path, retrieving: Recommender
) -> None:
    domain = Domain("films", retrieving, CatalogStore(tmp_path / "s"))
    with pytest.raises(VectorError, match="a vector of 0 numbers; expected 6"):
        asyncio.run(domain.put([new("x", "Without")]))
    for wrong in (1e30, -1e39, 1e300):
        too_large = NewItem(Item("x", "Large"), vector=(0.5,) * 5 + (wrong,))
        with pytest.raises(VectorError, match="row 0 holds too large a number"):
            asyncio.run(domain.put([too_large]))
    added = NewItem(Item("x", "Fits"), vector=(0.5,) * 6)
    asyncio.run(domain.put([added]))
    asyncio.run(domain.remove(["i1", "i2"]))
    for decode in ("beam", "list"):
        found = domain.version.recommender.recommend(["i3"], 100, decode=decode)  # type: ignore[arg-type]
        assert {one.item_id for one in found} == ids(domain) - {"i3"}


def test_domains_need_what_the_method_needs(
    tmp_path: Path, recommender: Recommender, retrieving: Recommender, books: Path
) -> None:
    store = CatalogStore(tmp_path / "s")
    found = load_domains(recommender, {"films": books.parent / "books"}, store)
    assert found["films"].version.catalog.num_live == 4
    assert set(load_domains(recommender, {}, store)) == {recommender.catalog.name}
    with pytest.raises(ConfigError, match="found 0 npy files"):
        load_domains(retrieving, {"books": books}, store)


def by_names(items: list[Item], names: list[str]) -> Catalog:
    pairs = zip(items, names, strict=True)
    named = [replace(item, name=name) for item, name in pairs]
    return Catalog.from_items(named, "films", title_field="short")


def test_domains_are_named_as_the_model_was_trained_or_as_is_said(
    tmp_path: Path, recommender: Recommender, books: Path
) -> None:
    known = by_names(list(recommender.catalog.items), [f"Short {n}" for n in range(40)])
    model = Recommender(recommender.backbone, recommender.spec, known)
    store = CatalogStore(tmp_path / "s")
    # As prepared data has it: no note of a field.
    own, other = tmp_path / "own", tmp_path / "other"
    for folder, catalog in (
        (own, known),
        (other, by_names([Item("x", "X"), Item("y", "Y")], list("xy"))),
    ):
        folder.mkdir()
        catalog.save(folder)
        (folder / "catalog.json").unlink()
    found = load_domains(model, {"films": own, "letters": other}, store)
    # The very items of the model, or it would have been built anew.
    assert found["films"].version.recommender.grounding is model.grounding
    assert found["letters"].version.catalog.names == ("x", "y")
    with pytest.raises(DataError, match="no field 'short'"):
        load_domains(model, {"books": books}, store)
    named = {"books": books, "letters": other}
    found = load_domains(model, named, store, title_fields={"books": "title", "letters": "title"})
    assert found["books"].version.catalog.title_field == "title"
    assert found["letters"].version.catalog.names == ("X", "Y")
    with pytest.raises(ConfigError, match=r"--title-field title: .*films.* by their 'short'"):
        load_domains(model, {"films": own}, store, title_fields={"films": "title"})


def test_changes_made_under_another_title_field_are_refused(
    tmp_path: Path, recommender: Recommender
) -> None:
    known = by_names(list(recommender.catalog.items), [f"Short {n}" for n in range(40)])
    model, path = Recommender(recommender.backbone, recommender.spec, known), tmp_path / "s"
    with closing(CatalogStore(path)) as store:
        domain = Domain("films", model, store)
        named = NewItem(Item("n", "New [DVD]", name="New"), title_field="short")
        asyncio.run(domain.put([named]))
        catalog = domain.version.catalog
        assert catalog.titles_t[catalog.row("n")] == "New"
        with pytest.raises(CatalogError, match="known by its title, the others by their short"):
            asyncio.run(domain.put([new("m", "No name")]))
    with closing(CatalogStore(path)) as store:
        assert Domain("films", model, store).version.catalog.has("n")
        with pytest.raises(ArtifactError, match="do not fit its catalog: item 'n' was added"):
            Domain("films", recommender, store)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), {}),
        (("short",), {"a": "short", "b": "short"}),
        (("a=short",), {"a": "short"}),
        (("a=short", "b=title"), {"a": "short", "b": "title"}),
        (("c=short",), "expected FIELD, or NAME=FIELD with one of the domains a, b"),
        (("a=short", "title"), "given twice for a"),
    ],
)
def test_title_fields_of_several_domains(given: tuple[str, ...], found: Any) -> None:
    settings = ServeSettings(Path("m"), title_field=given)
    if isinstance(found, dict):
        assert _title_fields(settings, ("a", "b")) == found
    else:
        with pytest.raises(ConfigError, match=found):
            _title_fields(settings, ("a", "b"))


def feed(domain: Domain, items: list[NewItem], *, disable: bool = False) -> dict[str, int]:
    """What a feed changes, without what is nothing."""
    _, counts = asyncio.run(domain.feed(items, disable=disable))
    return {name: count for name, count in asdict(counts).items() if count}


def known_items(recommender: Recommender) -> list[NewItem]:
    return [NewItem(replace(item, title_t=None)) for item in recommender.catalog.live_items]


def priced(new: NewItem, price: float) -> NewItem:
    return replace(new, item=replace(new.item, attributes={"price": price}))


def off(domain: Domain) -> set[str]:
    recommender = domain.version.recommender
    return {recommender.catalog.item(row).item_id for row in recommender.disabled}


def test_a_feed_makes_one_version_of_what_differs(tmp_path: Path, recommender: Recommender) -> None:
    store = CatalogStore(tmp_path / "state.sqlite")
    domain = Domain("films", recommender, store)
    items = known_items(recommender)
    assert feed(domain, items) == {"unchanged": 40}
    assert domain.version.number == 0
    renamed = replace(items[3], item=replace(items[3].item, title="Another Title"))
    now = [priced(items[0], 99), *items[1:3], renamed, *items[5:], new("new", "Brand New")]
    counts = {"added": 1, "changed": 2, "removed": 1, "unchanged": 37}
    assert feed(domain, now) == counts
    assert domain.version.number == 1
    store.close()
    for one in (domain, Domain("films", recommender, CatalogStore(store.path))):
        assert one.version.number == 1
        assert ids(one) == {item.item.item_id for item in now}
        catalog = one.version.catalog
        assert catalog.item(catalog.row("i3")).title == "Another Title"
        assert dict(catalog.item(catalog.row("i0")).attributes) == {"price": 99}
        assert catalog.item(catalog.row("i1")) == recommender.catalog.item(1)
    assert feed(one, now) == {"unchanged": 40}
    assert one.version.number == 1


def test_prices_and_stock_touch_no_index(tmp_path: Path, recommender: Recommender) -> None:
    domain = Domain("films", recommender, CatalogStore(tmp_path / "state.sqlite"))
    items = known_items(recommender)
    before = domain.version.recommender
    where = Where.parse({"price": {"gte": 50}})
    assert before.excluded(where=where).rows.all()
    assert feed(domain, [priced(new, row + 40) for row, new in enumerate(items)]) == {"changed": 40}
    after = domain.version.recommender
    assert after.grounding is before.grounding
    assert after.item_tokens is before.item_tokens
    assert np.flatnonzero(~after.excluded(where=where).rows).tolist() == list(range(10, 40))
    assert before.excluded(where=where).rows.all()
    assert [one.item_id for one in after.recommend([], 50, where=where)]
    assert after.catalog.fingerprint == before.catalog.fingerprint
    assert after.catalog.titles_t == before.catalog.titles_t


def test_what_a_feed_lacks_can_be_disabled_until_it_is_back(
    tmp_path: Path, recommender: Recommender
) -> None:
    store = CatalogStore(tmp_path / "state.sqlite")
    domain = Domain("films", recommender, store)
    items = known_items(recommender)
    asyncio.run(domain.enable("i9", enabled=False))
    assert feed(domain, items[2:], disable=True) == {"removed": 2, "unchanged": 38}
    assert off(domain) == {"i0", "i1", "i9"}
    assert len(ids(domain)) == 40
    assert feed(domain, items[2:], disable=True) == {"unchanged": 38}
    store.close()
    store = CatalogStore(store.path)
    again = Domain("films", recommender, store)
    assert feed(again, items[2:], disable=True) == {"unchanged": 38}
    # Back they come, and what the operator has switched off stays off.
    assert feed(again, items[1:], disable=True) == {"changed": 1, "unchanged": 38}
    assert off(again) == {"i0", "i9"}
    assert feed(again, items, disable=True) == {"changed": 1, "unchanged": 39}
    assert off(again) == {"i9"}
    store.close()
    again = Domain("films", recommender, CatalogStore(store.path))
    assert off(again) == {"i9"}
    assert feed(again, items[:5]) == {"removed": 35, "unchanged": 5}
    assert off(again) == set()


def test_a_feed_that_cannot_be_leaves_everything(
    tmp_path: Path, recommender: Recommender, coded: Recommender
) -> None:
    domain = Domain("films", recommender, CatalogStore(tmp_path / "state.sqlite"))
    items = known_items(recommender)
    for wrong, error, message in (
        ([items[0], items[0]], CatalogError, "two of them share an id"),
        ([*items, new("x", " ")], DataError, "empty"),
    ):
        with pytest.raises(error, match=message):
            feed(domain, wrong)
    asyncio.run(domain.enable("i9", enabled=False))
    with pytest.raises(CatalogError, match="all of them are disabled"):
        feed(domain, [items[9]])
    assert domain.version.number == 1
    store = CatalogStore(tmp_path / "codes.sqlite")
    codes = Domain("codes", coded, store)
    cheap = [priced(one, 1) for one in known_items(coded)]
    assert feed(codes, cheap) == {"changed": 40}
    with pytest.raises(SemanticIdError, match="item 'new'"):
        feed(codes, [*cheap, new("new", "Brand New")])
    # What was only priced needs no codes when the service starts again.
    store.close()
    again = Domain("codes", coded, CatalogStore(tmp_path / "codes.sqlite"))
    assert again.version.catalog.item(5).attributes["price"] == 1
    assert again.version.recommender.grounding is coded.grounding


PRICES = st.none() | st.integers(0, 6)
QUESTIONS = st.sampled_from(
    [
        ({"price": {"lte": 3}}, lambda known: known.get("price", 9) <= 3),
        (
            {"price": {"gt": 1, "ne": 4}},
            lambda known: known.get("price", 0) > 1 and known["price"] != 4,
        ),
        ({"studio": "b"}, lambda known: known.get("studio") == "B"),
        ({"studio": {"ne": "B"}}, lambda known: known.get("studio") != "B"),
        ({"price": [0, 5], "in_stock": True}, lambda known: known.get("price") in (0, 5)),
    ]
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_answer_breaks_its_conditions_in_the_version_it_saw(
    recommender: Recommender, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = CatalogStore(Path(folder) / "state.sqlite")
        domain = Domain("films", recommender, store)
        started = []
        for step in range(5):
            known = {one.item.item_id: one for one in known_items(domain.version.recommender)}
            for one in data.draw(st.sets(st.sampled_from(sorted(known)), max_size=6)):
                own = {"studio": data.draw(st.sampled_from("AB")), "in_stock": True}
                price = data.draw(PRICES)
                own |= {} if price is None else {"price": price}
                known[one] = replace(known[one], item=replace(known[one].item, attributes=own))
            if data.draw(st.booleans()):
                known[f"n{step}"] = new(f"n{step}", f"Harbour of {step} Moons", "Drama")
            for one in data.draw(st.sets(st.sampled_from(sorted(known)), max_size=3)):
                del known[one]
            asyncio.run(domain.feed(list(known.values()), disable=data.draw(st.booleans())))
            asked, holds = data.draw(QUESTIONS)
            version, where = domain.version, Where.parse(asked)
            allowed = {
                item.item_id
                for row, item in enumerate(version.catalog.items)
                if row not in version.catalog.vacant
                and row not in version.recommender.disabled
                and holds(item.attributes)
                and ("in_stock" not in asked or item.attributes.get("in_stock"))
            }
            excluded = version.recommender.excluded(where=where).rows
            rows = set(np.flatnonzero(~excluded).tolist()) - version.catalog.vacant
            assert {version.catalog.item(row).item_id for row in rows} == allowed
            if allowed:
                found = version.recommender.recommend([], 5, where=where)
                assert {one.item_id for one in found} <= allowed
                assert len(found) == min(5, len(allowed))
                said = [{"role": "user", "content": "Hello"}]
                how: Any = {"max_new_tokens": 30, "where": where}
                started.append((version.recommender.stream(said, **how), allowed))
                # Answers that have begun go on while the catalog changes under them.
                next(started[-1][0])
        for stream, allowed in started:
            items = {one.item_id for one in stream if not isinstance(one, str)}
            assert items <= allowed
        store.close()
