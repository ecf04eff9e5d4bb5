"""Item spans held to the catalog in plain ``model.generate``."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from reclm.decoding.answer import check_control_tokens
from reclm.decoding.constraint import ExcludedItems, SpanConstraint
from reclm.errors import NoItemLeftError, TrieError
from reclm.items.trie import ItemTrie


class ItemConstrainedLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Masks every token that would not lead to an item, for greedy, sampled and beam decoding.

    Only what follows the prompt counts: the prompt may hold spans, open ones too. One processor
    may serve any number of generations; it notices a new one by its prompt. The exception is a
    generation whose prompt is the previous prompt with exactly the tokens generated then: call
    :meth:`reset` before it.

    With beams, transformers fills up on tokens of probability zero when fewer continuations exist
    than it wants to keep. Such sequences carry a score of ``-inf`` and are not answers.

    Example::

        trie = ItemTrie.build(token_rows)
        processor = ItemConstrainedLogitsProcessor(trie, soi_token_id=…, eoi_token_id=…)
        model.generate(**inputs, logits_processor=[processor])

    Args:
        trie: Prefix tree of the items' token rows.
        soi_token_id: Token that opens an item span.
        eoi_token_id: Token that closes an item span.
        unique: Never recommend an item twice in an answer.
        excluded: Item rows that must not be recommended.
        domain: Which of the trie's catalogs to recommend from; None for the only one.
        max_items: Items of an answer at most; the text goes on without items after that.

    Raises:
        TokenizerError: A control token occurs inside an item.
        TrieError: An excluded row or the domain does not exist.
        NoItemLeftError: The exclusions leave no item to recommend.
    """

    def __init__(
        self,
        trie: ItemTrie,
        soi_token_id: int,
        eoi_token_id: int,
        unique: bool = True,
        excluded: ExcludedItems | Collection[int] | None = None,
        domain: str | None = None,
        max_items: int | None = None,
    ) -> None:
        check_control_tokens(trie, soi_token_id, eoi_token_id, ())
        if excluded is not None and not isinstance(excluded, ExcludedItems):
            excluded = ExcludedItems.build(trie, excluded)
        self._soi, self._eoi = soi_token_id, eoi_token_id
        self._max_items = max_items
        self._fresh = SpanConstraint(
            trie, eoi_token_id, excluded=excluded, unique=unique, domain=domain
        )
        if not self._fresh.can_begin():
            raise NoItemLeftError(
                f"excluded: leaves none of the {trie.num_items} items; exclude fewer"
            )
        self.reset()

    def reset(self) -> None:
        """Forgets the running generation: the next call is taken as the first of a new one."""
        self._prompts = np.empty((0, 0), dtype=np.int64)
        self._length = -1
        self._states: dict[bytes, SpanConstraint] = {}

    def __call__(
        self, input_ids: Int[Tensor, "batch length"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Returns the scores with ``-inf`` for every token that may not come next."""
        states = self._advance(input_ids.cpu().numpy())
        inside = [row for row, state in enumerate(states) if state.inside]
        outside = [row for row, state in enumerate(states) if not state.inside]
        closed = [row for row in outside if not self._may_begin(states[row])]
        if inside:
            allowed = [states[row].allowed() for row in inside]
            rows = torch.as_tensor(np.repeat(inside, [len(tokens) for tokens in allowed]))
            columns = torch.as_tensor(np.concatenate(allowed), dtype=torch.long)
            rows, columns = rows.to(scores.device), columns.to(scores.device)
            masked = torch.full_like(scores, -torch.inf)
            masked[rows, columns] = scores[rows, columns]
            if outside:
                masked[outside] = scores[outside]
        else:
            masked = scores.clone()
        masked[outside, self._eoi] = -torch.inf
        masked[closed, self._soi] = -torch.inf
        return masked

    def _may_begin(self, state: SpanConstraint) -> bool:
        left = self._max_items is None or len(state.emitted) < self._max_items
        return left and state.can_begin()

    def _advance(self, ids: Int[np.ndarray, "batch length"]) -> list[SpanConstraint]:
        """The state of every sequence, one token further than at the previous call."""
        if not self._continues(ids):
            self._prompts, self._states = ids.copy(), {b"": self._fresh}
        self._length = ids.shape[1]
        answers = np.ascontiguousarray(ids[:, self._prompts.shape[1] :])
        known: dict[bytes, SpanConstraint] = {}
        states = []
        for answer in answers:
            key = answer.tobytes()
            if key not in known:
                known[key] = self._next(answer) if len(answer) else self._fresh
            states.append(known[key])
        self._states = known
        return states

    def _continues(self, ids: Int[np.ndarray, "batch length"]) -> bool:
        start = self._prompts.shape[1]
        return (
            ids.shape[1] == self._length + 1
            and np.array_equal(ids[:, :start], self._prompts)
            and all(answer[:-1].tobytes() in self._states for answer in ids[:, start:])
        )

    def _next(self, answer: Int[np.ndarray, " length"]) -> SpanConstraint:
        state = self._states[answer[:-1].tobytes()].fork()
        token = int(answer[-1])
        if state.inside:
            try:
                state.accept(token)
            except TrieError:
                # Beam search went on with a token of probability zero.
                return self._fresh
        elif token == self._soi and self._may_begin(state):
            state.begin()
        return state
