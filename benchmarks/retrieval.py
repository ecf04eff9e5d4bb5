"""How long does a list of ten retrieved items take, and how many forward passes?

Contenders on the same prompts, all but ``restart`` one after the other in each round:

- ``generate``: plain, unconstrained ``model.generate`` of as many tokens in total: each row writes
  the mean length of the answers.
- ``restart``: the same retrieval without a cache of its own: the whole text goes through the model
  again for each item, all rows padded to one length. It has to give the engine's answers token for
  token.
- ``titles``: the engine, with titles written token by token under the prefix tree (RecLM-cgen).
- ``retrieval``: the engine, with titles retrieved and spliced in.

The head is untrained and its vectors are random: what is measured does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.report import interleaved, markdown, publish, ratio, shared_data

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.decoding.request import Request
from incatalog.model.backbone import Backbone, base_model, create_tiny, load_backbone
from incatalog.model.head import RetrievalHead
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig
from incatalog.packed.model import PackedModel
from incatalog.recommender.recommender import Recommender

_DIM = 384


def make_backbone(model: str, catalog: Catalog) -> Backbone:
    """A model with an untrained head; `tiny` is as large as that of the study."""
    if model == "tiny":
        texts = [*catalog.titles, "You recommend items. Please recommend what fits.\n1 2 3"]
        sizes = TinyConfig(vocab_size=6144, hidden=128, inner=256, layers=2, heads=2)
        backbone = create_tiny(texts, sizes)
    else:
        backbone = load_backbone(model, device="cpu")
    backbone.model.eval()
    random = np.random.default_rng(0)
    vectors = random.standard_normal((len(catalog), _DIM)).astype(np.float32)
    hidden = backbone.model.config.hidden_size
    return replace(backbone, head=RetrievalHead.create(hidden, vectors).eval())


class Restart:
    """Feeds the whole text again for each item."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self.passes = 0

    @torch.no_grad()
    def complete(self, requests: Sequence[Request]) -> list[list[int]]:
        """Tokens of the answers."""
        recommender = self._recommender
        head = recommender.backbone.head
        assert head is not None
        self.passes = 0
        answers: list[list[int]] = [[] for _ in requests]
        named: list[list[int]] = [[] for _ in requests]
        scaffold = requests[0].scaffold
        assert scaffold is not None
        for before in scaffold.before_item:
            for answer in answers:
                answer.extend(before)
            texts = [[*r.prompt_ids, *a] for r, a in zip(requests, answers, strict=True)]
            width = max(map(len, texts))
            ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
            states = base_model(recommender.backbone.model)(input_ids=ids, use_cache=False)
            self.passes += 1
            last = torch.tensor([len(text) - 1 for text in texts])
            scores = head(states.last_hidden_state[torch.arange(len(texts)), last])
            for row, own in enumerate(named):
                scores[row, own] = -torch.inf
                own.append(int(scores[row].argmax()))
                answers[row] += recommender.item_tokens.span(own[-1])
        return answers


def measure(folder: Path, model: str, batch: int, k: int, rounds: int) -> list[list[object]]:
    """Rows of the table for one catalog and model."""
    catalog = Catalog.load(folder)
    histories = Histories.load(folder, catalog)
    backbone = make_backbone(model, catalog)
    packed = PackedModel(backbone.model, frozen=True)
    retrieving = Recommender(backbone, ModelSpec(base=model, method="ret"), catalog, packed=packed)
    without_head = replace(backbone, head=None)
    writing = Recommender(without_head, ModelSpec(base=model), catalog, packed=packed)
    rows = [histories.history(user).tolist() for user in range(batch)]
    requests = [retrieving.list_request(row, k) for row in rows]
    written = [writing.list_request(row, k) for row in rows]
    answers = retrieving.engine.complete(requests)
    passes = retrieving.engine.statistics.forward_passes
    titles = writing.engine.complete(written)
    title_passes = writing.engine.statistics.forward_passes
    mean = math.ceil(statistics.mean(len(answer.token_ids) for answer in answers))
    width = max(len(request.prompt_ids) for request in requests)
    padding = [[0] * (width - len(request.prompt_ids)) for request in requests]
    pairs = list(zip(padding, requests, strict=True))
    ids = torch.tensor([[*pad, *request.prompt_ids] for pad, request in pairs])
    mask = torch.tensor([[*pad, *([1] * len(request.prompt_ids))] for pad, request in pairs])
    restart = Restart(retrieving)

    def generate() -> None:
        backbone.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=mean,
            max_new_tokens=mean,
            pad_token_id=0,
        )

    def again() -> None:
        assert restart.complete(requests) == [list(answer.token_ids) for answer in answers]

    def retrieve() -> None:
        assert retrieving.engine.complete(requests) == answers

    contenders = {
        "generate": generate,
        "titles": lambda: writing.engine.complete(written),
        "retrieval": retrieve,
    }
    seconds = interleaved(contenders, rounds)
    # The slowest by far: once, and no part of the rounds.
    seconds |= interleaved({"restart": again}, 1, warm_up=False)
    tokens = {
        "generate": mean * batch,
        "titles": sum(len(answer.token_ids) for answer in titles),
    }
    retrieved = sum(len(answer.token_ids) for answer in answers)
    counts = {
        "generate": mean, "restart": restart.passes, "titles": title_passes, "retrieval": passes
    }  # fmt: skip
    return [
        [
            model,
            folder.name,
            name,
            f"{statistics.median(seconds[name]):.2f}",
            f"{ratio(seconds, name, 'generate'):.3f}" if name != "restart" else "",
            counts[name],
            tokens.get(name, retrieved),
        ]
        for name in seconds
    ]


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny", "smollm2"])
    parser.add_argument("--data", nargs="+", default=["office"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = itertools.chain.from_iterable(
        measure(shared_data() / name, model, options.batch, options.k, options.rounds)
        for model in options.models
        for name in options.data
    )
    header = [
        "model", "catalog", "contender", "seconds", "against generate", "forward passes", "tokens",
    ]  # fmt: skip
    publish(
        "retrieval",
        f"Time of an answer of {options.k} retrieved items, batch {options.batch}",
        markdown(header, list(rows)),
    )


if __name__ == "__main__":
    main()
