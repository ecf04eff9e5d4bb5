"""A few million parameters from scratch: a Llama with a byte-level BPE of its own texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incatalog.errors import ConfigError

_PAD, _TURN, _END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL = (_PAD, _TURN, _END_OF_TURN)
# Words, each with the space before it. Punctuation stays with its word, digits stay together: a
# year in brackets is part of many titles, and one token is a shorter answer than four.
_WORDS = r" ?[^\s]+|\s+(?!\S)|\s"
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of a tiny model."""

    vocab_size: int = 6144  # Tokens at most, special tokens included; few texts may give fewer
    hidden: int = 128  # Width of the residual stream
    inner: int = 256  # Width of the feed-forward layers
    layers: int = 2  # Number of blocks
    heads: int = 4  # Number of attention heads; divides `hidden` into even parts
    dropout: float = 0.0  # Of embeddings and of what blocks add, in training only
    max_position: int = 1024  # Tokens of a conversation at most
    tied: bool = True  # Whether the output layer shares the input embedding
    seed: int = 0  # Seed of the initial weights

    def __post_init__(self) -> None:
        """Checks the sizes."""
        smallest = len(pre_tokenizers.ByteLevel.alphabet()) + len(_SPECIAL)
        if self.vocab_size < smallest:
            raise ConfigError(
                f"tiny: vocab_size {self.vocab_size} cannot hold all bytes; expected >= {smallest}"
            )
        for field in ("hidden", "inner", "layers", "heads", "max_position"):
            if getattr(self, field) < 1:
                raise ConfigError(f"tiny: {field} {getattr(self, field)}; expected at least 1")
        if self.hidden % (2 * self.heads):
            raise ConfigError(
                f"tiny: hidden {self.hidden} with heads {self.heads}; expected heads of even width"
            )


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE with a ChatML template; it merges words, so a title is few tokens."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(  # type: ignore[no-untyped-call]
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END_OF_TURN,
        pad_token=_PAD,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.add_tokens([_TURN], special_tokens=True)
    wrapped.chat_template = _CHAT_TEMPLATE
    return wrapped


def create_tiny_model(tokenizer: PreTrainedTokenizerFast, sizes: TinyConfig) -> LlamaForCausalLM:
    """A Llama with random weights, which depend only on `sizes` and the vocabulary."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=sizes.max_position,
        tie_word_embeddings=sizes.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sizes.seed)
        model = LlamaForCausalLM(config).eval()
    if sizes.dropout:
        _add_dropout(model, sizes.dropout)
    return model


def _add_dropout(model: LlamaForCausalLM, share: float) -> None:
    """Adds dropout where SASRec has it; the Llama of transformers has it in attention only."""

    def dropped(module: nn.Module, values: Any) -> Any:
        if isinstance(values, tuple):
            return (dropped(module, values[0]), *values[1:])
        return functional.dropout(values, share, module.training)

    def added(module: nn.Module, _given: Any, found: Any) -> Any:
        return dropped(module, found)

    model.model.layers[0].register_forward_pre_hook(dropped)
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(added)
        layer.mlp.register_forward_hook(added)
