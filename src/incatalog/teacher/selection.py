"""From scores over the catalog to filtered, ranked rows: what every teacher here has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.row_lists import MaybeRowLists, Ragged, RowLists, Rows, check_length, ragged

# Bounds the memory of a block of scores and its masks, whatever the size of the catalog.
_BLOCK_CELLS = 1 << 24
_BLOCK_HISTORIES = 512

Scores = Float[Tensor, "batch items"]
Categories = Sequence[str | None]


class ScoringTeacher(ABC):
    """A teacher that gives every item of the catalog a score.

    Subclasses bring the scores; filters, ties and batching are the same for all. Of two items with
    one score the one with the lower row comes first, so that answers are reproducible.
    """

    kind: ClassVar[str]
    """Its name in `teacher.json`, and in summaries of evaluations."""
    learned: ClassVar[bool] = False
    """Whether scores of items without training are those of weights that no training has set."""
    _needs_history: ClassVar[bool] = False

    def __init__(self, catalog: Catalog, temperature: float = 1.0) -> None:
        if not 0 < temperature < float("inf"):
            raise TeacherError(f"temperature: found {temperature}; expected more than 0")
        self._catalog = catalog
        self.temperature = temperature
        """What scores are divided by to become log-probabilities; see `Teacher.temperature`."""
        self._category_masks: dict[str, Bool[np.ndarray, " items"]] = {}

    @property
    def device(self) -> torch.device:
        """Where scores are computed."""
        return torch.device("cpu")

    @property
    def window(self) -> int:
        """Newest items of a history that its scores depend on; 0 where they depend on none."""
        return 0

    @property
    def num_items(self) -> int:
        """Items of the catalog."""
        return len(self._catalog)

    @abstractmethod
    def score_block(
        self, histories: Sequence[Rows], left_out: Sequence[Rows] | None = None
    ) -> Scores:
        """Scores of all items after histories that were checked; the caller may write into them.

        `left_out` are training histories, one for each, to score as if it had not been counted.
        """

    def scores(
        self, histories: RowLists, left_out: RowLists | None = None
    ) -> Float32[np.ndarray, "batch items"]:
        """Scores of all items after each history; see `Teacher.scores`."""
        checked = self._histories(histories)
        result = np.empty((len(histories), self.num_items), dtype=np.float32)
        for block, scores in self._scored(checked, self._left_out(left_out, len(histories))):
            result[block] = scores.cpu().numpy()
        return result

    def log_probabilities(
        self, histories: RowLists, *, left_out: RowLists | None = None
    ) -> Float32[np.ndarray, "batch items"]:
        """Logarithms of all items' probabilities; see `Teacher.log_probabilities`."""
        checked = self._histories(histories)
        result = np.empty((len(histories), self.num_items), dtype=np.float32)
        for block, scores in self._scored(checked, self._left_out(left_out, len(histories))):
            # Where a device has no float64, as Apple's GPUs, the CPU has.
            exact = scores.cpu().double() / self.temperature
            result[block] = torch.log_softmax(exact, dim=1).numpy()
        return result

    def top_k(
        self,
        histories: RowLists,
        k: int,
        *,
        candidates: MaybeRowLists | None = None,
        excluded: MaybeRowLists | None = None,
        categories: Categories | None = None,
        exclude_seen: bool = True,
    ) -> Int64[np.ndarray, "batch k"]:
        """Best rows after each history; see `Teacher.top_k`."""
        if k < 1:
            raise TeacherError(f"k: found {k}; expected at least 1")
        checked = self._histories(histories)
        only: list[np.ndarray | None] = [None] * len(histories)
        if candidates is not None:
            rows = ragged("candidates", candidates, len(histories), self.num_items)
            only = [None if asked is None else rows.at(i) for i, asked in enumerate(candidates)]
        filters = (excluded, categories, exclude_seen)
        result = np.full((len(histories), k), -1, dtype=np.int64)
        for block, scores, _ in self._filtered(checked, only, *filters):
            best = _best(scores, min(k, self.num_items))
            result[block, : best.shape[1]] = best.cpu().numpy()
        return result

    def ranking(
        self,
        histories: RowLists,
        candidates: RowLists,
        *,
        excluded: MaybeRowLists | None = None,
        categories: Categories | None = None,
        exclude_seen: bool = False,
    ) -> list[Int64[np.ndarray, " candidates"]]:
        """Ranks of candidates in the order of the whole catalog; see `Teacher.ranking`."""
        checked = self._histories(histories)
        asked = ragged("candidates", candidates, len(histories), self.num_items)
        everything, filters = [None] * len(histories), (excluded, categories, exclude_seen)
        result: list[np.ndarray] = [asked.at(i) for i in range(len(histories))]
        for block, scores, blocked in self._filtered(checked, everything, *filters):
            lists = [torch.from_numpy(asked.at(i)) for i in block]
            wanted = pad_sequence(lists, batch_first=True).to(scores.device)
            ranks = _ranks(scores, wanted).masked_fill_(blocked.gather(1, wanted), -1)
            for index, line in zip(block, ranks.cpu().numpy(), strict=True):
                result[index] = line[: len(result[index])]
        return result

    def _histories(self, histories: RowLists) -> Ragged:
        needed_by = type(self).__name__ if self._needs_history else ""
        batch = len(histories)
        return ragged("history", histories, batch, self.num_items, needed_by=needed_by)

    def _left_out(self, left_out: RowLists | None, batch: int) -> Ragged | None:
        return None if left_out is None else ragged("left_out", left_out, batch, self.num_items)

    def _scored(
        self, histories: Ragged, left_out: Ragged | None = None
    ) -> Iterator[tuple[np.ndarray, Scores]]:
        """Blocks of histories of like length, so that little is padding, and their scores."""
        size = max(1, min(_BLOCK_HISTORIES, _BLOCK_CELLS // self.num_items))
        by_length = np.argsort(np.diff(histories.offsets), kind="stable")
        for start in range(0, len(by_length), size):
            block = by_length[start : start + size]
            own = None if left_out is None else [left_out.at(i) for i in block]
            yield block, self.score_block([histories.at(i) for i in block], own)

    def _filtered(
        self,
        histories: Ragged,
        only: Sequence[np.ndarray | None],
        excluded: MaybeRowLists | None,
        categories: Categories | None,
        exclude_seen: bool,
    ) -> Iterator[tuple[np.ndarray, Scores, Bool[Tensor, "batch items"]]]:
        """Blocks of histories, their scores, and where an item is filtered out (-inf).

        All filters are checked before anything is scored.
        """
        batch = len(only)
        never = [histories] if exclude_seen else []
        if excluded is not None:
            never.append(ragged("excluded", excluded, batch, self.num_items))
        if categories is not None:
            check_length("categories", len(categories), batch)
        named = categories or [None] * batch
        masks = [None if name is None else self._category_mask(name) for name in named]
        for block, scores in self._scored(histories):
            blocked = np.zeros((len(block), self.num_items), dtype=np.bool_)
            for line, index in zip(blocked, block, strict=True):
                candidates, ruled_out = only[index], masks[index]
                if candidates is not None:
                    line[:] = True
                    line[candidates] = False
                for rows in never:
                    line[rows.at(index)] = True
                if ruled_out is not None:
                    line |= ruled_out
            hidden = torch.from_numpy(blocked).to(scores.device)
            yield block, scores.masked_fill_(hidden, float("-inf")), hidden

    def _category_mask(self, selection: str) -> Bool[np.ndarray, " items"]:
        """True for the items that "+C" (only C) or "-C" (all but C) rules out."""
        if selection not in self._category_masks:
            only, name = split_category(selection)
            mask = np.full(self.num_items, only)
            mask[self._catalog.category_rows(name)] = not only
            self._category_masks[selection] = mask
        return self._category_masks[selection]


def split_category(selection: str) -> tuple[bool, str]:
    """Takes ``"+C"`` apart into (True, ``"C"``), ``"-C"`` into (False, ``"C"``)."""
    if selection[:1] not in ("+", "-"):
        raise TeacherError(
            f"categories: found {selection!r}; expected +NAME (only that category) "
            "or -NAME (all but that category)"
        )
    return selection[0] == "+", selection[1:]


def _best(scores: Scores, k: int) -> Int64[Tensor, "batch k"]:
    """The k best columns of each row, ties by lower column, -1 where only -inf is left."""
    values, columns = torch.topk(scores, k, dim=1)
    columns, order = torch.sort(columns, dim=1)
    values = values.gather(1, order)
    values, order = torch.sort(values, dim=1, descending=True, stable=True)
    columns = columns.gather(1, order)
    # Which of several items that share the last score `topk` keeps is undefined.
    last = values[:, -1:]
    ties = ((scores >= last).sum(1) > k) & torch.isfinite(last[:, 0])
    if bool(ties.any()):
        columns[ties] = torch.argsort(scores[ties], dim=1, descending=True, stable=True)[:, :k]
        values[ties] = scores[ties].gather(1, columns[ties])
    return columns.masked_fill(values == float("-inf"), -1)


def _ranks(scores: Scores, wanted: Int64[Tensor, "batch width"]) -> Int64[Tensor, "batch width"]:
    """1 + the items ahead of each wanted one: with a higher score, or the same and a lower row.

    While lists of candidates are short, counting is faster than sorting the catalog.
    """
    ranks = torch.empty_like(wanted)
    columns = torch.arange(scores.shape[1], device=scores.device)
    for place, rows in enumerate(wanted.T):
        own = scores.gather(1, rows[:, None])
        ahead = (scores > own) | ((scores == own) & (columns < rows[:, None]))
        ranks[:, place] = ahead.sum(1) + 1
    return ranks
