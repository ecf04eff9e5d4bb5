"""One answer while it grows: what may come next, what has to come, and where it ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from reclm.decoding.constraint import SpanConstraint
from reclm.decoding.events import (
    Completion,
    Event,
    Finished,
    FinishReason,
    ItemBegun,
    ItemDone,
    TextToken,
)
from reclm.decoding.packed import RowCache
from reclm.decoding.request import Request
from reclm.errors import TokenizerError
from reclm.items.trie import ItemTrie


@dataclass(frozen=True)
class ControlTokens:
    """The token ids with a meaning of their own.

    Attributes:
        soi: Opens an item span.
        eoi: Closes an item span.
        stop: Each of these ends the answer.
    """

    soi: int
    eoi: int
    stop: frozenset[int]


class Answer:
    """State of one answer: advanced by the model's decisions, it adds what they force.

    Args:
        index: Which request of the batch.
        request: What was asked for.
        trie: The items.
        control: The control tokens.
        retrieves: Items are handed in whole (`take_item`) instead of decided on token by token.

    Attributes:
        index: Which request of the batch.
        request: What was asked for.
        cache: Keys and values of the tokens fed so far.
        random: Source of the answer's samples.
        finish_reason: Why the answer ended; None while it goes on.
    """

    def __init__(
        self,
        index: int,
        request: Request,
        trie: ItemTrie,
        control: ControlTokens,
        *,
        retrieves: bool = False,
    ) -> None:
        self.index = index
        self.request = request
        self.cache = RowCache()
        self.random = np.random.default_rng(request.seed)
        self.finish_reason: FinishReason | None = None
        self._control = control
        self._constraint = SpanConstraint(
            trie,
            control.eoi,
            excluded=request.excluded,
            unique=request.unique,
            domain=request.domain,
        )
        self._token_ids: list[int] = []
        self._unfed: list[int] = [int(token) for token in request.prompt_ids]
        self._items: list[int] = []
        self._logprobs: list[float] = []
        self._span: list[int] = []
        self._span_logprob = 0.0
        self._closed_spans = 0
        self._retrieves = retrieves and request.grounded
        self._awaits_item = False
        self._wanted: int | None = None

    @property
    def awaits_item(self) -> bool:
        """Whether a span opens next and the item in it is to be retrieved; see `take_item`."""
        return self._awaits_item

    @property
    def inside(self) -> bool:
        """Whether an item span is open."""
        return self._constraint.inside

    def allowed(self) -> Int32[np.ndarray, " allowed"]:
        """Tokens that may come next inside a span, ascending."""
        return self._constraint.allowed()

    def banned(self) -> list[int]:
        """Tokens that must not come next outside a span."""
        if not self.request.grounded:
            return []
        if self._may_begin():
            return [self._control.eoi]
        return [self._control.soi, self._control.eoi]

    def unfed(self) -> list[int]:
        """Tokens that the model has not seen yet; they count as seen from now on."""
        tokens, self._unfed = self._unfed, []
        return tokens

    def completion(self) -> Completion:
        """The finished answer."""
        assert self.finish_reason is not None
        return Completion(
            tuple(self._token_ids), tuple(self._items), tuple(self._logprobs), self.finish_reason
        )

    def start(self) -> list[Event]:
        """Begins the answer: what comes before the first decision, or the end if there is none."""
        if self.request.grounded and not self._constraint.can_begin():
            return [self._finish("no_item_left")]
        return self._force()

    def take(self, token: int, logprob: float) -> list[Event]:
        """Advances by a decision of the model and by all that follows from it.

        Args:
            token: The token decided on, one that was allowed.
            logprob: Its log-probability among the allowed ones; of no meaning outside spans.
        """
        if self.inside:
            self._span_logprob += logprob
        elif token in self._control.stop:
            return [self._finish("eos")]
        elif self._retrieves and token == self._control.soi:
            # The state that opens the span is also the one that finds the item.
            self._awaits_item = True
            return []
        events = self._append(token)
        return events + self._force()

    def free_rows(self) -> Bool[np.ndarray, " items"]:
        """Which item rows may still be named."""
        return self._constraint.free_rows()

    def take_item(self, row: int, logprob: float) -> list[Event]:
        """Opens a span, writes an item into it, and goes on to the next decision.

        Args:
            row: Item row, one of :meth:`free_rows`.
            logprob: Its log-probability among them.
        """
        self._awaits_item = False
        self._wanted = row
        self._span_logprob = logprob
        events = self._append(self._control.soi)
        return events + self._force()

    def _may_begin(self) -> bool:
        limit = self.request.item_limit
        return (limit is None or len(self._items) < limit) and self._constraint.can_begin()

    def _force(self) -> list[Event]:
        """Appends tokens until the model has to decide or the answer ends."""
        events: list[Event] = []
        while self.finish_reason is None and not self._awaits_item:
            if self.inside:
                run = self._constraint.forced()
                if not run:
                    break
            elif self.request.scaffold is None:
                break
            else:
                number = len(self._items)
                run = [*self.request.scaffold.before_item[number]]
                self._awaits_item = self._retrieves
                if not self._retrieves:
                    run.append(self._control.soi)
            for token in run:
                events += self._append(token)
        return events

    def _append(self, token: int) -> list[Event]:
        """Adds a token to the answer, unless that has ended."""
        if self.finish_reason is not None:
            return []
        self._token_ids.append(token)
        self._unfed.append(token)
        if self.inside:
            events = self._append_inside(token)
        elif self.request.grounded and token == self._control.soi:
            self._constraint.begin(self._wanted)
            events = [ItemBegun(self.index)]
        else:
            events = [TextToken(self.index, token)]
            if not self.request.grounded and token == self._control.eoi:
                self._closed_spans += 1
                events += self._end_of_item(self._closed_spans)
        if self.finish_reason is None and len(self._token_ids) >= self.request.max_new_tokens:
            events.append(self._finish("length"))
        return events

    def _append_inside(self, token: int) -> list[Event]:
        row = self._constraint.accept(token)
        if row is None:
            self._span.append(token)
            return []
        done = ItemDone(self.index, row, tuple(self._span), self._span_logprob)
        self._items.append(row)
        self._logprobs.append(self._span_logprob)
        self._span, self._span_logprob = [], 0.0
        return [done, *self._end_of_item(len(self._items))]

    def _end_of_item(self, count: int) -> list[Event]:
        """Ends the answer if it has its items, or if the next one asked for does not exist."""
        request = self.request
        reason: FinishReason
        if request.item_limit is None:
            return []
        if count >= request.item_limit:
            if not request.stop_at_max_items and request.scaffold is None:
                return []
            reason = "items"
        elif request.grounded and not self._constraint.can_begin():
            reason = "no_item_left"
        else:
            return []
        events: list[Event] = []
        for token in request.scaffold.end if request.scaffold is not None else ():
            if len(self._token_ids) < request.max_new_tokens:
                self._token_ids.append(token)
                events.append(TextToken(self.index, token))
        return [*events, self._finish(reason)]

    def _finish(self, reason: FinishReason) -> Finished:
        self.finish_reason = reason
        self.cache = RowCache()
        return Finished(self.index, reason)


def check_control_tokens(
    trie: ItemTrie, soi: int, eoi: int, stop: Collection[int]
) -> ControlTokens:
    """The control tokens, if no item contains one of them.

    Raises:
        TokenizerError: Two roles share a token, or an item's tokens contain one of them.
    """
    control = ControlTokens(soi, eoi, frozenset(stop))
    if soi == eoi or {soi, eoi} & control.stop:
        raise TokenizerError(
            f"control tokens: found <SOI> {soi}, <EOI> {eoi} and stop tokens {sorted(stop)}; "
            "expected them to be different"
        )
    for name, token in (("<SOI>", soi), ("<EOI>", eoi), *(("stop token", t) for t in stop)):
        if trie.contains_token(token):
            raise TokenizerError(
                f"{name} {token}: found it in the tokens of an item; "
                "expected items to be tokenised as plain text"
            )
    return control
