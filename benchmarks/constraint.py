"""What does the constraint cost at one step of a batch, beside the model's own step?

Every row of the batch writes items one after the other. Contenders:

- ``SpanBatch``: what the engine does at a step, all rows at a decision and with ten items of their
  history excluded: allowed tokens, mask the scores, go on to the next decision, open the next span
  where one closed.
- ``SpanBatch, weighted``: the same with log-weights of all items besides, other ones for every
  answer, and what they make of the scores.
- ``SpanBatch, in lists``: the same, and every answer's tokens handed out as a list, as the engine
  needs them.
- ``ItemConstrainedLogitsProcessor``: what plain ``generate`` does; it writes a new score matrix.
- ``prefix_allowed_tokens_fn``: transformers' hook with a prefix tree of nested dictionaries, which
  does not even keep items from coming twice.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.report import markdown, publish, shared_data
from transformers import DynamicCache
from transformers.generation import PrefixConstrainedLogitsProcessor

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.processor import ItemConstrainedLogitsProcessor
from incatalog.constraint.spans import SpanBatch
from incatalog.constraint.weights import ItemWeights
from incatalog.data.catalog import Catalog
from incatalog.items.titles import canonical_titles
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import Backbone, load_backbone
from incatalog.trie.trie import ItemTrie

HISTORY = 10
SPREAD = 3.0


def answers(tokens: ItemTokens, batch: int, steps: int) -> np.ndarray:
    """``[batch, steps]`` token ids: spans of random items, none twice in a row of the batch."""
    random = np.random.default_rng(0)
    rows = np.zeros((batch, steps), dtype=np.int64)
    for number in range(batch):
        items = random.permutation(len(tokens))
        written: list[int] = []
        for item in items:
            written += tokens.span(item)
            if len(written) >= steps:
                break
        rows[number] = written[:steps]
    return rows


def time_spans(
    trie: ItemTrie,
    eoi_token_id: int,
    scores: torch.Tensor,
    steps: int,
    *,
    in_lists: bool = False,
    weighted: bool = False,
) -> tuple[list[float], float]:
    """Seconds of each step with the engine's constraint, and tokens written per row and step."""
    random = np.random.default_rng(0)
    spans = SpanBatch(trie, eoi_token_id)
    batch = len(scores)
    for _ in range(batch):
        history = random.integers(trie.num_items, size=HISTORY)
        excluded = ExcludedItems.build(trie, history.tolist())
        if weighted:
            # As far apart as the log-probabilities of a recommender.
            own = random.normal(scale=SPREAD, size=trie.num_items)
            spans.join(weights=ItemWeights.build(trie, own, share=0.7, base=excluded))
        else:
            spans.join(excluded)
    slots = np.arange(batch)
    spans.open(slots)
    seconds, written = [], 0
    for _ in range(steps):
        start = time.perf_counter()
        allowed = spans.allowed(slots)
        mask = torch.from_numpy(allowed.mask)
        guidance = spans.guidance(allowed)
        between = time.perf_counter()
        # In the engine these come out of the output layer, which computes no others.
        some = scores[:, torch.as_tensor(allowed.tokens, dtype=torch.long)]
        noise = torch.rand(some.shape, generator=torch.Generator().manual_seed(len(seconds)))
        some = some.add_(noise)
        again = time.perf_counter()
        masked = torch.where(mask, some, -torch.inf)
        if guidance is not None:
            model, bias = (torch.from_numpy(part).to(masked) for part in guidance[1:])
            masked = torch.addcmul(bias, model, masked)
        sure = time.perf_counter()
        # Choosing the best is what every decoder does.
        chosen = masked.argmax(-1).numpy()
        decided = time.perf_counter()
        runs = spans.choose(allowed, chosen)
        closed = np.flatnonzero(runs.items >= 0)
        read = list(runs) if in_lists else []
        while len(closed):
            opened = spans.open(closed)
            closed = closed[opened.items >= 0]
            read += list(opened) if in_lists else []
        end = time.perf_counter()
        seconds.append(between - start + sure - again + end - decided)
        written += len(runs.tokens)
    return seconds, written / batch / steps


def time_outside(trie: ItemTrie, eoi_token_id: int, scores: torch.Tensor) -> list[float]:
    """Seconds of what the engine does outside spans: see whether a span may open, mask a token."""
    spans = SpanBatch(trie, eoi_token_id)
    slots = [spans.join() for _ in scores]
    scores = scores.clone()
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        banned = [(n, eoi_token_id) for n, slot in enumerate(slots) if spans.left(slot)]
        scores[tuple(torch.tensor(banned).T)] = -torch.inf
        seconds.append(time.perf_counter() - start)
    return seconds


