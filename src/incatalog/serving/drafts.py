"""The next version of a catalog while it is made, and the versions that others have made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from incatalog.codes.semantic_ids import SemanticIds
from incatalog.data.catalog import Catalog
from incatalog.data.vectors import check_numbers
from incatalog.errors import CatalogError, SemanticIdError, VectorError
from incatalog.recommender.recommender import Recommender
from incatalog.serving.store import NewItem, Stored


@dataclass(frozen=True)
class FeedCounts:
    """What a feed has changed, in items."""

    added: int
    changed: int
    removed: int  # or disabled, where that was asked for
    unchanged: int


@dataclass(frozen=True)
class Draft:
    """The next version while it is made, and what differs from the last one, by item id."""

    recommender: Recommender
    stored: Mapping[str, Stored]
    absent: frozenset[str]  # disabled as the newest feed lacks them

    def put(self, items: Sequence[NewItem]) -> Draft:
        """Adds items, or puts them in the place of those with their ids."""
        stored = {new.item.item_id: Stored(new.item.item_id, new) for new in items}
        if len(stored) < len(items):
            raise CatalogError("items: two of them share an id; expected each once")
        changed = _put(self.recommender, items, again=True)
        return Draft(changed, {**self.stored, **stored}, self.absent - stored.keys())

    def remove(self, item_ids: Sequence[str]) -> Draft:
        """Removes items."""
        stored = {item_id: Stored(item_id, None, "removed") for item_id in item_ids}
        changed = _changed(self.recommender, item_ids, ())
        return Draft(changed, {**self.stored, **stored}, self.absent - stored.keys())

    def feed(
        self, items: Sequence[NewItem], added: Mapping[str, NewItem], *, disable: bool
    ) -> tuple[Draft, FeedCounts]:
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
        return Draft(changed, {**self.stored, **stored}, absent), counts

    def _new(
        self, item_id: str, given: Mapping[str, NewItem], added: Mapping[str, NewItem]
    ) -> NewItem | None:
        """An item as it was given last; None if it is that of the folder."""
        if item_id in given:
            return given[item_id]
        before = self.stored.get(item_id)
        return added.get(item_id) if before is None else before.new

    def named(self) -> list[Stored]:
        """What differs, with the names by which the model now knows the items.

        Whoever makes the same changes elsewhere then has the model write the same.
        """
        catalog, found = self.recommender.catalog, []
        for one in self.stored.values():
            if one.new is None or not catalog.has(one.item_id):
                found.append(one)
                continue
            title_t = catalog.item(catalog.row(one.item_id)).title_t
            new = replace(one.new, item=replace(one.new.item, title_t=title_t))
            found.append(replace(one, new=new))
        return found

    def enable(self, item_id: str, added: Mapping[str, NewItem], *, enabled: bool) -> Draft:
        """Allows an item to be recommended, or forbids it."""
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
        return Draft(changed, {**self.stored, item_id: stored}, self.absent - {item_id})


def followed(recommender: Recommender, changes: Iterable[Stored]) -> Recommender:
    """The recommender with changes as they were kept, made at once."""
    changes = list(changes)
    known = recommender.catalog
    gone = [one.item_id for one in changes if one.state == "removed" and known.has(one.item_id)]
    new = [one.new for one in changes if one.new is not None and one.state != "removed"]
    changed = _put(recommender, new, removed=gone)
    catalog = changed.catalog
    before = {catalog.item(row).item_id for row in changed.disabled}
    disabled = before - {one.item_id for one in changes}
    disabled |= {
        one.item_id for one in changes if one.state == "disabled" and catalog.has(one.item_id)
    }
    return changed if disabled == before else changed.with_disabled(disabled)


def fingerprint(recommender: Recommender) -> str:
    """SHA-256 over all that is known of the items, whatever their order.

    States keep it: with another one, none of them could be gone on with.
    """
    catalog, digest = recommender.catalog, hashlib.sha256(recommender.catalog.title_field.encode())
    rows = ((item.item_id, row) for row, item in enumerate(catalog.items))
    for _, row in sorted(one for one in rows if one[1] not in catalog.vacant):
        item = catalog.item(row)
        texts = item.item_id, item.title, item.name, item.description, sorted(item.categories)
        known = *texts, item.boost, item.boost_until, dict(item.attributes)
        line = json.dumps([known, row in recommender.disabled], sort_keys=True)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


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
        title_t = one.item.title_t
        names = known is not None and (known.title, known.called, title_t or known.title_t) == (
            one.item.title,
            one.item.called,
            known.title_t,
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
