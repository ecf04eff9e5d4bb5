"""Text encoders: a sentence-transformers model, or the mean of a language model's last layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from incatalog.errors import BackboneError, require
from incatalog.items.tokens import token_rows
from incatalog.model.pretrained import check_weights, load_decoder, loading, minilm, source_of

MINILM = "minilm"

EncoderKind = Literal["sentence", "causal"]


class TextEncoder(Protocol):
    """Makes a vector of each text, which does not depend on the other texts of a batch."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that it reads."""

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """Number of tokens of each text, with those the tokenizer adds, before any cut."""

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts hidden"]:
        """One vector a text; all texts form one batch."""


@dataclass(frozen=True)
class CausalEncoder:
    """The last hidden layer of a causal language model, averaged over the tokens of a text.

    This is how item vectors were made for LC-Rec (arXiv 2311.09049) and RecLM: all tokens count
    alike, the one that opens a text included.
    """

    decoder: Any
    tokenizer: PreTrainedTokenizerFast
    max_tokens: int

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """See :class:`TextEncoder`."""
        return _lengths(token_rows(texts, self.tokenizer, split_special_tokens=True))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts hidden"]:
        """See :class:`TextEncoder`."""
        # A special token in the name of an item stays text.
        rows = token_rows(texts, self.tokenizer, split_special_tokens=True)
        rows = [row[: self.max_tokens] for row in rows]
        # Padded on the right, where causal attention does not look.
        longest = max(1, *map(len, rows))
        input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        input_ids, mask = input_ids.to(self.decoder.device), mask.to(self.decoder.device)
        hidden = self.decoder(input_ids=input_ids, attention_mask=mask.long(), use_cache=False)
        vectors: np.ndarray = masked_mean(hidden.last_hidden_state, mask).cpu().numpy()
        return vectors


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence-transformers model with its own pooling."""

    model: Any
    max_tokens: int

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """See :class:`TextEncoder`."""
        return _lengths(token_rows(texts, self.model.tokenizer, truncation=False))

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts hidden"]:
        """See :class:`TextEncoder`."""
        vectors = self.model.encode(
            list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True
        )
        found: np.ndarray = vectors.float().cpu().numpy()
        return found


def _lengths(rows: list[list[int]]) -> Int64[np.ndarray, " texts"]:
    return np.array([len(row) for row in rows], dtype=np.int64)


def masked_mean(
    hidden: Float[Tensor, "batch length hidden"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch hidden"]:
    """Mean over the positions that ``mask`` keeps, in float32; NaN where it keeps none."""
    # Not a product with the mask: padding may hold infinities in half precision.
    kept = hidden.float().masked_fill(~mask[..., None], 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True)


def encoder_folder(kind: EncoderKind, model: str) -> Path | None:
    """The folder an encoder is loaded from; None for a model of the hub."""
    own = kind == "sentence"
    folder = Path(minilm() if own and model == MINILM else source_of(model))
    if not folder.is_dir():
        return None
    if own and not (folder / "modules.json").exists():
        found = "holds no modules.json, so it is no sentence-transformers model"
        hint = "for a language model add --encoder causal"
        raise BackboneError(f"--model {model}: {found}; {hint}")
    return folder


def load_encoder(
    kind: EncoderKind,
    model: str,
    device: torch.device,
    *,
    max_tokens: int,
    dtype: torch.dtype | None = None,
) -> TextEncoder:
    """Loads an encoder; None as type takes bfloat16 on CUDA and float32 elsewhere."""
    if dtype is None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    folder = encoder_folder(kind, model)
    if kind == "causal":
        decoder, tokenizer = load_decoder(model, device, dtype)
        longest = getattr(decoder.config.get_text_config(), "max_position_embeddings", None)
        return CausalEncoder(decoder, tokenizer, min(max_tokens, longest or max_tokens))
    sentence_transformers = require("sentence_transformers", extra="items")
    options = {"local_files_only": folder is not None, "model_kwargs": {"dtype": dtype}}
    with loading(model):
        name = str(folder or model)
        sentence = sentence_transformers.SentenceTransformer(name, device=str(device), **options)
        for module in sentence.modules():
            if isinstance(module, PreTrainedModel):
                # Read a second time, without memory for the weights: sentence-transformers does
                # not make sure that all of them came from the files.
                _, loaded = type(module).from_pretrained(
                    module.name_or_path, output_loading_info=True, device_map="meta"
                )
                # Sentence vectors come from the last layer; a pooler stands behind it.
                check_weights(model, loaded, unused="pooler.")
    if not isinstance(sentence.tokenizer, PreTrainedTokenizerBase):
        raise BackboneError(f"--model {model}: reads no text by tokens; choose another model")
    limit = min(max_tokens, sentence.max_seq_length or max_tokens)
    sentence.max_seq_length = limit
    return SentenceEncoder(sentence.eval(), limit)
