"""One answer while it grows: what may come next, what has to come, and where it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from incatalog.constraint.control import ControlTokens
from incatalog.constraint.spans import SpanBatch, SpanRun
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import (
    Completion,
    Event,
    Finished,
    FinishReason,
    ItemBegun,
    ItemDone,
    TextToken,
)
from incatalog.decoding.first_place import FirstPlace
from incatalog.decoding.lookahead import Lookahead
from incatalog.decoding.request import Request, Slot
from incatalog.decoding.sampling import Sampling
from incatalog.decoding.search import BeamSearch
from incatalog.decoding.spelled_search import beam_search
from incatalog.errors import IncatalogError
from incatalog.packed.branches import Branches
from incatalog.packed.cache import RowCache

Wanted = Literal["text", "token", "span", "item"]
"""What an answer waits for: a decision outside of spans; one in a span; a span to be opened; an
item to be found as a whole, by retrieval or by search."""


class GrowingAnswer:
    """State of one answer: advanced by decisions and by the runs of tokens they force.

    Where it ``retrieves`` or the request asks for a search, items are handed in whole
    (`take_item`), not decided on by token.
    """

    def __init__(
        self,
        index: int,
        request: Request,
        spans: SpanBatch,
        control: ControlTokens,
        *,
        retrieves: bool = False,
    ) -> None:
        self.index = index
        self.request = request
        self.cache = RowCache()
        self.lookahead = Lookahead(spans.trie)
        random = np.random.default_rng(request.seed)
        self.sampling = Sampling(request.temperature, request.top_p, random)
        self.spans = spans
        self.searches = not retrieves and request.item_decode == "search"
        self.first = FirstPlace(request, spans.trie)
        self.slot = -1
        if request.grounded:
            # Items that are found as a whole are weighed there, and no token is.
            own = None if retrieves or self.searches else request.weights
            self.slot = spans.join(request.barred, weights=own)
        self.wants: Wanted = "text"
        self.finish_reason: FinishReason | None = None
        self.error: IncatalogError | None = None  # why the model failed at it
        self._control = control
        self._prompt = [int(token) for token in request.prompt_ids]
        self._token_ids: list[int] = []
        self._fed = 0
        self._items: list[int] = []
        self._logprobs: list[float] = []
        self._span: list[int] = []
        self._span_logprob = 0.0
        self._closed_spans = 0
        self.search: BeamSearch | None = None  # of the item to be named next
        self._weighed = False  # Whether weights have a say in it
        self._ahead: list[int] = []  # what opens the span that is searched, until it is fed
        self._next_item: Wanted = "item" if retrieves or self.searches else "span"

    def banned(self) -> list[int]:
        """Tokens that must not come next outside a span."""
        if not self.request.grounded:
            return []
        if self._may_begin():
            return [self._control.eoi]
        return [self._control.soi, self._control.eoi]

    def unfed(self) -> list[int]:
        """Tokens that the model has not seen yet; they count as seen from now on."""
        tokens = self.text[self._fed :] if self._fed < len(self._prompt) else []
        tokens = tokens or self._token_ids[self._fed - len(self._prompt) :]
        tokens, self._ahead = tokens + self._ahead, []
        self._fed += len(tokens)
        return tokens

    def begin_search(self) -> bool:
        """Begins to search for the next item; returns whether the search has to be fed."""
        request, text = self.request, self.text
        barred, weights = self.spans.barred(self.slot), self.first.weights
        if request.temperature > 0:
            weights = weights or ItemWeights.build(self.spans.trie, base=request.excluded)
            weights = weights.sampling(request.temperature, self.sampling.random)
        if weights is not None:
            weights = weights.narrowed(barred)
        slot = Slot(text, barred, weights)
        self._weighed = weights is not None and not weights.plain
        search = beam_search(
            self.spans.trie, slot, self._control.soi, self.first.wanted, self.cache
        )
        if not search.over:
            self._ahead = search.next_tokens(math.inf)[len(text) :]
        self.search = search
        return not search.over

    def branches(self) -> Branches | None:
        """What a search that goes on has to be fed; None where there is none."""
        return None if self.search is None or self._ahead else self.search.branches()

    def take_search(self) -> list[Event]:
        """Writes the item that was found, whose first tokens the model has seen already."""
        search, self.search = self.search, None
        assert search is not None
        try:
            found = search.ranked()
        except IncatalogError as error:
            return self.fail(error)
        row = int(found.rows[0])
        logprob = float(found.logprobs[0])
        if self._weighed:
            logprob = self.first.said(row, logprob)
        self.first.remember(found)
        if not search.unfed:
            self.cache.take_back(len(search.prompt))
            self.adopt(search.stored(self.spans.trie.title_position(row)))
        return self.take_item(self.spans.write(self.slot, row), logprob)

    def adopt(self, offsets: Sequence[int]) -> None:
        """Counts its next tokens as seen: they were fed as guesses, at these places."""
        self.cache.adopt(offsets)
        self._fed += len(offsets)

    @property
    def text(self) -> list[int]:
        """All tokens so far, those of the prompt first."""
        return self._prompt + self._token_ids

    def share(self, donor: RowCache, tokens: int) -> None:
        """Copies the keys and values of the first tokens from a row that begins alike.

        Nothing may have been fed yet, and at least one token has to stay unfed.
        """
        self.cache = RowCache(donor, tokens)
        self._fed = tokens

    def completion(self) -> Completion:
        """The finished answer."""
        if self.error is not None:
            raise self.error
        assert self.finish_reason is not None
        return Completion(
            tuple(self._token_ids), tuple(self._items), tuple(self._logprobs), self.finish_reason
        )

    def leave(self) -> None:
        """Leaves its batch of spans; an answer that has ended has left it."""
        if self.slot >= 0:
            self.spans.leave(self.slot)
            self.slot = -1

    def fail(self, error: IncatalogError) -> list[Event]:
        """Ends the answer, as the model cannot go on with it."""
        self.error = error
        return [self._finish("error")]

    def start(self) -> list[Event]:
        """Begins the answer: what comes before the first decision, or the end if there is none."""
        needed = self.request.grounded and self.request.item_limit != 0
        if needed and not self.spans.left(self.slot):
            return [self._finish("no_item_left")]
        return self._scaffold()

    def take_text(self, token: int) -> list[Event]:
        """Advances by a decision outside of spans."""
        if token in self._control.stop:
            return [self._finish("eos")]
        if self.request.grounded and token == self._control.soi:
            self.wants = self._next_item
            return []
        return self._append_text([token])

    def open(self, run: SpanRun) -> list[Event]:
        """Opens a span, in which a run follows without a decision."""
        self.wants = "token"
        if not self._room:
            return [self._finish("length")]
        self._token_ids.append(self._control.soi)
        return [ItemBegun(self.index), *self._append_span(run)]

    def take(self, run: SpanRun, logprob: float) -> list[Event]:
        """Advances by a decision in a span, and by the tokens it forces."""
        self._span_logprob += logprob
        return self._append_span(run)

    def take_item(self, run: SpanRun, logprob: float) -> list[Event]:
        """Writes an item that was found as a whole."""
        self._span_logprob = logprob
        return self.open(run)

    @property
    def _room(self) -> int:
        """Tokens that may still be added."""
        return self.request.max_new_tokens - len(self._token_ids)

    def _may_begin(self) -> bool:
        limit = self.request.item_limit
        more = limit is None or len(self._items) < limit
        return more and self.spans.left(self.slot) > 0

    def _scaffold(self) -> list[Event]:
        """Adds the given text in front of the next item, which begins then."""
        scaffold = self.request.scaffold
        if scaffold is None:
            return []
        events = self._append_text(scaffold.before_item[len(self._items)])
        if self.finish_reason is None:
            self.wants = self._next_item
        return events

    def _append_text(self, tokens: Sequence[int]) -> list[Event]:
        """Adds tokens outside of spans, as far as there is room."""
        events: list[Event] = []
        for token in tokens[: self._room]:
            self._token_ids.append(token)
            events.append(TextToken(self.index, token))
            if not self.request.grounded and token == self._control.eoi:
                self._closed_spans += 1
                events += self._end_of_item(self._closed_spans)
        return events + self._end_of_room()

    def _append_span(self, run: SpanRun) -> list[Event]:
        """Adds tokens to the open span, as far as there is room."""
        tokens = run.tokens[: self._room]
        self._token_ids += tokens
        self._span += tokens
        if run.item < 0 or len(tokens) < len(run.tokens):
            return self._end_of_room()
        self.wants = "text"
        done = ItemDone(self.index, run.item, tuple(self._span[:-1]), self._span_logprob)
        self._items.append(run.item)
        self._logprobs.append(self._span_logprob)
        self._span, self._span_logprob = [], 0.0
        events = [done, *self._end_of_item(len(self._items)), *self._end_of_room()]
        return events if self.finish_reason is not None else events + self._scaffold()

    def _end_of_room(self) -> list[Event]:
        """Ends the answer if it may not grow any longer."""
        return [] if self.finish_reason is not None or self._room else [self._finish("length")]

    def _end_of_item(self, count: int) -> list[Event]:
        """Ends the answer if it has its items, or if the next one asked for does not exist."""
        request = self.request
        if request.item_limit is None:
            return []
        if count >= request.item_limit:
            return [self._finish("items")]
        if request.grounded and not self.spans.left(self.slot):
            return [self._finish("no_item_left")]
        return []

    def _finish(self, reason: FinishReason) -> Finished:
        self.finish_reason = reason
        self.leave()
        return Finished(self.index, reason)


Answers = Sequence[GrowingAnswer]
