"""Histories that lists are asked for, with what each excludes and what weighs its items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from incatalog.config import Decode, ItemDecode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.data.where import EVERYTHING, Where
from incatalog.decoding.request import Request, Slot
from incatalog.errors import ConfigError
from incatalog.recommender.guide import Kind
from incatalog.recommender.talking import Talking


@dataclass(frozen=True, kw_only=True)
class ListRules:
    """What holds for the lists of many histories; see `Recommender.recommend_batch`."""

    exclude: Sequence[str] = ()
    categories: Sequence[str] = ()
    exclude_seen: bool = True
    decode: Decode = "beam"
    boost: Mapping[str, float] | None = None
    guide_weight: float | None = None
    where: Where = EVERYTHING
    excludes: Sequence[Sequence[str]] | None = None
    boosts: Sequence[Mapping[str, float]] | None = None

    @property
    def written(self) -> ItemDecode:
        """How the items of a list that the model writes are found."""
        return "search" if self.decode == "list" else "token"

    def check(self, count: int) -> None:
        """Refuses other numbers of exclusions or factors than there are histories: ConfigError."""
        for name, own in (("excludes", self.excludes), ("boosts", self.boosts)):
            if own is not None and len(own) != count:
                raise ConfigError(f"{name}: found {len(own)}; expected one for each history")


@dataclass(frozen=True)
class WeighedHistory:
    """One history: its rows, what it excludes, and the weights of the items after it."""

    rows: list[int]
    excluded: ExcludedItems
    weights: ItemWeights | None

    def slot(self, asked: Talking, k: int) -> Slot:
        """The first place of the list that a recommender is asked for, to be searched."""
        return asked.prompts.slot(self.rows, k, self.excluded, weights=self.weights)

    def request(self, asked: Talking, k: int, written: ItemDecode) -> Request:
        """The request for the list."""
        return asked.prompts.list_request(
            self.rows, k, self.excluded, weights=self.weights, item_decode=written
        )


def weighed_histories(
    asked: Talking, histories: Sequence[Sequence[str]], rules: ListRules, batch_size: int
) -> Iterator[list[WeighedHistory]]:
    """The histories in batches, so that the weights of a few alone are in memory.

    Raises:
        CatalogError: An item, category or field is not in the catalog.
        ConfigError: There are not as many exclusions or factors as histories.
        TeacherError: The guide does not answer.
    """
    rules.check(len(histories))
    items = asked.items
    rows = [items.catalog.rows(history).tolist() for history in histories]
    own = rules.excludes or [()] * len(rows)
    excluded = [
        items.excluded(
            [*rules.exclude, *barred], rules.categories, row, rules.exclude_seen, rules.where
        )
        for row, barred in zip(rows, own, strict=True)
    ]
    kind: Kind = "ranking" if rules.decode == "beam" else "list"
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        factors = None if rules.boosts is None else rules.boosts[part]
        weights = asked.weights(
            rows[part], excluded[part], kind, rules.boost, rules.guide_weight, boosts=factors
        )
        yield list(map(WeighedHistory, rows[part], excluded[part], weights))
