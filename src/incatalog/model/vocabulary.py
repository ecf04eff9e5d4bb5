"""New tokens of a language model: named in the tokenizer, and with a row in each of its layers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from incatalog.codes.semantic_ids import code_names
from incatalog.errors import TokenizerError
from incatalog.items.tokens import special_token_ids

# How far new rows start from the mean of the old ones, in standard deviations of those. Without a
# little noise all would be one; trained models learn codes faster from here than from far apart.
SPREAD = 0.02
# In a model from scratch old rows are noise themselves, and codes that begin alike cost time.
UNTRAINED_SPREAD = 1.0


def add_special_tokens(
    model: Any, tokenizer: PreTrainedTokenizerFast, names: Sequence[str], spread: float = SPREAD
) -> list[int]:
    """Adds special tokens behind the vocabulary; their rows depend only on the old ones."""
    # The tokenizer counts its tokens to find an id for a new one, and could give it a word's.
    _name_unused_ids(tokenizer)
    tokenizer.add_tokens(list(names), special_tokens=True)
    new: list[int] = tokenizer.convert_tokens_to_ids(list(names))
    check_own_ids(tokenizer, new)
    if max(new) >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(new) + 1, mean_resizing=False)
    _start_rows(model, new, spread)
    return new


def add_code_tokens(
    model: Any, tokenizer: PreTrainedTokenizerFast, sizes: Sequence[int], spread: float = SPREAD
) -> tuple[int, ...]:
    """Adds the code tokens of semantic IDs, ``<a_0>`` first."""
    names = code_names(sizes)
    if known := sorted(set(names).intersection(tokenizer.get_vocab()), key=names.index):
        raise TokenizerError(
            f"tokenizer: code token {known[0]} is in the vocabulary already; start from a model "
            "that was not trained with codes"
        )
    return tuple(add_special_tokens(model, tokenizer, names, spread))


def code_token_ids(tokenizer: PreTrainedTokenizerFast, sizes: Sequence[int]) -> tuple[int, ...]:
    """Ids of the code tokens of semantic IDs, level by level."""
    special, names = special_token_ids(tokenizer), code_names(sizes)
    if missing := [name for name in names if name not in special]:
        raise TokenizerError(f"tokenizer: has no code token {missing[0]}; train the model again")
    return tuple(special[name] for name in names)


def check_own_ids(tokenizer: PreTrainedTokenizerFast, ids: Collection[int]) -> None:
    """Makes sure that no two tokens share one of these ids."""
    names, wanted = dict[int, str](), set(ids)
    for name, number in sorted(tokenizer.get_vocab().items()):
        if number in wanted and names.setdefault(number, name) != name:
            raise TokenizerError(
                f"tokenizer: {names[number]!r} and {name!r} are both token {number}; expected an "
                "id for each; give the words of its tokenizer.json ids of their own, or choose "
                "another model"
            )


def is_tied(model: Any) -> bool:
    """Whether the output layer shares the input embedding."""
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def _name_unused_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    """Makes the ids of a vocabulary 0, 1, 2, …, so that the next free one is their number."""
    backend = tokenizer.backend_tokenizer
    known = tokenizer.get_vocab()
    if max(known.values()) < len(known):
        return
    described = json.loads(backend.to_str())
    vocabulary = described["model"]["vocab"]
    if not isinstance(vocabulary, dict):
        return
    taken = set(vocabulary.values())
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    for number in range(max(taken)):
        if number not in taken:
            vocabulary[added.get(number, f"<|unused_{number}|>")] = number
    described["added_tokens"] = []
    backend.model = Tokenizer.from_str(json.dumps(described)).model


@torch.no_grad()
def _start_rows(model: Any, new: Sequence[int], spread: float) -> None:
    layers = [model.get_input_embeddings()]
    if not is_tied(model):
        layers.append(model.get_output_embeddings())
    first = min(new)
    for layer in layers:
        old = layer.weight[:first].float()
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(len(new), old.shape[1], generator=generator).to(old.device)
        rows = old.mean(0) + spread * old.std(0) * noise
        layer.weight[list(new)] = rows.to(layer.weight.dtype)
        if getattr(layer, "bias", None) is not None:
            layer.bias[list(new)] = layer.bias[:first].mean()
