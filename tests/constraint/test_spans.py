from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import SpelledCatalog, TokenCatalog, spelled_catalogs, token_catalogs
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.constraint.spans import SpanBatch
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie.trie import ItemTrie

EOI = 100


@settings(max_examples=1000, deadline=None)
@given(token_catalogs(), st.binary(min_size=24, max_size=24), st.integers(1, 5))
def test_a_batch_says_what_the_constraint_of_each_answer_says(
    catalog: TokenCatalog, choices: bytes, number: int
) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.domains)
    _compare(trie, catalog.excluded, choices, number, compiled=False)


@settings(max_examples=1000, deadline=None)
@given(token_catalogs(), st.binary(min_size=24, max_size=24), st.integers(1, 5))
def test_compiled_loops_say_the_same(catalog: TokenCatalog, choices: bytes, number: int) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.domains)
    _compare(trie, catalog.excluded, choices, number, compiled=True)


@settings(max_examples=700, deadline=None)
@given(spelled_catalogs(), st.binary(min_size=24, max_size=24), st.integers(1, 5))
def test_so_does_one_over_items_of_several_spellings(
    catalog: SpelledCatalog, choices: bytes, number: int
) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.domains, catalog.items)
    _compare(trie, catalog.excluded, choices, number, compiled=bool(choices[0] & 1))


