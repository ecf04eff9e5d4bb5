from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import TokenCatalog, token_catalogs
from reclm.decoding.constraint import ExcludedItems
from reclm.errors import TrieError
from reclm.items.construction import TrieArrays
from reclm.items.trie import ItemTrie


def _equal(one: ItemTrie, other: ItemTrie) -> None:
    assert one.domains == other.domains
    for field in fields(TrieArrays):
        found, expected = getattr(one.arrays, field.name), getattr(other.arrays, field.name)
        assert found.dtype == expected.dtype, field.name
        assert found.tolist() == expected.tolist(), field.name


@settings(max_examples=2000, deadline=None)
@given(token_catalogs(), st.integers(1, 8))
def test_inserting_equals_building_with_the_item(catalog: TokenCatalog, known: int) -> None:
    domains = catalog.domains
    # Every domain has an item from the start on.
    first = max(known, 1 if domains is None else max(map(domains.index, set(domains))) + 1)
    trie = ItemTrie.build(catalog.rows[:first], None if domains is None else domains[:first])
    for end in range(first, len(catalog.rows)):
        before = trie.fingerprint
        following = trie.with_item(catalog.rows[end], None if domains is None else domains[end])
        assert trie.fingerprint == ItemTrie(trie.arrays, trie.domains).fingerprint == before
        trie = following
        expected = ItemTrie.build(
            catalog.rows[: end + 1], None if domains is None else domains[: end + 1]
        )
        _equal(trie, expected)


def test_an_older_version_is_left_as_it_was() -> None:
    old = ItemTrie.build([[4, 5], [4, 6]])
    new = old.with_item([4, 5, 7])
    assert old.next_tokens([4, 5]) == [None]
    assert new.next_tokens([4, 5]) == [7, None]
    # An item that left is excluded; its row stays its own.
    assert new.next_tokens([4], excluded=[1]) == [5]
    with pytest.raises(TrieError, match="another trie"):
        ExcludedItems.build(new, [0], base=ExcludedItems.build(old, [0]))


def test_what_cannot_be_inserted_is_refused() -> None:
    trie = ItemTrie.build([[4], [5]], ["film", "book"])
    with pytest.raises(TrieError, match="item row 2: has no token"):
        trie.with_item([], "film")
    with pytest.raises(TrieError, match="item row 2: holds something that is no token id"):
        trie.with_item([-1], "film")
    with pytest.raises(TrieError, match="domain: found 'song'"):
        trie.with_item([4], "song")
    with pytest.raises(TrieError, match="domain: found None"):
        trie.with_item(np.array([4]))
