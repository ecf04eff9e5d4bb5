"""How well the retrieval head finds the held-out item, place by place of an answer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64

from incatalog import metrics
from incatalog.artifacts import atomic_path
from incatalog.constraint.excluded import free_rows
from incatalog.data.interactions import Holdout
from incatalog.errors import ConfigError, require
from incatalog.evaluation.methods import (
    check_asked,
    check_language_model,
    list_requests,
    load_recommender,
)
from incatalog.evaluation.result_tables import metric_names, places_table
from incatalog.evaluation.run import EvaluationRun
from incatalog.evaluation.settings import EvaluateRetrievalSettings
from incatalog.model.backbone import base_model
from incatalog.model.hub import with_model_here

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender

PLACES = "places.parquet"
SIMILARITY = "similarity.npy"
HEAT_MAP = "similarity.png"

_WANTED = "a model of `incatalog train sft --method ret`"
# Pairs of places of all users whose states are compared.
_MOST_PAIRS = 1 << 28


@dataclass(frozen=True)
class Places:
    """What the head does at the places of some answers; NaN where an answer has fewer items."""

    # Of the held-out item, from 1, by the state that opens the span; NaN where it is excluded.
    rank: Float64[np.ndarray, "users k"]
    # Cosine of the states of each two places.
    similarity: Float64[np.ndarray, "users k k"]


def evaluate_retrieval(settings: EvaluateRetrievalSettings) -> Path:
    """Has a model write lists and looks at the states that open their spans.

    At each place the held-out item is ranked among all items that the answer may name, those that
    it has named before included, so that places can be compared. `Recall` is 1 where it is among
    the best ``cutoff``, `NDCG` is ``1 / log2(rank + 1)`` there, both means over users with 95 %
    bootstrap intervals. The cosine of the states of two places, as a mean over users, says how far
    the head asks for the same thing again; if all states are alike, one query ranks all places.

    Writes ``summary.json``, ``places.parquet`` (one row a user and place), ``similarity.npy``
    ``[k, k]`` and its heat map ``similarity.png`` into ``settings.out``.

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work, or the model does not retrieve.
        ArtifactError: ``settings.out`` holds something else.
        DataError: The data is broken, or a user has fewer than three items.
        VectorError: The data is another catalog and its vectors are missing or do not fit.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="plot")
    settings = with_model_here(settings)
    check_language_model(settings.model, _WANTED)
    check_asked(settings)
    run = EvaluationRun("evaluate retrieval", settings, lambda summary: [places_table(summary)])
    if run.finished:
        return settings.out
    recommender = load_recommender(settings, run.catalog, run.device)
    if recommender.backbone.head is None:
        found = f"method {recommender.spec.method} does not retrieve"
        raise ConfigError(f"--model {settings.model}: {found}; expected {_WANTED}")
    count, k = len(run.holdouts), settings.k
    if (pairs := count * k**2) > _MOST_PAIRS:
        raise ConfigError(
            f"--k: found {k}; comparing as many places of {count} users would take "
            f"{pairs * 8 / 1e9:.1f} GB; ask for fewer places, or fewer --users"
        )

    def look(holdouts: Sequence[Holdout]) -> list[Any]:
        found = look_at(recommender, holdouts, settings)
        return list(zip(found.rank.tolist(), found.similarity.tolist(), strict=True))

    seen = run.in_batches(run.holdouts, look, "evaluate retrieval")
    if not run.shards.is_main:
        return settings.out
    places = Places(*map(np.array, zip(*seen, strict=True)))
    with warnings.catch_warnings(action="ignore"):  # A place that no answer has stays NaN.
        similarity = np.nanmean(places.similarity, axis=0)
    rows = _rows(places, settings.cutoff, run)
    users, columns = np.nonzero(~np.isnan(places.rank))
    ranks = places.rank[users, columns].astype(np.int64)
    names = np.array(run.user_ids, dtype=object)[users].tolist()
    run.write_table(PLACES, pl.DataFrame({"user_id": names, "place": columns + 1, "rank": ranks}))
    with atomic_path(settings.out / SIMILARITY) as partial, partial.open("wb") as stream:
        np.save(stream, similarity, allow_pickle=False)
    with atomic_path(settings.out / HEAT_MAP) as partial:
        _draw(partial, similarity)
    results = {"cutoff": settings.cutoff, "places": rows, "similarity": similarity.tolist()}
    first = {name: rows[0][name] for name in metric_names(settings.cutoff)}
    return run.finish("ret", results, first)


