"""Guesses at the next decisions inside a span, fed along with what is certain.

A forward pass of a few tokens more takes hardly longer. Where the guess is what the model decides
on, the decision behind it can be taken in the same pass; where it is not, nothing has changed. This
is speculative decoding (arXiv 2211.17192) with the catalog as the draft: the trie says what may
come; what the answer said at the same place before says which of these is likely.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from incatalog.packed.branches import Guess
from incatalog.trie.build import CLOSE
from incatalog.trie.cursor import Cursor
from incatalog.trie.trie import ItemTrie

BEST = 4
"""How many of the likeliest tokens at a node are kept in mind."""

# How often the best, second, ... token of last time is the one; where there was no last time, a
# guess by the number of items is trusted half as much. Rough figures: they only order the guesses.
_TRUST = (0.5, 0.2, 0.1, 0.05)
_LEAST = 0.1


class Lookahead:
    """What one answer remembers of the nodes it has decided at, to guess from."""

    def __init__(self, trie: ItemTrie) -> None:
        self._trie = trie
        self._best: dict[int, tuple[int, ...]] = {}

    def remember(self, node: int, tokens: Sequence[int]) -> None:
        """Keeps the likeliest tokens at a node in mind, best first."""
        self._best[node] = tuple(tokens)

    def guesses(self, node: int, budget: int) -> list[Guess]:
        """The likeliest continuations of a node, ``budget`` tokens in all; parents come first."""
        found: list[Guess] = []
        if not budget:
            return found
        # Likeliest first, of equal ones the earliest.
        waiting = [(-trust, n, -1, node, token) for n, (token, trust) in enumerate(self._at(node))]
        heapq.heapify(waiting)
        number = len(waiting)
        while waiting and budget:
            trust, _, parent, node, token = heapq.heappop(waiting)
            guess = self._guess(parent, node, token)
            if guess is None or len(guess.tokens) > budget:
                continue
            budget -= len(guess.tokens)
            found.append(guess)
            for following, share in self._at(guess.node):
                if -trust * share >= _LEAST:
                    entry = (trust * share, number, len(found) - 1, guess.node, following)
                    heapq.heappush(waiting, entry)
                    number += 1
        return found

    def _at(self, node: int) -> list[tuple[int, float]]:
        """What to guess at a node, with how much each is to be trusted."""
        if node in self._best:
            return list(zip(self._best[node], _TRUST, strict=False))
        tokens, bounds = self._trie.choices(node)
        items = np.diff(bounds)
        largest = np.argsort(-items, kind="stable")[:BEST]
        trust = items[largest] / (2 * items.sum())
        known = zip(tokens[largest].tolist(), trust.tolist(), strict=True)
        return [(token, share) for token, share in known if share >= _LEAST]

    def _guess(self, parent: int, node: int, token: int) -> Guess | None:
        """A guess if there is another decision behind it, else None."""
        tokens, bounds = self._trie.choices(node)
        written = tokens[:-1] if tokens[-1] == CLOSE else tokens
        choice = int(written.searchsorted(token))
        if choice == len(written) or written[choice] != token:
            return None
        here = Cursor(int(bounds[0]), int(bounds[-1]), 0, node, 0, 0)
        place = self._trie.choose(here, choice)
        if place.node < 0:
            return None
        forced = self._trie.arrays.tail[place.chain : place.chain_end].tolist()
        return Guess(parent, (token, *forced), place.node)


class Path:
    """Which of the guesses of a pass have come true so far."""

    def __init__(self, guesses: Sequence[Guess]) -> None:
        self._guesses = guesses
        self._starts = np.cumsum([0, *(len(guess.tokens) for guess in guesses)])
        self.offsets: list[int] = []  # places, among the tokens of all, of those that came true
        self.last = -1  # the last guess that came true

    def follow(self, tokens: Sequence[int]) -> bool:
        """Goes on along what was decided and forced; False if that had not been guessed."""
        for number, guess in enumerate(self._guesses):
            if guess.parent == self.last and list(guess.tokens) == list(tokens):
                self.offsets += range(self._starts[number], self._starts[number + 1])
                self.last = number
                return True
        return False
