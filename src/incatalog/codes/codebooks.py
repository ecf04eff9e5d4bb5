"""Residual codebooks: a vector as the sum of one code vector a level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from incatalog.codes.semantic_ids import Codes
from incatalog.errors import require

Vectors = Float32[np.ndarray, "items width"]
Rows = Int64[np.ndarray, " rows"]
Samples = Float[Tensor, "samples width"]
SampleCodes = Int64[Tensor, "samples levels"]
Codebook = Float[Tensor, "codes width"]
Codebooks = Sequence[Codebook]
Distances = Float[Tensor, "samples codes"]
ROWS_AT_ONCE = 1 << 14


def squared_distances(vectors: Samples, codebook: Codebook) -> Distances:
    """Squared Euclidean distances, by the binomial formula: one matrix product."""
    squares = vectors.square().sum(1, keepdim=True) + codebook.square().sum(1)
    return torch.addmm(squares, vectors, codebook.T, alpha=-2).clamp_(min=0)


def residual_codes(vectors: Samples, codebooks: Codebooks) -> SampleCodes:
    """The nearest code at each level, of what the levels before it left over."""
    codes = []
    for codebook in codebooks:
        codes.append(squared_distances(vectors, codebook).argmin(1))
        vectors = vectors - codebook[codes[-1]]
    return torch.stack(codes, 1)


def sum_of_codes(codes: SampleCodes, codebooks: Codebooks) -> Samples:
    """The vectors that codes stand for; of fewer levels than codebooks, what the first give."""
    total = codebooks[0][codes[:, 0]]
    for codebook, code in zip(codebooks[1:], codes.T[1:], strict=False):
        total = total + codebook[code]
    return total


def fit_codebooks(vectors: Vectors, codes: Codes, sizes: tuple[int, ...]) -> list[Tensor]:
    """Codebooks that fit codes made elsewhere: the mean residual of the items with a code.

    A code that no item has stands at 0, the mean of all residuals.
    """
    residuals = np.array(vectors, dtype=np.float32)
    codebooks = []
    for level, size in enumerate(sizes):
        centres = np.zeros((size, residuals.shape[1]), dtype=np.float32)
        np.add.at(centres, codes[:, level], residuals)
        centres /= np.maximum(np.bincount(codes[:, level], minlength=size), 1)[:, None]
        residuals -= centres[codes[:, level]]
        codebooks.append(torch.from_numpy(centres))
    return codebooks


def row_blocks(count: int) -> Iterator[slice]:
    """Blocks of rows to work on one after the other, which bounds memory."""
    for start in range(0, count, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, count))


def sample_rows(rng: np.random.Generator, count: int, most: int) -> Rows:
    """At most so many of `count` rows, drawn without replacement, ascending."""
    return np.sort(rng.choice(count, min(count, most), replace=False))


def kmeans(vectors: Vectors, size: int, iterations: int, seed: int) -> Vectors:
    """Cluster centres by Lloyd's algorithm; an empty cluster takes half of a full one."""
    faiss = require("faiss", extra="items")
    # The caller decides which rows count, and a small catalog is no mistake.
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(vectors)}
    clustering = faiss.Kmeans(vectors.shape[1], size, niter=iterations, seed=seed, **limits)
    clustering.train(np.ascontiguousarray(vectors))
    centres: np.ndarray = clustering.centroids
    return centres.copy()


def residual_kmeans(
    vectors: Vectors,
    sizes: Sequence[int],
    iterations: int,
    seed: int,
    after_level: Callable[[Codes, float], None] | None = None,
) -> list[Codebook]:
    """Codebooks, each the centres of what the levels before it left over (arXiv 2411.11739).

    `vectors` are overwritten with what is left over in the end. After each level `after_level` gets
    the codes so far, and the squared length of all that is left over.
    """
    codebooks: list[Codebook] = []
    codes = np.empty((len(vectors), len(sizes)), dtype=np.int32)
    for level, size in enumerate(sizes):
        codebook = torch.from_numpy(kmeans(vectors, size, iterations, seed + level))
        codebooks.append(codebook)
        left = 0.0
        for rows in row_blocks(len(vectors)):
            block = torch.from_numpy(vectors[rows])
            nearest = squared_distances(block, codebook).argmin(1)
            block -= codebook[nearest]
            left += float(block.square().sum(dtype=torch.float64))
            codes[rows, level] = nearest.numpy()
        if after_level is not None:
            after_level(codes[:, : level + 1], left)
    return codebooks
