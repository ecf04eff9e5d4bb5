"""Conversations of three rounds: a worked question, a recommendation, another question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from incatalog.data.interactions import Holdout
from incatalog.data.questions import Question, load_questions
from incatalog.decoding.request import Request
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.dialogue.tasks import fit_history
from incatalog.errors import DataError
from incatalog.evaluation.answer_numbers import final_number
from incatalog.evaluation.methods import histories
from incatalog.evaluation.reader import AnswerReader, Named
from incatalog.evaluation.settings import EvaluateChatSettings

if TYPE_CHECKING:
    from incatalog.decoding.events import Completion
    from incatalog.recommender.recommender import Recommender


@dataclass(frozen=True)
class Rounds:
    """What a conversation is made of."""

    example: Question  # Of round 0, with its answer.
    holdout: Holdout  # The history of round 1, and the item that came next.
    question: Question  # Of round 2.


def plan_rounds(holdouts: Sequence[Holdout], settings: EvaluateChatSettings) -> list[Rounds]:
    """Draws an example and a question for each user, without repetition while they last."""
    questions = load_questions(settings.questions)
    examples = questions if settings.examples is None else load_questions(settings.examples)
    if settings.examples is None and len(questions) < 2:
        raise DataError.at(settings.questions, "holds one question; expected two, or --examples")
    random = np.random.default_rng(settings.seed)
    asked = random.permutation(len(questions)).tolist()
    # The next question in the same order, so never the question itself.
    own = settings.examples is None
    shown = asked[1:] + asked[:1] if own else random.permutation(len(examples)).tolist()
    drawn = zip(cycle(shown), holdouts, cycle(asked), strict=False)
    return [Rounds(examples[one], holdout, questions[other]) for one, holdout, other in drawn]


def hold_conversations(
    recommender: Recommender,
    reader: AnswerReader,
    rounds: Sequence[Rounds],
    settings: EvaluateChatSettings,
) -> list[dict[str, Any]]:
    """Lets a model answer rounds 1 and 2 of some conversations.

    Each has ``round_1``: the answer in pieces, ``[text]`` outside spans and ``[text, row]`` of a
    span, row null where no item has that name; ``round_2``: its text; ``control``: how many control
    tokens round 2 has; ``finished``: why the two answers ended.
    """
    backbone = recommender.backbone
    openings = [first_rounds(recommender, one, settings) for one in rounds]
    room = settings.k * recommender.items.longest_span
    answers = _complete(recommender, openings, settings, rounds, room)
    pieces = [reader.pieces(one.token_ids, one.finish_reason == "length") for one in answers]

    def part(piece: Named | str) -> ItemRef | Text:
        if isinstance(piece, str):
            return Text(piece)
        return Text(piece.text) if piece.row is None else ItemRef(piece.row)

    further = [
        (*opening, Message("assistant", tuple(map(part, said))), *_turns(one.question)[:1])
        for opening, said, one in zip(openings, pieces, rounds, strict=True)
    ]
    replies = _complete(recommender, further, settings, rounds)
    control = {backbone.soi_token_id, backbone.eoi_token_id, *backbone.code_token_ids}
    tokenizer = backbone.tokenizer
    return [
        {
            "round_1": [[p.text, p.row] if isinstance(p, Named) else [p] for p in said],
            "round_2": tokenizer.decode(reply.token_ids, skip_special_tokens=True),
            "control": sum(token in control for token in reply.token_ids),
            "finished": [answer.finish_reason, reply.finish_reason],
        }
        for said, answer, reply in zip(pieces, answers, replies, strict=True)
    ]


def first_rounds(
    recommender: Recommender, rounds: Rounds, settings: EvaluateChatSettings
) -> tuple[Message, ...]:
    """Round 0 and the request of round 1, with the oldest items cut where they do not fit."""

    def build(rows: Sequence[int]) -> tuple[Message, ...]:
        return (*_turns(rounds.example), *recommender.prompts.messages(rows, settings.k))

    history = rounds.holdout.history.tolist()[-settings.max_history :]
    limit = recommender.spec.max_length
    messages, _ = fit_history(recommender.renderer, build, history, limit)
    return messages


def score_rounds(
    spoken: Sequence[Mapping[str, Any]], rounds: Sequence[Rounds], k: int
) -> dict[str, np.ndarray]:
    """Values of each conversation; those of numbers are NaN where the reference holds none."""
    scores = []
    for said, one in zip(spoken, rounds, strict=True):
        exact = sum(len(piece) > 1 for piece in said["round_1"]) == k
        wanted, given = final_number(one.question.answer), final_number(said["round_2"])
        numbers = (np.nan, np.nan) if wanted is None else (given == wanted, given is not None)
        scores.append((exact, said["control"] == 0, *numbers))
    names = ("ExactlyK", "NoControl", "Accuracy", "Numbered")
    return dict(zip(names, np.array(scores, dtype=np.float64).T, strict=True))


def _turns(asked: Question) -> tuple[Message, Message]:
    question, answer = Text(asked.question), Text(asked.answer)
    return Message("user", (question,)), Message("assistant", (answer,))


def _complete(
    recommender: Recommender,
    conversations: Sequence[Sequence[Message]],
    settings: EvaluateChatSettings,
    rounds: Sequence[Rounds],
    room: int = 0,
) -> list[Completion]:
    """The next answers, with `room` more tokens for items."""
    grounded, most = settings.grounded, settings.max_new_tokens + room
    prompts = [recommender.renderer.prompt(messages).tolist() for messages in conversations]
    asked = histories(recommender, [one.holdout for one in rounds], settings)
    requests = [
        Request(
            prompt,
            most,
            excluded=excluded if grounded else None,
            grounded=grounded,
            item_decode="search",
        )
        for prompt, (_, excluded) in zip(prompts, asked, strict=True)
    ]
    return recommender.engine.complete(requests)
