"""The catalogs of a running service: every request sees one version, changes make the next."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from incatalog.data.catalog import Catalog
from incatalog.data.model_catalog import check_field
from incatalog.errors import ArtifactError, ConfigError, IncatalogError, OutcomeError, StateError
from incatalog.recommender.guide import Guide
from incatalog.recommender.opening import moved_to
from incatalog.recommender.recommender import Recommender
from incatalog.serving.drafts import Draft, FeedCounts, fingerprint, followed
from incatalog.serving.store import CatalogStore, Head, NewItem, Stored, new_mark
from incatalog.steering.steering import Steering

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Races that a change may lose against other services before it holds them up.
_RACES = 3
_PAUSE = 0.1  # seconds between two tries to reach the state

Change = Callable[[Draft], Draft]
Errors = list[IncatalogError | None]


@dataclass(frozen=True)
class Version:
    """A catalog as it stands, with the model on it."""

    number: int  # counts the changes; 0 as loaded from the folder
    recommender: Recommender

    @property
    def catalog(self) -> Catalog:
        """The items."""
        return self.recommender.catalog

    @cached_property
    def fingerprint(self) -> str:
        """Of all that is known of the items: equal wherever this version is served."""
        return fingerprint(self.recommender)


class Domain:
    """One catalog of a running service, with the changes that the store keeps.

    Changes that arrive while others are made wait and are made together, as one version. A request
    keeps the newest `version` to the end of its answer. Other services may change the same catalog:
    a change is made on the newest version of all, and is confirmed when the store has it.
    """

    version: Version
    _head: Head
    _added: dict[str, NewItem]
    _absent: frozenset[str]

    def __init__(self, name: str, recommender: Recommender, store: CatalogStore) -> None:
        self.name = name
        self.fault: str | None = None  # why the versions of others cannot be followed
        self._store, self._base = store, recommender
        self._pending: list[tuple[Change | None, asyncio.Future[Version]]] = []
        self._making: asyncio.Task[None] | None = None
        store.begin(name, fingerprint(recommender))
        self._load()

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

        def change(draft: Draft) -> Draft:
            draft, counts = draft.feed(items, self._added, disable=disable)
            told.append(counts)
            return draft

        # It is made anew where another service was faster.
        return await self._change(change), told[-1]

    async def remove(self, item_ids: Sequence[str]) -> Version:
        """Removes items; all of them, or none if one is not there."""
        return await self._change(lambda draft: draft.remove(item_ids))

    async def enable(self, item_id: str, *, enabled: bool) -> Version:
        """Allows an item to be recommended, or forbids it."""
        return await self._change(lambda draft: draft.enable(item_id, self._added, enabled=enabled))

    async def catch_up(self) -> Version:
        """The newest version of all services."""
        return await self._change(None)

    async def _change(self, change: Change | None) -> Version:
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
                errors = await asyncio.to_thread(self._next_version, changes)
            except Exception as error:
                errors = [error] * len(pending)
            for (_, future), failed in zip(pending, errors, strict=True):
                if failed is None and not future.done():
                    future.set_result(self.version)
                elif failed is not None and not future.done():
                    future.set_exception(failed)

    def _next_version(self, changes: Sequence[Change | None]) -> Errors:
        """Makes and saves the next version, with all changes but those that are refused.

        Whatever becomes of the connection, a change is confirmed only if the store has it.
        """
        tried: dict[str, Errors] = {}
        lost, end = 0, time.monotonic() + self._store.timeout
        unknown = False
        while True:
            try:
                with self._store.held(self.name) if lost >= _RACES else nullcontext():
                    passed = self._catch_up()
                    # A try of which nothing was heard may have been kept after all.
                    if kept := tried.keys() & passed:
                        return tried[kept.pop()]
                    made = self._try(changes, tried)
                if made is not None:
                    return made
                lost += 1
            except StateError as error:
                unknown |= isinstance(error, OutcomeError)
                only_looks = all(change is None for change in changes)
                if only_looks or self.fault is not None or time.monotonic() >= end:
                    raise (OutcomeError(str(error)) if unknown else error) from error
                time.sleep(_PAUSE)

    def _try(self, changes: Sequence[Change | None], tried: dict[str, Errors]) -> Errors | None:
        """Makes the changes on the version at hand; None if another service was faster."""
        draft = Draft(self.version.recommender, {}, self._absent)
        errors: Errors = []
        for change in changes:
            try:
                draft = draft if change is None else change(draft)
                errors.append(None)
            except IncatalogError as error:
                errors.append(error)
        if draft.recommender is self.version.recommender:
            return errors
        changed, mark = draft.named(), new_mark()
        absent = {one: one in draft.absent for one in draft.absent ^ self._absent}
        tried[mark] = errors
        head = self._store.append(self.name, self._head, mark, changed, absent)
        if head is None:
            del tried[mark]
            return None
        self._remember(changed)
        self._head, self._absent = head, draft.absent
        self.version = Version(head.number, draft.recommender)
        return errors

    def _catch_up(self) -> frozenset[str]:
        """Makes what other services have changed; the marks of the versions that were passed."""
        try:
            grown = self._store.since(self.name, self._head)
            if grown is None:
                self._load()
            elif grown.head != self._head:
                recommender = followed(self.version.recommender, grown.changes.values())
                self._remember(grown.changes.values())
                absent = self._absent - grown.absent.keys()
                self._absent = absent | {one for one, now in grown.absent.items() if now}
                self._head = grown.head
                self.version = Version(grown.head.number, recommender)
            marks = frozenset[str]() if grown is None else grown.marks
        except StateError:
            raise
        except IncatalogError as error:
            self.fault = str(error)
            what = f"domain {self.name!r} cannot follow the other services: {error}"
            raise StateError(f"{self._store.place}: {what}; start this service anew") from error
        self.fault = None
        return marks

    def _remember(self, changes: Iterable[Stored]) -> None:
        for change in changes:
            self._added.pop(change.item_id, None)
            if change.new is not None:
                self._added[change.item_id] = change.new

    def _load(self) -> None:
        """Makes all changes of the store on what the folder holds."""
        whole = self._store.whole(self.name)
        try:
            recommender = followed(self._base, whole.changes)
        except IncatalogError as error:
            what = f"the changes of domain {self.name!r} do not fit its catalog: {error}"
            then = "serve the catalog they were made on, or start with another state"
            raise ArtifactError(f"{self._store.place}: {what}; {then}") from error
        self._added = {}
        self._remember(whole.changes)
        self._head, self._absent = whole.head, whole.absent
        self.version = Version(whole.head.number, recommender)


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
