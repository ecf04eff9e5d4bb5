"""What does the search over one item slot cost on a million semantic IDs?

One slot, IDs of four codes of 256 drawn at random, a small Llama. For each width:

- ``search``: what ItemBeam does beside the model in a pass: which prefixes to continue, their
  masks, log-probabilities and the best items.
- ``model``: the forward passes of the same search.
- ``generate``: transformers' beam search of the same width and length, held to the same IDs by
  ItemConstrainedLogitsProcessor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from benchmarks.report import markdown, publish
from transformers import LlamaConfig, LlamaForCausalLM

from incatalog.constraint.processor import ItemConstrainedLogitsProcessor
from incatalog.decoding.ranking import ItemBeam
from incatalog.decoding.request import Slot
from incatalog.trie.trie import ItemTrie

LEVELS, CODES = 4, 256
SOI, EOI = LEVELS * CODES, LEVELS * CODES + 1
VOCAB = EOI + 1
PROMPT = list(range(64))


def small_model() -> Any:
    """A Llama with opinions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def timed(model: Any) -> list[float]:
    """Makes a packed model note the seconds of its passes."""
    seconds: list[float] = []
    for name in ("forward", "forward_branches"):
        own = getattr(model, name)

        def run(rows: Any, own: Any = own) -> Any:
            start = time.perf_counter()
            readout = own(rows)
            seconds.append(time.perf_counter() - start)
            return readout

        setattr(model, name, run)
    return seconds


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[50, 128, 256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    codes = random.integers(CODES, size=(options.items, LEVELS)) + CODES * np.arange(LEVELS)
    trie = ItemTrie.build(np.unique(codes, axis=0))
    model = small_model()
    slots = [Slot(PROMPT)]
    ids = torch.tensor([[*PROMPT, SOI]])
    rows: list[list[object]] = []
    for width in options.widths:
        beam = ItemBeam(model, trie, soi_token_id=SOI, eoi_token_id=EOI, width=width, exact=False)
        passes = timed(beam._model)
        beam.top_items(slots, width)
        steps = len(passes)
        searching, modelling, generating = [], [], []
        for _ in range(options.rounds):
            passes.clear()
            start = time.perf_counter()
            beam.top_items(slots, width)
            whole = time.perf_counter() - start
            modelling.append(sum(passes))
            searching.append(whole - sum(passes))
            processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI)
            processor._begin.fork().begin()
            start = time.perf_counter()
            model.generate(
                input_ids=ids,
                max_new_tokens=LEVELS + 1,
                num_beams=width,
                do_sample=False,
                pad_token_id=0,
                logits_processor=[processor],
            )
            generating.append(time.perf_counter() - start)
        whole = statistics.median(map(sum, zip(searching, modelling, strict=True)))
        ratio = statistics.median(
            (one + other) / third
            for one, other, third in zip(searching, modelling, generating, strict=True)
        )
        rows.append(
            [
                width,
                steps,
                f"{statistics.median(searching) / steps * 1e3:.2f}",
                f"{statistics.median(modelling) / steps * 1e3:.2f}",
                f"{whole * 1e3:.1f}",
                f"{statistics.median(generating) * 1e3:.1f}",
                f"{ratio:.3f}",
            ]
        )
    header = [
        "width",
        "passes",
        "search, ms a pass",
        "model, ms a pass",
        "in all, ms",
        "generate, ms",
        "ratio",
    ]
    publish(
        "beam",
        f"Search over one slot of {trie.num_items:,} semantic IDs",
        markdown(header, rows),
    )


if __name__ == "__main__":
    main()
