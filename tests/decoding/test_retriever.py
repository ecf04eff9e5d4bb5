from __future__ import annotations

import copy
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
from incatalog.decoding.events import Completion, Finished, ItemBegun, ItemDone, TextToken
from incatalog.decoding.ranking import ItemRanking
from incatalog.decoding.request import Request, Scaffold, Slot
from incatalog.decoding.retriever import ItemRetriever
from incatalog.decoding.sampling import Sampling
from incatalog.errors import BackboneError, ConfigError, TrieError, VectorError
from incatalog.model.head import RetrievalHead
from incatalog.trie.trie import ItemTrie
from worlds import EOI, FIRST_WORD, SOI, STOP, make_model, prompts, read, token_rows

thorough = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
seeds = st.integers(0, 3)
HIDDEN, DIM = 32, 6


def make_head(items: int, seed: int = 0) -> RetrievalHead:
    """Random vectors, every fourth one that of the item before it, so that scores tie."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((items, DIM)).astype(np.float32)
    vectors[3::4] = vectors[2::4][: len(vectors[3::4])]
    if items == 1:
        vectors = np.vstack([vectors, -vectors])
    head = RetrievalHead.create(HIDDEN, vectors, seed=seed)
    if items == 1:
        head.vectors.data = head.vectors.data[:1]
    with torch.no_grad():
        head.projection.weight.mul_(6)
    return head.eval()


def make_engine(model: Any, trie: ItemTrie, head: RetrievalHead, **options: Any) -> Engine:
    retriever = ItemRetriever(head, **options)
    return Engine(
        model, trie, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP], retriever=retriever
    )


@torch.no_grad()
def last_state(model: Any, ids: Sequence[int]) -> torch.Tensor:
    return model.model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0, -1]


def naive(
    model: Any,
    head: RetrievalHead,
    rows: Sequence[Sequence[int]],
    request: Request,
    excluded: set[int],
) -> tuple[list[int], list[int], str]:
    """Feeds the whole text again for every single token; an item is written token by token."""
    tokens: list[int] = []
    items: list[int] = []
    spent = set(excluded)
    limit = request.item_limit
    while True:
        number = len(items)
        if limit is not None and number == limit:
            return tokens, items, "items"
        if number and limit is not None and number < limit and len(spent) == len(rows):
            return tokens, items, "no_item_left"
        state = last_state(model, [*request.prompt_ids, *tokens])
        with torch.no_grad():
            logits = model.lm_head(state)
        logits[EOI] = -torch.inf
        if len(spent) == len(rows) or (limit is not None and number >= limit):
            logits[SOI] = -torch.inf
        token = int(logits.argmax())
        if token == STOP:
            return tokens, items, "eos"
        run = [token]
        row = None
        if token == SOI:
            with torch.no_grad():
                scores = head(state[None])[0]
            row = max(set(range(len(rows))) - spent, key=lambda r: (float(scores[r]), -r))
            run += [*rows[row], EOI]
        for piece in run:
            tokens.append(piece)
            if len(tokens) == request.max_new_tokens and piece != EOI:
                return tokens, items, "length"
        if row is not None:
            items.append(row)
            spent |= {r for r, other in enumerate(rows) if list(other) == list(rows[row])}
        if len(tokens) == request.max_new_tokens:
            # The last item asked for counts as the reason where both hold.
            done = limit is not None and len(items) >= limit
            empty = limit is not None and len(items) < limit and len(spent) == len(rows)
            return tokens, items, "items" if done else "no_item_left" if empty else "length"


@thorough
@given(token_rows, prompts, seeds, st.data())
def test_greedy_equals_restarting_from_the_full_text(
    rows: list[list[int]], batch: list[list[int]], seed: int, data: st.DataObject
) -> None:
    model, head = make_model(seed), make_head(len(rows), seed)
    trie = ItemTrie.build(rows)
    excluded = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    options = {
        "max_items": data.draw(st.none() | st.integers(1, 4)),
        "max_new_tokens": data.draw(st.integers(1, 30)),
    }
    requests = [
        Request(prompt, excluded=ExcludedItems.build(trie, excluded), **options) for prompt in batch
    ]
    engine = make_engine(model, trie, head)
    completions = engine.complete(requests)
    if len(excluded) == len(rows):
        assert completions == [Completion((), (), (), "no_item_left")] * len(batch)
        assert engine.statistics.forward_passes == 0
        return
    passes = []
    for request, completion in zip(requests, completions, strict=True):
        tokens, items, reason = naive(model, head, rows, request, excluded)
        assert list(completion.token_ids) == tokens
        assert list(completion.items) == items
        assert completion.finish_reason == reason
        assert not excluded & set(items)
        reading = read(tokens)
        assert reading.spans == [tuple(rows[item]) for item in items]
        assert len(set(reading.spans)) == len(reading.spans)
        opened = len(reading.spans) + (reading.open_span is not None)
        passes.append(len(reading.text) + opened + (reason == "eos"))
    # One pass for each piece of text and for each item, however long it is.
    assert engine.statistics.forward_passes == max(passes)


@thorough
@given(token_rows, prompts, seeds, st.data())
def test_list_holds_the_items_asked_for_with_one_pass_each(
    rows: list[list[int]], batch: list[list[int]], seed: int, data: st.DataObject
) -> None:
    model, head = make_model(seed), make_head(len(rows), seed)
    trie = ItemTrie.build(rows)
    excluded = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    temperature = data.draw(st.sampled_from([0.0, 1.0]))
    k = data.draw(st.integers(1, 14))
    before = tuple(tuple([FIRST_WORD + i % 3] * (i % 3)) for i in range(k))
    engine = make_engine(model, trie, head)
    requests = [
        Request(
            prompt,
            excluded=ExcludedItems.build(trie, excluded),
            temperature=temperature,
            seed=number,
            scaffold=Scaffold(before),
        )
        for number, prompt in enumerate(batch)
    ]
    completions = engine.complete(requests)
    left = len({tuple(row) for n, row in enumerate(rows) if n not in excluded})
    for completion in completions:
        count = min(k, left)
        assert len(completion.items) == count
        assert len({tuple(rows[item]) for item in completion.items}) == count
        assert not excluded & set(completion.items)
        assert completion.finish_reason == ("items" if k <= left else "no_item_left")
        expected: list[int] = []
        for run, item in zip(before, completion.items, strict=False):
            expected += [*run, SOI, *rows[item], EOI]
        assert list(completion.token_ids) == expected
    assert engine.statistics.forward_passes == min(k, left)
    assert engine.complete(requests) == completions  # the seed decides, not the batch
    for request, completion in zip(requests, completions, strict=True):
        assert engine.complete([request])[0].token_ids == completion.token_ids


def test_a_batch_of_all_kinds_of_rows() -> None:
    rows = [[4, 5], [6], [7, 8, 9], [4, 5, 6], [10], [11, 4]]
    trie = ItemTrie.build(rows)
    model, head = make_model(2), make_head(len(rows))
    engine = make_engine(model, trie, head)
    everything = ExcludedItems.build(trie, range(len(rows)))
    odd = ExcludedItems.build(trie, [1, 3, 5])
    requests = [
        Request([9, 10, 4], max_new_tokens=25),
        Request([SOI, 4, EOI], scaffold=Scaffold(((), (7,), (8, 9)))),
        Request([5], excluded=everything, scaffold=Scaffold(((),))),
        Request([5, 6, 7], excluded=odd, temperature=1.0, seed=3, max_new_tokens=25),
        Request([6, 10], grounded=False, max_new_tokens=12),
    ]
    together = engine.complete(requests)
    for request, completion in zip(requests, together, strict=True):
        assert engine.complete([request])[0].token_ids == completion.token_ids
    assert together[2] == Completion((), (), (), "no_item_left")
    assert len(together[1].items) == 3
    assert not {1, 3, 5} & set(together[3].items)
    assert together[4].items == ()  # what is not held to the catalog is not retrieved either
    tokens, items, _ = naive(model, head, rows, requests[0], set())
    assert (list(together[0].token_ids), list(together[0].items)) == (tokens, items)


def test_samples_follow_the_heads_distribution() -> None:
    rows = [[4, 5], [4, 6], [7], [8, 8, 8], [9]]
    trie, model, head = ItemTrie.build(rows), make_model(1), make_head(5)
    engine = make_engine(model, trie, head)
    prompt = [9, 10, 4]
    without = ExcludedItems.build(trie, [2])
    requests = [
        Request(prompt, temperature=1.5, seed=seed, scaffold=Scaffold(((),)), excluded=without)
        for seed in range(2000)
    ]
    completions = engine.complete(requests)
    drawn = np.bincount([c.items[0] for c in completions], minlength=5) / 2000
    with torch.no_grad():
        scores = head(last_state(model, prompt)[None])[0].double()
    scores[2] = -torch.inf
    # Four standard deviations of a frequency of 2000 draws.
    expected = (scores / 1.5).softmax(0).numpy()
    np.testing.assert_allclose(drawn, expected, atol=4 * 0.5 / 2000**0.5)
    for completion in completions[:20]:
        assert completion.logprobs[0] == pytest.approx(
            float(scores.log_softmax(0)[completion.items[0]]), abs=1e-5
        )
    greedy = Request(prompt, scaffold=Scaffold(((),)), excluded=without)
    best = Request(
        prompt, scaffold=Scaffold(((),)), excluded=without, temperature=2.0, top_p=1e-9, seed=5
    )
    assert engine.complete([greedy]) == engine.complete([best])


def test_events_tell_the_answer_in_order() -> None:
    trie = ItemTrie.build([[4, 5, 6]])
    engine = make_engine(make_model(0), trie, make_head(1))
    events = list(engine.generate([Request([11], scaffold=Scaffold(((7, 8),)))]))
    assert events == [
        TextToken(0, 7),
        TextToken(0, 8),
        ItemBegun(0),
        ItemDone(0, 0, (4, 5, 6), 0.0),
        Finished(0, "items"),
    ]
    assert engine.statistics.tokens_fed == len([11, 7, 8])
    for limit in range(1, 6):
        request = Request([8], max_new_tokens=limit, scaffold=Scaffold(((),)))
        assert engine.complete([request]) == [
            Completion(
                (SOI, 4, 5, 6)[:limit] if limit < 5 else (SOI, 4, 5, 6, EOI),
                () if limit < 5 else (0,),
                () if limit < 5 else (0.0,),
                "length" if limit < 5 else "items",
            )
        ]


def test_equal_titles_keep_their_item() -> None:
    trie = ItemTrie.build([[4, 5], [4, 5], [6], [7]])
    model, head = make_model(1), make_head(4)
    head.vectors.data = torch.eye(4, DIM)
    head.projection.weight.data.zero_()
    head.projection.bias.data = torch.tensor([1.0, 2.0, 5.0, 1.5, 0.0, 0.0])  # row 2, 1, 3, 0
    engine = make_engine(model, trie, head)
    [found] = engine.complete([Request([8], scaffold=Scaffold(((),) * 5))])
    assert found.items == (2, 1, 3)  # row 0 has the title of row 1 and is spent with it
    assert found.finish_reason == "no_item_left"
    ranking = ItemRanking(model, trie, ItemRetriever(head))
    [ranked] = ranking.top_items([Slot([8])], None)
    assert ranked.rows.tolist() == [2, 1, 3, 0]
    assert np.exp(ranked.logprobs).sum() == pytest.approx(1)


@thorough
@given(st.integers(1, 12), st.integers(0, 5), st.data())
def test_ranking_equals_sorting_all_items(items: int, seed: int, data: st.DataObject) -> None:
    rows = [[FIRST_WORD + n % 8, FIRST_WORD + n // 8] for n in range(items)]
    trie, model, head = ItemTrie.build(rows), make_model(seed % 4), make_head(items, seed)
    k = data.draw(st.none() | st.integers(1, 14))
    excluded = [data.draw(st.sets(st.integers(0, items - 1))) for _ in range(2)]
    slots = [
        Slot(prompt, ExcludedItems.build(trie, without))
        for prompt, without in zip([[4], [5, 6, 7]], excluded, strict=True)
    ]
    ranking = ItemRanking(model, trie, ItemRetriever(head))
    for slot, without, found in zip(slots, excluded, ranking.top_items(slots, k), strict=True):
        with torch.no_grad():
            scores = head(last_state(model, slot.prompt_ids)[None])[0].double()
        logprobs = scores.log_softmax(0).numpy()
        order = sorted(set(range(items)) - without, key=lambda row: (-float(scores[row]), row))[:k]
        assert found.rows.tolist() == order
        # The excluded items keep their share.
        np.testing.assert_allclose(found.logprobs, logprobs[order], atol=1e-5)
    assert ranking.forward_passes == (min(map(len, excluded)) < items)


def test_ranking_in_small_steps_finds_the_same() -> None:
    """Prompts fed in parts, by searches that join late and ask for different numbers of items."""
    trie, model = ItemTrie.build([[4 + n] for n in range(9)]), make_model(1)
    ranking = ItemRanking(model, trie, ItemRetriever(make_head(9)))
    slots = [Slot([4, 7, 5, 8, 6]), Slot([9]), Slot([5, 5, 6], ExcludedItems.build(trie, [3, 4]))]
    counts = (4, None, 2)
    expected = [ranking.top_items([slot], k)[0] for slot, k in zip(slots, counts, strict=True)]
    waiting = [ranking.search(slot, k) for slot, k in zip(slots, counts, strict=True)]
    searches, active = list(waiting), []
    while waiting or active:
        active += waiting[:1]
        del waiting[:1]
        assert ranking.step(active, 2) <= 2
        active = [search for search in active if not search.over]
    for search, whole in zip(searches, expected, strict=True):
        assert search.ranked().rows.tolist() == whole.rows.tolist()
        np.testing.assert_allclose(search.ranked().logprobs, whole.logprobs, atol=1e-5)


def test_index_finds_the_item_that_the_matrix_product_finds() -> None:
    """Clustered vectors, as texts give: the index looks through an eighth of its lists."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((40, 24))
    vectors = centers[random.integers(40, size=4000)] + 0.5 * random.standard_normal((4000, 24))
    head = RetrievalHead.create(HIDDEN, vectors.astype(np.float32)).eval()
    states = torch.from_numpy(random.standard_normal((200, HIDDEN)).astype(np.float32))
    exact, indexed = ItemRetriever(head), ItemRetriever(head, index_above=1000)
    everything = [np.ones(4000, dtype=np.bool_)] * len(states)
    best, found = (
        [one.rows.tolist() for one in retriever.best(states, everything, 10)]
        for retriever in (exact, indexed)
    )
    same = np.mean([one[0] == other[0] for one, other in zip(best, found, strict=True)])
    recall = np.mean([len({*one} & {*other}) / 10 for one, other in zip(best, found, strict=True)])
    assert same >= 0.98
    assert recall >= 0.95

    few = np.zeros(4000, dtype=np.bool_)
    few[[7, 11, 3999]] = True  # none of them is proposed: all are compared
    for one, other in zip(
        exact.best(states, [few] * 200, 10), indexed.best(states, [few] * 200, 10), strict=True
    ):
        assert one.rows.tolist() == other.rows.tolist()
        assert len(one.rows) == 3
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_what_cannot_work_is_refused() -> None:
    trie, model = ItemTrie.build([[4], [5]]), make_model(0)
    with pytest.raises(VectorError, match="3 rows; expected one for each of the 2 items"):
        make_engine(model, trie, make_head(3))
    with pytest.raises(VectorError, match="incatalog items embed"):
        ItemRanking(model, trie, ItemRetriever(make_head(3)))
    head = make_head(2)
    ranking = ItemRanking(model, trie, ItemRetriever(head))
    with pytest.raises(ConfigError, match="k: found 0"):
        ranking.top_items([Slot([4])], 0)
    other = ItemTrie.build([[4], [5]])
    with pytest.raises(TrieError, match="another trie"):
        ranking.top_items([Slot([4], ExcludedItems.build(other, [0]))])
    head.projection.weight.data.fill_(torch.nan)
    with pytest.raises(BackboneError, match="not numbers"):
        ranking.top_items([Slot([4])])
    free = np.ones(2, dtype=np.bool_)
    best = Sampling(0.0, 1.0, np.random.default_rng(0))
    with pytest.raises(BackboneError, match="not numbers"):
        ItemRetriever(head).pick(torch.zeros(1, HIDDEN), [free], [best])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_item_that_cannot_be_retrieved_ends_its_own_answer_only(temperature: float) -> None:
    rows = [[4, 5], [6], [7, 8], [9, 9, 4]]
    model, trie = copy.deepcopy(make_model(1)), ItemTrie.build(rows)
    engine = make_engine(model, trie, make_head(len(rows)))
    with torch.no_grad():
        model.model.embed_tokens.weight[11] = torch.nan
    scaffold = Scaffold(((), (10,), ()))

    def ask(prompt: list[int], seed: int) -> Request:
        return Request(prompt, scaffold=scaffold, temperature=temperature, seed=seed)

    sound = [ask([5 + n, 4], n) for n in range(4)]
    alone = [engine.complete([request])[0] for request in sound]
    assert all(len(one.items) == 3 for one in alone)
    with engine.session() as session:
        indices = [session.add(one) for one in [*sound[:2], ask([11, 4], 9), *sound[2:]]]
        while session:
            session.step()
        with pytest.raises(BackboneError, match="not numbers"):
            session.completion(indices.pop(2))
        for index, expected in zip(indices, alone, strict=True):
            found = session.completion(index)
            assert (found.token_ids, found.items) == (expected.token_ids, expected.items)
    assert len(engine.model.pool) == 0
    ranking = ItemRanking(engine.model, trie, ItemRetriever(make_head(len(rows))))
    with pytest.raises(BackboneError, match="not numbers"):
        ranking.top_items([Slot([5, 4]), Slot([11, 4])])
    [expected] = ranking.top_items([Slot([5, 4])])
    one, broken, other = searches = [ranking.search(Slot([n, 4])) for n in (5, 11, 6)]
    ranking.step(searches)
    assert one.ranked().rows.tolist() == expected.rows.tolist()
    assert len(other.ranked().rows) == len(rows)
    with pytest.raises(BackboneError, match="not numbers"):
        broken.ranked()
    assert len(engine.model.pool) == 0


