from __future__ import annotations

import contextlib
import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incatalog.codes.semantic_ids import SemanticIds, code_names
from incatalog.errors import CatalogError, SemanticIdError, TokenizerError
from incatalog.items.tokens import (
    EOI,
    SOI,
    ItemTokens,
    control_token_ids,
    encode_titles,
    tokenizer_fingerprint,
)

FAMILIES = ("chatml", "gpt2", "llama2", "llama3", "gemma", "sentencepiece")
MARKERS = ("<EOI>", "x <SOI> y", "<|im_end|>", "</s>", "<|eot_id|>", "<end_of_turn> z")


@pytest.fixture(params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest, chat_tokenizers: dict[str, Any]) -> Any:
    return chat_tokenizers[request.param]


def test_items_are_tokenised_as_they_stand_behind_the_opening_token(
    tokenizer: Any, titles: tuple[str, ...]
) -> None:
    tokens = ItemTokens.from_titles(titles, tokenizer)
    assert len(tokens) == len(titles)
    for row, title in enumerate(titles):
        written = tokenizer(f"{SOI}{title}{EOI}", add_special_tokens=False)["input_ids"]
        assert tokens.span(row) == written
        assert tokens.row(row).tolist() == written[1:-1]
        assert tokens.decode(row, tokenizer) == title
    assert [row.tolist() for row in tokens.rows()] == [
        tokens.row(row).tolist() for row in range(len(titles))
    ]


def test_every_span_is_a_path_of_the_trie_and_no_other_is(
    tokenizer: Any, titles: tuple[str, ...]
) -> None:
    tokens = ItemTokens.from_titles([*titles, titles[0]], tokenizer)
    trie = tokens.trie()
    assert trie.num_items == len(titles) + 1
    for row in range(len(titles)):
        path = tokens.row(row).tolist()
        for depth, token in enumerate(path):
            assert token in trie.next_tokens(path[:depth])
        assert trie.next_tokens(path)[-1] is None


def refusal(title: str, tokenizer: Any) -> str | None:
    """Why a title is refused; ``None`` if it is accepted, and then comes back as it was."""
    try:
        tokens = ItemTokens.from_titles(["Night", title], tokenizer)
    except TokenizerError as error:
        return str(error)
    assert tokens.decode(1, tokenizer) == title
    assert not set(tokens.flat.tolist()) & set(tokenizer.all_special_ids)
    return None


@pytest.mark.parametrize("title", MARKERS)
def test_a_title_full_of_markers_is_plain_text_or_refused(
    chat_tokenizers: dict[str, Any], title: str
) -> None:
    for family in ("chatml", "llama2", "llama3", "gemma"):
        assert refusal(title, chat_tokenizers[family]) is None
    # This one treats the start of a text in its own way, and a marker can only be spelled there.
    message = refusal(title, chat_tokenizers["sentencepiece"])
    if EOI in title or SOI in title:
        assert message is not None
        assert "item row 1" in message
        assert "holds the text of a special token" in message


@pytest.mark.parametrize("title", [" leads", "trails ", "two  spaces", " ", "a\nb"])
def test_spaces_are_kept_or_the_title_is_refused(tokenizer: Any, title: str) -> None:
    message = refusal(title, tokenizer)
    assert message is None or ("item row 1" in message and "canonical_titles" in message)


def test_threads_beside_one_that_spells_markers_out_get_their_own_tokens(
    tokenizer: Any, titles: tuple[str, ...]
) -> None:
    alone = encode_titles(titles, tokenizer)
    stop, wrong = threading.Event(), list[Any]()

    def spell() -> None:
        while not stop.is_set():
            with contextlib.suppress(TokenizerError):
                encode_titles(MARKERS, tokenizer)

    def encode() -> None:
        try:
            for _ in range(40):
                if encode_titles(titles, tokenizer) != alone:
                    wrong.append("other tokens")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    speller = threading.Thread(target=spell)
    for thread in (speller, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    speller.join()
    assert not wrong
    assert not tokenizer.backend_tokenizer.encode_special_tokens


def test_html_entities_are_text_like_any_other(tokenizer: Any) -> None:
    title = "Quill &amp; Ink &lt;EOI&gt;"
    tokens = ItemTokens.from_titles([title], tokenizer)
    assert tokens.decode(0, tokenizer) == title


def test_titles_that_cannot_be_items_are_refused(tokenizer: Any) -> None:
    with pytest.raises(TokenizerError, match="item row 1: title '' has no token"):
        ItemTokens.from_titles(["Night", ""], tokenizer)
    with pytest.raises(TokenizerError, match=r"item row 2: .* is not Unicode text"):
        ItemTokens.from_titles(["Night", "Day", "half a \ud83d"], tokenizer)
    with pytest.raises(CatalogError, match="catalog is empty"):
        ItemTokens.from_titles([], tokenizer)


def test_an_unknown_character_is_refused_where_it_would_be_lost() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "night": 1, "<s>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>")
    tokenizer.add_special_tokens({"additional_special_tokens": [SOI, EOI]})
    assert ItemTokens.from_titles(["night"], tokenizer).row(0).tolist() == [1]
    with pytest.raises(TokenizerError, match="comes back from the tokenizer as '<unk>'"):
        ItemTokens.from_titles(["night", "day"], tokenizer)
    with pytest.raises(TokenizerError, match=r"item row 1: .* holds the special token '<s>'"):
        ItemTokens.from_titles(["night", "<s>"], tokenizer)


