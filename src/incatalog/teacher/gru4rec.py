"""GRU4Rec: a recurrent network over item sequences (arXiv 1511.06939), beside SASRec.

Torch's GRU between the item embeddings and scores of SASRec, trained by the same full softmax over
each next item; sampled losses of the paper are not here. Sizes have the names of SASRec's, of which
it reads no heads and no inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional

from incatalog.teacher.sasrec import Hidden, SasRec, SasRecSizes, initialise


class Gru4Rec(SasRec):
    """Hidden states of histories by a GRU; the rest is as in SASRec."""

    kind: ClassVar[str] = "gru4rec"

    def __init__(self, sizes: SasRecSizes) -> None:
        """Draws weights from torch's global generator."""
        nn.Module.__init__(self)
        self.sizes = sizes
        between = sizes.dropout if sizes.layers > 1 else 0.0
        self.item_embedding = nn.Embedding(sizes.num_items + 1, sizes.hidden, padding_idx=0)
        self.gru = nn.GRU(
            sizes.hidden, sizes.hidden, sizes.layers, batch_first=True, dropout=between
        )
        self.dense = nn.Linear(sizes.hidden, sizes.hidden)
        self.apply(initialise)
        with torch.no_grad():
            self.item_embedding.weight[0].zero_()

    def forward(self, items: Int64[Tensor, "batch length"]) -> Hidden:
        """Hidden state at every position, at most `max_length`; at padding it means nothing."""
        # Padding moves from the left to the right, where what reads from left to right is past it.
        length = items.shape[1]
        places = torch.arange(length, device=items.device)
        padding = (items == 0).sum(1, keepdim=True)
        first = items.gather(1, (places + padding) % length) if length else items
        seen = functional.dropout(self.item_embedding(first), self.sizes.dropout, self.training)
        hidden: Tensor = self.dense(self.gru(seen)[0]) if length else seen
        back = (places - padding) % max(length, 1)
        return hidden.gather(1, back[:, :, None].expand_as(hidden))

    def _hidden(self, items: Int64[Tensor, "batch length"], asked: int) -> Hidden:
        hidden: Tensor = self(items)[:, -asked:]
        return hidden


NETWORKS: Mapping[str, type[SasRec]] = {one.kind: one for one in (SasRec, Gru4Rec)}
