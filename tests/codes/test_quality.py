from __future__ import annotations

import numpy as np
import pytest

from incatalog.codes import codebooks
from incatalog.codes.quality import neighbour_prefixes


def test_neighbours_share_prefixes_as_counted_by_hand() -> None:
    # Two pairs of neighbours: the first shares one code, the second both.
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], dtype=np.float32)
    codes = np.array([[0, 0], [0, 1], [1, 2], [1, 2]], dtype=np.int32)
    found = neighbour_prefixes(vectors, codes, 1, seed=0)
    assert found["queries"] == 4
    assert found["neighbours"] == [1.0, 0.5]
    # A random other item is the neighbour in a third of the cases.
    assert 0 <= found["random"][0] <= 1


def test_neighbours_against_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebooks, "ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3)).astype(np.float32)
    codes = rng.integers(0, 3, size=(50, 3)).astype(np.int32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    pairs = [(row, other) for row in range(50) for other in np.argsort(-cosines[row])[:5]]
    expected = [
        np.mean([(codes[a, :length] == codes[b, :length]).all() for a, b in pairs])
        for length in (1, 2, 3)
    ]
    found = neighbour_prefixes(vectors, codes, 5, seed=0)
    assert found["neighbours"] == pytest.approx(expected, abs=1e-6)
    assert found["count"] == 5


def test_small_catalogs_have_fewer_neighbours() -> None:
    codes = np.zeros((2, 1), dtype=np.int32)
    vectors = np.eye(2, dtype=np.float32)
    assert neighbour_prefixes(vectors, codes, 10, seed=0)["neighbours"] == [1.0]
    alone = neighbour_prefixes(vectors[:1], codes[:1], 10, seed=0)
    assert alone["neighbours"] == []
