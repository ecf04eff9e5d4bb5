"""How much memory does a catalog take, by formula and measured?

Builds, each in a process of its own that may take 8 GB: the tree of titles (those of a real catalog
in many editions, which differ in three random tokens behind the first five), the tree of semantic
IDs (four random codes), the weights of one guided answer, and the items as the package holds them.
What the formulas take from a catalog (nodes and tokens an item) is counted at the smallest size;
larger ones are foretold by it, and 100 million items are only foretold.

    python -m benchmarks.growth [--sizes 1000000 10000000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_MOST = 8 << 30  # bytes of a process
_FAR = 100_000_000
_MOST_TOKENS = 2**31 - 3  # of all titles of a tree
_BRAND, _EDITION = 5, 3  # tokens that editions share, and those they differ in behind them
_CODES, _LEVELS = 256, 4


def token_rows(kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Token rows of so many items: all tokens one after the other, and the offsets."""
    random = np.random.default_rng(0)
    if kind == "IDs":
        codes = random.integers(0, _CODES, size=(size, _LEVELS), dtype=np.int32)
        codes += np.arange(_LEVELS, dtype=np.int32) * _CODES
        return codes.reshape(-1), np.arange(size + 1) * _LEVELS
    from benchmarks.report import shared_data

    from incatalog.data.catalog import Catalog
    from incatalog.items.titles import canonical_titles
    from incatalog.items.tokens import encode_titles
    from incatalog.model.backbone import load_backbone

    tokenizer = load_backbone("smollm2").tokenizer
    catalog = Catalog.load(shared_data() / "office")
    titles = encode_titles(canonical_titles(catalog, tokenizer), tokenizer)
    words = np.unique(np.concatenate(titles)).astype(np.int32)
    free = [-1] * _EDITION
    parts = [[*title[:_BRAND], *free, *title[_BRAND:]] for title in titles]
    whole = np.concatenate(parts).astype(np.int32)
    lengths = np.array([len(title) + _EDITION for title in titles])
    rounds, rest = divmod(size, len(titles))
    flat = np.concatenate([np.tile(whole, rounds), whole[: lengths[:rest].sum()]])
    places = np.flatnonzero(flat < 0)
    flat[places] = random.choice(words, size=len(places))
    every = np.concatenate([np.tile(lengths, rounds), lengths[:rest]])
    return flat, np.concatenate([[0], np.cumsum(every)])


