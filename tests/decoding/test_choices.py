"""Decisions in spans under weights of the items, against brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.processor import ItemConstrainedLogitsProcessor
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Completion
from incatalog.decoding.request import Request, Scaffold
from incatalog.errors import TrieError
from incatalog.trie.trie import ItemTrie
from worlds import EOI, SOI, STOP, make_model, prompts, spelled_rows, token_rows

thorough = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
seeds = st.integers(0, 3)
shares = st.sampled_from([0.0, 0.3, 0.7, 1.0])
LISTED = Scaffold(((), (5, 6), (7,)))


def log_weights(items: int, some: bool = True) -> st.SearchStrategy[list[float]]:
    """Log-weights of items, of which some are excluded."""
    lost = [-math.inf] if some else []
    one = st.floats(-6, 0) | st.sampled_from([0.0, -2.0, -40.0, -900.0, *lost])
    return st.lists(one, min_size=items, max_size=items)


def make_engine(model: Any, trie: ItemTrie, lookahead: int | None = None) -> Engine:
    return Engine(
        model,
        trie,
        soi_token_id=SOI,
        eoi_token_id=EOI,
        stop_token_ids=[STOP],
        lookahead=lookahead,
    )


def policy(
    model: Any,
    text: Sequence[int],
    below: dict[int, list[float]],
    weights: ItemWeights,
) -> dict[int, float]:
    """Log-probability of each token that may follow a text, with the log-weights below each."""
    tokens = list(below)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(text)])).logits[0, -1].double()
    own = logits[tokens].log_softmax(0).numpy()
    masses = np.array([np.logaddexp.reduce(one) for one in below.values()])
    if weights.plain:
        scores = own
    else:
        scores = weights.model * own + weights.share * (masses - np.logaddexp.reduce(masses))
    return dict(zip(tokens, scores - np.logaddexp.reduce(scores), strict=True))


def check_answer(
    model: Any,
    spelled: Sequence[tuple[Sequence[int], int]],
    request: Request,
    done: Completion,
) -> None:
    """Every decision is the policy's, and so are the log-probabilities of the items."""
    weights = request.weights
    assert weights is not None
    items = [item for _, item in spelled]
    own = [float(weights.by_row[item]) - math.log(items.count(item)) for item in items]
    left = {item for item in items if weights.by_row[item] > -math.inf}
    text, prefix, logprobs, total = list(request.prompt_ids), None, [], 0.0
    for token in done.token_ids:
        if prefix is None:
            prefix = [] if token == SOI else None
        else:
            size = len(prefix)
            below: dict[int, list[float]] = {}
            for (row, item), one in zip(spelled, own, strict=True):
                if item in left and list(row[:size]) == prefix:
                    below.setdefault(row[size] if len(row) > size else EOI, []).append(one)
            if len(below) > 1:
                expected = policy(model, text, below, weights)
                if request.temperature == 0:
                    assert expected[token] > max(expected.values()) - 1e-5
                total += expected[token]
            if token == EOI:
                left -= {item for row, item in spelled if list(row) == prefix}
                logprobs.append(total)
                prefix, total = None, 0.0
            else:
                prefix.append(token)
        text.append(token)
    np.testing.assert_allclose(done.logprobs, logprobs, atol=1e-4)
    assert not {item for item in done.items if weights.excluded.rows[item]}


@thorough
@given(spelled_rows(), prompts, seeds, shares, st.sampled_from([0.0, 1.0, 2.0]), st.data())
def test_decisions_are_those_of_the_guided_policy(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    share: float,
    temperature: float,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    model, trie = make_model(seed), ItemTrie.build(rows, items=items)
    requests = [
        Request(
            prompt,
            weights=ItemWeights.build(
                trie, np.array(data.draw(log_weights(trie.num_items))), share=share
            ),
            temperature=temperature,
            seed=number,
            scaffold=LISTED,
        )
        for number, prompt in enumerate(batch)
    ]
    lookahead = data.draw(st.sampled_from([0, 8]))
    found = make_engine(model, trie, lookahead).complete(requests)
    for request, done in zip(requests, found, strict=True):
        check_answer(model, list(zip(rows, items, strict=True)), request, done)


@thorough
@given(token_rows, prompts, seeds, st.sampled_from([0.3, 0.8]), st.integers(0, 1000))
def test_greedy_equals_generate_with_the_processor_under_weights(
    rows: list[list[int]], batch: list[list[int]], seed: int, share: float, drawn: int
) -> None:
    model, trie = make_model(seed), ItemTrie.build(rows)
    own = np.random.default_rng(drawn).normal(-4, 3, len(rows))
    weights = ItemWeights.build(trie, own, share=share)
    requests = [Request(prompt, weights=weights, max_new_tokens=24) for prompt in batch]
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=weights)
    for request, done in zip(requests, make_engine(model, trie).complete(requests), strict=True):
        prompt = list(request.prompt_ids)
        [answer] = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=24,
            do_sample=False,
            logits_processor=[processor],
        ).tolist()
        new = answer[len(prompt) :]
        assert list(done.token_ids) == (new[: new.index(STOP)] if STOP in new else new)


