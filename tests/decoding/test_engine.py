from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.processor import ItemConstrainedLogitsProcessor
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Completion, Finished, ItemBegun, ItemDone, TextToken
from incatalog.decoding.request import Request, Scaffold
from incatalog.errors import (
    BackboneError,
    ConfigError,
    NoItemLeftError,
    SpanError,
    TokenizerError,
)
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import load_backbone
from incatalog.packed.model import PackedModel
from incatalog.trie.trie import ItemTrie
from worlds import (
    EOI,
    FIRST_WORD,
    PAD,
    SOI,
    STOP,
    VOCAB,
    count_decisions,
    make_model,
    prompts,
    read,
    spelled_rows,
    token_rows,
)

thorough = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
seeds = st.integers(0, 3)


def make_engine(model: Any, trie: ItemTrie, lookahead: int | None = None) -> Engine:
    return Engine(
        PackedModel(model, frozen=True),
        trie,
        soi_token_id=SOI,
        eoi_token_id=EOI,
        stop_token_ids=[STOP],
        lookahead=lookahead,
    )


def generate(model: Any, batch: Sequence[Sequence[int]], limit: int, **options: Any) -> Any:
    """Plain ``model.generate`` of left-padded prompts; the new tokens up to the stop token."""
    width = max(map(len, batch))
    ids = torch.tensor([[PAD] * (width - len(row)) + list(row) for row in batch])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
    output = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, **options
    )
    answers = [row[width:].tolist() for row in output]
    return [row[: row.index(STOP)] if STOP in row else row for row in answers]


@thorough
@given(token_rows, prompts, seeds, st.data())
def test_greedy_equals_generate_with_the_processor(
    rows: list[list[int]], batch: list[list[int]], seed: int, data: st.DataObject
) -> None:
    model = make_model(seed)
    trie = ItemTrie.build(rows)
    excluded = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    max_items = data.draw(st.none() | st.integers(1, 4))
    limit = data.draw(st.integers(1, 40))
    lookahead = data.draw(st.sampled_from([0, 2, 8, 64]))
    engine = make_engine(model, trie, lookahead)
    requests = [
        Request(
            prompt,
            max_new_tokens=limit,
            max_items=max_items,
            excluded=ExcludedItems.build(trie, excluded),
        )
        for prompt in batch
    ]
    completions = engine.complete(requests)
    if len(excluded) == len(rows):
        assert completions == [Completion((), (), (), "no_item_left")] * len(batch)
        assert engine.statistics.forward_passes == 0
        with pytest.raises(NoItemLeftError):
            ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=excluded)
        return

    processor = ItemConstrainedLogitsProcessor(
        trie, SOI, EOI, excluded=excluded, max_items=max_items
    )
    answers = generate(model, batch, limit, logits_processor=[processor])
    for completion, answer in zip(completions, answers, strict=True):
        tokens = list(completion.token_ids)
        if completion.finish_reason in ("items", "no_item_left"):
            assert max_items is not None
            assert completion.finish_reason == "no_item_left" or len(completion.items) == max_items
            assert tokens == answer[: len(tokens)]
        else:
            assert tokens == answer
            assert completion.finish_reason == ("length" if len(tokens) == limit else "eos")
        spans = read(tokens).spans
        assert [tuple(rows[item]) for item in completion.items] == spans
        assert not excluded & set(completion.items)
        assert len(set(spans)) == len(spans)
        assert max_items is None or len(spans) <= max_items
        assert EOI not in read(tokens).text
    decisions = [
        count_decisions(rows, c.token_ids, excluded, True) + (c.finish_reason == "eos")
        for c in completions
    ]
    # A token cut off by the limit needs no pass of its own, so a row may need one pass less.
    statistics = engine.statistics
    assert statistics.forward_passes <= max(decisions)
    assert lookahead or statistics.forward_passes == max(decisions)
    assert statistics.guessed_right <= statistics.guessed
    assert statistics.decisions == sum(decisions)


