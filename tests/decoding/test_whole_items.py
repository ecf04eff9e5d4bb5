"""Answers whose items are searched for as a whole, beside answers of other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Finished, ItemDone
from incatalog.decoding.request import Request, Scaffold
from incatalog.errors import NOT_NUMBERS, BackboneError
from incatalog.packed.model import PackedModel
from incatalog.trie.trie import ItemTrie
from worlds import (
    EOI,
    FIRST_WORD,
    SOI,
    STOP,
    VOCAB,
    exhaustive,
    make_model,
    prompts,
    read,
    spelled_rows,
    token_rows,
)

thorough = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
seeds = st.integers(0, 3)


def make_engine(model: Any, trie: ItemTrie, **options: Any) -> Engine:
    packed = PackedModel(model, frozen=True)
    ids: Any = {"soi_token_id": SOI, "eoi_token_id": EOI, "stop_token_ids": [STOP]}
    return Engine(packed, trie, **ids, **options)


def logprobs_of(
    model: Any, rows: Sequence[Sequence[int]], items: Sequence[int], text: Sequence[int]
) -> np.ndarray:
    """Log-probability of every item behind a text, over all its spellings."""
    total = np.full(max(items) + 1, -np.inf)
    np.logaddexp.at(total, items, exhaustive(model, rows, text))
    return total


@torch.no_grad()
def check_text(model: Any, prompt: Sequence[int], tokens: Sequence[int], most: int) -> None:
    """What stands outside of spans is what the model says there, with so many items at most."""
    logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 :]
    inside = False
    for place, token in enumerate(tokens):
        if not inside:
            allowed = logits[place].clone()
            allowed[EOI] = -torch.inf
            if len(read(tokens[:place]).spans) >= most:
                allowed[SOI] = -torch.inf
            assert float(allowed[token]) >= float(allowed.max()) - 1e-3
        inside = token == SOI or (inside and token != EOI)


@thorough
@given(spelled_rows(), prompts, seeds, st.booleans(), st.data())
def test_each_item_is_the_best_of_all_that_are_allowed(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    plain: bool,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    if plain:
        items = list(range(len(rows)))
    model, count = make_model(seed), max(items) + 1
    trie = ItemTrie.build(rows) if plain else ItemTrie.build(rows, items=items)
    excluded = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    base = ExcludedItems.build(trie, excluded)
    share = data.draw(st.sampled_from([0.0, 0.6, 1.0]))
    number = st.floats(-9, 2, allow_nan=False)
    log_weights = np.array(data.draw(st.lists(number, min_size=count, max_size=count)))
    weighted = data.draw(st.booleans())
    weights = ItemWeights.build(trie, log_weights, share=share, base=base) if weighted else None
    k = data.draw(st.integers(1, 6))
    scaffold = Scaffold(tuple((FIRST_WORD + place % 3,) * (place % 3) for place in range(k)))
    kinds: list[dict[str, Any]] = [
        {"scaffold": scaffold}, {"max_items": 3}, {"scaffold": scaffold, "item_decode": "token"},
        {"max_items": 0},
    ]  # fmt: skip
    requests = [
        Request(
            prompt, 60, **{"excluded": base, "weights": weights, "item_decode": "search"} | kind
        )
        for prompt in batch
        for kind in kinds
    ]
    engine = make_engine(model, trie)
    for request, done in zip(requests, engine.complete(requests), strict=True):
        tokens, prompt = list(done.token_ids), list(request.prompt_ids)
        spans = read(tokens).spans
        assert len(spans) == len(done.items) == len(set(done.items))
        assert not excluded & set(done.items)
        if request.item_decode == "token":
            continue
        spent, starts = set(excluded), [at for at, token in enumerate(tokens) if token == SOI]
        for start, span, item, said in zip(starts, spans, done.items, done.logprobs, strict=False):
            assert span == tuple(rows[items.index(item)])
            logprobs = logprobs_of(model, rows, items, [*prompt, *tokens[:start]])
            scores = logprobs
            if weights is not None:
                scores = (1 - share) * logprobs + (share * log_weights if share else 0.0)
            left = [row for row in range(count) if row not in spent]
            assert scores[item] >= max(scores[left]) - 1e-3
            plain = weights is None or weights.plain
            assert said == pytest.approx((logprobs if plain else scores)[item], abs=1e-3)
            alike = {of for row, of in zip(rows, items, strict=True) if tuple(row) == span}
            spent |= alike | {item}
        if request.scaffold is None:
            named = len(spans) if len(spent) == count else len(spans) + 1
            check_text(model, prompt, tokens, min(request.max_items, named))
        assert done.finish_reason != "error"
    assert engine.model.pool.rows == set()


@thorough
@given(token_rows, prompts, seeds, st.integers(1, 30))
def test_an_answer_is_cut_where_its_room_ends(
    rows: list[list[int]], batch: list[list[int]], seed: int, limit: int
) -> None:
    model, trie = make_model(seed), ItemTrie.build(rows)
    scaffold = Scaffold(((FIRST_WORD,),) * 4)
    whole, cut = (
        make_engine(model, trie).complete(
            [Request(p, most, scaffold=scaffold, item_decode="search") for p in batch]
        )
        for most in (200, limit)
    )
    for one, other in zip(whole, cut, strict=True):
        assert one.token_ids[:limit] == other.token_ids
        assert len(other.items) == len(read(list(other.token_ids)).spans)


def test_items_are_drawn_with_their_exact_probabilities() -> None:
    rows = [[4], [4, 5], [4, 5, 6], [5, 5], [6, 4], [6, 4, 4], [6, 7], [8, 8, 8]]
    model, trie, prompt = make_model(1), ItemTrie.build(rows), [7, 4]
    draws, together = 1500, 100
    for share, temperature in ((None, 1.0), (0.5, 0.7)):
        weights = None
        log_weights = np.linspace(-2, 1, len(rows))
        base = ExcludedItems.build(trie, [3])
        scores = logprobs_of(model, rows, range(len(rows)), prompt)
        if share is not None:
            weights = ItemWeights.build(trie, log_weights, share=share, base=base)
            scores = (1 - share) * scores + share * log_weights
        how: Any = {"max_items": 1, "scaffold": Scaffold(((),)), "item_decode": "search"}
        requests = [
            Request(
                prompt, excluded=base, weights=weights, temperature=temperature, seed=seed, **how
            )
            for seed in range(draws)
        ]
        engine = make_engine(model, trie)
        batches = [requests[at : at + together] for at in range(0, draws, together)]
        found = [done.items[0] for batch in batches for done in engine.complete(batch)]
        expected = np.exp(scores / temperature)
        expected[3] = 0
        expected /= expected.sum()
        counts = np.bincount(found, minlength=len(rows))
        deviation = np.sqrt(draws * expected * (1 - expected)) + 1
        assert (abs(counts - draws * expected) < 4.5 * deviation).all()
        assert counts[3] == 0


def test_samples_depend_on_the_seed_alone() -> None:
    rows = [[a, b, c] for a in (4, 5) for b in (6, 7) for c in (8, 9)]
    model, trie = make_model(0), ItemTrie.build(rows)
    how: Any = {"temperature": 1.0, "scaffold": Scaffold(((),) * 4), "item_decode": "search"}
    requests = [Request([4, n % 7 + 4], seed=n, **how) for n in range(12)]
    together = make_engine(model, trie).complete(requests)
    alone = [make_engine(model, trie).complete([request])[0] for request in requests]
    assert [done.items for done in together] == [done.items for done in alone]
    assert len({done.items for done in together}) > 4


def test_a_search_may_be_cancelled_and_others_go_on() -> None:
    rows = [[a, b, c] for a in (4, 5, 6) for b in (6, 7, 8) for c in (8, 9)]
    model, trie = make_model(2), ItemTrie.build(rows)
    engine = make_engine(model, trie)
    requests = [
        Request([4, n + 4], scaffold=Scaffold(((),) * 5), item_decode="search") for n in range(5)
    ]
    expected = [done.items for done in make_engine(model, trie).complete(requests)]
    with engine.session() as session:
        indices = [session.add(request) for request in requests]
        session.step()
        session.cancel(indices[1])
        named: dict[int, list[int]] = {index: [] for index in indices}
        ended = set()
        while session:
            for event in session.step():
                if isinstance(event, ItemDone):
                    named[event.index].append(event.item_row)
                if isinstance(event, Finished):
                    ended.add(event.index)
    assert ended == set(indices) - {indices[1]}
    assert [tuple(named[n]) for n in indices if n != indices[1]] == expected[:1] + expected[2:]
    assert named[indices[1]] == []
    assert engine.model.pool.rows == set()


def test_scores_that_are_no_numbers_fail_that_answer_alone() -> None:
    rows = [[a, b] for a in (4, 5, 6) for b in (7, 8)]
    model, trie = make_model(3), ItemTrie.build(rows)
    how: Any = {"scaffold": Scaffold(((), ())), "item_decode": "search"}
    good = Request([4, 5], **how)
    [expected] = make_engine(model, trie).complete([good])
    broken = VOCAB - 1
    embedding = model.get_input_embeddings().weight
    kept = embedding[broken].detach().clone()
    try:
        with torch.no_grad():
            embedding[broken] = torch.nan
        with make_engine(model, trie).session() as session:
            lost, sound = session.add(Request([4, broken], **how)), session.add(good)
            while session:
                session.step()
            assert session.completion(sound).items == expected.items
            with pytest.raises(BackboneError, match=NOT_NUMBERS[:20]):
                session.completion(lost)
    finally:
        with torch.no_grad():
            embedding[broken] = kept


def test_what_was_searched_is_not_fed_again() -> None:
    """A list of searched items feeds each token of the text once, and the prefixes tried beside."""
    rows = [[a, b, c, 4] for a in (4, 5, 6) for b in (6, 7, 8) for c in (8, 9)]
    trie = ItemTrie.build(rows)
    engine = make_engine(make_model(0), trie)
    [done] = engine.complete(
        [Request([4, 5], scaffold=Scaffold(((10,),) * 4), item_decode="search")]
    )
    statistics = engine.statistics
    assert statistics.decisions == len(done.items) == 4
    # Of the text, all but the end of the last item; of the search, only prefixes of items.
    certain = statistics.tokens_fed - statistics.searched
    assert certain < 2 + len(done.token_ids)
    assert statistics.searched > 0
