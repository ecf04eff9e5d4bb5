"""Residual codebooks: a vector as the sum of one code vector a level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def squared_distances(
    vectors: Float[Tensor, "samples width"], codebook: Float[Tensor, "codes width"]
) -> Float[Tensor, "samples codes"]:
    """Squared Euclidean distances, by the binomial formula: one matrix product."""
    squares = vectors.square().sum(1, keepdim=True) + codebook.square().sum(1)
    return torch.addmm(squares, vectors, codebook.T, alpha=-2).clamp_(min=0)


def residual_codes(
    vectors: Float[Tensor, "samples width"], codebooks: Sequence[Float[Tensor, "codes width"]]
) -> Int64[Tensor, "samples levels"]:
    """The nearest code at each level, of what the levels before it left over."""
    codes = []
    for codebook in codebooks:
        codes.append(squared_distances(vectors, codebook).argmin(1))
        vectors = vectors - codebook[codes[-1]]
    return torch.stack(codes, 1)


def sum_of_codes(
    codes: Int64[Tensor, "samples levels"], codebooks: Sequence[Float[Tensor, "codes width"]]
) -> Float[Tensor, "samples width"]:
    """The vectors that codes stand for; of fewer levels than codebooks, what the first give."""
    levels = codes.shape[1]
    total = codebooks[0][codes[:, 0]]
    for level in range(1, levels):
        total = total + codebooks[level][codes[:, level]]
    return total


def last_distances(
    vectors: Float[Tensor, "samples width"],
    codes: Int64[Tensor, "samples levels"],
    codebooks: Sequence[Float[Tensor, "codes width"]],
) -> Float[Tensor, "samples codes"]:
    """Squared distances to the codes of the last level, the codes of the others given."""
    if len(codebooks) > 1:
        vectors = vectors - sum_of_codes(codes[:, :-1], codebooks)
    return squared_distances(vectors, codebooks[-1])
