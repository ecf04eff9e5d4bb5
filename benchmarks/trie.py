"""How long does building the prefix tree take, and how much memory does it need?

Contenders, one after the other in each round, each given the token rows in the form it likes best:

- ``ItemTrie``: arrays of token ids and offsets.
- ``dict``: nested dictionaries, from lists of token ids.
- ``marisa-trie``: a ``BinaryTrie``, from byte strings of four bytes a token.

A catalog that changes: items that come or leave one by one, or together, beside building anew.

Memory is measured in a fresh process for each (Linux only): what it has grown by once the tree
stands, and at its highest. The rows themselves count for none of them.

    python -m benchmarks.trie [--repeats 5] [--items 1000000] [--codes 256]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marisa_trie
import numpy as np
from benchmarks.report import interleaved, markdown, publish, ratio, shared_data
from transformers import AutoTokenizer

from incatalog.data.catalog import Catalog
from incatalog.items.titles import canonical_titles
from incatalog.items.tokens import EOI, SOI, ItemTokens
from incatalog.trie.trie import ItemTrie

LEVELS = 4
FIRST_CODE = 49_154
CHANGE_HEADER = ("token rows", "change", "ms", "ms an item", "of building anew")
HEADER = ("token rows", "contender", "build, ms", "against ItemTrie", "kept, MB", "peak, MB")


def build_dict(rows: list[list[int]]) -> dict[int, Any]:
    """Nested dictionaries; -1 leads to the items that end."""
    root: dict[int, Any] = {}
    for item, row in enumerate(rows):
        node = root
        for token in row:
            node = node.setdefault(token, {})
        node.setdefault(-1, []).append(item)
    return root


CONTENDERS = ("ItemTrie", "dict", "marisa-trie")


def contender(
    name: str, flat: np.ndarray, offsets: np.ndarray
) -> Callable[[], ItemTrie | dict[int, Any] | marisa_trie.BinaryTrie]:
    """How one builds its tree, its own form of the rows at hand."""
    if name == "ItemTrie":
        return lambda: ItemTrie.build((flat, offsets))
    ends = itertools.pairwise(offsets.tolist())
    if name == "dict":
        tokens = flat.tolist()
        rows = [tokens[start:end] for start, end in ends]
        return lambda: build_dict(rows)
    packed = flat.astype(">u4").tobytes()
    keys = [packed[4 * start : 4 * end] for start, end in ends]
    return lambda: marisa_trie.BinaryTrie(keys)


def memory(name: str, flat: np.ndarray, offsets: np.ndarray) -> tuple[float, float]:
    """MB a fresh process grows by for a tree: in the end, and at the highest."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "flat.npy", flat)
        np.save(Path(folder) / "offsets.npy", offsets)
        with context.Pool(1) as pool:
            return pool.apply(_grow, (name, folder))


def _grow(name: str, folder: str) -> tuple[float, float]:
    rows = (np.load(Path(folder) / "flat.npy"), np.load(Path(folder) / "offsets.npy"))
    # Once on two items, so that what is loaded on first use is not taken for the tree.
    contender(name, np.arange(2, dtype=np.int32), np.arange(3))()
    build = contender(name, *rows)
    before = _resident("VmRSS")
    # Sets the highest mark back to where the process stands now.
    Path("/proc/self/clear_refs").write_text("5")
    tree = build()
    peak = _resident("VmHWM")
    kept = _resident("VmRSS")
    del tree
    return kept - before, peak - before


def _resident(field: str) -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3


def check(trie: ItemTrie, root: dict[int, Any], flat: np.ndarray, offsets: np.ndarray) -> None:
    """The trees of the same rows must agree on what may follow."""
    for row in np.random.default_rng(0).integers(0, trie.num_items, 200).tolist():
        path = flat[offsets[row] : offsets[row + 1]].tolist()
        node = root
        for depth in range(len(path) + 1):
            expected = [*sorted(node.keys() - {-1}), *([None] if -1 in node else [])]
            assert trie.next_tokens(path[:depth]) == expected
            if depth < len(path):
                node = node[path[depth]]


