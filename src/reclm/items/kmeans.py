"""k-means by faiss, and residual k-means: codebooks without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from reclm.errors import require
from reclm.items.codebooks import squared_distances

_ROWS_AT_ONCE = 1 << 14


def kmeans(
    vectors: Float32[np.ndarray, "samples width"], size: int, iterations: int, seed: int
) -> Float32[np.ndarray, "size width"]:
    """Cluster centres by Lloyd's algorithm; an empty cluster takes half of a full one.

    Args:
        vectors: At least `size` finite rows.
        size: Number of centres.
        iterations: Rounds of the algorithm.
        seed: Seed of the rows that are the first centres.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    faiss = require("faiss", extra="items")
    clustering = faiss.Kmeans(
        vectors.shape[1],
        size,
        niter=iterations,
        seed=seed,
        # Which rows count is decided by the caller, and small catalogs are no mistake.
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    clustering.train(np.ascontiguousarray(vectors))
    centres: np.ndarray = clustering.centroids
    return centres.copy()


def residual_kmeans(
    vectors: Float32[np.ndarray, "samples width"],
    sizes: Sequence[int],
    *,
    iterations: int,
    seed: int,
    after_level: Callable[[Int32[np.ndarray, "samples levels"], float], None] | None = None,
) -> list[Float[Tensor, "codes width"]]:
    """Codebooks, each the centres of what the levels before it left over (arXiv 2411.11739).

    Args:
        vectors: The sample to learn from; overwritten with what is left over in the end.
        sizes: Codes at each level.
        iterations: Rounds of Lloyd's algorithm at each level.
        seed: Seed of the first centres.
        after_level: Called after each level with the codes of the sample so far and the squared
            length of all that is left over.
    """
    codebooks: list[Tensor] = []
    codes = np.empty((len(vectors), len(sizes)), dtype=np.int32)
    for level, size in enumerate(sizes):
        codebook = torch.from_numpy(kmeans(vectors, size, iterations, seed + level))
        codebooks.append(codebook)
        left = 0.0
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            block = torch.from_numpy(vectors[start : start + _ROWS_AT_ONCE])
            nearest = squared_distances(block, codebook).argmin(1)
            block -= codebook[nearest]
            left += float(block.square().sum(dtype=torch.float64))
            codes[start : start + len(block), level] = nearest.numpy()
        if after_level is not None:
            after_level(codes[:, : level + 1], left)
    return codebooks