@torch.no_grad()
def look_at(
    recommender: Recommender, holdouts: Sequence[Holdout], settings: EvaluateRetrievalSettings
) -> Places:
    """Has the model answer some users; the states of an answer are read in one pass."""
    backbone = recommender.backbone
    model, head = backbone.model, backbone.head
    assert head is not None
    requests = list_requests(recommender, holdouts, settings)
    rank = np.full((len(holdouts), settings.k), np.nan)
    similarity = np.full((*rank.shape, settings.k), np.nan)
    asked = zip(holdouts, requests, recommender.engine.complete(requests), strict=True)
    for user, (holdout, request, answer) in enumerate(asked):
        if not answer.items:
            continue
        opened = np.flatnonzero(np.array(answer.token_ids) == backbone.soi_token_id)
        ids = torch.tensor([[*request.prompt_ids, *answer.token_ids]], device=model.device)
        states = base_model(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
        states = states[torch.from_numpy(opened + len(request.prompt_ids) - 1)]
        assert request.excluded is not None
        free = torch.from_numpy(free_rows(request.excluded.trie, request.excluded))
        found = _ranks(head(states).cpu(), free, holdout.target)
        rank[user, : len(found)] = found
        unit = torch.nn.functional.normalize(states.double(), dim=1)
        similarity[user, : len(found), : len(found)] = (unit @ unit.T).cpu().numpy()
    return Places(rank, similarity)


def _ranks(scores: torch.Tensor, free: torch.Tensor, target: int) -> np.ndarray:
    """Rank of an item among the free ones at each place; of equal ones the lower row is first."""
    if not free[target]:
        return np.full(len(scores), np.nan)
    own = scores[:, target : target + 1]
    before = (scores > own) | ((scores == own) & (torch.arange(scores.shape[1]) < target))
    ranks: np.ndarray = 1 + (before & free).sum(1).numpy()
    return ranks


def _rows(places: Places, cutoff: int, run: EvaluationRun) -> list[dict[str, Any]]:
    """Recall and NDCG of each place that an answer has."""
    undefined = np.isnan(places.rank)
    found = zip(metric_names(cutoff), metrics.of_ranks(places.rank, cutoff), strict=True)
    scores = {name: np.where(undefined, np.nan, values) for name, values in found}
    rows = []
    for place in np.flatnonzero(~undefined.all(axis=0)).tolist():
        here = {name: values[:, place] for name, values in scores.items()}
        users = int((~undefined[:, place]).sum())
        rows.append({"place": place + 1, "users": users, **run.intervals(here)})
    return rows


def _draw(path: Path, similarity: Float64[np.ndarray, "k k"]) -> None:
    """A heat map with its numbers."""
    k = len(similarity)
    size = (1.5 + 0.5 * k, 1 + 0.5 * k)
    figure = require("matplotlib.figure", extra="plot").Figure(size, layout="constrained")
    axes = figure.add_subplot(title="Cosine of the states that open items")
    image = axes.imshow(similarity, vmin=min(0.0, float(np.nanmin(similarity))), vmax=1.0)
    for place, other in np.argwhere(~np.isnan(similarity)):
        value = similarity[place, other]
        colour = "black" if value > 0.5 else "white"
        axes.text(other, place, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(k), range(1, k + 1))
        axis.set_label_text("place in the answer")
    figure.colorbar(image)
    figure.savefig(path, format="png", dpi=120)
