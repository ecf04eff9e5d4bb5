from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.errors import ConfigError
from incatalog.model.tiny import TinyConfig, create_tiny_model, train_tokenizer

SIZES = TinyConfig(vocab_size=400, hidden=32, inner=64, layers=2, heads=4)


@pytest.fixture(scope="module")
def tokenizer(titles):
    return train_tokenizer(titles, 400)


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_tokenising(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert tokenizer.decode(ids) == text


def test_titles_are_shorter_than_their_bytes(tokenizer, titles):
    tokens = sum(map(len, tokenizer(list(titles)).input_ids))
    assert tokens < 0.7 * sum(len(title.encode()) for title in titles)


def test_chat_template_marks_every_turn(tokenizer):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_same_texts_and_sizes_give_the_same_bits(tokenizer, titles):
    again = train_tokenizer(titles, 400)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    one = create_tiny_model(tokenizer, SIZES).state_dict()
    torch.manual_seed(5)
    two = create_tiny_model(again, SIZES).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_creation_leaves_the_global_generator_alone(tokenizer):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    create_tiny_model(tokenizer, SIZES)
    assert torch.equal(torch.rand(3), expected)


def test_dropout_is_for_training_alone(tokenizer):
    plain = create_tiny_model(tokenizer, SIZES)
    dropping = create_tiny_model(tokenizer, replace(SIZES, dropout=0.5))
    assert dropping.state_dict().keys() == plain.state_dict().keys()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = plain(ids).logits
        assert torch.equal(dropping(ids).logits, expected)
        dropping.train()
        torch.manual_seed(0)
        first, second = dropping(ids).logits, dropping(ids).logits
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_dropout_reaches_embeddings_attention_and_feed_forward(tokenizer, share):
    """With all of it dropped nothing is left of the input, whatever the blocks would add."""
    model = create_tiny_model(tokenizer, replace(SIZES, dropout=share)).train()
    hidden = model.model(torch.arange(8)[None]).last_hidden_state
    assert bool((hidden == 0).all()) == (share == 1.0)


@pytest.mark.parametrize("tied", [True, False])
def test_output_layer_is_tied_on_request(tokenizer, tied):
    sizes = TinyConfig(vocab_size=400, hidden=32, inner=64, layers=1, heads=4, tied=tied)
    model = create_tiny_model(tokenizer, sizes)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert model.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 100}, "vocab_size 100 cannot hold all bytes; expected >= 259"),
        ({"layers": 0}, "layers 0; expected at least 1"),
        ({"hidden": 36, "heads": 4}, "hidden 36 with heads 4; expected heads of even width"),
    ],
)
def test_impossible_sizes_are_named(sizes, message):
    with pytest.raises(ConfigError, match=message):
        TinyConfig(**sizes)