def test_guesses_that_come_true_save_passes() -> None:
    trie = ItemTrie.build([[a, b, c] for a in (4, 5) for b in (6, 7) for c in (8, 9)])
    requests = [Request([token], scaffold=Scaffold(((),) * 8)) for token in (4, 6, 9)]
    plain, guessing = (make_engine(make_model(0), trie, lookahead) for lookahead in (0, 16))
    expected, found = plain.complete(requests), guessing.complete(requests)
    assert [done.token_ids for done in found] == [done.token_ids for done in expected]
    assert plain.statistics.guessed == 0
    assert 0 < guessing.statistics.guessed_right < guessing.statistics.guessed
    assert guessing.statistics.decisions == plain.statistics.decisions
    assert guessing.statistics.forward_passes < plain.statistics.forward_passes


@thorough
@given(spelled_rows(), prompts, seeds, st.data())
def test_no_answer_names_an_item_by_two_of_its_spellings(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    model, trie, count = make_model(seed), ItemTrie.build(rows, items=items), max(items) + 1
    excluded = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    temperature = data.draw(st.sampled_from([0.0, 1.0]))
    rule = ExcludedItems.build(trie, excluded)
    # One item more than there are, so that every answer ends where none is left.
    scaffold = Scaffold(((),) * (count + 1))
    requests = [
        Request(prompt, excluded=rule, temperature=temperature, max_new_tokens=200, max_items=size,
                scaffold=None if size is None else scaffold)
        for prompt, size in zip(batch, [None, count + 1] * len(batch), strict=False)
    ]  # fmt: skip
    for request, done in zip(requests, make_engine(model, trie).complete(requests), strict=True):
        spans = read(list(done.token_ids)).spans
        assert len(spans) == len(done.items) == len(set(done.items))
        assert not excluded & set(done.items)
        spent: set[int] = set()
        for span, item in zip(spans, done.items, strict=True):
            named = [
                of for row, of in zip(rows, items, strict=True)
                if tuple(row) == span and of not in excluded | spent
            ]  # fmt: skip
            assert item == named[0]
            spent.update(named)
        if request.scaffold is not None:
            assert done.finish_reason == "no_item_left"
            assert spent == set(range(count)) - excluded
        if temperature == 0:
            processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=excluded)
            [answer] = generate(model, [request.prompt_ids], 200, logits_processor=[processor])
            if request.scaffold is None:
                assert list(done.token_ids) == answer


@thorough
@given(token_rows, prompts, seeds, st.data())
def test_list_scaffold_holds_exactly_the_items_asked_for(
    rows: list[list[int]], batch: list[list[int]], seed: int, data: st.DataObject
) -> None:
    trie = ItemTrie.build(rows)
    excluded = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    temperature = data.draw(st.sampled_from([0.0, 1.0]))
    k = data.draw(st.integers(1, 14))
    before = tuple(tuple([FIRST_WORD + i % 3] * (i % 3)) for i in range(k))
    lookahead = data.draw(st.sampled_from([0, 2, 8, 64]))
    engine = make_engine(make_model(seed), trie, lookahead)
    completions = engine.complete(
        [
            Request(
                prompt,
                excluded=ExcludedItems.build(trie, excluded),
                temperature=temperature,
                seed=number,
                scaffold=Scaffold(before),
            )
            for number, prompt in enumerate(batch)
        ]
    )
    left = len({tuple(row) for n, row in enumerate(rows) if n not in excluded})
    for completion in completions:
        count = min(k, left)
        assert len(completion.items) == len(set(completion.items)) == count
        assert completion.finish_reason == ("items" if k <= left else "no_item_left")
        expected = []
        for run, item in zip(before, completion.items, strict=False):
            expected += [*run, SOI, *rows[item], EOI]
        assert list(completion.token_ids) == expected
    # Only item decisions cost a pass, and the passes of the rows are shared.
    decisions = [
        count_decisions(rows, c.token_ids, excluded, True) - _text_decisions(c) for c in completions
    ]
    # What the prompt and the scaffold force ends without any decision.
    assert engine.statistics.forward_passes <= max(decisions)
    assert lookahead or engine.statistics.forward_passes == max(decisions)


