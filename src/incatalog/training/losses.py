"""Cross entropy in which an item span chooses among the catalog's continuations only.

Inside a span the decoder can only follow the prefix tree, so the model should give probability to
its branches and to nothing else (RecLM-cgen, arXiv 2505.03336, "scope mask"). The published code
builds a mask ``[batch, length, vocab]``; here only the children's rows of the output layer are
multiplied, and only where there is something to decide. Positions with a single continuation have
probability one: they count as labels, and add exactly zero.

The published mask ends before the token that closes a span, which is so trained over the whole
vocabulary. Here it is part of the span, as in decoding. Extended by that token, the published
losses `plain` and `focal` are these ones in every scope, and `focal-items` is in the scope `every`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.nn import functional

from incatalog.config import LossType, ScopeType
from incatalog.errors import TrieError
from incatalog.training.movable import Movable
from incatalog.training.output_layer import focal, free_loss_and_rows
from incatalog.training.soft_loss import NO_CHILD, soft_cross_entropy
from incatalog.training.soft_targets import ItemPaths, Slots, SoftChoices, SpanTargets
from incatalog.trie.build import CLOSE
from incatalog.trie.trie import ItemTrie

# A node with at least this many logits in a batch gets a matrix product of its own; smaller ones
# are padded to a common shape, because a product each would cost more than the padding.
_OWN_PRODUCT = 1 << 14


class _Blocks(NamedTuple):
    """Decisions in padded blocks; see :class:`ScopedTargets`."""

    shapes: tuple[tuple[int, int, int], ...]
    places: Slots
    position: Int64[np.ndarray, " slots"]
    choice: Int64[np.ndarray, " slots"]
    token: Int64[np.ndarray, " children"]


_NONE = np.zeros(0, dtype=np.int64)
_NO_BLOCKS = _Blocks((), Slots(_NONE, _NONE, _NONE, _NONE), _NONE, _NONE, _NONE)


@dataclass(frozen=True)
class LabelledSpans:
    """Item spans to train on, in a padded batch."""

    sample: Int64[np.ndarray, " spans"]  # Row of the batch
    start: Int64[np.ndarray, " spans"]  # Index of the token that opens the span
    end: Int64[np.ndarray, " spans"]  # Index behind the token that closes it
    row: Int64[np.ndarray, " spans"]  # Item row


@dataclass(frozen=True)
class ScopedTargets(Movable):
    """What each position of a batch is trained on, flattened.

    A *position* is an index into the batch's hidden states ``[batch * length, hidden]``; the state
    at a position predicts the token behind it. Decisions at one node stand together, and nodes of
    like size share one padded *block* of ``nodes x decisions x children`` logits.
    """

    free_position: Int64[Tensor, " free"]  # Positions with a softmax over the whole vocabulary
    free_token: Int64[Tensor, " free"]  # Token each of them is trained on
    free_in_span: Bool[Tensor, " free"]  # Whether that token is inside an item span
    block_shape: tuple[tuple[int, int, int], ...]  # Nodes, decisions a node, children a node
    decision_position: Int64[Tensor, " decisions"]  # Block after block
    decision_choice: Int64[Tensor, " decisions"]  # Index of the right child; -1 for padding
    child_token: Int64[Tensor, " children"]  # Block after block; -1 for padding
    num_labels: int  # Labelled positions, those with a single continuation included
    soft: SoftChoices | None = None  # What else decisions are trained on than the right child


def scoped_targets(
    trie: ItemTrie,
    input_ids: Integer[np.ndarray, "batch length"],
    labelled: Bool[np.ndarray, "batch length"],
    spans: LabelledSpans,
    *,
    eoi_token_id: int,
    scope: ScopeType = "every",
    soft: tuple[ItemPaths, SpanTargets] | None = None,
) -> ScopedTargets:
    """Sorts the labels of a batch into free tokens and decisions at nodes of the trie.

    All tokens inside ``spans`` are labels; those that open one are where ``labelled`` says so. The
    published types are 1 for the scope ``branching``, 2 for ``open`` and 3 for ``every``; there 2
    and 3 are one, as only the closing token could tell them apart. ``off`` is training without a
    scope mask, where all labels are free tokens. With ``soft``, which needs decisions, those of
    each span are trained on what it says.
    """
    length = input_ids.shape[1]
    decisions = trie.decisions_of(spans.row)
    count = np.diff(decisions.offsets)
    owner = np.repeat(np.arange(len(spans.row)), count)
    _check_whole(input_ids, spans, decisions.depth, owner, eoi_token_id)

    first = spans.sample * length + spans.start
    position = first[owner] + decisions.depth
    inside = _inside(spans, input_ids.shape)
    free = labelled & ~inside
    free[:, 0] = False
    num_labels = int(np.count_nonzero(free)) + int((spans.end - spans.start - 1).sum())

    full = free.reshape(-1)
    if scope == "off":
        assert soft is None
        return _laid_out(num_labels, input_ids, full | inside.reshape(-1), inside, _NO_BLOCKS)
    if scope == "branching":
        full = full | inside.reshape(-1)
        full[position + 1] = False
    elif scope == "open":
        close = spans.sample * length + spans.end - 1
        full[close] = True
        full[position + 1] = False
    blocks = _blocks(trie, position, decisions.node, decisions.choice, eoi_token_id)
    choices = None if soft is None else soft[0].choices(soft[1], decisions, blocks.places)
    return _laid_out(num_labels, input_ids, full, inside, blocks, choices)


def free_targets(
    input_ids: Integer[np.ndarray, "batch length"],
    labelled: Bool[np.ndarray, "batch length"],
    spans: LabelledSpans,
) -> ScopedTargets:
    """The labels of a batch outside ``spans``, over the whole vocabulary; none inside them."""
    inside = _inside(spans, input_ids.shape)
    free = labelled & ~inside
    free[:, 0] = False
    return _laid_out(int(np.count_nonzero(free)), input_ids, free, inside, _NO_BLOCKS)


def scoped_cross_entropy(
    hidden: Float[Tensor, "*batch hidden"],
    weight: Float[Tensor, "vocab hidden"],
    targets: ScopedTargets,
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    loss: LossType = "plain",
    gamma: float = 2.0,
    num_labels: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Mean loss of the labelled positions, in nats: their sum divided by ``num_labels``, if given.

    The focal loss (arXiv 1708.02002) weights a position by ``(1 - p) ** gamma``; ``focal-items``
    does so inside spans only, on all of their positions. The published one leaves out those whose
    softmax runs over the whole vocabulary. Without any label it is 0, with zero gradients.
    """
    states = hidden.reshape(-1, hidden.shape[-1])
    num_free = len(targets.free_position)
    at = torch.cat([targets.free_position, targets.decision_position])
    labelled = states.index_select(0, at)
    free, deciding = labelled[:num_free], labelled[num_free:]
    weighted = targets.free_in_span
    if loss != "focal-items":
        weighted = torch.full_like(weighted, loss == "focal")
    token = targets.child_token.clamp(min=0)
    total, rows = free_loss_and_rows(free, weight, bias, targets.free_token, weighted, gamma, token)
    if targets.block_shape:
        biases = None if bias is None else bias.index_select(0, token)
        logits = _logits(deciding, rows, biases, targets)
        if targets.soft is not None:
            # The weight of the focal loss asks for the probability of one right choice.
            assert loss == "plain"
            total = total + _soft_decisions(logits, targets, targets.soft)
        else:
            surprise = _decisions(logits, targets)
            if loss != "plain":
                surprise = focal(surprise, gamma)
            total = total + surprise.masked_fill(targets.decision_choice < 0, 0.0).sum()

    return averaged(total, targets.num_labels if num_labels is None else num_labels)


