"""The place of a model that another engine holds: it has sizes and settings, and feeds nothing."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from incatalog.errors import BackboneError
from incatalog.packed.model import PackedModel


class UnloadedModel(PackedModel):
    """A model of which only the outline is here; whoever feeds it gets a BackboneError."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = torch.device("meta")
        self.vocabulary_size = len(model.get_input_embeddings().weight)

    def forward(self, *_: object) -> NoReturn:
        """Refuses."""
        self._refuse()

    def forward_branches(self, *_: object) -> NoReturn:
        """Refuses."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise BackboneError(
            "the weights of the model are in another engine, which answers for it; "
            "ask that one, or serve with --engine incatalog"
        )
