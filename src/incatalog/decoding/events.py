"""What the engine tells while it generates, and a finished answer as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32

FinishReason = Literal["eos", "length", "items", "no_item_left", "error"]


@dataclass(frozen=True)
class TextToken:
    """A token outside item spans.

    Attributes:
        index: Which request of the batch.
        token_id: The token.
    """

    index: int
    token_id: int


@dataclass(frozen=True)
class ItemBegun:
    """An item span was opened.

    Attributes:
        index: Which request of the batch.
    """

    index: int


@dataclass(frozen=True)
class ItemDone:
    """An item span was closed: the item is in the answer.

    Attributes:
        index: Which request of the batch.
        item_row: The item.
        token_ids: Tokens of the span without the two control tokens.
        logprob: Log-probability of the item given the text before it, under the model restricted
            to the items that were allowed, at temperature 1, in nats. Forced tokens add nothing. Of
            an item with several spellings it is that of the one written.
    """

    index: int
    item_row: int
    token_ids: tuple[int, ...]
    logprob: float


@dataclass(frozen=True)
class Finished:
    """An answer is complete.

    Attributes:
        index: Which request of the batch.
        reason: ``eos``: the model ended its turn. ``length``: the token limit was reached; an item
            span that is still open then is no item. ``items``: all items asked for are there.
            ``no_item_left``: the exclusions and the answer itself leave no further item.
            ``error``: the model failed at this answer; see :meth:`Session.completion`.
    """

    index: int
    reason: FinishReason


Event = TextToken | ItemBegun | ItemDone | Finished


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    Attributes:
        token_ids: All its tokens, spans with their control tokens; without the stop token.
        items: Rows of the recommended items in order.
        logprobs: Log-probability of each item; see :class:`ItemDone`.
        finish_reason: Why it ended; see :class:`Finished`.
    """

    token_ids: tuple[int, ...]
    items: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, eq=False)
class RankedItems:
    """Items of one slot, best first; of equal ones the lower row.

    Attributes:
        rows: Item rows.
        logprobs: Natural logarithm of each item's probability among all items of its catalog,
            excluded ones included, over all its spellings. Items with equal tokens have the same.
    """

    rows: Int32[np.ndarray, " found"]
    logprobs: Float64[np.ndarray, " found"]
