"""The catalogs of a running service: every request sees one version, changes make the next."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from incatalog.codes.semantic_ids import SemanticIds
from incatalog.data.catalog import Catalog
from incatalog.data.model_catalog import check_field
from incatalog.data.vectors import check_numbers
from incatalog.errors import (
    ArtifactError,
    CatalogError,
    ConfigError,
    IncatalogError,
    SemanticIdError,
    VectorError,
)
from incatalog.recommender.guide import Guide
from incatalog.recommender.opening import moved_to
from incatalog.recommender.recommender import Recommender
from incatalog.serving.store import CatalogStore, NewItem, Stored
from incatalog.steering.steering import Steering

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Version:
    """A catalog as it stands, with the model on it."""

    number: int  # counts the changes; 0 as loaded from the folder
    recommender: Recommender

    @property
    def catalog(self) -> Catalog:
        """The items."""
        return self.recommender.catalog


@dataclass(frozen=True)
class FeedCounts:
    """What a feed has changed, in items."""

    added: int
    changed: int
    removed: int  # or disabled, where that was asked for
    unchanged: int


@dataclass(frozen=True)
class _Draft:
    """The next version while it is made, and what differs from the last one, by item id."""

    recommender: Recommender
    stored: Mapping[str, Stored]
    absent: frozenset[str]  # disabled as the newest feed lacks them

    def put(self, items: Sequence[NewItem]) -> _Draft:
        stored = {new.item.item_id: Stored(new.item.item_id, new) for new in items}
        if len(stored) < len(items):
            raise CatalogError("items: two of them share an id; expected each once")
        changed = _put(self.recommender, items, again=True)
        return _Draft(changed, {**self.stored, **stored}, self.absent - stored.keys())

    def remove(self, item_ids: Sequence[str]) -> _Draft:
        stored = {item_id: Stored(item_id, None, "removed") for item_id in item_ids}
        changed = _changed(self.recommender, item_ids, ())
        return _Draft(changed, {**self.stored, **stored}, self.absent - stored.keys())

    def feed(
        self, items: Sequence[NewItem], added: Mapping[str, NewItem], *, disable: bool
    ) -> tuple[_Draft, FeedCounts]:
        """The catalog of exactly these items; those it has beside them are removed or disabled."""
        model, catalog = self.recommender, self.recommender.catalog
        given = {new.item.item_id: new for new in items}
        if len(given) < len(items):
            raise CatalogError("items: two of them share an id; expected each once")
        fresh = [new for new in items if not catalog.has(new.item.item_id)]
        other = [new for new in items if catalog.has(new.item.item_id) and _differs(catalog, new)]
        gone = [one.item_id for one in catalog.live_items if one.item_id not in given]
        off = {catalog.item(row).item_id for row in model.disabled}
        leaving = [one for one in gone if one not in off] if disable else gone
        back = self.absent & given.keys() & off
        off = (off | set(gone) if disable else off - set(gone)) - back
        if len(off) >= len(given.keys() | (gone if disable else ())):
            raise CatalogError("items: all of them are disabled; enable one first")
        changed = _put(model, [*other, *fresh], removed=() if disable else gone)
        disabled = {changed.catalog.item(row).item_id for row in changed.disabled}
        changed = changed if disabled == off else changed.with_disabled(off)
        stored = {
            one: Stored(one, self._new(one, given, added), "disabled" if one in off else "changed")
            for one in [*(new.item.item_id for new in (*other, *fresh)), *back]
        }
        for one in leaving:
            kept = self._new(one, {}, added) if disable else None
            stored[one] = Stored(one, kept, "disabled" if disable else "removed")
        absent = (self.absent - back) | set(leaving) if disable else self.absent - back - set(gone)
        changes = {new.item.item_id for new in other} | back
        counts = FeedCounts(
            added=len(fresh),
            changed=len(changes),
            removed=len(leaving),
            unchanged=len(items) - len(fresh) - len(changes),
        )
        return _Draft(changed, {**self.stored, **stored}, absent), counts

    def _new(
        self, item_id: str, given: Mapping[str, NewItem], added: Mapping[str, NewItem]
    ) -> NewItem | None:
        """An item as it was given last; None if it is that of the folder."""
        if item_id in given:
            return given[item_id]
        before = self.stored.get(item_id)
        return added.get(item_id) if before is None else before.new

    def enable(self, item_id: str, added: Mapping[str, NewItem], *, enabled: bool) -> _Draft:
        catalog = self.recommender.catalog
        catalog.row(item_id)
        disabled = {catalog.item(row).item_id for row in self.recommender.disabled} - {item_id}
        if not enabled:
            disabled.add(item_id)
            if len(disabled) >= catalog.num_live:
                why = "nothing would be left to recommend; enable another first"
                raise CatalogError(f"item {item_id!r}: {why}")
        new = self._new(item_id, {}, added)
        stored = Stored(item_id, new, "changed" if enabled else "disabled")
        changed = self.recommender.with_disabled(disabled)
        return _Draft(changed, {**self.stored, item_id: stored}, self.absent - {item_id})


Change = Callable[[_Draft], _Draft]


class Domain:
    """One catalog of a running service, with the changes that the store keeps.

    Changes that arrive while others are made wait and are made together, as one version. A request
    keeps the newest `version` to the end of its answer.
    """

    def __init__(self, name: str, recommender: Recommender, store: CatalogStore) -> None:
        self.name = name
        self._store = store
        self._added: dict[str, NewItem] = {}
        self._absent = store.absent(name)
        self._pending: list[tuple[Change, asyncio.Future[Version]]] = []
        self._making: asyncio.Task[None] | None = None
        try:
            replayed = self._replayed(recommender)
        except ArtifactError:
            raise
        except IncatalogError as error:
            what = f"the changes of domain {name!r} do not fit its catalog: {error}"
            then = "serve the catalog they were made on, or start with another file"
            raise ArtifactError(f"{store.path}: {what}; {then}") from error
        self.version = Version(store.version(name), replayed)

    async def put(self, items: Sequence[NewItem]) -> Version:
        """Adds items, or replaces those with the same ids; all of them, or none if one is wrong."""
        return await self._change(lambda draft: draft.put(items))

    async def feed(
        self, items: Sequence[NewItem], *, disable: bool = False
    ) -> tuple[Version, FeedCounts]:
        """Makes the catalog one of exactly these items; an item that stays keeps what it has.

        Where only texts, categories, boosts and attributes differ, no index is touched. With
        `disable`, what is missing is disabled and not removed, until a feed has it again.
        """
        told: list[FeedCounts] = []

        def change(draft: _Draft) -> _Draft:
            draft, counts = draft.feed(items, self._added, disable=disable)
            told.append(counts)
            return draft

        return await self._change(change), told[0]

    async def remove(self, item_ids: Sequence[str]) -> Version:
        """Removes items; all of them, or none if one is not there."""
        return await self._change(lambda draft: draft.remove(item_ids))

    async def enable(self, item_id: str, *, enabled: bool) -> Version:
        """Allows an item to be recommended, or forbids it."""
        return await self._change(lambda draft: draft.enable(item_id, self._added, enabled=enabled))

    async def _change(self, change: Change) -> Version:
        future: asyncio.Future[Version] = asyncio.get_running_loop().create_future()
        self._pending.append((change, future))
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make_versions())
        return await future

    async def _make_versions(self) -> None:
        while self._pending:
            pending, self._pending = self._pending, []
            changes = [change for change, _ in pending]
            errors: Sequence[Exception | None]
            try:
                self.version, errors = await asyncio.to_thread(self._next_version, changes)
            except Exception as error:
                errors = [error] * len(pending)
            for (_, future), failed in zip(pending, errors, strict=True):
                if failed is None and not future.done():
                    future.set_result(self.version)
                elif failed is not None and not future.done():
                    future.set_exception(failed)

    def _next_version(
        self, changes: Sequence[Change]
    ) -> tuple[Version, list[IncatalogError | None]]:
        """Makes and saves the next version, with all changes but those that are refused."""
        before = self.version
        draft = _Draft(before.recommender, {}, self._absent)
        errors: list[IncatalogError | None] = []
        for change in changes:
            try:
                draft = change(draft)
                errors.append(None)
            except IncatalogError as error:
                errors.append(error)
        if draft.recommender is before.recommender:
            return before, errors
        version = Version(before.number + 1, draft.recommender)
        self._store.save(self.name, version.number, draft.stored.values(), draft.absent)
        self._remember(draft.stored.values())
        self._absent = draft.absent
        return version, errors

    def _remember(self, changes: Iterable[Stored]) -> None:
        for change in changes:
            self._added.pop(change.item_id, None)
            if change.new is not None:
                self._added[change.item_id] = change.new

    def _replayed(self, recommender: Recommender) -> Recommender:
        """The changes of the store, made on what the folder holds."""
        changes = list(self._store.changes(self.name))
        self._remember(changes)
        gone = [one.item_id for one in changes if one.state == "removed"]
        gone = [item_id for item_id in gone if recommender.catalog.has(item_id)]
        recommender = _put(recommender, list(self._added.values()), removed=gone)
        disabled = [one.item_id for one in changes if one.state == "disabled"]
        disabled = [item_id for item_id in disabled if recommender.catalog.has(item_id)]
        return recommender.with_disabled(disabled) if disabled else recommender


def _differs(catalog: Catalog, new: NewItem) -> bool:
    """Whether an item that is there is given otherwise."""
    if new.codes is not None or new.vector is not None:
        return True
    known = catalog.item(catalog.row(new.item.item_id))
    # Files keep categories in an order of their own.
    alike = sorted(known.categories) == sorted(new.item.categories)
    plain = replace(new.item, title_t=known.title_t, categories=known.categories)
    return not alike or known != plain


def _put(
    recommender: Recommender,
    items: Sequence[NewItem],
    *,
    removed: Sequence[str] = (),
    again: bool = False,
) -> Recommender:
    """The recommender with some items removed, and others added or put in place of theirs.

    An item that keeps its names keeps its place in the index too, and stays disabled, unless all
    are to be written `again`.
    """
    catalog, same, new = recommender.catalog, list[NewItem](), list[NewItem]()
    for one in items:
        known = (
            catalog.item(catalog.row(one.item.item_id)) if catalog.has(one.item.item_id) else None
        )
        names = known is not None and (known.title, known.called) == (
            one.item.title,
            one.item.called,
        )
        keeps = names and one.codes is None and one.vector is None and not again
        (same if keeps else new).append(one)
    replaced = [one.item.item_id for one in new if catalog.has(one.item.item_id)]
    changed = _changed(recommender, [*removed, *replaced], new)
    return changed.with_updated([one.item for one in same])


def _changed(
    recommender: Recommender, removed: Sequence[str], added: Sequence[NewItem]
) -> Recommender:
    """The recommender on a changed catalog, with codes and vectors as its method needs them."""
    field = recommender.catalog.title_field
    for new in added:
        if new.title_field != field:
            why = f"was added to be known by its {new.title_field}, the others by their {field}"
            raise CatalogError(f"item {new.item.item_id!r} {why}")
    codes = vectors = None
    sizes, head = recommender.spec.code_sizes, recommender.backbone.head
    if added and recommender.spec.item_form == "codes":
        for new in added:
            given = new.codes or ()
            within = all(0 <= code < size for code, size in zip(given, sizes, strict=False))
            if len(given) != len(sizes) or not within:
                levels = f"{len(sizes)} of them, from 0 and below {', '.join(map(str, sizes))}"
                why = f"codes {list(given)}; expected {levels}"
                raise SemanticIdError(f"item {new.item.item_id!r}: {why}")
        codes = SemanticIds(np.array([new.codes for new in added], dtype=np.int32), sizes)
    if added and head is not None:
        for new in added:
            if (found := len(new.vector or ())) != head.dim:
                why = f"a vector of {found} numbers; expected {head.dim}; {head.how_to_embed()}"
                raise VectorError(f"item {new.item.item_id!r}: {why}")
        vectors = np.array([new.vector for new in added], dtype=np.float64)
        check_numbers(vectors, "vector of the items")
        vectors = vectors.astype(np.float32)
    return recommender.with_changes([new.item for new in added], removed, codes, vectors)


def load_domains(
    recommender: Recommender,
    named: Mapping[str, Path],
    store: CatalogStore,
    guide: Callable[[str, Catalog], Guide | None] = lambda *_: None,
    title_fields: Mapping[str, str] | None = None,
    steering: Callable[[str, Catalog], Steering | None] = lambda *_: None,
) -> dict[str, Domain]:
    """The domains of a service by name, from a folder each, or the model's own catalog alone.

    Each is guided by what `guide` says for its name and catalog, and steered by what `steering`
    says for them. Its title field is that of the model's training, unless `title_fields` has
    another one for its name.
    """
    known, trained = recommender.catalog, recommender.spec.trained
    usual = known.title_field if trained else None
    if not named:
        name = own_name(recommender.catalog)
        guided = recommender.with_guide(guide(name, recommender.catalog))
        guided = guided.with_steering(steering(name, recommender.catalog))
        return {name: Domain(name, guided, store)}
    domains = {}
    for name, folder in named.items():
        if not _NAME.fullmatch(name):
            why = "expected a name of letters, digits, dots, dashes, underscores"
            raise ConfigError(f"--domain {name}: {why}")
        field = (title_fields or {}).get(name, usual)
        catalog = Catalog.load(folder, name, field)
        if trained:
            check_field(catalog, known, f"the model (domain {name})")
        own = moved_to(recommender, catalog, folder)
        guided = own.with_guide(guide(name, catalog)).with_steering(steering(name, catalog))
        domains[name] = Domain(name, guided, store)
    return domains


def own_name(catalog: Catalog) -> str:
    """Name of the only domain, which is the model's own catalog."""
    return catalog.name if _NAME.fullmatch(catalog.name) else "items"
