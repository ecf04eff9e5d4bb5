"""What chance decides about samples, by the seed, the epoch and the user alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.dialogue.templates import ALIGNMENT_WORDINGS
from incatalog.training.general_chat import GeneralChat
from incatalog.training.settings import SampleSettings

# Keys of the random streams.
ORDER, DRAWS, CANDIDATES, SHUFFLE, VALIDATION, SPELLINGS, DROPPED = range(7)
# Said where no history has a target to draw.
TOO_SHORT = "no user has two items besides the two held out; expected users with at least four"


class Draws(NamedTuple):
    """The samples of one epoch, before the teacher is asked; first what is drawn for each user."""

    target: Int64[np.ndarray, " users"]  # Index of the target in the user's training items
    start: Int64[np.ndarray, " users"]  # Index of the first item of the history
    list_length: Int64[np.ndarray, " users"]  # Items in the answer
    wording: Int64[np.ndarray, " users"]
    exchange: Int64[np.ndarray, " users"]  # General exchange beside the recommendation; -1 for none
    before: Bool[np.ndarray, " users"]  # Whether that exchange comes first
    conversation: Int64[np.ndarray, " conversations"]  # General ones, behind the users' samples
    aligned: Int64[np.ndarray, " alignments"]  # Item row of each alignment sample, which come last
    alignment: Int64[np.ndarray, " alignments"]  # Wording of each alignment sample


@dataclass(frozen=True)
class Chance:
    """Draws what samples are made of."""

    settings: SampleSettings
    lengths: Int64[np.ndarray, " users"]  # Training items of each user
    num_items: int
    aliases: Mapping[int, Sequence[int]]  # Rows of other names, by item row
    lists: bool  # Whether answers name more than the target
    plain: int  # Wordings without candidates, which come first
    wordings: int
    chat: GeneralChat | None
    num_general: int  # Samples of an epoch, like num_aligned
    num_aligned: int

    def draws(self, epoch: int) -> Draws:
        """All samples of an epoch."""
        settings, count = self.settings, len(self.lengths)
        rng = self._stream(DRAWS, epoch)
        target = rng.integers(1, self.lengths)
        oldest = np.maximum(0, target - settings.max_history)
        drawn = rng.integers(oldest, target)
        start = oldest if settings.window == "full" else drawn
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

    def shown(self, history: list[int], epoch: int, user: int) -> list[int]:
        """A history with some items left out, but never all."""
        share = self.settings.history_dropout
        if not share:
            return history
        rng = self._stream(DROPPED, epoch, user)
        kept = rng.random(len(history)) >= share
        kept[rng.integers(len(history))] = True
        return [row for row, stays in zip(history, kept, strict=True) if stays]

    def spelled(
        self, history: list[int], answer: list[int], epoch: int, user: int
    ) -> tuple[list[int], list[int]]:
        """Rows of the names under which the items of history and answer stand."""
        if not self.aliases:
            return history, answer
        rng = self._stream(SPELLINGS, epoch, user)
        if self.settings.paraphrases_in != "targets":
            history = [self._name(row, rng) for row in history]
        if self.settings.paraphrases_in != "history":
            answer = [self._name(row, rng) for row in answer]
        return history, answer

    def candidates(self, answer: list[int], epoch: int, user: int) -> list[int]:
        """The answer among random other items, in random order."""
        rng = self._stream(CANDIDATES, epoch, user)
        size = int(rng.integers(len(answer), self.settings.max_candidates + 1))
        found = dict.fromkeys(answer)
        while (missing := min(size, self.num_items) - len(found)) > 0:
            found.update(dict.fromkeys(rng.integers(self.num_items, size=missing).tolist()))
        return [list(found)[place] for place in rng.permutation(len(found))]

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
