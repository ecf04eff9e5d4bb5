from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog import Recommender
from incatalog.decoding.events import Finished, ItemDone, TextToken
from incatalog.dialogue.render import ItemRef, Text
from incatalog.errors import CatalogError
from incatalog.serving.chat_answer import Writer, _message, chat_request
from incatalog.serving.schemas import ChatMessage, ChatRequest, NamedItem

letters = st.text("abc", max_size=12)


@given(st.lists(letters, max_size=6), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_text_ends_before_the_first_stop_however_it_is_cut_into_pieces(
    pieces: list[str], stops: list[str]
) -> None:
    writer = Writer.__new__(Writer)
    writer.stops, writer.text, writer._held, writer.finish_reason = tuple(stops), "", "", None
    shown = "".join(piece.text for text in pieces for piece in writer._say(text))
    if writer.finish_reason is None:
        shown += "".join(piece.text for piece in writer._release())
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    # The text is looked at as it grows, so the stop that is complete first counts.
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    assert shown == writer.text
    if not places:
        assert shown == whole
        return
    assert writer.finish_reason == "stop"
    assert whole.startswith(shown)
    assert all(stop not in shown for stop in stops)
    assert len(shown) <= min(ends)


def test_writer_places_items_in_the_text(recommender: Recommender) -> None:
    tokenizer: Any = recommender.backbone.tokenizer
    said = tokenizer("Try ", add_special_tokens=False)["input_ids"]
    then = tokenizer(" tonight.", add_special_tokens=False)["input_ids"]
    writer = Writer(recommender)
    pieces = writer.feed([TextToken(0, token) for token in said])
    pieces += writer.feed([ItemDone(0, 3, tuple(recommender.item_tokens.row(3).tolist()), -0.5)])
    pieces += writer.feed([*(TextToken(0, token) for token in then), Finished(0, "eos")])
    title = recommender.catalog.item(3).title
    assert writer.text == "".join(piece.text for piece in pieces)
    [item] = writer.items
    assert writer.text[item.start : item.end] == title
    assert item.score == pytest.approx(np.exp(-0.5))
    assert item.categories == ["Drama"]
    assert writer.finish_reason == "stop"
    assert writer.tokens == len(said) + len(then) + len(recommender.item_tokens.span(3))


def test_items_sent_back_are_items_only_where_the_text_has_them(recommender: Recommender) -> None:
    catalog = recommender.catalog
    one, other = catalog.item(2), catalog.item(5)
    text = f"{one.title} or {other.title}!"
    at = len(one.title) + 4
    named = [
        NamedItem(id=other.item_id, start=at, end=at + len(other.title)),
        NamedItem(id=one.item_id, start=0, end=len(one.title)),
        NamedItem(id="gone", start=0, end=3),
        NamedItem(id=one.item_id, start=1, end=5),
        NamedItem(id=one.item_id, start=10**9, end=10**9 + 1),
    ]
    message = ChatMessage(role="assistant", content=text, items=named)
    parts = _message(message, catalog).parts
    assert parts == (ItemRef(2), Text(" or "), ItemRef(5), Text("!"))
    assert _message(message, None).parts == (Text(text),)
    user = message.model_copy(update={"role": "user"})
    assert _message(user, catalog).parts == (Text(text),)


def test_request_names_its_field_and_has_the_catalog_of_its_version(
    recommender: Recommender,
) -> None:
    body = {"model": "incatalog", "messages": [{"role": "user", "content": "Hi"}], "seed": -5}
    asked = ChatRequest.model_validate(body | {"history": ["i1", "i4"], "k": 3})
    request = chat_request(asked, recommender, items=True, max_tokens=50)
    assert request.grounding is recommender.grounding
    assert request.max_items == 3
    assert request.seed >= 0
    assert request.excluded is not None
    assert set(np.flatnonzero(request.excluded.rows)) == {1, 4}
    plain = chat_request(ChatRequest.model_validate(body), recommender, items=False, max_tokens=50)
    assert plain.max_items == 0
    with pytest.raises(CatalogError, match=r"^history: "):
        chat_request(
            ChatRequest.model_validate(body | {"history": ["none"]}),
            recommender, items=True, max_tokens=5,
        )  # fmt: skip