def _text_decisions(completion: Completion) -> int:
    return len(read(completion.token_ids).text) + len(completion.items)


@thorough
@given(token_rows, prompts, seeds, st.sampled_from([0.5, 1.0, 2.0]), st.data())
def test_samples_are_items_and_do_not_depend_on_the_batch(
    rows: list[list[int]],
    batch: list[list[int]],
    seed: int,
    temperature: float,
    data: st.DataObject,
) -> None:
    trie = ItemTrie.build(rows)
    top_p = data.draw(st.sampled_from([1.0, 0.5, 1e-9]))
    requests = [
        Request(
            prompt,
            max_new_tokens=16,
            temperature=temperature,
            top_p=top_p,
            seed=number + 10 * seed,
        )
        for number, prompt in enumerate(batch)
    ]
    engine = make_engine(make_model(seed), trie)
    together = engine.complete(requests)
    assert together == engine.complete(requests)
    for request, completion in zip(requests, together, strict=True):
        [alone] = engine.complete([request])
        assert alone.token_ids == completion.token_ids
        reading = read(completion.token_ids)
        assert reading.spans == [tuple(rows[item]) for item in completion.items]
        assert len(set(reading.spans)) == len(reading.spans)
        if top_p == 1e-9:
            greedy = Request(request.prompt_ids, max_new_tokens=16)
            assert engine.complete([greedy])[0].token_ids == completion.token_ids


def test_samples_follow_the_models_distribution() -> None:
    rows = [[4, 5], [4, 6], [7], [8, 8, 8]]
    trie = ItemTrie.build(rows)
    model = make_model(1)
    engine = make_engine(model, trie)
    prompt = [9, 10, 4]
    requests = [
        Request(prompt, temperature=1.5, seed=seed, scaffold=Scaffold(((),)))
        for seed in range(2000)
    ]
    drawn = np.bincount([c.items[0] for c in engine.complete(requests)], minlength=4) / 2000

    def logprobs(prefix: list[int], allowed: list[int], temperature: float) -> np.ndarray:
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([[*prompt, SOI, *prefix]])).logits[0, -1, allowed]
        return (scores / temperature).double().log_softmax(-1).numpy()

    first = np.exp(logprobs([], [4, 7, 8], 1.5))
    second = np.exp(logprobs([4], [5, 6], 1.5))
    expected = np.array([first[0] * second[0], first[0] * second[1], first[1], first[2]])
    # Four standard deviations of a frequency of 2000 draws.
    np.testing.assert_allclose(drawn, expected, atol=4 * 0.5 / 2000**0.5)

    events = list(engine.generate([Request(prompt, scaffold=Scaffold(((),)))]))
    [done] = [event for event in events if isinstance(event, ItemDone)]
    path = [
        logprobs([], [4, 7, 8], 1.0)[[4, 7, 8].index(rows[done.item_row][0])],
        logprobs([4], [5, 6], 1.0)[rows[done.item_row][1] - 5] if done.item_row < 2 else 0.0,
    ]
    assert done.logprob == pytest.approx(sum(path), abs=1e-5)


def test_events_tell_the_answer_in_order() -> None:
    trie = ItemTrie.build([[4, 5, 6]])
    engine = make_engine(make_model(0), trie)
    events = list(engine.generate([Request([11], scaffold=Scaffold(((7, 8),)))]))
    assert events == [
        TextToken(0, 7),
        TextToken(0, 8),
        ItemBegun(0),
        ItemDone(0, 0, (4, 5, 6), 0.0),
        Finished(0, "items"),
    ]
    assert engine.statistics.forward_passes == 0  # nothing was left to decide


def test_prompt_full_of_control_tokens_changes_nothing_in_the_constraint() -> None:
    rows = [[4, 5], [6]]
    trie = ItemTrie.build(rows)
    engine = make_engine(make_model(2), trie)
    scaffold = Scaffold(((), ()))
    for prompt in ([EOI], [EOI, EOI, 9], [SOI, 4, SOI, EOI], [SOI, 6, EOI, SOI, 4, 5, EOI], [STOP]):
        [completion] = engine.complete([Request(prompt, scaffold=scaffold)])
        assert sorted(completion.items) == [0, 1]
        assert sorted(read(completion.token_ids).spans) == [(4, 5), (6,)]


