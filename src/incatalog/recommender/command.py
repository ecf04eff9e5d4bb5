"""`incatalog recommend`: lists for one history or for many, as a table, JSON or CSV."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from incatalog.artifacts import atomic_path
from incatalog.data.catalog import Catalog
from incatalog.errors import NoItemLeftError
from incatalog.model.hub import with_model_here
from incatalog.recommender.asking import asked_rules, open_asked, refuse_model_flags
from incatalog.recommender.history_file import UserHistory, read_histories
from incatalog.recommender.item_names import ItemNames
from incatalog.recommender.opening import ModelKind, catalog_of, model_kind
from incatalog.recommender.settings import RecommendSettings

if TYPE_CHECKING:
    from incatalog.recommender.answer import Recommendation

_MOST_NAMED = 3


def recommend(settings: RecommendSettings) -> None:
    """Prints what follows one history or many, or writes it to a file.

    Raises:
        CatalogError: A flag names no item of the model's catalog, or several.
        ConfigError: A flag names no model or category, or flags do not go together.
        DataError: The file of histories is missing or broken.
    """
    settings = with_model_here(settings)
    kind = model_kind(settings.model)
    _check_flags(settings, kind)
    # Before the weights are loaded: a mistyped id should not cost that time.
    catalog = catalog_of(settings.model, kind, settings.data, settings.title_field)
    items = ItemNames(catalog)
    users = _users(settings, items)
    rules = asked_rules(settings, catalog, items)

    from incatalog.recommender.list_tables import UserList, chosen_format, write_lists

    histories = [user.item_ids for user in users]
    asked = _by_teacher if kind == "teacher" else _by_model
    found = asked(settings, kind, catalog, histories, rules)
    if not any(found):
        why = f"the exclusions leave none of the {len(catalog)} items"
        hint = "exclude fewer or name other categories"
        raise NoItemLeftError(f"no item left to recommend: {why}; {hint}")
    _tell_short_lists(settings, users, found)
    alone = settings.history_file is None
    lists = [
        UserList(None if alone else user.user, own) for user, own in zip(users, found, strict=True)
    ]
    form = chosen_format(settings.format, settings.out)
    if settings.out is None:
        write_lists(lists, form, sys.stdout)
        return
    with atomic_path(settings.out) as partial, partial.open("w", encoding="utf-8") as stream:
        write_lists(lists, form, stream)


def _check_flags(settings: RecommendSettings, kind: ModelKind) -> None:
    """Refuses flags that say two things, or something of another kind of model."""
    settings.refuse_first([
        (bool(settings.history) and settings.history_file is not None, "--history, --history-file",
         "each says whose list is wanted; leave one out"),
    ])  # fmt: skip
    refuse_model_flags(settings, kind)


def _users(settings: RecommendSettings, items: ItemNames) -> list[UserHistory]:
    """Whose lists are wanted; what a file names that is no item is told and left out."""
    if settings.history_file is None:
        return [UserHistory("", tuple(items.listed("--history", settings.history)), ())]
    users = read_histories(settings.history_file, items)
    unknown = list(dict.fromkeys(name for user in users for name in user.unknown))
    if unknown:
        named = ", ".join(map(repr, unknown[:_MOST_NAMED]))
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        told = f"{named}{more} left out, as the catalog has no such item"
        sys.stderr.write(f"notice: {settings.history_file}: {told}\n")
    return users


def _by_model(
    settings: RecommendSettings,
    kind: ModelKind,
    catalog: Catalog,
    histories: Sequence[Sequence[str]],
    rules: dict[str, Any],
) -> list[list[Recommendation]]:
    recommender = open_asked(settings, kind, catalog)
    how = settings.named("k", "exclude_seen", "decode")
    return recommender.recommend_batch(histories, **how, **rules)


def _by_teacher(
    settings: RecommendSettings,
    _kind: ModelKind,
    catalog: Catalog,
    histories: Sequence[Sequence[str]],
    rules: dict[str, Any],
) -> list[list[Recommendation]]:
    from incatalog.recommender.teacher_lists import teacher_lists
    from incatalog.teacher.teacher import load_teacher

    teacher = load_teacher(settings.model, catalog, settings.device)
    allowed = catalog.allowed_rows(rules["categories"]) & rules["where"].rows(catalog)
    allowed[catalog.rows(rules["exclude"])] = False
    rows = [catalog.rows(history).tolist() for history in histories]
    seen = settings.exclude_seen
    return teacher_lists(teacher, catalog, rows, settings.k, allowed, exclude_seen=seen)


def _tell_short_lists(
    settings: RecommendSettings,
    users: Sequence[UserHistory],
    found: Sequence[Sequence[Recommendation]],
) -> None:
    """Says where fewer items are left than were asked for."""
    short = [len(own) for own in found if len(own) < settings.k]
    if not short:
        return
    few = f"only {max(short)} items are left to recommend"
    if len(users) > 1:
        few = f"fewer items are left for {len(short)} of {len(users)} users"
    sys.stderr.write(f"notice: --k {settings.k}: {few}\n")
