"""Answers that another engine writes, here the reference engine: the events have to be the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog.constraint.answer_grammar import AnswerGrammar
from incatalog.constraint.control import ControlTokens
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Event, Finished, ItemBegun, ItemDone, TextToken
from incatalog.decoding.following import FollowedAnswer
from incatalog.decoding.request import Request, Scaffold
from incatalog.errors import NOT_NUMBERS, BackboneError, ConfigError, TrieError
from incatalog.trie.trie import ItemTrie
from incatalog.vllm.answer_terms import TERMS, AnswerTerms
from worlds import EOI, FIRST_WORD, SOI, STOP, make_model, prompts, spelled_rows

thorough = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
CONTROL = ControlTokens(SOI, EOI, frozenset([STOP]))


def plain(event: Event) -> Any:
    """An event without the number that the other engine makes of it."""
    return (event.item_row, event.token_ids) if isinstance(event, ItemDone) else event


def written_by(engine: Engine, request: Request) -> tuple[list[Event], list[int]]:
    """Events of the reference, and the tokens an engine would have written, the stop included."""
    events = list(engine.generate([request]))
    [done] = engine.complete([request])
    stop = [STOP] if done.finish_reason == "eos" else []
    return events, [*done.token_ids, *stop]


def follow(request: Request, trie: ItemTrie, tokens: Sequence[int]) -> list[Event]:
    """The events, when an engine writes these tokens; it has to keep to the grammar meanwhile."""
    followed = FollowedAnswer(request, trie, CONTROL)
    events = followed.begin()
    while not followed.finished:
        given_ = followed.given
        assert given_ == list(tokens[: len(given_)])
        terms = AnswerTerms.of(request, "0", CONTROL, (), tuple(given_))
        grammar = AnswerTerms.from_args(terms.to_args()[TERMS]).grammar(trie)
        for token in tokens[len(given_) :]:
            assert not grammar.accept(token)
            events += followed.feed(token, -0.5)
            if followed.finished or followed.jumps():
                break
        else:
            raise AssertionError("the answer goes on")
    return events


@thorough
@given(spelled_rows(), prompts, st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.data())
def test_events_are_those_of_the_engine_that_decides_itself(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    share: float,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    trie = ItemTrie.build(rows, items)
    random = np.random.default_rng(seed)
    excluded = weights = None
    if data.draw(st.booleans(), "excluded"):
        excluded = ExcludedItems.build(trie, random.random(trie.num_items) < 0.4)
    if data.draw(st.booleans(), "weighed"):
        own = random.normal(size=trie.num_items)
        weights = ItemWeights.build(trie, own, share=share, base=excluded)
    lines = data.draw(st.none() | st.integers(1, 4), "lines")
    scaffold = None
    if lines is not None:
        scaffold = Scaffold(tuple((FIRST_WORD + n, FIRST_WORD) for n in range(lines)))
    searched = weights is not None and weights.model == 0 and data.draw(st.booleans(), "searched")
    request = Request(
        batch[0],
        max_new_tokens=data.draw(st.integers(1, 30), "room"),
        max_items=data.draw(st.none() | st.integers(1, lines or 3), "most"),
        excluded=excluded,
        weights=weights,
        temperature=data.draw(st.sampled_from([0.0, 1.0]), "temperature"),
        seed=seed,
        scaffold=scaffold,
        item_decode="search" if searched else "token",
    )
    engine = Engine(
        make_model(seed), trie, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP]
    )
    expected, tokens = written_by(engine, request)
    found = follow(request, trie, tokens)
    assert list(map(plain, found)) == list(map(plain, expected))
    assert isinstance(found[-1], Finished)


# Two items begin alike (5 6 and 5 7), the third is 8 9 9.
ROWS = [[5, 6], [5, 7], [8, 9, 9]]


def test_what_is_forced_is_told_before_it_is_written_and_adds_nothing() -> None:
    trie = ItemTrie.build(ROWS)
    request = Request([3], max_items=2, scaffold=Scaffold(((4,), (4, 4))))
    followed = FollowedAnswer(request, trie, CONTROL)
    assert followed.begin() == [TextToken(0, 4), ItemBegun(0)]
    assert followed.given == [4, SOI]
    # A decision for the third item, whose rest and the next line come without another.
    assert followed.feed(8, -0.25) == [
        ItemDone(0, 2, (8, 9, 9), -0.25),
        TextToken(0, 4),
        TextToken(0, 4),
        ItemBegun(0),
    ]
    # Nor is it a decision that the next item begins with a 5: the third is named already.
    assert followed.given == [4, SOI, 8, 9, 9, EOI, 4, 4, SOI, 5]
    for token in (9, 9, EOI, 4, 4, SOI, 5):
        assert followed.feed(token, -7.0) == []
    assert not followed.finished
    assert followed.feed(7, -1.0) == [ItemDone(0, 1, (5, 7), -1.0), Finished(0, "items")]
    assert followed.finished


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        ([5, 8], "leads to no item that may be named"),
        ([8, 5], "expected 9, which has to come next"),
        ([4], "leads to no item that may be named"),
        ([EOI], "leads to no item that may be named"),
        ([STOP], "leads to no item that may be named"),
    ],
)
def test_a_token_that_no_item_allows_is_an_error(tokens: list[int], why: str) -> None:
    request = Request([3], scaffold=Scaffold(((4,),)))
    followed = FollowedAnswer(request, ItemTrie.build(ROWS), CONTROL)
    followed.begin()
    *before, last = tokens
    for token in before:
        followed.feed(token, -1.0)
    with pytest.raises(BackboneError, match=why):
        followed.feed(last, -1.0)


@pytest.mark.parametrize("token", [EOI, SOI, 7])
def test_text_without_items_holds_none(token: int) -> None:
    followed = FollowedAnswer(
        Request([3], max_items=0), ItemTrie.build(ROWS), CONTROL, frozenset([7])
    )
    assert followed.begin() == []
    assert followed.feed(4, -1.0) == [TextToken(0, 4)]
    with pytest.raises(BackboneError, match="it may stand in item spans alone"):
        followed.feed(token, -1.0)


def test_scores_that_are_not_numbers_are_an_error() -> None:
    followed = FollowedAnswer(Request([3]), ItemTrie.build(ROWS), CONTROL)
    followed.begin()
    with pytest.raises(BackboneError, match=NOT_NUMBERS[:20]):
        followed.feed(4, math.nan)


def test_what_the_model_would_have_to_search_for_is_refused() -> None:
    trie = ItemTrie.build(ROWS)
    weights = ItemWeights.build(trie, np.zeros(3), share=0.5)
    for own in (None, weights):
        with pytest.raises(ConfigError, match="serve with --engine incatalog"):
            FollowedAnswer(Request([3], item_decode="search", weights=own), trie, CONTROL)
    with pytest.raises(ConfigError, match="within the catalog alone"):
        FollowedAnswer(Request([3], grounded=False), trie, CONTROL)


def test_terms_carry_weights_and_exclusions_bit_by_bit() -> None:
    random = np.random.default_rng(0)
    rows = np.unique(random.integers(4, 9, size=(40, 4)), axis=0).tolist()
    trie = ItemTrie.build(rows)
    excluded = ExcludedItems.build(trie, random.random(len(rows)) < 0.3)
    weights = ItemWeights.build(trie, random.normal(size=len(rows)), share=0.6, base=excluded)
    request = Request([3], excluded=excluded, weights=weights, max_items=1)
    terms = AnswerTerms.of(request, "7", CONTROL, (9,), (SOI,))
    again = AnswerTerms.from_args(terms.to_args()[TERMS])
    assert again == terms
    assert terms.trie == "7"
    grammar = again.grammar(trie)
    own = FollowedAnswer(request, trie, CONTROL)
    spans = own._spans
    [slot] = [own._answer.slot]
    spans.open(np.array([slot]))
    allowed = spans.allowed(np.array([slot]))
    guidance = spans.guidance(allowed)
    assert guidance is not None
    assert isinstance(grammar, AnswerGrammar)
    assert grammar.allowed().tolist() == allowed.tokens.tolist()
    assert terms.weights is not None
    assert terms.weights[0] == pytest.approx(float(guidance.model[0, 0]))


@pytest.mark.parametrize("wrong", [None, {}, {"trie": 3}, {"trie": "0", "control": ["a"]}])
def test_terms_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="not what a service of incatalog writes"):
        AnswerTerms.from_args(wrong)


def test_terms_of_another_trie_are_refused() -> None:
    trie = ItemTrie.build(ROWS)
    excluded = ExcludedItems.build(trie, [0])
    terms = AnswerTerms.of(Request([3], excluded=excluded), "0", CONTROL, (), ())
    other = ItemTrie.build([[5 + n, 6] for n in range(20)])
    with pytest.raises(TrieError, match="another number of items"):
        terms.grammar(other)
