"""Cross entropy over all items at the states that open item spans (RecLM-ret, arXiv 2505.03336).

What is said around items is trained as language, over the whole vocabulary. The tokens of an item
itself carry no loss: decoding splices them in, the model never chooses among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.nn import functional

from incatalog.errors import TrieError
from incatalog.model.head import RetrievalHead
from incatalog.training.losses import LabelledSpans, ScopedTargets, free_targets


@dataclass(frozen=True)
class Retrieval:
    """The part of retrieval in a loss.

    Attributes:
        head: What finds items; trained with the model.
        weight: Factor of its loss beside that of the language.
        negatives: Random items that stand for all others in training; 0 for the exact softmax.
        only_head: Leave the loss of the language out.
    """

    head: RetrievalHead
    weight: float = 1.0
    negatives: int = 0
    only_head: bool = False


@dataclass(frozen=True)
class ItemTargets:
    """Which item each opened span is to name.

    Attributes:
        position: Index into the batch's hidden states ``[batch * length, hidden]`` of the state
            that predicts the opening token.
        row: Item row.
    """

    position: Int64[Tensor, " spans"]
    row: Int64[Tensor, " spans"]

    def __len__(self) -> int:
        return len(self.row)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ItemTargets:
        """The same targets on another device."""
        return replace(
            self,
            position=self.position.to(device, non_blocking=non_blocking),
            row=self.row.to(device, non_blocking=non_blocking),
        )


def retrieval_targets(
    input_ids: Integer[np.ndarray, "batch length"],
    labelled: Bool[np.ndarray, "batch length"],
    spans: LabelledSpans,
) -> tuple[ScopedTargets, ItemTargets]:
    """Sorts the labels of a batch into language and items.

    Args:
        input_ids: Token ids, padded on the right.
        labelled: Tokens to train on; those inside ``spans`` are left out, the token that opens a
            span is not.
        spans: Item spans to train on.

    Raises:
        TrieError: A span begins a sample, so that no state predicts it.
    """
    if (spans.start < 1).any():
        sample = int(spans.sample[np.argmin(spans.start)])
        raise TrieError(
            f"sample {sample}: begins with an item span; expected text before it, whose state "
            "finds the item"
        )
    position = spans.sample * input_ids.shape[1] + spans.start - 1
    items = ItemTargets(torch.from_numpy(position), torch.from_numpy(spans.row))
    return free_targets(input_ids, labelled, spans), items


def retrieval_cross_entropy(
    hidden: Float[Tensor, "*batch hidden"],
    head: RetrievalHead,
    targets: ItemTargets,
    *,
    negatives: int = 0,
    num_spans: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy of the right item among all items.

    With ``negatives`` the sum over all items is estimated: the items of the batch stand for
    themselves, and as many random items, weighted up, for all others. The estimate of the sum is
    right on average, whatever the batch holds.

    Args:
        hidden: States before the output layer.
        head: The retrieval head.
        targets: Where which item is right.
        negatives: Random items to draw, uniformly; 0 for the exact sum.
        num_spans: Divide by this many spans instead of those of ``targets``; for batches that are
            shared by several steps or processes.

    Returns:
        In nats; 0 with zero gradients if there is no span.
    """
    states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, targets.position)
    query = head.query(states)
    if negatives:
        drawn = torch.randint(len(head), (negatives,), device=query.device)
        scores, right = sampled_scores(query, head, targets.row, drawn)
    else:
        scores, right = head.scores(query), targets.row
    total = functional.cross_entropy(scores, right, reduction="sum")
    if num_spans is None:
        num_spans = len(targets)
    if isinstance(num_spans, Tensor):
        return total / num_spans.clamp(min=1)
    return total / max(num_spans, 1)


def sampled_scores(
    query: Float[Tensor, "spans dim"],
    head: RetrievalHead,
    rows: Int64[Tensor, " spans"],
    drawn: Int64[Tensor, " negatives"],
) -> tuple[Float[Tensor, "spans candidates"], Int64[Tensor, " spans"]]:
    """Scores of the batch's own items and of drawn ones, and where each span's own item stands.

    Each drawn item stands for ``items / negatives`` items, which its score is raised by the
    logarithm of (importance sampling of the softmax's denominator: Bengio and Senécal, 2003). One
    that is among the batch's own items counts as not drawn.
    """
    own, right = torch.unique(rows, return_inverse=True)
    weight = math.log(len(head) / len(drawn))
    others = head.scores(query, drawn) + weight
    others = others.masked_fill(torch.isin(drawn, own), float("-inf"))
    return torch.cat([head.scores(query, own), others], dim=1), right
