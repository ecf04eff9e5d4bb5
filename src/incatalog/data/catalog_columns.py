"""The fields of a catalog's items as columns, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64

from incatalog.data.attributes import Value
from incatalog.data.columns import Column
from incatalog.data.fields import near_names
from incatalog.errors import CatalogError

# What a question about the items may be about beside their attributes.
FIELDS = ("category", "title", "id")


class FieldedItem(Protocol):
    """An item, as far as columns are made of it."""

    @property
    def attributes(self) -> Mapping[str, Value]:
        """What is known of it beside its title."""

    @property
    def boost(self) -> float:
        """What its weight is multiplied by."""

    def value(self, name: str) -> Value | None:
        """The value of an attribute, or of one of `FIELDS`."""


class CatalogColumns:
    """What is known of all items of a catalog, field by field."""

    name: str
    items: Sequence[FieldedItem]

    @property
    def live_items(self) -> Iterator[FieldedItem]:
        """The items that were not removed."""
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

    @cached_property
    def log_boosts(self) -> Float64[np.ndarray, " items"] | None:
        """Logarithms of the items' boosts, by row; None where no item has one."""
        boosts = np.array([item.boost for item in self.items])
        return None if (boosts == 1).all() else np.log(boosts)

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
            "log_boosts": self._boosts_with(rows, items, total),
            "_columns": columns,
        }

    def _boosts_with(
        self, rows: Sequence[int], items: Sequence[FieldedItem], total: int
    ) -> Float64[np.ndarray, " items"] | None:
        before = self.log_boosts
        if before is None and all(item.boost == 1 for item in items):
            return None
        boosts = np.zeros(total)
        boosts[: len(self.items)] = 0.0 if before is None else before
        boosts[list(rows)] = np.log([item.boost for item in items])
        return boosts

    @cached_property
    def _columns(self) -> dict[str, Column]:
        return {}
