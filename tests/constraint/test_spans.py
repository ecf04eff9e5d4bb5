from __future__ import annotations

import copy
import gc
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import SpelledCatalog, TokenCatalog, spelled_catalogs, token_catalogs
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.spans import Allowed, SpanBatch
from incatalog.constraint.weights import ItemWeights
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie.trie import ItemTrie

EOI = 100
# Near ones, some that are lost beside others, and some that exclude.
LOG_WEIGHTS = (0.0, -0.7, -2.0, -40.0, -900.0, -901.0, -math.inf)


class Reference:
    """One answer, by looking at every spelling of every item, every time."""

    def __init__(
        self,
        catalog: SpelledCatalog,
        eoi: int,
        left: set[int],
        unique: bool,
        weights: ItemWeights | None = None,
    ) -> None:
        self.spelled = list(zip(catalog.rows, catalog.items, strict=True))
        self.eoi, self.left, self.unique, self.weights = eoi, left, unique, weights
        self.prefix: list[int] | None = None

    def allowed(self) -> list[int]:
        assert self.prefix is not None
        size = len(self.prefix)
        below = [r for r, i in self.spelled if i in self.left and r[:size] == self.prefix]
        return sorted({row[size] if len(row) > size else self.eoi for row in below})

    def bias(self) -> list[float]:
        """Share of the weights times the logarithm of each allowed token's part of the weight."""
        assert self.prefix is not None
        assert self.weights is not None
        size, items = len(self.prefix), [item for _, item in self.spelled]
        below: dict[int, list[float]] = {token: [] for token in self.allowed()}
        for row, item in self.spelled:
            if item in self.left and row[:size] == self.prefix:
                own = float(self.weights.by_row[item]) - math.log(items.count(item))
                below[row[size] if len(row) > size else self.eoi].append(own)
        whole = log_sum([one for some in below.values() for one in some])
        return [self.weights.share * (log_sum(some) - whole) for some in below.values()]

    def accept(self, token: int) -> int:
        """The item that the token ends, or -1."""
        assert self.prefix is not None
        if token != self.eoi:
            self.prefix.append(token)
            return -1
        named = [i for row, i in self.spelled if row == self.prefix and i in self.left]
        self.prefix = None
        if self.unique:
            self.left -= set(named)
        return named[0]

    def follow(self, run: list[int], item: int) -> None:
        """A run is forced but for its first token, ends at a decision, and names an item."""
        named = -1
        for number, token in enumerate(run):
            assert named < 0
            allowed = self.allowed()
            assert token in allowed
            assert number == 0 or allowed == [token]
            named = self.accept(token)
        assert named == item
        assert self.prefix is None or len(self.allowed()) > 1


