"""An answer that another engine writes: followed token by token, and held to its items once more.

The other engine decides, and keeps to the catalog by itself. Here its tokens become the events that
the engine of this package raises, by the same state; a token that no item allows is an error and
never an answer.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NoReturn

import numpy as np

from incatalog.constraint.control import ControlTokens
from incatalog.constraint.spans import SpanBatch
from incatalog.decoding.events import Event
from incatalog.decoding.growing import GrowingAnswer
from incatalog.decoding.request import Request
from incatalog.decoding.whole_items import begin_items
from incatalog.errors import NOT_NUMBERS, BackboneError, ConfigError
from incatalog.trie.trie import ItemTrie


class FollowedAnswer:
    """One answer, whose decisions are another engine's.

    What a decision forces is told at once, before the other engine has written it.

    Args:
        request: What is asked for; its items are written token by token. Where it asks for whole
            items, its weights alone have to decide which: they are found here.
        trie: The items.
        control: Tokens that open and close spans, and those that end an answer.
        item_only: Tokens that stand nowhere but inside of spans.

    Raises:
        ConfigError: The model would have to search for whole items, or the answer is free of them.
    """

    def __init__(
        self,
        request: Request,
        trie: ItemTrie,
        control: ControlTokens,
        item_only: frozenset[int] = frozenset(),
    ) -> None:
        check_followed(request)
        self._spans = SpanBatch(trie, control.eoi)
        self._answer = GrowingAnswer(0, request, self._spans, control)
        self._stop, self._item_only = control.stop, item_only
        self._prompt = len(request.prompt_ids)
        self._awaited: deque[int] = deque()  # forced, but not written by the other engine yet

    @property
    def finished(self) -> bool:
        """Whether the answer is complete, so that the other engine need not write on."""
        return self._answer.finish_reason is not None

    @property
    def given(self) -> list[int]:
        """What the answer has so far, forced tokens included."""
        return self._answer.text[self._prompt :]

    @property
    def room(self) -> int:
        """Tokens that may still be added."""
        return self._answer.request.max_new_tokens - len(self.given)

    def begin(self) -> list[Event]:
        """What comes before the first decision; the other engine gets it as part of the prompt."""
        events = self._go_on(self._answer.start())
        self._answer.unfed()
        return events

    def jumps(self) -> bool:
        """Whether an item was put in that the other engine cannot know: it has to begin anew.

        What it is given then is the prompt and all that is `given`.
        """
        jumped = self._answer.searches and bool(self._awaited)
        if jumped:
            self._awaited.clear()
        return jumped

    def feed(self, token: int, logprob: float) -> list[Event]:
        """What happens when the other engine writes a token.

        Args:
            token: The token.
            logprob: The logarithm of its probability among those that were allowed.

        Raises:
            BackboneError: It may not stand here, so the other engine does not keep to the catalog;
                or its scores are not numbers.
        """
        if self._awaited:
            expected = self._awaited.popleft()
            if token != expected:
                self._refuse(token, f"expected {expected}, which has to come next")
            return []
        if math.isnan(logprob):
            raise BackboneError(NOT_NUMBERS)
        answer = self._answer
        if answer.wants == "text":
            if token in answer.banned() or (answer.request.grounded and token in self._item_only):
                self._refuse(token, "it may stand in item spans alone, or no item is left for one")
            events = self._go_on(answer.take_text(token))
        else:
            events = self._go_on(self._decided(token, logprob))
        self._awaited.extend(answer.unfed()[1:])
        return events

    def _decided(self, token: int, logprob: float) -> list[Event]:
        """Takes a decision in a span."""
        allowed = self._spans.allowed(np.array([self._answer.slot]))
        column = int(allowed.tokens.searchsorted(token))
        if column == len(allowed.tokens) or allowed.tokens[column] != token:
            self._refuse(token, "it leads to no item that may be named")
        [run] = self._spans.choose(allowed, np.array([column]))
        return self._answer.take(run, logprob)

    def _go_on(self, events: list[Event]) -> list[Event]:
        """Opens spans, and finds the items that weights alone decide on."""
        return events + begin_items([self._answer])

    def _refuse(self, token: int, why: str) -> NoReturn:
        written = len(self.given) - len(self._awaited)
        raise BackboneError(
            f"the engine wrote token {token} at place {written} of an answer: {why}; it does not "
            "hold its answers to the catalog; see that the plugin of incatalog is loaded there"
        )


def check_followed(request: Request) -> None:
    """Refuses what an engine cannot answer that writes token by token.

    Raises:
        ConfigError: The model would have to search for whole items, or nothing holds the answer.
    """
    if not request.grounded:
        raise ConfigError("grounded: found false; another engine answers within the catalog alone")
    names_items = request.item_limit != 0
    weighed = request.weights is not None and request.weights.model == 0
    if names_items and request.item_decode == "search" and not weighed:
        raise ConfigError(
            "item_decode: found search (decode: beam or list), and this engine writes items token "
            "by token: it searches for the best of all only where a guide decides alone "
            "(guide_weight 1); ask with item_decode token (decode greedy), or serve with "
            "--engine incatalog"
        )
