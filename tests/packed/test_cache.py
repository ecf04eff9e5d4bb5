from __future__ import annotations

import gc
import threading
from itertools import pairwise
from queue import SimpleQueue

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from incatalog.packed.cache import KeyValuePool, RowCache


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 900)), min_size=1, max_size=40))
def test_every_row_keeps_what_it_stored(plan: list[tuple[int, int]]) -> None:
    pool, layer = KeyValuePool(), nn.Identity()
    rows: dict[int, RowCache] = {}
    texts: dict[int, list[float]] = {}
    value = 0.0
    for name, tokens in plan:
        if tokens % 7 == 0 and name in rows:
            rows.pop(name).release()
            del texts[name]
            continue
        row = rows.setdefault(name, RowCache())
        row.reserve(pool, row.length + tokens)
        new = torch.arange(value, value + tokens).reshape(1, tokens, 1)
        keys, values = pool.layer(layer, new)
        slots = torch.from_numpy(row.new_slots(tokens))
        keys[slots], values[slots] = new.transpose(0, 1), -new.transpose(0, 1)
        row.advance(tokens)
        texts.setdefault(name, []).extend(new.flatten().tolist())
        value += tokens
        assert len(pool._layers) == 1
        for other, text in texts.items():
            stored, negative = pool.layer(layer, new)
            places = rows[other].sources()[: len(text)]
            assert stored[places].flatten().tolist() == text
            assert (-negative[places]).flatten().tolist() == text
        stretches = sorted(row.stretch for row in rows.values())
        assert all(end <= start for (_, end), (start, _) in pairwise(stretches))
        assert stretches[-1][1] <= pool.capacity
        assert len(pool) == len(rows)
    # Nothing is lost: once all rows are gone, all of the pool is one free stretch.
    for row in rows.values():
        row.release()
        row.release()
    assert len(pool) == 0
    assert pool.allocate(pool.capacity) == (0, pool.capacity)


def test_rows_that_leave_make_room_for_others() -> None:
    pool = KeyValuePool()
    for _ in range(100):
        row = RowCache()
        row.reserve(pool, 300)
        row.advance(300)
        row.release()
    assert pool.capacity <= 2048


def test_a_row_that_no_one_lets_go_keeps_its_room() -> None:
    pool = KeyValuePool()
    for _ in range(3):
        RowCache().reserve(pool, 100)
    gc.collect()
    assert len(pool) == 3
    assert pool.allocate(100) == (450, 550)


def test_room_that_no_one_needs_any_longer_is_given_up() -> None:
    pool, layer = KeyValuePool(), nn.Identity()
    rows = [RowCache() for _ in range(64)]
    like = torch.zeros(1, 1, 1)
    for row in rows:
        row.reserve(pool, 1000)
        pool.layer(layer, like)
        row.advance(1000)
    assert pool.capacity >= 96_000
    first = rows.pop(0)
    pool.layer(layer, like)[0][first.start : first.start + 1000] = 7
    for row in rows:
        row.release()
    RowCache().reserve(pool, 100)
    assert pool.capacity <= 4096
    keys, values = pool.layer(layer, like)
    assert len(keys) == len(values) == pool.capacity
    assert (keys[first.start : first.start + 1000] == 7).all()


def test_rows_are_let_go_by_other_threads_while_one_takes_room() -> None:
    pool = KeyValuePool()
    queue: SimpleQueue[RowCache | None] = SimpleQueue()

    def let_go() -> None:
        while (row := queue.get()) is not None:
            row.release()

    threads = [threading.Thread(target=let_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    mine: list[RowCache] = []
    for number in range(3000):
        row = RowCache()
        row.reserve(pool, 40 + number % 90)
        row.advance(40)
        if number % 100:
            queue.put(row)
        else:
            mine.append(row)
        stretches = sorted(row.stretch for row in mine)
        assert all(end <= start for (_, end), (start, _) in pairwise(stretches))
    for _ in threads:
        queue.put(None)
    for thread in threads:
        thread.join()
    assert len(pool) == len(mine)


def test_copies_of_copies_come_from_where_the_tokens_are() -> None:
    pool = KeyValuePool()
    first = RowCache()
    first.reserve(pool, 10)
    first.advance(10)
    second = RowCache(first, 4)
    third = RowCache(second, 6)
    second.reserve(pool, 7)
    third.reserve(pool, 8)
    sources, targets = third.copies()
    expected = [first.start + place for place in range(4)]
    expected += [second.start + 4, second.start + 5]
    assert sources.tolist() == expected
    assert targets.tolist() == list(range(third.start, third.start + 6))
    third.advance(2)
    assert third.copies()[0].size == 0
    assert np.array_equal(third.sources()[:8], np.arange(third.start, third.start + 8))
