"""What an answer says: its text, its items, and how both come out of the engine's events."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedTokenizerFast

from incatalog.data.catalog import Catalog
from incatalog.decoding.events import Event, Finished, FinishReason, ItemDone, TextToken
from incatalog.dialogue.render import ItemRef, Message, Part, Text
from incatalog.recommender.items import ModelItems

_UNFINISHED_CHARACTER = "\ufffd"


@dataclass(frozen=True)
class Recommendation:
    """An item in an answer.

    Its score is the probability the model gave it at its place: among all items of the catalog,
    or, written token by token or retrieved in a list, among those that were still allowed. Where a
    guide or factors count, it is the exponential of the score by which the item was chosen.
    """

    item_id: str
    title: str  # as published
    rank: int  # from 1
    score: float
    reason: str | None = None  # why it was named, in words, where an assistant says so


@dataclass(frozen=True)
class Answer:
    """What the assistant said."""

    text: str  # with titles in place of item spans
    items: tuple[Recommendation, ...]  # in the order of the text
    message: Message  # the same as a turn, to be put before the user's next one
    finish_reason: FinishReason


class Detokenizer:
    """Text of tokens that come one after the other.

    Tokens are decoded with those before them: a character may be spread over several tokens, and
    many tokenizers write a space only between two tokens. For that the last piece of text and its
    tokens are enough, so a token costs no more in a long answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._decode: Callable[[Sequence[int]], str] = partial(
            tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        self._tokens: list[int] = []
        self._known = 0

    def add(self, tokens: Sequence[int], *, wait: bool = True) -> str:
        """Text that the next tokens add; an incomplete character may wait for the rest of it."""
        self._tokens += tokens
        before = self._decode(self._tokens[: self._known])
        text = self._decode(self._tokens)
        if len(text) <= len(before) or (wait and text.endswith(_UNFINISHED_CHARACTER)):
            return ""
        self._tokens, self._known = self._tokens[self._known :], len(self._tokens) - self._known
        return text[len(before) :]


class AnswerText:
    """Turns the events of one answer into text pieces and items."""

    def __init__(self, items: ModelItems) -> None:
        self._detokenizer, self._model_items = Detokenizer(items.tokenizer), items
        self._text: list[str] = []
        self._parts: list[Part] = []
        self._items: list[Recommendation] = []
        self._reason: FinishReason = "length"

    def feed(self, event: Event) -> Iterator[str | Recommendation]:
        """What an event of the answer adds: text, an item, or nothing yet."""
        if isinstance(event, TextToken):
            yield from self._new_text([event.token_id], wait=True)
        elif isinstance(event, ItemDone):
            yield from self._new_text([], wait=False)
            self._detokenizer.add(self._model_items.title_span(event.item_row), wait=False)
            rank = len(self._items) + 1
            item = recommendation(self._model_items.catalog, event.item_row, rank, event.logprob)
            self._items.append(item)
            self._parts.append(ItemRef(event.item_row))
            self._text.append(item.title)
            yield item
        elif isinstance(event, Finished):
            if event.reason == "no_item_left" and not self._items:
                raise self._model_items.no_item_left()
            yield from self._new_text([], wait=False)
            self._reason = event.reason

    def answer(self) -> Answer:
        """The answer as far as it has been fed."""
        message = Message("assistant", tuple(self._parts))
        return Answer("".join(self._text), tuple(self._items), message, self._reason)

    def _new_text(self, tokens: Sequence[int], *, wait: bool) -> Iterator[str]:
        piece = self._detokenizer.add(tokens, wait=wait)
        if not piece:
            return
        self._text.append(piece)
        match self._parts:
            case [*_, Text(before)]:
                self._parts[-1] = Text(before + piece)
            case _:
                self._parts.append(Text(piece))
        yield piece


def recommendations(
    catalog: Catalog, rows: Iterable[int], logprobs: Iterable[float]
) -> list[Recommendation]:
    """The recommendations for item rows that the engine named, best first."""
    found = enumerate(zip(rows, logprobs, strict=True), start=1)
    return [recommendation(catalog, row, rank, logprob) for rank, (row, logprob) in found]


def recommendation(catalog: Catalog, row: int, rank: int, logprob: float) -> Recommendation:
    """The recommendation for an item row that the engine named."""
    item = catalog.item(row)
    return Recommendation(item.item_id, item.title, rank, math.exp(logprob))
