from __future__ import annotations

import numpy as np
import pytest

from incatalog.errors import TrieError
from incatalog.trie.spellings import Spellings


def spellings(*items: int) -> Spellings:
    found = Spellings.of(items, len(items))
    assert found is not None
    return found


def test_worked_by_hand() -> None:
    some = spellings(0, 1, 2, 1, 0, 1)
    assert (len(some), some.num_items, some.most) == (6, 3, 3)
    assert some.title.tolist() == [0, 1, 2]
    assert some.alone.tolist() == [False, False, True, False, False, False]
    assert some.of_items(np.array([1])).tolist() == [1, 3, 5]
    assert some.of_items(np.array([2, 0])).tolist() == [2, 0, 4]
    assert some.of_items(np.array([], dtype=np.int64)).tolist() == []
    assert spellings(1, 0, 0).title.tolist() == [1, 0]


def test_items_of_one_spelling_each_in_their_order_need_none() -> None:
    assert Spellings.of([0, 1, 2], 3) is None
    assert spellings(1, 0).title.tolist() == [1, 0]


def test_new_items_follow_or_take_the_title_of_one_that_left() -> None:
    some = spellings(0, 1, 0, 1)
    grown, rows = some.with_items(np.array([3, 1, 2]))
    assert rows.tolist() == [5, 1, 4]
    assert grown.item.tolist() == [0, 1, 0, 1, 2, 3]
    assert grown.title.tolist() == [0, 1, 4, 5]
    assert some.item.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="read-only"):
        grown.item[0] = 1


def test_what_are_no_items_is_refused() -> None:
    with pytest.raises(TrieError, match="found 2 item rows; expected one for each of 3"):
        Spellings.of([0, 1], 3)
    with pytest.raises(TrieError, match="found item rows 0 to 3, none of them 1"):
        Spellings.of([0, 3, 2], 3)
