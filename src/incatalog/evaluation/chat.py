"""Scores conversations of three rounds: is it a recommender, and still the chat model it was?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from incatalog.data.catalog import Catalog
from incatalog.data.documents import write_lines
from incatalog.errors import ConfigError, require
from incatalog.evaluation.finished import CHAT, CONVERSATIONS, USERS
from incatalog.evaluation.freetext import TitleFinder
from incatalog.evaluation.methods import check_asked, check_language_model, load_recommender
from incatalog.evaluation.perplexity import perplexities
from incatalog.evaluation.reader import AnswerReader, Named, id_of
from incatalog.evaluation.recommend import score
from incatalog.evaluation.result_tables import chat_tables
from incatalog.evaluation.rounds import Rounds, hold_conversations, plan_rounds, score_rounds
from incatalog.evaluation.run import EvaluationRun
from incatalog.evaluation.settings import EvaluateChatSettings
from incatalog.model.hub import with_model_here

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

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work.
        ArtifactError: ``settings.out`` holds something else.
        DataError: Data, questions or conversations are broken.
        MissingExtraError: rapidfuzz is not installed.
    """
    if settings.before and settings.chat is None:
        raise ConfigError("--before: its perplexity needs conversations; give them with --chat")
    if settings.exclude_seen and not settings.grounded:
        raise ConfigError("--exclude-seen: nothing can be excluded with --no-grounded")
    require("rapidfuzz", extra="evaluate")
    settings = with_model_here(settings)
    check_language_model(settings.model)
    check_asked(settings)
    inputs = {name: getattr(settings, name) for name in ("questions", "examples", "chat")}
    if settings.before and Path(settings.before).is_dir():
        inputs["before"] = Path(settings.before)
    run = EvaluationRun(CHAT, settings, chat_tables, inputs)
    if run.finished:
        return settings.out
    rounds = plan_rounds(run.holdouts, settings)
    recommender = load_recommender(settings, run.catalog, run.device, settings.index)
    reader = AnswerReader.of(recommender.items, recommender.spec.list_form)

    def converse(batch: Sequence[Rounds]) -> list[dict[str, Any]]:
        return hold_conversations(recommender, reader, batch, settings)

    spoken = run.in_batches(rounds, converse, "evaluate chat")
    general = perplexities(run, settings, recommender)
    if not run.shards.is_main:
        return settings.out

    answers = [tuple(Named(*p) for p in one["round_1"] if len(p) > 1) for one in spoken]
    holdouts, counts, users = run.holdouts, run.users_with_item, len(run.split)
    scores = score(answers, holdouts, run.catalog, settings.k, counts, users)
    round_scores = score_rounds(spoken, rounds, settings.k)
    mentions = _mentions(spoken, recommender, settings)
    table = {"user_id": run.user_ids, "free_text": [len(found) for found in mentions]}
    run.write_table(USERS, pl.DataFrame({**table, **scores, **round_scores}))
    told = zip(run.user_ids, rounds, spoken, mentions, strict=True)
    write_lines(settings.out / CONVERSATIONS, (_record(run.catalog, *one) for one in told))
    results = {
        "metrics": run.intervals(scores),
        "rounds": run.intervals(round_scores),
        "free_text": count_mentions(mentions),
        "perplexity": general,
    }
    return run.finish(recommender.spec.method, results, results["rounds"])


def count_mentions(mentions: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """How many titles free text names, by where they are from; OOD is the share in no catalog."""
    sources = Counter(str(one["source"]) for found in mentions for one in found)
    total, outside = sources.total(), sources["training"] + sources["unknown"]
    counts = {source: sources[source] for source in ("exact", "fuzzy", "training", "unknown")}
    answers = sum(bool(found) for found in mentions)
    ood = outside / total if total else None
    return {"answers": answers, "titles": total, **counts, "OOD": ood}


def _mentions(
    spoken: Sequence[Mapping[str, Any]], recommender: Recommender, settings: EvaluateChatSettings
) -> list[list[dict[str, Any]]]:
    """Titles, and other names that the model knows, in the free text of each round 1."""
    own, catalog = Catalog.load(settings.model), recommender.catalog
    learnt = (*own.titles, *own.names) if own.fingerprint != catalog.fingerprint else ()
    names = [*dict.fromkeys((*catalog.titles, *catalog.names, *recommender.aliases.texts))]
    finder = TitleFinder(names, learnt, settings.likeness)
    texts = ("\n".join(p[0] for p in said["round_1"] if len(p) == 1) for said in spoken)
    return [[mention._asdict() for mention in finder.find(text)] for text in texts]


def _record(
    catalog: Catalog,
    user_id: str,
    rounds: Rounds,
    said: Mapping[str, Any],
    mentions: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """One conversation of ``conversations.jsonl``."""

    def piece(text: str, *row: int | None) -> dict[str, Any]:
        return {"title": text, "item": id_of(catalog, *row)} if row else {"text": text}

    return {
        "user_id": user_id,
        "example": asdict(rounds.example),
        "history": [catalog.titles[row] for row in rounds.holdout.history.tolist()],
        "target": catalog.item(rounds.holdout.target).item_id,
        "recommendation": [piece(*one) for one in said["round_1"]],
        "free_text": [{"text": one["text"], "source": one["source"]} for one in mentions],
        "question": rounds.question.question,
        "reference": rounds.question.answer,
        "reply": said["round_2"],
        "control_tokens": said["control"],
        "finished": said["finished"],
    }
