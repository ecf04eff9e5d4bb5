"""Answers held to the items in vLLM's V2 runner, whose state stays on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor

from incatalog.trie.trie import ItemTrie
from incatalog.vllm.device_items import DeviceItems
from incatalog.vllm.engine_plan import plan_of
from incatalog.vllm.item_request import KEY, ItemRequest

_Rows = Int64[Tensor, " rows"]


class DeviceItemProcessor(LogitsProcessor):  # type: ignore[misc]
    """Masks every token that would not lead to an item.

    A row is a place of an answer: behind its last token, or behind one of its drafts. Answers stand
    in slots, and are moved over the tokens that came to stand in them since the last step.
    """

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        """Takes the configuration and the state of the requests; see vLLM's interface."""
        plan = plan_of(vllm_config)
        # Of other models nothing is masked, nor where a structured-output backend does.
        self._grammars = plan.grammars if plan and plan.through == "processor" else None
        self._states = req_states
        self._drafts: int = vllm_config.num_speculative_tokens
        self._longest: int = vllm_config.model_config.max_model_len
        self._items: dict[ItemTrie, DeviceItems] = {}
        self._of_slot: list[ItemTrie | None] = [None] * req_states.max_num_reqs
        self._fresh: set[int] = set()
        self._read = torch.zeros(
            req_states.max_num_reqs, dtype=torch.int64, device=req_states.device
        )

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Begins the answer of a request in a slot; whether scores are changed for it."""
        self._of_slot[req_idx] = None
        if self._grammars is None:
            return False
        asked = ItemRequest.parse((sampling_params.extra_args or {}).get(KEY))
        trie, excluded, form = self._grammars.parts(asked)
        used = {one for one in self._of_slot if one is not None}
        self._items = {one: kept for one, kept in self._items.items() if one in {*used, trie}}
        if trie not in self._items:
            states, known = self._states, self._grammars
            where = states.max_num_reqs, states.vocab_size, states.device
            self._items[trie] = DeviceItems(trie, known.control, known.item_only, *where)
        longest = sampling_params.max_tokens or self._longest
        self._items[trie].begin(req_idx, excluded, form, min(longest, self._longest))
        self._of_slot[req_idx] = trie
        self._fresh.add(req_idx)
        self._read[req_idx] = 0
        return True

    def apply(self, logits: Float[Tensor, "rows vocab"], ctx: Any) -> Float[Tensor, "rows vocab"]:
        """The scores, minus infinity where a token may not come next."""
        slots = ctx.idx_mapping_np.tolist()
        tries = {self._of_slot[slot] for slot in slots} - {None}
        if not tries:
            return logits
        reads = self._unread(slots)
        rows, local = ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos.long()
        # The place of the first row of each slot; other rows write to a slot that is none.
        last = torch.full_like(self._read, -1)
        last = torch.cat([last, last[:1]])
        last[torch.where(local == 0, rows, len(self._read))] = ctx.pos.long()
        last = last[:-1]
        mapping = ctx.idx_mapping.long()
        for trie in tries:
            own = [slot for slot in slots if self._of_slot[slot] is trie]
            mine = torch.zeros(len(self._read), dtype=torch.bool)
            mine[own] = True
            self._hold(logits, ctx, self._items[trie], mine.to(logits.device), mapping, last, reads)
        return logits

    def _unread(self, slots: Sequence[int]) -> int:
        """Tokens of an answer at most that came since the last step."""
        fresh = [slot for slot in slots if slot in self._fresh]
        self._fresh.difference_update(fresh)
        states = self._states
        resumed = [int(states.prefill_len.np[slot] - states.prompt_len.np[slot]) for slot in fresh]
        return max([1 + self._drafts, *resumed])

    def _hold(
        self,
        logits: Float[Tensor, "rows vocab"],
        ctx: Any,
        items: DeviceItems,
        mine: Tensor,
        mapping: _Rows,
        last: _Rows,
        reads: int,
    ) -> None:
        """Moves the answers of one catalog on, and masks their rows."""
        rules, begun, states = items.rules, self._states.prompt_len.gpu.long(), self._states
        all_tokens = states.all_token_ids.gpu
        for _ in range(reads):
            place = begun[mapping] + self._read[mapping]
            there = mine[mapping] & (place <= last[mapping])
            inner = place.clamp(max=all_tokens.shape[1] - 1)
            tokens = all_tokens[mapping, inner].long()
            moved = rules.accept(items.answers.rows(mapping), tokens)
            items.answers.put(mapping, moved, there)
            self._read[mapping] += there
        rows, local = ctx.expanded_idx_mapping.long(), ctx.expanded_local_pos.long()
        answers = items.answers.rows(rows)
        every = torch.arange(len(rows), device=rows.device)
        for draft in range(1, self._drafts + 1):
            before = answers.rows((every - 1).clamp(min=0))
            moved = rules.accept(before, ctx.input_ids.long())
            answers.put(every, moved, local == draft)
        held = mine[rows][:, None] & ~rules.allowed(answers)
        logits.masked_fill_(held, -torch.inf)
