"""The catalogs of a running service: every request sees one version, changes make the next."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from incatalog.codes.semantic_ids import SemanticIds, load_semantic_ids
from incatalog.data.catalog import Catalog
from incatalog.data.vectors import check_numbers, load_vectors
from incatalog.errors import (
    ArtifactError,
    CatalogError,
    ConfigError,
    IncatalogError,
    SemanticIdError,
    VectorError,
)
from incatalog.recommender.recommender import Recommender
from incatalog.serving.store import CatalogStore, NewItem, Stored

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Version:
    """A catalog as it stands.

    Attributes:
        number: Counts the changes; 0 as loaded from the folder.
        recommender: The model on this catalog.
    """

    number: int
    recommender: Recommender

    @property
    def catalog(self) -> Catalog:
        """The items."""
        return self.recommender.catalog


Change = Callable[["_Draft"], None]


class _Draft:
    """The next version while it is made.

    Attributes:
        recommender: The model on the catalog so far.
        stored: What differs from the folder, by item id.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.stored: dict[str, Stored] = {}

    def put(self, items: Sequence[NewItem]) -> None:
        """Adds items, or replaces those with the same ids."""
        if len({new.item.item_id for new in items}) < len(items):
            raise CatalogError("items: two of them share an id; expected each once")
        catalog = self.recommender.catalog
        replaced = [new.item.item_id for new in items if catalog.has(new.item.item_id)]
        self.recommender = _changed(self.recommender, replaced, items)
        self.stored |= {new.item.item_id: Stored(new.item.item_id, new) for new in items}

    def remove(self, item_ids: Sequence[str]) -> None:
        """Removes items."""
        self.recommender = _changed(self.recommender, item_ids, ())
        self.stored |= {item_id: Stored(item_id, None, removed=True) for item_id in item_ids}

    def enable(self, item_id: str, *, enabled: bool, known: NewItem | None) -> None:
        """Lets an item be recommended again, or not any longer."""
        catalog = self.recommender.catalog
        disabled = {catalog.item(row).item_id for row in self.recommender.disabled} - {item_id}
        if not enabled:
            disabled.add(item_id)
            if len(disabled) >= catalog.num_live:
                raise CatalogError(
                    f"item {item_id!r}: nothing would be left to recommend; enable another first"
                )
        self.recommender = self.recommender.with_disabled(disabled)
        self.stored[item_id] = Stored(item_id, known, disabled=not enabled)


class Domain:
    """One catalog of a running service.

    Changes that arrive while others are made wait and are made together, as one version.

    Args:
        name: Its name in requests.
        recommender: The model on the catalog as loaded from its folder.
        store: Keeps the changes; those it holds are made at once.

    Attributes:
        name: Its name in requests.
        version: The newest version; whoever asks keeps it to the end of the answer.

    Raises:
        ArtifactError: A row of the store is malformed, or does not fit the folder any longer.
    """

    def __init__(self, name: str, recommender: Recommender, store: CatalogStore) -> None:
        self.name = name
        self._store = store
        self._added: dict[str, NewItem] = {}
        self._pending: list[tuple[Change, asyncio.Future[Version]]] = []
        self._making: asyncio.Task[None] | None = None
        try:
            replayed = self._replayed(recommender)
        except ArtifactError:
            raise
        except IncatalogError as error:
            raise store.misfit(name, error) from error
        self.version = Version(store.version(name), replayed)

    async def put(self, items: Sequence[NewItem]) -> Version:
        """Adds items, or replaces those with the same ids; returns the version that has them.

        Raises:
            IncatalogError: An item does not fit the model; nothing is changed then.
        """
        return await self._change(lambda draft: draft.put(items))

    async def remove(self, item_ids: Sequence[str]) -> Version:
        """Removes items; returns the version that lacks them.

        Raises:
            CatalogError: An item is not there, or none would be left; nothing is changed then.
        """
        return await self._change(lambda draft: draft.remove(item_ids))

    async def enable(self, item_id: str, *, enabled: bool) -> Version:
        """Lets an item be recommended again, or not any longer.

        Raises:
            CatalogError: The item is not there, or nothing would be left to recommend.
        """

        def change(draft: _Draft) -> None:
            draft.recommender.catalog.row(item_id)
            before = draft.stored.get(item_id)
            known = self._added.get(item_id) if before is None else before.new
            draft.enable(item_id, enabled=enabled, known=known)

        return await self._change(change)

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
            try:
                version, errors = await asyncio.to_thread(self._next_version, changes)
            except Exception as error:
                for _, future in pending:
                    if not future.done():
                        future.set_exception(error)
                continue
            self.version = version
            for (_, future), failed in zip(pending, errors, strict=True):
                if future.done():
                    continue
                if failed is not None:
                    future.set_exception(failed)
                else:
                    future.set_result(version)

    def _next_version(
        self, changes: Sequence[Change]
    ) -> tuple[Version, list[IncatalogError | None]]:
        """Makes and saves the next version; a change that is refused leaves no trace in it."""
        before = self.version
        draft = _Draft(before.recommender)
        errors: list[IncatalogError | None] = []
        for change in changes:
            recommender, stored = draft.recommender, dict(draft.stored)
            try:
                change(draft)
            except IncatalogError as error:
                draft.recommender, draft.stored = recommender, stored
                errors.append(error)
            else:
                errors.append(None)
        if draft.recommender is before.recommender:
            return before, errors
        version = Version(before.number + 1, draft.recommender)
        self._store.save(self.name, version.number, draft.stored.values())
        self._remember(draft.stored.values())
        return version, errors

    def _remember(self, changes: Iterable[Stored]) -> None:
        for change in changes:
            self._added.pop(change.item_id, None)
            if change.new is not None:
                self._added[change.item_id] = change.new

    def _replayed(self, recommender: Recommender) -> Recommender:
        """The changes of the store, made on what the folder holds."""
        changes = list(self._store.changes(self.name))
        catalog = recommender.catalog
        added = [change.new for change in changes if change.new is not None]
        gone = [change.item_id for change in changes if change.removed or change.new is not None]
        gone = [item_id for item_id in gone if catalog.has(item_id)]
        recommender = _changed(recommender, gone, added)
        disabled = [change.item_id for change in changes if change.disabled]
        disabled = [item_id for item_id in disabled if recommender.catalog.has(item_id)]
        self._remember(changes)
        return recommender.with_disabled(disabled) if disabled else recommender


