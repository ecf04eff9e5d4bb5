from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.decoding.lookahead import Lookahead, Path
from incatalog.packed.branches import Guess, branches
from incatalog.trie.trie import ItemTrie
from worlds import token_rows

# Node 0: 4, 5 or 9.  Behind 4 5: 6 or 7.  Behind 4 5 6: 8 or the close.  Behind 5 5: 4 or 6.
ROWS = [[4, 5, 6], [4, 5, 6, 8], [4, 5, 7], [5, 5, 4], [5, 5, 6], [9]]
TRIE = ItemTrie.build(ROWS)


def node_behind(prefix: list[int]) -> int:
    cursor = TRIE.root()
    for token in prefix:
        cursor = TRIE.step(cursor, token)
    return cursor.node


def test_most_items_are_guessed_first_where_nothing_is_known() -> None:
    # 3 of 6 items behind 4, 2 of them behind 4 5 6: trusted 3/12, and 3/12 * 2/6 is too little.
    # 2 of 6 items behind 5: 2/12.  9 leads to no further decision.
    assert Lookahead(TRIE).guesses(0, 100) == [
        Guess(-1, (4, 5), node_behind([4, 5])),
        Guess(-1, (5, 5), node_behind([5, 5])),
    ]


def test_what_was_likely_last_time_is_guessed_first() -> None:
    lookahead = Lookahead(TRIE)
    lookahead.remember(0, [5, 4, 9])
    lookahead.remember(node_behind([4, 5]), [6, 7])
    assert lookahead.guesses(0, 100) == [
        Guess(-1, (5, 5), node_behind([5, 5])),
        Guess(-1, (4, 5), node_behind([4, 5])),
        Guess(1, (6,), node_behind([4, 5, 6])),
    ]


def test_guesses_fit_the_budget_and_shorter_ones_are_still_tried() -> None:
    trie = ItemTrie.build([[4, 5, 5, 6], [4, 5, 5, 7], [4, 5, 5, 8], [5, 6], [5, 7]])
    guesses = Lookahead(trie).guesses(0, 2)
    assert [guess.tokens for guess in guesses] == [(5,)]
    assert Lookahead(trie).guesses(0, 0) == []


def test_a_remembered_close_is_no_guess() -> None:
    lookahead, close = Lookahead(TRIE), 3
    lookahead.remember(node_behind([4, 5, 6]), [close, 8])
    assert lookahead.guesses(node_behind([4, 5, 6]), 10) == []


@settings(max_examples=100, deadline=None)
@given(token_rows, st.integers(0, 12))
def test_every_guess_leads_to_its_node(rows: list[list[int]], budget: int) -> None:
    trie = ItemTrie.build(rows)
    root = trie.root()
    if root.node < 0:
        return
    guesses = Lookahead(trie).guesses(root.node, budget)
    assert sum(len(guess.tokens) for guess in guesses) <= budget
    places = []
    forced = trie.arrays.tail[root.chain : root.chain_end].tolist()
    for number, guess in enumerate(guesses):
        assert guess.parent < number
        cursor = places[guess.parent] if guess.parent >= 0 else root
        for token in [*(forced if guess.parent < 0 else []), *guess.tokens]:
            cursor = trie.step(cursor, token)
        assert cursor.chain == cursor.chain_end
        assert cursor.node == guess.node
        places.append(cursor)


def test_a_path_follows_what_was_guessed_behind_what_came_true() -> None:
    path = Path([Guess(-1, (5, 5), 1), Guess(-1, (4, 5), 2), Guess(1, (6,), 3)])
    assert not path.follow([6])
    assert path.follow([4, 5])
    assert path.last == 1
    assert not path.follow([5, 5])
    assert path.follow([6])
    assert path.last == 2
    assert path.offsets == [2, 3, 4]


def test_branches_see_what_they_continue() -> None:
    guesses = [Guess(-1, (5, 5), 1), Guess(-1, (4,), 2), Guess(1, (6,), 3)]
    tree = branches(2, [7, 8], guesses)
    assert list(tree.token_ids) == [7, 8, 5, 5, 4, 6]
    assert tree.positions.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]
    assert list(tree.read) == [1, 3, 4, 5]
    expected = [
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0, 0, 1, 1],
    ]
    assert tree.visible.astype(int).tolist() == expected
    assert tree.visible.dtype == np.bool_
