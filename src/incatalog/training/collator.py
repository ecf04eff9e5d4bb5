"""Samples to batches: padded token ids, and what each position is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from incatalog.config import ScopeType
from incatalog.training.losses import LabelledSpans, scoped_targets
from incatalog.training.retrieval_loss import Barred, retrieval_targets, seen_before
from incatalog.training.samples import Sample
from incatalog.training.soft_targets import ItemPaths, SpanTargets
from incatalog.trie.trie import ItemTrie


@dataclass(frozen=True)
class Collator:
    """Pads samples on the right, which causal attention never sees, and lays out the targets."""

    trie: ItemTrie
    _: KW_ONLY
    eoi_token_id: int
    pad_token_id: int
    scope: ScopeType
    retrieves: bool = False  # Items are found and not written, so their tokens carry no loss
    unseen_only: bool = False  # What stands before an item has no part of its softmax
    alias_ratio: float = 0.0  # How often an item with other names in the trie has one of those

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch: token ids, targets and what is counted of them."""
        shape = (len(samples), max(len(sample.rendered.input_ids) for sample in samples))
        input_ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        labelled = np.zeros(shape, dtype=np.bool_)
        spans: list[tuple[int, int, int, int]] = []
        for number, sample in enumerate(samples):
            size = len(sample.rendered.input_ids)
            input_ids[number, :size] = sample.rendered.input_ids
            labelled[number, :size] = sample.rendered.loss_mask
            trained = zip(sample.rendered.spans, sample.trained.tolist(), strict=True)
            spans += [(number, *span) for span, counts in trained if counts]
        columns = LabelledSpans(*np.array(spans, dtype=np.int64).reshape(-1, 4).T)
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(input_ids)}
        soft = _joined(samples)
        if self.retrieves:
            among = None if soft is None else (self.trie.num_items, soft)
            barred = self._barred(samples) if self.unseen_only else None
            targets, batch["items"] = retrieval_targets(input_ids, labelled, columns, among, barred)
        else:
            targets = scoped_targets(
                self.trie,
                input_ids,
                labelled,
                columns,
                eoi_token_id=self.eoi_token_id,
                scope=self.scope,
                soft=None if soft is None else (self.paths, soft),
            )
        return batch | {
            "targets": targets,
            "num_labels": torch.tensor(targets.num_labels),
            "num_spans": torch.tensor(len(spans) if self.retrieves else 0),
            "cut": torch.tensor(sum(sample.cut for sample in samples)),
        }

    def _barred(self, samples: Sequence[Sample]) -> Barred:
        """What stands before each trained span of a batch."""
        found, spans = [], 0
        for sample in samples:
            rows = [row for _, _, row in sample.rendered.spans]
            span, row = seen_before(rows, sample.trained.tolist())
            # Spans of other texts are no items.
            known = row < self.trie.num_items
            found.append((span[known] + spans, row[known]))
            spans += int(sample.trained.sum())
        return Barred(*map(np.concatenate, zip(*found, strict=True)))

    @cached_property
    def paths(self) -> ItemPaths:
        """The ways to all items."""
        return ItemPaths.of(self.trie, self.alias_ratio)


def _joined(samples: Sequence[Sample]) -> SpanTargets | None:
    """The soft targets of a batch; None where no sample has some."""
    if all(sample.soft is None for sample in samples):
        return None
    return SpanTargets.joined([
        SpanTargets.written(int(sample.trained.sum())) if sample.soft is None else sample.soft
        for sample in samples
    ])  # fmt: skip
