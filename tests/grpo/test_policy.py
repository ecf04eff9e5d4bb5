"""The policy's log-probability of an answer, against the engine that gave it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Completion
from incatalog.decoding.request import Request, Scaffold
from incatalog.decoding.retriever import ItemRetriever
from incatalog.errors import TrieError
from incatalog.grpo.policy import (
    ChoiceBatch,
    Choices,
    choice_logprobs,
    padded,
    policy_forward,
    read_choices,
)
from incatalog.model.head import RetrievalHead
from incatalog.training.trainer import plain_forward
from incatalog.trie.trie import ItemTrie
from worlds import EOI, SOI, STOP, VOCAB, choices, make_model, prompts, token_rows

# No numbers but text in front of the second item and the third.
SCAFFOLD = Scaffold(((), (5, 6), (7,)))


def answers(
    engine: Engine,
    questions: Sequence[Sequence[int]],
    excluded: ExcludedItems,
    temperature: float,
    weights: ItemWeights | None = None,
) -> list[Completion]:
    requests = [
        Request(
            prompt,
            excluded=excluded,
            temperature=temperature,
            seed=seed,
            scaffold=SCAFFOLD,
            weights=weights,
        )
        for seed, prompt in enumerate(questions)
    ]
    return engine.complete(requests)


def scored(
    model: Any,
    questions: Sequence[Sequence[int]],
    found: Sequence[Completion],
    read: Sequence[Choices],
    **options: Any,
) -> tuple[np.ndarray, torch.Tensor, ChoiceBatch]:
    """Log-probability of each answer, of each choice, and the choices."""
    ids = padded([[*q, *f.token_ids] for q, f in zip(questions, found, strict=True)], STOP, "cpu")
    batch = ChoiceBatch.of(read, [len(q) for q in questions], ids.shape[1])
    own = copy.deepcopy(model)
    policy_forward(own, **options)
    with torch.no_grad():
        logprobs, _ = own(input_ids=ids, choices=batch)
    total = torch.zeros(len(found), dtype=torch.float64)
    return total.index_add(0, batch.answer, logprobs.double()).numpy(), logprobs, batch


@given(
    seed=st.integers(0, 3),
    rows=token_rows,
    questions=prompts,
    share=st.sets(st.integers(0, 11), max_size=6),
    temperature=st.sampled_from([0.0, 1.0, 2.0]),
)
@settings(max_examples=30, deadline=None)
def test_policy_says_what_the_engine_says(
    seed: int,
    rows: list[list[int]],
    questions: list[list[int]],
    share: set[int],
    temperature: float,
) -> None:
    model = make_model(seed)
    trie = ItemTrie.build(rows)
    without = {row for row in share if row < len(rows)}
    excluded = ExcludedItems.build(trie, without)
    engine = Engine(model, trie, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP])
    found = answers(engine, questions, excluded, temperature)
    read = [
        read_choices(
            trie, f.token_ids, f.items, soi_token_id=SOI, eoi_token_id=EOI, excluded=excluded
        )
        for f in found
    ]
    total, _, _ = scored(model, questions, found, read)
    np.testing.assert_allclose(total, [sum(f.logprobs) for f in found], atol=1e-4)
    for completion, one in zip(found, read, strict=True):
        assert tokens_decided_on(rows, completion.token_ids, without) == one.place.tolist()


@given(
    seed=st.integers(0, 3),
    rows=token_rows,
    questions=prompts,
    without=st.sets(st.integers(0, 11), max_size=6),
    share=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    temperature=st.sampled_from([0.0, 1.0, 2.0]),
    retrieves=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_policy_under_weights_says_what_the_engine_says(
    seed: int,
    rows: list[list[int]],
    questions: list[list[int]],
    without: set[int],
    share: float,
    temperature: float,
    retrieves: bool,
) -> None:
    model, trie = make_model(seed), ItemTrie.build(rows)
    random = np.random.default_rng(seed)
    excluded = ExcludedItems.build(trie, {row for row in without if row < len(rows)})
    own = random.normal(-3, 2, len(rows))
    own[random.random(len(rows)) < 0.1] = -np.inf
    boosts = random.choice([0.0, 0.5], len(rows))
    weights = ItemWeights.build(trie, own, share=share, log_factors=boosts, base=excluded)
    head = make_head(len(rows), seed) if retrieves else None
    engine = Engine(
        model,
        trie,
        soi_token_id=SOI,
        eoi_token_id=EOI,
        stop_token_ids=[STOP],
        retriever=None if head is None else ItemRetriever(head),
    )
    found = answers(engine, questions, excluded, temperature, weights)
    read = [
        read_choices(
            trie,
            one.token_ids,
            one.items,
            soi_token_id=SOI,
            eoi_token_id=EOI,
            weights=weights,
            retrieves=retrieves,
        )
        for one in found
    ]
    total, _, batch = scored(model, questions, found, read, head=head)
    np.testing.assert_allclose(total, [sum(one.logprobs) for one in found], atol=1e-4)
    assert (batch.bias is None) == weights.plain
    assert (batch.to("cpu").model is None) == weights.plain


def make_head(items: int, seed: int) -> RetrievalHead:
    random = np.random.default_rng(seed)
    vectors = 3 * random.standard_normal((items + 2, 6)).astype(np.float32)
    return RetrievalHead.create(32, vectors).with_vectors(vectors[2:])


def test_answers_with_weights_and_without_in_one_batch() -> None:
    trie, model = ItemTrie.build([[4, 5], [4, 6], [7]]), make_model(0)
    weights = ItemWeights.build(trie, np.log([0.7, 0.2, 0.1]), share=0.5)
    tokens = [SOI, 4, 5, EOI]
    plain, guided = (
        read_choices(trie, tokens, [0], soi_token_id=SOI, eoi_token_id=EOI, weights=own)
        for own in (None, weights)
    )
    assert plain.bias is None
    assert guided.bias is not None
    expected = 0.5 * np.log([0.9, 0.1, 0.7 / 0.9, 0.2 / 0.9])
    np.testing.assert_allclose(guided.bias, expected, rtol=1e-12)
    done = [Completion(tuple(tokens), (0,), (0.0,), "items")] * 2
    together, _, _ = scored(model, [[9], [9]], done, [plain, guided])
    for number, own in enumerate((plain, guided)):
        alone, _, _ = scored(model, [[9]], done[:1], [own])
        assert together[number] == pytest.approx(alone[0], abs=1e-5)
    assert abs(together[0] - together[1]) > 0.01


def tokens_decided_on(
    rows: Sequence[Sequence[int]], tokens: Sequence[int], without: set[int]
) -> list[int]:
    """Places of an answer at which something else could have stood, by brute force."""
    spent, places = set(without), []
    prefix: list[int] | None = None
    for place, token in enumerate(tokens):
        if prefix is None:
            prefix = [] if token == SOI else None
            continue
        if len(choices(rows, prefix, spent)) > 1:
            places.append(place)
        if token == EOI:
            spent |= {n for n, row in enumerate(rows) if tuple(row) == tuple(prefix)}
            prefix = None
        else:
            prefix.append(token)
    return places


@given(
    seed=st.integers(0, 3),
    rows=token_rows,
    questions=prompts,
    share=st.sets(st.integers(0, 11), max_size=6),
)
@settings(max_examples=20, deadline=None)
def test_policy_of_a_retriever_says_what_the_engine_says(
    seed: int, rows: list[list[int]], questions: list[list[int]], share: set[int]
) -> None:
    model = make_model(seed)
    trie = ItemTrie.build(rows)
    head = make_head(len(rows), seed)
    excluded = ExcludedItems.build(trie, {row for row in share if row < len(rows)})
    engine = Engine(
        model,
        trie,
        soi_token_id=SOI,
        eoi_token_id=EOI,
        stop_token_ids=[STOP],
        retriever=ItemRetriever(head),
    )
    found = answers(engine, questions, excluded, 1.0)
    read = [
        read_choices(
            trie,
            f.token_ids,
            f.items,
            soi_token_id=SOI,
            eoi_token_id=EOI,
            excluded=excluded,
            retrieves=True,
        )
        for f in found
    ]
    total, _, _ = scored(model, questions, found, read, head=head)
    np.testing.assert_allclose(total, [sum(f.logprobs) for f in found], atol=1e-4)
    for completion, one in zip(found, read, strict=True):
        # One choice an item, at the token that opens its span.
        assert all(completion.token_ids[place] == SOI for place in one.place.tolist())


def test_choices_by_hand() -> None:
    #       0       1       2          3
    rows = [[4, 5], [4, 6], [4, 6, 7], [8, 9]]
    trie = ItemTrie.build(rows)
    tokens = [10, SOI, 4, 6, 7, EOI, 11, SOI, 4, 6, EOI]
    excluded = ExcludedItems.build(trie, [0])
    read = read_choices(trie, tokens, [2, 1], soi_token_id=SOI, eoi_token_id=EOI, excluded=excluded)
    # 4 or 8 opens an item; 6 is forced, as item 0 is out; behind it the span goes on or closes.
    # In the second span item 2 is spent, so only the first token is left to choose.
    assert read.place.tolist() == [2, 4, 8]
    options = np.split(read.option, read.offsets[1:-1])
    assert [part.tolist() for part in options] == [[4, 8], [EOI, 7], [4, 8]]
    assert read.chosen.tolist() == [0, 1, 0]


def test_answer_the_engine_cannot_have_given_is_refused() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6]])
    with pytest.raises(TrieError, match="only to excluded"):
        read_choices(
            trie,
            [SOI, 4, 5, EOI, SOI, 4, 5, EOI],
            [0, 0],
            soi_token_id=SOI,
            eoi_token_id=EOI,
        )


def test_scores_are_softmaxes_over_the_options_at_a_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 4, 3, generator=generator)
    weight, bias = torch.randn(6, 3, generator=generator), torch.randn(6, generator=generator)
    read = [
        Choices(np.array([0, 1]), np.array([0, 2, 5]), np.array([1, 4, 0, 1, 5]), np.array([1, 0])),
        Choices(np.array([1]), np.array([0, 2]), np.array([2, 5]), np.array([1])),
    ]
    batch = ChoiceBatch.of(read, [2, 1], 4)
    logprobs, entropies = choice_logprobs(hidden, batch, weight=weight, bias=bias, temperature=0.5)
    # Answers start at tokens 2 and 1; the state before a token decides on it.
    states = [hidden[0, 1], hidden[0, 2], hidden[1, 1]]
    for number, (state, options, chosen) in enumerate(
        zip(states, ([1, 4], [0, 1, 5], [2, 5]), (1, 0, 1), strict=True)
    ):
        expected = ((weight[options] @ state + bias[options]) / 0.5).softmax(0)
        assert logprobs[number].item() == pytest.approx(expected[chosen].log().item(), abs=1e-5)
        entropy = -(expected * expected.log()).sum().item()
        assert entropies[number].item() == pytest.approx(entropy, abs=1e-5)


def test_weights_count_before_the_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(1, 3, 4, generator=generator), torch.randn(6, 4)
    bias = np.array([0.5, -1.0, 0.0])
    read = Choices(np.array([0]), np.array([0, 3]), np.array([1, 2, 4]), np.array([1]), 0.25, bias)
    batch = ChoiceBatch.of([read], [1], 3)
    logprobs, _ = choice_logprobs(hidden, batch, weight=weight, temperature=0.5)
    scores = 0.25 * weight[[1, 2, 4]] @ hidden[0, 0] + torch.from_numpy(bias).float()
    assert logprobs.item() == pytest.approx((scores / 0.5).log_softmax(0)[1].item(), abs=1e-5)


def test_parts_of_a_large_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(1, 9, 4, generator=generator), torch.randn(7, 4)
    read = Choices(
        np.arange(6), np.arange(7) * 7, np.tile(np.arange(7), 6), np.array([0, 6, 3, 3, 1, 2])
    )
    guided = replace(read, model=0.5, bias=np.linspace(-2, 0, 42))
    batches = [ChoiceBatch.of([own], [2], 9) for own in (read, guided)]
    wholes = [choice_logprobs(hidden, batch, weight=weight) for batch in batches]
    monkeypatch.setattr("incatalog.grpo.policy._MOST_LOGITS", 14)
    for batch, whole in zip(batches, wholes, strict=True):
        for one, other in zip(choice_logprobs(hidden, batch, weight=weight), whole, strict=True):
            assert torch.allclose(one, other)


def test_batch_without_choices_has_a_gradient_of_zero() -> None:
    model = copy.deepcopy(make_model(0))
    policy_forward(model)
    none = Choices(*(np.zeros(n, dtype=np.int64) for n in (0, 1, 0, 0)))
    batch = ChoiceBatch.of([none], [2], 4)
    logprobs, _ = model(input_ids=torch.tensor([[4, 5, 6, 7]]), choices=batch)
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    plain_forward(model)
    assert model(input_ids=torch.tensor([[4, 5]])).logits.shape == (1, 2, VOCAB)