@pytest.mark.parametrize("items", [1000, 1024, 5000])
def test_searching_in_blocks_equals_sorting_all_items(items: int) -> None:
    random = np.random.default_rng(items)
    # Few different vectors, so that many items tie, also across blocks.
    vectors = random.standard_normal((items // 3, DIM)).astype(np.float32)
    head = RetrievalHead.create(HIDDEN, vectors[random.integers(len(vectors), size=items)]).eval()
    states = torch.from_numpy(random.standard_normal((4, HIDDEN)).astype(np.float32))
    shares = (1.0, 0.999, 0.5, 0.002)
    free = [random.random(items) < share for share in shares]
    among = [mask | (random.random(items) < 0.3) for mask in free]
    with torch.no_grad():
        scores = head(states)
    for k in (1, 3, 5, 40, items - 1, items, items + 1, None):
        for shared in (None, among):
            found = ItemRetriever(head).best(states, free, k, shared)
            for place, one in enumerate(found):
                own = scores[place].double()
                rows = np.flatnonzero(free[place])
                expected = rows[np.lexsort((rows, -own.numpy()[rows]))][:k]
                assert one.rows.tolist() == expected.tolist()
                over = torch.from_numpy((shared or free)[place])
                logprobs = (own - own[over].logsumexp(0)).numpy()
                np.testing.assert_allclose(one.logprobs, logprobs[expected], atol=1e-5)


def draw_weights(trie: ItemTrie, random: np.random.Generator) -> ItemWeights:
    """Weights of random items, few of which are never to be named."""
    own = random.choice([random.normal(-3, 2), -1.0, -2.0, -700.0, -np.inf], trie.num_items)
    own[0] = 0.0
    boosts = random.choice([0.0, 1.0], trie.num_items)
    return ItemWeights.build(
        trie, own, share=float(random.choice([0.0, 0.4, 1.0])), log_factors=boosts
    )


@thorough
@given(st.integers(0, 10_000), st.sampled_from([12, 1024, 1500]), st.booleans())
def test_items_of_weights_are_those_of_brute_force(seed: int, items: int, shared: bool) -> None:
    random = np.random.default_rng(seed)
    trie = ItemTrie.build([[n] for n in range(items)])
    vectors = random.standard_normal((max(1, items // 3), DIM)).astype(np.float32)
    head = RetrievalHead.create(HIDDEN, vectors[random.integers(len(vectors), size=items)]).eval()
    states = torch.from_numpy(random.standard_normal((4, HIDDEN)).astype(np.float32))
    weights = [draw_weights(trie, random) if n != 1 else None for n in range(4)]
    free = [random.random(items) < 0.8 for _ in range(4)]
    for mask in free:
        mask[0] = True
    among = [mask | (random.random(items) < 0.3) for mask in free] if shared else None
    with torch.no_grad():
        given_scores = head(states).double()
    retriever = ItemRetriever(head)
    for k in (1, 5, items, None):
        found = retriever.best(states, free, k, among, weights)
        for place, one in enumerate(found):
            over = torch.from_numpy((among or free)[place])
            logprobs = (given_scores[place] - given_scores[place][over].logsumexp(0)).numpy()
            own, named = weights[place], free[place]
            if own is not None and not own.plain:
                named = named & np.isfinite(own.by_row)
                logprobs = own.model * logprobs + own.share * own.by_row
            rows = np.flatnonzero(named)
            expected = rows[np.lexsort((rows, -logprobs[rows]))][:k]
            np.testing.assert_allclose(one.logprobs, logprobs[expected], atol=1e-5)
            assert one.rows.tolist() == expected.tolist()


@thorough
@given(token_rows, prompts, seeds, st.sampled_from([0.0, 1.0]), st.data())
def test_guided_answers_are_chosen_by_their_scores(
    rows: list[list[int]],
    batch: list[list[int]],
    seed: int,
    temperature: float,
    data: st.DataObject,
) -> None:
    trie, model, head = ItemTrie.build(rows), make_model(seed), make_head(len(rows), seed)
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    weights = [draw_weights(trie, random) for _ in batch]
    scaffold = Scaffold(((), (5, 6), (7,)))
    requests = [
        Request(prompt, weights=own, temperature=temperature, seed=number, scaffold=scaffold)
        for number, (prompt, own) in enumerate(zip(batch, weights, strict=True))
    ]
    found = make_engine(model, trie, head).complete(requests)
    for request, own, done in zip(requests, weights, found, strict=True):
        free = ~own.excluded.rows
        text = list(request.prompt_ids)
        for before, item, logprob in zip(
            scaffold.before_item, done.items, done.logprobs, strict=False
        ):
            text += before
            with torch.no_grad():
                scores = head(last_state(model, text)[None])[0].double().numpy()
            logprobs = scores - np.logaddexp.reduce(scores[free])
            guided = logprobs if own.plain else own.model * logprobs + own.share * own.by_row
            guided = np.where(free, guided, -np.inf)
            guided = guided - np.logaddexp.reduce(guided)
            assert logprob == pytest.approx(guided[item], abs=1e-4)
            if temperature == 0:
                assert guided[item] > guided.max() - 1e-5
            free &= [row != rows[item] for row in rows]
            text += [SOI, *rows[item], EOI]
    without = [ExcludedItems.build(trie, np.isneginf(own.by_row)) for own in weights]
    barred = [
        Request(one.prompt_ids, excluded=rule, temperature=temperature, seed=number,
                scaffold=scaffold,
                weights=ItemWeights(trie, own.model, own.share, own.log_weights, rule))
        for number, (one, own, rule) in enumerate(zip(requests, weights, without, strict=True))
    ]  # fmt: skip
    assert make_engine(model, trie, head).complete(barred) == found


def test_equal_weights_change_no_bit() -> None:
    rows = [[4, 5], [6], [7, 8], [9]]
    trie, model, head = ItemTrie.build(rows), make_model(1), make_head(len(rows))
    never = np.array([0.25, -np.inf, 0.25, 0.25])
    excluded = ExcludedItems.build(trie, [1])
    equal = ItemWeights.build(trie, never, share=0.5)
    for temperature in (0.0, 1.0):
        plain, weighed = (
            [
                Request([9, 4], excluded=rule, weights=own, temperature=temperature, seed=n,
                        scaffold=Scaffold(((),) * 4))
                for n in range(5)
            ]
            for rule, own in ((excluded, None), (None, equal))
        )  # fmt: skip
        engine = make_engine(model, trie, head)
        assert engine.complete(weighed) == engine.complete(plain)
    ranking = ItemRanking(model, trie, ItemRetriever(head))
    [one, other] = ranking.top_items([Slot([9, 4], excluded), Slot([9, 4], weights=equal)], None)
    assert one.rows.tolist() == other.rows.tolist()
    assert one.logprobs.tolist() == other.logprobs.tolist()


def test_ranking_under_weights() -> None:
    rows = [[4], [5], [6], [7]]
    trie, model, head = ItemTrie.build(rows), make_model(1), make_head(4)
    teacher = np.log([0.1, 0.6, 0.1, 0.2])
    with torch.no_grad():
        logprobs = head(last_state(model, [9])[None])[0].double().log_softmax(0).numpy()
    for share in (0.3, 1.0):
        base = ExcludedItems.build(trie, [3])
        weights = ItemWeights.build(trie, teacher, share=share, base=base)
        slots = [Slot([9], base, weights), Slot([9], base)]
        guided, plain = ItemRanking(model, trie, ItemRetriever(head)).top_items(slots, None)
        expected = ((1 - share) * logprobs + share * teacher)[:3]
        order = np.argsort(-expected, kind="stable")
        assert guided.rows.tolist() == order.tolist()
        np.testing.assert_allclose(guided.logprobs, expected[order], atol=1e-5)
        order = np.argsort(-logprobs[:3], kind="stable")
        assert plain.rows.tolist() == order.tolist()


def test_an_index_does_not_choose_among_items_of_weights() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((3000, 24)).astype(np.float32)
    head = RetrievalHead.create(HIDDEN, vectors).eval()
    trie = ItemTrie.build([[n] for n in range(3000)])
    states = torch.from_numpy(random.standard_normal((20, HIDDEN)).astype(np.float32))
    everything = [np.ones(3000, dtype=np.bool_)] * 20
    exact, indexed = ItemRetriever(head), ItemRetriever(head, index_above=1000)
    weights = ItemWeights.build(trie, random.normal(0, 3, 3000), share=0.9)
    own = [weights if place % 2 else None for place in range(20)]
    found = indexed.best(states, everything, 10, weights=own)
    alone = indexed.best(states[::2], everything[::2], 10)
    compared = exact.best(states, everything, 10, weights=own)
    for place in range(20):
        expected = compared[place] if place % 2 else alone[place // 2]
        assert found[place].rows.tolist() == expected.rows.tolist()
        np.testing.assert_allclose(found[place].logprobs, expected.logprobs, atol=1e-5)
    best = Sampling(0.0, 1.0, random)
    picked = indexed.pick(states, everything, [best] * 20, own)
    assert [item for item, _ in picked] == [int(one.rows[0]) for one in found]
