from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.constraint.answer_grammar import AnswerForm, AnswerGrammar, allowed_next
from incatalog.constraint.control import ControlTokens
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.request import Request, Scaffold
from incatalog.errors import ConfigError, NoItemLeftError, TrieError
from incatalog.trie.trie import ItemTrie
from worlds import EOI, SOI, STOP, VOCAB, choices, make_model, read, token_rows

CONTROL = ControlTokens(SOI, EOI, frozenset({STOP}))
LINES = st.lists(st.lists(st.integers(4, VOCAB - 1), max_size=3).map(tuple), min_size=1, max_size=4)


def grammar_of(
    rows: list[list[int]],
    form: AnswerForm,
    barred: set[int] = frozenset(),  # type: ignore[assignment]
    weights: ItemWeights | None = None,
    trie: ItemTrie | None = None,
) -> AnswerGrammar:
    trie = trie or ItemTrie.build(rows)
    excluded = ExcludedItems.build(trie, barred)
    return AnswerGrammar(
        SpanConstraint(trie, EOI, excluded=excluded, weights=weights), CONTROL, form
    )


def expected(
    rows: list[list[int]], form: AnswerForm, barred: set[int], said: list[int]
) -> set[int]:
    """What may follow, by looking at every item and at all that was said."""
    if said and said[-1] == STOP:
        return set()
    spent, found = set(barred), read(said)
    for span in found.spans:
        # Items that share a title all go with the one that is named.
        spent |= {n for n, row in enumerate(rows) if tuple(row) == span}
    if found.open_span is not None:
        return choices(rows, found.open_span, spent)
    named, limit = len(found.spans), form.limit
    left = len(spent) < len(rows)
    if limit and (named >= limit or not left):
        return {STOP}
    if form.before_item is None:
        begin = {SOI} if left and (limit is None or named < limit) else set()
        return ({*range(VOCAB)} - {SOI, EOI, *form.item_only}) | begin
    line = form.before_item[named]
    behind = said[len(said) - said[::-1].index(EOI) :] if EOI in said else said
    return {line[len(behind)] if len(behind) < len(line) else SOI}


def next_of(grammar: AnswerGrammar) -> set[int]:
    if grammar.free:
        return {*range(VOCAB)} - {*grammar.banned()}
    return set(grammar.allowed().tolist())


@settings(max_examples=150, deadline=None)
@given(token_rows, st.data())
def test_answers_equal_brute_force(rows: list[list[int]], data: st.DataObject) -> None:
    barred = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    lines = data.draw(st.none() | LINES.map(tuple))
    most = st.integers(1, len(lines)) if lines else st.integers(0, 4)
    form = AnswerForm(lines, data.draw(st.none() | most), data.draw(st.just(()) | st.just((5,))))
    if lines is not None:
        form = AnswerForm(lines, form.max_items)
    grammar, said = grammar_of(rows, form, barred), list[int]()
    kept = [(grammar.fork(), [*said])]
    for _ in range(18):
        may = expected(rows, form, barred, said)
        assert next_of(grammar) == may
        assert grammar.ended == (not may)
        assert grammar.only() == (next(iter(may)) if len(may) == 1 and not grammar.free else None)
        for token in (SOI, EOI, STOP, data.draw(st.integers(0, VOCAB - 1))):
            assert grammar.accepts([token]) == (token in may)
        if not may:
            break
        token = data.draw(st.sampled_from(sorted(may)))
        assert not grammar.accept(token)
        said.append(token)
        kept.append((grammar.fork(), [*said]))
    back = data.draw(st.integers(0, len(said)))
    grammar.rollback(back)
    before, _ = kept[len(said) - back]
    assert next_of(grammar) == next_of(before)
    assert grammar.items == before.items
    # What the others accepted since has not moved those that were kept.
    for copy, own in kept:
        assert next_of(copy) == expected(rows, form, barred, own)


@settings(max_examples=100, deadline=None)
@given(token_rows, LINES, st.integers(1, 12))
def test_what_is_forced_is_what_alone_may_come(
    rows: list[list[int]], lines: list[tuple[int, ...]], most: int
) -> None:
    grammar = grammar_of(rows, AnswerForm(tuple(lines)))
    while not grammar.ended:
        forced = grammar.forced(most)
        ahead = grammar.fork()
        for token in forced:
            assert next_of(ahead) == {token}
            assert not ahead.accept(token)
        assert len(forced) == most or ahead.ended or ahead.only() is None
        assert not grammar.accept(min(next_of(grammar)))
    assert grammar.forced(most) == []


