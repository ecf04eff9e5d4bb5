from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from incatalog.errors import TokenizerError
from incatalog.items.tokens import special_token_ids
from incatalog.model.backbone import Backbone, add_codes, create_tiny, load_backbone
from incatalog.model.saved import save_backbone
from incatalog.model.tiny import TinyConfig
from incatalog.model.vocabulary import (
    UNTRAINED_SPREAD,
    add_code_tokens,
    check_control_names,
    check_own_ids,
    code_sizes_of,
    code_token_ids,
    is_tied,
    mark_special,
)


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


def test_ids_are_found_again_and_missing_ones_left_out(chat_tokenizers: Any) -> None:
    for stock in chat_tokenizers.values():
        tokenizer = copy.deepcopy(stock)
        first = len(tokenizer)
        tokenizer.add_tokens(["<a_0>", "<b_0>", "<b_1>"], special_tokens=True)
        assert code_token_ids(tokenizer, (1, 2)) == (first, first + 1, first + 2)
        assert code_token_ids(tokenizer, ()) == ()
        # A vocabulary made elsewhere may lack codes that no item has.
        assert code_token_ids(tokenizer, (1, 3)) == (first, first + 1, first + 2)
        assert code_token_ids(stock, (1, 3)) == ()


# Ids that no token has


TEXT = "the cat sat on the mat with the hat"


def _byte_level(drop: int) -> Any:
    """A BPE of 300 tokens, without `drop` of the longer ones that no merge needs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.train_from_iterator(
        [TEXT, "recommendations of a harbour master", "unbelievable umbrellas"] * 9,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    state = json.loads(built.to_str())
    vocabulary, merges = state["model"]["vocab"], state["model"]["merges"]
    parts = {part for merge in merges for part in merge}
    unused = [name for name in vocabulary if len(name) > 1 and name not in parts | {"<|end|>"}]
    last = max(vocabulary, key=vocabulary.get)
    for name in [name for name in unused if name != last][:drop]:
        del vocabulary[name]
        state["model"]["merges"] = [m for m in state["model"]["merges"] if "".join(m) != name]
    return Tokenizer.from_str(json.dumps(state))


def _whole_words(kind: str) -> Any:
    """A vocabulary of words, with one id in five."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    distinct = dict.fromkeys(["<|end|>", *TEXT.split()])
    words = {word: 5 * place for place, word in enumerate(distinct)}
    make = {"WordLevel": models.WordLevel, "WordPiece": models.WordPiece}[kind]
    built = Tokenizer(make(words, unk_token="<|end|>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    return built


@pytest.mark.parametrize("spare", [0, 40])
@pytest.mark.parametrize("kind", ["one", "many", "WordLevel", "WordPiece"])
def test_new_tokens_share_no_id_where_a_vocabulary_has_holes(
    kind: str, spare: int, tmp_path: Path
) -> None:
    holes = {"one": 1, "many": 4}
    built = _byte_level(holes[kind]) if kind in holes else _whole_words(kind)
    before = PreTrainedTokenizerFast(
        tokenizer_object=built, eos_token="<|end|>", pad_token="<|end|>"
    )
    before.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    words, highest = before.get_vocab(), max(before.get_vocab().values())
    assert len(words) <= highest
    text = before(TEXT)["input_ids"]
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=highest + 1 + spare,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).save_pretrained(tmp_path)
    before.save_pretrained(tmp_path)

    backbone = add_codes(load_backbone(tmp_path, device="cpu"), (3, 2))
    new = [backbone.soi_token_id, backbone.eoi_token_id, *backbone.code_token_ids]
    assert new == list(range(highest + 1, highest + 8))
    rows = backbone.model.get_input_embeddings().weight.shape[0]
    assert rows == highest + 1 + max(spare, 7)
    save_backbone(tmp_path / "saved", backbone)
    again = load_backbone(tmp_path / "saved", device="cpu")
    assert (again.soi_token_id, again.eoi_token_id) == tuple(new[:2])
    for tokenizer in (backbone.tokenizer, again.tokenizer):
        found = tokenizer.get_vocab()
        assert len(set(found.values())) == len(found)
        assert {name: found[name] for name in words} == words
        assert tokenizer(TEXT)["input_ids"] == text
        assert code_token_ids(tokenizer, (3, 2)) == tuple(new[2:])
        assert tokenizer.convert_ids_to_tokens(new[2:]) == [
            "<a_0>",
            "<a_1>",
            "<a_2>",
            "<b_0>",
            "<b_1>",
        ]


def test_a_model_whose_control_tokens_are_words_is_refused(tmp_path: Path) -> None:
    """As earlier versions of the package made them."""
    clashing = PreTrainedTokenizerFast(tokenizer_object=_byte_level(4), eos_token="<|end|>")
    clashing.add_tokens(["<SOI>", "<EOI>"], special_tokens=True)
    ids = clashing.convert_tokens_to_ids(["<SOI>", "<EOI>"])
    with pytest.raises(TokenizerError, match=f"'<SOI>' and '.*' are both token {ids[0]}; expected"):
        check_own_ids(clashing, ids)
    clashing.chat_template = "{{ messages[0]['content'] }}"
    clashing.save_pretrained(tmp_path)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="are both token"):
        load_backbone(tmp_path, device="cpu")


def test_sizes_of_codes_are_those_of_the_vocabulary(chat_tokenizers: Any) -> None:
    tokenizer = copy.deepcopy(chat_tokenizers["chatml"])
    tokenizer.add_tokens(["<a_3>", "<b_0>", "<b_11>", "<c_9>", "<a_99999999>", "<A_7>"])
    assert code_sizes_of(tokenizer, (2, 2)) == (4, 12)
    assert code_sizes_of(tokenizer, (9, 2, 1)) == (9, 12, 10)
    assert code_sizes_of(tokenizer, ()) == ()


def test_added_tokens_become_special_with_the_ids_they_have(chat_tokenizers: Any) -> None:
    for stock in chat_tokenizers.values():
        tokenizer = copy.deepcopy(stock)
        tokenizer.add_tokens(["[x]", "[y]"])
        ids, size = tokenizer.convert_tokens_to_ids(["[x]", "[y]"]), len(tokenizer)
        assert mark_special(tokenizer, ["[x]"])
        assert not mark_special(tokenizer, ["[x]"])
        assert tokenizer.convert_tokens_to_ids(["[x]", "[y]"]) == ids
        assert len(tokenizer) == size
        special = special_token_ids(tokenizer)
        assert special["[x]"] == ids[0]
        assert "[y]" not in special
        with pytest.raises(TokenizerError, match=r"\[z\] is no token that was added"):
            mark_special(tokenizer, ["[z]"])


def test_control_tokens_stand_for_nothing_else(chat_tokenizers: Any) -> None:
    tokenizer = copy.deepcopy(chat_tokenizers["llama3"])
    tokenizer.add_tokens(["[plain]"])
    check_control_names(tokenizer, ["<SOI>", "[new]"])
    for name, message in (
        ("[plain]", r"has no special token \[plain\], but a plain one; name"),
        (tokenizer.eos_token, "is its eos token; name a token"),
        (tokenizer.bos_token, "is its bos token"),
    ):
        with pytest.raises(TokenizerError, match=message):
            check_control_names(tokenizer, ["<SOI>", name])
