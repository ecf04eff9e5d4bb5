from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from incatalog import Catalog, Item, Recommender, SpanReader
from incatalog.codes.semantic_ids import SemanticIds
from incatalog.errors import SpanError
from incatalog.items.tokens import OUR_NAMES
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec

CATALOG = Catalog.from_items([Item("a", "Night"), Item("b", "Night Train (1959)"), Item("c", "Ä")])


def reader(*titles: str) -> SpanReader:
    return SpanReader(CATALOG, OUR_NAMES, {title: row for row, title in enumerate(titles)})


BY_TITLE = reader("Night", "Night Train (1959)", "Ä")


def test_spans_become_titles_with_their_places() -> None:
    found = BY_TITLE.read("1. <SOI>Night<EOI>\n2. <SOI>Ä<EOI>, and that is all")
    assert found.text == "1. Night\n2. Ä, and that is all"
    assert [one.item_id for one in found.items] == ["a", "c"]
    assert [(one.start, one.end) for one in found.items] == [(3, 8), (12, 13)]
    assert [found.text[one.start : one.end] for one in found.items] == ["Night", "Ä"]


def test_text_without_spans_stays_as_it_is() -> None:
    assert BY_TITLE.read("Night is no item here.").items == ()


def test_spaces_around_control_tokens_do_not_matter() -> None:
    assert [one.item_id for one in BY_TITLE.read("<SOI> Night <EOI>").items] == ["a"]
    codes = reader("<a_1><b_2>", "<a_1><b_3>", "<a_2><b_0>")
    assert [one.item_id for one in codes.read("<SOI> <a_1> <b_3> <EOI>").items] == ["b"]


def test_an_answer_that_was_cut_ends_before_its_open_span() -> None:
    found = BY_TITLE.read("1. <SOI>Night<EOI>\n2. <SOI>Night Tr")
    assert found.text == "1. Night\n2. "
    assert len(found.items) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<SOI>Nights<EOI>", "'Nights' is no item"),
        ("<SOI>Night <SOI>Ä<EOI>", "opens another span"),
        ("Night<EOI>", "no span is open"),
        ("<SOI>Night<EOI>Ä<EOI>", "no span is open"),
        ("<SOI><EOI>", "'' is no item"),
    ],
)
def test_what_no_constraint_wrote_is_an_error(text: str, why: str) -> None:
    with pytest.raises(SpanError, match=why):
        BY_TITLE.read(text)


def test_a_folder_is_read_as_the_engine_writes(
    tmp_path: Path, talkative_backbone: Backbone, titles: tuple[str, ...]
) -> None:
    save_model(tmp_path, talkative_backbone, ModelSpec(base="tiny", list_form="plain"))
    Catalog.from_items(Item(f"i{row}", title) for row, title in enumerate(titles)).save(tmp_path)
    own = Recommender.from_pretrained(tmp_path, device="cpu")
    request = own.chat_request(
        [{"role": "user", "content": "Hello"}], max_new_tokens=80, item_decode="token"
    )
    [done] = own.engine.complete([request])
    answer = own.answer_text()
    for event in own.engine.generate([request]):
        for _ in answer.feed(event):
            pass
    written = own.backbone.tokenizer.decode(list(done.token_ids), skip_special_tokens=False)
    found = SpanReader.from_pretrained(tmp_path).read(written)
    assert found.items
    assert [one.item_id for one in found.items] == [one.item_id for one in answer.answer().items]


def test_codes_are_read_too(tmp_path: Path, tiny_backbone: Backbone) -> None:
    spec = ModelSpec(base="tiny", method="token", item_form="codes", code_sizes=(2, 2))
    save_model(tmp_path, tiny_backbone, spec)
    CATALOG.save(tmp_path)
    codes = np.array(list(itertools.product((0, 1), repeat=2))[:3], dtype=np.int32)
    SemanticIds(codes, (2, 2)).save(tmp_path, "own", CATALOG)
    found = SpanReader.from_pretrained(tmp_path).read("<SOI><a_0><b_1><EOI>!")
    assert found.text == "Night Train (1959)!"
