"""Histories, lists and general conversations as messages."""

from __future__ import annotations

import functools
import itertools
import re
import string
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from incatalog.config import AnswerForm, HistoryForm, ListForm
from incatalog.data.conversations import Conversation
from incatalog.dialogue.render import ControlToken, ItemRef, Message, Part, Renderer, Text
from incatalog.dialogue.templates import AlignmentWording, Wording
from incatalog.errors import ConfigError, DataError

_CONTROL = re.compile("(<SOI>|<EOI>)")
_NAMED: dict[str, Part] = {"<SOI>": ControlToken("<SOI>"), "<EOI>": ControlToken("<EOI>")}
_HISTORY_SEPARATOR = " → "
_CANDIDATE_SEPARATOR = ", "


def recommend_messages(
    wording: Wording,
    history_rows: Sequence[int],
    k: int,
    answer_rows: Sequence[int] | None,
    titles: Sequence[str],
    history_form: HistoryForm = "title",
    list_form: ListForm = "numbered",
    candidates: Sequence[int] | None = None,
    answer_form: AnswerForm = "span",
) -> tuple[Message, ...]:
    """A request for recommendations; with the rows of an answer also that answer, best first.

    Items of the history (oldest first) and of the candidates stand in the request as quoted titles
    or as item spans, as `history_form` says; those of the answer as spans or as plain titles.
    """
    if wording.offers_candidates != (candidates is not None):
        how = "needs" if wording.offers_candidates else "takes no"
        hint = "choose it with wordings(candidates=...)"
        raise ConfigError(f"wording {wording.name!r} {how} candidates; {hint}")
    fields: dict[str, list[Part]] = {
        "history": _items(history_rows, titles, history_form, _HISTORY_SEPARATOR),
        "candidates": _items(candidates or (), titles, history_form, _CANDIDATE_SEPARATOR),
        "item_count": [Text(str(k))],
    }
    messages: list[Message] = []
    if wording.opening is not None:
        asked, answered = wording.opening
        messages += (Message("user", (Text(asked),)), Message("assistant", (Text(answered),)))
    messages.append(Message("user", _filled(wording.instruction, fields)))
    if answer_rows is not None:
        plain = titles if answer_form == "title" else None
        messages.append(Message("assistant", list_parts(answer_rows, list_form, plain)))
    return tuple(messages)


def alignment_messages(
    wording: AlignmentWording, row: int, text: str, title: str
) -> tuple[Message, ...]:
    """A question about what an item is, with its answer; `text` is its title and description."""
    fields: dict[str, list[Part]]
    fields = {"text": [Text(text)], "title": [Text(title)], "item": [ItemRef(row)]}
    asked, answered = (_filled(one, fields) for one in (wording.instruction, wording.answer))
    return Message("user", asked), Message("assistant", answered)


def list_parts(
    rows: Sequence[int], list_form: ListForm, titles: Sequence[str] | None = None
) -> tuple[Part, ...]:
    """An answer with one item a line, ``1. `` in front unless lines are plain.

    Items are written as their spans, or as plain text where ``titles`` are given.
    """
    parts: list[Part] = []
    for position, row in enumerate(rows):
        before = "\n" if position else ""
        before += " " if position and list_form == "indented" else ""
        before += f"{position + 1}. " if list_form != "plain" else ""
        item = ItemRef(row) if titles is None else Text(titles[row])
        parts += (Text(before), item) if before else (item,)
    return tuple(parts)


def fit_history(
    renderer: Renderer,
    build: Callable[[Sequence[int]], tuple[Message, ...]],
    history: Sequence[int],
    max_tokens: int,
) -> tuple[tuple[Message, ...], int]:
    """Cuts the oldest items of a history until the messages fit, and says how many it cut.

    `build` makes the messages from the item rows that are left. What must fit is the conversation
    where it ends with an answer, the prompt where it ends with a request.
    """
    messages = build(history)
    if num_tokens(renderer, messages) <= max_tokens:
        return messages, 0
    last = max(len(history) - 1, 0)
    length = num_tokens(renderer, build(history[last:]))
    if length > max_tokens:
        takes = f"the conversation takes {length} tokens with {len(history) - last} item"
        hint = "raise it, or shorten the list"
        raise ConfigError(f"--max-length {max_tokens}: {takes} of the history; {hint}")

    def fits(cut: int) -> bool:
        return num_tokens(renderer, build(history[cut:])) <= max_tokens

    cut = bisect_left(range(last + 1), True, lo=1, hi=last, key=fits)
    return build(history[cut:]), cut


def num_tokens(renderer: Renderer, messages: Sequence[Message]) -> int:
    """Tokens of a conversation, or of the prompt if an answer is still to come."""
    if messages and messages[-1].role == "user":
        return len(renderer.prompt(messages))
    return len(renderer.conversation(messages).input_ids)


def general_messages(conversation: Conversation) -> tuple[Message, ...]:
    """A general conversation as messages."""
    return tuple(Message(turn.role, (Text(turn.text),)) for turn in conversation)


def fit_turns(
    renderer: Renderer, messages: Sequence[Message], max_tokens: int
) -> tuple[tuple[Message, ...], int]:
    """Drops the newest exchanges of a conversation until it fits, and says how many turns.

    The last turn is the assistant's before and after; nothing is left if no exchange fits.
    """
    ends = (end for end, one in enumerate(messages, start=1) if one.role == "assistant")
    for end in reversed(list(ends)):
        if num_tokens(renderer, messages[:end]) <= max_tokens:
            return tuple(messages[:end]), len(messages) - end
    return (), len(messages)


def first_exchange(conversation: Conversation) -> tuple[Message, ...]:
    """The first user message of a conversation and its answer, without a system message."""
    for asked, answered in itertools.pairwise(conversation):
        if asked.role == "user" and answered.role == "assistant":
            return general_messages((asked, answered))
    found = "a general conversation has no user message with an answer after it"
    raise DataError(f"{found}; leave it out of the chat file")


def with_exchange(
    messages: Sequence[Message], exchange: Sequence[Message], *, before: bool
) -> tuple[Message, ...]:
    """A recommendation with an exchange about something else before or after it.

    A system message stays in front; an exchange can only follow an answer.
    """
    if not before:
        if messages and messages[-1].role != "assistant":
            raise DataError("the recommendation has no answer for an exchange to follow")
        return (*messages, *exchange)
    first = int(bool(messages) and messages[0].role == "system")
    return (*messages[:first], *exchange, *messages[first:])


def _items(
    rows: Sequence[int], titles: Sequence[str], form: HistoryForm, separator: str
) -> list[Part]:
    if form == "title":
        return [Text(separator.join(f"'{titles[row]}'" for row in rows))]
    parts: list[Part] = []
    for row in rows:
        parts += (Text(separator), ItemRef(int(row)))
    return parts[1:]


def _filled(template: str, fields: Mapping[str, list[Part]]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for literal, field in _pieces(template):
        parts += literal
        if field is not None:
            parts += fields[field]
    return tuple(parts)


@functools.lru_cache(maxsize=64)
def _pieces(template: str) -> tuple[tuple[tuple[Part, ...], str | None], ...]:
    """Splits a template into what is literal and the field after it."""
    pieces: list[tuple[tuple[Part, ...], str | None]] = []
    for literal, field, _, _ in string.Formatter().parse(template):
        texts = filter(None, _CONTROL.split(literal))
        pieces.append((tuple(_NAMED.get(text) or Text(text) for text in texts), field))
    return tuple(pieces)
