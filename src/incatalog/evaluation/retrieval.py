"""How well the retrieval head finds the held-out item, place by place of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int64

from incatalog import metrics
from incatalog.artifacts import atomic_path, open_run, read_json, write_json
from incatalog.constraint.excluded import free_rows
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, Holdout, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError, require
from incatalog.evaluation.batchlog import BatchLog, Shards, in_batches
from incatalog.evaluation.cutoff import check_cutoff
from incatalog.evaluation.methods import existing_vectors, load_recommender, model_files
from incatalog.evaluation.recommend import sample_users
from incatalog.evaluation.settings import EvaluateRetrievalSettings
from incatalog.evaluation.tables import metric_names, places_table
from incatalog.model.backbone import base_model
from incatalog.model.spec import spec_file

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender

SUMMARY = "summary.json"
PLACES = "places.parquet"
SIMILARITY = "similarity.npy"
HEAT_MAP = "similarity.png"


# Pairs of places of all users whose states are compared.
_MOST_PAIRS = 1 << 28


@dataclass(frozen=True)
class Places:
    """What the head does at the places of some answers.

    Attributes:
        rank: Rank of the held-out item, from 1, by the state that opens the span of each place; NaN
            where an answer has fewer items or may not name the held-out one.
        similarity: Cosine of the states of each two places; NaN where an answer has fewer items.
    """

    rank: Float64[np.ndarray, "users k"]
    similarity: Float64[np.ndarray, "users k k"]


def evaluate_retrieval(settings: EvaluateRetrievalSettings) -> Path:
    """Has a model write lists and looks at the states that open their spans.

    At each place the held-out item is ranked among all items that the answer may name, those that
    it has named before included, so that places can be compared. `Recall` is 1 where it is among
    the best ``cutoff``, `NDCG` is ``1 / log2(rank + 1)`` there, both means over users with 95 %
    bootstrap intervals. The cosine of the states of two places, as a mean over users, says how far
    the head asks for the same thing again; states all alike leave a ranking by one query.

    Writes ``summary.json``, ``places.parquet`` (one row a user and place), ``similarity.npy``
    ``[k, k]`` and its heat map ``similarity.png`` into ``settings.out``. Finished batches are kept,
    so that an interrupted run goes on where it was; processes of ``accelerate launch`` share them.

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work, or the model does not retrieve.
        ArtifactError: ``settings.out`` holds something else.
        DataError: The data is broken, or a user has fewer than three items.
        VectorError: The data is another catalog and its vectors are missing or do not fit.
        MissingExtraError: matplotlib is not installed.
    """
    _check(settings)
    inputs = {**prepared_files(settings.data), **model_files(settings.model)}
    if settings.vectors:
        inputs["vectors"] = existing_vectors(settings.vectors)
    require("matplotlib", extra="plot")
    catalog = Catalog.load(settings.data)
    check_cutoff(settings.k, catalog)
    shards = Shards.current(settings.device)
    if not shards.is_main:
        shards.wait()
    run = open_run(
        settings.out,
        "evaluate retrieval",
        settings,
        inputs=inputs,
        free_fields=("batch_size", "verify"),
    )
    if shards.is_main:
        shards.wait()
    console = shards.console()
    if run.finished:
        console.print(f"{settings.out}: already evaluated", soft_wrap=True)
        console.print(places_table(read_json(settings.out / SUMMARY)))
        return settings.out

    split = leave_one_out(Histories.load(settings.data, catalog))
    recommender = load_recommender(
        settings.model,
        catalog,
        shards.device(settings.device),
        settings.data,
        settings.vectors,
        verify=settings.verify,
    )
    if recommender.backbone.head is None:
        raise ConfigError(
            f"--model {settings.model}: method {recommender.spec.method} does not retrieve; "
            "expected a model of `incatalog train sft --method ret`"
        )
    users = sample_users(len(split), settings.users, settings.seed)
    _check_size(settings.k, len(users))
    held_out = split.test if settings.split == "test" else split.valid
    holdouts = [held_out(user) for user in users]

    def look(positions: Sequence[int]) -> list[Any]:
        found = look_at(recommender, [holdouts[position] for position in positions], settings)
        return list(zip(found.rank.tolist(), found.similarity.tolist(), strict=True))

    log = BatchLog(settings.out, shards)
    seen = in_batches(len(holdouts), settings.batch_size, look, log, "evaluate retrieval", shards)
    if not shards.is_main:
        return settings.out
    places = Places(np.array([one[0] for one in seen]), np.array([one[1] for one in seen]))

    summary = _summarise(places, settings)
    similarity = np.array(summary["similarity"])
    with atomic_path(settings.out / PLACES) as partial:
        _place_table([split.user_ids[user] for user in users], places).write_parquet(partial)
    with atomic_path(settings.out / SIMILARITY) as partial, partial.open("wb") as stream:
        np.save(stream, similarity, allow_pickle=False)
    with atomic_path(settings.out / HEAT_MAP) as partial:
        _draw(partial, similarity)
    write_json(settings.out / SUMMARY, summary)
    run.finish(
        **{name: summary["places"][0][name]["value"] for name in metric_names(settings.cutoff)}
    )
    log.remove()
    console.print(places_table(summary))
    return settings.out


def look_at(
    recommender: Recommender, holdouts: Sequence[Holdout], settings: EvaluateRetrievalSettings
) -> Places:
    """Has the model answer some users and reads the states of its whole answers in one pass each.

    Args:
        recommender: A model that retrieves.
        holdouts: History and held-out item of each user.
        settings: Length of the answers, and what they may not name.
    """
    head = recommender.backbone.head
    assert head is not None
    k = settings.k
    requests = []
    for holdout in holdouts:
        history = holdout.history.tolist()
        excluded = recommender.excluded(history=history, exclude_seen=settings.exclude_seen)
        requests.append(
            recommender.list_request(history, k, excluded, max_history=settings.max_history or None)
        )
    rank = np.full((len(holdouts), k), np.nan)
    similarity = np.full((len(holdouts), k, k), np.nan)
    answers = recommender.engine.complete(requests)
    for user, (holdout, request, answer) in enumerate(
        zip(holdouts, requests, answers, strict=True)
    ):
        if not answer.items:
            continue
        opened = np.flatnonzero(np.array(answer.token_ids) == recommender.backbone.soi_token_id)
        states = _states(recommender, [*request.prompt_ids, *answer.token_ids])
        states = states[torch.from_numpy(opened + len(request.prompt_ids) - 1)]
        assert request.excluded is not None
        free = torch.from_numpy(free_rows(request.excluded.trie, request.excluded))
        found = _ranks(head(states).cpu(), free, holdout.target)
        rank[user, : len(found)] = found
        unit = torch.nn.functional.normalize(states.double(), dim=1)
        similarity[user, : len(found), : len(found)] = (unit @ unit.T).cpu().numpy()
    return Places(rank, similarity)


@torch.no_grad()
def _states(recommender: Recommender, token_ids: Sequence[int]) -> torch.Tensor:
    """Hidden states before the output layer, ``[length, hidden]``."""
    model = recommender.backbone.model
    ids = torch.tensor([list(token_ids)], device=model.device)
    states: torch.Tensor = base_model(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
    return states


def _ranks(
    scores: torch.Tensor, free: torch.Tensor, target: int
) -> Int64[np.ndarray, " places"] | Float64[np.ndarray, " places"]:
    """Rank of an item among the free ones, equal ones of a lower row before it."""
    if not free[target]:
        return np.full(len(scores), np.nan)
    own = scores[:, target : target + 1]
    before = (scores > own) | ((scores == own) & (torch.arange(scores.shape[1]) < target))
    ranks: np.ndarray = 1 + (before & free).sum(1).numpy()
    return ranks


def _summarise(places: Places, settings: EvaluateRetrievalSettings) -> dict[str, Any]:
    """The contents of ``summary.json``."""
    found = places.rank <= settings.cutoff
    gain = np.where(found, 1 / np.log2(places.rank + 1), 0.0)
    defined = ~np.isnan(places.rank)
    rows = []
    for place in range(settings.k):
        columns = [np.where(defined, value, np.nan)[:, place] for value in (found, gain)]
        intervals = metrics.bootstrap_intervals(
            np.stack(columns, axis=1), settings.bootstrap, settings.seed
        )
        named = zip(metric_names(settings.cutoff), intervals, strict=True)
        counted = {"place": place + 1, "users": int(defined[:, place].sum())}
        rows.append(counted | {name: interval._asdict() for name, interval in named})
    kept = ~np.isnan(places.similarity)
    total = np.where(kept, places.similarity, 0.0).sum(axis=0)
    similarity = np.divide(
        total, kept.sum(axis=0), out=np.full_like(total, np.nan), where=kept.any(axis=0)
    )
    return {
        "method": "ret",
        "users": len(places.rank),
        "k": settings.k,
        "cutoff": settings.cutoff,
        "places": [row for row in rows if row["users"]],
        "similarity": similarity.tolist(),
    }


def _place_table(user_ids: Sequence[str], places: Places) -> pl.DataFrame:
    users, k = places.rank.shape
    table = pl.DataFrame(
        {
            "user_id": np.repeat(np.array(user_ids, dtype=object), k).tolist(),
            "place": np.tile(np.arange(1, k + 1), users),
            "rank": places.rank.reshape(-1),
        }
    )
    return table.drop_nans("rank").with_columns(pl.col("rank").cast(pl.Int64))


def _draw(path: Path, similarity: Float64[np.ndarray, "k k"]) -> None:
    """A heat map with its numbers."""
    figure_module = require("matplotlib.figure", extra="plot")
    k = len(similarity)
    figure = figure_module.Figure(figsize=(1.5 + 0.5 * k, 1 + 0.5 * k), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(similarity, vmin=min(0.0, float(np.nanmin(similarity))), vmax=1.0)
    for place, other in np.argwhere(~np.isnan(similarity)):
        value = similarity[place, other]
        axes.text(other, place, f"{value:.2f}", ha="center", va="center", fontsize=7,
                  color="black" if value > 0.5 else "white")  # fmt: skip
    axes.set_xticks(range(k), range(1, k + 1))
    axes.set_yticks(range(k), range(1, k + 1))
    axes.set_title("Cosine of the states that open items")
    axes.set_xlabel("place in the answer")
    axes.set_ylabel("place in the answer")
    figure.colorbar(image)
    figure.savefig(path, format="png", dpi=120)


def _check_size(k: int, users: int) -> None:
    """Makes sure that the states of all places can be compared."""
    if users * k * k > _MOST_PAIRS:
        raise ConfigError(
            f"--k: found {k}; comparing as many places of {users} users would take "
            f"{users * k * k * 8 / 1e9:.1f} GB; ask for fewer places, or fewer --users"
        )


def _check(settings: EvaluateRetrievalSettings) -> None:
    if not spec_file(settings.model).exists():
        raise ConfigError(
            f"--model {settings.model}: no language model (incatalog.json); expected a model of "
            "`incatalog train sft --method ret`"
        )
