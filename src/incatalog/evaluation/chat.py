"""Scores conversations of three rounds: is it a recommender, and still the chat model it was?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from incatalog import metrics
from incatalog.artifacts import atomic_path, open_run, read_json, write_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError, require
from incatalog.evaluation.batchlog import BatchLog, Shards, in_batches
from incatalog.evaluation.cutoff import check_cutoff
from incatalog.evaluation.freetext import TitleFinder
from incatalog.evaluation.methods import (
    existing_vectors,
    is_language_model,
    load_recommender,
    model_files,
)
from incatalog.evaluation.perplexity import perplexities
from incatalog.evaluation.reader import Named
from incatalog.evaluation.recommend import sample_users, score, users_with_item
from incatalog.evaluation.rounds import Rounds, hold_conversations, plan_rounds, score_rounds
from incatalog.evaluation.runs import CONVERSATIONS, SUMMARY, USERS
from incatalog.evaluation.settings import EvaluateChatSettings
from incatalog.evaluation.tables import chat_tables

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender


def evaluate_chat(settings: EvaluateChatSettings) -> Path:
    """Has a model hold conversations of three rounds and scores them.

    The published protocol (RecLM-cgen, arXiv 2505.03336): round 0 is a worked question, round 1
    asks for ``k`` recommendations, which the model writes with nothing given but the prompt, round
    2 asks another question. All is greedy and in one context.

    Writes into ``settings.out``: ``summary.json``, ``users.parquet`` (one row a conversation) and
    ``conversations.jsonl`` (all that was said). The summary holds

    - ``metrics``: those of `incatalog evaluate recommend`, of the item spans of round 1;
    - ``rounds``: ``ExactlyK`` (share of round-1 answers with exactly k spans), ``NoControl``
      (share of round-2 answers without a control token), ``Accuracy`` (share of round-2 answers
      whose number is that of the reference), ``Numbered`` (share that give a number);
    - ``free_text``: titles named outside spans in round 1, by `incatalog.evaluation.freetext`;
    - ``perplexity`` of general conversations, of this model and of the one it was before.

    Interrupted runs go on, and processes of ``accelerate launch`` share the work, as in
    `incatalog.evaluation.recommend.evaluate_recommend`.

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work.
        ArtifactError: ``settings.out`` holds something else.
        DataError: Data, questions or conversations are broken.
        MissingExtraError: rapidfuzz is not installed.
    """
    _check(settings)
    require("rapidfuzz", extra="evaluate")
    shards = Shards.current(settings.device)
    if not shards.is_main:
        shards.wait()
    catalog = Catalog.load(settings.data)
    check_cutoff(settings.k, catalog)
    run = open_run(
        settings.out,
        "evaluate chat",
        settings,
        inputs=_inputs(settings),
        free_fields=("batch_size", "verify"),
    )
    if shards.is_main:
        shards.wait()
    console = shards.console()
    if run.finished:
        console.print(f"{settings.out}: already evaluated", soft_wrap=True)
        for table in chat_tables(read_json(settings.out / SUMMARY)):
            console.print(table)
        return settings.out

    split = leave_one_out(Histories.load(settings.data, catalog))
    users = sample_users(len(split), settings.users, settings.seed)
    held_out = split.test if settings.split == "test" else split.valid
    rounds = plan_rounds([held_out(user) for user in users], settings)
    device = shards.device(settings.device)
    recommender = load_recommender(
        settings.model,
        catalog,
        device,
        settings.index or settings.data,
        settings.vectors,
        verify=settings.verify,
    )

    def converse(positions: Sequence[int]) -> list[dict[str, Any]]:
        return hold_conversations(
            recommender, [rounds[position] for position in positions], settings
        )

    log = BatchLog(settings.out, shards)
    spoken = in_batches(len(rounds), settings.batch_size, converse, log, "evaluate chat", shards)
    general, logs = perplexities(settings, recommender, shards, device)
    if not shards.is_main:
        return settings.out

    holdouts = [one.holdout for one in rounds]
    answers = [tuple(_named(piece) for piece in one["round_1"] if len(piece) > 1) for one in spoken]
    counts = users_with_item(split, len(catalog))
    scores = score(answers, holdouts, catalog, settings.k, counts, len(split))
    rounds_scores = score_rounds(spoken, rounds, settings.k)
    mentions = _mentions(spoken, recommender, settings)
    summary: dict[str, Any] = {
        "method": recommender.spec.method,
        "users": len(rounds),
        "k": settings.k,
        "metrics": _intervals(scores, settings),
        "rounds": _intervals(rounds_scores, settings),
        "free_text": count_mentions(mentions),
        "perplexity": general,
    }
    ids = [split.user_ids[user] for user in users]
    conversations = pl.DataFrame({"user_id": ids, "free_text": [len(found) for found in mentions]})
    with atomic_path(settings.out / USERS) as partial:
        conversations.with_columns(
            **{name: pl.Series(values) for name, values in (scores | rounds_scores).items()}
        ).write_parquet(partial)
    with atomic_path(settings.out / CONVERSATIONS) as partial, partial.open("w") as stream:
        for user_id, one, said, found in zip(ids, rounds, spoken, mentions, strict=True):
            record = _record(user_id, one, said, found, catalog)
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    write_json(settings.out / SUMMARY, summary)
    run.finish(**{name: found["value"] for name, found in summary["rounds"].items()})
    for finished in (log, *logs):
        finished.remove()
    for shown in chat_tables(summary):
        console.print(shown)
    return settings.out


def count_mentions(mentions: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """How many titles free text names, by where they are from; OOD is the share in no catalog."""
    sources = Counter(str(one["source"]) for found in mentions for one in found)
    total = sources.total()
    outside = sources["training"] + sources["unknown"]
    return {
        "answers": sum(bool(found) for found in mentions),
        "titles": total,
        **{source: sources[source] for source in ("exact", "fuzzy", "training", "unknown")},
        "OOD": outside / total if total else None,
    }


def _mentions(
    spoken: Sequence[Mapping[str, Any]], recommender: Recommender, settings: EvaluateChatSettings
) -> list[list[dict[str, Any]]]:
    """Titles and aliases in the free text of each round 1."""
    own = Catalog.load(settings.model)
    other = own.fingerprint != recommender.catalog.fingerprint
    catalog, aliases = recommender.catalog, recommender.aliases
    rows = aliases.items(len(catalog))
    names = [*catalog.titles, *aliases.texts]
    finder = TitleFinder(names, own.titles if other else (), settings.likeness)
    return [
        [
            mention._asdict() | {"row": None if mention.row is None else rows[mention.row]}
            for mention in finder.find(
                "\n".join(piece[0] for piece in said["round_1"] if len(piece) == 1)
            )
        ]
        for said in spoken
    ]


def _record(
    user_id: str,
    rounds: Rounds,
    said: Mapping[str, Any],
    mentions: Sequence[Mapping[str, Any]],
    catalog: Catalog,
) -> dict[str, Any]:
    """One conversation of ``conversations.jsonl``."""
    ids = [item.item_id for item in catalog.items]
    answer = [
        {"text": piece[0]}
        if len(piece) == 1
        else {"title": piece[0], "item": None if piece[1] is None else ids[piece[1]]}
        for piece in said["round_1"]
    ]
    history = [catalog.item(row).title for row in rounds.holdout.history.tolist()]
    return {
        "user_id": user_id,
        "example": {"question": rounds.example.question, "answer": rounds.example.answer},
        "history": history,
        "target": ids[rounds.holdout.target],
        "recommendation": answer,
        "free_text": [{"text": one["text"], "source": one["source"]} for one in mentions],
        "question": rounds.question.question,
        "reference": rounds.question.answer,
        "reply": said["round_2"],
        "control_tokens": said["control"],
        "finished": said["finished"],
    }


def _intervals(scores: Mapping[str, np.ndarray], settings: EvaluateChatSettings) -> dict[str, Any]:
    values = np.stack(list(scores.values()), axis=1)
    found = metrics.bootstrap_intervals(values, settings.bootstrap, settings.seed)
    return {
        name: interval._asdict()
        for name, interval in zip(scores, found, strict=True)
        if not np.isnan(interval.value)
    }


def _named(piece: Sequence[Any]) -> Named:
    return Named(piece[0], piece[1])


def _inputs(settings: EvaluateChatSettings) -> dict[str, Path]:
    inputs: dict[str, Path] = {**model_files(settings.model)}
    inputs |= {name: Path(path) for name, path in prepared_files(settings.data).items()}
    inputs["questions"] = settings.questions
    if settings.vectors:
        inputs["vectors"] = existing_vectors(settings.vectors)
    if settings.examples is not None:
        inputs["examples"] = settings.examples
    if settings.chat is not None:
        inputs["chat"] = settings.chat
    if settings.before and Path(settings.before).is_dir():
        inputs["before"] = Path(settings.before)
    return inputs


def _check(settings: EvaluateChatSettings) -> None:
    if settings.before and settings.chat is None:
        raise ConfigError("--before: its perplexity needs conversations; give them with --chat")
    if settings.exclude_seen and not settings.grounded:
        raise ConfigError("--exclude-seen: nothing can be excluded with --no-grounded")
    if not is_language_model(settings.model):
        raise ConfigError(
            f"--model {settings.model}: no language model (incatalog.json); expected the folder of "
            "`incatalog train sft` or `merge`"
        )
