"""The language model under a recommender: create, load, adapt, save and merge it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from incatalog.checksums import verify_checksums
from incatalog.devices import resolve_device
from incatalog.errors import BackboneError
from incatalog.items.tokens import OUR_NAMES, ControlNames, control_token_ids
from incatalog.model.head import RetrievalHead
from incatalog.model.pretrained import load_pretrained, loading, source_of
from incatalog.model.tiny import TinyConfig, create_tiny_model, train_tokenizer
from incatalog.model.vocabulary import (
    SPREAD,
    add_code_tokens,
    add_special_tokens,
    check_control_names,
    check_own_ids,
)


@dataclass(frozen=True)
class Backbone:
    """A causal language model and a tokenizer that knows the control tokens."""

    model: Any  # The transformers model, wrapped by peft after `add_lora`
    tokenizer: PreTrainedTokenizerFast  # A fast tokenizer with a chat template
    soi_token_id: int  # Token that opens an item span
    eoi_token_id: int  # Token that closes it
    code_token_ids: tuple[int, ...] = ()  # Of semantic IDs, level by level; none for titles
    head: RetrievalHead | None = None  # Finds items by hidden states

    @property
    def control(self) -> ControlNames:
        """What the control tokens are called in the vocabulary."""
        ids = [self.soi_token_id, self.eoi_token_id]
        return ControlNames(*self.tokenizer.convert_ids_to_tokens(ids))

    @property
    def new_token_ids(self) -> list[int]:
        """Ids of the control and code tokens."""
        return [self.soi_token_id, self.eoi_token_id, *self.code_token_ids]


def create_tiny(
    texts: Sequence[str], sizes: TinyConfig | None = None, control: ControlNames = OUR_NAMES
) -> Backbone:
    """Creates an untrained Llama with a byte-level BPE trained on `texts`."""
    sizes = sizes or TinyConfig()
    tokenizer = train_tokenizer(texts, sizes.vocab_size)
    return _with_control_tokens(create_tiny_model(tokenizer, sizes), tokenizer, control)


def load_backbone(
    name_or_path: str | Path,
    *,
    attention: str = "sdpa",
    quantization: str = "none",
    dtype: torch.dtype | None = None,
    device: str = "auto",
    verify: bool = True,
    control: ControlNames = OUR_NAMES,
) -> Backbone:
    """Loads a chat model and adds the control tokens it lacks."""
    how: dict[str, Any] = {"attention": attention, "quantization": quantization, "dtype": dtype}
    model, tokenizer = _verified(name_or_path, device, verify=verify, **how)
    return checked(_with_control_tokens(model, tokenizer, control), str(name_or_path))


def load_plain_backbone(name_or_path: str | Path, device: str, *, verify: bool = True) -> Backbone:
    """Loads a chat model that was never trained on a catalog, to be asked as it is.

    Raises:
        BackboneError: It knows the control tokens, so that it was trained elsewhere, and would be
            asked in a way that it was not trained for.
    """
    model, tokenizer = _verified(name_or_path, device, verify=verify)
    if set(OUR_NAMES) <= tokenizer.get_vocab().keys():
        knows = f"its vocabulary has {' and '.join(OUR_NAMES)}, so it was trained on a catalog"
        hint = "`incatalog model import` takes such a model, after which every command knows it"
        raise BackboneError(f"{name_or_path}: {knows} elsewhere; {hint}")
    backbone = checked(_with_control_tokens(model, tokenizer, OUR_NAMES), str(name_or_path))
    backbone.model.eval()
    return backbone


def add_codes(backbone: Backbone, sizes: Sequence[int], spread: float = SPREAD) -> Backbone:
    """Adds the code tokens of semantic IDs to model and tokenizer, with rows to be trained."""
    new = add_code_tokens(backbone.model, backbone.tokenizer, sizes, spread)
    return dataclasses.replace(backbone, code_token_ids=new)


def base_model(model: nn.Module) -> nn.Module:
    """The decoder with its adapters, but without the output layer; see `output_rows`."""
    causal = unwrapped(model)
    decoder: nn.Module = getattr(causal, causal.base_model_prefix)
    return decoder


def output_rows(model: nn.Module) -> tuple[Float[Tensor, "vocab hidden"], Tensor | None]:
    """Weight and bias of the output layer as they act now, adapters included.

    `last_hidden_state @ weight.T + bias` are the model's logits. Gradients flow through the weight
    to what is trained: the whole layer, or the rows of the new tokens alone.
    """
    head: Any = unwrapped(model).get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def _verified(
    name_or_path: str | Path,
    device: str,
    *,
    verify: bool,
    attention: str = "sdpa",
    quantization: str = "none",
    dtype: torch.dtype | None = None,
) -> tuple[Any, PreTrainedTokenizerFast]:
    """Model and tokenizer as they lie there, the files checked where sums of them lie beside."""
    target, source = resolve_device(device), source_of(name_or_path)
    if verify and Path(source).is_dir():
        verify_checksums(source)
    how: dict[str, Any] = {"attention": attention, "quantization": quantization}
    return load_pretrained(name_or_path, target, dtype=dtype or torch.float32, **how)


def _with_control_tokens(
    model: Any, tokenizer: PreTrainedTokenizerFast, control: ControlNames
) -> Backbone:
    check_control_names(tokenizer, control)
    known = tokenizer.get_vocab()
    if missing := [token for token in control if token not in known]:
        add_special_tokens(model, tokenizer, missing)
    return Backbone(model, tokenizer, *control_token_ids(tokenizer, control))


def unwrapped(model: Any) -> Any:
    """The model without the wrapper of its adapters; the model itself where it has none."""
    adapted = hasattr(model, "peft_config") and hasattr(model, "get_base_model")
    return model.get_base_model() if adapted else model


@torch.no_grad()
def checked(backbone: Backbone, name: str) -> Backbone:
    """The backbone, if its special tokens are its own and its embeddings reach them."""
    model, tokens = backbone.model, max(backbone.tokenizer.get_vocab().values()) + 1
    check_own_ids(backbone.tokenizer, backbone.new_token_ids)
    layers = model.get_input_embeddings(), unwrapped(model).get_output_embeddings()
    rows = min(layer.weight.shape[0] for layer in layers)
    if rows < tokens:
        raise BackboneError(
            f"{name}: {rows} embedding rows for {tokens} tokens; model and tokenizer do not belong "
            "together"
        )
    # Losses and decoding use a few rows of the output layer and never call it; a model that scales
    # or caps its logits afterwards would be trained on other scores.
    ids = torch.arange(min(8, rows), device=model.device)[None]
    with loading(name, "weights or config.json"):
        weight, bias = output_rows(model)
        expected = nn.functional.linear(base_model(model)(ids).last_hidden_state, weight, bias)
        scores = model(ids).logits
    tolerance = 1e-3 if weight.dtype == torch.float32 else 1e-2
    if not torch.allclose(scores.float(), expected.float(), rtol=tolerance, atol=tolerance):
        raise BackboneError(
            f"{name}: transforms the scores of its output layer (soft-capping or scaling), which "
            "is not supported; choose another model"
        )
    return backbone
