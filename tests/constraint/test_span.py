from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import SpelledCatalog, TokenCatalog, spelled_catalogs, token_catalogs
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie.trie import ItemTrie

EOI = 100


class Reference:
    """The constraint as one would explain it: look at every item, every time."""

    def __init__(self, catalog: TokenCatalog, left: set[int], eoi: int) -> None:
        self.rows = catalog.rows
        self.left = left
        self.eoi = eoi

    def allowed(self, prefix: list[int]) -> list[int]:
        below = [self.rows[i] for i in self.left if self.rows[i][: len(prefix)] == prefix]
        return sorted({row[len(prefix)] if len(row) > len(prefix) else self.eoi for row in below})

    def forced(self, prefix: list[int]) -> list[int]:
        run: list[int] = []
        while run[-1:] != [self.eoi] and len(self.allowed(prefix + run)) == 1:
            run += self.allowed(prefix + run)
        return run

    def named(self, prefix: list[int]) -> list[int]:
        return [i for i in sorted(self.left) if self.rows[i] == prefix]


@settings(max_examples=2000, deadline=None)
@given(token_catalogs(), st.binary(min_size=16, max_size=16))
def test_whole_answers_equal_brute_force(catalog: TokenCatalog, choices: bytes) -> None:
    trie = ItemTrie.build(catalog.rows)
    unique, listed_apart = bool(choices[0] & 1), bool(choices[0] & 2)
    # Above all tokens, or between them: then the catalog must not contain it.
    eoi = 2 if choices[0] & 4 and not trie.contains_token(2) else EOI
    rows = sorted(catalog.excluded)
    base = ExcludedItems.build(trie, rows[::2] if listed_apart else rows)
    excluded = ExcludedItems.build(trie, rows, base=base) if listed_apart else base
    constraint = SpanConstraint(trie, eoi, excluded=excluded, unique=unique)
    reference = Reference(catalog, catalog.members - catalog.excluded, eoi)

    emitted: list[int] = []
    turn = 0
    for _ in range(5):
        assert constraint.can_begin() == bool(reference.left)
        assert constraint.forced() == []
        if not reference.left:
            with pytest.raises(NoItemLeftError, match="no item left"):
                constraint.begin()
            break
        constraint.begin()
        assert constraint.inside
        assert not constraint.can_begin()
        prefix: list[int] = []
        while constraint.inside:
            allowed = constraint.allowed().tolist()
            assert allowed == reference.allowed(prefix)
            assert constraint.forced() == reference.forced(prefix)
            for token in {*range(-1, 5), eoi} - set(allowed):
                with pytest.raises(TrieError, match=f"token {token} at depth {len(prefix)}"):
                    constraint.accept(token)
            turn += 1
            token = allowed[choices[turn % 16] % len(allowed)]
            row = constraint.accept(token)
            if token != eoi:
                assert row is None
                prefix.append(token)
        emitted.append(reference.named(prefix)[0])
        assert row == emitted[-1]
        assert constraint.emitted == tuple(emitted)
        if unique:
            reference.left -= set(reference.named(prefix))