def growth(batch: int, steps: int, rounds: int) -> list[list[object]]:
    """The constraint on catalogs of four codes an item, from a thousand to a million items.

    A round is short, and clocks and caches change between rounds; the ratio is that of each round.
    On one thread, as a million items have more tokens to mask than torch gives to one: with a core
    that is busy elsewhere, most of a step would be the wait for it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    tries = {}
    for size in (1_000, 10_000, 100_000, 1_000_000):
        codes = random.integers(256, size=(size, 4)) + 256 * np.arange(4)
        tries[size] = ItemTrie.build(np.unique(codes, axis=0))
    scores = torch.zeros(batch, 1025)
    medians: dict[int, list[float]] = {size: [] for size in tries}
    for _ in range(rounds):
        for size, trie in tries.items():
            medians[size].append(statistics.median(time_spans(trie, 1024, scores, steps)[0]))
    torch.set_num_threads(threads)
    first = np.array(medians[1_000])
    return [
        [
            f"{trie.num_items:,}",
            f"{np.median(medians[size]) * 1e3:.3f}",
            f"{np.median(medians[size] / first):.2f}",
        ]
        for size, trie in tries.items()
    ]


def time_processor(processor: Any, rows: np.ndarray, scores: torch.Tensor) -> list[float]:
    """Seconds of each call of a logits processor, with the answer one token longer each time."""
    prompt = np.full((len(rows), 200), 5)
    seconds = []
    for length in range(rows.shape[1]):
        ids = torch.as_tensor(np.concatenate([prompt, rows[:, :length]], axis=1))
        start = time.perf_counter()
        processor(ids, scores)
        seconds.append(time.perf_counter() - start)
    return seconds


def dict_processor(tokens: ItemTokens, vocab: int) -> PrefixConstrainedLogitsProcessor:
    """Transformers' processor around a prefix tree of nested dictionaries."""
    root: dict[int, Any] = {}
    for row in tokens.rows():
        node = root
        for token in [*row.tolist(), tokens.eoi_token_id]:
            node = node.setdefault(token, {})
    outside = [token for token in range(vocab) if token != tokens.eoi_token_id]

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        answer = ids[200:].tolist()[::-1]
        soi = answer.index(tokens.soi_token_id) if tokens.soi_token_id in answer else len(answer)
        if tokens.eoi_token_id in answer[:soi] or soi == len(answer):
            return outside
        node = root
        for token in answer[:soi][::-1]:
            node = node[token]
        return list(node)

    return PrefixConstrainedLogitsProcessor(allowed, num_beams=1)


@torch.no_grad()
def time_model(backbone: Backbone, batch: int, repeats: int) -> list[float]:
    """Seconds of decoding one token in each row, 200 tokens into the answer."""
    cache = DynamicCache(config=backbone.model.config)
    for layer in range(backbone.model.config.num_hidden_layers):
        config = backbone.model.config
        shape = (batch, config.num_key_value_heads, 200, config.head_dim)
        cache.update(torch.randn(shape), torch.randn(shape), layer)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        backbone.model(input_ids=torch.full((batch, 1), 5), past_key_values=cache)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="office")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    backbone = load_backbone(options.model, device="cpu")
    catalog = Catalog.load(shared_data() / options.data)
    titles = canonical_titles(catalog, backbone.tokenizer)
    tokens = ItemTokens.from_titles(titles, backbone.tokenizer)
    vocab = backbone.model.config.vocab_size
    inside = answers(tokens, options.batch, options.steps)
    outside = np.full((options.batch, 20), 5)
    scores = torch.randn(options.batch, vocab)

    def own() -> ItemConstrainedLogitsProcessor:
        return ItemConstrainedLogitsProcessor(
            tokens.trie(), tokens.soi_token_id, tokens.eoi_token_id
        )

    contenders: dict[str, tuple[Callable[[], list[float]], Callable[[], list[float]]]] = {
        "SpanBatch (engine)": (
            lambda: time_spans(tokens.trie(), tokens.eoi_token_id, scores, options.steps)[0],
            lambda: time_outside(tokens.trie(), tokens.eoi_token_id, scores),
        ),
        "SpanBatch, weighted": (
            lambda: time_spans(
                tokens.trie(), tokens.eoi_token_id, scores, options.steps, weighted=True
            )[0],
            lambda: time_outside(tokens.trie(), tokens.eoi_token_id, scores),
        ),
        "SpanBatch, in lists": (
            lambda: time_spans(
                tokens.trie(), tokens.eoi_token_id, scores, options.steps, in_lists=True
            )[0],
            lambda: time_outside(tokens.trie(), tokens.eoi_token_id, scores),
        ),
        "ItemConstrainedLogitsProcessor": (
            lambda: time_processor(own(), inside, scores),
            lambda: time_processor(own(), outside, scores),
        ),
        "prefix_allowed_tokens_fn, dict": (
            lambda: time_processor(dict_processor(tokens, vocab), inside, scores)[1:],
            lambda: time_processor(dict_processor(tokens, vocab), outside[:, :3], scores),
        ),
    }
    step = statistics.median(time_model(backbone, options.batch, 5))
    rows: list[list[object]] = []
    for name, (run_inside, run_outside) in contenders.items():
        within = statistics.median(itertools.chain(*(run_inside() for _ in range(options.rounds))))
        beyond = statistics.median(run_outside())
        rows.append(
            [
                name,
                f"{within * 1e3:.2f}",
                f"{within / step:.2%}",
                f"{beyond * 1e3:.2f}",
                f"{beyond / step:.2%}",
            ]
        )
    rows.append(["the model's own step", f"{step * 1e3:.0f}", "100%", f"{step * 1e3:.0f}", "100%"])
    header = ["contender", "inside spans, ms", "of a step", "outside, ms", "of a step"]
    _, tokens_a_step = time_spans(tokens.trie(), tokens.eoi_token_id, scores, options.steps)
    publish(
        "constraint",
        f"Cost of the constraint at one step, batch {options.batch}, vocabulary {vocab}, "
        f"{options.data} titles",
        markdown(header, rows)
        + f"\n\nThe engine's step goes to the next decision, {tokens_a_step:.1f} tokens on in the "
        "mean; that of the others goes one token on.\n\n## Growth with the catalog\n\n"
        + markdown(
            ["items of 4 codes", "ms a step", "of 1,000 items"],
            growth(options.batch, options.steps, options.rounds),
        ),
    )


if __name__ == "__main__":
    main()