def measure(name: str, flat: np.ndarray, offsets: np.ndarray, repeats: int) -> list[list[str]]:
    """Rows of the table for one catalog."""
    trees = {tree: contender(tree, flat, offsets) for tree in CONTENDERS}
    check(trees["ItemTrie"](), trees["dict"](), flat, offsets)  # type: ignore[arg-type]
    seconds = interleaved(trees, repeats)
    rows = []
    for tree in CONTENDERS:
        kept, peak = memory(tree, flat, offsets)
        took = f"{1000 * statistics.median(seconds[tree]):.1f}"
        against = f"{ratio(seconds, tree, 'ItemTrie'):.1f}"
        rows.append([name, tree, took, against, f"{kept:.1f}", f"{peak:.1f}"])
    return rows


def change(name: str, flat: np.ndarray, offsets: np.ndarray, repeats: int) -> list[list[str]]:
    """Rows of the table of changes: the last items of a catalog come, the first ones leave."""
    rows = []
    for count in (1, 10, 100, 1000):
        kept = len(offsets) - 1 - count
        trie = ItemTrie.build((flat[: offsets[kept]], offsets[: kept + 1]))
        new = (flat[offsets[kept] :], offsets[kept:] - offsets[kept])
        whole = ItemTrie.build((flat, offsets))
        assert trie.with_items(new).fingerprint == whole.fingerprint
        changes = {
            "built anew": lambda: ItemTrie.build((flat, offsets)),
            f"{count} added": lambda trie=trie, new=new: trie.with_items(new),
            f"{count} removed": lambda trie=whole, count=count: trie.without_items(range(count)),
        }
        seconds = interleaved(changes, repeats)
        for one in list(changes)[1:]:
            took = 1000 * statistics.median(seconds[one])
            against = ratio(seconds, one, "built anew")
            rows.append([name, one, f"{took:.2f}", f"{took / count:.3f}", f"{against:.3f}"])
    return rows


def load(flat: np.ndarray, offsets: np.ndarray, repeats: int) -> str:
    """A sentence on the size of the arrays and the time of a memory-mapped load."""
    trie = ItemTrie.build((flat, offsets))
    with tempfile.TemporaryDirectory() as name:
        trie.save(Path(name) / "trie")
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            ItemTrie.load(Path(name) / "trie")
            seconds.append(time.perf_counter() - start)
    return (
        f"ItemTrie of {trie.num_items:,} items: arrays of {trie.nbytes / 1e6:.1f} MB, "
        f"{trie.num_nodes:,} nodes; loaded and verified in {1000 * statistics.median(seconds):.1f} "
        "ms."
    )


def main() -> None:
    """Builds the trees of two catalogs of real titles and of random codes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--items", type=int, default=1_000_000, help="items with random codes")
    parser.add_argument("--codes", type=int, default=256, help="codes a level")
    parser.add_argument("--tokenizer", default="smollm2", help="tokenizer of the real titles")
    options = parser.parse_args()

    folder: str | Path = options.tokenizer
    if folder == "smollm2":
        from incatalog.model.pretrained import smollm2

        folder = smollm2()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [SOI, EOI]})
    table, changes = [], []
    for domain in ("office", "games"):
        catalog = Catalog.load(shared_data() / domain)
        tokens = ItemTokens.from_titles(canonical_titles(catalog, tokenizer), tokenizer)
        name = f"{domain}, {len(tokens):,} titles"
        table += measure(name, tokens.flat, tokens.offsets, options.repeats)
        changes += change(name, tokens.flat, tokens.offsets, options.repeats)
    generator = np.random.default_rng(0)
    codes = generator.integers(0, options.codes, (options.items, LEVELS), dtype=np.int32)
    codes += FIRST_CODE + options.codes * np.arange(LEVELS, dtype=np.int32)
    flat, offsets = codes.reshape(-1), np.arange(options.items + 1, dtype=np.int64) * LEVELS
    name = f"{options.items:,} x {LEVELS} random codes"
    table += measure(name, flat, offsets, options.repeats)
    changes += change(name, flat, offsets, options.repeats)
    body = "\n\n".join(
        (
            markdown(HEADER, table),
            load(flat, offsets, options.repeats),
            markdown(CHANGE_HEADER, changes),
        )
    )
    publish("trie", "Time and memory of building the prefix tree", body)


if __name__ == "__main__":
    main()