def test_a_missing_or_plain_control_token_is_named(chat_tokenizers: dict[str, Any]) -> None:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    def without(token: str) -> Any:
        backend = Tokenizer.from_str(chat_tokenizers["chatml"].backend_tokenizer.to_str())
        spec = backend.to_str().replace(token, "<OTHER>")
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(spec))

    for token in (SOI, EOI):
        tokenizer = without(token)
        with pytest.raises(TokenizerError, match=f"no special token {token}"):
            ItemTokens.from_titles(["Night"], tokenizer)
        tokenizer.add_tokens([AddedToken(token, special=False)])
        with pytest.raises(TokenizerError, match=f"no special token {token}"):
            control_token_ids(tokenizer)
    with pytest.raises(TokenizerError, match="expected a fast"):
        control_token_ids(object())  # type: ignore[arg-type]


def test_another_tokenizer_is_noticed(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...], tmp_path: Path
) -> None:
    made = {name: ItemTokens.from_titles(titles, each) for name, each in chat_tokenizers.items()}
    for name, tokens in made.items():
        for other, tokenizer in chat_tokenizers.items():
            if name == other:
                tokens.check_tokenizer(tokenizer)
            else:
                with pytest.raises(TokenizerError, match="make them again"):
                    tokens.check_tokenizer(tokenizer)
    grown = copy.deepcopy(chat_tokenizers["chatml"])
    grown.add_tokens(["<a_1>"])
    with pytest.raises(TokenizerError, match="not the one the item tokens were made with"):
        made["chatml"].check_tokenizer(grown)


def test_the_fingerprint_sees_merges_and_survives_saving(
    tokenizer: Any, chat_tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    import json

    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    before = tokenizer_fingerprint(tokenizer)
    tokenizer("text", padding="max_length", max_length=9, truncation=True)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == before

    backend = chat_tokenizers["chatml"].backend_tokenizer
    spec = json.loads(backend.to_str())
    spec["model"]["merges"] = spec["model"]["merges"][:50]
    fewer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)))
    assert fewer.get_vocab() == chat_tokenizers["chatml"].get_vocab()
    assert tokenizer_fingerprint(fewer) != tokenizer_fingerprint(chat_tokenizers["chatml"])


def test_rows_outside_are_refused_and_arrays_are_read_only(
    chat_tokenizers: dict[str, Any],
) -> None:
    tokens = ItemTokens.from_titles(["Night", "Zebra"], chat_tokenizers["chatml"])
    for row in (-1, 2):
        with pytest.raises(CatalogError, match=f"item row {row}"):
            tokens.row(row)
    with pytest.raises(ValueError, match="read-only"):
        tokens.flat[0] = 3
    assert tokens.flat.dtype == np.int32


def with_codes(tokenizer: Any, sizes: tuple[int, ...]) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(list(code_names(sizes)), special_tokens=True)
    return tokenizer


CODES = np.array([[1, 0], [0, 2], [1, 2]], dtype=np.int32)


def test_codes_of_an_item_are_its_tokens(tokenizer: Any) -> None:
    ids = SemanticIds(CODES.copy(), (2, 3))
    tokenizer = with_codes(tokenizer, ids.sizes)
    tokens = ItemTokens.from_codes(ids, tokenizer)
    tokens.check_tokenizer(tokenizer)
    assert len(tokens) == 3
    for row in range(3):
        names = [SOI, *ids.tokens(row), EOI]
        assert tokens.span(row) == tokenizer.convert_tokens_to_ids(names)
    trie = tokens.trie()
    a0, a1, b0, b2 = tokenizer.convert_tokens_to_ids(["<a_0>", "<a_1>", "<b_0>", "<b_2>"])
    assert trie.next_tokens([]) == [a0, a1]
    assert trie.next_tokens([a1]) == [b0, b2]
    assert trie.next_tokens([a1, b0]) == [None]


def test_codes_that_cannot_be_written_are_refused(tokenizer: Any) -> None:
    few = with_codes(tokenizer, (2, 2))
    with pytest.raises(TokenizerError, match="item row 1: the tokenizer has no code token <b_2>"):
        ItemTokens.from_codes(SemanticIds(CODES.copy(), (2, 3)), few)
    plain = copy.deepcopy(tokenizer)
    plain.add_tokens(list(code_names((2, 3))), special_tokens=False)
    with pytest.raises(TokenizerError, match="item row 0: the tokenizer has no code token <a_1>"):
        ItemTokens.from_codes(SemanticIds(CODES.copy(), (2, 3)), plain)
    twice = SemanticIds(CODES[[0, 1, 0]], (2, 3))
    with pytest.raises(SemanticIdError, match="1 of 3 items share all their codes"):
        ItemTokens.from_codes(twice, with_codes(tokenizer, (2, 3)))


def test_unused_codes_need_no_token(tokenizer: Any) -> None:
    tokens = ItemTokens.from_codes(SemanticIds(CODES.copy(), (2, 9)), with_codes(tokenizer, (2, 3)))
    assert len(tokens) == 3


def test_joined_rows_are_other_spellings_in_the_trie(tokenizer: Any) -> None:
    items = ItemTokens.from_titles(["Harbour", "Night"], tokenizer)
    others = ItemTokens.from_titles(["The Night", "Port"], tokenizer)
    joined = items.joined(others)
    assert [joined.decode(row, tokenizer) for row in range(4)] == [
        "Harbour", "Night", "The Night", "Port"
    ]  # fmt: skip
    trie = joined.trie([0, 1, 1, 0])
    left = trie.next_tokens([], excluded=[1])
    assert set(left) == {int(items.row(0)[0]), int(others.row(1)[0])}
    assert len(items) == len(others) == 2
