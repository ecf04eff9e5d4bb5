"""How long does a grounded list of ten items take, against as many tokens of plain generation?

Contenders, one after the other in each round, on the same prompts:

- ``generate``: plain, unconstrained ``model.generate`` of as many tokens in total: each row writes
  the mean length of the answers, although it would take the longest to write the same ones.
- ``prefix_allowed_tokens_fn``: ``model.generate`` held to the same lists by transformers' own hook
  and a prefix tree of nested dictionaries. It has to write the engine's answers token for token.
- ``engine``: forced runs appended in one forward pass, rows packed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.report import interleaved, markdown, publish, ratio, shared_data

from reclm.backbone import ModelSpec, load_backbone
from reclm.data.catalog import Catalog
from reclm.data.interactions import Histories
from reclm.decoding.generate import Request
from reclm.recommender import Recommender


class DictConstraint:
    """Holds plain generation to the engine's list form with nested dictionaries."""

    def __init__(self, recommender: Recommender, request: Request, prompt_length: int) -> None:
        assert request.scaffold is not None
        self._tokens = recommender.item_tokens
        self._before = request.scaffold.before_item
        self._prompt_length = prompt_length
        self._stop = min(recommender.engine._control.stop)
        self._root: dict[int, Any] = {}
        for row in self._tokens.rows():
            node = self._root
            for token in [*row.tolist(), self._tokens.eoi_token_id]:
                node = node.setdefault(token, {})

    def __call__(self, _: int, ids: torch.Tensor) -> list[int]:
        """Tokens that may come next, given all tokens so far."""
        soi, eoi = self._tokens.soi_token_id, self._tokens.eoi_token_id
        answer = ids[self._prompt_length :].tolist()
        items: list[tuple[int, ...]] = []
        start = 0
        for end in (place for place, token in enumerate(answer) if token == eoi):
            items.append(tuple(answer[answer.index(soi, start) + 1 : end]))
            start = end + 1
        if len(items) == len(self._before):
            return [self._stop]
        current = answer[start:]
        before = [*self._before[len(items)], soi]
        if len(current) < len(before):
            return [before[len(current)]]
        prefix = tuple(current[len(before) :])
        node = self._root
        for token in prefix:
            node = node[token]
        taken = [item for item in items if item[: len(prefix)] == prefix]
        return [
            token for token in node if not self._all_taken(node[token], (*prefix, token), taken)
        ]

    def _all_taken(
        self, node: dict[int, Any], prefix: tuple[int, ...], taken: Sequence[tuple[int, ...]]
    ) -> bool:
        ended = [*(item for item in taken if (*item, self._tokens.eoi_token_id) == prefix)]
        if not node:
            return bool(ended)
        below = [item for item in taken if item[: len(prefix)] == prefix]
        return bool(below) and all(
            self._all_taken(child, (*prefix, token), below) for token, child in node.items()
        )


def measure(folder: Path, model: str, batch: int, k: int, rounds: int) -> list[list[object]]:
    """Rows of the table for one catalog."""
    catalog = Catalog.load(folder)
    histories = Histories.load(folder, catalog)
    backbone = load_backbone(model, device="cpu")
    recommender = Recommender(backbone, ModelSpec(base=model), catalog)
    requests = [
        recommender.list_request(histories.history(user).tolist(), k) for user in range(batch)
    ]
    width = max(len(request.prompt_ids) for request in requests)
    padding = [[0] * (width - len(request.prompt_ids)) for request in requests]
    pairs = list(zip(padding, requests, strict=True))
    ids = torch.tensor([[*pad, *request.prompt_ids] for pad, request in pairs])
    mask = torch.tensor([[*pad, *([1] * len(request.prompt_ids))] for pad, request in pairs])

    completions = recommender.engine.complete(requests)
    passes = recommender.engine.statistics.forward_passes
    longest = max(len(completion.token_ids) for completion in completions)
    mean = math.ceil(statistics.mean(len(completion.token_ids) for completion in completions))
    constraint = DictConstraint(recommender, requests[0], width)

    def plain() -> None:
        backbone.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=mean,
            max_new_tokens=mean,
            pad_token_id=0,
        )

    def hooked() -> None:
        output = backbone.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=longest,
            pad_token_id=0,
            prefix_allowed_tokens_fn=constraint,
        )
        for row, completion in zip(output[:, width:].tolist(), completions, strict=True):
            assert tuple(row[: len(completion.token_ids)]) == completion.token_ids

    def engine() -> None:
        assert recommender.engine.complete(requests) == completions

    seconds = interleaved(
        {"generate": plain, "prefix_allowed_tokens_fn": hooked, "engine": engine}, rounds
    )
    tokens = sum(len(completion.token_ids) for completion in completions)
    counts = {"generate": mean, "prefix_allowed_tokens_fn": longest, "engine": passes}
    return [
        [
            folder.name,
            name,
            f"{statistics.median(seconds[name]):.1f}",
            f"{ratio(seconds, name, 'generate'):.2f}",
            counts[name],
            mean * batch if name == "generate" else tokens,
        ]
        for name in seconds
    ]


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", nargs="+", default=["office", "games"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = itertools.chain.from_iterable(
        measure(shared_data() / name, options.model, options.batch, options.k, options.rounds)
        for name in options.data
    )
    header = ["catalog", "contender", "seconds", "against generate", "forward passes", "tokens"]
    publish(
        "answer",
        f"Time of a {options.k}-item answer, {options.model}, batch {options.batch}",
        markdown(header, list(rows)),
    )


if __name__ == "__main__":
    main()
