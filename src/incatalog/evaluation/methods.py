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
from incatalog.data.model_catalog import data_catalog
from incatalog.data.vectors import load_vectors
from incatalog.dialogue.templates import asking_wording
from incatalog.errors import ConfigError
from incatalog.evaluation.finished import GUIDED
from incatalog.evaluation.plain_text import (
    PACKAGED,
    TitleReader,
    is_plain_model,
    load_plain,
    text_requests,
    writes_plain_text,
)
from incatalog.evaluation.reader import AnswerReader, Named, told_titles
from incatalog.evaluation.settings import EvaluateRecommendSettings, HeldOutSettings
from incatalog.items.aliases import ALIASES
from incatalog.model.spec import spec_file
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
# How the summary calls an answer in plain text.
FREE_TEXT = "free text"

# What the answers of a model depend on.
_DESCRIPTIONS = ("incatalog.json", "reclm.json", "teacher.json")
_MODEL_FILES = ("*.safetensors", *_DESCRIPTIONS, ALIASES, f"*{INDEX}", f"*{ITEM2ID}")
_PLAIN_FILES = ("*.safetensors", "config.json", "tokenizer*.json", "chat_template*")

Answering = Callable[[Sequence[Holdout]], list[tuple[Named, ...]]]
"""Answers a batch of users by their histories; it does not look at the targets."""


class Scored(NamedTuple):
    """What is to be scored."""

    name: str  # in the summary
    answer: Answering
    guide_weight: float | None = None  # how much a guide counts; None without one
    decode: str | None = None  # how a language model answers, in the summary


def is_language_model(model: str) -> bool:
    """Whether the flag names the folder of a trained model."""
    return model != POPULARITY and spec_file(model).exists()


def with_decode(settings: EvaluateRecommendSettings) -> EvaluateRecommendSettings:
    """The settings with how the model answers, in plain text where it can do nothing else.

    Raises:
        ConfigError: It was trained to name items in plain text, and another way is asked for.
    """
    model, decode = settings.model, settings.decode
    titles = writes_plain_text(model)
    if decode is None:
        text = titles or is_plain_model(model)
        return replace(settings, decode="unconstrained" if text else "beam")
    if titles and decode != "unconstrained":
        raise ConfigError(
            f"--decode {decode}: {model} was trained without control tokens and writes plain text; "
            "leave it out"
        )
    return settings


def check_language_model(
    model: str, wanted: str = "the folder of `incatalog train sft` or `merge`"
) -> None:
    """Refuses what is no folder of a trained model."""
    if not is_language_model(model):
        found = "no language model (incatalog.json)"
        raise ConfigError(f"--model {model}: {found}; expected {wanted}")


def check_asked(settings: HeldOutSettings) -> None:
    """Refuses a wording that there is not, and words for what is asked in none."""
    if settings.wording is not None:
        asking_wording(settings.wording)
    given = settings.named("wording", "system", "first_share")
    for flag, value in ((f"--{name.replace('_', '-')}", one) for name, one in given.items()):
        if value is not None and not is_language_model(settings.model):
            why = f"{settings.model} is no language model; leave it out"
            raise ConfigError(f"{flag} {value}: {why}")


def model_files(model: str) -> dict[str, Path]:
    """The files of a model that its answers depend on, as inputs of a run."""
    if model == POPULARITY or is_url(model):
        return {}
    folder = Path(model)
    if is_plain_model(model):
        from incatalog.model.pretrained import source_of

        folder = Path(source_of(model))
        files = sorted(file for pattern in _PLAIN_FILES for file in folder.glob(pattern))
        return {f"model/{file.name}": file for file in files}
    if not folder.is_dir():
        raise ConfigError(
            f"--model {model}: no such folder; expected a trained model, a teacher run, the URL "
            f"of a served teacher, or one of the words {POPULARITY} and {PACKAGED}"
        )
    if not is_language_model(model):
        if not _is_teacher(folder / MANIFEST):
            raise ConfigError(
                f"--model {model}: neither a trained model (incatalog.json), a plain chat model "
                "(config.json), nor a run of `incatalog teacher fit`, `blend` or `import-unirec`"
            )
        return {f"model/{path.as_posix()}": folder / path for path in teacher_paths(folder)}
    files = sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern))
    return {f"model/{file.name}": file for file in files}