def resident() -> int:
    """Bytes of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_tree(kind: str, size: int) -> dict[str, float]:
    """Bytes, nodes and tokens of a tree, and what building takes beside its input."""
    from incatalog.trie.trie import ItemTrie

    flat, offsets = token_rows(kind, size)
    before, start = resident(), time.process_time()
    trie = ItemTrie.build((flat, offsets))
    busy = time.process_time() - start
    # Not getrusage: its peak also counts what the parent held when it forked.
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) * 1024 - before
    found = {"bytes": trie.nbytes, "nodes": trie.num_nodes, "tail": len(trie.arrays.tail)}
    return {**found, "tokens": len(flat), "busy": busy, "peak": peak}


def measure_weights(_kind: str, size: int) -> dict[str, float]:
    """Bytes that the weights of one guided answer hold."""
    from incatalog.constraint.weights import ItemWeights
    from incatalog.trie.trie import ItemTrie

    trie = ItemTrie.build(token_rows("IDs", size))
    start = time.process_time()
    weights = ItemWeights.build(trie, np.random.default_rng(0).normal(size=size), share=0.5)
    held = [weights.log_weights, weights.spread, weights.mass, weights.by_row, *weights.below]
    busy = time.process_time() - start
    return {
        "bytes": sum(array.nbytes for array in held), "nodes": trie.num_nodes, "busy": busy,
        "tail": 0, "tokens": 0, "peak": 0,
    }  # fmt: skip


def measure_items(_kind: str, size: int) -> dict[str, float]:
    """Bytes of items with an id of 8 letters and a title of 60, and of what finds them."""
    from incatalog.data.catalog import Catalog, Item

    before, start = resident(), time.process_time()
    line = "x" * 51
    catalog = Catalog.from_items(Item(f"{row:08}", f"{line}{row:09}") for row in range(size))
    catalog.has("")
    busy = time.process_time() - start
    found = {"bytes": resident() - before, "busy": busy}
    return {**found, "nodes": 0, "tail": 0, "tokens": 0, "peak": 0}


def tree_bytes(size: int, nodes: float, tail: float) -> float:
    """Arrays of 32 bits: one of items, three and an end of nodes, three of edges, and the tails.

    An item and a node have an edge each.
    """
    return 4 * size + 16 * nodes + 12 * (size + nodes) + 4 * tail


def weights_bytes(size: int, nodes: float, _tail: float) -> float:
    """Arrays of 64 bits: four of items, one of edges, one of nodes."""
    return 8 * (4 * size + (size + nodes) + nodes)


Formula = Callable[[int, float, float], float]
_PARTS: dict[str, tuple[str, Callable[[str, int], dict[str, float]], Formula | None]] = {
    "tree of semantic IDs": ("IDs", measure_tree, tree_bytes),
    "weights of one guided answer": ("IDs", measure_weights, weights_bytes),
    "tree of titles": ("titles", measure_tree, tree_bytes),
    "items with id and title": ("", measure_items, None),
}


def id_tail(size: int) -> float:
    """Tokens of such a tree behind the last choice: of items that are alone at a level."""
    return sum(size * np.exp(-size / _CODES**level) for level in range(1, _LEVELS))


def id_nodes(size: int) -> float:
    """Nodes that a tree of random codes has: the prefixes that at least two items begin with."""
    nodes = 1.0
    for level in range(1, _LEVELS):
        prefixes = _CODES**level
        share = size / prefixes
        # Poisson: neither no item nor a single one.
        nodes += prefixes * (1 - np.exp(-share) * (1 + share))
    return nodes


def in_process(part: str, size: int) -> dict[str, float] | str:
    """What a process of its own measures; in words why it does not."""
    command = [sys.executable, "-m", "benchmarks.growth", "--part", part, "--sizes", str(size)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return "more than 8 GB" if "MemoryError" in last or "llocate" in last else last
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(part: str, size: int, counted: dict[str, tuple[int, dict[str, float]]]) -> list[str]:
    """A row of the table; keeps what is counted of a part at its first size."""
    kind, _, formula = _PARTS[part]
    found = in_process(part, size) if size != _FAR else ""
    if isinstance(found, dict):
        counted.setdefault(part, (size, found))
    first = counted.get(part)
    foretold = "" if first is None else f"{_foretold(kind, formula, size, *first) / 1e9:.2f}"
    if first is not None and kind == "titles":
        tokens = first[1]["tokens"] * size / first[0]
        foretold += " (too many tokens)" if tokens > _MOST_TOKENS else ""
    cells = [part, f"{size:,}", foretold]
    if not isinstance(found, dict):
        return [*cells, found, "", "", ""]
    measured = f"{found['bytes'] / 1e9:.2f}", f"{found['bytes'] / size:.0f}"
    peak = f"{found['peak'] / 1e9:.2f}" if found["peak"] else ""
    return [*cells, *measured, peak, f"{found['busy']:.0f}"]


def _foretold(
    kind: str, formula: Formula | None, size: int, counted: int, first: dict[str, float]
) -> float:
    grown = size / counted
    if formula is None:
        return first["bytes"] * grown
    if kind == "IDs":
        return formula(size, id_nodes(size), id_tail(size))
    return formula(size, first["nodes"] * grown, first["tail"] * grown)


def main() -> None:
    """Measures every part at every size, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--part", choices=list(_PARTS), help="Measure this alone, in this process.")
    options = parser.parse_args()
    if options.part:
        resource.setrlimit(resource.RLIMIT_AS, (_MOST, _MOST))
        kind, measure, _ = _PARTS[options.part]
        print(json.dumps(measure(kind, options.sizes[0])))
        return
    # Not imported by the processes that measure memory, as it brings torch.
    from benchmarks.report import markdown, publish

    header = ["what", "items", "by formula, GB", "measured, GB", "bytes an item",
              "peak of building beside its input, GB", "processor seconds"]  # fmt: skip
    sizes = [*options.sizes, _FAR]
    rows: dict[tuple[str, int], list[str]] = {}
    counted: dict[str, tuple[int, dict[str, float]]] = {}
    for size in sizes:
        for part in _PARTS:
            rows[part, size] = row_of(part, size, counted)
            # What has been measured is kept, however long the rest takes.
            table = [rows[key] for key in itertools.product(_PARTS, sizes) if key in rows]
            publish(
                "growth",
                "Memory of a catalog, by formula and measured",
                f"{markdown(header, table)}\n\nTitles are those of Office in many editions, as "
                f"SmolLM2 writes them; a tree holds {_MOST_TOKENS:,} tokens of titles at most. "
                "[scale.md](../../docs/scale.md) has the formulas.",
            )


if __name__ == "__main__":
    main()
