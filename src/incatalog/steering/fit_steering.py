"""`incatalog steering fit`: how much what is said should count beside a teacher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from rich.console import Console

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, Holdout, leave_one_out
from incatalog.errors import ConfigError, DataError
from incatalog.locks import lock_folder
from incatalog.model.pretrained import cache_folder
from incatalog.steering.balance import STEERING_FILE, WORDS, Balance
from incatalog.steering.settings import SteeringFitSettings
from incatalog.steering.steering import CACHE, OFF, Steering
from incatalog.steering.stems import words_of
from incatalog.teacher.teacher import load_teacher

_K = 10
_STRENGTHS = (0.0, 2.5, 5.0, 10.0, 20.0)
_WORDS = (0.0, 0.2, 0.5)
_KINDS = (0.0, 1.0, 2.0)

Scores = Float64[np.ndarray, " items"]


def fit_steering(settings: SteeringFitSettings) -> Path:
    """Finds how much likeness by vectors, by words and to categories should count.

    Users are asked for their *validation* items with requests that are made from these: one of the
    item's categories, or, where categories do not sort the catalog, a word of its text that many
    items have. Names of categories do not become filters here, as they would in a conversation. The
    best mean NDCG@10 counts, and of equal ones the least steering. Test items are not looked at.

    Returns:
        The file that is written, `steering.json` in the teacher's run folder.

    Raises:
        ConfigError: There is no such encoder.
        DataError: The data is broken, or no request can be made from it.
        TeacherError: The teacher was fitted on another catalog.
    """
    if settings.encoder == OFF:
        raise ConfigError("--encoder off: steers nothing; name minilm, words or a folder")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    catalog = Catalog.load(settings.data)
    teacher = load_teacher(settings.teacher, catalog, settings.device)
    steering = Steering.of(
        catalog, encoder=settings.encoder, cache=cache_folder() / CACHE, console=console
    )
    split = leave_one_out(Histories.load(settings.data, catalog))
    random = np.random.default_rng(settings.seed)
    users = np.sort(random.permutation(len(split))[: settings.users])
    holdouts = [split.valid(int(user)) for user in users]
    texts = [request_for(catalog, steering, one.target, random) for one in holdouts]
    asked = [(one, text) for one, text in zip(holdouts, texts, strict=True) if text]
    if not asked:
        raise DataError(f"--data {settings.data}: no item has words or categories to ask for")
    histories = [one.history for one, _ in asked]
    log_p = teacher.log_probabilities(histories).astype(np.float64)
    if settings.exclude_seen:
        for line, history in zip(log_p, histories, strict=True):
            line[history] = -np.inf
    tried = try_balances(steering, [one for one, _ in asked], [text for _, text in asked], log_p)
    best = min(tried, key=lambda one: (-round(tried[one], 6), one.strength + one.kinds, one.words))
    alone = tried[Balance(0.0, 0.0, 0.0)]
    usual = Balance.usual(settings.encoder)
    about = {"users": len(asked), "seed": settings.seed, f"NDCG@{_K}": round(tried[best], 6)}
    lock = lock_folder(settings.teacher)
    best.save(settings.teacher, settings.encoder, about | {"unsteered": round(alone, 6)})
    if lock is not None:
        lock.release()
    told = f"strength {best.strength:g}, words {best.words:g}, kinds {best.kinds:g}"
    console.print(f"steering: {told}; NDCG@{_K} {tried[best]:.4f} on {len(asked)} requests")
    console.print(f"without what is said {alone:.4f}; as usual {tried[usual]:.4f}")
    path = settings.teacher / STEERING_FILE
    console.print(f"written to {path}")
    return path


def request_for(catalog: Catalog, steering: Steering, row: int, random: np.random.Generator) -> str:
    """A request that an item and many others fulfil; empty where nothing such is known of it."""
    item, likeness = catalog.item(row), steering.likeness
    sorts = steering.kinds is not None or likeness.memory.sentences is None
    if item.categories and sorts:
        return f"I would like {random.choice(item.categories).lower()}"
    text, least = likeness.memory.texts[int(likeness.places[row])], max(3, len(catalog) // 100)
    words = {word.stem: word.text.lower() for word in words_of(text) if word.says}
    many = [told for own, told in words.items() if likeness.memory.count(own) >= least]
    return str(random.choice(many)) if many else ""


def try_balances(
    steering: Steering, holdouts: Sequence[Holdout], texts: Sequence[str], log_p: Scores
) -> dict[Balance, float]:
    """Mean NDCG@10 at every point of a grid, fewer without vectors, and of what is usual."""
    parts = [steering.parts(text) for text in texts]
    plain = steering.likeness.memory.sentences is None
    shares = (1.0,) if plain else _WORDS
    kinds = (0.0,) if plain or steering.kinds is None else _KINDS
    grid = [Balance(*values) for values in itertools.product(_STRENGTHS, shares, kinds)]
    usual = Balance.usual(WORDS if plain else "")
    found: dict[Balance, float] = {}
    for balance in dict.fromkeys([Balance(0.0, 0.0, 0.0), *grid, usual]):
        gains = [
            _gain(line + part.weighed(balance), one.target)
            for line, part, one in zip(log_p, parts, holdouts, strict=True)
        ]
        found[balance] = float(np.mean(gains))
    return found


def _gain(scores: Scores, target: int) -> float:
    """NDCG@10 of one held-out item; of equal scores the first rows come first."""
    own = scores[target]
    place = int((scores > own).sum() + (scores[:target] == own).sum())
    return 1 / float(np.log2(2 + place)) if place < _K and np.isfinite(own) else 0.0
