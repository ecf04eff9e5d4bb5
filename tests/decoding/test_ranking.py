from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.ranking import ItemBeam
from incatalog.decoding.request import Slot
from incatalog.errors import BackboneError, ConfigError, TokenizerError, TrieError
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
    spelled_rows,
    token_rows,
)

thorough = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
seeds = st.integers(0, 3)


def make_beam(model: Any, trie: ItemTrie, **options: Any) -> ItemBeam:
    return ItemBeam(model, trie, soi_token_id=SOI, eoi_token_id=EOI, **options)


@thorough
@given(token_rows, prompts, seeds, st.integers(1, 5), st.data())
def test_equals_scoring_every_item(
    rows: list[list[int]], batch: list[list[int]], seed: int, width: int, data: st.DataObject
) -> None:
    model = make_model(seed)
    trie = ItemTrie.build(rows)
    left_out = [data.draw(st.sets(st.integers(0, len(rows) - 1))) for _ in batch]
    k = data.draw(st.none() | st.integers(1, len(rows) + 2))
    slots = [
        Slot(prompt, ExcludedItems.build(trie, excluded) if excluded else None)
        for prompt, excluded in zip(batch, left_out, strict=True)
    ]
    answers = make_beam(model, trie, width=width).top_items(slots, k)
    for prompt, excluded, answer in zip(batch, left_out, answers, strict=True):
        scores = exhaustive(model, rows, prompt)
        expected = sorted(set(range(len(rows))) - excluded, key=lambda row: (-scores[row], row))[:k]
        found = answer.rows.tolist()
        assert len(set(found)) == len(found) == len(expected)
        assert not excluded & set(found)
        assert answer.logprobs == pytest.approx(scores[found], abs=1e-4)
        # The same items, up to the order of scores that float32 cannot tell apart.
        assert answer.logprobs == pytest.approx(scores[expected], abs=1e-4)


