from __future__ import annotations

import numpy as np
import pytest
import torch

from incatalog.codes.codebooks import (
    kmeans,
    residual_codes,
    residual_kmeans,
    squared_distances,
    sum_of_codes,
)
from incatalog.codes.quantizer import Quantizer


def blobs() -> np.ndarray:
    """Four blobs around the corners of a square of side 10, each of four points a unit apart."""
    corners = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    inner = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    return (corners[:, None] + inner).reshape(-1, 2).astype(np.float32)


def test_centres_are_the_means_of_what_is_nearest() -> None:
    points = blobs()
    for seed in range(5):
        centres = kmeans(points, 4, iterations=50, seed=seed)
        nearest = np.square(points[:, None] - centres).sum(2).argmin(1)
        assert set(nearest) == {0, 1, 2, 3}
        means = [points[nearest == code].mean(0) for code in range(4)]
        np.testing.assert_allclose(centres, means, atol=1e-5)


def test_residuals_are_clustered_level_by_level() -> None:
    left = blobs()
    seen: list[tuple[np.ndarray, float]] = []

    def note(codes: np.ndarray, error: float) -> None:
        seen.append((codes.copy(), error))

    codebooks = residual_kmeans(left, (4, 3), iterations=50, seed=0, after_level=note)
    assert [tuple(codebook.shape) for codebook in codebooks] == [(4, 2), (3, 2)]
    vectors = torch.from_numpy(blobs())
    codes = residual_codes(vectors, codebooks)
    assert [found.tolist() for found, _ in seen] == [codes[:, :1].tolist(), codes.tolist()]
    total = sum_of_codes(codes, codebooks)
    assert seen[1][1] == pytest.approx(float((vectors - total).square().sum()), abs=1e-5)
    torch.testing.assert_close(vectors - total, torch.from_numpy(left), atol=1e-5, rtol=0)
    first = vectors - codebooks[0][codes[:, 0]]
    torch.testing.assert_close(sum_of_codes(codes[:, :1], codebooks), vectors - first)
    means = [first[codes[:, 1] == code].mean(0) for code in range(3)]
    torch.testing.assert_close(codebooks[1], torch.stack(means), atol=1e-5, rtol=0)
    brute = (first[:, None] - codebooks[1]).square().sum(2)
    last = Quantizer.of_codebooks(codebooks).last_distances(vectors.numpy(), codes.numpy())
    torch.testing.assert_close(last, brute, atol=1e-4, rtol=0)
    quantizer = Quantizer.of_codebooks(codebooks[:1])
    single = quantizer.last_distances(vectors.numpy(), codes[:, :1].numpy())
    torch.testing.assert_close(single, squared_distances(vectors, codebooks[0]))


def test_the_seed_decides() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    first, again, other = (kmeans(vectors, 8, 5, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [1, 3])
def test_as_many_centres_as_points_or_one(size: int) -> None:
    vectors = np.array([[0.0], [1.0], [5.0]], dtype=np.float32)
    centres = kmeans(vectors, size, 10, seed=0)
    expected = [2.0] if size == 1 else [0.0, 1.0, 5.0]
    assert sorted(centres[:, 0].tolist()) == pytest.approx(expected)
