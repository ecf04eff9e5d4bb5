"""One answer, token by token: a row of a batch of spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.spans import Allowed, SpanBatch, SpanRun
from incatalog.constraint.weights import ItemWeights
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie.trie import ItemTrie


class AllowedTokens(NamedTuple):
    """The tokens that may follow in each of some open spans."""

    sizes: Int64[np.ndarray, " rows"]  # how many may follow in each
    tokens: Int32[np.ndarray, " allowed"]  # span after span, each ascending
    # What item weights add to the logarithm of each one's probability, times its factor; see
    # `Guidance`. None where no span with a choice has weights.
    bias: Float64[np.ndarray, " allowed"] | None


class _Row:
    """A row of a batch, which several answers share as long as they stand at the same place."""

    __slots__ = ("slot", "spans")

    def __init__(self, spans: SpanBatch, slot: int) -> None:
        self.spans, self.slot = spans, slot

    def __del__(self) -> None:
        self.spans.leave(self.slot)


class SpanConstraint:
    """What one answer may say next: a place between item spans, or inside of one.

    It is a row of a :class:`SpanBatch`, which goes from decision to decision; what a decision
    forces is handed out one token after the other. A span that was opened can be closed.
    """

    __slots__ = ("_at", "_depth", "_item", "_row", "_run", "_shared", "emitted")

    def __init__(
        self,
        trie: ItemTrie,
        eoi_token_id: int,
        *,
        excluded: ExcludedItems | None = None,
        unique: bool = True,
        weights: ItemWeights | None = None,
        among: SpanConstraint | None = None,
    ) -> None:
        """Takes the items and what must not be named; `among` are answers to share a batch with."""
        if trie.contains_token(eoi_token_id):
            raise TrieError(
                f"eoi_token_id {eoi_token_id}: occurs inside an item's tokens, so that the end of "
                "a span could not be told; build the trie from rows without control tokens"
            )
        spans = SpanBatch(trie, eoi_token_id) if among is None else among._row.spans
        if spans.trie is not trie or spans.eoi_token_id != eoi_token_id:
            raise TrieError("among: holds answers with other items; expected the same trie")
        self._row: _Row = _Row(spans, spans.join(excluded, unique=unique, weights=weights))
        self._shared = False
        self.emitted: tuple[int, ...] = ()  # item rows named so far, in order
        self._depth = -1  # tokens of the open span; -1 outside of spans
        # What the last decision forces, how much of it was accepted, and the item it ends, if any.
        self._run: list[int] = []
        self._at, self._item = 0, -1

    @property
    def inside(self) -> bool:
        """Whether a span is open."""
        return self._depth >= 0

    @property
    def batch(self) -> SpanBatch:
        """The batch it is a row of."""
        return self._row.spans

    def can_begin(self) -> bool:
        """Whether a span may be opened now: none is open and an item is left."""
        return self._depth < 0 and self._row.spans.left(self._row.slot) > 0

    def free_rows(self) -> Bool[np.ndarray, " items"]:
        """Which item rows may still be named."""
        return self._row.spans.free_rows(self._row.slot)

    def begin(self, row: int | None = None) -> None:
        """Opens a span; if it is to name a given item, all tokens of its title are forced."""
        if self.inside:
            raise TrieError("a span is open already; close it before the next one")
        spans = self._row.spans
        if not self.can_begin():
            total = np.count_nonzero(spans.trie.live_rows)
            raise NoItemLeftError(
                f"no item left to recommend: all {total} are excluded or have been named "
                f"({len(self.emitted)} named); exclude fewer items or ask for fewer"
            )
        if row is None:
            begin_all([self])
        else:
            [slot] = _own_slots([self]).tolist()
            self._follow(spans.write(slot, row))
            self._depth = 0

    def allowed(self) -> Int32[np.ndarray, " allowed"]:
        """The tokens that may follow inside the open span, ascending; never none.

        The closing token is among them where the span may close.
        """
        self._check_open()
        return allowed_in([self]).tokens

    def forced(self) -> list[int]:
        """The tokens that follow without another choice, up to the next decision or the close.

        Includes the closing token. Empty outside a span and where a decision is next.
        """
        return self._run[self._at :]

    def accept(self, token: int) -> int | None:
        """Moves one token further inside the open span; a refused one changes nothing.

        Returns the item row the span names if ``token`` closes it: of several items with the same
        tokens, the first that is allowed.
        """
        self._check_open()
        [refusal] = accept_all([self], [token])
        if refusal:
            raise TrieError(refusal)
        return None if self.inside else self.emitted[-1]

    def fork(self) -> SpanConstraint:
        """An independent copy in the same state."""
        copy = object.__new__(SpanConstraint)
        copy._row = self._row
        copy._shared = self._shared = True
        copy._depth = self._depth
        copy.emitted = self.emitted
        copy._run = self._run
        copy._at = self._at
        copy._item = self._item
        return copy

    def _check_open(self) -> None:
        if not self.inside:
            raise TrieError("no span is open; call begin first")

    def _follow(self, run: SpanRun) -> None:
        """Takes what is forced from here."""
        self._run, self._item = run
        self._at = 0

    def _move(self) -> None:
        """Goes over the next forced token; one that closes the span ends it."""
        self._at += 1
        self._depth += 1
        if self._item >= 0 and self._at == len(self._run):
            self.emitted = (*self.emitted, self._item)
            self._run, self._at, self._item, self._depth = [], 0, -1, -1

    def _refusal(self, token: int) -> str:
        """Why a token may not follow."""
        spans = self._row.spans
        tokens, _, _ = spans.trie.leaf(spans.position(self._row.slot))
        cursor = spans.trie.root()
        for written in tokens[: self._depth]:
            cursor = spans.trie.step(cursor, written)
        lo, hi = spans.trie.children(cursor).closes
        if token == spans.eoi_token_id and lo == hi:
            return f"token {token} at depth {self._depth}: no item ends here"
        if token != spans.eoi_token_id:
            try:
                spans.trie.step(cursor, token)
            except TrieError as error:
                return str(error)
        return f"token {token} at depth {self._depth}: leads only to excluded items"


def _own_slots(constraints: Sequence[SpanConstraint]) -> Int64[np.ndarray, " rows"]:
    """Rows of one batch that are about to change, each no longer shared."""
    spans = constraints[0]._row.spans
    shared = [one for one in constraints if one._shared]
    if shared:
        slots = spans.fork(np.array([one._row.slot for one in shared]))
        for one, slot in zip(shared, slots.tolist(), strict=True):
            one._row, one._shared = _Row(spans, slot), False
    return np.array([one._row.slot for one in constraints])


def begin_all(constraints: Sequence[SpanConstraint]) -> None:
    """Opens spans in one batch; none of them is open, and each has an item left."""
    runs = constraints[0]._row.spans.open(_own_slots(constraints))
    for one, run in zip(constraints, runs, strict=True):
        one._follow(run)
        one._depth = 0


def allowed_in(constraints: Sequence[SpanConstraint]) -> AllowedTokens:
    """The tokens that may follow in each of some open spans of one batch."""
    forced = [one._run[one._at] if one._at < len(one._run) else -1 for one in constraints]
    tokens, sizes = np.array(forced, dtype=np.int32), np.ones(len(forced), dtype=np.int64)
    deciding = np.flatnonzero(tokens < 0)
    if not len(deciding):
        return AllowedTokens(sizes, tokens, None)
    spans = constraints[0]._row.spans
    allowed = spans.allowed(np.array([constraints[n]._row.slot for n in deciding.tolist()]))
    sizes[deciding] = allowed.mask.sum(1)
    tokens = tokens.repeat(sizes)
    chosen = tokens < 0
    tokens[chosen] = np.broadcast_to(allowed.tokens, allowed.mask.shape)[allowed.mask]
    guidance = spans.guidance(allowed)
    if guidance is None:
        return AllowedTokens(sizes, tokens, None)
    biases, bias = np.zeros(allowed.mask.shape), np.zeros(len(tokens))
    biases[guidance.rows] = guidance.bias
    bias[chosen] = biases[allowed.mask]
    return AllowedTokens(sizes, tokens, bias)


def accept_all(constraints: Sequence[SpanConstraint], tokens: Sequence[int]) -> list[str]:
    """Moves open spans of one batch a token further each; why not, or an empty text where it did.

    No two of them are the same. A refused token changes nothing.
    """
    refusals = [""] * len(constraints)
    deciding = []
    for number, (one, token) in enumerate(zip(constraints, tokens, strict=True)):
        if one._at == len(one._run):
            deciding.append(number)
        elif token == one._run[one._at]:
            one._move()
        else:
            refusals[number] = one._refusal(token)
    if not deciding:
        return refusals
    spans = constraints[0]._row.spans
    allowed = spans.allowed(np.array([constraints[number]._row.slot for number in deciding]))
    chosen = np.array([tokens[number] for number in deciding])
    columns = np.minimum(allowed.tokens.searchsorted(chosen), len(allowed.tokens) - 1)
    fits = (allowed.tokens[columns] == chosen) & allowed.mask[np.arange(len(chosen)), columns]
    for place in np.flatnonzero(~fits).tolist():
        number = deciding[place]
        refusals[number] = constraints[number]._refusal(tokens[number])
    moved = [constraints[deciding[place]] for place in np.flatnonzero(fits).tolist()]
    if moved:
        slots = _own_slots(moved)
        among = Allowed(slots, allowed.tokens, allowed.mask[fits], allowed.nodes[fits])
        for one, run in zip(moved, spans.choose(among, columns[fits]), strict=True):
            one._follow(run)
            one._move()
    return refusals
