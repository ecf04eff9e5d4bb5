"""What can be scored: popularity, teachers and language models, all asked in one way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from incatalog.artifacts import MANIFEST, read_json
from incatalog.codes.semantic_ids import INDEX, ITEM2ID, load_semantic_ids
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout, LeaveOneOut
from incatalog.data.vectors import load_vectors
from incatalog.errors import ConfigError
from incatalog.evaluation.reader import AnswerReader, Named
from incatalog.evaluation.settings import EvaluateRecommendSettings, HeldOutSettings
from incatalog.items.aliases import ALIASES
from incatalog.model.spec import spec_file
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher_folder import teacher_paths
from incatalog.teacher_service.client import is_url, open_teacher

if TYPE_CHECKING:
    from incatalog.constraint.excluded import ExcludedItems
    from incatalog.decoding.request import Request
    from incatalog.recommender.recommender import Recommender
    from incatalog.teacher.teacher import Teacher

POPULARITY = "popularity"

# What the answers of a model depend on.
_DESCRIPTIONS = ("incatalog.json", "reclm.json", "teacher.json")
_MODEL_FILES = ("*.safetensors", *_DESCRIPTIONS, ALIASES, f"*{INDEX}", f"*{ITEM2ID}")

Answering = Callable[[Sequence[Holdout]], list[tuple[Named, ...]]]
"""Answers a batch of users by their histories; it does not look at the targets."""


def is_language_model(model: str) -> bool:
    """Whether the flag names the folder of a trained model."""
    return model != POPULARITY and spec_file(model).exists()


def check_language_model(
    model: str, wanted: str = "the folder of `incatalog train sft` or `merge`"
) -> None:
    """Refuses what is no folder of a trained model."""
    if not is_language_model(model):
        found = "no language model (incatalog.json)"
        raise ConfigError(f"--model {model}: {found}; expected {wanted}")


def model_files(model: str) -> dict[str, Path]:
    """The files of a model that its answers depend on, as inputs of a run."""
    if model == POPULARITY or is_url(model):
        return {}
    folder = Path(model)
    if not folder.is_dir():
        raise ConfigError(
            f"--model {model}: no such folder; expected a trained model, a teacher run, the URL "
            f"of a served teacher, or the word {POPULARITY}"
        )
    if not is_language_model(model):
        if not _is_teacher(folder / MANIFEST):
            raise ConfigError(
                f"--model {model}: neither a trained model (incatalog.json) nor a run of "
                "`incatalog teacher fit`, `blend` or `import-unirec`"
            )
        return {f"model/{path.as_posix()}": folder / path for path in teacher_paths(folder)}
    files = sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern))
    return {f"model/{file.name}": file for file in files}


def load_method(
    settings: EvaluateRecommendSettings, catalog: Catalog, split: LeaveOneOut, device: str
) -> tuple[str, Answering]:
    """Loads what is to be scored, onto a device; its name in the summary stands before it."""
    if settings.model == POPULARITY:
        from incatalog.teacher.popularity import Popularity

        popularity = Popularity.from_histories(map(split.train, range(len(split))), catalog)
        return POPULARITY, _ask_teacher(popularity, catalog, settings)
    if is_language_model(settings.model):
        recommender = load_recommender(settings, catalog, device, settings.index)
        return recommender.spec.method, _ask_model(recommender, settings)
    teacher = open_teacher(settings.model, catalog, device)
    # What a service answers from, it does not say.
    kind = teacher.kind if isinstance(teacher, ScoringTeacher) else "sasrec"
    return kind, _ask_teacher(teacher, catalog, settings)


def load_recommender(
    settings: HeldOutSettings, catalog: Catalog, device: str, index: str = ""
) -> Recommender:
    """Loads a language model; the settings say how it writes or finds items not its own."""
    from incatalog.recommender.recommender import Recommender

    model, vectors = settings.model, settings.vectors
    recommender = Recommender.from_pretrained(model, device=device, verify=settings.verify)
    own = recommender.catalog.fingerprint == catalog.fingerprint
    if vectors and (own or recommender.backbone.head is None):
        reason = "has those of this catalog" if own else "does not retrieve"
        raise ConfigError(f"--vectors {vectors}: {model} {reason}; leave it out")
    if own:
        return recommender
    coded = recommender.spec.item_form == "codes"
    return recommender.with_catalog(
        catalog,
        load_semantic_ids(index or settings.data, catalog) if coded else None,
        load_vectors(vectors, len(catalog)) if vectors else None,
    )


def list_requests(
    recommender: Recommender, holdouts: Sequence[Holdout], settings: HeldOutSettings
) -> list[Request]:
    """The requests for a list of items for each of some users."""
    shown = settings.max_history or None
    return [
        recommender.list_request(history, settings.k, excluded, max_history=shown)
        for history, excluded in histories(recommender, holdouts, settings)
    ]


def histories(
    recommender: Recommender, holdouts: Iterable[Holdout], settings: HeldOutSettings
) -> Iterator[tuple[list[int], ExcludedItems]]:
    """The history of each user, and the items that may not be recommended to it."""
    for history in (holdout.history.tolist() for holdout in holdouts):
        yield history, recommender.excluded(history=history, exclude_seen=settings.exclude_seen)


def _is_teacher(manifest: Path) -> bool:
    found = read_json(manifest) if manifest.exists() else {}
    return isinstance(found, dict) and str(found.get("stage")).startswith("teacher ")


def _ask_teacher(
    teacher: Teacher, catalog: Catalog, settings: EvaluateRecommendSettings
) -> Answering:
    titles, k = catalog.titles, min(settings.k, len(catalog))

    def answer(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        shown = [holdout.history.tolist() for holdout in holdouts]
        found = teacher.top_k(shown, k, exclude_seen=settings.exclude_seen).tolist()
        return [tuple(Named(titles[row], row) for row in rows if row >= 0) for rows in found]

    return answer


def _ask_model(recommender: Recommender, settings: EvaluateRecommendSettings) -> Answering:
    reader = AnswerReader.of(recommender.items, recommender.spec.list_form)
    titles = recommender.catalog.titles_t

    def write(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        asked = list_requests(recommender, holdouts, settings)
        if settings.decode == "unconstrained":
            # Without the constraint the model also decides how many items it writes.
            asked = [replace(r, grounded=False, scaffold=None, max_items=None) for r in asked]
        return [
            reader.read(done.token_ids, truncated=done.finish_reason == "length")
            for done in recommender.engine.complete(asked)
        ]

    def rank(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        shown = settings.max_history or None
        slots = [
            recommender.slot(history, settings.k, excluded, max_history=shown)
            for history, excluded in histories(recommender, holdouts, settings)
        ]
        found = recommender.beam.top_items(slots, settings.k)
        pairs = [zip(one.rows.tolist(), one.logprobs.tolist(), strict=True) for one in found]
        return [tuple(Named(titles[row], row, math.exp(p)) for row, p in own) for own in pairs]

    return rank if settings.decode == "beam" else write
