"""Lists whose later places go by the ranking of the first too, against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoding.test_retriever import last_state, make_head
from decoding.test_whole_items import logprobs_of, make_engine
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import Completion, RankedItems
from incatalog.decoding.first_place import FirstPlace
from incatalog.decoding.request import Request, Scaffold
from incatalog.decoding.retriever import ItemRetriever
from incatalog.errors import ConfigError
from incatalog.trie.trie import ItemTrie
from worlds import FIRST_WORD, SOI, VOCAB, make_model, prompts, spelled_rows

PROMPT = [FIRST_WORD, FIRST_WORD + 3]
shares = st.sampled_from([0.2, 0.5, 0.9])


def scaffold(k: int) -> Scaffold:
    return Scaffold(tuple((FIRST_WORD + place % 3,) for place in range(k)))


def places_of(request: Request, done: Completion) -> list[list[int]]:
    """The text before each item."""
    tokens = list(done.token_ids)
    starts = [place for place, token in enumerate(tokens) if token == SOI]
    return [[*request.prompt_ids, *tokens[:start]] for start in starts]


def expected_scores(
    first: np.ndarray, here: np.ndarray, allowed: list[int], told: int, share: float
) -> np.ndarray:
    """Scores at a later place, from the log-probabilities of both places."""
    best = sorted(allowed, key=lambda row: -first[row])[:told]
    known = np.full(len(first), first[best].min())
    known[best] = first[best]
    return (1 - share) * here + share * known


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(spelled_rows(), prompts, st.integers(0, 3), shares, st.data())
def test_later_places_go_by_both_rankings(
    spelled: tuple[list[list[int]], list[int]],
    batch: list[list[int]],
    seed: int,
    share: float,
    data: st.DataObject,
) -> None:
    rows, items = spelled
    model, count = make_model(seed), max(items) + 1
    trie = ItemTrie.build(rows, items=items)
    excluded = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    base = ExcludedItems.build(trie, excluded)
    number = st.floats(-3, 3, allow_nan=False)
    factors = np.array(data.draw(st.lists(number, min_size=count, max_size=count)))
    boosted = data.draw(st.booleans())
    weights = ItemWeights.build(trie, log_factors=factors, base=base) if boosted else None
    own: Any = {"excluded": base, "weights": weights, "item_decode": "search"}
    k = data.draw(st.integers(2, 5))
    requests = [
        Request(prompt, 60, scaffold=scaffold(k), first_share=share, **own) for prompt in batch
    ]
    for request, done in zip(requests, make_engine(model, trie).complete(requests), strict=True):
        first = None
        spent = set(excluded)
        for text, item, said in zip(
            places_of(request, done), done.items, done.logprobs, strict=False
        ):
            here = logprobs_of(model, rows, items, text)
            allowed = [row for row in range(count) if row not in excluded]
            first = here if first is None else first
            scores = here if first is here else expected_scores(first, here, allowed, count, share)
            if boosted:
                scores = scores + factors
            left = [row for row in range(count) if row not in spent]
            assert scores[item] >= max(scores[left]) - 1e-3
            # What is told is how good the item is here alone; factors that are equal say nothing.
            weighed = scores - (here if first is here else (1 - share) * here)
            counts = boosted and np.ptp(weighed[left]) > 1e-9
            assert said == pytest.approx(here[item] + counts * factors[item], abs=2e-3)
            title = rows[items.index(item)]
            alike = {of for row, of in zip(rows, items, strict=True) if row == title}
            spent |= alike | {item}
        assert done.finish_reason != "error"


def big_catalog() -> tuple[list[list[int]], ItemTrie]:
    random = np.random.default_rng(5)
    rows: list[list[int]] = []
    while len(rows) < 60:
        row = random.integers(FIRST_WORD, VOCAB, size=4).tolist()
        if row not in rows:
            rows.append(row)
    return rows, ItemTrie.build(rows)


@pytest.mark.parametrize("limit", [9, 16])
def test_what_the_first_place_ranks_low_counts_as_the_last_of_what_it_tells_apart(
    limit: int,
) -> None:
    rows, trie = big_catalog()
    told, differ = max(20, 2 * limit), 0
    for seed in range(2):
        model = make_model(seed)
        request = Request(
            PROMPT, 200, scaffold=scaffold(limit), item_decode="search", first_share=0.3
        )
        [done] = make_engine(model, trie).complete([request])
        first: np.ndarray | None = None
        for place, (text, item) in enumerate(
            zip(places_of(request, done), done.items, strict=True)
        ):
            here = logprobs_of(model, rows, range(60), text)
            scores = here
            if first is None:
                first = here
            else:
                scores = expected_scores(first, here, list(range(60)), told, 0.3)
                exact = 0.7 * here + 0.3 * first
                left = [row for row in range(60) if row not in done.items[:place]]
                differ += max(left, key=lambda row: exact[row]) != item
            left = [row for row in range(60) if row not in done.items[:place]]
            assert scores[item] >= max(scores[left]) - 1e-3
    # If no list showed a difference, the test would say nothing.
    assert differ


@pytest.mark.parametrize(
    "changes",
    [
        {"first_share": 0.0},
        {"temperature": 0.7},
        {"item_decode": "token"},
        {"scaffold": scaffold(1)},
        {"weights": "guide"},
    ],
)
def test_answers_that_go_by_each_place_alone(changes: dict[str, Any]) -> None:
    _, trie = big_catalog()
    engine = make_engine(make_model(1), trie)
    if "weights" in changes:
        taught = np.random.default_rng(2).normal(size=60)
        changes = {"weights": ItemWeights.build(trie, taught, share=0.4)}
    asked: Any = {"scaffold": scaffold(6), "item_decode": "search", "first_share": 0.8} | changes
    [leaning] = engine.complete([Request(PROMPT, 200, **asked)])
    [alone] = engine.complete([Request(PROMPT, 200, **asked | {"first_share": 0.0})])
    assert leaning == alone
    # And what is asked for without these changes is another answer.
    whole: Any = {"scaffold": scaffold(6), "item_decode": "search"}
    pair = [Request(PROMPT, 200, **whole, first_share=share) for share in (0.0, 0.8)]
    plain, other = engine.complete(pair)
    assert plain.items != other.items
    assert plain.items[0] == other.items[0]


def test_weights_that_are_equal_are_no_guide() -> None:
    _, trie = big_catalog()
    engine = make_engine(make_model(2), trie)
    same = ItemWeights.build(trie, np.full(60, -3.0), share=0.6)
    asked: Any = {"scaffold": scaffold(6), "item_decode": "search", "first_share": 0.5}
    with_guide, alone = engine.complete(
        [Request(PROMPT, 200, **asked, weights=same), Request(PROMPT, 200, **asked)]
    )
    assert with_guide.items == alone.items
    assert with_guide.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


@pytest.mark.parametrize("boosted", [False, True])
def test_retrieved_items_go_by_both_rankings(boosted: bool) -> None:
    _, trie = big_catalog()
    model, head = make_model(0), make_head(60)
    factors = np.random.default_rng(3).normal(size=60)
    weights = ItemWeights.build(trie, log_factors=factors) if boosted else None
    request = Request(PROMPT, 300, scaffold=scaffold(8), weights=weights, first_share=0.5)
    engine = make_engine(model, trie, retriever=ItemRetriever(head))
    [done] = engine.complete([request])
    first: np.ndarray | None = None
    for place, (text, item) in enumerate(zip(places_of(request, done), done.items, strict=True)):
        state = last_state(model, text)
        scores = head.scores(head.query(state[None]))[0].double().detach().numpy()
        left = [row for row in range(60) if row not in done.items[:place]]
        here = scores - np.logaddexp.reduce(scores[left])
        total, given = here, factors if boosted else np.zeros(60)
        if first is None:
            first = here
        else:
            best = np.argsort(-(first + given))[:20]
            known = np.full(60, first[best].min())
            known[best] = first[best]
            total = 0.5 * here + 0.5 * known
        total = total + given
        assert total[item] >= max(total[left]) - 1e-4
        if not boosted:
            assert done.logprobs[place] == pytest.approx(here[item], abs=1e-4)


def test_an_index_chooses_each_place_alone() -> None:
    _, trie = big_catalog()
    model, head = make_model(0), make_head(60)
    engine = make_engine(model, trie, retriever=ItemRetriever(head, index_above=30))
    pair = [Request(PROMPT, 300, scaffold=scaffold(6), first_share=share) for share in (0.0, 0.5)]
    alone, leaning = engine.complete(pair)
    assert alone == leaning


def test_an_item_that_the_model_rules_out_at_the_first_place_may_still_come() -> None:
    _, trie = big_catalog()
    first = FirstPlace(Request(PROMPT, scaffold=scaffold(6), first_share=0.5), trie)
    first.remember(RankedItems(np.array([3, 7], np.int32), np.array([-1.0, -np.inf])))
    assert first.weights is not None
    assert not first.weights.excluded.rows.any()
    assert np.isfinite(first.weights.by_row).all()
    assert first.weights.by_row.argmax() == 3


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_is_less_than_one(share: float) -> None:
    with pytest.raises(ConfigError, match=r"first_share: found .*; expected 0 to less than 1"):
        Request(PROMPT, first_share=share)