@settings(max_examples=1000, deadline=None)
@given(spelled_catalogs(), st.binary(min_size=16, max_size=16))
def test_spellings_of_an_item_are_one_item(catalog: SpelledCatalog, choices: bytes) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.items)
    excluded = ExcludedItems.build(trie, sorted(catalog.excluded))
    constraint = SpanConstraint(trie, EOI, excluded=excluded)
    left = catalog.members - catalog.excluded
    emitted: list[int] = []
    turn = 0
    while left:
        assert set(np.flatnonzero(constraint.free_rows()).tolist()) == left
        assert constraint.can_begin()
        constraint.begin()
        spelling: list[int] = []
        row = None
        while constraint.inside:
            below = catalog.spelled(left)
            expected = below.continuations(set(range(len(below.rows))), spelling)
            expected = [EOI if token is None else token for token in expected]
            allowed = constraint.allowed().tolist()
            assert allowed == expected
            turn += 1
            token = allowed[choices[turn % 16] * (turn // 16 + 1) % len(allowed)]
            row = constraint.accept(token)
            spelling += [token]
        named = catalog.named(left, spelling[:-1])
        assert row == named[0]
        emitted.append(named[0])
        # Those that share the spelling are spent with it, each with all spellings it has.
        left -= set(named)
    assert not constraint.can_begin()
    assert constraint.emitted == tuple(emitted)
    assert len(set(emitted)) == len(emitted)
    size = len(catalog.members)
    with pytest.raises(NoItemLeftError, match=f"all {size} are excluded or have been named"):
        constraint.begin()


@settings(max_examples=500, deadline=None)
@given(token_catalogs())
def test_asking_for_more_items_than_there_are_names_each_once(catalog: TokenCatalog) -> None:
    rows = list(dict.fromkeys(map(tuple, catalog.rows)))
    trie = ItemTrie.build(rows)
    constraint = SpanConstraint(trie, EOI)
    while constraint.can_begin():
        constraint.begin()
        while constraint.inside:
            constraint.accept(int(constraint.allowed()[-1]))
    assert sorted(constraint.emitted) == list(range(len(rows)))
    with pytest.raises(NoItemLeftError, match=f"all {len(rows)} are excluded or have been named"):
        constraint.begin()


@settings(max_examples=500, deadline=None)
@given(token_catalogs(), st.sets(st.integers(0, 47)), st.sets(st.integers(0, 47)))
def test_excluded_positions_are_counted_exactly(
    catalog: TokenCatalog, first: set[int], second: set[int]
) -> None:
    trie = ItemTrie.build([row for row in catalog.rows for _ in range(3)])
    size = trie.num_items
    first, second = {i % size for i in first}, {i % size for i in second}
    mask = np.zeros(size, dtype=bool)
    mask[list(first)] = True
    bounds = np.arange(size + 1, dtype=np.int32)
    base = ExcludedItems.build(trie, mask)
    for excluded, rows in (
        (base, first),
        (ExcludedItems.build(trie, first), first),
        (ExcludedItems.build(trie, second, base=base), first | second),
        (ExcludedItems.build(trie, np.array(sorted(second), dtype=np.int64), base), first | second),
    ):
        blocked = [row in rows for row in trie.order.tolist()]
        expected = np.concatenate(([0], np.cumsum(blocked)))
        assert excluded.count_before(bounds).tolist() == expected.tolist()
        assert [excluded.holds(position) for position in range(size)] == blocked


def test_few_excluded_items_of_many_are_listed_and_many_become_a_prefix_sum() -> None:
    generator = np.random.default_rng([2026, 2])
    trie = ItemTrie.build(generator.integers(0, 30, (5000, 4)))
    category = generator.random(5000) < 0.5
    history = generator.choice(5000, 12, replace=False)
    rule = ExcludedItems.build(trie, category)
    both = ExcludedItems.build(trie, history.tolist(), base=rule)
    alone = ExcludedItems.build(trie, history.tolist())
    assert rule.before is not None
    assert both.before is rule.before
    assert alone.before is None
    assert len(alone.listed) == 12
    assert 0 < len(both.listed) < 12
    bounds = np.arange(5001, dtype=np.int32)
    blocked = category.copy()
    blocked[history] = True
    expected = np.concatenate(([0], np.cumsum(blocked[trie.order])))
    assert both.count_before(bounds).tolist() == expected.tolist()


def test_exclusions_that_do_not_fit_are_refused() -> None:
    trie, other = ItemTrie.build([[1], [2]]), ItemTrie.build([[1], [2]])
    with pytest.raises(TrieError, match="item row 2"):
        ExcludedItems.build(trie, [0, 2])
    with pytest.raises(TrieError, match=r"mask of shape \(3,\); expected \(2,\)"):
        ExcludedItems.build(trie, np.zeros(3, dtype=bool))
    with pytest.raises(TrieError, match="another trie"):
        ExcludedItems.build(trie, [0], base=ExcludedItems.build(other, [1]))
    with pytest.raises(TrieError, match="another trie"):
        SpanConstraint(trie, EOI, excluded=ExcludedItems.build(other, [1]))


def test_an_exclusion_of_everything_is_an_error_not_an_open_door() -> None:
    trie = ItemTrie.build([[1, 2], [1, 3]])
    constraint = SpanConstraint(trie, EOI, excluded=ExcludedItems.build(trie, [0, 1]))
    assert not constraint.can_begin()
    with pytest.raises(NoItemLeftError, match="all 2 are excluded"):
        constraint.begin()
    assert not constraint.inside
    with pytest.raises(TrieError, match="no span is open"):
        constraint.allowed()


def test_outside_a_span_nothing_is_accepted() -> None:
    trie = ItemTrie.build([[1]])
    constraint = SpanConstraint(trie, EOI)
    for token in (1, EOI):
        with pytest.raises(TrieError, match="no span is open"):
            constraint.accept(token)
    constraint.begin()
    with pytest.raises(TrieError, match="open already"):
        constraint.begin()
    assert constraint.allowed().tolist() == [1]


def test_a_refused_token_changes_nothing() -> None:
    trie = ItemTrie.build([[1, 2], [1, 3], [4]])
    constraint = SpanConstraint(trie, EOI, excluded=ExcludedItems.build(trie, [1]))
    constraint.begin()
    constraint.accept(1)
    for token, message in (
        (3, "only to excluded"),
        (4, "no item continues"),
        (EOI, "no item ends"),
    ):
        with pytest.raises(TrieError, match=message):
            constraint.accept(token)
    assert constraint.forced() == [2, EOI]


def test_two_items_with_one_title_are_spent_together_when_unique() -> None:
    trie = ItemTrie.build([[1, 2], [3], [1, 2], [1, 2]])
    excluded = ExcludedItems.build(trie, [0])
    constraint = SpanConstraint(trie, EOI, excluded=excluded)
    constraint.begin()
    assert [constraint.accept(token) for token in (1, 2, EOI)] == [None, None, 2]
    constraint.begin()
    assert constraint.forced() == [3, EOI]
    again = SpanConstraint(trie, EOI, excluded=excluded, unique=False)
    for _ in range(2):
        again.begin()
        assert [again.accept(token) for token in (1, 2, EOI)][-1] == 2
    assert again.emitted == (2, 2)


def test_a_title_that_starts_another_is_forced_on_once_it_is_spent() -> None:
    trie = ItemTrie.build([[1], [1, 2], [1, 2, 3, 4]])
    constraint = SpanConstraint(trie, EOI)
    constraint.begin()
    assert constraint.forced() == [1]
    constraint.accept(1)
    assert constraint.allowed().tolist() == [2, EOI]
    assert constraint.accept(EOI) == 0
    constraint.begin()
    assert constraint.forced() == [1, 2]
    for token in (1, 2):
        constraint.accept(token)
    assert constraint.allowed().tolist() == [3, EOI]
    assert constraint.accept(EOI) == 1
    constraint.begin()
    assert constraint.forced() == [1, 2, 3, 4, EOI]


def test_the_closing_token_must_not_be_part_of_a_title() -> None:
    trie = ItemTrie.build([[1, EOI], [2]])
    with pytest.raises(TrieError, match="eoi_token_id 100: occurs inside an item's tokens"):
        SpanConstraint(trie, EOI)


def test_a_fork_goes_its_own_way() -> None:
    trie = ItemTrie.build([[1, 2], [1, 3], [4]])
    constraint = SpanConstraint(trie, EOI)
    constraint.begin()
    constraint.accept(4)
    constraint.accept(EOI)
    constraint.begin()
    constraint.accept(1)
    fork = constraint.fork()
    assert fork.emitted == (2,)
    assert [fork.accept(token) for token in (2, EOI)] == [None, 0]
    fork.begin()
    assert fork.forced() == [1, 3, EOI]
    assert constraint.allowed().tolist() == [2, 3]
    assert constraint.emitted == (2,)
    assert [constraint.accept(token) for token in (3, EOI)] == [None, 1]
    assert fork.emitted == (2, 0)


def test_a_deep_span_is_walked_in_one_run() -> None:
    shared = list(range(1, 90)) * 30
    trie = ItemTrie.build([[*shared, 5, 6], [*shared, 7]])
    constraint = SpanConstraint(trie, EOI)
    constraint.begin()
    assert constraint.forced() == shared
    for token in shared:
        constraint.accept(token)
    assert constraint.forced() == []
    assert constraint.allowed().tolist() == [5, 7]
    constraint.accept(5)
    assert constraint.forced() == [6, EOI]


def test_a_step_costs_microseconds_on_a_large_catalog() -> None:
    generator = np.random.default_rng([2026, 3])
    trie = ItemTrie.build(generator.integers(0, 200, (200_000, 4)))
    excluded = ExcludedItems.build(
        trie,
        generator.choice(200_000, 50, replace=False).tolist(),
        base=ExcludedItems.build(trie, generator.random(200_000) < 0.5),
    )
    best = np.inf
    for _ in range(5):
        constraint = SpanConstraint(trie, EOI + 200, excluded=excluded)
        steps, start = 0, time.perf_counter()
        for _ in range(20):
            constraint.begin()
            while constraint.inside:
                allowed = constraint.allowed()
                constraint.accept(int(allowed[steps % len(allowed)]))
                steps += 1
        best = min(best, (time.perf_counter() - start) / steps)
    # 50 microseconds with room for a busy machine.
    assert best < 250e-6
