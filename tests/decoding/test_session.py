"""Requests that join and leave while others are answered."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Completion, Event, Finished, ItemDone
from incatalog.decoding.request import Grounding, Request, Scaffold
from incatalog.errors import BackboneError, ConfigError, TokenizerError
from incatalog.trie.trie import ItemTrie
from worlds import EOI, FIRST_WORD, SOI, STOP, VOCAB, closed, make_model, read, token_rows, words

thorough = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def make_engine(model: Any, trie: ItemTrie) -> Engine:
    return Engine(model, trie, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP])


@thorough
@given(
    st.lists(token_rows, min_size=1, max_size=2),
    st.lists(
        st.tuples(
            st.lists(words | st.just(SOI), min_size=1, max_size=6).map(closed),
            st.integers(0, 4),  # steps before the next one joins
            st.none() | st.integers(0, 6),  # step at which it is cancelled
            st.sampled_from([0.0, 1.0]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 3),
)
def test_an_answer_does_not_depend_on_who_joins_and_leaves(
    catalogs: list[list[list[int]]],
    plan: list[tuple[list[int], int, int | None, float]],
    seed: int,
) -> None:
    model = make_model(seed)
    tries = [ItemTrie.build(rows) for rows in catalogs]
    engine = make_engine(model, tries[0])
    requests = [
        Request(
            prompt,
            max_new_tokens=14,
            temperature=temperature,
            seed=number,
            excluded=ExcludedItems.build(tries[number % len(tries)], [0]),
            grounding=Grounding(tries[number % len(tries)]),
        )
        for number, (prompt, _, _, temperature) in enumerate(plan)
    ]
    session = engine.session()
    told: dict[int, list[Event]] = {}
    completions: dict[int, Completion] = {}
    cancelled: set[int] = set()
    ages: dict[int, int] = {}

    def step() -> None:
        for index, age in list(ages.items()):
            if index not in completions and plan[index][2] == age:
                session.cancel(index)
                cancelled.add(index)
            ages[index] = age + 1
        for event in session.step():
            assert event.index not in cancelled
            told.setdefault(event.index, []).append(event)
            if isinstance(event, Finished):
                completions[event.index] = session.completion(event.index)

    for request, (_, wait, _, _) in zip(requests, plan, strict=True):
        ages[session.add(request)] = 0
        for _ in range(wait):
            step()
    while session:
        step()
    assert cancelled | set(completions) == set(range(len(plan)))
    for index, completion in completions.items():
        alone = list(engine.generate([requests[index]]))
        assert list(map(_without_logprob, told[index])) == list(map(_without_logprob, alone))
        assert _logprobs(told[index]) == pytest.approx(_logprobs(alone), abs=1e-4)
        rows = catalogs[index % len(catalogs)]
        spans = read(completion.token_ids).spans
        assert spans == [tuple(rows[item]) for item in completion.items]
        assert 0 not in completion.items


def _without_logprob(event: Event) -> Event:
    """The event as that of a request alone."""
    if isinstance(event, ItemDone):
        return replace(event, index=0, logprob=0.0)
    return replace(event, index=0)


def _logprobs(events: Sequence[Event]) -> list[float]:
    return [event.logprob for event in events if isinstance(event, ItemDone)]


def test_an_idle_session_does_nothing_and_a_completion_is_handed_out_once() -> None:
    engine = make_engine(make_model(0), ItemTrie.build([[FIRST_WORD]]))
    session = engine.session()
    assert session.step() == []
    assert engine.statistics.forward_passes == 0
    index = session.add(Request([8], max_new_tokens=3))
    assert len(session) == 1
    while session:
        session.step()
    assert len(session.completion(index).token_ids) <= 3
    with pytest.raises(KeyError):
        session.completion(index)


def test_cancelling_twice_or_too_late_is_no_error() -> None:
    engine = make_engine(make_model(0), ItemTrie.build([[FIRST_WORD]]))
    session = engine.session()
    index = session.add(Request([8], max_new_tokens=3))
    session.cancel(index)
    session.cancel(index)
    assert len(session) == 0
    assert session.step() == []


def test_a_request_without_items_left_ends_at_its_first_step() -> None:
    trie = ItemTrie.build([[FIRST_WORD]])
    session = make_engine(make_model(0), trie).session()
    index = session.add(Request([8], excluded=ExcludedItems.build(trie, np.array([True]))))
    assert session.step() == [Finished(index, "no_item_left")]
    assert session.completion(index).token_ids == ()


def test_grounding_of_another_kind_is_refused() -> None:
    engine = make_engine(make_model(0), ItemTrie.build([[FIRST_WORD]]))
    with pytest.raises(TokenizerError, match=f"closing token {EOI}"):
        engine.session().add(Request([8], grounding=Grounding(ItemTrie.build([[EOI]]))))
    retrieved = Grounding(ItemTrie.build([[FIRST_WORD]]), retriever=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="either all retrieved or all written"):
        engine.session().add(Request([8], grounding=retrieved))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_spans_hold_no_invalid_and_no_repeated_item() -> None:
    random = np.random.default_rng(0)
    model = make_model(0)
    catalogs = []
    for size in (50, 400, 3000):
        rows = random.integers(FIRST_WORD, VOCAB, size=(size, 6))
        # Lengths differ, so that titles are prefixes of others and some come twice.
        catalogs.append([row[: random.integers(2, 7)].tolist() for row in rows])
    tries = [ItemTrie.build(rows) for rows in catalogs]
    rules = [ExcludedItems.build(trie, random.random(trie.num_items) < 0.5) for trie in tries]
    engine = make_engine(model, tries[0])
    session = engine.session()
    asked: dict[int, tuple[list[list[int]], set[int], Request]] = {}
    spans = joined = left = finished = 0
    while spans < 100_000:
        while len(session) < 64:
            which = int(random.integers(len(tries)))
            trie, rows = tries[which], catalogs[which]
            named = random.integers(trie.num_items, size=random.integers(0, 30)).tolist()
            base = rules[which] if random.random() < 0.3 else None
            excluded = ExcludedItems.build(trie, named, base=base)
            request = Request(
                random.integers(FIRST_WORD, VOCAB, size=random.integers(1, 20)).tolist(),
                max_new_tokens=int(random.integers(20, 400)),
                temperature=float(random.choice([0.0, 1.0, 3.0])),
                seed=joined,
                excluded=excluded,
                grounding=Grounding(trie) if which else None,
                scaffold=Scaffold(((5,),) * 20) if random.random() < 0.5 else None,
            )
            out = set(np.flatnonzero(excluded.rows).tolist())
            asked[session.add(request)] = (rows, out, request)
            joined += 1
        if random.random() < 0.1:
            index = int(random.choice(list(asked)))
            session.cancel(index)
            del asked[index]
            left += 1
        for event in session.step():
            if not isinstance(event, Finished):
                continue
            completion = session.completion(event.index)
            rows, out, request = asked.pop(event.index)
            reading = read(completion.token_ids)
            items = completion.items
            assert reading.spans == [tuple(rows[item]) for item in items]
            assert len(set(reading.spans)) == len(items)
            assert not out & set(items)
            assert len(completion.token_ids) <= request.max_new_tokens
            spans += len(items)
            finished += 1
    assert min(left, finished) > 100


def test_prompts_that_begin_alike_are_computed_once() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [7, 8]])
    engine = make_engine(make_model(1), trie)
    beginning = [5 + number % 7 for number in range(40)]
    requests = [Request([*beginning, *end], max_new_tokens=12) for end in ([4], [9, 9], [10])]
    alone = [engine.complete([request])[0] for request in requests]
    engine.statistics.tokens_fed = 0
    session = engine.session()
    first = [session.add(request) for request in requests]
    session.step()
    assert engine.statistics.tokens_fed == 40 + 1 + 2 + 1
    while session:
        session.step()
    together = [session.completion(index) for index in first]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]

    # The next turn of a conversation starts where the answer before it ended.
    turn = closed([*requests[1].prompt_ids, *together[1].token_ids, 9, 8])
    fed = engine.statistics.tokens_fed
    again = session.add(Request(turn, max_new_tokens=12))
    session.step()
    assert engine.statistics.tokens_fed - fed <= 5
    while session:
        session.step()
    [expected] = engine.complete([Request(turn, max_new_tokens=12)])
    assert session.completion(again).token_ids == expected.token_ids


def with_a_word_that_is_no_number(word: int) -> Any:
    """A model that says nothing but NaN after a word."""
    model = copy.deepcopy(make_model(2))
    with torch.no_grad():
        model.model.embed_tokens.weight[word] = torch.nan
    return model


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("scaffold", [None, Scaffold(((), (4,), ()))])
def test_an_answer_at_which_the_model_fails_fails_alone(
    temperature: float, scaffold: Scaffold | None
) -> None:
    rows = [[4, 5], [4, 6], [5, 7, 8], [5, 7, 9], [6, 8]]
    trie = ItemTrie.build(rows)
    model = with_a_word_that_is_no_number(11)
    # Answers do not write the word themselves.
    engine = Engine(
        model,
        trie,
        soi_token_id=SOI,
        eoi_token_id=EOI,
        stop_token_ids=[STOP],
        item_only_token_ids=[11],
    )

    def ask(prompt: Sequence[int], number: int) -> Request:
        return Request(
            prompt, max_new_tokens=20, scaffold=scaffold, temperature=temperature, seed=number
        )

    sound = [ask([5 + n % 5, 4 + n % 3, 7], n) for n in range(6)]
    broken = [ask([4, 11, 5], 8), ask([11], 9)]
    alone = [list(engine.generate([request])) for request in sound]
    for request in broken:
        with pytest.raises(BackboneError, match="not numbers"):
            engine.complete([request])
    with engine.session() as session:
        indices = [session.add(request) for request in [*sound[:3], *broken, *sound[3:]]]
        told: dict[int, list[Event]] = {}
        while session:
            for event in session.step():
                told.setdefault(event.index, []).append(event)
        for index in indices[3:5]:
            assert told[index][-1] == Finished(index, "error")
            with pytest.raises(BackboneError, match="not numbers"):
                session.completion(index)
        for index, expected in zip([*indices[:3], *indices[5:]], alone, strict=True):
            assert list(map(_without_logprob, told[index])) == [
                _without_logprob(event) for event in expected
            ]
            assert session.completion(index).finish_reason != "error"
    assert len(engine.model.pool) == 0
    with pytest.raises(BackboneError, match="not numbers"):
        list(engine.generate([*sound, *broken]))
    assert len(engine.model.pool) == 0


def test_a_step_that_fails_gives_all_rows_back_and_the_engine_goes_on() -> None:
    """A model that cannot be computed any longer, as where memory ends in the middle of it."""
    model = copy.deepcopy(make_model(1))
    engine = make_engine(model, ItemTrie.build([[4, 5], [4, 6], [7, 8]]))
    requests = [Request([5, 6, 4 + n], max_new_tokens=12, seed=n) for n in range(5)]
    expected = engine.complete(requests)
    layer = model.model.layers[1].mlp.down_proj
    session = engine.session()
    for request in requests:
        session.add(request)
    session.step()
    assert len(engine.model.pool) == 5
    weight = layer.weight
    layer.weight = torch.nn.Parameter(weight[:, :-1].clone())
    with pytest.raises(RuntimeError):
        session.step()
    assert len(session) == 0
    assert len(engine.model.pool) == 0
    assert session.step() == []
    layer.weight = weight
    assert engine.complete(requests) == expected
    again = [session.add(request) for request in requests]
    while session:
        session.step()
    found = [session.completion(index) for index in again]
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


def test_what_a_session_holds_is_given_back_whatever_ends_it() -> None:
    engine = make_engine(make_model(1), ItemTrie.build([[4, 5], [4, 6], [7, 8]]))
    pool = engine.model.pool
    with engine.session() as session:
        for n in range(12):
            session.add(Request([5, 6, 4 + n % 4], max_new_tokens=2 + n))
        session.step()
        held = len(pool)
        session.cancel(11)
        session.cancel(11)
        assert len(pool) == held - 1
        while session:
            session.step()
        # The last ones are kept for the next turns of their conversations.
        assert 0 < len(pool) <= 8
    assert len(pool) == 0
    events = engine.generate([Request([5, 6], max_new_tokens=30)])
    next(events)
    assert len(pool) == 1
    del events
    gc.collect()
    assert len(pool) == 0


@pytest.mark.parametrize("token", [-1, VOCAB, 10**9])
def test_a_token_the_model_does_not_know_is_refused_before_it_joins(token: int) -> None:
    engine = make_engine(make_model(1), ItemTrie.build([[4, 5], [4, 6]]))
    with engine.session() as session:
        session.add(Request([5], max_new_tokens=4))
        with pytest.raises(ConfigError, match=f"prompt_ids: found token {token}; expected 0 to 11"):
            session.add(Request([5, token], max_new_tokens=4))
        assert len(session) == 1
        while session:
            session.step()
