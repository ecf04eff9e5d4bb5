from __future__ import annotations

from typing import Any

import pytest

from incatalog.dialogue.render import Message, Renderer, Text
from incatalog.dialogue.tasks import list_parts
from incatalog.errors import ConfigError
from incatalog.items.tokens import ItemTokens
from incatalog.recommender.prompts import list_scaffold

FAMILIES = ("chatml", "gpt2", "llama2", "llama3", "gemma", "sentencepiece")


def make_renderer(tokenizer: Any, titles: tuple[str, ...]) -> Renderer:
    return Renderer(tokenizer, ItemTokens.from_titles(titles, tokenizer))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["numbered", "plain", "indented"])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_the_scaffold_is_what_stands_between_items(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...], family: str, form: Any, k: int
) -> None:
    renderer = make_renderer(chat_tokenizers[family], titles)
    scaffold, end = list_scaffold(renderer, form, k)
    assert len(scaffold.before_item) == k
    rows = list(range(1, k + 1))
    question = Message("user", (Text("And now?"),))
    rendered = renderer.conversation([question, Message("assistant", list_parts(rows, form))])
    ids = renderer.prompt([question]).tolist()
    for span, run in zip(rendered.spans, scaffold.before_item, strict=True):
        ids += [*run, *rendered.input_ids[span.start : span.end].tolist()]
    ids += end
    assert ids == rendered.input_ids[: len(ids)].tolist()
    assert not rendered.loss_mask[len(ids) :].any()


def test_the_scaffold_of_chatml_by_hand(
    chat_tokenizers: dict[str, Any], titles: tuple[str, ...]
) -> None:
    renderer = make_renderer(chat_tokenizers["chatml"], titles)
    scaffold, end = list_scaffold(renderer, "numbered", 2)
    tokens = chat_tokenizers["chatml"].convert_ids_to_tokens
    assert [tokens(list(run)) for run in scaffold.before_item] == [
        ["1", ".", "Ġ"],
        ["Ċ", "2", ".", "Ġ"],
    ]
    assert tokens(list(end)) == ["<|im_end|>"]
    with pytest.raises(ConfigError, match="at least 1"):
        list_scaffold(renderer, "numbered", 0)
