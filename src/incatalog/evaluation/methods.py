"""What can be scored: popularity, teachers and language models, all asked in one way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from incatalog.artifacts import MANIFEST, read_json
from incatalog.codes.semantic_ids import INDEX, ITEM2ID, load_semantic_ids
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout, LeaveOneOut
from incatalog.data.vectors import load_vectors
from incatalog.errors import ConfigError
from incatalog.evaluation.reader import AnswerReader, Named
from incatalog.evaluation.settings import EvaluateRecommendSettings, HeldOutSettings
from incatalog.items.aliases import ALIASES
from incatalog.model.spec import load_spec, spec_file
from incatalog.recommender.settings import GUIDE_FILE, OFF, OWN
from incatalog.teacher.teacher_folder import teacher_paths
from incatalog.teacher_service.client import is_url, open_teacher
from incatalog.teacher_service.published_teacher import require_known_items

if TYPE_CHECKING:
    from incatalog.config import EvaluationDecode
    from incatalog.constraint.excluded import ExcludedItems
    from incatalog.constraint.weights import ItemWeights
    from incatalog.decoding.request import Request, Slot
    from incatalog.recommender.guide import Kind
    from incatalog.recommender.recommender import Recommender
    from incatalog.teacher.teacher import Teacher

POPULARITY = "popularity"

# What the answers of a model depend on.
_DESCRIPTIONS = ("incatalog.json", "reclm.json", "teacher.json")
_MODEL_FILES = ("*.safetensors", *_DESCRIPTIONS, ALIASES, f"*{INDEX}", f"*{ITEM2ID}")

Answering = Callable[[Sequence[Holdout]], list[tuple[Named, ...]]]
"""Answers a batch of users by their histories; it does not look at the targets."""


class Scored(NamedTuple):
    """What is to be scored."""

    name: str  # in the summary
    answer: Answering
    guide_weight: float | None = None  # how much a guide counts; None without one


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


def guide_files(settings: EvaluateRecommendSettings) -> dict[str, Path]:
    """The files of the guide that its answers depend on, as inputs of a run."""
    if settings.guide == OWN:
        guided = is_language_model(settings.model) and settings.decode != "unconstrained"
        if not guided or not (Path(settings.model) / GUIDE_FILE).exists():
            return {}
        from incatalog.recommender.guide_folder import own_guide_files

        return own_guide_files(settings.model)
    if settings.guide == OFF or is_url(settings.guide):
        return {}
    if not Path(settings.guide).is_dir():
        expected = "the run folder of a teacher, the URL of a served one, own or off"
        raise ConfigError(f"--guide {settings.guide}: no such folder; expected {expected}")
    folder = Path(settings.guide)
    return {f"guide/{path.as_posix()}": folder / path for path in teacher_paths(folder)}


def load_method(
    settings: EvaluateRecommendSettings, catalog: Catalog, split: LeaveOneOut, device: str
) -> Scored:
    """Loads what is to be scored, onto a device."""
    if settings.model == POPULARITY:
        from incatalog.teacher.popularity import Popularity

        popularity = Popularity.from_histories(map(split.train, range(len(split))), catalog)
        return Scored(POPULARITY, _ask_teacher(popularity, catalog, settings))
    if is_language_model(settings.model):
        from incatalog.recommender.guide_folder import GuideChoice

        recommender = load_recommender(settings, catalog, device, settings.index)
        trained = load_spec(settings.model).trained
        if settings.decode != "unconstrained":
            choice = GuideChoice(settings.guide, settings.guide_weight, trained=trained)
            recommender = recommender.with_guide(choice.load(settings.model, catalog, device))
        answer, guide = ask_model(recommender, settings, settings.decode), recommender.guide
        if guide is None:
            return Scored(recommender.spec.method, answer)
        return Scored(f"{recommender.spec.method}, guided", answer, guide.share(_kind(settings)))
    teacher = open_teacher(settings.model, catalog, device)
    require_known_items(teacher, f"--model {settings.model}", split.histories.rows)
    return Scored(teacher.kind, _ask_teacher(teacher, catalog, settings))


def load_recommender(
    settings: HeldOutSettings, catalog: Catalog, device: str, index: str = ""
) -> Recommender:
    """Loads a language model without a guide, on a catalog.

    The settings say how it writes or finds items not its own.
    """
    from incatalog.recommender.recommender import Recommender

    model, vectors = settings.model, settings.vectors
    recommender = Recommender.from_pretrained(
        model, device=device, verify=settings.verify, guide=None
    )
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
        recommender.list_request(history, settings.k, excluded, weights=own, max_history=shown)
        for history, excluded, own in _weighed(recommender, holdouts, settings, "list")
    ]


def _slots(
    recommender: Recommender, holdouts: Sequence[Holdout], settings: HeldOutSettings
) -> list[Slot]:
    """The first place of such a list, for each of some users."""
    shown = settings.max_history or None
    return [
        recommender.slot(history, settings.k, excluded, weights=own, max_history=shown)
        for history, excluded, own in _weighed(recommender, holdouts, settings, "ranking")
    ]


def _weighed(
    recommender: Recommender, holdouts: Sequence[Holdout], settings: HeldOutSettings, kind: Kind
) -> Iterator[tuple[list[int], ExcludedItems, ItemWeights | None]]:
    """Histories and exclusions as below, and what weighs the items after each."""
    asked, excluded = zip(*histories(recommender, holdouts, settings), strict=True)
    weights = recommender.weights(asked, excluded, kind)
    return zip(asked, excluded, weights, strict=True)


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


def ask_model(
    recommender: Recommender, settings: HeldOutSettings, decode: EvaluationDecode
) -> Answering:
    """How a language model answers, with its guide if it has one."""
    reader = AnswerReader.of(recommender.items, recommender.spec.list_form)
    titles = recommender.catalog.titles_t

    def write(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        asked = list_requests(recommender, holdouts, settings)
        if decode == "greedy":
            asked = [replace(request, item_decode="token") for request in asked]
        if decode == "unconstrained":
            # Without the constraint the model also decides how many items it writes.
            free: Any = {"grounded": False, "scaffold": None, "max_items": None, "weights": None}
            asked = [replace(request, **free) for request in asked]
        return [
            reader.read(done.token_ids, truncated=done.finish_reason == "length")
            for done in recommender.engine.complete(asked)
        ]

    def rank(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        found = recommender.beam.top_items(_slots(recommender, holdouts, settings), settings.k)
        pairs = [zip(one.rows.tolist(), one.logprobs.tolist(), strict=True) for one in found]
        return [tuple(Named(titles[row], row, math.exp(p)) for row, p in own) for own in pairs]

    return rank if decode == "beam" else write


def _kind(settings: EvaluateRecommendSettings) -> Kind:
    return "ranking" if settings.decode == "beam" else "list"