def _compare(
    trie: ItemTrie, left_out: frozenset[int], choices: bytes, number: int, *, compiled: bool
) -> None:
    eoi = 2 if choices[0] & 4 and not trie.contains_token(2) else EOI
    rows = sorted(left_out)
    rule = ExcludedItems.build(trie, rows[::2])
    exclusions = [
        None,
        ExcludedItems.build(trie, rows),
        ExcludedItems.build(trie, rows[1::2], base=rule),
        rule,
        # As of a large catalog, where a few items do not become a prefix sum.
        ExcludedItems(trie, None, np.sort(trie.positions(rows))),
    ]
    if choices[0] & 2:
        # Compiled loops know no rules for the whole catalog; with one, arrays take over.
        exclusions[2] = exclusions[3] = None
        exclusions[1] = exclusions[4]
    spans = SpanBatch(trie, eoi, compiled=compiled)
    constraints: dict[int, SpanConstraint] = {}
    turn = 0

    def pick(size: int) -> int:
        nonlocal turn
        turn += 1
        return choices[turn % 24] * (turn // 24 + 1) % size

    def join() -> None:
        settings = {
            "excluded": exclusions[pick(5)],
            "unique": bool(pick(3)),
            "domain": trie.domains[pick(len(trie.domains))],
        }
        slot = spans.join(**settings)
        assert slot not in constraints
        constraints[slot] = SpanConstraint(trie, eoi, **settings)

    for _ in range(number):
        join()
    for _ in range(6):
        opening = [slot for slot, c in constraints.items() if not c.inside and c.can_begin()]
        for slot, constraint in constraints.items():
            assert (spans.left(slot) > 0) == (constraint.inside or constraint.can_begin())
        if opening:
            for slot, run in zip(opening, spans.open(np.array(opening)), strict=True):
                constraints[slot].begin()
                _follow(constraints[slot], run.tokens, run.item)
        inside = [slot for slot, constraint in constraints.items() if constraint.inside]
        if inside:
            allowed = spans.allowed(np.array(inside))
            chosen, columns = [], []
            for slot, mask in zip(inside, allowed.mask, strict=True):
                tokens = allowed.tokens[mask].tolist()
                assert tokens == constraints[slot].allowed().tolist()
                place = pick(len(tokens))
                chosen.append(tokens[place])
                columns.append(np.flatnonzero(mask)[place])
            runs = spans.choose(allowed, np.array(columns))
            for slot, token, run in zip(inside, chosen, runs, strict=True):
                assert run.tokens[0] == token
                _follow(constraints[slot], run.tokens, run.item)
        for slot, constraint in constraints.items():
            if not constraint.inside:
                free = constraint.free_rows()
                assert spans.free_rows(slot).tolist() == free.tolist()
                assert spans.left(slot) == np.count_nonzero(free)
        if not pick(3):
            slot = sorted(constraints)[pick(len(constraints))]
            spans.leave(slot)
            del constraints[slot]
            join()
    assert len(spans) == len(constraints)


def _follow(constraint: SpanConstraint, run: list[int], item: int) -> None:
    """A run is forced but for its first token, ends at a decision, and names the same item."""
    named = None
    for number, token in enumerate(run):
        assert named is None
        allowed = constraint.allowed().tolist()
        assert token in allowed
        assert number == 0 or allowed == [token]
        named = constraint.accept(token)
    assert (-1 if named is None else named) == item
    assert not constraint.inside or len(constraint.allowed()) > 1


@settings(max_examples=500, deadline=None)
@given(token_catalogs())
def test_a_written_item_is_the_one_that_was_asked_for(catalog: TokenCatalog) -> None:
    trie = ItemTrie.build(catalog.rows)
    excluded = ExcludedItems.build(trie, sorted(catalog.excluded))
    spans = SpanBatch(trie, EOI)
    slot = spans.join(excluded)
    left = set(range(len(catalog.rows))) - catalog.excluded
    while left:
        row = max(left)
        assert spans.left(slot) == len(left)
        run = spans.write(slot, row)
        assert (run.tokens, run.item) == ([*catalog.rows[row], EOI], row)
        left -= {other for other in left if catalog.rows[other] == catalog.rows[row]}
        assert set(np.flatnonzero(spans.free_rows(slot)).tolist()) == left
    for row in range(len(catalog.rows)):
        with pytest.raises(TrieError, match=f"item row {row}: is excluded or has been named"):
            spans.write(slot, row)
    with pytest.raises(NoItemLeftError, match="no item left"):
        spans.open(np.array([slot]))


@settings(max_examples=200, deadline=None)
@given(spelled_catalogs())
def test_a_written_item_spends_all_its_spellings(catalog: SpelledCatalog) -> None:
    trie = ItemTrie.build(catalog.rows, items=catalog.items)
    spans = SpanBatch(trie, EOI)
    slot = spans.join(ExcludedItems.build(trie, sorted(catalog.excluded)))
    left = set(range(catalog.num_items)) - catalog.excluded
    while left:
        row = max(left)
        assert spans.left(slot) == len(left)
        run = spans.write(slot, row)
        title = catalog.rows[catalog.items.index(row)]
        assert (run.tokens, run.item) == ([*title, EOI], row)
        left -= set(catalog.named(left, title))
        assert set(np.flatnonzero(spans.free_rows(slot)).tolist()) == left


def test_what_cannot_be_is_refused() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6]])
    spans = SpanBatch(trie, EOI)
    with pytest.raises(TrieError, match="another trie"):
        spans.join(ExcludedItems.build(ItemTrie.build([[4]]), [0]))
    with pytest.raises(TrieError, match="domain: found 'book'"):
        spans.join(domain="book")
    slot = np.array([spans.join()])
    [run] = spans.open(slot)
    assert run == ([4], -1)
    allowed = spans.allowed(slot)
    assert list(spans.choose(allowed, np.array([1]))) == [([6, EOI], 1)]


def test_a_choice_that_leads_to_no_allowed_item_is_refused() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [4, 7], [8]])
    spans = SpanBatch(trie, EOI)
    slots = np.array([spans.join(), spans.join(ExcludedItems.build(trie, [1]))])
    spans.open(slots)
    spans.choose(spans.allowed(slots), np.array([0, 0]))
    allowed = spans.allowed(slots)
    assert allowed.tokens.tolist() == [5, 6, 7]
    with pytest.raises(TrieError, match="token 6: leads to no item that is allowed"):
        spans.choose(allowed, np.array([1, 1]))
    assert list(spans.choose(allowed, np.array([1, 2]))) == [([6, EOI], 1), ([7, EOI], 2)]