def averaged(total: Tensor, count: int | Tensor) -> Tensor:
    """A sum over its count; 0 where nothing was counted."""
    return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))


def _logits(
    states: Float[Tensor, "decisions hidden"],
    rows: Float[Tensor, "children hidden"],
    biases: Float[Tensor, " children"] | None,
    targets: ScopedTargets,
) -> Iterator[Float[Tensor, "nodes decisions children"]]:
    """Logits of each decision for the children of its node, block after block."""
    padding = targets.child_token < 0
    lowest = float("-inf") if targets.soft is None else NO_CHILD
    child = decision = 0
    for nodes, each, children in targets.block_shape:
        block = slice(child, child + nodes * children)
        here = slice(decision, decision + nodes * each)
        logits = torch.matmul(
            states[here].view(nodes, each, -1), rows[block].view(nodes, children, -1).mT
        )
        if biases is not None:
            logits = logits + biases[block].view(nodes, 1, children)
        yield logits.float().masked_fill(padding[block].view(nodes, 1, children), lowest)
        child, decision = block.stop, here.stop


def _decisions(
    logits: Iterator[Float[Tensor, "nodes decisions children"]], targets: ScopedTargets
) -> Float[Tensor, " decisions"]:
    """Cross entropy of each decision among the children of its node."""
    sizes = [nodes * each for nodes, each, _ in targets.block_shape]
    choices = torch.split_with_sizes(targets.decision_choice.clamp(min=0), sizes)
    return torch.cat([
        functional.cross_entropy(block.flatten(0, 1), choice, reduction="none")
        for block, choice in zip(logits, choices, strict=True)
    ])  # fmt: skip


def _soft_decisions(
    logits: Iterator[Float[Tensor, "nodes decisions children"]],
    targets: ScopedTargets,
    soft: SoftChoices,
) -> Float[Tensor, ""]:
    """Sum of the cross entropies of all decisions against their distributions."""
    slots = [nodes * each for nodes, each, _ in targets.block_shape]
    children = [nodes * each for nodes, _, each in targets.block_shape]
    columns = (
        (targets.decision_choice, slots),
        (soft.hard, slots),
        (soft.even, slots),
        (soft.below, children),
        (soft.listed, soft.listed_in),
        (soft.extra, soft.listed_in),
    )
    parts = (torch.split_with_sizes(values, sizes) for values, sizes in columns)
    sums = [
        soft_cross_entropy(block, choice, hard, even, below.view(len(block), -1), *listed)
        for block, choice, hard, even, below, *listed in zip(logits, *parts, strict=True)
    ]
    return torch.stack(sums).sum()


