"""New tokens of a language model: named in the tokenizer, and with a row in each of its layers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from incatalog.codes.semantic_ids import code_names, code_of
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


def check_control_names(tokenizer: PreTrainedTokenizerFast, control: Sequence[str]) -> None:
    """Makes sure that the control tokens, where the vocabulary has them, stand for nothing else."""
    known, special = tokenizer.get_vocab(), special_token_ids(tokenizer)
    taken = {
        getattr(tokenizer, f"{role}_token"): role for role in ("bos", "eos", "pad", "unk", "sep")
    }
    hint = "name a token that the vocabulary lacks, or a special one without a use"
    for name in control:
        if name in taken:
            raise TokenizerError(f"tokenizer: {name} is its {taken[name]} token; {hint}")
        if name in known and name not in special:
            raise TokenizerError(f"tokenizer: has no special token {name}, but a plain one; {hint}")


def mark_special(tokenizer: PreTrainedTokenizerFast, names: Sequence[str]) -> bool:
    """Makes added tokens special ones, with the ids they have; whether there was one to change.

    Raises:
        TokenizerError: A name is no added token, so that text with it may become several tokens.
    """
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    for name in names:
        if name not in added:
            raise TokenizerError(
                f"tokenizer: {name} is no token that was added to its vocabulary, so it may be "
                "split; add it by tokenizer.add_tokens before the model is trained"
            )
    plain = [name for name in names if name not in special_token_ids(tokenizer)]
    if plain:
        tokenizer.add_tokens(plain, special_tokens=True)
    return bool(plain)


def code_sizes_of(tokenizer: PreTrainedTokenizerFast, sizes: Sequence[int]) -> tuple[int, ...]:
    """The number of codes at each level, where the vocabulary may have more than some items use."""
    highest = [size - 1 for size in sizes]
    for name in tokenizer.get_vocab():
        found = code_of(name)
        if found is not None and found[0] < len(highest):
            highest[found[0]] = max(highest[found[0]], found[1])
    return tuple(code + 1 for code in highest)


def code_token_ids(tokenizer: PreTrainedTokenizerFast, sizes: Sequence[int]) -> tuple[int, ...]:
    """Ids of the code tokens of semantic IDs, level by level; a code may have no token."""
    special = special_token_ids(tokenizer)
    return tuple(special[name] for name in code_names(sizes) if name in special)


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
