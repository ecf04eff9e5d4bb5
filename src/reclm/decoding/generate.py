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
from reclm.decoding.request import Grounding, Request, Scaffold
from reclm.decoding.retrieve import ItemRetriever, Pick, check_items
from reclm.decoding.sampling import NOT_NUMBERS, choose, log_softmax
from reclm.errors import BackboneError, ConfigError
from reclm.items.trie import ItemTrie

__all__ = [
    "Completion",
    "Engine",
    "Event",
    "Finished",
    "Grounding",
    "ItemBegun",
    "ItemDone",
    "Request",
    "Scaffold",
    "Session",
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
        self._grounding = Grounding(trie, retriever)
        self._item_only = torch.tensor(sorted(item_only_token_ids), dtype=torch.int64)
        self._control = check_control_tokens(trie, soi_token_id, eoi_token_id, stop_token_ids)
        self._model = PackedModel(model)
        self.statistics = Statistics()

    def session(self) -> Session:
        """Answers to be that grow side by side, joining and leaving between steps."""
        return Session(self)

    def generate(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Generates one answer a request, all side by side, and tells what happens as it does.

        Events of one request come in order; those of different requests are interleaved.

        Raises:
            BackboneError: The model's scores are not numbers.
        """
        session = self.session()
        for request in requests:
            session.add(request)
        while session:
            yield from session.step()

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Generates one answer a request and returns them whole, in the order of the requests."""
        session = self.session()
        indices = [session.add(request) for request in requests]
        while session:
            session.step()
        return [session.completion(index) for index in indices]

    def _answer(self, index: int, request: Request) -> Answer:
        grounding = request.grounding or self._grounding
        if grounding is not self._grounding:
            self._check(grounding)
        return Answer(
            index,
            request,
            grounding.trie,
            self._control,
            retrieves=grounding.retriever is not None,
        )

    def _check(self, grounding: Grounding) -> None:
        if (grounding.retriever is None) != (self._grounding.retriever is None):
            raise ConfigError(
                "grounding: the items of one model are either all retrieved or all written"
            )
        if grounding.retriever is not None:
            check_items(grounding.trie, grounding.retriever)
        check_control_tokens(
            grounding.trie, self._control.soi, self._control.eoi, self._control.stop
        )

    def _advance(self, active: Sequence[Answer]) -> list[Event]:
        """Feeds all answers what they have not seen yet, and lets each take its next decision."""
        rows = [(answer.cache, answer.unfed()) for answer in active]
        readout = self._model.forward(rows)
        self.statistics.forward_passes += 1
        self.statistics.tokens_fed += sum(len(new) for _, new in rows)
        decisions = [
            *_decide_inside(readout, active),
            *_decide_outside(readout, active, self._item_only),
        ]
        events: list[Event] = []
        for answer, token, logprob in decisions:
            events += answer.take(token, logprob)
        items = self._retrieve(readout, active)
        for answer, item_row, logprob in items:
            events += answer.take_item(item_row, logprob)
        self.statistics.decisions += len(decisions) + len(items)
        return events

    def _retrieve(
        self, readout: Readout, answers: Sequence[Answer]
    ) -> list[tuple[Answer, int, float]]:
        """Items of the answers in which a span opens now."""
        waiting: dict[ItemRetriever, list[int]] = {}
        for row, answer in enumerate(answers):
            if answer.awaits_item:
                retriever = (answer.request.grounding or self._grounding).retriever
                assert retriever is not None
                waiting.setdefault(retriever, []).append(row)
        found: list[tuple[Answer, int, float]] = []
        for retriever, rows in waiting.items():
            picks = [_pick(answers[row]) for row in rows]
            chosen = retriever.pick(readout.states(rows), picks)
            found += [(answers[row], *item) for row, item in zip(rows, chosen, strict=True)]
        return found


class Session:
    """Answers that grow side by side; requests may join and leave between two steps.

    What one answer says does not depend on which others there are, nor on when it joined, but for
    the rounding of floating-point sums.

    Args:
        engine: Whose model and items to use.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._joined = 0
        self._begun: list[Event] = []
        self._active: dict[int, Answer] = {}
        self._finished: dict[int, Answer] = {}

    def __len__(self) -> int:
        """Number of answers that are not told to their end yet."""
        return len(self._active)

    def add(self, request: Request) -> int:
        """Lets a request join at the next step.

        Returns:
            Its index, by which its events are known.

        Raises:
            TrieError: The request's domain or exclusions are not those of its items.
            TokenizerError: A control token occurs inside one of its items.
            VectorError: Its retriever has vectors of another number of items.
            ConfigError: Its items are retrieved and the engine's are not, or the reverse.
        """
        index = self._joined
        answer = self._engine._answer(index, request)
        self._joined += 1
        self._active[index] = answer
        self._begun += answer.start()
        return index

    def cancel(self, index: int) -> None:
        """Lets a request leave; no event of it follows, and it has no completion.

        Nothing happens if it has left or finished already.
        """
        self._active.pop(index, None)
        self._begun = [event for event in self._begun if event.index != index]

    def step(self) -> list[Event]:
        """One forward pass for all answers; what happened in it, those of one answer in order.

        Raises:
            BackboneError: The model's scores are not numbers.
        """
        events, self._begun = self._begun, []
        growing = [answer for answer in self._active.values() if answer.finish_reason is None]
        if growing:
            events += self._engine._advance(growing)
        for event in events:
            if isinstance(event, Finished):
                self._finished[event.index] = self._active.pop(event.index)
        return events

    def completion(self, index: int) -> Completion:
        """The finished answer of a request; it is forgotten afterwards.

        Raises:
            KeyError: The request has not finished, was cancelled, or was handed out before.
        """
        return self._finished.pop(index).completion()


def _pick(answer: Answer) -> Pick:
    request = answer.request
    return Pick(
        free=answer.free_rows(),
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        random=answer.random,
    )


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
