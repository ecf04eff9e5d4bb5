from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.constraint.answer_grammar import AnswerForm, AnswerGrammar
from incatalog.constraint.control import ControlTokens
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.errors import NoItemLeftError
from incatalog.trie.trie import ItemTrie
from incatalog.vllm.device_answers import ENDED, LOST
from incatalog.vllm.device_items import DeviceItems
from worlds import EOI, SOI, STOP, VOCAB, spelled_rows, token_rows

CONTROL = ControlTokens(SOI, EOI, frozenset({STOP}))
ONLY = (5,)
TOKENS = 24
LINES = st.lists(st.lists(st.integers(6, VOCAB - 1), max_size=2).map(tuple), min_size=1, max_size=4)
CPU = torch.device("cpu")


@st.composite
def forms(draw: st.DrawFn) -> AnswerForm:
    lines = draw(st.none() | LINES.map(tuple))
    most = st.integers(1, len(lines)) if lines else st.integers(0, 4)
    return AnswerForm(lines, draw(st.none() | most), ONLY)


def next_of(grammar: AnswerGrammar) -> set[int]:
    if grammar.ended:
        return {*range(VOCAB)}
    if grammar.free:
        return {*range(VOCAB)} - {*grammar.banned()}
    return {*grammar.allowed().tolist()}


def compare(trie: ItemTrie, data: st.DataObject) -> None:
    """Answers side by side, on the device and by the compiled loops, token after token."""
    slots = data.draw(st.integers(1, 4))
    items = DeviceItems(trie, CONTROL, ONLY, slots, VOCAB, CPU)
    rules = [
        None,
        ExcludedItems.build(trie, np.array(data.draw(_masks(trie)), dtype=np.bool_)),
    ]
    grammars: list[AnswerGrammar] = []
    # Slots are used again for other answers.
    for turn in range(slots + 2):
        form = data.draw(forms())
        barred = data.draw(st.sets(st.integers(0, trie.num_items - 1), max_size=2))
        base = data.draw(st.sampled_from(rules))
        excluded = ExcludedItems.build(trie, barred, base)
        try:
            begins = SpanConstraint(trie, EOI, excluded=excluded)
            grammar = AnswerGrammar(begins, CONTROL, form)
        except NoItemLeftError:
            grammar = AnswerGrammar(SpanConstraint(trie, EOI), CONTROL, form)
            excluded = None
        items.begin(turn % slots, excluded, form, TOKENS)
        grammars[turn % slots : turn % slots + 1] = [grammar]
    every = torch.arange(slots)
    for _ in range(TOKENS):
        mask = items.rules.allowed(items.answers)
        found = [set(torch.nonzero(row)[:, 0].tolist()) for row in mask]
        assert found == [next_of(grammar) for grammar in grammars]
        ended = (items.answers.mode == ENDED).tolist()
        assert ended == [grammar.ended for grammar in grammars]
        going = [not grammar.ended for grammar in grammars]
        tokens = [data.draw(st.sampled_from(sorted(may))) for may in found]
        wrong = items.rules.accept(items.answers, torch.tensor([0] * slots))
        for slot, grammar in enumerate(grammars):
            assert (int(wrong.mode[slot]) == LOST) == (not grammar.accepts([0]))
        moved = items.rules.accept(items.answers, torch.tensor(tokens))
        items.answers.put(every, moved, torch.tensor(going))
        for grammar, token, goes in zip(grammars, tokens, going, strict=True):
            if goes:
                assert not grammar.accept(token)
        named = [len(grammar.items) for grammar in grammars]
        assert items.answers.named.tolist() == named


def _masks(trie: ItemTrie) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=trie.num_items, max_size=trie.num_items)


@settings(max_examples=8, deadline=None)
@given(token_rows, st.data())
def test_answers_on_the_device_are_those_of_the_loops(
    rows: list[list[int]], data: st.DataObject
) -> None:
    compare(ItemTrie.build(rows), data)


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(token_rows, st.data())
def test_many_answers_on_the_device_are_those_of_the_loops(
    rows: list[list[int]], data: st.DataObject
) -> None:
    compare(ItemTrie.build(rows), data)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(spelled_rows(), st.data())
def test_other_spellings_go_with_an_item(
    spelled: tuple[list[list[int]], list[int]], data: st.DataObject
) -> None:
    rows, of = spelled
    compare(ItemTrie.build(rows, items=of), data)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(token_rows, st.data())
def test_removed_items_stay_away(rows: list[list[int]], data: st.DataObject) -> None:
    trie = ItemTrie.build(rows)
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    compare(trie.without_items(gone), data)
