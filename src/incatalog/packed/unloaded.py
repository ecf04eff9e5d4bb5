"""The place of a model that another engine holds: it has sizes and settings, and feeds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch

from incatalog.errors import BackboneError
from incatalog.model.backbone import Backbone
from incatalog.model.outline import load_outline
from incatalog.model.saved import load_model
from incatalog.model.spec import ModelSpec
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


def load_packed(
    folder: str | Path, device: str, *, weights: bool, verify: bool, frozen: bool
) -> tuple[Backbone, ModelSpec, PackedModel]:
    """A trained model and how it is fed: with its weights, or in outline for another engine."""
    if not weights:
        backbone, spec = load_outline(folder, verify=verify)
        return backbone, spec, UnloadedModel(backbone.model)
    backbone, spec = load_model(folder, device, verify=verify)
    return backbone, spec, PackedModel(backbone.model, frozen=frozen)
