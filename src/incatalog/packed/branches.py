"""Guessed continuations, laid out as branches of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64


class Guess(NamedTuple):
    """A decision and what it forces, up to the next decision."""

    parent: int  # the guess it continues, among those of the pass; -1 for none
    tokens: tuple[int, ...]  # the token decided on and those without a choice behind it
    node: int  # the node it leads to


def branches(seen: int, new: Sequence[int], guesses: Sequence[Guess]) -> Branches:
    """The tokens of a row with guesses behind them, each seeing only what it continues.

    The last certain token is read, then the end of each guess.
    """
    certain = seen + len(new)
    total = certain + sum(len(guess.tokens) for guess in guesses)
    visible = np.zeros((total - seen, total), dtype=np.bool_)
    visible[: len(new), :certain] = np.tri(len(new), certain, seen, dtype=np.bool_)
    positions = np.arange(total)
    ends, start = [certain - 1], certain
    for guess in guesses:
        parent, end = ends[1 + guess.parent], start + len(guess.tokens)
        visible[start - seen : end - seen] = visible[parent - seen]
        visible[start - seen : end - seen, start:end] = np.tri(end - start, dtype=np.bool_)
        positions[start:end] = np.arange(end - start) + positions[parent] + 1
        ends.append(end - 1)
        start = end
    tokens = [*new, *(token for guess in guesses for token in guess.tokens)]
    return Branches(tokens, positions, visible, [end - seen for end in ends])


@dataclass(frozen=True, eq=False)
class Branches:
    """New tokens that continue one row in several ways at once; its cache then holds a tree."""

    token_ids: Sequence[int]  # the new tokens, one branch after the other
    positions: Int64[np.ndarray, " seen+new"]  # place in the text, those of the cache first
    visible: Bool[np.ndarray, "new seen+new"]  # what each new token follows, itself included
    read: Sequence[int]  # which of the new tokens are the ends whose scores are wanted
