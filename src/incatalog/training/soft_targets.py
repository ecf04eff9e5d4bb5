"""Soft targets: which items could stand in a span, and what that means at each decision.

A teacher's distribution is kept sparse: some items are *listed* with their share, and every other
item has the same small share, the *rest*. The mass below a child of a node is then the sum of the
listed items below it, and the rest times the number of others. At the nodes on the way to the item
that is written, the target of a child is its mass among the children's; with a part ``hard`` of it
replaced by the child that is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, Int64
from torch import Tensor

from incatalog.training.movable import Movable
from incatalog.trie.branching import Decisions
from incatalog.trie.build import spread
from incatalog.trie.trie import ItemTrie

# Parts of items that are added and taken away again leave less than this.
_NOTHING = 1e-9


@dataclass(frozen=True, eq=False)
class SpanTargets:
    """What should stand in some spans, sparse; those of a sample or of a batch."""

    hard: Float64[np.ndarray, " spans"]  # How much of it is the item written there
    rest: Float64[np.ndarray, " spans"]  # Of each item that is not listed
    offsets: Int64[np.ndarray, " spans+1"]  # Where each span's listed items start
    rows: Int32[np.ndarray, " listed"]  # Item rows, each once in a span
    share: Float32[np.ndarray, " listed"]  # Zero for items that must not stand there

    @classmethod
    def written(cls, count: int) -> SpanTargets:
        """What is written there, and nothing else."""
        rows, share = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        return cls(np.ones(count), np.zeros(count), np.zeros(count + 1, np.int64), rows, share)

    @classmethod
    def joined(cls, parts: Sequence[SpanTargets]) -> SpanTargets:
        """Those of several samples, one behind the other."""
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        columns = ([getattr(part, name) for part in parts] for name in ("rows", "share"))
        rows, share = map(np.concatenate, columns)
        hard = np.concatenate([part.hard for part in parts])
        rest = np.concatenate([part.rest for part in parts])
        return cls(hard, rest, np.concatenate([[0], np.cumsum(sizes)]), rows, share)


class Slots(NamedTuple):
    """Where decisions and children stand in padded blocks of logits; -1 for padding."""

    decision: Int64[np.ndarray, " slots"]  # Which decision each slot is for
    first: Int64[np.ndarray, " slots"]  # Its first logit, in its block
    edge: Int64[np.ndarray, " children"]  # Edge of the trie that each child is
    ends: Int64[np.ndarray, " blocks"]  # Slots up to the end of each block


@dataclass(frozen=True)
class SoftChoices(Movable):
    """The distributions of a batch's decisions, as `soft_cross_entropy` takes them."""

    hard: Float[Tensor, " slots"]
    even: Float[Tensor, " slots"]
    below: Float[Tensor, " children"]
    listed: Int64[Tensor, " listed"]  # Logits in their block; block after block
    extra: Float[Tensor, " listed"]
    listed_in: tuple[int, ...]  # How many are listed in each block


