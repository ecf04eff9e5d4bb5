"""A teacher that guides a model: its log-probabilities weigh the items of every answer.

The score of an item is ``(1 - w) log p_model + w log p_teacher``, and it is found by exact search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64, Int64

from incatalog.config import EmptyHistory
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.data.catalog import Catalog
from incatalog.data.fields import factor_problem
from incatalog.decoding.request import Grounding
from incatalog.errors import ConfigError, TeacherError
from incatalog.recommender.items import ModelItems
from incatalog.teacher.row_lists import RowLists

if TYPE_CHECKING:
    from scipy import sparse

    from incatalog.recommender.neighbours import Neighbours
    from incatalog.teacher.teacher import Teacher

Kind = Literal["ranking", "list"]
"""What is guided: the ranking of one place, or a list or chat that is written."""

# What was measured well without fitting; see docs/guide.md.
USUAL_SHARE = 0.7
# A smaller share changes nothing, and factors are divided by it.
_LEAST_SHARE = 1e-6
_TINY = np.finfo(np.float64).tiny

LogWeights = Float64[np.ndarray, " items"]


@dataclass(frozen=True)
class _Rows:
    """Which items of a catalog are which items of the teacher's."""

    to_teacher: Int64[np.ndarray, " items"]  # by row of the catalog; -1 where it is unknown
    known: bool  # whether all items are known, in the teacher's order
    new: Int64[np.ndarray, " new"]  # rows of the catalog that the teacher does not know
    alike: sparse.csr_array | None  # [new, its items], how much each says of a new one


@dataclass(frozen=True, eq=False)
class Guide:
    """A teacher, and how much it counts.

    The teacher knows the catalog it was fitted on. Where items were added, removed or replaced
    since, they are matched by their ids: an item that takes the id of another counts as that one;
    an item the teacher does not know has the mean of the probabilities of the known items that are
    nearest to it by words and categories (:mod:`~incatalog.recommender.neighbours`), or the lowest
    that any item has after the same history, if no word is common; a removed one vanishes; a
    history is shown to it without the items it does not know.

    Raises:
        ConfigError: A share is not from 0 to 1.
        TeacherError: The teacher knows another number of items than the catalog has.
    """

    teacher: Teacher
    catalog: Catalog  # what it was fitted on
    ranking: float = USUAL_SHARE  # how much it counts in the ranking of one place, from 0 to 1
    listing: float = USUAL_SHARE  # and in lists and chats
    empty: EmptyHistory = "popularity"  # what it says of a user without history
    _rows: WeakKeyDictionary[Grounding, _Rows] = field(
        init=False, repr=False, default_factory=WeakKeyDictionary
    )

    def __post_init__(self) -> None:
        for name in ("ranking", "listing"):
            _check_share(name, getattr(self, name))
        found, expected = self.teacher.num_items, len(self.catalog)
        if found != expected:
            raise TeacherError(
                f"guide: the teacher knows {found} items; the catalog {self.catalog.name!r} has "
                f"{expected}; give a teacher that was fitted on it"
            )

    def with_share(self, share: float) -> Guide:
        """The same teacher, which counts so much everywhere."""
        return replace(self, ranking=share, listing=share)

    def share(self, kind: Kind) -> float:
        """How much the teacher counts."""
        return self.ranking if kind == "ranking" else self.listing

    @staticmethod
    def counts(share: float) -> bool:
        """Whether a share is enough for the teacher to be asked."""
        return share >= _LEAST_SHARE

    def check_catalog(self, catalog: Catalog) -> None:
        """Refuses a catalog that the teacher was not fitted on."""
        own = self.catalog
        if catalog is not own and catalog.items_fingerprint != own.items_fingerprint:
            raise TeacherError(
                f"guide: the teacher was fitted on the catalog {own.name!r} of {len(own)} items, "
                f"another one than {catalog.name!r} of {len(catalog)} (items, order or titles "
                "differ); give a guide of this catalog, or none"
            )

    def log_weights(self, histories: RowLists, items: ModelItems) -> list[LogWeights | None]:
        """The teacher's log-probabilities of a catalog's items after each history.

        The teacher is asked once for all of them.

        Args:
            histories: Rows of the catalog of each history, oldest first.
            items: The catalog as it is now.

        Returns:
            By row of the catalog; None for a history without an item that the teacher knows, where
            ``empty`` is ``nothing``.

        Raises:
            TeacherError: The teacher fails, or its answer is none.
        """
        rows = self._rows_of(items)
        shown = [_seen(rows, history) for history in histories]
        asked = [place for place, one in enumerate(shown) if len(one) or self.empty != "nothing"]
        found: list[LogWeights | None] = [None] * len(shown)
        if not asked:
            return found
        answer = self.teacher.log_probabilities([shown[place] for place in asked])
        expected = (len(asked), len(self.catalog))
        if answer.shape != expected:
            raise TeacherError(
                f"guide: the teacher answered with log-probabilities of shape {answer.shape}; "
                f"expected {expected}, one for each history and item"
            )
        if not np.isfinite(answer).all():
            line, row = np.argwhere(~np.isfinite(answer))[0].tolist()
            raise TeacherError(
                f"guide: the teacher answered with {answer[line, row]} for item "
                f"{self.catalog.item(row).item_id!r}; expected a finite log-probability of every "
                "item; fit the teacher again"
            )
        for place, line in zip(asked, answer.astype(np.float64), strict=True):
            found[place] = line if rows.known else _moved(line, rows)
        return found

    def weights(
        self,
        histories: RowLists,
        items: ModelItems,
        excluded: Sequence[ExcludedItems | None],
        kind: Kind,
        *,
        log_factors: LogWeights | None = None,
        share: float | None = None,
        said: Sequence[LogWeights | None] | None = None,
    ) -> list[ItemWeights | None]:
        """The weights of the items in an answer to each history; see :func:`item_weights`."""
        share = self.share(kind) if share is None else share
        _check_share("share", share)
        found: Sequence[LogWeights | None] = [None] * len(histories)
        if self.counts(share):
            found = self.log_weights(histories, items) if said is None else said
        return [
            None
            if own is None and log_factors is None
            else ItemWeights.build(
                items.grounding.trie,
                own,
                share=share if own is not None else 0.0,
                log_factors=log_factors,
                base=base,
            )
            for own, base in zip(found, excluded, strict=True)
        ]

    def _rows_of(self, items: ModelItems) -> _Rows:
        # A change of the items makes another grounding; names and categories do not matter here.
        rows = self._rows.get(items.grounding)
        if rows is None:
            rows = self._rows[items.grounding] = self._matched(items.catalog)
        return rows

    def _matched(self, catalog: Catalog) -> _Rows:
        """Where the teacher knows each item of a catalog."""
        fitted, vacant = self.catalog, catalog.vacant
        places = [
            fitted.row(item.item_id) if row not in vacant and fitted.has(item.item_id) else -1
            for row, item in enumerate(catalog.items)
        ]
        to_teacher = np.array(places, dtype=np.int64)
        known = bool(np.array_equal(to_teacher, np.arange(len(fitted))))
        new = np.array([row for row in np.flatnonzero(to_teacher < 0) if row not in vacant], int)
        alike = None
        if len(new):
            alike = self._neighbours.shares([catalog.items[row] for row in new.tolist()])
        return _Rows(to_teacher, known, new, alike)

    @cached_property
    def _neighbours(self) -> Neighbours:
        # Its packages take memory that a service whose catalog stays has no use for.
        from incatalog.recommender.neighbours import Neighbours

        return Neighbours.of(self.catalog)


