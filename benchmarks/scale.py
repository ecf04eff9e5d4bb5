"""How does the time of an answer grow with the catalog and with the batch?

Titles are those of a real catalog, each in many editions: three further tokens, drawn at random, so
that larger catalogs have more decisions a title, as real ones do. Every batch is answered once for
warm-up, then in turns with the others.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.report import (
    add_device,
    backbone_of,
    interleaved,
    markdown,
    publish,
    shared_data,
    synchronised,
)

from incatalog.data.catalog import Catalog
from incatalog.decoding.engine import Engine
from incatalog.decoding.request import Request, Scaffold
from incatalog.items.titles import canonical_titles
from incatalog.items.tokens import encode_titles
from incatalog.packed.model import PackedModel
from incatalog.trie.trie import ItemTrie

EDITION = 3
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "scale.png"


def editions(titles: list[list[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Token rows of ``size`` items: all tokens one after the other, and the offsets."""
    random = np.random.default_rng(0)
    words = np.unique(np.concatenate(titles))
    chosen = [titles[number % len(titles)] for number in range(size)]
    lengths = np.array([len(title) + EDITION for title in chosen])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = random.choice(words, size=offsets[-1]).astype(np.int32)
    for start, title in zip(offsets.tolist(), chosen, strict=False):
        flat[start : start + len(title)] = title
    return flat, offsets


def plot(seconds: dict[tuple[int, int], float], device: str) -> None:
    """Answers a second against the size of the catalog, one line a batch size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for batch in sorted({batch for batch, _ in seconds}):
        sizes = sorted(size for other, size in seconds if other == batch)
        times = [seconds[batch, size] for size in sizes]
        axes.plot(sizes, times, marker="o", label=f"batch {batch}")
    axes.set(
        xscale="log",
        ylim=(0, None),
        xlabel="items in the catalog",
        ylabel="seconds for 10 items a row",
        title=f"SmolLM2-135M, {device}",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=150)


def main() -> None:
    """Measures, plots and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="office")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    add_device(parser)
    options = parser.parse_args()
    backbone = backbone_of(options)
    catalog = Catalog.load(shared_data() / options.data)
    titles = encode_titles(canonical_titles(catalog, backbone.tokenizer), backbone.tokenizer)
    prompt = backbone.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Recommend ten things for my desk."}],
        add_generation_prompt=True,
        return_dict=False,
    )
    before = tuple(
        tuple(backbone.tokenizer.encode(f"\n{number}. ", add_special_tokens=False))
        for number in range(1, options.k + 1)
    )
    engines, packed = {}, PackedModel(backbone.model, frozen=True)
    for size in options.sizes:
        trie = ItemTrie.build(editions([list(title) for title in titles], size))
        engines[size] = Engine(
            packed,
            trie,
            soi_token_id=backbone.soi_token_id,
            eoi_token_id=backbone.eoi_token_id,
            stop_token_ids=[backbone.tokenizer.eos_token_id],
        )
    random = np.random.default_rng(0)
    rows, times = [], {}
    for batch in options.batch:
        requests = [
            Request(
                [*prompt, *random.integers(1000, 2000, size=5).tolist()],
                scaffold=Scaffold(before),
                max_new_tokens=2000,
            )
            for _ in range(batch)
        ]
        passes, tokens = {}, {}
        for size, engine in engines.items():
            start = engine.statistics.forward_passes
            answers = engine.complete(requests)
            passes[size] = engine.statistics.forward_passes - start
            tokens[size] = sum(len(answer.token_ids) for answer in answers)
        seconds = interleaved(
            {
                str(size): synchronised(partial(engine.complete, requests), options.device)
                for size, engine in engines.items()
            },
            options.rounds,
            warm_up=False,
        )
        first = statistics.median(seconds[str(options.sizes[0])])
        for size in options.sizes:
            median = statistics.median(seconds[str(size)])
            times[batch, size] = median
            of_first = f"{median / first:.2f}"
            rows.append([batch, f"{size:,}", f"{median:.2f}", of_first, passes[size], tokens[size]])
    plot(times, options.device)
    header = ["batch", "items", "seconds", "of the smallest", "forward passes", "tokens"]
    publish(
        "scale",
        f"Time of a {options.k}-item answer against catalog and batch size, {options.model}, "
        f"medians of {options.rounds} rounds",
        markdown(header, rows) + "\n\n![Time against the size of the catalog](../../docs/images/"
        f"{PICTURE.name})\n\nLarger catalogs cost passes, as their titles have more decisions; a "
        f"pass costs the same. Threads: {torch.get_num_threads()}.",
    )


if __name__ == "__main__":
    main()
