"""Answers held to the items in vLLM's V1 runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from vllm.v1.sample.logits_processor.interface import (
    BatchUpdate,
    LogitsProcessor,
    MoveDirectionality,
)

from incatalog.constraint.answer_grammar import AnswerGrammar, allowed_next
from incatalog.vllm.engine_plan import plan_of
from incatalog.vllm.item_request import KEY, ItemRequest

_Scores = Float[Tensor, "rows vocab"]


class OutputTokensWanted(LogitsProcessor):  # type: ignore[misc]
    """Changes nothing: vLLM keeps the tokens of an answer up to date for named processors alone.

    Where it schedules a step before the last one has ended, it puts placeholders in the place of
    tokens, and fills them in only where a processor is named in its configuration, not where one
    is found by its entry point.
    """

    def __init__(self, *_: Any) -> None:
        """Takes what vLLM gives."""

    def is_argmax_invariant(self) -> bool:
        """Whether the best token stays the best."""
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Has none."""

    def apply(self, logits: _Scores) -> _Scores:
        """The same scores."""
        return logits


@dataclass(slots=True)
class _Answer:
    """A row of the batch: its grammar, and how much of the answer it has read."""

    grammar: AnswerGrammar
    model: float  # what the model's scores are multiplied by where items have weights
    written: list[int]  # vLLM's own list, which grows
    read: int = 0
    lost: bool = False  # whether it has left its grammar


class ItemLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Masks every token that would not lead to an item, and weighs the items of guided answers.

    A row is an answer. Where a backend of structured outputs masks, weighing is all there is to do;
    where drafts are verified too, a row is the place behind them, and they are what is forced, so
    that it is either the next decision or has no choice. Penalties come behind it, and none of them
    lifts a ban.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002 - vLLM's form
        plan = plan_of(vllm_config)
        self._grammars = plan.grammars if plan and plan.weighs else None
        self._masks = plan is not None and plan.through == "processor"
        self._drafts = plan.drafts if plan and plan.proposes else 0
        self._answers: dict[int, _Answer] = {}

    def is_argmax_invariant(self) -> bool:
        """Whether the best token stays the best; it seldom does."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows the rows of the batch as answers join, leave and move."""
        if batch_update is None or self._grammars is None:
            return
        for row in batch_update.removed:
            self._answers.pop(row, None)
        for row, params, _, written in batch_update.added:
            asked = ItemRequest.parse((params.extra_args or {}).get(KEY))
            if not (self._masks or self._grammars.weighs(asked)):
                self._answers.pop(row, None)
                continue
            grammar = self._grammars.grammar(asked, together=True)
            self._answers[row] = _Answer(grammar, self._grammars.model_share(asked), written)
        for row, other, way in batch_update.moved:
            moved, back = self._answers.pop(row, None), self._answers.pop(other, None)
            if moved is not None:
                self._answers[other] = moved
            if way == MoveDirectionality.SWAP and back is not None:
                self._answers[row] = back

    def apply(self, logits: _Scores) -> _Scores:
        """The scores, minus infinity where a token may not come next."""
        if not self._answers:
            return logits
        going: dict[int, AnswerGrammar] = {}
        for row, answer in self._answers.items():
            _read(answer)
            # vLLM may go on by a step where an answer has ended, and throws that away.
            grammar = self._behind_drafts(answer.grammar)
            if not (grammar.ended or answer.lost):
                going[row] = grammar
        free = [row for row, grammar in going.items() if grammar.free]
        held = [row for row, grammar in going.items() if not grammar.free]
        if free and self._masks:
            banned = [(row, token) for row in free for token in going[row].banned()]
            rows, tokens = torch.tensor(banned, device=logits.device).T
            logits[rows, tokens] = -torch.inf
        # Answers of one catalog are asked together.
        groups: dict[Any, list[int]] = {}
        for row in held:
            groups.setdefault(going[row].batch, []).append(row)
        for group in groups.values():
            self._hold(logits, group, [going[row] for row in group])
        return logits

    def _behind_drafts(self, grammar: AnswerGrammar) -> AnswerGrammar:
        """The answer as it stands at its row: where it is forced no further."""
        forced = grammar.forced(self._drafts) if self._drafts else []
        if forced:
            grammar = grammar.fork()
            for token in forced:
                grammar.accept(token)
        return grammar

    def _hold(self, logits: _Scores, rows: list[int], grammars: list[AnswerGrammar]) -> None:
        """Leaves these rows what they may go on with, weighed."""
        sizes, tokens, bias = allowed_next(grammars)
        device = logits.device
        at = torch.from_numpy(np.repeat(rows, sizes)).to(device)
        columns = torch.from_numpy(tokens.astype(np.int64)).to(device)
        scores = logits[at, columns]
        if bias is not None:
            models = np.repeat([self._answers[row].model for row in rows], sizes)
            scores = weighed(scores, models, bias)
        if self._masks:
            logits[rows] = -torch.inf
        logits[at, columns] = scores


def weighed(
    scores: Float[Tensor, " allowed"], models: np.ndarray, bias: np.ndarray
) -> Float[Tensor, " allowed"]:
    """Scores of allowed tokens under the weights of the items, as `decoding/choices.py` has them.

    They differ by a constant of each answer from logarithms of probabilities.
    """
    model, added = (torch.from_numpy(part).to(scores) for part in (models, bias))
    # Zero times minus infinity is not a number, where the weights alone decide.
    least = torch.full_like(model, -torch.inf)
    least.masked_fill_(model == 0, torch.finfo(scores.dtype).min)
    found = torch.addcmul(added, model, torch.maximum(scores, least))
    # What was banned stays so.
    return found.masked_fill(scores == -torch.inf, -torch.inf)


def _read(answer: _Answer) -> None:
    """Reads what the answer has said since."""
    for token in answer.written[answer.read :]:
        if answer.grammar.ended or answer.lost:
            break
        # Something beside the constraint chose another token. Where tokens go out that is an error
        # of this answer; one here would be the end of all.
        answer.lost = bool(answer.grammar.accept(token))
    answer.read = len(answer.written)
