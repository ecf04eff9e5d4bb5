"""The fields of a catalog's items as columns, made when they are asked for."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float64, Int64

from incatalog.data.attributes import Value
from incatalog.data.columns import Column
from incatalog.data.fields import near_names
from incatalog.data.formats import ShownAttribute, attribute_shown
from incatalog.errors import CatalogError

# What a question about the items may be about beside their attributes.
FIELDS = ("category", "title", "id")
# What a catalog has made of its items beside their ids and names.
_OF_METADATA = {"categories", "_category_rows", "attribute_names", "_boosts", "_columns"}
_FOR_EVER = datetime.date.max.toordinal()
Logs = Float64[np.ndarray, " items"]
Boosts = tuple[Logs, Int64[np.ndarray, " items"] | None]


class FieldedItem(Protocol):
    """An item, as far as columns are made of it."""

    @property
    def attributes(self) -> Mapping[str, Value]:
        """What is known of it beside its title."""

    @property
    def item_id(self) -> str:
        """Its name outside."""

    @property
    def boost(self) -> float:
        """What its weight is multiplied by."""

    @property
    def boost_until(self) -> str | None:
        """Last day on which it is."""

    def value(self, name: str) -> Value | None:
        """The value of an attribute, or of one of `FIELDS`."""


class CatalogColumns:
    """What is known of all items of a catalog, field by field."""

    name: str
    items: Sequence[FieldedItem]
    formats: tuple[tuple[str, str], ...]

    @property
    def live_items(self) -> Iterator[FieldedItem]:
        """The items that were not removed."""
        raise NotImplementedError

    def row(self, item_id: str) -> int:
        """The row of an item."""
        raise NotImplementedError

    @cached_property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of all attributes, in the order in which the items have them."""
        return tuple(dict.fromkeys(name for item in self.live_items for name in item.attributes))

    def attribute(self, name: str) -> Column:
        """An attribute of all items, or their ``category``, ``title`` or ``id``, by row.

        Rows of removed items may hold anything.

        Raises:
            CatalogError: No item has such an attribute.
        """
        found = self._columns.get(name)
        if found is None:
            self.check_field(name)
            values = (item.value(name) for item in self.items)
            found = self._columns[name] = Column.of(values, len(self.items), exact=name == "id")
        return found

    def check_field(self, name: str, place: str = "") -> None:
        """Refuses a field that no item has, as `attribute` does."""
        known = (*self.attribute_names, *FIELDS)
        if name not in known:
            near = near_names(name, known) or f"; expected one of {', '.join(known)}"
            at = f"{place}: " if place else ""
            raise CatalogError(f"{at}catalog {self.name}: no field {name[:80]!r}{near}")

    def shown(self, item: FieldedItem) -> list[ShownAttribute]:
        """The attributes of an item with their labels, prices with their currencies."""
        currency = dict(self.formats)
        pairs = item.attributes.items()
        return [attribute_shown(name, value, currency.get(name, "")) for name, value in pairs]

    @property
    def log_boosts(self) -> Float64[np.ndarray, " items"] | None:
        """Logarithms of the items' boosts today, by row; None where no item has one."""
        return self.log_boosts_on(datetime.date.today())

    def log_boosts_on(self, day: datetime.date) -> Float64[np.ndarray, " items"] | None:
        """Logarithms of the items' boosts on some day, by row; None where no item ever has one."""
        if self._boosts is None:
            return None
        boosts, until = self._boosts
        return boosts if until is None else np.where(until >= day.toordinal(), boosts, 0.0)

    @cached_property
    def _boosts(self) -> Boosts | None:
        """Logarithms of the boosts, and the last days on which they count where some end."""
        if all(item.boost == 1 for item in self.items):
            return None
        until = np.array(list(map(_last_day, self.items)))
        boosts: Logs = np.log([item.boost for item in self.items])
        return boosts, None if (until == _FOR_EVER).all() else until

    def with_updated(self, items: Sequence[FieldedItem]) -> Self:
        """The catalog where some items know something else of themselves, in the same rows.

        Their ids, titles and names are those that they have.
        """
        pairs = sorted(((self.row(item.item_id), item) for item in items), key=lambda pair: pair[0])
        rows, new = [row for row, _ in pairs], [item for _, item in pairs]
        changed = list(self.items)
        for row, item in pairs:
            changed[row] = item
        # Made without the checks, which are a pass over all items: what they look at stays.
        catalog = object.__new__(type(self))
        kept = {name: one for name, one in self.__dict__.items() if name not in _OF_METADATA}
        catalog.__dict__.update(kept | self.columns_with(rows, new, len(changed)))
        catalog.__dict__["items"] = tuple(changed)
        return catalog

    def columns_with(
        self, rows: Sequence[int], items: Sequence[FieldedItem], total: int
    ) -> dict[str, Any]:
        """What this catalog has made, where some rows, ascending, hold new items."""
        names = dict.fromkeys([*self.attribute_names, *(n for i in items for n in i.attributes)])
        columns = {
            name: column.with_values(rows, [item.value(name) for item in items], total)
            for name, column in self._columns.copy().items()
        }
        return {
            "attribute_names": tuple(names),
            "_boosts": self._boosts_with(rows, items, total),
            "_columns": columns,
        }

    def _boosts_with(
        self, rows: Sequence[int], items: Sequence[FieldedItem], total: int
    ) -> Boosts | None:
        if self._boosts is None and all(item.boost == 1 for item in items):
            return None
        before, ends = self._boosts or (np.zeros(len(self.items)), None)
        boosts, until = np.zeros(total), np.full(total, _FOR_EVER)
        boosts[: len(before)], until[: len(before)] = before, _FOR_EVER if ends is None else ends
        boosts[list(rows)] = np.log([item.boost for item in items])
        until[list(rows)] = list(map(_last_day, items))
        return boosts, None if (until == _FOR_EVER).all() else until

    @cached_property
    def _columns(self) -> dict[str, Column]:
        return {}


def _last_day(item: FieldedItem) -> int:
    ends = item.boost_until
    return _FOR_EVER if ends is None else datetime.date.fromisoformat(ends).toordinal()
