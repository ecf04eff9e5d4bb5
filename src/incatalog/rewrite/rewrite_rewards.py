"""Rewards of rewritten titles: pure functions of texts and of what scorers say about them.

The definitions are those published with RecLM (arXiv 2505.03336 and its code). A rewrite of a
single item is judged by the first four, the rewrites of a user's history by the last one; where a
reward does not apply it is None, which trainers leave out of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float

from incatalog.errors import ConfigError

RewriteReward = Literal["average_ppl", "length", "discriminative", "item2item", "user2item"]
REWRITE_REWARDS: tuple[str, ...] = get_args(RewriteReward)

LETTERS = "ABCD"
_PPL_SCALE = 0.02
_RANK_SCALE = 2000

Rewards = list[float | None]


@dataclass(frozen=True)
class SingleRow:
    """One item whose title is rewritten."""

    title: str
    description: str
    category: str  # Empty for none.
    distractors: tuple[str, ...]  # Titles of the three items that are most like it.
    neighbours: tuple[int, ...]  # Rows of its ten nearest neighbours, nearest first.
    prompt: str  # The recommendation prompt it would be the answer to.
    domain: str  # Name of its catalog.


@dataclass(frozen=True)
class GroupRow:
    """A history whose titles, oldest first, are rewritten, and the row that came next."""

    titles: tuple[str, ...]
    target: int
    domain: str


Row = SingleRow | GroupRow


class Perplexity(Protocol):
    """Says how unexpected a text is behind another."""

    def perplexities(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Perplexity of each text behind its prompt, per token."""


class TokenCounter(Protocol):
    """Counts the tokens of texts."""

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""


class Judge(Protocol):
    """Chooses among options."""

    def choices(self, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[int]:
        """Which option of each question is chosen; -1 where the judge names none of them."""


class Retriever(Protocol):
    """Compares texts with the items of a catalog."""

    def similarities(self, texts: Sequence[str]) -> Float[np.ndarray, "texts items"]:
        """How alike each text and each item are; larger is more alike."""


def _for(kind: type) -> Callable[[Callable[..., list[float]]], Callable[..., Rewards]]:
    """Makes a reward for rows of one kind give None for all other rows."""

    def widened(reward: Callable[..., list[float]]) -> Callable[..., Rewards]:
        @wraps(reward)
        def rewards(rows: Sequence[Row], rewrites: Sequence[str], *scorers: Any) -> Rewards:
            count = len(rows)
            if count != len(rewrites):
                raise ConfigError(f"rewrites: {len(rewrites)} of {count} rows; expected one a row")
            triples = zip(range(count), rows, rewrites, strict=True)
            own = [triple for triple in triples if isinstance(triple[1], kind)]
            if not own:
                return [None] * count
            places, *given = map(list, zip(*own, strict=True))
            found = dict(zip(places, reward(*given, *scorers), strict=True))
            return [found.get(place) for place in range(count)]

        return rewards

    return widened


@_for(SingleRow)
def average_ppl(
    rows: Sequence[SingleRow], rewrites: Sequence[str], scorer: Perplexity
) -> list[float]:
    """``exp(-0.02 ppl)`` of a rewritten title in the prompt that it would answer.

    A rewrite without a word is no title: it gets 0, as if its perplexity were infinite.
    """
    said = [(row.prompt, text) for row, text in zip(rows, rewrites, strict=True) if text]
    ppls = iter(scorer.perplexities([prompt for prompt, _ in said], [text for _, text in said]))
    return [ppl_reward(next(ppls)) if text else 0.0 for text in rewrites]


@_for(SingleRow)
def length(rows: Sequence[SingleRow], rewrites: Sequence[str], scorer: TokenCounter) -> list[float]:
    """``1 / (1 + (tokens out / tokens in)^2)``: the shorter, the better."""
    before = scorer.token_counts([row.title for row in rows])
    return list(map(length_reward, scorer.token_counts(rewrites), before))


@_for(SingleRow)
def discriminative(
    rows: Sequence[SingleRow], rewrites: Sequence[str], scorer: Judge, seed: int = 0
) -> list[float]:
    """1 if a judge finds the original by its rewrite among four shuffled titles, else 0.

    The order of the options depends on the seed and the titles alone, so that a row is asked about
    in the same way every time.
    """
    orders, options = [], []
    for row in rows:
        titles = (row.title, *row.distractors)
        random = np.random.default_rng([seed, *"\n".join(titles).encode()])
        orders.append(random.permutation(len(titles)).tolist())
        options.append([titles[place] for place in orders[-1]])
    chosen = scorer.choices([judge_question(text) for text in rewrites], options)
    pairs = zip(chosen, orders, strict=True)
    return [float(choice >= 0 and order[choice] == 0) for choice, order in pairs]


@_for(SingleRow)
def item2item(rows: Sequence[SingleRow], rewrites: Sequence[str], scorer: Retriever) -> list[float]:
    """How far a rewrite keeps the order of the original's neighbours, from 0 to 1."""
    similar = scorer.similarities(rewrites)
    pairs = zip(rows, similar, strict=True)
    return [order_reward(alike[list(row.neighbours)]) for row, alike in pairs]


@_for(GroupRow)
def user2item(rows: Sequence[GroupRow], rewrites: Sequence[str], scorer: Retriever) -> list[float]:
    """``exp(-(rank - 1) / 2000)`` of the next item, retrieved by the rewritten history.

    Items that are as much alike as the next one stand before it.
    """
    pairs = zip(rows, scorer.similarities(rewrites), strict=True)
    return [rank_reward(int((alike >= alike[row.target]).sum())) for row, alike in pairs]


def ppl_reward(ppl: float) -> float:
    """``exp(-0.02 ppl)``; a perplexity is at least 1."""
    if not ppl >= 1 - 1e-6:
        raise ConfigError(f"perplexity: found {ppl}; expected a number from 1 on")
    return math.exp(-_PPL_SCALE * ppl)


def length_reward(tokens_out: int, tokens_in: int) -> float:
    """``1 / (1 + (out / in)^2)``."""
    if tokens_in < 1:
        raise ConfigError(f"title: found {tokens_in} tokens; expected at least 1")
    return 1 / (1 + (tokens_out / tokens_in) ** 2)


def order_reward(similarities: Float[np.ndarray, " neighbours"]) -> float:
    """Spearman's correlation of the given order and that by similarity, mapped to [0, 1]."""
    count = len(similarities)
    if count < 2:
        raise ConfigError(f"neighbours: found {count}; expected at least 2 to have an order")
    given = np.arange(1, count + 1, dtype=np.float64)
    descending = -similarities.astype(np.float64)
    _, place, equals = np.unique(descending, return_inverse=True, return_counts=True)
    found = (np.cumsum(equals) - (equals - 1) / 2)[place]
    spread = found.std() * given.std()
    if spread == 0:
        # All are equally alike: the rewrite says nothing about their order.
        return 0.5
    correlation = float(((found - found.mean()) * (given - given.mean())).mean() / spread)
    return (correlation + 1) / 2


def rank_reward(rank: int) -> float:
    """``exp(-(rank - 1) / 2000)``."""
    if rank < 1:
        raise ConfigError(f"rank: found {rank}; expected at least 1")
    return math.exp(-(rank - 1) / _RANK_SCALE)


def judge_question(rewrite: str) -> str:
    """What a judge is asked about a rewrite; the options follow."""
    return f"Which of these items is meant by “{rewrite}”?"
