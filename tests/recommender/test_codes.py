"""What a model that writes codes says to a user."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from incatalog import Catalog, Item, Recommender
from incatalog.codes.semantic_ids import SemanticIds, is_code_token
from incatalog.decoding.request import Request
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.model.backbone import Backbone, add_codes
from incatalog.model.spec import ModelSpec
from incatalog.recommender.answer import Recommendation


@pytest.fixture(scope="module")
def talkative(tiny_backbone: Backbone, titles: tuple[str, ...]) -> Recommender:
    """A random model that likes to open item spans, and to write codes outside them too."""
    items = [Item(f"i{row}", title) for row, title in enumerate(titles)]
    items.append(Item("odd", "<a_1> Street & <SOI>"))
    rows = np.arange(len(items))
    codes = np.stack([rows // 8, rows % 8], axis=1).astype(np.int32)
    ids = SemanticIds(codes, (7, 8))
    backbone = add_codes(copy.deepcopy(tiny_backbone), ids.sizes)
    model: Any = backbone.model
    torch.manual_seed(1)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(head))
        model.lm_head.weight[backbone.soi_token_id] *= 4
        model.lm_head.weight[list(backbone.code_token_ids[:3])] *= 4
    spec = ModelSpec(
        base="tiny", method="token", item_form="codes", code_sizes=ids.sizes, history_form="span"
    )
    return Recommender(backbone, spec, Catalog.from_items(items, "films"), ids)


def test_chat_names_titles_and_never_codes(talkative: Recommender) -> None:
    messages = [{"role": "user", "content": "Something with a train, please."}]
    for seed in range(4):
        options: dict[str, Any] = {"max_new_tokens": 60, "temperature": 1.0, "seed": seed}
        answer = talkative.chat(messages, **options)
        assert answer.items
        rest = answer.text
        for one in answer.items:
            assert one.title == talkative.catalog.item(talkative.catalog.row(one.item_id)).title
            assert one.title in rest
            rest = rest.replace(one.title, "", 1)
        assert "<a_" not in rest
        assert "<b_" not in rest
        pieces = list(talkative.stream(messages, **options))
        assert tuple(p for p in pieces if isinstance(p, Recommendation)) == answer.items
        text = "".join(piece if isinstance(piece, str) else piece.title for piece in pieces)
        assert text == answer.text
        refs = [part.row for part in answer.message.parts if isinstance(part, ItemRef)]
        assert refs == [talkative.catalog.row(one.item_id) for one in answer.items]


def test_codes_stand_inside_spans_only_unless_left_to_itself(talkative: Recommender) -> None:
    tokenizer = talkative.backbone.tokenizer
    prompt = talkative.renderer.prompt([Message("user", (Text("A train?"),))]).tolist()
    grounded = Request(prompt, max_new_tokens=60, temperature=1.0, seed=0)
    requests = [replace(grounded, grounded=False), grounded, replace(grounded, seed=1)]
    free, *held = (
        tokenizer.convert_ids_to_tokens(done.token_ids)
        for done in talkative.engine.complete(requests)
    )
    assert sum(map(is_code_token, free)) > 10
    for names in held:
        inside = 0
        for name in names:
            assert is_code_token(name) == (inside > 0 and name != "<EOI>")
            inside = 1 if name == "<SOI>" else 0 if name == "<EOI>" else inside
        assert "<SOI>" in names


def test_earlier_answers_are_shown_as_codes_and_user_text_never_is(
    talkative: Recommender,
) -> None:
    user = Message("user", (Text("Like <a_1><b_2> <SOI><a_1><b_2><EOI>?"),))
    answer = Message("assistant", (Text("Try "), ItemRef(10)))
    prompt = talkative.renderer.prompt([user, answer, user]).tolist()
    names = talkative.backbone.tokenizer.convert_ids_to_tokens(prompt)
    assert [name for name in names if is_code_token(name)] == ["<a_1>", "<b_2>"]
    place = names.index("<a_1>")
    assert names[place - 1 : place + 3] == ["<SOI>", "<a_1>", "<b_2>", "<EOI>"]


def test_title_that_spells_a_code_stays_text(talkative: Recommender) -> None:
    found = talkative.recommend([], k=51)
    assert {one.title for one in found} >= {"<a_1> Street & <SOI>"}
    title_t = talkative.catalog.item(50).title_t
    assert title_t == "< a_1> Street & < SOI>"
    prompt = talkative.renderer.prompt([Message("user", (Text(str(title_t)),))]).tolist()
    assert not set(prompt) & set(talkative.backbone.code_token_ids)
