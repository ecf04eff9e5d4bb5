"""What does the constraint cost at one step of a batch, beside the model's own step?

Every row of the batch writes items one after the other. Contenders:

- ``SpanConstraint``: what the engine does at a step: allowed tokens, the best of them, accept it.
- ``ItemConstrainedLogitsProcessor``: what plain ``generate`` does; it writes a new score matrix.
- ``prefix_allowed_tokens_fn``: transformers' hook with a prefix tree of nested dictionaries, which
  does not even keep items from coming twice.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.report import markdown, publish, shared_data
from transformers import DynamicCache
from transformers.generation import PrefixConstrainedLogitsProcessor

from reclm.backbone import Backbone, load_backbone
from reclm.data.catalog import Catalog
from reclm.decoding.constraint import SpanConstraint
from reclm.decoding.processor import ItemConstrainedLogitsProcessor
from reclm.decoding.sampling import log_softmax
from reclm.items.titles import canonical_titles
from reclm.items.tokens import ItemTokens


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


def time_spans(tokens: ItemTokens, rows: np.ndarray, scores: torch.Tensor) -> list[float]:
    """Seconds of each step with the engine's constraint; one of each row is a span's first."""
    trie = tokens.trie()
    states = [SpanConstraint(trie, tokens.eoi_token_id) for _ in rows]
    seconds = []
    for column in rows.T:
        allowed = [state.allowed() for state in states if state.inside]
        scored = np.unique(np.concatenate(allowed)) if allowed else np.empty(0, dtype=np.int32)
        # In the engine these come out of the output layer, which computes no others.
        some = scores[:, torch.as_tensor(scored, dtype=torch.long)].numpy()
        start = time.perf_counter()
        inside = [state for state in states if state.inside]
        choices = [state.allowed() for state in inside]
        if inside:
            union = np.unique(np.concatenate(choices))
            for number, choice in enumerate(choices):
                log_softmax(some[number][np.searchsorted(union, choice)]).argmax()
        for state, token in zip(states, column.tolist(), strict=True):
            if state.inside:
                state.accept(token)
            else:
                state.begin()
        seconds.append(time.perf_counter() - start)
    return seconds


def time_masking(tokens: ItemTokens, batch: int, scores: torch.Tensor) -> list[float]:
    """Seconds of what the engine does outside spans: see whether a span may open, mask a token."""
    trie = tokens.trie()
    states = [SpanConstraint(trie, tokens.eoi_token_id) for _ in range(batch)]
    scores = scores.clone()
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        banned = [(n, tokens.eoi_token_id) for n, state in enumerate(states) if state.can_begin()]
        scores[tuple(torch.tensor(banned).T)] = -torch.inf
        seconds.append(time.perf_counter() - start)
    return seconds


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
        "SpanConstraint (engine)": (
            lambda: time_spans(tokens, inside, scores),
            lambda: time_masking(tokens, options.batch, scores),
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
        within = statistics.median(run_inside())
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
    publish(
        "constraint",
        f"Cost of the constraint at one step, batch {options.batch}, vocabulary {vocab}, "
        f"{options.data} titles",
        markdown(header, rows),
    )


if __name__ == "__main__":
    main()
