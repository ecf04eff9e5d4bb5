"""What a whole answer may say, token by token, for engines that ask before every token.

Outside of item spans the text is free or given (a list); inside, it is held to the catalog. Nothing
here knows any engine: it takes tokens, refuses some, goes back, and says what comes without a
choice, so that it can be fed as drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from incatalog.constraint.control import ControlTokens
from incatalog.constraint.span import AllowedTokens, SpanConstraint, allowed_in
from incatalog.constraint.spans import SpanBatch
from incatalog.errors import ConfigError, NoItemLeftError, TrieError

Tokens = Int32[np.ndarray, " tokens"]
# Engines go back over drafts that were not accepted, never further.
REMEMBERED = 256


@dataclass(frozen=True)
class AnswerForm:
    """What stands around the items of an answer.

    Attributes:
        before_item: Tokens in front of the first, second, ... item of a list; None for free text.
        max_items: Items at most; None for no limit, or as many as the list has room for.
        item_only: Tokens that stand nowhere but inside of spans, such as codes.
    """

    before_item: tuple[tuple[int, ...], ...] | None = None
    max_items: int | None = None
    item_only: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        room = None if self.before_item is None else len(self.before_item)
        if self.max_items is not None and self.max_items < (0 if room is None else 1):
            raise ConfigError(f"max_items: found {self.max_items}; expected at least 1, or None")
        if room is not None and room < (self.max_items or 1):
            raise ConfigError(f"before_item: found {room}; expected one for each item")

    @property
    def limit(self) -> int | None:
        """Items at most."""
        if self.max_items is None and self.before_item is not None:
            return len(self.before_item)
        return self.max_items


@dataclass(frozen=True)
class _State:
    """Where an answer stands; the span is never changed, but replaced."""

    span: SpanConstraint
    given: tuple[int, ...] = ()  # what has to come next outside of spans
    ended: bool = False


class AnswerGrammar:
    """One answer: accepts its tokens, and says which may come next.

    An answer that has its items, or for which no other item is left, may only end. A list is that
    of the engine of this package: its items are the same, and it ends behind the last of them.

    Args:
        begin: A span constraint that nothing was written with; it stays as it is.
        control: Tokens that open and close spans, and those that end an answer.
        form: What stands around the items.

    Raises:
        NoItemLeftError: The answer needs items, and none may be named.
    """

    def __init__(self, begin: SpanConstraint, control: ControlTokens, form: AnswerForm) -> None:
        if not control.stop:
            raise ConfigError("control: found no token that ends an answer; expected at least one")
        self._control, self._form = control, form
        self._end = min(control.stop)
        self._states = [_State(begin.fork())]
        if form.limit != 0 and not begin.can_begin():
            why = "the exclusions leave none; exclude fewer"
            raise NoItemLeftError(f"no item left to recommend: {why}")
        self._states[-1] = self._settled(self._states[-1])

    @property
    def items(self) -> tuple[int, ...]:
        """Rows of the items named so far, in order."""
        return self._now.span.emitted

    @property
    def ended(self) -> bool:
        """Whether a token that ends the answer was accepted; nothing may follow."""
        return self._now.ended

    @property
    def inside(self) -> bool:
        """Whether a span is open."""
        return self._now.span.inside

    @property
    def batch(self) -> SpanBatch:
        """What answers that are asked together (`allowed_next`) have in common."""
        return self._now.span.batch

    @property
    def free(self) -> bool:
        """Whether any token but those of `banned` may come next."""
        now = self._now
        return not (now.ended or now.given or now.span.inside)

    def banned(self) -> list[int]:
        """Tokens that may not come next where the text is free."""
        closed = [] if self._may_begin(self._now) else [self._control.soi]
        return [self._control.eoi, *closed, *self._form.item_only]

    def allowed(self) -> Tokens:
        """The tokens that may come next, ascending, where the text is not free."""
        now = self._now
        if now.given:
            return np.array(now.given[:1], dtype=np.int32)
        return now.span.allowed() if now.span.inside else np.empty(0, dtype=np.int32)

    def only(self) -> int | None:
        """The token that has to come next; None where there is a choice, or the end."""
        now = self._now
        if now.given:
            return now.given[0]
        forced = now.span.forced() if now.span.inside else []
        return forced[0] if forced else None

    def forced(self, most: int) -> list[int]:
        """What comes next without a choice, over the ends of items too: so many tokens at most."""
        ahead, found = self.fork(), list[int]()
        while len(found) < most and (token := ahead.only()) is not None:
            found.append(token)
            ahead.accept(token)
        return found

    def accept(self, token: int) -> str:
        """Moves one token further; why not, or an empty text where it did."""
        now = self._now
        if now.ended:
            return f"token {token}: the answer has ended"
        if now.given:
            if token != now.given[0]:
                return f"token {token}: expected {now.given[0]}, which the form of a list gives"
            after = self._given(now, token)
        elif now.span.inside:
            span = now.span.fork()
            try:
                span.accept(token)
            except TrieError as error:
                return str(error)
            after = replace(now, span=span)
        elif token in self._control.stop:
            after = replace(now, ended=True)
        elif token in self.banned():
            return f"token {token}: stands in item spans alone, or no item is left for one"
        else:
            after = self._opened(now) if token == self._control.soi else now
        self._states.append(self._settled(after))
        del self._states[: -REMEMBERED - 1]
        return ""

    def accepts(self, tokens: Sequence[int]) -> int:
        """How many of some tokens could be accepted one after the other; nothing changes."""
        ahead = self.fork()
        for number, token in enumerate(tokens):
            if ahead.accept(token):
                return number
        return len(tokens)

    def rollback(self, tokens: int) -> None:
        """Goes back by so many accepted tokens, at most `REMEMBERED`."""
        if not 0 <= tokens < len(self._states):
            known = len(self._states) - 1
            raise TrieError(f"rollback: found {tokens} tokens; expected 0 to {known}")
        del self._states[len(self._states) - tokens :]

    def fork(self) -> AnswerGrammar:
        """An independent copy that stands at the same place, and cannot go further back."""
        copy = object.__new__(AnswerGrammar)
        copy._control, copy._form, copy._end = self._control, self._form, self._end
        copy._states = [self._now]
        return copy

    @property
    def _now(self) -> _State:
        return self._states[-1]

    def _may_begin(self, state: _State) -> bool:
        limit = self._form.limit
        more = limit is None or len(state.span.emitted) < limit
        return more and state.span.can_begin()

    def _opened(self, state: _State) -> _State:
        span = state.span.fork()
        span.begin()
        return _State(span)

    def _given(self, state: _State, token: int) -> _State:
        """Behind a token that had to come."""
        rest = state.given[1:]
        if token == self._control.soi and not rest:
            return self._opened(state)
        if token == self._end and not rest:
            return replace(state, given=(), ended=True)
        return replace(state, given=rest)

    def _settled(self, state: _State) -> _State:
        """With what has to come from here, if a list goes on or the answer has to end."""
        if state.ended or state.given or state.span.inside:
            return state
        named, limit, lines = len(state.span.emitted), self._form.limit, self._form.before_item
        full = limit is not None and named >= limit and named > 0
        if full or (limit not in (None, 0) and not state.span.can_begin()):
            return replace(state, given=(self._end,))
        if lines is not None:
            return replace(state, given=(*lines[named], self._control.soi))
        return state


def allowed_next(grammars: Sequence[AnswerGrammar]) -> AllowedTokens:
    """The tokens that may come next in some answers, none of which is free, and what weighs them.

    Their spans are of one batch.
    """
    spans = [one._now.span for one in grammars if not one._now.given]
    inside = allowed_in(spans) if spans else None
    if inside is not None and len(spans) == len(grammars):
        return inside
    sizes = np.ones(len(grammars), dtype=np.int64)
    open_ = np.array([not one._now.given for one in grammars])
    if inside is not None:
        sizes[open_] = inside.sizes
    ends = sizes.cumsum()
    tokens = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int32)
    bias = None if inside is None or inside.bias is None else np.zeros(len(tokens))
    at = np.repeat(open_, sizes)
    tokens[~at] = [one._now.given[0] for one in grammars if one._now.given]
    if inside is not None:
        tokens[at] = inside.tokens
        if bias is not None:
            bias[at] = inside.bias
    return AllowedTokens(sizes, tokens, bias)
