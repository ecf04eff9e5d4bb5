"""What does the trie-scoped loss cost, forward and backward, against the masked and the plain one?

A batch of four conversations of 512 tokens, each with a numbered list of ten real titles at its
end, and random hidden states. Contenders:

- ``masked``: logits of every position over the whole vocabulary, and a mask of the same shape, as
  published with RecLM-cgen (its lists of allowed tokens are given, only the mask is built).
- ``plain``: cross entropy over the whole vocabulary, at the labelled positions only.
- ``scoped``: incatalog's; sorting the labels is part of its time.

The output layer is either frozen, as with LoRA adapters alone, or trained, as in full fine-tuning
and where LoRA trains rows of new tokens: then every contender also makes a gradient of the whole
layer's size.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import statistics
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from benchmarks.report import interleaved, markdown, publish, ratio, shared_data
from torch.nn import functional

from incatalog.data.catalog import Catalog
from incatalog.items.titles import canonical_titles
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import load_backbone
from incatalog.training.losses import LabelledSpans, scoped_cross_entropy, scoped_targets
from incatalog.trie.trie import ItemTrie

BATCH, LENGTH, LISTED, HIDDEN = 4, 512, 10, 576
VOCABULARIES = {"49k": 49_154, "128k": 128_258}
LAYERS = {"frozen": False, "trained": True}
CONTENDERS = ("masked", "plain", "scoped")


class Sample(NamedTuple):
    """A batch and what the contenders may know beforehand."""

    trie: ItemTrie
    eoi: int
    ids: np.ndarray
    labelled: np.ndarray
    spans: LabelledSpans
    allowed: list[tuple[int, int, list[int]]]
    hidden: torch.Tensor
    weight: torch.Tensor


def make_sample(tokens: ItemTokens, vocabulary: int, *, trained: bool) -> Sample:
    """Four lists of random items at the end of random tokens."""
    rng = np.random.default_rng(0)
    trie = tokens.trie()
    ids = rng.integers(0, 40_000, size=(BATCH, LENGTH))
    labelled = np.zeros((BATCH, LENGTH), dtype=np.bool_)
    spans: list[tuple[int, int, int, int]] = []
    allowed: list[tuple[int, int, list[int]]] = []
    for sample in range(BATCH):
        end = LENGTH - 1
        for row in rng.integers(0, len(tokens), size=LISTED).tolist():
            span = tokens.span(row)
            start = end - len(span)
            ids[sample, start:end] = span
            spans.append((sample, start, end, row))
            for depth in range(len(span) - 1):
                following = trie.next_tokens(span[1 : 1 + depth])
                known = [tokens.eoi_token_id if token is None else token for token in following]
                allowed.append((sample, start + 1 + depth, known))
            end = start - 4  # "\n", "1", ".", " "
        labelled[sample, end + 1 :] = True
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(BATCH, LENGTH, HIDDEN, generator=generator).requires_grad_()
    weight = (torch.randn(vocabulary, HIDDEN, generator=generator) / 24).requires_grad_(trained)
    columns = np.array(spans, dtype=np.int64).T
    return Sample(
        trie, tokens.eoi_token_id, ids, labelled, LabelledSpans(*columns), allowed, hidden, weight
    )


def masked(sample: Sample) -> torch.Tensor:
    """The published way."""
    logits = (sample.hidden @ sample.weight.T)[:, :-1]
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    for row, position, allowed in sample.allowed:
        mask[row, position - 1] = True
        mask[row, position - 1, allowed] = False
    labels = torch.from_numpy(np.where(sample.labelled, sample.ids, -100))[:, 1:]
    logits = logits.masked_fill(mask, float("-inf"))
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def plain(sample: Sample) -> torch.Tensor:
    """No grounding, no wasted position."""
    at = torch.from_numpy(np.flatnonzero(sample.labelled))
    labels = torch.from_numpy(sample.ids).flatten()[at]
    return functional.cross_entropy(sample.hidden.flatten(0, 1)[at - 1] @ sample.weight.T, labels)


def scoped(sample: Sample) -> torch.Tensor:
    """The children's rows of the output layer, where there is a choice."""
    targets = scoped_targets(
        sample.trie, sample.ids, sample.labelled, sample.spans, eoi_token_id=sample.eoi
    )
    return scoped_cross_entropy(sample.hidden, sample.weight, targets)


def step(name: str, sample: Sample) -> Callable[[], float]:
    """Forward and backward pass of one contender."""
    loss_of = {"masked": masked, "plain": plain, "scoped": scoped}[name]

    def run() -> float:
        sample.hidden.grad = sample.weight.grad = None
        loss = loss_of(sample)
        loss.backward()
        return loss.item()

    return run


def memory(name: str, tokens: ItemTokens, vocabulary: int, *, trained: bool) -> float:
    """MB a fresh process needs at most for a step, over what it held before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, tokens, vocabulary, trained))


def _peak(name: str, tokens: ItemTokens, vocabulary: int, trained: bool) -> float:
    # Once on a small vocabulary of random rows, so that what is loaded on first use does not count.
    small = make_sample(tokens, 49_154, trained=trained)
    step("plain", small)()
    step(name, small._replace(labelled=small.labelled & (np.arange(LENGTH) > LENGTH - 3)))()
    del small
    sample = make_sample(tokens, vocabulary, trained=trained)
    before = _resident("VmRSS")
    # Sets the highest mark back to where the process stands now.
    Path("/proc/self/clear_refs").write_text("5")
    step(name, sample)()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3


def main() -> None:
    """Measures both vocabularies and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--catalog", default="office", help="folder under the real data")
    given = parser.parse_args()
    catalog = Catalog.load(shared_data() / given.catalog)
    tokenizer = load_backbone("smollm2", device="cpu").tokenizer
    tokens = ItemTokens.from_titles(canonical_titles(catalog, tokenizer), tokenizer)
    rows = []
    for (label, vocabulary), (layer, trained) in product(VOCABULARIES.items(), LAYERS.items()):
        sample = make_sample(tokens, vocabulary, trained=trained)
        steps = {name: step(name, sample) for name in CONTENDERS}
        values = {name: run() for name, run in steps.items()}
        assert abs(values["masked"] - values["scoped"]) < 1e-5, values
        seconds = interleaved(steps, given.rounds, warm_up=False)
        needed = {name: memory(name, tokens, vocabulary, trained=trained) for name in CONTENDERS}
        for name in CONTENDERS:
            rows.append(
                [
                    label,
                    layer,
                    name,
                    f"{statistics.median(seconds[name]):.3f}",
                    f"{ratio(seconds, name, 'masked'):.3f}",
                    f"{needed[name]:.0f}",
                    f"{needed[name] / needed['masked']:.3f}",
                    f"{values[name]:.6f}",
                ]
            )
    publish(
        "loss",
        f"Cost of the loss, {BATCH} x {LENGTH} tokens with {BATCH * LISTED} {given.catalog} titles",
        markdown(
            (
                "vocabulary",
                "layer",
                "loss",
                "seconds",
                "of masked",
                "peak MB",
                "of masked",
                "value",
            ),
            rows,
        ),
    )


if __name__ == "__main__":
    main()