@pytest.mark.parametrize("prompt", [[SOI], [EOI, EOI, SOI], [9, SOI, 4], [SOI, 4, EOI, SOI, SOI]])
def test_a_prompt_that_ends_inside_a_span_is_refused(prompt: list[int]) -> None:
    engine = make_engine(make_model(2), ItemTrie.build([[4, 5], [6]]))
    place = max(place for place, token in enumerate(prompt) if token == SOI)
    for scaffold in (None, Scaffold(((),))):
        with pytest.raises(SpanError, match=f"token {place} opens an item span that nothing"):
            engine.complete([Request(prompt, scaffold=scaffold)])
    # Without grounding a prompt is what it is.
    assert engine.complete([Request(prompt, max_new_tokens=3, grounded=False)])


def test_row_cut_inside_a_span_is_no_item() -> None:
    trie = ItemTrie.build([[4, 5, 6, 7]])
    engine = make_engine(make_model(0), trie)
    for limit in range(1, 6):
        [cut] = engine.complete([Request([8], max_new_tokens=limit, scaffold=Scaffold(((),)))])
        assert cut == Completion((SOI, 4, 5, 6, 7)[:limit], (), (), "length")
    [whole] = engine.complete([Request([8], max_new_tokens=6, scaffold=Scaffold(((),)))])
    assert whole == Completion((SOI, 4, 5, 6, 7, EOI), (0,), (0.0,), "items")


def test_one_exhausted_request_leaves_the_batch_alone() -> None:
    rows = [[4], [5], [6, 7]]
    trie = ItemTrie.build(rows)
    engine = make_engine(make_model(3), trie)
    scaffold = Scaffold(((),) * 3)
    everything = ExcludedItems.build(trie, [0, 1, 2])
    none, all_of_them, one = engine.complete(
        [
            Request([8], excluded=everything, scaffold=scaffold),
            Request([8, 9], scaffold=scaffold),
            Request([9], excluded=ExcludedItems.build(trie, [0, 1]), scaffold=scaffold),
        ]
    )
    assert none == Completion((), (), (), "no_item_left")
    assert sorted(all_of_them.items) == [0, 1, 2]
    assert all_of_them.finish_reason == "items"
    assert one.items == (2,)
    assert one.finish_reason == "no_item_left"


