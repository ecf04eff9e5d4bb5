"""Fits the teachers without a network; what is open among their settings, validation decides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import LeaveOneOut
from incatalog.data.vectors import load_vectors
from incatalog.teacher.counted import CountedTeacher, training_counts
from incatalog.teacher.ease import Ease, EaseOptions, check_items, gram_matrix, inverse_gram
from incatalog.teacher.knn import ItemKnn, KnnOptions, pair_counts
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.teacher_validation import Validation
from incatalog.teacher.words import WordsOptions, WordsTeacher, given_vectors, text_vectors

Tried = list[dict[str, Any]]
# Beyond so many items each inverse takes minutes, so the first of all choices are taken.
MOST_INVERTED_AGAIN = 6_000
_ROUNDS = 3


def fit_counting(
    settings: TeacherFitSettings, catalog: Catalog, split: LeaveOneOut, validation: Validation
) -> tuple[CountedTeacher, Tried]:
    """Fits a teacher on the training items, and says what was tried on the validation items."""
    train = [split.train(user).astype(np.int64) for user in range(len(split))]
    fit = {"knn": _fit_knn, "ease": _fit_ease, "words": _fit_words, "popularity": _fit_popularity}
    return fit[settings.kind](settings, catalog, train, validation)


def choose(
    axes: Mapping[str, Sequence[Any]], score: Callable[[dict[str, Any]], float]
) -> tuple[dict[str, Any], Tried]:
    """Looks for the choices of the greatest score, one setting after the other.

    Begins with the first choice of each. Of two with one score the earlier is taken. A setting with
    one choice is not looked for.
    """
    chosen = {name: choices[0] for name, choices in axes.items()}
    scores: dict[tuple[Any, ...], float] = {}
    open_axes = [name for name, choices in axes.items() if len(set(choices)) > 1]

    def known(candidate: dict[str, Any]) -> float:
        key = tuple(candidate.values())
        if key not in scores:
            scores[key] = score(candidate)
        return scores[key]

    for _ in range(_ROUNDS if open_axes else 0):
        before = chosen
        for name in open_axes:
            candidates = [chosen, *(chosen | {name: choice} for choice in axes[name])]
            chosen = max(candidates, key=known)
        if chosen == before:
            break
    names = list(axes)
    return chosen, [dict(zip(names, key, strict=True), ndcg=s) for key, s in scores.items()]


def _fit_knn(
    settings: TeacherFitSettings,
    catalog: Catalog,
    train: Sequence[np.ndarray],
    validation: Validation,
) -> tuple[CountedTeacher, Tried]:
    counts = training_counts(train, len(catalog))
    fixed = settings.named("backward", "newest")

    @functools.lru_cache(maxsize=2)
    def counted(window: int, decay: float) -> Any:
        return pair_counts(train, len(catalog), KnnOptions(window, decay, settings.backward))

    def build(choice: dict[str, Any]) -> ItemKnn:
        pairs = counted(choice["window"], choice["decay"])
        return ItemKnn(catalog, counts, pairs, KnnOptions(**choice, **fixed))

    axes = {
        "window": settings.window,
        "decay": settings.decay,
        "row_power": settings.row_power,
        "power": settings.power,
        "recency": settings.recency,
    }
    return _fitted(axes, build, validation)


def _fit_ease(
    settings: TeacherFitSettings,
    catalog: Catalog,
    train: Sequence[np.ndarray],
    validation: Validation,
) -> tuple[CountedTeacher, Tried]:
    check_items(len(catalog), settings.max_items)
    counts = training_counts(train, len(catalog))

    @functools.lru_cache(maxsize=1)
    def inverse(window: int, regularisation: float) -> Any:
        return inverse_gram(gram_matrix(train, len(catalog), window), regularisation)

    def build(choice: dict[str, Any]) -> Ease:
        options = EaseOptions(**choice, newest=settings.newest)
        return Ease(catalog, counts, inverse(options.window, options.regularisation), options)

    axes: dict[str, Sequence[Any]] = {
        "window": settings.ease_window,
        "regularisation": settings.regularisation,
        "recency": settings.recency,
    }
    if len(catalog) > MOST_INVERTED_AGAIN:
        axes |= {name: axes[name][:1] for name in ("window", "regularisation")}
    return _fitted(axes, build, validation)


def _fit_words(
    settings: TeacherFitSettings,
    catalog: Catalog,
    train: Sequence[np.ndarray],
    validation: Validation,
) -> tuple[CountedTeacher, Tried]:
    counts = training_counts(train, len(catalog))

    @functools.lru_cache(maxsize=2)
    def described(wording: str) -> Any:
        if settings.vectors:
            return given_vectors(load_vectors(Path(settings.vectors), len(catalog)))
        return text_vectors(catalog, wording)

    def build(choice: dict[str, Any]) -> WordsTeacher:
        options = WordsOptions(**choice, newest=settings.newest)
        return WordsTeacher(catalog, counts, described(options.wording), options)

    wordings = ("",) if settings.vectors else settings.wording
    return _fitted({"wording": wordings, "recency": settings.recency}, build, validation)


def _fit_popularity(
    settings: TeacherFitSettings,  # noqa: ARG001
    catalog: Catalog,
    train: Sequence[np.ndarray],
    validation: Validation,
) -> tuple[CountedTeacher, Tried]:
    counts = training_counts(train, len(catalog))
    return _fitted({}, lambda _: Popularity(counts, catalog), validation)


def _fitted(
    axes: Mapping[str, Sequence[Any]],
    build: Callable[[dict[str, Any]], CountedTeacher],
    validation: Validation,
) -> tuple[CountedTeacher, Tried]:
    choice, tried = choose(axes, lambda candidate: validation.ndcg(build(candidate)))
    return build(choice), tried
