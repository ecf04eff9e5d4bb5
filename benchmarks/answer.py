"""How long does a grounded list of ten items take, against as many tokens of plain generation?

Contenders, one after the other in each round, on the same prompts:

- ``generate``: plain, unconstrained ``model.generate`` of as many tokens in total: each row writes
  the mean length of the answers, although it would take the longest to write the same ones.
- ``prefix_allowed_tokens_fn``: ``model.generate`` held to the same lists by transformers' own hook
  and a prefix tree of nested dictionaries. It has to write the engine's answers token for token,
  and does so in the first round only.
- ``engine``: the same lists token by token, forced runs appended in one pass, rows packed, prompts
  that begin alike shared.
- ``engine, searched``: each item the best of the whole catalog at its place, which is what chats
  and lists do. It writes other items, so its ratio is that of the times of a token.

The row with most decisions sets the least number of passes; the benchmark checks that there is at
most one more for each item. Codes are random, four of 256 for each item: the time to write them
does not depend on what they mean. The time to search does: to a model that was not trained on them
they are equally likely, nothing can be left out, and what is measured is the most it can cost.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import add_device, backbone_of, interleaved, markdown, publish, shared_data

from incatalog.codes.semantic_ids import SemanticIds
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.decoding.events import Completion
from incatalog.decoding.request import Request
from incatalog.model.backbone import add_codes
from incatalog.model.spec import ModelSpec
from incatalog.packed.model import PackedModel
from incatalog.recommender.recommender import Recommender

_HOOK, _SEARCHED = "prefix_allowed_tokens_fn", "engine, searched"


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


def recommender_of(folder: Path, options: argparse.Namespace, method: str) -> Recommender:
    """A model that was not trained, on a real catalog."""
    catalog = Catalog.load(folder)
    backbone, model = backbone_of(options), options.model
    if method == "cgen":
        packed = PackedModel(backbone.model, frozen=True)
        return Recommender(backbone, ModelSpec(base=model), catalog, packed=packed)
    random = np.random.default_rng(0)
    codes = random.integers(256, size=(2 * len(catalog), 4))
    codes = np.unique(codes, axis=0)
    codes = random.permutation(codes)[: len(catalog)].astype(np.int32)
    ids = SemanticIds(codes, (256,) * 4)
    spec = ModelSpec(base=model, method="token", item_form="codes", code_sizes=ids.sizes)
    coded = add_codes(backbone, ids.sizes)
    return Recommender(coded, spec, catalog, ids, packed=PackedModel(coded.model, frozen=True))


def most_decisions(recommender: Recommender, completions: Sequence[Completion]) -> int:
    """Decisions of the answer that has most, if none of them was taken by earlier items."""
    trie = recommender.item_tokens.trie()
    return max(
        sum(len(trie.decisions(item)[0]) for item in completion.items) for completion in completions
    )


def measure(
    folder: Path, options: argparse.Namespace, method: str, batch: int
) -> list[list[object]]:
    """Rows of the table for one catalog and batch size."""
    k, rounds = options.k, options.rounds
    recommender = recommender_of(folder, options, method)
    device = recommender.backbone.model.device
    histories = Histories.load(folder, recommender.catalog)
    requests = [
        recommender.list_request(histories.history(user).tolist(), k, item_decode="token")
        for user in range(batch)
    ]
    searching = [replace(request, item_decode="search") for request in requests]
    width = max(len(request.prompt_ids) for request in requests)
    padding = [[0] * (width - len(request.prompt_ids)) for request in requests]
    pairs = list(zip(padding, requests, strict=True))
    prompts = [[*pad, *request.prompt_ids] for pad, request in pairs]
    seen = [[*pad, *([1] * len(request.prompt_ids))] for pad, request in pairs]
    ids, mask = torch.tensor(prompts, device=device), torch.tensor(seen, device=device)

    completions = recommender.engine.complete(requests)
    passes = recommender.engine.statistics.forward_passes
    searched = recommender.engine.complete(searching)
    searched_passes = recommender.engine.statistics.forward_passes - passes
    decisions = most_decisions(recommender, completions)
    assert passes <= decisions + k, (passes, decisions)
    longest = max(len(completion.token_ids) for completion in completions)
    mean = math.ceil(statistics.mean(len(completion.token_ids) for completion in completions))
    constraint = DictConstraint(recommender, requests[0], width)

    def generate(length: int, **options: Any) -> torch.Tensor:
        output: torch.Tensor = recommender.backbone.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=length,
            pad_token_id=0,
            **options,
        )
        return output[:, width:].cpu()

    def hooked() -> None:
        output = generate(longest, prefix_allowed_tokens_fn=constraint)
        for row, completion in zip(output.tolist(), completions, strict=True):
            assert tuple(row[: len(completion.token_ids)]) == completion.token_ids

    def engine() -> None:
        assert recommender.engine.complete(requests) == completions

    def search() -> None:
        # Rounding may swap two items of nearly one probability where prompts were shared before.
        assert len(recommender.engine.complete(searching)) == len(searched)

    contenders = {
        "generate": lambda: generate(mean, min_new_tokens=mean),
        "engine": engine,
        _SEARCHED: search,
    }
    seconds = interleaved({**contenders, _HOOK: hooked}, 1, warm_up=False)
    for name, more in interleaved(contenders, rounds - 1, warm_up=False).items():
        seconds[name] += more
    tokens = sum(len(completion.token_ids) for completion in completions)
    written = dict.fromkeys(seconds, tokens)
    written["generate"] = mean * batch
    written[_SEARCHED] = sum(len(completion.token_ids) for completion in searched)
    ratios = {
        name: statistics.median(
            own / base for own, base in zip(seconds[name], seconds["generate"], strict=False)
        )
        for name in seconds
    }
    ratios[_SEARCHED] *= written["generate"] / written[_SEARCHED]
    counts = {"generate": mean, _HOOK: longest, "engine": passes, _SEARCHED: searched_passes}
    return [
        [
            folder.name,
            method,
            batch,
            name,
            f"{statistics.median(seconds[name]):.2f}",
            f"{ratios[name]:.3f}",
            counts[name],
            decisions if name == "engine" else "",
            written[name],
        ]
        for name in seconds
    ]


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", nargs="+", default=["office", "games"])
    parser.add_argument("--methods", nargs="+", default=["cgen", "token"])
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="answer", help="Name of the file in results.")
    add_device(parser)
    options = parser.parse_args()
    rows: list[list[object]] = []
    for name, method, batch in itertools.product(options.data, options.methods, options.batch):
        if method == "token" and name != options.data[0]:
            continue
        folder = shared_data() / name
        rows += measure(folder, options, method, batch)
        print(*rows[-4:], sep="\n", flush=True)
    header = [
        "catalog",
        "method",
        "batch",
        "contender",
        "seconds",
        "against generate",
        "forward passes",
        "decisions",
        "tokens",
    ]
    publish(
        options.name,
        f"Time of a {options.k}-item answer, {options.model}, medians of {options.rounds} rounds",
        markdown(header, rows),
    )


if __name__ == "__main__":
    main()
