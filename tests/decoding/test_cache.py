from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reclm.decoding.cache import KeyValuePool, RowCache


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 900)), min_size=1, max_size=40))
def test_every_row_keeps_what_it_stored(plan: list[tuple[int, int]]) -> None:
    pool, layer = KeyValuePool(), nn.Identity()
    rows: dict[int, RowCache] = {}
    texts: dict[int, list[float]] = {}
    value = 0.0
    for name, tokens in plan:
        if tokens % 7 == 0 and name in rows:
            del rows[name], texts[name]
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
        assert pool.layers == 1
        for other, text in texts.items():
            stored, negative = pool.layer(layer, new)
            places = rows[other].sources()[: len(text)]
            assert stored[places].flatten().tolist() == text
            assert (-negative[places]).flatten().tolist() == text
    # Nothing is lost: once all rows are gone, all of the pool is one free stretch.
    rows.clear()
    del row
    assert pool.allocate(pool.capacity) == 0


def test_rows_that_leave_make_room_for_others() -> None:
    pool = KeyValuePool()
    for _ in range(100):
        row = RowCache()
        row.reserve(pool, 300)
        row.advance(300)
    assert pool.capacity <= 2048


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
