"""Spans with soft targets, and the dense distributions that a scan of the catalog gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from incatalog.data.catalog import Catalog, Item
from incatalog.teacher.selection import ScoringTeacher
from incatalog.training.losses import LabelledSpans, ScopedTargets, scoped_targets
from incatalog.training.soft_targets import ItemPaths, SpanTargets
from incatalog.trie.trie import ItemTrie

SOI, EOI, VOCAB, HIDDEN = 20, 21, 24, 8


class Spans:
    """Spans of a catalog, each in a sample of its own, and what is known of each."""

    def __init__(
        self,
        catalog: list[list[int]],
        written: list[int],
        soft: SpanTargets,
        items: list[int] | None = None,
        alias_ratio: float = 0.0,
    ) -> None:
        self.catalog, self.written, self.soft = catalog, written, soft
        self.items = items or list(range(len(catalog)))
        self.trie = ItemTrie.build(catalog, items)
        spelled = [[SOI, *catalog[row], EOI] for row in written]
        longest = max(map(len, spelled))
        ids = np.array([[0, *one] + [22] * (longest - len(one)) for one in spelled])
        self.ids = ids
        rows = np.array(written, dtype=np.int64)
        size = np.array([len(one) for one in spelled])
        spans = LabelledSpans(np.arange(len(rows)), np.ones_like(rows), 1 + size, rows)
        self.targets: ScopedTargets = scoped_targets(
            self.trie, ids, np.zeros(ids.shape, dtype=bool), spans, eoi_token_id=EOI,
            soft=(ItemPaths.of(self.trie, alias_ratio), soft),
        )  # fmt: skip

    def found(self) -> dict[tuple[int, int], dict[int, float]]:
        """The distribution at each decision: by span and depth, by token."""
        targets, soft = self.targets, self.targets.soft
        assert soft is not None
        found: dict[tuple[int, int], dict[int, float]] = {}
        slot = child = listed = 0
        length = self.ids.shape[1]
        for number, (nodes, each, children) in enumerate(targets.block_shape):
            dense = soft.even[slot : slot + nodes * each].double().view(nodes, each, 1)
            below = soft.below[child : child + nodes * children].double()
            dense = dense * below.view(nodes, 1, children)
            hard = soft.hard[slot : slot + nodes * each].double().view(nodes, each, 1)
            choice = targets.decision_choice[slot : slot + nodes * each].view(nodes, each, 1)
            dense = dense.scatter_add(2, choice.clamp(min=0), hard)
            end = listed + soft.listed_in[number]
            dense.view(-1).index_add_(0, soft.listed[listed:end], soft.extra[listed:end].double())
            for place, row in enumerate(dense.view(-1, children).tolist()):
                at = int(targets.decision_position[slot + place])
                start = child + place // each * children
                tokens = targets.child_token[start : start + children].tolist()
                if targets.decision_choice[slot + place] < 0:
                    assert row == [0.0] * children
                    continue
                assert all(q == 0 for q, token in zip(row, tokens, strict=True) if token < 0)
                span, depth = divmod(at, length)
                found[span, depth - 1] = {
                    token: q for q, token in zip(row, tokens, strict=True) if token >= 0
                }
            slot, child, listed = slot + nodes * each, child + nodes * children, end
        assert listed == len(soft.listed)
        return found

    def dense(self, span: int) -> np.ndarray:
        """The share of each item, all of them written out."""
        soft = self.soft
        share = np.full(max(self.items) + 1, soft.rest[span])
        here = slice(soft.offsets[span], soft.offsets[span + 1])
        share[soft.rows[here]] = soft.share[here]
        return share

    def expected(self, spellings: np.ndarray) -> dict[tuple[int, int], dict[int, float]]:
        """What a scan of the catalog gives; `spellings` says how much of its item each is."""
        expected: dict[tuple[int, int], dict[int, float]] = {}
        for span, row in enumerate(self.written):
            share = self.dense(span)
            own = [*self.catalog[row], EOI]
            for depth, token in enumerate(own):
                mass: dict[int, float] = {}
                for other, spelled in enumerate(self.catalog):
                    if spelled[:depth] == own[:depth]:
                        following = [*spelled, EOI][depth]
                        part = share[self.items[other]] * spellings[other]
                        mass[following] = mass.get(following, 0.0) + part
                if len(mass) == 1:
                    continue
                total = sum(mass.values())
                hard = self.soft.hard[span] if total > 0 else 1.0
                expected[span, depth] = {
                    one: hard * (one == token) + (1 - hard) * (part / total if total > 0 else 0)
                    for one, part in mass.items()
                }
        return expected

    def check(self, spellings: np.ndarray) -> None:
        found, expected = self.found(), self.expected(spellings)
        assert found.keys() == expected.keys()
        for place, wanted in expected.items():
            assert found[place] == pytest.approx(wanted, abs=1e-6)
            assert sum(found[place].values()) == pytest.approx(1, abs=1e-6)


class TableTeacher(ScoringTeacher):
    """Scores from a table of items by items: a sum over the history, less what is left out."""

    kind = "table"

    def __init__(self, table: np.ndarray, temperature: float = 1.0) -> None:
        items = [Item(f"i{row}", f"Film {row}") for row in range(len(table))]
        super().__init__(Catalog.from_items(items, "films"), temperature)
        self.table = torch.from_numpy(table)
        self.asked: list[tuple[int, bool]] = []

    def score_block(
        self, histories: Sequence[np.ndarray], left_out: Sequence[np.ndarray] | None = None
    ) -> torch.Tensor:
        self.asked.append((len(histories), left_out is not None))
        scores = torch.stack([self.table[rows].sum(0) for rows in histories])
        for line, rows in zip(scores, left_out or [], strict=False):
            line[rows] -= 0.5
        return scores
