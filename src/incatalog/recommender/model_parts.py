"""What a trained model's folder gives a recommender: how it is asked, and its weights."""

from __future__ import annotations

from pathlib import Path

from incatalog.dialogue.templates import asking_wording, wording_named
from incatalog.errors import BackboneError, ConfigError
from incatalog.model.backbone import Backbone
from incatalog.model.outline import load_outline
from incatalog.model.saved import load_model
from incatalog.model.spec import ModelSpec, load_spec, require_spans, spec_file
from incatalog.packed.model import PackedModel
from incatalog.packed.unloaded import UnloadedModel


def checked_spec(folder: str | Path, wording: str | None) -> ModelSpec:
    """How a model is asked, if it writes spans and its own wording and the one given are known."""
    spec = load_spec(folder)
    require_spans(folder, spec)
    try:
        wording_named(spec.wording)
    except ConfigError as error:
        raise BackboneError(f"{spec_file(folder)}: wording: {error}") from error
    if wording is not None:
        asking_wording(wording)
    return spec


def load_packed(
    folder: str | Path, device: str, *, weights: bool, frozen: bool, verify: bool
) -> tuple[Backbone, PackedModel]:
    """The model as the engine feeds it; without its weights where another engine has them."""
    if weights:
        backbone, _ = load_model(folder, device, verify=verify)
        return backbone, PackedModel(backbone.model, frozen=frozen)
    backbone, _ = load_outline(folder, verify=verify)
    return backbone, UnloadedModel(backbone.model)
