"""How long does it take to find the best item among a million vectors?

Vectors stand in clusters, as those of texts do; states are vectors of items with noise. Every row
of a batch leaves a thousand items out. Contenders:

- ``exact``: one matrix product with all vectors.
- ``index``: an inverted file proposes items, which are compared exactly.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from benchmarks.report import interleaved, markdown, publish, ratio

from incatalog.decoding.retriever import ItemRetriever
from incatalog.model.head import RetrievalHead

LEFT_OUT = 1000
CLUSTERS = 2000


def clustered(items: int, dim: int) -> np.ndarray:
    """Unit vectors around random centres."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLUSTERS, dim), dtype=np.float32)
    vectors = random.standard_normal((items, dim), dtype=np.float32)
    vectors += centres[random.integers(CLUSTERS, size=items)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    vectors = clustered(options.items, options.dim)
    head = RetrievalHead.create(options.dim, vectors, origin="random")
    with torch.no_grad():
        head.projection.weight.copy_(torch.eye(options.dim))
    exact = ItemRetriever(head, index_above=options.items)
    indexed = ItemRetriever(head, index_above=0)
    random = np.random.default_rng(1)
    start = time.perf_counter()
    states = torch.from_numpy(random.standard_normal((1, options.dim), dtype=np.float32))
    everything = np.ones(options.items, dtype=np.bool_)
    indexed.best(states, [everything], 1)
    building = time.perf_counter() - start
    rows: list[list[object]] = []
    for batch in options.batch:
        near = vectors[random.integers(options.items, size=batch)]
        noise = random.standard_normal(near.shape, dtype=np.float32) / options.dim**0.5
        states = torch.from_numpy(near + 0.5 * noise)
        free = [everything.copy() for _ in range(batch)]
        for mask in free:
            mask[random.integers(options.items, size=LEFT_OUT)] = False
        seconds = interleaved(
            {
                "exact": lambda states=states, free=free: exact.best(states, free, 10),
                "index": lambda states=states, free=free: indexed.best(states, free, 10),
            },
            options.rounds,
        )
        found = zip(exact.best(states, free, 10), indexed.best(states, free, 10), strict=True)
        first, ten = [], []
        for right, proposed in found:
            first.append(right.rows[0] == proposed.rows[0])
            ten.append(len(set(right.rows) & set(proposed.rows)) / 10)
        for name in seconds:
            recall = (
                ("1", "1") if name == "exact" else (f"{np.mean(first):.3f}", f"{np.mean(ten):.3f}")
            )
            rows.append(
                [
                    batch,
                    name,
                    f"{statistics.median(seconds[name]) * 1e3:.1f}",
                    f"{ratio(seconds, name, 'exact'):.3f}",
                    *recall,
                ]
            )
    publish(
        "nearest",
        f"The best of {options.items:,} vectors of {options.dim} dimensions",
        markdown(["batch", "contender", "ms", "of exact", "recall@1", "recall@10"], rows)
        + f"\n\nThe index was built in {building:.0f} s, once.",
    )


if __name__ == "__main__":
    main()
