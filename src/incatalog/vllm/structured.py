"""Answers held to the items as a structured output of vLLM: both runners, and drafts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
    StructuredOutputOptions,
)

from incatalog.constraint.answer_grammar import AnswerGrammar
from incatalog.vllm.answer_grammars import AnswerGrammars
from incatalog.vllm.item_request import ItemRequest

_Masks = Int32[Tensor, "rows words"]
_WORD = 32


class ItemGrammar(StructuredOutputGrammar):  # type: ignore[misc]
    """One answer, as vLLM's scheduler asks about it."""

    def __init__(self, answer: AnswerGrammar) -> None:
        """Takes the grammar of an answer that begins."""
        self.answer = answer
        self._begin = answer.fork()

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:  # noqa: ARG002 - vLLM's form
        """Moves the answer on; whether all of the tokens could come."""
        return not any(self.answer.accept(token) for token in tokens)

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """Those of the tokens, from the first on, that could come."""
        return tokens[: self.answer.accepts(tokens)]

    def rollback(self, num_tokens: int) -> None:
        """Goes back by some tokens."""
        self.answer.rollback(num_tokens)

    def fill_bitmask(self, bitmask: _Masks, batch_index: int) -> None:
        """Sets a bit for each token that may come next."""
        row = bitmask[batch_index].numpy().view(np.uint32)
        if self.answer.free:
            row[:] = ~np.uint32(0)
            tokens, clears = np.array(self.answer.banned()), True
        else:
            row[:] = 0
            tokens, clears = self.answer.allowed(), False
        bits = np.left_shift(np.uint32(1), (tokens % _WORD).astype(np.uint32))
        if clears:
            np.bitwise_and.at(row, tokens // _WORD, ~bits)
        else:
            np.bitwise_or.at(row, tokens // _WORD, bits)

    def is_terminated(self) -> bool:
        """Whether nothing may follow."""
        return self.answer.ended

    def reset(self) -> None:
        """Begins the answer anew."""
        self.answer = self._begin.fork()


class ItemBackend(StructuredOutputBackend):  # type: ignore[misc]
    """Makes the grammars of one engine; where its answers are held, vLLM has no other backend."""

    grammars: AnswerGrammars

    @classmethod
    def of(cls, manager: Any, grammars: AnswerGrammars) -> ItemBackend:
        """The backend of a `StructuredOutputManager`."""
        config = manager.vllm_config
        vocabulary = config.model_config.get_vocab_size()
        made = cls(config, tokenizer=manager.tokenizer, vocab_size=vocabulary)
        made.grammars = grammars
        return made

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,  # noqa: ARG002 - vLLM's form
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,  # noqa: ARG002 - vLLM's form
    ) -> ItemGrammar:
        """The grammar of an answer; its text is the request for items, as JSON."""
        asked = ItemRequest.parse(json.loads(grammar_spec))
        return ItemGrammar(self.grammars.grammar(asked))

    def allocate_token_bitmask(self, max_num_seqs: int) -> _Masks:
        """A row of bits for each place of the batch, all of them set."""
        words = -(-self.vocab_size // _WORD)
        return torch.full((max_num_seqs, words), -1, dtype=torch.int32)

    def destroy(self) -> None:
        """Holds nothing that has to be given back."""