def asked_catalog(settings: HeldOutSettings) -> Catalog:
    """The items that are asked for, called as the model that is asked knows them."""
    if is_language_model(settings.model):
        return data_catalog(settings.data, settings.model, settings.title_field)
    if settings.title_field:
        why = f"{settings.model} is no language model and reads no names of items; leave it out"
        raise ConfigError(f"--title-field {settings.title_field}: {why}")
    return Catalog.load(settings.data)


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
    if is_language_model(settings.model) or is_plain_model(settings.model):
        return _language_model(settings, catalog, device)
    teacher = open_teacher(settings.model, catalog, device)
    require_known_items(teacher, f"--model {settings.model}", split.histories.rows)
    return Scored(teacher.kind, _ask_teacher(teacher, catalog, settings))


def _language_model(settings: EvaluateRecommendSettings, catalog: Catalog, device: str) -> Scored:
    from incatalog.recommender.guide_folder import GuideChoice

    decode, plain = settings.decode or "beam", is_plain_model(settings.model)
    if plain or writes_plain_text(settings.model):
        _check_own_catalog(settings)
        recommender = load_plain(settings, catalog, device)
        name = "untrained" if plain else "plain titles"
        if decode == "unconstrained":
            return Scored(name, _ask_in_text(recommender, settings), decode=FREE_TEXT)
    else:
        recommender = load_recommender(settings, catalog, device, settings.index)
        name = recommender.spec.method
    if decode != "unconstrained":
        trained = recommender.spec.trained
        choice = GuideChoice(settings.guide, settings.guide_weight, trained=trained)
        recommender = recommender.with_guide(choice.load(settings.model, catalog, device))
    answer = ask_model(recommender, settings, decode, settings.max_new_tokens)
    guide = recommender.guide
    if guide is None:
        return Scored(name, answer, decode=decode)
    return Scored(f"{name}{GUIDED}", answer, guide.share(_kind(settings)), decode)


def _check_own_catalog(settings: EvaluateRecommendSettings) -> None:
    """Refuses files of another catalog's items where a model writes titles alone."""
    for flag, given in (("--vectors", settings.vectors), ("--index", settings.index)):
        if given:
            raise ConfigError(f"{flag} {given}: {settings.model} writes titles; leave it out")


def load_recommender(
    settings: HeldOutSettings, catalog: Catalog, device: str, index: str = ""
) -> Recommender:
    """Loads a language model without a guide, on a catalog.

    The settings say how it writes or finds items not its own.
    """
    from incatalog.recommender.recommender import Recommender

    model, vectors = settings.model, settings.vectors
    recommender = Recommender.from_pretrained(
        model,
        device=device,
        guide=None,
        **settings.named("verify", "wording", "system", "first_share"),
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
    recommender: Recommender,
    settings: HeldOutSettings,
    decode: EvaluationDecode,
    max_new_tokens: int | None = None,
) -> Answering:
    """How a language model answers, with its guide if it has one; bounded where unconstrained."""
    reader = AnswerReader.of(recommender.items, recommender.spec.list_form)
    titles = told_titles(recommender.catalog, recommender.catalog.titles_t)

    def write(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        asked = list_requests(recommender, holdouts, settings)
        if decode == "greedy":
            asked = [replace(request, item_decode="token") for request in asked]
        if decode == "unconstrained":
            # Without the constraint the model also decides how many items it writes.
            free: Any = {"grounded": False, "scaffold": None, "max_items": None, "weights": None}
            asked = [
                replace(one, max_new_tokens=max_new_tokens or one.max_new_tokens, **free)
                for one in asked
            ]
        return [
            reader.read(done.token_ids, truncated=done.finish_reason == "length")
            for done in recommender.engine.complete(asked)
        ]

    def rank(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        found = recommender.beam.top_items(_slots(recommender, holdouts, settings), settings.k)
        pairs = [zip(one.rows.tolist(), one.logprobs.tolist(), strict=True) for one in found]
        return [tuple(Named(titles[row], row, math.exp(p)) for row, p in own) for own in pairs]

    return rank if decode == "beam" else write


def _ask_in_text(recommender: Recommender, settings: EvaluateRecommendSettings) -> Answering:
    """How a model answers in plain text, which is read as it is."""
    reader = TitleReader(recommender.items, recommender.spec.list_form)

    def answer(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        asked = list_requests(recommender, holdouts, settings)
        written = text_requests(recommender, asked, settings.max_new_tokens)
        return [
            reader.read(done.token_ids, truncated=done.finish_reason == "length")
            for done in recommender.engine.complete(list(written))
        ]

    return answer


def _kind(settings: EvaluateRecommendSettings) -> Kind:
    return "ranking" if settings.decode == "beam" else "list"
