"""What chance decides about samples, by the seed, the epoch and the user alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.dialogue.templates import ALIGNMENT_WORDINGS
from incatalog.training.general_chat import GeneralChat
from incatalog.training.settings import SampleSettings
from incatalog.trie.build import spread

# Keys of the random streams.
ORDER, DRAWS, CANDIDATES, SHUFFLE, VALIDATION, SPELLINGS, DROPPED, FIRST = range(8)
# Said where no history has a target to draw.
TOO_SHORT = "no user has two items besides the two held out; expected users with at least four"


class Draws(NamedTuple):
    """The samples of one epoch, before the teacher is asked; first what is drawn for each task."""

    target: Int64[np.ndarray, " tasks"]  # Index of the target in the user's training items
    start: Int64[np.ndarray, " tasks"]  # Index of the first item of the history
    list_length: Int64[np.ndarray, " tasks"]  # Items in the answer
    wording: Int64[np.ndarray, " tasks"]
    exchange: Int64[np.ndarray, " tasks"]  # General exchange beside the recommendation; -1 for none
    before: Bool[np.ndarray, " tasks"]  # Whether that exchange comes first
    conversation: Int64[np.ndarray, " conversations"]  # General ones, behind the recommendations
    aligned: Int64[np.ndarray, " alignments"]  # Item row of each alignment sample, which come last
    alignment: Int64[np.ndarray, " alignments"]  # Wording of each alignment sample


@dataclass(frozen=True)
class Chance:
    """Draws what samples are made of.

    What is drawn for one sample comes from a stream that its *key* names: the epoch and the user,
    and the target where a user has several samples in an epoch.
    """

    settings: SampleSettings
    lengths: Int64[np.ndarray, " users"]  # Training items of each user, at least two
    num_items: int
    aliases: Mapping[int, Sequence[int]]  # Rows of other names, by item row
    lists: bool  # Whether answers name more than the target
    plain: int  # Wordings without candidates, which come first
    wordings: int
    chat: GeneralChat | None
    aligns: bool  # Whether some samples teach what codes mean

    @cached_property
    def num_general(self) -> int:
        """Samples of an epoch that are general conversations."""
        return 0 if self.chat is None else round(self.settings.chat_ratio * len(self.owner))

    @cached_property
    def num_aligned(self) -> int:
        """Samples of an epoch that teach what codes mean."""
        return round(self.settings.align_ratio * len(self.owner)) if self.aligns else 0

    @cached_property
    def owner(self) -> Int64[np.ndarray, " tasks"]:
        """Whose history each recommendation of an epoch is about."""
        return np.repeat(np.arange(len(self.lengths)), self._per_user)

    def draws(self, epoch: int) -> Draws:
        """All samples of an epoch."""
        settings, count = self.settings, len(self.owner)
        rng = self._stream(DRAWS, epoch)
        if self._every_prefix:
            target = spread(self._per_user)[1] + 1
        else:
            target = rng.integers(1, self.lengths)
        oldest = np.maximum(0, target - settings.max_history)
        drawn = rng.integers(oldest, target)
        start = drawn if settings.window == "random" else oldest
        length = rng.integers(self._shortest, settings.list_length + 1, size=count)
        list_length = length if self.lists else np.ones_like(length)
        wording = rng.integers(0, self.plain, size=count)
        if settings.candidate_ratio > 0:
            offering = rng.integers(self.plain, self.wordings, size=count)
            wording = np.where(rng.random(count) < settings.candidate_ratio, offering, wording)
        exchange = np.full(count, -1, dtype=np.int64)
        before = np.zeros(count, dtype=np.bool_)
        conversation = np.zeros(0, dtype=np.int64)
        if self.chat is not None:
            chosen = rng.integers(0, len(self.chat.exchanges), size=count)
            exchange = np.where(rng.random(count) < settings.multi_round_ratio, chosen, -1)
            before = rng.random(count) < 0.5
            conversation = rng.integers(0, len(self.chat.conversations), size=self.num_general)
        aligned = rng.integers(0, self.num_items, size=self.num_aligned)
        alignment = rng.integers(0, len(ALIGNMENT_WORDINGS), size=self.num_aligned)
        return Draws(
            target, start, list_length, wording, exchange, before, conversation, aligned, alignment
        )

    def validation_length(self, user: int) -> int:
        """Items in the answer to the validation sample of a user."""
        rng = self._stream(VALIDATION, user)
        return int(rng.integers(self._shortest, self.settings.list_length + 1)) if self.lists else 1

    def key(self, epoch: int, user: int, target: int) -> tuple[int, ...]:
        """What names the streams of a sample; the target is an index."""
        return (epoch, user, target) if self._every_prefix else (epoch, user)

    def first(self, *key: int) -> np.random.Generator:
        """What decides which item an answer names first."""
        return self._stream(FIRST, *key)

    def shown(self, history: list[int], *key: int) -> list[int]:
        """A history with some items left out, but never all."""
        share = self.settings.history_dropout
        if not share:
            return history
        rng = self._stream(DROPPED, *key)
        kept = rng.random(len(history)) >= share
        kept[rng.integers(len(history))] = True
        return [row for row, stays in zip(history, kept, strict=True) if stays]

    def spelled(
        self, history: list[int], answer: list[int], *key: int
    ) -> tuple[list[int], list[int]]:
        """Rows of the names under which the items of history and answer stand."""
        if not self.aliases:
            return history, answer
        rng = self._stream(SPELLINGS, *key)
        if self.settings.paraphrases_in != "targets":
            history = [self._name(row, rng) for row in history]
        if self.settings.paraphrases_in != "history":
            answer = [self._name(row, rng) for row in answer]
        return history, answer

    def candidates(self, answer: list[int], *key: int) -> list[int]:
        """The answer among random other items, in random order."""
        rng = self._stream(CANDIDATES, *key)
        least = max(len(answer), self.settings.min_candidates)
        size = int(rng.integers(least, self.settings.max_candidates + 1))
        found = dict.fromkeys(answer)
        while (missing := min(size, self.num_items) - len(found)) > 0:
            found.update(dict.fromkeys(rng.integers(self.num_items, size=missing).tolist()))
        return [list(found)[place] for place in rng.permutation(len(found))]

    @property
    def _every_prefix(self) -> bool:
        return self.settings.window == "every-prefix"

    @property
    def _per_user(self) -> Int64[np.ndarray, " users"]:
        """Recommendations of an epoch."""
        return self.lengths - 1 if self._every_prefix else np.ones_like(self.lengths)

    @property
    def _shortest(self) -> int:
        return self.settings.list_length if self.settings.fixed_list_length else 1

    def _name(self, row: int, rng: np.random.Generator) -> int:
        """Row of a name of an item: its title, or one of its aliases."""
        others = self.aliases.get(row)
        if others is None or rng.random() >= self.settings.paraphrase_ratio:
            return row
        return others[int(rng.integers(len(others)))]

    def _stream(self, *keys: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *keys])