def log_sum(values: list[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


def check_guidance(spans: SpanBatch, allowed: Allowed, answers: dict[int, Reference]) -> None:
    """Weights say what brute force says; rows without any are left alone."""
    weighed = [answers[slot].weights for slot in allowed.slots.tolist()]
    rows = [row for row, one in enumerate(weighed) if one is not None and not one.plain]
    found = spans.guidance(allowed)
    if not rows:
        assert found is None
        return
    assert found is not None
    assert found.rows.tolist() == rows
    for row, model, bias in zip(*found, strict=True):
        own, mask = answers[int(allowed.slots[row])], allowed.mask[row]
        assert own.weights is not None
        assert model.tolist() == [own.weights.model]
        assert np.isneginf(bias[~mask]).all()
        np.testing.assert_allclose(bias[mask], own.bias(), rtol=1e-9, atol=1e-9)


@settings(max_examples=1500, deadline=None)
@given(token_catalogs(), st.binary(min_size=24, max_size=24), st.integers(1, 5))
def test_a_batch_says_what_brute_force_says_of_each_answer(
    catalog: TokenCatalog, choices: bytes, number: int
) -> None:
    items = list(range(len(catalog.rows)))
    _compare(SpelledCatalog(catalog.rows, items, catalog.excluded), choices, number)


@settings(max_examples=1000, deadline=None)
@given(spelled_catalogs(), st.binary(min_size=24, max_size=24), st.integers(1, 5))
def test_so_does_one_over_items_of_several_spellings(
    catalog: SpelledCatalog, choices: bytes, number: int
) -> None:
    _compare(catalog, choices, number)


def _compare(catalog: SpelledCatalog, choices: bytes, number: int) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.items)
    eoi = 2 if choices[0] & 4 and not trie.contains_token(2) else EOI
    rows = sorted(catalog.excluded)
    rule = ExcludedItems.build(trie, rows[::2])
    listed = ExcludedItems(trie, None, np.sort(trie.positions(rows)))
    by_row = [LOG_WEIGHTS[choices[row % 24] * (row // 24 + 1) % 7] for row in range(trie.num_items)]
    without = [row for row, one in enumerate(by_row) if math.isinf(one)]
    weights = ItemWeights.build(trie, np.array(by_row), share=0.5, base=rule)
    finite = np.maximum(by_row, -3.0)
    exclusions: list[tuple[ExcludedItems | ItemWeights | None, list[int]]] = [
        (None, []),
        (ExcludedItems.build(trie, rows), rows),
        (ExcludedItems.build(trie, rows[1::2], base=rule), rows),
        (rule, rows[::2]),
        # As of a large catalog, where a few items do not become a prefix sum.
        (listed, rows),
        (weights, [*rows[::2], *without]),
        (ItemWeights(trie, 0.0, 1.0, finite[trie.order], ExcludedItems.build(trie, ())), []),
    ]
    if choices[0] & 2:
        # Without any rule for the whole catalog.
        exclusions[1:4] = [exclusions[4], exclusions[0], exclusions[0]]
    if choices[0] & 8:
        exclusions[5:] = [exclusions[0], exclusions[0]]
    spans = SpanBatch(trie, eoi)
    answers: dict[int, Reference] = {}
    turn = 0

    def pick(size: int) -> int:
        nonlocal turn
        turn += 1
        return choices[turn % 24] * (turn // 24 + 1) % size

    def join() -> None:
        rules, left_out = exclusions[pick(7)]
        unique = bool(pick(3))
        own = rules if isinstance(rules, ItemWeights) else None
        excluded = own.excluded if isinstance(rules, ItemWeights) else rules
        slot = spans.join(excluded, unique=unique, weights=own)
        assert slot not in answers
        answers[slot] = Reference(catalog, eoi, catalog.members - set(left_out), unique, own)

    for _ in range(number):
        join()
    for _ in range(6):
        opening = [slot for slot, one in answers.items() if one.prefix is None and one.left]
        if opening:
            for slot, run in zip(opening, spans.open(np.array(opening)), strict=True):
                answers[slot].prefix = []
                answers[slot].follow(run.tokens, run.item)
        inside = [slot for slot, one in answers.items() if one.prefix is not None]
        if inside and not pick(2):
            # A fork goes on in place of the one it stands where.
            forks = spans.fork(np.array(inside)).tolist()
            for slot, fork in zip(inside, forks, strict=True):
                answers[fork] = answers.pop(slot)
                spans.leave(slot)
            inside = forks
        if inside:
            allowed = spans.allowed(np.array(inside))
            check_guidance(spans, allowed, answers)
            chosen, columns = [], []
            for slot, mask in zip(inside, allowed.mask, strict=True):
                tokens = allowed.tokens[mask].tolist()
                assert tokens == answers[slot].allowed()
                place = pick(len(tokens))
                chosen.append(tokens[place])
                columns.append(np.flatnonzero(mask)[place])
            runs = spans.choose(allowed, np.array(columns))
            for slot, token, run in zip(inside, chosen, runs, strict=True):
                assert run.tokens[0] == token
                answers[slot].follow(run.tokens, run.item)
        for slot, one in answers.items():
            if one.prefix is None:
                assert set(np.flatnonzero(spans.free_rows(slot)).tolist()) == one.left
                assert spans.left(slot) == len(one.left)
        if not pick(3):
            slot = sorted(answers)[pick(len(answers))]
            spans.leave(slot)
            del answers[slot]
            join()
    assert len(spans) == len(answers)


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
    for own in (ItemTrie.build([[4]]), ItemTrie.build([[4, 5], [4, 6]])):
        with pytest.raises(TrieError, match="another trie"):
            spans.join(weights=ItemWeights.build(own))
    with pytest.raises(TrieError, match="weights: item row 0 is excluded beside them"):
        spans.join(ExcludedItems.build(trie, [0]), weights=ItemWeights.build(trie))
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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_follows_a_rule_of_its_own(copied: Callable[[SpanBatch], SpanBatch]) -> None:
    trie = ItemTrie.build([[1 + row // 16, 1 + row % 16] for row in range(256)])
    # More than a 64th of the catalog: the loops read this rule by its address.
    excluded = ExcludedItems.build(trie, range(0, 256, 2))
    assert excluded.before is not None
    spans = SpanBatch(trie, 99)
    slot = spans.join(excluded)
    other = copied(spans)
    assert int(spans._state.rule[slot]) != int(other._state.rule[slot]) != 0
    del spans, trie, excluded
    gc.collect()
    # What stood there before may hold anything now.
    filled = [np.full(257, 1 << 20, dtype=np.int32) for _ in range(64)]
    slots = np.array([slot])
    other.open(slots)
    allowed = other.allowed(slots)
    runs = list(other.choose(allowed, np.array([0])))
    allowed = other.allowed(slots)
    # Items of odd rows are left, whose second tokens are even.
    assert (runs[0].item, allowed.tokens[allowed.mask[0]].tolist()) == (-1, list(range(2, 17, 2)))
    assert len(filled) == 64


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_weights_of_its_own(copied: Callable[[SpanBatch], SpanBatch]) -> None:
    trie = ItemTrie.build([[1 + row // 16, 1 + row % 16] for row in range(256)])
    given_weights = np.log(1.0 + np.arange(256))
    given_weights[::2] = -np.inf
    weights = ItemWeights.build(trie, given_weights, share=0.25)
    spans = SpanBatch(trie, 99)
    slot, other_slot = spans.join(weights=weights), spans.join()
    other = copied(spans)
    for before, now in zip(spans._weighing[:4], other._weighing[:4], strict=True):
        assert int(before[slot]) != int(now[slot]) != 0
    assert other._weighing.mass[other_slot] == 0
    del spans, trie, weights
    gc.collect()
    # What stood there before may hold anything now.
    filled = [np.full(257, np.nan) for _ in range(64)]
    slots = np.array([other_slot, slot, *other.fork(np.array([slot]))])
    other.open(slots)
    found = other.guidance(other.allowed(slots))
    assert found is not None
    assert found.rows.tolist() == [1, 2]
    expected = np.arange(2.0, 257, 2).reshape(16, 8).sum(1)
    for bias in found.bias:
        np.testing.assert_allclose(bias, 0.25 * np.log(expected / expected.sum()), rtol=1e-12)
    assert len(filled) == 64