@thorough
@given(spelled_rows(), prompts, seeds, st.integers(1, 5), st.data())
def test_an_item_has_the_probability_of_all_its_spellings(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    width: int,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    model, trie, count = make_model(seed), ItemTrie.build(rows, items=items), max(items) + 1
    left_out = [data.draw(st.sets(st.integers(0, count - 1))) for _ in batch]
    k = data.draw(st.none() | st.integers(1, count + 1))
    slots = [
        Slot(prompt, ExcludedItems.build(trie, excluded) if excluded else None)
        for prompt, excluded in zip(batch, left_out, strict=True)
    ]
    answers = make_beam(model, trie, width=width).top_items(slots, k)
    limited = make_beam(model, trie, width=width, exact=False).top_items(slots, k)
    for prompt, excluded, answer, kept in zip(batch, left_out, answers, limited, strict=True):
        scores = np.full(count, -np.inf)
        np.logaddexp.at(scores, items, exhaustive(model, rows, prompt))
        allowed = set(range(count)) - excluded
        expected = sorted(allowed, key=lambda row: (-scores[row], row))[:k]
        found = answer.rows.tolist()
        assert len(set(found)) == len(found) == len(expected)
        assert not excluded & set(found)
        assert answer.logprobs == pytest.approx(scores[found], abs=1e-4)
        assert answer.logprobs == pytest.approx(scores[expected], abs=1e-4)
        # Spellings that were dropped are missing from the sum.
        assert len(set(kept.rows.tolist())) == len(kept.rows)
        assert not excluded & set(kept.rows.tolist())
        assert (kept.logprobs <= scores[kept.rows] + 1e-4).all()


@thorough
@given(spelled_rows(), prompts, seeds, st.integers(1, 9), st.booleans(), st.data())
def test_search_in_small_steps_finds_the_same(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    tokens: int,
    several: bool,
    data: st.DataObject,
) -> None:
    """Searches that join late, whose prompts are fed in parts and prefixes a few at a time."""
    rows, items = spelled
    trie = ItemTrie.build(rows, items=items) if several else ItemTrie.build(rows)
    counts = [data.draw(st.none() | st.integers(1, 6)) for _ in batch]
    beam = make_beam(make_model(seed), trie)
    waiting = [beam.search(Slot(prompt), k) for prompt, k in zip(batch, counts, strict=True)]
    searches, active = list(waiting), []
    while waiting or active:
        if waiting:
            active.append(waiting.pop(0))
        active = [search for search in active if not search.over]
        if active:
            # A prefix is fed with the tokens it forces, so that a step may be a little longer.
            assert beam.step(active, tokens) <= tokens * max(map(len, rows))
    for prompt, k, search in zip(batch, counts, searches, strict=True):
        [expected] = beam.top_items([Slot(prompt)], k)
        found = search.ranked()
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        everything = dict(zip(*(part.tolist() for part in _parts(beam, prompt)), strict=True))
        assert found.logprobs == pytest.approx(
            [everything[row] for row in found.rows.tolist()], abs=1e-4
        )
        assert len(set(found.rows.tolist())) == len(expected.rows)


def _parts(beam: ItemBeam, prompt: list[int]) -> tuple[np.ndarray, np.ndarray]:
    [everything] = beam.top_items([Slot(prompt)], None)
    return everything.rows, everything.logprobs


def test_an_item_wins_by_spellings_that_are_each_unlikely() -> None:
    """Item 2 has three spellings, each behind a prefix that is less likely than item 1."""
    rows = [[5], [4], *([first, last] for first in (6, 7, 8) for last in (4, 9))]
    items, prompt = [0, 1, 3, 2, 3, 2, 3, 2], [3, 8]
    scores = exhaustive(make_model(1), rows, prompt)
    prefixes = [np.logaddexp.reduce(scores[at : at + 2]) for at in (2, 4, 6)]
    total = np.logaddexp.reduce(scores[[3, 5, 7]])
    assert max(prefixes) < scores[1] < total
    trie = ItemTrie.build(rows, items=items)
    for width in (1, 2, 32):
        for k, expected in ((1, [2]), (2, [2, 1])):
            [answer] = make_beam(make_model(1), trie, width=width).top_items([Slot(prompt)], k)
            assert answer.rows.tolist() == expected
            assert answer.logprobs == pytest.approx([total, scores[1]][:k], abs=1e-4)


@thorough
@given(token_rows, prompts, seeds)
def test_whole_ranking_is_a_distribution_over_titles(
    rows: list[list[int]], batch: list[list[int]], seed: int
) -> None:
    beam = make_beam(make_model(seed), ItemTrie.build(rows))
    for answer in beam.top_items([Slot(prompt) for prompt in batch], None):
        assert sorted(answer.rows.tolist()) == list(range(len(rows)))
        of_title = {
            tuple(rows[row]): p for row, p in zip(answer.rows, answer.logprobs, strict=True)
        }
        assert sum(map(np.exp, of_title.values())) == pytest.approx(1, abs=1e-6)


def test_excluded_items_keep_their_share() -> None:
    """Most of what token 4 is likely for may not be named, and makes nothing else likelier."""
    rows = [[4, first, second] for first in (5, 6, 7) for second in (5, 6, 7)] + [[8], [9]]
    trie, model, prompt = ItemTrie.build(rows), make_model(0), [10, 11]
    scores = exhaustive(model, rows, prompt)
    kept = int(scores[:9].argmin())
    slot = Slot(prompt, ExcludedItems.build(trie, set(range(9)) - {kept}))
    [answer] = make_beam(model, trie).top_items([slot], 3)
    assert answer.rows.tolist() == sorted([kept, 9, 10], key=lambda row: -scores[row])
    assert np.exp(answer.logprobs).sum() == pytest.approx(np.exp(scores[[kept, 9, 10]]).sum())


@thorough
@given(token_rows, prompts, seeds, st.integers(1, 3))
def test_limited_beam_names_valid_items_with_their_exact_probability(
    rows: list[list[int]], batch: list[list[int]], seed: int, width: int
) -> None:
    model = make_model(seed)
    beam = make_beam(model, ItemTrie.build(rows), width=width, exact=False)
    for prompt, answer in zip(batch, beam.top_items([Slot(p) for p in batch], 5), strict=True):
        found = answer.rows.tolist()
        assert found
        assert len(set(found)) == len(found)
        assert answer.logprobs == pytest.approx(exhaustive(model, rows, prompt)[found], abs=1e-4)


def test_limited_beam_keeps_the_likeliest_prefixes() -> None:
    rows = [[a, b] for a in range(4, 12) for b in range(4, 12)]
    model, prompt = make_model(2), [5, 6]
    scores = exhaustive(model, rows, prompt).reshape(8, 8)
    first = np.logaddexp.reduce(scores, axis=1)
    kept = np.argsort(-first)[:2]
    expected = max((scores[a, b], a * 8 + b) for a in kept for b in range(8))[1]
    beam = make_beam(model, ItemTrie.build(rows), width=2, exact=False)
    [answer] = beam.top_items([Slot(prompt)], 16)
    assert answer.rows[0] == expected
    assert {row // 8 for row in answer.rows.tolist()} == set(kept.tolist())
    assert beam.forward_passes == 2


def test_sampling_settings_of_the_checkpoint_do_not_cut_anything() -> None:
    model = make_model(3)
    rows = [[token] for token in range(FIRST_WORD, VOCAB)]
    config = model.generation_config
    before = (config.do_sample, config.top_k, config.top_p)
    try:
        config.do_sample, config.top_k, config.top_p = True, 1, 0.01
        [answer] = make_beam(model, ItemTrie.build(rows)).top_items([Slot([4])], 8)
    finally:
        config.do_sample, config.top_k, config.top_p = before
    assert sorted(answer.rows.tolist()) == list(range(8))


def test_sliding_window_sees_places_in_the_text_not_in_the_cache() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        initializer_range=0.6,
    )
    model = MistralForCausalLM(config).eval()
    rows = [[4, 5, 6], [4, 6, 6, 7], [5, 5, 5, 5, 5], [5, 5, 6], [4, 5, 7, 8, 9], [7]]
    prompt = [9, 8, 7, 6, 5, 4, 10]
    [answer] = make_beam(model, ItemTrie.build(rows), width=1).top_items([Slot(prompt)], None)
    scores = exhaustive(model, rows, prompt)
    assert answer.rows.tolist() == np.argsort(-scores).tolist()
    assert answer.logprobs == pytest.approx(np.sort(scores)[::-1], abs=1e-4)


def test_nothing_allowed_finds_nothing_without_asking_the_model() -> None:
    trie = ItemTrie.build([[4], [5, 6]])
    beam = make_beam(make_model(0), trie)
    [answer] = beam.top_items([Slot([4], ExcludedItems.build(trie, {0, 1}))])
    assert len(answer.rows) == len(answer.logprobs) == 0
    assert beam.forward_passes == 0


def test_one_title_alone_is_certain() -> None:
    beam = make_beam(make_model(0), ItemTrie.build([[4, 5], [4, 5]]))
    [answer] = beam.top_items([Slot([4])])
    assert answer.rows.tolist() == [0, 1]
    assert answer.logprobs.tolist() == [0.0, 0.0]


def test_errors_name_what_was_found() -> None:
    trie, model = ItemTrie.build([[4], [5]]), make_model(0)
    with pytest.raises(ConfigError, match="width: found 0"):
        make_beam(model, trie, width=0)
    with pytest.raises(ConfigError, match="k: found 0"):
        make_beam(model, trie).top_items([Slot([4])], 0)
    with pytest.raises(TokenizerError, match="in the tokens of an item"):
        make_beam(model, ItemTrie.build([[EOI, 4]]))
    elsewhere = ExcludedItems.build(ItemTrie.build([[4], [5]]), {0})
    with pytest.raises(TrieError, match="items of another trie"):
        make_beam(model, trie).top_items([Slot([4], elsewhere)])
    broken = make_model.__wrapped__(0)
    with torch.no_grad():
        broken.lm_head.weight[4] = torch.nan
    with pytest.raises(BackboneError, match="not numbers"):
        make_beam(broken, trie).top_items([Slot([STOP])])


@pytest.mark.parametrize("broken", [False, True])
def test_what_a_search_holds_is_given_back_whatever_ends_it(broken: bool) -> None:
    model = copy.deepcopy(make_model(1))
    packed = PackedModel(model)
    rows = [[4, 5, 6], [4, 5, 7], [4, 6, 8], [5, 4, 4], [5, 4, 6], [6]]
    beam = make_beam(packed, ItemTrie.build(rows), width=1)
    if broken:
        # After the first passes, so that rows are held by then.
        with torch.no_grad():
            model.model.embed_tokens.weight[[4, 5]] = torch.nan
        with pytest.raises(BackboneError, match="not numbers"):
            beam.top_items([Slot([9, 8]), Slot([9])], None)
    else:
        assert len(beam.top_items([Slot([9, 8]), Slot([9])], None)[0].rows) == 6
    assert len(packed.pool) == 0
    search = beam.search(Slot([9, 8]), 3)
    if not broken:
        beam.step([search])
        assert len(packed.pool) == 1
    search.end()
    search.end()
    assert len(packed.pool) == 0


def test_a_slot_at_which_the_model_fails_fails_alone() -> None:
    model = copy.deepcopy(make_model(1))
    packed = PackedModel(model)
    rows = [[4, 5, 6], [4, 5, 7], [4, 6, 8], [5, 4, 4], [5, 4, 6], [6]]
    beam = make_beam(packed, ItemTrie.build(rows), width=2)
    sound = [Slot([9, 8]), Slot([9]), Slot([10, 7, 7])]
    expected = beam.top_items(sound, 4)
    with torch.no_grad():
        model.model.embed_tokens.weight[11] = torch.nan
    searches = [beam.search(slot, 4) for slot in [*sound[:2], Slot([9, 11]), *sound[2:]]]
    while waiting := [search for search in searches if not search.over]:
        beam.step(waiting)
    assert len(packed.pool) == 0
    with pytest.raises(BackboneError, match="not numbers"):
        searches.pop(2).ranked()
    for search, one in zip(searches, expected, strict=True):
        assert search.ranked().rows.tolist() == one.rows.tolist()
        assert search.ranked().logprobs.tolist() == pytest.approx(one.logprobs.tolist(), abs=1e-5)


def drawn_weights(data: st.DataObject, count: int) -> np.ndarray:
    """Log-weights of items, some of them minus infinity."""
    number = st.floats(-12, 3, allow_nan=False) | st.just(-np.inf)
    return np.array(data.draw(st.lists(number, min_size=count, max_size=count)))


@thorough
@given(spelled_rows(), prompts, seeds, st.integers(1, 5), st.data())
def test_weights_are_added_to_the_probability_of_items(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    width: int,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    if data.draw(st.booleans()):
        rows = [row for place, row in enumerate(rows) if items[place] not in items[:place]]
        items = list(range(len(rows)))
        trie = ItemTrie.build(rows)
    else:
        trie = ItemTrie.build(rows, items=items)
    model, count = make_model(seed), max(items) + 1
    share = data.draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    k = data.draw(st.none() | st.integers(1, count + 1))
    barred = data.draw(st.sets(st.integers(0, count - 1)))
    own = [drawn_weights(data, count) for _ in batch]
    base = ExcludedItems.build(trie, barred)
    slots = [
        Slot(prompt, base, ItemWeights.build(trie, weights, share=share, base=base))
        for prompt, weights in zip(batch, own, strict=True)
    ]
    answers = make_beam(model, trie, width=width).top_items(slots, k)
    for prompt, weights, answer in zip(batch, own, answers, strict=True):
        logprobs = np.full(count, -np.inf)
        np.logaddexp.at(logprobs, items, exhaustive(model, rows, prompt))
        allowed = [row for row in set(range(count)) - barred if weights[row] > -np.inf]
        scores = (1 - share) * logprobs + (share * weights if share else 0.0)
        expected = sorted(allowed, key=lambda row: (-scores[row], row))[:k]
        found = answer.rows.tolist()
        assert len(set(found)) == len(found) == len(expected)
        assert set(found) <= set(allowed)
        plain = len({weights[row] for row in allowed}) < 2 and share < 1
        said = logprobs if plain else scores
        assert answer.logprobs == pytest.approx(said[found], abs=1e-4)
        assert scores[found] == pytest.approx(scores[expected], abs=1e-4)
        if share == 1:
            # The best of the weights alone, of equal ones the lower row.
            assert found == sorted(allowed, key=lambda row: (-weights[row], row))[:k]


@pytest.mark.parametrize("spelled", [False, True])
def test_what_weighs_alone_asks_no_model(spelled: bool) -> None:
    rows = [[4, 5], [4, 6], [7, 5], [7, 8], [9]]
    trie = ItemTrie.build(rows, items=[0, 1, 0, 2, 3] if spelled else None)
    broken = make_model.__wrapped__(0)
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    weights = np.array([-3.0, -1.0, -2.0, -1.0] if spelled else [-3.0, -1.0, -2.0, -1.0, -9.0])
    for base, order in ((None, [1, 3, 2]), (ExcludedItems.build(trie, [1]), [3, 2, 0])):
        beam = make_beam(broken, trie)
        slot = Slot([4, 5], base, ItemWeights.build(trie, weights, share=1.0, base=base))
        [found] = beam.top_items([slot], 3)
        assert found.rows.tolist() == order
        assert found.logprobs.tolist() == weights[order].tolist()
        assert beam.forward_passes == 0
    half = Slot([4, 5], None, ItemWeights.build(trie, weights, share=0.5))
    with pytest.raises(BackboneError):
        make_beam(broken, trie).top_items([half], 3)
    never = np.full(len(weights), -np.inf)
    [nothing] = make_beam(broken, trie).top_items(
        [Slot([4, 5], None, ItemWeights.build(trie, never, share=1.0))], None
    )
    assert nothing.rows.tolist() == []


@thorough
@given(token_rows, prompts, seeds, st.floats(-5, 5), st.sampled_from([0.0, 0.4, 0.9]), st.data())
def test_equal_weights_and_none_find_the_same_bit_by_bit(
    rows: list[list[int]],
    batch: list[list[int]],
    seed: int,
    weight: float,
    share: float,
    data: st.DataObject,
) -> None:
    model, trie = make_model(seed), ItemTrie.build(rows)
    barred = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    weights = np.full(len(rows), weight)
    weights[sorted(barred)] = -np.inf
    found = make_beam(model, trie).top_items(
        [Slot(prompt, None, ItemWeights.build(trie, weights, share=share)) for prompt in batch]
    )
    excluded = ExcludedItems.build(trie, barred)
    expected = make_beam(model, trie).top_items([Slot(prompt, excluded) for prompt in batch])
    for one, other in zip(found, expected, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert one.logprobs.tobytes() == other.logprobs.tobytes()