def _changed(
    recommender: Recommender, removed: Sequence[str], added: Sequence[NewItem]
) -> Recommender:
    """The recommender on a changed catalog, with codes and vectors as its method needs them."""
    codes = vectors = None
    sizes = recommender.spec.code_sizes
    if added and recommender.spec.item_form == "codes":
        for new in added:
            _check_codes(new, sizes)
        codes = SemanticIds(np.array([new.codes for new in added], dtype=np.int32), sizes)
    head = recommender.backbone.head
    if added and head is not None:
        for new in added:
            if len(new.vector or ()) != head.dim:
                raise VectorError(
                    f"item {new.item.item_id!r}: a vector of {len(new.vector or ())} numbers; "
                    f"expected {head.dim}; {head.how_to_embed()}"
                )
        vectors = np.array([new.vector for new in added], dtype=np.float64)
        check_numbers(vectors, "vector of the items")
        vectors = vectors.astype(np.float32)
    return recommender.with_changes([new.item for new in added], removed, codes, vectors)


def _check_codes(new: NewItem, sizes: Sequence[int]) -> None:
    codes = new.codes or ()
    if len(codes) != len(sizes) or any(
        not 0 <= code < size for code, size in zip(codes, sizes, strict=True)
    ):
        levels = ", ".join(map(str, sizes))
        raise SemanticIdError(
            f"item {new.item.item_id!r}: codes {list(codes)}; expected {len(sizes)} of them, "
            f"from 0 and below {levels}"
        )


def load_domains(
    recommender: Recommender, named: Mapping[str, Path], store: CatalogStore
) -> dict[str, Domain]:
    """The domains of a service.

    Args:
        recommender: The model with the catalog it was trained on.
        named: Folder of each domain; without any, the model's own catalog is the only one.
        store: Keeps the changes.

    Raises:
        ConfigError: A name cannot be used.
        DataError: A folder holds no catalog.
        IncatalogError: A catalog lacks what the model's method needs of it.
    """
    if not named:
        name = recommender.catalog.name
        name = name if _NAME.fullmatch(name) else "items"
        return {name: Domain(name, recommender, store)}
    domains = {}
    for name, folder in named.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--domain {name}: expected a name of letters, digits, dots, dashes, underscores"
            )
        catalog = Catalog.load(folder, name)
        if catalog.fingerprint == recommender.catalog.fingerprint:
            own = recommender.with_metadata(catalog)
        else:
            own = recommender.with_catalog(
                catalog,
                _codes(recommender, folder, catalog),
                _vectors(recommender, folder, catalog),
            )
        domains[name] = Domain(name, own, store)
    return domains


def _codes(recommender: Recommender, folder: Path, catalog: Catalog) -> SemanticIds | None:
    if recommender.spec.item_form != "codes":
        return None
    return load_semantic_ids(folder, catalog)


def _vectors(
    recommender: Recommender, folder: Path, catalog: Catalog
) -> Float32[np.ndarray, "items dim"] | None:
    if recommender.backbone.head is None:
        return None
    found = sorted(folder.glob("*.npy"))
    if len(found) != 1:
        raise ConfigError(
            f"--domain {catalog.name}: found {len(found)} npy files in {folder}; expected one with "
            f"the items' vectors; {recommender.backbone.head.how_to_embed()}"
        )
    return load_vectors(found[0], len(catalog))
