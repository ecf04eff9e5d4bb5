from __future__ import annotations

import copy
import pickle
import random
import threading
from collections.abc import Sequence

import pytest

from incatalog.recent import RecentlyUsed


def test_the_one_whose_use_is_longest_ago_leaves() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    kept: RecentlyUsed[str, str] = RecentlyUsed(2)
    for key in "abacabd":
        assert kept.get(key, lambda key=key: make(key)) == key.upper()
    # b left for c, c for b, a for d.
    assert "".join(made) == "abcbd"
    assert len(kept) == 2


def test_nothing_is_kept_of_what_cannot_be_made() -> None:
    kept: RecentlyUsed[int, float] = RecentlyUsed(2)
    with pytest.raises(ZeroDivisionError):
        kept.get(0, lambda: 1 / 0)
    assert len(kept) == 0
    assert kept.get(0, lambda: 2.0) == 2.0


def test_those_that_are_missing_are_made_together() -> None:
    made: list[list[str]] = []

    def make(keys: Sequence[str]) -> list[str]:
        made.append(list(keys))
        return [key.upper() for key in keys]

    kept: RecentlyUsed[str, str] = RecentlyUsed(2)
    kept.get("b", lambda: "B")
    assert kept.get_all("abcab", make) == {"a": "A", "b": "B", "c": "C"}
    # Of three, the two that were kept last.
    assert kept.get_all("bac", make) == {"a": "A", "b": "B", "c": "C"}
    assert made == [["a", "c"], ["b"]]
    assert len(kept) == 2
    assert kept.get_all([], make) == {}
    with pytest.raises(ValueError, match="shorter"):
        kept.get_all("xy", lambda _keys: ["X"])


def test_what_is_kept_has_a_size() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    kept: RecentlyUsed[str, str] = RecentlyUsed(5, len)
    for key in ("aa", "bb", "aa", "cc", "bb", "a-long-one", "bb"):
        assert kept.get(key, lambda key=key: make(key)) == key
    # bb left for cc, aa for bb; what is larger than all is not kept.
    assert made == ["aa", "bb", "cc", "bb", "a-long-one"]
    assert len(kept) == 2
    assert kept.get_all(["d", "bb"], lambda keys: [make(key) for key in keys])["d"] == "d"
    assert made[5:] == ["d"]
    assert len(kept) == 3
    copied = pickle.loads(pickle.dumps(kept))
    copied.get_all(["eee", "fff"], list)
    assert len(copied) == 1


def test_copies_start_empty() -> None:
    kept: RecentlyUsed[int, int] = RecentlyUsed(3)
    kept.get(1, lambda: 1)
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert len(other) == 0
        for number in range(9):
            other.get(number, lambda: 0)
        assert len(other) == 3
    assert len(kept) == 1


def test_threads_get_the_value_of_their_key() -> None:
    kept: RecentlyUsed[int, int] = RecentlyUsed(5)
    wrong: list[int] = []

    def ask(seed: int) -> None:
        numbers = random.Random(seed)
        for _ in range(3000):
            key = numbers.randrange(12)
            if kept.get(key, lambda key=key: key * key) != key * key:
                wrong.append(key)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(kept) == 5
