from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from reclm.backbone import Backbone, TinyConfig, add_codes, create_tiny
from reclm.errors import TokenizerError
from reclm.vocabulary import UNTRAINED_SPREAD, add_code_tokens, code_token_ids, is_tied


def make(titles: tuple[str, ...], *, tied: bool) -> Backbone:
    sizes = TinyConfig(vocab_size=400, hidden=16, inner=16, layers=1, heads=2, tied=tied)
    return create_tiny(titles, sizes)


@pytest.mark.parametrize("tied", [True, False])
def test_code_rows_start_near_the_mean_of_the_old_ones(titles: Any, tied: bool) -> None:
    backbone = make(titles, tied=tied)
    model: Any = backbone.model
    before = {
        "in": model.get_input_embeddings().weight.detach().clone(),
        "out": model.get_output_embeddings().weight.detach().clone(),
    }
    with_codes = add_codes(backbone, (3, 2))
    new = list(with_codes.code_token_ids)
    first = len(before["in"])
    assert new == list(range(first, first + 5))
    assert backbone.tokenizer.convert_ids_to_tokens(new) == [
        "<a_0>", "<a_1>", "<a_2>", "<b_0>", "<b_1>",
    ]  # fmt: skip
    assert is_tied(model) == tied
    for name, layer in (
        ("in", model.get_input_embeddings()),
        ("out", model.get_output_embeddings()),
    ):
        old, rows = before[name], layer.weight.detach()
        assert torch.equal(rows[:first], old)
        distance = (rows[first:] - old.mean(0)).abs() / old.std(0)
        assert distance.min() > 0
        assert distance.max() < 0.15
        assert len({tuple(row.tolist()) for row in rows[first:]}) == 5
    again = make(titles, tied=tied)
    add_codes(again, (3, 2))
    assert torch.equal(again.model.get_input_embeddings().weight, model.model.embed_tokens.weight)


def test_rows_of_an_untrained_model_start_as_far_apart_as_the_others(titles: Any) -> None:
    backbone = make(titles, tied=True)
    weight = backbone.model.get_input_embeddings().weight.detach().clone()
    codes = list(add_codes(backbone, (200,), spread=UNTRAINED_SPREAD).code_token_ids)
    rows = backbone.model.get_input_embeddings().weight.detach()[codes]
    torch.testing.assert_close(rows.std(0), weight.std(0), rtol=0.25, atol=0)
    assert (rows.mean(0) - weight.mean(0)).abs().max() < 0.25 * weight.std()


def test_spare_rows_are_used_before_new_ones_are_made(titles: Any) -> None:
    backbone = make(titles, tied=True)
    model: Any = backbone.model
    model.resize_token_embeddings(len(backbone.tokenizer) + 40)
    rows = model.get_input_embeddings().weight.shape[0]
    new = add_code_tokens(model, backbone.tokenizer, (8, 8))
    assert model.get_input_embeddings().weight.shape[0] == rows
    assert max(new) < rows


@pytest.mark.parametrize("special", [True, False])
def test_tokens_already_in_the_vocabulary_are_refused(titles: Any, special: bool) -> None:
    backbone = make(titles, tied=True)
    backbone.tokenizer.add_tokens(["<b_1>"], special_tokens=special)
    size = len(backbone.tokenizer)
    with pytest.raises(TokenizerError, match="code token <b_1> is in the vocabulary already"):
        add_codes(backbone, (3, 2))
    assert len(backbone.tokenizer) == size


def test_ids_are_found_again_and_missing_ones_named(chat_tokenizers: Any) -> None:
    for stock in chat_tokenizers.values():
        tokenizer = copy.deepcopy(stock)
        first = len(tokenizer)
        tokenizer.add_tokens(["<a_0>", "<b_0>", "<b_1>"], special_tokens=True)
        assert code_token_ids(tokenizer, (1, 2)) == (first, first + 1, first + 2)
        assert code_token_ids(tokenizer, ()) == ()
        with pytest.raises(TokenizerError, match="has no code token <b_2>"):
            code_token_ids(tokenizer, (1, 3))
