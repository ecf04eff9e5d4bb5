"""Cross entropy over all items at the states that open item spans (RecLM-ret, arXiv 2505.03336).

What is said around items is trained as language, over the whole vocabulary. The tokens of an item
carry no loss: decoding puts them in, and the model never chooses among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.nn import functional

from incatalog.errors import TrieError
from incatalog.model.head import RetrievalHead
from incatalog.training.losses import LabelledSpans, ScopedTargets, averaged, free_targets
from incatalog.training.movable import Movable
from incatalog.training.soft_loss import soft_cross_entropy
from incatalog.training.soft_targets import SoftChoices, SpanTargets, item_choices


@dataclass(frozen=True)
class Retrieval:
    """The part of retrieval in a loss."""

    head: RetrievalHead  # What finds items; trained with the model
    weight: float = 1.0  # Factor of its loss beside that of the language
    negatives: int = 0  # Random items that stand for all others; 0 for the exact softmax
    only_head: bool = False  # Leave the loss of the language out


@dataclass(frozen=True)
class ItemTargets(Movable):
    """Which item each opened span is to name."""

    position: Int64[Tensor, " spans"]  # In the flattened batch, of the state before the span
    row: Int64[Tensor, " spans"]  # Item row
    soft: SoftChoices | None = None  # What else it could name

    def __len__(self) -> int:
        return len(self.row)


def retrieval_targets(
    input_ids: Integer[np.ndarray, "batch length"],
    labelled: Bool[np.ndarray, "batch length"],
    spans: LabelledSpans,
    soft: tuple[int, SpanTargets] | None = None,
) -> tuple[ScopedTargets, ItemTargets]:
    """Sorts the labels of a batch into language and items.

    With ``soft``, the number of items and what each span could name, that is trained on.
    """
    if (spans.start < 1).any():
        sample = int(spans.sample[np.argmin(spans.start)])
        raise TrieError(
            f"sample {sample}: begins with an item span; expected text before it, whose state "
            "finds the item"
        )
    position = spans.sample * input_ids.shape[1] + spans.start - 1
    choices = None if soft is None else item_choices(soft[1], soft[0])
    items = ItemTargets(torch.from_numpy(position), torch.from_numpy(spans.row), choices)
    return free_targets(input_ids, labelled, spans), items


def retrieval_cross_entropy(
    hidden: Float[Tensor, "*batch hidden"],
    head: RetrievalHead,
    targets: ItemTargets,
    *,
    negatives: int = 0,
    num_spans: int | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy, in nats, of the right item among all items; see `scoped_cross_entropy`.

    With ``negatives`` the sum over all items is estimated, without bias: the items of the batch
    stand for themselves, and as many random items, weighted up, for all others.
    """
    states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, targets.position)
    query = head.query(states)
    count = len(targets) if num_spans is None else num_spans
    if (soft := targets.soft) is not None:
        # Its sum is over all items; some drawn ones do not say what the others are to have.
        assert not negatives
        terms = soft.hard, soft.even, soft.below[None], soft.listed, soft.extra
        return averaged(soft_cross_entropy(head.scores(query)[None], targets.row, *terms), count)
    if negatives:
        drawn = torch.randint(len(head), (negatives,), device=query.device)
        scores, right = sampled_scores(query, head, targets.row, drawn)
    else:
        scores, right = head.scores(query), targets.row
    total = functional.cross_entropy(scores, right, reduction="sum")
    return averaged(total, count)


def sampled_scores(
    query: Float[Tensor, "spans dim"],
    head: RetrievalHead,
    rows: Int64[Tensor, " spans"],
    drawn: Int64[Tensor, " negatives"],
) -> tuple[Float[Tensor, "spans candidates"], Int64[Tensor, " spans"]]:
    """Scores of the batch's own items and of drawn ones, and where each span's own item stands.

    Each drawn item stands for ``items / negatives`` items, so the logarithm of that is added to its
    score (importance sampling of the softmax's denominator: Bengio and Senécal, 2003). A drawn item
    that is among the batch's own does not count.
    """
    own, right = torch.unique(rows, return_inverse=True)
    weight = math.log(len(head) / len(drawn))
    others = head.scores(query, drawn) + weight
    others = others.masked_fill(torch.isin(drawn, own), float("-inf"))
    return torch.cat([head.scores(query, own), others], dim=1), right
