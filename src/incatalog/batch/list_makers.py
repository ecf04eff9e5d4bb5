"""Who makes the lists: a model by itself or guided, or a teacher alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from incatalog.batch.settings import BatchSettings
from incatalog.batch.user_table import UserRow
from incatalog.data.catalog import Catalog
from incatalog.recommender.asking import open_asked
from incatalog.recommender.guide import LogWeights, multiplied
from incatalog.recommender.guide_folder import empty_of
from incatalog.recommender.opening import ModelKind
from incatalog.recommender.teacher_lists import teacher_lists

if TYPE_CHECKING:
    from incatalog.recommender.answer import Recommendation
    from incatalog.recommender.recommender import Recommender
    from incatalog.teacher.teacher import Teacher


class ListMaker(Protocol):
    """Makes lists for users, as an engine can."""

    def close(self) -> None:
        """Lets go of what was started for it."""

    def lists(self, users: Sequence[UserRow]) -> list[list[Recommendation]]:
        """The list of each user, best first.

        Args:
            users: Users whose items are all in the catalog.

        Returns:
            For each at most as many items as the settings say, all different, and none where
            nothing is left to recommend.

        Raises:
            IncatalogError: It cannot answer.
        """


class ModelLists:
    """Lists of a language model, guided if it has a guide."""

    def __init__(
        self, recommender: Recommender, settings: BatchSettings, rules: Mapping[str, Any]
    ) -> None:
        how = settings.named("k", "exclude_seen", "decode", "batch_size")
        self._recommender, self._how = recommender, {**how, **rules}

    def close(self) -> None:
        """There is nothing to let go of."""

    def lists(self, users: Sequence[UserRow]) -> list[list[Recommendation]]:
        """See :meth:`ListMaker.lists`; the guide says what follows an empty history."""
        return self._recommender.recommend_batch(
            [user.history for user in users],
            **self._how,
            excludes=[user.exclude for user in users],
            boosts=[user.boost for user in users],
        )


class TeacherLists:
    """Lists of a teacher by itself."""

    def __init__(
        self,
        teacher: Teacher,
        catalog: Catalog,
        settings: BatchSettings,
        rules: Mapping[str, Any],
    ) -> None:
        self._teacher, self._catalog, self._settings = teacher, catalog, settings
        self._allowed = catalog.allowed_rows(rules["categories"]) & rules["where"].rows(catalog)
        self._allowed[catalog.rows(rules["exclude"])] = False
        self._answers_all = empty_of(teacher, None) == "popularity"

    def close(self) -> None:
        """There is nothing to let go of."""

    def lists(self, users: Sequence[UserRow]) -> list[list[Recommendation]]:
        """See :meth:`ListMaker.lists`; a teacher that needs a history says nothing without one."""
        asked = [user for user in users if user.history or self._answers_all]
        found = teacher_lists(
            self._teacher,
            self._catalog,
            [self._catalog.rows(user.history).tolist() for user in asked],
            self._settings.k,
            self._allowed,
            exclude_seen=self._settings.exclude_seen,
            log_factors=list(map(self._factors, asked)),
        )
        lists = dict(zip(map(id, asked), found, strict=True))
        return [lists.get(id(user), []) for user in users]

    def _factors(self, user: UserRow) -> LogWeights | None:
        found = multiplied(self._catalog, None, user.boost)
        if user.exclude:
            found = np.zeros(len(self._catalog)) if found is None else found
            found[self._catalog.rows(user.exclude)] = -np.inf
        return found


def open_lists(
    settings: BatchSettings, kind: ModelKind, catalog: Catalog, rules: Mapping[str, Any]
) -> ListMaker:
    """Loads the model that the settings name.

    Raises:
        IncatalogError: It is incomplete or damaged, or its guide is none of this catalog.
    """
    if settings.engine == "vllm":
        from incatalog.batch.engine_lists import EngineLists

        return EngineLists(open_asked(settings, kind, catalog, weights=False), settings, rules)
    if kind != "teacher":
        return ModelLists(open_asked(settings, kind, catalog), settings, rules)
    from incatalog.teacher.teacher import load_teacher

    teacher = load_teacher(settings.model, catalog, settings.device)
    return TeacherLists(teacher, catalog, settings, rules)


def known_items(user: UserRow, catalog: Catalog) -> tuple[UserRow, list[str]]:
    """A user without the items that the catalog does not have, and the ids of these."""
    boost = {item: factor for item, factor in user.boost.items() if catalog.has(item)}
    history, exclude = (
        [item for item in items if catalog.has(item)] for items in (user.history, user.exclude)
    )
    given = (*user.history, *user.exclude, *user.boost)
    unknown = [item for item in given if not catalog.has(item)]
    return UserRow(user.user_id, history, exclude, boost), unknown
