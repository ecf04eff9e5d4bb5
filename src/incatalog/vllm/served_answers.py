"""Inside vLLM's engine: holds the answers of a service to the terms that their requests bring.

A logits processor of vLLM's first model runner. A service names it when it starts its engine, so
that no speculation and no other runner can leave it out: vLLM refuses to start with either.
"""

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
from incatalog.errors import TrieError
from incatalog.vllm.answer_terms import KEY, AnswerTerms
from incatalog.vllm.shared_tries import ReadTries


@dataclass
class _Row:
    """An answer of the batch."""

    grammar: AnswerGrammar
    model: float  # what the model's scores are multiplied by where weights count
    written: list[int]  # its tokens, which vLLM appends to
    read: int = 0


class ServedAnswers(LogitsProcessor):
    """Lets each answer of a service go on only with what its terms allow."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses terms that were not written by a service of this package."""
        found = (sampling_params.extra_args or {}).get(KEY)
        if found is not None:
            AnswerTerms.from_args(found)

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002
        self._tries = ReadTries()
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """Whether the best token stays the best one: it need not."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Takes answers in that join the batch, and lets those go that leave it."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, _, written in batch_update.added:
            self._rows.pop(index, None)
            found = (params.extra_args or {}).get(KEY)
            if found is not None:
                self._rows[index] = self._row(AnswerTerms.from_args(found), written)
        for first, second, way in batch_update.moved:
            moved, other = self._rows.pop(first, None), self._rows.pop(second, None)
            if moved is not None:
                self._rows[second] = moved
            if other is not None and way == MoveDirectionality.SWAP:
                self._rows[first] = other

    def apply(self, logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
        """The scores, of which only those stay that may come next."""
        held: list[tuple[int, np.ndarray, np.ndarray | None, float]] = []
        for index, row in self._rows.items():
            self._read(row)
            grammar = row.grammar
            if grammar.ended:
                continue
            if grammar.free:
                logits[index, torch.tensor(grammar.banned(), device=logits.device)] = -torch.inf
                continue
            allowed = allowed_next([grammar])
            held.append((index, allowed.tokens, allowed.bias, row.model))
        if held:
            rows = np.repeat([one[0] for one in held], [len(one[1]) for one in held])
            tokens = np.concatenate([one[1] for one in held]).astype(np.int64)
            places = torch.from_numpy(rows).to(logits.device)
            columns = torch.from_numpy(tokens).to(logits.device)
            kept = _weighed(logits[places, columns], held)
            logits[torch.tensor([one[0] for one in held], device=logits.device)] = -torch.inf
            logits[places, columns] = kept
        return logits

    def _row(self, terms: AnswerTerms, written: list[int]) -> _Row:
        grammar = terms.grammar(self._tries.get(terms.trie))
        return _Row(grammar, 1.0 if terms.weights is None else terms.weights[0], written)

    @staticmethod
    def _read(row: _Row) -> None:
        """Takes the tokens that were written since."""
        for token in row.written[row.read :]:
            if why := row.grammar.accept(token):
                raise TrieError(f"vLLM wrote what was not allowed: {why}")
        row.read = len(row.written)


def _weighed(
    scores: Float[Tensor, " allowed"],
    held: list[tuple[int, np.ndarray, np.ndarray | None, float]],
) -> Float[Tensor, " allowed"]:
    """Scores under the weights of the items, where an answer has some."""
    if all(bias is None for _, _, bias, _ in held):
        return scores
    factors, biases = [], []
    for _, tokens, bias, model in held:
        factors.append(np.full(len(tokens), 1.0 if bias is None else model))
        biases.append(np.zeros(len(tokens)) if bias is None else bias)
    kind, device = scores.dtype, scores.device
    factor = torch.from_numpy(np.concatenate(factors)).to(device, kind)
    bias = torch.from_numpy(np.concatenate(biases)).to(device, kind)
    # Zero times minus infinity is not a number, where the weights alone decide.
    least = torch.full_like(factor, -torch.inf)
    least.masked_fill_(factor == 0, torch.finfo(kind).min)
    return torch.addcmul(bias, factor, torch.maximum(scores, least))