def test_items_with_one_title_are_spent_together() -> None:
    trie = ItemTrie.build([[4, 5], [6], [4, 5]])
    engine = make_engine(make_model(0), trie)
    request = Request([8], scaffold=Scaffold(((),) * 3))
    [completion] = engine.complete([request])
    assert sorted(completion.items) == [0, 1]
    [completion] = engine.complete(
        [Request([8], scaffold=Scaffold(((),) * 3), excluded=ExcludedItems.build(trie, [0]))]
    )
    assert sorted(completion.items) == [1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_unconstrained_equals_plain_generate(seed: int) -> None:
    trie = ItemTrie.build([[4, 5]])
    model = make_model(seed)
    batch = [[5, 6, SOI], [7], [8, 9, 10, 11, 4]]
    completions = make_engine(model, trie).complete(
        [Request(prompt, max_new_tokens=30, grounded=False) for prompt in batch]
    )
    assert [list(c.token_ids) for c in completions] == generate(model, batch, 30)
    assert all(c.items == () for c in completions)
    limited = make_engine(model, trie).complete(
        [Request(p, max_new_tokens=30, max_items=2, grounded=False) for p in batch]
    )
    for whole, part in zip(completions, limited, strict=True):
        assert part.token_ids == whole.token_ids[: len(part.token_ids)]
        assert part.token_ids.count(EOI) == min(2, whole.token_ids.count(EOI))


def test_stops_behind_the_last_item() -> None:
    trie = ItemTrie.build([[word] for word in range(FIRST_WORD, VOCAB)])
    engine = make_engine(make_model(0), trie)
    batch = [[4, 5], [6, 7, 8], [9], [10, 4]]
    stopped = engine.complete([Request(p, max_items=1, max_new_tokens=40) for p in batch])
    written_on = engine.complete([Request(p, max_new_tokens=40) for p in batch])
    assert any(c.finish_reason == "items" for c in stopped)
    for short, long in zip(stopped, written_on, strict=True):
        assert long.token_ids[: len(short.token_ids)] == short.token_ids
        assert short.items == long.items[:1]
        if short.finish_reason == "items":
            assert short.token_ids[-1] == EOI


def test_requests_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens"):
        Request([4], max_new_tokens=0)
    with pytest.raises(ConfigError, match="max_items"):
        Request([4], max_items=-1)
    with pytest.raises(ConfigError, match="max_items"):
        Request([4], max_items=0, scaffold=Scaffold(((),)))
    with pytest.raises(ConfigError, match="top_p"):
        Request([4], top_p=0)
    with pytest.raises(ConfigError, match="prompt_ids"):
        Request([])
    with pytest.raises(ConfigError, match="room for 1"):
        Request([4], max_items=2, scaffold=Scaffold(((),)))
    with pytest.raises(ConfigError, match="grounded"):
        Request([4], grounded=False, scaffold=Scaffold(((),)))


def test_control_tokens_inside_items_are_refused() -> None:
    model = make_model(0)
    for token in (SOI, EOI, STOP):
        with pytest.raises(TokenizerError, match="in the tokens of an item"):
            make_engine(model, ItemTrie.build([[4, token, 5]]))
    with pytest.raises(TokenizerError, match="different"):
        Engine(model, ItemTrie.build([[4]]), soi_token_id=1, eoi_token_id=1, stop_token_ids=[STOP])


def test_scores_that_are_not_numbers_are_an_error() -> None:
    model = make_model(0)
    weight = model.lm_head.weight
    engine = make_engine(model, ItemTrie.build([[4], [5]]))
    with torch.no_grad():
        before = weight.clone()
        weight.fill_(torch.nan)
        try:
            with pytest.raises(BackboneError, match="not numbers"):
                engine.complete([Request([4], scaffold=Scaffold(((),)))])
            with pytest.raises(BackboneError, match="not numbers"):
                engine.complete([Request([4])])
        finally:
            weight.copy_(before)


@pytest.mark.slow
def test_smollm2_writes_what_generate_with_the_processor_writes(
    smollm2_folder: Path, titles: tuple[str, ...]
) -> None:
    backbone = load_backbone(smollm2_folder, device="cpu")
    tokens = ItemTokens.from_titles(titles, backbone.tokenizer)
    trie = tokens.trie()
    soi, eoi = backbone.soi_token_id, backbone.eoi_token_id
    stop = backbone.tokenizer.eos_token_id
    opened = [soi, *backbone.tokenizer("Films I like:").input_ids]
    batch = [[*opened, *tokens.span(row), *opened[1:]] for row in range(0, 9, 3)]
    with torch.no_grad():
        # An untrained <SOI> is never chosen; the score of a frequent token opens spans often.
        newline = backbone.tokenizer("\n").input_ids[0]
        weight = backbone.model.get_input_embeddings().weight
        weight[soi] = 1.01 * weight[newline]
    engine = Engine(backbone.model, trie, soi_token_id=soi, eoi_token_id=eoi, stop_token_ids=[stop])
    completions = engine.complete([Request(prompt, max_new_tokens=60) for prompt in batch])
    processor = ItemConstrainedLogitsProcessor(trie, soi, eoi)
    answers = generate(
        backbone.model, batch, 60, logits_processor=[processor], eos_token_id=stop, pad_token_id=PAD
    )
    assert any(completion.items for completion in completions)
    for completion, answer in zip(completions, answers, strict=True):
        tokens_written = list(completion.token_ids)
        assert answer[: len(tokens_written)] == tokens_written
