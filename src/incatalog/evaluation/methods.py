"""What can be scored: popularity, teachers, and language models, all asked in one way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from incatalog.artifacts import MANIFEST, read_json
from incatalog.codes.semantic_ids import INDEX, ITEM2ID, load_semantic_ids
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout, LeaveOneOut
from incatalog.data.vectors import load_vectors
from incatalog.errors import ConfigError
from incatalog.evaluation.reader import AnswerReader, Named
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.items.aliases import ALIASES
from incatalog.model.spec import spec_file
from incatalog.teacher_service.client import is_url, open_teacher

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender
    from incatalog.teacher.teacher import Teacher

POPULARITY = "popularity"

Answering = Callable[[Sequence[Holdout]], list[tuple[Named, ...]]]
"""Answers a batch of users, who are known by their histories; targets are not looked at."""


@dataclass(frozen=True, eq=False)
class Method:
    """Something that recommends.

    Attributes:
        name: Its name in the summary.
        answer: Asks it.
    """

    name: str
    answer: Answering


def existing_vectors(path: str) -> Path:
    """The file a flag names.

    Raises:
        ConfigError: There is no such file.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"--vectors {path}: no such file; make item vectors with `incatalog items embed`"
        )
    return Path(path)


def is_language_model(model: str) -> bool:
    """Whether the flag names the folder of a trained model."""
    return model != POPULARITY and spec_file(model).exists()


def _is_teacher(model: str) -> bool:
    manifest = Path(model) / MANIFEST
    found = read_json(manifest) if manifest.exists() else {}
    return isinstance(found, dict) and str(found.get("stage")).startswith("teacher ")


def model_files(model: str) -> dict[str, Path]:
    """The files of a model that its answers depend on."""
    if model == POPULARITY or is_url(model):
        return {}
    folder = Path(model)
    if not folder.is_dir():
        raise ConfigError(
            f"--model {model}: no such folder; expected a trained model, a teacher run, the URL "
            f"of a served teacher, or the word {POPULARITY}"
        )
    if not is_language_model(model) and not _is_teacher(model):
        raise ConfigError(
            f"--model {model}: neither a trained model (incatalog.json) nor a run of "
            "`incatalog teacher fit` or `import-unirec`"
        )
    patterns = (
        "*.safetensors",
        "incatalog.json",
        "reclm.json",
        "teacher.json",
        ALIASES,
        f"*{INDEX}",
        f"*{ITEM2ID}",
    )
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    return {f"model/{file.name}": file for file in sorted(files)}


def identities(settings: EvaluateRecommendSettings) -> Mapping[str, str]:
    """What stands for the contents of a teacher that is served, in a run's manifest."""
    if not is_url(settings.model):
        return {}
    from incatalog.teacher_service.client import HttpTeacher

    return {"model": HttpTeacher(settings.model, Catalog.load(settings.data)).fingerprint}


def load_method(
    settings: EvaluateRecommendSettings, catalog: Catalog, split: LeaveOneOut, device: str
) -> Method:
    """Loads what is to be scored, onto a device."""
    if settings.model == POPULARITY:
        from incatalog.teacher.popularity import Popularity

        popularity = Popularity.from_histories(map(split.train, range(len(split))), catalog)
        return Method(POPULARITY, _ask_teacher(popularity, catalog, settings))
    if is_language_model(settings.model):
        recommender = load_recommender(
            settings.model,
            catalog,
            device,
            settings.index or settings.data,
            settings.vectors,
            verify=settings.verify,
        )
        return Method(recommender.spec.method, _ask_model(recommender, settings))
    teacher = open_teacher(settings.model, catalog, device)
    return Method("sasrec", _ask_teacher(teacher, catalog, settings))


def load_recommender(
    model: str | Path,
    catalog: Catalog,
    device: str,
    index: str | Path,
    vectors: str,
    *,
    verify: bool = True,
) -> Recommender:
    """Loads a language model, for the catalog to be scored on.

    Args:
        model: Folder of the model.
        catalog: The catalog; if it is not the model's own, the next two say how the model writes or
            finds its items.
        device: Device to run on.
        index: Folder of index files, for a model that writes codes.
        vectors: File of item vectors, for a model that retrieves; empty for none.
        verify: Check the model's files against their checksums.

    Raises:
        ArtifactError: A file is not the one that was written.
        ConfigError: Vectors are given and of no use.
        SemanticIdError: Index files are needed, and missing or damaged.
        VectorError: Vectors are needed, and missing or do not fit.
    """
    from incatalog.recommender.recommender import Recommender

    recommender = Recommender.from_pretrained(model, device=device, verify=verify)
    own = recommender.catalog.fingerprint == catalog.fingerprint
    if vectors and (own or recommender.backbone.head is None):
        raise ConfigError(
            f"--vectors {vectors}: {model} "
            + ("has those of this catalog" if own else "does not retrieve")
            + "; leave it out"
        )
    if own:
        return recommender
    semantic_ids = None
    if recommender.spec.item_form == "codes":
        semantic_ids = load_semantic_ids(index, catalog)
    return recommender.with_catalog(
        catalog, semantic_ids, load_vectors(vectors, len(catalog)) if vectors else None
    )


def _ask_teacher(
    teacher: Teacher, catalog: Catalog, settings: EvaluateRecommendSettings
) -> Answering:
    def answer(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        found = teacher.top_k(
            [holdout.history.tolist() for holdout in holdouts],
            min(settings.k, len(catalog)),
            exclude_seen=settings.exclude_seen,
        )
        return [
            tuple(Named(catalog.item(row).title, row) for row in rows.tolist() if row >= 0)
            for rows in found
        ]

    return answer


def _ask_model(recommender: Recommender, settings: EvaluateRecommendSettings) -> Answering:
    titles = recommender.catalog.titles_t
    reader = AnswerReader.of(recommender.items, recommender.spec.list_form)
    grounded = settings.decode == "list"
    shown = settings.max_history or None

    def write(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        requests = []
        for holdout in holdouts:
            history = holdout.history.tolist()
            excluded = recommender.excluded(history=history, exclude_seen=settings.exclude_seen)
            request = recommender.list_request(
                history, settings.k, excluded, grounded=grounded, max_history=shown
            )
            # Left to itself the model also decides how many items are enough.
            requests.append(request if grounded else replace(request, max_items=None))
        return [
            reader.read(done.token_ids, truncated=done.finish_reason == "length")
            for done in recommender.engine.complete(requests)
        ]

    def rank(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        slots = []
        for holdout in holdouts:
            history = holdout.history.tolist()
            excluded = recommender.excluded(history=history, exclude_seen=settings.exclude_seen)
            slots.append(recommender.slot(history, settings.k, excluded, max_history=shown))
        return [
            tuple(
                Named(titles[row], row, math.exp(logprob))
                for row, logprob in zip(found.rows.tolist(), found.logprobs.tolist(), strict=True)
            )
            for found in recommender.beam.top_items(slots, settings.k)
        ]

    return rank if settings.decode == "beam" else write