@dataclass(frozen=True, eq=False)
class ItemPaths:
    """The way to every item of a trie, and how many items are below each edge.

    An item counts for one; its title and its other spellings share that as chance spells it.
    """

    trie: ItemTrie
    ways: Decisions  # By spelling
    part: Float64[np.ndarray, " spellings"]
    below: Float64[np.ndarray, " edges"]
    inside: Float64[np.ndarray, " nodes"]  # Below all edges of a node

    @classmethod
    def of(cls, trie: ItemTrie, alias_ratio: float = 0.0) -> ItemPaths:
        """The ways through a trie from which no item was removed.

        Args:
            trie: The items.
            alias_ratio: How often an item that has other spellings stands under one of those.
        """
        part = np.ones(trie.num_positions)
        if trie.spellings is not None:
            item, title = trie.spellings.item, trie.spellings.title
            others = np.bincount(item)[item] - 1
            part = np.where(others > 0, alias_ratio / np.maximum(others, 1), 1.0)
            part[title] = np.where(others[title] > 0, 1 - alias_ratio, 1.0)
        arrays = trie.arrays
        before = np.concatenate([[0.0], np.cumsum(part[arrays.order])])
        until, nodes = before[arrays.bounds], np.arange(trie.num_nodes)
        edge = np.arange(int(arrays.node_edges[-1])) + np.repeat(nodes, np.diff(arrays.node_edges))
        below = until[edge + 1] - until[edge]
        inside = until[arrays.node_edges[1:] + nodes] - until[arrays.node_edges[:-1] + nodes]
        ways = trie.decisions_of(np.arange(trie.num_positions))
        return cls(trie, ways, part, below, inside)

    def choices(self, soft: SpanTargets, decisions: Decisions, places: Slots) -> SoftChoices:
        """The distribution of each decision on the way to what is written in some spans."""
        count = np.diff(decisions.offsets)
        owner = np.repeat(np.arange(len(count)), count)
        met = self._met(soft, decisions)
        size = len(decisions.node)
        listed = np.bincount(met.decision, met.share, size)
        counted = np.bincount(met.decision, met.part, size)

        others = self.inside[decisions.node] - counted
        others[others < _NOTHING] = 0.0
        # Where all items are listed no rest is given, which would be taken away again.
        rest, hard = np.where(others > 0, soft.rest[owner], 0.0), soft.hard[owner]
        mass = listed + rest * others
        known = mass > np.finfo(np.float32).tiny
        # Where the teacher allows nothing below a node, all that is known is what is written.
        scale = np.where(known, 1 - hard, 0.0) / np.where(known, mass, 1.0)
        hard = np.where(known, hard, 1.0)
        extra = scale[met.decision] * (met.share - rest[met.decision] * met.part)
        return self._laid_out(met, hard, scale * rest, extra, places)

    def _met(self, soft: SpanTargets, decisions: Decisions) -> _Met:
        """The decisions from which the way to a listed item goes on, and where to."""
        owner = np.repeat(np.arange(len(soft.hard)), np.diff(soft.offsets))
        row, share, part = soft.rows.astype(np.int64), soft.share.astype(np.float64), None
        if (spellings := self.trie.spellings) is not None:
            which, _ = spread(np.bincount(spellings.item)[row])
            row = spellings.of_items(row)
            part, owner = self.part[row], owner[which]
            share = share[which] * part
        first, steps = self.ways.offsets[row], np.diff(self.ways.offsets)[row]
        begins, length = decisions.offsets[owner], np.diff(decisions.offsets)[owner]
        both = np.minimum(steps, length)
        alive, level = np.arange(len(row)), 0
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        while len(alive := alive[both[alive] > level]):
            at, decision = first[alive] + level, begins[alive] + level
            same = self.ways.node[at] == decisions.node[decision]
            alive, at, decision = alive[same], at[same], decision[same]
            found.append((alive, decision, self.ways.choice[at]))
            level += 1
        none = (np.zeros(0, dtype=np.int64),) * 3
        of, decision, choice = map(np.concatenate, zip(*found or [none], strict=True))
        return _Met(decision, choice, share[of], np.ones(len(of)) if part is None else part[of])

    def _laid_out(
        self,
        met: _Met,
        hard: Float64[np.ndarray, " decisions"],
        even: Float64[np.ndarray, " decisions"],
        extra: Float64[np.ndarray, " met"],
        places: Slots,
    ) -> SoftChoices:
        real = places.decision >= 0
        slot_of = np.empty(len(hard), dtype=np.int64)
        slot_of[places.decision[real]] = np.flatnonzero(real)
        slot = slot_of[met.decision]
        logit = places.first[slot] + met.choice
        block = np.searchsorted(places.ends, slot, side="right")
        # Several items below one child are one number, so that no sum depends on an order.
        by_place = np.lexsort((logit, block))
        logit, block, extra = logit[by_place], block[by_place], extra[by_place]
        opens = np.ones(len(logit), dtype=np.bool_)
        opens[1:] = (logit[1:] != logit[:-1]) | (block[1:] != block[:-1])
        first = np.flatnonzero(opens)
        extra = np.add.reduceat(extra, first) if len(first) else extra
        in_block = np.bincount(block[first], minlength=len(places.ends))
        at = np.maximum(places.decision, 0)
        return SoftChoices(
            _tensor(np.where(real, hard[at], 0.0)),
            _tensor(np.where(real, even[at], 0.0)),
            _tensor(np.where(places.edge >= 0, self.below[places.edge], 0.0)),
            torch.from_numpy(logit[first]),
            _tensor(extra),
            tuple(in_block.tolist()),
        )


class _Met(NamedTuple):
    """Decisions on the way to listed items."""

    decision: Int64[np.ndarray, " met"]
    choice: Int32[np.ndarray, " met"]  # Index of the child that leads to the item
    share: Float64[np.ndarray, " met"]
    part: Float64[np.ndarray, " met"]  # How much of an item is there


def item_choices(soft: SpanTargets, num_items: int) -> SoftChoices:
    """The distribution of each span over all items, where one decision takes the item whole."""
    sizes = np.diff(soft.offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    mass = np.bincount(owner, soft.share, len(sizes)) + soft.rest * (num_items - sizes)
    known = mass > np.finfo(np.float32).tiny
    scale = np.where(known, 1 - soft.hard, 0.0) / np.where(known, mass, 1.0)
    extra = scale[owner] * (soft.share - soft.rest[owner])
    return SoftChoices(
        _tensor(np.where(known, soft.hard, 1.0)),
        _tensor(scale * soft.rest),
        torch.ones(num_items),
        torch.from_numpy(owner * num_items + soft.rows),
        _tensor(extra),
        (len(owner),),
    )


def _tensor(values: Float64[np.ndarray, " n"]) -> Float[Tensor, " n"]:
    return torch.from_numpy(values.astype(np.float32))
