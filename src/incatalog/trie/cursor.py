"""A place in the trie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32


class Cursor(NamedTuple):
    """A place in the trie: a prefix that at least one item has.

    Attributes:
        lo: First sorted position below.
        hi: End of the sorted positions below.
        depth: Number of tokens of the prefix.
        node: The next node at or below this place, ``-1`` if there is no choice left.
        chain: First entry in the trie's ``tail`` of the tokens without a choice that lead there.
        chain_end: End of these entries; behind them is the node or the close of the span.
    """

    lo: int
    hi: int
    depth: int
    node: int
    chain: int
    chain_end: int


class Children(NamedTuple):
    """What may follow a prefix.

    Attributes:
        tokens: Next tokens, ascending.
        lo: First sorted position below each.
        hi: End of the sorted positions below each.
        closes: Range of the sorted positions of the items that end here; empty if none does.
    """

    tokens: Int32[np.ndarray, " children"]
    lo: Int32[np.ndarray, " children"]
    hi: Int32[np.ndarray, " children"]
    closes: tuple[int, int]
