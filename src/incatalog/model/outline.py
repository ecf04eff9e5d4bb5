"""A language model without its weights, where another engine holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from incatalog.checksums import verify_checksums
from incatalog.errors import BackboneError, TokenizerError
from incatalog.items.tokens import OUR_NAMES, control_token_ids, tokenizer_fingerprint
from incatalog.model.backbone import Backbone
from incatalog.model.pretrained import check_settings, fast_tokenizer, loading, source_of
from incatalog.model.saved import is_adapter
from incatalog.model.spec import ModelSpec, load_spec, spec_file
from incatalog.model.vocabulary import check_control_names, check_own_ids, code_token_ids


def load_outline(folder: str | Path, *, verify: bool = True) -> tuple[Backbone, ModelSpec]:
    """What `load_model` loads of a trained model, but for its weights, which lie on no device.

    Raises:
        BackboneError: It is an adapter, or retrieves items by states that another engine keeps.
    """
    folder = Path(folder)
    if verify:
        verify_checksums(folder)
    spec = load_spec(folder)
    if is_adapter(folder):
        why = "is an adapter, and another engine wants a whole model"
        hint = f"merge it: incatalog train merge --run {folder} --out FOLDER"
        raise BackboneError(f"{folder}: {why}; {hint}")
    if spec.method == "ret":
        why = "retrieves items by the model's states, which another engine does not give"
        raise BackboneError(f"{folder}: {why}; serve it with --engine incatalog")
    backbone = _outline(folder, folder)
    tokenizer = backbone.tokenizer
    codes = code_token_ids(tokenizer, spec.code_sizes)
    control = control_token_ids(tokenizer, spec.control)
    if tokenizer_fingerprint(tokenizer) != spec.tokenizer_fingerprint:
        raise TokenizerError(
            f"{folder}: its tokenizer is not the one that {spec_file(folder)} was written with; "
            "restore it or train the model again"
        )
    found = Backbone(backbone.model, tokenizer, *control, codes)
    check_own_ids(tokenizer, found.new_token_ids)
    return found, spec


def load_plain_outline(name_or_path: str | Path, *, verify: bool = True) -> Backbone:
    """What `load_plain_backbone` loads of a chat model that was never trained, but its weights.

    The tokens that open and close item spans are the tokenizer's alone: the model that another
    engine holds has no row for them, and can write none.
    """
    source = source_of(name_or_path)
    if verify and Path(source).is_dir():
        verify_checksums(source)
    backbone = _outline(source, name_or_path)
    tokenizer = backbone.tokenizer
    if set(OUR_NAMES) <= tokenizer.get_vocab().keys():
        knows = f"its vocabulary has {' and '.join(OUR_NAMES)}, so it was trained on a catalog"
        hint = "`incatalog model import` takes such a model, after which every command knows it"
        raise BackboneError(f"{name_or_path}: {knows} elsewhere; {hint}")
    check_control_names(tokenizer, OUR_NAMES)
    tokenizer.add_tokens(list(OUR_NAMES), special_tokens=True)
    return Backbone(backbone.model, tokenizer, *control_token_ids(tokenizer, OUR_NAMES))


def _outline(source: str | Path, name: str | Path) -> Backbone:
    """Sizes, settings and tokenizer of a model; its control tokens are not looked for."""
    with loading(name, "config.json"):
        config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    tokenizer = fast_tokenizer(source, name)
    if (Path(source) / GENERATION_CONFIG_NAME).exists():
        with loading(name, GENERATION_CONFIG_NAME):
            model.generation_config = GenerationConfig.from_pretrained(source)
    check_settings(name, tokenizer, model)
    if not tokenizer.chat_template:
        raise BackboneError(
            f"{name}: its tokenizer has no chat template; choose an instruction-tuned model"
        )
    return Backbone(model.eval(), tokenizer, -1, -1)
