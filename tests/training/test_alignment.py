from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incatalog.codes.semantic_ids import SemanticIds, code_names
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.dialogue.render import Renderer
from incatalog.dialogue.tasks import num_tokens
from incatalog.dialogue.templates import ALIGNMENT_WORDINGS
from incatalog.errors import ConfigError
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import Backbone, add_codes
from incatalog.training.alignment import Alignment
from incatalog.training.dataset import SftDataset
from incatalog.training.general_chat import GeneralChat
from incatalog.training.samples import SampleSource
from incatalog.training.settings import SftSettings


class Bench:
    """A tiny model with codes, and a catalog with descriptions of very different lengths."""

    def __init__(self, backbone: Backbone, catalog: Catalog, ids: SemanticIds) -> None:
        backbone = add_codes(copy.deepcopy(backbone), ids.sizes)
        self.tokenizer = backbone.tokenizer
        self.ids = ids
        self.catalog = Catalog.from_items(
            (
                Item(item.item_id, item.title, f"<a_1> Été 東京🎬 {item.title}. " * row)
                for row, item in enumerate(catalog.items)
            ),
            "films",
        )
        self.tokens = ItemTokens.from_codes(ids, self.tokenizer)
        self.renderer = Renderer(self.tokenizer, self.tokens)

    def fit(self, max_length: int) -> Alignment:
        return Alignment.fit(
            self.catalog, self.catalog.titles, self.renderer, self.tokenizer, max_length
        )


@pytest.fixture(scope="module")
def bench(tiny_backbone: Backbone, catalog: Catalog, semantic_ids: SemanticIds) -> Bench:
    return Bench(tiny_backbone, catalog, semantic_ids)


def test_every_wording_asks_one_thing_and_trains_the_answer(bench: Bench) -> None:
    alignment = bench.fit(4000)
    assert alignment.cut == 0
    for number, wording in enumerate(ALIGNMENT_WORDINGS):
        rendered = bench.renderer.conversation(alignment.messages(number, 2))
        text = bench.tokenizer.decode(rendered.input_ids)
        written = bench.tokenizer.decode(rendered.input_ids[rendered.loss_mask])
        codes = "<SOI>" + "".join(bench.ids.tokens(2)) + "<EOI>"
        assert text.count(codes) == 1
        if wording.shows_text:
            assert written == f"{codes}<|im_end|>"
            assert "Harbour\n<a_1> Été 東京🎬 Harbour. <a_1> Été 東京🎬 Harbour." in text
        else:
            assert written == "Harbour<|im_end|>"
        # The code that the description spells is text: three tokens of the item, no more.
        code_ids = bench.tokenizer.convert_tokens_to_ids(list(code_names(bench.ids.sizes)))
        assert np.isin(rendered.input_ids, code_ids).sum() == 3


def test_no_sample_is_longer_than_it_may_be(bench: Bench) -> None:
    for limit in (150, 157, 200, 1000):
        alignment = bench.fit(limit)
        exact = np.array(
            [
                [
                    num_tokens(bench.renderer, alignment.messages(number, row))
                    for row in range(len(bench.catalog))
                ]
                for number in range(len(ALIGNMENT_WORDINGS))
            ]
        )
        assert exact.max() <= limit
        # What is cut is cut no more than need be.
        shown = [wording.shows_text for wording in ALIGNMENT_WORDINGS]
        assert exact[shown].max() > limit - 24
        assert np.abs(exact - alignment.lengths).max() <= 8
        whole = bench.fit(10**5)
        changed = [a != b for a, b in zip(alignment.texts, whole.texts, strict=True)]
        assert sum(changed) == alignment.cut > 0
        assert all(b.startswith(a) for a, b in zip(alignment.texts, whole.texts, strict=True))


def test_length_without_room_for_a_title_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"--max-length 50: too short to ask what item 'i\d+'"):
        bench.fit(50)


def source(bench: Bench, histories: Histories, **changes: Any) -> SampleSource:
    settings: dict[str, Any] = {"item_form": "codes", "method": "token", "max_history": 4}
    config = SftSettings(model="tiny", data=Path("data"), out=Path("out"), **(settings | changes))
    return SampleSource(
        leave_one_out(histories),
        bench.catalog.titles,
        bench.tokens,
        bench.renderer,
        config,
        alignment=bench.fit(1000) if config.align_ratio else None,
    )


def test_ratio_decides_how_many_and_leaves_the_others_alone(
    bench: Bench, histories: Histories
) -> None:
    without = source(bench, histories)
    mixed = source(bench, histories, align_ratio=1.5)
    users = len(without.users)
    assert mixed.per_epoch == users + round(1.5 * users)
    first, second = without.draws(3), mixed.draws(3)
    for name in first._fields[:-2]:
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert len(second.aligned) == len(second.alignment) == mixed.num_aligned
    seen = np.concatenate([mixed.draws(epoch).aligned for epoch in range(6)])
    assert len(set(seen.tolist())) == len(bench.catalog)
    wanted = [(3, number) for number in range(mixed.per_epoch)]
    samples = mixed.train_samples(wanted, [second] * len(wanted))
    for place, sample in enumerate(samples[users:]):
        (span,) = sample.rendered.spans
        assert span.row == second.aligned[place]
        answers_item = ALIGNMENT_WORDINGS[second.alignment[place]].shows_text
        assert sample.trained.tolist() == [answers_item]
    lengths = mixed.estimated_lengths(second)
    assert len(lengths) == len(samples)
    exact = np.array([len(sample.rendered.input_ids) for sample in samples])
    assert np.corrcoef(lengths, exact)[0, 1] > 0.99
    epoch = SftDataset(mixed, mixed.per_epoch, 8, seed=0)
    found = sum(len(epoch[number].rendered.spans) == 1 for number in range(len(epoch)))
    assert found == mixed.num_aligned


def test_general_conversations_come_before_alignment(
    bench: Bench, histories: Histories, chat_file: Any
) -> None:
    from incatalog.data.conversations import load_conversations

    chat = GeneralChat.fit(load_conversations(chat_file), bench.renderer, 400, chat_file)
    made = source(bench, histories, align_ratio=0.5)
    both = SampleSource(
        leave_one_out(histories), bench.catalog.titles, bench.tokens, bench.renderer,
        SftSettings(
            model="tiny", data=Path("data"), out=Path("out"), method="token", item_form="codes",
            align_ratio=0.5, chat_ratio=0.5,
        ),
        chat=chat, alignment=bench.fit(1000),
    )  # fmt: skip
    users = len(both.users)
    assert both.per_epoch == users + both.num_general + made.num_aligned
    draws = both.draws(0)
    wanted = [(0, number) for number in range(users, both.per_epoch)]
    spans = [len(s.rendered.spans) for s in both.train_samples(wanted, [draws] * len(wanted))]
    assert spans == [0] * both.num_general + [1] * both.num_aligned
    assert len(both.estimated_lengths(draws)) == both.per_epoch
