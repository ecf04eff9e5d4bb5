from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog import Recommender
from incatalog.dialogue.render import ItemRef, Text
from incatalog.errors import CatalogError
from incatalog.recommender.answer import Recommendation
from incatalog.serving.chat_answer import Writer, _message, check_items, enquiry
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.message_schemas import ChatMessage, SentItem
from incatalog.serving.settings import ServeSettings

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
    writer = Writer(recommender.catalog, ("!",))
    named = recommender.catalog.item(3)
    found = Recommendation(named.item_id, named.title, 1, np.exp(-0.5), "It fits.")
    pieces = writer.feed(["Try ", found, " tonight."])
    assert writer.finish_reason is None
    pieces += writer.end("length")
    assert writer.text == f"Try {named.title} tonight."
    assert writer.text == "".join(piece.text for piece in pieces)
    [item] = writer.items
    assert writer.text[item.start : item.end] == named.title
    assert item.score == pytest.approx(np.exp(-0.5))
    assert item.categories == ["Drama"]
    assert item.reason == "It fits."
    assert writer.finish_reason == "length"
    # Nothing comes behind the end.
    assert writer.feed([" More"]) == []
    assert writer.end("stop") == []


def test_items_sent_back_are_items_only_where_the_text_has_them(recommender: Recommender) -> None:
    catalog = recommender.catalog
    one, other = catalog.item(2), catalog.item(5)
    text = f"{one.title} or {other.title}!"
    at = len(one.title) + 4
    named = [
        SentItem(id=other.item_id, start=at, end=at + len(other.title)),
        SentItem(id=one.item_id, start=0, end=len(one.title)),
        SentItem(id="gone", start=0, end=3),
        SentItem(id=one.item_id, start=1, end=5),
        SentItem(id=one.item_id, start=10**9, end=10**9 + 1),
    ]
    message = ChatMessage(role="assistant", content=text, items=named)
    parts = _message(message, catalog).parts
    assert parts == (ItemRef(2), Text(" or "), ItemRef(5), Text("!"))
    # LiteLLM puts what OpenAI's API has not one level deeper.
    deeper = {"refusal": None, "items": [one.model_dump() for one in named]}
    printed = {"role": "assistant", "content": text, "provider_specific_fields": deeper}
    assert _message(ChatMessage.model_validate(printed), catalog).parts == parts
    assert _message(message, None).parts == (Text(text),)
    user = message.model_copy(update={"role": "user"})
    assert _message(user, catalog).parts == (Text(text),)


def test_an_enquiry_is_what_the_body_says(recommender: Recommender) -> None:
    body = {"model": "incatalog", "messages": [{"role": "user", "content": "Hi"}], "seed": -5}
    settings = ServeSettings(Path("m"), max_tokens=50, max_k=9)
    catalog = recommender.catalog
    more = {"history": ["i1", "none"], "k": "auto", "where": {"category": "Crime"}, "max_tokens": 7}
    asked = ChatRequest.model_validate(body | more | {"filters_off": ["a=b"], "voice": "facts"})
    found = enquiry(asked, catalog, settings)
    assert (found.history, found.k, found.filters_off) == (["i1", "none"], "auto", ["a=b"])
    assert (found.voice, found.max_new_tokens, found.usual_tokens) == ("facts", 7, 50)
    assert found.most_items == 9
    assert found.where.as_mapping() == {"category": {"eq": "Crime"}}
    assert found.seed >= 0
    assert enquiry(ChatRequest.model_validate(body), None, settings).max_new_tokens is None
    for field in ("max_tokens", "max_completion_tokens"):
        longer = ChatRequest.model_validate(body | {field: 51})
        assert enquiry(longer, None, settings).max_new_tokens == 50


def test_ids_that_are_not_in_the_catalog_are_told_or_refused(recommender: Recommender) -> None:
    body = {"model": "incatalog", "messages": [{"role": "user", "content": "Hi"}]}
    asked = ChatRequest.model_validate(body | {"history": ["none", "i1"]})
    assert check_items(asked, recommender.catalog) == ["none"]
    for wrong in ({"history": ["none"], "unknown": "error"}, {"exclude": ["none"]}):
        [name] = wrong.keys() - {"unknown"}
        with pytest.raises(CatalogError, match=f"^{name}: .*no item with id 'none'"):
            check_items(ChatRequest.model_validate(body | wrong), recommender.catalog)
