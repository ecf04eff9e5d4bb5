"""The decoding engine: a batch of requests in, a stream of events out; token ids only.

Inside an item span the model decides only where the catalog leaves a choice; with a retriever it
decides nothing there, as the state that opens the span already says which item stands in it. What a
decision forces (the rest of a title, its closing token, the scaffold up to the next title) is fed
together with it in one forward pass, rows of a batch with runs of different lengths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from reclm.decoding.answer import Answer, check_control_tokens
from reclm.decoding.events import Completion, Event, Finished, ItemBegun, ItemDone, TextToken
from reclm.decoding.packed import PackedModel, Readout
from reclm.decoding.request import Request, Scaffold
from reclm.decoding.retrieve import ItemRetriever, Pick, check_items
from reclm.decoding.sampling import NOT_NUMBERS, choose, log_softmax
from reclm.errors import BackboneError
from reclm.items.trie import ItemTrie

__all__ = [
    "Completion",
    "Engine",
    "Event",
    "Finished",
    "ItemBegun",
    "ItemDone",
    "Request",
    "Scaffold",
    "Statistics",
    "TextToken",
]


@dataclass
class Statistics:
    """What an engine has done since it was made.

    Attributes:
        forward_passes: Calls of the model, prefill included.
        tokens_fed: Tokens the model has seen, those of the prompts included.
        decisions: Tokens the model decided on and items that were retrieved, over all rows.
    """

    forward_passes: int = 0
    tokens_fed: int = 0
    decisions: int = 0


class Engine:
    """Generates answers whose item spans are items of the trie.

    Args:
        model: A transformers causal LM, also within a PEFT wrapper.
        trie: Prefix tree of the items' token rows.
        soi_token_id: Token that opens an item span.
        eoi_token_id: Token that closes an item span.
        stop_token_ids: Tokens that end an answer.
        item_only_token_ids: Tokens that a grounded answer has inside item spans only, such as the
            codes of semantic IDs.
        retriever: Chooses the items; without one the model writes them token by token.

    Attributes:
        statistics: Counts of what was done.

    Raises:
        TokenizerError: A control token has two roles or occurs inside an item.
        BackboneError: The model cannot be fed packed rows.
        VectorError: The retriever has vectors of another number of items.
    """

    def __init__(
        self,
        model: Any,
        trie: ItemTrie,
        *,
        soi_token_id: int,
        eoi_token_id: int,
        stop_token_ids: Collection[int],
        item_only_token_ids: Collection[int] = (),
        retriever: ItemRetriever | None = None,
    ) -> None:
        if retriever is not None:
            check_items(trie, retriever)
        self._retriever = retriever
        self._trie = trie
        self._item_only = torch.tensor(sorted(item_only_token_ids), dtype=torch.int64)
        self._control = check_control_tokens(trie, soi_token_id, eoi_token_id, stop_token_ids)
        self._model = PackedModel(model)
        self.statistics = Statistics()

    def generate(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Generates one answer a request, all side by side, and tells what happens as it does.

        Events of one request come in order; those of different requests are interleaved.

        Raises:
            BackboneError: The model's scores are not numbers.
        """
        yield from self._run(self._answers(requests))

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Generates one answer a request and returns them whole, in the order of the requests."""
        answers = self._answers(requests)
        for _ in self._run(answers):
            pass
        return [answer.completion() for answer in answers]

    def _answers(self, requests: Sequence[Request]) -> list[Answer]:
        return [
            Answer(index, request, self._trie, self._control, retrieves=self._retriever is not None)
            for index, request in enumerate(requests)
        ]

    def _run(self, answers: Sequence[Answer]) -> Iterator[Event]:
        for answer in answers:
            yield from answer.start()
        while active := [answer for answer in answers if answer.finish_reason is None]:
            rows = [(answer.cache, answer.unfed()) for answer in active]
            readout = self._model.forward(rows)
            self.statistics.forward_passes += 1
            self.statistics.tokens_fed += sum(len(new) for _, new in rows)
            decisions = [
                *_decide_inside(readout, active),
                *_decide_outside(readout, active, self._item_only),
            ]
            for answer, token, logprob in decisions:
                yield from answer.take(token, logprob)
            items = self._retrieve(readout, active)
            for answer, item_row, logprob in items:
                yield from answer.take_item(item_row, logprob)
            self.statistics.decisions += len(decisions) + len(items)

    def _retrieve(
        self, readout: Readout, answers: Sequence[Answer]
    ) -> list[tuple[Answer, int, float]]:
        """Items of the answers in which a span opens now."""
        rows = [row for row, answer in enumerate(answers) if answer.awaits_item]
        if not rows or self._retriever is None:
            return []
        picks = [
            Pick(
                free=answers[row].free_rows(),
                temperature=answers[row].request.temperature,
                top_k=answers[row].request.top_k,
                top_p=answers[row].request.top_p,
                random=answers[row].random,
            )
            for row in rows
        ]
        chosen = self._retriever.pick(readout.states(rows), picks)
        return [(answers[row], *item) for row, item in zip(rows, chosen, strict=True)]


def _decide_inside(readout: Readout, answers: Sequence[Answer]) -> list[tuple[Answer, int, float]]:
    """Decisions of the answers in an item span: only the tokens the catalog allows are scored."""
    rows = [row for row, answer in enumerate(answers) if answer.inside]
    if not rows:
        return []
    allowed = [answers[row].allowed() for row in rows]
    scored = np.unique(np.concatenate(allowed))
    scores = readout.some(rows, scored).cpu().numpy()
    decisions = []
    for row, tokens, row_scores in zip(rows, allowed, scores, strict=True):
        logprobs = log_softmax(row_scores[np.searchsorted(scored, tokens)])
        chosen = _choose(answers[row], logprobs)
        decisions.append((answers[row], int(tokens[chosen]), float(logprobs[chosen])))
    return decisions


def _decide_outside(
    readout: Readout, answers: Sequence[Answer], item_only: Int64[Tensor, " tokens"]
) -> list[tuple[Answer, int, float]]:
    """Decisions of the answers outside item spans, over the whole vocabulary."""
    rows = [
        row for row, answer in enumerate(answers) if not answer.inside and not answer.awaits_item
    ]
    if not rows:
        return []
    scores = readout.full(rows)
    banned = [(number, token) for number, row in enumerate(rows) for token in answers[row].banned()]
    if banned:
        scores[tuple(torch.tensor(banned, device=scores.device).T)] = -torch.inf
    if len(item_only):
        grounded = [number for number, row in enumerate(rows) if answers[row].request.grounded]
        places = torch.tensor(grounded, dtype=torch.int64, device=scores.device)
        scores[places[:, None], item_only.to(scores.device)] = -torch.inf
    best, greedy = scores.max(dim=-1)
    if not best.isfinite().all():
        raise BackboneError(NOT_NUMBERS)
    decisions = []
    for number, (row, token) in enumerate(zip(rows, greedy.tolist(), strict=True)):
        if answers[row].request.temperature > 0:
            token = _choose(answers[row], log_softmax(scores[number].cpu().numpy()))
        decisions.append((answers[row], token, 0.0))
    return decisions


def _choose(answer: Answer, logprobs: np.ndarray) -> int:
    request = answer.request
    return choose(
        logprobs,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        random=answer.random,
    )