def _inside(spans: LabelledSpans, shape: tuple[int, ...]) -> Bool[np.ndarray, "batch length"]:
    """Tokens of spans behind the one that opens them."""
    edges = np.zeros(shape[0] * shape[1] + 1, dtype=np.int32)
    first = spans.sample * shape[1]
    np.add.at(edges, first + spans.start + 1, 1)
    np.add.at(edges, first + spans.end, -1)
    return np.cumsum(edges[:-1]).astype(np.bool_).reshape(shape)


def _check_whole(
    input_ids: np.ndarray,
    spans: LabelledSpans,
    depth: np.ndarray,
    owner: np.ndarray,
    eoi_token_id: int,
) -> None:
    """Refuses a span that leaves the batch, is not closed, or is not as long as its item."""
    size = spans.end - spans.start - 2
    bad = (spans.start < 0) | (size < 1) | (spans.end > input_ids.shape[1])
    if not bad.any():
        bad = input_ids[spans.sample, spans.end - 1] != eoi_token_id
        bad[owner[depth > size[owner]]] = True
    if bad.any():
        span = int(np.flatnonzero(bad)[0])
        raise TrieError(
            f"sample {spans.sample[span]}, span of item row {spans.row[span]} at token "
            f"{spans.start[span]}: is not whole; cut samples by items, never inside a span"
        )


def _blocks(
    trie: ItemTrie,
    position: Int64[np.ndarray, " decisions"],
    node: Integer[np.ndarray, " decisions"],
    choice: Integer[np.ndarray, " decisions"],
    eoi_token_id: int,
) -> _Blocks:
    """Puts decisions into padded blocks; see :class:`ScopedTargets`."""
    if not len(node):
        return _NO_BLOCKS
    order = np.argsort(node, kind="stable")
    nodes, first, each = np.unique(node[order], return_index=True, return_counts=True)
    edges = trie.arrays.node_edges[nodes].astype(np.int64)
    children = trie.arrays.node_edges[nodes + 1].astype(np.int64) - edges

    # Nodes whose sizes round up to the same powers of four share a block.
    key = _magnitude(each) * 64 + _magnitude(children)
    large = np.flatnonzero(each * children >= _OWN_PRODUCT)
    key[large] = -1 - np.arange(len(large))
    shapes: list[tuple[int, int, int]] = []
    decisions, logits, tree = [], [], []
    for kind in np.unique(key):
        members = np.flatnonzero(key == kind)
        width, most = int(children[members].max()), int(each[members].max())
        shapes.append((len(members), most, width))
        at, real = _padded(first[members], each[members], most)
        decisions.append(np.where(real, order[at], -1))
        logits.append(np.arange(len(at)) * width)
        at, real = _padded(edges[members], children[members], width)
        tree.append(np.where(real, at, -1))
    decision, edge = np.concatenate(decisions), np.concatenate(tree)
    ends = np.cumsum([len(part) for part in decisions])
    token = trie.arrays.edge_token[edge].astype(np.int64)
    token[token == CLOSE] = eoi_token_id
    return _Blocks(
        tuple(shapes),
        Slots(decision, np.concatenate(logits), edge, ends),
        # What pads reads some state, and decides nothing.
        position[decision],
        np.where(decision < 0, -1, choice[decision]).astype(np.int64),
        np.where(edge < 0, -1, token),
    )


def _laid_out(
    num_labels: int,
    input_ids: np.ndarray,
    free: np.ndarray,
    inside: np.ndarray,
    blocks: _Blocks,
    soft: SoftChoices | None = None,
) -> ScopedTargets:
    tokens = np.flatnonzero(free)
    labels = tokens - 1, input_ids.reshape(-1)[tokens].astype(np.int64), inside.reshape(-1)[tokens]
    at, token, in_span = map(torch.from_numpy, labels)
    position, choice, child = map(torch.from_numpy, blocks[2:])
    shapes = blocks.shapes
    return ScopedTargets(at, token, in_span, shapes, position, choice, child, num_labels, soft)


def _magnitude(size: np.ndarray) -> Int64[np.ndarray, " sizes"]:
    magnitude: Int64[np.ndarray, " sizes"] = np.ceil(np.log2(size) / 2).astype(np.int64)
    return magnitude


def _padded(
    first: np.ndarray, count: np.ndarray, width: int
) -> tuple[Int64[np.ndarray, " slots"], Bool[np.ndarray, " slots"]]:
    """Indices of segments padded to ``width``, and which of them are real."""
    offset = np.arange(width)
    real = offset < count[:, None]
    return (first[:, None] + np.where(real, offset, 0)).reshape(-1), real.reshape(-1)