def test_samples_follow_the_guided_policy() -> None:
    rows = [[4, 5], [4, 6], [4, 7, 8], [4, 7, 9], [10], [11, 4], [11, 5]]
    model, trie, prompt, temperature = make_model(1), ItemTrie.build(rows), [9, 10, 4], 1.5
    given_weights = np.log([0.5, 0.1, 0.02, 0.08, 0.1, 0.15, 0.05])
    weights = ItemWeights.build(trie, given_weights, share=0.6)
    requests = [
        Request(
            prompt,
            weights=weights,
            temperature=temperature,
            seed=seed,
            scaffold=Scaffold(((),)),
        )
        for seed in range(800)
    ]
    done = make_engine(model, trie).complete(requests)
    drawn = np.bincount([one.items[0] for one in done], minlength=len(rows)) / len(requests)
    expected = []
    for row in rows:
        chance, prefix = 1.0, list[int]()
        for token in [*row, EOI]:
            below: dict[int, list[float]] = {}
            for other, one in zip(rows, given_weights, strict=True):
                if other[: len(prefix)] == prefix:
                    key = other[len(prefix)] if len(other) > len(prefix) else EOI
                    below.setdefault(key, []).append(float(one))
            scores = policy(model, [*prompt, SOI, *prefix], below, weights)
            powers = {key: math.exp(score / temperature) for key, score in scores.items()}
            chance *= powers[token] / sum(powers.values())
            prefix.append(token)
        expected.append(chance)
    assert sum(expected) == pytest.approx(1)
    # Four standard deviations of a frequency of 800 draws; the seeds are the same each time.
    np.testing.assert_allclose(drawn, expected, atol=4 * 0.5 / len(requests) ** 0.5)


@thorough
@given(token_rows, prompts, seeds, st.sampled_from([0.0, 1.0]), st.data())
def test_minus_infinity_is_an_exclusion(
    rows: list[list[int]],
    batch: list[list[int]],
    seed: int,
    temperature: float,
    data: st.DataObject,
) -> None:
    model, trie = make_model(seed), ItemTrie.build(rows)
    share = data.draw(shares)
    own = np.array(data.draw(log_weights(len(rows), some=False)))
    without = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1)))
    never = own.copy()
    never[without] = -np.inf
    excluded = ExcludedItems.build(trie, without)

    def ask(weights: ItemWeights | None, rule: ExcludedItems | None) -> list[Completion]:
        requests = [
            Request(
                prompt,
                excluded=rule,
                weights=weights,
                temperature=temperature,
                seed=number,
                scaffold=None if number % 2 else LISTED,
                max_new_tokens=20,
            )
            for number, prompt in enumerate(batch)
        ]
        return make_engine(model, trie).complete(requests)

    lost = ask(ItemWeights.build(trie, never, share=share), None)
    assert lost == ask(ItemWeights.build(trie, own, share=share, base=excluded), excluded)
    # Equal weights say nothing: today's answer, bit by bit.
    equal = np.where(np.isneginf(never), never, -1.5)
    if share < 1:
        assert ask(ItemWeights.build(trie, equal, share=share), None) == ask(None, excluded)
        assert ask(ItemWeights.build(trie, share=share), None) == ask(None, None)
    assert ask(ItemWeights.build(trie, log_factors=equal), None) == ask(None, excluded)


def test_the_teacher_alone_decides_with_a_share_of_one() -> None:
    rows = [[4, 5, 8], [4, 5, 9], [4, 6], [7, 8], [7, 9], [10]]
    model, trie = make_model(3), ItemTrie.build(rows)
    # Token 4 holds most of the weight, then 5; item 3 weighs most of all.
    weights = ItemWeights.build(trie, np.log([0.15, 0.16, 0.14, 0.3, 0.1, 0.15]), share=1.0)
    for prompt in ([9], [5, 4, 11]):
        request = Request(prompt, weights=weights, scaffold=Scaffold(((),) * 6))
        [done] = make_engine(model, trie).complete([request])
        # As items are named, what is left below 4 is 0.29, then 0.14; that below 7 is 0.4.
        assert done.items == (1, 3, 0, 5, 2, 4)
        expected = [0.45 * 0.31 / 0.45 * 0.16 / 0.31, 0.4 / 0.84 * 0.3 / 0.4]
        np.testing.assert_allclose(np.exp(done.logprobs[:2]), expected, rtol=1e-5)


def test_what_is_excluded_beside_weights_is_not_forgotten() -> None:
    trie, model = ItemTrie.build([[4], [5], [6]]), make_model(0)
    weights = ItemWeights.build(trie, np.arange(3.0), share=0.5)
    request = Request([9], excluded=ExcludedItems.build(trie, [1]), weights=weights)
    with pytest.raises(TrieError, match="weights: item row 1 is excluded beside them"):
        make_engine(model, trie).complete([request])


def test_rows_without_weights_do_not_notice_those_that_have_some() -> None:
    rows = [[4], [5], [6], [7], [8]]
    model, trie = make_model(2), ItemTrie.build(rows)
    weights = ItemWeights.build(trie, np.arange(5.0), share=0.5)
    only = Scaffold(((),))

    def ask(own: ItemWeights | None) -> list[Completion]:
        return make_engine(model, trie).complete(
            [
                Request([9], scaffold=only),
                Request([10], scaffold=only, weights=own),
                Request([11], scaffold=only, temperature=1.0),
            ]
        )

    plain, mixed = ask(None), ask(weights)
    assert (mixed[0], mixed[2]) == (plain[0], plain[2])
    assert mixed[1].logprobs != plain[1].logprobs
