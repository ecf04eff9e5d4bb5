"""Cross entropy over all items at the states that open item spans (RecLM-ret, arXiv 2505.03336).

What is said around items is trained as language, over the whole vocabulary. The tokens of an item
carry no loss: decoding puts them in, and the model never chooses among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    # Items that a span cannot name, and which span that is; each span's own is not among them.
    barred_span: Int64[Tensor, " barred"] | None = None
    barred_row: Int64[Tensor, " barred"] | None = None

    def __len__(self) -> int:
        return len(self.row)


class Barred(NamedTuple):
    """Items that spans of a batch cannot name."""

    span: Int64[np.ndarray, " barred"]
    row: Int64[np.ndarray, " barred"]


def seen_before(rows: Sequence[int], trained: Sequence[bool]) -> Barred:
    """The items of a sample that stand before each trained span, without the span's own.

    Spans are numbered among the trained ones.
    """
    pairs = [
        (span, row)
        for span, place in enumerate(np.flatnonzero(np.asarray(trained, dtype=bool)).tolist())
        for row in set(rows[:place]) - {rows[place]}
    ]
    return Barred(*np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T)


def retrieval_targets(
    input_ids: Integer[np.ndarray, "batch length"],
    labelled: Bool[np.ndarray, "batch length"],
    spans: LabelledSpans,
    soft: tuple[int, SpanTargets] | None = None,
    barred: Barred | None = None,
) -> tuple[ScopedTargets, ItemTargets]:
    """Sorts the labels of a batch into language and items.

    With ``soft``, the number of items and what each span could name, that is trained on. Items that
    are ``barred`` from a span have no part of its softmax.
    """
    if (spans.start < 1).any():
        sample = int(spans.sample[np.argmin(spans.start)])
        raise TrieError(
            f"sample {sample}: begins with an item span; expected text before it, whose state "
            "finds the item"
        )
    position = spans.sample * input_ids.shape[1] + spans.start - 1
    choices = None if soft is None else item_choices(soft[1], soft[0])
    rows = torch.from_numpy(spans.row)
    never = () if barred is None else (torch.from_numpy(barred.span), torch.from_numpy(barred.row))
    items = ItemTargets(torch.from_numpy(position), rows, choices, *never)
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
    # Barred items are taken out of the plain softmax over all items alone.
    assert targets.barred_row is None or (targets.soft is None and not negatives)
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
        if targets.barred_span is not None and targets.barred_row is not None:
            never = scores.new_tensor(-math.inf)
            scores = scores.index_put((targets.barred_span, targets.barred_row), never)
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
