from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.codes.collisions import count_sharers, resolve_collisions
from incatalog.errors import SemanticIdError


def table(distances: np.ndarray):
    return lambda rows: torch.from_numpy(distances[rows].astype(np.float32))


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray]:
    """Few codes, so that most items collide; distances with many ties."""
    items, levels = draw(st.integers(1, 30)), draw(st.integers(1, 3))
    size = draw(st.integers(1, 6))
    code = st.lists(st.integers(0, 1), min_size=levels - 1, max_size=levels - 1)
    rows = [[*draw(code), draw(st.integers(0, size - 1))] for _ in range(items)]
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    return np.array(rows, dtype=np.int32), size, rng.integers(0, 4, size=(items, size))


@settings(max_examples=150, deadline=None)
@given(catalogs())
def test_every_item_gets_an_id_of_its_own(catalog: tuple[np.ndarray, int, np.ndarray]) -> None:
    codes, size, distances = catalog
    prefixes = [tuple(row[:-1]) for row in codes.tolist()]
    if max(prefixes.count(prefix) for prefix in prefixes) > size:
        with pytest.raises(SemanticIdError, match="--extra-level"):
            resolve_collisions(codes, size, table(distances), epsilon=0.003)
        return
    before = codes.copy()
    resolved = resolve_collisions(codes, size, table(distances), epsilon=0.003)
    assert np.array_equal(codes, before)
    assert len({tuple(row) for row in resolved.codes.tolist()}) == len(codes)
    assert np.array_equal(resolved.codes[:, :-1], codes[:, :-1])
    assert ((resolved.codes[:, -1] >= 0) & (resolved.codes[:, -1] < size)).all()
    # The first item with an ID keeps it, and all others with it move.
    seen = set()
    stays = [not (tuple(row) in seen or seen.add(tuple(row))) for row in codes.tolist()]
    kept = (resolved.codes == codes).all(1)
    assert kept.tolist() == stays
    assert resolved.moved.tolist() == np.flatnonzero(~np.array(stays)).tolist()
    assert resolved.by_sinkhorn + resolved.by_nearest == len(resolved.moved)


@settings(max_examples=60, deadline=None)
@given(catalogs())
def test_a_further_code_tells_items_apart(catalog: tuple[np.ndarray, int, np.ndarray]) -> None:
    codes = catalog[0]
    rows = [tuple(row) for row in codes.tolist()]
    assert count_sharers(codes).tolist() == [rows[:n].count(row) for n, row in enumerate(rows)]


def test_one_mover_takes_the_nearest_free_code() -> None:
    codes = np.array([[1, 0], [1, 0], [1, 2], [0, 0]], dtype=np.int32)
    distances = np.array([[0, 9, 9, 9], [0, 7, 1, 3], [9, 9, 0, 9], [0, 9, 9, 9]])
    resolved = resolve_collisions(codes, 4, table(distances), epsilon=0.003)
    # Code 2 would be nearer, but item 2 has it.
    assert resolved.codes.tolist() == [[1, 0], [1, 3], [1, 2], [0, 0]]


def test_several_movers_are_placed_as_near_as_possible_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        distances = rng.random((4, 6))
        codes = np.zeros((4, 2), dtype=np.int32)
        resolved = resolve_collisions(codes, 6, table(distances), epsilon=0.003)
        # All but the first move to three of the codes 1 to 5.
        best = min(
            itertools.permutations(range(1, 6), 3),
            key=lambda order: sum(distances[1 + n, code] for n, code in enumerate(order)),
        )
        assert resolved.codes[1:, -1].tolist() == list(best)
        assert resolved.by_sinkhorn == 3


def test_equal_items_go_to_the_next_nearest_codes() -> None:
    distances = np.tile([0.0, 5.0, 1.0, 3.0], (3, 1))
    codes = np.zeros((3, 1), dtype=np.int32)
    resolved = resolve_collisions(codes, 4, table(distances), epsilon=0.003)
    assert sorted(resolved.codes[:, 0].tolist()) == [0, 2, 3]


def test_a_full_prefix_is_an_error_that_names_it() -> None:
    codes = np.array([[5, 1, 0], [5, 1, 0], [5, 1, 1], [5, 2, 0]], dtype=np.int32)
    with pytest.raises(SemanticIdError, match=r"3 items share the codes <a_5><b_1>, but.* 2 codes"):
        resolve_collisions(codes, 2, table(np.zeros((4, 2))), epsilon=0.003)
