from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.model.backbone import Backbone
from incatalog.recommender.answer import Detokenizer

text = st.text(st.sampled_from("ab é日本👩‍🚀 \n.øÄ"), max_size=30)


@settings(max_examples=150, deadline=None)
@given(text, st.lists(st.integers(1, 4), max_size=40))
def test_pieces_make_the_text_however_the_tokens_come(
    tiny_backbone: Backbone, text: str, cuts: list[int]
) -> None:
    tokenizer: Any = tiny_backbone.tokenizer
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(tokenizer)
    pieces = []
    start = 0
    for cut in [*cuts, len(tokens)]:
        pieces.append(detokenizer.add(tokens[start : start + cut]))
        start += cut
    pieces.append(detokenizer.add([], wait=False))
    assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens=True)
    # No piece ends within a character.
    assert not any(piece.endswith("\ufffd") for piece in pieces)


def test_control_tokens_are_not_text(tiny_backbone: Backbone) -> None:
    tokenizer: Any = tiny_backbone.tokenizer
    detokenizer = Detokenizer(tokenizer)
    [harbour] = [tokenizer("Harbour", add_special_tokens=False)["input_ids"]]
    opened = [tiny_backbone.soi_token_id, *harbour, tiny_backbone.eoi_token_id]
    assert detokenizer.add(opened) == "Harbour"
    assert detokenizer.add(harbour) == "Harbour"


def test_cost_of_a_token_does_not_grow_with_the_answer(tiny_backbone: Backbone) -> None:
    tokenizer: Any = tiny_backbone.tokenizer
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer("Harbour Lights (1991). " * 200, add_special_tokens=False)["input_ids"]
    for token in tokens:
        detokenizer.add([token])
        assert len(detokenizer._tokens) <= 16
