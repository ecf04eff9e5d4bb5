"""Conversations of three rounds: a worked question, a recommendation, another question."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from incatalog.data.interactions import Holdout
from incatalog.data.questions import Question, load_questions
from incatalog.errors import DataError
from incatalog.evaluation.reader import AnswerReader, Named
from incatalog.evaluation.settings import EvaluateChatSettings

if TYPE_CHECKING:
    from incatalog.decoding.events import Completion
    from incatalog.decoding.request import Request
    from incatalog.dialogue.render import Message
    from incatalog.recommender.recommender import Recommender


@dataclass(frozen=True)
class Rounds:
    """What a conversation is made of.

    Attributes:
        example: The worked question of round 0.
        holdout: History of the request of round 1, and the item that came next.
        question: The question of round 2.
    """

    example: Question
    holdout: Holdout
    question: Question


def plan_rounds(holdouts: Sequence[Holdout], settings: EvaluateChatSettings) -> list[Rounds]:
    """Draws an example and a question for each user, without repetition while they last.

    Raises:
        DataError: There is no second question to serve as an example.
    """
    questions = load_questions(settings.questions)
    examples = questions if settings.examples is None else load_questions(settings.examples)
    if settings.examples is None and len(questions) < 2:
        raise DataError.at(settings.questions, "holds one question; expected two, or --examples")
    random = np.random.default_rng(settings.seed)
    asked = random.permutation(len(questions)).tolist()
    # One further on in the same order: never the question itself.
    shown = (
        random.permutation(len(examples)).tolist() if settings.examples else asked[1:] + asked[:1]
    )
    return [
        Rounds(examples[shown[at % len(shown)]], holdout, questions[asked[at % len(asked)]])
        for at, holdout in enumerate(holdouts)
    ]


def hold_conversations(
    recommender: Recommender, rounds: Sequence[Rounds], settings: EvaluateChatSettings
) -> list[dict[str, Any]]:
    """Lets a model answer rounds 1 and 2 of some conversations.

    Returns:
        For each ``round_1``: the answer in pieces, ``[text]`` outside spans and ``[text, row]`` of
        a span, row null where no item has that name; ``round_2``: its text; ``control``: how many
        control tokens round 2 has; ``finished``: why the two answers ended.
    """
    from incatalog.dialogue.render import ItemRef, Message, Text

    reader = AnswerReader.of(recommender.items, recommender.spec.list_form)
    openings = [first_rounds(recommender, one, settings) for one in rounds]
    answers = _complete(recommender, openings, settings, first=True, rounds=rounds)
    pieces = [
        reader.pieces(answer.token_ids, answer.finish_reason == "length") for answer in answers
    ]
    further = []
    for opening, said, one in zip(openings, pieces, rounds, strict=True):
        parts = tuple(
            ItemRef(piece.row)
            if isinstance(piece, Named) and piece.row is not None
            else Text(piece.text if isinstance(piece, Named) else piece)
            for piece in said
        )
        asked = Message("user", (Text(one.question.question),))
        further.append((*opening, Message("assistant", parts), asked))
    replies = _complete(recommender, further, settings, first=False, rounds=rounds)
    control = {
        recommender.backbone.soi_token_id,
        recommender.backbone.eoi_token_id,
        *recommender.backbone.code_token_ids,
    }
    tokenizer = recommender.backbone.tokenizer
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
    from incatalog.dialogue.render import Message, Text
    from incatalog.dialogue.tasks import fit_history

    worked = (
        Message("user", (Text(rounds.example.question),)),
        Message("assistant", (Text(rounds.example.answer),)),
    )

    def build(rows: Sequence[int]) -> tuple[Message, ...]:
        return (*worked, *recommender.prompts.messages(rows, settings.k))

    history = rounds.holdout.history.tolist()[-settings.max_history :]
    limit = recommender.spec.max_length
    messages, _ = fit_history(recommender.renderer, build, history, limit)
    return messages


def score_rounds(
    spoken: Sequence[Mapping[str, Any]], rounds: Sequence[Rounds], k: int
) -> dict[str, np.ndarray]:
    """What `evaluate_chat` reports as ``rounds``, one value a conversation.

    ``Accuracy`` and ``Numbered`` are NaN where the reference answer holds no number.
    """
    exact, clean, right, numbered = [], [], [], []
    for said, one in zip(spoken, rounds, strict=True):
        exact.append(float(sum(len(piece) > 1 for piece in said["round_1"]) == k))
        clean.append(float(said["control"] == 0))
        wanted, given = final_number(one.question.answer), final_number(said["round_2"])
        right.append(float(given == wanted) if wanted is not None else np.nan)
        numbered.append(float(given is not None) if wanted is not None else np.nan)
    named = {"ExactlyK": exact, "NoControl": clean, "Accuracy": right, "Numbered": numbered}
    return {name: np.array(values, dtype=np.float64) for name, values in named.items()}


def _complete(
    recommender: Recommender,
    conversations: Sequence[Sequence[Message]],
    settings: EvaluateChatSettings,
    *,
    first: bool,
    rounds: Sequence[Rounds],
) -> list[Completion]:
    from incatalog.decoding.request import Request

    longest = recommender.items.longest_span
    requests: list[Request] = []
    for messages, one in zip(conversations, rounds, strict=True):
        excluded = recommender.excluded(
            history=one.holdout.history.tolist(), exclude_seen=settings.exclude_seen
        )
        requests.append(
            Request(
                recommender.renderer.prompt(messages).tolist(),
                max_new_tokens=settings.max_new_tokens + (settings.k * longest if first else 0),
                excluded=excluded if settings.grounded else None,
                grounded=settings.grounded,
            )
        )
    return recommender.engine.complete(requests)


# What may follow at once: a unit, such as kg, m2 or m³. Ordinals and thousands (5th, 5k) are other
# numbers than their digits, and 0x1F or 5f3a none.
_UNIT = r"(?!(?:st|nd|rd|th|[kKMB])(?!\w))[^\W\d_]*[23]?(?!\w)"


# A sign stands at its number: "- 18" is an entry of a list or what is taken away.
_NUMBER = re.compile(
    r"(?<![\w.,/])(?:(?<!-)(?P<sign>[-−+]))?(?:\\?[$€£]\s?)?"
    r"(?>(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,30})?(?P<decimals>\.\d{1,30})?"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?!\w))?(?:\s?/\s?(?P<divisor>\d{1,30})(?!\d))?)"
    rf"(?={_UNIT})"
)


_MARKS = (
    re.compile(r"####(.*)"),
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"(?i)\banswer(?:\s+is|\s*[:=])([^\n]*)"),
)


def final_number(text: str) -> Fraction | None:
    r"""The number that an answer gives as its result, exactly; None if it gives none.

    It is the first behind the last ``####`` (GSM8K's mark), else in the last ``\boxed{}``, else
    behind the last "answer is" or "answer:", else the last of the text. Thousands are separated by
    commas; currencies, units and per cent signs are passed over; ``3/4`` is a fraction. A sign
    stands right before its number: ``- 18`` is 18.
    """
    for mark in _MARKS:
        marked = mark.findall(text)
        if marked:
            numbers = _numbers(marked[-1])
            if numbers:
                return numbers[0]
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[Fraction]:
    found = []
    for match in _NUMBER.finditer(text):
        whole, decimals, divisor = match["whole"], match["decimals"], match["divisor"]
        if whole is None and decimals is None:
            continue
        value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
        value *= Fraction(10) ** int(match["exponent"] or 0)
        if divisor is not None:
            if int(divisor) == 0:
                continue
            value /= int(divisor)
        found.append(-value if match["sign"] in ("-", "−") else value)
    return found
