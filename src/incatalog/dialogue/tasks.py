"""Histories, lists and general conversations as messages."""

from __future__ import annotations

import functools
import itertools
import re
import string
from collections.abc import Callable, Sequence

from incatalog.config import HistoryForm, ListForm
from incatalog.data.conversations import Conversation
from incatalog.dialogue.render import ControlToken, ItemRef, Message, Part, Renderer, Text
from incatalog.dialogue.templates import AlignmentWording, Wording
from incatalog.errors import ConfigError, DataError

_CONTROL = re.compile("(<SOI>|<EOI>)")
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
) -> tuple[Message, ...]:
    """A request for recommendations, with its answer for training.

    Args:
        wording: How the request is put.
        history_rows: Item rows of the history, oldest first.
        k: Number of items asked for.
        answer_rows: Item rows of the answer, best first; None leaves it to the model.
        titles: Title of each item row, for what is written as text.
        history_form: Write items of the history and candidates as quoted titles (``title``) or as
            item spans (``span``).
        list_form: Number the lines of the answer or not.
        candidates: Item rows on offer, where the wording lists candidates.

    Raises:
        ConfigError: The wording lists candidates and none are given, or the other way round.
    """
    if wording.offers_candidates != (candidates is not None):
        raise ConfigError(
            f"wording {wording.name!r} "
            + ("needs" if wording.offers_candidates else "takes no")
            + " candidates; choose it with wordings(candidates=...)"
        )
    parts: list[Part] = []
    for literal, field in _instruction(wording.instruction):
        parts += literal
        if field == "history":
            parts += _items(history_rows, titles, history_form, _HISTORY_SEPARATOR)
        elif field == "candidates":
            parts += _items(candidates or (), titles, history_form, _CANDIDATE_SEPARATOR)
        elif field == "item_count":
            parts.append(Text(str(k)))
    messages: list[Message] = []
    if wording.opening is not None:
        asked, answered = wording.opening
        messages += (Message("user", (Text(asked),)), Message("assistant", (Text(answered),)))
    messages.append(Message("user", tuple(parts)))
    if answer_rows is not None:
        messages.append(Message("assistant", list_parts(answer_rows, list_form)))
    return tuple(messages)


def alignment_messages(
    wording: AlignmentWording, row: int, text: str, title: str
) -> tuple[Message, ...]:
    """A question about what an item is, with its answer.

    Args:
        wording: How it is asked and answered.
        row: The item row.
        text: Title and description of the item.
        title: Its title.
    """
    values: dict[str | None, Part] = {
        "text": Text(text),
        "title": Text(title),
        "item": ItemRef(row),
    }

    def parts(template: str) -> tuple[Part, ...]:
        filled: list[Part] = []
        for literal, field in _instruction(template):
            filled += literal
            if field is not None:
                filled.append(values[field])
        return tuple(filled)

    return Message("user", parts(wording.instruction)), Message("assistant", parts(wording.answer))


def list_parts(rows: Sequence[int], list_form: ListForm) -> tuple[Part, ...]:
    """An answer with one item a line, ``1. `` in front where lines are numbered."""
    parts: list[Part] = []
    for position, row in enumerate(rows):
        before = "\n" if position else ""
        if list_form == "numbered":
            before += f"{position + 1}. "
        if before:
            parts.append(Text(before))
        parts.append(ItemRef(row))
    return tuple(parts)


def fit_history(
    renderer: Renderer,
    build: Callable[[Sequence[int]], tuple[Message, ...]],
    history: Sequence[int],
    max_tokens: int,
) -> tuple[tuple[Message, ...], int]:
    """Cuts the oldest items of a history until the conversation fits.

    Args:
        renderer: Renderer of the model's tokenizer and catalog.
        build: Makes the messages from the item rows of a history.
        history: Item rows, oldest first.
        max_tokens: Tokens at most, of the whole conversation where it ends with an answer, of the
            prompt where it ends with a request.

    Returns:
        The messages, and how many items were cut; the caller reports them.

    Raises:
        ConfigError: It does not fit with the newest item alone.
    """

    def attempt(cut: int) -> tuple[tuple[Message, ...], int]:
        messages = build(history[cut:])
        return messages, num_tokens(renderer, messages)

    messages, length = attempt(0)
    if length <= max_tokens:
        return messages, 0
    low, high = 0, max(len(history) - 1, 0)
    shortest, length = attempt(high)
    if length > max_tokens:
        raise ConfigError(
            f"--max-length {max_tokens}: the conversation takes {length} tokens with "
            f"{len(history) - high} item of the history; raise it, or shorten the list"
        )
    fitting = {high: shortest}
    # At `low` the conversation is too long, at `high` it fits.
    while high - low > 1:
        middle = (low + high) // 2
        messages, length = attempt(middle)
        if length <= max_tokens:
            high = middle
            fitting[high] = messages
        else:
            low = middle
    return fitting[high], high


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
    """Drops the newest exchanges of a conversation until it fits.

    Args:
        renderer: Renderer of the model's tokenizer and catalog.
        messages: Turns of which the last is the assistant's.
        max_tokens: Tokens at most.

    Returns:
        The messages that remain, the last of them the assistant's, and how many were dropped;
        no message remains if not even the first exchange fits.
    """
    for end in range(len(messages), 0, -1):
        if messages[end - 1].role != "assistant":
            continue
        if num_tokens(renderer, messages[:end]) <= max_tokens:
            return tuple(messages[:end]), len(messages) - end
    return (), len(messages)


def first_exchange(conversation: Conversation) -> tuple[Message, ...]:
    """The first user message of a conversation with the answer to it, without system message.

    Raises:
        DataError: The conversation has no such pair.
    """
    for asked, answered in itertools.pairwise(conversation):
        if asked.role == "user" and answered.role == "assistant":
            return general_messages((asked, answered))
    raise DataError(
        "a general conversation has no user message with an answer after it; "
        "leave it out of the chat file"
    )


def with_exchange(
    messages: Sequence[Message], exchange: Sequence[Message], *, before: bool
) -> tuple[Message, ...]:
    """A recommendation with an exchange about something else before or after it.

    Args:
        messages: Turns of the recommendation, the answer included if the exchange comes after.
        exchange: A user message and its answer.
        before: Whether the exchange comes first; a system message stays in front of it.

    Raises:
        DataError: The exchange would follow a request that has no answer.
    """
    if not before:
        if messages and messages[-1].role != "assistant":
            raise DataError("the recommendation has no answer for an exchange to follow")
        return (*messages, *exchange)
    system = 1 if messages and messages[0].role == "system" else 0
    return (*messages[:system], *exchange, *messages[system:])


def _items(
    rows: Sequence[int], titles: Sequence[str], form: HistoryForm, separator: str
) -> list[Part]:
    if form == "title":
        return [Text(separator.join(f"'{titles[row]}'" for row in rows))]
    parts: list[Part] = []
    for position, row in enumerate(rows):
        if position:
            parts.append(Text(separator))
        parts.append(ItemRef(int(row)))
    return parts


@functools.lru_cache(maxsize=64)
def _instruction(instruction: str) -> tuple[tuple[tuple[Part, ...], str | None], ...]:
    """Splits an instruction into what is literal and the field after it."""
    return tuple(
        (_literal(literal), field) for literal, field, _, _ in string.Formatter().parse(instruction)
    )


def _literal(text: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    for piece in _CONTROL.split(text):
        if piece == "<SOI>":
            parts.append(ControlToken("<SOI>"))
        elif piece == "<EOI>":
            parts.append(ControlToken("<EOI>"))
        elif piece:
            parts.append(Text(piece))
    return tuple(parts)