@settings(max_examples=60, deadline=None)
@given(token_rows, LINES, st.integers(0, 3), st.booleans(), st.data())
def test_greedy_answers_are_those_of_the_engine(
    rows: list[list[int]],
    lines: list[tuple[int, ...]],
    seed: int,
    guided: bool,
    data: st.DataObject,
) -> None:
    model, trie = make_model(seed), ItemTrie.build(rows)
    barred = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    excluded = ExcludedItems.build(trie, barred)
    weights = None
    if guided:
        numbers = np.random.default_rng(seed).normal(size=len(rows))
        weights = ItemWeights.build(trie, numbers, share=0.6, base=excluded)
    form = AnswerForm(
        data.draw(st.sampled_from([tuple(lines), None])), data.draw(st.just(len(lines)))
    )
    scaffold = None if form.before_item is None else Scaffold(form.before_item)
    how = {"excluded": excluded, "weights": weights, "max_items": form.max_items}
    request = Request([4, 5, 6], max_new_tokens=30, scaffold=scaffold, **how)  # type: ignore[arg-type]
    engine = Engine(model, trie, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP])
    [told] = engine.complete([request])

    grammar, said = grammar_of(rows, form, barred, weights, trie), list[int]()
    while not grammar.ended and len(said) < 31:
        with torch.no_grad():
            scores = model(torch.tensor([[4, 5, 6, *said]])).logits[0, -1].double()
        if grammar.free:
            scores[grammar.banned()] = -torch.inf
            token = int(scores.argmax())
        else:
            _, tokens, bias = allowed_next([grammar])
            among = scores[torch.from_numpy(tokens).long()].log_softmax(0)
            if bias is not None and weights is not None:
                among = weights.model * among + torch.from_numpy(bias)
            token = int(tokens[int(among.argmax())])
        assert not grammar.accept(token)
        said.append(token)
    written = said[:-1] if grammar.ended else said[:30]
    assert written == list(told.token_ids)
    assert grammar.items[: len(told.items)] == told.items


def test_answers_of_one_batch_are_asked_together() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [7]])
    first = SpanConstraint(trie, EOI)
    second = SpanConstraint(trie, EOI, excluded=ExcludedItems.build(trie, [2]), among=first)
    form = AnswerForm(((8, 9),))
    one, other = (AnswerGrammar(span, CONTROL, form) for span in (first, second))
    for token in (8, 9, SOI):
        assert not other.accept(token)
    sizes, tokens, bias = allowed_next([one, other])
    # Where one item is barred the others begin alike, so that a token is forced.
    assert (sizes.tolist(), tokens.tolist(), bias) == ([1, 1], [8, 4], None)
    assert not other.accept(4)
    sizes, tokens, _ = allowed_next([one, other])
    assert (sizes.tolist(), tokens.tolist()) == ([1, 2], [8, 5, 6])


def test_answers_of_other_items_share_no_batch() -> None:
    spans = [SpanConstraint(ItemTrie.build([[token]]), EOI) for token in (4, 5)]
    with pytest.raises(TrieError, match="among: holds answers with other items"):
        SpanConstraint(ItemTrie.build([[4]]), EOI, among=spans[0])


def test_what_cannot_be_is_named() -> None:
    trie = ItemTrie.build([[4], [5]])
    with pytest.raises(NoItemLeftError, match="no item left to recommend"):
        grammar_of([[4], [5]], AnswerForm(), {0, 1}, trie=trie)
    with pytest.raises(ConfigError, match="no token that ends an answer"):
        AnswerGrammar(SpanConstraint(trie, EOI), ControlTokens(SOI, EOI, frozenset()), AnswerForm())
    with pytest.raises(ConfigError, match="before_item: found 1; expected one for each item"):
        AnswerForm(((4,),), 2)
    grammar = grammar_of([[4], [5]], AnswerForm(((6,),)))
    assert grammar.accept(7) == "token 7: expected 6, which the form of a list gives"
    with pytest.raises(TrieError, match="rollback: found 1 tokens; expected 0 to 0"):
        grammar.rollback(1)
