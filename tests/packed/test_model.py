from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from incatalog.errors import BackboneError
from incatalog.packed.branches import Branches, Guess
from incatalog.packed.cache import RowCache
from incatalog.packed.model import PackedModel

VOCAB = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCAB, "n_positions": 256}

MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "tied llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "mistral, sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=5)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "gemma2, soft caps and window": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, sliding_window=6, final_logit_softcapping=0.5)
    ),
    "granite, scaled logits": lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=3)),
    "gpt2, learned positions": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, eos_token_id=2)),
}


def make(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    if "gemma2" in name:
        # Soft caps do nothing to scores as small as an untrained model's.
        model.config.attn_logit_softcapping = 0.1
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = 0.1
        model.set_attn_implementation("eager")
    return model


@torch.no_grad()
def expected_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_ragged_rows_score_as_each_row_alone_does(name: str, batched: bool) -> None:
    model = make(name)
    packed = PackedModel(model, batched=batched, frozen=not batched)
    random = np.random.default_rng(1)
    caches = [RowCache() for _ in range(4)]
    seen: list[list[int]] = [[] for _ in caches]
    # Runs of different lengths; the third row joins late and the second one rests in between.
    for counts in ([9, 1, 0, 80], [1, 7, 0, 1], [3, 0, 12, 1], [1, 1, 1, 1], [2, 5, 1, 70]):
        active = [row for row, count in enumerate(counts) if count]
        new = {row: random.integers(3, VOCAB, counts[row]).tolist() for row in active}
        readout = packed.forward([(caches[row], new[row]) for row in active])
        for row in active:
            seen[row] += new[row]
        full = readout.full(range(len(active)))
        expected = torch.stack([expected_logits(model, seen[row]) for row in active])
        torch.testing.assert_close(full, expected, rtol=1e-4, atol=1e-5)
        some = np.array([3, 7, 60])
        chosen = [len(active) - 1, 0]
        torch.testing.assert_close(
            readout.some(chosen, some), expected[chosen][:, some], rtol=1e-4, atol=1e-5
        )
    assert [cache.length for cache in caches] == [len(tokens) for tokens in seen]


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_branches_score_as_each_text_alone_does(name: str, batched: bool) -> None:
    model = make(name)
    packed = PackedModel(model, batched=batched, frozen=not batched)
    prompt, texts = [5, 9, 3, 30, 8], [[7, 11], [7, 12], [40, 41, 42]]
    cache = RowCache()
    packed.forward([(cache, prompt)])
    # Two branches, 7 and 40-41-42; then 11 and 12 behind the first of them.
    first = np.zeros((4, 9), dtype=bool)
    first[:, :5] = True
    first[0, 5] = True
    first[1:, 6:] = np.tri(3, dtype=bool)
    places = np.array([0, 1, 2, 3, 4, 5, 5, 6, 7])
    early = packed.forward_branches([(cache, Branches([7, 40, 41, 42], places, first, [0, 3]))])
    second = np.zeros((2, 11), dtype=bool)
    second[:, :6] = True
    second[[0, 1], [9, 10]] = True
    places = np.append(places, [6, 6])
    late = packed.forward_branches([(cache, Branches([11, 12], places, second, [0, 1]))])
    scores = torch.cat([late.full([0, 1]), early.full([1])])
    for text, found in zip(texts, scores, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([[*prompt, *text]])).logits[0, -1]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", ["llama", "mistral, sliding window"])
def test_rows_that_begin_alike_are_copied(name: str, batched: bool) -> None:
    model = make(name)
    packed = PackedModel(model, batched=batched, frozen=not batched)
    random = np.random.default_rng(2)
    first = random.integers(3, VOCAB, 70).tolist()
    old = RowCache()
    packed.forward([(old, first)])
    # One goes on from an earlier row; one from a row of its own pass, which is such a copy itself.
    texts = [[*first[:50], 9, 8], [*first[:50], 9, 7, 6], [*first[:50], 9, 7, 5, 4]]
    second = RowCache(old, 50)
    third = RowCache(second, 51)
    fourth = RowCache(third, 52)
    rows = list(zip([second, third, fourth], texts, strict=True))
    readout = packed.forward([(cache, text[cache.length :]) for cache, text in rows])
    for number, text in enumerate(texts):
        torch.testing.assert_close(
            readout.full([number])[0], expected_logits(model, text), rtol=1e-4, atol=1e-5
        )
    del old, second
    readout = packed.forward([(third, [11] * 60), (fourth, [12])])
    for number, text in enumerate([[*texts[1], *[11] * 60], [*texts[2], 12]]):
        torch.testing.assert_close(
            readout.full([number])[0], expected_logits(model, text), rtol=1e-4, atol=1e-5
        )


def test_a_row_of_another_model_is_refused() -> None:
    cache = RowCache()
    PackedModel(make("llama")).forward([(cache, [3])])
    with pytest.raises(BackboneError, match="another model"):
        PackedModel(make("llama")).forward([(cache, [3])])


def test_model_is_left_as_it_was() -> None:
    model = make("llama").train()
    before = model.config._attn_implementation
    PackedModel(model).forward([(RowCache(), [3, 4])])
    assert model.config._attn_implementation == before
    assert model.training
    with pytest.raises(IndexError):
        PackedModel(model).forward([(RowCache(), [VOCAB + 5])])
    assert model.config._attn_implementation == before


def test_adapters_count() -> None:
    peft = pytest.importorskip("peft")
    model = make("tied llama")
    plain = expected_logits(model, [3, 4, 5])
    config = peft.LoraConfig(r=2, target_modules="all-linear", trainable_token_indices=[3, 4])
    adapted = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    expected = expected_logits(adapted, [3, 4, 5])
    assert not torch.allclose(plain, expected, atol=1e-3)
    readout = PackedModel(adapted).forward([(RowCache(), [3, 4, 5])])
    torch.testing.assert_close(readout.full([0])[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        readout.some([0], np.array([3, 4, 5]))[0], expected[[3, 4, 5]], rtol=1e-4, atol=1e-5
    )


def test_models_that_cannot_be_packed_are_refused() -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=1, n_head=4))
    with pytest.raises(BackboneError, match="does not take its attention"):
        PackedModel(bloom)
    chunked = {**SIZES, "intermediate_size_mlp": 48, "num_local_experts": 2}
    with pytest.raises(BackboneError, match="packed rows do not know"):
        PackedModel(Llama4ForCausalLM(Llama4TextConfig(**chunked)))


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_guesses_score_as_if_they_were_certain_and_may_come_true(name: str, batched: bool) -> None:
    model = make(name)
    packed = PackedModel(model, batched=batched, frozen=not batched)
    texts = [[5, 9, 11, 4, 30, 8], [7, 12], [3]]
    caches = [RowCache() for _ in texts]
    packed.forward([(cache, text) for cache, text in zip(caches, texts, strict=True)])
    new = [[13, 14], [15], [16, 17]]
    # The second guess of the first row continues the third one's sibling; the last row has none.
    guesses = [
        [Guess(-1, (20, 21), 0), Guess(-1, (22,), 0), Guess(1, (23, 24), 0), Guess(2, (25,), 0)],
        [Guess(-1, (26,), 0)],
        [],
    ]
    readout = packed.forward(list(zip(caches, new, strict=True)), guesses)
    beginnings = [text + more for text, more in zip(texts, new, strict=True)]
    ends = [
        *beginnings,
        [*beginnings[0], 20, 21],
        [*beginnings[0], 22],
        [*beginnings[0], 22, 23, 24],
        [*beginnings[0], 22, 23, 24, 25],
        [*beginnings[1], 26],
    ]
    expected = torch.stack([expected_logits(model, tokens) for tokens in ends])
    torch.testing.assert_close(readout.full(range(len(ends))), expected, atol=1e-4, rtol=1e-4)
    # 22 23 24 came true in the first row, nothing in the second.
    caches[0].adopt([2, 3, 4])
    rows = [(caches[0], [27]), (caches[1], [28, 29]), (caches[2], [18])]
    after = [
        [*beginnings[0], 22, 23, 24, 27],
        [*beginnings[1], 28, 29],
        [*beginnings[2], 18],
    ]
    expected = torch.stack([expected_logits(model, tokens) for tokens in after])
    found = packed.forward(rows).full(range(3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
