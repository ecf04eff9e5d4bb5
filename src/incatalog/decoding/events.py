"""What the engine tells while it generates, and a finished answer as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32

FinishReason = Literal["eos", "length", "items", "no_item_left", "error"]
"""Why an answer ended: the model ended its turn; the token limit was reached (an item span that is
still open then is no item); all items asked for are there; the exclusions and the answer itself
leave no further item; the model failed at this answer."""


@dataclass(frozen=True)
class TextToken:
    """A token outside item spans."""

    index: int  # which request of the batch
    token_id: int


@dataclass(frozen=True)
class ItemBegun:
    """An item span was opened."""

    index: int  # which request of the batch


@dataclass(frozen=True)
class ItemDone:
    """An item span was closed: the item is in the answer.

    ``logprob`` is that of the item given the text before it, at temperature 1, in nats. Written
    token by token or retrieved, it is the one under the model restricted to the items that were
    allowed, and forced tokens add nothing; of an item with several spellings it is that of the one
    written. Searched for as a whole, it is as in :class:`RankedItems`.
    """

    index: int  # which request of the batch
    item_row: int
    token_ids: tuple[int, ...]  # those of the span without the two control tokens
    logprob: float


@dataclass(frozen=True)
class Finished:
    """An answer is complete."""

    index: int  # which request of the batch
    reason: FinishReason


Event = TextToken | ItemBegun | ItemDone | Finished


@dataclass(frozen=True)
class Completion:
    """A finished answer."""

    # All its tokens, spans with their control tokens; without the stop token.
    token_ids: tuple[int, ...]
    items: tuple[int, ...]  # rows of the recommended items in order
    logprobs: tuple[float, ...]  # of each item, see ItemDone
    finish_reason: FinishReason


@dataclass(frozen=True, eq=False)
class RankedItems:
    """Items of one slot, best first; of equal ones the lower row.

    ``logprobs`` are the natural logarithms of each item's probability among all items of the
    catalog, excluded ones included, over all its spellings; of a place with weights the scores they
    make of these. Items with equal tokens have the same.
    """

    rows: Int32[np.ndarray, " found"]
    logprobs: Float64[np.ndarray, " found"]
