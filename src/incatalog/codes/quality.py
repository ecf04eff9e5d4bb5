"""How good semantic IDs are: collisions, code use, reconstruction, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from incatalog.codes.codebooks import Rows, Vectors, row_blocks, sample_rows
from incatalog.codes.semantic_ids import Codes

_QUERIES = 1000


def code_use(codes: Codes, sizes: Sequence[int]) -> dict[str, float | list[int] | list[float]]:
    """How codes are spread.

    `collision_rate` is the share of items that share all codes with an earlier one; `used` are the
    codes in use at each level; `perplexity` is the number of codes, all used alike, that would be
    as hard to guess.
    """
    used, perplexity = [], []
    for level, size in enumerate(sizes):
        share = np.bincount(codes[:, level], minlength=size) / len(codes)
        share = share[share > 0]
        used.append(len(share))
        perplexity.append(round(float(np.exp(-(share * np.log(share)).sum())), 2))
    rate = (len(codes) - len(np.unique(codes, axis=0))) / len(codes)
    return {"collision_rate": rate, "used": used, "perplexity": perplexity}


def neighbour_prefixes(vectors: Vectors, codes: Codes, count: int, seed: int) -> dict[str, Any]:
    """How often an item and its nearest neighbours (by cosine) share their first codes.

    `neighbours` and `random` are the shares of pairs that agree on the first 1, 2, … codes, for a
    sample of items beside their `count` nearest others, and beside as many random ones.
    """
    rng = np.random.default_rng(seed)
    queries = sample_rows(rng, len(codes), _QUERIES)
    near = _nearest(vectors, queries, min(count, len(codes) - 1))
    others = rng.integers(len(codes) - 1, size=near.shape) if len(codes) > 1 else near
    others = others + (others >= queries[:, None])
    pairs = {"neighbours": near, "random": others}
    agreement = {name: _agreement(codes, queries, rows) for name, rows in pairs.items()}
    return {"queries": len(queries), "count": near.shape[1], **agreement}


def _agreement(codes: np.ndarray, queries: np.ndarray, others: np.ndarray) -> list[float]:
    if not others.size:
        return []
    same = codes[queries][:, None] == codes[others]
    shares = np.logical_and.accumulate(same, axis=2).mean(axis=(0, 1))
    return [round(float(share), 6) for share in shares]


def _nearest(vectors: Vectors, queries: Rows, count: int) -> Int64[np.ndarray, "queries count"]:
    """Rows of the nearest other items, in bounded memory."""
    asked = torch.nn.functional.normalize(torch.from_numpy(np.array(vectors[queries])))
    own = torch.from_numpy(queries)
    best = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for block in row_blocks(len(vectors)):
        part = torch.from_numpy(np.array(vectors[block]))
        cosines = asked @ torch.nn.functional.normalize(part).T
        inside = (own >= block.start) & (own < block.stop)
        cosines[inside.nonzero()[:, 0], own[inside] - block.start] = float("-inf")
        found = torch.arange(block.start, block.stop).expand(len(queries), -1)
        best, rows = torch.cat([best, cosines], 1), torch.cat([rows, found], 1)
        best, order = best.topk(min(count, best.shape[1]), dim=1)
        rows = rows.gather(1, order)
    return np.asarray(rows)