def item_weights(
    guide: Guide | None,
    histories: RowLists,
    items: ModelItems,
    excluded: Sequence[ExcludedItems | None],
    kind: Kind,
    *,
    boost: Mapping[str, float] | None = None,
    share: float | None = None,
    said: Sequence[LogWeights | None] | None = None,
    steer: LogWeights | None = None,
) -> list[ItemWeights | None]:
    """The weights of the items in an answer to each history.

    Args:
        guide: A teacher that counts; None for boosts alone.
        histories: Rows of the catalog of each history, oldest first.
        items: The catalog.
        excluded: For each history the items that must not be named.
        kind: What the answers are.
        boost: Factors by item id, beside those of the catalog.
        share: How much the teacher counts, in place of what the guide says.
        said: What :meth:`Guide.log_weights` gave for each history, where it was asked before.
        steer: What was said of the items, in all answers: log-weights by item row, which count in
            full beside model and guide.

    Returns:
        None for a history after which nothing weighs: the answer is the model's alone.

    Raises:
        CatalogError: A boosted item is not in the catalog.
        ConfigError: A factor or the share is out of range, or there is a share and no guide.
        TeacherError: The teacher fails, or its answer is none.
    """
    factors = log_factors(items.catalog, boost or {})
    if steer is not None:
        factors = steer if factors is None else factors + steer
    if guide is not None:
        how: Any = {"log_factors": factors, "share": share, "said": said}
        return guide.weights(histories, items, excluded, kind, **how)
    if share:
        raise ConfigError(f"guide_weight: found {share}, and the model has no guide; leave it out")
    if factors is None:
        return [None] * len(histories)
    trie = items.grounding.trie
    return [ItemWeights.build(trie, log_factors=factors, base=base) for base in excluded]


def log_factors(catalog: Catalog, boost: Mapping[str, float]) -> LogWeights | None:
    """Logarithms of what items are multiplied by: their own boosts and those given by id.

    None where that is 1 for all.
    """
    found = catalog.log_boosts
    if not boost:
        return found
    found = np.zeros(len(catalog)) if found is None else found.copy()
    for item_id, factor in boost.items():
        if problem := factor_problem(factor):
            raise ConfigError(f"boost: found {factor} for item {item_id!r}; {problem}")
        found[catalog.row(item_id)] += np.log(factor)
    return found


def _seen(rows: _Rows, history: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " seen"]:
    """A history in the teacher's rows, as far as it knows the items."""
    found: np.ndarray = rows.to_teacher[np.asarray(history, dtype=np.int64)]
    return found[found >= 0]


def _moved(line: LogWeights, rows: _Rows) -> LogWeights:
    """Log-probabilities by row of the catalog, of new items by those that are like them."""
    found: np.ndarray = np.append(line, line.min())[rows.to_teacher]
    if rows.alike is not None:
        some = np.diff(rows.alike.indptr) > 0
        # The best of them is the zero of the exponents, so that none is too small for a float.
        best = line.max()
        means = (rows.alike @ np.exp(line - best))[some]
        found[rows.new[some]] = np.maximum(np.log(np.maximum(means, _TINY)) + best, line.min())
    return found


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{name}: found {share}; expected a share of the teacher from 0 to 1")
